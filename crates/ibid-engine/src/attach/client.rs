//! The side of who joins.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

use super::{Error, MESSAGE_MAX, address, tag};
use crate::relay::Stream;

/// A joined run.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

/// What is heard of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Whether its program has a terminal. The first that is heard.
    Terminal(bool),
    /// What it wrote.
    Wrote(Stream, Vec<u8>),
    /// More was written than was taken here, and nothing more comes.
    Lost,
    /// Its program has ended, with this code as a shell has it.
    Ended(u8),
    /// The ibid that executes it is gone.
    Gone,
}

impl Client {
    /// Joins the run whose socket is at a path.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let failed =
            |errno: Errno| Error::Io { action: "connect to", path: path.to_owned(), source: errno.into() };
        let folder = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
        match connect(&socket, &address(&folder, &name).map_err(failed)?) {
            Ok(()) => Ok(Self { socket }),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Err(Error::NobodyListens { path: path.to_owned() }),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// The next that is heard; waits for it.
    pub fn hear(&self) -> io::Result<Heard> {
        let mut bytes = vec![0; MESSAGE_MAX + 1];
        let length = loop {
            match recv(&self.socket, &mut bytes[..], RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => break 0,
                received => break received?.1,
            }
        };
        bytes.truncate(length);
        Ok(match bytes.split_first() {
            None => Heard::Gone,
            Some((&tag::TERMINAL, rest)) => Heard::Terminal(rest == [1]),
            Some((&tag::STDOUT, rest)) => Heard::Wrote(Stream::Stdout, rest.to_vec()),
            Some((&tag::STDERR, rest)) => Heard::Wrote(Stream::Stderr, rest.to_vec()),
            Some((&tag::LOST, _)) => Heard::Lost,
            Some((&tag::ENDED, &[code])) => Heard::Ended(code),
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        })
    }

    /// Types something to the program.
    pub fn write(&self, input: &[u8]) -> io::Result<()> {
        input.chunks(MESSAGE_MAX).try_for_each(|part| self.send(tag::INPUT, part))
    }

    /// Gives its terminal a size.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        self.send(tag::WINDOW, &[rows.to_le_bytes(), columns.to_le_bytes()].concat())
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        self.send(tag::SIGNAL, &signal.to_le_bytes())
    }

    fn send(&self, tag: u8, rest: &[u8]) -> io::Result<()> {
        let message = [&[tag], rest].concat();
        loop {
            match send(&self.socket, &message, SendFlags::NOSIGNAL) {
                // That it is over is heard, too.
                Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let _interrupted = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], None);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
