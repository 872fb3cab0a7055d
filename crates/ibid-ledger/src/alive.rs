//! Whether the ibid that records a run still does.
//!
//! While it does, it holds a lock on the file `alive` of the run's folder, which the system drops when the process ends, however it ends.
//! The file also says which process that is: on a file system without locks, the process is looked for, and a run of another
//! machine counts as going on, since nobody here can tell.
//!
//! ```text
//! {"host":…,"pid":…}          who records
//! {"schema":1,…}              right before the program starts: the Record as it is then
//! {"schema":1,…}              when the program has ended: the same
//! ```
//!
//! Space for these lines and for the record is reserved with the file, so that the end can be written on a disk that the run has
//! filled. One file serves all of them, as some file systems take longer to make one than a program takes to start.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::ledger::{Error, io, parse_record};
use crate::record::Record;

/// Name of the file.
pub(crate) const FILE: &str = "alive";

/// Enough for a record with some hundred outputs, twice.
const RESERVE_BYTES: u64 = 256 << 10;

/// Punched holes begin with a page.
const PAGE_BYTES: u64 = 4096;

/// Says that this process is alive, until it is dropped.
#[derive(Debug)]
pub(crate) struct Alive {
    file: File,
    /// Length of the lines that are there.
    length: u64,
}

impl Alive {
    /// The file, whose owner may have to be set.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes what is known right before the program starts.
    pub(crate) fn write_start(&mut self, record: &Record) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(record).expect("a record is JSON");
        line.push(b'\n');
        self.file.write_all_at(&line, self.length)?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Writes what is known when the program has ended.
    pub(crate) fn write_end(&self, record: &Record) -> std::io::Result<()> {
        let text = serde_json::to_vec(record).expect("a record is JSON");
        self.file.write_all_at(&text, self.length)
    }

    /// Gives what is left of the reserved space free. Not done without need: it can take the disk longer than a program runs.
    pub(crate) fn release(&self) {
        let Ok(written) = self.file.metadata().map(|it| it.len().next_multiple_of(PAGE_BYTES)) else {
            return;
        };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let rest = RESERVE_BYTES.saturating_sub(written);
        // Where space cannot be reserved, none is to be given free.
        let _unsupported = (rest > 0).then(|| fallocate(&self.file, flags, written, rest));
    }
}

/// What was known when the program of a run ended and when it started, each none where that was not written whole.
pub(crate) fn read(folder: &Path) -> (Option<Record>, Option<Record>) {
    let path = folder.join(FILE);
    let Ok(text) = fs::read(&path) else { return (None, None) };
    let mut lines = text.split(|byte| *byte == b'\n').skip(1);
    let mut next = || lines.next().and_then(|line| parse_record(&path, line).ok());
    let start = next();
    (next(), start)
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    host: String,
    /// Another one after each start of the machine.
    boot: String,
    pid: u32,
    /// When it was started, in the kernel's ticks: process ids are used again.
    ticks: u64,
    /// Whether it holds the lock.
    locked: bool,
}

impl Process {
    fn this(locked: bool) -> Self {
        let pid = std::process::id();
        Self { host: host(), boot: boot(), pid, ticks: ticks(pid).unwrap_or(0), locked }
    }

    fn is_alive(&self) -> bool {
        self.host != host() || self.boot == boot() && ticks(self.pid) == Some(self.ticks)
    }
}

/// Marks the run in a folder as being recorded by this process.
pub(crate) fn hold(folder: &Path) -> Result<Alive, Error> {
    let path = folder.join(FILE);
    let mut file = File::create_new(&path).map_err(io("make", &path))?;
    let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    let mut text = serde_json::to_vec(&Process::this(locked)).expect("names and numbers are JSON");
    text.push(b'\n');
    file.write_all(&text).map_err(io("write", &path))?;
    match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, RESERVE_BYTES) {
        // A file system that cannot reserve space is asked for none.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(io("reserve space for", &path)(errno.into())),
    }
    Ok(Alive { file, length: text.len() as u64 })
}

/// Whether the run in a folder is still being recorded.
pub(crate) fn is_held(folder: &Path) -> bool {
    let path = folder.join(FILE);
    let Ok(file) = File::open(&path) else { return false };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => true,
        result => match process(&path) {
            Some(process) if process.locked && result.is_ok() => false,
            Some(process) => process.is_alive(),
            None => false,
        },
    }
}

fn process(path: &Path) -> Option<Process> {
    let text = fs::read(path).ok()?;
    serde_json::from_slice(text.split(|byte| *byte == b'\n').next()?).ok()
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Field 22 of `/proc/PID/stat` (proc(5)); the second is a name that may hold anything.
fn ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_alive_while_its_lock_is_held() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(!is_held(folder.path()));
        let alive = hold(folder.path()).expect("ours");
        assert!(is_held(folder.path()));
        drop(alive);
        assert!(!is_held(folder.path()));
    }

    #[test]
    fn without_locks_the_process_is_looked_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let check = |process: Process, expected: bool| {
            fs::write(folder.path().join(FILE), serde_json::to_vec(&process).expect("JSON")).expect("ours");
            assert_eq!(is_held(folder.path()), expected, "{process:?}");
        };
        let this = || Process::this(false);
        check(this(), true);
        check(Process { ticks: this().ticks + 1, ..this() }, false);
        check(Process { boot: String::new(), ..this() }, false);
        check(Process { host: "elsewhere".to_owned(), ..this() }, true);
    }
}
