//! Performing `COPY` and `ADD`: files of the context, of another stage or of an archive, written through a
//! merged view of the layers so far, so that what is there already is met as a program would meet it.
//!
//! Invariants:
//! - every path of the image is resolved inside the merged view (`openat2` with `RESOLVE_IN_ROOT`): no link
//!   of an image leads out of it;
//! - owners and modes are set explicitly; nothing depends on the umask or on who builds.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ibid_core::digest::DiffId;
use ibid_core::plan::{Copy, CopyFrom};
use ibid_sandbox::{Overlay, rootfs};
use ibid_store::{LayerDraft, Store};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::archive;
use crate::context::{self, Context, Entry, Kind, Selection};
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
    /// Several sources for a destination that is no folder.
    #[error("the destination `{0}` must be a folder, since there are several sources; end it with `/`")]
    SeveralSources(String),
    /// An archive would delete a file of the image.
    #[error(
        "the archive has a name that starts with `.wh.`, which would delete `/{}` in the image",
        path.display()
    )]
    Whiteout {
        /// Path in the image.
        path: PathBuf,
    },
    /// Links of the image go round in a circle.
    #[error("the destination `/{}` goes through too many symbolic links", path.display())]
    Links {
        /// Path in the image.
        path: PathBuf,
    },
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
#[derive(Clone, Copy)]
struct Job<'a> {
    copy: &'a Copy,
    from: &'a Context,
    /// Owner of everything; none keeps what the source has.
    owner: Option<(u32, u32)>,
    /// Owner of folders that must be made on the way.
    made_owner: (u32, u32),
    kind: JobKind,
}

/// What of its source a copy keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobKind {
    /// Files of the build context: modes are normalised, and whether two files are one does not count.
    Context,
    /// Files of another stage: modes, owners, attributes and hard links are kept.
    Image,
    /// Files of an archive: as those of a stage, and a folder takes the place of whatever is no folder.
    Archive,
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

/// Copies a selection into a plain folder that nobody else sees: a folder's content, or a file by its name, into
/// `below`, a path in it. Files of the context are normalised; those of a stage or an image keep all they have.
pub(crate) fn into_folder(
    store: &Store,
    from: &Context,
    selection: &Selection,
    folder: &Path,
    below: &str,
    normalise: bool,
) -> Result<(), Error> {
    let copy = Copy {
        from: CopyFrom::Context,
        sources: Vec::new(),
        inline: Vec::new(),
        dest: format!("{}/", below.trim_end_matches('/')),
        chown: None,
        chmod: None,
        extract: false,
    };
    let (owner, kind) = if normalise { (Some((0, 0)), JobKind::Context) } else { (None, JobKind::Image) };
    let job = Job { copy: &copy, from, owner, made_owner: (0, 0), kind };
    write(&Image::open(folder)?, &job, selection, store)
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
    let job = Job { copy, from: context, owner: Some(owner), made_owner: owner, kind: JobKind::Context };
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
    let lowers = store.layer_trees(source_layers);
    // One layer needs no overlay.
    let (source_view, root) = match &lowers[..] {
        [] => (None, source_folder.clone()),
        [layer] => (None, layer.clone()),
        _ => {
            let overlay = Overlay { lowers: lowers.clone(), upper: None, volatile: false };
            (Some(rootfs::mount(&overlay, &source_folder)?), source_folder.clone())
        }
    };
    let from = Context::open_image(&root)?;
    let selection = from.select(&copy.sources)?;
    let job = Job { copy, from: &from, owner, made_owner: owner.unwrap_or((0, 0)), kind: JobKind::Image };
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
    let mut lowers = store.layer_trees(layers);
    if lowers.is_empty() {
        let nothing = draft.path().join("nothing");
        make_host_folder(&nothing)?;
        lowers.push(nothing);
    }
    Ok(rootfs::mount(&writable(lowers, draft), &at)?)
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
    place: Place,
    entry: &'a Entry,
}

/// A name in an open folder of the image.
struct Place {
    folder: Arc<OwnedFd>,
    name: Vec<u8>,
    /// Path in the image, for messages.
    path: PathBuf,
}

/// Another name for a file that is written before.
struct LinkTask {
    place: Place,
    /// Index of the file's task.
    file: usize,
}

/// What remains to be done when folders, links and special files are made.
#[derive(Default)]
struct Tasks<'a> {
    files: Vec<FileTask<'a>>,
    links: Vec<LinkTask>,
    /// The tasks of files that have several names, by what the names have in common.
    shared: HashMap<(u64, u64), usize>,
}

impl Tasks<'_> {
    /// Performs all of them.
    fn finish(&mut self, job: &Job) -> Result<(), Error> {
        write_files(job, &self.files)?;
        for link in &self.links {
            let (Place { folder, name, path }, file) = (&link.place, &self.files[link.file].place);
            remove_other(folder, name, path, "a file")?;
            rustix::fs::linkat(&*file.folder, &file.name[..], &**folder, &name[..], AtFlags::empty())
                .map_err(in_image("make the hard link", path))?;
        }
        *self = Self::default();
        Ok(())
    }
}

fn write(image: &Image, job: &Job, selection: &Selection, store: &Store) -> Result<(), Error> {
    let copy = job.copy;
    let dest = image.follow(Path::new(&copy.dest))?;
    let is_folder = copy.dest.ends_with('/') || image.is_folder(&dest)?;
    let is_several = selection.sources.len() + copy.inline.len() > 1;
    if is_several && !is_folder {
        return Err(Error::SeveralSources(copy.dest.clone()));
    }
    let mut tasks = Tasks::default();
    // Files are written after all else. Where a later source comes to the same path, the earlier ones go first.
    let mut planned: HashSet<PathBuf> = HashSet::new();
    for source in &selection.sources {
        if source.is_folder() {
            image.folder(&dest, job.made_owner)?;
        }
        // As in BuildKit, files stay one only within a source.
        tasks.shared.clear();
        for (relative, entry) in source.entries() {
            if copy.extract
                && !source.is_folder()
                && let Some(compression) = archive::detect(job.from, entry)?
            {
                tasks.finish(job)?;
                let layer = archive::import(store, job.from, entry, compression)?;
                extract(image, job, &store.layer_tree(&layer), &dest)?;
                continue;
            }
            let path = if source.is_folder() {
                dest.join(std::ffi::OsStr::from_bytes(relative))
            } else if is_folder {
                dest.join(std::ffi::OsStr::from_bytes(source.name()))
            } else {
                dest.clone()
            };
            if is_several && !planned.insert(path.clone()) {
                tasks.finish(job)?;
            }
            plan_entry(image, job, &path, entry, &mut tasks)?;
        }
    }
    tasks.finish(job)?;
    for inline in &copy.inline {
        let path = if is_folder { dest.join(&inline.name) } else { dest.clone() };
        let place = image.place(&path, job.made_owner)?;
        let mode = changed_mode(job, 0o644, false);
        create_file(&place, mode, job.owner.unwrap_or((0, 0)), |file| {
            file.write_all(inline.content.as_bytes()).map_err(in_image("write", &path))
        })?;
    }
    Ok(())
}

/// Makes a folder, link or special file, or remembers a file for the writers.
fn plan_entry<'a>(
    image: &Image,
    job: &Job,
    path: &Path,
    entry: &'a Entry,
    tasks: &mut Tasks<'a>,
) -> Result<(), Error> {
    match &entry.kind {
        Kind::Special if job.kind == JobKind::Context => Ok(()),
        Kind::Special => make_special(image, job, path, entry),
        Kind::Folder => {
            let (mode, owner) = mode_and_owner(job, entry)?;
            image.make_folder(path, mode, owner, job)?;
            match job.kind {
                JobKind::Context => Ok(()),
                JobKind::Image | JobKind::Archive => {
                    let folder = image.resolve(relative(path), OFlags::DIRECTORY);
                    let folder = folder.map_err(in_image("open the folder", path))?;
                    copy_attributes(&job.from.path_of(entry), &of_descriptor(&folder), path)
                }
            }
        }
        Kind::Link { target } => {
            let (_, owner) = mode_and_owner(job, entry)?;
            let Place { folder, name, .. } = image.place(path, job.made_owner)?;
            remove_other(&folder, &name, path, "a symbolic link")?;
            rustix::fs::symlinkat(&target[..], &*folder, &name[..])
                .map_err(in_image("make the link", path))?;
            own_at(&folder, &name, path, owner)
        }
        Kind::File { .. } => {
            let place = image.place(path, job.made_owner)?;
            if job.kind != JobKind::Context {
                match tasks.shared.entry(entry.identity()) {
                    std::collections::hash_map::Entry::Occupied(first) => {
                        tasks.links.push(LinkTask { place, file: *first.get() });
                        return Ok(());
                    }
                    std::collections::hash_map::Entry::Vacant(first) => first.insert(tasks.files.len()),
                };
            }
            tasks.files.push(FileTask { place, entry });
            Ok(())
        }
    }
}

/// Makes a pipe or a device as the source is one. Sockets belong to the processes that made them.
fn make_special(image: &Image, job: &Job, path: &Path, entry: &Entry) -> Result<(), Error> {
    let source = job.from.path_of(entry);
    let stat = look(&source)?;
    let file_type = FileType::from_raw_mode(stat.st_mode);
    // The device 0/0 is a whiteout on every overlay.
    let is_whiteout = file_type == FileType::CharacterDevice && stat.st_rdev == 0;
    if is_whiteout && job.kind == JobKind::Archive {
        return Err(Error::Whiteout { path: relative(path).to_owned() });
    }
    if is_whiteout || file_type == FileType::Socket {
        return Ok(());
    }
    let (mode, owner) = mode_and_owner(job, entry)?;
    let Place { folder, name, .. } = image.place(path, job.made_owner)?;
    let what = if file_type == FileType::Fifo { "make the pipe" } else { "make the device" };
    remove_other(&folder, &name, path, "a device or pipe")?;
    rustix::fs::mknodat(&*folder, &name[..], file_type, Mode::empty(), stat.st_rdev)
        .map_err(in_image(what, path))?;
    own_at(&folder, &name, path, owner)?;
    rustix::fs::chmodat(&*folder, &name[..], Mode::from_raw_mode(mode), AtFlags::empty())
        .map_err(in_image("set the mode of", path))
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
    create_file(&task.place, mode, owner, |file| {
        job.from.copy_file(task.entry, file)?;
        match job.kind {
            JobKind::Context => Ok(()),
            JobKind::Image | JobKind::Archive => {
                copy_attributes(&job.from.path_of(task.entry), &of_descriptor(file), &task.place.path)
            }
        }
    })
}

/// Permission bits and owner that an entry gets in the image.
fn mode_and_owner(job: &Job, entry: &Entry) -> Result<(u32, (u32, u32)), Error> {
    let is_folder = entry.kind == Kind::Folder;
    if job.kind == JobKind::Context {
        let mode = match entry.kind {
            Kind::File { executable: false } => 0o644,
            _ => 0o755,
        };
        return Ok((changed_mode(job, mode, is_folder), job.owner.unwrap_or((0, 0))));
    }
    let stat = look(&job.from.path_of(entry))?;
    let mode = changed_mode(job, stat.st_mode & 0o7777, is_folder);
    Ok((mode, job.owner.unwrap_or((stat.st_uid, stat.st_gid))))
}

fn changed_mode(job: &Job, mode: u32, is_folder: bool) -> u32 {
    job.copy.chmod.as_ref().map_or(mode, |change| change.apply(mode, is_folder))
}

fn look(source: &Path) -> Result<rustix::fs::Stat, Error> {
    rustix::fs::lstat(source).map_err(|errno| Error::Source {
        action: "look at",
        path: source.to_owned(),
        source: errno.into(),
    })
}

/// A path that leads to what is open, for calls that know no descriptors opened for their path only.
fn of_descriptor(open: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", open.as_fd().as_raw_fd()))
}

/// Copies the extended attributes that travel with a file: capabilities and the user's own.
fn copy_attributes(from: &Path, to: &Path, path: &Path) -> Result<(), Error> {
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
        rustix::fs::setxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty())
            .map_err(in_image("set an attribute of", path))?;
    }
    Ok(())
}

/// Copies an extracted archive into a folder of the image, keeping what the archive says.
fn extract(image: &Image, job: &Job, tree: &Path, dest: &Path) -> Result<(), Error> {
    let from = Context::open_image(tree)?;
    let selection = from.select(&["."])?;
    image.folder(dest, job.made_owner)?;
    let inner = Job { from: &from, owner: None, kind: JobKind::Archive, ..*job };
    let mut tasks = Tasks::default();
    for source in &selection.sources {
        for (relative, entry) in source.entries() {
            let path = dest.join(std::ffi::OsStr::from_bytes(relative));
            plan_entry(image, &inner, &path, entry, &mut tasks)?;
        }
    }
    tasks.finish(&inner)
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

    /// A copied folder: one that is there gets the mode and owner as a new one does.
    fn make_folder(&self, path: &Path, mode: u32, owner: (u32, u32), job: &Job) -> Result<(), Error> {
        let Place { folder, name, .. } = self.place(path, job.made_owner)?;
        match rustix::fs::statat(&*folder, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                if (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (mode, owner.0, owner.1) {
                    return Ok(());
                }
                let found = open_folder_at(&folder, &name, path)?;
                own(&found, path, mode, owner)
            }
            Ok(_) if job.kind == JobKind::Archive => {
                rustix::fs::unlinkat(&*folder, &name[..], AtFlags::empty())
                    .map_err(in_image("replace", path))?;
                self.folders.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
                make_folder_at(&folder, &name, path, mode, owner)
            }
            Ok(stat) => Err(Error::Kind {
                path: path.to_owned(),
                found: match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Symlink => "a symbolic link",
                    _ => "no folder",
                },
                wanted: "a folder",
            }),
            Err(Errno::NOENT) => make_folder_at(&folder, &name, path, mode, owner),
            Err(errno) => Err(in_image("look at", path)(errno)),
        }
    }

    /// Where a path leads in the image once its links are followed, the last one too. What is missing may follow.
    fn follow(&self, path: &Path) -> Result<PathBuf, Error> {
        const LINKS_MAX: usize = 255;
        let mut links = 0;
        let mut followed = PathBuf::new();
        let mut rest: VecDeque<OsString> = names(path).collect();
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                followed.pop();
                continue;
            }
            let next = followed.join(&name);
            let found = match self.resolve(&next, OFlags::NOFOLLOW) {
                Ok(found) => found,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    followed = next;
                    continue;
                }
                Err(errno) => return Err(in_image("look at", path)(errno)),
            };
            let stat = rustix::fs::fstat(&found).map_err(in_image("look at", path))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                followed = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Error::Links { path: relative(path).to_owned() });
            }
            let target =
                rustix::fs::readlinkat(&found, "", Vec::new()).map_err(in_image("read the link", path))?;
            let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes())).to_owned();
            if target.is_absolute() {
                followed = PathBuf::new();
            }
            for name in names(&target).rev() {
                rest.push_front(name);
            }
        }
        Ok(followed)
    }

    /// The open folder that a path is in, made when missing, and its last name. A link at the very end of
    /// the path is not followed: it is what gets replaced.
    fn place(&self, path: &Path, owner: (u32, u32)) -> Result<Place, Error> {
        let path = relative(path);
        let name = path.file_name().ok_or(Error::Kind {
            path: path.to_owned(),
            found: "a folder",
            wanted: "a file",
        })?;
        let folder = self.folder(path.parent().unwrap_or(Path::new("")), owner)?;
        Ok(Place { folder, name: name.as_bytes().to_owned(), path: path.to_owned() })
    }
}

/// The names of a path, `..` included.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
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
    own(&open_folder_at(parent, name, path)?, path, mode, owner)
}

fn open_folder_at(parent: &OwnedFd, name: &[u8], path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(in_image("open the folder", path))
}

/// Makes a file with exactly these bytes, this mode and this owner, in place of what is there.
fn create_file(
    Place { folder, name, path }: &Place,
    mode: u32,
    owner: (u32, u32),
    fill: impl FnOnce(&mut File) -> Result<(), Error>,
) -> Result<(), Error> {
    let create = || {
        rustix::fs::openat(
            folder,
            &name[..],
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

fn own_at(folder: &OwnedFd, name: &[u8], path: &Path, owner: (u32, u32)) -> Result<(), Error> {
    let (uid, gid) = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
    rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(in_image("set the owner of", path))
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
