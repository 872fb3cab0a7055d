//! An image as one file: the Docker archive that `docker load` and `podman load` take. It is at the same time
//! laid out like an OCI image folder, `blobs/sha256/<hex>`, with `manifest.json` naming the blobs.
//!
//! Deterministic: entries in a fixed order, with the time 0, owner 0 and no names.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ibid_core::digest::{DiffId, Digest};
use serde::Serialize;

use crate::header::{self, BLOCK_BYTES};
use crate::{Entry, Error, Kind, Result, Store};

/// One image in `manifest.json` (Docker image specification 1.2, "Combined Image JSON + Filesystem
/// Changeset Format").
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ArchivedImage<'a> {
    config: String,
    repo_tags: &'a [String],
    layers: Vec<String>,
}

impl Store {
    /// Writes an image with its names, such as `debian:bookworm-slim`.
    pub fn write_docker_archive(&self, image: &Digest, names: &[String], out: &mut dyn Write) -> Result<()> {
        let config = self.image(image)?;
        let mut layers = config.rootfs.diff_ids.clone();
        let manifest = [ArchivedImage {
            config: blob_name(image),
            repo_tags: names,
            layers: layers.iter().map(|layer| blob_name(&layer.0)).collect(),
        }];
        layers.sort_unstable();
        layers.dedup();
        for layer in &layers {
            self.write_layer_entry(layer, out)?;
        }
        // As stored, not as serialised again: the digest names these bytes.
        write_entry(out, &blob_name(image), &self.blob(image)?)?;
        let manifest = serde_json::to_vec(&manifest).expect("plain data");
        write_entry(out, "manifest.json", &manifest)?;
        let mut end = Vec::new();
        header::append_end(&mut end);
        out.write_all(&end).map_err(cannot_write)
    }

    /// Length of the layer's archive, bytes.
    fn layer_tar_bytes(&self, layer: &DiffId) -> Result<u64> {
        let mut counted = Counted { out: &mut io::sink(), bytes: 0 };
        self.write_layer_tar(layer, &mut counted)?;
        Ok(counted.bytes)
    }

    fn write_layer_entry(&self, layer: &DiffId, out: &mut dyn Write) -> Result<()> {
        let bytes = self.layer_tar_bytes(layer)?;
        write_header(out, &blob_name(&layer.0), bytes)?;
        let mut counted = Counted { out, bytes: 0 };
        self.write_layer_tar(layer, &mut counted)?;
        if counted.bytes != bytes {
            return Err(Error::Damaged {
                path: self.layer_folder(layer),
                reason: format!("its archive has {} bytes instead of {bytes}", counted.bytes),
            });
        }
        write_padding(out, bytes)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
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
