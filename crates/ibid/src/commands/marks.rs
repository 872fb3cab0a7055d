//! `ibid tag-run` and `ibid note`: what people add to a run.

use std::time::{SystemTime, UNIX_EPOCH};

use ibid_core::time::rfc3339_millis;
use ibid_ledger::marks::{self, check_tag};

use crate::args::Cli;
use crate::ledger_args::{Note, TagRun};
use crate::project_ledger::{ProjectLedger, failure};
use crate::report::Failure;
use crate::ui::Ui;

pub fn tag_run(ui: &Ui, cli: &Cli, args: &TagRun) -> Result<u8, Failure> {
    let project = ProjectLedger::of(cli.directory.as_deref())?;
    let id = project.find(&args.run)?;
    if args.remove {
        let had =
            marks::change(&project.ledger, id, |marks| marks.remove_tag(&args.name)).map_err(failure)?;
        if !had {
            return Err(Failure::new(format!("run {id} has no tag `{}`", args.name))
                .hint(format!("`ibid show {id}` says which it has")));
        }
        ui.say(&format!("run {id} is no longer {}", args.name));
        return Ok(0);
    }
    check_tag(&args.name).map_err(|error| Failure::of(&error))?;
    marks::change(&project.ledger, id, |marks| marks.add_tag(&args.name)).map_err(failure)?;
    ui.say(&format!("run {id} is {}", args.name));
    Ok(0)
}

pub fn note(ui: &Ui, cli: &Cli, args: &Note) -> Result<u8, Failure> {
    let project = ProjectLedger::of(cli.directory.as_deref())?;
    let id = project.find(&args.run)?;
    let text = args.text.join(" ");
    if text.trim().is_empty() {
        return Err(Failure::new("the note is empty").hint("`ibid note RUN \"learning rate too high\"`"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let note = marks::Note { time: rfc3339_millis(now), text };
    marks::change(&project.ledger, id, |marks| marks.notes.push(note)).map_err(failure)?;
    ui.say(&format!("noted of run {id}"));
    Ok(0)
}
