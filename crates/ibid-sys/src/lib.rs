//! Safe wrappers over the few system calls that rustix lacks. The only `unsafe` code of ibid.
//!
//! Each wrapper is safe to call from any code: what could break memory safety is decided here, not by
//! the caller. Errors are rustix's [`Errno`].

pub mod clone;
pub mod descriptor;
pub mod exec;
pub mod held;
pub mod memory;
pub mod mount;
pub mod network;
pub mod owner;
pub mod seccomp;
pub mod signal;
pub mod usage;

pub use rustix::io::Errno;

/// The error number that the last C library call left.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Ends this process at once: no destructors, no exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` only ends the process.
    unsafe { libc::_exit(code) }
}
