//! Attending a program: signals of this process go to it, and its terminal is joined with this process's own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ibid_sys::Errno;
use ibid_sys::signal::Catcher;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::error::Error;
use crate::running::{Handle, Socket, Stop};

/// Every signal that can be caught and that somebody may mean for the program.
const PASSED_ON: [Signal; 9] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::TSTP,
    Signal::CONT,
    Signal::WINCH,
];

/// How much of what is typed may wait for a program that does not read.
const WAITING_MAX: usize = 1 << 20;

fn failed(step: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Setup { step: step.to_owned(), path: None, source: errno.into() }
}

/// From now on, and until this is dropped, signals that somebody may mean for a program have no effect on this process but that they can
/// be read. Those that come while a container is attended reach its program, too.
pub fn catch_signals() -> Result<Catcher, Error> {
    Catcher::new(&PASSED_ON.map(Signal::as_raw)).map_err(failed("catch signals"))
}

/// Returns when the program has reported its end. With its terminal comes whether that is joined with ours.
pub(crate) fn attend(
    handle: &Handle,
    socket: &Socket,
    signals: Catcher,
    terminal: Option<(OwnedFd, bool)>,
    on_output: &mut dyn FnMut(&[u8]),
    stop: Option<Stop>,
) -> Result<(), Error> {
    let mut stopping = stop.map(Stopping::new);
    let mut session = match terminal {
        Some((terminal, is_joined)) => {
            Some(Session::start(terminal, is_joined).map_err(failed("prepare the terminal"))?)
        }
        None => None,
    };
    loop {
        let input_wanted = session.as_ref().is_some_and(Session::wants_input);
        let mut ready = vec![PollFd::new(&signals, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        let input = stdin();
        if let Some(session) = &session {
            let writing = if session.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            ready.push(PollFd::new(&session.program, PollFlags::IN | writing));
            if input_wanted {
                ready.push(PollFd::new(&input, PollFlags::IN));
            }
        }
        let wait = stopping.as_ref().and_then(Stopping::patience_left);
        match poll(&mut ready, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("watch the container")(errno)),
        }
        let events: Vec<PollFlags> = ready.iter().map(PollFd::revents).collect();
        drop(ready);
        while let Some(signal) = signals.next() {
            match &mut stopping {
                Some(stopping) if signal == Signal::TERM.as_raw() => stopping.ask(handle)?,
                _ => on_signal(signal, handle, session.as_mut())?,
            }
        }
        if let Some(stopping) = &mut stopping {
            stopping.insist(handle)?;
        }
        if let Some(session) = &mut session {
            if events.get(2).is_some_and(|events| !events.is_empty()) {
                session.output(on_output);
            }
            if events.get(3).is_some_and(|events| !events.is_empty()) {
                session.input();
            }
            session.deliver();
        }
        if events[1].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            // The report stays in the socket for who waits. What the program wrote last comes first.
            if let Some(session) = &mut session {
                session.output(on_output);
            }
            return Ok(());
        }
    }
}

/// A program that is to end when this process is told to.
struct Stopping {
    stop: Stop,
    asked: Option<Instant>,
    killed: bool,
}

impl Stopping {
    fn new(stop: Stop) -> Self {
        Self { stop, asked: None, killed: false }
    }

    /// Asks it, once.
    fn ask(&mut self, handle: &Handle) -> Result<(), Error> {
        if self.asked.is_some() {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        handle.signal(self.stop.signal)
    }

    /// Kills it when it was asked long enough ago. The container reports how it ended, as of any other end.
    fn insist(&mut self, handle: &Handle) -> Result<(), Error> {
        if !self.killed && self.asked.is_some_and(|asked| asked.elapsed() >= self.stop.patience) {
            self.killed = true;
            return handle.signal(Signal::KILL.as_raw());
        }
        Ok(())
    }

    /// How long to wait for it; none when there is nothing to wait for.
    fn patience_left(&self) -> Option<Timespec> {
        let asked = self.asked.filter(|_| !self.killed)?;
        Timespec::try_from(self.stop.patience.saturating_sub(asked.elapsed())).ok()
    }
}

fn on_signal(signal: i32, handle: &Handle, session: Option<&mut Session>) -> Result<(), Error> {
    let is = |named: Signal| signal == named.as_raw();
    match session.filter(|session| session.is_joined) {
        // The kernel tells the program of its terminal's new size.
        Some(session) if is(Signal::WINCH) => session.resize(),
        Some(session) if is(Signal::CONT) => session.resume(),
        Some(session) if is(Signal::TSTP) => {
            session.pause();
            stop();
        }
        None if is(Signal::TSTP) => {
            handle.signal(signal)?;
            stop();
            handle.signal(Signal::CONT.as_raw())?;
        }
        _ => handle.signal(signal)?,
    }
    Ok(())
}

/// Stops this process as the shell that started it expects; returns when it is continued. Of several threads
/// that attend containers, one does it.
fn stop() {
    static STOPPED: AtomicUsize = AtomicUsize::new(0);
    let asked = ibid_sys::signal::raised(Signal::TSTP.as_raw());
    if STOPPED.swap(asked, Ordering::AcqRel) == asked {
        return;
    }
    let _cannot_fail = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
}

/// Rows and columns of this process's terminal, if it has one.
pub(crate) fn own_size() -> Option<(u16, u16)> {
    let size = [stdin(), stdout()].into_iter().find_map(|ours| tcgetwinsize(ours).ok())?;
    Some((size.ws_row, size.ws_col))
}

/// A program's terminal joined with ours. Ours gets its settings back when this is dropped.
struct Session {
    program: OwnedFd,
    /// False leaves ours alone.
    is_joined: bool,
    /// Settings of our terminal before; none when standard input is no terminal.
    before: Option<Termios>,
    /// Typed, and not yet taken by the program's terminal.
    waiting: Vec<u8>,
    input_ended: bool,
}

impl Session {
    fn start(program: OwnedFd, is_joined: bool) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&program, true)?;
        let before = if is_joined && isatty(stdin()) { Some(tcgetattr(stdin())?) } else { None };
        let mut session = Self { program, is_joined, before, waiting: Vec::new(), input_ended: !is_joined };
        if is_joined {
            session.resume();
        }
        Ok(session)
    }

    /// Takes our terminal: keys go to the program as they are.
    fn resume(&mut self) {
        if let Some(before) = &self.before {
            let mut raw = before.clone();
            raw.make_raw();
            let _hung_up = tcsetattr(stdin(), OptionalActions::Now, &raw);
        }
        self.resize();
    }

    /// Gives our terminal its settings back.
    fn pause(&self) {
        if let Some(before) = &self.before {
            let _hung_up = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }

    fn resize(&self) {
        if let Some((ws_row, ws_col)) = own_size() {
            let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            let _ended = tcsetwinsize(&self.program, size);
        }
    }

    fn wants_input(&self) -> bool {
        !self.input_ended && self.waiting.len() < WAITING_MAX
    }

    fn input(&mut self) {
        let mut buffer = [0; 4096];
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(0) => {
                self.input_ended = true;
                // What a terminal in line mode takes for the end of its input.
                self.waiting.push(4);
            }
            Ok(read) => self.waiting.extend_from_slice(&buffer[..read]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input_ended = true,
        }
    }

    fn deliver(&mut self) {
        while !self.waiting.is_empty() {
            match rustix::io::write(&self.program, &self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Its other end is closed: nobody will read this.
                Err(_) => self.waiting.clear(),
            }
        }
    }

    /// Shows all that the program has written so far.
    fn output(&mut self, on_output: &mut dyn FnMut(&[u8])) {
        let mut buffer = [0; 16384];
        loop {
            match rustix::io::read(&self.program, &mut buffer) {
                Ok(0) | Err(Errno::IO | Errno::AGAIN) => return,
                Ok(read) => {
                    on_output(&buffer[..read]);
                    if self.is_joined {
                        show(stdout(), &buffer[..read]);
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pause();
    }
}

fn show(to: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(to.as_fd(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _interrupted = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            // Nobody sees it; the program goes on as it would with a closed window.
            Err(_) => return,
        }
    }
}
