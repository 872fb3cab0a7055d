//! Identity layers: what one owner's files of an image look like when they are another's. The person who runs an image that
//! somebody else built is no owner of its user's home and virtual environment; with such a layer over the image's own, they are.
//!
//! ```text
//! identities/<hex>/        named by the digest of the layers below and of the change of owners
//! ├── about                format, files, bytes; then a line for each of the layers below, lowest first
//! └── tree/                copies of what changes its owner, and the folders above it as they are; none when nothing changes
//! ```
//!
//! Invariants:
//! - Which files change is decided from the manifests alone, and only those are copied: with shared blocks where the file
//!   system can.
//! - But for its owner, a copy is what it is a copy of: content, mode, time, attributes, and which names it has.
//! - Nothing of the layers below is hidden or shown that is not without it, so its folders have no marks.
//! - It is derived: made in `tmp/` and renamed like all else, but waited for by nobody. It goes before anything else does when
//!   the store is too large, with any layer that it was made from, and after a restart of the machine.

mod copy;
mod visible;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use ibid_core::digest::{DiffId, Digest};
use ibid_sys::owner::{self, Owner};
use rustix::io::Errno;

use crate::draft::make_layer_folder;
use crate::manifest::{Entry, Kind};
use crate::staging::StagedFolder;
use crate::{Error, Result, Scratch, Store};

/// The format of a layer and of the rules by which it is made; another number is another layer.
const FORMAT: u32 = 1;

/// Whose files of an image become whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerChange {
    /// User and group of the image. Files of the user change; those of the group, when the group may do with them what others may
    /// not.
    pub from: Owner,
    /// Who they belong to then.
    pub to: Owner,
}

impl OwnerChange {
    /// The owner that an entry has then; none when it stays as it is.
    fn of(&self, entry: &Entry) -> Option<Owner> {
        let is_users = entry.uid == self.from.0 && self.from.0 != self.to.0;
        let (group, others) = (entry.mode >> 3 & 0o7, entry.mode & 0o7);
        // A link is followed whoever owns it, and a whiteout has no group.
        let needs_group =
            !matches!(entry.kind, Kind::Symlink { .. } | Kind::Whiteout) && group & !others != 0;
        let is_groups = entry.gid == self.from.1 && self.from.1 != self.to.1 && (is_users || needs_group);
        let uid = if is_users { self.to.0 } else { entry.uid };
        let gid = if is_groups { self.to.1 } else { entry.gid };
        (is_users || is_groups).then_some((uid, gid))
    }
}

/// How much is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopiedFiles {
    /// Files, and whatever else is no folder.
    pub files: usize,
    /// Their content.
    pub bytes: u64,
}

/// What is told while an identity layer is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copying {
    /// So much will be copied.
    Starts(CopiedFiles),
    /// So many files could not be read, which is so in stores of others only: they stay as they are.
    LeftOut(usize),
}

/// An identity layer that lies over the layers of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityLayer {
    key: Digest,
    tree: PathBuf,
}

impl IdentityLayer {
    /// The topmost lower folder of an overlay.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Its name among what runs lease.
    pub(crate) fn key(&self) -> &Digest {
        &self.key
    }
}

impl Store {
    /// The identity layer over `layers`, lowest first; none when nothing changes its owner. When it has to be made, `on_copy` is
    /// told. In a store that cannot be written, it is made in `scratch`.
    pub fn identity_layer(
        &self,
        layers: &[DiffId],
        change: OwnerChange,
        scratch: &Scratch,
        on_copy: &dyn Fn(Copying),
    ) -> Result<Option<IdentityLayer>> {
        // There, every file is the one user's on disk already.
        if change.from == change.to || owner::only_uid().is_some() {
            return Ok(None);
        }
        let key = key(layers, change);
        let folder = self.identities_folder().join(key.hex());
        let found = |folder: &Path| {
            let tree = folder.join("tree");
            tree.exists().then_some(IdentityLayer { key, tree })
        };
        if folder.join("about").exists() {
            self.touch(&folder);
            return Ok(found(&folder));
        }
        let place = if self.is_read_only() { scratch.path().to_owned() } else { self.tmp() };
        let draft = StagedFolder::new(&place)?;
        let copied = self.fill(&draft, layers, change, on_copy)?;
        write_about(&draft, layers, copied)?;
        let made = draft.path().join("layer");
        if self.is_read_only() {
            let folder = scratch.path().join("identity");
            fs::rename(&made, &folder).map_err(Error::io("rename a folder to", &folder))?;
            return Ok(found(&folder));
        }
        let identities = self.identities_folder();
        // Unlike layers, they hold programs that become the person whoever starts them.
        match fs::DirBuilder::new().mode(0o700).create(&identities) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io("make the folder", &identities)(error));
            }
            _ => {}
        }
        match rustix::fs::rename(&made, &folder) {
            // Another run made the same meanwhile.
            Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(Error::io("rename a folder to", &folder)(errno)),
        }
        draft.remove()?;
        Ok(found(&folder))
    }

    /// Makes the layer's tree in a draft, unless it would hold nothing.
    fn fill(
        &self,
        draft: &StagedFolder,
        layers: &[DiffId],
        change: OwnerChange,
        on_copy: &dyn Fn(Copying),
    ) -> Result<CopiedFiles> {
        let manifests = layers
            .iter()
            .map(|layer| Ok((self.layer_tree(layer), self.layer_manifest(layer)?)))
            .collect::<Result<Vec<_>>>()?;
        let changed = visible::changed(&manifests, change);
        let copied = changed.size();
        let tree = make_layer_folder(draft)?;
        if changed.is_empty() {
            fs::remove_dir(&tree).map_err(Error::io("remove", &tree))?;
            return Ok(copied);
        }
        on_copy(Copying::Starts(copied));
        let left_out = copy::into_tree(&tree, &changed)?;
        if left_out > 0 {
            on_copy(Copying::LeftOut(left_out));
        }
        Ok(copied)
    }

    pub(crate) fn identities_folder(&self) -> PathBuf {
        self.root().join("identities")
    }
}

/// What identity layers say about themselves.
pub(crate) struct About {
    pub(crate) copied: CopiedFiles,
    pub(crate) layers: Vec<Digest>,
}

/// Reads what lies beside the tree of the identity layer in `folder`.
pub(crate) fn about(folder: &Path) -> Result<About> {
    let path = folder.join("about");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    parse(&text).ok_or_else(|| Error::Damaged { path, reason: "it is no identity layer's".to_owned() })
}

fn parse(text: &str) -> Option<About> {
    let mut lines = text.lines();
    let mut numbers = lines.next()?.split(' ').map(str::parse::<u64>);
    let (_format, files, bytes) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    let layers = lines.map(|line| line.parse().ok()).collect::<Option<_>>()?;
    Some(About { copied: CopiedFiles { files: files.try_into().ok()?, bytes }, layers })
}

fn write_about(draft: &StagedFolder, layers: &[DiffId], copied: CopiedFiles) -> Result<()> {
    let path = draft.path().join("layer/about");
    let mut text = format!("{FORMAT} {} {}\n", copied.files, copied.bytes);
    layers.iter().for_each(|layer| text.push_str(&format!("{layer}\n")));
    fs::write(&path, text).map_err(Error::io("write", &path))
}

fn key(layers: &[DiffId], OwnerChange { from, to }: OwnerChange) -> Digest {
    let mut text = format!("identity {FORMAT} {}:{} {}:{}\n", from.0, from.1, to.0, to.1);
    layers.iter().for_each(|layer| text.push_str(&format!("{layer}\n")));
    Digest::of(text.as_bytes())
}
