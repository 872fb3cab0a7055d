//! What can be wrong with a Dockerfile: facts, the lines they stand on, and what was expected.

use crate::csv::QuoteFault;
use crate::plan::Lines;

/// A fault of a Dockerfile. The source text is the caller's, who shows the lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct Error {
    /// Where the fault is. For a fault in an `ONBUILD` trigger, the lines of the `FROM` that brought it.
    pub lines: Lines,
    /// What is wrong.
    pub kind: ErrorKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message is the documentation of each variant")]
pub enum ErrorKind {
    #[error("the line is not UTF-8 text")]
    NotUtf8,
    #[error("a zero byte cannot stand here")]
    ZeroByte,
    #[error("the Dockerfile has no instruction")]
    Empty,
    #[error("the Dockerfile has no `FROM`")]
    NoStage,
    #[error("`{keyword}` stands before the first `FROM`")]
    BeforeFrom { keyword: String },
    #[error("the escape character cannot be `{value}`")]
    EscapeDirective { value: String },
    #[error("the directive `{name}` is given twice")]
    RepeatedDirective { name: String },
    #[error("a line continuation is followed by no instruction")]
    NothingContinued,
    #[error("unknown instruction `{}`", short(.name))]
    UnknownInstruction { name: String, nearest: Option<&'static str> },
    #[error("`{keyword}` has no flag `--{}`", short(.flag))]
    UnknownFlag { keyword: &'static str, flag: String, nearest: Option<&'static str> },
    #[error("the flag `--{flag}` is given twice")]
    RepeatedFlag { flag: &'static str },
    #[error("the flag `--{flag}` has no value")]
    FlagWithoutValue { flag: &'static str },
    #[error("the flag `--{flag}` is `{}`, which is no truth value", short(.value))]
    FlagNotBoolean { flag: &'static str, value: String },
    #[error("the flag `--{flag}` cannot be `{}`", short(.value))]
    FlagChoice { flag: &'static str, value: String, choices: &'static [&'static str] },
    #[error("`RUN --device` wants a device, and build steps get none")]
    RunDevice,
    #[error("`RUN --security=insecure` would give the step every capability of this machine's user")]
    RunInsecure,
    #[error("`{keyword}` is incomplete")]
    Incomplete { keyword: &'static str, form: &'static str },
    #[error("`{keyword}` takes a JSON array here, not `{}`", short(.found))]
    NotJson { keyword: &'static str, found: String },
    #[error("the JSON array of `{keyword}` holds something that is no string")]
    NotStrings { keyword: &'static str },
    #[error("`{keyword}` cannot find `=` in `{}`", short(.word))]
    NoEqualsSign { keyword: &'static str, word: String },
    #[error("`{keyword}` gives an empty name")]
    EmptyName { keyword: &'static str },
    #[error("`{keyword}` gives an empty path")]
    EmptyPath { keyword: &'static str },
    #[error("`{}` is no name for a stage", short(.name))]
    StageName { name: String },
    #[error("the quotes in `--mount={}` do not fit: {fault}", short(.mount))]
    MountQuotes { mount: String, fault: QuoteFault },
    #[error("`{}` is no type of mount", short(.kind))]
    MountType { kind: String, nearest: Option<&'static str> },
    #[error("a mount of type `{kind}` has no option `{}`", short(.option))]
    MountOption { kind: String, option: String, nearest: Option<&'static str> },
    #[error("the option `{}` of a mount has no value", short(.option))]
    MountWithoutValue { option: String },
    #[error("a mount's `{option}` cannot be `{}`", short(.value))]
    MountValue { option: String, value: String, expected: &'static str },
    #[error("the `{kind}` mount has no target")]
    MountWithoutTarget { kind: String },
    #[error("`/` cannot be the target of a mount")]
    MountOverRoot,
    #[error("`{first}` and `{second}` of one mount exclude each other")]
    MountConflict { first: &'static str, second: &'static str },
    #[error("the `source` of a cache mount is in its `from`, and there is none")]
    MountSourceWithoutFrom,
    #[error("the `secret` mount names no secret")]
    SecretWithoutName,
    #[error("the heredoc `{}` never ends", short(.name))]
    UnterminatedHeredoc { name: String },
    #[error("a heredoc cannot be named `{}`", short(.name))]
    HeredocName { name: String },
    #[error("the destination of `{keyword}` cannot be a heredoc")]
    HeredocDestination { keyword: &'static str },
    #[error("`{keyword}` cannot be an `ONBUILD` trigger")]
    Trigger { keyword: &'static str },
    #[error("in the `ONBUILD` trigger `{}`: {kind}", short(.trigger))]
    InTrigger { trigger: String, kind: Box<ErrorKind> },
    #[error("an `ONBUILD` trigger is one instruction, not {count}")]
    TriggerCount { count: usize },
    #[error("`{}` is no duration", short(.value))]
    Duration { flag: &'static str, value: String },
    #[error("`{}` is no number of retries", short(.value))]
    Retries { value: String },
    #[error("`{}` is no kind of health check", short(.found))]
    HealthcheckKind { found: String },
    #[error("`HEALTHCHECK NONE` takes no command")]
    HealthcheckNone,
    #[error("`{}` is no port", short(.port))]
    Port { port: String },
    #[error("`{}` is no signal", short(.signal))]
    Signal { signal: String },
    #[error("`{}` is no permission mode", short(.mode))]
    Mode { mode: String },
    #[error("`--exclude={}` is no pattern: {reason}", short(.pattern))]
    Exclude { pattern: String, reason: String },
    #[error("`{}` is no pattern: {reason}", short(.pattern))]
    Parents { pattern: String, reason: String },
    #[error("`{}` is no git repository to fetch: {reason}", short(.source_path))]
    GitSource { source_path: String, reason: String },
    #[error("the URL says `keep-git-dir={}`, and the flag says otherwise", !.flag)]
    KeepGitDir { flag: bool },
    #[error("`--checksum` is of one URL or repository, and `ADD` has {}", match .sources { 1 => "another source".to_owned(), count => format!("{count} sources") })]
    ChecksumSources { sources: usize },
    #[error("`{}` is no checksum", short(.checksum))]
    Checksum { checksum: String },
    #[error("the checksum algorithm `{}` is not supported", short(.algorithm))]
    ChecksumAlgorithm { algorithm: String },
    #[error("`ADD` cannot fetch `{}`", short(.source_path))]
    UrlScheme { source_path: String },
    #[error("`--link` cannot look up the names in `--chown={}`", short(.chown))]
    LinkOwner { chown: String },
    #[error("`FROM` names no image")]
    EmptyBase,
    #[error("`{}` is no platform", short(.platform))]
    Platform { platform: String },
    #[error("`--platform={}` is not that of this machine, `{own}`", short(.platform))]
    ForeignPlatform { platform: String, own: String },
    #[error("there is no stage `{}`", short(.name))]
    UnknownTarget { name: String, nearest: Option<String> },
    #[error("there is no stage {index}")]
    StageIndex { index: String, stages: usize },
    #[error("the stage `{}` comes too late to take files from it here", short(.name))]
    StageTooLate { name: String },
    #[error("nothing can be taken from `scratch`: it is empty")]
    MountFromScratch,
    #[error("`from={}` holds a variable", short(.from))]
    VariableInFrom { from: String },
    #[error("`COPY` cannot fetch `{}`", short(.source_path))]
    CopyFromUrl { source_path: String },
    #[error("the quote in the path `{}` is not closed", short(.word))]
    QuotedPath { keyword: &'static str, word: String },
    #[error("the base image `{}` was not given to the planner", short(.image))]
    MissingBase { image: String },
    #[error("the expanded Dockerfile is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("cannot expand `{}`: {fault}", short(.word))]
    Expansion { word: String, fault: ExpansionFault },
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message is the documentation of each variant")]
pub enum ExpansionFault {
    #[error("the quote `{0}` is not closed")]
    OpenQuote(char),
    #[error("`}}` is missing")]
    NoBrace,
    #[error("the `/` after the pattern is missing")]
    NoSlash,
    #[error("`${{` is followed by no name")]
    NoName,
    #[error("`{}` is no modifier of a variable", .0.escape_debug())]
    Modifier(String),
    #[error("`{}` {}", short(.name), short(.message))]
    Required { name: String, message: String },
    #[error("`{}` cannot be escaped in a pattern", .0.escape_debug())]
    PatternEscape(String),
    #[error("variables are nested more than {0} deep")]
    Depth(usize),
    #[error("the result is too large")]
    TooLarge,
}

impl Error {
    /// What was expected, or what to do: one sentence for people.
    pub fn hint(&self) -> Option<String> {
        self.kind.hint()
    }
}

impl ErrorKind {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotUtf8 => "save the file as UTF-8".to_owned(),
            Self::ZeroByte => "remove the zero byte: no argument, variable or path can hold one".to_owned(),
            Self::Empty | Self::NoStage => "start with `FROM IMAGE`".to_owned(),
            Self::BeforeFrom { .. } => "only `ARG` may stand before the first `FROM`".to_owned(),
            Self::EscapeDirective { .. } => "write `# escape=\\` or `# escape=``".to_owned(),
            Self::RepeatedDirective { name } => format!("keep one `# {name}=` line"),
            Self::NothingContinued => "remove the continuation character or write the instruction".to_owned(),
            Self::UnknownInstruction { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            Self::UnknownInstruction { nearest: None, .. } => {
                "start with an instruction such as `RUN`, or end the line before with `\\` to continue it"
                    .to_owned()
            }
            Self::UnknownFlag { nearest: Some(nearest), .. } => format!("did you mean `--{nearest}`?"),
            Self::UnknownFlag { keyword: keyword @ ("CMD" | "ENTRYPOINT" | "RUN"), flag, .. } => {
                format!(
                    "if `--{flag}` belongs to the command, write `{keyword} -- --{flag} …` or the JSON form"
                )
            }
            Self::UnknownFlag { keyword, .. } => match super::instruction::flag_names(keyword).as_slice() {
                [] => format!("`{keyword}` takes no flags"),
                names => format!("its flags are --{}", names.join(", --")),
            },
            Self::RepeatedFlag { flag } => format!("keep one `--{flag}`"),
            Self::FlagWithoutValue { flag } => format!("write `--{flag}=VALUE`, with no space around `=`"),
            Self::FlagNotBoolean { flag, .. } => {
                format!("write `--{flag}`, `--{flag}=true` or `--{flag}=false`")
            }
            Self::FlagChoice { flag, choices, .. } => {
                let choices: Vec<String> =
                    choices.iter().map(|choice| format!("`--{flag}={choice}`")).collect();
                format!("write {}", choices.join(" or "))
            }
            Self::RunDevice => {
                "what a step makes must not depend on the machine: use the device when the image runs".to_owned()
            }
            Self::RunInsecure => {
                "remove it: steps have the capabilities that Docker gives by default, and no flag can widen them"
                    .to_owned()
            }
            Self::Incomplete { form, .. } => format!("expected `{form}`"),
            Self::NotJson { keyword, .. } => {
                format!("write `{keyword} [\"program\", \"argument\"]`, with double quotes")
            }
            Self::NotStrings { .. } => "put every element in double quotes".to_owned(),
            Self::NoEqualsSign { keyword, .. } => {
                format!("expected `{keyword} NAME=value …`; put quotes around a value that has spaces")
            }
            Self::EmptyName { keyword } => format!("expected `{keyword} NAME=value`"),
            Self::EmptyPath { .. } => {
                "write a path; if it comes from a variable, check that it is set here".to_owned()
            }
            Self::StageName { .. } => {
                "a stage's name starts with a letter and goes on with letters, digits, `-`, `_` and `.`"
                    .to_owned()
            }
            Self::MountQuotes { .. } => {
                "a field with a comma stands whole in quotes, escaped: `--mount=\\\"source=a,b\\\",target=/c`"
                    .to_owned()
            }
            Self::MountType { nearest: Some(nearest), .. } => format!("did you mean `type={nearest}`?"),
            Self::MountType { nearest: None, .. } => {
                "the types are bind, cache, tmpfs, secret and ssh".to_owned()
            }
            Self::MountOption { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            Self::MountOption { kind, nearest: None, .. } => {
                format!("its options are {}", super::mount::options_of(kind).join(", "))
            }
            Self::MountWithoutValue { option } => format!("write `{}=VALUE`", short(option)),
            Self::MountValue { expected, .. } => format!("expected {expected}"),
            Self::MountWithoutTarget { .. } => "add `target=/path`, a place in the container".to_owned(),
            Self::MountOverRoot => "name a folder below it".to_owned(),
            Self::MountConflict { .. } => "keep one of them".to_owned(),
            Self::MountSourceWithoutFrom => "add `from=STAGE`, or remove `source`".to_owned(),
            Self::SecretWithoutName => "add `id=NAME`, as `ibid build --secret id=NAME,src=FILE` has it".to_owned(),
            Self::UnterminatedHeredoc { name } => {
                format!("end it with a line that holds only `{}`", short(name))
            }
            Self::HeredocName { .. } => "a heredoc's name is a plain file name, such as `EOF`".to_owned(),
            Self::HeredocDestination { keyword } => format!("write `{keyword} <<EOF /path`"),
            Self::Trigger { .. } | Self::TriggerCount { .. } => {
                "a trigger is one instruction other than `FROM`, `MAINTAINER` and `ONBUILD`".to_owned()
            }
            Self::InTrigger { kind, .. } => return kind.hint(),
            Self::Duration { flag, .. } => {
                format!(
                    "write a time of at least 1ms with its unit, such as `--{flag}=1m30s`, or 0 for the default"
                )
            }
            Self::Retries { .. } => "write a whole number, such as `--retries=3`".to_owned(),
            Self::HealthcheckKind { .. } => {
                "expected `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`".to_owned()
            }
            Self::HealthcheckNone => "write `HEALTHCHECK NONE` alone".to_owned(),
            Self::Port { .. } => "expected a port such as `80`, `53/udp` or `8000-8010/tcp`".to_owned(),
            Self::Signal { .. } => "expected a name such as `SIGTERM` or a number above 0".to_owned(),
            Self::Mode { .. } => "expected octal digits from 0 to 7777, such as `--chmod=755`, or changes such as `--chmod=u=rwX,go=rX`".to_owned(),
            Self::Exclude { .. } | Self::Parents { .. } => {
                "write it as in a .dockerignore: `*`, `?`, `[a-z]`, and `**` for any number of folders".to_owned()
            }
            Self::GitSource { .. } => {
                "expected such as `https://host/user/repo.git#branch:folder` or `git@host:user/repo.git?tag=v1`"
                    .to_owned()
            }
            Self::KeepGitDir { .. } => "write it once".to_owned(),
            Self::ChecksumSources { .. } => "write an `ADD` of its own for it".to_owned(),
            Self::Checksum { .. } | Self::ChecksumAlgorithm { .. } => {
                "write `--checksum=sha256:` and the 64 hexadecimal digits that `sha256sum` prints, or, for a git \
                 repository, the commit's digits"
                    .to_owned()
            }
            Self::UrlScheme { .. } => "it fetches `http://` and `https://`, and git repositories".to_owned(),
            Self::LinkOwner { .. } => {
                "the layer is made without the image's /etc/passwd: write numbers, or leave `--link` out".to_owned()
            }
            Self::EmptyBase => {
                "write an image; if it comes from an `ARG`, declare it with a value before the first `FROM`"
                    .to_owned()
            }
            Self::Platform { .. } => "expected OS/ARCHITECTURE, such as `linux/amd64`".to_owned(),
            Self::ForeignPlatform { own, .. } => format!(
                "steps run on this machine's own processor: build on one of that platform, or write `--platform={own}`"
            ),
            Self::UnknownTarget { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            Self::UnknownTarget { nearest: None, .. } => "name a stage with `FROM IMAGE AS NAME`".to_owned(),
            Self::StageIndex { stages: 1, .. } => "this file has one stage, 0".to_owned(),
            Self::StageIndex { stages, .. } => format!("the stages of this file are 0 to {}", stages - 1),
            Self::StageTooLate { .. } => "move that stage before this one".to_owned(),
            Self::MountFromScratch => "name the stage or image that holds the files".to_owned(),
            Self::VariableInFrom { .. } => {
                "write `FROM $VARIABLE AS name` with a global `ARG`, then `from=name`".to_owned()
            }
            Self::CopyFromUrl { .. } => "`ADD` fetches; `COPY` takes files of the context".to_owned(),
            Self::QuotedPath { keyword, .. } => {
                format!("write paths with spaces as a JSON array: `{keyword} [\"a b\", \"c\"]`")
            }
            Self::Expansion { fault, .. } => return fault.hint(),
            Self::MissingBase { .. } | Self::TooLarge { .. } => return None,
        };
        Some(text)
    }
}

impl ExpansionFault {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::OpenQuote(quote) => format!("close it, or put the escape character before `{quote}`"),
            Self::NoBrace => "close `${` with `}`, or put the escape character before `$`".to_owned(),
            Self::NoSlash => "expected `${name/pattern/replacement}`".to_owned(),
            Self::NoName => "expected `${name}`".to_owned(),
            Self::Modifier(_) => {
                "expected one of `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`".to_owned()
            }
            Self::Required { name, .. } => {
                format!("give it with `--build-arg {name}=…`, or with `ARG` or `ENV` before this line")
            }
            Self::PatternEscape(_) => {
                "in a pattern `*`, `?`, `/`, `}` and the escape character can be escaped".to_owned()
            }
            Self::Depth(_) | Self::TooLarge => return None,
        };
        Some(text)
    }
}

/// The start of a text that may be as large as the Dockerfile, on one line.
fn short(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let line = text.lines().next().unwrap_or_default();
    let mut start: String = line.chars().take(CHARS_MAX).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}
