//! `ibid run --watch`: the program is started again whenever the code changes.
//!
//! ```text
//! this process                                  a child: `ibid run --watched-by PID …`
//! look at the code, watch its folders
//! start ───────────────────────────────────────→ builds if need be, runs, records
//! something happened in a folder
//! quiet for a moment: look again
//! the code is another: SIGTERM ────────────────→ stops the program, or the build, and finishes its record
//! it has ended: look, start again
//! ```
//!
//! Each run is a process of its own that does all that `ibid run` does, so a Dockerfile that changes is built again, and a build
//! that fails is one run that failed. What counts is the content of the code, not what happened to its folders: files that are
//! written again as they were, and what ignore files leave out, start nothing.

mod child;
mod folders;
mod watched;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ibid_ledger::ledger::Ledger;
use ibid_ledger::snapshot::{self, Exclusions, How, State};
use ibid_sys::Errno;
use ibid_sys::signal::Catcher;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use self::child::Child;
use self::folders::Folders;
use crate::args::{Cli, Run};
use crate::commands::run::exclusions;
use crate::lock::LOCK_FILE;
use crate::output_folders;
use crate::project::Project;
use crate::report::Failure;
use crate::ui::Ui;

pub use self::watched::Watched;

/// Editors write a file in several steps: so long nothing must happen before the code is looked at.
const QUIET: Duration = Duration::from_millis(100);

/// A folder in which something happens all the time is looked at this often.
const BUSY: Duration = Duration::from_secs(1);

/// How long a program may take to end.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// As many files are named.
const NAMED_MAX: usize = 3;

/// The same files in so many runs in a row are probably written by the program.
const SUSPICIOUS: u32 = 3;

/// What ends a program, and ibid with it.
const ENDING: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// What else the program is to get.
const OTHERS: [Signal; 5] = [Signal::USR1, Signal::USR2, Signal::TSTP, Signal::CONT, Signal::WINCH];

pub fn main(ui: &Ui, cli: &Cli, run: &Run) -> Result<u8, Failure> {
    if run.pegged {
        return Err(Failure::new(
            "`--watch` waits for changes of the code on this machine, and `--pegged` runs the image's own",
        )
        .hint("leave one of them out"));
    }
    if run.detach {
        return Err(Failure::new(
            "`--watch` tells of each run here, and `--detach` returns when one has started",
        )
        .hint("leave one of them out"));
    }
    let signals: Vec<i32> = ENDING.iter().chain(&OTHERS).map(|signal| signal.as_raw()).collect();
    let signals = Catcher::new(&signals).map_err(failed_to("catch signals"))?;
    let directory = cli.directory.as_deref().unwrap_or(Path::new("."));
    let words = child::words(run)?;
    Watcher { ui, code: Code::of(directory, run.isolate)?, words, signals, suspects: Suspects::default() }
        .watch()
}

/// What to do next.
enum Next {
    Start,
    Leave(u8),
}

struct Watcher<'a> {
    ui: &'a Ui,
    code: Code<'a>,
    words: Vec<std::ffi::OsString>,
    signals: Catcher,
    suspects: Suspects,
}

impl Watcher<'_> {
    fn watch(mut self) -> Result<u8, Failure> {
        loop {
            if let Next::Leave(code) = self.once()? {
                return Ok(code);
            }
            if let Err(failure) = self.code.renew() {
                self.complain(&failure);
            }
        }
    }

    /// One run, and what comes after it until the next.
    fn once(&mut self) -> Result<Next, Failure> {
        let mut child = Some(Child::start(&self.words)?);
        let mut is_stopping = false;
        let mut is_ending = false;
        loop {
            self.sleep(child.as_ref())?;
            while let Some(signal) = self.signals.next() {
                let ends = ENDING.iter().any(|ending| ending.as_raw() == signal);
                match &child {
                    Some(child) => {
                        is_ending |= ends;
                        child.signal(signal);
                    }
                    None if ends => return Ok(Next::Leave(128 + signal as u8)),
                    None => {}
                }
                if signal == Signal::TSTP.as_raw() {
                    let _cannot_fail = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
                    if let Some(child) = &child {
                        child.signal(Signal::CONT.as_raw());
                    }
                }
            }
            if let Some(running) = &mut child
                && let Some(code) = running.ended()?
            {
                if is_ending {
                    return Ok(Next::Leave(code));
                }
                if is_stopping {
                    return Ok(Next::Start);
                }
                child = None;
                self.ui.say("waiting for a change of the code; Ctrl-C ends this");
            }
            if is_stopping || !self.code.is_due() {
                continue;
            }
            let changes = match self.code.changes() {
                Ok(changes) => changes,
                Err(failure) => {
                    self.complain(&failure);
                    continue;
                }
            };
            if changes.is_empty() {
                continue;
            }
            self.ui.say(&format!("{} changed: run again", named(&changes)));
            if child.is_some() {
                self.suspects.note(self.ui, &changes);
            }
            match &child {
                Some(child) => {
                    // Whoever asked for the end before the code changed wants the next run now.
                    (is_stopping, is_ending) = (true, false);
                    child.signal(Signal::TERM.as_raw());
                }
                None => return Ok(Next::Start),
            }
        }
    }

    /// Until a signal comes, the child ends, or something in the code may have changed.
    fn sleep(&mut self, child: Option<&Child>) -> Result<(), Failure> {
        let wait = self.code.patience();
        let mut ready =
            vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.code.folders, PollFlags::IN)];
        ready.extend(child.map(|child| PollFd::new(child, PollFlags::IN)));
        match poll(&mut ready, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed_to("wait for changes")(errno)),
        }
        if !ready[1].revents().is_empty() {
            self.code.note_event();
        }
        Ok(())
    }

    /// What can be mended while ibid waits is a warning.
    fn complain(&self, failure: &Failure) {
        self.ui.warn(&format!("changes may go unnoticed: {}", failure.summary()));
    }
}

/// The code of a project, as it was when the last run was started.
struct Code<'a> {
    directory: &'a Path,
    /// Whether each run has an output folder of its own.
    isolate: bool,
    root: PathBuf,
    ledger: Ledger,
    exclusions: Exclusions,
    folders: Folders,
    state: State,
    /// When something happened first and last that was not looked at.
    events: Option<(Instant, Instant)>,
}

impl<'a> Code<'a> {
    fn of(directory: &'a Path, isolate: bool) -> Result<Self, Failure> {
        let project = Project::find(directory)?;
        let ledger = Ledger::of(&project.root);
        let exclusions = exclusions_of(&project, isolate)?;
        let folders = Folders::new(&project.root)?;
        let state = State { entries: Vec::new(), folders: Vec::new() };
        let mut code =
            Self { directory, isolate, root: project.root, ledger, exclusions, folders, state, events: None };
        code.renew()?;
        Ok(code)
    }

    /// Takes the code as it is now.
    fn renew(&mut self) -> Result<(), Failure> {
        self.state = self.look()?;
        Ok(())
    }

    /// What is another than it was, and from now on is not.
    fn changes(&mut self) -> Result<Vec<(PathBuf, How)>, Failure> {
        let now = self.look()?;
        let changes = snapshot::compare(&self.state.entries, &now.entries);
        self.state = now;
        let of_ibid = |path: &Path| path == Path::new(LOCK_FILE);
        Ok(changes
            .into_iter()
            .filter(|change| !of_ibid(&change.path))
            .map(|change| (change.path, change.how))
            .collect())
    }

    /// Looks at the code, and watches the folders that it has now.
    fn look(&mut self) -> Result<State, Failure> {
        /// Folders that are made faster than that are looked at after the next quiet moment.
        const TRIES: u32 = 3;
        // Before looking: what happens from here on is not lost.
        self.folders.forget_events();
        self.events = None;
        // A project's files may be wrong for a moment, while somebody writes them; the run will say so.
        if let Ok(project) = Project::find(self.directory)
            && let Ok(exclusions) = exclusions_of(&project, self.isolate)
        {
            self.exclusions = exclusions;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let state = snapshot::look(&self.ledger, &self.root, &self.exclusions)
                .map_err(|error| Failure::of(&error))?;
            let has_new = self.folders.watch(&state.folders)?;
            if !has_new {
                return Ok(state);
            }
            // What was put into a new folder before it was watched is there to be seen.
            if tries == TRIES {
                self.note_event();
                return Ok(state);
            }
        }
    }

    fn note_event(&mut self) {
        self.folders.forget_events();
        let now = Instant::now();
        let first = self.events.map_or(now, |(first, _)| first);
        self.events = Some((first, now));
    }

    /// When to look at what happened.
    fn due(&self) -> Option<Instant> {
        self.events.map(|(first, last)| (last + QUIET).min(first + BUSY))
    }

    fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    fn patience(&self) -> Option<Timespec> {
        Timespec::try_from(self.due()?.saturating_duration_since(Instant::now())).ok()
    }
}

fn exclusions_of(project: &Project, isolate: bool) -> Result<Exclusions, Failure> {
    exclusions(project, &[&project.data[..], &output_folders::names(project, isolate)].concat())
}

/// Files that change while the program runs, which may be its own doing.
#[derive(Default)]
struct Suspects {
    paths: Vec<PathBuf>,
    times: u32,
    is_told: bool,
}

impl Suspects {
    fn note(&mut self, ui: &Ui, changes: &[(PathBuf, How)]) {
        let paths: Vec<PathBuf> = changes.iter().map(|(path, _)| path.clone()).collect();
        self.times = if paths == self.paths { self.times + 1 } else { 1 };
        self.paths = paths;
        let appeared = changes.iter().all(|(_, how)| *how == How::Added);
        if !self.is_told && (appeared || self.times == SUSPICIOUS) {
            self.is_told = true;
            ui.hint("if the program itself writes that, name it in `outputs` of `[run]` in ibid.toml, or in .gitignore: it is no code then");
        }
    }
}

/// Some files, the first few by name.
fn named(changes: &[(PathBuf, How)]) -> String {
    let names: Vec<String> =
        changes.iter().take(NAMED_MAX).map(|(path, _)| path.display().to_string()).collect();
    let more = match changes.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names.join(", "))
}

fn failed_to(what: &'static str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::of(&std::io::Error::from(errno)).while_doing(format!("cannot {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_files_are_named() {
        let check = |paths: &[&str], expected: &str| {
            let changes: Vec<_> = paths.iter().map(|path| (PathBuf::from(path), How::Changed)).collect();
            assert_eq!(named(&changes), expected);
        };
        check(&["train.py"], "train.py");
        check(&["a", "b", "c"], "a, b, c");
        check(&["a", "b", "c", "d", "e"], "a, b, c and 2 more");
    }
}
