//! What is in a layer.

use std::collections::BTreeMap;

use crate::path;

/// The list of a layer's entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Sorted by path, component by component: each folder stands before what is in it.
    pub entries: Vec<Entry>,
}

/// One file, folder or mark of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the layer's root, without `/` at either end; any bytes but NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits included (`0o7777`).
    pub mode: u32,
    /// Owner, as the container sees it.
    pub uid: u32,
    /// Group, as the container sees it.
    pub gid: u32,
    /// Time of last change of the content, seconds since 1970.
    pub mtime: i64,
    /// Extended attributes that travel with the layer.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of this many bytes.
    File {
        /// Bytes of content.
        size: u64,
    },
    /// A folder.
    Folder {
        /// Hides what lower layers have in it.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as written.
        target: Vec<u8>,
    },
    /// Another name of the file at `owner`, whose entry comes before in the list and holds mode, owner, time and
    /// attributes of both.
    HardLink {
        /// The path that comes first.
        owner: Vec<u8>,
    },
    /// A character device.
    CharacterDevice {
        /// Number of the driver.
        major: u32,
        /// Number within the driver.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Number of the driver.
        major: u32,
        /// Number within the driver.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Hides what lower layers have at this path.
    Whiteout,
}

impl Manifest {
    /// Bytes of content in all files; a file with several names counts once.
    pub fn content_bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match entry.kind {
            Kind::File { size } => size,
            _ => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// The entry at `path`.
    pub fn entry(&self, path: &[u8]) -> Option<&Entry> {
        let index = self.entries.binary_search_by(|entry| path::compare(&entry.path, path)).ok()?;
        Some(&self.entries[index])
    }
}
