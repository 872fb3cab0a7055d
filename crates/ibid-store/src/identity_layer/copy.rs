//! Copies with another owner.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ibid_sys::owner::{self, Owner};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::visible::{Changed, ChangedFile, ChangedFolder};
use crate::layers::open_tree;
use crate::manifest::{Entry, Kind};
use crate::path::{self, as_path};
use crate::scan::{open_folder, set_time, times};
use crate::{Error, Result};

/// Threads that copy files.
const THREADS_MAX: usize = 4;
/// What fails where a file cannot be read.
const READ: &str = "open to read";
/// Files that a thread takes at once: those of a folder mostly follow each other.
const FILES_AT_ONCE: usize = 64;
/// Bytes that the kernel is asked to copy at once.
const COPY_BYTES_MAX: usize = 1 << 30;
/// Bytes that are read at once where the kernel copies nothing by itself.
const BUFFER_BYTES: usize = 1 << 20;

/// Makes all of it in an empty tree. Returns how many files cannot be read and are left out.
pub(super) fn into_tree(tree: &Path, changed: &Changed<'_>) -> Result<usize> {
    let target = Target { root: open_tree(tree)?, path: tree };
    let mut unreadable: BTreeSet<&[u8]> = BTreeSet::new();
    for ChangedFolder { tree, entry, .. } in &changed.folders {
        if unreadable.contains(path::parent(&entry.path)) || !may_be_read(tree, entry)? {
            unreadable.insert(&entry.path);
            continue;
        }
        let (folder, name) = target.place(&entry.path)?;
        rustix::fs::mkdirat(&folder, &*name, Mode::from_raw_mode(0o700))
            .map_err(target.failed("make the folder", &entry.path))?;
    }
    let left_out = copy_files(&target, &changed.files, &unreadable)?;
    // Last, and those in a folder before it: making something in a folder changes its time, and it may be one that not even
    // its owner can write.
    for ChangedFolder { entry, owner, .. } in changed.folders.iter().rev() {
        if unreadable.contains(entry.path.as_slice()) {
            continue;
        }
        let folder =
            open_folder(target.root.as_fd(), &entry.path).map_err(target.failed("open", &entry.path))?;
        target.dress(folder.as_fd(), entry, *owner)?;
    }
    Ok(left_out)
}

/// Whether this process may read a folder of a layer. In its own store it may read all; one of somebody else's that it may not
/// read would look empty under another owner.
fn may_be_read(tree: &Path, entry: &Entry) -> Result<bool> {
    let shown = tree.join(as_path(&entry.path));
    match open_folder(open_tree(tree)?.as_fd(), &entry.path) {
        Ok(_) => Ok(true),
        Err(Errno::ACCESS) => Ok(false),
        Err(errno) => Err(Error::io(READ, &shown)(errno)),
    }
}

fn copy_files(target: &Target<'_>, files: &[ChangedFile<'_>], unreadable: &BTreeSet<&[u8]>) -> Result<usize> {
    let (next, stopped, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let left_out = AtomicUsize::new(0);
    let work = || {
        // Entries of a folder follow each other: where the last one came from and went to is mostly the next one's place, too.
        let mut opened = None;
        while !stopped.load(Ordering::Relaxed) {
            let from = next.fetch_add(FILES_AT_ONCE, Ordering::Relaxed);
            let Some(rest) = files.get(from..).filter(|rest| !rest.is_empty()) else { return };
            for file in &rest[..rest.len().min(FILES_AT_ONCE)] {
                if file.names.iter().any(|name| unreadable.contains(path::parent(name))) {
                    left_out.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                match target.copy(file, &mut opened) {
                    Ok(()) => {}
                    Err(Error::Io { action: READ, source, .. })
                        if source.kind() == ErrorKind::PermissionDenied =>
                    {
                        left_out.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => {
                        stopped.store(true, Ordering::Relaxed);
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        return;
                    }
                }
            }
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(THREADS_MAX).min(files.len().div_ceil(FILES_AT_ONCE));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(left_out.into_inner()),
    }
}

/// The tree that is made.
struct Target<'a> {
    root: OwnedFd,
    path: &'a Path,
}

/// The folders that a thread had open last: in which tree, its path there, the folder there and the one to copy to.
struct OpenedFolders<'a> {
    tree: &'a Path,
    folder: &'a [u8],
    from: OwnedFd,
    /// By the path of the folder, which is another where the first name is hidden.
    to: (&'a [u8], OwnedFd),
}

impl Target<'_> {
    fn copy<'f>(&self, file: &ChangedFile<'f>, opened: &mut Option<OpenedFolders<'f>>) -> Result<()> {
        let entry = file.entry;
        let (first, others) = file.names.split_first().expect("a file that can be seen has a name");
        let (from_path, to_path) = (path::parent(&entry.path), path::parent(first));
        let folders = match opened.take() {
            Some(known) if known.tree == file.tree && known.folder == from_path && known.to.0 == to_path => {
                known
            }
            _ => {
                let shown = file.tree.join(as_path(from_path));
                let source = open_tree(file.tree)?;
                let from = open_folder(source.as_fd(), from_path).map_err(Error::io(READ, &shown))?;
                let to = open_folder(self.root.as_fd(), to_path).map_err(self.failed("open", to_path))?;
                OpenedFolders { tree: file.tree, folder: from_path, from, to: (to_path, to) }
            }
        };
        let (folder, name) = (&folders.to.1, c_name(first));
        match &entry.kind {
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(target.as_slice(), folder, &*name)
                    .map_err(self.failed("make the link", first))?;
                self.name_and_time(folder, &name, entry, file.owner)?;
            }
            Kind::Fifo => {
                rustix::fs::mknodat(folder, &*name, FileType::Fifo, Mode::empty(), 0)
                    .map_err(self.failed("make the pipe", first))?;
                // By name: to open a pipe waits for who writes. It was made here, so it is no link.
                owner::change_at(folder, &*name, file.owner)
                    .map_err(self.failed("set the owner of", first))?;
                rustix::fs::chmodat(folder, &*name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                    .map_err(self.failed("set the mode of", first))?;
                set_time(folder.as_fd(), &*name, entry.mtime)
                    .map_err(self.failed("set the time of", first))?;
            }
            _ => self.copy_content(&folders.from, folder, &name, file)?,
        }
        for other in others {
            let (place, other_name) = self.place(other)?;
            rustix::fs::linkat(folder, &*name, &place, &*other_name, AtFlags::empty())
                .map_err(self.failed("link", other))?;
        }
        *opened = Some(folders);
        Ok(())
    }

    fn name_and_time(&self, folder: &OwnedFd, name: &CString, entry: &Entry, owner: Owner) -> Result<()> {
        owner::change_at(folder, &**name, owner).map_err(self.failed("set the owner of", &entry.path))?;
        set_time(folder.as_fd(), &**name, entry.mtime).map_err(self.failed("set the time of", &entry.path))
    }

    fn copy_content(
        &self,
        from: &OwnedFd,
        folder: &OwnedFd,
        name: &CString,
        file: &ChangedFile<'_>,
    ) -> Result<()> {
        let entry = file.entry;
        let shown = file.tree.join(as_path(&entry.path));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source =
            rustix::fs::openat(from, OsStr::from_bytes(path::name(&entry.path)), flags, Mode::empty())
                .map_err(Error::io(READ, &shown))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(folder, &**name, flags, Mode::from_raw_mode(0o600))
            .map_err(self.failed("create", &entry.path))?;
        let bytes = content(&source, &made).map_err(Error::io("copy", &shown))?;
        if entry.kind != (Kind::File { size: bytes }) {
            let reason = format!("it has {bytes} bytes, which is not what its layer's manifest says");
            return Err(Error::Damaged { path: shown, reason });
        }
        self.dress(made.as_fd(), entry, file.owner)
    }

    /// As [`crate::unpack`] does it: owner first, as changing it takes set-id bits and capabilities away; time last.
    fn dress(&self, made: BorrowedFd<'_>, entry: &Entry, owner: Owner) -> Result<()> {
        owner::change(made, owner).map_err(self.failed("set the owner of", &entry.path))?;
        for (name, value) in &entry.xattrs {
            rustix::fs::fsetxattr(made, name.as_slice(), value, XattrFlags::empty())
                .map_err(self.failed("set an attribute of", &entry.path))?;
        }
        rustix::fs::fchmod(made, Mode::from_raw_mode(entry.mode))
            .map_err(self.failed("set the mode of", &entry.path))?;
        rustix::fs::futimens(made, &times(entry.mtime)).map_err(self.failed("set the time of", &entry.path))
    }

    fn place(&self, path: &[u8]) -> Result<(OwnedFd, CString)> {
        let folder = open_folder(self.root.as_fd(), path::parent(path)).map_err(self.failed("open", path))?;
        Ok((folder, c_name(path)))
    }

    fn failed(&self, action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error {
        let shown = self.path.join(as_path(path));
        move |errno| Error::Io { action, path: shown, source: errno.into() }
    }
}

/// Copies what is in `source`, with shared blocks where the file system can. Returns how many bytes that is.
fn content(source: &OwnedFd, made: &OwnedFd) -> rustix::io::Result<u64> {
    if rustix::fs::ioctl_ficlone(made, source).is_ok() {
        return Ok(rustix::fs::fstat(made)?.st_size.unsigned_abs());
    }
    let mut bytes = 0;
    loop {
        match rustix::fs::copy_file_range(source, None, made, None, COPY_BYTES_MAX) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes += count as u64,
            Err(Errno::INTR) => {}
            // Old kernels refuse it between file systems, some file systems and sandboxes altogether.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) if bytes == 0 => {
                break;
            }
            Err(errno) => return Err(errno),
        }
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match rustix::io::read(source, &mut *buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut left = &buffer[..count];
        while !left.is_empty() {
            match rustix::io::write(made, left) {
                Ok(written) => left = &left[written..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        bytes += count as u64;
    }
}

fn c_name(path: &[u8]) -> CString {
    CString::new(path::name(path)).expect("a manifest's paths hold no NUL byte")
}
