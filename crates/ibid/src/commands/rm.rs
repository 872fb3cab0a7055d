//! `ibid rm` and `ibid restore`: runs are taken out of the ledger, and put back.

use ibid_ledger::ledger::Error;
use ibid_ledger::record::Status;
use ibid_ledger::run_id::{RunId, UnresolvedRunId};
use ibid_ledger::{removed, selection};

use crate::args::Cli;
use crate::ledger_args::{Restore, Rm};
use crate::project_ledger::{ProjectLedger, failure};
use crate::report::Failure;
use crate::ui::Ui;

pub fn rm(ui: &Ui, cli: &Cli, args: &Rm) -> Result<u8, Failure> {
    let project = ProjectLedger::of(cli.directory.as_deref())?;
    // All are looked at before any goes.
    let mut ids: Vec<RunId> = Vec::new();
    for text in &args.runs {
        let id = project.find(text)?;
        let is_running = project.ledger.read(id).is_ok_and(|record| record.status == Status::Running);
        if is_running {
            return Err(Failure::new(format!("run {id} has not ended")).hint("end it first"));
        }
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    for id in &ids {
        removed::remove(&project.ledger, *id).map_err(failure)?;
        ui.say(&format!("removed run {id}"));
    }
    ui.say("`ibid restore` puts it back, until a week has gone by and `ibid gc` removes it for good");
    Ok(0)
}

pub fn restore(ui: &Ui, cli: &Cli, args: &Restore) -> Result<u8, Failure> {
    let project = ProjectLedger::of(cli.directory.as_deref())?;
    let mut ids: Vec<RunId> = Vec::new();
    for text in &args.runs {
        let id = selection::find_removed(&project.ledger, text).map_err(|error| match error {
            Error::Unresolved(UnresolvedRunId::Several { .. } | UnresolvedRunId::SeveralTagged { .. }) => {
                failure(error)
            }
            Error::Unresolved(_) => {
                Failure::of(&error).hint("`ibid runs --removed` lists what can be put back")
            }
            error => failure(error),
        })?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    for id in ids {
        removed::restore(&project.ledger, id).map_err(failure)?;
        ui.say(&format!("restored run {id}"));
    }
    Ok(0)
}
