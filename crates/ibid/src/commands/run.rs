//! `ibid run`: the image's entrypoint on the codebase of this machine, or on the image's own code.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ibid_core::gpus::{GpuRequest, Lent};
use ibid_core::image::ImageConfig;
use ibid_core::run::{Code, Command, Mode, RunSpec};
use ibid_engine::Engine;
use ibid_engine::native::{self, Ended};
use ibid_ledger::code::CodeIdentity;
use ibid_ledger::run_id::RunId;
use ibid_ledger::snapshot::Exclusions;
use ibid_sandbox::ExitStatus;

use crate::args::{BuildShared, Cli, Run};
use crate::contexts;
use crate::detached::{self, Detached, Side};
use crate::engines::{self, EngineChoice};
use crate::gpus;
use crate::image_build::{self, PeggedCode, Preparation};
use crate::output_folders::{self, OutputFolders};
use crate::project::Project;
use crate::recorded_options;
use crate::recorded_run::{Finished, RecordedRun};
use crate::report::Failure;
use crate::run_notices;
use crate::run_options::RunOptions;
use crate::shell_history;
use crate::ui::{self, Ui};
use crate::watch::{self, Watched};

pub fn main(ui: &Ui, cli: &Cli, run: &Run) -> Result<u8, Failure> {
    if run.watch {
        return watch::main(ui, cli, run);
    }
    let args = run
        .args
        .iter()
        .map(|arg| {
            arg.to_str()
                .map(str::to_owned)
                .ok_or_else(|| Failure::new(format!("the argument {arg:?} is not UTF-8")))
        })
        .collect::<Result<_, _>>()?;
    let detached = match run.detach.then(detached::split).transpose()? {
        Some(Side::Command(code)) => return Ok(code),
        Some(Side::Run(detached)) => Some(detached),
        None => None,
    };
    execute(
        ui,
        &Session {
            directory: cli.directory.as_deref(),
            pegged: run.pegged,
            env: &run.env,
            options: &run.options,
            gpus: run.gpus.as_ref(),
            engine: run.engine,
            shared: &run.shared,
            recorded: Some(Recorded {
                isolate: run.isolate,
                digest_data: run.digest_data,
                watched_by: run.watched_by,
            }),
            command: Command::Entrypoint(args),
            detached: detached.as_ref(),
            terminal: run.detach.then_some(run.tty),
        },
    )
}

/// What `run` and `dev` have in common.
pub struct Session<'a> {
    pub directory: Option<&'a Path>,
    pub pegged: bool,
    pub env: &'a [String],
    pub options: &'a RunOptions,
    pub gpus: Option<&'a GpuRequest>,
    pub engine: Option<EngineChoice>,
    pub shared: &'a BuildShared,
    pub command: Command,
    /// None is a session that leaves no record.
    pub recorded: Option<Recorded>,
    /// Set when it goes on without this process's terminal.
    pub detached: Option<&'a Detached>,
    /// Whether the program has a terminal; none means when this process has one.
    pub terminal: Option<bool>,
}

/// How a run is recorded.
pub struct Recorded {
    pub isolate: bool,
    pub digest_data: bool,
    /// The process that watches over it.
    pub watched_by: Option<u32>,
}

pub fn execute(ui: &Ui, session: &Session) -> Result<u8, Failure> {
    let entering = image_build::begin_container()?;
    let watched_by = session.recorded.as_ref().and_then(|recorded| recorded.watched_by);
    let watched = watched_by.map(Watched::by).transpose()?;
    let directory = session.directory.unwrap_or(Path::new("."));
    let project = Project::find(directory)?;
    let env = environment(&project, session, directory)?;
    let mut options = session.options.resolve(directory, &project.keep)?;
    let host = image_build::go_on_with_container(entering)?;
    let requested_gpus = session.gpus.or(project.gpus.as_ref());
    let gpus = match requested_gpus {
        Some(request) => gpus::find(ui, request)?,
        None => Lent::default(),
    };
    let engine = engines::choose(ui, session.engine, &project, &host)?;
    if session.detached.is_some() && !matches!(engine, Engine::Native) {
        return Err(Failure::new(
            "`--detach` leaves runs of ibid's own engine to themselves, not those of another",
        )
        .hint("`--engine native` executes this one so"));
    }
    run_notices::narrate(ui, &mut options, &engine);
    let mut preparation = Preparation::new(ui, &project, &host, session.shared, directory)?;
    let mode = if session.pegged { Mode::Pegged } else { Mode::Mounted };
    let image = match mode {
        _ if project.builder.is_some_and(|builder| builder != EngineChoice::Native) => {
            preparation.image_of_builder()?
        }
        Mode::Mounted => preparation.environment_image(ui)?,
        Mode::Pegged => preparation.pegged_image(ui)?,
    };
    let store = preparation.store().clone();
    let config = store.image(&image)?;
    engines::narrate(ui, &engine, &store, &image)?;
    let folder = code_folder(&project, &config);
    if folder.is_none() && mode == Mode::Mounted {
        return Err(Failure::new("the image has no folder for the code: its WORKDIR is `/`")
            .hint("add `WORKDIR /code` to the Dockerfile, or to ibid.toml:\n  [code]\n  mount = \"/code\"")
            .hint("`--pegged` runs the image's own code"));
    }
    if let (Mode::Mounted, Some(folder)) = (mode, &folder) {
        run_notices::warn_of_hidden(ui, &store, &image, folder, &project)?;
    }
    let id = RunId::random().map_err(|error| Failure::of(&error))?;
    // The keys of a watched run's terminal are its watcher's too: Ctrl-C ends both.
    let own_terminal =
        || std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && watched.is_none();
    let is_terminal = session.terminal.unwrap_or_else(own_terminal);
    ui.detail(&format!("run {id}"));
    let isolate = session.recorded.as_ref().is_some_and(|recorded| recorded.isolate);
    let outputs = OutputFolders::new(&project, id, isolate)?;
    let mut all_env = env.clone();
    all_env.extend(outputs.env(id, folder.as_deref()));
    let spec = RunSpec {
        id: id.to_string(),
        image,
        command: session.command.clone(),
        code: Code { mode, folder },
        project: project.root.clone(),
        outputs: outputs.folders.clone(),
        data: project.data.clone(),
        data_from: None,
        protected: if session.recorded.is_some() { output_folders::protected(&project) } else { Vec::new() },
        env: all_env,
        gpus,
        history: match session.command {
            Command::Shell if is_terminal => shell_history::folder(ui, &project),
            _ => None,
        },
        terminal: is_terminal,
        options,
    };
    let pegged_code = match mode {
        Mode::Pegged => Some(preparation.pegged_code(ui, &image)?),
        Mode::Mounted => None,
    };
    let finished = match &session.recorded {
        Some(recorded) => {
            let arguments: &[String] = match &session.command {
                Command::Entrypoint(arguments) => arguments,
                Command::Shell => &[],
            };
            let run = RecordedRun {
                ui,
                project: &project,
                host: &host,
                store: &store,
                engine: &engine,
                trust: preparation.trust(),
                config: &config,
                spec: &spec,
                id,
                arguments,
                env: &env,
                pegged: pegged_code,
                exclusions: exclusions(&project, &[&spec.data[..], &spec.outputs].concat())?,
                options: recorded_options::recorded(session.options, requested_gpus, directory),
                bases: preparation.found_bases().clone(),
                output_folder: outputs.own,
                digest_data: recorded.digest_data || project.data_digest,
                detached: session.detached,
                repetition: None,
                watched: watched.as_ref(),
            };
            run.execute()
        }
        None => unrecorded(ui, &project, pegged_code, || {
            engine.run(&store, &spec, &host, preparation.trust(), &run_notices::on_copy(ui), None)
        }),
    };
    let Finished { status, seconds, code, record } =
        finished.map_err(|error| failure_of_run(error, &config))?;
    let mut summary = summary(ui, &spec, &status, seconds, &code, session.directory);
    if record.is_some() {
        summary.push_str(&format!(" · run {id}"));
    }
    ui.say(&summary);
    run_notices::explain_end(ui, &spec.options, status);
    Ok(status.shell_code())
}

/// A session that leaves no record; which code it is on is said all the same.
fn unrecorded(
    ui: &Ui,
    project: &Project,
    pegged: Option<PeggedCode>,
    run: impl FnOnce() -> Result<Ended, native::Error>,
) -> Result<Finished, native::Error> {
    let no_code: Vec<PathBuf> =
        [&project.data[..], &project.outputs].concat().iter().map(PathBuf::from).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        // Asking git takes about as long as starting the program: it is done meanwhile.
        let identity = pegged.is_none().then(|| scope.spawn(|| CodeIdentity::of(&project.root, &no_code)));
        let ended = run()?;
        run_notices::warn_of_unknown(ui, &ended);
        let seconds = start.elapsed().as_secs_f64();
        let code = match identity {
            Some(identity) => {
                format!("code mounted, {}", identity.join().expect("asking git does not panic"))
            }
            None => format!("code pegged, {}", pegged.map(|pegged| pegged.text).unwrap_or_default()),
        };
        Ok(Finished { status: ended.status, seconds, code, record: None })
    })
}

/// What of the project is no code of a run's.
pub fn exclusions(project: &Project, no_code: &[String]) -> Result<Exclusions, Failure> {
    let beside = |path: &Path| path.strip_prefix(&project.root).ok().map(Path::to_owned);
    Ok(Exclusions {
        outputs_and_data: no_code.iter().map(PathBuf::from).collect(),
        dockerignore: contexts::ignore_file(&project.context, Some(&project.dockerfile))?.rules,
        context: (project.context != project.root).then(|| project.context.clone()),
        always: beside(&project.dockerfile).into_iter().collect(),
    })
}

/// Where the code is in the image.
fn code_folder(project: &Project, config: &ImageConfig) -> Option<String> {
    let folder = project.code_mount.as_deref().unwrap_or(&config.config.working_dir).trim_end_matches('/');
    (!folder.is_empty()).then(|| folder.to_owned())
}

/// `[run] env`, then `--env-file`, then `--env`; a name without a value is taken from the host.
fn environment(
    project: &Project,
    session: &Session,
    directory: &Path,
) -> Result<Vec<(String, String)>, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut env: Vec<(String, String)> = project.env.clone().into_iter().collect();
    env.extend(session.options.env_of_files(directory, variable)?);
    for text in session.env {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), variable(text)),
        };
        if name.is_empty() {
            return Err(Failure::new(format!("`--env {text}`: expected NAME or NAME=VALUE")));
        }
        // As in Docker, a name that the host does not have is not set.
        if let Some(value) = value {
            env.push((name.to_owned(), value));
        }
    }
    Ok(env)
}

/// The one line at the end: how it went, how long, which image, which code, where the outputs are.
fn summary(
    ui: &Ui,
    spec: &RunSpec,
    status: &ExitStatus,
    seconds: f64,
    code: &str,
    directory: Option<&Path>,
) -> String {
    let how = match status {
        ExitStatus::Code(0) => ui.paint(ui::GREEN, "done"),
        status => ui.paint(ui::RED, &status.to_string()),
    };
    let mut parts = vec![
        format!("{how} in {}", ui::seconds(seconds)),
        format!("image {}", ui::short_digest(&spec.image)),
        code.to_owned(),
    ];
    let shown: Vec<String> = spec
        .outputs
        .iter()
        .filter(|output| spec.project.join(output).exists())
        .map(|output| directory.unwrap_or(Path::new("")).join(output).display().to_string())
        .collect();
    if !shown.is_empty() {
        parts.push(format!("outputs in {}", shown.join(", ")));
    }
    parts.join(" · ")
}

/// A program that is missing or cannot be executed has the shell's exit code, not ibid's.
pub fn failure_of_run(error: native::Error, config: &ImageConfig) -> Failure {
    let failure = Failure::of(&error);
    match error {
        native::Error::Sandbox(error) => {
            let failure = match error.mend() {
                Some(mend) => failure.hint(mend),
                None => failure,
            };
            let failure = match error {
                ibid_sandbox::Error::Limits { .. } => {
                    failure.hint("`--limits=best-effort` runs without the limits that cannot be kept here")
                }
                ibid_sandbox::Error::IdmapRefused { .. } => {
                    failure.hint("as the owner of what is mounted, `--user` or `--root`, a run needs no such mount")
                }
                _ => failure,
            };
            let failure = failure.code(error.exit_code());
            match (error.exit_code(), &config.config.entrypoint) {
                (127, None) => failure.hint(
                    "the image has no ENTRYPOINT, so the first argument is the program: `ENTRYPOINT [\"python3\", \"train.py\"]` in the Dockerfile makes arguments its own",
                ),
                (127, Some(entrypoint)) => {
                    failure.hint(format!("the image's ENTRYPOINT is `{}`", entrypoint.join(" ")))
                }
                _ => failure,
            }
        }
        native::Error::Remote(error) => engines::failure(&error),
        native::Error::OverCode { .. } => failure.hint("`--pegged` mounts no code"),
        native::Error::NothingToKeep { .. } => {
            failure.hint("`keep` of `[code]` in ibid.toml names what the build makes in the code folder")
        }
        native::Error::NoCommand => {
            failure.hint("add `ENTRYPOINT [\"python3\", \"train.py\"]` to the Dockerfile, or name a program: `ibid run PROGRAM ARGS…`")
        }
        _ => failure,
    }
}
