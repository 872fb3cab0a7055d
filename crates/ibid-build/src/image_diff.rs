//! What differs between two images: the files that a container of each sees, and the configurations.

use std::collections::{BTreeMap, BTreeSet};

use ibid_core::digest::{DiffId, Digest};
use ibid_core::image::ImageConfig;
use ibid_store::{Entry, Kind, Store};
use serde_json::{Map, Value};

use crate::verify::{DifferenceKind, compare};

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDiff {
    /// By path.
    pub files: Vec<FileChange>,
    /// By name.
    pub config: Vec<ConfigChange>,
}

/// A path that is not the same in two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Path in the images, with `/` in front.
    pub path: String,
    /// Bytes of content, before and after; none for what is no file.
    pub bytes: (Option<u64>, Option<u64>),
    /// Position of the layer of the first image that holds it, if that has it.
    pub first_layer: Option<usize>,
    /// The same of the second image.
    pub second_layer: Option<usize>,
    /// What about it differs, when both have it.
    pub kinds: Vec<DifferenceKind>,
}

/// A value of the configuration that is not the same in two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// As in the configuration, such as `WorkingDir`; with the variable or label where there are several, such as
    /// `Env PATH`.
    pub name: String,
    /// In the first image.
    pub first: Option<Value>,
    /// In the second.
    pub second: Option<Value>,
}

/// Compares two images.
pub fn image_diff(store: &Store, first: &Digest, second: &Digest) -> Result<ImageDiff, ibid_store::Error> {
    let (first, second) = (store.image(first)?, store.image(second)?);
    let (old_layers, new_layers) = (&first.rootfs.diff_ids, &second.rootfs.diff_ids);
    let (old, new) = (Files::of(store, old_layers)?, Files::of(store, new_layers)?);
    let paths: BTreeSet<&Vec<u8>> = old.0.keys().chain(new.0.keys()).collect();
    let mut files = Vec::new();
    for path in paths {
        let (before, after) = (old.0.get(path), new.0.get(path));
        let kinds = match (before, after) {
            (Some(before), Some(after)) => {
                let (old_layer, new_layer) = (old_layers[before.layer], new_layers[after.layer]);
                if old_layer == new_layer {
                    continue;
                }
                let trees = (store.layer_tree(&old_layer), store.layer_tree(&new_layer));
                let kinds = compare(&before.entry, &after.entry, &trees.0, &trees.1);
                if kinds.is_empty() {
                    continue;
                }
                kinds
            }
            _ => Vec::new(),
        };
        let bytes = |file: Option<&File>| match file?.entry.kind {
            Kind::File { size } => Some(size),
            _ => None,
        };
        files.push(FileChange {
            path: format!("/{}", String::from_utf8_lossy(path)),
            bytes: (bytes(before), bytes(after)),
            first_layer: before.map(|file| file.layer),
            second_layer: after.map(|file| file.layer),
            kinds,
        });
    }
    Ok(ImageDiff { files, config: config_changes(&first, &second) })
}

/// A file as a container sees it.
struct File {
    entry: Entry,
    /// Position of the layer that it is in.
    layer: usize,
}

/// All files that a container of an image sees, by path.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<Vec<u8>, File>);

impl Files {
    pub(crate) fn of(store: &Store, layers: &[DiffId]) -> Result<Self, ibid_store::Error> {
        let mut files = Self::default();
        for (layer, diff_id) in layers.iter().enumerate() {
            files.lay_over(layer, store.layer_manifest(diff_id)?.entries);
        }
        Ok(files)
    }

    /// The paths, sorted by their bytes, without a `/` in front.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.0.keys().map(Vec::as_slice)
    }

    /// Lays a layer over what is there (OCI image specification, layer.md, "Applying Changesets").
    fn lay_over(&mut self, layer: usize, entries: Vec<Entry>) {
        let mut firsts: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        for mut entry in entries {
            match &entry.kind {
                Kind::Whiteout => {
                    self.0.remove(&entry.path);
                    self.remove_below(&entry.path);
                    continue;
                }
                Kind::Folder { opaque } => {
                    if *opaque {
                        self.remove_below(&entry.path);
                    }
                    // Hiding what is below is no property of the folder that is seen.
                    entry.kind = Kind::Folder { opaque: false };
                }
                Kind::HardLink { owner } => {
                    // Which of a file's names comes first is seen by nobody.
                    if let Some(first) = firsts.get(owner) {
                        entry = Entry { path: entry.path, ..first.clone() };
                    }
                    self.remove_below(&entry.path);
                }
                _ => {
                    self.remove_below(&entry.path);
                    firsts.insert(entry.path.clone(), entry.clone());
                }
            }
            self.0.insert(entry.path.clone(), File { entry, layer });
        }
    }

    fn remove_below(&mut self, folder: &[u8]) {
        let (start, end) = ([folder, b"/"].concat(), [folder, b"0"].concat());
        let below: Vec<Vec<u8>> = self.0.range(start..end).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.0.remove(&path);
        }
    }
}

fn config_changes(first: &ImageConfig, second: &ImageConfig) -> Vec<ConfigChange> {
    let (old, new) = (values(first), values(second));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changes = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changes
        .map(|name| ConfigChange {
            name: name.clone(),
            first: old.get(name).cloned(),
            second: new.get(name).cloned(),
        })
        .collect()
}

/// What a configuration says, but for its layers and how they were made.
fn values(config: &ImageConfig) -> BTreeMap<String, Value> {
    let object = |value: Value| match value {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    let mut values = BTreeMap::new();
    for (name, value) in object(serde_json::to_value(config).expect("plain data")) {
        match name.as_str() {
            "rootfs" | "history" => {}
            "config" => {
                for (name, value) in object(value) {
                    match (name.as_str(), &value) {
                        ("Env", Value::Array(pairs)) => {
                            for pair in pairs.iter().filter_map(Value::as_str) {
                                let (variable, value) = pair.split_once('=').unwrap_or((pair, ""));
                                values.insert(format!("Env {variable}"), value.into());
                            }
                        }
                        ("Labels", Value::Object(labels)) => {
                            let labels = labels.clone().into_iter();
                            values.extend(labels.map(|(label, value)| (format!("Label {label}"), value)));
                        }
                        _ => drop(values.insert(name, value)),
                    }
                }
            }
            _ => drop(values.insert(name, value)),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: BTreeMap::new(),
        }
    }

    #[test]
    fn layers_hide_what_is_below() {
        let file = |path: &str| entry(path, Kind::File { size: 1 });
        let folder = |path: &str, opaque| entry(path, Kind::Folder { opaque });
        let whiteout = |path: &str| entry(path, Kind::Whiteout);
        let low = || vec![folder("a", false), file("a/b"), file("a/c"), file("a-b"), file("d"), file("a0")];
        let check = |layer: Vec<Entry>, expected: &str| {
            let mut files = Files::default();
            files.lay_over(0, low());
            files.lay_over(1, layer);
            let shown =
                files.0.iter().map(|(path, file)| format!("{}{}", String::from_utf8_lossy(path), file.layer));
            assert_eq!(shown.collect::<Vec<_>>().join(" "), expected);
        };
        check(vec![], "a0 a-b0 a/b0 a/c0 a00 d0");
        check(vec![whiteout("a")], "a-b0 a00 d0");
        check(vec![folder("a", false), whiteout("a/b")], "a1 a-b0 a/c0 a00 d0");
        check(vec![folder("a", true), file("a/x")], "a1 a-b0 a/x1 a00 d0");
        check(vec![file("a")], "a1 a-b0 a00 d0");
        check(vec![folder("d", false), file("d/x")], "a0 a-b0 a/b0 a/c0 a00 d1 d/x1");
        let link = entry("e", Kind::HardLink { owner: b"a".to_vec() });
        check(vec![file("a"), link], "a1 a-b0 a00 d0 e1");
    }
}
