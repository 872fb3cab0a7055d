//! Executes a run and records it: what is written down, and when it is known.
//!
//! ```text
//! main thread                               beside it
//! make the container                        a folder for the run; a snapshot of the code
//! right before the program: its start in alive
//! the program runs ──output→ log            git, names of the image, data inputs
//!                                           → start.json with that, unless the program has ended
//! its end: in alive, too
//! outputs, metrics                          (joined)
//! record.json
//! ```
//!
//! A run is executed whether it can be recorded or not: what fails here is a warning.

mod description;
mod facts;

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ibid_core::digest::Digest;
use ibid_core::image::ImageConfig;
use ibid_core::run::RunSpec;
use ibid_engine::identity::HostUser;
use ibid_engine::native::{self, OnTerminate, Watch};
use ibid_engine::{Engine, relay};
use ibid_ledger::ledger::{self, Ledger};
use ibid_ledger::log::{self, Stream};
use ibid_ledger::metrics::Metrics;
use ibid_ledger::record::{Code, Record, Status};
use ibid_ledger::recording::{Prepared, Recording};
use ibid_ledger::run_id::RunId;
use ibid_ledger::snapshot::{self, Exclusions, Taken};
use ibid_ledger::{output_content, outputs};
use ibid_sandbox::trust::HostTrust;
use ibid_sandbox::{ExitStatus, Spec};
use ibid_store::Store;

use crate::detached::Detached;
use crate::image_build::PeggedCode;
use crate::project::Project;
use crate::recorded_options::RecordedOptions;
use crate::report::Failure;
use crate::run_notices;
use crate::ui::{self, Ui};
use crate::watch::{self, Watched};

/// A run that is to be recorded.
pub struct RecordedRun<'a> {
    pub ui: &'a Ui,
    pub project: &'a Project,
    pub host: &'a HostUser,
    pub store: &'a Store,
    pub engine: &'a Engine,
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
    /// Options of the container as they were given.
    pub options: RecordedOptions,
    /// Each `FROM` and the image that it meant.
    pub bases: BTreeMap<String, Digest>,
    /// The output folder of this run alone, relative to the project.
    pub output_folder: Option<String>,
    /// Whether the contents of data inputs are hashed.
    pub digest_data: bool,
    /// Set when the run goes on without this process's terminal.
    pub detached: Option<&'a Detached>,
    /// Set when somebody watches over it, and stops it when the code changes.
    pub watched: Option<&'a Watched>,
    /// Set when the project is a copy in which a run is repeated.
    pub repetition: Option<Repetition<'a>>,
}

/// What a repeated run has in place of what the project says.
pub struct Repetition<'a> {
    /// The run that is repeated.
    pub of: RunId,
    /// Where it is recorded.
    pub ledger: &'a Ledger,
    /// Its code, which is known.
    pub code: Code,
}

/// How it went.
pub struct Finished {
    pub status: ExitStatus,
    pub seconds: f64,
    /// Which code ran, as people name it.
    pub code: String,
    /// What is recorded, unless that failed.
    pub record: Option<Record>,
}

impl RecordedRun<'_> {
    /// Executes it to its end.
    pub fn execute(&self) -> Result<Finished, native::Error> {
        let ledger = match &self.repetition {
            Some(repetition) => repetition.ledger.clone(),
            None => Ledger::of(&self.project.root),
        };
        let mut record = self.record();
        let recording = OnceLock::new();
        let (tell, told) = channel();
        let (give_scratch, given_scratch) = channel();
        let mut start = Instant::now();
        let (result, seconds, code, recorded) = std::thread::scope(|scope| {
            let (hand_over, handed_over) = channel();
            let (tell_facts, told_facts) = channel();
            let (ledger, recording) = (&ledger, &recording);
            let beside = move || {
                // One after the other: both look at every file, and the program waits for the first only.
                let prepared = Prepared::new(ledger, self.id);
                let takes = self.pegged.is_none() && self.repetition.is_none();
                let taken = takes.then(|| self.snapshot(ledger)).flatten();
                let _nobody_waits = hand_over.send((taken, prepared));
                // `ibid gc` keeps what a record needs.
                if let Err(error) = self.store.use_in_ledger(ledger.folder(), &self.spec.image) {
                    self.ui.warn(&format!(
                        "`ibid gc` may remove the image of this run: {}",
                        Failure::of(&error).summary()
                    ));
                }
                // Nobody waits for git when there is nothing to ask it: until the program runs, others need the processors more.
                let mut started = self.pegged.is_some().then(|| told.recv().ok()).flatten();
                let facts = Arc::new(self.facts(ledger));
                let _nobody_waits = tell_facts.send(Arc::clone(&facts));
                if self.pegged.is_none() {
                    started = told.recv().ok();
                }
                if let Some(started) = started {
                    self.add_to_start(&facts, started, &told, recording);
                }
                // Removing files takes about as long as recording what there is.
                drop(given_scratch.recv());
            };
            scope.spawn(beside);
            // Told when the program executes: whoever is woken before can be in its way.
            let known = Cell::new(None);
            let mut before_program = |sandbox: &Spec| {
                if let Some(watched) = self.watched {
                    watched.program_starts();
                }
                // The program sees the code as it is now.
                // The other thread has panicked, which it passes on when it is joined.
                let Ok((taken, prepared)) = handed_over.recv() else { return };
                self.describe(&mut record, sandbox, taken.as_ref());
                match prepared.and_then(|prepared| prepared.start(&record, self.output_paths())) {
                    Ok(started) => {
                        recording.get_or_init(|| started);
                        known.set(Some((record.clone(), taken)));
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
            let mut on_start = || {
                if let Some(known) = known.take() {
                    let _nobody_waits = tell.send(known);
                }
            };
            let mut go = || self.detached.into_iter().for_each(|detached| detached.go(self.id));
            let on_terminate =
                if self.watched.is_some() { OnTerminate::Stop(watch::PATIENCE) } else { OnTerminate::PassOn };
            let watch = Watch {
                before_program: &mut before_program,
                on_start: &mut on_start,
                listener: &listener,
                on_terminate,
                on_detached: self.detached.is_some().then_some(&mut go),
            };
            let mut result = self.engine.run(
                self.store,
                self.spec,
                self.host,
                self.trust,
                &run_notices::on_copy(self.ui),
                Some(watch),
            );
            let seconds = start.elapsed().as_secs_f64();
            drop(tell);
            if let Ok(ended) = &mut result {
                let _already_removed = ended.scratch.take().map(|scratch| give_scratch.send(scratch));
            }
            drop(give_scratch);
            if let Some(recording) = recording.get() {
                self.note_end(&mut record, &result, seconds);
                if let Err(error) = recording.ended(&record) {
                    self.warn("the record of this run is incomplete", &error);
                }
                self.look_at_outputs(&mut record, recording, ledger);
                self.look_at_code(&mut record, ledger);
            }
            let facts = told_facts.recv().expect("finding out facts does not panic");
            facts.fill(&mut record);
            let recorded = recording.get().map(|recording| recording.finish(&record));
            (result, seconds, self.code(&facts), recorded)
        });
        let is_recorded = match recorded {
            Some(Ok(())) => {
                recording.into_inner().into_iter().for_each(Recording::close);
                true
            }
            Some(Err(error)) => {
                self.warn("the record of this run is incomplete", &error);
                false
            }
            None => false,
        };
        let ended = result?;
        run_notices::warn_of_unknown(self.ui, &ended);
        for (stream, error) in &ended.unwritten {
            let name = stream_of(*stream).name();
            self.ui.warn(&format!("{name} did not take all that the program wrote: {error}"));
            self.ui.hint(&format!("`ibid logs {}` shows it", self.id));
        }
        Ok(Finished { status: ended.status, seconds, code, record: is_recorded.then_some(record) })
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

    /// Keeps the code as it is; a failure is a warning.
    fn snapshot(&self, ledger: &Ledger) -> Option<Taken> {
        let start = Instant::now();
        match snapshot::take(ledger, &self.project.root, &self.exclusions) {
            Ok(taken) => {
                self.ui.detail(&format!(
                    "snapshot {} of {} files in {:.1} ms",
                    ui::short_digest(&taken.digest),
                    taken.files,
                    start.elapsed().as_secs_f64() * 1000.0
                ));
                let large: Vec<String> = taken.large.iter().map(|path| path.display().to_string()).collect();
                if let Some(files) = listed(&large) {
                    self.ui.warn(&format!("{files}: over 100 MB, not kept with the code of this run"));
                    self.ui.hint("large inputs belong into `[run] data` of ibid.toml, or into .gitignore");
                }
                Some(taken)
            }
            Err(error) => {
                self.warn("the code of this run is not kept", &error);
                None
            }
        }
    }

    /// What of the code changed while the program ran, and what it wrote beside its outputs.
    fn look_at_code(&self, record: &mut Record, ledger: &Ledger) {
        let Some(taken) = record.code.snapshot.filter(|_| self.repetition.is_none()) else { return };
        let (changed, written) = match self.changes(ledger, taken) {
            Ok(changes) => changes,
            Err(error) => return self.warn("what changed while this ran is not recorded", &error),
        };
        // Whoever watches over it has said so, and starts the next.
        if let Some(files) = listed(&changed).filter(|_| self.watched.is_none()) {
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
    fn look_at_outputs(&self, record: &mut Record, recording: &Recording, ledger: &Ledger) {
        let found = outputs::changed(&self.project.root, &self.outputs(), recording.beginning());
        record.outputs = found.files;
        record.warnings.extend(found.warnings);
        if self.output_folder.is_some() && record.outputs.is_empty() && record.status == Status::Ok {
            let warning = "the program wrote nothing to IBID_OUTPUT_DIR, so this run has no outputs";
            self.ui.warn(warning);
            record.warnings.push(warning.to_owned());
        }
        let rules = self.project.replay.rules();
        for output in record.outputs.iter().filter(|output| rules.compares_content(&output.path)) {
            if let Err(error) = output_content::keep(ledger, recording.folder(), &self.project.root, output) {
                self.warn(&format!("the content of {} is not kept for comparisons", output.path), &error);
            }
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
