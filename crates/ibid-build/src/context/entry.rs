//! One path of a context: what it is, and the marks by which a change of it is noticed.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ibid_files::beneath::open_beneath;
use ibid_files::stamp::Stamp;
use rustix::fs::{FileType, OFlags};

use super::{Context, Error};

/// A path of a context.
#[derive(Debug)]
pub struct Entry {
    /// Its path is among others: there are many entries, and memory for each alone would cost more than it holds.
    paths: Arc<[u8]>,
    path: Range<usize>,
    /// What is there.
    pub kind: Kind,
    stamp: Stamp,
    content: OnceLock<Content>,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its owner may execute it. All that is kept of its mode: 755 if so, else 644.
        executable: bool,
    },
    /// A folder.
    Folder,
    /// A symbolic link.
    Link {
        /// Where it points, as it is written.
        target: Box<[u8]>,
    },
    /// A socket, pipe or device.
    Special,
}

/// The bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// BLAKE3.
    pub(super) hash: [u8; 32],
    pub(super) size: u64,
}

impl Entry {
    /// `path` is where in `paths` its path is.
    pub(super) fn new(paths: Arc<[u8]>, path: Range<usize>, kind: Kind, stamp: Stamp) -> Self {
        Self { paths, path, kind, stamp, content: OnceLock::new() }
    }

    /// Relative to the context's root, clean.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path_bytes()))
    }

    /// Size in bytes of a file; 0 for everything else.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File { .. } => self.stamp.size,
            _ => 0,
        }
    }

    pub(super) fn path_bytes(&self) -> &[u8] {
        &self.paths[self.path.clone()]
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The content, once it has been read or found in the cache.
    pub(super) fn content(&self) -> Option<&Content> {
        self.content.get()
    }

    pub(super) fn set_content(&self, content: Content) {
        // Two threads that read the same file at once have read what each of them read; the first stays.
        let _ = self.content.set(content);
    }
}

/// A file opened for reading.
#[derive(Debug)]
pub(super) struct OpenFile<'a> {
    entry: &'a Entry,
    fd: OwnedFd,
    stamp: Stamp,
}

const BUFFER_BYTES: usize = 256 * 1024;

thread_local! {
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Context {
    pub(super) fn open_file<'a>(&self, entry: &'a Entry) -> Result<OpenFile<'a>, Error> {
        let failed = |errno: rustix::io::Errno| match errno {
            // It is a link, a folder or nothing now.
            rustix::io::Errno::NOENT
            | rustix::io::Errno::LOOP
            | rustix::io::Errno::NOTDIR
            | rustix::io::Errno::NXIO => Error::Changed { path: self.path_of(entry) },
            errno => Error::Io { action: "read", path: self.path_of(entry), source: errno.into() },
        };
        // Should a pipe have taken the file's place, opening it must not wait for a writer.
        let fd = open_beneath(&self.root_fd, entry.path_bytes(), OFlags::RDONLY | OFlags::NONBLOCK)
            .map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Changed { path: self.path_of(entry) });
        }
        Ok(OpenFile { entry, fd, stamp: Stamp::of(&stat) })
    }
}

/// The content of a file, read piece by piece.
#[derive(Debug)]
pub(crate) struct ContentReader<'a> {
    context: &'a Context,
    file: OpenFile<'a>,
    left: u64,
    hasher: blake3::Hasher,
}

impl Context {
    /// Opens a file to be read piece by piece; [`ContentReader::finish`] says whether it was what it should be.
    pub(crate) fn read_file<'a>(&'a self, entry: &'a Entry) -> Result<ContentReader<'a>, Error> {
        let file = self.open_file(entry)?;
        let left = entry.content().map_or(file.size(), |content| content.size);
        Ok(ContentReader { context: self, file, left, hasher: blake3::Hasher::new() })
    }
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = rustix::io::retry_on_intr(|| rustix::io::read(&self.file.fd, &mut buffer[..want]))?;
        self.hasher.update(&buffer[..got]);
        self.left -= got as u64;
        Ok(got)
    }
}

impl ContentReader<'_> {
    /// Reads what is left. When [`Context::digest`] has read the file before, the bytes were the same, or this fails with
    /// [`Error::Changed`].
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        let path = || self.context.path_of(self.file.entry);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(source) => return Err(Error::Io { action: "read", path: path(), source }),
            }
        }
        let is_same = self
            .file
            .entry
            .content()
            .is_none_or(|content| content.hash == *self.hasher.finalize().as_bytes());
        if self.left == 0 && is_same { Ok(()) } else { Err(Error::Changed { path: path() }) }
    }
}

impl OpenFile<'_> {
    /// Size in bytes when it was opened.
    pub(super) fn size(&self) -> u64 {
        self.stamp.size
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Reads the first `size` bytes and gives their BLAKE3 hash. What is appended meanwhile, as to a log,
    /// does not count; when bytes are missing, that is [`Error::Changed`].
    pub(super) fn read(
        &mut self,
        context: &Context,
        size: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<[u8; 32], Error> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(BUFFER_BYTES, 0);
            let mut hasher = blake3::Hasher::new();
            let mut left = size;
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
                match rustix::io::read(&self.fd, &mut buffer[..want]) {
                    Ok(0) => return Err(Error::Changed { path: context.path_of(self.entry) }),
                    Ok(got) => {
                        hasher.update(&buffer[..got]);
                        each(&buffer[..got])?;
                        left -= got as u64;
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => {
                        let path = context.path_of(self.entry);
                        return Err(Error::Io { action: "read", path, source: errno.into() });
                    }
                }
            }
            Ok(*hasher.finalize().as_bytes())
        })
    }
}
