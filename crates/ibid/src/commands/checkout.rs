//! `ibid checkout`: the exact code of a run, in a folder of its own.

use ibid_ledger::record::CodeMode;
use ibid_ledger::snapshot;

use crate::args::Cli;
use crate::ledger_args::Checkout;
use crate::project_ledger::{ProjectLedger, failure};
use crate::report::Failure;
use crate::ui::Ui;

pub fn main(ui: &Ui, cli: &Cli, args: &Checkout) -> Result<u8, Failure> {
    let project = ProjectLedger::of(cli.directory.as_deref())?;
    let id = project.find(&args.run)?;
    let record = project.ledger.read(id).map_err(failure)?;
    let Some(digest) = record.code.snapshot else {
        let failure = Failure::new(format!("run {id} has no snapshot of its code"));
        return Err(match record.code.mode {
            CodeMode::Pegged => failure.hint(format!(
                "it ran the code of its image, {}: `ibid inspect` says from which commit that was",
                record.image.digest
            )),
            CodeMode::Mounted => failure.hint(format!("`ibid show {id}` says what is known of it")),
        });
    };
    let folder = &args.folder;
    if folder.exists() && !folder.is_dir() {
        return Err(Failure::new(format!("{} is no folder", folder.display())).hint("give a new one"));
    }
    if std::fs::read_dir(folder).is_ok_and(|mut holds| holds.next().is_some()) {
        return Err(Failure::new(format!("{} is not empty", folder.display()))
            .hint("give a new folder, so that nothing there is overwritten or taken for the run's code"));
    }
    snapshot::checkout(&project.ledger, digest, folder).map_err(failure)?;
    ui.say(&format!("the code of run {id} is in {}", folder.display()));
    for path in &record.code.changed_during_run {
        ui.warn(&format!("`{path}` changed while the run was going: here it is as at the start"));
    }
    for path in &record.code.left_out {
        ui.warn(&format!("`{path}` was there, and no snapshot holds it"));
    }
    Ok(0)
}
