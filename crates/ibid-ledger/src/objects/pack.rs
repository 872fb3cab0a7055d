//! Many small contents in one file, as making a file for each costs more than all the rest.
//!
//! ```text
//! "ibid-pack\x01" | stored contents | index | start of the index:u64 | "ibid-pack\x01"
//! index: records sorted by digest: digest:32, start:u64, length:u64
//! ```
//! Little endian. The file is named for the SHA-256 of its index.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;

use crate::ledger::{Error, io};

pub(super) const FOLDER: &str = "packs";
const SUFFIX: &str = ".pack";
const MAGIC: &[u8; 10] = b"ibid-pack\x01";
const RECORD_BYTES: usize = 48;
const END_BYTES: u64 = 18;

/// A pack, and what it holds.
#[derive(Debug)]
pub(super) struct Pack {
    path: PathBuf,
    file: File,
    index: Vec<u8>,
}

/// The packs of a folder.
pub(super) fn all(folder: &Path) -> Result<Vec<Pack>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("read", folder)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io("read", folder))?;
        if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    let packs = paths.into_iter().filter_map(|path| match Pack::open(path) {
        // Removed since its name was read: what was needed of it is in another one.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        // What it held is missing then, and said to be where it is asked for.
        Err(Error::Damaged { .. }) => None,
        result => Some(result),
    });
    packs.collect()
}

impl Pack {
    fn open(path: PathBuf) -> Result<Self, Error> {
        let file = File::open(&path).map_err(io("read", &path))?;
        let length = file.metadata().map_err(io("read", &path))?.len();
        let damaged = || Error::Damaged { path: path.clone(), reason: "it is not whole".to_owned() };
        let mut end = [0; END_BYTES as usize];
        let index_end = length.checked_sub(END_BYTES).ok_or_else(damaged)?;
        file.read_exact_at(&mut end, index_end).map_err(io("read", &path))?;
        let (start, magic) = end.split_at(8);
        let start = u64::from_le_bytes(start.try_into().expect("eight bytes"));
        let bytes = index_end.checked_sub(start).and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.filter(|bytes| magic == MAGIC && bytes % RECORD_BYTES == 0).ok_or_else(damaged)?;
        let mut index = vec![0; bytes];
        file.read_exact_at(&mut index, start).map_err(io("read", &path))?;
        if Path::new(&name(&index)) != Path::new(path.file_name().unwrap_or_default()) {
            return Err(damaged());
        }
        Ok(Self { path, file, index })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The digests of what it holds.
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        let digest = |record: &[u8]| Digest::from_bytes(record[..32].try_into().expect("32 bytes"));
        self.index.chunks_exact(RECORD_BYTES).map(digest)
    }

    /// Where a content is, and how long.
    pub(super) fn find(&self, digest: &Digest) -> Option<(u64, u64)> {
        let (records, _) = self.index.as_chunks::<RECORD_BYTES>();
        let at = records.binary_search_by(|record| record[..32].cmp(digest.as_bytes())).ok()?;
        let number =
            |from: usize| u64::from_le_bytes(records[at][from..from + 8].try_into().expect("eight bytes"));
        Some((number(32), number(40)))
    }

    /// A content as it is stored; none when it is not here.
    pub(super) fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let Some((start, length)) = self.find(digest) else { return Ok(None) };
        // The index was checked against the pack's name, but the file may have been cut.
        let mut stored = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        match self.file.read_exact_at(&mut stored, start) {
            Ok(()) => Ok(Some(stored)),
            Err(error) => Err(Error::DamagedObject {
                digest: *digest,
                path: self.path.clone(),
                reason: error.to_string(),
            }),
        }
    }
}

fn name(index: &[u8]) -> String {
    format!("{}{SUFFIX}", Digest::of(index).hex())
}

/// A pack that is being written.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    to: BufWriter<File>,
    at: u64,
    records: Vec<(Digest, u64, u64)>,
}

impl Draft {
    pub(super) fn new(path: PathBuf, file: File) -> Result<Self, Error> {
        let mut to = BufWriter::with_capacity(super::BUFFER_BYTES, file);
        to.write_all(MAGIC).map_err(io("write", &path))?;
        Ok(Self { path, to, at: MAGIC.len() as u64, records: Vec::new() })
    }

    /// Adds a content that the pack does not have yet.
    pub(super) fn add(&mut self, digest: Digest, stored: &[u8]) -> Result<(), Error> {
        self.to.write_all(stored).map_err(io("write", &self.path))?;
        self.records.push((digest, self.at, stored.len() as u64));
        self.at += stored.len() as u64;
        Ok(())
    }

    /// Writes the index; gives the name that the draft is to have.
    pub(super) fn finish(&mut self) -> Result<String, Error> {
        self.records.sort_unstable();
        let mut index = Vec::with_capacity(self.records.len() * RECORD_BYTES);
        for (digest, start, length) in &self.records {
            index.extend(digest.as_bytes());
            index.extend(start.to_le_bytes());
            index.extend(length.to_le_bytes());
        }
        let end = [&self.at.to_le_bytes()[..], MAGIC].concat();
        self.to
            .write_all(&index)
            .and_then(|()| self.to.write_all(&end))
            .and_then(|()| self.to.flush())
            .map_err(io("write", &self.path))?;
        Ok(name(&index))
    }

    /// Where it is until it has its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// What was not given its name is of no use to anybody.
impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
