//! Process 1 of a container of Docker or Podman: ibid's own program, mounted into it. Starts the run's program, passes signals
//! on, takes leave of orphans, and ends as the program ended. Without it the program itself would be process 1, which the
//! kernel spares from signals that it does not handle.
//!
//! Its words are limits (`nofile=99:100`) that the engine would not keep, `--`, and the program with its arguments.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use ibid_core::run::Ulimit;
use ibid_sys::signal::{Catcher, send};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, set_dumpable_behavior, wait};
use rustix::termios::{isatty, tcsetpgrp};

/// Where the program is mounted, and so its name there.
pub(super) const PATH: &str = "/run/ibid/ibid";

/// Stands between limits and the program.
pub(super) const END: &str = "--";

/// What may be meant for the program. That a child has ended comes as a signal, too.
const CAUGHT: [Signal; 11] = [
    Signal::CHILD,
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::PIPE,
    Signal::TSTP,
    Signal::CONT,
    Signal::WINCH,
];

/// What a terminal sends, it sends to everything in the foreground.
const OF_TERMINALS: [Signal; 6] =
    [Signal::INT, Signal::QUIT, Signal::TSTP, Signal::CONT, Signal::WINCH, Signal::HUP];

/// Why the program was not started.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// It is not there, or is no program.
    #[error("cannot execute `{program}`: {source}")]
    Program {
        /// As it was named.
        program: String,
        /// The system's word.
        source: io::Error,
    },
    /// A limit cannot be kept.
    #[error("cannot keep the limit {limit}: {source}")]
    Limit {
        /// As `--ulimit` has it.
        limit: String,
        /// The system's word.
        source: io::Error,
    },
}

impl NotStarted {
    /// As a shell says it, and what ibid says where itself failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Program { .. } => 126,
            Self::Limit { .. } => 125,
        }
    }
}

/// None when this process is no process 1; else how its program ended.
pub fn main_if_asked() -> Option<Result<u8, NotStarted>> {
    let mut words = std::env::args_os();
    (words.next()? == PATH).then(|| {
        // The program is the same person: it is not to look into this process.
        let _is_possible = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        let mut limits = Vec::new();
        let mut program = words.next().unwrap_or_default();
        while program != END {
            limits.push(program);
            program = words.next().unwrap_or_default();
        }
        let program = words.next().unwrap_or_default();
        let failed = |source| NotStarted::Program { program: program.to_string_lossy().into_owned(), source };
        for limit in limits {
            let limit = limit.to_string_lossy().into_owned();
            keep(&limit).map_err(|source| NotStarted::Limit { limit, source })?;
        }
        // This process ignores what a closed pipe is told by.
        ibid_sys::signal::reset();
        let signals = Catcher::new(&CAUGHT.map(Signal::as_raw)).map_err(|errno| failed(errno.into()))?;
        // A group of its own, so that a terminal's signals reach it once.
        let child = Command::new(&program).args(words).process_group(0).spawn().map_err(failed)?;
        let child = Pid::from_child(&child);
        if isatty(rustix::stdio::stdin()) {
            // It may have asked for the terminal before it had it: then it was stopped.
            let _no_terminal = tcsetpgrp(rustix::stdio::stdin(), child);
            let _ended = send(-child.as_raw_nonzero().get(), Signal::CONT.as_raw());
        }
        Ok(watch(child, &signals))
    })
}

/// Keeps a limit, as [`Ulimit::parse`] reads it.
fn keep(text: &str) -> io::Result<()> {
    let limit = Ulimit::parse(text).map_err(io::Error::other)?;
    let number = |value: Option<u64>| value.unwrap_or(u64::MAX);
    Ok(ibid_sys::exec::limit(limit.resource, number(limit.soft), number(limit.hard))?)
}

/// Returns when the program has ended. What else runs in the container ends with this process.
fn watch(program: Pid, signals: &Catcher) -> u8 {
    loop {
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return 125,
        }
        while let Some(signal) = signals.next() {
            if signal != Signal::CHILD.as_raw() {
                let number = program.as_raw_nonzero().get();
                let to_group = OF_TERMINALS.iter().any(|known| known.as_raw() == signal);
                // It may have ended a moment ago: then there is nobody to tell.
                let _ended = send(if to_group { -number } else { number }, signal);
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid != program {
                continue;
            }
            if let Some(code) = status.exit_status() {
                return u8::try_from(code).unwrap_or(u8::MAX);
            }
            if let Some(signal) = status.terminating_signal() {
                return u8::try_from(128 + signal).unwrap_or(u8::MAX);
            }
        }
    }
}
