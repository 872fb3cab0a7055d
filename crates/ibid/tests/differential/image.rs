//! Docker archives, as `docker save` and `ibid save` write them, read into one tree and one configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use ibid_core::digest::Digest;
use serde_json::Value;
use tar::EntryType;

/// What a build made.
pub struct Image {
    tree: BTreeMap<String, Node>,
    config: Value,
}

/// A path of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    kind: String,
    mode: u32,
    owner: (u64, u64),
    /// Digest of a file's content, target of a link, numbers of a device.
    content: String,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// Names of one file share a number.
    inode: usize,
}

/// Reads an archive with one image.
pub fn read(archive: &[u8]) -> Result<Image, String> {
    let mut files = BTreeMap::new();
    let mut links = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().map_err(|error| error.to_string())? {
        let mut entry = entry.map_err(|error| error.to_string())?;
        let path = entry.path().map_err(|error| error.to_string())?.display().to_string();
        if let Some(target) = entry.link_name().map_err(|error| error.to_string())? {
            // A layer that another one has too; relative to its own folder.
            links.insert(path, target.display().to_string().trim_start_matches("../").to_owned());
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(|error| error.to_string())?;
        files.insert(path, content);
    }
    let file = |name: &str| {
        let name = links.get(name).map_or(name, String::as_str);
        files.get(name).ok_or_else(|| format!("the archive lacks {name}"))
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|error| error.to_string());
    let manifest = json(file("manifest.json")?)?;
    let config = json(file(manifest[0]["Config"].as_str().ok_or("no configuration")?)?)?;
    let mut tree = Tree::default();
    for layer in manifest[0]["Layers"].as_array().ok_or("no layers")? {
        tree.apply(file(layer.as_str().ok_or("no name of a layer")?)?)?;
    }
    Ok(Image { tree: tree.nodes, config: normal(config) })
}

#[derive(Default)]
struct Tree {
    nodes: BTreeMap<String, Node>,
    inodes: usize,
}

impl Tree {
    fn apply(&mut self, layer: &[u8]) -> Result<(), String> {
        let mut own = BTreeSet::new();
        for entry in tar::Archive::new(layer).entries().map_err(|error| error.to_string())? {
            let mut entry = entry.map_err(|error| error.to_string())?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
            let path = path.trim_start_matches("./").trim_start_matches('/').to_owned();
            if path.is_empty() || path == "." {
                continue;
            }
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let in_folder =
                |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if name == ".wh..wh..opq" {
                let prefix = format!("{folder}/");
                self.nodes.retain(|known, _| !known.starts_with(&prefix) || own.contains(known));
                continue;
            }
            if let Some(hidden) = name.strip_prefix(".wh.") {
                self.remove(&in_folder(hidden));
                continue;
            }
            let mut xattrs = BTreeMap::new();
            if let Ok(Some(extensions)) = entry.pax_extensions() {
                for extension in extensions.flatten() {
                    let key = String::from_utf8_lossy(extension.key_bytes()).into_owned();
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                    }
                }
            }
            let header = entry.header().clone();
            let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
            let mut digest =
                |content: &mut Vec<u8>| entry.read_to_end(content).map(|_| Digest::of(content).to_string());
            let failed = |error: std::io::Error| error.to_string();
            let (kind, content) = match header.entry_type() {
                EntryType::Link => {
                    let target = target.unwrap_or_default().trim_start_matches('/').to_owned();
                    let node =
                        self.nodes.get(&target).ok_or(format!("{path}: no {target} to link to"))?.clone();
                    self.nodes.insert(path.clone(), node);
                    own.insert(path);
                    continue;
                }
                EntryType::Directory => ("folder", String::new()),
                EntryType::Symlink => ("link", target.unwrap_or_default()),
                EntryType::Fifo => ("pipe", String::new()),
                EntryType::Char | EntryType::Block => {
                    let numbers =
                        (header.device_major().map_err(failed)?, header.device_minor().map_err(failed)?);
                    let kind = if header.entry_type() == EntryType::Char { "characters" } else { "blocks" };
                    (kind, format!("{numbers:?}"))
                }
                _ => ("file", digest(&mut Vec::new()).map_err(failed)?),
            };
            if kind != "folder" {
                self.remove(&path);
            }
            self.inodes += 1;
            let node = Node {
                kind: kind.to_owned(),
                // A link's own mode means nothing.
                mode: if kind == "link" { 0o777 } else { header.mode().map_err(failed)? & 0o7777 },
                owner: (header.uid().map_err(failed)?, header.gid().map_err(failed)?),
                content,
                xattrs,
                inode: self.inodes,
            };
            self.nodes.insert(path.clone(), node);
            own.insert(path);
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) {
        let prefix = format!("{path}/");
        self.nodes.retain(|known, _| known != path && !known.starts_with(&prefix));
    }
}

impl Image {
    /// The names of each file that has several.
    fn hard_links(&self) -> BTreeSet<Vec<&str>> {
        let mut names: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (path, node) in &self.tree {
            names.entry(node.inode).or_default().push(path);
        }
        names.into_values().filter(|names| names.len() > 1).collect()
    }
}

/// A configuration without what is another on each build (times, digests of layers, whether a layer is empty: Docker keeps
/// layers without content), and without values that mean the same as none.
fn normal(mut config: Value) -> Value {
    if let Some(history) = config["history"].as_array_mut() {
        for entry in history {
            let Some(entry) = entry.as_object_mut() else { continue };
            entry.remove("created");
            entry.remove("empty_layer");
            // BuildKit signs its entries.
            entry.remove("comment");
            if let Some(Value::String(text)) = entry.get_mut("created_by") {
                *text = history_text(text);
            }
        }
    }
    if let Some(object) = config.as_object_mut() {
        for key in ["created", "rootfs", "container", "container_config", "docker_version"] {
            object.remove(key);
        }
        if let Some(container) = object.get_mut("config").and_then(Value::as_object_mut) {
            container.retain(|_, value| !is_nothing(value));
        }
    }
    config
}

/// The text of a history entry as engines of every age write it: newer ones add the values of arguments that were given, and
/// the flags of copies.
fn history_text(text: &str) -> String {
    let text = text.trim_end_matches(" # buildkit");
    let (keyword, rest) = text.split_once(' ').unwrap_or((text, ""));
    match keyword {
        "ARG" => rest.split(' ').fold("ARG".to_owned(), |text, word| {
            format!("{text} {}", word.split_once('=').map_or(word, |(name, _)| name))
        }),
        "COPY" | "ADD" => {
            let words = rest.split(' ').skip_while(|word| word.starts_with("--"));
            words.fold(keyword.to_owned(), |text, word| format!("{text} {word}"))
        }
        _ => text.to_owned(),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(true) => false,
    }
}

/// What differs, a line each.
pub fn differences(docker: &Image, ibid: &Image) -> Vec<String> {
    let mut found = Vec::new();
    let paths: BTreeSet<&String> = docker.tree.keys().chain(ibid.tree.keys()).collect();
    for path in paths {
        match (docker.tree.get(path), ibid.tree.get(path)) {
            (Some(_), None) => found.push(format!("/{path}: only docker has it")),
            (None, Some(_)) => found.push(format!("/{path}: only ibid has it")),
            (Some(theirs), Some(ours)) => {
                let same_mode = Node { inode: ours.inode, mode: ours.mode, ..theirs.clone() };
                if same_mode != *ours {
                    found.push(format!("/{path}:\n  docker {theirs:?}\n  ibid   {ours:?}"));
                } else if theirs.mode != ours.mode {
                    found.push(format!("/{path}: mode {:o} by docker, {:o} by ibid", theirs.mode, ours.mode));
                }
            }
            (None, None) => {}
        }
    }
    if docker.hard_links() != ibid.hard_links() {
        found.push(format!("hard links: docker {:?}, ibid {:?}", docker.hard_links(), ibid.hard_links()));
    }
    compare("", &docker.config, &ibid.config, &mut found);
    found
}

/// Field by field.
fn compare(path: &str, docker: &Value, ibid: &Value, found: &mut Vec<String>) {
    match (docker, ibid) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let keys: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
            for key in keys {
                let (theirs, ours) = (theirs.get(key), ours.get(key));
                compare(
                    &format!("{path}.{key}"),
                    theirs.unwrap_or(&Value::Null),
                    ours.unwrap_or(&Value::Null),
                    found,
                );
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                compare(&format!("{path}[{index}]"), theirs, ours, found);
            }
        }
        _ if docker == ibid => {}
        _ => found.push(format!("configuration{path}: docker {docker}, ibid {ibid}")),
    }
}
