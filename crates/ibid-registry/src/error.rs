//! What can go wrong with a registry. No message holds a password or a token.

use std::io;
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;

/// A failure, with the facts of it.
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
    /// The store refused.
    #[error(transparent)]
    Store(#[from] ibid_store::Error),
    /// No connection could be set up.
    #[error(transparent)]
    Fetch(#[from] ibid_fetch::Error),
    /// A configuration file that cannot be understood.
    #[error("{}{}: {reason}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// Counted from 1, where one is to blame.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A registry that is not to be used.
    #[error("`{name}` is blocked by {}", path.display())]
    Blocked {
        /// Registry and repository.
        name: String,
        /// The file that says so.
        path: PathBuf,
    },
    /// No answer came.
    #[error("{url}: {reason}")]
    Unreachable {
        /// What was asked for, without user name, password and query.
        url: String,
        /// The last failure.
        reason: String,
    },
    /// The registry's certificate is not trusted.
    #[error("the certificate of {registry} is not trusted: {reason}")]
    Certificate {
        /// Host and port.
        registry: String,
        /// Why not.
        reason: String,
    },
    /// Not allowed, with the credentials that there are.
    #[error("{registry} refuses {what}: {reason}")]
    Unauthorized {
        /// Host and port.
        registry: String,
        /// What was to be done.
        what: String,
        /// Whether there were credentials.
        had_credentials: bool,
        /// The registry's own word.
        reason: String,
    },
    /// There is no such image, manifest or blob.
    #[error("{what} is not in the registry {registry}")]
    NotFound {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// Too many requests.
    #[error("the rate limit of {registry} is reached: {reason}")]
    RateLimited {
        /// Host and port.
        registry: String,
        /// The registry's own word.
        reason: String,
        /// When it wants to be asked again, if it said.
        seconds: Option<u64>,
    },
    /// An answer that does not help.
    #[error("{url}: the registry answered with status {status}{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own word.
        reason: String,
    },
    /// An answer that breaks the protocol.
    #[error("{url}: {reason}")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes whose digest is not the one that names them.
    #[error("{what} has the digest {found}, not {expected}")]
    Digest {
        /// What came.
        what: String,
        /// Its name.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("{what} has {found} bytes instead of {expected}")]
    Size {
        /// What came.
        what: String,
        /// What the descriptor says.
        expected: u64,
        /// What came, at least.
        found: u64,
    },
    /// A document that is no image.
    #[error("{what} is no image that can be used: {reason}")]
    NoImage {
        /// What was asked for.
        what: String,
        /// Why not.
        reason: String,
    },
    /// An image, but not for this platform.
    #[error("{what} is not there for {wanted}{}", if available.is_empty() { String::new() } else { format!(", but for {}", available.join(", ")) })]
    Platform {
        /// What was asked for.
        what: String,
        /// The platform.
        wanted: String,
        /// Those that there are.
        available: Vec<String>,
    },
    /// The tag is another image's.
    #[error("the tag {reference} exists with other content, {found}")]
    TagTaken {
        /// What was to be pushed.
        reference: String,
        /// The manifest that has the tag.
        found: Digest,
    },
    /// A reference that nothing can be pushed to.
    #[error("`{reference}` names a digest, and what is pushed gets its own")]
    PushByDigest {
        /// What was given.
        reference: String,
    },
    /// A credential helper failed.
    #[error("the credential helper {helper} failed: {reason}")]
    Helper {
        /// The program.
        helper: String,
        /// Its own word.
        reason: String,
    },
    /// Another part of the same pull or push failed.
    #[error("given up")]
    Cancelled,
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes a function that adds the action and path to an I/O error.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
