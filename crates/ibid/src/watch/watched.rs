//! A run that is watched over, seen from its own process.
//!
//! Told to stop, it ends at once as long as it builds or prepares; a step of a build may take its time, or not listen. Once the
//! program runs, the signal is the program's, and after that the record is finished, whatever comes.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ibid_sandbox::catch_signals;
use ibid_sys::Errno;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use super::{ENDING, failed_to};
use crate::report::Failure;

/// A run that is watched over.
pub struct Watched {
    has_program: Arc<AtomicBool>,
}

impl Watched {
    /// To be called before anything is built. When the watcher dies, this is told to stop.
    pub fn by(watcher: u32) -> Result<Self, Failure> {
        let signals = catch_signals().map_err(|error| Failure::of(&error))?;
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(failed_to("be told of the watcher's end"))?;
        let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
        if parent != Some(watcher) {
            return Err(Failure::new("whoever watched over this run has ended"));
        }
        let has_program = Arc::new(AtomicBool::new(false));
        let watched = Self { has_program: Arc::clone(&has_program) };
        // It lives as long as the process, and so do the caught signals.
        std::thread::spawn(move || {
            loop {
                match poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return,
                }
                while let Some(signal) = signals.next() {
                    let ends = ENDING.iter().any(|ending| ending.as_raw() == signal);
                    if ends && !has_program.load(Ordering::Acquire) {
                        // With this process, all containers end that it has started.
                        std::process::exit(128 + signal);
                    }
                }
            }
        });
        Ok(watched)
    }

    /// To be called when signals reach the program, right before it starts.
    pub fn program_starts(&self) {
        self.has_program.store(true, Ordering::Release);
    }
}
