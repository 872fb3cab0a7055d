//! `ibid stop`: asks the programs of runs to end, and kills those that do not.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ibid_engine::live::LiveRun;
use ibid_ledger::ledger::Ledger;
use ibid_ledger::run_id::RunId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::args::Cli;
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
        let executor = executor(&run)?;
        signal(&run, run.stop_signal)?;
        stopping.push((run, executor));
    }
    let deadline = Instant::now() + Duration::from_secs(stop.time);
    for (run, executor) in &stopping {
        let Some(executor) = executor else { continue };
        if !ends(executor, Some(deadline))? {
            ui.detail(&format!("run {} did not end within {} s", run.id, stop.time));
            signal(run, Signal::KILL.as_raw())?;
            ends(executor, None)?;
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

/// The process that executes a run; none when that has just ended.
fn executor(run: &LiveRun) -> Result<Option<OwnedFd>, Failure> {
    let process = i32::try_from(run.process).ok().and_then(Pid::from_raw);
    let opened = process.map_or(Err(Errno::SRCH), |process| pidfd_open(process, PidfdFlags::empty()));
    match opened {
        // Its container does not outlive it: the number was its own.
        Ok(process) => Ok(run.container.is_there().then_some(process)),
        Err(Errno::SRCH) => Ok(None),
        Err(errno) => {
            let error = std::io::Error::from(errno);
            Err(Failure::of(&error).while_doing(format!("cannot watch run {}", run.id)))
        }
    }
}

/// Whether a process ends before a point in time.
fn ends(process: &OwnedFd, deadline: Option<Instant>) -> Result<bool, Failure> {
    loop {
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut [PollFd::new(process, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Failure::of(&std::io::Error::from(errno)).while_doing("cannot wait for a run"));
            }
        }
    }
}

/// How it ended, as far as that is recorded.
fn how(run: &LiveRun) -> String {
    let record = run.id.parse::<RunId>().ok().and_then(|id| Ledger::of(&run.project).read(id).ok());
    record.map_or_else(|| "has ended".to_owned(), |record| format!("ended with {}", live_runs::end(&record)))
}
