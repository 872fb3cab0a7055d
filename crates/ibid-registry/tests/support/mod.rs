//! Images in registries, and a client with nothing set up.
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::Write as _;
use std::sync::Mutex;

use ibid_core::digest::{DiffId, Digest};
use ibid_registry::{Client, Error, Event, Pulled, Settings};
use ibid_store::Store;
use ibid_testing::{Need, TestRegistry, need};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Layers hold files of any owner.
pub fn can_unpack() -> bool {
    need(&[Need::Root])
}

/// A place with a store and a home.
pub struct Place {
    pub folder: TempDir,
    pub store: Store,
    pub environment: Vec<(String, String)>,
    said: Mutex<Vec<String>>,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        let home = folder.path().join("home").display().to_string();
        Self { folder, store, environment: vec![("HOME".to_owned(), home)], said: Mutex::default() }
    }

    /// Writes a file of the home.
    pub fn file(&self, name: &str, content: &str) {
        let path = self.folder.path().join("home").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }

    pub fn with<T>(&self, act: impl FnOnce(&Client) -> T) -> T {
        let tell = |event: Event| match event {
            Event::Retry { reason, .. } => self.say(format!("retry: {reason}")),
            Event::MirrorFailed { host, reason } => self.say(format!("mirror {host}: {reason}")),
            _ => {}
        };
        let settings = Settings::new(self.folder.path(), self.environment.clone());
        let client = Client::new(settings, &tell).expect("settings are read");
        act(&client)
    }

    fn say(&self, line: String) {
        self.said.lock().expect("nobody panics").push(line);
    }

    /// What was said since the last call.
    pub fn said(&self) -> String {
        std::mem::take(&mut *self.said.lock().expect("nobody panics")).join("\n")
    }

    pub fn pull(&self, reference: &str) -> Result<Pulled, Error> {
        let reference = reference.parse().expect("a reference");
        self.with(|client| client.pull(&self.store, &reference, None))
    }

    /// Pulls, which must fail, and checks that nothing of the image can be seen.
    #[track_caller]
    pub fn refused(&self, reference: &str, expected: &str) -> Error {
        let error = self.pull(reference).expect_err(reference);
        let text = causes(&error);
        assert!(text.contains(expected), "{text}");
        let parsed = reference.parse().expect("a reference");
        assert_eq!(self.store.tag(&parsed).expect("read"), None);
        for folder in ["layers", "blobs/sha256", "tmp"] {
            let path = self.store.root().join(folder);
            assert_eq!(std::fs::read_dir(&path).expect("a folder").count(), 0, "{folder} after {text}");
        }
        error
    }

    pub fn layer_file(&self, image: &Image, layer: usize) -> Vec<u8> {
        let tree = self.store.layer_tree(&image.diff_ids[layer]);
        std::fs::read(tree.join(format!("file{layer}"))).expect("the layer's file")
    }

    /// What is left of blobs that did not come whole.
    pub fn parts(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(self.store.root().join("downloads")).expect("a folder");
        entries.map(|entry| entry.expect("an entry").metadata().expect("a file").len()).collect()
    }
}

pub fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Bytes that do not compress.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.extend((state >> 11).to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// The archive of a layer with one file.
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    // As it is: a hostile name is written, too.
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    archive.append(&header, content).expect("written to memory");
    archive.into_inner().expect("finished")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("written to memory");
    encoder.finish().expect("finished")
}

/// An image that a test puts into a registry.
pub struct Image {
    pub diff_ids: Vec<DiffId>,
    /// Compressed.
    pub layers: Vec<Vec<u8>>,
    pub config: Value,
    pub layer_type: &'static str,
}

impl Image {
    /// One with layers of so many bytes of noise, whose archives `compress` compresses.
    pub fn new(sizes: &[usize], layer_type: &'static str, compress: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let contents = sizes.iter().enumerate();
        let tars: Vec<Vec<u8>> = contents
            .map(|(number, size)| tar(&format!("file{number}"), &noise(number as u64, *size)))
            .collect();
        let diff_ids: Vec<DiffId> = tars.iter().map(|tar| DiffId(Digest::of(tar))).collect();
        let config = json!({
            "architecture": ibid_core::image::host_architecture(), "os": "linux",
            "config": { "Env": ["A=b"] }, "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        Self { diff_ids, layers: tars.iter().map(|tar| compress(tar)).collect(), config, layer_type }
    }

    pub fn small() -> Self {
        Self::new(&[1000, 2000, 3000], GZIP_LAYER, gzip)
    }

    pub fn config_text(&self) -> Vec<u8> {
        serde_json::to_vec(&self.config).expect("plain data")
    }

    pub fn manifest(&self) -> Value {
        let config = self.config_text();
        let layer = |bytes: &Vec<u8>| json!({ "mediaType": self.layer_type, "digest": Digest::of(bytes), "size": bytes.len() });
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": Digest::of(&config), "size": config.len() },
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        })
    }

    /// Puts it into `a/b` under the tag `t`, and gives its reference.
    pub fn put(&self, registry: &TestRegistry) -> String {
        self.put_blobs(registry);
        self.put_manifest(registry, &self.manifest())
    }

    pub fn put_blobs(&self, registry: &TestRegistry) {
        for bytes in self.layers.iter().chain([&self.config_text()]) {
            registry.put_blob("a/b", bytes);
        }
    }

    pub fn put_manifest(&self, registry: &TestRegistry, manifest: &Value) -> String {
        let text = manifest.to_string();
        let media_type = manifest["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        registry.put_manifest("a/b", "t", &media_type, text.as_bytes());
        format!("{}/a/b:t", registry.host())
    }
}
