//! Removing trees.
//!
//! A tree may be deep, hold names of any bytes and folders without permissions, so it is walked by open folders and
//! never by path.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};

pub(crate) const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a folder and all that is below it.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    // A folder that is empty, as most scratch is, needs no more than this.
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(_) => {}
    }
    let folder = rustix::fs::open(path, FOLDER_FLAGS, Mode::empty()).map_err(Error::io("open", path))?;
    remove_content(&folder, path)?;
    rustix::fs::rmdir(path).map_err(Error::io("remove", path))
}

/// Removes an entry of an open folder, with all that is below it. `path` serves error messages.
pub(crate) fn remove_at(folder: BorrowedFd<'_>, name: &CStr, path: &Path) -> Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(Error::io("remove", path)(errno)),
    }
    let below = open_folder(folder, name).map_err(Error::io("open", path))?;
    remove_content(&below, path)?;
    rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).map_err(Error::io("remove", path))
}

/// Removes all that is below an open folder. `path` serves error messages.
pub(crate) fn remove_content(folder: impl AsFd, path: &Path) -> Result<()> {
    // Folders deeper than this are moved up before they are emptied, so that neither the stack nor the number of
    // open files depends on how deep a tree somebody made.
    const DEPTH_MAX: usize = 64;
    while remove_level(folder.as_fd(), folder.as_fd(), path, DEPTH_MAX)? {}
    Ok(())
}

/// Removes what is below `folder`, at most `depth` levels; deeper folders are moved to `top`. True when one was moved.
fn remove_level(top: BorrowedFd<'_>, folder: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<bool> {
    let mut moved = false;
    let entries = Dir::read_from(folder).map_err(Error::io("read the folder", path))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read the folder", path))?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    for (name, file_type) in names {
        let shown = || path.join(OsStr::from_bytes(name.to_bytes()));
        if file_type != FileType::Directory {
            match rustix::fs::unlinkat(folder, &*name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) if file_type == FileType::Unknown => {}
                Err(errno) => return Err(Error::io("remove", &shown())(errno)),
            }
        }
        match rustix::fs::unlinkat(folder, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(Error::io("remove", &shown())(errno)),
        }
        if depth == 0 {
            let aside = format!("deep-{:x}", unique());
            rustix::fs::renameat(folder, &*name, top, &*aside).map_err(Error::io("move", &shown()))?;
            moved = true;
            continue;
        }
        let below = open_folder(folder, &name).map_err(Error::io("open", &shown()))?;
        moved |= remove_level(top, below.as_fd(), &shown(), depth - 1)?;
        rustix::fs::unlinkat(folder, &*name, AtFlags::REMOVEDIR).map_err(Error::io("remove", &shown()))?;
    }
    Ok(moved)
}

fn open_folder(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(parent, name, FOLDER_FLAGS, Mode::empty()) {
        // An owner without privilege may have folders that even the owner must not read.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(0o700), AtFlags::empty())?;
            rustix::fs::openat(parent, name, FOLDER_FLAGS, Mode::empty())
        }
        result => result,
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    COUNTER.fetch_add(1, Ordering::Relaxed)
}
