//! One file with all that a run needs to be repeated elsewhere, without registry and network.
//!
//! ```text
//! ibid-run.json            {"schema", "run", "files": {path: {"bytes", "digest"}}}: first, for who reads once
//! record.json              the record, to the byte
//! ro-crate-metadata.json   the run for other programs (see `research_object`)
//! run.intoto.json
//! log…, metrics.jsonl      what else the ledger has of the run
//! code/…                   the snapshot, which the record names by its digest
//! outputs/…, data/…        when asked for, by their paths in the project
//! image.tar                the image, in the OCI image layout; last
//! ```
//!
//! A tar archive, perhaps in Zstandard. The same run gives the same bytes. Nobody vouches for an archive: reading one proves
//! that its parts belong together, by the digests of the record, and not that they are what the record claims.

mod receive;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ibid_core::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::run_id::RunId;

pub use receive::{Received, receive};
pub use write::{Choice, write};

/// Version of the archive's layout.
const SCHEMA: u32 = 1;

const MANIFEST: &str = "ibid-run.json";
const RECORD: &str = "record.json";
const IMAGE: &str = "image.tar";
const CODE: &str = "code";
const OUTPUTS: &str = "outputs";
const DATA: &str = "data";

/// What an archive holds, in its first entry.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    schema: u32,
    run: RunId,
    /// All files but those that the record vouches for by itself: the code and the image.
    files: BTreeMap<String, Listed>,
}

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    bytes: u64,
    digest: Digest,
}

/// Why an archive of a run cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::Error),
    /// The store, or the archive itself.
    #[error(transparent)]
    Store(#[from] ibid_store::Error),
    /// A file or folder refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A path that the archive has no way to list.
    #[error("the name of {} is not UTF-8, and the archive lists files by their names", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// The data is no longer what the run read.
    #[error("{path} is not what the run read: its files were changed or touched since")]
    OtherData {
        /// The data input.
        path: String,
    },
    /// It is no archive of a run.
    #[error("it is no archive of a run: {reason}")]
    Foreign {
        /// What is wrong.
        reason: String,
    },
    /// It was written by a newer ibid.
    #[error("it is of version {version}, and this ibid knows up to {SCHEMA}")]
    Newer {
        /// Its version.
        version: u64,
    },
    /// Something in it is not what the record or its list says.
    #[error("{name} is not what the archive says: {reason}")]
    Untrue {
        /// Of which part.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests;
