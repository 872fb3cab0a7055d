//! `ibid run`: the image's entrypoint on the codebase of this machine, or on the image's own code.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ibid_core::gpus::{GpuRequest, Lent};
use ibid_core::image::ImageConfig;
use ibid_core::run::{Code, Command, Mode, RunSpec};
use ibid_engine::native;
use ibid_ledger::code::CodeIdentity;
use ibid_ledger::run_id::RunId;
use ibid_sandbox::ExitStatus;

use crate::args::{BuildShared, Cli, Run};
use crate::gpus;
use crate::image_build::{self, Preparation};
use crate::project::Project;
use crate::report::Failure;
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, cli: &Cli, run: &Run) -> Result<u8, Failure> {
    let args = run
        .args
        .iter()
        .map(|arg| {
            arg.to_str()
                .map(str::to_owned)
                .ok_or_else(|| Failure::new(format!("the argument {arg:?} is not UTF-8")))
        })
        .collect::<Result<_, _>>()?;
    execute(
        ui,
        &Session {
            directory: cli.directory.as_deref(),
            pegged: run.pegged,
            env: &run.env,
            gpus: run.gpus.as_ref(),
            shared: &run.shared,
            command: Command::Entrypoint(args),
        },
    )
}

/// What `run` and `dev` have in common.
pub struct Session<'a> {
    pub directory: Option<&'a Path>,
    pub pegged: bool,
    pub env: &'a [String],
    pub gpus: Option<&'a GpuRequest>,
    pub shared: &'a BuildShared,
    pub command: Command,
}

pub fn execute(ui: &Ui, session: &Session) -> Result<u8, Failure> {
    let host = image_build::enter_user_namespace()?;
    let directory = session.directory.unwrap_or(Path::new("."));
    let project = Project::find(directory)?;
    let gpus = match session.gpus.or(project.gpus.as_ref()) {
        Some(request) => gpus::find(ui, request)?,
        None => Lent::default(),
    };
    let env = environment(&project, session.env)?;
    let mut preparation = Preparation::new(ui, &project, &host, session.shared, directory)?;
    let mode = if session.pegged { Mode::Pegged } else { Mode::Mounted };
    let image = match mode {
        Mode::Mounted => preparation.environment_image(ui)?,
        Mode::Pegged => preparation.pegged_image(ui)?,
    };
    let store = preparation.store().clone();
    let config = store.image(&image)?;
    let folder = code_folder(&project, &config);
    if folder.is_none() && mode == Mode::Mounted {
        return Err(Failure::new("the image has no folder for the code: its WORKDIR is `/`")
            .hint("add `WORKDIR /code` to the Dockerfile, or to ibid.toml:\n  [code]\n  mount = \"/code\"")
            .hint("`--pegged` runs the image's own code"));
    }
    let id = RunId::random().map_err(|error| Failure::of(&error))?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    ui.detail(&format!("run {id}"));
    let spec = RunSpec {
        id: id.to_string(),
        image,
        command: session.command.clone(),
        code: Code { mode, folder },
        project: project.root.clone(),
        outputs: project.outputs.clone(),
        data: project.data.clone(),
        env,
        gpus,
        terminal: is_terminal,
    };
    let pegged_code = match mode {
        Mode::Pegged => Some(preparation.pegged_code(ui, &image)?),
        Mode::Mounted => None,
    };
    let no_code: Vec<PathBuf> =
        [&project.data[..], &project.outputs].concat().iter().map(PathBuf::from).collect();
    let start = Instant::now();
    let (status, code) = std::thread::scope(|scope| {
        // Asking git takes about as long as starting the program: it is done meanwhile.
        let identity =
            pegged_code.is_none().then(|| scope.spawn(|| CodeIdentity::of(&project.root, &no_code)));
        let status = native::run(&store, &spec, &host, preparation.trust());
        let code = match (identity, pegged_code) {
            (Some(identity), _) => {
                format!("code mounted, {}", identity.join().expect("asking git does not panic"))
            }
            (None, pegged) => format!("code pegged, {}", pegged.unwrap_or_default()),
        };
        (status, code)
    });
    let status = status.map_err(|error| failure_of_run(error, &config))?;
    ui.say(&summary(ui, &spec, &status, start.elapsed().as_secs_f64(), &code, session.directory));
    Ok(status.shell_code())
}

/// Where the code is in the image.
fn code_folder(project: &Project, config: &ImageConfig) -> Option<String> {
    let folder = project.code_mount.as_deref().unwrap_or(&config.config.working_dir).trim_end_matches('/');
    (!folder.is_empty()).then(|| folder.to_owned())
}

/// `[run] env`, then `--env`; a name without a value is taken from the host.
fn environment(project: &Project, given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut env: Vec<(String, String)> = project.env.clone().into_iter().collect();
    for text in given {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), std::env::var(text).ok()),
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
fn failure_of_run(error: native::Error, config: &ImageConfig) -> Failure {
    let failure = Failure::of(&error);
    match error {
        native::Error::Sandbox(error) => {
            let failure = match error.mend() {
                Some(mend) => failure.hint(mend),
                None => failure,
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
        native::Error::NoCommand => {
            failure.hint("add `ENTRYPOINT [\"python3\", \"train.py\"]` to the Dockerfile, or name a program: `ibid run PROGRAM ARGS…`")
        }
        _ => failure,
    }
}
