//! A snapshot that is put together from files that come one after the other, as an archive or git hands them out.
//!
//! What is given is stored by content at once; folders are stored when all is there. The snapshot's digest is then that which
//! [`crate::snapshot::take`] would have given of the same files.

use std::collections::BTreeMap;
use std::io::{self, Read};

use ibid_core::digest::Digest;

use crate::ledger::{Error, Ledger};
use crate::objects::{Objects, Writer};
use crate::snapshot::tree::{self, TreeEntry, What};

/// A snapshot in the making.
pub struct Assembly<'a> {
    writer: Writer<'a>,
    top: Node,
}

/// A path that has no place among those before it, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misplaced(pub &'static str);

impl<'a> Assembly<'a> {
    pub(crate) fn begin(objects: &'a Objects) -> Result<Self, Error> {
        Ok(Self { writer: objects.writer()?, top: Node::default() })
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.top.0.is_empty()
    }

    /// Adds a file. The outer error is the ledger's, or that of reading; the path's parts are whole names.
    pub fn add_file(
        &mut self,
        path: &[u8],
        executable: bool,
        content: &mut impl Read,
    ) -> Result<Result<(), Misplaced>, AssemblyError> {
        let (digest, bytes) = self.writer.put_stream(content)??;
        Ok(self.top.add(path, Some(What::File { digest, bytes, executable })))
    }

    /// Adds a symbolic link.
    pub fn add_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Misplaced> {
        self.top.add(path, Some(What::Link { target: target.into() }))
    }

    /// Adds a folder, which may be empty.
    pub fn add_folder(&mut self, path: &[u8]) -> Result<(), Misplaced> {
        self.top.add(path, None)
    }

    /// Stores the folders. Returns the snapshot, which is on the disk then.
    pub fn finish(self) -> Result<Digest, Error> {
        let digest = self.top.store(&self.writer)?;
        self.writer.finish()?.settle()?;
        Ok(digest)
    }
}

/// Puts a snapshot together in a ledger. `fill` adds everything.
pub fn assemble<E: From<Error>>(
    ledger: &Ledger,
    fill: impl FnOnce(&mut Assembly) -> Result<(), E>,
) -> Result<Digest, E> {
    ledger.prepare()?;
    let objects = Objects::of(ledger);
    let mut assembly = Assembly::begin(&objects)?;
    fill(&mut assembly)?;
    Ok(assembly.finish()?)
}

/// Why a file could not be added.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] Error),
    /// Its content could not be read.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// A folder as it comes.
#[derive(Default)]
struct Node(BTreeMap<Box<[u8]>, Place>);

enum Place {
    Leaf(What),
    Folder(Node),
}

impl Node {
    /// Adds what is no folder, or with none a folder.
    fn add(&mut self, path: &[u8], what: Option<What>) -> Result<(), Misplaced> {
        let mut node = self;
        let mut parts = path.split(|byte| *byte == b'/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none()
                && let Some(what) = what
            {
                return match node.0.insert(part.into(), Place::Leaf(what)) {
                    None => Ok(()),
                    Some(_) => Err(Misplaced("it comes twice")),
                };
            }
            let place = node.0.entry(part.into()).or_insert_with(|| Place::Folder(Self::default()));
            match place {
                Place::Folder(inner) => node = inner,
                Place::Leaf(_) => return Err(Misplaced("it is in what is no folder")),
            }
        }
        Ok(())
    }

    /// Stores this folder and those in it; returns its digest.
    fn store(self, writer: &Writer) -> Result<Digest, Error> {
        let mut entries = Vec::with_capacity(self.0.len());
        for (name, place) in self.0 {
            let what = match place {
                Place::Leaf(what) => what,
                Place::Folder(node) => What::Folder(node.store(writer)?),
            };
            entries.push(TreeEntry { name, what });
        }
        let content = tree::encode(&entries);
        let digest = Digest::of(&content);
        writer.put(&digest, &content)?;
        Ok(digest)
    }
}
