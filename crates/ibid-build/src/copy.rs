//! Performing `COPY` and `ADD`: files of the context, of another stage or of an archive, written through a
//! merged view of the layers so far, so that what is there already is met as a program would meet it.
//!
//! As BuildKit does it (tonistiigi/fsutil, `copy`):
//! - links of the image are followed in the destination that the instruction names, and not below it;
//! - a folder is merged with the one that is there, which gets its mode and owner; the destination itself keeps its own;
//! - folders that are made on the way have mode 755 and the owner of the copy;
//! - sources are copied one after the other, and a later one wins;
//! - what comes from other layers keeps modes, owners, times, attributes, hard links and devices.
//!
//! Invariants:
//! - nothing outside the image is written: see [`target`];
//! - owners and modes are set explicitly; nothing depends on the umask or on who builds.

mod devices;
mod target;
mod writer;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ibid_core::digest::DiffId;
use ibid_core::plan::{Copy, CopySource};
use ibid_core::remote::{GitSource, UrlSource};
use ibid_sandbox::{Overlay, Upper, rootfs};
use ibid_store::{ImportedArchive, Kind, LayerDraft, Store};

use crate::archive;
use crate::context::{self, Context, Entry, Selection};
use crate::remote::Fetched;
pub(crate) use devices::Devices;
use target::{Owner, Target};
use writer::{Conflicts, Metadata, Source, Writer};

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
    /// Several sources, and not only folders, for a destination that is no folder.
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
    /// A repository has something else where a folder was asked for.
    #[error("`{path}` is no folder in {place}")]
    NoFolder {
        /// The path.
        path: String,
        /// The repository.
        place: String,
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

/// Where a copy writes.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) store: &'a Store,
    /// The layers that are met, lowest first.
    pub(crate) layers: &'a [DiffId],
    pub(crate) draft: &'a LayerDraft,
}

/// Makes the folder of a `WORKDIR`, and the folders above it.
pub(crate) fn make_folder(place: Place, path: &str, owner: Owner) -> Result<(), Error> {
    let view = View::open(place)?;
    let mut target = Target::open(&view.root)?;
    let path = target.follow(Path::new(path))?;
    target.folder(&path, owner)?;
    drop(target);
    view.close()
}

/// Copies a selection into a plain folder that nobody else sees: a folder's content, or a file by its name, into
/// `below`, a path in it. Files of the context are normalised; those of a stage or an image keep all they have.
pub(crate) fn into_folder(
    from: &Context,
    selection: &Selection,
    folder: &Path,
    below: &str,
    normalise: bool,
) -> Result<(), Error> {
    let devices = Devices::default();
    let (metadata, owner) = match normalise {
        true => (Metadata::Normalised, Some((0, 0))),
        false => (Metadata::Kept(&devices), None),
    };
    let source = Source { from, metadata, owner, chmod: None, conflicts: Conflicts::Refused };
    let mut target = Target::open(folder)?;
    let mut writer = Writer::new(&mut target, (0, 0));
    let below = Path::new(below);
    writer.folder(below)?;
    for item in &selection.sources {
        writer.start();
        for (relative, entry) in item.entries() {
            let name = if item.is_folder() { relative } else { item.name() };
            writer.entry(source, below.join(OsStr::from_bytes(name)), entry)?;
        }
    }
    writer.finish().map(drop)
}

/// Copies files of the build context, and what was fetched, by number of the source. Gives the devices that empty files
/// stand for.
pub(crate) fn from_context(
    place: Place,
    copy: &Copy,
    context: &Context,
    selection: &Selection,
    fetched: &BTreeMap<usize, Fetched>,
    owner: Option<Owner>,
) -> Result<Devices, Error> {
    let source = Source {
        from: context,
        metadata: Metadata::Normalised,
        owner: Some(owner.unwrap_or((0, 0))),
        chmod: copy.chmod.as_ref(),
        conflicts: Conflicts::Refused,
    };
    let view = View::open(place)?;
    let devices = Job::new(place, copy, source).write(&view, selection, fetched)?;
    view.close()?;
    Ok(devices)
}

/// Copies files of other layers: of the stage or image that messages call `name`. Gives the devices that empty files stand for.
pub(crate) fn from_layers(
    place: Place,
    copy: &Copy,
    name: String,
    layers: &[DiffId],
    owner: Option<Owner>,
) -> Result<Devices, Error> {
    let Place { store, draft, .. } = place;
    let known_devices = Devices::of_layers(store, layers, draft.path())?;
    store.hold_owners(layers)?;
    let view = View::open(place)?;
    let folder = draft.path().join("source");
    make_host_folder(&folder)?;
    let trees = store.layer_trees(layers);
    // One layer needs no overlay.
    let (source_view, root) = match &trees[..] {
        [] => (None, folder),
        [layer] => (None, layer.clone()),
        _ => {
            let overlay = Overlay { lowers: trees, upper: None, volatile: false };
            (Some(rootfs::mount(&overlay, &folder)?), folder)
        }
    };
    let from = Context::of_layers(&root, name)?;
    let selection = from.select_copied(copy)?;
    let source = Source {
        from: &from,
        metadata: Metadata::Kept(&known_devices),
        owner,
        chmod: copy.chmod.as_ref(),
        conflicts: Conflicts::Refused,
    };
    let devices = Job::new(place, copy, source).write(&view, &selection, &BTreeMap::new())?;
    drop(from);
    if let Some(source_view) = source_view {
        source_view.unmount()?;
    }
    view.close()?;
    Ok(devices)
}

/// The root file system so far, writable.
struct View {
    mounted: Option<rootfs::Mounted>,
    root: PathBuf,
}

impl View {
    /// Without the store's skeleton: its mount points are in no image. Over no layer at all, nothing is mounted.
    fn open(place: Place) -> Result<Self, Error> {
        let Place { store, layers, draft } = place;
        let lowers = store.layer_trees(layers);
        if lowers.is_empty() {
            return Ok(Self { mounted: None, root: draft.upper().to_owned() });
        }
        let root = draft.path().join("merged");
        make_host_folder(&root)?;
        let upper = Upper { upper: draft.upper().to_owned(), work: draft.work().to_owned() };
        let overlay = Overlay { lowers, upper: Some(upper), volatile: true };
        Ok(Self { mounted: Some(rootfs::mount(&overlay, &root)?), root })
    }

    fn close(self) -> Result<(), Error> {
        self.mounted.map_or(Ok(()), |mounted| Ok(mounted.unmount()?))
    }
}

fn make_host_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir(path).map_err(|source| Error::Source {
        action: "make the folder",
        path: path.to_owned(),
        source,
    })
}

/// A copy, with what its sources are to be in the image.
struct Job<'a> {
    place: Place<'a>,
    copy: &'a Copy,
    source: Source<'a>,
    /// Owner of folders that are made on the way.
    made_owner: Owner,
}

impl<'a> Job<'a> {
    fn new(place: Place<'a>, copy: &'a Copy, source: Source<'a>) -> Self {
        Self { place, copy, source, made_owner: source.owner.unwrap_or((0, 0)) }
    }

    fn write(
        &self,
        view: &View,
        selection: &Selection,
        fetched: &BTreeMap<usize, Fetched>,
    ) -> Result<Devices, Error> {
        let Self { copy, source, made_owner, .. } = *self;
        let mut target = match view.mounted.is_some() && self.has_no_hard_links(fetched) {
            true => Target::open_over(&view.root, self.place.draft.upper())?,
            false => Target::open(&view.root)?,
        };
        let mut devices = Devices::default();
        let mut writer = Writer::new(&mut target, made_owner);
        let sources = selection.sources.len() + fetched.len() + copy.inline.len();
        let folders = selection.sources.iter().filter(|item| item.is_folder()).count()
            + fetched.values().filter(|fetched| matches!(fetched, Fetched::Commit(_))).count();
        if sources > 1 && sources > folders && !Destination::find(&mut writer, &copy.dest)?.is_folder {
            return Err(Error::SeveralSources(copy.dest.clone()));
        }
        for (number, from) in copy.sources.iter().enumerate() {
            for item in selection.sources.iter().filter(|item| item.number() == number) {
                writer.start();
                let destination = Destination::find(&mut writer, &copy.dest)?;
                if item.is_folder() {
                    writer.folder(&destination.path)?;
                    for (relative, entry) in item.entries() {
                        writer.entry(source, destination.path.join(OsStr::from_bytes(relative)), entry)?;
                    }
                    continue;
                }
                for (_, entry) in item.entries() {
                    if copy.extract
                        && let Some(compression) = detect(source.from, entry)?
                    {
                        devices.extend(writer.finish()?);
                        let archive = archive::import(self.place.store, source.from, entry, compression)?;
                        devices.extend(self.extract(&mut target, &archive, &destination.path)?);
                        writer = Writer::new(&mut target, made_owner);
                        continue;
                    }
                    writer.entry(source, destination.file(OsStr::from_bytes(item.name())), entry)?;
                }
            }
            if let Some(fetched) = fetched.get(&number) {
                let destination = Destination::find(&mut writer, &copy.dest)?;
                devices.extend(writer.finish()?);
                devices.extend(self.fetched(&mut target, from, fetched, &destination)?);
                writer = Writer::new(&mut target, made_owner);
            }
        }
        for inline in &copy.inline {
            let destination = Destination::find(&mut writer, &copy.dest)?;
            let mode = source.chmod.map_or(0o644, |change| change.apply(0o644, false));
            let path = destination.file(OsStr::new(&inline.name));
            writer.content(&path, inline.content.as_bytes(), mode, source.owner.unwrap_or((0, 0)))?;
        }
        devices.extend(writer.finish()?);
        Ok(devices)
    }

    /// The files of a build context are each their own; those of archives, layers and the like may have several names.
    fn has_no_hard_links(&self, fetched: &BTreeMap<usize, Fetched>) -> bool {
        matches!(self.source.metadata, Metadata::Normalised) && !self.copy.extract && fetched.is_empty()
    }

    /// Copies what was fetched.
    fn fetched(
        &self,
        target: &mut Target,
        from: &CopySource,
        fetched: &Fetched,
        destination: &Destination,
    ) -> Result<Devices, Error> {
        match (from, fetched) {
            (CopySource::Url(url), Fetched::File(path)) => {
                return self.download(target, url, path, destination);
            }
            (CopySource::Git(git), Fetched::Commit(layer)) => {
                self.commit(target, git, layer.as_ref(), &destination.path)?;
            }
            _ => unreachable!("a URL becomes a file, and a repository a commit"),
        }
        Ok(Devices::default())
    }

    /// Copies a file of the store that was fetched, or what is in it.
    fn download(
        &self,
        target: &mut Target,
        url: &UrlSource,
        path: &Path,
        destination: &Destination,
    ) -> Result<Devices, Error> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
            unreachable!("a download is in a folder and named by its digest");
        };
        let from = Context::of_layers(folder, "the downloads".to_owned())?;
        let selection = from.select_path(name)?;
        let source = Source { from: &from, metadata: Metadata::Fetched, ..self.source };
        for (_, entry) in selection.sources.iter().flat_map(context::Source::entries) {
            if let Some(compression) = detect(&from, entry)?.filter(|_| url.unpack) {
                let archive = archive::import(self.place.store, &from, entry, compression)?;
                return self.extract(target, &archive, &destination.path);
            }
            let mut writer = Writer::new(target, self.made_owner);
            writer.entry(source, destination.file(OsStr::new(&url.file_name)), entry)?;
            writer.finish()?;
        }
        Ok(Devices::default())
    }

    /// Copies the files of a commit, which are in a layer if there are any.
    fn commit(
        &self,
        target: &mut Target,
        git: &GitSource,
        layer: Option<&DiffId>,
        dest: &Path,
    ) -> Result<(), Error> {
        let folder = git.folder.as_deref().unwrap_or(".");
        let Some(layer) = layer else {
            return match folder {
                "." => target.folder(dest, self.made_owner).map(drop),
                _ => Err(Error::NoFolder { path: folder.to_owned(), place: git.name() }),
            };
        };
        let from = Context::of_layers(&self.place.store.layer_tree(layer), git.name())?;
        let selection = from.select_one(folder, &self.copy.exclude)?;
        let source = Source { from: &from, ..self.source };
        let mut writer = Writer::new(target, self.made_owner);
        for item in &selection.sources {
            if !item.is_folder() {
                return Err(Error::NoFolder { path: folder.to_owned(), place: git.name() });
            }
            writer.folder(dest)?;
            for (relative, entry) in item.entries() {
                writer.entry(source, dest.join(OsStr::from_bytes(relative)), entry)?;
            }
        }
        writer.finish().map(drop)
    }

    /// Extracts an archive into a folder of the image, keeping what the archive says.
    fn extract(&self, target: &mut Target, archive: &ImportedArchive, dest: &Path) -> Result<Devices, Error> {
        let Place { store, draft, .. } = self.place;
        // No layer can hold such names as files.
        let manifest = store.layer_manifest(&archive.layer)?;
        let deletes =
            |entry: &&ibid_store::Entry| matches!(entry.kind, Kind::Whiteout | Kind::Folder { opaque: true });
        if let Some(entry) = manifest.entries.iter().find(deletes) {
            return Err(Error::Whiteout { path: dest.join(OsStr::from_bytes(&entry.path)) });
        }
        let known_devices = Devices::of_layers(store, &[archive.layer], draft.path())?;
        let from = Context::of_layers(&store.layer_tree(&archive.layer), "the archive".to_owned())?;
        let selection = from.select(&["."])?;
        let mut writer = Writer::new(target, self.made_owner);
        writer.folder(dest)?;
        let source = Source {
            from: &from,
            metadata: Metadata::Kept(&known_devices),
            owner: None,
            chmod: None,
            conflicts: Conflicts::Replaced(&archive.implied_folders),
        };
        for item in &selection.sources {
            for (relative, entry) in item.entries() {
                writer.entry(source, dest.join(OsStr::from_bytes(relative)), entry)?;
            }
        }
        writer.finish()
    }
}

/// Where the destination of an instruction is.
struct Destination {
    /// Without links.
    path: PathBuf,
    is_folder: bool,
}

impl Destination {
    fn find(writer: &mut Writer, text: &str) -> Result<Self, Error> {
        let path = writer.target().follow(Path::new(text))?;
        // One that ends with `/` is a folder, and made when it is missing.
        let is_folder = text.ends_with('/') || writer.target().is_folder(&path)?;
        Ok(Self { path, is_folder })
    }

    /// Where a file of that name goes.
    fn file(&self, name: &OsStr) -> PathBuf {
        if self.is_folder { self.path.join(name) } else { self.path.clone() }
    }
}

fn detect(from: &Context, entry: &Entry) -> Result<Option<archive::Compression>, Error> {
    match entry.kind {
        context::Kind::File { .. } => Ok(archive::detect(from, entry)?),
        _ => Ok(None),
    }
}
