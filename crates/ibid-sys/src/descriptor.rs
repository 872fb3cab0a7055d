//! Descriptors that a process is started with.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Closes what this process was started with beside the standard three, such as a lock that a shell holds: all that is open and
/// would stay so when another program is executed, as nothing of this process's own making does.
pub fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: one that is not to be closed by `execve` was opened by nobody in this process, so nobody owns it: the
        // standard library and all crates here open theirs with that flag, and a stage's are given it by `take_inherited`.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) & libc::FD_CLOEXEC == 0 {
                libc::close(number);
            }
        }
    }
}

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
