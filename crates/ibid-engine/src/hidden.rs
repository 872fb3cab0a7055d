//! What a build put into the code folder and a mount of the code would hide: virtual environments, folders of node
//! modules, compiled extensions. Looked for once for an image and kept in the build cache, as it is the same for ever.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use ibid_store::{Found, MergedView, Store};

use crate::native::{Error, io};

/// How many folders are looked at; code has fewer.
const FOLDERS_MAX: usize = 20_000;
/// How many finds are kept.
const FOUND_MAX: usize = 50;

/// What was built in `folder`, the code folder of an image: paths relative to it, sorted.
pub fn built(store: &Store, image: &Digest, folder: &str) -> Result<Vec<String>, Error> {
    let key = Digest::of(format!("built in the code folder, 1\n{image}\n{folder}").as_bytes());
    if let Some(known) = store.cache(&key)? {
        // The first line says that there is a value.
        return Ok(String::from_utf8_lossy(&known).lines().skip(1).map(str::to_owned).collect());
    }
    let configuration = store.image(image)?;
    let view = MergedView::new(store.lowers(&configuration.rootfs.diff_ids));
    let found = look(&view, folder).map_err(io("look at", Path::new(folder)))?;
    let value =
        std::iter::once("built").chain(found.iter().map(String::as_str)).collect::<Vec<_>>().join("\n");
    store.put_cache(&key, value.as_bytes())?;
    Ok(found)
}

fn look(view: &MergedView, folder: &str) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = vec![PathBuf::new()];
    let mut looked_at = 0;
    while let Some(relative) = rest.pop() {
        looked_at += 1;
        if looked_at > FOLDERS_MAX || found.len() >= FOUND_MAX {
            break;
        }
        let Some(Found::Folder(parts)) = view.find(&Path::new(folder).join(&relative))? else { continue };
        let entries = merged(&parts)?;
        let text = relative.to_str();
        if !relative.as_os_str().is_empty() && entries.iter().any(|(name, _)| name == "pyvenv.cfg") {
            found.extend(text.map(str::to_owned));
            continue;
        }
        for (name, is_folder) in entries {
            let path = relative.join(&name);
            // A path that is no text cannot be named in ibid.toml.
            let Some(text) = path.to_str() else { continue };
            match is_folder {
                true if name == "node_modules" => found.push(text.to_owned()),
                true if name == ".git" => {}
                true => rest.push(path),
                false if text.ends_with(".so") => found.push(text.to_owned()),
                false => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The names in a folder that is made up of others, topmost first, and whether each is a folder.
fn merged(parts: &[PathBuf]) -> std::io::Result<Vec<(OsString, bool)>> {
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for part in parts {
        for entry in std::fs::read_dir(part)? {
            let entry = entry?;
            if !seen.insert(entry.file_name()) {
                continue;
            }
            let kind = entry.file_type()?;
            // Marks what a layer below has and this one took away.
            let is_removed = kind.is_char_device() && entry.metadata()?.rdev() == 0;
            if !is_removed {
                entries.push((entry.file_name(), kind.is_dir()));
            }
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_builds_leave_is_found_in_all_layers() {
        let place = tempfile::tempdir().expect("a folder");
        let file = |path: &str| {
            let path = place.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "").expect("written");
        };
        for path in [
            "low/code/venv/pyvenv.cfg",
            "low/code/venv/lib/x.so",
            "low/code/web/node_modules/a/b.js",
            "low/code/train.py",
            "top/code/pkg/_fast.cpython-311-x86_64-linux-gnu.so",
            "top/code/pkg/__init__.py",
            "low/other/lib.so",
        ] {
            file(path);
        }
        let view = MergedView::new(["top", "low"].map(|layer| place.path().join(layer)).to_vec());
        assert_eq!(
            look(&view, "/code").expect("readable"),
            ["pkg/_fast.cpython-311-x86_64-linux-gnu.so", "venv", "web/node_modules"]
        );
        assert_eq!(look(&view, "/none").expect("readable"), Vec::<String>::new());
    }
}
