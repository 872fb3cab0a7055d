//! The side of the run.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use ibid_sandbox::{Handle, Started};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, listen, recv, send,
    socket_with,
};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Error, MESSAGE_MAX, address, tag};
use crate::relay::Stream;

/// What was said lately, for who joins: bytes.
const RECENT_MAX: usize = 64 << 10;

/// What may wait for one client, bytes.
const WAITING_MAX: usize = 8 << 20;

/// What may wait for a program that does not read, bytes.
const INPUT_MAX: usize = 1 << 20;

/// How long clients get to take the rest when the run is over.
const LAST_WORDS: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Listens for one run. Dropping it takes the socket away.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Makes the thread look at the state.
    wake: OwnedFd,
    program: OnceLock<Program>,
}

#[derive(Debug, Default)]
struct State {
    recent: VecDeque<Arc<[u8]>>,
    recent_bytes: usize,
    clients: Vec<Client>,
    over: bool,
}

#[derive(Debug)]
struct Program {
    handle: Handle,
    /// A terminal of its own.
    terminal: Option<OwnedFd>,
}

#[derive(Debug)]
struct Client {
    socket: Arc<OwnedFd>,
    waiting: VecDeque<Arc<[u8]>>,
    waiting_bytes: usize,
    /// Goes when it has taken what waits.
    leaves: bool,
}

impl Client {
    fn push(&mut self, message: &Arc<[u8]>) {
        if self.leaves {
            return;
        }
        self.waiting_bytes += message.len();
        if self.waiting_bytes > WAITING_MAX {
            self.waiting = VecDeque::from([Arc::from([tag::LOST])]);
            self.waiting_bytes = 0;
            self.leaves = true;
        } else {
            self.waiting.push_back(Arc::clone(message));
        }
    }

    /// Sends what it takes. False when it is gone.
    fn send(&mut self) -> bool {
        while let Some(message) = self.waiting.front() {
            match send(&self.socket, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) => {
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(message.len());
                    self.waiting.pop_front();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return true,
                Err(_) => return false,
            }
        }
        !self.leaves
    }
}

impl Server {
    /// Listens at a path.
    pub(crate) fn new(path: &Path) -> Result<Self, Error> {
        let failed = |action: &'static str| {
            move |errno: Errno| Error::Io { action, path: path.to_owned(), source: errno.into() }
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open the folder of"))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed("make"))?;
        let bound = address(&folder, &name).and_then(|address| bind(&socket, &address));
        bound.and_then(|()| listen(&socket, 16)).map_err(failed("listen at"))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed("listen at"))?;
        let shared = Arc::new(Shared { state: Mutex::default(), wake, program: OnceLock::new() });
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("attach".to_owned())
            .spawn(move || serve(&socket, &served))
            .map_err(|source| Error::Io { action: "listen at", path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), shared, thread: Some(thread) })
    }

    /// The program is executing: from now on, it gets what clients send.
    pub(crate) fn started(&self, started: &Started<'_>) -> io::Result<()> {
        let terminal = started.terminal.map(|terminal| terminal.try_clone_to_owned()).transpose()?;
        self.shared.program.get_or_init(|| Program { handle: started.handle.clone(), terminal });
        Ok(())
    }

    /// Tells all clients what the program wrote. Never waits for one.
    pub(crate) fn written(&self, stream: Stream, bytes: &[u8]) {
        let tag = match stream {
            Stream::Stdout => tag::STDOUT,
            Stream::Stderr => tag::STDERR,
        };
        let mut state = self.shared.state();
        for part in bytes.chunks(MESSAGE_MAX) {
            let message: Arc<[u8]> = [&[tag], part].concat().into();
            state.clients.iter_mut().for_each(|client| client.push(&message));
            state.recent_bytes += message.len();
            state.recent.push_back(message);
            while state.recent_bytes > RECENT_MAX
                && let Some(oldest) = state.recent.pop_front()
            {
                state.recent_bytes -= oldest.len();
            }
        }
        let is_heard = !state.clients.is_empty();
        drop(state);
        if is_heard {
            self.shared.wake();
        }
    }

    /// Tells all clients that the program has ended, and waits a moment for those that are slow.
    pub(crate) fn ended(mut self, code: u8) {
        let message: Arc<[u8]> = Arc::from([tag::ENDED, code]);
        let mut state = self.shared.state();
        for client in &mut state.clients {
            client.push(&message);
            client.leaves = true;
        }
        drop(state);
        self.finish();
    }

    fn finish(&mut self) {
        self.shared.state().over = true;
        self.shared.wake();
        // Removed first: who comes now finds nobody.
        let _ = fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            // A panic there costs no run.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // A counter that is full has woken already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

fn serve(listener: &OwnedFd, shared: &Shared) {
    // Typed, and not yet taken by the program's terminal.
    let mut input: VecDeque<u8> = VecDeque::new();
    loop {
        let (clients, over): (Vec<(Arc<OwnedFd>, bool)>, bool) = {
            let state = shared.state();
            let clients = state.clients.iter().map(|it| (Arc::clone(&it.socket), !it.waiting.is_empty()));
            (clients.collect(), state.over)
        };
        if over && clients.is_empty() {
            return;
        }
        let terminal = shared.program.get().and_then(|program| program.terminal.as_ref());
        let mut watched =
            vec![PollFd::new(&shared.wake, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        watched.extend(clients.iter().map(|(socket, waits)| {
            PollFd::new(socket, if *waits { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN })
        }));
        if let Some(terminal) = terminal.filter(|_| !input.is_empty()) {
            watched.push(PollFd::new(terminal, PollFlags::OUT));
        }
        match poll(&mut watched, over.then_some(&LAST_WORDS)) {
            // Nobody took anything for so long.
            Ok(0) if over => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let events: Vec<PollFlags> = watched.iter().map(PollFd::revents).collect();
        drop(watched);
        let _counted = rustix::io::read(&shared.wake, &mut [0; 8]);
        if !events[1].is_empty() && !over {
            welcome(listener, shared);
        }
        let mut gone = Vec::new();
        for ((socket, _), events) in clients.iter().zip(&events[2..]) {
            if !events.is_empty() && !hear(socket, shared, &mut input) {
                gone.push(Arc::clone(socket));
            }
        }
        deliver(shared, &mut input);
        let mut state = shared.state();
        state.clients.retain_mut(|client| {
            !gone.iter().any(|socket| Arc::ptr_eq(socket, &client.socket)) && client.send()
        });
    }
}

/// Lets one in, if it is this user's.
fn welcome(listener: &OwnedFd, shared: &Shared) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let Ok(socket) = accept_with(listener, flags) else { return };
    let is_own = socket_peercred(&socket).is_ok_and(|peer| peer.uid == rustix::process::geteuid());
    if !is_own {
        return;
    }
    let has_terminal = shared.program.get().is_some_and(|program| program.terminal.is_some());
    let mut state = shared.state();
    let mut waiting: VecDeque<Arc<[u8]>> = state.recent.clone();
    waiting.push_front(Arc::from([tag::TERMINAL, u8::from(has_terminal)]));
    let waiting_bytes = waiting.iter().map(|message| message.len()).sum();
    state.clients.push(Client { socket: Arc::new(socket), waiting, waiting_bytes, leaves: false });
}

/// Takes what a client sends. False when it is gone.
fn hear(socket: &OwnedFd, shared: &Shared, input: &mut VecDeque<u8>) -> bool {
    let mut bytes = vec![0; MESSAGE_MAX + 1];
    loop {
        let length = match recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return false,
            Ok((_, length)) => length,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        };
        let Some(program) = shared.program.get() else { continue };
        match (bytes[0], &bytes[1..length.min(bytes.len())]) {
            // As a terminal does, it forgets what is typed to a program that never reads.
            (tag::INPUT, typed) if program.terminal.is_some() && input.len() < INPUT_MAX => {
                input.extend(typed)
            }
            (tag::WINDOW, &[row_low, row_high, column_low, column_high]) => {
                let size = Winsize {
                    ws_row: u16::from_le_bytes([row_low, row_high]),
                    ws_col: u16::from_le_bytes([column_low, column_high]),
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                let _ended = program.terminal.as_ref().map(|terminal| tcsetwinsize(terminal, size));
            }
            (tag::SIGNAL, &[a, b, c, d]) => {
                // One that has ended gets none.
                let _ended = program.handle.signal(i32::from_le_bytes([a, b, c, d]));
            }
            // Of a newer ibid, or for a program that does not listen.
            _ => {}
        }
    }
}

fn deliver(shared: &Shared, input: &mut VecDeque<u8>) {
    let Some(terminal) = shared.program.get().and_then(|program| program.terminal.as_ref()) else { return };
    while !input.is_empty() {
        match rustix::io::write(terminal.as_fd(), input.make_contiguous()) {
            Ok(written) => drop(input.drain(..written)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return,
            // Its other end is closed: nobody will read this.
            Err(_) => input.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::{Client as Joined, Heard};

    fn site() -> (tempfile::TempDir, PathBuf, Server) {
        let folder = tempfile::tempdir().expect("a folder");
        // Longer than a socket's path may be.
        let deep = folder.path().join("x".repeat(200));
        fs::create_dir(&deep).expect("a folder");
        let path = deep.join("run.socket");
        let server = Server::new(&path).expect("listens");
        (folder, path, server)
    }

    #[test]
    fn who_joins_hears_what_was_said_lately_then_more_then_the_end() {
        let (_folder, path, server) = site();
        server.written(Stream::Stdout, b"one\n");
        server.written(Stream::Stderr, b"two\n");
        let client = Joined::connect(&path).expect("joins");
        assert_eq!(client.hear().expect("heard"), Heard::Terminal(false));
        assert_eq!(client.hear().expect("heard"), Heard::Wrote(Stream::Stdout, b"one\n".to_vec()));
        assert_eq!(client.hear().expect("heard"), Heard::Wrote(Stream::Stderr, b"two\n".to_vec()));
        server.written(Stream::Stdout, b"three\n");
        assert_eq!(client.hear().expect("heard"), Heard::Wrote(Stream::Stdout, b"three\n".to_vec()));
        server.ended(7);
        assert_eq!(client.hear().expect("heard"), Heard::Ended(7));
        assert_eq!(client.hear().expect("heard"), Heard::Gone);
        assert!(matches!(Joined::connect(&path), Err(Error::NobodyListens { .. })));
    }

    #[test]
    fn one_who_takes_nothing_holds_nobody_up_and_is_told() {
        let (_folder, path, server) = site();
        let client = Joined::connect(&path).expect("joins");
        assert_eq!(client.hear().expect("heard"), Heard::Terminal(false));
        let part = vec![b'x'; MESSAGE_MAX];
        for _ in 0..2 * WAITING_MAX / MESSAGE_MAX {
            server.written(Stream::Stdout, &part);
        }
        let mut heard = std::iter::from_fn(|| Some(client.hear().expect("heard")));
        let last = heard.find(|heard| !matches!(heard, Heard::Wrote(..)));
        assert_eq!(last, Some(Heard::Lost));
    }

    #[test]
    fn of_much_the_last_is_kept() {
        let (_folder, path, server) = site();
        for number in 0..100u8 {
            server.written(Stream::Stdout, &vec![number; 4096]);
        }
        let client = Joined::connect(&path).expect("joins");
        client.hear().expect("heard");
        let Heard::Wrote(_, first) = client.hear().expect("heard") else { panic!("nothing was written") };
        assert_eq!(first[0], 85, "the last 64 KiB");
    }
}
