//! Cache mounts: folders that steps of a build keep from one build to the next, beside every layer.
//!
//! ```text
//! mounts/<hex>/          one cache mount, named by the digest of what tells it from others
//! ├── about              its id, for people
//! └── <n>/               a copy of it; flocked by the steps that use it, and its time is that of their start
//!     └── tree/          what they keep, owned as the container sees it
//! ```
//!
//! Invariants:
//! - A copy is made in `tmp/`, filled and locked there, and renamed: nobody finds one that is half filled.
//! - Steps that share a mount hold its copy's lock shared, others exclusively. It ends with the process, however that
//!   ends. What a killed step left behind is there for the next, as with Docker: who keeps something here must be able
//!   to bear that.
//! - The copies are truth for nobody. They go when the store is too large, but never one that is locked.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use ibid_core::plan::Sharing;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, flock};
use rustix::io::Errno;

use crate::staging::StagedFolder;
use crate::{Error, Result, Scratch, Store};

/// Where cache mounts are kept.
#[derive(Debug, Clone)]
pub struct CacheMounts {
    folder: PathBuf,
    tmp: PathBuf,
}

/// A copy of a cache mount that its holder may use until dropped.
#[derive(Debug)]
pub struct CacheMount {
    tree: PathBuf,
    lock: OwnedFd,
}

impl CacheMount {
    /// The folder to mount.
    pub fn path(&self) -> &Path {
        &self.tree
    }
}

impl Drop for CacheMount {
    fn drop(&mut self) {
        // Closing the descriptor is not enough: a process that another thread is starting has a copy of it until it
        // executes its program, and the next to want this mount would find it in use.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl Store {
    /// The cache mounts of all builds.
    pub fn cache_mounts(&self) -> CacheMounts {
        CacheMounts { folder: self.mounts(), tmp: self.tmp() }
    }

    pub(crate) fn mounts(&self) -> PathBuf {
        self.root().join("mounts")
    }
}

impl Scratch {
    /// Cache mounts that start without content and end with this folder, in its subfolder `mounts`.
    pub fn cache_mounts(&self, store: &Store) -> CacheMounts {
        CacheMounts { folder: self.path().join("mounts"), tmp: store.tmp() }
    }
}

impl CacheMounts {
    /// Takes the cache mount `name`, or makes it: `fill` then gets the empty folder. `id` is what people call it.
    ///
    /// None when it is to be locked and others use it. When it is to be private and all copies are in use, or shared
    /// and others have locked them, there will be one more.
    pub fn hold<E: From<Error>>(
        &self,
        name: &Digest,
        id: &str,
        sharing: Sharing,
        fill: impl Fn(&Path) -> Result<(), E>,
    ) -> Result<Option<CacheMount>, E> {
        let folder = self.folder.join(name.hex());
        loop {
            let copies = copies(&folder)?;
            for (_, copy) in &copies {
                if let Some(held) = take(copy, sharing)? {
                    return Ok(Some(held));
                }
            }
            if sharing == Sharing::Locked && !copies.is_empty() {
                return Ok(None);
            }
            let number = copies.last().map_or(0, |(number, _)| number + 1);
            if let Some(made) = self.make(&folder, number, id, sharing, &fill)? {
                return Ok(Some(made));
            }
        }
    }

    /// A copy of the cache mount `name` that is there and may be shared now.
    pub fn existing(&self, name: &Digest) -> Result<Option<CacheMount>> {
        for (_, copy) in copies(&self.folder.join(name.hex()))? {
            if let Some(held) = take(&copy, Sharing::Shared)? {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// Makes copy `number`, unless somebody was faster.
    fn make<E: From<Error>>(
        &self,
        folder: &Path,
        number: u32,
        id: &str,
        sharing: Sharing,
        fill: impl Fn(&Path) -> Result<(), E>,
    ) -> Result<Option<CacheMount>, E> {
        let staged = StagedFolder::new(&self.tmp)?;
        let mount = staged.path().join("mount");
        let copy = mount.join(number.to_string());
        make_folder(&copy.join("tree"))?;
        fill(&copy.join("tree"))?;
        let about = mount.join("about");
        fs::write(&about, format!("{id}\n")).map_err(Error::io("write", &about))?;
        let Some(mut made) = take(&copy, sharing)? else { return Ok(None) };
        make_folder(&self.folder)?;
        let target = folder.join(number.to_string());
        let renamed = match rustix::fs::rename(&mount, folder) {
            // It has copies already.
            Err(Errno::EXIST | Errno::NOTEMPTY) => rustix::fs::rename(&copy, &target),
            result => result,
        };
        match renamed {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => return Ok(None),
            Err(errno) => return Err(Error::io("rename a folder to", &target)(errno).into()),
        }
        made.tree = target.join("tree");
        Ok(Some(made))
    }
}

/// A cache mount as a collector sees it.
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    pub(crate) id: String,
    pub(crate) bytes: u64,
    pub(crate) last_used: i64,
    pub(crate) in_use: bool,
}

/// All cache mounts in `folder`.
pub(crate) fn list(folder: &Path) -> Result<Vec<Kept>> {
    let mut found = Vec::new();
    for path in subfolders(folder)? {
        let copies = copies(&path)?;
        let mut kept = Kept { id: String::new(), bytes: 0, last_used: 0, in_use: false, path };
        // Without it, nobody knows what it is called; its name is that of the folder then.
        let about = fs::read_to_string(kept.path.join("about")).unwrap_or_default();
        kept.id = match about.trim_end() {
            "" => kept.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            id => id.to_owned(),
        };
        for (_, copy) in &copies {
            let metadata = fs::metadata(copy).map_err(Error::io("look at", copy))?;
            kept.last_used = kept.last_used.max(metadata.mtime());
            kept.bytes += tree_bytes(copy);
            kept.in_use |= lock(copy, FlockOperation::NonBlockingLockExclusive)?.is_none();
        }
        found.push(kept);
    }
    Ok(found)
}

/// Numbers and paths of the copies of a cache mount, in order; none when there is no such mount.
fn copies(folder: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let mut found: Vec<(u32, PathBuf)> = subfolders(folder)?
        .into_iter()
        .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path)))
        .collect();
    found.sort_unstable();
    Ok(found)
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read the folder", folder)(error)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(Error::io("read the folder", folder))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Takes a copy, unless others use it in a way that does not go together.
fn take(copy: &Path, sharing: Sharing) -> Result<Option<CacheMount>> {
    let operation = match sharing {
        Sharing::Shared => FlockOperation::NonBlockingLockShared,
        Sharing::Private | Sharing::Locked => FlockOperation::NonBlockingLockExclusive,
    };
    let Some(lock) = lock(copy, operation)? else { return Ok(None) };
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    rustix::fs::utimensat(&lock, ".", &times, AtFlags::empty())
        .map_err(Error::io("set the time of", copy))?;
    Ok(Some(CacheMount { tree: copy.join("tree"), lock }))
}

fn lock(copy: &Path, operation: FlockOperation) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(copy, flags, Mode::empty()).map_err(Error::io("open", copy))?;
    match flock(&opened, operation) {
        Ok(()) => Ok(Some(opened)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(Error::io("lock", copy)(errno)),
    }
}

/// Makes a folder for ibid alone, with those above it.
fn make_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(Error::io("make the folder", path))
}

/// What a tree takes on the disk. A folder that cannot be read takes nothing that is known.
pub(crate) fn tree_bytes(root: &Path) -> u64 {
    let mut bytes = 0;
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            // Of a file with several names, each has its part.
            bytes += metadata.blocks() * 512 / if metadata.is_dir() { 1 } else { metadata.nlink().max(1) };
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    bytes
}
