//! The build plan: what a Dockerfile asks for, decided completely and as plain data. A builder only
//! performs it. Every variable is expanded, every destination absolute, every stage numbered.

use crate::image::ContainerConfig;

/// A whole build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The stages that the target needs, in the order of the file. A stage refers only to earlier ones.
    pub stages: Vec<Stage>,
    /// Index of the stage that becomes the image.
    pub target: usize,
    /// Names of given build arguments that nothing declares: likely spelling mistakes.
    pub undeclared_args: Vec<String>,
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The name after `AS`.
    pub name: Option<String>,
    /// What it starts from.
    pub base: Base,
    /// Lines of its `FROM`.
    pub lines: Lines,
    /// Its instructions after `FROM`, `ARG` included.
    pub steps: Vec<Step>,
    /// The configuration after the last step: the base's with every instruction applied.
    pub config: ContainerConfig,
    /// The author that `MAINTAINER` set.
    pub author: Option<String>,
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// No file at all.
    Scratch,
    /// An image, by the expanded text of `FROM`.
    Image(String),
    /// An earlier stage, by index.
    Stage(usize),
}

/// Lines of a Dockerfile, counted from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// First line.
    pub first: usize,
    /// Last line.
    pub last: usize,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it stands. For an `ONBUILD` trigger, the line of the `FROM` that brought it.
    pub lines: Lines,
    /// The instruction as people recognise it: keyword and words, continuation lines joined.
    pub text: String,
    /// What Docker writes into the image's history for it: variables expanded, the shell in front. None for what the
    /// history does not mention: a stored trigger.
    pub created_by: Option<String>,
    /// The author that `MAINTAINER` has set by then.
    pub author: Option<String>,
    /// What is to be done.
    pub action: Action,
}

/// What a step does to the root file system. What it does to the configuration is already in
/// [`Stage::config`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: only the configuration, or the build arguments, change.
    Config,
    /// Runs a command.
    Run(Run),
    /// Brings files in: `COPY` and `ADD`.
    Copy(Copy),
    /// Makes a folder unless it exists.
    Workdir {
        /// Absolute path, never `/`.
        path: String,
        /// Who owns the folders that are made, as `USER` gave it; empty means root.
        user: String,
    },
}

/// A command of `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Program and arguments; the shell form already has its shell in front.
    pub argv: Vec<String>,
    /// The environment: the image's own, then declared build arguments that have a value. Each name
    /// once, in order of first appearance. Predefined proxy arguments are not here: they are given to
    /// the process without being part of what the step reads.
    pub env: Vec<(String, String)>,
    /// The user as `USER` gave it; empty means root.
    pub user: String,
    /// The folder the command starts in, absolute.
    pub cwd: String,
    /// A script with an interpreter line, from a heredoc: while the command runs, it is found in
    /// [`SCRIPT_FOLDER`] under its name, read-only and executable, and it never enters the layer.
    pub script: Option<InlineFile>,
}

/// How steps that run at the same time use one cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharing {
    /// All of them at once.
    Shared,
    /// Each that finds it in use gets another one.
    Private,
    /// One after the other.
    Locked,
}

/// Where a command finds its [`Run::script`]; `argv` names it there.
pub const SCRIPT_FOLDER: &str = "/dev/pipes";

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where the sources are found.
    pub from: CopyFrom,
    /// Source paths or patterns, relative to the root of [`Self::from`], cleaned of `.` and `..`; `""`
    /// or `.` is the whole of it.
    pub sources: Vec<String>,
    /// Files given in the Dockerfile itself by heredoc.
    pub inline: Vec<InlineFile>,
    /// Absolute path in the image. A trailing `/` means a folder.
    pub dest: String,
    /// `user`, `user:group`, ids or names; none means `0:0`.
    pub chown: Option<String>,
    /// Permission bits to give to every file and folder.
    pub chmod: Option<u32>,
    /// True for `ADD`: local tar archives are extracted.
    pub extract: bool,
}

/// Where `COPY` finds its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFrom {
    /// The build context.
    Context,
    /// An earlier stage, by index.
    Stage(usize),
    /// Another image, by reference.
    Image(String),
}

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// The heredoc's name, which is the file's name in a destination folder.
    pub name: String,
    /// Content, expanded unless the name was quoted.
    pub content: String,
}
