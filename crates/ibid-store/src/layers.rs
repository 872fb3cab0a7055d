//! Published layers.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ibid_core::digest::{DiffId, Hasher};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::manifest_format::{self, decode_content_bytes};
use crate::pack::{pack, packed_size};
use crate::split;
use crate::staging::StagedFolder;
use crate::{Error, Manifest, Result, Store};

impl Store {
    /// Whether the layer is here.
    pub fn has_layer(&self, diff_id: &DiffId) -> bool {
        self.manifest_path(diff_id).exists()
    }

    /// The unpacked layer: a lower folder for an overlay mounted with `userxattr`.
    pub fn layer_tree(&self, diff_id: &DiffId) -> PathBuf {
        self.layer_folder(diff_id).join("tree")
    }

    /// Bytes of content in the layer's files; a file with several names counts once.
    pub fn layer_size(&self, diff_id: &DiffId) -> Result<u64> {
        let path = self.manifest_path(diff_id);
        let mut start = Vec::new();
        open_manifest(&path, diff_id)?.take(128).read_to_end(&mut start).map_err(Error::io("read", &path))?;
        decode_content_bytes(&start).map_err(|reason| Error::Damaged { path, reason })
    }

    /// What is in the layer.
    pub fn layer_manifest(&self, diff_id: &DiffId) -> Result<Manifest> {
        let path = self.manifest_path(diff_id);
        let mut bytes = Vec::new();
        open_manifest(&path, diff_id)?.read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        manifest_format::decode(&bytes).map_err(|reason| Error::Damaged { path, reason })
    }

    /// Writes the layer as a tar archive: the same bytes each time, those that its diff id is the digest of. When the
    /// layer is damaged, that is found at the latest when all is written.
    pub fn write_layer_tar(&self, diff_id: &DiffId, out: &mut dyn Write) -> Result<()> {
        let manifest = self.layer_manifest(diff_id)?;
        let mut hasher = Hasher::default();
        let mut take = |chunk: &[u8]| {
            hasher.update(chunk);
            out.write_all(chunk).map_err(|source| Error::Stream { action: "write", source })
        };
        if !split::join(&self.layer_folder(diff_id), &mut take)? {
            let tree_path = self.layer_tree(diff_id);
            pack(&manifest, open_tree(&tree_path)?.as_fd(), &tree_path, &mut take)?;
        }
        let found = DiffId(hasher.finish());
        if found != *diff_id {
            let reason = format!("its archive has the digest {found}");
            return Err(Error::Damaged { path: self.layer_folder(diff_id), reason });
        }
        out.flush().map_err(|source| Error::Stream { action: "write", source })
    }

    /// Bytes of the layer's archive, known without reading its contents.
    pub fn layer_tar_size(&self, diff_id: &DiffId) -> Result<u64> {
        match split::size(&self.layer_folder(diff_id))? {
            Some(bytes) => Ok(bytes),
            None => Ok(packed_size(&self.layer_manifest(diff_id)?)),
        }
    }

    /// Gives the layer of a draft its name, unless there is one of that name.
    pub(crate) fn publish_layer(&self, draft: StagedFolder, diff_id: DiffId) -> Result<()> {
        let layer = draft.path().join("layer");
        let target = self.own_layer_folder(&diff_id);
        if target.exists() || self.has_layer(&diff_id) {
            return draft.remove();
        }
        match rustix::fs::rename(&layer, &target) {
            Ok(()) => {}
            // A layer's folder is never empty, so a rename never replaces one: the same layer is there already.
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(Error::io("rename a layer to", &target)(errno)),
        }
        draft.remove()
    }

    fn manifest_path(&self, diff_id: &DiffId) -> PathBuf {
        self.layer_folder(diff_id).join("manifest")
    }
}

/// Writes the manifest beside the tree of a draft.
pub(crate) fn write_manifest(draft: &StagedFolder, manifest: &Manifest) -> Result<()> {
    let path = draft.path().join("layer/manifest");
    fs::write(&path, manifest_format::encode(manifest)).map_err(Error::io("write", &path))?;
    rustix::fs::chmod(&path, Mode::from_raw_mode(0o644)).map_err(Error::io("set the mode of", &path))
}

/// Opens a tree's root.
pub(crate) fn open_tree(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
}

fn open_manifest(path: &Path, diff_id: &DiffId) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::NoLayer { diff_id: *diff_id },
        _ => Error::io("open", path)(error),
    })
}
