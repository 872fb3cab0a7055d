//! dpkg's database of the packages that were unpacked without it: `/var/lib/dpkg` as it would be after
//! `dpkg --unpack` of all of them, so that dpkg itself configures them and apt goes on from there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::deb822::Paragraph;
use crate::error::Error;
use crate::root::Root;

/// What is known of an unpacked package.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub name: String,
    /// The stem of its files in dpkg's `info` folder.
    pub info_name: String,
    pub fields: Paragraph,
    /// Other control files by name.
    pub control: BTreeMap<String, Vec<u8>>,
    /// Paths as the package has them, absolute, in its order.
    pub paths: Vec<String>,
    /// Configuration files with the MD5 of what was unpacked.
    pub configuration: Vec<(String, String)>,
}

/// Folders that dpkg expects.
const FOLDERS: [&str; 5] = [
    "var/lib/dpkg/alternatives",
    "var/lib/dpkg/info",
    "var/lib/dpkg/parts",
    "var/lib/dpkg/triggers",
    "var/lib/dpkg/updates",
];

/// Writes the database. `packages` are in order of their names.
pub(crate) fn write(root: &Root, packages: &[Unpacked]) -> Result<(), Error> {
    for folder in FOLDERS {
        root.folder(folder).map_err(root.failed(folder))?;
    }
    root.write("var/lib/dpkg/info/format", b"1\n", 0o644)?;
    root.write("var/lib/dpkg/available", b"", 0o644)?;
    let mut status = String::new();
    for package in packages {
        add_status(&mut status, package);
        for (name, bytes) in &package.control {
            let path = format!("var/lib/dpkg/info/{}.{name}", package.info_name);
            let is_program = matches!(name.as_str(), "preinst" | "postinst" | "prerm" | "postrm" | "config");
            root.write(&path, bytes, if is_program { 0o755 } else { 0o644 })?;
        }
        let mut list = String::new();
        for path in &package.paths {
            list.push_str(path);
            list.push('\n');
        }
        root.write(&format!("var/lib/dpkg/info/{}.list", package.info_name), list.as_bytes(), 0o644)?;
    }
    root.write("var/lib/dpkg/status", status.as_bytes(), 0o644)?;
    for (name, content) in triggers(packages) {
        root.write(&format!("var/lib/dpkg/triggers/{name}"), content.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn add_status(status: &mut String, package: &Unpacked) {
    let _ = writeln!(status, "Package: {}\nStatus: install ok unpacked", package.name);
    for (name, value) in package.fields.fields() {
        if name.eq_ignore_ascii_case("Package") || name.eq_ignore_ascii_case("Status") {
            continue;
        }
        let _ = write!(status, "{name}:");
        for (number, line) in value.split('\n').enumerate() {
            let separator = if number == 0 && line.is_empty() { "" } else { " " };
            let _ = writeln!(status, "{separator}{line}");
        }
    }
    if !package.configuration.is_empty() {
        status.push_str("Conffiles:\n");
        for (path, hash) in &package.configuration {
            let _ = writeln!(status, " {path} {hash}");
        }
    }
    status.push('\n');
}

/// Who wants to hear of what: the file `File` for paths, and a file for each other name.
fn triggers(packages: &[Unpacked]) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::from([("Unincorp".to_owned(), String::new())]);
    for package in packages {
        let Some(text) = package.control.get("triggers") else { continue };
        for line in String::from_utf8_lossy(text).lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let suffix = match words.next() {
                Some("interest" | "interest-await") => "",
                Some("interest-noawait") => "/noawait",
                _ => continue,
            };
            let Some(name) = words.next() else { continue };
            // dpkg names a package with its architecture only where there can be others.
            let who = format!("{}{suffix}", package.info_name);
            if name.starts_with('/') {
                let _ = writeln!(files.entry("File".to_owned()).or_default(), "{name} {who}");
            } else if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte)) {
                let _ = writeln!(files.entry(name.to_owned()).or_default(), "{who}");
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb822::Paragraphs;

    fn package(name: &str, control: &str, triggers: &str) -> Unpacked {
        Unpacked {
            name: name.to_owned(),
            info_name: name.to_owned(),
            fields: Paragraphs::new(control.as_bytes()).next().expect("reads").expect("a paragraph"),
            control: BTreeMap::from([("triggers".to_owned(), triggers.as_bytes().to_vec())]),
            paths: Vec::new(),
            configuration: vec![("/etc/a".to_owned(), "00".to_owned())],
        }
    }

    #[test]
    fn status_keeps_all_fields() {
        let control = "Package: a\nVersion: 1\nDescription: short\n long\n .\n  indented\nX:\n 1\n";
        let mut status = String::new();
        add_status(&mut status, &package("a", control, ""));
        assert_eq!(
            status,
            "Package: a\nStatus: install ok unpacked\nVersion: 1\nDescription: short\n long\n .\n  indented\nX:\n 1\n\
             Conffiles:\n /etc/a 00\n\n"
        );
    }

    #[test]
    fn interests_are_collected() {
        let packages = [
            package("a", "Package: a\n", "interest /usr/share/x\nactivate-noawait ldconfig\n# interest no\n"),
            package("b", "Package: b\n", "interest-noawait /usr/share/x\ninterest ldconfig\ninterest ../x\n"),
        ];
        let files = triggers(&packages);
        assert_eq!(files.get("File").map(String::as_str), Some("/usr/share/x a\n/usr/share/x b/noawait\n"));
        assert_eq!(files.get("ldconfig").map(String::as_str), Some("b\n"));
        assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), ["File", "Unincorp", "ldconfig"]);
    }
}
