//! What can go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};

use ibid_core::digest::{DiffId, Digest};
use ibid_core::reference::Reference;

/// A failure of the store, with the facts of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, such as `open`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The bytes of an archive could not be read from, or written to, where the caller said.
    #[error("cannot {action} the archive of a layer")]
    Stream {
        /// `read` or `write`.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The store was made by a newer ibid.
    #[error("the store `{}` has format {found}; this ibid knows formats up to {known}", path.display())]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// What its `format` file says.
        found: String,
        /// The newest format known here.
        known: u32,
    },
    /// A store of others cannot be used.
    #[error("the additional store `{}` cannot be used", path.display())]
    Additional {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Box<Error>,
    },
    /// A file of the store does not hold what its name promises.
    #[error("`{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
    /// The store has no such blob.
    #[error("the store holds no blob {digest}")]
    NoBlob {
        /// What was asked for.
        digest: Digest,
    },
    /// The store has no such layer.
    #[error("the store holds no layer {diff_id}")]
    NoLayer {
        /// What was asked for.
        diff_id: DiffId,
    },
    /// A reference whose parts cannot be a file name.
    #[error("`{reference}` cannot be stored as a tag")]
    InvalidTag {
        /// What was given.
        reference: Reference,
    },
    /// A file changed while a layer was made from it.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// An entry that no archive can hold.
    #[error("`{}` cannot be put in a layer: {reason}", path.display())]
    Unrepresentable {
        /// The entry, relative to the layer's root.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The owner of an entry has no meaning in this user namespace.
    #[error("`{}` belongs to user {uid} and group {gid}, which have no id here", path.display())]
    UnmappedOwner {
        /// The entry, relative to the layer's root.
        path: PathBuf,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// An archive that is no tar archive, or that ends too soon.
    #[error("the archive is damaged at byte {offset}: {reason}")]
    InvalidArchive {
        /// Where the bad header or content starts.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The bytes of an archive of plain files could not be read or written.
    #[error("cannot {action} the archive")]
    PlainArchive {
        /// `read` or `write`.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// An archive that holds another layer than was promised.
    #[error("the archive of the layer {expected} holds {found}")]
    OtherLayer {
        /// What was promised.
        expected: DiffId,
        /// What it is.
        found: DiffId,
    },
    /// A file that could hold images, and holds none.
    #[error("the archive holds no image")]
    NoImage,
    /// A file with images in which something is not as it must be.
    #[error("`{name}` {reason}")]
    InvalidImage {
        /// What of it.
        name: String,
        /// What is wrong with that.
        reason: String,
    },
    /// A layer in a file with images cannot be unpacked.
    #[error("`{name}` cannot be unpacked")]
    InvalidLayer {
        /// What it is called there.
        name: String,
        /// Why not.
        source: Box<Error>,
    },
    /// Something is compressed in a way that is not read.
    #[error("it is compressed with {program}, which is not read")]
    UnknownCompression {
        /// The program that decompresses it.
        program: &'static str,
    },
    /// An entry of an archive that must not be unpacked.
    #[error("the archive's entry `{}` is refused: {reason}", path.display())]
    RefusedEntry {
        /// The name in the archive.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
}

impl Error {
    /// Makes a function that adds the action and path to an I/O error.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source: source.into() }
    }
}
