//! What a program writes, passed on as it comes and told to a listener.
//!
//! With a terminal of its own, a program has one stream, which the sandbox shows. Otherwise each of its streams is a pipe, or,
//! where this process's own stream is a terminal, another terminal without an input, so that the program sees what it would see
//! without ibid. A thread for each reads what is there, tells it, and writes it to this process's own stream unchanged. Until the program
//! writes something, one thread waits for both.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread::{Scope, ScopedJoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::pty::OpenptFlags;
use rustix::stdio::{stderr, stdout};
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// As much as a pipe of an ordinary user may hold.
const BUFFER_BYTES: usize = 1 << 20;

/// One of a program's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    pub(crate) fn own(self) -> BorrowedFd<'static> {
        match self {
            Self::Stdout => stdout(),
            Self::Stderr => stderr(),
        }
    }
}

/// Hears what a program writes, from several threads.
pub type Listener<'a> = &'a (dyn Fn(Stream, &[u8]) + Sync);

/// Our ends of a program's streams.
#[derive(Debug)]
pub(crate) struct Relay {
    is_silent: bool,
    out: OwnedFd,
    err: OwnedFd,
    is_over: OwnedFd,
    over: OwnedFd,
}

/// What kept a stream from being passed on whole.
type Failures = Vec<(Stream, io::Error)>;

/// The threads that pass on.
pub(crate) struct Passing<'scope> {
    thread: ScopedJoinHandle<'scope, Failures>,
    over: OwnedFd,
}

impl Relay {
    /// Makes the streams of a program that runs as `owner`. The second value is the program's ends of both. A silent one tells
    /// its listener only.
    pub(crate) fn new(owner: (u32, u32), is_silent: bool) -> io::Result<(Self, [OwnedFd; 2])> {
        let (out, program_out) = channel(Stream::Stdout, owner, is_silent)?;
        let (err, program_err) = channel(Stream::Stderr, owner, is_silent)?;
        let (is_over, over) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Self { is_silent, out, err, is_over, over }, [program_out, program_err]))
    }

    /// Begins to pass on.
    pub(crate) fn start<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        listener: Listener<'scope>,
    ) -> io::Result<Passing<'scope>> {
        let Self { is_silent, out, err, is_over, over } = self;
        let pass = move |stream, ours: OwnedFd, is_over: &OwnedFd| {
            pass_on(stream, is_silent, ours, is_over, listener).map(|error| (stream, error))
        };
        let both = move || {
            if !writes_something(&out, &err, &is_over) {
                return Vec::new();
            }
            // Whoever reads one of them slowly must not hold up the other.
            let is_over = &is_over;
            std::thread::scope(|inner| {
                let other = std::thread::Builder::new()
                    .spawn_scoped(inner, move || pass(Stream::Stderr, err, is_over));
                let first = pass(Stream::Stdout, out, is_over);
                let second = match other {
                    Ok(other) => other.join().unwrap_or_default(),
                    Err(error) => Some((Stream::Stderr, error)),
                };
                [first, second].into_iter().flatten().collect()
            })
        };
        Ok(Passing { thread: std::thread::Builder::new().spawn_scoped(scope, both)?, over })
    }
}

impl Passing<'_> {
    /// Called when nothing runs in the container any more: returns when all that was written is passed on, with what kept a
    /// stream from being. A descriptor that the program has lent to somebody outside holds nobody up.
    pub(crate) fn finish(self) -> Failures {
        let Self { thread, over } = self;
        drop(over);
        thread.join().unwrap_or_default()
    }
}

/// Waits until there is something to read from one of them, or nobody can write to either any more.
fn writes_something(out: &OwnedFd, err: &OwnedFd, is_over: &OwnedFd) -> bool {
    let mut open = vec![out, err];
    loop {
        let mut ready: Vec<_> = open.iter().map(|stream| PollFd::new(*stream, PollFlags::IN)).collect();
        ready.push(PollFd::new(is_over, PollFlags::IN));
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            // Whoever reads says so.
            Err(_) => return true,
            Ok(_) => {}
        }
        let found: Vec<PollFlags> = ready.iter().map(PollFd::revents).collect();
        let (over, streams) = found.split_last().expect("there is one");
        if streams.iter().any(|stream| stream.contains(PollFlags::IN)) {
            return true;
        }
        let mut streams = streams.iter();
        open.retain(|_| streams.next().is_some_and(|stream| stream.is_empty()));
        if open.is_empty() || !over.is_empty() {
            return false;
        }
    }
}

/// Our end and the program's.
fn channel(stream: Stream, (uid, gid): (u32, u32), is_silent: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = if !is_silent && isatty(stream.own()) {
        terminal(stream)?
    } else {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        // A larger one means fewer changes between the program and us; where there is no room for it, the usual one serves.
        let _refused = fcntl_setpipe_size(&ours, BUFFER_BYTES);
        (ours, theirs)
    };
    // In a user namespace, the program's user is ours by another number.
    if rustix::process::geteuid().is_root() && uid != 0 && !ibid_sandbox::userns::entered() {
        // The program may open it again, as `/dev/stdout`.
        ibid_sys::owner::change(&theirs, (uid, gid))?;
    }
    Ok((ours, theirs))
}

/// A terminal that passes bytes on as they are: the one behind it makes lines of them.
fn terminal(stream: Stream) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    let mut settings = tcgetattr(&theirs)?;
    settings.output_modes.remove(OutputModes::OPOST);
    settings.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&theirs, OptionalActions::Now, &settings)?;
    if let Ok(size) = tcgetwinsize(stream.own()) {
        tcsetwinsize(&ours, size)?;
    }
    Ok((ours, theirs))
}

/// Why this process's own stream took no more, unless its reader just went away.
fn pass_on(
    stream: Stream,
    is_silent: bool,
    ours: OwnedFd,
    is_over: &OwnedFd,
    listener: Listener<'_>,
) -> Option<io::Error> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut failure = None;
    loop {
        let mut ready = [PollFd::new(&ours, PollFlags::IN), PollFd::new(is_over, PollFlags::IN)];
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            Err(errno) => return Some(errno.into()),
            Ok(_) => {}
        }
        if ready[0].revents().is_empty() {
            // Nothing is left, and nobody writes any more.
            return failure;
        }
        let read = match rustix::io::read(&ours, &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            // The other ends of a terminal are closed.
            Ok(0) | Err(Errno::IO) => return failure,
            Err(errno) => return Some(errno.into()),
            Ok(read) => read,
        };
        listener(stream, &buffer[..read]);
        if failure.is_none() && !is_silent {
            match write_all(stream.own(), &buffer[..read]) {
                Ok(()) => {}
                // Closing our end tells the program what the reader's going would have told it.
                Err(Errno::PIPE) => return None,
                // Its output still goes to the listener.
                Err(errno) => failure = Some(errno.into()),
            }
        }
    }
}

pub(crate) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _interrupted = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
