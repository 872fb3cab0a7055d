//! `ibid stop`: asks the programs of runs to end, and kills those that do not.

use std::time::{Duration, Instant};

use ibid_engine::live::LiveRun;
use ibid_ledger::ledger::Ledger;
use ibid_ledger::run_id::RunId;
use rustix::process::Signal;

use crate::args::Cli;
use crate::executor::Executor;
use crate::live_args::Stop;
use crate::live_runs;
use crate::report::Failure;
use crate::ui::Ui;

pub fn main(ui: &Ui, cli: &Cli, stop: &Stop) -> Result<u8, Failure> {
    let mut runs: Vec<LiveRun> = Vec::new();
    for text in &stop.runs {
        let run = live_runs::find(ui, cli.directory.as_deref(), text)?;
        if runs.iter().all(|known| known.id != run.id) {
            runs.push(run);
        }
    }
    let mut stopping = Vec::new();
    for run in runs {
        // The ibid that executes it: when that has ended, the record is written.
        let executor = Executor::of(&run)?;
        signal(&run, run.stop_signal)?;
        stopping.push((run, executor));
    }
    let deadline = Instant::now() + Duration::from_secs(stop.time);
    for (run, executor) in &stopping {
        let Some(executor) = executor else { continue };
        if !executor.ends(Some(deadline))? {
            ui.detail(&format!("run {} did not end within {} s", run.id, stop.time));
            signal(run, Signal::KILL.as_raw())?;
            executor.ends(None)?;
        }
        ui.say(&format!("run {} {}", run.id, how(run)));
    }
    Ok(0)
}

fn signal(run: &LiveRun, signal: i32) -> Result<(), Failure> {
    run.container
        .signal(signal)
        .map_err(|error| Failure::of(&error).while_doing(format!("cannot stop run {}", run.id)))
}

/// How it ended, as far as that is recorded.
fn how(run: &LiveRun) -> String {
    let record = run.id.parse::<RunId>().ok().and_then(|id| Ledger::of(&run.project).read(id).ok());
    record.map_or_else(|| "has ended".to_owned(), |record| format!("ended with {}", live_runs::end(&record)))
}
