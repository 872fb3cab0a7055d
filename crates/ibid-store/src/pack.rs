//! Manifest and tree → tar archive.
//!
//! One thread reads the tree and composes the archive in large blocks, another takes the blocks: so reading and
//! hashing (or compressing) overlap, each file is read once, and memory does not depend on the layer's size.

use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{Mode, OFlags};

use crate::header;
use crate::manifest::{Entry, Kind, Manifest};
use crate::path::{self, as_path};
use crate::scan::find_folder;
use crate::{Error, Result};

/// Size of a block, and how many are under way.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_COUNT: usize = 4;

/// Gives the archive of `manifest`, whose files are below `tree`, to `take`, block by block.
pub(crate) fn pack(
    manifest: &Manifest,
    tree: BorrowedFd<'_>,
    tree_path: &Path,
    take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    in_chunks(take, |chunks| {
        let mut files = Files::new(tree, tree_path);
        for entry in &manifest.entries {
            header::append(&mut chunks.filling, entry);
            if let Kind::File { size } = entry.kind {
                append_content(chunks, entry, size, &mut files)?;
            }
            chunks.pass_on_if_full()?;
        }
        header::append_end(&mut chunks.filling);
        Ok(())
    })
}

/// Bytes of the archive that [`pack`] makes.
pub(crate) fn packed_size(manifest: &Manifest) -> u64 {
    let mut headers = Vec::new();
    let mut bytes = 0_u64;
    for entry in &manifest.entries {
        headers.clear();
        header::append(&mut headers, entry);
        let content = match entry.kind {
            Kind::File { size } => size.next_multiple_of(header::BLOCK_BYTES as u64),
            _ => 0,
        };
        bytes = bytes.saturating_add(headers.len() as u64 + content);
    }
    headers.clear();
    header::append_end(&mut headers);
    bytes.saturating_add(headers.len() as u64)
}

fn append_content(chunks: &mut Chunks, entry: &Entry, size: u64, files: &mut Files) -> Result<()> {
    if size == 0 {
        return Ok(());
    }
    let file = files.open(&entry.path)?;
    let shown = || files.tree_path.join(as_path(&entry.path));
    let copied = chunks.append_from(file, size).map_err(|failure| match failure {
        Failure::Read(source) => Error::io("read", &shown())(source),
        Failure::Gone => gone(),
    })?;
    if copied != size {
        return Err(Error::Changed { path: shown() });
    }
    let padding = size.next_multiple_of(header::BLOCK_BYTES as u64) - size;
    chunks.filling.resize(chunks.filling.len() + padding as usize, 0);
    Ok(())
}

/// The files of a tree, opened for reading and through no link.
pub(crate) struct Files<'a> {
    tree: BorrowedFd<'a>,
    tree_path: &'a Path,
    /// The folder of the last one: the next is most often beside it.
    folder: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(tree: BorrowedFd<'a>, tree_path: &'a Path) -> Self {
        Self { tree, tree_path, folder: None }
    }

    pub(crate) fn open(&mut self, path: &[u8]) -> Result<std::fs::File> {
        let failed = |errno| Error::io("open", &self.tree_path.join(as_path(path)))(errno);
        let parent = path::parent(path);
        let folder = match self.folder.take() {
            Some(last) if last.0 == parent => last,
            _ => (parent.to_vec(), find_folder(self.tree, parent).map_err(failed)?),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (_, folder) = self.folder.insert(folder);
        rustix::fs::openat(folder, path::name(path), flags, Mode::empty()).map(Into::into).map_err(failed)
    }
}

/// Runs `compose` on another thread and gives what it fills to `take`.
pub(crate) fn in_chunks(
    mut take: impl FnMut(&[u8]) -> Result<()>,
    compose: impl FnOnce(&mut Chunks) -> Result<()> + Send,
) -> Result<()> {
    let (full_sender, full_receiver) = sync_channel::<Vec<u8>>(CHUNK_COUNT);
    let (empty_sender, empty_receiver) = sync_channel::<Vec<u8>>(CHUNK_COUNT);
    for _ in 1..CHUNK_COUNT {
        // Cannot block: there is room for all.
        let _ = empty_sender.send(Vec::new());
    }
    std::thread::scope(|scope| {
        let composer = scope.spawn(move || {
            let mut chunks =
                Chunks { filling: Vec::with_capacity(CHUNK_BYTES), full: full_sender, empty: empty_receiver };
            compose(&mut chunks)?;
            chunks.pass_on()
        });
        let mut taken = Ok(());
        while let Ok(mut chunk) = full_receiver.recv() {
            taken = take(&chunk);
            if taken.is_err() {
                break;
            }
            chunk.clear();
            let _ = empty_sender.send(chunk);
        }
        // The composer stops at its next chunk.
        drop((full_receiver, empty_sender));
        let composed = composer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(composed)
    })
}

/// The composer's end: a chunk being filled, and the way out for full ones.
pub(crate) struct Chunks {
    pub(crate) filling: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

/// Why content could not be added.
pub(crate) enum Failure {
    Read(io::Error),
    Gone,
}

impl Chunks {
    /// Passes the chunk on when there is little room left in it.
    pub(crate) fn pass_on_if_full(&mut self) -> Result<()> {
        if self.filling.len() < CHUNK_BYTES - 16 * header::BLOCK_BYTES { Ok(()) } else { self.pass_on() }
    }

    fn pass_on(&mut self) -> Result<()> {
        let mut next = self.empty.recv().map_err(|_| gone())?;
        next.reserve(CHUNK_BYTES);
        self.full.send(std::mem::replace(&mut self.filling, next)).map_err(|_| gone())
    }

    /// Reads `size` bytes and passes on what gets full. Returns how many there were, `size` + 1 for more than that.
    pub(crate) fn append_from(&mut self, mut file: impl Read, size: u64) -> Result<u64, Failure> {
        let mut copied = 0;
        loop {
            if self.filling.len() >= CHUNK_BYTES {
                self.pass_on().map_err(|_| Failure::Gone)?;
            }
            let start = self.filling.len();
            // One byte more than expected shows a file that has grown, without another call.
            let wanted = (size - copied + 1).min((CHUNK_BYTES - start) as u64) as usize;
            self.filling.resize(start + wanted, 0);
            let count = loop {
                match file.read(&mut self.filling[start..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Failure::Read(error)),
                    Ok(count) => break count,
                }
            };
            self.filling.truncate(start + count);
            copied += count as u64;
            if copied > size {
                return Ok(copied);
            }
            // A short read of a regular file is its end; a full one may have stopped at the chunk's end.
            if count == 0 || (copied == size && count < wanted) {
                return Ok(copied);
            }
        }
    }
}

/// The taker has failed and left; its own error is the one reported.
pub(crate) fn gone() -> Error {
    Error::Stream { action: "write", source: io::ErrorKind::BrokenPipe.into() }
}
