//! Pulling: a reference → an image in the store.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ibid_core::digest::{DiffId, Digest};
use ibid_core::image::ImageConfig;
use ibid_core::manifest::Descriptor;
use ibid_core::reference::Reference;
use ibid_store::Store;

use crate::client::{Client, Event, lock};
use crate::download;
use crate::error::{Error, Result};
use crate::image::{self, Document, ImageManifest, Platform};
use crate::known;
use crate::repository::Repository;

/// Most bytes of a configuration.
const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Indexes may name indexes, so often.
const INDEX_DEPTH_MAX: usize = 3;
/// Layers that are on their way at once.
const LAYERS_AT_ONCE: usize = 4;

/// An image that is now in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its digest, that of its configuration.
    pub image: Digest,
    /// What the reference led to: the digest of a manifest or index.
    pub manifest: Digest,
    /// Number of its layers.
    pub layers: usize,
    /// Number of those that were not in the store.
    pub layers_new: usize,
}

impl Client<'_> {
    /// Brings the image of `platform` (none means this machine's) into the store and gives it the reference for a name.
    /// Layers that are there are not fetched. Nothing is visible before all of it is there and checked.
    pub fn pull(&self, store: &Store, reference: &Reference, platform: Option<&Platform>) -> Result<Pulled> {
        let host = Platform::of_host();
        let platform = platform.unwrap_or(&host);
        for repository in self.sources(reference)? {
            match pull_from(&repository, store, reference, platform) {
                Err(error) if repository.is_mirror => {
                    let host = repository.endpoint.host();
                    self.tell(Event::MirrorFailed { host, reason: with_causes(&error) });
                }
                result => return result,
            }
        }
        unreachable!("the place itself is no mirror, and comes last")
    }
}

/// The name of the document that a reference leads to.
fn document_name(reference: &Reference) -> String {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".to_owned(),
    }
}

fn pull_from(
    repository: &Repository,
    store: &Store,
    reference: &Reference,
    platform: &Platform,
) -> Result<Pulled> {
    let name = document_name(reference);
    let what = repository.shown(&name);
    let no_image = |reason| Error::NoImage { what: what.clone(), reason };
    let (root, manifest) = find_manifest(repository, &name, platform)?;
    if let Some(reason) = manifest.fault() {
        return Err(no_image(reason));
    }
    let config_text = repository.blob(&manifest.config, CONFIG_BYTES_MAX)?;
    let config: ImageConfig = serde_json::from_slice(&config_text)
        .map_err(|error| no_image(format!("its configuration cannot be read: {error}")))?;
    if !platform.takes(&config.os, &config.architecture, config.variant.as_deref()) {
        let available = vec![format!("{}/{}", config.os, config.architecture)];
        return Err(Error::Platform { what, wanted: platform.to_string(), available });
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(no_image(format!("its manifest lists {layers} layers, and its configuration {ids}")));
    }
    let mut seen = HashSet::new();
    let wanted: VecDeque<(&Descriptor, DiffId)> = manifest
        .layers
        .iter()
        .zip(diff_ids.iter().copied())
        .filter(|(_, diff_id)| seen.insert(*diff_id) && !store.has_layer(diff_id))
        .collect();
    let layers_new = wanted.len();
    repository.client.tell(Event::Layers {
        layers: diff_ids.len(),
        wanted: layers_new,
        bytes: wanted.iter().fold(0, |bytes, (layer, _)| bytes.saturating_add(layer.size)),
    });
    fetch_layers(repository, store, wanted)?;
    for diff_id in diff_ids {
        store.use_layer(diff_id);
    }
    let image = store.put_blob(&config_text)?;
    for layer in &manifest.layers {
        known::remember_place(store, repository.endpoint.host(), &layer.digest, &repository.name)?;
    }
    known::remember_manifest(store, reference, &image, &root)?;
    store.set_tag(reference, image)?;
    Ok(Pulled { image, manifest: root, layers: diff_ids.len(), layers_new })
}

/// The manifest for a platform, and the digest of the document that the name leads to.
fn find_manifest(
    repository: &Repository,
    name: &str,
    platform: &Platform,
) -> Result<(Digest, ImageManifest)> {
    let what = repository.shown(name);
    let mut found = repository.manifest(name)?;
    let root = found.digest;
    for _ in 0..INDEX_DEPTH_MAX {
        let document = image::read(&found.text, found.content_type.as_deref())
            .map_err(|reason| Error::NoImage { what: what.clone(), reason })?;
        let entries = match document {
            Document::Image(manifest) => return Ok((root, manifest)),
            Document::Index(entries) => entries,
        };
        let chosen = image::choose(&entries, platform).map_err(|available| Error::Platform {
            what: what.clone(),
            wanted: platform.to_string(),
            available,
        })?;
        let name = chosen.digest.to_string();
        found = repository.manifest(&name)?;
        if found.text.len() as u64 != chosen.size {
            let (expected, found) = (chosen.size, found.text.len() as u64);
            return Err(Error::Size { what: repository.shown(&name), expected, found });
        }
    }
    Err(Error::NoImage { what, reason: "its indexes name indexes without end".to_owned() })
}

/// Several at once; the first failure ends the others.
fn fetch_layers(
    repository: &Repository,
    store: &Store,
    wanted: VecDeque<(&Descriptor, DiffId)>,
) -> Result<()> {
    let threads = wanted.len().min(LAYERS_AT_ONCE);
    let (queue, cancelled, failure) = (Mutex::new(wanted), AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !cancelled.load(Ordering::Relaxed) {
                    let Some((descriptor, diff_id)) = lock(&queue).pop_front() else { return };
                    if let Err(error) =
                        download::fetch_layer(repository, store, descriptor, diff_id, &cancelled)
                    {
                        cancelled.store(true, Ordering::Relaxed);
                        let mut failure = lock(&failure);
                        if failure.is_none() || !matches!(error, Error::Cancelled) {
                            failure.get_or_insert(error);
                        }
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

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
