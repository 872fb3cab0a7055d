//! The new root, and places in it. Every path of the container is resolved here and nowhere else, by
//! `openat2` with `RESOLVE_IN_ROOT`: a link in an image, absolute or climbing with `..`, ends inside.

use std::os::fd::{AsFd, OwnedFd};

use ibid_sys::{Errno, owner};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, mkdirat, openat, openat2,
};
use rustix::mount::{MoveMountFlags, move_mount};

use crate::plan::Giving;

/// The folder that becomes `/`.
pub(crate) struct Root {
    folder: OwnedFd,
    giving: Giving,
}

impl Root {
    pub(crate) fn new(folder: OwnedFd, giving: Giving) -> Self {
        Self { folder, giving }
    }

    /// Opens what is at `path` as a place only (`O_PATH`).
    pub(crate) fn find(&self, path: &str, follow_links: bool) -> Result<OwnedFd, Errno> {
        let links = if follow_links { ResolveFlags::empty() } else { ResolveFlags::NO_SYMLINKS };
        self.open(path, OFlags::PATH, ResolveFlags::NO_MAGICLINKS | links)
    }

    fn open(&self, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let relative = path.trim_start_matches('/');
        let relative = if relative.is_empty() { "." } else { relative };
        loop {
            let resolve = ResolveFlags::IN_ROOT | resolve;
            match openat2(&self.folder, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // A rename elsewhere while `..` was resolved; the kernel asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// The folder at `path`, made with all its parents where missing, owned by root, mode 755.
    pub(crate) fn folder(&self, path: &str, follow_links: bool) -> Result<OwnedFd, Errno> {
        match self.find(path, follow_links) {
            Err(Errno::NOENT) => {}
            found => {
                return found
                    .and_then(|found| if is_folder(&found)? { Ok(found) } else { Err(Errno::NOTDIR) });
            }
        }
        let mut made = String::new();
        let mut folder = self.folder.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            made.push('/');
            made.push_str(part);
            folder = match self.find(&made, follow_links) {
                Err(Errno::NOENT) if part != ".." => {
                    match mkdirat(&folder, part, Mode::from_raw_mode(0o755)) {
                        // There, yet not to be found: a link to nowhere.
                        Err(Errno::EXIST) => return Err(Errno::LOOP),
                        result => result?,
                    }
                    self.own(&folder, part)?;
                    self.find(&made, follow_links)?
                }
                result => result?,
            };
        }
        Ok(folder)
    }

    /// The file at `path`, made empty, with all its parents, where missing.
    pub(crate) fn file(&self, path: &str, follow_links: bool) -> Result<OwnedFd, Errno> {
        match self.find(path, follow_links) {
            Err(Errno::NOENT) => {}
            found => {
                return found
                    .and_then(|found| if is_folder(&found)? { Err(Errno::ISDIR) } else { Ok(found) });
            }
        }
        let (parent, name) = self.parent(path, follow_links)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&parent, name, flags | OFlags::WRONLY, Mode::from_raw_mode(0o644)) {
            Err(Errno::EXIST) => return Err(Errno::LOOP),
            result => drop(result?),
        }
        self.own(&parent, name)?;
        openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// Gives root what was just made: in a user namespace its maker is the user.
    pub(crate) fn own(&self, folder: &OwnedFd, name: &str) -> Result<(), Errno> {
        match self.giving {
            Giving::Kernel => {
                chownat(folder, name, Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::SYMLINK_NOFOLLOW)
            }
            Giving::Beside => {
                // A link, and a file system in memory, may not hold it; neither is part of a layer.
                let _not_kept = owner::mark(folder, name, (0, 0));
                Ok(())
            }
            Giving::Nothing => Ok(()),
        }
    }

    /// The folder that holds `path`, made where missing, and the last name of `path`.
    pub(crate) fn parent<'a>(&self, path: &'a str, follow_links: bool) -> Result<(OwnedFd, &'a str), Errno> {
        let (parent, name) = path.trim_end_matches('/').rsplit_once('/').ok_or(Errno::INVAL)?;
        if matches!(name, "" | "." | "..") {
            return Err(Errno::INVAL);
        }
        Ok((self.folder(parent, follow_links)?, name))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// The kernel takes a folder for a file, or the other way round, for a wrong argument, and says no more.
fn is_folder(place: &OwnedFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(place)?.st_mode) == FileType::Directory)
}

/// Attaches a detached mount at a place.
pub(crate) fn attach(mount: impl AsFd, place: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// Attaches a detached mount over the folder at an absolute path.
pub(crate) fn attach_at(mount: impl AsFd, path: &std::path::Path) -> Result<(), Errno> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
