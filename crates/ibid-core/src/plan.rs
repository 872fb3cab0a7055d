//! The build plan: what a Dockerfile asks for, decided completely and as plain data. A builder only
//! performs it. Every variable is expanded, every destination absolute, every stage numbered.

use std::collections::BTreeSet;

use crate::image::ContainerConfig;
use crate::mode::ModeChange;
use crate::remote::{GitSource, UrlSource};

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

impl Plan {
    /// Names of the contexts, other than the build context, whose files are needed.
    pub fn named_contexts(&self) -> BTreeSet<&str> {
        let steps = self.stages.iter().flat_map(|stage| &stage.steps);
        let named = steps.flat_map(|step| step.action.sources()).filter_map(|from| match from {
            CopyFrom::NamedContext(name) => Some(name.as_str()),
            _ => None,
        });
        named.collect()
    }

    /// What is fetched, with the lines that ask for it.
    pub fn remotes(&self) -> impl Iterator<Item = (&CopySource, Lines)> {
        let steps = self.stages.iter().flat_map(|stage| &stage.steps);
        let copies = steps.filter_map(|step| match &step.action {
            Action::Copy(copy) => Some((copy, step.lines)),
            _ => None,
        });
        copies
            .flat_map(|(copy, lines)| copy.sources.iter().map(move |source| (source, lines)))
            .filter(|(source, _)| source.name().is_some())
    }
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

impl Action {
    /// Whether it needs nothing of the steps before it in its stage.
    pub fn is_independent(&self) -> bool {
        matches!(self, Self::Copy(copy) if copy.link)
    }

    /// Where the files that it reads are found, beside the layers it is performed on.
    pub fn sources(&self) -> impl Iterator<Item = &CopyFrom> {
        let (copied, mounts) = match self {
            Self::Copy(copy) => (Some(&copy.from), [].as_slice()),
            Self::Run(run) => (None, run.mounts.as_slice()),
            Self::Config | Self::Workdir { .. } => (None, [].as_slice()),
        };
        copied.into_iter().chain(mounts.iter().filter_map(Mount::source).map(|(from, _)| from))
    }

    /// The stages among them.
    pub fn stages(&self) -> impl Iterator<Item = usize> {
        self.sources().filter_map(|from| match from {
            CopyFrom::Stage(index) => Some(*index),
            _ => None,
        })
    }
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
    /// What is mounted while the command runs, in the order of the instruction.
    pub mounts: Vec<Mount>,
    /// Which network the command sees.
    pub network: Network,
    /// A script with an interpreter line, from a heredoc: while the command runs, it is found in
    /// [`SCRIPT_FOLDER`] under its name, read-only and executable, and it never enters the layer.
    pub script: Option<InlineFile>,
}

/// What `RUN --network` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// What steps have when nothing is said.
    #[default]
    Default,
    /// Only a loopback device of its own.
    None,
    /// The host's.
    Host,
}

/// What `RUN --mount` asks for. Targets are absolute paths in the container, never `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Files of the context, a stage or an image.
    Bind {
        /// Where.
        target: String,
        /// Whether the command may write; what it writes is thrown away.
        writable: bool,
        /// Where the files are found.
        from: CopyFrom,
        /// A path relative to the root of `from`, cleaned of `.` and `..`; `.` is the whole of it.
        source: String,
    },
    /// A folder that later commands find again.
    Cache {
        /// Where.
        target: String,
        /// What tells it from others, together with `base`.
        id: String,
        /// How commands that run at the same time use it.
        sharing: Sharing,
        /// Whether the command may write.
        writable: bool,
        /// What a new one is made of.
        base: CacheBase,
    },
    /// An empty folder in memory.
    Tmpfs {
        /// Where.
        target: String,
        /// Most bytes it may hold; none leaves that to the system.
        bytes: Option<u64>,
    },
    /// Something that the person lends.
    Secret {
        /// Its name.
        id: String,
        /// Where it is a file; none when it is only a variable.
        target: Option<String>,
        /// The variable that holds it, if one does.
        variable: Option<String>,
        /// Whether the command cannot do without.
        required: bool,
        /// The file's.
        permissions: Permissions,
    },
    /// The socket of an agent that holds the person's keys.
    Ssh {
        /// Its name.
        id: String,
        /// Where.
        target: String,
        /// Whether the command cannot do without.
        required: bool,
        /// The socket's.
        permissions: Permissions,
    },
}

impl Mount {
    /// Where the files of a bind mount, or the first ones of a cache mount, are found.
    pub fn source(&self) -> Option<(&CopyFrom, &str)> {
        match self {
            Self::Bind { from, source, .. } | Self::Cache { base: CacheBase::Copy { from, source }, .. } => {
                Some((from, source))
            }
            _ => None,
        }
    }

    /// The options that a command can notice, in one line. What a source holds is left to who looks at it: its own
    /// name says nothing.
    pub fn options(&self) -> String {
        let text = |name: &str, value: &str| format!(",{name}={value:?}");
        let permissions = |it: &Permissions| format!(",uid={},gid={},mode={:o}", it.uid, it.gid, it.mode);
        match self {
            Self::Bind { target, writable, source, .. } => {
                let writable = if *writable { ",readwrite" } else { "" };
                format!("type=bind{}{}{writable}", text("target", target), text("source", source))
            }
            Self::Cache { target, id, sharing, writable, base } => {
                let sharing = format!("{sharing:?}").to_lowercase();
                let writable = if *writable { "" } else { ",readonly" };
                let base = match base {
                    CacheBase::Empty(it) => permissions(it),
                    CacheBase::Copy { source, .. } => text("source", source),
                };
                let (target, id) = (text("target", target), text("id", id));
                format!("type=cache{target}{id},sharing={sharing}{writable}{base}")
            }
            Self::Tmpfs { target, bytes } => {
                let size = bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
                format!("type=tmpfs{}{size}", text("target", target))
            }
            Self::Secret { id, target, variable, required, permissions: it } => {
                let target = target.as_ref().map(|target| text("target", target)).unwrap_or_default();
                let variable = variable.as_ref().map(|name| text("env", name)).unwrap_or_default();
                let required = if *required { ",required" } else { "" };
                format!("type=secret{}{target}{variable}{required}{}", text("id", id), permissions(it))
            }
            Self::Ssh { id, target, required, permissions: it } => {
                let required = if *required { ",required" } else { "" };
                format!("type=ssh{}{}{required}{}", text("id", id), text("target", target), permissions(it))
            }
        }
    }
}

/// What a new cache mount is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheBase {
    /// An empty folder.
    Empty(Permissions),
    /// A copy of a folder of a stage or an image.
    Copy {
        /// Where it is found.
        from: CopyFrom,
        /// As for [`Mount::Bind`].
        source: String,
    },
}

/// Owner and mode of something that is made for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// Owner, as the container counts.
    pub uid: u32,
    /// Group, as the container counts.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
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
    /// What is copied, in this order: a later one wins.
    pub sources: Vec<CopySource>,
    /// Files given in the Dockerfile itself by heredoc.
    pub inline: Vec<InlineFile>,
    /// Absolute path in the image. A trailing `/` means a folder.
    pub dest: String,
    /// `user`, `user:group`, ids or names; none means `0:0`.
    pub chown: Option<String>,
    /// What becomes of the permission bits of every file and folder.
    pub chmod: Option<ModeChange>,
    /// Patterns, as in an ignore file, of what is left out: relative to a source that is a folder, or the name of one
    /// that is none.
    pub exclude: Vec<String>,
    /// True for `ADD`, unless it says otherwise: local tar archives are extracted.
    pub extract: bool,
    /// The layer is made by itself: nothing of the layers below is met.
    pub link: bool,
}

/// One source of a copy. Paths are relative to the root of [`Copy::from`] and clean: without `.`, `..` and doubled
/// slashes; `.` is the whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CopySource {
    /// A path, or a pattern of `filepath.Match`.
    Path(String),
    /// What a pattern of an ignore file means in a folder, with the folders that it is in: `COPY --parents`.
    Below {
        /// The folder, or a pattern of folders.
        folder: String,
        /// The pattern.
        pattern: String,
    },
    /// A file that is fetched: `ADD` of a URL.
    Url(UrlSource),
    /// The files of a commit: `ADD` of a git repository.
    Git(GitSource),
}

impl CopySource {
    /// What a lock calls it; none for what is not fetched.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Path(_) | Self::Below { .. } => None,
            Self::Url(source) => Some(source.name()),
            Self::Git(source) => Some(source.name()),
        }
    }
}

/// Where `COPY` and mounts find their sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFrom {
    /// The build context.
    Context,
    /// Another folder, by the name that `--build-context` gave it.
    NamedContext(String),
    /// Nothing at all: `scratch`.
    Scratch,
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
