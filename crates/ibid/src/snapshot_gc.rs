//! Removing what snapshots of a project's code hold and no run needs.

use std::path::Path;
use std::time::Duration;

use ibid_ledger::ledger::Ledger;
use ibid_ledger::snapshot::{self, Removed};

use crate::args::Cli;
use crate::project::Project;
use crate::report::Failure;
use crate::ui::Ui;

/// A run may have taken its snapshot and have no record yet.
const SPARED: Duration = Duration::from_secs(60 * 60);

/// For the project that the command line names. What cannot be told apart is kept, and said: the store is no part of that.
pub fn collect(ui: &Ui, cli: &Cli, dry_run: bool) -> Removed {
    let directory = cli.directory.as_deref().unwrap_or(Path::new("."));
    let collected = Project::find(directory).map_err(|error| Failure::of(&error)).and_then(|project| {
        snapshot::collect(&Ledger::of(&project.root), SPARED, dry_run).map_err(|error| Failure::of(&error))
    });
    collected.unwrap_or_else(|failure| {
        ui.warn(&format!("the code of runs is all kept: {}", failure.summary()));
        Removed::default()
    })
}
