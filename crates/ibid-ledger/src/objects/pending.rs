//! Whether what is stored has reached the disk.
//!
//! Storing does not wait for the disk: a run must start. Whoever stores something leaves a mark first, a file with the name of
//! this start of the machine, holds a lock on it, and removes it once everything is on the disk. A mark of another start of the
//! machine that nobody holds says that the power went in between: then contents may be missing or empty although folders that
//! refer to them are there, and nothing is believed to be complete until it was read. Removing contents leaves such a mark, too.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::Objects;
use crate::ledger::{Error, io};

const FOLDER: &str = "pending";

/// In front of the name of a mark that is being made.
const UNSEEN: &str = ".";

/// In the mark of who removes contents: killed, it leaves folders without what they refer to.
const REMOVING: &str = "removing ";

/// Linux writes what is older than half a minute (`vm.dirty_expire_centisecs`).
const WRITTEN_BY_NOW: Duration = Duration::from_secs(120);

/// Contents that were stored and may not be on the disk yet. Dropping it waits for them.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    mark: Option<(PathBuf, File)>,
    stored: Mutex<Vec<PathBuf>>,
}

/// Marks that others left.
pub(super) enum Found {
    /// Everything that is there is whole.
    Nothing,
    /// Nothing is known to be whole; these are to be removed once it is.
    Interrupted(Vec<PathBuf>),
}

impl Pending {
    /// Leaves a mark.
    pub(super) fn begin(objects: &Objects) -> Result<Self, Error> {
        let folder = objects.folder.join(FOLDER);
        objects.make_folder(&folder)?;
        let name = crate::run_id::RunId::random().map_err(io("name a file in", &folder))?;
        // Nobody sees it before it is whole and locked: it would be taken for one that the power cut off.
        let unseen = folder.join(format!("{UNSEEN}{name}"));
        let mut file = File::create_new(&unseen).map_err(io("make", &unseen))?;
        objects.own(&unseen)?;
        file.write_all(start_of_machine().as_bytes()).map_err(io("write", &unseen))?;
        // Where there are no locks, a mark of this start of the machine still does no harm.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        let path = folder.join(name.to_string());
        fs::rename(&unseen, &path).map_err(io("rename", &unseen))?;
        Ok(Self { mark: Some((path, file)), stored: Mutex::default() })
    }

    /// Leaves the mark of who removes contents.
    pub(super) fn begin_removing(objects: &Objects) -> Result<Self, Error> {
        let pending = Self::begin(objects)?;
        if let Some((path, file)) = &pending.mark {
            let text = format!("{REMOVING}{}", start_of_machine());
            rustix::io::pwrite(file, text.as_bytes(), 0).map_err(|errno| io("write", path)(errno.into()))?;
        }
        Ok(pending)
    }

    /// Remembers a file that is to reach the disk.
    pub(super) fn add(&self, path: PathBuf) {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).push(path);
    }

    /// Waits until everything is on the disk. Needs milliseconds for each file: not for the time before a run. After an error, the
    /// mark stays.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        let mark = self.mark.take();
        let mut stored = std::mem::take(&mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner));
        let mut folders: Vec<PathBuf> =
            stored.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        folders.sort_unstable();
        folders.dedup();
        // The names after what they name.
        stored.append(&mut folders);
        for path in stored {
            match File::open(&path).and_then(|file| file.sync_all()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io("sync", &path)(error));
                }
                _ => {}
            }
        }
        match mark {
            Some((path, _)) => match fs::remove_file(&path) {
                // Without locks, another who found it so old that everything is written has removed it.
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", &path)(error)),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Leaves the mark where it is: what it stands for was not done to its end.
    pub(super) fn abandon(mut self) {
        self.mark = None;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // The mark stays then, and says so.
        let _ = self.settle();
    }
}

/// What others left.
pub(super) fn found(objects: &Objects) -> Result<Found, Error> {
    let folder = objects.folder.join(FOLDER);
    let marks = match fs::read_dir(&folder) {
        Ok(marks) => marks,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(io("read", &folder)(error)),
    };
    let mut interrupted = Vec::new();
    for mark in marks {
        let mark = mark.map_err(io("read", &folder))?;
        let path = mark.path();
        if mark.file_name().as_encoded_bytes().starts_with(UNSEEN.as_bytes()) {
            remove_if_old(&path);
            continue;
        }
        match is_interrupted(&path) {
            Ok(true) => interrupted.push(path),
            Ok(false) => {}
            // It was settled meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("read", &path)(error)),
        }
    }
    Ok(if interrupted.is_empty() { Found::Nothing } else { Found::Interrupted(interrupted) })
}

fn is_interrupted(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    // Where there are no locks, the text has to tell.
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
    if locked == Err(rustix::io::Errno::WOULDBLOCK) {
        return Ok(false);
    }
    let text = fs::read_to_string(path)?;
    if text.starts_with(REMOVING) || text != start_of_machine() {
        return Ok(true);
    }
    // It was killed, and the machine went on.
    remove_if_old(path);
    Ok(false)
}

fn remove_if_old(path: &Path) {
    let is_old = |age: Duration| age > WRITTEN_BY_NOW;
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    if modified.is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(is_old)) {
        let _ = fs::remove_file(path);
    }
}

/// Another text after each start of the machine, and on each machine.
fn start_of_machine() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    #[test]
    fn nobody_takes_a_mark_that_is_being_made_for_one_that_was_left() {
        let place = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::of(place.path());
        ledger.prepare().expect("a ledger");
        let objects = Objects::of(&ledger);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        Pending::begin(&objects).expect("a mark").settle().expect("its own");
                        assert!(matches!(found(&objects), Ok(Found::Nothing)));
                    }
                });
            }
        });
    }

    #[test]
    fn what_a_power_cut_left_is_found() {
        let place = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::of(place.path());
        ledger.prepare().expect("a ledger");
        let objects = Objects::of(&ledger);
        Pending::begin(&objects).expect("a mark").settle().expect("its own");
        let left = objects.folder.join(FOLDER).join("0123456789ab");
        fs::write(&left, "another start").expect("a file");
        assert!(matches!(found(&objects), Ok(Found::Interrupted(marks)) if marks == [left]));
    }
}
