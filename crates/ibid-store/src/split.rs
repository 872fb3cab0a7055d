//! An archive less the contents of its files, so that exactly the same archive can be put together again.
//!
//! Two archives with the same files can differ in order, padding, number forms and extensions; and a layer is named by the
//! digest of its archive. So an imported layer keeps, beside its tree,
//!
//! ```text
//! split       zstd of records:  1 <length: u32> <bytes>                            bytes of the archive
//!                               2 <content: u64> <offset: u64> <length: u64>       part of a content
//! contents    one line a content, the first is number 0:  `t <path in the tree>` or `s` for shadowed/<number>
//! ```
//!
//! with numbers in little-endian order and paths written as in a manifest. A content is shadowed when a later entry of
//! the archive took its path. Nothing else checks these files: the digest of what is put together does.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::layers::open_tree;
use crate::manifest_format::{Escaped, unescape};
use crate::pack::{Chunks, Failure, Files, in_chunks};
use crate::path::as_path;
use crate::{Error, Result};

const RAW: u8 = 1;
const CONTENT: u8 = 2;
const RECORD_BYTES_MAX: usize = 64 << 10;
/// The headers of a layer are much alike: the fastest level makes them a few per cent of their size.
const COMPRESSION_LEVEL: i32 = 1;

/// Where a content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this path of the tree.
    Tree(Vec<u8>),
    /// In the folder `shadowed`, by its number.
    Shadowed,
}

/// Writes a split while its archive is read.
pub(crate) struct SplitWriter {
    path: PathBuf,
    encoder: zstd::stream::write::Encoder<'static, File>,
    raw: Vec<u8>,
}

impl SplitWriter {
    /// Starts the split of the layer that is made in the folder `layer`.
    pub(crate) fn new(layer: &Path) -> Result<Self> {
        let path = layer.join("split");
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let encoder =
            zstd::stream::write::Encoder::new(file, COMPRESSION_LEVEL).map_err(Error::io("write", &path))?;
        Ok(Self { path, encoder, raw: Vec::new() })
    }

    /// Adds bytes of the archive.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.raw.extend_from_slice(bytes);
        if self.raw.len() >= RECORD_BYTES_MAX { self.pass_raw_on() } else { Ok(()) }
    }

    /// Adds part of a content.
    pub(crate) fn content(&mut self, content: usize, offset: u64, length: u64) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.pass_raw_on()?;
        let mut record = [CONTENT; 25];
        record[1..9].copy_from_slice(&(content as u64).to_le_bytes());
        record[9..17].copy_from_slice(&offset.to_le_bytes());
        record[17..].copy_from_slice(&length.to_le_bytes());
        self.encoder.write_all(&record).map_err(Error::io("write", &self.path))
    }

    /// Ends it, with where each content has come to lie.
    pub(crate) fn finish(mut self, layer: &Path, places: &[Place]) -> Result<()> {
        self.pass_raw_on()?;
        self.encoder.finish().map_err(Error::io("write", &self.path))?;
        let mut lines = String::new();
        for place in places {
            match place {
                Place::Tree(path) => lines.push_str(&format!("t {}\n", Escaped(path))),
                Place::Shadowed => lines.push_str("s\n"),
            }
        }
        let path = layer.join("contents");
        fs::write(&path, lines).map_err(Error::io("write", &path))
    }

    fn pass_raw_on(&mut self) -> Result<()> {
        for bytes in self.raw.chunks(RECORD_BYTES_MAX) {
            let mut record = [RAW; 5];
            record[1..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            self.encoder
                .write_all(&record)
                .and_then(|()| self.encoder.write_all(bytes))
                .map_err(Error::io("write", &self.path))?;
        }
        self.raw.clear();
        Ok(())
    }
}

/// Bytes of the archive of an imported layer. None when the layer has no split.
pub(crate) fn size(layer: &Path) -> Result<Option<u64>> {
    let Some((path, mut records)) = open_records(layer)? else { return Ok(None) };
    let mut bytes = 0_u64;
    while let Some(record) = next_record(&mut records, &path)? {
        match record {
            Record::Raw { length } => {
                bytes += length;
                let skipped = io::copy(&mut (&mut records).take(length), &mut io::sink());
                skipped.map_err(Error::io("read", &path))?;
            }
            Record::Content { length, .. } => bytes = bytes.saturating_add(length),
        }
    }
    Ok(Some(bytes))
}

/// Puts the archive of an imported layer together and gives it to `take`. False when the layer has no split.
pub(crate) fn join(layer: &Path, take: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
    let Some((path, records)) = open_records(layer)? else { return Ok(false) };
    let places = places(&layer.join("contents"))?;
    in_chunks(take, |chunks| {
        let mut join = Join { layer, path: &path, places: &places, opened: None };
        join.run(records, chunks)
    })?;
    Ok(true)
}

type Records = BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>;

/// A record; after [`Record::Raw`] follow its bytes.
enum Record {
    Raw { length: u64 },
    Content { content: u64, offset: u64, length: u64 },
}

fn open_records(layer: &Path) -> Result<Option<(PathBuf, Records)>> {
    let path = layer.join("split");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    let decoder = zstd::stream::read::Decoder::new(file).map_err(Error::io("read", &path))?;
    Ok(Some((path, BufReader::with_capacity(RECORD_BYTES_MAX, decoder))))
}

fn next_record(records: &mut Records, path: &Path) -> Result<Option<Record>> {
    let mut kind = [0];
    if records.read(&mut kind).map_err(Error::io("read", path))? == 0 {
        return Ok(None);
    }
    match kind[0] {
        RAW => {
            let mut length = [0; 4];
            records.read_exact(&mut length).map_err(Error::io("read", path))?;
            Ok(Some(Record::Raw { length: u32::from_le_bytes(length).into() }))
        }
        CONTENT => {
            let mut fields = [0; 24];
            records.read_exact(&mut fields).map_err(Error::io("read", path))?;
            let field = |index: usize| {
                let bytes = fields[8 * index..8 * index + 8].try_into();
                u64::from_le_bytes(bytes.expect("eight bytes were taken"))
            };
            Ok(Some(Record::Content { content: field(0), offset: field(1), length: field(2) }))
        }
        other => {
            let reason = format!("it has a record of kind {other}");
            Err(Error::Damaged { path: path.to_owned(), reason })
        }
    }
}

struct Join<'a> {
    layer: &'a Path,
    path: &'a Path,
    places: &'a [Place],
    /// The content read last: the pieces of a sparse file follow each other.
    opened: Option<(usize, PathBuf, File)>,
}

impl Join<'_> {
    fn run(&mut self, mut records: Records, chunks: &mut Chunks) -> Result<()> {
        let tree_path = self.layer.join("tree");
        let tree = open_tree(&tree_path)?;
        let mut files = Files::new(tree.as_fd(), &tree_path);
        while let Some(record) = next_record(&mut records, self.path)? {
            match record {
                Record::Raw { length } => self.append(chunks, &mut records, self.path, length)?,
                Record::Content { content, offset, length } => {
                    let (index, shown, mut file) = self.open(&mut files, content)?;
                    if offset != 0 || length != 0 {
                        file.seek(SeekFrom::Start(offset)).map_err(Error::io("read", &shown))?;
                    }
                    self.append(chunks, &mut file, &shown, length)?;
                    self.opened = Some((index, shown, file));
                }
            }
            chunks.pass_on_if_full()?;
        }
        Ok(())
    }

    fn append(&self, chunks: &mut Chunks, from: impl Read, shown: &Path, length: u64) -> Result<()> {
        let copied = chunks.append_from(from.take(length), length).map_err(|failure| match failure {
            Failure::Read(source) => Error::io("read", shown)(source),
            Failure::Gone => crate::pack::gone(),
        })?;
        if copied == length { Ok(()) } else { Err(Error::Changed { path: shown.to_owned() }) }
    }

    fn open(&mut self, files: &mut Files, content: u64) -> Result<(usize, PathBuf, File)> {
        let index = usize::try_from(content).ok().filter(|&index| index < self.places.len());
        let index = index.ok_or_else(|| self.damaged(format!("it names a content {content}")))?;
        if let Some(opened) = self.opened.take_if(|(last, ..)| *last == index) {
            return Ok(opened);
        }
        match &self.places[index] {
            Place::Tree(path) => {
                let shown = self.layer.join("tree").join(as_path(path));
                let file = files.open(path)?;
                Ok((index, shown, file))
            }
            Place::Shadowed => {
                let shown = self.layer.join("shadowed").join(index.to_string());
                let file = File::open(&shown).map_err(Error::io("open", &shown))?;
                Ok((index, shown, file))
            }
        }
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Damaged { path: self.path.to_owned(), reason }
    }
}

fn places(path: &Path) -> Result<Vec<Place>> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let place = |line: &str| match line.split_once(' ') {
        Some(("t", path)) => unescape(path).map(Place::Tree),
        None if line == "s" => Some(Place::Shadowed),
        _ => None,
    };
    let places = text.lines().map(|line| {
        place(line).ok_or_else(|| Error::Damaged {
            path: path.to_owned(),
            reason: format!("`{line}` is no place of a content"),
        })
    });
    places.collect()
}
