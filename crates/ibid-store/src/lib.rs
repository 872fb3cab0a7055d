//! Content-addressed images and layers on disk.
//!
//! ```text
//! <root>/                            mode 0700: it guards what is in it, which but for mounts and tmp anybody may read
//! ├── format                         "1\n"; a store with a higher number is refused
//! ├── lock                           flock: shared by users, exclusive for deleting published things
//! ├── blobs/sha256/<hex>             immutable bytes named by their digest: image configurations
//! ├── layers/<hex of the diff id>/
//! │   ├── tree/                      the unpacked layer, mounted as an overlay's lower folder
//! │   ├── manifest                   what is in it: see `manifest`
//! │   ├── split                      imported layers only: the archive less its contents, see `split`
//! │   ├── contents                   imported layers only: where each content is
//! │   └── shadowed/<n>               imported layers only: contents that a later entry of the archive replaced
//! ├── tags/<registry>/<repository>/  `:<tag>` or `@<hex>`: one line, an image's digest
//! ├── notes/<hex>                    facts about an image that are no part of it
//! ├── notes/<hex>.files               the files that were copied into it
//! ├── ledgers/<hex>                  which images the runs of a ledger need: see `ledgers`
//! ├── cache/<hex>                    values of the build cache
//! ├── mounts/<hex>/<n>/              cache mounts of build steps: see `mounts`
//! ├── debs/                          packages by hash; ibid-debian's
//! ├── downloads/<hex>                what `ADD` fetched, by the digest of its content
//! ├── downloads/<hex>.part           what has come of a registry's blob, flocked while it is on its way
//! ├── quarantine/<hex>-<random>       what was found to be damaged: see `verify`
//! ├── boot                           which start of the machine the store was last opened after: see `restart`
//! ├── identities/<hex>/              copies of what one owner has in an image, as another's: see `identity_layer`
//! ├── skeleton/                      empty mount points, always the lowest folder of an overlay
//! └── tmp/<random>                   drafts, scratch, files being written; a live one is flocked
//! ```
//!
//! Invariants:
//! - Whatever is visible outside `tmp/` is complete, whenever a process is killed. It is made in `tmp/` and renamed, and
//!   only tags, notes and cache values are ever replaced. Blobs, tags, notes and downloads are on the disk before they
//!   are renamed. Cache values are not waited for: an empty one is none. Layers are not, either: those that
//!   lost contents in a power cut are found when the store is next opened.
//! - Cache mounts are written by the steps that hold them; nothing else of a build reads them.
//! - Blobs and layers never change. The same name always means the same bytes.
//! - A thing in `tmp/` is flocked by its maker as long as the maker lives, so whoever gets the lock may remove it.
//! - What is deleted moves to `tmp/` first, by one who holds `lock` exclusively; see `gc`.
//! - Trees carry owners as the container sees them: this crate is used inside the user namespace of the
//!   sandbox (or as root) and may change owners, make whiteouts and set `security.capability`.

mod attributes;
mod blobs;
mod cache;
mod compress;
mod downloads;
mod draft;
mod error;
mod gc;
mod header;
mod identity_layer;
mod image_archive;
mod import;
mod layers;
mod ledgers;
mod load;
mod lowers;
mod manifest;
mod manifest_format;
mod merged;
mod mounts;
mod notes;
mod oci_folder;
mod pack;
mod path;
mod plain_archive;
mod remove;
mod resolve;
mod restart;
mod rewrite;
mod save;
mod scan;
mod split;
mod staging;
mod store;
mod tags;
mod tar_stream;
mod unpack;
mod verify;

pub use compress::Compression;
pub use downloads::{DownloadDraft, PartDownload};
pub use draft::{CommitRules, LayerDraft, Scratch};
pub use error::Error;
pub use gc::{Collected, Item, ItemKind, Limit};
pub use identity_layer::{CopiedFiles, Copying, IdentityLayer, OwnerChange};
pub use import::{ImportedArchive, UnpackedLayer};
pub use ledgers::{AskLedger, LedgerNeeds};
pub use load::LoadedImage;
pub use manifest::{Entry, Kind, Manifest};
pub use merged::{Found, MergedView, Place};
pub use mounts::{CacheMount, CacheMounts};
pub use oci_folder::OciFolder;
pub use plain_archive::{PlainArchive, PlainArchiveWriter, PlainEntry, PlainKind};
pub use save::{ArchiveFormat, NamedImage};
pub use store::Store;
pub use verify::{Damaged, Verified};

/// The result of a store's function.
pub type Result<T, E = Error> = std::result::Result<T, E>;
