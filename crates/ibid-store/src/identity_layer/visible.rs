//! What of stacked layers can be seen and changes its owner, from their manifests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::path::PathBuf;

use ibid_sys::owner::Owner;

use super::{CopiedFiles, OwnerChange};
use crate::Manifest;
use crate::manifest::{Entry, Kind};
use crate::path::{self, LayerPath};

/// What goes into an identity layer.
pub(super) struct Changed<'a> {
    /// The topmost layer's entry of each folder that changes, or has something in it that does; those in a folder after it.
    pub(super) folders: Vec<ChangedFolder<'a>>,
    /// Everything else that changes, with all of its visible names.
    pub(super) files: Vec<ChangedFile<'a>>,
}

/// A folder that changes its owner, or is on the way to what does.
pub(super) struct ChangedFolder<'a> {
    /// The tree of the topmost layer that has it.
    pub(super) tree: &'a PathBuf,
    pub(super) entry: &'a Entry,
    pub(super) owner: Owner,
}

/// A file, link or pipe that changes its owner.
pub(super) struct ChangedFile<'a> {
    /// The tree of its layer.
    pub(super) tree: &'a PathBuf,
    /// The entry of its first name in that layer, which holds what it is; that name itself may be hidden.
    pub(super) entry: &'a Entry,
    /// Where it can be seen. Never empty.
    pub(super) names: Vec<&'a [u8]>,
    pub(super) owner: Owner,
}

impl Changed<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.files.is_empty()
    }

    pub(super) fn size(&self) -> CopiedFiles {
        let sizes = self.files.iter().map(|file| match file.entry.kind {
            Kind::File { size } => size,
            _ => 0,
        });
        CopiedFiles { files: self.files.len(), bytes: sizes.fold(0, u64::saturating_add) }
    }
}

/// Finds what changes in layers, lowest first, each with its tree.
pub(super) fn changed(layers: &[(PathBuf, Manifest)], change: OwnerChange) -> Changed<'_> {
    // What can be seen of: all folders, since others may lie in them, and all that changes.
    let mut folders: BTreeMap<LayerPath, (usize, &Entry)> = BTreeMap::new();
    let mut files: BTreeMap<LayerPath, (usize, &Entry)> = BTreeMap::new();
    for (index, (_, manifest)) in layers.iter().enumerate() {
        for entry in &manifest.entries {
            let path = LayerPath(entry.path.clone());
            if let Kind::Folder { opaque } = entry.kind {
                files.remove(&path);
                if opaque {
                    forget_below(&mut folders, &path);
                    forget_below(&mut files, &path);
                }
                folders.insert(path, (index, entry));
                continue;
            }
            if folders.remove(&path).is_some() {
                forget_below(&mut folders, &path);
                forget_below(&mut files, &path);
            }
            if is_copied(manifest, entry) && change.of(entry).is_some() {
                files.insert(path, (index, entry));
            } else {
                files.remove(&path);
            }
        }
    }
    gather(layers, &folders, files, change)
}

fn gather<'a>(
    layers: &'a [(PathBuf, Manifest)],
    folders: &BTreeMap<LayerPath, (usize, &'a Entry)>,
    files: BTreeMap<LayerPath, (usize, &'a Entry)>,
    change: OwnerChange,
) -> Changed<'a> {
    let mut needed: BTreeSet<LayerPath> = BTreeSet::new();
    let mut need = |path: &[u8]| {
        let mut path = path;
        while !path.is_empty() && needed.insert(LayerPath(path.to_vec())) {
            path = path::parent(path);
        }
    };
    for (path, (_, entry)) in folders {
        if change.of(entry).is_some() {
            need(&path.0);
        }
    }
    let mut changed: Vec<ChangedFile<'a>> = Vec::new();
    let mut by_first_name: HashMap<(usize, &[u8]), usize> = HashMap::new();
    for (path, (layer, entry)) in files {
        need(path::parent(&path.0));
        let (tree, manifest) = &layers[layer];
        let first = first_name(entry);
        match by_first_name.get(&(layer, first)) {
            Some(&known) => changed[known].names.push(&entry.path),
            None => {
                by_first_name.insert((layer, first), changed.len());
                let whole = manifest.entry(first).unwrap_or(entry);
                // Asked before; a file that stays as it is is not among them.
                let owner = change.of(entry).unwrap_or(change.to);
                changed.push(ChangedFile { tree, entry: whole, names: vec![&entry.path], owner });
            }
        }
    }
    let needed_folder = |path: &LayerPath| {
        let &(layer, entry) = folders.get(path)?;
        let owner = change.of(entry).unwrap_or((entry.uid, entry.gid));
        Some(ChangedFolder { tree: &layers[layer].0, entry, owner })
    };
    Changed { folders: needed.iter().filter_map(needed_folder).collect(), files: changed }
}

/// Devices stay: who may not make them has empty files in their place.
fn is_copied(manifest: &Manifest, entry: &Entry) -> bool {
    let whole = manifest.entry(first_name(entry)).unwrap_or(entry);
    matches!(whole.kind, Kind::File { .. } | Kind::Symlink { .. } | Kind::Fifo)
}

fn first_name(entry: &Entry) -> &[u8] {
    match &entry.kind {
        Kind::HardLink { owner } => owner,
        _ => &entry.path,
    }
}

fn forget_below<T>(known: &mut BTreeMap<LayerPath, T>, folder: &LayerPath) {
    let range = known.range((Bound::Excluded(folder), Bound::Unbounded));
    let below: Vec<LayerPath> =
        range.map(|(path, _)| path).take_while(|path| path::is_below(&path.0, &folder.0)).cloned().collect();
    for path in below {
        known.remove(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: OwnerChange = OwnerChange { from: (1000, 1000), to: (7, 8) };

    fn entry(path: &str, kind: Kind, mode: u32, uid: u32, gid: u32) -> Entry {
        Entry { path: path.as_bytes().to_vec(), kind, mode, uid, gid, mtime: 0, xattrs: BTreeMap::new() }
    }

    fn file(path: &str, uid: u32) -> Entry {
        entry(path, Kind::File { size: 1 }, 0o644, uid, uid)
    }

    fn folder(path: &str, uid: u32) -> Entry {
        entry(path, Kind::Folder { opaque: false }, 0o755, uid, uid)
    }

    fn whiteout(path: &str) -> Entry {
        entry(path, Kind::Whiteout, 0, 0, 0)
    }

    fn hard_link(path: &str, owner: &str, uid: u32) -> Entry {
        Entry { kind: Kind::HardLink { owner: owner.as_bytes().to_vec() }, ..file(path, uid) }
    }

    /// `layers` from the lowest; what is expected is `folder/ UID:GID` and `names UID:GID`.
    #[track_caller]
    fn check(layers: &[&[Entry]], expected: &[&str]) {
        let layers: Vec<(PathBuf, Manifest)> = layers
            .iter()
            .enumerate()
            .map(|(index, entries)| {
                let mut entries = entries.to_vec();
                entries.sort_by(|a, b| path::compare(&a.path, &b.path));
                (PathBuf::from(index.to_string()), Manifest { entries })
            })
            .collect();
        let changed = changed(&layers, CHANGE);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let folders = changed
            .folders
            .iter()
            .map(|folder| format!("{}/ {}:{}", text(&folder.entry.path), folder.owner.0, folder.owner.1));
        let files = changed.files.iter().map(|file| {
            let names: Vec<String> = file.names.iter().map(|name| text(name)).collect();
            format!("{} {}:{} of {}", names.join(" "), file.owner.0, file.owner.1, file.tree.display())
        });
        assert_eq!(folders.chain(files).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_the_user_owns_changes_with_the_folders_above_it() {
        check(&[], &[]);
        check(&[&[folder("etc", 0), file("etc/passwd", 0)]], &[]);
        check(
            &[&[folder("home", 0), folder("home/u", 1000), file("home/u/f", 1000), file("home/u/roots", 0)]],
            &["home/ 0:0", "home/u/ 7:8", "home/u/f 7:8 of 0"],
        );
        check(&[&[folder("var", 0), folder("var/mail", 1000)]], &["var/ 0:0", "var/mail/ 7:8"]);
    }

    #[test]
    fn the_topmost_layer_says_what_is_there() {
        let lower = &[folder("d", 0), file("d/a", 1000), folder("d/sub", 1000), file("d/sub/b", 1000)][..];
        check(&[lower, &[folder("d", 0), file("d/a", 0)]], &["d/ 0:0", "d/sub/ 7:8", "d/sub/b 7:8 of 0"]);
        check(&[lower, &[folder("d", 0), file("d/a", 1000), whiteout("d/sub")]], &["d/ 0:0", "d/a 7:8 of 1"]);
        check(&[lower, &[whiteout("d")]], &[]);
        check(&[lower, &[file("d", 0)]], &[]);
        check(&[lower, &[entry("d", Kind::Folder { opaque: true }, 0o755, 0, 0)]], &[]);
        check(&[lower, &[file("d", 0)], &[folder("d", 1000)]], &["d/ 7:8"]);
        check(&[&[file("d", 1000)], &[folder("d", 0), file("d/x", 1000)]], &["d/ 0:0", "d/x 7:8 of 1"]);
        check(
            &[lower, &[folder("d", 0), folder("d/sub", 0)]],
            &["d/ 0:0", "d/sub/ 0:0", "d/a 7:8 of 0", "d/sub/b 7:8 of 0"],
        );
    }

    #[test]
    fn names_of_one_file_stay_names_of_one_file() {
        let lower = &[file("a", 1000), hard_link("b", "a", 1000), hard_link("c", "a", 1000)][..];
        check(&[lower], &["a b c 7:8 of 0"]);
        check(&[lower, &[whiteout("a")]], &["b c 7:8 of 0"]);
        check(&[lower, &[file("b", 1000)]], &["a c 7:8 of 0", "b 7:8 of 1"]);
    }

    #[test]
    fn a_group_is_needed_where_it_may_more_than_others() {
        let of_group = |path: &str, mode, gid| entry(path, Kind::File { size: 1 }, mode, 0, gid);
        check(
            &[&[
                of_group("a", 0o660, 1000),
                of_group("b", 0o644, 1000),
                of_group("c", 0o2755, 1000),
                of_group("d", 0o640, 1000),
                of_group("e", 0o660, 0),
                entry("f", Kind::File { size: 1 }, 0o600, 1000, 50),
                entry("l", Kind::Symlink { target: Vec::new() }, 0o777, 0, 1000),
                entry("m", Kind::Symlink { target: Vec::new() }, 0o777, 1000, 1000),
            ]],
            &["a 0:8 of 0", "d 0:8 of 0", "f 7:50 of 0", "m 7:8 of 0"],
        );
    }

    #[test]
    fn devices_stay_as_they_are() {
        let device = entry("null", Kind::CharacterDevice { major: 1, minor: 3 }, 0o666, 1000, 1000);
        check(&[&[device, hard_link("zero", "null", 1000)]], &[]);
    }
}
