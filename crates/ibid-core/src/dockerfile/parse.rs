//! From logical lines to instructions: each keyword's own syntax, flags, and the order of the file.

use std::collections::BTreeMap;

use crate::image::Healthcheck;
use crate::plan::{Lines, Network};

use super::Dockerfile;
use super::error::{Error, ErrorKind};
use super::instruction::{
    ArgDeclaration, CommandLine, CopyWords, FlagKind, From, Heredoc, Instruction, Keyword, RunWords,
    Statement, Trigger,
};
use super::lex::{Lexer, LogicalLine};
use super::mount::MountWords;
use super::words::{self, Json};

/// A `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceStage {
    pub(super) lines: Lines,
    pub(super) from: From,
    pub(super) statements: Vec<Statement>,
}

/// Reads a whole Dockerfile.
pub(super) fn parse(source: &[u8]) -> Result<Dockerfile, Error> {
    let (mut lexer, directives) = Lexer::new(source)?;
    let mut global = Vec::new();
    let mut stages: Vec<SourceStage> = Vec::new();
    while let Some(statement) = next_statement(&mut lexer)? {
        match (statement.instruction, stages.last_mut()) {
            (Instruction::From(from), _) => {
                stages.push(SourceStage { lines: statement.lines, from, statements: Vec::new() });
            }
            (Instruction::Arg(declarations), None) => global.push((statement.lines, declarations)),
            (instruction, Some(stage)) => stage.statements.push(Statement { instruction, ..statement }),
            (_, None) => {
                let keyword = words::split_first(&statement.text).0.to_owned();
                return Err(Error { lines: statement.lines, kind: ErrorKind::BeforeFrom { keyword } });
            }
        }
    }
    if stages.is_empty() {
        let kind = if global.is_empty() { ErrorKind::Empty } else { ErrorKind::NoStage };
        return Err(Error { lines: Lines { first: 1, last: lexer.line().max(1) }, kind });
    }
    Ok(Dockerfile { escape: lexer.escape, directives, global, stages })
}

/// Reads a trigger of `ONBUILD` as an image configuration stores it. Its faults stand on `lines`.
pub(super) fn parse_trigger(text: &str, lines: Lines) -> Result<Statement, Error> {
    let fault = |kind| {
        let kind = Box::new(kind);
        Error { lines, kind: ErrorKind::InTrigger { trigger: text.to_owned(), kind } }
    };
    let read = || -> Result<Vec<Statement>, Error> {
        let (mut lexer, _) = Lexer::new(text.as_bytes())?;
        let mut statements = Vec::new();
        while let Some(statement) = next_statement(&mut lexer)? {
            statements.push(statement);
        }
        Ok(statements)
    };
    let statements = read().map_err(|error| fault(error.kind))?;
    let [statement] = <[Statement; 1]>::try_from(statements)
        .map_err(|statements| fault(ErrorKind::TriggerCount { count: statements.len() }))?;
    let refused = match statement.instruction {
        Instruction::From(_) => Keyword::From,
        Instruction::Maintainer(_) => Keyword::Maintainer,
        Instruction::Onbuild(_) => Keyword::Onbuild,
        _ => return Ok(Statement { lines, text: format!("ONBUILD {}", statement.text), ..statement }),
    };
    Err(fault(ErrorKind::Trigger { keyword: refused.name() }))
}

fn next_statement(lexer: &mut Lexer) -> Result<Option<Statement>, Error> {
    let Some(LogicalLine { mut lines, text, shown }) = lexer.next_line()? else { return Ok(None) };
    let at = |lines, kind| Error { lines, kind };
    let head = Head::read(&text).map_err(|kind| at(lines, kind))?;
    let mut heredocs = Vec::new();
    if head.takes_heredocs() {
        heredocs = words::heredocs(&text);
        for heredoc in &mut heredocs {
            heredoc.content = lexer.heredoc(&heredoc.name, heredoc.strips_tabs, lines.first)?;
        }
        lines.last = lexer.line().max(lines.last);
    }
    let mut text = head.shown(&shown);
    if let [heredoc, ..] = heredocs.as_slice() {
        let content = heredoc.content.trim();
        let first = content.lines().next().unwrap_or_default();
        let more = if first.len() < content.len() { "…" } else { "" };
        if !first.is_empty() {
            text = format!("{text} ({first}{more})");
        }
    }
    let instruction = head.instruction(heredocs, lexer.escape).map_err(|kind| at(lines, kind))?;
    Ok(Some(Statement { lines, text, instruction }))
}

/// An instruction cut into keyword, flags and rest.
struct Head<'a> {
    keyword: Keyword,
    flags: Vec<String>,
    /// Behind the keyword, flags included.
    whole: &'a str,
    /// Behind the flags.
    rest: &'a str,
}

impl<'a> Head<'a> {
    fn read(text: &'a str) -> Result<Self, ErrorKind> {
        let (name, _) = words::split_first(text);
        let keyword = Keyword::parse(name).ok_or_else(|| ErrorKind::UnknownInstruction {
            name: name.to_owned(),
            nearest: nearest(&name.to_uppercase(), Keyword::NAMES),
        })?;
        let whole = text.trim_start()[name.len()..].trim_start();
        let (flags, rest) = words::split_flags(whole);
        Ok(Self { keyword, flags, whole, rest })
    }

    /// Whether `<<NAME` among the words starts a heredoc.
    fn takes_heredocs(&self) -> bool {
        match self.keyword {
            Keyword::Onbuild => Self::read(self.rest)
                .is_ok_and(|trigger| trigger.keyword != Keyword::Onbuild && trigger.takes_heredocs()),
            keyword => keyword.takes_heredocs() && words::json_strings(self.rest) == Json::No,
        }
    }

    /// The line as people read it, the keyword in capitals.
    fn shown(&self, shown: &str) -> String {
        let (_, rest) = words::split_first(shown);
        let space = if rest.is_empty() { "" } else { " " };
        format!("{}{space}{rest}", self.keyword.name())
    }

    fn instruction(self, heredocs: Vec<Heredoc>, escape: char) -> Result<Instruction, ErrorKind> {
        let flags = Flags::read(self.keyword, &self.flags)?;
        let rest = self.rest;
        if rest.is_empty() && !matches!(self.keyword, Keyword::Cmd | Keyword::Entrypoint | Keyword::Run) {
            return Err(self.incomplete());
        }
        Ok(match self.keyword {
            Keyword::Add => Instruction::Add(self.copy(flags, &heredocs)?),
            Keyword::Copy => Instruction::Copy(self.copy(flags, &heredocs)?),
            Keyword::Arg => Instruction::Arg(self.declarations(escape)?),
            Keyword::Cmd => Instruction::Cmd(self.command()?),
            Keyword::Entrypoint => Instruction::Entrypoint(self.command()?),
            Keyword::Env => Instruction::Env(self.pairs(escape)?),
            Keyword::Label => Instruction::Label(self.pairs(escape)?),
            Keyword::Expose => Instruction::Expose(words::split_blank(rest)),
            Keyword::From => Instruction::From(self.from(flags)?),
            Keyword::Healthcheck => Instruction::Healthcheck(self.healthcheck(&flags)?),
            Keyword::Maintainer => Instruction::Maintainer(rest.to_owned()),
            Keyword::Onbuild => Instruction::Onbuild(self.trigger(&heredocs, escape)?),
            Keyword::Run => match self.command()? {
                CommandLine::Exec(argv) if argv.is_empty() => return Err(self.incomplete()),
                command => Instruction::Run(self.run(&flags, command, heredocs)?),
            },
            Keyword::Shell => match words::json_strings(rest) {
                Json::Strings(shell) if shell.is_empty() => return Err(self.incomplete()),
                Json::Strings(shell) => Instruction::Shell(without_zero_bytes(shell)?),
                Json::NotStrings => return Err(self.not_strings()),
                Json::No => {
                    return Err(ErrorKind::NotJson { keyword: self.keyword.name(), found: rest.to_owned() });
                }
            },
            Keyword::Stopsignal => Instruction::Stopsignal(rest.to_owned()),
            Keyword::User => Instruction::User(rest.to_owned()),
            Keyword::Volume => {
                let volumes = self.list()?;
                if volumes.is_empty() || volumes.iter().any(|volume| volume.trim().is_empty()) {
                    return Err(ErrorKind::EmptyPath { keyword: self.keyword.name() });
                }
                Instruction::Volume(volumes.iter().map(|volume| volume.trim().to_owned()).collect())
            }
            Keyword::Workdir => Instruction::Workdir(rest.to_owned()),
        })
    }

    fn incomplete(&self) -> ErrorKind {
        ErrorKind::Incomplete { keyword: self.keyword.name(), form: self.keyword.form() }
    }

    fn not_strings(&self) -> ErrorKind {
        ErrorKind::NotStrings { keyword: self.keyword.name() }
    }

    /// A JSON array, or text for the shell.
    fn command(&self) -> Result<CommandLine, ErrorKind> {
        match words::json_strings(self.rest) {
            Json::Strings(argv) => Ok(CommandLine::Exec(without_zero_bytes(argv)?)),
            Json::NotStrings => Err(self.not_strings()),
            Json::No => Ok(CommandLine::Shell(self.rest.to_owned())),
        }
    }

    /// A JSON array, or words.
    fn list(&self) -> Result<Vec<String>, ErrorKind> {
        match words::json_strings(self.rest) {
            Json::Strings(list) => without_zero_bytes(list),
            Json::NotStrings => Err(self.not_strings()),
            Json::No => Ok(words::split_blank(self.rest)),
        }
    }

    fn run(
        &self,
        flags: &Flags,
        command: CommandLine,
        heredocs: Vec<Heredoc>,
    ) -> Result<RunWords, ErrorKind> {
        if flags.values("device").next().is_some() {
            return Err(ErrorKind::RunDevice);
        }
        if flags.choice("security", &["sandbox", "insecure"])? == Some("insecure") {
            return Err(ErrorKind::RunInsecure);
        }
        let network = match flags.choice("network", &["default", "none", "host"])? {
            Some("none") => Network::None,
            Some("host") => Network::Host,
            _ => Network::Default,
        };
        let mounts = flags.values("mount").map(MountWords::parse).collect::<Result<_, _>>()?;
        Ok(RunWords { command, heredocs, mounts, network })
    }

    fn copy(&self, flags: Flags, heredocs: &[Heredoc]) -> Result<CopyWords, ErrorKind> {
        let mut list = self.list()?;
        let Some(dest) = list.pop().filter(|_| !list.is_empty()) else { return Err(self.incomplete()) };
        if words::heredoc(&dest).is_some() {
            return Err(ErrorKind::HeredocDestination { keyword: self.keyword.name() });
        }
        // A heredoc that is announced twice is read twice; the last content counts.
        let heredocs: BTreeMap<&str, &Heredoc> =
            heredocs.iter().map(|heredoc| (heredoc.name.as_str(), heredoc)).collect();
        let mut copy = CopyWords {
            from: flags.value("from"),
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            exclude: flags
                .values("exclude")
                .filter(|pattern| !pattern.is_empty())
                .map(str::to_owned)
                .collect(),
            link: flags.truth("link").unwrap_or(false),
            parents: flags.truth("parents").unwrap_or(false),
            unpack: flags.truth("unpack"),
            checksum: flags.value("checksum"),
            keep_git_dir: flags.truth("keep-git-dir"),
            sources: Vec::new(),
            inline: Vec::new(),
            dest,
        };
        for source in list {
            let announced = words::heredoc(&source);
            match announced.and_then(|wanted| heredocs.get(wanted.name.as_str())) {
                Some(heredoc) if !is_file_name(&heredoc.name) => {
                    return Err(ErrorKind::HeredocName { name: heredoc.name.clone() });
                }
                Some(&heredoc) => copy.inline.push(heredoc.clone()),
                None => copy.sources.push(source),
            }
        }
        Ok(copy)
    }

    fn declarations(&self, escape: char) -> Result<Vec<ArgDeclaration>, ErrorKind> {
        let mut declarations = Vec::new();
        for word in words::split_quoted(self.rest, escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word, None),
            };
            if name.is_empty() {
                return Err(ErrorKind::EmptyName { keyword: self.keyword.name() });
            }
            declarations.push(ArgDeclaration { name, default });
        }
        Ok(declarations)
    }

    /// `NAME=value …`, or the old form `NAME value`.
    fn pairs(&self, escape: char) -> Result<Vec<(String, String)>, ErrorKind> {
        let keyword = self.keyword.name();
        let list = words::split_quoted(self.rest, escape);
        if list.first().is_none_or(|first| !first.contains('=')) {
            let (name, value) = words::split_name(self.rest).ok_or_else(|| self.incomplete())?;
            return Ok(vec![(name.to_owned(), value.to_owned())]);
        }
        let mut pairs = Vec::new();
        for word in list {
            let Some((name, value)) = word.split_once('=') else {
                return Err(ErrorKind::NoEqualsSign { keyword, word });
            };
            if name.is_empty() {
                return Err(ErrorKind::EmptyName { keyword });
            }
            pairs.push((name.to_owned(), value.to_owned()));
        }
        Ok(pairs)
    }

    fn from(&self, flags: Flags) -> Result<From, ErrorKind> {
        let platform = flags.value("platform");
        let list = words::split_blank(self.rest);
        match list.as_slice() {
            [base] => Ok(From { platform, base: base.clone(), name: None }),
            [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
                let name = name.to_lowercase();
                let is_plain =
                    |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
                if !(name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_plain)) {
                    return Err(ErrorKind::StageName { name });
                }
                Ok(From { platform, base: base.clone(), name: Some(name) })
            }
            _ => Err(self.incomplete()),
        }
    }

    fn healthcheck(&self, flags: &Flags) -> Result<Healthcheck, ErrorKind> {
        let (kind, rest) = words::split_first(self.rest);
        if kind.eq_ignore_ascii_case("NONE") {
            if !rest.is_empty() {
                return Err(ErrorKind::HealthcheckNone);
            }
            return Ok(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
        }
        if !kind.eq_ignore_ascii_case("CMD") {
            return Err(ErrorKind::HealthcheckKind { found: kind.to_owned() });
        }
        let command = Head { rest, whole: rest, flags: Vec::new(), keyword: self.keyword }.command()?;
        let test = match command {
            CommandLine::Exec(argv) if !argv.is_empty() => {
                std::iter::once("CMD".to_owned()).chain(argv).collect()
            }
            CommandLine::Shell(text) if !text.is_empty() => vec!["CMD-SHELL".to_owned(), text],
            _ => return Err(self.incomplete()),
        };
        let retries = match flags.value("retries") {
            Some(value) => match value.parse::<i32>() {
                Ok(retries) if retries >= 0 => retries.into(),
                _ => return Err(ErrorKind::Retries { value }),
            },
            None => 0,
        };
        Ok(Healthcheck {
            test,
            interval: flags.duration("interval")?,
            timeout: flags.duration("timeout")?,
            start_period: flags.duration("start-period")?,
            start_interval: flags.duration("start-interval")?,
            retries,
        })
    }

    /// Checks a trigger as far as it can be before it is used. What this version cannot perform may
    /// still be stored for others.
    fn trigger(&self, heredocs: &[Heredoc], escape: char) -> Result<Trigger, ErrorKind> {
        let head = Head::read(self.rest)?;
        if matches!(head.keyword, Keyword::From | Keyword::Maintainer | Keyword::Onbuild) {
            return Err(ErrorKind::Trigger { keyword: head.keyword.name() });
        }
        let declares = match head.instruction(heredocs.to_vec(), escape) {
            Ok(Instruction::Arg(declarations)) => declarations.into_iter().map(|arg| arg.name).collect(),
            Ok(_) | Err(ErrorKind::RunDevice | ErrorKind::RunInsecure) => Vec::new(),
            Err(kind) => return Err(kind),
        };
        let mut text = self.whole.to_owned();
        for heredoc in heredocs {
            heredoc.append_to(&mut text);
        }
        Ok(Trigger { text, declares })
    }
}

/// The flags of one instruction, checked against those it knows.
struct Flags(Vec<(&'static str, String)>);

impl Flags {
    fn read(keyword: Keyword, words: &[String]) -> Result<Self, ErrorKind> {
        let mut flags: Vec<(&'static str, String)> = Vec::new();
        for word in words {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let flag = keyword.flag(name).ok_or_else(|| ErrorKind::UnknownFlag {
                keyword: keyword.name(),
                flag: name.to_owned(),
                nearest: nearest(name, super::instruction::flag_names(keyword.name())),
            })?;
            if flag.kind != FlagKind::Values && flags.iter().any(|(known, _)| *known == flag.name) {
                return Err(ErrorKind::RepeatedFlag { flag: flag.name });
            }
            let value = match flag.kind {
                FlagKind::Truth => {
                    let text = value.unwrap_or("true").to_ascii_lowercase();
                    match text.as_str() {
                        "true" | "false" => text,
                        _ => return Err(ErrorKind::FlagNotBoolean { flag: flag.name, value: text }),
                    }
                }
                FlagKind::Value | FlagKind::Values => {
                    value.ok_or(ErrorKind::FlagWithoutValue { flag: flag.name })?.to_owned()
                }
            };
            flags.push((flag.name, value));
        }
        Ok(Self(flags))
    }

    /// The value of a flag; an empty one is none.
    fn value(&self, name: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
            .filter(|v| !v.is_empty())
    }

    /// The values of a flag that may be given several times.
    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a flag that takes one of a few words.
    fn choice(
        &self,
        name: &'static str,
        choices: &'static [&'static str],
    ) -> Result<Option<&'static str>, ErrorKind> {
        let Some((flag, value)) = self.0.iter().find(|(known, _)| *known == name) else { return Ok(None) };
        let found = choices.iter().copied().find(|choice| choice == value);
        match found {
            Some(choice) => Ok(Some(choice)),
            None => Err(ErrorKind::FlagChoice { flag, value: value.clone(), choices }),
        }
    }

    /// A truth value, if the flag is given.
    fn truth(&self, name: &str) -> Option<bool> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value == "true")
    }

    /// The duration of a flag in nanoseconds.
    fn duration(&self, name: &'static str) -> Result<i64, ErrorKind> {
        const SHORTEST: i64 = 1_000_000;
        let Some(value) = self.value(name) else { return Ok(0) };
        match super::duration::parse(&value) {
            Some(nanoseconds) if nanoseconds == 0 || nanoseconds >= SHORTEST => Ok(nanoseconds),
            _ => Err(ErrorKind::Duration { flag: name, value }),
        }
    }
}

/// Whether a heredoc of that name can become a file.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.contains('/') && name != "." && name != ".."
}

/// JSON can write a zero byte that the file itself could not hold.
fn without_zero_bytes(strings: Vec<String>) -> Result<Vec<String>, ErrorKind> {
    if strings.iter().any(|text| text.contains('\0')) { Err(ErrorKind::ZeroByte) } else { Ok(strings) }
}

/// The name that was probably meant.
pub(super) fn nearest<T: AsRef<str>>(word: &str, names: impl IntoIterator<Item = T>) -> Option<T> {
    const ALIKE: f64 = 0.7;
    const CHARS_MAX: usize = 40;
    if word.chars().nth(CHARS_MAX).is_some() {
        return None;
    }
    let scored = names.into_iter().map(|name| (strsim::damerau_levenshtein(word, name.as_ref()), name));
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    let length = name.as_ref().chars().count().max(word.chars().count());
    (distance as f64 <= (1.0 - ALIKE) * length as f64 + 0.5).then_some(name)
}
