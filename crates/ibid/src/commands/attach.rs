//! `ibid attach`: joins a detached run: shows what its program writes, and passes on what is typed.

use std::io::IsTerminal as _;

use ibid_engine::attach::{Client, Error, Heard};
use ibid_engine::live::LiveRun;
use ibid_engine::relay::Stream;
use ibid_sys::signal::Catcher;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

use crate::args::Cli;
use crate::executor::Executor;
use crate::live_args::Attach;
use crate::live_runs;
use crate::report::Failure;
use crate::ui::Ui;

/// What is typed to leave a run as it is: Ctrl-P, then Ctrl-Q, as in Docker.
const LEAVE: [u8; 2] = [0x10, 0x11];

/// Signals for the program.
const PASSED_ON: [Signal; 5] = [Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

pub fn main(ui: &Ui, cli: &Cli, args: &Attach) -> Result<u8, Failure> {
    let (run, socket) = live_runs::find_with_socket(ui, cli.directory.as_deref(), &args.run)?;
    if !run.is_detached {
        return Err(Failure::new(format!(
            "run {} has a terminal of its own already: process {} executes it in the foreground",
            run.id, run.process
        ))
        .hint(format!(
            "`ibid exec {} …` enters it, and `ibid logs -f {}` shows what it writes when it is a recorded one",
            run.id, run.id
        )));
    }
    let client = Client::connect(&socket).map_err(|error| match error {
        Error::NobodyListens { .. } => Failure::new(format!("run {} has just ended", run.id))
            .hint(format!("`ibid logs {}` shows what it wrote", run.id)),
        error => Failure::of(&error),
    })?;
    let executor = Executor::of(&run)?;
    let (code, has_ended) = Joined { ui, run: &run, client }.attend()?;
    if let Some(executor) = executor.filter(|_| has_ended) {
        // As in the foreground: who goes on from here finds a record.
        executor.ends(None)?;
    }
    Ok(code)
}

struct Joined<'a> {
    ui: &'a Ui,
    run: &'a LiveRun,
    client: Client,
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::of(&error).while_doing(what)
}

impl Joined<'_> {
    /// The exit code, and whether the run has ended.
    fn attend(&self) -> Result<(u8, bool), Failure> {
        let wanted = PASSED_ON.map(Signal::as_raw).into_iter().chain([Signal::WINCH.as_raw()]);
        let signals = Catcher::new(&wanted.collect::<Vec<_>>())
            .map_err(|errno| failed("cannot catch signals")(errno.into()))?;
        let Heard::Terminal(has_terminal) = self.client.hear().map_err(failed("cannot hear the run"))? else {
            return Err(Failure::new(format!("run {} is executed by another version of ibid", self.run.id)));
        };
        let is_typed = std::io::stdin().is_terminal();
        let settings = Settings::change(is_typed, has_terminal);
        if has_terminal {
            self.resize()?;
        }
        let mut keys = Keys::default();
        // A file or pipe is for a program that has a terminal to get it from.
        let mut reads = is_typed || has_terminal;
        loop {
            let input = stdin();
            let mut ready =
                vec![PollFd::new(&signals, PollFlags::IN), PollFd::new(&self.client, PollFlags::IN)];
            if reads {
                ready.push(PollFd::new(&input, PollFlags::IN));
            }
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("cannot watch the run")(errno.into())),
            }
            let events: Vec<bool> = ready.iter().map(|entry| !entry.revents().is_empty()).collect();
            drop(ready);
            while let Some(signal) = signals.next() {
                if signal != Signal::WINCH.as_raw() {
                    self.client.signal(signal).map_err(failed("cannot send a signal to the run"))?;
                } else if has_terminal {
                    self.resize()?;
                }
            }
            if events[1]
                && let Some(end) = self.hear()?
            {
                return Ok(end);
            }
            if events.get(2) == Some(&true) {
                let mut typed = [0; 4096];
                match rustix::io::read(stdin(), &mut typed) {
                    Ok(0) => {
                        reads = false;
                        // What a terminal in line mode takes for the end of its input.
                        self.write(has_terminal, &[4])?;
                    }
                    Ok(length) => {
                        let (input, leaves) = keys.take(&typed[..length], is_typed);
                        self.write(has_terminal, &input)?;
                        if leaves {
                            drop(settings);
                            self.ui.say(&format!("run {} goes on", self.run.id));
                            return Ok((0, false));
                        }
                    }
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(_) => reads = false,
                }
            }
        }
    }

    fn write(&self, has_terminal: bool, input: &[u8]) -> Result<(), Failure> {
        if !has_terminal || input.is_empty() {
            return Ok(());
        }
        self.client.write(input).map_err(failed("cannot type to the run"))
    }

    /// Gives the program's terminal the size of ours.
    fn resize(&self) -> Result<(), Failure> {
        match [tcgetwinsize(stdin()), tcgetwinsize(stdout())].into_iter().find_map(Result::ok) {
            Some(size) if size.ws_row > 0 => self
                .client
                .resize(size.ws_row, size.ws_col)
                .map_err(failed("cannot resize the run's terminal")),
            _ => Ok(()),
        }
    }

    /// Shows what is heard. The exit code when that was the last, and whether the run has ended.
    fn hear(&self) -> Result<Option<(u8, bool)>, Failure> {
        match self.client.hear().map_err(failed("cannot hear the run"))? {
            Heard::Terminal(_) => Ok(None),
            Heard::Wrote(stream, bytes) => {
                let shown = match stream {
                    Stream::Stdout => write(&mut std::io::stdout().lock(), &bytes),
                    Stream::Stderr => write(&mut std::io::stderr().lock(), &bytes),
                };
                match shown {
                    Ok(()) => Ok(None),
                    // Who reads this went away, as `head` does; the run goes on.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Some((0, false))),
                    Err(error) => Err(failed("cannot show what the run writes")(error)),
                }
            }
            Heard::Ended(code) => Ok(Some((code, true))),
            Heard::Lost => Err(Failure::new(format!("run {} writes faster than this shows it", self.run.id))
                .hint(format!("it goes on: `ibid logs -f {}` misses nothing", self.run.id))),
            Heard::Gone => {
                Err(Failure::new(format!("the ibid that executed run {} was killed", self.run.id)))
            }
        }
    }
}

fn write(to: &mut impl std::io::Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).and_then(|()| to.flush())
}

/// Finds the keys that leave among what is typed.
#[derive(Debug, Default)]
struct Keys {
    /// The first of them was typed.
    half: bool,
}

impl Keys {
    /// What of it is for the program, and whether to leave. What comes from a file is all for the program.
    fn take(&mut self, typed: &[u8], is_typed: bool) -> (Vec<u8>, bool) {
        if !is_typed {
            return (typed.to_vec(), false);
        }
        let mut input = Vec::with_capacity(typed.len());
        for &byte in typed {
            if std::mem::take(&mut self.half) {
                if byte == LEAVE[1] {
                    return (input, true);
                }
                input.push(LEAVE[0]);
            }
            match byte == LEAVE[0] {
                true => self.half = true,
                false => input.push(byte),
            }
        }
        (input, false)
    }
}

/// Settings of our terminal, given back when this is dropped.
struct Settings {
    before: Option<Termios>,
}

impl Settings {
    /// With a terminal at the other end, keys go there as they are. Without, keys are read as they come, and those that send
    /// signals still do.
    fn change(is_typed: bool, has_terminal: bool) -> Self {
        let before = if is_typed { tcgetattr(stdin()).ok() } else { None };
        if let Some(before) = &before {
            let mut settings = before.clone();
            if has_terminal {
                settings.make_raw();
            } else {
                settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN);
                // Ctrl-Q is one of the keys that leave.
                settings.input_modes.remove(InputModes::IXON);
                settings.special_codes[SpecialCodeIndex::VMIN] = 1;
                settings.special_codes[SpecialCodeIndex::VTIME] = 0;
            }
            let _hung_up = tcsetattr(stdin(), OptionalActions::Now, &settings);
        }
        Self { before }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _hung_up = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_leave_and_all_others_are_the_program_s() {
        let check = |typed: &[&[u8]], expected: &[u8], leaves: bool| {
            let mut keys = Keys::default();
            let mut input = Vec::new();
            let mut left = false;
            for part in typed {
                let (more, leaves) = keys.take(part, true);
                input.extend(more);
                left |= leaves;
            }
            assert_eq!((input.as_slice(), left), (expected, leaves), "{typed:?}");
        };
        check(&[b"abc"], b"abc", false);
        check(&[b"a\x10\x11"], b"a", true);
        check(&[b"a\x10", b"\x11"], b"a", true);
        check(&[b"\x10b", b"\x11"], b"\x10b\x11", false);
        check(&[b"\x10\x10\x11"], b"\x10", true);
        check(&[b"\x03\x04"], b"\x03\x04", false);
        assert_eq!(Keys::default().take(b"\x10\x11", false), (b"\x10\x11".to_vec(), false));
    }
}
