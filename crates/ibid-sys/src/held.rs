//! Programs whose processes are made before they may execute.
//!
//! Such a process stays in the namespaces that its maker leaves meanwhile, so it can do from outside what the maker cannot. It
//! shares its maker's memory until it executes, as in [`crate::clone`], but nobody stands still for it: so it makes system calls
//! only, and touches no memory but its own stack.

use std::ffi::{CStr, CString, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use crate::clone::Stack;
use crate::exec::CStrings;
use crate::signal::Blocked;
use crate::{Errno, last_errno};

/// The exit code of one that could not execute its program.
pub const NOT_EXECUTED: i32 = 127;

/// A program that executes when it is told to. Dropping it ends it when it has not been told, else waits for its end.
#[derive(Debug)]
pub struct Held {
    pid: Option<Pid>,
    word: Option<OwnedFd>,
    // What the process uses until it executes: it lives at least as long.
    _stack: Stack,
    _order: Box<Order>,
}

#[derive(Debug)]
struct Order {
    path: CString,
    argv: CStrings,
    env: CStrings,
    /// Descriptors: where the word comes from, its other end, and what becomes standard input and output, and standard error.
    wait: RawFd,
    word: RawFd,
    null: RawFd,
    stderr: RawFd,
}

// SAFETY: the pointers in it lead into texts that it owns and that nobody changes.
unsafe impl Send for Order {}

impl Held {
    /// Makes the process. `path` is absolute; standard input and output will be `null`.
    pub fn new(
        path: CString,
        argv: CStrings,
        env: CStrings,
        null: BorrowedFd<'_>,
        stderr: BorrowedFd<'_>,
    ) -> Result<Self, Errno> {
        let (wait, word) = pipe_with(PipeFlags::CLOEXEC)?;
        let order = Box::new(Order {
            path,
            argv,
            env,
            wait: wait.as_raw_fd(),
            word: word.as_raw_fd(),
            null: null.as_raw_fd(),
            stderr: stderr.as_raw_fd(),
        });
        let stack = Stack::new()?;
        let _blocked = Blocked::all();
        let argument = (&raw const *order).cast_mut().cast::<c_void>();
        // SAFETY: the new process runs on its own stack; that and its orders live until it has executed or ended, and nobody changes
        // them. Its descriptors are copies.
        let pid = unsafe { libc::clone(run, stack.top(), libc::CLONE_VM | libc::SIGCHLD, argument) };
        if pid < 0 {
            return Err(last_errno());
        }
        let pid = Pid::from_raw(pid).ok_or(Errno::CHILD)?;
        Ok(Self { pid: Some(pid), word: Some(word), _stack: stack, _order: order })
    }

    /// Lets it execute.
    pub fn go(&mut self) -> Result<(), Errno> {
        match self.word.take() {
            Some(word) => rustix::io::write(&word, &[1]).map(drop),
            None => Ok(()),
        }
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<WaitStatus, Errno> {
        self.take_leave()
    }

    fn take_leave(&mut self) -> Result<WaitStatus, Errno> {
        self.word = None;
        let pid = self.pid.take().ok_or(Errno::CHILD)?;
        loop {
            match waitpid(Some(pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                result => return result?.map(|(_, status)| status).ok_or(Errno::CHILD),
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _nobody_asks = self.take_leave();
    }
}

extern "C" fn run(argument: *mut c_void) -> i32 {
    // SAFETY: the maker passed its order, which lives on. The C library's wrapper of system calls touches memory only to say
    // why one failed: none here does before the program's, after which this process has nothing left to do.
    unsafe {
        let order = &*argument.cast_const().cast::<Order>();
        let mut byte = 0u8;
        // As long as it is open here, its closing elsewhere is no end.
        libc::syscall(libc::SYS_close, order.word);
        if libc::syscall(libc::SYS_read, order.wait, &raw mut byte, 1usize) == 1 {
            for (from, to) in [(order.null, 0), (order.null, 1), (order.stderr, 2)] {
                libc::syscall(libc::SYS_dup3, from, to, 0);
            }
            let none = 0u64;
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const none,
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            );
            libc::syscall(libc::SYS_execve, order.path.as_ptr(), order.argv.as_ptr(), order.env.as_ptr());
        }
        libc::syscall(libc::SYS_exit_group, NOT_EXECUTED);
    }
    0
}

/// Where the program of that name is, as a shell would find it.
pub fn find(name: &CStr) -> Option<CString> {
    use rustix::fs::{Access, access};
    use std::os::unix::ffi::OsStringExt as _;
    let path = std::env::var_os("PATH")?;
    let candidates = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let mut candidates = candidates.filter_map(|folder| {
        let mut text = folder.into_os_string().into_vec();
        text.push(b'/');
        text.extend_from_slice(name.to_bytes());
        CString::new(text).ok()
    });
    candidates.find(|path| access(path.as_c_str(), Access::EXEC_OK).is_ok())
}
