//! What is in an image, one line a path, and the same of an image that Docker builds.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tar::{Archive, Entry, EntryType};

use super::{Project, text};

/// By path, such as `file 644 0:0 "content"`.
pub type Tree = BTreeMap<String, String>;

/// The merged layers of the project's image.
pub fn image(project: &Project) -> Tree {
    let mut tree = Tree::new();
    for layer in layers(project) {
        apply(&mut tree, &layer);
    }
    tree
}

/// The time of every entry of its layers, seconds since 1970.
pub fn times(project: &Project) -> Vec<(String, i64)> {
    let mut times = Vec::new();
    for layer in layers(project) {
        for entry in Archive::new(layer.as_slice()).entries().expect("an archive") {
            let entry = entry.expect("an entry");
            let path = entry.path().expect("a path").to_string_lossy().trim_matches('/').to_owned();
            times.push((path, entry.header().mtime().expect("a time") as i64));
        }
    }
    times
}

/// The archives of its layers, lowest first.
fn layers(project: &Project) -> Vec<Vec<u8>> {
    let path = project.place.path().join("image.tar");
    project.check(&["save", &project.name(), "-o", path.to_str().expect("UTF-8")], 0);
    let mut blobs = BTreeMap::new();
    let mut archive = Archive::new(std::fs::File::open(&path).expect("the saved image"));
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("readable");
        blobs.insert(name, bytes);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&blobs["manifest.json"]).expect("JSON");
    let names = manifest[0]["Layers"].as_array().expect("layers");
    names.iter().map(|name| blobs[name.as_str().expect("a name")].clone()).collect()
}

/// What Docker's BuildKit makes of a folder with a Dockerfile.
pub fn docker(client: &Path, folder: &Path) -> Result<Tree, String> {
    let out = tempfile::NamedTempFile::new().expect("a temporary file");
    let output = Command::new(client)
        .args(["build", "--quiet", "--output"])
        .arg(format!("type=tar,dest={}", out.path().display()))
        .arg(folder)
        .env("DOCKER_BUILDKIT", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(text(&output.stderr).trim().to_owned());
    }
    let mut tree = Tree::new();
    apply(&mut tree, &std::fs::read(out.path()).expect("what Docker wrote"));
    Ok(tree)
}

/// A client of Docker that builds with BuildKit. A newer client in front may lack its build plug-in.
pub fn docker_client() -> Option<PathBuf> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").expect("a file");
    let mut reason = String::new();
    for client in ["docker", "/usr/bin/docker"] {
        match docker(Path::new(client), folder.path()) {
            Ok(_) => return Some(client.into()),
            Err(message) => reason = message,
        }
    }
    let required = std::env::var("IBID_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|need| need == "docker" || need == "all"),
        "docker is required: {reason}"
    );
    println!("skipped: needs docker because {reason}");
    None
}

/// Lays an archive of a layer over what is there.
fn apply(tree: &mut Tree, archive: &[u8]) {
    let mut archive = Archive::new(archive);
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().trim_matches('/').to_owned();
        if path.is_empty() || path == "." {
            continue;
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let hidden = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
            remove(tree, &hidden);
            continue;
        }
        let line = describe(&mut entry, tree);
        let is_merged =
            line.starts_with("folder") && tree.get(&path).is_some_and(|old| old.starts_with("folder"));
        if !is_merged {
            remove(tree, &path);
        }
        tree.insert(path, line);
    }
}

fn remove(tree: &mut Tree, path: &str) {
    tree.retain(|known, _| known != path && !known.starts_with(&format!("{path}/")));
}

fn describe(entry: &mut Entry<impl Read>, tree: &Tree) -> String {
    let header = entry.header().clone();
    let mode = header.mode().expect("a mode") & 0o7777;
    let owner = format!("{}:{}", header.uid().expect("a user"), header.gid().expect("a group"));
    let target = |entry: &Entry<_>| {
        let link = entry.link_name().expect("a target").expect("a target");
        link.to_string_lossy().trim_start_matches("./").to_owned()
    };
    let device = || (header.device_major().ok().flatten(), header.device_minor().ok().flatten());
    let mut line = match header.entry_type() {
        EntryType::Directory => format!("folder {mode:o} {owner}"),
        EntryType::Symlink => format!("link {owner} {}", target(entry)),
        // As one file: which of its names comes first is no property of the image.
        EntryType::Link => {
            let first = target(entry);
            return tree.get(&first).cloned().map_or_else(
                || format!("hard link to {first}"),
                |line| if line.contains(" = ") { line } else { format!("{line} = {first}") },
            );
        }
        EntryType::Fifo => format!("pipe {mode:o} {owner}"),
        EntryType::Char => format!("character {mode:o} {owner} {:?}", device()),
        EntryType::Block => format!("block {mode:o} {owner} {:?}", device()),
        _ => {
            let content = if entry.size() < 200 {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("readable");
                String::from_utf8_lossy(&bytes).into_owned()
            } else {
                format!("{} bytes", entry.size())
            };
            format!("file {mode:o} {owner} {content:?}")
        }
    };
    for extension in entry.pax_extensions().ok().flatten().into_iter().flatten().flatten() {
        if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
            line.push_str(&format!(" {name}={:?}", String::from_utf8_lossy(extension.value_bytes())));
        }
    }
    line
}
