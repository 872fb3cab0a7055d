//! What can go wrong, each kind with its facts.

use std::path::{Path, PathBuf};

/// A base image could not be resolved or made. Nothing of it is kept.
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
    /// An apt sources file that cannot be understood.
    #[error("{}{}: {reason}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    InvalidSources {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1, where the form has lines of its own.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// The host is no Debian and the base names no suite.
    #[error(
        "this machine's /etc/os-release names no Debian suite; write `suite = \"bookworm\"` (or another) in the base's table of ibid.toml"
    )]
    NoSuite,
    /// The host has no sources for the suite and the base names no mirror.
    #[error(
        "this machine has no apt sources for `{suite}`; write `mirror = \"http://HOST/debian\"` and `keyring = \"/PATH/TO/debian-archive-keyring.gpg\"` in the base's table of ibid.toml"
    )]
    NoSources {
        /// The suite asked for.
        suite: String,
    },
    /// Sources for the suite exist, and none is of a Debian archive.
    #[error("none of this machine's apt sources for `{suite}` is a distribution's own archive: {}", found.join(", "))]
    OnlyForeignSources {
        /// The suite asked for.
        suite: String,
        /// URI and origin of each.
        found: Vec<String>,
    },
    /// No source offers a component that the base asks for.
    #[error("no apt source for `{suite}` has the component `{component}`")]
    NoComponent {
        /// The suite.
        suite: String,
        /// The component.
        component: String,
    },
    /// No key is there to verify with.
    #[error(
        "no keyring found to verify {url}; looked in {}; install the package debian-archive-keyring, or write `keyring = \"/PATH/TO/KEYRING.gpg\"` in the base's table of ibid.toml",
        list(looked)
    )]
    NoKeyring {
        /// What was to be verified.
        url: String,
        /// Where a keyring could have been.
        looked: Vec<PathBuf>,
    },
    /// A keyring that holds no OpenPGP keys.
    #[error("keyring {}: {reason}", path.display())]
    InvalidKeyring {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something could not be fetched.
    #[error(transparent)]
    Fetch(#[from] ibid_fetch::Error),
    /// The locked package has vanished from every known mirror.
    #[error("{package} {version} is no longer on {}; refresh the lock with `ibid build --update`", mirrors.join(", "))]
    PackageGone {
        /// Package name.
        package: String,
        /// Locked version.
        version: String,
        /// The mirrors that were asked.
        mirrors: Vec<String>,
    },
    /// The release file is no OpenPGP signed text.
    #[error("{url}: not a signed release file: {reason}")]
    NotSigned {
        /// The release file.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// No signature is by a key of the keyring.
    #[error("{url}: signed by {}, none of which is in the keyring", keys.join(", "))]
    UnknownKey {
        /// The release file.
        url: String,
        /// Issuers of the signatures.
        keys: Vec<String>,
    },
    /// Known keys, and no signature that holds.
    #[error("{url}: bad signature: {}", reasons.join("; "))]
    BadSignature {
        /// The release file.
        url: String,
        /// What is wrong with each signature.
        reasons: Vec<String>,
    },
    /// The release file is past its time, as on a mirror that no longer follows.
    #[error(
        "{url}: the release file expired at {valid_until}; the mirror is out of date, or this machine's clock is wrong"
    )]
    ExpiredRelease {
        /// The release file.
        url: String,
        /// Its `Valid-Until`, RFC 3339.
        valid_until: String,
    },
    /// The release file is of a time to come.
    #[error(
        "{url}: the release file is of {date}, which is in the future; this machine's clock may be wrong"
    )]
    FutureRelease {
        /// The release file.
        url: String,
        /// Its `Date`, RFC 3339.
        date: String,
    },
    /// A file that is signed and still cannot be used.
    #[error("{url}: {reason}")]
    InvalidRelease {
        /// The file.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A package index that cannot be read.
    #[error("{url}: {reason}")]
    InvalidIndex {
        /// The index.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A package that the suite does not have.
    #[error("there is no package `{name}` in {suite}{}", nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    UnknownPackage {
        /// What was asked for.
        name: String,
        /// The suite.
        suite: String,
        /// A name that is nearly the same.
        nearest: Option<String>,
    },
    /// A version that the suite does not have.
    #[error("{suite} has no version `{version}` of `{name}`, only {}", available.join(", "))]
    UnknownVersion {
        /// Package name.
        name: String,
        /// The version asked for.
        version: String,
        /// The suite.
        suite: String,
        /// Versions that are there.
        available: Vec<String>,
    },
    /// A name that only other packages provide.
    #[error("`{name}` is no package but a name that {} provide; name one of them", providers.join(", "))]
    VirtualPackage {
        /// What was asked for.
        name: String,
        /// Packages that provide it.
        providers: Vec<String>,
    },
    /// A dependency that nothing satisfies.
    #[error("{package} {version} depends on `{dependency}`, which {reason}")]
    Unsatisfied {
        /// The package with the dependency.
        package: String,
        /// Its version.
        version: String,
        /// The group of alternatives, as written.
        dependency: String,
        /// Why none will do.
        reason: String,
    },
    /// Two packages that exclude each other.
    #[error("{package} cannot be installed together with {other}: {field}: {relation}")]
    Conflict {
        /// Name and version of the package that says so.
        package: String,
        /// Name and version of the package it excludes.
        other: String,
        /// `Conflicts` or `Breaks`.
        field: &'static str,
        /// The relation, as written.
        relation: String,
    },
    /// A package of another processor architecture.
    #[error("packages for `{architecture}` cannot be configured on this machine, which is `{host}`")]
    ForeignArchitecture {
        /// The base's architecture in Debian's names.
        architecture: String,
        /// This machine's.
        host: String,
    },
    /// A package file that cannot be read, or that tries what it may not.
    #[error("{package}: {reason}")]
    InvalidPackage {
        /// Name of the package.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// Two packages bring the same file.
    #[error("{package} and {other} both contain /{path}")]
    FileConflict {
        /// The package that came later.
        package: String,
        /// The package that has it already.
        other: String,
        /// Path in the image, without the leading slash.
        path: String,
    },
    /// Configuration failed.
    #[error("configuring the packages failed: {what}{}", output.iter().map(|line| format!("\n    {line}")).collect::<String>())]
    Configure {
        /// The script or program, and how it ended.
        what: String,
        /// The last lines it wrote.
        output: Vec<String>,
    },
    /// A lock entry that cannot be used.
    #[error("the lock is not usable: {reason}")]
    InvalidLock {
        /// What is wrong.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ibid_store::Error),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] ibid_sandbox::Error),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Turns a system error into [`Error::Io`] with its path.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}
