//! Joining a run that goes on without a terminal: what its program writes, and what is typed to it.
//!
//! The ibid that executes such a run listens on a socket beside its file in the store's folder `live`. One thread serves all who
//! join, and waits for none of them: who does not take what comes is cut off, and the run never stands still for a reader.
//!
//! ```text
//! server → client     `t` 0|1        whether the program has a terminal, once
//!                     `o`, `e` …     what it wrote: what it said lately first, then as it comes
//!                     `l`            nothing more comes: too much was waiting
//!                     `x` code       it has ended
//! client → server     `i` …          typed
//!                     `w` rows cols  the window's size, two little-endian u16
//!                     `s` number     a signal, an i32
//! ```
//!
//! The socket keeps messages apart. The folder is its user's alone; who connects is asked all the same.

mod client;
mod server;

pub use client::{Client, Heard};
pub(crate) use server::Server;

/// Why a run cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens: it is no detached run, or has ended.
    #[error("nobody listens at {}", path.display())]
    NobodyListens {
        /// The socket.
        path: std::path::PathBuf,
    },
    /// The socket refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: std::path::PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

/// Longest message, bytes.
const MESSAGE_MAX: usize = 32 << 10;

mod tag {
    pub(super) const TERMINAL: u8 = b't';
    pub(super) const STDOUT: u8 = b'o';
    pub(super) const STDERR: u8 = b'e';
    pub(super) const LOST: u8 = b'l';
    pub(super) const ENDED: u8 = b'x';
    pub(super) const INPUT: u8 = b'i';
    pub(super) const WINDOW: u8 = b'w';
    pub(super) const SIGNAL: u8 = b's';
}

/// Paths of sockets are short, those of stores are not: the address of a file in an open folder.
fn address(
    folder: &std::os::fd::OwnedFd,
    name: &str,
) -> Result<rustix::net::SocketAddrUnix, rustix::io::Errno> {
    use std::os::fd::AsRawFd as _;
    rustix::net::SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}
