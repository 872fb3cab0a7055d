//! The build cache in a folder in the OCI image layout, for another machine or an empty store.
//!
//! ```text
//! index.json ──▶ manifest, artifact type CACHE ──▶ configuration: version, steps, cache mounts, layers
//!                                               └▶ one blob for each layer, in the same order
//! ```
//!
//! A step is its key and the layer that it made; a key is a digest of all that the step reads, so a cache is of use
//! wherever the same is built. Whoever takes a cache believes its maker that a step made that layer, as with every build
//! cache; everything else is checked: blobs against the digests in the manifest, layers against their diff ids. A folder
//! or a blob that is damaged, or not of this kind, is as good as absent.
//!
//! Cache mounts are written when that is asked for, each as a layer: they can be large, and hold what its maker would keep.
//! A mount that is there already is never replaced.
//!
//! Bases are no part of it: they are made from signed packages, or pulled, by those who build.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ibid_core::digest::{DiffId, Digest};
use ibid_core::manifest::{Descriptor, MANIFEST, Manifest};
use ibid_core::plan::Permissions;
use ibid_store::{CommitRules, Compression, OciFolder, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::{Built, CachedStep, StepError};
use crate::context::Context;
use crate::copy;

/// What a manifest's artifact type says.
const CACHE: &str = "application/vnd.ibid.build-cache.v1";
/// The media type of its configuration.
const CONFIG: &str = "application/vnd.ibid.build-cache.config.v1+json";
/// The version of the format that this code reads and writes; another one is as good as none.
const VERSION: u32 = 1;

/// What a cache holds.
#[derive(Debug, Serialize, Deserialize)]
struct Config {
    version: u32,
    /// In the order of their keys.
    steps: Vec<Step>,
    /// In the order of their names.
    #[serde(default)]
    mounts: Vec<Mount>,
    /// The layers' diff ids, in the order of the manifest's layers.
    diff_ids: Vec<DiffId>,
}

/// A cache mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mount {
    name: Digest,
    /// What people call it.
    id: String,
    /// What is in it; none when nothing is.
    layer: Option<DiffId>,
    uid: u32,
    gid: u32,
    mode: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Step {
    key: Digest,
    /// None when the step changed nothing.
    layer: Option<DiffId>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// The manifest's digest.
    pub manifest: Digest,
    /// Number of layers.
    pub layers: usize,
    /// Bytes of all of them, compressed.
    pub bytes: u64,
    /// Number of layers that were not there before.
    pub layers_new: usize,
    /// Number of cache mounts.
    pub mounts: usize,
}

/// Why a cache could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store or the folder refused.
    #[error(transparent)]
    Store(#[from] ibid_store::Error),
    /// A cache mount could not be copied.
    #[error("cannot copy the cache mount `{id}`")]
    Mount {
        /// What people call it.
        id: String,
        /// Why not.
        source: Box<StepError>,
    },
}

/// Writes the steps of a build. What an earlier build wrote to the same folder and this one has not is removed; what
/// others keep there stays.
///
/// Cache mounts are written when `with_mounts` says so; one that is locked now, or not there, is left out.
pub fn export(
    store: &Store,
    folder: &Path,
    built: &Built,
    compression: Compression,
    with_mounts: bool,
) -> Result<Exported, ExportError> {
    let folder = OciFolder::open_or_make(folder)?;
    let index = folder.index()?;
    let (old, others): (Vec<Value>, Vec<Value>) = index.into_iter().partition(is_cache);
    // What cannot be read is written anew, and its blobs are left alone.
    let old: Vec<Cache> = old.iter().filter_map(|manifest| Cache::read(&folder, manifest).ok()).collect();
    let known: HashMap<DiffId, &Descriptor> = old.iter().flat_map(Cache::layers).collect();
    let steps: BTreeMap<Digest, Option<DiffId>> =
        built.made.iter().map(|made| (made.key, made.layer)).collect();
    let mut mounts = Vec::new();
    for (name, id) in built.cache_mounts.iter().filter(|_| with_mounts) {
        let copied = copy_mount(store, name, id);
        mounts.extend(
            copied.map_err(|source| ExportError::Mount { id: id.clone(), source: Box::new(source) })?,
        );
    }
    let in_mounts = mounts.iter().filter_map(|mount| mount.layer);
    let diff_ids: BTreeSet<DiffId> = steps.values().copied().flatten().chain(in_mounts).collect();
    let mut layers = Vec::new();
    let mut layers_new = 0;
    for diff_id in &diff_ids {
        let is_same =
            |known: &&Descriptor| known.media_type == compression.media_type() && folder.has_blob(known);
        layers.push(match known.get(diff_id).copied().filter(is_same) {
            Some(known) => known.clone(),
            None => {
                layers_new += 1;
                folder.write_blob(compression.media_type(), |out| {
                    store.write_compressed_layer(diff_id, compression, out)
                })?
            }
        });
    }
    let steps = steps.into_iter().map(|(key, layer)| Step { key, layer }).collect();
    let mounts_count = mounts.len();
    let config = Config { version: VERSION, steps, mounts, diff_ids: diff_ids.into_iter().collect() };
    let config = folder.put_blob(CONFIG, &serde_json::to_vec(&config).expect("plain data"))?;
    let manifest = Manifest::of_artifact(CACHE, config, layers);
    let mut descriptor = folder.put_blob(MANIFEST, &serde_json::to_vec(&manifest).expect("plain data"))?;
    descriptor.artifact_type = Some(CACHE.to_owned());
    let manifests: Vec<Value> =
        others.into_iter().chain([serde_json::to_value(&descriptor).expect("plain data")]).collect();
    folder.put_index(&manifests)?;
    let kept: BTreeSet<Digest> = blobs(&descriptor, &manifest).collect();
    for old in old
        .iter()
        .flat_map(|cache| blobs(&cache.descriptor, &cache.manifest))
        .filter(|old| !kept.contains(old))
    {
        folder.remove_blob(&old)?;
    }
    Ok(Exported {
        manifest: descriptor.digest,
        layers: manifest.layers.len(),
        bytes: manifest.layers.iter().map(|layer| layer.size).sum(),
        layers_new,
        mounts: mounts_count,
    })
}

/// Makes a layer of what is in a cache mount.
fn copy_mount(store: &Store, name: &Digest, id: &str) -> Result<Option<Mount>, StepError> {
    let Some(held) = store.cache_mounts().existing(name)? else { return Ok(None) };
    let metadata = std::fs::metadata(held.path())
        .map_err(|source| StepError::Read { path: held.path().display().to_string(), source })?;
    let files = Context::of_layers(held.path(), "the cache mount".to_owned())?;
    let draft = store.draft_layer()?;
    copy::into_folder(&files, &files.select_path(".")?, draft.upper(), "", false)?;
    // It is no part of any image: what differs each time may.
    let layer = draft.commit(&CommitRules { keep_nondeterminism: true, ..CommitRules::default() })?;
    Ok(Some(Mount {
        name: *name,
        id: id.to_owned(),
        layer,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
    }))
}

/// Every blob of a cache.
fn blobs<'a>(descriptor: &'a Descriptor, manifest: &'a Manifest) -> impl Iterator<Item = Digest> + 'a {
    let layers = manifest.layers.iter().map(|layer| layer.digest);
    [descriptor.digest, manifest.config.digest].into_iter().chain(layers)
}

fn is_cache(descriptor: &Value) -> bool {
    descriptor["artifactType"] == CACHE
}

/// One cache of a folder.
#[derive(Debug)]
struct Cache {
    descriptor: Descriptor,
    manifest: Manifest,
    config: Config,
}

impl Cache {
    fn read(folder: &OciFolder, descriptor: &Value) -> Result<Self, Fault> {
        let descriptor: Descriptor = serde_json::from_value(descriptor.clone())?;
        let manifest: Manifest = serde_json::from_slice(&folder.blob(&descriptor)?)?;
        let config: Config = serde_json::from_slice(&folder.blob(&manifest.config)?)?;
        match config.version {
            VERSION if config.diff_ids.len() == manifest.layers.len() => {
                Ok(Self { descriptor, manifest, config })
            }
            VERSION => Err(Fault::Layers),
            version => Err(Fault::Version(version)),
        }
    }

    fn layers(&self) -> impl Iterator<Item = (DiffId, &Descriptor)> {
        self.config.diff_ids.iter().copied().zip(&self.manifest.layers)
    }
}

/// Why a folder's cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The folder, or a blob in it.
    #[error(transparent)]
    Folder(#[from] ibid_store::Error),
    /// Something else than it should be.
    #[error("a document in it cannot be read: {0}")]
    Document(#[from] serde_json::Error),
    /// It holds images perhaps, but no build cache.
    #[error("there is no build cache in it")]
    NoCache,
    /// Made by another ibid.
    #[error("its build cache has version {0}; this ibid knows version {VERSION}")]
    Version(u32),
    /// The lists of layers do not fit.
    #[error("its manifest and its configuration list different layers")]
    Layers,
    /// A blob is of a kind that is not known.
    #[error("a layer of it has the media type `{0}`")]
    MediaType(String),
    /// A blob holds another layer than the configuration says.
    #[error("the blob of the layer {expected} holds {found}")]
    OtherLayer {
        /// What the configuration says.
        expected: DiffId,
        /// What it is.
        found: DiffId,
    },
}

/// A folder with a build cache that steps are looked up in.
#[derive(Debug)]
pub struct CacheFolder {
    path: PathBuf,
    folder: OciFolder,
    steps: HashMap<Digest, Option<DiffId>>,
    mounts: HashMap<Digest, Mount>,
    layers: HashMap<DiffId, Descriptor>,
}

impl CacheFolder {
    /// Opens it. No layer is looked at yet.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let folder = OciFolder::open(path)?;
        let index = folder.index()?;
        let mut opened = Self {
            path: path.to_owned(),
            folder,
            steps: HashMap::new(),
            mounts: HashMap::new(),
            layers: HashMap::new(),
        };
        let mut caches = index.iter().filter(|descriptor| is_cache(descriptor)).peekable();
        if caches.peek().is_none() {
            return Err(Fault::NoCache);
        }
        for descriptor in caches {
            let cache = Cache::read(&opened.folder, descriptor)?;
            opened.layers.extend(cache.layers().map(|(diff_id, layer)| (diff_id, layer.clone())));
            opened.steps.extend(cache.config.steps.iter().map(|step| (step.key, step.layer)));
            opened.mounts.extend(cache.config.mounts.into_iter().map(|mount| (mount.name, mount)));
        }
        Ok(opened)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the step of that key made, its layer then being in the store; none when this cache does not know it.
    pub(crate) fn find(&self, store: &Store, key: &Digest) -> Result<Option<CachedStep>, Fault> {
        let Some(layer) = self.steps.get(key).copied() else { return Ok(None) };
        self.fetch(store, layer)?;
        Ok(Some(CachedStep { layer }))
    }

    /// What is in the cache mount of that name, its layer then being in the store, and whose it is; none when this cache
    /// does not know it.
    pub(crate) fn find_mount(
        &self,
        store: &Store,
        name: &Digest,
    ) -> Result<Option<(Option<DiffId>, Permissions)>, Fault> {
        let Some(mount) = self.mounts.get(name) else { return Ok(None) };
        self.fetch(store, mount.layer)?;
        let permissions = Permissions { uid: mount.uid, gid: mount.gid, mode: mount.mode & 0o7777 };
        Ok(Some((mount.layer, permissions)))
    }

    /// Brings a layer into the store.
    fn fetch(&self, store: &Store, layer: Option<DiffId>) -> Result<(), Fault> {
        if let Some(diff_id) = layer
            && !store.has_layer(&diff_id)
        {
            let descriptor = self.layers.get(&diff_id).ok_or(Fault::Layers)?;
            let compression = Compression::of_media_type(&descriptor.media_type)
                .ok_or_else(|| Fault::MediaType(descriptor.media_type.clone()))?;
            let found =
                self.folder.read_blob(descriptor, |from| store.import_compressed_layer(compression, from))?;
            if found != diff_id {
                return Err(Fault::OtherLayer { expected: diff_id, found });
            }
        }
        Ok(())
    }
}
