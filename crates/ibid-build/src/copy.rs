//! Performing `COPY` and `ADD`: files of the context, of another stage or of an archive, written through a
//! merged view of the layers so far, so that what is there already is met as a program would meet it.
//!
//! Invariants:
//! - every path of the image is resolved inside the merged view (`openat2` with `RESOLVE_IN_ROOT`): no link
//!   of an image leads out of it;
//! - owners and modes are set explicitly; nothing depends on the umask or on who builds.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ibid_core::digest::DiffId;
use ibid_core::plan::Copy;
use ibid_sandbox::{Overlay, rootfs};
use ibid_store::{LayerDraft, Store};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::archive;
use crate::context::{self, Context, Entry, IgnoreFile, Kind, Selection};
use crate::run_step::writable;

/// Threads that write files. Creating them, not reading, takes the time.
const WRITERS: usize = 2;

/// Why files could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something inside the image.
    #[error("cannot {action} `/{}` in the image", path.display())]
    Image {
        /// What was tried.
        action: &'static str,
        /// Path in the image.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The system refused something on the side of the sources.
    #[error("cannot {action} {}", path.display())]
    Source {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A folder stands where a file is to be, or the other way round.
    #[error("`/{}` exists in the image and is {found}; it cannot be replaced by {wanted}", path.display())]
    Kind {
        /// Path in the image.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What was to be written.
        wanted: &'static str,
    },
    /// Several sources, or a folder's content, for a destination that is a file.
    #[error("the destination `{0}` must be a folder, since there are several sources; end it with `/`")]
    SeveralSources(String),
    /// The context refused.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// An archive could not be read.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] ibid_store::Error),
    /// The merged view could not be mounted.
    #[error(transparent)]
    Sandbox(#[from] ibid_sandbox::Error),
}

/// Where files come from, and what they are to be in the image.
struct Job<'a> {
    copy: &'a Copy,
    from: &'a Context,
    /// Owner of everything; none keeps what the source has.
    owner: Option<(u32, u32)>,
    /// Owner of folders that must be made on the way.
    made_owner: (u32, u32),
    /// True for files of the build context: modes are normalised. False for files of another stage:
    /// modes, owners and attributes are kept.
    normalise: bool,
}

/// Makes the folder of a `WORKDIR`, and the folders above it.
pub(crate) fn make_folder(
    store: &Store,
    layers: &[DiffId],
    draft: &LayerDraft,
    path: &str,
    owner: (u32, u32),
) -> Result<(), Error> {
    let view = mount_writable(store, layers, draft)?;
    let image = Image::open(view.path())?;
    image.folder(Path::new(path), owner)?;
    drop(image);
    Ok(view.unmount()?)
}

/// Copies files of the build context.
pub(crate) fn from_context(
    store: &Store,
    copy: &Copy,
    context: &Context,
    selection: &Selection,
    owner: Option<(u32, u32)>,
    layers: &[DiffId],
    draft: &LayerDraft,
) -> Result<(), Error> {
    let owner = owner.unwrap_or((0, 0));
    let job = Job { copy, from: context, owner: Some(owner), made_owner: owner, normalise: true };
    let view = mount_writable(store, layers, draft)?;
    let image = Image::open(view.path())?;
    write(&image, &job, selection, store)?;
    drop(image);
    Ok(view.unmount()?)
}

/// Copies files of other layers: of a stage or an image.
pub(crate) fn from_layers(
    store: &Store,
    copy: &Copy,
    source_layers: &[DiffId],
    owner: Option<(u32, u32)>,
    layers: &[DiffId],
    draft: &LayerDraft,
) -> Result<(), Error> {
    let view = mount_writable(store, layers, draft)?;
    let source_folder = draft.path().join("source");
    make_host_folder(&source_folder)?;
    let mut lowers = store.lowers(source_layers);
    // Without the skeleton: its mount points are no content. One layer needs no overlay.
    lowers.pop();
    let (source_view, root) = match &lowers[..] {
        [] => (None, source_folder.clone()),
        [layer] => (None, layer.clone()),
        _ => {
            let overlay = Overlay { lowers: lowers.clone(), upper: None, volatile: false };
            (Some(rootfs::mount(&overlay, &source_folder)?), source_folder.clone())
        }
    };
    let from = Context::open(&root, IgnoreFile::default(), None)?;
    let selection = from.select(&copy.sources)?;
    let job = Job { copy, from: &from, owner, made_owner: owner.unwrap_or((0, 0)), normalise: false };
    let image = Image::open(view.path())?;
    write(&image, &job, &selection, store)?;
    drop((image, from));
    if let Some(source_view) = source_view {
        source_view.unmount()?;
    }
    Ok(view.unmount()?)
}

fn mount_writable(store: &Store, layers: &[DiffId], draft: &LayerDraft) -> Result<rootfs::Mounted, Error> {
    let at = draft.path().join("merged");
    make_host_folder(&at)?;
    Ok(rootfs::mount(&writable(store, layers, draft), &at)?)
}

fn make_host_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir(path).map_err(|source| Error::Source {
        action: "make the folder",
        path: path.to_owned(),
        source,
    })
}

/// One file to be written, once its folder exists.
struct FileTask<'a> {
    folder: Arc<OwnedFd>,
    name: Vec<u8>,
    /// Path in the image, for messages.
    path: PathBuf,
    entry: &'a Entry,
}

fn write(image: &Image, job: &Job, selection: &Selection, store: &Store) -> Result<(), Error> {
    let copy = job.copy;
    let dest = Path::new(copy.dest.trim_start_matches('/'));
    let wants_folder = copy.dest.ends_with('/');
    if selection.sources.len() + copy.inline.len() > 1 && !wants_folder {
        return Err(Error::SeveralSources(copy.dest.clone()));
    }
    let is_folder = wants_folder || image.is_folder(dest)?;
    let mut tasks = Vec::new();
    for source in &selection.sources {
        if source.is_folder() {
            image.folder(dest, job.made_owner)?;
            for (relative, entry) in source.entries() {
                let path = dest.join(Path::new(std::ffi::OsStr::from_bytes(relative)));
                plan_entry(image, job, &path, entry, &mut tasks)?;
            }
            continue;
        }
        for (_, entry) in source.entries() {
            if copy.extract
                && let Some(compression) = archive::detect(&job.from.path_of(entry))?
            {
                let layer = archive::import(store, &job.from.path_of(entry), compression)?;
                extract(image, job, &store.layer_tree(&layer), dest)?;
                continue;
            }
            let path = if is_folder {
                dest.join(std::ffi::OsStr::from_bytes(source.name()))
            } else {
                dest.to_owned()
            };
            plan_entry(image, job, &path, entry, &mut tasks)?;
        }
    }
    write_files(job, &tasks)?;
    for inline in &copy.inline {
        let path = if is_folder { dest.join(&inline.name) } else { dest.to_owned() };
        let (folder, name) = image.place(&path, job.made_owner)?;
        let mode = copy.chmod.unwrap_or(0o644);
        create_file(&folder, &name, &path, mode, job.owner.unwrap_or((0, 0)), |file| {
            file.write_all(inline.content.as_bytes()).map_err(in_image("write", &path))
        })?;
    }
    Ok(())
}

/// Makes a folder or link, or remembers a file for the writers.
fn plan_entry<'a>(
    image: &Image,
    job: &Job,
    path: &Path,
    entry: &'a Entry,
    tasks: &mut Vec<FileTask<'a>>,
) -> Result<(), Error> {
    match &entry.kind {
        Kind::Special => Ok(()),
        Kind::Folder => {
            let (mode, owner) = mode_and_owner(job, entry)?;
            image.folder_as(path, mode, owner)
        }
        Kind::Link { target } => {
            let (_, owner) = mode_and_owner(job, entry)?;
            let (folder, name) = image.place(path, job.made_owner)?;
            remove_other(&folder, &name, path, "a symbolic link")?;
            rustix::fs::symlinkat(&target[..], &*folder, &name[..])
                .map_err(in_image("make the link", path))?;
            rustix::fs::chownat(
                &*folder,
                &name[..],
                Some(Uid::from_raw(owner.0)),
                Some(Gid::from_raw(owner.1)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(in_image("set the owner of", path))
        }
        Kind::File { .. } => {
            let (folder, name) = image.place(path, job.made_owner)?;
            tasks.push(FileTask { folder, name, path: path.to_owned(), entry });
            Ok(())
        }
    }
}

/// Writes files in several threads; the first failure ends all of them.
fn write_files(job: &Job, tasks: &[FileTask]) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS.min(tasks.len()) {
            scope.spawn(|| {
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = write_file(job, task) {
                        next.store(tasks.len(), Ordering::Relaxed);
                        let mut failure = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        failure.get_or_insert(error);
                        return;
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn write_file(job: &Job, task: &FileTask) -> Result<(), Error> {
    let (mode, owner) = mode_and_owner(job, task.entry)?;
    create_file(&task.folder, &task.name, &task.path, mode, owner, |file| {
        job.from.copy_file(task.entry, file)?;
        if !job.normalise {
            copy_attributes(&job.from.path_of(task.entry), file, &task.path)?;
        }
        Ok(())
    })
}

/// Permission bits and owner that an entry gets in the image.
fn mode_and_owner(job: &Job, entry: &Entry) -> Result<(u32, (u32, u32)), Error> {
    if job.normalise {
        let mode = match entry.kind {
            Kind::File { executable: false } => 0o644,
            _ => 0o755,
        };
        return Ok((job.copy.chmod.unwrap_or(mode), job.owner.unwrap_or((0, 0))));
    }
    let path = job.from.path_of(entry);
    let stat = rustix::fs::lstat(&path).map_err(|errno| Error::Source {
        action: "look at",
        path: path.clone(),
        source: errno.into(),
    })?;
    Ok((job.copy.chmod.unwrap_or(stat.st_mode & 0o7777), job.owner.unwrap_or((stat.st_uid, stat.st_gid))))
}

/// Copies the extended attributes that travel with a file: capabilities and the user's own.
fn copy_attributes(from: &Path, to: &File, path: &Path) -> Result<(), Error> {
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
        if !travels || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(from, name, &mut value[..]).map_err(failed)?;
        rustix::fs::fsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty())
            .map_err(in_image("set an attribute of", path))?;
    }
    Ok(())
}

/// Copies an extracted archive into a folder of the image, keeping what the archive says.
fn extract(image: &Image, job: &Job, tree: &Path, dest: &Path) -> Result<(), Error> {
    let from = Context::open(tree, IgnoreFile::default(), None)?;
    let selection = from.select(&["."])?;
    image.folder(dest, job.made_owner)?;
    let inner =
        Job { copy: job.copy, from: &from, owner: None, made_owner: job.made_owner, normalise: false };
    let mut tasks = Vec::new();
    for source in &selection.sources {
        for (relative, entry) in source.entries() {
            let path = dest.join(Path::new(std::ffi::OsStr::from_bytes(relative)));
            plan_entry(image, &inner, &path, entry, &mut tasks)?;
        }
    }
    write_files(&inner, &tasks)
}

/// The merged view that is written to.
struct Image {
    root: OwnedFd,
    /// Folders that are open, by path in the image.
    folders: Mutex<HashMap<PathBuf, Arc<OwnedFd>>>,
}

impl Image {
    fn open(root: &Path) -> Result<Self, Error> {
        let root_fd =
            rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| Error::Source {
                    action: "open the folder",
                    path: root.to_owned(),
                    source: errno.into(),
                })?;
        Ok(Self { root: root_fd, folders: Mutex::new(HashMap::new()) })
    }

    /// Opens what is at a path, following links inside the image.
    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::openat2(
            &self.root,
            path,
            OFlags::PATH | OFlags::CLOEXEC | flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    fn is_folder(&self, path: &Path) -> Result<bool, Error> {
        match self.resolve(relative(path), OFlags::DIRECTORY) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(in_image("look at", path)(errno)),
        }
    }

    /// A folder, made with mode 755 together with those above it when it is missing.
    fn folder(&self, path: &Path, owner: (u32, u32)) -> Result<Arc<OwnedFd>, Error> {
        let path = relative(path);
        let known = |image: &Self| {
            let folders = image.folders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            folders.get(path).map(Arc::clone)
        };
        if let Some(folder) = known(self) {
            return Ok(folder);
        }
        let folder = match self.resolve(path, OFlags::DIRECTORY) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => {
                let name = path.file_name().ok_or_else(|| in_image("make the folder", path)(Errno::NOENT))?;
                let parent = self.folder(path.parent().unwrap_or(Path::new("")), owner)?;
                make_folder_at(&parent, name.as_bytes(), path, 0o755, owner)?;
                self.resolve(path, OFlags::DIRECTORY).map_err(in_image("open the folder", path))?
            }
            Err(Errno::NOTDIR) => {
                return Err(Error::Kind { path: path.to_owned(), found: "no folder", wanted: "a folder" });
            }
            Err(errno) => return Err(in_image("open the folder", path)(errno)),
        };
        let folder = Arc::new(folder);
        let mut folders = self.folders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Few are needed at once, and descriptors are not without number.
        if folders.len() >= 256 {
            folders.clear();
        }
        folders.insert(path.to_owned(), Arc::clone(&folder));
        Ok(folder)
    }

    /// A folder that is copied: a new one gets the mode and owner, one that is there stays as it is.
    fn folder_as(&self, path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), Error> {
        if self.is_folder(path)? {
            return Ok(());
        }
        let (parent, name) = self.place(path, owner)?;
        make_folder_at(&parent, &name, path, mode, owner)
    }

    /// The open folder that a path is in, made when missing, and its last name. A link at the very end of
    /// the path is not followed: it is what gets replaced.
    fn place(&self, path: &Path, owner: (u32, u32)) -> Result<(Arc<OwnedFd>, Vec<u8>), Error> {
        let path = relative(path);
        let name = path.file_name().ok_or(Error::Kind {
            path: path.to_owned(),
            found: "a folder",
            wanted: "a file",
        })?;
        let folder = self.folder(path.parent().unwrap_or(Path::new("")), owner)?;
        Ok((folder, name.as_bytes().to_owned()))
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn make_folder_at(
    parent: &OwnedFd,
    name: &[u8],
    path: &Path,
    mode: u32,
    owner: (u32, u32),
) -> Result<(), Error> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            return Err(Error::Kind { path: path.to_owned(), found: "no folder", wanted: "a folder" });
        }
        Err(errno) => return Err(in_image("make the folder", path)(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder =
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(in_image("open the folder", path))?;
    own(&folder, path, mode, owner)
}

/// Makes a file with exactly these bytes, this mode and this owner, in place of what is there.
fn create_file(
    folder: &OwnedFd,
    name: &[u8],
    path: &Path,
    mode: u32,
    owner: (u32, u32),
    fill: impl FnOnce(&mut File) -> Result<(), Error>,
) -> Result<(), Error> {
    let create = || {
        rustix::fs::openat(
            folder,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
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
    fill(&mut file)?;
    own(&file, path, mode, owner)
}

/// Owner first: changing it clears the set-id bits.
fn own(file: &impl AsFd, path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), Error> {
    rustix::fs::fchown(file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
        .map_err(in_image("set the owner of", path))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(in_image("set the mode of", path))
}

/// Removes what is in the way of a file or link, unless it is a folder.
fn remove_other(folder: &OwnedFd, name: &[u8], path: &Path, wanted: &'static str) -> Result<(), Error> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(in_image("look at", path)(errno)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            Err(Error::Kind { path: path.to_owned(), found: "a folder", wanted })
        }
        Ok(_) => rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(in_image("replace", path)),
    }
}

fn in_image<E: Into<std::io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let path = relative(path).to_owned();
    move |source| Error::Image { action, path, source: source.into() }
}
