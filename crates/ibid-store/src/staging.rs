//! Things in the making, under `tmp/`, and what runs write, under `scratch/`.
//!
//! Each is a file or folder with a random name. Its maker holds an exclusive flock on the file or folder itself.
//! Whoever finds one unlocked may remove it: its maker is dead. Between making and locking there is a gap in which
//! a cleaner may win; the maker notices (the lock is taken, or the thing it locked has no name any more) and
//! takes another name.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::remove::{FOLDER_FLAGS, remove_content, remove_tree};
use crate::{Error, Result};

/// A locked folder, removed when dropped.
#[derive(Debug)]
pub(crate) struct StagedFolder {
    path: PathBuf,
    lock: Option<OwnedFd>,
    /// It stays, and only what is in it is removed.
    is_kept: bool,
}

/// How many folders are kept for whoever needs one.
const KEPT: u8 = 32;

impl StagedFolder {
    /// Makes one.
    pub(crate) fn new(tmp: &Path) -> Result<Self> {
        loop {
            let path = tmp.join(random_name());
            rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700))
                .map_err(Error::io("make the folder", &path))?;
            let folder = match rustix::fs::open(&path, FOLDER_FLAGS, Mode::empty()) {
                Ok(folder) => folder,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(Error::io("open", &path)(errno)),
            };
            if lock_as_maker(&folder, &path)? {
                return Ok(Self { path, lock: Some(folder), is_kept: false });
            }
        }
    }

    /// Takes one of the folders that are kept in `place`, empty: making and removing one takes a disk longer than a program may run.
    /// None when those that were tried are in use.
    pub(crate) fn kept(place: &Path) -> Result<Option<Self>> {
        let [first, ..] = random();
        for number in (first..=u8::MAX).chain(0..first).take(4) {
            let path = place.join(format!("{:02}", number % KEPT));
            let folder = match rustix::fs::open(&path, FOLDER_FLAGS, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(Error::io("make the folder", &path)(errno)),
                    }
                    rustix::fs::open(&path, FOLDER_FLAGS, Mode::empty())
                }
                folder => folder,
            };
            let folder = folder.map_err(Error::io("open", &path))?;
            if lock_as_maker(&folder, &path)? {
                // What somebody left who is dead.
                remove_content(&folder, &path)?;
                return Ok(Some(Self { path, lock: Some(folder), is_kept: true }));
            }
        }
        Ok(None)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it now, and says when that fails.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.take_away()
    }

    fn take_away(&mut self) -> Result<()> {
        match self.lock.take() {
            Some(folder) if self.is_kept => remove_content(&folder, &self.path),
            Some(_lock) => remove_tree(&self.path),
            None => Ok(()),
        }
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        // Left-overs are no loss: once the lock is gone, the next to open the store removes them.
        let _ = self.take_away();
    }
}

/// A locked file under `tmp/` that is renamed to its place when complete, and removed when dropped before.
#[derive(Debug)]
pub(crate) struct StagedFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    published: bool,
}

impl StagedFile {
    /// Makes an empty one that only its owner can read and write.
    pub(crate) fn new(tmp: &Path) -> Result<Self> {
        loop {
            let path = tmp.join(random_name());
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
                .map_err(Error::io("create", &path))?;
            if lock_as_maker(&file, &path)? {
                return Ok(Self { path, file: file.into(), published: false });
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Waits until the content is on the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("sync", &self.path))
    }

    /// Gives the file its name, in place of what had it before. Who may enter the store may read it.
    pub(crate) fn publish(mut self, target: &Path) -> Result<()> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(0o644))
            .map_err(Error::io("set the mode of", &self.path))?;
        rustix::fs::rename(&self.path, target).map_err(Error::io("rename a file to", target))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.published {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes what dead processes left in `tmp`. Costs one look at the folder when there is nothing.
pub(crate) fn remove_dead(tmp: &Path) -> Result<()> {
    let entries = std::fs::read_dir(tmp).map_err(Error::io("read the folder", tmp))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("read the folder", tmp))?;
        let path = entry.path();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let found = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => continue,
            // Something else than a file or folder of ours: leave it.
            Err(Errno::LOOP | Errno::NXIO | Errno::ACCESS) => continue,
            Err(errno) => return Err(Error::io("open", &path)(errno)),
        };
        match rustix::fs::flock(&found, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => continue,
            Err(errno) => return Err(Error::io("lock", &path)(errno)),
        }
        let stat = rustix::fs::fstat(&found).map_err(Error::io("look at", &path))?;
        if stat.st_nlink == 0 {
            continue;
        }
        // What cannot be removed hinders nobody, so it is left for the next to try.
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
            if remove_content(&found, &path).is_ok() {
                let _ = rustix::fs::rmdir(&path);
            }
        } else {
            let _ = rustix::fs::unlink(&path);
        }
    }
    Ok(())
}

/// Empties the folders that are kept in `place` where dead processes left something. Costs one look at each when there is nothing.
pub(crate) fn empty_kept(place: &Path) -> Result<()> {
    for number in 0..KEPT {
        let path = place.join(format!("{number:02}"));
        // Whoever uses one has folders in it, which most file systems count as links.
        let is_empty = match rustix::fs::lstat(&path) {
            Ok(stat) => stat.st_nlink == 2,
            Err(Errno::NOENT) => true,
            Err(errno) => return Err(Error::io("look at", &path)(errno)),
        };
        if is_empty {
            continue;
        }
        let folder =
            rustix::fs::open(&path, FOLDER_FLAGS, Mode::empty()).map_err(Error::io("open", &path))?;
        if lock_as_maker(&folder, &path)? {
            remove_content(&folder, &path)?;
        }
    }
    Ok(())
}

/// Waits until the names in a folder are on the disk.
pub(crate) fn sync_names(folder: &Path) -> Result<()> {
    let opened = File::open(folder).map_err(Error::io("open", folder))?;
    opened.sync_all().map_err(Error::io("sync", folder))
}

/// Gives a file of a tree to the container's root: the user namespace's own user would otherwise own it.
pub(crate) fn own_as_root(path: &Path) -> Result<()> {
    ibid_sys::owner::change_path(path, (0, 0)).map_err(Error::io("set the owner of", path))
}

/// Locks what was just made. False when a cleaner was faster.
fn lock_as_maker(made: &OwnedFd, path: &Path) -> Result<bool> {
    match rustix::fs::flock(made, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(errno) => return Err(Error::io("lock", path)(errno)),
    }
    let stat = rustix::fs::fstat(made).map_err(Error::io("look at", path))?;
    Ok(stat.st_nlink > 0)
}

pub(crate) fn random_name() -> String {
    random().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random() -> [u8; 8] {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    // Without the kernel's randomness (a policy can forbid the call) names still must differ between processes.
    if filled != Ok(bytes.len()) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        bytes[..4].copy_from_slice(&std::process::id().to_ne_bytes());
        bytes[4..].copy_from_slice(&COUNTER.fetch_add(1, Ordering::Relaxed).to_ne_bytes());
    }
    bytes
}
