//! A folder of blobs as the OCI image specification lays it out (image-layout.md):
//!
//! ```text
//! oci-layout              the version of the layout
//! index.json              descriptors of manifests
//! blobs/sha256/<hex>      everything else, by digest
//! ```
//!
//! Untrusted: it may come from anywhere, and others may write to it. Nothing of it is believed but by its digest, and no
//! name in it leads anywhere else. What is written is complete before it has its name, and named before anything
//! refers to it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use ibid_core::digest::{Digest, Hasher};
use ibid_core::manifest::Descriptor;
use serde_json::{Value, json};

use crate::{Error, Result};

const VERSION: &str = "1.0.0";
/// The media type of an index.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Most bytes of a file that is read at once: of an index, a manifest or a configuration.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// A folder in the OCI image layout.
#[derive(Debug)]
pub struct OciFolder {
    root: PathBuf,
}

impl OciFolder {
    /// Opens one that is there.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join("oci-layout");
        let text = read_document(&path)?;
        let layout: Value = serde_json::from_slice(&text).map_err(|error| damaged(&path, &error))?;
        match layout["imageLayoutVersion"].as_str() {
            Some(VERSION) => Ok(Self { root: root.to_owned() }),
            found => Err(Error::Damaged {
                path,
                reason: format!("it says the version {}, not {VERSION}", found.unwrap_or("none")),
            }),
        }
    }

    /// Opens one, or makes it in a folder that is missing or empty.
    pub fn open_or_make(root: &Path) -> Result<Self> {
        match Self::open(root) {
            Err(Error::Io { ref source, .. }) if source.kind() == ErrorKind::NotFound => {}
            result => return result,
        }
        let blobs = root.join("blobs/sha256");
        let is_empty = match fs::read_dir(root) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if !is_empty {
            let reason = "it is no folder in the OCI image layout, and not empty".to_owned();
            return Err(Error::Damaged { path: root.to_owned(), reason });
        }
        fs::create_dir_all(&blobs).map_err(Error::io("make the folder", &blobs))?;
        let folder = Self { root: root.to_owned() };
        folder.put_index(&[])?;
        folder.replace("oci-layout", layout_document().to_string().as_bytes())?;
        Ok(folder)
    }

    /// The descriptors of its index, with all that they hold.
    pub fn index(&self) -> Result<Vec<Value>> {
        let path = self.root.join("index.json");
        let text = match read_document(&path) {
            Err(Error::Io { ref source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            text => text?,
        };
        let mut index: Value = serde_json::from_slice(&text).map_err(|error| damaged(&path, &error))?;
        match index["manifests"].take() {
            Value::Array(manifests) => Ok(manifests),
            _ => Err(damaged(&path, &"it lists no manifests")),
        }
    }

    /// Replaces the index.
    pub fn put_index(&self, manifests: &[Value]) -> Result<()> {
        self.replace("index.json", index_document(manifests).to_string().as_bytes())
    }

    /// Whether the blob is there and is what it should be.
    pub fn has_blob(&self, descriptor: &Descriptor) -> bool {
        self.read_blob(descriptor, |_| Ok(())).is_ok()
    }

    /// Reads a small blob whole, and checks it.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let path = self.blob_path(&descriptor.digest);
        let bytes = read_document(&path)?;
        match Digest::of(&bytes) {
            found if found == descriptor.digest => Ok(bytes),
            found => Err(damaged(&path, &format!("its content has the digest {found}"))),
        }
    }

    /// Gives a blob to `read`, and checks it when that has read it to its end. What `read` made of a blob that is damaged
    /// must not be used.
    pub fn read_blob<T>(
        &self,
        descriptor: &Descriptor,
        read: impl FnOnce(&mut dyn BufRead) -> Result<T>,
    ) -> Result<T> {
        let path = self.blob_path(&descriptor.digest);
        let file = open_file(&path)?;
        let size = file.metadata().map_err(Error::io("look at", &path))?.len();
        if size != descriptor.size {
            return Err(damaged(&path, &format!("it has {size} bytes instead of {}", descriptor.size)));
        }
        let mut hashed = Hashed { file, hasher: Hasher::default() };
        let result = read(&mut BufReader::with_capacity(256 << 10, &mut hashed));
        io::copy(&mut hashed, &mut io::sink()).map_err(Error::io("read", &path))?;
        match hashed.hasher.finish() {
            found if found == descriptor.digest => result,
            found => Err(damaged(&path, &format!("its content has the digest {found}"))),
        }
    }

    /// Keeps bytes as a blob.
    pub fn put_blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        self.write_blob(media_type, |out| {
            out.write_all(bytes).map_err(|source| Error::Stream { action: "write", source })?;
            Ok((Digest::of(bytes), bytes.len() as u64))
        })
    }

    /// Keeps what `write` writes as a blob; it says with which digest and size.
    pub fn write_blob(
        &self,
        media_type: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<(Digest, u64)>,
    ) -> Result<Descriptor> {
        let folder = self.root.join("blobs/sha256");
        let mut digest_and_size = None;
        let part = self.write_part(&folder, |out| {
            digest_and_size = Some(write(out)?);
            Ok(())
        })?;
        let (digest, size) = digest_and_size.expect("what was written well has a digest");
        part.rename(&self.blob_path(&digest))?;
        Ok(Descriptor { media_type: media_type.to_owned(), digest, size, artifact_type: None })
    }

    /// Removes a blob that nothing refers to.
    pub fn remove_blob(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let part = self.write_part(&self.root, |out| {
            out.write_all(bytes).map_err(|source| Error::Stream { action: "write", source })
        })?;
        part.rename(&self.root.join(name))
    }

    /// A file under another name until it is whole.
    fn write_part(&self, folder: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Part> {
        let path = folder.join(format!(".part-{}-{}", std::process::id(), crate::staging::random_name()));
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let part = Part(Some(path));
        let mut out = BufWriter::with_capacity(1 << 20, &file);
        write(&mut out)?;
        let shown = part.0.as_deref().unwrap_or(folder);
        out.flush().map_err(Error::io("write", shown))?;
        file.sync_all().map_err(Error::io("sync", shown))?;
        Ok(part)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
}

/// What `oci-layout` says.
pub(crate) fn layout_document() -> Value {
    json!({ "imageLayoutVersion": VERSION })
}

/// What `index.json` says.
pub(crate) fn index_document(manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

/// A file in the making; removed when it is dropped.
struct Part(Option<PathBuf>);

impl Part {
    fn rename(mut self, to: &Path) -> Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        fs::rename(path, to).map_err(Error::io("rename a file to", to))?;
        self.0 = None;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It is useless, and its removal a courtesy.
            let _ = fs::remove_file(path);
        }
    }
}

struct Hashed {
    file: File,
    hasher: Hasher,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// A regular file, through no link: a pipe would be waited for, and a link leads elsewhere.
fn open_file(path: &Path) -> Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?.into();
    let is_file = file.metadata().map_err(Error::io("look at", path))?.is_file();
    if is_file { Ok(file) } else { Err(damaged(path, &"it is no file")) }
}

fn read_document(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(damaged(path, &format!("it is larger than {DOCUMENT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn damaged(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Damaged { path: path.to_owned(), reason: reason.to_string() }
}
