//! What the tests of this crate share.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod hostile_tar;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use ibid_core::digest::DiffId;
use ibid_store::Store;
use tempfile::TempDir;

/// A store that is gone with the folder.
pub fn test_store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&folder.path().join("store")).expect("a new store");
    (folder, store)
}

/// A layer's archive.
pub fn archive(store: &Store, diff_id: &DiffId) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.write_layer_tar(diff_id, &mut bytes).expect("the layer's archive");
    bytes
}

/// Names in `tmp/`: none when nothing is under way.
pub fn left_over(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(store.root().join("tmp")).expect("the store's tmp");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// Whether owners may be set here. Says so when not.
pub fn needs_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        missing("root", "layers hold files of any owner");
    }
    root
}

/// Says that a test is skipped for want of `need`.
///
/// # Panics
///
/// When `IBID_TEST_REQUIRE` (names separated by commas, or `all`) names the need.
pub fn missing(need: &str, reason: &str) {
    let required = std::env::var("IBID_TEST_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|name| name == need || name == "all");
    assert!(!is_required, "needs {need} because {reason}");
    println!("skipped: needs {need} because {reason}");
}

/// All that a tree holds, one line an entry: type, mode, owner, time, links, attributes, content. Hard links show the
/// first of their names.
pub fn listing(tree: &Path) -> String {
    let mut lines = String::new();
    let mut first_names = BTreeMap::new();
    list_folder(tree, Path::new(""), &mut lines, &mut first_names);
    lines
}

fn list_folder(
    tree: &Path,
    folder: &Path,
    lines: &mut String,
    first_names: &mut BTreeMap<(u64, u64), String>,
) {
    let mut names: Vec<_> = fs::read_dir(tree.join(folder))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    for name in names {
        let path = folder.join(&name);
        let full = tree.join(&path);
        let status = fs::symlink_metadata(&full).expect("an entry's status");
        let file_type = status.file_type();
        let shown = path.as_os_str().as_bytes().escape_ascii().to_string();
        let letter = if file_type.is_dir() {
            "folder"
        } else if file_type.is_symlink() {
            "link"
        } else if file_type.is_char_device() {
            "char"
        } else if file_type.is_block_device() {
            "block"
        } else if file_type.is_fifo() {
            "pipe"
        } else {
            "file"
        };
        if file_type.is_char_device() && status.rdev() == 0 {
            // Its mode and time have no meaning, and overlay makes all whiteouts of a mount names of one file.
            lines.push_str(&format!("whiteout {shown}\n"));
            continue;
        }
        lines.push_str(&format!(
            "{letter} {shown} {:o} {}:{} {}.{}",
            status.mode() & 0o7777,
            status.uid(),
            status.gid(),
            status.mtime(),
            status.mtime_nsec(),
        ));
        if file_type.is_symlink() {
            let target = fs::read_link(&full).expect("a link");
            lines.push_str(&format!(" -> {}", target.as_os_str().as_bytes().escape_ascii()));
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            lines.push_str(&format!(" {}", status.rdev()));
        }
        if file_type.is_file() {
            let content = fs::read(&full).expect("a file");
            let digest = ibid_core::digest::Digest::of(&content).hex();
            lines.push_str(&format!(" {} {}", content.len(), &digest[..8]));
        }
        if file_type.is_file() || file_type.is_dir() {
            for (name, value) in xattrs(&full) {
                lines.push_str(&format!(" {name}={}", value.escape_ascii()));
            }
        }
        if !file_type.is_dir() && status.nlink() > 1 {
            let first = first_names.entry((status.dev(), status.ino())).or_insert_with(|| shown.clone());
            lines.push_str(&format!(" same as {first}"));
        }
        lines.push('\n');
        if file_type.is_dir() {
            list_folder(tree, &path, lines, first_names);
        }
    }
}

/// Extended attributes, sorted.
pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).expect("attributes");
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).expect("an attribute");
        value.truncate(length);
        value
    };
    names.map(|name| (String::from_utf8_lossy(name).into_owned(), value(name))).collect()
}
