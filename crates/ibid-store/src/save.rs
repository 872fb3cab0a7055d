//! Images as files for other programs and machines:
//!
//! ```text
//! Docker archive                          OCI archive, and the same as a folder
//! blobs/sha256/<hex>  layers, configs     blobs/sha256/<hex>  layers, configs, manifests
//! manifest.json       names them          index.json          names them
//!                                         oci-layout          the version of the layout
//! ```
//!
//! Deterministic: the same images under the same names give the same bytes. Entries of an archive have a fixed order, the
//! time 0, owner 0 and no names. Memory does not depend on the size of a layer: one that is compressed is kept in
//! `tmp/` until its size, which stands before it in an archive, is known.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Seek, SeekFrom, Write};

use ibid_core::digest::{DiffId, Digest};
use ibid_core::image::ImageConfig;
use ibid_core::manifest::{self, Descriptor, Manifest};
use ibid_core::reference::Reference;
use serde::Serialize;
use serde_json::{Value, json};

use crate::header::{self, BLOCK_BYTES};
use crate::staging::StagedFile;
use crate::{Compression, Entry, Error, Kind, OciFolder, Result, Store, oci_folder};

/// The media type of a layer that is not compressed (OCI image specification, layer.md).
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Names an image in an index: the whole name, as containerd and Docker write it.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// Names an image in an index (OCI image specification, annotations.md): the tag alone, as Docker writes it.
pub(crate) const REFERENCE_NAME: &str = "org.opencontainers.image.ref.name";

/// What an archive looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// What `docker save` has always written (Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset
    /// Format").
    Docker,
    /// The OCI image layout in an archive.
    Oci,
}

/// An image to save, and the names that it gets where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// Which.
    pub image: Digest,
    /// Perhaps none.
    pub names: Vec<Reference>,
}

/// One image in `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ArchivedImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Store {
    /// Writes images as one archive.
    pub fn save_archive(
        &self,
        images: &[NamedImage],
        format: ArchiveFormat,
        compression: Option<Compression>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let images = self.images_to_save(images)?;
        let mut layers = BTreeMap::new();
        for layer in distinct_layers(&images) {
            layers.insert(layer, self.write_layer_entry(&layer, compression, out)?);
        }
        let mut written = BTreeSet::new();
        let mut write_blob = |bytes: &[u8], out: &mut dyn Write| {
            let digest = Digest::of(bytes);
            if written.insert(digest) { write_entry(out, &blob_name(&digest), bytes) } else { Ok(()) }
        };
        for image in &images {
            write_blob(&image.bytes, out)?;
        }
        match format {
            ArchiveFormat::Docker => {
                let archived: Vec<_> = images.iter().map(|image| image.in_docker_archive(&layers)).collect();
                write_entry(out, "manifest.json", &to_json(&archived))?;
            }
            ArchiveFormat::Oci => {
                let mut index = Vec::new();
                for image in &images {
                    let manifest = to_json(&image.manifest(&layers));
                    write_blob(&manifest, out)?;
                    index.extend(image.in_index(&Digest::of(&manifest), manifest.len() as u64));
                }
                write_entry(out, "index.json", &to_json(&oci_folder::index_document(&index)))?;
                write_entry(out, "oci-layout", &to_json(&oci_folder::layout_document()))?;
            }
        }
        let mut end = Vec::new();
        header::append_end(&mut end);
        out.write_all(&end).and_then(|()| out.flush()).map_err(cannot_write)
    }

    /// Writes an image as a Docker archive for a program that has some of its layers already: of those, the archive has empty
    /// files.
    pub fn save_archive_beside(
        &self,
        image: &NamedImage,
        held: &BTreeSet<DiffId>,
        out: &mut dyn Write,
    ) -> Result<()> {
        let images = self.images_to_save(std::slice::from_ref(image))?;
        let mut layers = BTreeMap::new();
        for layer in distinct_layers(&images) {
            let descriptor = if held.contains(&layer) {
                write_entry(out, &blob_name(&layer.0), &[])?;
                Descriptor { media_type: LAYER.to_owned(), digest: layer.0, size: 0, artifact_type: None }
            } else {
                self.write_layer_entry(&layer, None, out)?
            };
            layers.insert(layer, descriptor);
        }
        for image in &images {
            write_entry(out, &blob_name(&image.digest), &image.bytes)?;
        }
        let archived: Vec<_> = images.iter().map(|image| image.in_docker_archive(&layers)).collect();
        write_entry(out, "manifest.json", &to_json(&archived))?;
        let mut end = Vec::new();
        header::append_end(&mut end);
        out.write_all(&end).and_then(|()| out.flush()).map_err(cannot_write)
    }

    /// Adds images to a folder in the OCI image layout. What the folder has under other names stays.
    pub fn save_folder(
        &self,
        images: &[NamedImage],
        compression: Option<Compression>,
        folder: &OciFolder,
    ) -> Result<()> {
        let images = self.images_to_save(images)?;
        let mut layers = BTreeMap::new();
        for layer in distinct_layers(&images) {
            let descriptor = folder.write_blob(media_type(compression), |out| match compression {
                Some(compression) => self.write_compressed_layer(&layer, compression, out),
                None => {
                    self.write_layer_tar(&layer, out)?;
                    Ok((layer.0, self.layer_tar_size(&layer)?))
                }
            })?;
            layers.insert(layer, descriptor);
        }
        let mut added = Vec::new();
        for image in &images {
            folder.put_blob(manifest::CONFIG, &image.bytes)?;
            let manifest = folder.put_blob(manifest::MANIFEST, &to_json(&image.manifest(&layers)))?;
            added.extend(image.in_index(&manifest.digest, manifest.size));
        }
        let mut index = folder.index()?;
        index.retain(|known| !added.iter().any(|new| is_replaced(known, new)));
        index.extend(added);
        folder.put_index(&index)
    }

    fn images_to_save(&self, images: &[NamedImage]) -> Result<Vec<ImageToSave>> {
        let read = |named: &NamedImage| {
            let mut names = named.names.clone();
            names.sort();
            names.dedup();
            let config = self.image(&named.image)?;
            // As stored, not as serialised again: the digest names these bytes.
            Ok(ImageToSave { bytes: self.blob(&named.image)?, digest: named.image, config, names })
        };
        images.iter().map(read).collect()
    }

    fn write_layer_entry(
        &self,
        layer: &DiffId,
        compression: Option<Compression>,
        out: &mut dyn Write,
    ) -> Result<Descriptor> {
        let media_type = media_type(compression).to_owned();
        let Some(compression) = compression else {
            let size = self.layer_tar_size(layer)?;
            write_header(out, &blob_name(&layer.0), size)?;
            let mut counted = Counted { out, bytes: 0 };
            self.write_layer_tar(layer, &mut counted)?;
            if counted.bytes != size {
                return Err(Error::Damaged {
                    path: self.layer_folder(layer),
                    reason: format!("its archive has {} bytes instead of {size}", counted.bytes),
                });
            }
            write_padding(out, size)?;
            return Ok(Descriptor { media_type, digest: layer.0, size, artifact_type: None });
        };
        let mut compressed = StagedFile::new(&self.tmp())?;
        let (digest, size) = self.write_compressed_layer(layer, compression, &mut compressed.file)?;
        write_header(out, &blob_name(&digest), size)?;
        let path = &compressed.path;
        compressed.file.seek(SeekFrom::Start(0)).map_err(Error::io("read", path))?;
        io::copy(&mut compressed.file, out).map_err(cannot_write)?;
        write_padding(out, size)?;
        Ok(Descriptor { media_type, digest, size, artifact_type: None })
    }
}

struct ImageToSave {
    digest: Digest,
    bytes: Vec<u8>,
    config: ImageConfig,
    names: Vec<Reference>,
}

impl ImageToSave {
    fn layers(&self, known: &BTreeMap<DiffId, Descriptor>) -> Vec<Descriptor> {
        self.config.rootfs.diff_ids.iter().map(|layer| known[layer].clone()).collect()
    }

    fn in_docker_archive(&self, layers: &BTreeMap<DiffId, Descriptor>) -> ArchivedImage {
        ArchivedImage {
            config: blob_name(&self.digest),
            repo_tags: self.names.iter().map(ToString::to_string).collect(),
            layers: self.layers(layers).iter().map(|layer| blob_name(&layer.digest)).collect(),
        }
    }

    fn manifest(&self, layers: &BTreeMap<DiffId, Descriptor>) -> Manifest {
        let config = Descriptor {
            media_type: manifest::CONFIG.to_owned(),
            digest: self.digest,
            size: self.bytes.len() as u64,
            artifact_type: None,
        };
        Manifest::of_image(config, self.layers(layers))
    }

    /// Its descriptors in an index: one for each name.
    fn in_index(&self, manifest: &Digest, size: u64) -> Vec<Value> {
        let mut platform = json!({ "architecture": self.config.architecture, "os": self.config.os });
        if let Some(variant) = &self.config.variant {
            platform["variant"] = variant.as_str().into();
        }
        let descriptor = json!({
            "mediaType": manifest::MANIFEST,
            "digest": manifest,
            "size": size,
            "platform": platform,
        });
        if self.names.is_empty() {
            return vec![descriptor];
        }
        let named = self.names.iter().map(|name| {
            let mut descriptor = descriptor.clone();
            descriptor["annotations"] = json!({ IMAGE_NAME: name.canonical() });
            if let Some(tag) = &name.tag {
                descriptor["annotations"][REFERENCE_NAME] = tag.as_str().into();
            }
            descriptor
        });
        named.collect()
    }
}

/// Whether a descriptor of an index gives way to a new one: it is the same, or it has the same name.
fn is_replaced(known: &Value, new: &Value) -> bool {
    match (&known["annotations"][IMAGE_NAME], &new["annotations"][IMAGE_NAME]) {
        (Value::Null, Value::Null) => known["digest"] == new["digest"],
        (known, new) => known == new,
    }
}

fn distinct_layers(images: &[ImageToSave]) -> BTreeSet<DiffId> {
    images.iter().flat_map(|image| image.config.rootfs.diff_ids.iter().copied()).collect()
}

fn media_type(compression: Option<Compression>) -> &'static str {
    compression.map_or(LAYER, Compression::media_type)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn to_json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("plain data")
}

fn write_entry(out: &mut dyn Write, name: &str, content: &[u8]) -> Result<()> {
    write_header(out, name, content.len() as u64)?;
    out.write_all(content).map_err(cannot_write)?;
    write_padding(out, content.len() as u64)
}

fn write_header(out: &mut dyn Write, name: &str, bytes: u64) -> Result<()> {
    let mut header = Vec::new();
    header::append(
        &mut header,
        &Entry {
            path: name.as_bytes().to_owned(),
            kind: Kind::File { size: bytes },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: BTreeMap::new(),
        },
    );
    out.write_all(&header).map_err(cannot_write)
}

fn write_padding(out: &mut dyn Write, bytes: u64) -> Result<()> {
    let padding = (BLOCK_BYTES - (bytes % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES;
    out.write_all(&[0; BLOCK_BYTES][..padding]).map_err(cannot_write)
}

fn cannot_write(source: io::Error) -> Error {
    Error::Stream { action: "write", source }
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
