//! What is to be run, as plain data: the same whatever engine executes it.

mod capability;
mod env_file;
mod invalid;
mod limits;
mod options;
mod port;
mod seccomp;
mod tmpfs;
mod ulimit;
mod volume;

use std::path::PathBuf;

use crate::digest::Digest;
use crate::gpus::Lent;

pub use capability::{Capabilities, Capability};
pub use env_file::{Assignment, env_file};
pub use invalid::InvalidOption;
pub use limits::{Limits, bytes};
pub use options::{ContainerOptions, Network, Seccomp, SecurityOption};
pub use port::{Port, Protocol};
pub use seccomp::{Answer as CallAnswer, Comparison, Condition, Rule, SeccompProfile};
pub use tmpfs::Tmpfs;
pub use ulimit::{Ulimit, resource_name};
pub use volume::Volume;

/// Name of the folder in a project that holds the records of its runs. It is no part of a build's context.
pub const LEDGER_FOLDER: &str = ".ibid";

/// One execution of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// Short name of the run, which is also the host name inside.
    pub id: String,
    /// The image.
    pub image: Digest,
    /// What to execute.
    pub command: Command,
    /// Which code.
    pub code: Code,
    /// Absolute path of the project on the host.
    pub project: PathBuf,
    /// Folders that the run writes, relative to the project.
    pub outputs: Vec<String>,
    /// Inputs that are mounted read-only, relative to the project.
    pub data: Vec<String>,
    /// Absolute path of the folder that the inputs are taken from in place of the project, when the project is a copy.
    pub data_from: Option<PathBuf>,
    /// What of a mounted codebase cannot be changed from inside though the rest can, relative to the project: its ledger.
    pub protected: Vec<String>,
    /// Variables that win over the image's.
    pub env: Vec<(String, String)>,
    /// What it gets of the host for the graphics processors that it asked for.
    pub gpus: Lent,
    /// Absolute path of the folder on the host in which a shell keeps what was typed.
    pub history: Option<PathBuf>,
    /// True when a terminal is to be made for the program.
    pub terminal: bool,
    /// What the person asked for beside that, as with Docker's options.
    pub options: ContainerOptions,
}

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The image's entrypoint with these arguments; without any, with the image's `CMD`.
    Entrypoint(Vec<String>),
    /// An interactive shell.
    Shell,
}

/// Which code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The project folder, mounted over the image's code folder.
    Mounted,
    /// What was copied into the image when it was built.
    Pegged,
}

/// The mode, and the folder of the code in the image. None means that nothing is mounted at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// Which code runs.
    pub mode: Mode,
    /// Absolute path in the image; outputs and data are below it.
    pub folder: Option<String>,
}
