//! What the lower folders of an overlay show at a path, without mounting them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ibid_core::digest::DiffId;
use ibid_sys::owner::{self, Inode};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::attributes;
use crate::manifest::{Entry, Kind};
use crate::path::{self, as_path};
use crate::{Error, Result, Store};

impl Store {
    /// Holds the owners of links, pipes and devices of `layers`, where they have none on disk: before a container or a copy
    /// looks at them. See [`ibid_sys::owner`].
    pub fn hold_owners(&self, layers: &[DiffId]) -> Result<()> {
        static HELD: Mutex<BTreeSet<DiffId>> = Mutex::new(BTreeSet::new());
        if owner::only_uid().is_none() {
            return Ok(());
        }
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            if held.contains(layer) {
                continue;
            }
            let tree = self.layer_tree(layer);
            for entry in self.layer_manifest(layer)?.entries {
                let on_disk = matches!(entry.kind, Kind::File { .. } | Kind::Folder { .. } | Kind::Whiteout);
                if on_disk || (entry.uid, entry.gid) == (0, 0) {
                    continue;
                }
                if let Some(status) = look(&tree.join(as_path(&entry.path)))?
                    && !owner::holds_attribute(&status)
                {
                    owner::remember(Inode::OfLayers(status.st_ino), (entry.uid, entry.gid));
                }
            }
            held.insert(*layer);
        }
        Ok(())
    }
}

/// Lower folders, topmost first.
pub(crate) struct Lowers<'a> {
    folders: &'a [PathBuf],
    /// For each folder asked about, which of `folders` show in it, topmost first.
    showing: HashMap<Vec<u8>, Vec<usize>>,
}

/// A folder as the lower layers show it.
#[derive(Debug)]
pub(crate) struct LowerFolder {
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl LowerFolder {
    /// Whether a copy of the folder differs at most in its time.
    pub(crate) fn is_like(&self, entry: &Entry) -> bool {
        (self.mode, self.uid, self.gid, &self.xattrs) == (entry.mode, entry.uid, entry.gid, &entry.xattrs)
    }
}

impl<'a> Lowers<'a> {
    pub(crate) fn new(folders: &'a [PathBuf]) -> Self {
        let showing = HashMap::from([(Vec::new(), (0..folders.len()).collect())]);
        Self { folders, showing }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// The folder that shows at `path`; `None` when nothing, or something else, does.
    pub(crate) fn folder(&mut self, path: &[u8]) -> Result<Option<LowerFolder>> {
        let Some(&topmost) = self.showing(path)?.first() else { return Ok(None) };
        let full = self.folders[topmost].join(as_path(path));
        let Some(status) = look(&full)? else { return Ok(None) };
        let xattrs = attributes::read(&c_string(&full), &full)?.kept;
        let (uid, gid) =
            owner::in_layer(full.as_path(), &status).map_err(Error::io("read the owner of", &full))?;
        Ok(Some(LowerFolder { mode: status.st_mode & 0o7777, uid, gid, xattrs }))
    }

    fn showing(&mut self, path: &[u8]) -> Result<Vec<usize>> {
        if let Some(known) = self.showing.get(path) {
            return Ok(known.clone());
        }
        // As deep as the path is, at most as many components as a path can have bytes.
        let mut known = path::parent(path);
        let mut missing = vec![path];
        while !self.showing.contains_key(known) {
            missing.push(known);
            known = path::parent(known);
        }
        let mut candidates = self.showing[known].clone();
        for path in missing.into_iter().rev() {
            let mut showing = Vec::new();
            for index in candidates {
                let full = self.folders[index].join(as_path(path));
                let Some(status) = look(&full)? else { continue };
                if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
                    break;
                }
                showing.push(index);
                if attributes::read(&c_string(&full), &full)?.opaque {
                    break;
                }
            }
            self.showing.insert(path.to_vec(), showing.clone());
            candidates = showing;
        }
        Ok(candidates)
    }
}

fn look(path: &Path) -> Result<Option<Stat>> {
    match rustix::fs::lstat(path) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => Err(Error::io("look at", path)(errno)),
    }
}

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path that was looked at holds no NUL")
}
