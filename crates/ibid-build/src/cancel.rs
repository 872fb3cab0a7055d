//! Ending what other stages run when one has failed.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use ibid_sandbox::Handle;

/// Whether the build goes on, and what runs in it.
#[derive(Default)]
pub(crate) struct Cancellation {
    state: Mutex<State>,
    cancelled: Condvar,
}

#[derive(Default)]
struct State {
    is_cancelled: bool,
    running: Vec<(u64, Handle)>,
    next: u64,
}

/// A command that ends when the build is cancelled; dropped when it has ended by itself.
pub(crate) struct Watched<'a> {
    cancellation: &'a Cancellation,
    number: u64,
}

impl Cancellation {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.state().is_cancelled
    }

    /// Waits so long, or until the build is cancelled; says whether it is.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let waited = self.cancelled.wait_timeout_while(self.state(), time, |state| !state.is_cancelled);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_cancelled
    }

    /// Ends everything that runs, and what starts afterwards as soon as it is watched.
    pub(crate) fn cancel(&self) {
        let mut state = self.state();
        state.is_cancelled = true;
        self.cancelled.notify_all();
        for (_, handle) in &state.running {
            // What cannot be killed has ended, or is waited for.
            let _ = handle.kill();
        }
    }

    /// Watches a command.
    pub(crate) fn watch(&self, handle: Handle) -> Watched<'_> {
        let mut state = self.state();
        if state.is_cancelled {
            let _ = handle.kill();
        }
        let number = state.next;
        state.next += 1;
        state.running.push((number, handle));
        Watched { cancellation: self, number }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.cancellation.state().running.retain(|(number, _)| *number != self.number);
    }
}
