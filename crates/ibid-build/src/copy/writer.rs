//! Writing the entries of one source into the image: folders, links and devices at once, files in several threads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ibid_core::mode::ModeChange;
use ibid_sys::owner;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::target::{Owner, Target, file_type, in_image, open_folder, own};
use super::{Devices, Error};
use crate::context::{Context, Entry, Kind};

/// Threads that write files. Creating them, not reading, takes the time.
const WRITERS: usize = 2;
/// Files that a thread takes at once, at most: those of one folder, as one thread waits for another that makes files in the same.
const BATCH_MAX: usize = 256;
/// Files that wait to be written, at most.
const PENDING_MAX: usize = 20_000;

/// Where entries come from, and what they are to be in the image.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) from: &'a Context,
    pub(super) metadata: Metadata<'a>,
    /// Owner of everything; none keeps what the source has.
    pub(super) owner: Option<Owner>,
    pub(super) chmod: Option<&'a ModeChange>,
    pub(super) conflicts: Conflicts<'a>,
}

/// What of an entry's metadata goes into the image.
#[derive(Clone, Copy)]
pub(super) enum Metadata<'a> {
    /// Whether a file may be executed; nothing else depends on who builds. For the build context.
    Normalised,
    /// Nothing: only root may read and write it. For what was fetched.
    Fetched,
    /// Everything: modes, owners, times, attributes, hard links, devices. For other layers. Devices that are empty
    /// files there, as nobody could make them, are looked up here.
    Kept(&'a Devices),
}

/// What becomes of a folder where a file is to be, and the other way round.
#[derive(Clone, Copy)]
pub(super) enum Conflicts<'a> {
    /// That is an error, as `cp` has it.
    Refused,
    /// What was there goes, as `tar` has it. Folders that the archive does not list, which are named here, stay what
    /// they are, and links to folders are followed for them.
    Replaced(&'a BTreeSet<Vec<u8>>),
}

impl Source<'_> {
    fn replaces(&self) -> bool {
        matches!(self.conflicts, Conflicts::Replaced(_))
    }

    /// Whether the folder is only there for what is in it.
    fn is_implied(&self, folder: &Entry) -> bool {
        match self.conflicts {
            Conflicts::Refused => false,
            Conflicts::Replaced(implied) => implied.contains(folder.path().as_os_str().as_bytes()),
        }
    }
}

/// A file to be written, once its folder exists.
struct FileTask<'a> {
    source: Source<'a>,
    folder: Arc<OwnedFd>,
    name: OsString,
    /// Path in the image.
    path: PathBuf,
    entry: &'a Entry,
    mode: u32,
    owner: Owner,
    stat: Option<Stat>,
}

/// Writes entries in their order: what comes later wins.
pub(super) struct Writer<'a> {
    target: &'a mut Target,
    /// Owner of folders that must be made on the way.
    made_owner: Owner,
    pending: Vec<FileTask<'a>>,
    pending_paths: HashSet<PathBuf>,
    /// The first path of each file with several names, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
    /// Times of folders, to be set when nothing is written in them any more.
    folder_times: Vec<(PathBuf, Timestamps)>,
    /// Where folders of the source are in the image, when that is not where their paths say.
    moved: HashMap<PathBuf, PathBuf>,
    devices: Devices,
}

impl<'a> Writer<'a> {
    pub(super) fn new(target: &'a mut Target, made_owner: Owner) -> Self {
        Self {
            target,
            made_owner,
            pending: Vec::new(),
            pending_paths: HashSet::new(),
            linked: HashMap::new(),
            folder_times: Vec::new(),
            moved: HashMap::new(),
            devices: Devices::default(),
        }
    }

    pub(super) fn target(&mut self) -> &mut Target {
        self.target
    }

    /// The start of another source: its hard links are its own.
    pub(super) fn start(&mut self) {
        self.linked.clear();
        self.moved.clear();
    }

    /// Makes a destination folder.
    pub(super) fn folder(&mut self, path: &Path) -> Result<(), Error> {
        self.settle(path)?;
        self.target.folder(path, self.made_owner).map(drop)
    }

    /// Writes a file that has no source but its content.
    pub(super) fn content(
        &mut self,
        path: &Path,
        content: &[u8],
        mode: u32,
        owner: Owner,
    ) -> Result<(), Error> {
        self.settle(path)?;
        let (folder, name) = self.target.place(path, self.made_owner)?;
        create_file(&folder, &name, path, mode, owner, |file| {
            file.write_all(content).map_err(in_image("write", path))
        })
    }

    /// Writes one entry at a path. Folders come before what they hold.
    pub(super) fn entry(&mut self, source: Source<'a>, path: PathBuf, entry: &'a Entry) -> Result<(), Error> {
        let path = match path.parent().and_then(|parent| self.moved.get(parent)) {
            Some(parent) => {
                let real = parent.join(path.file_name().expect("a path with a parent has a name"));
                if entry.kind == Kind::Folder {
                    self.moved.insert(path, real.clone());
                }
                real
            }
            None => path,
        };
        let stat = match source.metadata {
            Metadata::Normalised | Metadata::Fetched => None,
            Metadata::Kept(_) => Some(stat_source(source.from, entry)?),
        };
        let is_folder = entry.kind == Kind::Folder;
        let mode = match (&stat, source.metadata, &entry.kind) {
            (Some(stat), ..) => stat.st_mode & 0o7777,
            (None, Metadata::Fetched, _) => 0o600,
            (None, _, Kind::File { executable: false }) => 0o644,
            (None, ..) => 0o755,
        };
        let mode = source.chmod.map_or(mode, |change| change.apply(mode, is_folder));
        let owner = match (source.owner, &stat) {
            (Some(owner), _) => owner,
            (None, Some(stat)) => kept_owner(source.from, entry, stat)?,
            (None, None) => (0, 0),
        };
        self.settle(&path)?;
        match &entry.kind {
            Kind::Folder => self.copied_folder(source, &path, entry, mode, owner, stat.as_ref()),
            Kind::Link { target } => self.link(source, &path, target, owner, stat.as_ref()),
            Kind::Special => match &stat {
                Some(stat) => self.special(source, &path, mode, owner, stat),
                None => Ok(()),
            },
            Kind::File { .. } => {
                if let (Metadata::Kept(devices), 0) = (source.metadata, entry.size())
                    && let Some(device) = devices.get(entry.path())
                {
                    self.devices.insert(path.clone(), device);
                }
                self.file(source, path, entry, mode, owner, stat)
            }
        }
    }

    /// Writes what is still to be written. Gives the devices that nobody could make: empty files stand for them.
    pub(super) fn finish(mut self) -> Result<Devices, Error> {
        self.flush()?;
        // Those inside others first, as setting nothing but a time changes no other.
        for (path, times) in self.folder_times.iter().rev() {
            let Some(name) = path.file_name() else { continue };
            let (folder, _) = self.target.place(path, self.made_owner)?;
            rustix::fs::utimensat(&*folder, name, times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(in_image("set the time of", path))?;
        }
        Ok(self.devices)
    }

    /// Makes sure that nothing is written at a path later than what comes now.
    fn settle(&mut self, path: &Path) -> Result<(), Error> {
        self.devices.remove(path);
        let is_full = self.pending.len() >= PENDING_MAX || self.target.is_crowded();
        if is_full || self.pending_paths.contains(path) {
            self.flush()?;
            if is_full {
                self.target.close();
            }
        }
        Ok(())
    }

    fn copied_folder(
        &mut self,
        source: Source,
        path: &Path,
        entry: &Entry,
        mode: u32,
        owner: Owner,
        stat: Option<&Stat>,
    ) -> Result<(), Error> {
        let (parent, name) = self.target.place(path, self.made_owner)?;
        let is_implied = source.is_implied(entry);
        match self.target.stat(path)?.map(|found| file_type(&found)) {
            None if is_implied => return self.target.make_folder(&parent, &name, path, 0o755, (0, 0)),
            None => self.target.make_folder(&parent, &name, path, mode, owner)?,
            Some(FileType::Directory) if is_implied => return Ok(()),
            // Merged, and its metadata too.
            Some(FileType::Directory) => own(&open_folder(&parent, &name, path)?, path, mode, owner)?,
            Some(FileType::Symlink) if is_implied => {
                let real = self.target.follow(path)?;
                self.target.folder(&real, (0, 0))?;
                self.moved.insert(path.to_owned(), real);
                return Ok(());
            }
            Some(_) if source.replaces() && !is_implied => {
                self.target.remove(path)?;
                self.target.make_folder(&parent, &name, path, mode, owner)?;
            }
            Some(_) => {
                return Err(Error::Kind { path: path.to_owned(), found: "no folder", wanted: "a folder" });
            }
        }
        if let Some(stat) = stat {
            let folder = open_folder(&parent, &name, path)?;
            copy_attributes(&source.from.path_of(entry), &folder, path)?;
            self.folder_times.push((path.to_owned(), times(stat)));
        }
        Ok(())
    }

    fn link(
        &mut self,
        source: Source,
        path: &Path,
        target: &[u8],
        owner: Owner,
        stat: Option<&Stat>,
    ) -> Result<(), Error> {
        let (folder, name) = self.target.place(path, self.made_owner)?;
        self.make_way(source, &folder, &name, path, "a symbolic link")?;
        rustix::fs::symlinkat(target, &*folder, &*name).map_err(in_image("make the link", path))?;
        dress(&folder, &name, path, owner, stat)
    }

    /// Makes a device or pipe.
    fn special(
        &mut self,
        source: Source,
        path: &Path,
        mode: u32,
        owner: Owner,
        stat: &Stat,
    ) -> Result<(), Error> {
        let file_type = file_type(stat);
        // A whiteout, which a layer by itself shows; and what no layer can hold.
        if (file_type, stat.st_rdev) == (FileType::CharacterDevice, 0) || file_type == FileType::Socket {
            return Ok(());
        }
        let (folder, name) = self.target.place(path, self.made_owner)?;
        self.make_way(source, &folder, &name, path, "a device or pipe")?;
        let device = if file_type == FileType::Fifo { 0 } else { stat.st_rdev };
        rustix::fs::mknodat(&*folder, &*name, file_type, Mode::empty(), device)
            .map_err(in_image("make the device or pipe", path))?;
        dress(&folder, &name, path, owner, Some(stat))?;
        // By its name, as opening it could have effects. It was made here, so it is no link.
        rustix::fs::chmodat(&*folder, &*name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(in_image("set the mode of", path))
    }

    fn file(
        &mut self,
        source: Source<'a>,
        path: PathBuf,
        entry: &'a Entry,
        mode: u32,
        owner: Owner,
        stat: Option<Stat>,
    ) -> Result<(), Error> {
        let (folder, name) = self.target.place(&path, self.made_owner)?;
        if source.replaces() && self.target.is_folder(&path)? {
            self.target.remove(&path)?;
        }
        let inode = stat.as_ref().filter(|stat| stat.st_nlink > 1).map(|stat| (stat.st_dev, stat.st_ino));
        if let Some(first) = inode.and_then(|inode| self.linked.get(&inode).cloned()) {
            self.make_way(source, &folder, &name, &path, "a file")?;
            let (first_folder, first_name) = self.target.place(&first, self.made_owner)?;
            return rustix::fs::linkat(&*first_folder, &*first_name, &*folder, &*name, AtFlags::empty())
                .map_err(in_image("make the hard link", &path));
        }
        let task = FileTask { source, folder, name, path, entry, mode, owner, stat };
        if let Some(inode) = inode {
            // Other names of it follow, and need it.
            write_file(&task)?;
            self.linked.insert(inode, task.path);
            return Ok(());
        }
        self.pending_paths.insert(task.path.clone());
        self.pending.push(task);
        Ok(())
    }

    /// Removes what is in the way of something that is no folder.
    fn make_way(
        &mut self,
        source: Source,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        wanted: &'static str,
    ) -> Result<(), Error> {
        if source.replaces() { self.target.remove(path) } else { remove_other(folder, name, path, wanted) }
    }

    /// Writes the files that wait, in several threads; the first failure ends all of them.
    fn flush(&mut self) -> Result<(), Error> {
        let tasks = std::mem::take(&mut self.pending);
        self.pending_paths.clear();
        let batches: Vec<&[FileTask]> = tasks
            .chunk_by(|a, b| Arc::ptr_eq(&a.folder, &b.folder))
            .flat_map(|in_folder| in_folder.chunks(BATCH_MAX))
            .collect();
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..WRITERS.min(batches.len()) {
                scope.spawn(|| {
                    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = batch.iter().try_for_each(write_file) {
                            next.store(batches.len(), Ordering::Relaxed);
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            return;
                        }
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn write_file(task: &FileTask) -> Result<(), Error> {
    create_file(&task.folder, &task.name, &task.path, task.mode, task.owner, |file| {
        task.source.from.copy_file(task.entry, file)?;
        if task.stat.is_some() {
            copy_attributes(&task.source.from.path_of(task.entry), file, &task.path)?;
        }
        Ok(())
    })?;
    match &task.stat {
        Some(stat) => {
            rustix::fs::utimensat(&*task.folder, &*task.name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(in_image("set the time of", &task.path))
        }
        None => Ok(()),
    }
}

/// Makes a file with exactly these bytes, this mode and this owner, in place of what is there.
fn create_file(
    folder: &OwnedFd,
    name: &OsStr,
    path: &Path,
    mode: u32,
    owner: Owner,
    fill: impl FnOnce(&mut File) -> Result<(), Error>,
) -> Result<(), Error> {
    let create = || {
        rustix::fs::openat(
            folder,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(mode & 0o777),
        )
    };
    let made = match create() {
        Err(Errno::EXIST) => {
            remove_other(folder, name, path, "a file")?;
            create()
        }
        made => made,
    };
    let mut file = File::from(made.map_err(in_image("make the file", path))?);
    let status = rustix::fs::fstat(&file).map_err(in_image("look at", path))?;
    // Before the attributes: changing the owner takes capabilities away.
    if !owner::is_on_disk(&status, owner) {
        owner::change(&file, owner).map_err(in_image("set the owner of", path))?;
    }
    fill(&mut file)?;
    // The umask may have taken bits away, and set-id bits were not asked for.
    if status.st_mode & 0o7777 != mode {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(in_image("set the mode of", path))?;
    }
    Ok(())
}

/// Sets owner and time of what is no file and no folder.
fn dress(
    folder: &OwnedFd,
    name: &OsStr,
    path: &Path,
    owner: Owner,
    stat: Option<&Stat>,
) -> Result<(), Error> {
    owner::change_at(folder, name, owner).map_err(in_image("set the owner of", path))?;
    match stat {
        Some(stat) => rustix::fs::utimensat(folder, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(in_image("set the time of", path)),
        None => Ok(()),
    }
}

/// Removes what is in the way of a file or link, unless it is a folder.
fn remove_other(folder: &OwnedFd, name: &OsStr, path: &Path, wanted: &'static str) -> Result<(), Error> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(in_image("look at", path)(errno)),
        Ok(stat) if file_type(&stat) == FileType::Directory => {
            Err(Error::Kind { path: path.to_owned(), found: "a folder", wanted })
        }
        Ok(_) => rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(in_image("replace", path)),
    }
}

fn kept_owner(from: &Context, entry: &Entry, stat: &Stat) -> Result<Owner, Error> {
    let path = from.path_of(entry);
    owner::in_layer(path.as_path(), stat).map_err(|errno| Error::Source {
        action: "read the owner of",
        path,
        source: errno.into(),
    })
}

fn stat_source(from: &Context, entry: &Entry) -> Result<Stat, Error> {
    let path = from.path_of(entry);
    rustix::fs::lstat(&path).map_err(|errno| Error::Source { action: "look at", path, source: errno.into() })
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: 0 },
    }
}

/// Copies the extended attributes that travel with a file: capabilities and the user's own.
fn copy_attributes(from: &Path, to: &impl AsFd, path: &Path) -> Result<(), Error> {
    let failed = |errno: Errno| Error::Source {
        action: "read the attributes of",
        path: from.to_owned(),
        source: errno.into(),
    };
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    for name in names[..length].split(|&byte| byte == 0) {
        let travels = name == b"security.capability" || name.starts_with(b"user.");
        if !travels || name.starts_with(b"user.overlay.") || name == owner::ATTRIBUTE.as_bytes() {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(from, name, &mut value[..]).map_err(failed)?;
        rustix::fs::fsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty())
            .map_err(in_image("set an attribute of", path))?;
    }
    Ok(())
}
