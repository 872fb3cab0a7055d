//! Making processes: in new namespaces, and without copying this one's memory.
//!
//! A process made here shares the memory of its maker where it can (`CLONE_VM`), on a stack of its own,
//! while the making thread stands still (`CLONE_VFORK`), as `posix_spawn` does it. So it costs the same
//! from a small process and from a large one, and is safe in one with many threads.

use std::ffi::{CStr, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::exec::CStrings;
use crate::mount::{Attributes, set_attributes};
use crate::signal::Blocked;
use crate::{Errno, exit_now, last_errno};

/// Namespaces that a new process does not share with its maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// User ids and capabilities: the new process has all of them over the other namespaces made with it.
    pub user: bool,
    /// Mounts.
    pub mount: bool,
    /// Process ids.
    pub pid: bool,
    /// System V IPC and message queues.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
    /// Network devices.
    pub network: bool,
}

impl Namespaces {
    fn flags(self) -> i32 {
        [
            (self.user, libc::CLONE_NEWUSER),
            (self.mount, libc::CLONE_NEWNS),
            (self.pid, libc::CLONE_NEWPID),
            (self.ipc, libc::CLONE_NEWIPC),
            (self.uts, libc::CLONE_NEWUTS),
            (self.network, libc::CLONE_NEWNET),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |flags, (_, flag)| flags | flag)
    }
}

/// A stack for a new process, with an unmapped page below it.
#[derive(Debug)]
pub(crate) struct Stack {
    base: *mut c_void,
}

// SAFETY: it is memory of its own, which its owner alone gives away.
unsafe impl Send for Stack {}

impl Stack {
    const SIZE: usize = 256 * 1024;
    const GUARD: usize = 64 * 1024;

    pub(crate) fn new() -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping, whose lower part is then made unreachable.
        unsafe {
            let base = libc::mmap(null_mut(), Self::SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return Err(last_errno());
            }
            let stack = Self { base };
            if libc::mprotect(base, Self::GUARD, libc::PROT_NONE) < 0 {
                return Err(last_errno());
            }
            Ok(stack)
        }
    }

    pub(crate) fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping, which is aligned to pages.
        unsafe { self.base.byte_add(Self::SIZE) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no process runs on it any more.
        unsafe { libc::munmap(self.base, Self::SIZE) };
    }
}

/// Runs `body` in a new process that shares this one's memory, while this thread waits until the new process
/// executes a program or ends. Signals are blocked in it, and stay so in what it executes. Its return
/// value is its exit code.
///
/// What the body changes in memory, this process sees; what it changes in the kernel (descriptors,
/// ids, capabilities, current folder) is its own.
pub fn borrow_memory<F: FnMut() -> i32>(namespaces: Namespaces, body: F) -> Result<Child, Errno> {
    borrow(namespaces.flags(), body)
}

fn borrow<F: FnMut() -> i32>(flags: i32, mut body: F) -> Result<Child, Errno> {
    extern "C" fn run<F: FnMut() -> i32>(argument: *mut c_void) -> i32 {
        // SAFETY: the maker passed a pointer to its `body`, and stands still until this process has left.
        let body = unsafe { &mut *argument.cast::<F>() };
        exit_now(catch_unwind(AssertUnwindSafe(body)).unwrap_or(101))
    }
    let stack = Stack::new()?;
    let _blocked = Blocked::all();
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD | flags;
    // SAFETY: the new process runs on a stack of its own, ends without returning into this one's frames, and
    // with CLONE_VFORK no frame it refers to goes away before. Descriptors and signal handlers are copies.
    unsafe {
        let pid = libc::clone(run::<F>, stack.top(), flags, (&raw mut body).cast(), &raw mut pidfd);
        if pid < 0 {
            return Err(last_errno());
        }
        let pid = Pid::from_raw(pid).ok_or(Errno::CHILD)?;
        Ok(Child { pid, pidfd: OwnedFd::from_raw_fd(pidfd) })
    }
}

/// A new process.
#[derive(Debug)]
pub struct Child {
    /// Its id, as the maker counts.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// This program, to be executed anew in namespaces of its own.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Arguments, its name first.
    pub argv: &'a CStrings,
    /// Environment.
    pub env: &'a CStrings,
    /// What it finds open, from descriptor 0 on. Everything else is closed.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// What it does not share.
    pub namespaces: Namespaces,
    /// Lets it keep this process's capabilities, which a program executed by a user other than root loses.
    pub keep_capabilities: bool,
    /// The one user and group that a new user namespace knows this process's own as.
    pub known_as: Option<(u32, u32)>,
    /// This process's effective user and group.
    pub own_ids: (u32, u32),
    /// A user namespace, one below this process's, that it and its other namespaces are to be in.
    pub within: Option<BorrowedFd<'a>>,
}

/// Starts a program. All its signals are blocked.
pub fn launch(launch: &Launch<'_>) -> Result<Child, Errno> {
    let mut failure = None;
    let body = || {
        let errno = match prepare_and_execute(launch) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        failure = Some(errno);
        127
    };
    let child = match launch.within {
        None => borrow_memory(launch.namespaces, body)?,
        Some(user_namespace) => borrow_within(user_namespace, launch.namespaces, body)?,
    };
    match failure {
        None => Ok(child),
        Some(errno) => {
            waitpid(Some(child.pid), WaitOptions::empty())?;
            Err(errno)
        }
    }
}

/// As [`borrow_memory`], in another user namespace. Only a process that is in it can make others that it owns, so one
/// goes in first, makes the new process as a sibling of its own, and leaves.
fn borrow_within<F: FnMut() -> i32>(
    user_namespace: BorrowedFd<'_>,
    namespaces: Namespaces,
    mut body: F,
) -> Result<Child, Errno> {
    let mut made = Err(Errno::CHILD);
    let between = borrow(0, || {
        made = enter_user_namespace(user_namespace)
            .and_then(|()| borrow(namespaces.flags() | libc::CLONE_PARENT, &mut body))
            // Its descriptor is a number in this process's own table, which goes with it.
            .map(|Child { pid, .. }| pid);
        0
    })?;
    while matches!(waitpid(Some(between.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    let pid = made?;
    // Nobody else takes leave of it, so the number is still its own.
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    Ok(Child { pid, pidfd })
}

fn enter_user_namespace(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: only namespaces of this process are changed.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWUSER) } < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

fn prepare_and_execute(launch: &Launch<'_>) -> Result<std::convert::Infallible, Errno> {
    let check = |result: i32| if result < 0 { Err(last_errno()) } else { Ok(result) };
    let count = launch.descriptors.len() as RawFd;
    // First out of the way, so that no number is overwritten before it has been used.
    let mut moved = [-1; 16];
    if launch.descriptors.len() > moved.len() {
        return Err(Errno::INVAL);
    }
    for (moved, descriptor) in moved.iter_mut().zip(launch.descriptors) {
        // SAFETY: the descriptor is open; the new one is closed by the program's start.
        *moved = check(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, count + 1) })?;
    }
    let program = own_program()?;
    for (number, moved) in (0..count).zip(moved) {
        // SAFETY: descriptors of this process are copies; overwriting them hurts nobody.
        check(unsafe { libc::dup2(moved, number) })?;
    }
    // SAFETY: as above.
    unsafe {
        check(libc::dup3(program.as_raw_fd(), count, libc::O_CLOEXEC))?;
        check(libc::syscall(libc::SYS_close_range, count + 1, u32::MAX, 0) as i32)?;
    }
    if let Some(known_as) = launch.known_as {
        map_own_ids(launch.own_ids, known_as)?;
    }
    if launch.keep_capabilities {
        make_capabilities_ambient()?;
    }
    // SAFETY: the texts live in the maker, which stands still.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            count,
            c"".as_ptr(),
            launch.argv.as_ptr(),
            launch.env.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Err(last_errno())
}

/// This program's own file; in a mount namespace of one's own through a mount that refuses writing: what runs in a container can reach
/// the file as `/proc/1/exe`, but never change it (CVE-2019-5736).
fn own_program() -> Result<OwnedFd, Errno> {
    use rustix::fs::{CWD, Mode, OFlags, fstat, openat, readlinkat_raw};
    use rustix::mount::{OpenTreeFlags, open_tree};
    let (own, flags) = (c"/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC);
    let file = openat(CWD, own, flags, Mode::empty())?;
    // That is in the mounts of whoever executed it. Of the copies that this process has, it is found by its path.
    let protected = || {
        let mut path = [0; 4096];
        let length = readlinkat_raw(CWD, own, &mut path[..4095])?;
        let path = CStr::from_bytes_with_nul(&path[..=length]).map_err(|_| Errno::INVAL)?;
        let same = openat(CWD, path, flags, Mode::empty())?;
        let [one, other] = [fstat(&file)?, fstat(&same)?].map(|it| (it.st_dev, it.st_ino));
        if one != other {
            return Err(Errno::STALE);
        }
        let clone =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = open_tree(&same, c"", clone)?;
        set_attributes(&mount, Attributes { read_only: true, ..Attributes::default() }, false, None)?;
        Ok(mount)
    };
    // Where it cannot be, the first process still forbids looking at it.
    Ok(protected().unwrap_or(file))
}

/// In a fresh user namespace without maps: maps the ids that this process has outside it, and no others.
pub fn map_own_ids((uid, gid): (u32, u32), (uid_inside, gid_inside): (u32, u32)) -> Result<(), Errno> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid_inside} {uid} 1")),
        ("/proc/self/gid_map", format!("{gid_inside} {gid} 1")),
    ] {
        let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text.as_bytes())?;
    }
    Ok(())
}

fn make_capabilities_ambient() -> Result<(), Errno> {
    use rustix::thread::{capabilities, configure_capability_in_ambient_set, set_capabilities};
    let mut sets = capabilities(None)?;
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets)?;
    for capability in sets.permitted.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Joins namespaces of another process. Its process ids are joined by what this process makes from now on, not by itself. For
/// a process with one thread, when user ids are among them.
pub fn join(process: BorrowedFd<'_>, namespaces: Namespaces) -> Result<(), Errno> {
    // SAFETY: only namespaces of this process are changed.
    if unsafe { libc::setns(process.as_raw_fd(), namespaces.flags()) } < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// On which side of [`fork`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// In the process that asked; the id is the copy's.
    Original(Pid),
    /// In the copy. It should end with [`exit_now`].
    Copy,
}

/// Copies this process. Only for one with a single thread: other threads' locks would stay locked in the
/// copy for ever; `EBUSY` when there are more.
pub fn fork() -> Result<Fork, Errno> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(Errno::BUSY);
    }
    // SAFETY: there is one thread, so the copy is a whole process.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => Ok(Fork::Copy),
        pid => Ok(Fork::Original(Pid::from_raw(pid).ok_or(Errno::CHILD)?)),
    }
}

/// Leaves namespaces that this process shares with others (`unshare`), for new ones. `flags` are `CLONE_NEW…`.
pub fn leave_shared(flags: i32) -> Result<(), Errno> {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET;
    if flags & !namespaces != 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: only namespaces are left; memory, descriptors and handlers stay shared as they are.
    if unsafe { libc::unshare(flags) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// A process that only keeps a new user namespace alive until dropped.
pub struct UserNamespaceKeeper {
    pid: Pid,
    hold: Option<OwnedFd>,
    _stack: Stack,
}

impl UserNamespaceKeeper {
    /// Makes it. Its maps are still empty.
    pub fn new() -> Result<Self, Errno> {
        extern "C" fn keep(argument: *mut c_void) -> i32 {
            let [read, write] = [argument as usize as u32 >> 16, argument as usize as u32 & 0xffff];
            let mut byte = 0u8;
            // SAFETY: only system calls on descriptors of this process. The read returns when the maker
            // closes its end or dies.
            unsafe {
                libc::syscall(libc::SYS_close, write);
                libc::syscall(libc::SYS_read, read, &raw mut byte, 1usize);
                libc::syscall(libc::SYS_exit_group, 0);
            }
            0
        }
        let (read, hold) = pipe_with(PipeFlags::CLOEXEC)?;
        let numbers = [&read, &hold].map(|fd| u16::try_from(fd.as_raw_fd()));
        let [Ok(read_number), Ok(hold_number)] = numbers else { return Err(Errno::MFILE) };
        let stack = Stack::new()?;
        let _blocked = Blocked::all();
        let argument = (u32::from(read_number) << 16 | u32::from(hold_number)) as usize as *mut c_void;
        let flags = libc::CLONE_VM | libc::CLONE_NEWUSER | libc::SIGCHLD;
        // SAFETY: the new process runs on its own stack, which lives as long as it, touches no memory beside
        // it but the C library's errno when a call fails, and blocks all signals.
        let pid = unsafe { libc::clone(keep, stack.top(), flags, argument) };
        if pid < 0 {
            return Err(last_errno());
        }
        let pid = Pid::from_raw(pid).ok_or(Errno::CHILD)?;
        Ok(Self { pid, hold: Some(hold), _stack: stack })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for UserNamespaceKeeper {
    fn drop(&mut self) {
        self.hold = None;
        // Its stack may only go when it has gone.
        while matches!(waitpid(Some(self.pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
