//! Archives that `ADD` unpacks. Untrusted: they go through the store's import, which refuses what climbs out,
//! and are copied into the image from there.

use std::io::{self, BufReader, Read};
use std::path::PathBuf;

use ibid_store::{ImportedArchive, Store};

use crate::context::{self, ContentReader, Context, Entry};

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
    /// The context refused.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// It is damaged or hostile.
    #[error("cannot unpack the archive {}", path.display())]
    Unpack {
        /// The archive.
        path: PathBuf,
        /// What the store says about it.
        source: Box<ibid_store::Error>,
    },
}

/// Most memory that unpacking may take; archives made with the highest level of each program need less.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Tells whether a file is a tar archive, by its content alone, as Docker does. None for anything else: it is
/// copied as it is.
pub(crate) fn detect(from: &Context, entry: &Entry) -> Result<Option<Compression>, Error> {
    let read = |source| Error::Read { path: from.path_of(entry), source };
    let mut head = Vec::new();
    from.read_file(entry)?.take(6).read_to_end(&mut head).map_err(read)?;
    let compression = match &head[..] {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0x00] => Compression::Xz,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    };
    let mut block = Vec::new();
    let mut file = from.read_file(entry)?;
    match decompress(&mut file, compression).and_then(|file| file.take(512).read_to_end(&mut block)) {
        Ok(_) => Ok(is_tar_header(&block).then_some(compression)),
        Err(error) if wants_memory(&error) => Err(read(error)),
        // A stream that cannot be decompressed is no archive.
        Err(_) => Ok(None),
    }
}

/// Unpacks an archive into a layer of the store.
pub(crate) fn import(
    store: &Store,
    from: &Context,
    entry: &Entry,
    compression: Compression,
) -> Result<ImportedArchive, Error> {
    let mut file = from.read_file(entry)?;
    let imported = decompress(&mut file, compression)
        .map_err(|source| Error::Read { path: from.path_of(entry), source })
        .and_then(|tar| {
            store
                .import_archive(tar)
                .map_err(|source| Error::Unpack { path: from.path_of(entry), source: Box::new(source) })
        });
    // When it has changed, that is why it could not be unpacked, or why what was unpacked is of no use.
    file.finish()?;
    imported
}

fn decompress<'a>(file: &'a mut ContentReader, compression: Compression) -> io::Result<Box<dyn Read + 'a>> {
    let file = BufReader::with_capacity(256 << 10, file);
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(MEMORY_BYTES_MAX, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(file, stream))
        }
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(file)?;
            decoder.window_log_max(MEMORY_BYTES_MAX.ilog2())?;
            Box::new(decoder)
        }
    })
}

/// Whether decompressing failed for want of memory: more than it may take.
fn wants_memory(error: &io::Error) -> bool {
    let of_xz = error.get_ref().and_then(|source| source.downcast_ref::<liblzma::stream::Error>());
    // The other library has only words for it.
    matches!(of_xz, Some(liblzma::stream::Error::MemLimit | liblzma::stream::Error::Mem))
        || error.to_string().contains("too much memory")
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
