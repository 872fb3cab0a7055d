//! Paths within a layer: bytes relative to its root, without `/` at either end.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest path an entry may have. Longer ones cannot be given to any system call.
pub(crate) const PATH_BYTES_MAX: usize = 4095;

/// The order of entries in a layer: component by component, so that a folder is followed by all that is in it.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    // Paths of a deep tree begin alike: what is alike is passed over quickly.
    let differing = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
    // A separator sorts below every byte a name can hold.
    let rank = |&byte: &u8| if byte == b'/' { 0 } else { byte };
    a[differing..].iter().map(rank).cmp(b[differing..].iter().map(rank))
}

/// A path that sorts as [`compare`] says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LayerPath(pub(crate) Vec<u8>);

impl Ord for LayerPath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for LayerPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The folder that holds the entry; empty for one in the layer's root.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(b"", |slash| &path[..slash])
}

/// The entry's own name.
pub(crate) fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(path, |slash| &path[slash + 1..])
}

/// `folder/name`, where an empty folder is the root.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(folder.len() + 1 + name.len());
    if !folder.is_empty() {
        path.extend_from_slice(folder);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Whether `path` is somewhere below `folder`.
pub(crate) fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/"))
}

/// For system calls and messages.
pub(crate) fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// For messages.
pub(crate) fn to_path(path: &[u8]) -> PathBuf {
    as_path(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_followed_by_their_content() {
        let mut paths = ["a.b", "a/c", "a", "a-b", "a/b/d", "a/b", "ab", "a/b.c"];
        paths.sort_by(|a, b| compare(a.as_bytes(), b.as_bytes()));
        assert_eq!(paths, ["a", "a/b", "a/b/d", "a/b.c", "a/c", "a-b", "a.b", "ab"]);
    }
}
