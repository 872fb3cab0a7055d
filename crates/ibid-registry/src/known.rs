//! What a store remembers of registries, as values of its cache. Losing it costs time only.

use ibid_core::digest::{DiffId, Digest};
use ibid_core::reference::Reference;
use ibid_store::{Compression, Store};

use crate::error::Result;

/// Most repositories that are remembered for a blob.
const PLACES_MAX: usize = 8;

/// The manifest or index by which an image came from a repository, or went there.
pub fn manifest_of(store: &Store, reference: &Reference, image: &Digest) -> Result<Option<Digest>> {
    let value = store.cache(&manifest_key(reference, image))?;
    Ok(value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()))
}

pub(crate) fn remember_manifest(
    store: &Store,
    reference: &Reference,
    image: &Digest,
    manifest: &Digest,
) -> Result<()> {
    if manifest_of(store, reference, image)? == Some(*manifest) {
        return Ok(());
    }
    Ok(store.put_cache(&manifest_key(reference, image), manifest.to_string().as_bytes())?)
}

fn manifest_key(reference: &Reference, image: &Digest) -> Digest {
    let Reference { registry, repository, .. } = reference;
    Digest::of(format!("manifest of {image} in {registry}/{repository}").as_bytes())
}

/// Digest and size of a layer's compressed bytes, when it was compressed before.
pub(crate) fn compressed(
    store: &Store,
    diff_id: &DiffId,
    compression: Compression,
) -> Result<Option<(Digest, u64)>> {
    let value = store.cache(&compressed_key(diff_id, compression))?;
    let parse = |value: Vec<u8>| {
        let text = String::from_utf8(value).ok()?;
        let (digest, size) = text.split_once(' ')?;
        Some((digest.parse().ok()?, size.parse().ok()?))
    };
    Ok(value.and_then(parse))
}

pub(crate) fn remember_compressed(
    store: &Store,
    diff_id: &DiffId,
    compression: Compression,
    digest: &Digest,
    size: u64,
) -> Result<()> {
    Ok(store.put_cache(&compressed_key(diff_id, compression), format!("{digest} {size}").as_bytes())?)
}

fn compressed_key(diff_id: &DiffId, compression: Compression) -> Digest {
    Digest::of(format!("{diff_id} as {}", compression.media_type()).as_bytes())
}

/// Repositories of a registry that a blob was in.
pub(crate) fn places(store: &Store, registry: &str, blob: &Digest) -> Result<Vec<String>> {
    let value = store.cache(&places_key(registry, blob))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&value).lines().map(str::to_owned).collect())
}

pub(crate) fn remember_place(store: &Store, registry: &str, blob: &Digest, repository: &str) -> Result<()> {
    let mut places = places(store, registry, blob)?;
    if places.first().is_some_and(|first| first == repository) {
        return Ok(());
    }
    places.retain(|known| known != repository);
    places.insert(0, repository.to_owned());
    places.truncate(PLACES_MAX);
    Ok(store.put_cache(&places_key(registry, blob), places.join("\n").as_bytes())?)
}

fn places_key(registry: &str, blob: &Digest) -> Digest {
    Digest::of(format!("places of the blob {blob} in {registry}").as_bytes())
}
