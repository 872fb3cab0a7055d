//! An archive of images as it comes, read once from its start to its end: so it can be a pipe, and nothing of it is kept
//! but its documents and its unpacked layers.
//!
//! Which of its entries are layers, and of which image, is only said by a document that may come last. So whatever looks
//! like a layer (a tar archive, perhaps compressed) is unpacked into a draft, and what fails is an error only once an
//! image needs it. Untrusted: no entry is ever written under its own name, and documents have a limit.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use ibid_core::digest::{DiffId, Digest, Hasher};

use crate::compress::{self, decompressed};
use crate::header::BLOCK_BYTES;
use crate::tar_stream::{TarStream, TarType, check_sum};
use crate::{Error, Result, Store, UnpackedLayer};

/// Most bytes of all documents and names, which are kept in memory. Real ones take some hundred kilobytes.
const DOCUMENTS_BYTES_MAX: usize = 64 << 20;
/// Most layers that wait for the end of the archive: each holds an open file.
const LAYERS_MAX: usize = 512;
/// Links from name to name that are followed.
const LINKS_MAX: usize = 8;

/// What an archive held.
#[derive(Debug, Default)]
pub(crate) struct ImageArchive {
    documents: BTreeMap<String, Vec<u8>>,
    layers: BTreeMap<String, ArchivedLayer>,
    links: BTreeMap<String, String>,
}

/// An entry that looked like a layer.
#[derive(Debug)]
pub(crate) struct ArchivedLayer {
    /// The digest of its bytes as they stood in the archive.
    pub(crate) digest: Digest,
    pub(crate) content: Result<LayerContent>,
}

/// A layer of an archive.
#[derive(Debug)]
pub(crate) enum LayerContent {
    /// The store has it already.
    Present(DiffId),
    Unpacked(UnpackedLayer),
}

impl LayerContent {
    pub(crate) fn diff_id(&self) -> DiffId {
        match self {
            Self::Present(diff_id) => *diff_id,
            Self::Unpacked(unpacked) => unpacked.diff_id(),
        }
    }
}

impl ImageArchive {
    /// Reads all of it. It may be compressed as a whole.
    pub(crate) fn read(store: &Store, from: impl Read) -> Result<Self> {
        let mut stream = TarStream::new(decompressed(from)?);
        let mut archive = Self::default();
        let mut bytes_left = DOCUMENTS_BYTES_MAX;
        while let Some(header) = stream.next()? {
            let name = normal("", &String::from_utf8_lossy(&header.name));
            let mut keep = |bytes: usize| match bytes_left.checked_sub(bytes + 64) {
                Some(left) => {
                    bytes_left = left;
                    Ok(())
                }
                None => {
                    let reason = format!("does not fit: documents may take {DOCUMENTS_BYTES_MAX} bytes");
                    Err(Error::InvalidImage { name: name.clone(), reason })
                }
            };
            keep(name.len())?;
            match header.file_type {
                TarType::File if header.sparse.is_none() => {}
                TarType::HardLink | TarType::Symlink => {
                    let target = String::from_utf8_lossy(&header.link);
                    let folder = match header.file_type {
                        TarType::Symlink => name.rsplit_once('/').map_or("", |(folder, _)| folder),
                        _ => "",
                    };
                    let target = normal(folder, &target);
                    keep(target.len())?;
                    archive.forget(&name);
                    archive.links.insert(name, target);
                    continue;
                }
                _ => continue,
            }
            let mut entry = Entry { stream: &mut stream, hasher: Hasher::default(), failure: None };
            let mut head = Vec::with_capacity(BLOCK_BYTES);
            let read = (&mut entry).take(BLOCK_BYTES as u64).read_to_end(&mut head);
            entry.check(read)?;
            archive.forget(&name);
            if looks_like_a_layer(&head) {
                if archive.layers.len() == LAYERS_MAX {
                    let reason = format!("the archive has more than {LAYERS_MAX} layers");
                    return Err(Error::InvalidImage { name, reason });
                }
                let layer = entry.layer(store, &name, head)?;
                archive.layers.insert(name, layer);
            } else {
                keep(usize::try_from(header.content_bytes).unwrap_or(usize::MAX - 64))?;
                let read = entry.read_to_end(&mut head);
                entry.check(read)?;
                archive.documents.insert(name, head);
            }
        }
        stream.finish()?;
        Ok(archive)
    }

    /// A document by its name in the archive.
    pub(crate) fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(self.resolve(name)?).map(Vec::as_slice)
    }

    /// A layer by its name in the archive. Taken out of it; what stands under other names leads to the same entry.
    pub(crate) fn layer(&mut self, name: &str) -> Option<&mut ArchivedLayer> {
        let name = self.resolve(name)?.to_owned();
        self.layers.get_mut(&name)
    }

    /// As in any archive, the last entry of a name counts.
    fn forget(&mut self, name: &str) {
        self.documents.remove(name);
        self.layers.remove(name);
        self.links.remove(name);
    }

    fn resolve<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut name = name;
        for _ in 0..LINKS_MAX {
            match self.links.get(name) {
                Some(target) => name = target,
                None => return Some(name),
            }
        }
        None
    }
}

/// The content of an entry, hashed as it is read.
struct Entry<'a, R> {
    stream: &'a mut TarStream<R>,
    hasher: Hasher,
    /// Why the archive itself could not be read on.
    failure: Option<Error>,
}

impl<R: Read> Entry<'_, R> {
    /// The archive's own failure, if that is why something was not read.
    fn check<T>(&mut self, read: io::Result<T>) -> Result<T> {
        match (self.failure.take(), read) {
            (Some(failure), _) => Err(failure),
            (None, read) => read.map_err(|source| Error::Stream { action: "read", source }),
        }
    }

    fn layer(mut self, store: &Store, name: &str, head: Vec<u8>) -> Result<ArchivedLayer> {
        let known = diff_id_of_name(name).filter(|diff_id| store.has_layer(diff_id));
        let content = match known {
            Some(diff_id) => Ok(LayerContent::Present(diff_id)),
            None => {
                let bytes = Cursor::new(head).chain(&mut self);
                let unpacked = decompressed(bytes).and_then(|tar| store.unpack_layer(tar));
                if let Some(failure) = self.failure.take() {
                    return Err(failure);
                }
                match unpacked {
                    Ok(unpacked) => Ok(LayerContent::Unpacked(unpacked)),
                    // It is the store that failed, and would again.
                    Err(error @ Error::Io { .. }) => return Err(error),
                    Err(error) => Err(error),
                }
            }
        };
        let rest = io::copy(&mut self, &mut io::sink());
        self.check(rest)?;
        let digest = self.hasher.finish();
        let content = match content {
            Ok(LayerContent::Present(diff_id)) if diff_id.0 != digest => {
                let reason = format!("has the digest {digest}");
                Err(Error::InvalidImage { name: name.to_owned(), reason })
            }
            content => content,
        };
        Ok(ArchivedLayer { digest, content })
    }
}

impl<R: Read> Read for Entry<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.some_content(buffer) {
            Ok(count) => {
                self.hasher.update(&buffer[..count]);
                Ok(count)
            }
            Err(error) => {
                self.failure = Some(error);
                Err(io::Error::other("the archive cannot be read on"))
            }
        }
    }
}

/// The layer that an entry must be, when its name says so: `blobs/sha256/<hex>`, or `<hex>.tar` as podman writes it. The
/// name of a compressed one is that of no layer.
fn diff_id_of_name(name: &str) -> Option<DiffId> {
    let hex = name.strip_prefix("blobs/sha256/").or_else(|| name.strip_suffix(".tar"))?;
    Digest::from_hex(hex).ok().map(DiffId)
}

/// A tar archive or something compressed. Anything else is a document.
fn looks_like_a_layer(head: &[u8]) -> bool {
    let is_tar = <&[u8; BLOCK_BYTES]>::try_from(head)
        .is_ok_and(|block| *block == [0; BLOCK_BYTES] || check_sum(block).is_ok());
    is_tar || compress::looks_compressed(head)
}

/// A name without `.`, `..` and empty parts, as it is meant in a folder of the archive.
fn normal(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
