//! Why a container could not be started or watched.

use std::io;
use std::path::PathBuf;

/// Why a container could not be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not in the container.
    #[error("`{program}` is not in the container{}", searched(.path))]
    NotFound {
        /// As the caller named it.
        program: String,
        /// The `PATH` that was searched, when it was.
        path: Option<String>,
    },
    /// The program is there, but what its first line or its header names as interpreter is not.
    #[error("the interpreter that `{program}` asks for is not in the container")]
    NoInterpreter {
        /// As the caller named it.
        program: String,
    },
    /// The program is there and cannot be executed.
    #[error("`{program}` cannot be executed in the container")]
    NotExecutable {
        /// As the caller named it.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Something that [`crate::Spec`] says is impossible.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: String,
    },
    /// A step of making the container failed.
    #[error("cannot {step}{}", at(.path))]
    Setup {
        /// The step, as "mount the root file system".
        step: String,
        /// The path it was about: on the host, or in the container.
        path: Option<PathBuf>,
        /// Why.
        source: io::Error,
    },
    /// The file system under a bind mount cannot show one owner as another.
    #[error("the file system of `{}` does not take an idmapped mount", .path.display())]
    IdmapRefused {
        /// The source on the host.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A limit of each process is not to be had.
    #[error("the limit `{}` of each process cannot be set", ibid_core::run::resource_name(*.resource))]
    Rlimit {
        /// As the kernel numbers it.
        resource: u8,
        /// Why.
        source: io::Error,
    },
    /// Limits of all processes together are not to be had.
    #[error("cannot limit {limit}: {reason}")]
    Limits {
        /// Which one.
        limit: &'static str,
        /// What is in the way.
        reason: String,
        /// The command that mends it, where there is one.
        mend: Option<String>,
    },
    /// There is no private network.
    #[error("cannot make a private network: {reason}")]
    Network {
        /// What is in the way.
        reason: String,
        /// The command that mends it, where there is one.
        mend: Option<String>,
    },
    /// There is no container to start another program in.
    #[error("the run has ended")]
    Ended,
    /// The stage ended without a word.
    #[error("the container's first process ended unexpectedly ({status})")]
    Lost {
        /// How.
        status: String,
    },
}

fn searched(path: &Option<String>) -> String {
    path.as_ref().map(|path| format!(" (searched {path})")).unwrap_or_default()
}

fn at(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!(" at `{}`", path.display())).unwrap_or_default()
}

/// The step that needs a file system that overlays can be made of.
pub(crate) const OVERLAY_STEP: &str = "mount the layers of the root file system";

impl Error {
    /// What to do about it, where that is known.
    pub fn mend(&self) -> Option<&str> {
        match self {
            Self::Limits { mend, .. } | Self::Network { mend, .. } => mend.as_deref(),
            Self::Rlimit { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("only root can raise a limit above its own hard one, which `ulimit -H -a` lists")
            }
            Self::Setup { step, .. } if step == OVERLAY_STEP => Some(
                "the store must be on a file system that overlays can be made of, such as ext4, xfs, btrfs or tmpfs: set XDG_DATA_HOME to a folder there; `ibid doctor` tries it",
            ),
            _ => None,
        }
    }

    /// The exit code that the shell's conventions give this failure: 127, 126, else 125.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } | Self::NoInterpreter { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::Invalid { .. }
            | Self::Setup { .. }
            | Self::IdmapRefused { .. }
            | Self::Rlimit { .. }
            | Self::Limits { .. }
            | Self::Network { .. }
            | Self::Ended
            | Self::Lost { .. } => 125,
        }
    }
}
