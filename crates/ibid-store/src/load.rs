//! Files that images were saved to → images of the store: archives of `docker save`, `podman save`, `skopeo` and ibid,
//! and the OCI image layout as an archive or a folder.
//!
//! Untrusted, and believed only by digest: a configuration by the name that the file gives it, each layer by the
//! configuration. Nothing is visible before all images of a file have been checked.

use std::collections::BTreeSet;
use std::io::Read;

use ibid_core::digest::{DiffId, Digest};
use ibid_core::image::{ImageConfig, host_architecture};
use ibid_core::manifest::{self, Descriptor};
use ibid_core::reference::Reference;
use serde::Deserialize;
use serde_json::Value;

use crate::compress::decompressed;
use crate::image_archive::{ArchivedLayer, ImageArchive, LayerContent};
use crate::save::{IMAGE_NAME, REFERENCE_NAME};
use crate::{Error, OciFolder, Result, Store, UnpackedLayer};

/// Indexes within indexes that are followed.
const NESTED_MAX: usize = 4;
/// Most images of one file.
const IMAGES_MAX: usize = 1000;

/// Docker's names for what OCI has media types for, too.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// An image that is in the store now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Which.
    pub image: Digest,
    /// What the file calls it. The store has no such tags yet.
    pub names: Vec<Reference>,
    /// Its operating system and architecture, such as `linux/amd64`.
    pub platform: String,
}

/// One image in `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchivedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// A manifest of an image; what ibid needs of it.
#[derive(Deserialize)]
struct ImageManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Store {
    /// Loads the images of an archive, which may be a pipe and may be compressed.
    pub fn load_archive(&self, from: impl Read) -> Result<Vec<LoadedImage>> {
        let archive = ImageArchive::read(self, from)?;
        // Newer Docker engines write both, and mean the same.
        let is_docker = archive.document("manifest.json").is_some();
        let mut load = Load::new(self, Source::Archive(archive));
        if is_docker {
            load.docker_archive()?
        } else {
            load.oci_index()?
        }
        load.publish()
    }

    /// Loads the images of a folder in the OCI image layout.
    pub fn load_folder(&self, folder: &OciFolder) -> Result<Vec<LoadedImage>> {
        let mut load = Load::new(self, Source::Folder(folder));
        load.oci_index()?;
        load.publish()
    }
}

enum Source<'a> {
    Archive(ImageArchive),
    Folder(&'a OciFolder),
}

struct Load<'a> {
    store: &'a Store,
    source: Source<'a>,
    /// Layers that are checked.
    checked: BTreeSet<DiffId>,
    /// Those of them that the store has not yet.
    unpacked: Vec<UnpackedLayer>,
    /// The images, with the bytes of their configurations.
    images: Vec<(LoadedImage, Vec<u8>)>,
}

impl<'a> Load<'a> {
    fn new(store: &'a Store, source: Source<'a>) -> Self {
        Self { store, source, checked: BTreeSet::new(), unpacked: Vec::new(), images: Vec::new() }
    }

    /// Makes all visible: layers, then the images that need them.
    fn publish(self) -> Result<Vec<LoadedImage>> {
        if self.images.is_empty() {
            return Err(Error::NoImage);
        }
        for layer in self.unpacked {
            layer.publish()?;
        }
        let mut loaded: Vec<LoadedImage> = Vec::new();
        for (image, config) in self.images {
            self.store.put_blob(&config)?;
            match loaded.iter_mut().find(|known| known.image == image.image) {
                Some(known) => known.names.extend(image.names),
                None => loaded.push(image),
            }
        }
        Ok(loaded)
    }

    fn docker_archive(&mut self) -> Result<()> {
        let Source::Archive(archive) = &self.source else { return Ok(()) };
        let text = archive.document("manifest.json").unwrap_or_default();
        let images: Vec<ArchivedImage> = serde_json::from_slice(text)
            .map_err(|error| invalid("manifest.json", format!("is no image list: {error}")))?;
        for image in images.into_iter().take(IMAGES_MAX) {
            let Source::Archive(archive) = &self.source else { return Ok(()) };
            let config = archive.document(&image.config).ok_or_else(|| missing(&image.config))?.to_vec();
            check_name(&image.config, &Digest::of(&config))?;
            let layers = image.layers.unwrap_or_default();
            let mut names = Vec::new();
            for name in image.repo_tags.iter().flatten() {
                let name = name
                    .parse()
                    .map_err(|error| invalid("manifest.json", format!("is no image list: {error}")))?;
                names.push(name);
            }
            self.image(&image.config, config, names, &layers, |load, name, diff_id| {
                load.archived_layer(name, diff_id, None)
            })?;
        }
        Ok(())
    }

    fn oci_index(&mut self) -> Result<()> {
        let entries = match &self.source {
            Source::Folder(folder) => folder.index()?,
            Source::Archive(archive) => {
                let text = archive.document("index.json").ok_or_else(|| {
                    invalid("manifest.json", "is not in the archive, nor is an `index.json`")
                })?;
                manifests_of("index.json", text)?
            }
        };
        for entry in entries.iter().take(IMAGES_MAX) {
            let mut names = Vec::new();
            let annotations = &entry["annotations"];
            if let Some(name) = annotations[IMAGE_NAME].as_str().or(annotations[REFERENCE_NAME].as_str()) {
                // Anything may stand there; only a name is of use.
                names.extend(name.parse());
            }
            self.oci_image(entry, names, 0)?;
        }
        Ok(())
    }

    /// An image, or the one of several that is for this machine.
    fn oci_image(&mut self, entry: &Value, names: Vec<Reference>, depth: usize) -> Result<()> {
        let descriptor = descriptor_of(entry)?;
        let name = blob_name(&descriptor.digest);
        if INDEXES.contains(&descriptor.media_type.as_str()) {
            if depth == NESTED_MAX {
                return Err(invalid(&name, "is an index too deep in others"));
            }
            let entries = manifests_of(&name, &self.document(&descriptor)?)?;
            let own = entries.iter().find(|entry| is_for(entry, host_architecture()));
            return match own {
                Some(entry) => self.oci_image(entry, names, depth + 1),
                None => {
                    let reason = format!("has no image for linux/{}", host_architecture());
                    Err(invalid(&name, reason))
                }
            };
        }
        if descriptor.artifact_type.is_some() {
            return Ok(());
        }
        let manifest: ImageManifest = serde_json::from_slice(&self.document(&descriptor)?)
            .map_err(|error| invalid(&name, format!("is no manifest: {error}")))?;
        // Build caches, signatures and the like.
        if ![manifest::CONFIG, DOCKER_CONFIG].contains(&manifest.config.media_type.as_str()) {
            return Ok(());
        }
        let config = self.document(&manifest.config)?;
        let config_name = blob_name(&manifest.config.digest);
        self.image(&config_name, config, names, &manifest.layers, |load, layer, diff_id| match load.source {
            Source::Archive(_) => load.archived_layer(&blob_name(&layer.digest), diff_id, Some(layer.digest)),
            Source::Folder(folder) => load.layer_of_folder(folder, layer, diff_id),
        })
    }

    /// Checks an image by its configuration. `layer` checks that one of `layers` is what it should be.
    fn image<L>(
        &mut self,
        name: &str,
        config: Vec<u8>,
        names: Vec<Reference>,
        layers: &[L],
        layer: impl Fn(&mut Self, &L, DiffId) -> Result<()>,
    ) -> Result<()> {
        let parsed: ImageConfig = serde_json::from_slice(&config)
            .map_err(|error| invalid(name, format!("is no image configuration: {error}")))?;
        if parsed.os != "linux" {
            return Err(invalid(name, format!("is of an image for {}, not for linux", parsed.os)));
        }
        let diff_ids = &parsed.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            let reason = format!("names {} layers, and there are {}", diff_ids.len(), layers.len());
            return Err(invalid(name, reason));
        }
        for (content, diff_id) in layers.iter().zip(diff_ids) {
            if self.checked.contains(diff_id) {
                continue;
            }
            layer(self, content, *diff_id)?;
            self.checked.insert(*diff_id);
        }
        let platform = format!("{}/{}", parsed.os, parsed.architecture);
        let image = Digest::of(&config);
        self.images.push((LoadedImage { image, names, platform }, config));
        Ok(())
    }

    /// Checks a layer of an archive; its bytes there have the digest `expected`, if that is known.
    fn archived_layer(&mut self, name: &str, diff_id: DiffId, expected: Option<Digest>) -> Result<()> {
        let Source::Archive(archive) = &mut self.source else { return Ok(()) };
        let Some(ArchivedLayer { digest, content }) = archive.layer(name) else {
            if self.store.has_layer(&diff_id) {
                return Ok(());
            }
            return Err(match archive.document(name) {
                Some(_) => invalid(name, "is no layer"),
                None => missing(name),
            });
        };
        if let Some(expected) = expected.filter(|expected| expected != digest) {
            return Err(invalid(name, format!("has the digest {digest} instead of {expected}")));
        }
        // What is taken is of use to no other image: those find it among the checked ones.
        let taken = std::mem::replace(content, Ok(LayerContent::Present(diff_id)));
        let taken = taken
            .map_err(|source| Error::InvalidLayer { name: name.to_owned(), source: Box::new(source) })?;
        check_layer(name, taken.diff_id(), diff_id)?;
        if let LayerContent::Unpacked(unpacked) = taken {
            self.unpacked.push(unpacked);
        }
        Ok(())
    }

    fn layer_of_folder(&mut self, folder: &OciFolder, layer: &Descriptor, diff_id: DiffId) -> Result<()> {
        if self.store.has_layer(&diff_id) {
            return Ok(());
        }
        let name = blob_name(&layer.digest);
        let unpacked = folder.read_blob(layer, |from| self.store.unpack_layer(decompressed(from)?));
        let unpacked = unpacked.map_err(|error| match error {
            Error::Io { .. } | Error::Damaged { .. } => error,
            error => Error::InvalidLayer { name: name.clone(), source: Box::new(error) },
        })?;
        check_layer(&name, unpacked.diff_id(), diff_id)?;
        self.unpacked.push(unpacked);
        Ok(())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        match &self.source {
            Source::Folder(folder) => folder.blob(descriptor),
            Source::Archive(archive) => {
                let name = blob_name(&descriptor.digest);
                let bytes = archive.document(&name).ok_or_else(|| missing(&name))?;
                check_name(&name, &Digest::of(bytes))?;
                Ok(bytes.to_vec())
            }
        }
    }
}

fn check_layer(name: &str, found: DiffId, expected: DiffId) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(invalid(name, format!("holds the layer {found}, where the image has {expected}")))
}

/// A name that is a digest must be that of the content: `<hex>.json`, `blobs/sha256/<hex>`.
fn check_name(name: &str, found: &Digest) -> Result<()> {
    let last = name.rsplit('/').next().unwrap_or(name);
    match Digest::from_hex(last.strip_suffix(".json").unwrap_or(last)) {
        Ok(expected) if expected != *found => Err(invalid(name, format!("has the digest {found}"))),
        _ => Ok(()),
    }
}

fn descriptor_of(entry: &Value) -> Result<Descriptor> {
    Descriptor::deserialize(entry).map_err(|error| invalid("index.json", format!("is no index: {error}")))
}

fn manifests_of(name: &str, text: &[u8]) -> Result<Vec<Value>> {
    let mut index: Value =
        serde_json::from_slice(text).map_err(|error| invalid(name, format!("is no index: {error}")))?;
    match index["manifests"].take() {
        Value::Array(manifests) => Ok(manifests),
        _ => Err(invalid(name, "lists no manifests")),
    }
}

fn is_for(entry: &Value, architecture: &str) -> bool {
    let platform = &entry["platform"];
    platform.is_null()
        || platform["os"].as_str() == Some("linux") && platform["architecture"].as_str() == Some(architecture)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn missing(name: &str) -> Error {
    invalid(name, "is not in the archive")
}

fn invalid(name: &str, reason: impl Into<String>) -> Error {
    Error::InvalidImage { name: name.to_owned(), reason: reason.into() }
}
