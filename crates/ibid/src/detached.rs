//! A run that goes on when the command that started it has returned.
//!
//! ```text
//! this process            its copy
//! ────────────            ────────
//! fork ─────────────────→ builds, with progress and errors on the same terminal; starts the program
//!   waits                 leaves the terminal
//!   ←──────── run id ──── watches over the run, records it
//! prints it, returns
//! ```
//!
//! Until the program executes, both are one command: what ends the one ends the other, and the copy's exit code is the command's.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use ibid_ledger::run_id::RunId;
use ibid_sys::clone::{Fork, fork};
use ibid_sys::signal::Catcher;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use crate::report::{EXIT_IBID_FAILED, Failure};
use crate::ui;

/// Signals that people mean for the command.
const PASSED_ON: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// On which side of the fork this is.
pub enum Side {
    /// The command, with its exit code.
    Command(u8),
    /// The process that executes the run.
    Run(Detached),
}

/// What the process that executes the run has to tell the command.
pub struct Detached {
    /// None when it has told.
    tell: Mutex<Option<OwnedFd>>,
}

fn failure(what: &'static str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::of(&std::io::Error::from(errno)).while_doing(what)
}

/// Makes the copy. For a process with one thread.
pub fn split() -> Result<Side, Failure> {
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(failure("cannot make a pipe"))?;
    match fork().map_err(failure("cannot start a process for the run"))? {
        Fork::Original(copy) => {
            drop(tell);
            wait(copy, &told).map(Side::Command)
        }
        Fork::Copy => {
            drop(told);
            ibid_sys::descriptor::close_inherited();
            Ok(Side::Run(Detached { tell: Mutex::new(Some(tell)) }))
        }
    }
}

fn wait(copy: Pid, told: &OwnedFd) -> Result<u8, Failure> {
    let signals = Catcher::new(&PASSED_ON.map(Signal::as_raw)).map_err(failure("cannot catch signals"))?;
    loop {
        let mut ready = [PollFd::new(&signals, PollFlags::IN), PollFd::new(told, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failure("cannot wait for the run")(errno)),
        }
        let is_told = !ready[1].revents().is_empty();
        while let Some(signal) = signals.next() {
            // One that has ended needs none.
            let _ended = ibid_sys::signal::send(copy.as_raw_nonzero().get(), signal);
        }
        if is_told {
            break;
        }
    }
    let mut id = [0; 12];
    if let Ok(12) = rustix::io::read(told, &mut id) {
        ui::print(&String::from_utf8_lossy(&id));
        return Ok(0);
    }
    let status = loop {
        match waitpid(Some(copy), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            status => break status.map_err(failure("cannot wait for the run"))?,
        }
    };
    // It has said itself what was wrong.
    Ok(match status.map(|(_, status)| (status.exit_status(), status.terminating_signal())) {
        Some((Some(code), _)) => u8::try_from(code).unwrap_or(EXIT_IBID_FAILED),
        Some((None, Some(signal))) => u8::try_from(128 + signal).unwrap_or(EXIT_IBID_FAILED),
        _ => EXIT_IBID_FAILED,
    })
}

impl Detached {
    /// The program is executing: leaves the terminal and all that the command was given, and lets the command return.
    pub fn go(&self, id: RunId) {
        // The copy leads no group of processes, so it may start a session.
        let _leads_one = rustix::process::setsid();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        if let Ok(null) = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()) {
            // Descriptors that are open can be replaced.
            let _ = rustix::stdio::dup2_stdin(&null);
            let _ = rustix::stdio::dup2_stdout(&null);
            let _ = rustix::stdio::dup2_stderr(&null);
        }
        // When the command is gone, nobody waits for the id.
        let tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _nobody_waits = tell.map(|tell| rustix::io::write(tell, id.to_string().as_bytes()));
    }
}
