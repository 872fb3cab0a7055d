//! Removing what nothing needs, least recently used first.
//!
//! Needed are the layers and configurations of tagged images and of those that recorded runs had, the layers that a live scratch folder leases, those
//! of a run, and cache mounts that somebody holds. A build holds the store's lock while it goes, so nothing is removed beside it. What is removed moves to
//! `tmp/` first, so that nothing visible is ever half there; a removal that breaks off is finished by the next to open
//! the store.
//!
//! Everything here can be had again: layers by building, packages by fetching them, caches and cache mounts by filling
//! them.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ibid_core::digest::{DiffId, Digest};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};

use crate::identity_layer;
use crate::ledgers::AskLedger;
use crate::mounts::{self, Kept};
use crate::remove::remove_tree;
use crate::staging::StagedFolder;
use crate::{Error, Result, Store};

/// Files with what a scratch folder's owner needs; see [`crate::Scratch::lease`].
pub(crate) const LEASE: &str = "layers";
/// Bytes of a file system's block, for what small files take.
const BLOCK_BYTES: u64 = 4096;

/// How much to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Until the store takes no more than this, bytes.
    Bytes(u64),
    /// What was last used before this time, seconds since 1970.
    UnusedSince(i64),
}

/// A thing in the store that can be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Digest, file name, or what people call it.
    pub name: String,
    /// What it takes on the disk, about.
    pub bytes: u64,
    /// When it was last used, seconds since 1970.
    pub last_used: i64,
    path: PathBuf,
}

/// What an [`Item`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    /// A layer of copies that belong to another owner.
    IdentityLayer,
    /// An unpacked layer.
    Layer,
    /// A configuration of an image that has no tag.
    Image,
    /// A distribution package.
    Package,
    /// A file that `ADD` fetched, or what has come of a registry's blob.
    Download,
    /// A value of the build cache, or the known files of a context.
    CacheValue,
    /// A folder that build steps keep.
    CacheMount,
    /// What [`Store::verify`] found to be damaged.
    Damaged,
}

impl ItemKind {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::IdentityLayer => "identity layer",
            Self::Layer => "layer",
            Self::Image => "image without tag",
            Self::Package => "package",
            Self::Download => "download",
            Self::CacheValue => "cache value",
            Self::CacheMount => "cache mount",
            Self::Damaged => "damaged thing",
        }
    }
}

/// What was, or would be, removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Least recently used first.
    pub removed: Vec<Item>,
    /// What the rest takes, bytes.
    pub bytes_left: u64,
    /// How much of that is needed by tags and runs, bytes.
    pub bytes_needed: u64,
}

impl Store {
    /// Removes what nothing needs, up to a limit. While others use the store, `on_wait` is called once and their end
    /// is awaited. With `dry_run`, it only says what would go. `ask` tells which images the runs of a ledger need.
    pub fn collect(
        &self,
        limit: Limit,
        dry_run: bool,
        ask: AskLedger,
        on_wait: &dyn Fn(),
    ) -> Result<Collected> {
        self.lock_exclusively(on_wait)?;
        let collected = self.collect_alone(limit, dry_run, ask);
        self.lock_shared()?;
        collected
    }

    fn collect_alone(&self, limit: Limit, dry_run: bool, ask: AskLedger) -> Result<Collected> {
        let needed = self.needed(self.needed_by_ledgers(ask, dry_run)?)?;
        let (mut items, bytes_needed) = self.items(&needed)?;
        // Copies of what layers hold are the first to go.
        let is_original = |item: &Item| item.kind != ItemKind::IdentityLayer;
        items.sort_by(|a, b| {
            (is_original(a), a.last_used, &a.name).cmp(&(is_original(b), b.last_used, &b.name))
        });
        let mut total = bytes_needed + items.iter().map(|item| item.bytes).sum::<u64>();
        let mut removed = Vec::new();
        for item in items {
            let goes = match limit {
                Limit::Bytes(bytes) => total > bytes,
                Limit::UnusedSince(time) => item.last_used < time,
            };
            if goes {
                if !dry_run {
                    self.take_away(&item)?;
                }
                total -= item.bytes;
                removed.push(item);
            }
        }
        if !dry_run {
            self.forget(&removed)?;
        }
        Ok(Collected { removed, bytes_left: total, bytes_needed })
    }

    /// Says that a layer was used now.
    pub fn use_layer(&self, diff_id: &DiffId) {
        self.touch(&self.layer_folder(diff_id));
    }

    /// Says that something was used now.
    pub(crate) fn touch(&self, path: &Path) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let same = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: same, last_modification: now };
        // A store that cannot be written is used all the same.
        let _ = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
    }

    /// Images and layers that tags and runs need.
    fn needed(&self, by_ledgers: BTreeSet<Digest>) -> Result<Needed> {
        let mut needed = Needed::default();
        for image in self.own_tags()?.into_iter().map(|(_, image)| image).chain(by_ledgers) {
            match self.image(&image) {
                Ok(config) => needed.layers.extend(config.rootfs.diff_ids),
                // A tag or a run whose image is gone or damaged needs nothing that could be found.
                Err(Error::NoBlob { .. } | Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
            needed.images.insert(image);
        }
        let in_the_making = [entries(&self.tmp())?, entries(&self.scratch_folder())?];
        for (path, _) in in_the_making.into_iter().flatten() {
            let lease = path.join(LEASE);
            let text = match fs::read_to_string(&lease) {
                Ok(text) => text,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(Error::io("read", &lease)(error)),
            };
            for line in text.lines() {
                let layer = line
                    .parse::<Digest>()
                    .map_err(|error| Error::Damaged { path: lease.clone(), reason: error.to_string() })?;
                needed.layers.insert(DiffId(layer));
            }
        }
        Ok(needed)
    }

    /// What can be removed, and how much the rest takes.
    fn items(&self, needed: &Needed) -> Result<(Vec<Item>, u64)> {
        let mut items = Vec::new();
        let mut bytes_needed = 0;
        let root = self.root();
        for (path, metadata) in entries(&root.join("layers"))? {
            let name = name(&path);
            let Ok(digest) = Digest::from_hex(&name) else { continue };
            let bytes = layer_bytes(self, &path, &DiffId(digest));
            if needed.layers.contains(&DiffId(digest)) {
                bytes_needed += bytes;
            } else {
                items.push(Item { bytes, ..item(ItemKind::Layer, digest.to_string(), &path, &metadata) });
            }
        }
        for (path, metadata) in entries(&self.identities_folder())? {
            let Ok(digest) = Digest::from_hex(&name(&path)) else { continue };
            let about = identity_layer::about(&path).ok();
            let bytes = about
                .as_ref()
                .map_or(0, |about| about.copied.bytes + about.copied.files as u64 * BLOCK_BYTES);
            // A run leases it as it leases layers.
            if needed.layers.contains(&DiffId(digest)) {
                bytes_needed += bytes;
                continue;
            }
            let mut item = item(ItemKind::IdentityLayer, digest.hex(), &path, &metadata);
            item.bytes += bytes;
            // Without its image nobody can use it.
            if about.is_none_or(|about| about.layers.iter().any(|layer| !self.has_layer(&DiffId(*layer)))) {
                item.last_used = 0;
            }
            items.push(item);
        }
        for (path, metadata) in entries(&root.join("blobs/sha256"))? {
            let Ok(digest) = Digest::from_hex(&name(&path)) else { continue };
            if needed.images.contains(&digest) {
                bytes_needed += file_bytes(&metadata);
            } else {
                items.push(item(ItemKind::Image, digest.to_string(), &path, &metadata));
            }
        }
        let folders =
            [("debs", ItemKind::Package), ("downloads", ItemKind::Download), ("cache", ItemKind::CacheValue)];
        for (folder, kind) in folders {
            for (path, metadata) in entries(&root.join(folder))? {
                items.push(item(kind, name(&path), &path, &metadata));
            }
        }
        for (path, metadata) in entries(&self.quarantine_folder())? {
            let bytes = if metadata.is_dir() { mounts::tree_bytes(&path) } else { file_bytes(&metadata) };
            items.push(Item { bytes, ..item(ItemKind::Damaged, name(&path), &path, &metadata) });
        }
        for Kept { path, id, bytes, last_used, in_use } in mounts::list(&self.mounts())? {
            if in_use {
                bytes_needed += bytes;
            } else {
                items.push(Item { kind: ItemKind::CacheMount, name: id, bytes, last_used, path });
            }
        }
        Ok((items, bytes_needed))
    }

    fn take_away(&self, item: &Item) -> Result<()> {
        let is_folder = matches!(
            item.kind,
            ItemKind::IdentityLayer | ItemKind::Layer | ItemKind::CacheMount | ItemKind::Damaged
        );
        if !is_folder {
            return match fs::remove_file(&item.path) {
                Err(error) if error.kind() == ErrorKind::IsADirectory => remove_tree(&item.path),
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(Error::io("remove", &item.path)(error))
                }
                _ => Ok(()),
            };
        }
        self.take_folder_away(&item.path)
    }

    /// Removes the notes about removed images, and cache values that name what was removed.
    fn forget(&self, removed: &[Item]) -> Result<()> {
        let mut gone = BTreeSet::new();
        for item in removed {
            if let Some(hex) = item.name.strip_prefix("sha256:") {
                gone.insert(hex.to_owned());
                if item.kind == ItemKind::Image {
                    self.remove_notes(hex)?;
                }
            }
        }
        for path in self.identity_layers_over(&gone)? {
            self.take_folder_away(&path)?;
        }
        self.forget_values_that_name(&gone)
    }

    pub(crate) fn take_folder_away(&self, path: &Path) -> Result<()> {
        let grave = StagedFolder::new(&self.tmp())?;
        let target = grave.path().join("removed");
        rustix::fs::rename(path, &target).map_err(Error::io("move away", path))?;
        grave.remove()
    }

    /// The identity layers over one of the layers whose digests have these digits.
    pub(crate) fn identity_layers_over(&self, layers: &BTreeSet<String>) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for (path, _) in entries(&self.identities_folder())? {
            // One that cannot be read is nobody's.
            let lies_over = identity_layer::about(&path)
                .map_or(true, |about| about.layers.iter().any(|layer| layers.contains(&layer.hex())));
            if lies_over {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Removes cache values that name one of these digests.
    pub(crate) fn forget_values_that_name(&self, gone: &BTreeSet<String>) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        for (path, metadata) in entries(&self.root().join("cache"))? {
            // Values that name layers and images are small; larger ones are lists of files.
            if metadata.is_file() && metadata.len() < BLOCK_BYTES {
                let value = fs::read(&path).map_err(Error::io("read", &path))?;
                let text = String::from_utf8_lossy(&value);
                let names = text.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 64);
                if names.into_iter().any(|hex| gone.contains(hex)) {
                    remove_file(&path)?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Needed {
    images: BTreeSet<Digest>,
    layers: BTreeSet<DiffId>,
}

fn item(kind: ItemKind, name: String, path: &Path, metadata: &Metadata) -> Item {
    Item { kind, name, bytes: file_bytes(metadata), last_used: metadata.mtime(), path: path.to_owned() }
}

fn file_bytes(metadata: &Metadata) -> u64 {
    metadata.blocks() * 512
}

/// What a layer takes, about: its content, and what its files need besides. One that cannot be read takes nothing that
/// is known.
fn layer_bytes(store: &Store, folder: &Path, diff_id: &DiffId) -> u64 {
    let besides =
        ["manifest", "split", "contents"].iter().filter_map(|name| fs::metadata(folder.join(name)).ok());
    store.layer_size(diff_id).unwrap_or(0)
        + besides.map(|metadata| file_bytes(&metadata)).sum::<u64>()
        + BLOCK_BYTES
}

pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// What is in a folder; nothing when there is no such folder.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read the folder", folder)(error)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let path = entry.map_err(Error::io("read the folder", folder))?.path();
        match fs::symlink_metadata(&path) {
            Ok(metadata) => found.push((path, metadata)),
            // Somebody's draft that is done by now.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look at", &path)(error)),
        }
    }
    Ok(found)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
