//! What processes took.

use std::mem::MaybeUninit;

use crate::{Errno, last_errno};

/// What the ended children of a process took, with theirs (getrusage(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Most memory that one of them had at a time, bytes.
    pub peak_memory: u64,
    /// Time of processors of all, microseconds.
    pub cpu_micros: u64,
}

/// Of all children that this process has taken leave of.
pub fn of_children() -> Result<Usage, Errno> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes a whole rusage, or fails.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
        return Err(last_errno());
    }
    // SAFETY: it was zeroed, and every bit pattern is a rusage.
    let usage = unsafe { usage.assume_init() };
    let micros = |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    Ok(Usage {
        peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        cpu_micros: micros(usage.ru_utime) + micros(usage.ru_stime),
    })
}
