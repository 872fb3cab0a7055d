//! The build cache where another machine, or an empty store, can take it from: a folder in the OCI image layout, or a tag
//! of a registry.
//!
//! ```text
//! index.json, or tag ──▶ manifest, artifact type CACHE ──▶ configuration: version, steps, cache mounts, layers
//!                                                       └▶ one blob for each layer, in the same order
//! ```
//!
//! A step is its key and the layer that it made; a key is a digest of all that the step reads, so a cache is of use
//! wherever the same is built. Whoever takes a cache believes its maker that a step made that layer, as with every build
//! cache; everything else is checked: blobs against the digests in the manifest, layers against their diff ids. What is
//! damaged, or not of this kind, is as good as absent.
//!
//! Cache mounts are written when that is asked for, each as a layer: they can be large, and hold what its maker would keep.
//! A mount that is there already is never replaced.
//!
//! Bases are no part of it: they are made from signed packages, or pulled, by those who build.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ibid_core::digest::{DiffId, Digest};
use ibid_core::manifest::{Descriptor, MANIFEST, Manifest};
use ibid_core::plan::Permissions;
use ibid_registry::{Arrival, Repository};
use ibid_store::{CommitRules, Compression, OciFolder, Store};
use ibid_sys::owner;
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

/// Most bytes of a registry's configuration of a cache.
const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// Where a cache is, or goes to.
pub enum CachePlace<'a> {
    /// A folder in the OCI image layout.
    Folder(PathBuf),
    /// A tag of a repository.
    Tag(Repository<'a>, String),
}

impl CachePlace<'_> {
    /// What people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Tag(repository, tag) => repository.shown(tag),
        }
    }
}

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
    /// The registry refused.
    #[error(transparent)]
    Registry(#[from] ibid_registry::Error),
    /// The tag is an image's, or something else's.
    #[error("the tag holds something else than a build cache")]
    OtherTag,
    /// A cache mount could not be copied.
    #[error("cannot copy the cache mount `{id}`")]
    Mount {
        /// What people call it.
        id: String,
        /// Why not.
        source: Box<StepError>,
    },
}

/// Writes the steps of a build, in place of what an earlier build wrote there. What others keep in a folder stays.
///
/// Cache mounts are written when `with_mounts` says so; one that is locked now, or not there, is left out.
pub fn export(
    store: &Store,
    place: &CachePlace,
    built: &Built,
    compression: Compression,
    with_mounts: bool,
) -> Result<Exported, ExportError> {
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
    let steps = steps.into_iter().map(|(key, layer)| Step { key, layer }).collect();
    let config = Config { version: VERSION, steps, mounts, diff_ids: diff_ids.into_iter().collect() };
    let (manifest, text, layers_new) = match place {
        CachePlace::Folder(path) => write_folder(store, path, &config, compression)?,
        CachePlace::Tag(repository, tag) => write_tag(store, repository, tag, &config, compression)?,
    };
    Ok(Exported {
        manifest: Digest::of(&text),
        layers: manifest.layers.len(),
        bytes: manifest.layers.iter().map(|layer| layer.size).sum(),
        layers_new,
        mounts: config.mounts.len(),
    })
}

/// The manifest that was written, its text, and how many layers were not there before.
type Written = (Manifest, Vec<u8>, usize);

fn write_folder(
    store: &Store,
    path: &Path,
    config: &Config,
    compression: Compression,
) -> Result<Written, ExportError> {
    let folder = OciFolder::open_or_make(path)?;
    let index = folder.index()?;
    let (old, others): (Vec<Value>, Vec<Value>) = index.into_iter().partition(is_cache);
    // What cannot be read is written anew, and its blobs are left alone.
    let old: Vec<Cache> =
        old.iter().filter_map(|manifest| Cache::in_folder(&folder, manifest).ok()).collect();
    let known: HashMap<DiffId, &Descriptor> = old.iter().flat_map(Cache::layers).collect();
    let mut layers = Vec::new();
    let mut layers_new = 0;
    for diff_id in &config.diff_ids {
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
    let config = folder.put_blob(CONFIG, &serde_json::to_vec(config).expect("plain data"))?;
    let manifest = Manifest::of_artifact(CACHE, config, layers);
    let text = serde_json::to_vec(&manifest).expect("plain data");
    let mut descriptor = folder.put_blob(MANIFEST, &text)?;
    descriptor.artifact_type = Some(CACHE.to_owned());
    let manifests: Vec<Value> =
        others.into_iter().chain([serde_json::to_value(&descriptor).expect("plain data")]).collect();
    folder.put_index(&manifests)?;
    let kept: BTreeSet<Digest> = blobs(&descriptor.digest, &manifest).collect();
    for old in
        old.iter().flat_map(|cache| blobs(&cache.digest, &cache.manifest)).filter(|old| !kept.contains(old))
    {
        folder.remove_blob(&old)?;
    }
    Ok((manifest, text, layers_new))
}

fn write_tag(
    store: &Store,
    repository: &Repository,
    tag: &str,
    config: &Config,
    compression: Compression,
) -> Result<Written, ExportError> {
    if let Some(text) = repository.tagged(tag)?
        && !serde_json::from_slice(&text).is_ok_and(|value: Value| is_cache(&value))
    {
        return Err(ExportError::OtherTag);
    }
    let mut layers = Vec::new();
    let mut layers_new = 0;
    for diff_id in &config.diff_ids {
        let put = repository.put_layer(store, diff_id, compression)?;
        layers_new += usize::from(put.arrival == Arrival::Sent);
        layers.push(put.descriptor);
    }
    let config = repository.put_blob(store, CONFIG, &serde_json::to_vec(config).expect("plain data"))?;
    let manifest = Manifest::of_artifact(CACHE, config, layers);
    let text = serde_json::to_vec(&manifest).expect("plain data");
    repository.put_manifest(tag, &text)?;
    Ok((manifest, text, layers_new))
}

/// Makes a layer of what is in a cache mount.
fn copy_mount(store: &Store, name: &Digest, id: &str) -> Result<Option<Mount>, StepError> {
    let Some(held) = store.cache_mounts().existing(name)? else { return Ok(None) };
    let failed = |source| StepError::Read { path: held.path().display().to_string(), source };
    let status = rustix::fs::stat(held.path()).map_err(|errno| failed(errno.into()))?;
    let (uid, gid) = owner::in_layer(held.path(), &status).map_err(|errno| failed(errno.into()))?;
    let files = Context::of_layers(held.path(), "the cache mount".to_owned())?;
    let draft = store.draft_layer()?;
    copy::into_folder(&files, &files.select_path(".")?, draft.upper(), "", false)?;
    // It is no part of any image: what differs each time may.
    let layer = draft.commit(&CommitRules { keep_nondeterminism: true, ..CommitRules::default() })?;
    Ok(Some(Mount { name: *name, id: id.to_owned(), layer, uid, gid, mode: status.st_mode & 0o7777 }))
}

/// Every blob of a cache whose manifest has that digest.
fn blobs<'a>(digest: &'a Digest, manifest: &'a Manifest) -> impl Iterator<Item = Digest> + 'a {
    let layers = manifest.layers.iter().map(|layer| layer.digest);
    [*digest, manifest.config.digest].into_iter().chain(layers)
}

/// Whether a manifest, or what an index says of one, is that of a cache.
fn is_cache(value: &Value) -> bool {
    value["artifactType"] == CACHE
}

/// One cache.
#[derive(Debug)]
struct Cache {
    /// Of its manifest.
    digest: Digest,
    manifest: Manifest,
    config: Config,
}

impl Cache {
    fn in_folder(folder: &OciFolder, descriptor: &Value) -> Result<Self, Fault> {
        let descriptor: Descriptor = serde_json::from_value(descriptor.clone())?;
        Self::read(&folder.blob(&descriptor)?, |config| Ok(folder.blob(config)?))
    }

    fn in_repository(repository: &Repository, tag: &str) -> Result<Self, Fault> {
        let text = repository.tagged(tag)?.ok_or(Fault::NoCache)?;
        if !is_cache(&serde_json::from_slice(&text)?) {
            return Err(Fault::NoCache);
        }
        Self::read(&text, |config| Ok(repository.blob(config, CONFIG_BYTES_MAX)?))
    }

    fn read(text: &[u8], blob: impl FnOnce(&Descriptor) -> Result<Vec<u8>, Fault>) -> Result<Self, Fault> {
        let manifest: Manifest = serde_json::from_slice(text)?;
        let config: Config = serde_json::from_slice(&blob(&manifest.config)?)?;
        match config.version {
            VERSION if config.diff_ids.len() == manifest.layers.len() => {
                Ok(Self { digest: Digest::of(text), manifest, config })
            }
            VERSION => Err(Fault::Layers),
            version => Err(Fault::Version(version)),
        }
    }

    fn layers(&self) -> impl Iterator<Item = (DiffId, &Descriptor)> {
        self.config.diff_ids.iter().copied().zip(&self.manifest.layers)
    }
}

/// Why a cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The folder, or a blob in it.
    #[error(transparent)]
    Folder(#[from] ibid_store::Error),
    /// The registry, or what it has.
    #[error(transparent)]
    Registry(#[from] ibid_registry::Error),
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

/// A build cache that steps are looked up in.
pub struct ExportedCache<'a> {
    name: String,
    source: Source<'a>,
    steps: HashMap<Digest, Option<DiffId>>,
    mounts: HashMap<Digest, Mount>,
    layers: HashMap<DiffId, Descriptor>,
    /// Whether its registry failed: it is not asked again for each step.
    has_failed: AtomicBool,
}

enum Source<'a> {
    Folder(OciFolder),
    Repository(Repository<'a>),
}

impl<'a> ExportedCache<'a> {
    /// Opens it. No layer is looked at yet.
    pub fn open(place: CachePlace<'a>) -> Result<Self, Fault> {
        let name = place.name();
        let (source, caches) = match place {
            CachePlace::Folder(path) => {
                let folder = OciFolder::open(&path)?;
                let index = folder.index()?;
                let caches = index.iter().filter(|descriptor| is_cache(descriptor));
                let caches: Vec<Cache> = caches
                    .map(|descriptor| Cache::in_folder(&folder, descriptor))
                    .collect::<Result<_, _>>()?;
                (Source::Folder(folder), caches)
            }
            CachePlace::Tag(repository, tag) => {
                let cache = Cache::in_repository(&repository, &tag)?;
                (Source::Repository(repository), vec![cache])
            }
        };
        if caches.is_empty() {
            return Err(Fault::NoCache);
        }
        let mut opened = Self {
            name,
            source,
            steps: HashMap::new(),
            mounts: HashMap::new(),
            layers: HashMap::new(),
            has_failed: AtomicBool::new(false),
        };
        for cache in caches {
            opened.layers.extend(cache.layers().map(|(diff_id, layer)| (diff_id, layer.clone())));
            opened.steps.extend(cache.config.steps.iter().map(|step| (step.key, step.layer)));
            opened.mounts.extend(cache.config.mounts.into_iter().map(|mount| (mount.name, mount)));
        }
        Ok(opened)
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the step of that key made, its layer then being in the store; none when this cache does not know it.
    pub(crate) fn find(&self, store: &Store, key: &Digest) -> Result<Option<CachedStep>, Fault> {
        let Some(layer) = self.steps.get(key).copied() else { return Ok(None) };
        if self.has_failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
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
        if self.has_failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.fetch(store, mount.layer)?;
        let permissions = Permissions { uid: mount.uid, gid: mount.gid, mode: mount.mode & 0o7777 };
        Ok(Some((mount.layer, permissions)))
    }

    /// Brings a layer into the store.
    fn fetch(&self, store: &Store, layer: Option<DiffId>) -> Result<(), Fault> {
        let Some(diff_id) = layer.filter(|diff_id| !store.has_layer(diff_id)) else { return Ok(()) };
        let descriptor = self.layers.get(&diff_id).ok_or(Fault::Layers)?;
        let compression = Compression::of_media_type(&descriptor.media_type)
            .ok_or_else(|| Fault::MediaType(descriptor.media_type.clone()))?;
        let folder = match &self.source {
            Source::Folder(folder) => folder,
            Source::Repository(repository) => {
                return repository.fetch_layer(store, descriptor, diff_id).map_err(|error| {
                    self.has_failed.store(true, Ordering::Relaxed);
                    error.into()
                });
            }
        };
        let found = folder.read_blob(descriptor, |from| store.import_compressed_layer(compression, from))?;
        if found == diff_id { Ok(()) } else { Err(Fault::OtherLayer { expected: diff_id, found }) }
    }
}
