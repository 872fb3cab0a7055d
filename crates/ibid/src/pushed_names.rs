//! Where images were pushed to, kept in the store's cache: a hint for whoever lacks one, which can be lost.

use ibid_core::digest::Digest;
use ibid_store::Store;

/// As many names as are kept of one image.
const NAMES_MAX: usize = 16;

fn key(image: &Digest) -> Digest {
    Digest::of(format!("pushed names of {image}").as_bytes())
}

/// `REGISTRY/NAME@sha256:…` of each place, the latest first.
pub fn of(store: &Store, image: &Digest) -> Vec<String> {
    let text = store.cache(&key(image)).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// Remembers one more.
pub fn add(store: &Store, image: &Digest, name: String) -> Result<(), ibid_store::Error> {
    let mut names = of(store, image);
    names.retain(|known| *known != name);
    names.insert(0, name);
    names.truncate(NAMES_MAX);
    store.put_cache(&key(image), names.join("\n").as_bytes())
}
