//! An overlay's upper folder → the manifest of a layer.
//!
//! The folder is brought in the state that the manifest describes, so that mounting it and unpacking its archive give
//! the same: what a rule drops is removed, times are set, overlay's own marks are put in order.
//!
//! What a layer holds must depend on nothing but what its step did:
//! - Entries are sorted, a file with several names belongs to the first of them.
//! - Times are whole seconds, none later than the epoch; a whiteout, which has no time of its own, gets the epoch.
//! - Sockets are left out: no archive can hold one.
//! - A folder of a lower layer is in the upper folder as soon as anything below it was written. When nothing of that is
//!   left, because a rule dropped it or the step removed it again, and its mode, owner and attributes are as below, it is
//!   left out too. So a step that wrote nothing but dropped and temporary files makes no layer.
//! - What was made for a mount, and is as empty as it was made, is removed. So a step's mounts leave no trace but what
//!   the step itself wrote beside them.
//! - Overlay marks some new folders opaque as an optimisation, which ones depends on the kernel. A mark that
//!   hides nothing, as no lower layer has a folder there, is taken off.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use ibid_core::scrub::{self, Action, EntryType};
use ibid_sys::owner::{self, Owner};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;

use crate::attributes::{self, Attributes};
use crate::draft::CommitRules;
use crate::header::WHITEOUT_PREFIX;
use crate::lowers::Lowers;
use crate::manifest::{Entry, Kind, Manifest};
use crate::path::{self, LayerPath, as_path, to_path};
use crate::remove::remove_at;
use crate::rewrite::{self, Rewritten};
use crate::{Error, Result};

/// Threads that look at folders: the work is system calls, and more than a few wait for each other.
const THREADS_MAX: usize = 4;

/// Largest file whose content is read for a rule, bytes; real ones are far smaller.
const READ_BYTES_MAX: u64 = 64 << 20;

/// Brings `upper` in order by `rules` and lists it.
pub(crate) fn scan(upper: &Path, rules: &CommitRules) -> Result<Manifest> {
    let root = open_root(upper)?;
    remove_mount_points(root.as_fd(), upper, &rules.mount_points)?;
    let scan = Scan { root: root.as_fd(), upper, rules, progress: Mutex::default(), changed: Condvar::new() };
    scan.progress().pending.push(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| scan.work());
        }
        scan.work();
    });
    let progress = scan.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = progress.failure {
        return Err(error);
    }
    let mut found = progress.found;
    found.sort_unstable_by(|a, b| path::compare(&a.entry.path, &b.entry.path));
    let lowers = Lowers::new(&rules.lowers);
    let keeps_times = rules.keep_nondeterminism;
    let mut finish = Finish { root: root.as_fd(), upper, lowers, keeps_times };
    finish.take_off_needless_marks(&mut found)?;
    let mut found = finish.leave_out_emptied_folders(found)?;
    finish.set_folder_times(&found)?;
    name_hard_links(&mut found);
    Ok(Manifest { entries: found.into_iter().map(|found| found.entry).collect() })
}

/// Removes those of `mount_points` that are still empty.
///
/// What the step did to them is its own: a path that leads through a link now, a folder or file that holds something
/// and anything else stays.
fn remove_mount_points(root: BorrowedFd<'_>, upper: &Path, mount_points: &[PathBuf]) -> Result<()> {
    let mut deepest_first: Vec<&Path> =
        mount_points.iter().map(|path| path.strip_prefix("/").unwrap_or(path)).collect();
    deepest_first.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in deepest_first {
        let bytes = path.as_os_str().as_bytes();
        let (parent, Some(name)) = (path::parent(bytes), path.file_name()) else { continue };
        let failed = |action, errno| Err(Error::io(action, &upper.join(path))(errno));
        let folder = match open_folder(root, parent) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(errno) => return failed("open the folder of", errno),
        };
        let status = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::NOENT) => continue,
            Err(errno) => return failed("look at", errno),
        };
        let flags = match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => AtFlags::REMOVEDIR,
            FileType::RegularFile if status.st_size == 0 => AtFlags::empty(),
            _ => continue,
        };
        match rustix::fs::unlinkat(&folder, name, flags) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return failed("remove", errno),
        }
    }
    Ok(())
}

/// An entry, and what serves to complete it.
struct Found {
    entry: Entry,
    /// Device and inode of a file with several names.
    shared: Option<(u64, u64)>,
}

struct Scan<'a> {
    root: BorrowedFd<'a>,
    upper: &'a Path,
    rules: &'a CommitRules,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Folders to look at.
    pending: Vec<Vec<u8>>,
    /// Threads that are looking at one, and may find more.
    busy: usize,
    found: Vec<Found>,
    failure: Option<Error>,
}

/// What one folder gave.
#[derive(Default)]
struct Level {
    found: Vec<Found>,
    folders: Vec<Vec<u8>>,
}

impl Scan<'_> {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at folders until there are none.
    fn work(&self) {
        let mut progress = self.progress();
        loop {
            if progress.failure.is_some() {
                return;
            }
            let Some(folder) = progress.pending.pop() else {
                if progress.busy == 0 {
                    return;
                }
                progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            progress.busy += 1;
            drop(progress);
            let result = self.level(&folder);
            progress = self.progress();
            progress.busy -= 1;
            match result {
                Ok(mut level) => {
                    progress.found.append(&mut level.found);
                    progress.pending.append(&mut level.folders);
                }
                Err(error) => progress.failure = Some(error),
            }
            self.changed.notify_all();
        }
    }

    fn level(&self, folder: &[u8]) -> Result<Level> {
        let shown = || self.upper.join(as_path(folder));
        let opened = open_folder(self.root, folder).map_err(|errno| Error::io("open", &shown())(errno))?;
        let mut names = Vec::new();
        for listed in
            Dir::read_from(&opened).map_err(|errno| Error::io("read the folder", &shown())(errno))?
        {
            let listed = listed.map_err(|errno| Error::io("read the folder", &shown())(errno))?;
            if listed.file_name() != c"." && listed.file_name() != c".." {
                names.push(listed.file_name().to_owned());
            }
        }
        let mut level = Level::default();
        let maker = self.maker_in(&opened).map_err(Error::io("look at", &shown()))?;
        for name in names {
            self.entry(&opened, folder, &name, maker, &mut level)?;
        }
        Ok(level)
    }

    /// Who owns what was made in a folder and never given away, where files have their owners beside them.
    fn maker_in(&self, folder: &OwnedFd) -> rustix::io::Result<Owner> {
        let (uid, gid) = self.rules.maker;
        if owner::only_uid().is_none() {
            return Ok((uid, gid));
        }
        // What is made in a folder with this bit has the folder's group (inode(7)).
        let sets_group = Mode::from_raw_mode(rustix::fs::fstat(folder)?.st_mode).contains(Mode::SGID);
        let of_folder = match sets_group {
            true => owner::read(in_folder(folder, c"."))?,
            false => None,
        };
        Ok((uid, of_folder.map_or(gid, |(_, gid)| gid)))
    }

    /// The owner of an entry. From here on it is written beside it.
    fn owner(
        &self,
        folder: &OwnedFd,
        name: &CStr,
        status: &Statx,
        maker: Owner,
    ) -> rustix::io::Result<Owner> {
        if !owner::needs_more_than(status.stx_uid, status.stx_gid) {
            return Ok((status.stx_uid, status.stx_gid));
        }
        let status = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if let Some(owner) = owner::take(in_folder(folder, name), &status)? {
            return Ok(owner);
        }
        if owner::holds_attribute(&status) {
            owner::change_at(folder, name, maker)?;
        }
        Ok(maker)
    }

    fn entry(
        &self,
        folder: &OwnedFd,
        folder_path: &[u8],
        name: &CStr,
        maker: Owner,
        level: &mut Level,
    ) -> Result<()> {
        let path = path::join(folder_path, name.to_bytes());
        if path.len() > path::PATH_BYTES_MAX {
            return Err(Error::Unrepresentable { path: to_path(&path), reason: "its path is too long" });
        }
        if name.to_bytes().starts_with(WHITEOUT_PREFIX) {
            let reason = "in an archive, a name that starts with `.wh.` deletes a file";
            return Err(Error::Unrepresentable { path: to_path(&path), reason });
        }
        let shown = || self.upper.join(as_path(&path));
        let status = look(folder.as_fd(), name).map_err(|errno| Error::io("look at", &shown())(errno))?;
        let file_type = FileType::from_raw_mode(status.stx_mode.into());
        let is_whiteout_device = file_type == FileType::CharacterDevice
            && (status.stx_rdev_major, status.stx_rdev_minor) == (0, 0);
        let rule = self.rule(&path, file_type).filter(|_| !is_whiteout_device);
        if file_type == FileType::Socket || rule == Some(Action::Drop) {
            return remove_at(folder.as_fd(), name, &shown());
        }
        let attributes = match file_type {
            FileType::RegularFile | FileType::Directory => {
                attributes::read(&in_folder(folder, name), &shown())?
            }
            // Others can have none that a layer keeps.
            _ => Attributes::default(),
        };
        for stale in &attributes.stale {
            rustix::fs::lremovexattr(in_folder(folder, name), stale.as_slice())
                .map_err(|errno| Error::io("remove an attribute of", &shown())(errno))?;
        }
        if is_whiteout_device || (file_type == FileType::RegularFile && attributes.whiteout) {
            if !is_whiteout_device {
                replace_by_whiteout(folder, name).map_err(|errno| Error::io("make", &shown())(errno))?;
            }
            level.found.push(Found { entry: self.whiteout(path, &status), shared: None });
            return Ok(());
        }
        let kind = match file_type {
            FileType::RegularFile => {
                let size = match rule {
                    Some(action) if status.stx_size <= READ_BYTES_MAX => {
                        self.rewrite(folder, name, action, &shown())?
                    }
                    _ => Some(status.stx_size),
                };
                let Some(size) = size else {
                    return remove_at(folder.as_fd(), name, &shown());
                };
                match self.rules.devices.get(&path).filter(|_| size == 0) {
                    Some(device) => device.clone(),
                    None => Kind::File { size },
                }
            }
            FileType::Directory => {
                level.folders.push(path.clone());
                Kind::Folder { opaque: attributes.opaque }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())
                    .map_err(|errno| Error::io("read the link", &shown())(errno))?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::CharacterDevice => {
                Kind::CharacterDevice { major: status.stx_rdev_major, minor: status.stx_rdev_minor }
            }
            FileType::BlockDevice => {
                Kind::BlockDevice { major: status.stx_rdev_major, minor: status.stx_rdev_minor }
            }
            FileType::Fifo => Kind::Fifo,
            _ => {
                return Err(Error::Unrepresentable {
                    path: to_path(&path),
                    reason: "it is of an unknown type",
                });
            }
        };
        let mtime = self.clamp(status.stx_mtime.tv_sec);
        // A folder's time is set when no more is removed from it.
        if file_type != FileType::Directory
            && (status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec) != (mtime, 0)
        {
            set_time(folder.as_fd(), name, mtime)
                .map_err(|errno| Error::io("set the time of", &shown())(errno))?;
        }
        let shared = (file_type != FileType::Directory && status.stx_nlink > 1).then(|| {
            (u64::from(status.stx_dev_major) << 32 | u64::from(status.stx_dev_minor), status.stx_ino)
        });
        let (uid, gid) = self
            .owner(folder, name, &status, maker)
            .map_err(|errno| Error::io("read the owner of", &shown())(errno))?;
        let entry = Entry {
            path,
            kind,
            mode: u32::from(status.stx_mode) & 0o7777,
            uid,
            gid,
            mtime,
            xattrs: attributes.kept,
        };
        level.found.push(Found { entry, shared });
        Ok(())
    }

    fn rule(&self, path: &[u8], file_type: FileType) -> Option<Action> {
        if self.rules.keep_nondeterminism {
            return None;
        }
        let entry_type = match file_type {
            FileType::RegularFile => EntryType::File,
            FileType::Directory => EntryType::Folder,
            _ => EntryType::Other,
        };
        Some(scrub::rule_for(path, entry_type)?.action)
    }

    fn clamp(&self, mtime: i64) -> i64 {
        if self.rules.keep_nondeterminism { mtime } else { mtime.min(self.rules.epoch) }
    }

    fn whiteout(&self, path: Vec<u8>, status: &Statx) -> Entry {
        let mtime = if self.rules.keep_nondeterminism { status.stx_mtime.tv_sec } else { self.rules.epoch };
        Entry { path, kind: Kind::Whiteout, mode: 0, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
    }

    /// Changes a file's content as a rule says. Returns its new size; none when the file is to go.
    fn rewrite(&self, folder: &OwnedFd, name: &CStr, action: Action, shown: &Path) -> Result<Option<u64>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(Error::io("open", shown))?;
        let mut file = std::fs::File::from(file);
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(Error::io("read", shown))?;
        match rewrite::rewritten(action, &content, self.rules.epoch) {
            Rewritten::Same => Ok(Some(content.len() as u64)),
            Rewritten::Nothing => Ok(None),
            Rewritten::Content(new) => {
                file.set_len(0)
                    .and_then(|()| file.write_all_at(&new, 0))
                    .map_err(Error::io("write", shown))?;
                Ok(Some(new.len() as u64))
            }
        }
    }
}

/// What is done when all entries are known and sorted.
struct Finish<'a> {
    root: BorrowedFd<'a>,
    upper: &'a Path,
    lowers: Lowers<'a>,
    /// Then a folder whose time changed is kept for that alone.
    keeps_times: bool,
}

impl Finish<'_> {
    fn take_off_needless_marks(&mut self, found: &mut [Found]) -> Result<()> {
        if self.lowers.is_empty() {
            return Ok(());
        }
        // The opaque folder that the entries at hand are in: nothing of the lower layers shows through it.
        let mut within: Option<Vec<u8>> = None;
        for found in found {
            let entry = &mut found.entry;
            let hidden = within.as_ref().is_some_and(|folder| path::is_below(&entry.path, folder));
            if !hidden {
                within = None;
            }
            let Kind::Folder { opaque } = &mut entry.kind else { continue };
            if !*opaque {
                continue;
            }
            if hidden || self.lowers.folder(&entry.path)?.is_none() {
                *opaque = false;
                let opened = open_folder(self.root, &entry.path)
                    .map_err(|errno| Error::io("open", &self.shown(&entry.path))(errno))?;
                rustix::fs::fremovexattr(&opened, attributes::OPAQUE)
                    .map_err(|errno| Error::io("remove an attribute of", &self.shown(&entry.path))(errno))?;
            }
            if !hidden {
                // Whether it keeps its mark or has nothing to hide: below it, no lower layer shows.
                within = Some(entry.path.clone());
            }
        }
        Ok(())
    }

    fn leave_out_emptied_folders(&mut self, found: Vec<Found>) -> Result<Vec<Found>> {
        if self.keeps_times || self.lowers.is_empty() {
            return Ok(found);
        }
        let mut kept = Vec::with_capacity(found.len());
        // From the last to the first, what is in a folder comes before the folder.
        let mut filled: BTreeSet<LayerPath> = BTreeSet::new();
        for found in found.into_iter().rev() {
            let entry = &found.entry;
            let folder = LayerPath(entry.path.clone());
            if entry.kind == (Kind::Folder { opaque: false })
                && !filled.contains(&folder)
                && self.lowers.folder(&entry.path)?.is_some_and(|lower| lower.is_like(entry))
            {
                rustix::fs::unlinkat(self.root, entry.path.as_slice(), AtFlags::REMOVEDIR)
                    .map_err(|errno| Error::io("remove", &self.shown(&entry.path))(errno))?;
                continue;
            }
            filled.insert(LayerPath(path::parent(&entry.path).to_vec()));
            kept.push(found);
        }
        kept.reverse();
        Ok(kept)
    }

    fn set_folder_times(&self, found: &[Found]) -> Result<()> {
        for Found { entry, .. } in found {
            if matches!(entry.kind, Kind::Folder { .. }) {
                set_time(self.root, entry.path.as_slice(), entry.mtime)
                    .map_err(|errno| Error::io("set the time of", &self.shown(&entry.path))(errno))?;
            }
        }
        Ok(())
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.upper.join(as_path(path))
    }
}

/// Of the names of a file, the first in order keeps its entry, the others become links to it.
fn name_hard_links(found: &mut [Found]) {
    let mut owners: HashMap<(u64, u64), usize> = HashMap::new();
    for index in 0..found.len() {
        let Some(inode) = found[index].shared else { continue };
        if let Some(&owner) = owners.get(&inode) {
            found[index].entry.kind = Kind::HardLink { owner: found[owner].entry.path.clone() };
            // Names are seen one after the other, and a rule can have changed the file in between.
            let Entry { mode, uid, gid, mtime, xattrs, .. } = found[owner].entry.clone();
            let entry = &mut found[index].entry;
            (entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs) = (mode, uid, gid, mtime, xattrs);
        } else {
            owners.insert(inode, index);
        }
    }
}

fn replace_by_whiteout(folder: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
    rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
    rustix::fs::mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), 0)
}

fn look(folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Statx> {
    rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
}

/// Sets the time of last change, of a link itself where it is one.
pub(crate) fn set_time(
    folder: BorrowedFd<'_>,
    name: impl rustix::path::Arg,
    mtime: i64,
) -> rustix::io::Result<()> {
    rustix::fs::utimensat(folder, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// `mtime` as time of last change, time of last access as it is.
pub(crate) fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 },
    }
}

/// A name of an entry that path-based calls understand, however deep its folder is.
pub(crate) fn in_folder(folder: &OwnedFd, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).expect("a name holds no NUL")
}

fn open_root(upper: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(upper, flags, Mode::empty()).map_err(Error::io("open", upper))
}

/// Opens a folder of a tree, following no link on the way. The empty path is the tree's root.
pub(crate) fn open_folder(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    open_folder_for(OFlags::RDONLY, root, path)
}

/// As [`open_folder`], to go through it only, which needs no right to read it.
pub(crate) fn find_folder(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    open_folder_for(OFlags::PATH, root, path)
}

fn open_folder_for(access: OFlags, root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b".".as_slice() } else { path };
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}
