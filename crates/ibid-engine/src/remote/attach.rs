//! Attending a program in a container of an engine: its streams, this process's terminal and signals.
//!
//! One thread waits for all three, so that nothing needs a lock: signals, what the program writes, and what is to be
//! passed to it.

use std::fs::File;
use std::time::Duration;

use ibid_sys::signal::Catcher;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::process::Signal;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use super::frames::Frames;
use super::http;
use super::{Engine, Error};
use crate::native::OnTerminate;
use crate::relay::{Listener, Stream, write_all};

/// Every signal that can be caught and that somebody may mean for the program, by its name in the API.
const PASSED_ON: [(Signal, &str); 9] = [
    (Signal::HUP, "HUP"),
    (Signal::INT, "INT"),
    (Signal::QUIT, "QUIT"),
    (Signal::TERM, "TERM"),
    (Signal::USR1, "USR1"),
    (Signal::USR2, "USR2"),
    (Signal::TSTP, "TSTP"),
    (Signal::CONT, "CONT"),
    (Signal::WINCH, "WINCH"),
];

/// How much of what is typed may wait for a program that does not read.
const WAITING_MAX: usize = 1 << 20;
const BUFFER_BYTES: usize = 64 << 10;

/// From now on signals wait to be passed on.
pub(super) fn catch_signals() -> Result<Catcher, Error> {
    Catcher::new(&PASSED_ON.map(|(signal, _)| signal.as_raw()))
        .map_err(|errno| Error::Own { action: "catch signals", source: errno.into() })
}

/// A container whose program is about to start, joined with this process.
pub(super) struct Attached<'a> {
    pub(super) engine: &'a Engine,
    pub(super) container: &'a str,
    pub(super) signals: Catcher,
    /// The program's streams, and what has come of them.
    pub(super) stream: File,
    pub(super) there: Vec<u8>,
    /// Whether it has a terminal of its own.
    pub(super) terminal: bool,
    pub(super) listener: Option<Listener<'a>>,
    pub(super) on_terminate: OnTerminate,
}

/// How it went.
pub(super) struct Attended {
    pub(super) code: u8,
    /// Streams of this process that did not take all that the program wrote.
    pub(super) unwritten: Vec<(Stream, std::io::Error)>,
}

impl Attached<'_> {
    /// Passes streams and signals on until the program has ended.
    pub(super) fn attend(mut self) -> Result<Attended, Error> {
        let terminal = OwnTerminal::take(self.terminal);
        if self.terminal {
            self.resize();
        }
        let mut output = Output { listener: self.listener, failures: Vec::new(), is_unread: false };
        let mut frames = Frames::default();
        let there = std::mem::take(&mut self.there);
        self.tell(&there, &mut frames, &mut output);
        rustix::io::ioctl_fionbio(&self.stream, true).map_err(own("read what the program writes"))?;
        let mut waiting: Vec<u8> = Vec::new();
        let (mut input_is_over, mut is_shut) = (false, false);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let writing = if waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            let input = stdin();
            let mut ready = vec![
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&self.stream, PollFlags::IN | writing),
            ];
            if !input_is_over && waiting.len() < WAITING_MAX {
                ready.push(PollFd::new(&input, PollFlags::IN));
            }
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(own("watch the container")(errno)),
            }
            let events: Vec<PollFlags> = ready.iter().map(PollFd::revents).collect();
            drop(ready);
            self.pass_signals_on(&terminal)?;
            if events.get(2).is_some_and(|events| !events.is_empty()) {
                match rustix::io::read(stdin(), &mut buffer) {
                    Ok(0) if self.terminal => {
                        input_is_over = true;
                        // What a terminal in line mode takes for the end of its input.
                        waiting.push(4);
                    }
                    Ok(read) => {
                        input_is_over = read == 0;
                        waiting.extend_from_slice(&buffer[..read]);
                    }
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(_) => input_is_over = true,
                }
            }
            while !waiting.is_empty() {
                match rustix::io::write(&self.stream, &waiting) {
                    Ok(written) => drop(waiting.drain(..written)),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    // Nobody will read this.
                    Err(_) => waiting.clear(),
                }
            }
            if input_is_over && waiting.is_empty() && !is_shut && !self.terminal {
                is_shut = true;
                let _ended = rustix::net::shutdown(&self.stream, Shutdown::Write);
            }
            if events[1].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                match rustix::io::read(&self.stream, &mut buffer) {
                    Ok(0) | Err(Errno::CONNRESET | Errno::PIPE) => break,
                    Ok(read) => self.tell(&buffer[..read], &mut frames, &mut output),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(errno) => return Err(self.engine.lost()(errno.into())),
                }
            }
        }
        let code = self.wait(&terminal)?;
        Ok(Attended { code, unwritten: output.failures })
    }

    fn tell(&self, bytes: &[u8], frames: &mut Frames, output: &mut Output) {
        let was_unread = output.is_unread;
        match self.terminal {
            true => output.tell(Stream::Stdout, bytes),
            false => frames.feed(bytes, &mut |stream, bytes| output.tell(stream, bytes)),
        }
        if output.is_unread && !was_unread {
            // What it would have been told by a pipe of its own.
            self.signal("PIPE");
        }
    }

    /// The program may have closed its streams and go on.
    fn wait(&self, terminal: &OwnTerminal) -> Result<u8, Error> {
        let engine = self.engine;
        let path = format!("{}/containers/{}/wait", engine.api, self.container);
        let awaited = http::ask(&engine.address, "POST", &path, None).map_err(engine.lost())?;
        loop {
            let mut ready =
                [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(awaited.stream(), PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(own("watch the container")(errno)),
            }
            let is_there = !ready[1].revents().is_empty();
            self.pass_signals_on(terminal)?;
            if is_there {
                break;
            }
        }
        let answer = awaited.answer().map_err(engine.lost())?;
        let answer = engine.success("say how the program ended", answer)?.json();
        match answer["StatusCode"].as_i64() {
            Some(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            None => Err(Error::Refused {
                kind: engine.kind,
                action: "say how the program ended",
                message: answer.to_string(),
            }),
        }
    }

    fn pass_signals_on(&self, terminal: &OwnTerminal) -> Result<(), Error> {
        while let Some(signal) = self.signals.next() {
            let is = |named: Signal| signal == named.as_raw();
            if is(Signal::WINCH) && self.terminal {
                self.resize();
            } else if is(Signal::CONT) && self.terminal {
                terminal.resume();
                self.resize();
            } else if is(Signal::TSTP) {
                terminal.pause();
                if !self.terminal {
                    self.signal("TSTP");
                }
                rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)
                    .map_err(own("stop as asked"))?;
                terminal.resume();
                if !self.terminal {
                    self.signal("CONT");
                }
            } else if let (true, OnTerminate::Stop(patience)) = (is(Signal::TERM), self.on_terminate) {
                self.stop(patience);
            } else if let Some((_, name)) = PASSED_ON.iter().find(|(known, _)| is(*known)) {
                self.signal(name);
            }
        }
        Ok(())
    }

    /// Sends a signal to the container's process 1. One that has ended gets nothing.
    fn signal(&self, name: &str) {
        let path = format!("/containers/{}/kill?signal=SIG{name}", self.container);
        let _ended = self.engine.request("POST", &path, None);
    }

    /// Has the engine send the image's `STOPSIGNAL`, and kill what has not ended in time. It answers when all is over.
    fn stop(&self, patience: Duration) {
        let path = format!("/containers/{}/stop?t={}", self.container, patience.as_secs());
        let engine = self.engine.clone();
        std::thread::spawn(move || {
            let _ended = engine.request("POST", &path, None);
        });
    }

    fn resize(&self) {
        if let Some(size) = [stdin(), stdout()].into_iter().find_map(|ours| tcgetwinsize(ours).ok()) {
            let path = format!("/containers/{}/resize?h={}&w={}", self.container, size.ws_row, size.ws_col);
            let _ended = self.engine.request("POST", &path, None);
        }
    }
}

/// Where the program's output goes.
struct Output<'a> {
    listener: Option<Listener<'a>>,
    failures: Vec<(Stream, std::io::Error)>,
    /// Whether the reader of a stream went away.
    is_unread: bool,
}

impl Output<'_> {
    fn tell(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(listener) = self.listener {
            listener(stream, bytes);
        }
        if self.is_unread || self.failures.iter().any(|(failed, _)| *failed == stream) {
            return;
        }
        match write_all(stream.own(), bytes) {
            Ok(()) => {}
            Err(Errno::PIPE) => self.is_unread = true,
            Err(errno) => self.failures.push((stream, errno.into())),
        }
    }
}

/// This process's terminal while keys go to the program as they are. It gets its settings back when this is dropped.
struct OwnTerminal {
    before: Option<Termios>,
}

impl OwnTerminal {
    fn take(is_wanted: bool) -> Self {
        let before = (is_wanted && isatty(stdin())).then(|| tcgetattr(stdin()).ok()).flatten();
        let terminal = Self { before };
        terminal.resume();
        terminal
    }

    fn resume(&self) {
        if let Some(before) = &self.before {
            let mut raw = before.clone();
            raw.make_raw();
            let _hung_up = tcsetattr(stdin(), OptionalActions::Now, &raw);
        }
    }

    fn pause(&self) {
        if let Some(before) = &self.before {
            let _hung_up = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

impl Drop for OwnTerminal {
    fn drop(&mut self) {
        self.pause();
    }
}

fn own(action: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Own { action, source: errno.into() }
}
