//! Compressing layers for export. The only place that does, for the bytes are part of what is promised: the same layer
//! has the same compressed digest on any machine and with any later ibid. Golden digests in the tests hold it to that.
//!
//! A layer's archive is cut into pieces of a fixed size, each compressed by itself: a frame of zstd (RFC 8878, section 3)
//! or a member of gzip (RFC 1952, section 2.2). Readers take several as one. So the number of threads changes nothing
//! but the time, and memory does not depend on the layer's size.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use ibid_core::digest::{DiffId, Digest, Hasher};

use crate::{Error, Result, Store};

/// Bytes of an archive that are compressed together. Part of the format.
const PIECE_BYTES: usize = 4 << 20;
/// Levels of compression. Part of the format.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: i32 = 4;
/// Bytes that are read at once of what is decompressed.
const READ_BYTES: usize = 256 << 10;
/// More threads than this wait for the disk, and take memory.
const THREADS_MAX: usize = 8;
/// Most memory that the other side may ask for while its layers are decompressed: a power of two.
const WINDOW_LOG_MAX: u32 = 27;

/// How an exported layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// RFC 1952: what every engine reads.
    Gzip,
    /// RFC 8878: smaller, and made and read faster.
    #[default]
    Zstd,
}

impl Compression {
    /// The media type of a layer that is compressed so (OCI image specification, layer.md).
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// The compression of a layer of that media type; none for others.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        [Self::Gzip, Self::Zstd].into_iter().find(|compression| compression.media_type() == media_type)
    }

    fn piece(self, piece: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                // A whole piece at once: half the time of zlib's way for as many bytes.
                let level = libdeflater::CompressionLvl::new(GZIP_LEVEL).expect("a level that it has");
                let mut compressor = libdeflater::Compressor::new(level);
                let mut member = vec![0; compressor.gzip_compress_bound(piece.len())];
                let bytes = compressor.gzip_compress(piece, &mut member).map_err(io::Error::other)?;
                member.truncate(bytes);
                member.shrink_to_fit();
                Ok(member)
            }
            Self::Zstd => zstd::bulk::compress(piece, ZSTD_LEVEL),
        }
    }
}

impl Store {
    /// Writes the layer's archive compressed: the same bytes each time. Returns their digest and how many there are.
    pub fn write_compressed_layer(
        &self,
        diff_id: &DiffId,
        compression: Compression,
        out: &mut dyn Write,
    ) -> Result<(Digest, u64)> {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
        compress(compression, threads, out, |to| self.write_layer_tar(diff_id, to))
    }

    /// Unpacks a compressed layer; see [`Store::import_layer`].
    pub fn import_compressed_layer(&self, compression: Compression, from: impl BufRead) -> Result<DiffId> {
        self.import_layer(decoder(compression, from)?)
    }

    /// Unpacks a layer that must be the one with this diff id; nothing of another is kept. How it is compressed shows in
    /// its first bytes, as in other engines: media types that say something else are met in the wild. All of `from` is
    /// read before the layer is visible, so a reader that fails at its end keeps it from being so.
    pub fn import_expected_layer(&self, expected: DiffId, from: impl Read) -> Result<()> {
        let layer = self.unpack_layer(decompressed(from)?)?;
        let found = layer.diff_id();
        if found != expected {
            return Err(Error::OtherLayer { expected, found });
        }
        layer.publish()
    }
}

fn decoder<'a>(compression: Compression, from: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    let cannot = |source| Error::Stream { action: "read", source };
    Ok(match compression {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(from).map_err(cannot)?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(cannot)?;
            Box::new(decoder)
        }
    })
}

/// The first bytes of what each program compresses.
const GZIP_START: &[u8] = &[0x1f, 0x8b];
const ZSTD_START: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ_START: &[u8] = b"\xfd7zXZ\0";
const BZIP2_START: &[u8] = b"BZh";

/// Whether something that starts so is compressed.
pub(crate) fn looks_compressed(start: &[u8]) -> bool {
    is_zstd(start) || [GZIP_START, XZ_START, BZIP2_START].iter().any(|magic| start.starts_with(magic))
}

/// A frame, or one of those that readers skip (RFC 8878).
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(ZSTD_START) || matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Decompresses what is compressed, as its first bytes say; anything else stays as it is.
pub(crate) fn decompressed<'a>(mut from: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(XZ_START.len());
    (&mut from)
        .take(XZ_START.len() as u64)
        .read_to_end(&mut start)
        .map_err(|source| Error::Stream { action: "read", source })?;
    let is = |magic: &[u8]| start.starts_with(magic);
    let compression = match () {
        () if is(GZIP_START) => Some(Compression::Gzip),
        () if is_zstd(&start) => Some(Compression::Zstd),
        () if is(XZ_START) => return Err(Error::UnknownCompression { program: "xz" }),
        () if is(BZIP2_START) => return Err(Error::UnknownCompression { program: "bzip2" }),
        () => None,
    };
    let whole = io::Cursor::new(start).chain(from);
    match compression {
        Some(compression) => decoder(compression, BufReader::with_capacity(READ_BYTES, whole)),
        None => Ok(Box::new(whole)),
    }
}

/// A piece to compress, and where the result goes.
type Job = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// Compresses what `produce` writes.
fn compress(
    compression: Compression,
    threads: usize,
    out: &mut dyn Write,
    produce: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<(Digest, u64)> {
    let (jobs, receiver) = sync_channel::<Job>(0);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(compression, &receiver));
        }
        // Ends before the threads do, who wait for its jobs.
        let mut pieces = Pieces {
            jobs,
            filling: Vec::new(),
            under_way: VecDeque::new(),
            under_way_max: threads,
            out,
            hasher: Hasher::default(),
            bytes: 0,
        };
        produce(&mut pieces)?;
        pieces.finish().map_err(|source| Error::Stream { action: "write", source })
    })
}

fn work(compression: Compression, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((piece, result)) = job else { return };
        // Nobody waits for it any more when another piece failed.
        let _ = result.send(compression.piece(&piece));
    }
}

/// Cuts what is written into pieces, and writes them compressed in their order.
struct Pieces<'a> {
    jobs: SyncSender<Job>,
    filling: Vec<u8>,
    /// Where the results of pieces come from, in their order.
    under_way: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    under_way_max: usize,
    out: &'a mut dyn Write,
    hasher: Hasher,
    bytes: u64,
}

impl Pieces<'_> {
    fn pass_on(&mut self) -> io::Result<()> {
        let gone = |_| io::Error::other("a thread that compresses has ended");
        if self.under_way.len() >= self.under_way_max {
            self.take_first()?;
        }
        let (sender, receiver) = sync_channel(1);
        self.jobs.send((std::mem::take(&mut self.filling), sender)).map_err(gone)?;
        self.under_way.push_back(receiver);
        Ok(())
    }

    fn take_first(&mut self) -> io::Result<()> {
        let Some(first) = self.under_way.pop_front() else { return Ok(()) };
        let compressed =
            first.recv().map_err(|_| io::Error::other("a thread that compresses has ended"))??;
        self.hasher.update(&compressed);
        self.bytes += compressed.len() as u64;
        self.out.write_all(&compressed)
    }

    fn finish(mut self) -> io::Result<(Digest, u64)> {
        if !self.filling.is_empty() {
            self.pass_on()?;
        }
        while !self.under_way.is_empty() {
            self.take_first()?;
        }
        self.out.flush()?;
        Ok((self.hasher.finish(), self.bytes))
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES - self.filling.len());
        self.filling.extend_from_slice(&bytes[..count]);
        if self.filling.len() == PIECE_BYTES {
            self.pass_on()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as files have them: words of a small vocabulary, numbers, and a part that is noise.
    fn content(bytes: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "import ",
            "numpy ",
            "def ",
            "return ",
            "self",
            ".",
            "(",
            ")\n",
            "    ",
            "=",
            " + ",
            "train",
            "epoch",
            "loss",
            "\0\0\0\0",
            "\u{7f}ELF",
        ];
        let mut content = Vec::with_capacity(bytes + 16);
        let mut state: u64 = 1;
        while content.len() < bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = (state >> 33) as usize;
            match random % 23 {
                0 => content.extend(state.to_le_bytes()),
                1..4 => content.extend((random >> 8).to_string().bytes()),
                _ => content.extend(WORDS[(random >> 8) % WORDS.len()].bytes()),
            }
        }
        content.truncate(bytes);
        content
    }

    fn compressed(
        compression: Compression,
        threads: usize,
        content: &[u8],
        step: usize,
    ) -> (Vec<u8>, Digest) {
        let mut out = Vec::new();
        let written = compress(compression, threads, &mut out, |to| {
            for part in content.chunks(step) {
                to.write_all(part).map_err(|source| Error::Stream { action: "write", source })?;
            }
            Ok(())
        });
        let (digest, bytes) = written.expect("compressed");
        assert_eq!((Digest::of(&out), out.len() as u64), (digest, bytes));
        (out, digest)
    }

    /// These digests are promised. When one changes, the cause is a new version of a library or a changed constant: then
    /// every exported layer gets another digest, and that version or change must not be taken.
    #[test]
    fn compressed_bytes_are_pinned() {
        let check = |bytes: usize, compression: Compression, expected: &str| {
            let (_, digest) = compressed(compression, 2, &content(bytes), 1 << 16);
            assert_eq!(digest.hex(), expected, "{compression:?} of {bytes} bytes");
        };
        check(1024, Compression::Gzip, "5be861d302464eaa12a1760c4cfd6c38adb671057e696162e8ac1c55aea80b05");
        check(
            10_000_000,
            Compression::Gzip,
            "e3bd936a1e033d3cb360f2ff2ea16555c9ddbdd243f31627bb88886a242812c3",
        );
        check(1024, Compression::Zstd, "021f96eeb5289c0cc56e023bc05bc2c28239f5e9603425237fcc5396543c9685");
        check(
            10_000_000,
            Compression::Zstd,
            "dd13c4be4d67c9678e0f5fc8fb1f8aa52be301b4bfd88a68cd5b7e270e77aa40",
        );
    }

    #[test]
    fn threads_and_the_size_of_writes_change_no_byte() {
        let content = content(3 * PIECE_BYTES + 12_345);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let (one, _) = compressed(compression, 1, &content, 1 << 20);
            for (threads, step) in [(2, 777), (7, PIECE_BYTES), (3, 2 * PIECE_BYTES + 1)] {
                assert!(
                    compressed(compression, threads, &content, step).0 == one,
                    "{compression:?} {threads} {step}"
                );
            }
            let mut back = Vec::new();
            match compression {
                Compression::Gzip => flate2::read::MultiGzDecoder::new(one.as_slice()).read_to_end(&mut back),
                Compression::Zstd => {
                    zstd::stream::read::Decoder::new(one.as_slice()).expect("zstd").read_to_end(&mut back)
                }
            }
            .expect("decompressed");
            assert!(back == content, "{compression:?}");
        }
    }

    #[test]
    fn a_full_disk_or_a_broken_layer_ends_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let produce = |to: &mut dyn Write| {
            to.write_all(&content(20 * PIECE_BYTES))
                .map_err(|source| Error::Stream { action: "write", source })
        };
        compress(Compression::Zstd, 2, &mut Full, produce).expect_err("the disk is full");
        let broken =
            |_: &mut dyn Write| Err(Error::Stream { action: "read", source: io::ErrorKind::Other.into() });
        compress(Compression::Gzip, 2, &mut Vec::new(), broken).expect_err("the layer is broken");
    }
}
