//! The instructions as plain data: read and checked, nothing expanded.

use crate::image::Healthcheck;
use crate::plan::{Lines, Network};

use super::mount::MountWords;

/// An instruction with its place and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) lines: Lines,
    /// Keyword in capitals and words as written, continuation lines joined by a space.
    pub(super) text: String,
    pub(super) instruction: Instruction,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instruction {
    Add(CopyWords),
    Arg(Vec<ArgDeclaration>),
    Cmd(CommandLine),
    Copy(CopyWords),
    Entrypoint(CommandLine),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    From(From),
    /// Nothing in it is expanded.
    Healthcheck(Healthcheck),
    Label(Vec<(String, String)>),
    Maintainer(String),
    Onbuild(Trigger),
    Run(RunWords),
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// `ARG name` or `ARG name=default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ArgDeclaration {
    pub(super) name: String,
    pub(super) default: Option<String>,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommandLine {
    /// Text for the shell.
    Shell(String),
    /// A JSON array: program and arguments.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunWords {
    pub(super) command: CommandLine,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) mounts: Vec<MountWords>,
    pub(super) network: Network,
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyWords {
    pub(super) from: Option<String>,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<String>,
    pub(super) exclude: Vec<String>,
    pub(super) link: bool,
    pub(super) parents: bool,
    /// Whether archives are unpacked, if it says so.
    pub(super) unpack: Option<bool>,
    pub(super) checksum: Option<String>,
    pub(super) keep_git_dir: Option<bool>,
    pub(super) sources: Vec<String>,
    /// The sources that are heredocs.
    pub(super) inline: Vec<Heredoc>,
    pub(super) dest: String,
}

/// A text that stands behind its instruction, up to a line that holds only its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heredoc {
    pub(super) name: String,
    /// False when any part of the name was quoted.
    pub(super) expands: bool,
    /// True for `<<-`: tabs at the start of lines go.
    pub(super) strips_tabs: bool,
    /// As it stands in the file, with its tabs.
    pub(super) content: String,
}

impl Heredoc {
    /// Writes content and last line behind the line that announces it.
    pub(super) fn append_to(&self, text: &mut String) {
        text.push('\n');
        text.push_str(&self.content);
        text.push_str(&self.name);
    }

    /// The content as the instruction sees it.
    pub(super) fn text(&self) -> String {
        if !self.strips_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct From {
    pub(super) platform: Option<String>,
    pub(super) base: String,
    /// In lower case.
    pub(super) name: Option<String>,
}

/// `ONBUILD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trigger {
    /// What the image configuration stores: the instruction as written, heredocs included.
    pub(super) text: String,
    /// The arguments that it declares.
    pub(super) declares: Vec<String>,
}

/// The keywords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

impl Keyword {
    /// All of them, in the order of their names.
    const ALL: [Self; 18] = [
        Self::Add,
        Self::Arg,
        Self::Cmd,
        Self::Copy,
        Self::Entrypoint,
        Self::Env,
        Self::Expose,
        Self::From,
        Self::Healthcheck,
        Self::Label,
        Self::Maintainer,
        Self::Onbuild,
        Self::Run,
        Self::Shell,
        Self::Stopsignal,
        Self::User,
        Self::Volume,
        Self::Workdir,
    ];

    /// Their names, in the same order.
    pub(super) const NAMES: [&'static str; 18] = [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];

    /// The keyword of that name, in whichever case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let place = Self::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(Self::ALL[place])
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether `<<NAME` among its words starts a heredoc.
    pub(super) fn takes_heredocs(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run)
    }

    /// How it is written.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Add => "ADD SOURCE… DESTINATION",
            Self::Arg => "ARG NAME` or `ARG NAME=default",
            Self::Cmd => "CMD [\"program\", \"argument\"]",
            Self::Copy => "COPY SOURCE… DESTINATION",
            Self::Entrypoint => "ENTRYPOINT [\"program\", \"argument\"]",
            Self::Env => "ENV NAME=value",
            Self::Expose => "EXPOSE PORT",
            Self::From => "FROM IMAGE` or `FROM IMAGE AS NAME",
            Self::Healthcheck => "HEALTHCHECK CMD command` or `HEALTHCHECK NONE",
            Self::Label => "LABEL NAME=value",
            Self::Maintainer => "MAINTAINER NAME",
            Self::Onbuild => "ONBUILD INSTRUCTION",
            Self::Run => "RUN command",
            Self::Shell => "SHELL [\"program\", \"argument\"]",
            Self::Stopsignal => "STOPSIGNAL SIGNAL",
            Self::User => "USER NAME` or `USER UID:GID",
            Self::Volume => "VOLUME /folder",
            Self::Workdir => "WORKDIR /folder",
        }
    }

    fn flags(self) -> &'static [Flag] {
        match self {
            Self::Add => ADD_FLAGS,
            Self::Copy => COPY_FLAGS,
            Self::From => FROM_FLAGS,
            Self::Healthcheck => HEALTHCHECK_FLAGS,
            Self::Run => RUN_FLAGS,
            _ => &[],
        }
    }

    /// The flag of that name.
    pub(super) fn flag(self, name: &str) -> Option<&'static Flag> {
        self.flags().iter().find(|flag| flag.name == name)
    }
}

/// The flags of the instruction of that name.
pub(super) fn flag_names(keyword: &str) -> Vec<&'static str> {
    Keyword::parse(keyword).map_or(&[][..], Keyword::flags).iter().map(|flag| flag.name).collect()
}

/// A flag of an instruction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) kind: FlagKind,
}

/// What a flag takes, and whether this version can do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// A value that is used.
    Value,
    /// A value that is used, each time the flag is given.
    Values,
    /// A truth value that is used; `true` when only the flag is given.
    Truth,
}

const fn value(name: &'static str) -> Flag {
    Flag { name, kind: FlagKind::Value }
}

const fn values(name: &'static str) -> Flag {
    Flag { name, kind: FlagKind::Values }
}

const fn truth(name: &'static str) -> Flag {
    Flag { name, kind: FlagKind::Truth }
}

const ADD_FLAGS: &[Flag] = &[
    value("chown"),
    value("chmod"),
    truth("link"),
    values("exclude"),
    truth("unpack"),
    value("checksum"),
    truth("keep-git-dir"),
];
const COPY_FLAGS: &[Flag] =
    &[value("from"), value("chown"), value("chmod"), truth("link"), truth("parents"), values("exclude")];
const FROM_FLAGS: &[Flag] = &[value("platform")];
const HEALTHCHECK_FLAGS: &[Flag] =
    &[value("interval"), value("timeout"), value("start-period"), value("start-interval"), value("retries")];
const RUN_FLAGS: &[Flag] = &[values("mount"), value("network"), value("security"), values("device")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_have_their_names() {
        for (keyword, name) in Keyword::ALL.into_iter().zip(Keyword::NAMES) {
            assert_eq!(format!("{keyword:?}").to_uppercase(), name);
            assert_eq!(keyword.name(), name);
            assert_eq!(Keyword::parse(&name.to_lowercase()), Some(keyword));
        }
        assert_eq!(Keyword::parse("RUNS"), None);
    }

    #[test]
    fn heredocs_lose_their_tabs() {
        let mut heredoc = Heredoc {
            name: "E".to_owned(),
            expands: true,
            strips_tabs: false,
            content: "\ta\n\t\t b\tc\n\n\t".to_owned(),
        };
        assert_eq!(heredoc.text(), heredoc.content);
        heredoc.strips_tabs = true;
        assert_eq!(heredoc.text(), "a\n b\tc\n\n");
    }
}
