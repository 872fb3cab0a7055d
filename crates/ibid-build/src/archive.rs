//! Archives that `ADD` unpacks. Untrusted: they go through the store's import, which refuses what climbs out,
//! and are copied into the image from there.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use ibid_core::digest::DiffId;
use ibid_store::Store;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Xz,
    Bzip2,
    Zstd,
}

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("cannot read the archive {}", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// It is damaged or hostile.
    #[error("cannot unpack the archive {}", path.display())]
    Unpack {
        /// The archive.
        path: PathBuf,
        /// What the store says about it.
        source: Box<ibid_store::Error>,
    },
}

/// Tells whether a file is a tar archive, by its content alone, as Docker does. None for anything else: it is
/// copied as it is.
pub(crate) fn detect(path: &Path) -> Result<Option<Compression>, Error> {
    let read = |error| Error::Read { path: path.to_owned(), source: error };
    let mut head = Vec::new();
    File::open(path).map_err(read)?.take(6).read_to_end(&mut head).map_err(read)?;
    let compression = match &head[..] {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0x00] => Compression::Xz,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    };
    let mut block = Vec::new();
    // A stream that cannot be decompressed is no archive.
    let is_tar = match open(path, compression)?.take(512).read_to_end(&mut block) {
        Ok(_) => is_tar_header(&block),
        Err(_) => false,
    };
    Ok(is_tar.then_some(compression))
}

/// Unpacks an archive into a layer of the store.
pub(crate) fn import(store: &Store, path: &Path, compression: Compression) -> Result<DiffId, Error> {
    store
        .import_layer(open(path, compression)?)
        .map_err(|source| Error::Unpack { path: path.to_owned(), source: Box::new(source) })
}

fn open(path: &Path, compression: Compression) -> Result<Box<dyn Read>, Error> {
    let read = |error| Error::Read { path: path.to_owned(), source: error };
    let file = BufReader::with_capacity(256 << 10, File::open(path).map_err(read)?);
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(file)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file).map_err(read)?),
    })
}

/// A tar header by its checksum, which holds for every dialect (POSIX.1-1988, "Header Block").
fn is_tar_header(block: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    if block.len() < 512 {
        return false;
    }
    let digits: String = block[CHECKSUM]
        .iter()
        .map(|&byte| char::from(byte))
        .skip_while(|c| *c == ' ')
        .take_while(|c| ('0'..='7').contains(c))
        .collect();
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(position, &byte)| if CHECKSUM.contains(&position) { u32::from(b' ') } else { u32::from(byte) })
        .sum();
    u32::from_str_radix(&digits, 8) == Ok(sum)
}
