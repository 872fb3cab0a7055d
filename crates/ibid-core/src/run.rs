//! What is to be run, as plain data: the same whatever engine executes it.

use std::path::PathBuf;

use crate::digest::Digest;
use crate::gpus::Lent;

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
    /// Variables that win over the image's.
    pub env: Vec<(String, String)>,
    /// What it gets of the host for the graphics processors that it asked for.
    pub gpus: Lent,
    /// True when a terminal is to be made for the program.
    pub terminal: bool,
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
