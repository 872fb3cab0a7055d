//! The ledger of a project: the folder `.ibid/`, which git ignores by itself.
//!
//! ```text
//! .ibid/.gitignore             `*`
//! .ibid/runs/<id>/record.json  the Record; written once, when everything is known
//! .ibid/runs/<id>/alive        while the run is recorded: by whom, and how its program started and ended (see `alive`)
//! .ibid/runs/<id>/start.json   of a run that is not over at once: what is known while it goes on (a Record with status `running`)
//! .ibid/runs/<id>/log          what the program wrote (see `log`)
//! .ibid/runs/<id>/metrics.jsonl  every value of each metric: {"name", "step", "value", "time"}
//! .ibid/runs/<id>/outputs/     contents of outputs that are compared within a tolerance (see `output_content`)
//! .ibid/runs/<id>/marks.json   what people add later: tags and notes
//! .ibid/removed/<id>/          runs that `ibid rm` took away, for `ibid restore`
//! .ibid/objects/               contents of snapshots (see `objects`)
//! .ibid/files                  what the project's files held when they were last read; can be lost
//! ```
//!
//! Files are written under a temporary name, synced and renamed; two processes never write the same run.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::alive;
use crate::record::{Record, SCHEMA, Status};
use crate::run_id::RunId;

/// Name of the ledger's folder in the project.
pub use ibid_core::run::LEDGER_FOLDER as FOLDER;

/// The ledger of one project.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
}

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file of the ledger is not what ibid writes.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A content that a snapshot or a record refers to is not there.
    #[error("the content {digest} is missing from {}", folder.display())]
    MissingObject {
        /// Its digest.
        digest: Digest,
        /// The folder of contents.
        folder: PathBuf,
    },
    /// A content is not what it was when it was stored.
    #[error("the content {digest} in {} is damaged: {reason}", path.display())]
    DamagedObject {
        /// Its digest.
        digest: Digest,
        /// The file that holds it.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the project kept changing while it was read.
    #[error("{} keeps changing", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// A file of the ledger was written by a newer ibid.
    #[error("{} is of version {version}, and this ibid knows up to {SCHEMA}", path.display())]
    Newer {
        /// The path.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// No such run.
    #[error(transparent)]
    Unresolved(#[from] crate::run_id::UnresolvedRunId),
}

impl Ledger {
    /// The ledger of the project in `root`. Nothing is made or looked at.
    pub fn of(root: &Path) -> Self {
        Self { folder: root.join(FOLDER) }
    }

    /// `.ibid`
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder, with the file that hides it from git.
    pub fn prepare(&self) -> Result<(), Error> {
        self.refuse_links()?;
        let ignore = self.folder.join(".gitignore");
        let runs = self.folder.join("runs");
        if ignore.exists() && runs.exists() {
            return Ok(());
        }
        fs::create_dir_all(&runs).map_err(io("make the folder", &runs))?;
        write(&ignore, b"*\n")?;
        [&self.folder, &runs, &ignore].into_iter().try_for_each(|path| self.give(path))
    }

    /// Root writes through no link that the project's owner could have made.
    fn refuse_links(&self) -> Result<(), Error> {
        if self.other_owner()?.is_none() {
            return Ok(());
        }
        let inner = ["runs", "removed", "objects", "cache"].map(|name| self.folder.join(name));
        refuse_links(std::iter::once(&self.folder).chain(&inner).map(PathBuf::as_path))
    }

    /// Gives what root made in the ledger to whom the project belongs.
    pub fn give(&self, path: &Path) -> Result<(), Error> {
        match self.other_owner()? {
            Some(owner) => ibid_sys::owner::change_path(path, owner)
                .map_err(|errno| io("set the owner of", path)(errno.into())),
            None => Ok(()),
        }
    }

    /// As [`Self::give`], an open file.
    pub(crate) fn give_file(&self, file: &fs::File) -> Result<(), Error> {
        match self.other_owner()? {
            Some(owner) => ibid_sys::owner::change(file, owner)
                .map_err(|errno| io("set the owner of a file in", &self.folder)(errno.into())),
            None => Ok(()),
        }
    }

    /// The project's owner, when this process is root and root is not the one.
    pub(crate) fn other_owner(&self) -> Result<Option<ibid_sys::owner::Owner>, Error> {
        use std::os::unix::fs::MetadataExt as _;
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let project = self.folder.parent().unwrap_or(Path::new("/"));
        let metadata = fs::metadata(project).map_err(io("read", project))?;
        Ok(Some((metadata.uid(), metadata.gid())).filter(|(uid, gid)| *uid != 0 || *gid != 0))
    }

    /// Where everything of a run is.
    pub fn run_folder(&self, id: RunId) -> PathBuf {
        self.folder.join("runs").join(id.to_string())
    }

    /// All runs, in no order. Names in the folder that are no run's are passed over.
    pub fn ids(&self) -> Result<Vec<RunId>, Error> {
        let runs = self.folder.join("runs");
        let entries = match fs::read_dir(&runs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("read", &runs)(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io("read", &runs))?;
            ids.extend(entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()));
        }
        Ok(ids)
    }

    /// The run that `text`, the start of its name, means.
    pub fn resolve(&self, text: &str) -> Result<RunId, Error> {
        Ok(RunId::resolve(text, self.ids()?)?)
    }

    /// What is recorded of a run: at its end, or else what is known so far. A run that nobody records any more and whose end nobody
    /// saw is [`Status::Lost`].
    pub fn read(&self, id: RunId) -> Result<Record, Error> {
        let folder = self.run_folder(id);
        let is_missing = |result: &Result<Record, Error>| matches!(result, Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound);
        let record = read_record(&folder.join("record.json"));
        if !is_missing(&record) {
            return record;
        }
        let is_recorded = alive::is_held(&folder);
        let early = read_early(&folder);
        // It may have ended since the first look.
        let record = read_record(&folder.join("record.json"));
        if !is_missing(&record) {
            return record;
        }
        let mut early = early?;
        if !is_recorded {
            match early.status {
                Status::Running => early.status = Status::Lost,
                _ => early.warnings.push(CUT_SHORT.to_owned()),
            }
        }
        Ok(early)
    }
}

/// What is known of the run in a folder before there is its record.
pub(crate) fn read_early(folder: &Path) -> Result<Record, Error> {
    let (end, start) = alive::read(folder);
    if let Some(end) = end {
        return Ok(end);
    }
    match (read_record(&folder.join("start.json")), start) {
        // It says more.
        (Err(Error::Io { .. }), Some(start)) => Ok(start),
        (start, _) => start,
    }
}

/// Reads a record, of this or an older version.
pub fn read_record(path: &Path) -> Result<Record, Error> {
    let text = fs::read(path).map_err(io("read", path))?;
    parse_record(path, &text)
}

/// The record in `text`; `path` is what errors name.
pub fn parse_record(path: &Path, text: &[u8]) -> Result<Record, Error> {
    let damaged =
        |error: serde_json::Error| Error::Damaged { path: path.to_owned(), reason: error.to_string() };
    #[derive(serde::Deserialize)]
    struct Version {
        schema: u64,
    }
    let version: Version = serde_json::from_slice(text).map_err(damaged)?;
    if version.schema > u64::from(SCHEMA) {
        return Err(Error::Newer { path: path.to_owned(), version: version.schema });
    }
    serde_json::from_slice(text).map_err(damaged)
}

/// Reads any JSON file of the ledger.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(io("read", path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// What is said of a run whose ibid was ended after its program.
const CUT_SHORT: &str =
    "ibid ended before it had looked at the outputs: they and the metrics are not recorded";

/// As [`write_json`], in a folder of this process alone or of a file that another replaces soon: nothing is waited for.
pub(crate) fn write_unsynced(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let temporary = temporary(path);
    let result = fs::write(&temporary, json(path, value)?).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(io("write", path))
}

fn json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    text.push(b'\n');
    Ok(text)
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().expect("a file of the ledger has a name").to_string_lossy();
    // Another thread, or a process with this number on another machine, may write the same file.
    let drawn = RunId::random().map_or_else(|_| std::process::id().to_string(), |drawn| drawn.to_string());
    path.with_file_name(format!(".{name}.{drawn}"))
}

/// Writes any JSON file of the ledger so that it is there whole or not at all.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    write(path, &json(path, value)?)
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let temporary = temporary(path);
    let result = fs::File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(io("write", path))
}

/// Refuses paths that are links, where root writes in somebody else's project.
pub(crate) fn refuse_links<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), Error> {
    for path in paths {
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            let source = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is a symbolic link of another user's, which root does not follow",
            );
            return Err(io("write to", path)(source));
        }
    }
    Ok(())
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
