//! Base images from signed Debian packages.
//!
//! ```text
//! host's apt sources, or `mirror` ─archive→ release files, signature verified against the keyring
//!                                               │ SHA-256
//!                                           package indexes ─index→ ─solve→ LockedBase (ibid.lock)
//!                                                                               │ SHA-256
//! LockedBase ─make→ package files, kept by hash ─unpack→ root file system ─configure→ layer, image
//! ```
//!
//! Invariants:
//! - [`resolve`] believes nothing that no key of the keyring vouches for; [`make`] believes nothing but the lock.
//! - The image depends only on the lock and the epoch: not on the machine, its clock, the mirror that was
//!   asked, or the order in which things were done in parallel.
//! - No mirror's name is written in this crate.
//! - A failure leaves nothing behind but package files and indexes whose digests were right.

mod apt_conf;
mod archive;
mod base;
mod configure;
mod database;
mod date;
mod deb822;
mod error;
mod host;
mod index;
mod keyring;
mod lock;
mod package;
mod relation;
mod release;
mod root;
mod slim;
mod solve;
mod sources;
mod unpack;
mod version;

use std::path::{Path, PathBuf};

pub use base::make;
pub use error::Error;
pub use host::Host;
pub use lock::{LockedBase, LockedPackage, LockedSource};

/// What a base is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseSpec {
    /// The suite by its code name; none means the host's own.
    pub suite: Option<String>,
    /// Packages beside those that every system has: `name` or `name=version`.
    pub packages: Vec<String>,
    /// An archive to use in place of the host's apt sources.
    pub mirror: Option<String>,
    /// A file of OpenPGP keys to verify with, in place of those that the host trusts.
    pub keyring: Option<PathBuf>,
    /// Areas of the archive; none means `main`.
    pub components: Vec<String>,
    /// Architecture in Debian's names; see [`host_architecture`].
    pub architecture: String,
}

impl BaseSpec {
    /// The areas of the archive to choose from.
    pub(crate) fn components(&self) -> impl Iterator<Item = &str> {
        let default = if self.components.is_empty() { Some("main") } else { None };
        default.into_iter().chain(self.components.iter().map(String::as_str))
    }
}

/// What happens meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A release file or package index is being fetched.
    Fetching {
        /// From where, without credentials.
        url: String,
        /// Its size where that is known.
        bytes: Option<u64>,
    },
    /// The packages are known.
    Resolved {
        /// How many.
        packages: usize,
        /// Bytes of their files.
        bytes: u64,
    },
    /// Package files are being fetched.
    Fetched {
        /// Bytes that are here.
        bytes: u64,
        /// Bytes of all packages.
        total: u64,
    },
    /// Packages are being unpacked.
    Unpacked {
        /// How many are.
        packages: usize,
        /// How many there are.
        total: usize,
    },
    /// A package is being configured.
    Configuring {
        /// Its name.
        package: String,
        /// How many were configured before it.
        packages: usize,
        /// How many there are.
        total: usize,
    },
    /// A line that a package's script wrote.
    Output {
        /// Without the line's end.
        line: String,
    },
}

/// This machine's architecture in Debian's names; nothing for one that Debian has no name for.
pub fn host_architecture() -> Option<&'static str> {
    Some(match (std::env::consts::ARCH, cfg!(target_endian = "little")) {
        ("x86_64", _) => "amd64",
        ("x86", _) => "i386",
        ("aarch64", _) => "arm64",
        ("arm", _) => "armhf",
        ("powerpc64", true) => "ppc64el",
        ("riscv64", _) => "riscv64",
        ("s390x", _) => "s390x",
        ("mips64", true) => "mips64el",
        ("loongarch64", _) => "loong64",
        _ => return None,
    })
}

/// Chooses the packages of a base from the newest indexes of its suite.
///
/// Release files are verified as of `now` (seconds since 1970); package indexes are kept in `cache`.
pub fn resolve(
    spec: &BaseSpec,
    host: &Host,
    cache: &Path,
    now: i64,
    progress: &(dyn Fn(Event) + Sync),
) -> Result<LockedBase, Error> {
    let suite = match &spec.suite {
        Some(suite) => suite.clone(),
        None => host.codename.clone().ok_or(Error::NoSuite)?,
    };
    let transport = host.transport();
    let finder = archive::Finder { host, transport: &transport, spec, now, progress };
    let archives = finder.archives(&suite)?;
    let index = finder.index(&archives, cache)?;
    let chosen = solve::solve(&index, &spec.architecture, &suite, &spec.packages)?;
    let packages = chosen
        .into_iter()
        .map(|id| {
            let package = index.package(id);
            LockedPackage {
                name: package.name().to_owned(),
                version: package.version().to_owned(),
                architecture: package.architecture().to_owned(),
                sha256: package.digest(),
                size: package.size(),
                filename: package.filename().to_owned(),
                source: package.source(),
            }
        })
        .collect();
    let lock = LockedBase {
        suite,
        architecture: spec.architecture.clone(),
        asked: spec.packages.clone(),
        sources: archives.iter().map(archive::Archive::locked).collect(),
        packages,
    };
    progress(Event::Resolved { packages: lock.packages.len(), bytes: lock.size() });
    Ok(lock)
}
