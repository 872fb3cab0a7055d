//! One execution of a recorded run: the same image, code, arguments and environment, in a folder of its own with no outputs.

use std::fs;
use std::path::Path;

use ibid_core::digest::Digest;
use ibid_core::gpus::Lent;
use ibid_core::image::ImageConfig;
use ibid_core::run::{Code as SpecCode, Command, Mode, Network, RunSpec};
use ibid_engine::identity::HostUser;
use ibid_ledger::ledger::{Error, Ledger};
use ibid_ledger::output_content;
use ibid_ledger::record::{Code, CodeMode, EnvValue, Output, Record};
use ibid_ledger::run_id::RunId;
use ibid_ledger::secrets::Secrets;
use ibid_ledger::snapshot::{self, Exclusions};
use ibid_ledger::verdict::{self, Curves, Rules, Verdict, Which};
use ibid_sandbox::trust::HostTrust;
use ibid_store::Store;

use super::source::{Folder, Source, curves};
use crate::commands::run::failure_of_run;
use crate::engines::{self, EngineChoice};
use crate::gpus;
use crate::output_folders::OutputFolders;
use crate::project::Project;
use crate::recorded_options;
use crate::recorded_run::{RecordedRun, Repetition};
use crate::report::Failure;
use crate::run_options::RunOptions;
use crate::settings;
use crate::ui::Ui;

/// All that executing a run again takes.
pub struct Stage<'a> {
    ui: &'a Ui,
    host: &'a HostUser,
    store: &'a Store,
    source: &'a Source,
    engine: EngineChoice,
    image: Digest,
    config: ImageConfig,
    code: Code,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    options: RunOptions,
    trust: HostTrust,
}

/// A repetition that has ended.
pub struct Attempt {
    pub record: Record,
    project: Project,
    folder: Folder,
}

impl<'a> Stage<'a> {
    pub fn new(
        ui: &'a Ui,
        host: &'a HostUser,
        store: &'a Store,
        source: &'a Source,
        engine: EngineChoice,
        image: Digest,
        code: Code,
    ) -> Result<Self, Failure> {
        let record = &source.record;
        Ok(Self {
            ui,
            host,
            store,
            source,
            engine,
            image,
            config: store.image(&image)?,
            code,
            arguments: arguments(record)?,
            env: environment(ui, source)?,
            options: recorded_options::options_of(&record.options)?,
            trust: HostTrust::of_host(|name| std::env::var(name).ok()),
        })
    }

    /// Executes it, on the network that it had or on [`Network::None`]. What the program writes goes to standard error: standard output is for the verdict.
    pub fn run(&self, network: Network) -> Result<Attempt, Failure> {
        let record = &self.source.record;
        let ledger = &self.source.ledger;
        let id = RunId::random().map_err(|error| Failure::of(&error))?;
        self.ui.detail(&format!("run {id}"));
        let folder = Folder::new(ledger, id)?;
        let mode = match self.code.mode {
            CodeMode::Mounted => Mode::Mounted,
            CodeMode::Pegged => Mode::Pegged,
        };
        if let Some(snapshot) = self.code.snapshot.filter(|_| mode == Mode::Mounted) {
            snapshot::checkout(ledger, snapshot, &folder.path).map_err(|error| lost_code(&error))?;
        } else if mode == Mode::Mounted {
            return Err(Failure::new(format!("the code of the run {} is not recorded", record.id))
                .hint("`--code COMMIT` takes that of a commit"));
        }
        let mut project = Project::in_folder(&folder.path)?;
        if mode == Mode::Pegged {
            project.outputs = pegged_outputs(record);
        }
        self.make_places(&project, mode)?;
        let outputs = OutputFolders::new(&project, id, record.output_folder.is_some())?;
        let mut env = self.env.clone();
        env.extend(outputs.env(id, self.code.folder.as_deref()));
        // The paths of this machine among them were made absolute when they were recorded.
        let mut options = self.options.resolve(Path::new("/"), &project.keep)?;
        if network == Network::None {
            (options.network, options.ports) = (network, Vec::new());
        }
        let gpus = match recorded_options::gpus_of(&record.options)? {
            Some(request) => gpus::find(self.ui, &request)?,
            None => Lent::default(),
        };
        let spec = RunSpec {
            id: id.to_string(),
            image: self.image,
            command: Command::Entrypoint(self.arguments.clone()),
            code: SpecCode { mode, folder: self.code.folder.clone() },
            project: project.root.clone(),
            outputs: outputs.folders.clone(),
            data: record.data.iter().map(|data| data.path.clone()).collect(),
            data_from: Some(self.source.data_from.clone()),
            protected: Vec::new(),
            env,
            gpus,
            history: None,
            terminal: false,
            options,
        };
        let engine = engines::connect(self.ui, self.engine, &project, self.host)?;
        let run = RecordedRun {
            ui: self.ui,
            project: &project,
            host: self.host,
            store: self.store,
            engine: &engine,
            trust: &self.trust,
            config: &self.config,
            spec: &spec,
            id,
            arguments: &self.arguments,
            env: &self.env,
            pegged: None,
            exclusions: Exclusions::default(),
            options: record.options.clone(),
            bases: record.image.bases.clone(),
            output_folder: outputs.own,
            digest_data: record.data.iter().any(|data| data.digest.is_some()),
            detached: None,
            watched: None,
            repetition: Some(Repetition { of: record.id, ledger, code: self.code.clone() }),
        };
        let finished = with_stdout_on_stderr(|| run.execute())?;
        let finished = finished.map_err(|error| failure_of_run(error, &self.config))?;
        match finished.record {
            Some(record) => Ok(Attempt { record, project, folder }),
            None => Err(Failure::new("what the replay gave could not be recorded, so it cannot be compared")),
        }
    }

    /// The folders that were there when the run started: outputs, which are no part of a snapshot, and where data is mounted.
    fn make_places(&self, project: &Project, mode: Mode) -> Result<(), Failure> {
        let cannot = |path: &Path, error: &std::io::Error| {
            Failure::of(error).while_doing(format!("cannot make {}", path.display()))
        };
        let record = &self.source.record;
        for output in &project.outputs {
            // What the run wrote under that very name is a file.
            if record.outputs.iter().any(|file| file.path == *output) {
                continue;
            }
            let path = project.root.join(output);
            fs::create_dir_all(&path).map_err(|error| cannot(&path, &error))?;
        }
        if mode == Mode::Pegged {
            return Ok(());
        }
        for data in &record.data {
            let path = project.root.join(&data.path);
            let is_folder = self.source.data_from.join(&data.path).is_dir();
            let parent = if is_folder { &path } else { path.parent().unwrap_or(&path) };
            fs::create_dir_all(parent)
                .and_then(|()| if is_folder { Ok(()) } else { fs::File::create(&path).map(drop) })
                .map_err(|error| cannot(&path, &error))?;
        }
        Ok(())
    }
}

impl Attempt {
    pub fn project(&self) -> &Project {
        &self.project
    }

    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    pub fn curves(&self, ledger: &Ledger) -> Result<Curves, Failure> {
        curves(ledger, self.record.id)
    }

    /// Compares it with another, of the same ledger.
    pub fn compare(&self, rules: &Rules, other: &Self, ledger: &Ledger) -> Result<Verdict, Failure> {
        let mut content = |which, output: &Output| {
            let folder = if which == Which::First { self.folder() } else { other.folder() };
            output_content::read(folder, output).map_err(|error| error.to_string())
        };
        let (first, second) = (self.curves(ledger)?, other.curves(ledger)?);
        Ok(verdict::compare(rules, &self.record, &other.record, Some((&first, &second)), &mut content))
    }

    /// Moves its folder to where a person wants it.
    pub fn keep(&self, ui: &Ui, to: &Path) -> Result<(), Failure> {
        self.folder.keep(ui, to)
    }
}

/// The arguments, unless one of them is a secret.
fn arguments(record: &Record) -> Result<Vec<String>, Failure> {
    let is_secret = |argument: &String| argument.contains("<secret ") && argument.ends_with('>');
    match record.arguments.iter().position(is_secret) {
        Some(position) => Err(Failure::new(format!(
            "argument {} of the run {} was a secret, which is not recorded",
            position + 1,
            record.id
        ))
        .hint("a secret that is given by an environment variable can be taken from there again")),
        None => Ok(record.arguments.clone()),
    }
}

/// The variables. Secrets come from the present environment, or from the project's own settings.
fn environment(ui: &Ui, source: &Source) -> Result<Vec<(String, String)>, Failure> {
    let mut secrets = Secrets::new(&settings::secrets_key());
    let mut env = Vec::new();
    for (name, value) in &source.record.env {
        if let EnvValue::Plain(value) = value {
            env.push((name.clone(), value.clone()));
            continue;
        }
        // A run from elsewhere gets no secret of this machine.
        if source.project.is_none() {
            ui.warn(&format!("{name} was a secret of the recorded run, and is not set here"));
            continue;
        }
        let of_project = source.project.as_ref().and_then(|project| project.env.get(name).cloned());
        let Some(present) = std::env::var(name).ok().or(of_project) else {
            return Err(Failure::new(format!("{name} was a secret of the recorded run, and is not set"))
                .hint(format!("set it as it was: `{name}=… ibid replay {}`", source.record.id)));
        };
        if secrets.variable(name, &present).map_err(|error| Failure::of(&error))? != *value {
            ui.warn(&format!("{name} is a secret, and has another value than in the recorded run"));
        }
        env.push((name.clone(), present));
    }
    Ok(env)
}

/// The output folders of a run on the image's own code: what it was given to write.
fn pegged_outputs(record: &Record) -> Vec<String> {
    let is_inner = |source: &str| {
        Path::new(source).components().all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    let mounts = record.mounts.iter().filter(|mount| !mount.read_only && is_inner(&mount.source));
    mounts.map(|mount| mount.source.clone()).collect()
}

fn lost_code(error: &Error) -> Failure {
    let failure = Failure::of(error).while_doing("the code of the run cannot be checked out");
    match error {
        Error::MissingObject { .. } | Error::DamagedObject { .. } => {
            failure.hint("`--code COMMIT` takes the code of a commit instead, and shows what that changes")
        }
        _ => failure,
    }
}

/// Does something while this process's standard output is its standard error.
fn with_stdout_on_stderr<T>(run: impl FnOnce() -> T) -> Result<T, Failure> {
    use rustix::stdio::{dup2_stdout, stderr, stdout};
    let failed = |errno: rustix::io::Errno| {
        Failure::of(&std::io::Error::from(errno)).while_doing("cannot redirect the program's output")
    };
    let own = rustix::io::fcntl_dupfd_cloexec(stdout(), 3).map_err(failed)?;
    dup2_stdout(stderr()).map_err(failed)?;
    let result = run();
    dup2_stdout(&own).map_err(failed)?;
    Ok(result)
}
