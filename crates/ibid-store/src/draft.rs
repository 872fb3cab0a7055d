//! A layer in the making, and a run's scratch folder.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ibid_core::digest::{DiffId, Hasher};
use rustix::fs::Mode;

use crate::gc;
use crate::identity_layer::IdentityLayer;
use crate::layers::{open_tree, write_manifest};
use crate::pack::pack;
use crate::scan::scan;
use crate::staging::{self, StagedFolder};
use crate::store;
use crate::{Error, Kind, Result, Store};

/// How a draft becomes a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitRules {
    /// Seconds since 1970: no entry gets a later time.
    pub epoch: i64,
    /// Keep times and every file: the rules of [`ibid_core::scrub`] are off.
    pub keep_nondeterminism: bool,
    /// The lower folders the draft was mounted over, topmost first. With them, a folder that is in the draft only because
    /// something that is dropped was written below it is left out.
    pub lowers: Vec<PathBuf>,
    /// Folders and files that were made only to mount something there, and the folders above them that were made for
    /// that, as absolute paths of the container without links. Those that are still empty are left out.
    pub mount_points: Vec<PathBuf>,
    /// Who owns what the draft's maker never gave to anybody, where one id is mapped: whom a command ran as. Elsewhere
    /// every file says so itself.
    pub maker: (u32, u32),
    /// Empty files that stand for devices, where nobody may make one: what they are, by path.
    pub devices: BTreeMap<Vec<u8>, Kind>,
}

/// A folder under `tmp/` whose `upper` becomes a layer. Removed when dropped without [`LayerDraft::commit`].
#[derive(Debug)]
pub struct LayerDraft {
    store: Store,
    folder: StagedFolder,
    upper: PathBuf,
    work: PathBuf,
}

impl Store {
    /// Starts a layer: an empty `upper` and `work` folder on the store's file system.
    pub fn draft_layer(&self) -> Result<LayerDraft> {
        let folder = StagedFolder::new(&self.tmp())?;
        let upper = make_layer_folder(&folder)?;
        let work = folder.path().join("work");
        make_folder(&work, 0o700)?;
        Ok(LayerDraft { store: self.clone(), folder, upper, work })
    }

    /// Makes a folder for many files that are not kept.
    pub fn scratch(&self) -> Result<Scratch> {
        let place = if self.is_read_only() { std::env::temp_dir() } else { self.tmp() };
        Scratch::new(StagedFolder::new(&place)?)
    }

    /// A folder for what a run writes over its image. Most write little or nothing: it is made faster than that of [`Store::scratch`].
    pub fn scratch_of_run(&self) -> Result<Scratch> {
        if self.is_read_only() {
            return self.scratch();
        }
        let place = self.scratch_folder();
        let kept = match StagedFolder::kept(&place) {
            // A store that was made before there was such a folder.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                store::make_folder(&place, 0o700)?;
                store::spread(&place);
                StagedFolder::kept(&place)?
            }
            kept => kept?,
        };
        kept.map_or_else(|| self.scratch(), Scratch::new)
    }
}

impl LayerDraft {
    /// The overlay's upper folder, or where to write the layer's files.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// The overlay's work folder.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The draft's own folder, in which its user may make other temporary files. It must not use the names `layer`
    /// and `work`.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the layer and publishes it. `None` when nothing is in it. Nothing may write in the upper folder any more.
    ///
    /// The upper folder itself, `/` of the container, is no part of the layer.
    pub fn commit(self, rules: &CommitRules) -> Result<Option<DiffId>> {
        let manifest = scan(&self.upper, rules)?;
        if manifest.entries.is_empty() {
            self.folder.remove()?;
            return Ok(None);
        }
        let tree = open_tree(&self.upper)?;
        let mut hasher = Hasher::default();
        pack(&manifest, tree.as_fd(), &self.upper, |chunk| {
            hasher.update(chunk);
            Ok(())
        })?;
        let diff_id = DiffId(hasher.finish());
        write_manifest(&self.folder, &manifest)?;
        self.store.publish_layer(self.folder, diff_id)?;
        Ok(Some(diff_id))
    }
}

/// A folder for one run or build, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: StagedFolder,
    upper: PathBuf,
    work: PathBuf,
}

impl Scratch {
    fn new(folder: StagedFolder) -> Result<Self> {
        let upper = folder.path().join("upper");
        make_root(&upper)?;
        let work = folder.path().join("work");
        make_folder(&work, 0o700)?;
        Ok(Self { folder, upper, work })
    }

    /// The overlay's upper folder.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// The overlay's work folder.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The folder itself, in which the run may keep other temporary files. It must not use the names `upper`, `work`,
    /// `layers` and `identity`.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes down which layers its owner uses, so that they stay while it exists, whoever else deletes.
    pub fn lease(&self, layers: &[DiffId], identity: Option<&IdentityLayer>) -> Result<()> {
        let path = self.folder.path().join(gc::LEASE);
        let layers = layers.iter().map(|layer| format!("{layer}\n"));
        let text: String = layers.chain(identity.map(|layer| format!("{}\n", layer.key()))).collect();
        std::fs::write(&path, text).map_err(Error::io("write", &path))
    }

    /// Removes it now, and says when that fails.
    pub fn remove(self) -> Result<()> {
        self.folder.remove()
    }
}

/// Makes what becomes the folder of a layer. Returns its empty tree.
pub(crate) fn make_layer_folder(folder: &StagedFolder) -> Result<PathBuf> {
    let layer = folder.path().join("layer");
    make_folder(&layer, 0o755)?;
    rustix::fs::chmod(&layer, Mode::from_raw_mode(0o755)).map_err(Error::io("set the mode of", &layer))?;
    let tree = layer.join("tree");
    make_root(&tree)?;
    Ok(tree)
}

fn make_folder(path: &Path, mode: u32) -> Result<()> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(mode)).map_err(Error::io("make the folder", path))
}

/// Makes an upper folder: its mode and owner are those of `/` in the container.
fn make_root(path: &Path) -> Result<()> {
    make_folder(path, 0o755)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(0o755)).map_err(Error::io("set the mode of", path))?;
    staging::own_as_root(path)
}
