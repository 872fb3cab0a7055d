//! A root file system in the making, written from outside.
//!
//! Its links are those of the packages, and packages' scripts have worked in it, so no path in it is ever given to
//! the kernel as a path of this machine: every folder is opened with `RESOLVE_IN_ROOT`, which lets no link and no
//! `..` lead out, and the last part of a path is never followed.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ibid_sys::owner;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, io_error};

/// The folder that becomes `/`.
pub(crate) struct Root {
    path: PathBuf,
    folder: OwnedFd,
}

/// A folder inside.
pub(crate) type Folder = OwnedFd;

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| io_error(path)(errno.into()))?;
        Ok(Self { path: path.to_owned(), folder })
    }

    /// Turns a failure at a path inside into an error that names it.
    pub(crate) fn failed(&self, path: &str) -> impl FnOnce(Errno) -> Error + use<> {
        let path = self.path.join(path);
        move |errno| io_error(&path)(errno.into())
    }

    fn resolve(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.folder, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
                // The kernel gives up when something was renamed meanwhile; asking again is what it wants.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Opens a folder; follows links inside the root. What is missing is made, owned by root.
    pub(crate) fn folder(&self, path: &str) -> rustix::io::Result<Folder> {
        match self.resolve(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) if !path.is_empty() => {
                let (parent, name) = split(path);
                let parent = self.folder(parent)?;
                self.make_folder(&parent, name)?;
                self.resolve(path, OFlags::PATH | OFlags::DIRECTORY)
            }
            other => other,
        }
    }

    /// Makes a folder owned by root unless something is there. True when it was made.
    pub(crate) fn make_folder(&self, parent: &Folder, name: &str) -> rustix::io::Result<bool> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                set_attributes(parent, name, 0o755, 0, 0)?;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Writes a small file owned by root, in place of what is there.
    pub(crate) fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<(), Error> {
        self.remove(path)?;
        let (parent, name) = split(path);
        let parent = self.folder(parent).map_err(self.failed(path))?;
        let file = create(&parent, name).map_err(self.failed(path))?;
        let mut file = std::fs::File::from(file);
        file.write_all(bytes).map_err(io_error(&self.path.join(path)))?;
        finish(&file, mode, 0, 0, None).map_err(self.failed(path))
    }

    /// Removes a file or link, if there is one.
    pub(crate) fn remove(&self, path: &str) -> Result<(), Error> {
        let (parent, name) = split(path);
        match self
            .resolve(parent, OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|parent| rustix::fs::unlinkat(&parent, name, AtFlags::empty()))
        {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed(path)(errno)),
        }
    }

    /// Removes all that is in a folder, if there is one.
    pub(crate) fn clear(&self, path: &str) -> Result<(), Error> {
        match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => clear(folder).map_err(self.failed(path)),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed(path)(errno)),
        }
    }

    /// Reads a file; none when it is absent.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut bytes)
                    .map_err(io_error(&self.path.join(path)))?;
                Ok(Some(bytes))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(path)(errno)),
        }
    }
}

/// Folder and last part of a path without leading slash.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Makes a file that must not exist, for writing.
pub(crate) fn create(parent: &Folder, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
}

/// Gives a written file its owner, mode and time.
pub(crate) fn finish(
    file: impl AsFd,
    mode: u32,
    uid: u32,
    gid: u32,
    modified: Option<i64>,
) -> rustix::io::Result<()> {
    // Before the mode, since a change of owner takes set-id bits away.
    owner::change(&file, (uid, gid))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    if let Some(seconds) = modified {
        rustix::fs::futimens(&file, &times(seconds))?;
    }
    Ok(())
}

/// Gives a folder or pipe its owner and mode. It must be no link.
pub(crate) fn set_attributes(
    parent: &Folder,
    name: &str,
    mode: u32,
    uid: u32,
    gid: u32,
) -> rustix::io::Result<()> {
    owner::change_at(parent, name, (uid, gid))?;
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
}

pub(crate) fn times(seconds: i64) -> rustix::fs::Timestamps {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::fs::Timestamps { last_access: time, last_modification: time }
}

/// What is at a place, without following it.
pub(crate) fn file_type(parent: &Folder, name: &str) -> rustix::io::Result<FileType> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

fn clear(folder: OwnedFd) -> rustix::io::Result<()> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    for name in names {
        match rustix::fs::unlinkat(&folder, &name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                clear(rustix::fs::openat(&folder, &name, flags, Mode::empty())?)?;
                rustix::fs::unlinkat(&folder, &name, AtFlags::REMOVEDIR)?;
            }
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_leads_out() {
        let outside = tempfile::tempdir().expect("temporary folder");
        let inside = tempfile::tempdir().expect("temporary folder");
        std::fs::write(outside.path().join("file"), "kept").expect("file");
        symlink(outside.path(), inside.path().join("out")).expect("link");
        symlink("../../../../../../../../../../tmp", inside.path().join("up")).expect("link");
        symlink(outside.path().join("file"), inside.path().join("leaf")).expect("link");
        let root = Root::open(inside.path()).expect("opens");
        if root.write("plain", b"x", 0o644).is_err() {
            println!("skipped: needs root because files are given to user 0");
            return;
        }
        // The links lead to places inside that do not exist, and are made there.
        assert!(root.write("out/file", b"changed", 0o644).is_err() || root.read("out/file").is_ok());
        root.remove("out/file").expect("nothing outside is touched");
        root.write("leaf", b"changed", 0o644).expect("the link is replaced");
        root.clear("out").expect("nothing outside is touched");
        assert_eq!(std::fs::read_to_string(outside.path().join("file")).expect("reads"), "kept");
        assert_eq!(std::fs::read_to_string(inside.path().join("leaf")).expect("reads"), "changed");
        assert!(!Path::new("/tmp/ibid-escaped").exists());
        let _ = root.write("up/ibid-escaped", b"x", 0o644);
        assert!(!Path::new("/tmp/ibid-escaped").exists());
    }

    #[test]
    fn folders_are_made_and_cleared() {
        let inside = tempfile::tempdir().expect("temporary folder");
        let root = Root::open(inside.path()).expect("opens");
        if root.write("a/b/c", b"x", 0o755).is_err() {
            println!("skipped: needs root because files are given to user 0");
            return;
        }
        assert_eq!(root.read("a/b/c").expect("reads").as_deref(), Some(&b"x"[..]));
        assert_eq!(root.read("a/d").expect("reads"), None);
        root.clear("a").expect("clears");
        assert_eq!(std::fs::read_dir(inside.path().join("a")).expect("lists").count(), 0);
    }
}
