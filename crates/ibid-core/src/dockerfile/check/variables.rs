//! Rules about what is set where. The scopes are the planner's: arguments before the first `FROM` are seen by `FROM`s,
//! each instruction sees what stands before it in its stage and in the stages that one starts from.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::digest::Digest;
use crate::image::ContainerConfig;
use crate::plan::Lines;
use crate::reference::Reference;
use crate::remote;

use super::super::environment::Environment;
use super::super::error::{Error, ErrorKind};
use super::super::expand::{Expander, Unset};
use super::super::instruction::{ArgDeclaration, CopyWords, Instruction};
use super::super::plan::DEFAULT_PATH;
use super::super::stages::{self, Budget};
use super::super::{Dockerfile, NamedContext, PlanOptions, context_name, parse, paths};
use super::rule::Rule;
use super::written::Written;
use super::{Facts, Report, reproducible, style};

/// How many names are looked up for what may have been meant; each costs a comparison with all that are known.
const SUGGESTIONS_MAX: usize = 100;

/// What one instruction of a stage sees.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    pub(super) values: Environment,
    /// Declared by an `ARG` that gives no value.
    declared: HashSet<String>,
    /// False when the stage starts from an image whose variables are not known.
    is_complete: bool,
    has_shell: bool,
    has_absolute_folder: bool,
}

/// What a text of a Dockerfile becomes, and which of its variables are not set.
struct Expanded {
    text: String,
    unset: Unset,
}

/// Expands texts, within bounds.
struct Expansion {
    escape: char,
    budget: Budget,
}

pub(super) struct Scopes<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a PlanOptions,
    facts: &'a Facts<'a>,
    expansion: Expansion,
    /// What `FROM`s see.
    global: Environment,
    /// The same without build arguments.
    defaults: Environment,
    declared_globally: HashSet<String>,
    /// How the stages before ended, and where the last one of each name is.
    stages: Vec<Scope>,
    names: BTreeMap<String, usize>,
    suggestions: usize,
}

/// Every image that a stage names.
pub(super) fn images(dockerfile: &Dockerfile, options: &PlanOptions) -> BTreeSet<String> {
    let (ignore, none, nothing) = (Default::default(), BTreeMap::new(), BTreeSet::new());
    let facts = Facts { images: &none, pinned: &nothing, ignore: &ignore, ignore_file: "" };
    let mut scopes = Scopes::new(dockerfile, options, &facts);
    let mut images = BTreeSet::new();
    for (lines, declarations) in &dockerfile.global {
        // What is too large is said when it is checked.
        if scopes.global(*lines, declarations).is_err() {
            return images;
        }
    }
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        let base = scopes.expansion.text(stage.lines, &stage.from.base, &scopes.global);
        let Ok(base) = base else { return images };
        images.extend(scopes.image(&base.text, index));
        for statement in &stage.statements {
            match &statement.instruction {
                Instruction::Copy(CopyWords { from: Some(from), .. }) => {
                    images.extend(scopes.image(from, index))
                }
                Instruction::Run(run) => {
                    images.extend(run.mounts.iter().filter_map(|mount| scopes.image(mount.from()?, index)));
                }
                _ => {}
            }
        }
        if let Some(name) = &stage.from.name {
            scopes.names.insert(name.clone(), index);
        }
    }
    images
}

impl<'a> Scopes<'a> {
    pub(super) fn new(dockerfile: &'a Dockerfile, options: &'a PlanOptions, facts: &'a Facts<'a>) -> Self {
        let target = dockerfile.stages.last().and_then(|stage| stage.from.name.as_deref());
        let global = stages::always_known(options, target);
        Self {
            dockerfile,
            options,
            facts,
            expansion: Expansion { escape: dockerfile.escape, budget: Budget::new() },
            defaults: global.clone(),
            global,
            declared_globally: HashSet::new(),
            stages: Vec::new(),
            names: BTreeMap::new(),
            suggestions: 0,
        }
    }

    /// `ARG` before the first `FROM`.
    pub(super) fn global(&mut self, lines: Lines, declarations: &[ArgDeclaration]) -> Result<(), Error> {
        for ArgDeclaration { name, default } in declarations {
            self.declared_globally.insert(name.clone());
            if let Some(default) = default {
                let value = self.expansion.text(lines, default, &self.defaults)?;
                self.defaults.set(name, &value.text);
            }
            let value = match (self.options.build_args.get(name), default) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => self.expansion.text(lines, default, &self.global)?.text,
                (None, None) => continue,
            };
            self.global.set(name, &value);
        }
        Ok(())
    }

    /// `FROM`: what its stage begins with.
    pub(super) fn from(&mut self, at: &Written, index: usize, report: &mut Report) -> Result<Scope, Error> {
        let from = &self.dockerfile.stages[index].from;
        let base = self.expansion.text(at.lines, &from.base, &self.global)?.text;
        let platform = from.platform.as_ref();
        let platform = platform.map(|text| self.expansion.text(at.lines, text, &self.global)).transpose()?;
        self.check_arguments(at, from.base.as_str(), report)?;
        self.check_default(at, &from.base, report)?;
        if let (Some(text), Some(platform)) = (&from.platform, &platform) {
            self.check_arguments(at, text, report)?;
            self.check_platform(at, text, &platform.text, from.name.as_deref(), report)?;
        }
        let scope = match (self.names.get(&base.to_lowercase()), self.image(&base, index)) {
            (Some(stage), _) => {
                let scope = self.stages[*stage].clone();
                self.expansion.charge(at.lines, scope.size())?;
                scope
            }
            (None, Some(image)) => {
                self.check_pinned(at, &image, report);
                let wanted = platform.map(|platform| platform.text);
                self.check_image_platform(at, &image, wanted.as_deref(), report);
                match self.facts.images.get(&image) {
                    Some(image) => Scope::of_image(&image.config),
                    None => Scope { is_complete: false, ..Scope::of_image(&ContainerConfig::default()) },
                }
            }
            (None, None) => Scope::of_image(&ContainerConfig::default()),
        };
        if let Some(name) = &from.name {
            self.names.insert(name.clone(), index);
        }
        Ok(scope)
    }

    /// Keeps how a stage ended.
    pub(super) fn keep(&mut self, scope: Scope) {
        self.stages.push(scope);
    }

    /// An instruction of a stage.
    pub(super) fn instruction(
        &mut self,
        at: &Written,
        instruction: &Instruction,
        scope: &mut Scope,
        report: &mut Report,
    ) -> Result<(), Error> {
        match instruction {
            Instruction::Arg(declarations) => {
                for ArgDeclaration { name, default } in declarations {
                    let default = match default {
                        Some(default) => Some(self.word(at, default, scope, report)?),
                        None => self.global.get(name).map(str::to_owned),
                    };
                    let value = self.options.build_args.get(name).cloned().or(default);
                    if let Some(value) = &value {
                        self.expansion.charge(at.lines, value.len())?;
                        scope.values.set(name, value);
                    }
                    scope.declared.insert(name.clone());
                }
            }
            Instruction::Env(pairs) => {
                let mut expanded = Vec::new();
                for (name, value) in pairs {
                    expanded
                        .push((self.word(at, name, scope, report)?, self.word(at, value, scope, report)?));
                }
                for (name, value) in expanded {
                    scope.values.set(&name, &value);
                }
            }
            Instruction::Label(pairs) => {
                for (name, value) in pairs {
                    self.word(at, name, scope, report)?;
                    self.word(at, value, scope, report)?;
                }
            }
            Instruction::Copy(copy) | Instruction::Add(copy) => {
                let is_add = matches!(instruction, Instruction::Add(_));
                self.copy(at, copy, is_add, scope, report)?;
            }
            Instruction::Workdir(path) => {
                let path = self.word(at, path, scope, report)?;
                if path.starts_with('/') {
                    scope.has_absolute_folder = true;
                } else if !scope.has_absolute_folder {
                    report.add(
                        Rule::WorkdirRelativePath,
                        at,
                        format!("`{path}` is relative to whatever folder the base image names"),
                        format!("write `WORKDIR {}`", paths::absolute("/", &path)),
                    );
                }
            }
            Instruction::Expose(ports) => {
                for port in ports {
                    let ports = self.word(at, port, scope, report)?;
                    ports.split_whitespace().for_each(|port| check_port(at, port, report));
                }
            }
            Instruction::User(text) | Instruction::Stopsignal(text) => {
                self.word(at, text, scope, report)?;
            }
            Instruction::Volume(volumes) => {
                for volume in volumes {
                    self.word(at, volume, scope, report)?;
                }
            }
            Instruction::Run(run) => {
                let index = self.stages.len();
                for mount in &run.mounts {
                    for value in mount.values() {
                        self.word(at, value, scope, report)?;
                    }
                    if let Some(image) = mount.from().and_then(|from| self.image(from, index)) {
                        self.check_pinned(at, &image, report);
                    }
                }
            }
            Instruction::Shell(_) => scope.has_shell = true,
            Instruction::Cmd(command) | Instruction::Entrypoint(command) if !scope.has_shell => {
                style::shell_form(at, command, report);
            }
            _ => {}
        }
        Ok(())
    }

    fn copy(
        &mut self,
        at: &Written,
        copy: &CopyWords,
        is_add: bool,
        scope: &Scope,
        report: &mut Report,
    ) -> Result<(), Error> {
        for text in [&copy.chown, &copy.chmod].into_iter().flatten().chain([&copy.dest]) {
            self.word(at, text, scope, report)?;
        }
        for heredoc in copy.inline.iter().filter(|heredoc| heredoc.expands) {
            let rules = Expander::for_heredoc(&scope.values, usize::MAX);
            self.word_by(at, &heredoc.content, scope, report, rules)?;
        }
        let index = self.stages.len();
        if let Some(image) = copy.from.as_ref().and_then(|from| self.image(from, index)) {
            self.check_pinned(at, &image, report);
        }
        for source in &copy.sources {
            let expanded = self.word(at, source, scope, report)?;
            match (&copy.from, is_remote(&expanded)) {
                (None, false) => self.check_kept(at, &expanded, report),
                (None, true) if is_add && !self.facts.pinned.contains(&remote::name(&expanded)) => {
                    reproducible::remote(at, source, report);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A path of the context that is dropped from it.
    fn check_kept(&self, at: &Written, source: &str, report: &mut Report) {
        let path = paths::source(source);
        // Wildcards that match nothing copy nothing, and the context itself is always there.
        if path == "." || path.contains(['*', '?', '[', '\\']) {
            return;
        }
        let verdict = self.facts.ignore.verdict(path.as_bytes());
        if !verdict.ignored || self.facts.ignore.may_descend(verdict, path.as_bytes()) {
            return;
        }
        let rule = verdict.rule.map_or(String::new(), |line| {
            let text = self.facts.ignore.text(line).unwrap_or_default();
            format!(" by {}:{line} `{text}`", self.facts.ignore_file)
        });
        report.add(
            Rule::CopyIgnoredFile,
            at,
            format!("`{source}` is dropped from the context{rule}"),
            format!("add the exception `!{path}` below that rule, or do not copy it"),
        );
    }

    /// Variables of `FROM` that no `ARG` before the first `FROM` declares.
    fn check_arguments(&mut self, at: &Written, text: &str, report: &mut Report) -> Result<(), Error> {
        for name in self.variables(at.lines, text)? {
            if self.declared_globally.contains(&name) || self.global.get(&name).is_some() {
                continue;
            }
            let known = self.declared_globally.iter().map(String::as_str);
            let known = known.chain(self.global.iter().map(|(name, _)| name));
            let meant = if self.suggestions < SUGGESTIONS_MAX { parse::nearest(&name, known) } else { None };
            let fix = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("declare it before the first `FROM`: `ARG {name}=value`"),
            };
            self.suggestions += 1;
            let message = format!("no `ARG` before the first `FROM` declares `{name}`");
            report.add(Rule::UndefinedArgInFrom, at, message, fix);
        }
        Ok(())
    }

    /// A base that is no image unless build arguments are given.
    fn check_default(&mut self, at: &Written, text: &str, report: &mut Report) -> Result<(), Error> {
        let names = self.variables(at.lines, text)?;
        let is_declared =
            |name: &String| self.declared_globally.contains(name) || self.global.get(name).is_some();
        // Those that are not declared are another rule's.
        if names.is_empty() || !names.iter().all(is_declared) {
            return Ok(());
        }
        let base = self.expansion.text(at.lines, text, &self.defaults)?.text;
        let is_name = base == "scratch" || self.names.contains_key(&base.to_lowercase());
        if !is_name && base.parse::<Reference>().is_err() && base.parse::<Digest>().is_err() {
            report.add(
                Rule::InvalidDefaultArgInFrom,
                at,
                format!("without build arguments `{text}` is `{base}`, which names no image"),
                format!("give `ARG {}` a default", names.first().map_or("NAME", String::as_str)),
            );
        }
        Ok(())
    }

    fn check_platform(
        &mut self,
        at: &Written,
        text: &str,
        platform: &str,
        stage: Option<&str>,
        report: &mut Report,
    ) -> Result<(), Error> {
        if matches!(text, "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            report.add(
                Rule::RedundantTargetPlatform,
                at,
                format!("`{text}` is the platform of every base image anyway"),
                "remove `--platform`",
            );
        } else if self.variables(at.lines, text)?.is_empty() {
            let stage = stage.unwrap_or_default();
            let is_told = platform.to_lowercase().split('/').take(2).any(|part| stage.contains(part));
            if !is_told {
                report.add(
                    Rule::FromPlatformFlagConstDisallowed,
                    at,
                    format!("`--platform={platform}` is fixed"),
                    "remove it, or name the platform in the stage's name",
                );
            }
        }
        Ok(())
    }

    /// A base image that is known to be for another platform.
    fn check_image_platform(&self, at: &Written, image: &str, platform: Option<&str>, report: &mut Report) {
        let Some(config) = self.facts.images.get(image) else { return };
        let own = format!("linux/{}", self.options.architecture);
        let lower = platform.unwrap_or(&own).to_lowercase();
        let (os, architecture) = match lower.split('/').collect::<Vec<_>>()[..] {
            [architecture] => ("linux", architecture),
            [os, architecture, ..] => (os, architecture),
            [] => return,
        };
        // A variable that is not set is another rule's.
        if os.is_empty() || architecture.is_empty() {
            return;
        }
        let wanted = format!("{os}/{}", crate::platform::normal_architecture(architecture));
        let found = format!("{}/{}", config.os, config.architecture);
        if wanted != found {
            report.add(
                Rule::InvalidBaseImagePlatform,
                at,
                format!("the image `{image}` is for {found}, not for {wanted}"),
                "take the image for that platform",
            );
        }
    }

    fn check_pinned(&self, at: &Written, image: &str, report: &mut Report) {
        let has_digest = image.contains("@sha256:") || image.parse::<Digest>().is_ok();
        if !has_digest && !self.facts.pinned.contains(image) {
            report.add(
                Rule::UnpinnedBaseImage,
                at,
                format!("neither a digest nor ibid.lock pins the image `{image}`"),
                format!("write `{image}@sha256:…`, or have ibid make it from locked packages: `[base.\"{image}\"]` in ibid.toml"),
            );
        }
    }

    /// The image that the expanded text of `FROM` or `--from` in the stage `index` names; none when it is a stage, a
    /// folder that the command line names, or nothing.
    fn image(&self, text: &str, index: usize) -> Option<String> {
        let is_number = text.parse::<usize>().is_ok_and(|number| number < index.max(1));
        let is_stage = is_number || self.names.contains_key(&text.to_lowercase());
        if text.is_empty() || text == "scratch" || is_stage {
            return None;
        }
        match self.options.contexts.get(&context_name(text)) {
            Some(NamedContext::Folder) => None,
            Some(NamedContext::Image(image)) => Some(image.clone()),
            None => Some(text.to_owned()),
        }
    }

    /// All variables that a text uses.
    fn variables(&mut self, lines: Lines, text: &str) -> Result<BTreeSet<String>, Error> {
        let Unset { mut plain, provided } = self.expansion.text(lines, text, &Environment::default())?.unset;
        plain.extend(provided);
        Ok(plain)
    }

    /// A word of an instruction; its variables that nothing sets are reported.
    fn word(
        &mut self,
        at: &Written,
        text: &str,
        scope: &Scope,
        report: &mut Report,
    ) -> Result<String, Error> {
        let rules = Expander::new(self.dockerfile.escape, &scope.values, usize::MAX);
        self.word_by(at, text, scope, report, rules)
    }

    fn word_by(
        &mut self,
        at: &Written,
        text: &str,
        scope: &Scope,
        report: &mut Report,
        rules: Expander,
    ) -> Result<String, Error> {
        let Expanded { text, unset } = self.expansion.text_by(at.lines, text, rules)?;
        for name in unset.plain {
            if scope.declared.contains(&name) {
                continue;
            }
            let known = scope.values.iter().map(|(name, _)| name);
            let known = known.chain(scope.declared.iter().map(String::as_str));
            let meant = if self.suggestions < SUGGESTIONS_MAX { parse::nearest(&name, known) } else { None };
            self.suggestions += 1;
            // The base image may set it.
            if meant.is_none() && !scope.is_complete {
                continue;
            }
            let fix = match meant {
                Some(meant) => format!("did you mean `${meant}`?"),
                None if self.declared_globally.contains(&name) => {
                    format!(
                        "an `ARG` before the first `FROM` is seen by `FROM` only: repeat `ARG {name}` in the stage"
                    )
                }
                None => format!("set it before this line: `ARG {name}` or `ENV {name}=value`"),
            };
            report.add(Rule::UndefinedVar, at, format!("nothing sets the variable `${name}`"), fix);
        }
        Ok(text)
    }
}

impl Expansion {
    fn text(&mut self, lines: Lines, text: &str, environment: &Environment) -> Result<Expanded, Error> {
        self.text_by(lines, text, Expander::new(self.escape, environment, usize::MAX))
    }

    /// A text that cannot be expanded stays as it is: a build that needs it says why.
    fn text_by(&mut self, lines: Lines, text: &str, rules: Expander) -> Result<Expanded, Error> {
        let unset = RefCell::default();
        let rules = Expander { limit: self.budget.left(), unset: Some(&unset), ..rules };
        let text = match rules.word(text).map_err(|fault| self.budget.fault(text, fault)) {
            Ok(expanded) => expanded,
            Err(kind @ ErrorKind::TooLarge { .. }) => return Err(Error { lines, kind }),
            Err(_) => text.to_owned(),
        };
        self.charge(lines, text.len())?;
        Ok(Expanded { text, unset: unset.into_inner() })
    }

    fn charge(&mut self, lines: Lines, bytes: usize) -> Result<(), Error> {
        self.budget.charge(bytes).map_err(|kind| Error { lines, kind })
    }
}

impl Scope {
    fn of_image(config: &ContainerConfig) -> Self {
        let mut values = Environment::from_config(&config.env);
        if values.get("PATH").is_none() {
            values.set("PATH", DEFAULT_PATH);
        }
        Self {
            values,
            declared: HashSet::new(),
            is_complete: true,
            has_shell: config.shell.as_ref().is_some_and(|shell| !shell.is_empty()),
            has_absolute_folder: false,
        }
    }

    /// About the bytes that a copy of it takes.
    fn size(&self) -> usize {
        self.values.size() + self.declared.iter().map(String::len).sum::<usize>()
    }
}

/// Whether `ADD` fetches a source.
fn is_remote(source: &str) -> bool {
    source.contains("://") || source.starts_with("git@")
}

fn check_port(at: &Written, port: &str, report: &mut Report) {
    let (address, container) = port.rsplit_once(':').unwrap_or(("", port));
    if !address.is_empty() {
        report.add(
            Rule::ExposeInvalidFormat,
            at,
            format!("`{port}` names an address or a port of the host"),
            format!("write `EXPOSE {container}`"),
        );
    }
    if let Some((_, protocol)) = container.split_once('/')
        && protocol.chars().any(char::is_uppercase)
    {
        report.add(
            Rule::ExposeProtoCasing,
            at,
            format!("the protocol of `{port}` is not in lower case"),
            format!("write `{}`", port.to_lowercase()),
        );
    }
}
