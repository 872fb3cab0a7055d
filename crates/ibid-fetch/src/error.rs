//! What can go wrong on the way.

use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;

/// Something could not be had. Nothing of it is kept. URLs are without user names and passwords.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of this machine could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What came could not be written.
    #[error("cannot keep what comes from {url}")]
    Write {
        /// What was fetched.
        url: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A URL whose scheme or form is not supported.
    #[error("{uri}: {reason}")]
    UnsupportedUri {
        /// The URL.
        uri: String,
        /// Why not.
        reason: String,
    },
    /// A server could not be reached, or broke off, in every try.
    #[error("{url} could not be fetched: {reason}")]
    Unreachable {
        /// What was fetched.
        url: String,
        /// The last failure.
        reason: String,
    },
    /// The server answered that it has no such file.
    #[error("{url}: not found on the server")]
    NotFound {
        /// What was fetched.
        url: String,
    },
    /// The server refused.
    #[error("{url}: the server answered with status {status}")]
    Refused {
        /// What was fetched.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// More bytes came than may be.
    #[error("{url}: longer than the {limit} bytes that are expected")]
    TooLong {
        /// What was fetched.
        url: String,
        /// The most that may come.
        limit: u64,
    },
    /// Fewer bytes came than were promised.
    #[error("{url}: broke off after {found} of {expected} bytes")]
    Truncated {
        /// What was fetched.
        url: String,
        /// The promised size.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// Bytes whose digest is not the one that was vouched for.
    #[error("{url}: the content has digest {found}, not {expected}")]
    HashMismatch {
        /// What was fetched.
        url: String,
        /// The digest that was vouched for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// There is no `git` program.
    #[error("git is not installed")]
    NoGit,
    /// Git could not do it.
    #[error("git cannot fetch {remote}: {message}")]
    Git {
        /// The repository.
        remote: String,
        /// The last lines that it wrote.
        message: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{remote} has no branch or tag `{reference}`")]
    NoReference {
        /// The repository.
        remote: String,
        /// What was asked for.
        reference: String,
    },
    /// Whoever asked wants it no more.
    #[error("given up")]
    Cancelled,
}

/// Turns a system error into [`Error::Io`] with its path.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}
