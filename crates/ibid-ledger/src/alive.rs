//! Whether the ibid that records a run still does.
//!
//! While it does, it holds a lock on the file `alive` of the run's folder, which the system drops when the process ends, however it ends.
//! The file also says which process that is: on a file system without locks, the process is looked for, and a run of another
//! machine counts as going on, since nobody here can tell.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::ledger::{Error, io, read_json};

/// Name of the file.
pub(crate) const FILE: &str = "alive";

/// Says that this process is alive, until it is dropped.
#[derive(Debug)]
pub(crate) struct Alive(File);

impl Alive {
    /// The file, whose owner may have to be set.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }
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
    let text = serde_json::to_vec(&Process::this(locked)).expect("names and numbers are JSON");
    file.write_all(&text).map_err(io("write", &path))?;
    Ok(Alive(file))
}

/// Whether the run in a folder is still being recorded.
pub(crate) fn is_held(folder: &Path) -> bool {
    let path = folder.join(FILE);
    let Ok(file) = File::open(&path) else { return false };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => true,
        result => match read_json::<Process>(&path) {
            Ok(process) if process.locked && result.is_ok() => false,
            Ok(process) => process.is_alive(),
            Err(_) => false,
        },
    }
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
