//! Looking at all that the store holds, byte by byte, for damage that a disk or somebody has done.
//!
//! A blob, a download and a package must have the digest that they are named by. A layer's archive, put together from its
//! files, must have its diff id, and its tree must be what its manifest says: the archive of an imported layer does not
//! depend on the modes and owners in the tree, and what a container sees does.
//!
//! What is damaged is moved to `quarantine/`, where nothing looks for it: so the next build, pull or load makes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ibid_core::digest::{DiffId, Digest, Hasher};
use ibid_sys::owner::{self, Owner};
use rustix::fs::{AtFlags, Dir, FileType, Stat};

use crate::attributes;
use crate::gc::ItemKind;
use crate::layers::open_tree;
use crate::manifest::{Entry, Kind};
use crate::path::{self, as_path};
use crate::scan::{in_folder, open_folder};
use crate::staging::random_name;
use crate::{Error, Manifest, Result, Store};

/// What was looked at.
#[derive(Debug, Default)]
pub struct Verified {
    /// How many of each there are.
    pub counts: BTreeMap<ItemKind, usize>,
    /// What is not what it should be.
    pub damaged: Vec<Damaged>,
}

/// A thing in the store that is not what its name promises.
#[derive(Debug)]
pub struct Damaged {
    /// What it is.
    pub kind: ItemKind,
    /// Its digest.
    pub digest: Digest,
    /// How the damage shows.
    pub reason: String,
    pub(crate) path: PathBuf,
}

impl Store {
    /// Looks at everything; `on_item` is told what comes next.
    pub fn verify(&self, on_item: &dyn Fn(ItemKind, &Digest)) -> Result<Verified> {
        let mut verified = Verified::default();
        let named = [
            ("blobs/sha256", "", ItemKind::Image),
            ("downloads", "", ItemKind::Download),
            ("debs", ".deb", ItemKind::Package),
            ("layers", "", ItemKind::Layer),
        ];
        for (folder, ending, kind) in named {
            for (path, digest) in digests_in(&self.root().join(folder), ending)? {
                on_item(kind, &digest);
                *verified.counts.entry(kind).or_default() += 1;
                let checked = match kind {
                    ItemKind::Layer => self.verify_layer(&DiffId(digest)),
                    _ => verify_file(&path, &digest),
                };
                if let Err(error) = checked {
                    verified.damaged.push(Damaged { kind, digest, reason: with_causes(&error), path });
                }
            }
        }
        Ok(verified)
    }

    /// Moves what is damaged out of the way. While others use the store, `on_wait` is called once and their end is
    /// awaited.
    pub fn quarantine(&self, damaged: &[Damaged], on_wait: &dyn Fn()) -> Result<()> {
        self.lock_exclusively(on_wait)?;
        let moved = self.quarantine_alone(damaged);
        self.lock_shared()?;
        moved
    }

    fn quarantine_alone(&self, damaged: &[Damaged]) -> Result<()> {
        let folder = self.quarantine_folder();
        fs::create_dir_all(&folder).map_err(Error::io("make the folder", &folder))?;
        let names: BTreeSet<String> = damaged.iter().map(|item| item.digest.hex()).collect();
        // Copies of what is damaged are damaged.
        let copies = self.identity_layers_over(&names)?;
        for path in damaged.iter().map(|item| &item.path).chain(&copies) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            self.move_to_quarantine(path, &name)?;
        }
        self.forget_values_that_name(&names)
    }

    fn move_to_quarantine(&self, path: &Path, name: &str) -> Result<()> {
        let target = self.quarantine_folder().join(format!("{name}-{}", random_name()));
        match rustix::fs::rename(path, &target) {
            // Somebody was faster.
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::io("move away", path)(errno)),
        }
    }

    pub(crate) fn quarantine_folder(&self) -> PathBuf {
        self.root().join("quarantine")
    }

    fn verify_layer(&self, diff_id: &DiffId) -> Result<()> {
        // Of this very store, though another may have the layer too.
        if !self.own_layer_folder(diff_id).join("manifest").exists() {
            return Err(Error::NoLayer { diff_id: *diff_id });
        }
        let manifest = self.layer_manifest(diff_id)?;
        self.write_layer_tar(diff_id, &mut io::sink())?;
        let tree = self.layer_tree(diff_id);
        let damaged = |path: &[u8], reason: String| Error::Damaged { path: tree.join(as_path(path)), reason };
        let root = open_tree(&tree)?;
        let mut names: BTreeMap<&[u8], BTreeSet<&[u8]>> = BTreeMap::from([(b"".as_slice(), BTreeSet::new())]);
        for entry in &manifest.entries {
            names.entry(path::parent(&entry.path)).or_default().insert(path::name(&entry.path));
            if matches!(entry.kind, Kind::Folder { .. }) {
                names.entry(&entry.path).or_default();
            }
        }
        let by_path: BTreeMap<&[u8], &Entry> =
            manifest.entries.iter().map(|entry| (entry.path.as_slice(), entry)).collect();
        for (folder, names) in &names {
            let shown = tree.join(as_path(folder));
            let opened = open_folder(root.as_fd(), folder).map_err(Error::io("open", &shown))?;
            for name in names {
                let path = path::join(folder, name);
                let look = |error| Error::io("look at", &tree.join(as_path(&path)))(error);
                let status = rustix::fs::statat(&opened, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(look)?;
                let entry = by_path[path.as_slice()];
                // Where the disk cannot hold them, the manifest is all that holds the owners of links, pipes and devices.
                let is_owned =
                    !owner::needs_more_than(status.st_uid, status.st_gid) || owner::holds_attribute(&status);
                let c_name = CString::new(*name).expect("a name holds no NUL");
                let owner = || owner::in_layer(in_folder(&opened, &c_name), &status).map_err(look);
                let owner = is_owned.then(owner).transpose()?;
                if let Some(reason) = difference(&manifest, entry, &status, owner) {
                    return Err(damaged(&path, reason.to_owned()));
                }
                let link = || rustix::fs::readlinkat(&opened, OsStr::from_bytes(name), Vec::new());
                if let Kind::Symlink { target } = &entry.kind
                    && link().map_err(look)?.to_bytes() != target
                {
                    return Err(damaged(&path, "it leads elsewhere".to_owned()));
                }
                if matches!(entry.kind, Kind::File { .. } | Kind::Folder { .. }) {
                    let shown = tree.join(as_path(&path));
                    let found = attributes::read_at(&opened, name, &shown)?;
                    let is_opaque = entry.kind == (Kind::Folder { opaque: true });
                    if found.kept != entry.xattrs || found.opaque != is_opaque {
                        return Err(damaged(&path, "it has other attributes".to_owned()));
                    }
                }
            }
            for found in Dir::read_from(&opened).map_err(Error::io("read the folder", &shown))? {
                let found = found.map_err(Error::io("read the folder", &shown))?;
                let name = found.file_name().to_bytes();
                if name != b"." && name != b".." && !names.contains(name) {
                    return Err(damaged(&path::join(folder, name), "the layer does not have it".to_owned()));
                }
            }
        }
        Ok(())
    }
}

/// How a file differs from what its entry says.
pub(crate) fn difference(
    manifest: &Manifest,
    entry: &Entry,
    status: &Stat,
    owner: Option<Owner>,
) -> Option<&'static str> {
    let entry = match &entry.kind {
        Kind::HardLink { owner } => manifest.entry(owner)?,
        _ => entry,
    };
    let file_type = FileType::from_raw_mode(status.st_mode);
    // Where nobody may make devices, an empty file stands for one; so it may for a whiteout.
    let is_stand_in = file_type == FileType::RegularFile && status.st_size == 0;
    let is_right_type = match &entry.kind {
        Kind::File { size } => {
            if file_type == FileType::RegularFile && u64::try_from(status.st_size) != Ok(*size) {
                return Some("it has another size");
            }
            file_type == FileType::RegularFile
        }
        Kind::Folder { .. } => file_type == FileType::Directory,
        Kind::Symlink { .. } => file_type == FileType::Symlink,
        Kind::Fifo => file_type == FileType::Fifo,
        Kind::Whiteout => {
            return (!is_stand_in && (file_type != FileType::CharacterDevice || status.st_rdev != 0))
                .then_some("it is no whiteout");
        }
        Kind::CharacterDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            let is_device = matches!(file_type, FileType::CharacterDevice | FileType::BlockDevice);
            is_stand_in || is_device && status.st_rdev == rustix::fs::makedev(*major, *minor)
        }
        Kind::HardLink { .. } => false,
    };
    if !is_right_type {
        return Some("it is another kind of file");
    }
    if file_type != FileType::Symlink && status.st_mode & 0o7777 != entry.mode {
        return Some("it has another mode");
    }
    if owner.is_some_and(|owner| owner != (entry.uid, entry.gid)) {
        return Some("it has another owner");
    }
    // What lies outside is cut by file systems, each in its own way.
    let every_file_system = 0..=i64::from(i32::MAX);
    (every_file_system.contains(&entry.mtime) && status.st_mtime != entry.mtime)
        .then_some("it has another time")
}

fn verify_file(path: &Path, expected: &Digest) -> Result<()> {
    let mut hasher = Hashing(Hasher::default());
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hasher))
        .map_err(Error::io("read", path))?;
    match hasher.0.finish() {
        found if found == *expected => Ok(()),
        found => {
            let reason = format!("its content has the digest {found}");
            Err(Error::Damaged { path: path.to_owned(), reason })
        }
    }
}

struct Hashing(Hasher);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What in a folder is named by a digest, in order; nothing when there is no such folder.
pub(crate) fn digests_in(folder: &Path, ending: &str) -> Result<Vec<(PathBuf, Digest)>> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read the folder", folder)(error)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let path = entry.map_err(Error::io("read the folder", folder))?.path();
        let name = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(ending));
        if let Some(digest) = name.and_then(|name| Digest::from_hex(name).ok()) {
            found.push((path, digest));
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
