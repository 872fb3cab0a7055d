//! Executing a recorded run again, in a throw-away folder, to a verdict.
//!
//! ```text
//! run of the ledger, or an archive ─source→ Source
//! Source ─image→ the recorded image, from the nearest place that has it
//! Source ─code→ the recorded snapshot, or the one that was asked for instead
//! all of that ─stage→ a run with a record of its own, as often as needed
//! two records ─ibid_ledger::verdict, ::causes→ Replay, shown by `view`
//! ```

mod code;
mod image;
mod source;
mod stage;
mod view;

use ibid_core::digest::Digest;
use ibid_core::run::Network;
use ibid_ledger::causes::{self, Cause, Kind, Tries};
use ibid_ledger::record::{Record, Status};
use ibid_ledger::run_id::RunId;
use ibid_ledger::verdict::{Outcome, Rules, Verdict};

use crate::args::{Cli, Replay};
use crate::image_build;
use crate::report::Failure;
use crate::ui::{self, Ui};
use image::Origin;
use source::Source;
use stage::Stage;

/// A run that was repeated, and what came of it.
struct Replayed {
    /// The recorded run.
    of: RunId,
    /// The repetitions, the first of which the verdict is on.
    runs: Vec<RunId>,
    /// The image of the recorded run, and the one of the repetitions.
    images: [Digest; 2],
    origin: Origin,
    snapshot: Option<Digest>,
    /// What was changed on purpose: `code HEAD`.
    change: Option<String>,
    verdict: Verdict,
    causes: Vec<Cause>,
    /// What should be known of the verdict.
    notes: Vec<String>,
}

pub fn main(ui: &Ui, cli: &Cli, replay: &Replay) -> Result<u8, Failure> {
    let host = image_build::enter_user_namespace()?;
    let store = image_build::open_store()?;
    let source = Source::open(ui, &store, cli.directory.as_deref(), &replay.run)?;
    check_repeatable(&source.record)?;
    let (image, origin) = match &replay.image {
        Some(text) => (image_build::find_image(&store, text)?, Origin::Asked),
        None => image::find(ui, &host, &store, &source)?,
    };
    let code = match &replay.code {
        Some(text) => code::asked(&source, text)?,
        None => source.record.code.clone(),
    };
    let change = match (&replay.code, &replay.image) {
        (Some(text), _) => Some(format!("code {text}")),
        (None, Some(text)) => Some(format!("image {text}")),
        (None, None) => None,
    };
    ui.say(&format!("image {} {}", ui::short_digest(&image), origin.text()));
    match &code.snapshot {
        Some(snapshot) => ui.say(&format!("code {}", ui::short_digest(snapshot))),
        None => ui.say("code of the image"),
    }
    let snapshot = code.snapshot;
    let stage = Stage::new(ui, &host, &store, &source, replay.engine, image, code)?;
    let first = stage.run(Network::Host)?;
    let recorded = source.comparable(&first.record);
    let rules = source.rules(first.project());
    let verdict = source.compare(&rules, &first)?;
    let mut replayed = Replayed {
        of: source.record.id,
        runs: vec![first.record.id],
        images: [source.record.image.digest, image],
        origin,
        snapshot,
        change,
        verdict,
        causes: Vec::new(),
        notes: notes(&source.record, &first.record),
    };
    if replayed.verdict.outcome == Outcome::Different {
        let mut tries = Tries::default();
        if !replay.once && replayed.change.is_none() {
            ui.say(
                "the result differs: the replay is tried once more, to see whether it differs from itself",
            );
            let second = stage.run(Network::Host)?;
            replayed.runs.push(second.record.id);
            tries.again = Some(first.compare(&rules, &second, &source.ledger)?);
            if causes::likely(&recorded, &first.record, &tries).iter().all(|cause| cause.kind > Kind::Network)
            {
                ui.say("it repeats itself: tried once more without network");
                let third = stage.run(Network::None)?;
                replayed.runs.push(third.record.id);
                tries.without_network = Some(first.compare(&rules, &third, &source.ledger)?);
            }
        }
        replayed.causes = causes::likely(&recorded, &first.record, &tries);
        // What was changed on purpose needs no telling.
        let is_meant = |kind| {
            replay.code.is_some() && kind == Kind::Code || replay.image.is_some() && kind == Kind::Image
        };
        replayed.causes.retain(|cause| !is_meant(cause.kind));
        if replayed.causes.is_empty() && replayed.change.is_none() {
            replayed.notes.push(unexplained(&tries));
        }
    } else {
        replayed.notes.extend(differences_without_effect(&recorded, &first.record));
    }
    if let Some(keep) = &replay.keep {
        first.keep(ui, keep)?;
    }
    if replay.json {
        view::print_json(&replayed);
    } else {
        view::print_table(ui, &replayed);
    }
    Ok(u8::from(replayed.verdict.outcome == Outcome::Different))
}

/// Refuses runs that have no result to compare with.
fn check_repeatable(record: &Record) -> Result<(), Failure> {
    let why = match record.status {
        Status::Ok | Status::Failed => return Ok(()),
        Status::Running => "it has not ended yet",
        Status::Lost => "nobody saw its end: ibid itself was ended",
        Status::NotStarted => "its program never started",
    };
    Err(Failure::new(format!("the run {} has no result to compare with: {why}", record.id)))
}

/// What a person should know of the verdict, whatever it is.
fn notes(first: &Record, second: &Record) -> Vec<String> {
    let mut notes = Vec::new();
    if !first.code.changed_during_run.is_empty() {
        notes.push(format!(
            "the recorded code may not be what ran: {} changed while it was going",
            first.code.changed_during_run.join(", ")
        ));
    }
    if first.outputs.is_empty() && first.metrics.is_empty() && second.outputs.is_empty() {
        notes.push("the run left neither outputs nor metrics: only how it ended was compared".to_owned());
    }
    if let Some(warning) =
        first.warnings.iter().find(|warning| warning.contains("they and the metrics are not recorded"))
    {
        notes.push(warning.clone());
    }
    notes
}

/// What is another now and made no difference.
fn differences_without_effect(first: &Record, second: &Record) -> Option<String> {
    let causes = causes::likely(first, second, &Tries::default());
    let shown: Vec<&str> = causes
        .iter()
        // It is told already.
        .filter(|cause| !matches!(cause.kind, Kind::Code | Kind::Image))
        .map(|cause| cause.evidence.as_str())
        .collect();
    (!shown.is_empty()).then(|| format!("the result is the same although: {}", shown.join("; ")))
}

fn unexplained(tries: &Tries) -> String {
    if tries.again.is_none() {
        return "nothing that is recorded is another now; without `--once`, another try tells whether the run differs from itself"
            .to_owned();
    }
    "the replay repeats itself, and nothing that is recorded is another now: the run may depend on the time, or on files that are not in the snapshot"
        .to_owned()
}

impl Source {
    /// The record, as far as it can be compared with that of a repetition.
    fn comparable(&self, repetition: &Record) -> Record {
        let mut record = self.record.clone();
        if self.has_data {
            // It came with the run, and its files' times are not those of the other machine.
            record.data.clone_from(&repetition.data);
        }
        record
    }

    /// What may differ: as the project says it now, or for a run from elsewhere as it came.
    fn rules(&self, replayed: &crate::project::Project) -> Rules {
        self.project.as_ref().unwrap_or(replayed).replay.rules()
    }
}
