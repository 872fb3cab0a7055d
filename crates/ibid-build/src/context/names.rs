//! The names in a folder, sorted: as they are read, or as they are remembered from when the folder was last read.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;

use ibid_files::folder_cache::KnownFolder;
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

/// Where the system writes what it lists.
pub(super) type Buffer = Vec<MaybeUninit<u8>>;

/// One that takes some hundred names at a time.
pub(super) fn buffer() -> Buffer {
    vec![MaybeUninit::uninit(); 32 * 1024]
}

/// The names in a folder.
pub(super) struct Names {
    /// Of each its path, ended by a zero. In one piece, since there are many.
    paths: Arc<[u8]>,
    /// Length of the folder's own path with the `/`.
    skip: usize,
    names: Vec<Position>,
}

/// Where a name is.
#[derive(Clone, Copy)]
struct Position {
    start: usize,
    /// Of the zero.
    end: usize,
    may_be_folder: bool,
}

/// A name in a folder.
pub(super) struct Name<'a> {
    /// All the paths that it is among.
    pub(super) paths: &'a Arc<[u8]>,
    pub(super) start: usize,
    pub(super) end: usize,
    skip: usize,
    /// It is a folder, or the file system does not tell.
    pub(super) may_be_folder: bool,
}

impl<'a> Name<'a> {
    /// The folder's path and the name.
    pub(super) fn path(&self) -> &'a [u8] {
        &self.paths[self.start..self.end]
    }

    /// Only the name.
    pub(super) fn bytes(&self) -> &'a [u8] {
        &self.paths[self.start + self.skip..self.end]
    }

    /// The name for the system.
    pub(super) fn for_system(&self) -> &'a CStr {
        CStr::from_bytes_until_nul(&self.paths[self.start + self.skip..]).expect("each is ended by a zero")
    }
}

/// Names that are collected.
struct Collected {
    /// The folder's path with the `/`.
    prefix: Vec<u8>,
    paths: Vec<u8>,
    names: Vec<Position>,
}

impl Collected {
    fn of(folder: &[u8]) -> Self {
        let prefix = if folder.is_empty() { Vec::new() } else { [folder, b"/"].concat() };
        Self { prefix, paths: Vec::new(), names: Vec::new() }
    }

    fn add(&mut self, name: &[u8], may_be_folder: bool) {
        let start = self.paths.len();
        self.paths.extend(&self.prefix);
        self.paths.extend(name);
        self.names.push(Position { start, end: self.paths.len(), may_be_folder });
        self.paths.push(0);
    }

    fn finish(self) -> Names {
        Names { paths: self.paths.into(), skip: self.prefix.len(), names: self.names }
    }
}

impl Names {
    /// Reads them.
    pub(super) fn read(fd: impl AsFd, folder: &[u8], buffer: &mut Buffer) -> Result<Self, Errno> {
        let mut collected = Collected::of(folder);
        let mut listing = RawDir::new(fd, buffer);
        while let Some(name) = listing.next() {
            let name = name?;
            let may_be_folder = matches!(name.file_type(), FileType::Directory | FileType::Unknown);
            let name = name.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                collected.add(name, may_be_folder);
            }
        }
        let paths = collected.paths.as_slice();
        collected.names.sort_unstable_by(|a, b| paths[a.start..a.end].cmp(&paths[b.start..b.end]));
        Ok(collected.finish())
    }

    /// Those that are remembered; none where that makes no sense.
    pub(super) fn remembered(known: &KnownFolder, folder: &[u8]) -> Option<Self> {
        let mut collected = Collected::of(folder);
        let mut names = known.names();
        for name in names.by_ref() {
            let is_one = !matches!(name.name, b"" | b"." | b"..")
                && !name.name.iter().any(|byte| matches!(byte, b'/' | 0));
            if !is_one {
                return None;
            }
            collected.add(name.name, name.may_be_folder);
        }
        names.is_at_end().then(|| collected.finish())
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The names in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Name<'_>> {
        self.names.iter().map(|&Position { start, end, may_be_folder }| Name {
            paths: &self.paths,
            start,
            end,
            skip: self.skip,
            may_be_folder,
        })
    }
}
