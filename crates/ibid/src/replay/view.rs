//! A replay as people and programs see it.

use ibid_ledger::causes::Kind;
use ibid_ledger::verdict::{Item, Outcome, Sameness};
use serde_json::json;

use super::Replayed;
use crate::ui::{self, Ui};

pub fn print_table(ui: &Ui, replayed: &Replayed) {
    let verdict = &replayed.verdict;
    let end = Item { name: "how it ended".to_owned(), sameness: verdict.end.clone() };
    let items: Vec<&Item> = verdict.files.iter().chain(&verdict.metrics).chain([&end]).collect();
    let width = items.iter().map(|item| item.name.chars().count()).max().unwrap_or_default();
    for item in items {
        let (word, detail) = words(&item.sameness);
        let style = if item.sameness.is_same() { ui::GREEN } else { ui::RED };
        let pad = " ".repeat(width - item.name.chars().count());
        let line = format!("{}{pad}  {}", item.name, ui.paint_stdout(style, &format!("{word:16}")));
        ui::print(format!("{line}  {detail}").trim_end());
    }
    let (style, outcome) = match verdict.outcome {
        Outcome::Identical => (ui::GREEN, "identical"),
        Outcome::WithinTolerance => (ui::GREEN, "the same within tolerance"),
        Outcome::Different => (ui::RED, "different"),
    };
    let with = replayed.change.as_ref().map(|change| format!(" with {change}")).unwrap_or_default();
    ui::print(&format!(
        "run {} replayed as {}{with}: {}",
        replayed.of,
        replayed.runs[0],
        ui.paint_stdout(style, outcome)
    ));
    for cause in &replayed.causes {
        ui::print(&format!(
            "{} {}: {}",
            ui.paint_stdout(ui::YELLOW, "likely cause:"),
            kind(cause.kind),
            cause.evidence
        ));
    }
    for note in &replayed.notes {
        ui::print(&format!("{} {note}", ui.paint_stdout(ui::CYAN, "note:")));
    }
}

pub fn print_json(replayed: &Replayed) {
    let document = json!({
        "schema": 1,
        "replay": {
            "of": replayed.of,
            "run": replayed.runs[0],
            "runs": replayed.runs,
            "image": {"recorded": replayed.images[0], "digest": replayed.images[1], "origin": replayed.origin.name()},
            "snapshot": replayed.snapshot,
            "change": replayed.change,
            "outcome": replayed.verdict.outcome,
            "end": replayed.verdict.end,
            "files": replayed.verdict.files,
            "metrics": replayed.verdict.metrics,
            "causes": replayed.causes,
            "notes": replayed.notes,
        },
    });
    ui::print(&serde_json::to_string_pretty(&document).expect("plain data"));
}

fn words(sameness: &Sameness) -> (&'static str, String) {
    match sameness {
        Sameness::Identical => ("identical", String::new()),
        Sameness::WithinTolerance { tolerance, detail } => {
            ("within tolerance", format!("{tolerance}: {detail}"))
        }
        Sameness::Ignored => ("ignored", "by a rule of [replay]".to_owned()),
        Sameness::Different { detail } => ("different", detail.clone()),
        Sameness::Missing => ("missing", "only the recorded run has it".to_owned()),
        Sameness::Extra => ("extra", "only the replay has it".to_owned()),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Code => "the code",
        Kind::Data => "the data",
        Kind::Image => "the image",
        Kind::Environment => "the environment",
        Kind::Options => "the options",
        Kind::Unseeded => "time, or randomness without a seed",
        Kind::Network => "the network",
        Kind::Gpu => "the GPU",
        Kind::Cpu => "the processor",
        Kind::Threads => "the number of threads",
        Kind::Kernel => "the kernel",
    }
}
