//! The disk's side of unpacking: several threads make files, everything else waits for them where order matters.
//!
//! No path of the archive is ever given to a call that would follow a link: files are made in folders that were opened
//! from the tree's root without following any, under names without `/`, and only where nothing is yet.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ibid_sys::owner::{self, Owner};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::attributes::{self, CAPABILITY};
use crate::manifest::Kind;
use crate::path::{self, as_path, to_path};
use crate::remove::remove_at;
use crate::resolve::{Change, Inode, LayerState};
use crate::scan::{open_folder, set_time, times};
use crate::{Error, Result};

/// Threads that make files.
const THREADS_MAX: usize = 4;
/// Jobs given to a thread at once, and how many such bundles wait.
const BUNDLE_JOBS_MAX: usize = 64;
const BUNDLE_BYTES_MAX: usize = 1 << 20;
const BUNDLES_WAITING: usize = 4;

/// Something to make: anything but a folder.
pub(crate) struct Job {
    pub(crate) path: Vec<u8>,
    pub(crate) inode: Inode,
    /// The content of a file.
    pub(crate) content: Vec<u8>,
}

/// What the threads share.
struct Shared<'a> {
    tree: BorrowedFd<'a>,
    tree_path: &'a Path,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    /// Bundles given and not yet done.
    under_way: usize,
    /// Counts what removed or replaced folders: an open folder of before may be gone.
    generation: usize,
    /// Something failed: nothing more is made.
    stopped: bool,
    /// What failed first, until it is reported.
    failure: Option<Error>,
}

/// The unpacker's end of the threads.
pub(crate) struct Unpacker<'a> {
    shared: &'a Shared<'a>,
    layer: &'a Path,
    bundles: SyncSender<Vec<Job>>,
    bundle: Vec<Job>,
    bundle_bytes: usize,
    /// Links are made when their files are there.
    links: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Unpacks into the folder `tree` of `layer`. `work` says what; when it returns, all is made.
pub(crate) fn with_unpacker<T>(layer: &Path, work: impl FnOnce(&mut Unpacker<'_>) -> Result<T>) -> Result<T> {
    let tree_path = layer.join("tree");
    let tree = crate::layers::open_tree(&tree_path)?;
    let shared =
        Shared { tree: tree.as_fd(), tree_path: &tree_path, state: Mutex::default(), idle: Condvar::new() };
    let (sender, receiver) = sync_channel(BUNDLES_WAITING);
    let receiver = Arc::new(Mutex::new(receiver));
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            // The threads alone own the receiver: should they all be gone, the sender is not left waiting.
            let receiver = Arc::clone(&receiver);
            let shared = &shared;
            scope.spawn(move || shared.work(&receiver));
        }
        drop(receiver);
        let mut unpacker = Unpacker {
            shared: &shared,
            layer,
            bundles: sender,
            bundle: Vec::new(),
            bundle_bytes: 0,
            links: Vec::new(),
        };
        let result = work(&mut unpacker);
        // Without a sender the threads end.
        drop(unpacker);
        result
    })
}

impl Unpacker<'_> {
    /// Has something made, some time before [`Self::settle`] returns.
    pub(crate) fn make(&mut self, job: Job) -> Result<()> {
        self.bundle_bytes += job.content.len();
        self.bundle.push(job);
        if self.bundle.len() >= BUNDLE_JOBS_MAX || self.bundle_bytes >= BUNDLE_BYTES_MAX {
            self.pass_on()?;
        }
        Ok(())
    }

    /// Has a hard link made.
    pub(crate) fn link(&mut self, path: Vec<u8>, owner: Vec<u8>) {
        self.links.push((path, owner));
    }

    /// Makes an empty file and opens it, for content too large for a [`Job`].
    pub(crate) fn create(&mut self, path: &[u8]) -> Result<std::fs::File> {
        let folder =
            open_folder(self.shared.tree, path::parent(path)).map_err(self.shared.failed("open", path))?;
        create_file(&folder, &c_name(path)).map(Into::into).map_err(self.shared.failed("create", path))
    }

    /// Gives the file its owner, attributes, mode and time.
    pub(crate) fn complete(&mut self, path: &[u8], file: &std::fs::File, inode: &Inode) -> Result<()> {
        self.shared.dress(file.as_fd(), path, inode)
    }

    /// Where a path of the layer is on disk, for messages.
    pub(crate) fn shown(&self, path: &[u8]) -> PathBuf {
        self.shared.shown(path)
    }

    /// Does what the layer's new state asks for.
    pub(crate) fn apply(&mut self, changes: &[Change]) -> Result<()> {
        for change in changes {
            match change {
                Change::MakeFolder { path } => {
                    let folder = open_folder(self.shared.tree, path::parent(path))
                        .map_err(self.shared.failed("open", path))?;
                    rustix::fs::mkdirat(&folder, &*c_name(path), Mode::from_raw_mode(0o700))
                        .map_err(self.shared.failed("make the folder", path))?;
                }
                Change::Remove { path, contents } => self.remove(path, contents)?,
            }
        }
        Ok(())
    }

    /// Waits until all that was asked for is made.
    pub(crate) fn settle(&mut self) -> Result<()> {
        self.pass_on()?;
        let mut state = self.shared.state();
        while state.under_way > 0 && !state.stopped {
            state = self.shared.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        drop(state);
        for (path, owner) in std::mem::take(&mut self.links) {
            let from = open_folder(self.shared.tree, path::parent(&owner));
            let from = from.map_err(self.shared.failed("open", &owner))?;
            let to = open_folder(self.shared.tree, path::parent(&path));
            let to = to.map_err(self.shared.failed("open", &path))?;
            rustix::fs::linkat(&from, &*c_name(&owner), &to, &*c_name(&path), AtFlags::empty())
                .map_err(self.shared.failed("link", &path))?;
        }
        Ok(())
    }

    /// Gives all folders their owners, attributes, modes and times, when nothing is made in them any more.
    pub(crate) fn finish(&mut self, layer: &LayerState) -> Result<()> {
        self.settle()?;
        for (path, inode) in layer.folders() {
            let folder = open_folder(self.shared.tree, path).map_err(self.shared.failed("open", path))?;
            if inode.kind == (Kind::Folder { opaque: true }) {
                rustix::fs::fsetxattr(&folder, attributes::OPAQUE, b"y", XattrFlags::empty())
                    .map_err(self.shared.failed("set an attribute of", path))?;
            }
            self.shared.dress(folder.as_fd(), path, inode)?;
        }
        Ok(())
    }

    fn remove(&mut self, path: &[u8], contents: &[(Vec<u8>, usize)]) -> Result<()> {
        self.settle()?;
        for (path, content) in contents {
            let shadowed = self.layer.join("shadowed");
            match rustix::fs::mkdir(&shadowed, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Error::io("make the folder", &shadowed)(errno)),
            }
            let folder = open_folder(self.shared.tree, path::parent(path));
            let folder = folder.map_err(self.shared.failed("open", path))?;
            let target = shadowed.join(content.to_string());
            rustix::fs::renameat(&folder, &*c_name(path), rustix::fs::CWD, &target)
                .map_err(self.shared.failed("move", path))?;
        }
        let folder =
            open_folder(self.shared.tree, path::parent(path)).map_err(self.shared.failed("open", path))?;
        remove_at(folder.as_fd(), &c_name(path), &self.shared.shown(path))?;
        self.shared.state().generation += 1;
        Ok(())
    }

    fn pass_on(&mut self) -> Result<()> {
        let mut state = self.shared.state();
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        if self.bundle.is_empty() {
            return Ok(());
        }
        state.under_way += 1;
        drop(state);
        self.bundle_bytes = 0;
        // The threads live as long as this sender.
        let _ = self.bundles.send(std::mem::take(&mut self.bundle));
        Ok(())
    }
}

impl Shared<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, bundles: &Mutex<Receiver<Vec<Job>>>) {
        // Entries of a folder follow each other, so the last folder is nearly always the next one's, too.
        let mut opened: Option<(usize, Vec<u8>, OwnedFd)> = None;
        loop {
            let received = bundles.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(bundle) = received else { return };
            let (generation, stopped) = {
                let state = self.state();
                (state.generation, state.stopped)
            };
            // After a failure nothing is made any more, but every bundle is taken: the sender must not be kept waiting.
            let result = if stopped { Ok(()) } else { self.make_all(bundle, generation, &mut opened) };
            let mut state = self.state();
            state.under_way -= 1;
            if let Err(failure) = result {
                state.stopped = true;
                state.failure.get_or_insert(failure);
            }
            self.idle.notify_all();
        }
    }

    fn make_all(
        &self,
        bundle: Vec<Job>,
        generation: usize,
        opened: &mut Option<(usize, Vec<u8>, OwnedFd)>,
    ) -> Result<()> {
        for job in bundle {
            let parent = path::parent(&job.path);
            let folder = match opened.take() {
                Some((of, path, folder)) if of == generation && path == parent => folder,
                _ => open_folder(self.tree, parent).map_err(self.failed("open", &job.path))?,
            };
            self.make(&folder, &job)?;
            *opened = Some((generation, parent.to_vec(), folder));
        }
        Ok(())
    }

    fn make(&self, folder: &OwnedFd, job: &Job) -> Result<()> {
        let (path, inode) = (&job.path, &job.inode);
        let name = &*c_name(path);
        let node = |file_type, device| rustix::fs::mknodat(folder, name, file_type, Mode::empty(), device);
        match &inode.kind {
            Kind::File { .. } => return self.make_file(folder, job),
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(target.as_slice(), folder, name)
                    .map_err(self.failed("make the link", path))?;
                self.own(folder.as_fd(), job)?;
                return set_time(folder.as_fd(), name, inode.mtime)
                    .map_err(self.failed("set the time of", path));
            }
            Kind::Whiteout => {
                node(FileType::CharacterDevice, 0).map_err(self.failed("make the whiteout", path))?;
                return set_time(folder.as_fd(), name, inode.mtime)
                    .map_err(self.failed("set the time of", path));
            }
            Kind::Fifo => node(FileType::Fifo, 0).map_err(self.failed("make the pipe", path))?,
            Kind::CharacterDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let file_type = match inode.kind {
                    Kind::BlockDevice { .. } => FileType::BlockDevice,
                    _ => FileType::CharacterDevice,
                };
                match node(file_type, rustix::fs::makedev(*major, *minor)) {
                    Ok(()) => {}
                    // In a user namespace nobody may make devices. The manifest knows what it is.
                    Err(Errno::PERM) => return self.make_file(folder, job),
                    Err(errno) => return Err(self.failed("make the device", path)(errno)),
                }
            }
            Kind::Folder { .. } | Kind::HardLink { .. } => {
                unreachable!("folders and links are made in order, not by threads")
            }
        }
        // Opening a device or pipe could have effects, so they are dressed by name. It was made here, so it is no link.
        self.own(folder.as_fd(), job)?;
        rustix::fs::chmodat(folder, name, Mode::from_raw_mode(inode.mode), AtFlags::empty())
            .map_err(self.failed("set the mode of", path))?;
        set_time(folder.as_fd(), name, inode.mtime).map_err(self.failed("set the time of", path))
    }

    fn make_file(&self, folder: &OwnedFd, job: &Job) -> Result<()> {
        let file = create_file(folder, &c_name(&job.path)).map_err(self.failed("create", &job.path))?;
        let mut left = job.content.as_slice();
        while !left.is_empty() {
            match rustix::io::write(&file, left) {
                Ok(count) => left = &left[count..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed("write", &job.path)(errno)),
            }
        }
        self.dress(file.as_fd(), &job.path, &job.inode)
    }

    fn own(&self, folder: BorrowedFd<'_>, job: &Job) -> Result<()> {
        let owner = ids(&job.path, &job.inode)?;
        owner::change_at(folder, &*c_name(&job.path), owner)
            .map_err(|errno| self.owner_error(&job.path, &job.inode, errno))
    }

    /// Owner first, as changing it takes set-id bits and capabilities away; time last, as writing changes it.
    fn dress(&self, file: BorrowedFd<'_>, path: &[u8], inode: &Inode) -> Result<()> {
        owner::change(file, ids(path, inode)?).map_err(|errno| self.owner_error(path, inode, errno))?;
        for (name, value) in &inode.xattrs {
            let value = match name.as_slice() {
                CAPABILITY => owner::capability_for_disk(value),
                _ => value.clone(),
            };
            rustix::fs::fsetxattr(file, name.as_slice(), &value, XattrFlags::empty())
                .map_err(self.failed("set an attribute of", path))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(inode.mode))
            .map_err(self.failed("set the mode of", path))?;
        rustix::fs::futimens(file, &times(inode.mtime)).map_err(self.failed("set the time of", path))
    }

    fn owner_error(&self, path: &[u8], inode: &Inode, errno: Errno) -> Error {
        if errno == Errno::INVAL {
            Error::UnmappedOwner { path: to_path(path), uid: inode.uid, gid: inode.gid }
        } else {
            Error::io("set the owner of", &self.shown(path))(errno)
        }
    }

    fn failed(&self, action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error {
        let shown = self.shown(path);
        move |errno| Error::Io { action, path: shown, source: errno.into() }
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.tree_path.join(as_path(path))
    }
}

/// The highest id means "as it is" in the system calls, so no file can have it.
fn ids(path: &[u8], inode: &Inode) -> Result<Owner> {
    if inode.uid == u32::MAX || inode.gid == u32::MAX {
        return Err(Error::UnmappedOwner { path: to_path(path), uid: inode.uid, gid: inode.gid });
    }
    Ok((inode.uid, inode.gid))
}

fn create_file(folder: &OwnedFd, name: &CString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))
}

fn c_name(path: &[u8]) -> CString {
    CString::new(path::name(path)).expect("names with a NUL byte were refused")
}
