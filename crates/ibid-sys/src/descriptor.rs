//! Descriptors that a process is started with.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The first `count` descriptors after the standard three, which the starter of this process left open for it,
/// now set to close when another program is executed. None when one is missing, or on a second call:
/// nobody else may own them.
pub fn take_inherited(count: usize) -> Option<Vec<OwnedFd>> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    let numbers = 3..3 + i32::try_from(count).ok()?;
    for number in numbers.clone() {
        // SAFETY: F_SETFD only changes a flag, and fails when the descriptor is not open.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return None;
        }
    }
    // SAFETY: they are open, were opened by nobody in this process, and are handed out only once.
    Some(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
}
