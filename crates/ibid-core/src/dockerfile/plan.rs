//! Instructions, one after the other, become steps and an image configuration.
//!
//! Each instruction sees the environment as it was before it. `ENV` and `ARG` write to one environment,
//! the later one winning, as in BuildKit; only `ENV` writes to the image. A stage that starts from another
//! keeps that one's arguments.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerignore::{Ignore, MalformedPattern};
use crate::image::{ContainerConfig, Empty};
use crate::mode::InvalidMode;
use crate::plan::{
    Action, Base, Copy, CopyFrom, CopySource, InlineFile, Lines, Mount, Plan, Run, SCRIPT_FOLDER, Stage, Step,
};

use crate::remote::{self, GitSource, UrlSource, without_credentials};

use super::environment::Environment;
use super::error::{Error, ErrorKind, ExpansionFault};
use super::expand::Expander;
use super::instruction::{ArgDeclaration, CommandLine, CopyWords, Instruction, Keyword, RunWords, Statement};
use super::mount::{self, MountWords};
use super::stages::{self, BaseName, Budget, Resolved};
use super::{Dockerfile, PlanOptions, parse, paths, ports, signal, words};

/// The `PATH` of an image that sets none.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a variable of a `RUN` takes beside its text, about.
const VARIABLE_BYTES: usize = 32;
/// The build argument whose value tells cache mounts of builds apart.
const CACHE_NAMESPACE_ARG: &str = "BUILDKIT_CACHE_MOUNT_NS";
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

pub(super) fn plan(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    images: &BTreeMap<String, ContainerConfig>,
) -> Result<Plan, Error> {
    let mut budget = Budget::new();
    let resolved = stages::resolve(dockerfile, options, &mut budget)?;
    let needed = stages::needed(dockerfile, options, &resolved, Some(images), &mut budget)?;
    let mut planner = Planner {
        dockerfile,
        options,
        images,
        resolved,
        budget,
        places: vec![None; dockerfile.stages.len()],
        states: Vec::new(),
    };
    let mut declared: BTreeSet<String> = dockerfile.declared_args().into_iter().map(str::to_owned).collect();
    let mut planned = Vec::new();
    for (index, triggers) in needed.triggers.into_iter().enumerate() {
        let Some(triggers) = triggers else { continue };
        for trigger in &triggers {
            if let Instruction::Arg(declarations) = &trigger.instruction {
                declared.extend(declarations.iter().map(|arg| arg.name.clone()));
            }
        }
        planned.push(planner.stage(index, &triggers)?);
    }
    let is_undeclared = |name: &&String| !declared.contains(*name) && !stages::is_always_known(name, options);
    Ok(Plan {
        target: planned.len() - 1,
        stages: planned,
        undeclared_args: options.build_args.keys().filter(is_undeclared).cloned().collect(),
    })
}

struct Planner<'a> {
    dockerfile: &'a Dockerfile,
    options: &'a PlanOptions,
    images: &'a BTreeMap<String, ContainerConfig>,
    resolved: Resolved,
    budget: Budget,
    /// Where each stage of the file is in the plan.
    places: Vec<Option<usize>>,
    /// How each stage of the plan ended.
    states: Vec<State>,
}

/// What one instruction leaves to the next.
#[derive(Debug, Clone, Default)]
struct State {
    /// All but `env`, which is kept in `image`.
    config: ContainerConfig,
    /// The image's own environment.
    image: Environment,
    /// What words and commands see: `image` and the arguments.
    all: Environment,
    /// The declared arguments. Only their names count: `all` has the values.
    args: Environment,
    author: Option<String>,
    /// Whether this stage has had its own `CMD`.
    has_cmd: bool,
}

impl State {
    fn from_image(config: ContainerConfig) -> Self {
        let mut image = Environment::from_config(&config.env);
        if image.get("PATH").is_none() {
            image.set("PATH", DEFAULT_PATH);
        }
        let mut config = ContainerConfig { env: Vec::new(), on_build: Vec::new(), ..config };
        if !config.working_dir.is_empty() {
            config.working_dir = paths::absolute("/", &config.working_dir);
        }
        Self { config, all: image.clone(), image, ..Self::default() }
    }

    /// What a stage that starts from this one begins with.
    fn inherited(&self) -> Self {
        let mut state = self.clone();
        state.config.on_build = Vec::new();
        state.has_cmd = false;
        for (name, value) in self.image.iter() {
            state.all.set(name, value);
        }
        state
    }

    /// About the bytes that a copy of it takes.
    fn size(&self) -> usize {
        let config = &self.config;
        let lists = [&config.entrypoint, &config.cmd, &config.shell];
        let maps = config.exposed_ports.keys().chain(config.volumes.keys()).map(|name| name.len() + 32);
        self.image.size()
            + self.all.size()
            + self.args.size()
            + lists.into_iter().flatten().flatten().map(String::len).sum::<usize>()
            + maps.sum::<usize>()
            + config.labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    fn folder(&self) -> &str {
        if self.config.working_dir.is_empty() { "/" } else { &self.config.working_dir }
    }

    /// The command line of a text for the shell.
    fn with_shell(&self, text: &str) -> Vec<String> {
        let shell = self.config.shell.as_ref().filter(|shell| !shell.is_empty());
        let mut argv = shell.cloned().unwrap_or_else(|| DEFAULT_SHELL.map(str::to_owned).to_vec());
        argv.push(text.to_owned());
        argv
    }

    fn argv(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Shell(text) => self.with_shell(text),
            CommandLine::Exec(argv) => argv.clone(),
        }
    }
}

impl Planner<'_> {
    fn stage(&mut self, index: usize, triggers: &[Statement]) -> Result<Stage, Error> {
        let source = &self.dockerfile.stages[index];
        let mut steps = Vec::new();
        let (base, mut state) = match &self.resolved.bases[index] {
            BaseName::Scratch | BaseName::Context(_) => {
                let config = ContainerConfig { working_dir: "/".to_owned(), ..ContainerConfig::default() };
                (Base::Scratch, State::from_image(config))
            }
            BaseName::Image(image) => {
                // Only needed stages are planned, and what they need is known to be there.
                (Base::Image(image.clone()), State::from_image(self.images[image].clone()))
            }
            BaseName::Stage(earlier) => {
                let place = self.place(*earlier);
                (Base::Stage(place), self.states[place].inherited())
            }
        };
        let size = state.size();
        self.budget.charge(size).map_err(|kind| Error { lines: source.lines, kind })?;
        if let BaseName::Context(name) = &self.resolved.bases[index] {
            steps.push(whole_context(name, source.lines));
        }
        for statement in triggers.iter().chain(self.resolved.statements(self.dockerfile, index)) {
            let fault = |kind| Error { lines: statement.lines, kind };
            let (action, created_by) = self.step(index, statement, &mut state).map_err(fault)?;
            let is_stored = matches!(statement.instruction, Instruction::Onbuild(_));
            steps.push(Step {
                lines: statement.lines,
                text: statement.text.clone(),
                created_by: (!is_stored).then(|| created_by.unwrap_or_else(|| statement.text.clone())),
                author: state.author.clone(),
                action,
            });
        }
        let stage = Stage {
            name: source.from.name.clone(),
            base,
            lines: source.lines,
            steps,
            config: ContainerConfig { env: state.image.to_config(), ..state.config.clone() },
            author: state.author.clone(),
        };
        self.places[index] = Some(self.states.len());
        self.states.push(state);
        Ok(stage)
    }

    fn place(&self, index: usize) -> usize {
        place(&self.places, index)
    }

    fn word(&mut self, text: &str, environment: &Environment) -> Result<String, ErrorKind> {
        self.budget.word(text, self.dockerfile.escape, environment)
    }

    /// A path of `COPY` or `ADD`. People put quotes around spaces, where words are cut all the same.
    fn path(&mut self, keyword: Keyword, text: &str, state: &State) -> Result<String, ErrorKind> {
        self.word(text, &state.all).map_err(|kind| match kind {
            ErrorKind::Expansion { word, fault: ExpansionFault::OpenQuote(_) } => {
                ErrorKind::QuotedPath { keyword: keyword.name(), word }
            }
            kind => kind,
        })
    }

    /// Carries out one instruction on the state. What the history says of it, unless that is its text.
    fn step(
        &mut self,
        index: usize,
        statement: &Statement,
        state: &mut State,
    ) -> Result<(Action, Option<String>), ErrorKind> {
        let created_by = match &statement.instruction {
            Instruction::Run(run) => {
                let run = self.run(index, run, state)?;
                let created_by = run_history(&run, state);
                self.budget.charge(created_by.len())?;
                return Ok((Action::Run(run), Some(created_by)));
            }
            Instruction::Copy(copy) => {
                let (copy, created_by) = self.copy(index, Keyword::Copy, copy, state)?;
                return Ok((Action::Copy(copy), Some(created_by)));
            }
            Instruction::Add(copy) => {
                let (copy, created_by) = self.copy(index, Keyword::Add, copy, state)?;
                return Ok((Action::Copy(copy), Some(created_by)));
            }
            Instruction::Workdir(path) => {
                let path = self.word(path, &state.all)?;
                let path = paths::absolute(state.folder(), &path);
                state.config.working_dir.clone_from(&path);
                let created_by = Some(format!("WORKDIR {path}"));
                let user = state.config.user.clone();
                let action = if path == "/" { Action::Config } else { Action::Workdir { path, user } };
                return Ok((action, created_by));
            }
            Instruction::Arg(declarations) => Some(self.declare(declarations, state)?),
            Instruction::Env(pairs) => {
                let pairs = self.pairs(Keyword::Env, pairs, state)?;
                for (name, value) in &pairs {
                    state.image.set(name, value);
                    state.all.set(name, value);
                }
                Some(pairs_history("ENV", &pairs))
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(Keyword::Label, pairs, state)?;
                let created_by = pairs_history("LABEL", &pairs);
                state.config.labels.extend(pairs);
                Some(created_by)
            }
            Instruction::Cmd(command) => {
                let argv = state.argv(command);
                let created_by = list_history("CMD", &argv);
                // An empty list is none, as in `ENTRYPOINT []`.
                state.config.cmd = Some(argv).filter(|argv| !argv.is_empty());
                state.config.args_escaped = true;
                state.has_cmd = true;
                Some(created_by)
            }
            Instruction::Entrypoint(command) => {
                let argv = state.argv(command);
                let created_by = list_history("ENTRYPOINT", &argv);
                state.config.entrypoint = Some(argv).filter(|argv| !argv.is_empty());
                // The base's arguments were meant for the base's program.
                if !state.has_cmd {
                    state.config.cmd = None;
                }
                Some(created_by)
            }
            Instruction::Shell(shell) => {
                state.config.shell = Some(shell.clone());
                Some(format!("SHELL [{}]", shell.join(" ")))
            }
            Instruction::User(user) => {
                let user = self.word(user, &state.all)?;
                state.config.user.clone_from(&user);
                Some(format!("USER {user}"))
            }
            Instruction::Volume(volumes) => {
                let mut expanded = Vec::new();
                for volume in volumes {
                    let volume = self.word(volume, &state.all)?;
                    if volume.is_empty() {
                        return Err(ErrorKind::EmptyPath { keyword: "VOLUME" });
                    }
                    expanded.push(volume);
                }
                let created_by = format!("VOLUME [{}]", expanded.join(" "));
                state.config.volumes.extend(expanded.into_iter().map(|volume| (volume, Empty {})));
                Some(created_by)
            }
            Instruction::Expose(words) => Some(self.expose(words, state)?),
            Instruction::Stopsignal(text) => {
                let text = self.word(text, &state.all)?;
                if !signal::is_signal(&text) {
                    return Err(ErrorKind::Signal { signal: text });
                }
                state.config.stop_signal = Some(text.clone());
                Some(format!("STOPSIGNAL {text}"))
            }
            Instruction::Healthcheck(check) => {
                state.config.healthcheck = Some(check.clone());
                None
            }
            Instruction::Maintainer(author) => {
                state.author = Some(author.clone());
                None
            }
            Instruction::Onbuild(trigger) => {
                state.config.on_build.push(trigger.text.clone());
                None
            }
            Instruction::From(_) => unreachable!("a `FROM` starts a stage and is no trigger"),
        };
        Ok((Action::Config, created_by))
    }

    /// `ARG`: each declaration sees those before it.
    fn declare(&mut self, declarations: &[ArgDeclaration], state: &mut State) -> Result<String, ErrorKind> {
        let mut created_by = "ARG".to_owned();
        for declaration in declarations {
            let name = self.word(&declaration.name, &state.all)?;
            if name.is_empty() {
                return Err(ErrorKind::EmptyName { keyword: "ARG" });
            }
            let value = match (self.options.build_args.get(&name), &declaration.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.word(default, &state.all)?),
                (None, None) => self.resolved.global.get(&name).map(str::to_owned),
            };
            created_by.push(' ');
            created_by.push_str(&name);
            if let Some(value) = value {
                self.budget.charge(value.len())?;
                state.all.set(&name, &value);
                created_by.push('=');
                created_by.push_str(&value);
            }
            state.args.set(&name, "");
        }
        Ok(created_by)
    }

    /// Names and values of `ENV` and `LABEL`.
    fn pairs(
        &mut self,
        keyword: Keyword,
        pairs: &[(String, String)],
        state: &State,
    ) -> Result<Vec<(String, String)>, ErrorKind> {
        let mut expanded = Vec::new();
        for (name, value) in pairs {
            let name = self.word(name, &state.all)?;
            if name.is_empty() {
                return Err(ErrorKind::EmptyName { keyword: keyword.name() });
            }
            expanded.push((name, self.word(value, &state.all)?));
        }
        Ok(expanded)
    }

    fn expose(&mut self, list: &[String], state: &mut State) -> Result<String, ErrorKind> {
        /// What a port takes in memory, about.
        const PORT_BYTES: usize = 32;
        let mut created_by = "EXPOSE".to_owned();
        for text in list {
            let rules = Expander::new(self.dockerfile.escape, &state.all, self.budget.left());
            let expanded = rules.words(text).map_err(|fault| self.budget.fault(text, fault))?;
            for word in expanded {
                let Some(found) = ports::parse(&word) else { return Err(ErrorKind::Port { port: word }) };
                self.budget.charge(word.len() + found.len() * PORT_BYTES)?;
                created_by.push(' ');
                created_by.push_str(&word);
                state.config.exposed_ports.extend(found.into_iter().map(|port| (port, Empty {})));
            }
        }
        Ok(created_by)
    }

    fn run(&mut self, index: usize, run: &RunWords, state: &State) -> Result<Run, ErrorKind> {
        let mounts = self.mounts(index, &run.mounts, state)?;
        let mut script = None;
        let argv = match (&run.command, run.heredocs.as_slice()) {
            (CommandLine::Shell(text), [heredoc, ..]) => {
                let is_alone = words::heredoc(text).is_some();
                let content = heredoc.text();
                if is_alone && content.starts_with("#!") {
                    if !parse::is_file_name(&heredoc.name) {
                        return Err(ErrorKind::HeredocName { name: heredoc.name.clone() });
                    }
                    let argv = state.with_shell(&format!("{SCRIPT_FOLDER}/{}", heredoc.name));
                    script = Some(InlineFile { name: heredoc.name.clone(), content });
                    argv
                } else if is_alone {
                    state.with_shell(&content)
                } else {
                    // The shell reads these heredocs itself.
                    let mut whole = text.clone();
                    for heredoc in &run.heredocs {
                        heredoc.append_to(&mut whole);
                    }
                    state.with_shell(&whole)
                }
            }
            (command, _) => state.argv(command),
        };
        let own = state.image.iter().map(|(name, _)| name);
        let args = state.all.iter().map(|(name, _)| name).filter(|name| state.image.get(name).is_none());
        let mut env = Vec::new();
        for name in own.chain(args) {
            let value = state.all.get(name).expect("all variables are in `all`");
            self.budget.charge(name.len() + value.len() + VARIABLE_BYTES)?;
            env.push((name.to_owned(), value.to_owned()));
        }
        Ok(Run {
            argv,
            env,
            user: state.config.user.clone(),
            cwd: state.folder().to_owned(),
            mounts,
            network: run.network,
            script,
        })
    }

    fn mounts(&mut self, index: usize, list: &[MountWords], state: &State) -> Result<Vec<Mount>, ErrorKind> {
        let namespace = self.options.build_args.get(CACHE_NAMESPACE_ARG).filter(|text| !text.is_empty());
        let cache_namespace = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let (budget, escape) = (&mut self.budget, self.dockerfile.escape);
        let (dockerfile, resolved, places) = (self.dockerfile, &self.resolved, &self.places);
        let source = |from: &str| source(dockerfile, resolved, places, index, from);
        let mut mounts = Vec::new();
        for words in list {
            let agents = mounts.iter().filter(|mount| matches!(mount, Mount::Ssh { .. })).count();
            let mut reading = mount::Reading {
                expand: &mut |word| budget.word(word, escape, &state.all),
                source: &source,
                folder: state.folder(),
                cache_namespace: &cache_namespace,
                agents,
            };
            mounts.push(mount::mount(words, &mut reading)?);
        }
        Ok(mounts)
    }

    /// A source that is fetched; none for a path.
    fn remote(
        &mut self,
        keyword: Keyword,
        source: &str,
        copy: &CopyWords,
        state: &State,
    ) -> Result<Option<CopySource>, ErrorKind> {
        let git = GitSource::parse(source).map_err(|reason| {
            let source_path = without_credentials(source);
            match keyword {
                Keyword::Copy => ErrorKind::CopyFromUrl { source_path },
                _ => ErrorKind::GitSource { source_path, reason },
            }
        })?;
        if git.is_none() && !remote::is_url(source) {
            let has_scheme = source.split_once("://").is_some_and(|(scheme, _)| {
                !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric())
            });
            // As a path it would lead nowhere.
            return match has_scheme && keyword == Keyword::Add {
                true => Err(ErrorKind::UrlScheme { source_path: source.to_owned() }),
                false => Ok(None),
            };
        }
        if keyword == Keyword::Copy {
            return Err(ErrorKind::CopyFromUrl { source_path: without_credentials(source) });
        }
        if let Some(git) = git {
            return self.git(git, source, copy, state).map(|git| Some(CopySource::Git(git)));
        }
        let sha256 = match &copy.checksum {
            None => None,
            Some(checksum) => {
                let checksum = self.word(checksum, &state.all)?;
                match (checksum.parse(), checksum.split_once(':')) {
                    (Ok(digest), _) => Some(digest),
                    (Err(_), Some((algorithm, _))) if algorithm != "sha256" => {
                        return Err(ErrorKind::ChecksumAlgorithm { algorithm: algorithm.to_owned() });
                    }
                    (Err(_), _) => return Err(ErrorKind::Checksum { checksum }),
                }
            }
        };
        Ok(Some(CopySource::Url(UrlSource {
            url: source.to_owned(),
            file_name: remote::file_name(source),
            sha256,
            unpack: copy.unpack.unwrap_or(false),
        })))
    }

    /// A repository with what the flags say of it.
    fn git(
        &mut self,
        mut git: GitSource,
        source: &str,
        copy: &CopyWords,
        state: &State,
    ) -> Result<GitSource, ErrorKind> {
        if let Some(keep) = copy.keep_git_dir {
            // In the URL it says nothing when it is not there.
            if source.contains("keep-git-dir") && git.keep_git_dir != keep {
                return Err(ErrorKind::KeepGitDir { flag: keep });
            }
            git.keep_git_dir = keep;
        }
        if let Some(checksum) = &copy.checksum {
            let checksum = self.word(checksum, &state.all)?;
            if !remote::is_commit_start(&checksum) || git.checksum.is_some_and(|known| known != checksum) {
                return Err(ErrorKind::Checksum { checksum });
            }
            git.checksum = Some(checksum);
        }
        // It is at the top of the repository, and not of a folder in it.
        git.keep_git_dir &= git.folder.is_none();
        Ok(git)
    }

    fn copy(
        &mut self,
        index: usize,
        keyword: Keyword,
        copy: &CopyWords,
        state: &State,
    ) -> Result<(Copy, String), ErrorKind> {
        let from = match &copy.from {
            None => CopyFrom::Context,
            Some(from) => source(self.dockerfile, &self.resolved, &self.places, index, from)?,
        };
        let mut created_by = keyword.name().to_owned();
        let mut tell = |text: &str| {
            created_by.push(' ');
            created_by.push_str(text);
        };
        if copy.parents {
            tell("--parents");
        }
        let chown = match &copy.chown {
            Some(chown) => Some(self.word(chown, &state.all)?).filter(|chown| !chown.is_empty()),
            None => None,
        };
        if let Some(chown) = &chown {
            tell(&format!("--chown={chown}"));
        }
        let mut chmod = None;
        if let Some(text) = &copy.chmod {
            let text = self.word(text, &state.all)?;
            if !text.is_empty() {
                chmod = Some(text.parse().map_err(|InvalidMode(mode)| ErrorKind::Mode { mode })?);
                tell(&format!("--chmod={text}"));
            }
        }
        // As in BuildKit, which copies in the usual way when modes are changed.
        let link = copy.link && chmod.is_none();
        if let Some(chown) = chown.as_ref().filter(|chown| link && !is_numeric_owner(chown)) {
            return Err(ErrorKind::LinkOwner { chown: chown.clone() });
        }
        let mut exclude = Vec::new();
        for pattern in &copy.exclude {
            exclude.push(self.word(pattern, &state.all)?);
        }
        Ignore::of_patterns(&exclude)
            .map_err(|MalformedPattern { pattern, reason, .. }| ErrorKind::Exclude { pattern, reason })?;
        let mut sources = Vec::new();
        for source in &copy.sources {
            let source = self.path(keyword, source, state)?;
            tell(&without_credentials(&source));
            sources.push(match self.remote(keyword, &source, copy, state)? {
                Some(remote) => remote,
                None if copy.parents => below(&source)?,
                None => CopySource::Path(paths::source(&source)),
            });
        }
        if copy.checksum.is_some() && !matches!(sources.as_slice(), [CopySource::Url(_) | CopySource::Git(_)])
        {
            return Err(ErrorKind::ChecksumSources { sources: sources.len() });
        }
        let mut inline = Vec::new();
        for heredoc in &copy.inline {
            let mut content = heredoc.text();
            if heredoc.expands {
                let rules = Expander::for_heredoc(&state.all, self.budget.left());
                content = rules.word(&content).map_err(|fault| self.budget.fault(&content, fault))?;
                self.budget.charge(content.len())?;
            }
            tell(&format!("<<{}", heredoc.name));
            inline.push(InlineFile { name: heredoc.name.clone(), content });
        }
        let dest = self.path(keyword, &copy.dest, state)?;
        tell(&dest);
        let dest = paths::destination(state.folder(), &dest);
        let extract = copy.unpack.unwrap_or(keyword == Keyword::Add);
        Ok((Copy { from, sources, inline, dest, chown, chmod, exclude, extract, link }, created_by))
    }
}

fn place(places: &[Option<usize>], index: usize) -> usize {
    places[index].expect("what a stage needs is planned before it")
}

/// What the `from` of a copy or a mount in the stage `index` of the file names, in the plan.
fn source(
    dockerfile: &Dockerfile,
    resolved: &Resolved,
    places: &[Option<usize>],
    index: usize,
    from: &str,
) -> Result<CopyFrom, ErrorKind> {
    Ok(match stages::copy_source(dockerfile, resolved, index, from)? {
        CopyFrom::Stage(earlier) => CopyFrom::Stage(place(places, earlier)),
        other => other,
    })
}

/// The files of a named context as the first layer of a stage.
fn whole_context(name: &str, lines: Lines) -> Step {
    let text = format!("FROM {name}");
    let copy = Copy {
        from: CopyFrom::NamedContext(name.to_owned()),
        sources: vec![CopySource::Path(".".to_owned())],
        inline: Vec::new(),
        dest: "/".to_owned(),
        chown: None,
        chmod: None,
        exclude: Vec::new(),
        extract: false,
        link: false,
    };
    Step { lines, created_by: Some(text.clone()), author: None, text, action: Action::Copy(copy) }
}

/// What `COPY --parents` means by a path: the folders after the first `/./` are kept, else all.
fn below(source: &str) -> Result<CopySource, ErrorKind> {
    let (folder, pattern) = source.split_once("/./").unwrap_or(("", source));
    let mut pattern = paths::source(pattern);
    if pattern.starts_with('!') {
        // Here it brings nothing back.
        pattern.insert(0, '\\');
    }
    Ignore::of_patterns(&[&pattern])
        .map_err(|MalformedPattern { pattern, reason, .. }| ErrorKind::Parents { pattern, reason })?;
    Ok(CopySource::Below { folder: paths::source(folder), pattern })
}

/// Whether an owner is known without the image's files. Docker knows `root` besides numbers.
fn is_numeric_owner(chown: &str) -> bool {
    chown.split(':').all(|part| part.is_empty() || part == "root" || part.parse::<u32>().is_ok())
}

fn run_history(run: &Run, state: &State) -> String {
    let mut words = vec!["RUN".to_owned()];
    let args: Vec<String> = state
        .args
        .iter()
        .map(|(name, _)| format!("{name}={}", state.all.get(name).unwrap_or_default()))
        .collect();
    if !args.is_empty() {
        words.push(format!("|{}", args.len()));
        words.extend(args);
    }
    words.extend(run.argv.iter().cloned());
    words.join(" ")
}

fn pairs_history(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!(" {name}={value}"));
    format!("{keyword}{}", pairs.collect::<String>())
}

fn list_history(keyword: &str, list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
    format!("{keyword} [{}]", quoted.join(" "))
}
