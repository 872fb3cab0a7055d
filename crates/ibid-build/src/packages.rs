//! Which packages are in an image, by the notes that package managers leave in it: Debian's and Alpine's lists, and the
//! folders and files that Python and conda keep beside what they install.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ibid_core::digest::Digest;
use ibid_store::{MergedView, Store};

use crate::image_diff::Files;

/// More of a package manager's list is not read.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// Who installed a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manager {
    /// Debian's dpkg.
    Debian,
    /// Alpine's apk.
    Alpine,
    /// pip and other installers of Python's packages.
    Python,
    /// conda.
    Conda,
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "debian",
            Self::Alpine => "alpine",
            Self::Python => "python",
            Self::Conda => "conda",
        })
    }
}

/// Versions by manager and name. Where one is installed several times, its versions are separated by commas.
pub type Packages = BTreeMap<(Manager, String), String>;

/// The packages in an image.
pub fn packages(store: &Store, image: &Digest) -> Result<Packages, ibid_store::Error> {
    let layers = store.image(image)?.rootfs.diff_ids;
    let files = Files::of(store, &layers)?;
    let view = MergedView::new(store.layer_trees(&layers));
    let read = |path: &str| {
        let io = |source| ibid_store::Error::Io { action: "read", path: Path::new(path).to_owned(), source };
        let content = view.read(Path::new(path), LIST_BYTES_MAX).map_err(io)?;
        Ok::<_, ibid_store::Error>(content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let mut found = Found::default();
    if let Some(list) = read("/var/lib/dpkg/status")? {
        found.debian(&list);
    }
    if let Some(list) = read("/lib/apk/db/installed")? {
        found.alpine(&list);
    }
    for path in files.paths() {
        let Ok(path) = std::str::from_utf8(path) else { continue };
        // Images without a package manager have a file for each package.
        if path.starts_with("var/lib/dpkg/status.d/")
            && !path.ends_with(".md5sums")
            && let Some(list) = read(&format!("/{path}"))?
        {
            found.debian(&list);
        }
        found.path(path);
    }
    Ok(found.0)
}

#[derive(Default)]
struct Found(Packages);

impl Found {
    fn add(&mut self, manager: Manager, name: &str, version: &str) {
        if name.is_empty() || version.is_empty() {
            return;
        }
        let versions = self.0.entry((manager, name.to_owned())).or_default();
        if versions.is_empty() {
            versions.push_str(version);
        } else if versions.split(", ").all(|other| other != version) {
            versions.push_str(", ");
            versions.push_str(version);
        }
    }

    /// Paragraphs of dpkg's status file (deb822). What is removed but for its settings is not there.
    fn debian(&mut self, list: &str) {
        for paragraph in list.split("\n\n") {
            let field = |name: &str| {
                let mut lines = paragraph.lines();
                lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
            };
            if field("Status").is_none_or(|status| status.ends_with(" installed")) {
                self.add(
                    Manager::Debian,
                    field("Package").unwrap_or_default(),
                    field("Version").unwrap_or_default(),
                );
            }
        }
    }

    /// Paragraphs of apk's list, with a letter for each field.
    fn alpine(&mut self, list: &str) {
        for paragraph in list.split("\n\n") {
            let field =
                |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            self.add(Manager::Alpine, field("P:"), field("V:"));
        }
    }

    /// `…/numpy-1.26.4.dist-info/METADATA`, `…/six-1.16.0.egg-info` and `conda-meta/numpy-1.26.4-py311_0.json`.
    fn path(&mut self, path: &str) {
        let mut parts = path.rsplit('/');
        let (file, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let of_python = match file {
            "METADATA" => folder.strip_suffix(".dist-info"),
            "PKG-INFO" => folder.strip_suffix(".egg-info"),
            file => file.strip_suffix(".egg-info"),
        };
        if let Some((name, rest)) = of_python.and_then(|name| name.split_once('-')) {
            let version = rest.split("-py").next().unwrap_or(rest);
            // One project is written in several ways (PyPA, "Names and normalization").
            let name = name.to_lowercase().replace(['_', '.'], "-");
            self.add(Manager::Python, &name, version);
        }
        if folder == "conda-meta"
            && let Some(stem) = file.strip_suffix(".json")
        {
            let mut parts = stem.rsplitn(3, '-').skip(1);
            let (version, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            self.add(Manager::Conda, name, version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(found: Found) -> Vec<String> {
        found.0.iter().map(|((manager, name), version)| format!("{manager} {name} {version}")).collect()
    }

    #[test]
    fn lists_of_package_managers_are_read() {
        let mut found = Found::default();
        found.debian(
            "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9+deb12u4\nDescription: C\n Version: no\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
             Package: tzdata\nVersion: 2024a\n",
        );
        found.debian("Package: libc6\nStatus: install ok installed\nVersion: 2.37\nArchitecture: i386\n");
        found.alpine("C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\n\nP:busybox\nV:1.36.1-r5\n\n");
        assert_eq!(
            shown(found),
            [
                "debian libc6 2.36-9+deb12u4, 2.37",
                "debian tzdata 2024a",
                "alpine busybox 1.36.1-r5",
                "alpine musl 1.2.4-r2"
            ]
        );
    }

    #[test]
    fn notes_of_python_are_read() {
        let check = |path: &str, expected: &[&str]| {
            let mut found = Found::default();
            found.path(path);
            assert_eq!(shown(found), expected, "{path}");
        };
        check("usr/lib/python3/dist-packages/numpy-1.24.2.dist-info/METADATA", &["python numpy 1.24.2"]);
        check("venv/site-packages/Jinja2-3.1.2.dist-info/METADATA", &["python jinja2 3.1.2"]);
        check("site-packages/ruamel.yaml-0.18.dist-info/METADATA", &["python ruamel-yaml 0.18"]);
        check("site-packages/numpy-1.24.2.dist-info/RECORD", &[]);
        check("usr/lib/python3/dist-packages/six-1.16.0.egg-info", &["python six 1.16.0"]);
        check("site-packages/a_b-1.0-py3.11.egg-info/PKG-INFO", &["python a-b 1.0"]);
        check(
            "opt/conda/conda-meta/ca-certificates-2024.2.2-hbcca054_0.json",
            &["conda ca-certificates 2024.2.2"],
        );
        check("opt/conda/conda-meta/history", &[]);
        check("METADATA", &[]);
    }
}
