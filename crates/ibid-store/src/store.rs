//! Opening a store, and where things are in it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ibid_core::digest::DiffId;
use rustix::fs::{Access, AtFlags, FlockOperation, IFlags, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::staging::{self, StagedFile};
use crate::{Error, Result};

/// The format this code writes, and the newest it reads.
const FORMAT: u32 = 1;

/// Files and folders of the skeleton: the mount points that a sandbox covers. As the lowest folder of every
/// overlay they exist without any layer holding them.
const SKELETON_FOLDERS: [&str; 6] = ["dev", "etc", "proc", "run", "run/ibid", "sys"];
const SKELETON_FILES: [&str; 5] = [
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    // What of the host's trust is lent to a container; made in the upper folder, they would cost each run 2 ms.
    "run/ibid/apt.conf",
    "run/ibid/ca-certificates.crt",
];

/// A user's images, layers and build cache. Cheap to clone; usable from several threads and, at once, from several
/// processes.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Held shared as long as the store is used: who deletes takes it exclusively. None once [`Store::unlock`] gave it
    /// back.
    lock: Mutex<Option<File>>,
    /// Nothing can be written: it is somebody else's, or on a file system that is mounted so.
    is_read_only: bool,
    /// Stores of others, from which images are used where they are.
    additional: Vec<Store>,
}

impl Store {
    /// Opens the store at `root`, and makes it when it is absent. What dead processes left in `tmp/` is removed.
    ///
    /// A store that cannot be written can be used: what is derived is not kept, and runs have their scratch in the
    /// system's folder for temporary files.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, &[])
    }

    /// The same, with stores of others in which images, layers and cached steps are looked up after this one. They are
    /// never written to, and nothing of them is copied.
    pub fn open_with(root: &Path, additional: &[PathBuf]) -> Result<Self> {
        match read_format(root) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => create(root)?,
            result => result?,
        }
        let is_read_only = !is_writable(root)?;
        let additional =
            additional.iter().filter(|other| *other != root).map(|other| Self::open_of_others(other));
        let additional = additional.collect::<Result<_>>()?;
        let store = Self::locked(root, is_read_only, additional)?;
        if !is_read_only {
            staging::remove_dead(&store.tmp())?;
            staging::empty_kept(&store.scratch_folder())?;
            store.look_after_restart()?;
        }
        Ok(store)
    }

    fn open_of_others(root: &Path) -> Result<Self> {
        let refused = |source| Error::Additional { path: root.to_owned(), source: Box::new(source) };
        read_format(root).and_then(|()| Self::locked(root, true, Vec::new())).map_err(refused)
    }

    fn locked(root: &Path, is_read_only: bool, additional: Vec<Self>) -> Result<Self> {
        let path = root.join("lock");
        let lock = File::open(&path).map_err(Error::io("open", &path))?;
        flock(&lock, FlockOperation::LockShared).map_err(Error::io("lock", &path))?;
        let lock = Mutex::new(Some(lock));
        Ok(Self { inner: Arc::new(Inner { root: root.to_owned(), lock, is_read_only, additional }) })
    }

    /// Whether nothing can be written to it.
    pub fn is_read_only(&self) -> bool {
        self.inner.is_read_only
    }

    /// The stores of others in which things are looked up after this one.
    pub(crate) fn additional(&self) -> &[Self] {
        &self.inner.additional
    }

    /// Lets others delete: from now on this process only uses what its scratch folders lease
    /// ([`crate::Scratch::lease`]). Where there can be no lease, the lock stays.
    pub fn unlock(&self) {
        if self.is_read_only() {
            return;
        }
        *self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until nobody else uses the store but through leases; `on_wait` is called when that takes time.
    pub(crate) fn lock_exclusively(&self, on_wait: &dyn Fn()) -> Result<()> {
        let path = self.root().join("lock");
        let mut lock = self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match lock.take() {
            Some(file) => file,
            None => File::open(&path).map_err(Error::io("open", &path))?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                on_wait();
                flock(&file, FlockOperation::LockExclusive).map_err(Error::io("lock", &path))?;
            }
            result => result.map_err(Error::io("lock", &path))?,
        }
        *lock = Some(file);
        Ok(())
    }

    /// Lets others use the store again.
    pub(crate) fn lock_shared(&self) -> Result<()> {
        let lock = self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
        match lock.as_ref() {
            Some(file) => flock(file, FlockOperation::LockShared).map_err(Error::io("lock", self.root())),
            None => Ok(()),
        }
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The folder of empty mount points, always the lowest of an overlay's lower folders.
    pub fn skeleton(&self) -> PathBuf {
        self.root().join("skeleton")
    }

    /// The lower folders of an overlay that a container with `layers` (lowest first, as an image lists them) runs in:
    /// topmost first, the skeleton last.
    pub fn lowers(&self, layers: &[DiffId]) -> Vec<PathBuf> {
        let mut lowers = self.layer_trees(layers);
        lowers.push(self.skeleton());
        lowers
    }

    /// The trees of `layers`, topmost first: what an image holds, without the mount points that only a container needs.
    ///
    /// Of a layer that occurs several times, only the topmost is there: overlayfs refuses the same folder twice, and what
    /// a layer does over others is all that it can do below itself.
    pub fn layer_trees(&self, layers: &[DiffId]) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        layers.iter().rev().filter(|layer| seen.insert(**layer)).map(|layer| self.layer_tree(layer)).collect()
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root().join("tmp")
    }

    /// Folders that are kept for what runs write.
    pub(crate) fn scratch_folder(&self) -> PathBuf {
        self.root().join("scratch")
    }

    /// Where a layer is: here, or in a store of others. Here, when it is nowhere.
    pub(crate) fn layer_folder(&self, diff_id: &DiffId) -> PathBuf {
        let own = self.own_layer_folder(diff_id);
        if self.additional().is_empty() || own.join("manifest").exists() {
            return own;
        }
        let others = self.additional().iter().map(|other| other.own_layer_folder(diff_id));
        others.into_iter().find(|folder| folder.join("manifest").exists()).unwrap_or(own)
    }

    /// Where a layer is, or would be, in this very store.
    pub(crate) fn own_layer_folder(&self, diff_id: &DiffId) -> PathBuf {
        self.root().join("layers").join(diff_id.0.hex())
    }
}

fn read_format(root: &Path) -> Result<()> {
    let path = root.join("format");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    check_format(root, &text)
}

fn is_writable(root: &Path) -> Result<bool> {
    match rustix::fs::accessat(rustix::fs::CWD, root, Access::WRITE_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(true),
        Err(Errno::ROFS | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(Error::io("look at", root)(errno)),
    }
}

fn check_format(root: &Path, text: &str) -> Result<()> {
    let found = text.trim_end();
    match found.parse::<u32>() {
        Ok(number) if number <= FORMAT => Ok(()),
        Ok(_) => Err(Error::NewerFormat { path: root.to_owned(), found: found.to_owned(), known: FORMAT }),
        Err(_) => {
            Err(Error::Damaged { path: root.join("format"), reason: format!("`{found}` is no number") })
        }
    }
}

/// Makes what is missing of a store. Two processes may do so at once: every step is harmless when repeated, and
/// `format`, which comes last, says that all of it is there.
fn create(root: &Path) -> Result<()> {
    make_folder(root, 0o700)?;
    // The root guards all of it. What images are is open below it, so that who opens the root shares them.
    let private = ["mounts", "tmp", "scratch"];
    let names = [
        "blobs",
        "blobs/sha256",
        "layers",
        "tags",
        "notes",
        "cache",
        "mounts",
        "debs",
        "downloads",
        "tmp",
        "scratch",
        "skeleton",
    ];
    for name in names {
        make_folder(&root.join(name), if private.contains(&name) { 0o700 } else { 0o755 })?;
    }
    ["tmp", "scratch"].iter().for_each(|name| spread(&root.join(name)));
    let skeleton = root.join("skeleton");
    staging::own_as_root(&skeleton)?;
    for name in SKELETON_FOLDERS {
        let path = skeleton.join(name);
        make_folder(&path, 0o755)?;
        staging::own_as_root(&path)?;
    }
    for name in SKELETON_FILES {
        let path = skeleton.join(name);
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        file.set_permissions(fs::Permissions::from_mode(0o644))
            .map_err(Error::io("set the mode of", &path))?;
        staging::own_as_root(&path)?;
    }
    let lock = root.join("lock");
    let file = File::options().create(true).append(true).open(&lock).map_err(Error::io("create", &lock))?;
    file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(Error::io("set the mode of", &lock))?;
    let mut format = StagedFile::new(&root.join("tmp"))?;
    format.write(format!("{FORMAT}\n").as_bytes())?;
    format.sync()?;
    format.publish(&root.join("format"))
}

/// Tells an ext4 that the folders in `folder` have nothing to do with each other, so that it spreads them over the
/// disk (chattr(1), attribute `T`). Without it, a draft lands where others were just removed, and making its files
/// takes several times as long, since ext4 steps over each inode that was freed in the last minute. Other file
/// systems know no such thing and need it not: a refusal means nothing.
pub(crate) fn spread(folder: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(folder) = rustix::fs::open(folder, flags, Mode::empty())
        && let Ok(found) = rustix::fs::ioctl_getflags(&folder)
    {
        let _ = rustix::fs::ioctl_setflags(&folder, found | IFlags::TOPDIR);
    }
}

/// Makes a folder with exactly this mode, whatever the umask, unless it is there.
pub(crate) fn make_folder(path: &Path, mode: u32) -> Result<()> {
    match fs::DirBuilder::new().mode(mode).recursive(mode == 0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("make the folder", path)(error)),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::io("set the mode of", path))
}
