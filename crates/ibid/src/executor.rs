//! The ibid that executes a run, watched by another one: when it has ended, the run is over and its record written.

use std::os::fd::OwnedFd;
use std::time::Instant;

use ibid_engine::live::LiveRun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::report::Failure;

/// That process.
pub struct Executor(OwnedFd);

impl Executor {
    /// None when it has just ended.
    pub fn of(run: &LiveRun) -> Result<Option<Self>, Failure> {
        let process = i32::try_from(run.process).ok().and_then(Pid::from_raw);
        let opened = process.map_or(Err(Errno::SRCH), |process| pidfd_open(process, PidfdFlags::empty()));
        match opened {
            // Its container does not outlive it: the number was its own.
            Ok(process) => Ok(run.container.is_there().then_some(Self(process))),
            Err(Errno::SRCH) => Ok(None),
            Err(errno) => {
                let error = std::io::Error::from(errno);
                Err(Failure::of(&error).while_doing(format!("cannot watch run {}", run.id)))
            }
        }
    }

    /// Whether it ends before a point in time.
    pub fn ends(&self, deadline: Option<Instant>) -> Result<bool, Failure> {
        loop {
            let left = deadline.map(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                }
            });
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let error = std::io::Error::from(errno);
                    return Err(Failure::of(&error).while_doing("cannot wait for a run"));
                }
            }
        }
    }
}
