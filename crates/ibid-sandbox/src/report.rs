//! What the stage says to its starter, over one socket that keeps messages apart. Both ends are the same
//! binary, so the form needs no version.

use std::path::PathBuf;

use ibid_sys::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::obstacle;
use crate::spec::ExitStatus;

/// A message of the stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The container is made, and its program starts when the starter says so.
    Waiting,
    /// The program is about to execute, under a filter whose listener comes along.
    Listening,
    /// The program is executing. The other end of its terminal comes along when it has one.
    Started,
    /// It never will.
    Failed(Failure),
    /// What all processes took; how the program ended follows.
    Usage {
        /// See [`crate::Usage`].
        peak_memory: u64,
        /// See [`crate::Usage`].
        cpu_micros: u64,
    },
    /// It left with this code, and nothing else runs in the container.
    Code(u8),
    /// A signal ended it, and nothing else runs in the container.
    Signal(i32),
}

/// Why the program does not execute: an [`Error`] on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound { program: String, path: Option<String> },
    NoInterpreter { program: String },
    NotExecutable { program: String, errno: i32 },
    Step { step: String, path: Option<PathBuf>, errno: i32 },
    IdmapRefused { path: PathBuf, errno: i32 },
    Rlimit { resource: u8, errno: i32 },
}

impl Failure {
    pub(crate) fn step(step: &str, path: Option<PathBuf>, errno: Errno) -> Self {
        Self::Step { step: step.to_owned(), path, errno: errno.raw_os_error() }
    }

    pub(crate) fn rlimit(resource: u8, errno: Errno) -> Self {
        Self::Rlimit { resource, errno: errno.raw_os_error() }
    }

    pub(crate) fn filesystem(kind: &str, target: &str, errno: Errno) -> Self {
        Self::step(&format!("mount {kind}"), Some(target.into()), errno)
    }

    pub(crate) fn into_error(self) -> Error {
        let source = std::io::Error::from_raw_os_error;
        match self {
            Self::NotFound { program, path } => Error::NotFound { program, path },
            Self::NoInterpreter { program } => Error::NoInterpreter { program },
            Self::NotExecutable { program, errno } => Error::NotExecutable { program, source: source(errno) },
            Self::Step { step, path, errno } => {
                let source = obstacle::explained(&step, Errno::from_raw_os_error(errno));
                Error::Setup { step, path, source }
            }
            Self::Rlimit { resource, errno } => Error::Rlimit { resource, source: source(errno) },
            Self::IdmapRefused { path, errno } => Error::IdmapRefused { path, source: source(errno) },
        }
    }
}

impl Report {
    pub(crate) fn of(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Code(code) => Self::Code(code),
            ExitStatus::Signal(signal) => Self::Signal(signal),
        }
    }
}
