//! Recording one run while it goes on, so that at every moment what is on the disk says what is known.
//!
//! ```text
//! runs/.new-<id>/    before the program starts; nobody takes it for a run
//! runs/<id>/         from then on: start.json, alive (see `alive`), log, reserve
//!                    when the program has ended: ended.json, how it ended
//!                    when everything is known: record.json; alive, reserve and ended.json go
//! ```
//!
//! Nothing waits for the disk before the program starts. `reserve` is space that is given free at the end, so that the end can be
//! written on a disk that the run has filled.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

use crate::alive::{self, Alive};
use crate::ledger::{self, Error, Ledger, io};
use crate::log::{Stream, Writer};
use crate::metrics::{self, Metrics};
use crate::outputs::Beginning;
use crate::record::Record;

/// Enough for a record with some hundred outputs.
const RESERVE_BYTES: u64 = 128 << 10;

const RESERVE: &str = "reserve";

/// A run that is being recorded.
#[derive(Debug)]
pub struct Recording {
    ledger: Ledger,
    folder: PathBuf,
    _alive: Alive,
    log: Mutex<Writer>,
    beginning: Beginning,
}

impl Recording {
    /// Makes the run known, right before its program starts. `outputs` are the folders that it writes.
    pub fn start(
        ledger: &Ledger,
        record: &Record,
        outputs: impl Iterator<Item = PathBuf>,
    ) -> Result<Self, Error> {
        ledger.prepare()?;
        let folder = ledger.run_folder(record.id);
        let new = folder.with_file_name(format!(".new-{}", record.id));
        fs::create_dir(&new).map_err(io("make the folder", &new))?;
        let started = Self::start_in(ledger, record, outputs, &new).and_then(|started| {
            fs::rename(&new, &folder).map_err(io("make the folder", &folder))?;
            Ok(started)
        });
        if started.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        let (alive, log, beginning) = started?;
        Ok(Self { ledger: ledger.clone(), folder, _alive: alive, log: Mutex::new(log), beginning })
    }

    fn start_in(
        ledger: &Ledger,
        record: &Record,
        outputs: impl Iterator<Item = PathBuf>,
        folder: &Path,
    ) -> Result<(Alive, Writer, Beginning), Error> {
        ledger.give(folder)?;
        let alive = alive::hold(folder)?;
        let path = folder.join("reserve");
        let reserve = File::create_new(&path).map_err(io("make", &path))?;
        match fallocate(&reserve, FallocateFlags::empty(), 0, RESERVE_BYTES) {
            // A file system that cannot reserve space is asked for none.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(io("reserve space for", &path)(errno.into())),
        }
        let log = Writer::new(folder)?.in_folder(&ledger.run_folder(record.id));
        let start = folder.join("start.json");
        ledger::write_unsynced(&start, record)?;
        for file in [alive.file(), &reserve, log.file()] {
            ledger.give_file(file)?;
        }
        ledger.give(&start)?;
        let witness = fs::metadata(&start).map_err(io("read", &start))?;
        Ok((alive, log, Beginning::now(&witness, outputs)))
    }

    /// Where everything of the run is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// When it began.
    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// Keeps what the program has written. From any thread.
    pub fn written(&self, stream: Stream, bytes: &[u8]) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).append(stream, bytes);
    }

    /// Writes again how the run started, with what was found out meanwhile.
    pub fn started(&self, record: &Record) -> Result<(), Error> {
        let path = self.folder.join("start.json");
        ledger::write_unsynced(&path, record)?;
        self.ledger.give(&path)
    }

    /// Keeps the values of the run's metrics.
    pub fn keep_metrics(&self, metrics: &Metrics) -> Result<(), Error> {
        if metrics.points().is_empty() {
            return Ok(());
        }
        metrics.write(&self.folder)?;
        self.ledger.give(&self.folder.join(metrics::FILE))
    }

    /// What the log lacks, as people should know it.
    pub fn log_warning(&self) -> Option<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        match log.failure() {
            Some(error) => {
                let cause =
                    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Some(format!("the log is not whole: {error}{cause}"))
            }
            None if log.is_shortened() => Some(
                "the log is long: its first and last parts are kept, and numbers in the rest are no metrics"
                    .to_owned(),
            ),
            None => None,
        }
    }

    /// Writes how the program ended. What `record` says is read until [`Self::finish`].
    pub fn ended(&self, record: &Record) -> Result<(), Error> {
        let _given_free = fs::remove_file(self.folder.join(RESERVE));
        let path = self.folder.join("ended.json");
        ledger::write_unsynced(&path, record)?;
        self.ledger.give(&path)
    }

    /// Writes the record. The run is over.
    pub fn finish(self, record: &Record) -> Result<(), Error> {
        let path = self.folder.join("record.json");
        ledger::write_json(&path, record)?;
        self.ledger.give(&path)?;
        for name in ["ended.json", RESERVE, alive::FILE] {
            // Whoever reads the record looks at none of them.
            let _ = fs::remove_file(self.folder.join(name));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
