//! Runs that are going on, so that other processes of the same user find them: one file a run, in the store's folder `live`.
//!
//! ```text
//! live/                 0700: the files hold environments
//! live/<run id>         LiveRun, as JSON; locked by the ibid that executes it
//! live/<run id>.socket  where others join a detached one; see `attach`
//! ```
//!
//! The lock goes with the process, however that ends. So a file without a lock is of a run whose ibid was killed, and of its
//! container nothing is left: whoever meets it removes it. Files of other machines, which share the folder, stay.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ibid_core::time::rfc3339_millis;
use ibid_sandbox::LiveContainer;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Version of the format. A file with another one is of another ibid's.
const SCHEMA: u32 = 1;

/// How the name of a run's socket ends.
const SOCKET: &str = ".socket";

/// A file that is empty for so long will never be written.
const EMPTY_MAX: Duration = Duration::from_secs(60);

/// Why a live run cannot be made known, or looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or made.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// It is another ibid's.
    #[error("{} is of another version of ibid", path.display())]
    OtherVersion {
        /// The path.
        path: PathBuf,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// A run that is going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveRun {
    schema: u32,
    /// The computer it is on.
    host: String,
    /// Its name.
    pub id: String,
    /// The folder of its project.
    pub project: PathBuf,
    /// Program and arguments.
    pub command: Vec<String>,
    /// When its program started, RFC 3339.
    pub started: String,
    /// The engine that executes it.
    pub engine: String,
    /// The process that executes it.
    pub process: u32,
    /// Whether that goes on without a terminal, and lets others join.
    pub is_detached: bool,
    /// The signal that asks its program to end.
    pub stop_signal: i32,
    /// Its container.
    pub container: LiveContainer,
}

impl LiveRun {
    /// A run of this process, whose program has just been started on ibid's own engine.
    pub fn new(
        id: &str,
        project: &Path,
        is_detached: bool,
        stop_signal: i32,
        container: LiveContainer,
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            schema: SCHEMA,
            host: host(),
            id: id.to_owned(),
            project: project.to_owned(),
            command: container.command().to_vec(),
            started: rfc3339_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            engine: "native".to_owned(),
            process: std::process::id(),
            is_detached,
            stop_signal,
            container,
        }
    }
}

/// The folder with the live runs of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRuns {
    folder: PathBuf,
}

/// The live runs of a folder, and what of it could not be read.
#[derive(Debug, Default)]
pub struct Listed {
    /// Newest first.
    pub runs: Vec<LiveRun>,
    /// One for each file.
    pub errors: Vec<Error>,
}

impl LiveRuns {
    /// Those of the store at `root`. Nothing is made.
    pub fn of(root: &Path) -> Self {
        Self { folder: root.join("live") }
    }

    /// Where others join a detached run.
    pub fn socket(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}{SOCKET}"))
    }

    /// Makes a run known until what comes back is dropped.
    pub fn add(&self, run: &LiveRun) -> Result<Known, Error> {
        let path = self.folder.join(&run.id);
        let make = || File::options().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = match make() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_folder()?;
                make()
            }
            file => file,
        }
        .map_err(io("make", &path))?;
        let mut known = Known { path, file: None };
        // Locked before anything is in it: a file that is empty is nobody's yet.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // On a file system without locks, the container's first process is looked for.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => {}
            Err(errno) => return Err(io("lock", &known.path)(errno.into())),
        }
        let text = serde_json::to_vec(run).expect("a run is JSON");
        file.write_all(&text).map_err(io("write", &known.path))?;
        known.file = Some(file);
        Ok(known)
    }

    pub(crate) fn make_folder(&self) -> Result<(), Error> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(io("make the folder", &self.folder)(error))
            }
            _ => Ok(()),
        }
    }

    /// All of this machine. What dead ones left is removed.
    pub fn list(&self) -> Result<Listed, Error> {
        let mut listed = Listed::default();
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listed),
            entries => entries.map_err(io("read", &self.folder))?,
        };
        for entry in entries {
            let path = entry.map_err(io("read", &self.folder))?.path();
            // It goes with the file beside it.
            if path.extension().is_some() {
                continue;
            }
            match look_at(&path) {
                Ok(run) => listed.runs.extend(run),
                Err(error) => listed.errors.push(error),
            }
        }
        listed.runs.sort_by(|a, b| (&b.started, &b.id).cmp(&(&a.started, &a.id)));
        Ok(listed)
    }
}

/// The run of a file, unless it is none of this machine's that goes on.
fn look_at(path: &Path) -> Result<Option<LiveRun>, Error> {
    let gone = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Ok(None),
        _ => Err(io("read", path)(error)),
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return gone(error),
    };
    let lock = flock(&file, FlockOperation::NonBlockingLockShared);
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => return gone(error),
    };
    let is_held = lock == Err(Errno::WOULDBLOCK);
    if text.is_empty() {
        let age = file.metadata().and_then(|it| it.modified()).ok().and_then(|time| time.elapsed().ok());
        if !is_held && age.is_some_and(|age| age > EMPTY_MAX) {
            remove(path, &file);
        }
        return Ok(None);
    }
    let run = match serde_json::from_slice::<LiveRun>(&text) {
        Ok(run) if run.schema == SCHEMA => run,
        // Half written, by one that was killed.
        _ if !is_held && lock.is_ok() => {
            remove(path, &file);
            return Ok(None);
        }
        _ => return Err(Error::OtherVersion { path: path.to_owned() }),
    };
    if run.host != host() {
        return Ok(None);
    }
    // Of a container whose ibid is on its way out nothing is left either.
    if run.container.is_there() && (is_held || lock.is_err()) {
        return Ok(Some(run));
    }
    if !is_held {
        remove(path, &file);
    }
    Ok(None)
}

/// Removes what a dead process left, unless another file has its name now.
fn remove(path: &Path, file: &File) {
    let is_same = fs::symlink_metadata(path).is_ok_and(|now| {
        file.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (now.dev(), now.ino()))
    });
    if is_same {
        // Somebody else may have been faster, and who may not write here leaves it to others.
        let _ = fs::remove_file(path);
        let _ = fs::remove_file(path.with_extension(&SOCKET[1..]));
    }
}

/// A run that others can find, until this is dropped.
#[derive(Debug)]
pub struct Known {
    path: PathBuf,
    /// Holds the lock.
    file: Option<File>,
}

impl Drop for Known {
    fn drop(&mut self) {
        // Then it is removed by whoever meets it.
        let _ = fs::remove_file(&self.path);
        self.file = None;
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
