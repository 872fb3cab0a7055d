//! The folders of a project, watched by inotify: that something happened in one, not what.

use std::collections::{HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::report::Failure;

/// Not `MODIFY`: who writes a file closes it, and a log that grows would never be quiet.
fn flags() -> WatchFlags {
    WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        | WatchFlags::DONT_FOLLOW
        | WatchFlags::EXCL_UNLINK
}

pub(super) struct Folders {
    root: PathBuf,
    inotify: OwnedFd,
    /// By path, relative to the project.
    watches: HashMap<PathBuf, i32>,
}

impl Folders {
    pub(super) fn new(root: &Path) -> Result<Self, Failure> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| {
            let failure =
                Failure::of(&std::io::Error::from(errno)).while_doing("cannot watch folders for changes");
            match errno {
                Errno::MFILE => failure.hint(more("fs.inotify.max_user_instances", 512)),
                _ => failure,
            }
        })?;
        Ok(Self { root: root.to_owned(), inotify, watches: HashMap::new() })
    }

    /// Watches these, and no others. True when one of them was not watched before.
    pub(super) fn watch(&mut self, folders: &[PathBuf]) -> Result<bool, Failure> {
        let before = std::mem::take(&mut self.watches);
        let wanted: HashSet<&PathBuf> = folders.iter().collect();
        // First, as a folder that was renamed keeps its watch under its new name.
        for watch in before.iter().filter(|(path, _)| !wanted.contains(path)).map(|(_, watch)| *watch) {
            // That of a folder that is gone went with it.
            let _gone = inotify::remove_watch(&self.inotify, watch);
        }
        let mut has_new = false;
        for folder in folders {
            let path = self.root.join(folder);
            match inotify::add_watch(&self.inotify, &path, flags()) {
                Ok(watch) => {
                    has_new |= before.get(folder) != Some(&watch);
                    self.watches.insert(folder.clone(), watch);
                }
                // Gone, or another thing, since it was listed, which is an event of the folder that it was in.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => {
                    let failure = Failure::of(&std::io::Error::from(errno))
                        .while_doing(format!("cannot watch the folder {}", path.display()));
                    return Err(match errno {
                        Errno::NOSPC => Failure::new(format!(
                            "cannot watch the folder {}: the project has {} folders, and this user may watch no more",
                            path.display(),
                            folders.len()
                        ))
                        .hint(more("fs.inotify.max_user_watches", 524_288))
                        .hint("folders that are no code need no watch: name them in .gitignore, or in `outputs` or `data` of `[run]` in ibid.toml"),
                        _ => failure,
                    });
                }
            }
        }
        Ok(has_new)
    }

    /// Takes what happened so far for seen.
    pub(super) fn forget_events(&self) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        while rustix::io::read(&self.inotify, &mut buffer).is_ok_and(|(read, _)| !read.is_empty()) {}
    }
}

impl AsFd for Folders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// How root raises a limit.
fn more(setting: &str, value: u32) -> String {
    format!(
        "to allow more: `sudo sysctl {setting}={value}`; a file in /etc/sysctl.d with `{setting}={value}` keeps it"
    )
}
