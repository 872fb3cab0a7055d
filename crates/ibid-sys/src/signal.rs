//! Signal masks, dispositions, and signals as readable descriptors.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::{Errno, last_errno};

/// The largest signal number.
pub const LAST: i32 = 64;

fn full_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset writes the whole set.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset writes the whole set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn set_mask(set: &libc::sigset_t) -> libc::sigset_t {
    let mut old = empty_set();
    // SAFETY: both sets are valid; SIG_SETMASK with valid sets cannot fail.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, &raw mut old) };
    old
}

/// Blocks every signal of this thread until dropped.
pub struct Blocked(libc::sigset_t);

impl Blocked {
    /// Blocks.
    pub fn all() -> Self {
        Self(set_mask(&full_set()))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set_mask(&self.0);
    }
}

/// The kernel's own `sigaction`, which the C library hides.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// Gives this process the signal state of a fresh one: nothing blocked, every signal at its default. The two
/// that the C library keeps for itself too, which it would not let anyone change.
pub fn reset() {
    let default = KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    for signal in 1..=LAST {
        // SAFETY: the action is valid and lives through the call; for signals that cannot be changed the
        // call only fails.
        unsafe {
            let old = std::ptr::null_mut::<KernelAction>();
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, old, size_of::<u64>());
        }
    }
    set_mask(&empty_set());
}

/// Sends a signal to a process, or to a process group when `pid` is negative.
pub fn send(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill touches no memory of this process.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Sends any signal to the process of a pidfd: rustix knows the named ones only.
pub fn send_to(process: std::os::fd::BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: touches no memory of this process.
    let result = unsafe {
        let no_information = std::ptr::null::<libc::siginfo_t>();
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, no_information, 0)
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Makes signals readable, one at a time: all of them, which must be blocked in every thread.
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks all signals for good and opens the descriptor. For a process with one thread.
    pub fn all() -> Result<Self, Errno> {
        let set = full_set();
        set_mask(&set);
        // SAFETY: the set is valid; the descriptor is new and ours.
        unsafe {
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 { Err(last_errno()) } else { Ok(Self(OwnedFd::from_raw_fd(fd))) }
        }
    }

    /// The next pending signal, or none.
    pub fn next(&self) -> Option<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: reads at most `size` bytes into `info`.
        let read = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        // SAFETY: a full read wrote the whole structure.
        (read == size as isize).then(|| unsafe { info.assume_init() }.ssi_signo as i32)
    }
}

impl std::os::fd::AsFd for SignalFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where the handler writes: a pipe for each catcher. A slot, once made, keeps its pipe for ever, so the
/// handler never writes into a descriptor that means something else by now.
static SLOTS: [AtomicI32; CATCHERS_MAX] = [const { AtomicI32::new(-1) }; CATCHERS_MAX];

/// How many catchers a process may have at once.
const CATCHERS_MAX: usize = 1024;

static CATCHERS: Mutex<Catchers> =
    Mutex::new(Catchers { pipes: Vec::new(), free: Vec::new(), before: Vec::new() });

struct Catchers {
    /// Both ends of each slot made so far.
    pipes: Vec<(OwnedFd, OwnedFd)>,
    /// Slots that no catcher has.
    free: Vec<usize>,
    /// Dispositions to return to when the last catcher goes.
    before: Vec<(i32, libc::sigaction)>,
}

extern "C" fn catch(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: write is async-signal-safe; the errno it may set is put back.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        if let Some(count) = RAISED.get(signal as usize) {
            count.fetch_add(1, Ordering::AcqRel);
        }
        for slot in &SLOTS {
            match slot.load(Ordering::Acquire) {
                // Made, and nobody's now.
                ASLEEP => {}
                // Slots are made in order.
                -1 => break,
                pipe => drop(libc::write(pipe, (&raw const byte).cast(), 1)),
            }
        }
        *errno = saved;
    }
}

const ASLEEP: i32 = -2;

static RAISED: [AtomicUsize; LAST as usize + 1] = [const { AtomicUsize::new(0) }; LAST as usize + 1];

/// How often a signal has been caught by any catcher, in this process's life.
pub fn raised(signal: i32) -> usize {
    usize::try_from(signal)
        .ok()
        .and_then(|signal| RAISED.get(signal))
        .map_or(0, |count| count.load(Ordering::Acquire))
}

/// Catches signals of the whole process, whichever thread gets them, and makes them readable: each signal once
/// for every catcher that lives. Dispositions return to what they were when the last one is dropped.
#[derive(Debug)]
pub struct Catcher {
    slot: usize,
    read: OwnedFd,
}

impl Catcher {
    /// Catches `signals`, less those that this process ignores, which stay ignored. The first catcher decides
    /// which; give the same to all.
    pub fn new(signals: &[i32]) -> Result<Self, Errno> {
        let mut catchers = CATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
        let first = catchers.free.len() == catchers.pipes.len();
        let slot = match catchers.free.pop() {
            Some(slot) => slot,
            None if catchers.pipes.len() == CATCHERS_MAX => return Err(Errno::MFILE),
            None => {
                catchers.pipes.push(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?);
                catchers.pipes.len() - 1
            }
        };
        let (read, write) = &catchers.pipes[slot];
        let read = rustix::io::fcntl_dupfd_cloexec(read, 0)?;
        SLOTS[slot].store(write.as_raw_fd(), Ordering::Release);
        let catcher = Self { slot, read };
        // What came for this slot's last owner after they left.
        while catcher.next().is_some() {}
        if first {
            match install(signals) {
                Ok(before) => catchers.before = before,
                Err(errno) => {
                    // Before the catcher, whose end needs the lock.
                    drop(catchers);
                    return Err(errno);
                }
            }
        }
        Ok(catcher)
    }

    /// The next caught signal, or none.
    pub fn next(&self) -> Option<i32> {
        let mut byte = [0];
        match rustix::io::read(&self.read, &mut byte) {
            Ok(1) => Some(i32::from(byte[0])),
            _ => None,
        }
    }
}

/// Installs the handler. What was there before comes back.
fn install(signals: &[i32]) -> Result<Vec<(i32, libc::sigaction)>, Errno> {
    let mut before = Vec::with_capacity(signals.len());
    for &signal in signals {
        // SAFETY: a zeroed sigaction is a valid one; the handler is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut old: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = catch as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            if libc::sigaction(signal, &raw const action, &raw mut old) < 0 {
                return Err(last_errno());
            }
            if old.sa_sigaction == libc::SIG_IGN {
                libc::sigaction(signal, &raw const old, std::ptr::null_mut());
            } else {
                before.push((signal, old));
            }
        }
    }
    Ok(before)
}

impl std::os::fd::AsFd for Catcher {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl Drop for Catcher {
    fn drop(&mut self) {
        let mut catchers = CATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
        SLOTS[self.slot].store(ASLEEP, Ordering::Release);
        catchers.free.push(self.slot);
        if catchers.free.len() == catchers.pipes.len() {
            for (signal, action) in std::mem::take(&mut catchers.before) {
                // SAFETY: the action is one that the kernel gave out.
                unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
            }
        }
    }
}
