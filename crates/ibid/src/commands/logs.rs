//! `ibid logs`: what the program of a run wrote, also while it runs.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use ibid_ledger::ledger::Ledger;
use ibid_ledger::log::{Chunk, Lines, LogLine, Reader, Stream};
use ibid_ledger::record::Status;
use ibid_ledger::run_id::RunId;
use serde_json::json;

use crate::args::{Cli, Logs};
use crate::project::Project;
use crate::report::Failure;
use crate::ui::Ui;

/// How often a log that grows is looked at.
const PAUSE: Duration = Duration::from_millis(50);

pub fn main(ui: &Ui, cli: &Cli, logs: &Logs) -> Result<u8, Failure> {
    let project = Project::find(cli.directory.as_deref().unwrap_or(Path::new(".")))?;
    let ledger = Ledger::of(&project.root);
    let id = ledger
        .resolve(&logs.run)
        .map_err(|error| Failure::of(&error).hint(format!("runs are in {}", ledger.folder().display())))?;
    let view = View { ui, logs };
    let reader = Reader::open(&ledger.run_folder(id)).map_err(|error| Failure::of(&error))?;
    let shown = if logs.json || logs.timestamps {
        view.lines(Lines::new(reader), &|| is_growing(&ledger, id))
    } else {
        view.bytes(reader, &|| is_growing(&ledger, id))
    };
    match shown {
        Err(Stop::Reader) | Ok(()) => Ok(0),
        Err(Stop::Failure(failure)) => Err(failure),
    }
}

/// Whether the run may write more.
fn is_growing(ledger: &Ledger, id: RunId) -> bool {
    ledger.read(id).is_ok_and(|record| record.status == Status::Running)
}

/// Why nothing more is shown.
enum Stop {
    /// Who reads this went away, as `head` does.
    Reader,
    Failure(Failure),
}

impl From<ibid_ledger::ledger::Error> for Stop {
    fn from(error: ibid_ledger::ledger::Error) -> Self {
        Self::Failure(Failure::of(&error))
    }
}

struct View<'a> {
    ui: &'a Ui,
    logs: &'a Logs,
}

impl View<'_> {
    /// Exactly what the program wrote.
    fn bytes(&self, mut reader: Reader, is_growing: &dyn Fn() -> bool) -> Result<(), Stop> {
        loop {
            // Asked before the end is seen: what is written in between is seen in the next turn.
            let goes_on = self.logs.follow && is_growing();
            while let Some(chunk) = reader.next_chunk()? {
                match chunk {
                    Chunk::Written { stream, bytes, .. } if self.is_wanted(stream) => write(&bytes)?,
                    Chunk::Written { .. } => {}
                    Chunk::Missing { bytes } => self.missing(bytes),
                }
            }
            if !goes_on {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        match reader.cut_chunk() {
            Some(Chunk::Written { stream, bytes, .. }) if self.is_wanted(stream) => write(&bytes),
            _ => Ok(()),
        }
    }

    fn lines(&self, mut lines: Lines, is_growing: &dyn Fn() -> bool) -> Result<(), Stop> {
        let mut missing = 0;
        loop {
            let goes_on = self.logs.follow && is_growing();
            while let Some(line) = lines.next_line()? {
                self.line(&line)?;
            }
            if lines.missing() > missing {
                self.missing(lines.missing() - missing);
                missing = lines.missing();
            }
            if !goes_on {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        lines.last_lines().try_for_each(|line| self.line(&line))
    }

    fn line(&self, line: &LogLine) -> Result<(), Stop> {
        if !self.is_wanted(line.stream) {
            return Ok(());
        }
        let text = line.bytes.strip_suffix(b"\n").unwrap_or(&line.bytes);
        let shown = if self.logs.json {
            let text = String::from_utf8_lossy(text);
            let line = json!({ "time": line.time, "stream": line.stream.name(), "text": text });
            json!({ "schema": 1, "line": line }).to_string().into_bytes()
        } else {
            [line.time.as_bytes(), b" ", text].concat()
        };
        write(&[&shown, b"\n".as_slice()].concat())
    }

    fn is_wanted(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => !self.logs.stderr,
            Stream::Stderr => !self.logs.stdout,
        }
    }

    fn missing(&self, bytes: u64) {
        self.ui.warn(&format!("{bytes} bytes of the log are not kept"));
    }
}

fn write(bytes: &[u8]) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Stop::Reader;
        }
        Stop::Failure(Failure::of(&error).while_doing("cannot write to stdout"))
    })
}
