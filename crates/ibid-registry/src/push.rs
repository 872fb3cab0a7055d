//! Pushing: an image of the store → a reference.
//!
//! What goes out is the same each time, whoever pushes: layers are compressed by [`ibid_store::Compression`], and the
//! manifest says nothing of this machine. So pushing twice changes nothing, and a registry has each layer once. The
//! manifest goes last: an image that has a name is whole.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ibid_core::digest::{DiffId, Digest};
use ibid_core::manifest::{Descriptor, MANIFEST, Manifest};
use ibid_core::reference::Reference;
use ibid_store::{Compression, DownloadDraft, Store};
use ureq::http::Method;

use crate::client::{Client, Event, lock};
use crate::endpoint::Call;
use crate::error::{Error, Result};
use crate::image::{ACCEPTED, CONFIG};
use crate::known;
use crate::repository::Repository;
use crate::upload::{self, Blob};

/// Layers that are on their way at once: one is compressed while another is sent.
const LAYERS_AT_ONCE: usize = 3;

/// How an image is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushOptions {
    /// How its layers are compressed.
    pub compression: Compression,
    /// Whether a tag that is another image's is taken from it.
    pub force: bool,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Number of its layers.
    pub layers: usize,
    /// Number of those that were sent.
    pub layers_sent: usize,
    /// Number of those that the registry had in another repository.
    pub layers_mounted: usize,
    /// Whether all of it was there, tag and all, and nothing was changed.
    pub was_there: bool,
}

/// A layer that is now in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedLayer {
    /// What a manifest says of it.
    pub descriptor: Descriptor,
    /// How it came there.
    pub arrival: Arrival,
}

/// How a blob came into a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was sent.
    Sent,
}

impl Client<'_> {
    /// Sends an image of the store.
    pub fn push(
        &self,
        store: &Store,
        image: &Digest,
        reference: &Reference,
        options: PushOptions,
    ) -> Result<Pushed> {
        let (Some(tag), None) = (&reference.tag, &reference.digest) else {
            return Err(Error::PushByDigest { reference: reference.to_string() });
        };
        let repository = self.repository(reference)?;
        let diff_ids = store.image(image)?.rootfs.diff_ids;
        let config_text = store.blob(image)?;
        let found = tag_digest(&repository, tag)?;
        if let Some(found) = found {
            let layers = described(store, &diff_ids, options.compression)?;
            let manifest = Digest::of(&manifest_text(&config_text, layers));
            if found == manifest {
                known::remember_manifest(store, reference, image, &manifest)?;
                let layers = diff_ids.len();
                return Ok(Pushed { manifest, layers, layers_sent: 0, layers_mounted: 0, was_there: true });
            }
            if !options.force {
                return Err(Error::TagTaken { reference: reference.to_string(), found });
            }
        }
        let pushed = push_layers(&repository, store, &diff_ids, options.compression)?;
        put_blob(&repository, store, &config_text)?;
        let count = |arrival| pushed.iter().filter(|(_, layer)| layer.arrival == arrival).count();
        let (layers_sent, layers_mounted) = (count(Arrival::Sent), count(Arrival::Mounted));
        let of = |diff_id: &DiffId| {
            let found = pushed.iter().find(|(known, _)| known == diff_id);
            found.expect("every layer was pushed").1.descriptor.clone()
        };
        let text = manifest_text(&config_text, diff_ids.iter().map(of).collect());
        let manifest = repository.put_manifest(tag, &text)?;
        known::remember_manifest(store, reference, image, &manifest)?;
        Ok(Pushed { manifest, layers: diff_ids.len(), layers_sent, layers_mounted, was_there: false })
    }
}

/// The manifest of an image: nothing in it but what the image is.
fn manifest_text(config: &[u8], layers: Vec<Descriptor>) -> Vec<u8> {
    let config = Descriptor {
        media_type: CONFIG.to_owned(),
        digest: Digest::of(config),
        size: config.len() as u64,
        artifact_type: None,
    };
    let manifest =
        Manifest { schema_version: 2, media_type: MANIFEST.to_owned(), artifact_type: None, config, layers };
    serde_json::to_vec(&manifest).expect("plain data")
}

/// What a tag stands for; none when there is none.
fn tag_digest(repository: &Repository, tag: &str) -> Result<Option<Digest>> {
    let (url, scopes) = (repository.url(&format!("manifests/{tag}"))?, repository.writing());
    let answer =
        repository.call(&Call::new(Method::HEAD, &url, &scopes).header("accept", ACCEPTED.join(", ")))?;
    let said = answer.header("docker-content-digest").and_then(|text| text.parse().ok());
    match (answer.status, said) {
        (404, _) => Ok(None),
        (200, Some(digest)) => Ok(Some(digest)),
        (401 | 403, _) => Err(answer.refused(&repository.shown(tag), false)),
        // A registry that does not say, or knows no HEAD.
        _ => Ok(repository.tagged(tag)?.map(|text| Digest::of(&text))),
    }
}

/// What a manifest says of layers, as they would be sent.
fn described(store: &Store, diff_ids: &[DiffId], compression: Compression) -> Result<Vec<Descriptor>> {
    let describe = |diff_id: &DiffId| {
        let (digest, size) = match known::compressed(store, diff_id, compression)? {
            Some(known) => known,
            None => {
                let (digest, size) = store.write_compressed_layer(diff_id, compression, &mut io::sink())?;
                known::remember_compressed(store, diff_id, compression, &digest, size)?;
                (digest, size)
            }
        };
        Ok(descriptor(compression, digest, size))
    };
    diff_ids.iter().map(describe).collect()
}

fn descriptor(compression: Compression, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: compression.media_type().to_owned(), digest, size, artifact_type: None }
}

fn push_layers(
    repository: &Repository,
    store: &Store,
    diff_ids: &[DiffId],
    compression: Compression,
) -> Result<Vec<(DiffId, PushedLayer)>> {
    let mut wanted = diff_ids.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    repository.client.tell(Event::Layers { layers: diff_ids.len(), wanted: wanted.len(), bytes: 0 });
    let (next, outcome) = (AtomicUsize::new(0), Mutex::new((Vec::new(), None)));
    std::thread::scope(|scope| {
        for _ in 0..wanted.len().min(LAYERS_AT_ONCE) {
            scope.spawn(|| {
                while lock(&outcome).1.is_none()
                    && let Some(diff_id) = wanted.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    match put_layer(repository, store, diff_id, compression) {
                        Ok(pushed) => lock(&outcome).0.push((*diff_id, pushed)),
                        Err(error) => drop(lock(&outcome).1.get_or_insert(error)),
                    }
                }
            });
        }
    });
    match outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        (_, Some(error)) => Err(error),
        (pushed, None) => Ok(pushed),
    }
}

/// Sees to it that a layer is in the repository.
pub(crate) fn put_layer(
    repository: &Repository,
    store: &Store,
    diff_id: &DiffId,
    compression: Compression,
) -> Result<PushedLayer> {
    let done = |digest: Digest, size: u64, arrival| {
        known::remember_place(store, repository.endpoint.host(), &digest, &repository.name)?;
        Ok(PushedLayer { descriptor: descriptor(compression, digest, size), arrival })
    };
    let known = known::compressed(store, diff_id, compression)?;
    if let Some((digest, size)) = known
        && let Some(arrival) = upload::arrive_without_sending(repository, store, &digest, size)?
    {
        return done(digest, size, arrival);
    }
    let mut compressed = Compressed(store.draft_download()?);
    let (digest, size) = {
        let _alone = lock(&repository.client.compressing);
        store.write_compressed_layer(diff_id, compression, &mut compressed)?
    };
    known::remember_compressed(store, diff_id, compression, &digest, size)?;
    if known != Some((digest, size))
        && let Some(arrival) = upload::arrive_without_sending(repository, store, &digest, size)?
    {
        return done(digest, size, arrival);
    }
    repository.client.tell(Event::Wanted(size));
    upload::send(repository, &Blob::File(compressed.0.file(), size), &digest)?;
    done(digest, size, Arrival::Sent)
}

/// Sees to it that a small blob is in the repository.
pub(crate) fn put_blob(repository: &Repository, store: &Store, bytes: &[u8]) -> Result<Digest> {
    let digest = Digest::of(bytes);
    if upload::arrive_without_sending(repository, store, &digest, bytes.len() as u64)?.is_none() {
        upload::send(repository, &Blob::Bytes(bytes), &digest)?;
    }
    Ok(digest)
}

impl Repository<'_> {
    /// Sends a small blob, unless it is there, and describes it.
    pub fn put_blob(&self, store: &Store, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let digest = put_blob(self, store, bytes)?;
        let size = bytes.len() as u64;
        Ok(Descriptor { media_type: media_type.to_owned(), digest, size, artifact_type: None })
    }
}

/// A compressed layer on its way to the disk.
struct Compressed(DownloadDraft);

impl Write for Compressed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
