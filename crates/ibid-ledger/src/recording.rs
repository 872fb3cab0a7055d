//! Recording one run while it goes on, so that at every moment what is on the disk says what is known.
//!
//! ```text
//! runs/.new-<id>/    before the program starts; nobody takes it for a run
//! runs/<id>/         from then on: alive says how it started (see `alive`); log, once the program has written something
//!                    when more is known while it runs: start.json
//!                    when the program has ended: alive says how
//!                    when everything is known: record.json; alive and start.json go
//! ```
//!
//! Nothing waits for the disk before the program starts.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::alive::{self, Alive};
use crate::ledger::{self, Error, Ledger, io};
use crate::log::{Stream, Writer};
use crate::metrics::{self, Metrics};
use crate::outputs::Beginning;
use crate::record::Record;
use crate::run_id::RunId;

const START: &str = "start.json";

/// A folder for a run that is about to start. Dropping it removes the folder.
#[derive(Debug)]
pub struct Prepared {
    ledger: Ledger,
    new: PathBuf,
    /// None when it has started.
    files: Option<(Alive, Writer)>,
}

impl Prepared {
    /// Makes what takes a while to make, so that it is there when the container is.
    pub fn new(ledger: &Ledger, id: RunId) -> Result<Self, Error> {
        ledger.prepare()?;
        let folder = ledger.run_folder(id);
        let new = folder.with_file_name(format!(".new-{id}"));
        fs::create_dir(&new).map_err(io("make the folder", &new))?;
        let mut prepared = Self { ledger: ledger.clone(), new, files: None };
        ledger.give(&prepared.new)?;
        let alive = alive::hold(&prepared.new)?;
        ledger.give_file(alive.file())?;
        prepared.files = Some((alive, Writer::new(&folder, ledger.other_owner()?)));
        Ok(prepared)
    }

    /// Makes the run known, right before its program starts. `outputs` are the folders that it writes.
    pub fn start(
        mut self,
        record: &Record,
        outputs: impl Iterator<Item = PathBuf>,
    ) -> Result<Recording, Error> {
        let (mut alive, log) = self.files.take().expect("it starts once");
        let path = self.new.join(alive::FILE);
        alive.write_start(record).map_err(io("write", &path))?;
        let witness = alive.file().metadata().map_err(io("read", &path))?;
        let beginning = Beginning::now(&witness, outputs);
        let folder = self.ledger.run_folder(record.id);
        fs::rename(&self.new, &folder).map_err(io("make the folder", &folder))?;
        Ok(Recording { ledger: self.ledger.clone(), folder, alive, log: Mutex::new(log), beginning })
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // After a start there is no folder of that name.
        let _ = fs::remove_dir_all(&self.new);
    }
}

/// A run that is being recorded.
#[derive(Debug)]
pub struct Recording {
    ledger: Ledger,
    folder: PathBuf,
    alive: Alive,
    log: Mutex<Writer>,
    beginning: Beginning,
}

impl Recording {
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

    /// Writes how the run started, with what was found out meanwhile.
    pub fn started(&self, record: &Record) -> Result<(), Error> {
        let path = self.folder.join(START);
        ledger::write_unsynced(&path, record)?;
        self.ledger.give(&path)
    }

    /// Keeps the values of the run's metrics.
    pub fn keep_metrics(&self, metrics: &Metrics) -> Result<(), Error> {
        if metrics.points().is_empty() {
            return Ok(());
        }
        self.with_reserve(|| metrics.write(&self.folder))?;
        self.ledger.give(&self.folder.join(metrics::FILE))
    }

    /// Writes something; on a full disk, with the space that was reserved for it.
    fn with_reserve(&self, write: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
        match write() {
            Err(Error::Io { source, .. })
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                self.alive.release();
                write()
            }
            result => result,
        }
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
        self.alive.write_end(record).map_err(io("write", &self.folder.join(alive::FILE)))
    }

    /// Writes the record. The run is over.
    pub fn finish(&self, record: &Record) -> Result<(), Error> {
        let path = self.folder.join("record.json");
        self.with_reserve(|| ledger::write_json(&path, record))?;
        self.ledger.give(&path)
    }

    /// Takes away what served until there was a record. Nobody writes any more.
    pub fn close(self) {
        // Whoever reads the record does not look at them.
        for name in [START, alive::FILE] {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }
}

#[cfg(test)]
mod tests;
