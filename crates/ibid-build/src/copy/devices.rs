//! Devices that nobody here may make. In a user namespace an empty file stands for each, in the layer that it comes
//! from and in the one that it is copied to; what it is, only the layers' manifests know.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ibid_core::digest::DiffId;
use ibid_store::{Kind, Store};
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;

use super::Error;

/// Devices by path, relative to a root.
#[derive(Debug, Default)]
pub(crate) struct Devices(HashMap<PathBuf, Kind>);

impl Devices {
    /// Those that the layers, lowest first, show as empty files. `folder` is one to try in whether devices can be made:
    /// where they can, the layers show devices, and there are none.
    pub(super) fn of_layers(store: &Store, layers: &[DiffId], folder: &Path) -> Result<Self, Error> {
        let mut devices = Self::default();
        if layers.is_empty() || can_be_made(folder)? {
            return Ok(devices);
        }
        for layer in layers {
            let mut own: HashMap<PathBuf, Kind> = HashMap::new();
            for entry in store.layer_manifest(layer)?.entries {
                let path = Path::new(OsStr::from_bytes(&entry.path));
                let kind = match &entry.kind {
                    kind @ (Kind::CharacterDevice { .. } | Kind::BlockDevice { .. }) => Some(kind.clone()),
                    Kind::HardLink { owner } => own.get(Path::new(OsStr::from_bytes(owner))).cloned(),
                    _ => None,
                };
                match kind {
                    Some(kind) => _ = own.insert(path.to_owned(), kind),
                    // Something else takes the place of what lower layers have.
                    None => _ = devices.0.remove(path),
                }
            }
            devices.0.extend(own);
        }
        Ok(devices)
    }

    pub(super) fn get(&self, path: &Path) -> Option<Kind> {
        self.0.get(path).cloned()
    }

    pub(super) fn insert(&mut self, path: PathBuf, kind: Kind) {
        self.0.insert(path, kind);
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.0.remove(path);
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// As the store wants them, to write down what the files are.
    pub(crate) fn into_commit(self) -> BTreeMap<Vec<u8>, Kind> {
        self.0.into_iter().map(|(path, kind)| (path.as_os_str().as_bytes().to_vec(), kind)).collect()
    }
}

/// Whether this process may make devices: makes one like `/dev/null`, and removes it.
fn can_be_made(folder: &Path) -> Result<bool, Error> {
    let path = folder.join("device");
    let null = rustix::fs::makedev(1, 3);
    match rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), null) {
        Ok(()) => rustix::fs::unlink(&path).map(|()| true),
        Err(Errno::PERM) => Ok(false),
        Err(errno) => Err(errno),
    }
    .map_err(|errno| Error::Source { action: "make a device at", path, source: errno.into() })
}
