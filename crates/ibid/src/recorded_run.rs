//! Executes a run and records it: what is written down, and when it is known.
//!
//! ```text
//! main thread                               beside it
//! make the container                        git, names of the image, data inputs
//! right before the program: start.json
//! the program runs ──output→ log            → start.json again, when that is known
//! its end: ended.json
//! outputs, metrics                          (joined)
//! record.json
//! ```
//!
//! A run is executed whether it can be recorded or not: what fails here is a warning.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use ibid_core::digest::Digest;
use ibid_core::image::ImageConfig;
use ibid_core::run::{Mode, RunSpec};
use ibid_core::user::passwd_entries;
use ibid_engine::identity::HostUser;
use ibid_engine::native::{self, Ended, Watch};
use ibid_engine::relay;
use ibid_ledger::code::CodeIdentity;
use ibid_ledger::ledger::{self, Ledger};
use ibid_ledger::log::{self, Stream};
use ibid_ledger::metrics::Metrics;
use ibid_ledger::parameters::parameters;
use ibid_ledger::record::{Code, CodeMode, Data, EnvValue, Image, Mount, Record, SCHEMA, Status, Usage};
use ibid_ledger::recording::Recording;
use ibid_ledger::run_id::RunId;
use ibid_ledger::secrets::Secrets;
use ibid_ledger::snapshot::{self, Exclusions, Taken};
use ibid_ledger::{data, host, outputs};
use ibid_sandbox::trust::HostTrust;
use ibid_sandbox::{ExitStatus, MountKind, Spec};
use ibid_store::Store;

use crate::image_build::PeggedCode;
use crate::lock::LOCK_FILE;
use crate::project::Project;
use crate::pushed_names;
use crate::report::Failure;
use crate::settings;
use crate::ui::Ui;

/// A run that is to be recorded.
pub struct RecordedRun<'a> {
    pub ui: &'a Ui,
    pub project: &'a Project,
    pub host: &'a HostUser,
    pub store: &'a Store,
    pub trust: &'a HostTrust,
    pub config: &'a ImageConfig,
    pub spec: &'a RunSpec,
    pub id: RunId,
    /// What the person appended to the entrypoint.
    pub arguments: &'a [String],
    /// Variables that the project and the person gave.
    pub env: &'a [(String, String)],
    /// The code of the image, when that runs.
    pub pegged: Option<PeggedCode>,
    /// What of the project is no code.
    pub exclusions: Exclusions,
    /// Each `FROM` and the image that it meant.
    pub bases: BTreeMap<String, Digest>,
    /// The output folder of this run alone, relative to the project.
    pub output_folder: Option<String>,
    /// Whether the contents of data inputs are hashed.
    pub digest_data: bool,
}

/// How it went.
pub struct Finished {
    pub status: ExitStatus,
    pub seconds: f64,
    /// Which code ran, as people name it.
    pub code: String,
}

impl RecordedRun<'_> {
    /// Executes it to its end.
    pub fn execute(&self) -> Result<Finished, native::Error> {
        let ledger = Ledger::of(&self.project.root);
        let mut record = self.record();
        let recording = OnceLock::new();
        let (tell, told) = channel();
        let mut start = Instant::now();
        let (result, seconds, code) = std::thread::scope(|scope| {
            let facts = scope.spawn(|| {
                // `ibid gc` keeps what a record needs.
                if let Err(error) = self.store.use_in_ledger(ledger.folder(), &self.spec.image) {
                    self.ui.warn(&format!(
                        "`ibid gc` may remove the image of this run: {}",
                        Failure::of(&error).summary()
                    ));
                }
                let facts = self.facts(&ledger);
                self.add_to_start(&facts, told, &recording);
                facts
            });
            let mut taking = self.pegged.is_none().then(|| scope.spawn(|| self.snapshot(&ledger)));
            let mut before_program = |sandbox: &Spec| {
                // The program sees the code as it is now.
                let taken = taking.take().and_then(|taking| taking.join().ok().flatten());
                self.describe(&mut record, sandbox, taken.as_ref());
                match Recording::start(&ledger, &record, self.output_paths()) {
                    Ok(started) => {
                        recording.get_or_init(|| started);
                        let _nobody_waits = tell.send((record.clone(), taken));
                    }
                    Err(error) => self.warn("this run is not recorded", &error),
                }
                start = Instant::now();
            };
            let listener = |stream, bytes: &[u8]| {
                if let Some(recording) = recording.get() {
                    Recording::written(recording, stream_of(stream), bytes);
                }
            };
            let watch = Watch { before_program: &mut before_program, listener: &listener };
            let result = native::run(self.store, self.spec, self.host, self.trust, Some(watch));
            let seconds = start.elapsed().as_secs_f64();
            drop(tell);
            if let Some(recording) = recording.get() {
                self.note_end(&mut record, &result, seconds);
                if let Err(error) = recording.ended(&record) {
                    self.warn("the record of this run is incomplete", &error);
                }
                self.look_at_outputs(&mut record, recording);
                self.look_at_code(&mut record, &ledger);
            }
            let facts = facts.join().expect("finding out facts does not panic");
            facts.fill(&mut record);
            (result, seconds, self.code(&facts))
        });
        if let Some(recording) = recording.into_inner() {
            if let Err(error) = recording.finish(&record) {
                self.warn("the record of this run is incomplete", &error);
            }
        }
        let ended = result?;
        for (stream, error) in &ended.unwritten {
            let name = stream_of(*stream).name();
            self.ui.warn(&format!("{name} did not take all that the program wrote: {error}"));
            self.ui.hint(&format!("`ibid logs {}` shows it", self.id));
        }
        Ok(Finished { status: ended.status, seconds, code })
    }

    fn warn(&self, what: &str, error: &ledger::Error) {
        self.ui.warn(&format!("{what}: {}", Failure::of(error).summary()));
    }

    /// The folders that the run writes.
    fn output_paths(&self) -> impl Iterator<Item = PathBuf> {
        self.outputs().into_iter().map(|output| self.project.root.join(output))
    }

    fn outputs(&self) -> Vec<String> {
        match &self.output_folder {
            Some(folder) => vec![folder.clone()],
            None => self.spec.outputs.clone(),
        }
    }

    /// What is known before there is a container.
    fn record(&self) -> Record {
        let mut warnings = Vec::new();
        let mut secrets = Secrets::new(&settings::secrets_key());
        let mut unsaid = |what: &str, error: &ledger::Error| {
            warnings.push(format!("{what} is not recorded: {}", Failure::of(error).summary()));
        };
        let mut env = BTreeMap::new();
        for (name, value) in self.env {
            match secrets.variable(name, value) {
                Ok(value) => drop(env.insert(name.clone(), value)),
                Err(error) => {
                    unsaid(&format!("the secret {name}"), &error);
                    env.insert(name.clone(), EnvValue::Secret { secret_hash: String::new() });
                }
            }
        }
        let (arguments, hidden) = secrets.arguments(self.arguments).unwrap_or_else(|error| {
            unsaid("what the program was given", &error);
            (Vec::new(), Vec::new())
        });
        warnings
            .extend(hidden.iter().map(|name| format!("the value of {name} is a secret and not recorded")));
        let pegged = self.pegged.as_ref();
        let commit = pegged.and_then(|pegged| pegged.commit.clone());
        Record {
            schema: SCHEMA,
            ibid: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.id,
            status: Status::Running,
            started: log::now(),
            ended: None,
            seconds: None,
            exit_code: None,
            signal: None,
            failure: None,
            command: Vec::new(),
            parameters: parameters(&arguments),
            arguments,
            image: Image {
                digest: self.spec.image,
                tags: Vec::new(),
                pushed: Vec::new(),
                bases: self.bases.clone(),
                lock: None,
                layers: self.config.rootfs.diff_ids.iter().map(|layer| layer.0).collect(),
            },
            code: Code {
                mode: match self.spec.code.mode {
                    Mode::Mounted => CodeMode::Mounted,
                    Mode::Pegged => CodeMode::Pegged,
                },
                folder: self.spec.code.folder.clone(),
                snapshot: None,
                commit: commit.as_ref().map(|commit| commit.id.clone()),
                branch: None,
                remote: None,
                differing: commit.map(|commit| commit.differing).unwrap_or_default(),
                equals_working_tree: pegged.and_then(|pegged| pegged.equals_working_tree),
                changed_during_run: Vec::new(),
                left_out: Vec::new(),
            },
            env,
            mounts: Vec::new(),
            data: Vec::new(),
            options: BTreeMap::new(),
            host: host::host(self.user_name(), self.host.uid, "native"),
            usage: None,
            outputs: Vec::new(),
            output_folder: self.output_folder.clone(),
            metrics: BTreeMap::new(),
            replay_of: None,
            warnings,
        }
    }

    fn user_name(&self) -> String {
        let uid = self.host.uid;
        let passwd = || std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let listed = |passwd: String| {
            passwd_entries(&passwd).find(|entry| entry.uid == uid).map(|entry| entry.name.to_owned())
        };
        self.host.name.clone().or_else(|| listed(passwd())).unwrap_or_else(|| uid.to_string())
    }

    /// What is known when the container is made.
    fn describe(&self, record: &mut Record, sandbox: &Spec, taken: Option<&Taken>) {
        record.started = log::now();
        record.code.snapshot = taken.map(|taken| taken.digest);
        record.code.left_out = taken.map(|taken| taken.left_out.clone()).unwrap_or_default();
        let mut secrets = Secrets::new(&settings::secrets_key());
        // A failure was told already, for the same arguments are in there.
        record.command = secrets.arguments(&sandbox.argv).map(|(command, _)| command).unwrap_or_default();
        record.mounts = sandbox
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Bind { source, read_only, .. } => Some(Mount {
                    source: match source.strip_prefix(&self.project.root) {
                        Ok(inner) if inner.as_os_str().is_empty() => ".".to_owned(),
                        Ok(inner) => inner.to_string_lossy().into_owned(),
                        Err(_) => source.to_string_lossy().into_owned(),
                    },
                    target: mount.target.clone(),
                    read_only: *read_only,
                }),
                _ => None,
            })
            .collect();
    }

    fn note_end(&self, record: &mut Record, result: &Result<Ended, native::Error>, seconds: f64) {
        record.ended = Some(log::now());
        record.seconds = Some(seconds);
        match result {
            Ok(Ended { status, usage, .. }) => {
                record.status = if *status == ExitStatus::Code(0) { Status::Ok } else { Status::Failed };
                record.exit_code = Some(status.shell_code());
                record.signal = status.signal_text();
                record.usage = usage.map(|usage| Usage {
                    peak_memory: usage.peak_memory,
                    cpu_seconds: usage.cpu_micros as f64 / 1e6,
                });
            }
            Err(error) => {
                record.status = Status::NotStarted;
                record.failure = Some(Failure::of(error).summary());
            }
        }
    }

    /// Keeps the code as it is; a failure is a warning.
    fn snapshot(&self, ledger: &Ledger) -> Option<Taken> {
        match snapshot::take(ledger, &self.project.root, &self.exclusions) {
            Ok(taken) => Some(taken),
            Err(error) => {
                self.warn("the code of this run is not kept", &error);
                None
            }
        }
    }

    /// What of the code changed while the program ran, and what it wrote beside its outputs.
    fn look_at_code(&self, record: &mut Record, ledger: &Ledger) {
        let Some(taken) = record.code.snapshot else { return };
        let (changed, written) = match self.changes(ledger, taken) {
            Ok(changes) => changes,
            Err(error) => return self.warn("what changed while this ran is not recorded", &error),
        };
        if let Some(files) = listed(&changed) {
            self.ui.warn(&format!("{files} changed while this ran"));
        }
        if let Some(files) = listed(&written) {
            let warning = format!("{files} appeared while this ran, and `[run] outputs` does not name it");
            self.ui.detail(&warning);
            record.warnings.push(warning);
        }
        record.code.changed_during_run = changed;
    }

    /// Files of the snapshot that are no longer as they were, and files that are new.
    fn changes(&self, ledger: &Ledger, taken: Digest) -> Result<(Vec<String>, Vec<String>), ledger::Error> {
        let changed = snapshot::changed_since(ledger, &self.project.root, &self.exclusions, taken)?;
        if changed.is_empty() {
            return Ok((changed, Vec::new()));
        }
        let entries = snapshot::entries(ledger, taken)?;
        let known: HashSet<_> = entries.iter().map(|entry| entry.path.to_string_lossy()).collect();
        Ok(changed.into_iter().partition(|path| known.contains(path.as_str())))
    }

    /// Digests of what the run wrote, and the numbers in it.
    fn look_at_outputs(&self, record: &mut Record, recording: &Recording) {
        let found = outputs::changed(&self.project.root, &self.outputs(), recording.beginning());
        record.outputs = found.files;
        record.warnings.extend(found.warnings);
        if self.output_folder.is_some() && record.outputs.is_empty() && record.status == Status::Ok {
            let warning = "the program wrote nothing to IBID_OUTPUT_DIR, so this run has no outputs";
            self.ui.warn(warning);
            record.warnings.push(warning.to_owned());
        }
        let mut metrics = Metrics::default();
        for output in &record.outputs {
            metrics.read_output(&self.project.root, &output.path);
        }
        match log::read(recording.folder()) {
            Ok(lines) => {
                metrics.read_lines(lines.map_while(Result::ok).filter(|line| line.stream == Stream::Stdout))
            }
            Err(error) => self.warn("numbers on standard output are not recorded", &error),
        }
        record.metrics = metrics.summaries().clone();
        if let Err(error) = recording.keep_metrics(&metrics) {
            self.warn("the curves of metrics are not recorded", &error);
        }
        if let Some(warning) = recording.log_warning() {
            self.ui.warn(&warning);
            record.warnings.push(warning);
        }
    }
}

/// The first of some files, and how many more.
fn listed(files: &[String]) -> Option<String> {
    let (first, more) = files.split_first()?;
    Some(match more.len() {
        0 => first.clone(),
        more => format!("{first} and {more} more"),
    })
}

fn stream_of(stream: relay::Stream) -> Stream {
    match stream {
        relay::Stream::Stdout => Stream::Stdout,
        relay::Stream::Stderr => Stream::Stderr,
    }
}

/// What is found out while the program runs.
struct Facts {
    identity: Option<CodeIdentity>,
    tags: Vec<String>,
    pushed: Vec<String>,
    lock: Option<Digest>,
    data: Vec<Data>,
    warnings: Vec<String>,
}

impl RecordedRun<'_> {
    fn facts(&self, ledger: &Ledger) -> Facts {
        let root = &self.project.root;
        let mut warnings = Vec::new();
        let no_code: Vec<PathBuf> =
            [&self.spec.data[..], &self.spec.outputs].concat().iter().map(PathBuf::from).collect();
        let identity = self.pegged.is_none().then(|| CodeIdentity::of(root, &no_code));
        let tags = self.store.tags().unwrap_or_default();
        let data = self
            .spec
            .data
            .iter()
            .filter_map(|path| {
                data::identify(ledger, root, path, self.digest_data).unwrap_or_else(|error| {
                    let cause = Failure::of(&error).summary();
                    warnings.push(format!("the data in {path} is not recorded: {cause}"));
                    None
                })
            })
            .collect();
        Facts {
            identity,
            tags: tags
                .into_iter()
                .filter(|(_, image)| *image == self.spec.image)
                .map(|(name, _)| name.to_string())
                .collect(),
            pushed: pushed_names::of(self.store, &self.spec.image),
            lock: std::fs::read(root.join(LOCK_FILE)).ok().map(|text| Digest::of(&text)),
            data,
            warnings,
        }
    }

    /// Puts what is found out into what says how the run started, in case nobody sees its end.
    fn add_to_start(
        &self,
        facts: &Facts,
        started: Receiver<(Record, Option<Taken>)>,
        recording: &OnceLock<Recording>,
    ) {
        let Ok((mut record, taken)) = started.recv() else { return };
        if let Some(mut taken) = taken
            && let Err(error) = taken.settle()
        {
            self.warn("the code of this run may not be kept", &error);
        }
        facts.fill(&mut record);
        if let Some(recording) = recording.get() {
            // Where this fails, the first version stays.
            let _ = recording.started(&record);
        }
    }

    /// Which code ran, as people name it.
    fn code(&self, facts: &Facts) -> String {
        match (&facts.identity, &self.pegged) {
            (Some(identity), _) => format!("code mounted, {identity}"),
            (None, Some(pegged)) => format!("code pegged, {}", pegged.text),
            (None, None) => "code pegged".to_owned(),
        }
    }
}

impl Facts {
    fn fill(&self, record: &mut Record) {
        if let Some(checkout) = self.identity.as_ref().and_then(CodeIdentity::checkout) {
            record.code.commit = checkout.commit.as_ref().map(|commit| commit.full().to_owned());
            record.code.branch.clone_from(&checkout.branch);
            record.code.differing =
                checkout.differing.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        }
        record.image.tags.clone_from(&self.tags);
        record.image.pushed.clone_from(&self.pushed);
        record.image.lock = self.lock;
        record.data.clone_from(&self.data);
        record.warnings.extend(self.warnings.iter().cloned());
    }
}
