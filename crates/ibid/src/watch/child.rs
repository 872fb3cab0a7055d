//! One run that is watched over: this program again, in a process group of its own, so that a signal of the terminal comes once.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Command;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::args::Run;
use crate::report::Failure;

const WATCH: &str = "--watch";

/// The words of this command for a run that is watched over by this process.
pub(super) fn words(run: &Run) -> Result<Vec<OsString>, Failure> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let of_ibid = words.len() - run.args.len();
    let mut words = words;
    match words[..of_ibid].iter().position(|word| word == WATCH) {
        Some(at) => words[at] = format!("--watched-by={}", std::process::id()).into(),
        None => return Err(Failure::new("`--watch` is to be a word of its own")),
    }
    Ok(words)
}

/// A run that goes on.
pub(super) struct Child {
    process: std::process::Child,
    pidfd: OwnedFd,
}

impl Child {
    pub(super) fn start(words: &[OsString]) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::of(&error).while_doing("cannot start a run");
        let process = Command::new("/proc/self/exe")
            .arg0(&words[0])
            .args(&words[1..])
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        Ok(Self { process, pidfd })
    }

    /// One that has ended needs none.
    pub(super) fn signal(&self, signal: i32) {
        if let Some(signal) = Signal::from_named_raw(signal) {
            let _ended = pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Its exit code, once it has ended; 128 + N for signal N.
    pub(super) fn ended(&mut self) -> Result<Option<u8>, Failure> {
        let status = self
            .process
            .try_wait()
            .map_err(|error| Failure::of(&error).while_doing("cannot wait for a run"))?;
        Ok(status.map(|status| match (status.code(), status.signal()) {
            (Some(code), _) => code as u8,
            (None, signal) => 128 + signal.unwrap_or_default() as u8,
        }))
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
