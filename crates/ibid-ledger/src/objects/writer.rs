//! Storing contents.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use ibid_core::digest::{Digest, Hasher};
use ibid_files::stat_cache::StatCache;

use super::pack::{self, Draft};
use super::pending::{self, Found};
use super::{BUFFER_BYTES, Objects, PLAIN, Pending, ZSTD};
use crate::ledger::{Error, io};
use crate::run_id::RunId;

/// Up to this many bytes a content is small: it is read into memory, and many small ones go into one file.
pub(crate) const SMALL_BYTES: u64 = 1024 * 1024;
/// From this many contents on, making a file for each costs more than making a pack.
const PACKED_MIN: usize = 100;
/// The level that costs about as much as hashing.
const LEVEL: i32 = 1;

/// Stores contents of one ledger. Others may store at the same time; nobody removes any.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    objects: &'a Objects,
    _lock: Option<File>,
    interrupted: Vec<PathBuf>,
    pending: OnceLock<Pending>,
    /// Makes one mark, however many threads store.
    beginning: Mutex<()>,
    pack: Mutex<Option<Packing>>,
    /// Tells it from all others, in other processes and on other machines.
    name: RunId,
    drafts: AtomicU64,
}

/// How the name of what is not whole yet starts.
pub(super) const DRAFT: &str = "draft-";

#[derive(Debug)]
struct Packing {
    draft: Draft,
    has: HashSet<Digest>,
}

impl Objects {
    /// Begins to store.
    pub(crate) fn writer(&self) -> Result<Writer<'_>, Error> {
        let lock = self.lock(false)?;
        let interrupted = match pending::found(self)? {
            Found::Nothing => Vec::new(),
            Found::Interrupted(marks) => marks,
        };
        Ok(Writer {
            objects: self,
            _lock: lock,
            interrupted,
            pending: OnceLock::new(),
            beginning: Mutex::new(()),
            pack: Mutex::new(None),
            name: RunId::random().map_err(io("name a file in", &self.folder))?,
            drafts: AtomicU64::new(0),
        })
    }
}

impl Writer<'_> {
    /// False after a power cut, or when removing was interrupted: then a folder that is there may lack what it refers to.
    pub(crate) fn is_trusted(&self) -> bool {
        self.interrupted.is_empty()
    }

    /// Everything was looked at: from now on what is there is complete.
    pub(crate) fn trust(&self) {
        for mark in &self.interrupted {
            // Who else looked at everything has removed it.
            let _ = fs::remove_file(mark);
        }
    }

    /// Says that `count` small contents are coming, which may be worth a pack.
    pub(crate) fn expect(&self, count: usize) -> Result<(), Error> {
        if count < PACKED_MIN {
            return Ok(());
        }
        self.begin()?;
        let (path, file) = self.draft()?;
        let packing = Packing { draft: Draft::new(path, file)?, has: HashSet::new() };
        *self.pack.lock().unwrap_or_else(PoisonError::into_inner) = Some(packing);
        Ok(())
    }

    /// Whether a content is there and, when nothing is trusted, is what it should be.
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool, Error> {
        if let Some(packing) = &*self.pack.lock().unwrap_or_else(PoisonError::into_inner)
            && packing.has.contains(digest)
        {
            return Ok(true);
        }
        if !self.objects.has(digest)? {
            return Ok(false);
        }
        if self.is_trusted() {
            return Ok(true);
        }
        match self.objects.copy(digest, &mut io::sink()) {
            Ok(_) => Ok(true),
            Err(Error::DamagedObject { .. } | Error::MissingObject { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores `content`, whose digest is given, unless it is there.
    pub(crate) fn put(&self, digest: &Digest, content: &[u8]) -> Result<(), Error> {
        if self.has(digest)? {
            return Ok(());
        }
        self.begin()?;
        let stored = encode(content);
        let mut pack = self.pack.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packing) = &mut *pack
            && content.len() as u64 <= SMALL_BYTES
        {
            if packing.has.insert(*digest) {
                packing.draft.add(*digest, &stored)?;
            }
            return Ok(());
        }
        drop(pack);
        let (draft, mut file) = self.draft()?;
        let written = file.write_all(&stored).map_err(io("write", &draft));
        drop(file);
        self.publish(&draft, written, &self.objects.path(digest))
    }

    /// Stores what is read from `from`, however large, and gives its digest and size.
    pub(crate) fn put_stream(&self, from: &mut impl Read) -> Result<Result<(Digest, u64), io::Error>, Error> {
        self.begin()?;
        let (draft, file) = self.draft()?;
        let streamed = stream(from, file).map_err(|error| match error {
            Streaming::Source(error) => Ok(error),
            Streaming::Target(error) => Err(io("write", &draft)(error)),
        });
        match streamed {
            Ok((digest, bytes)) if !self.has(&digest)? => {
                self.publish(&draft, Ok(()), &self.objects.path(&digest))?;
                Ok(Ok((digest, bytes)))
            }
            result => {
                let _ = fs::remove_file(&draft);
                match result {
                    Ok(known) => Ok(Ok(known)),
                    Err(Ok(source)) => Ok(Err(source)),
                    Err(Err(error)) => Err(error),
                }
            }
        }
    }

    /// Writes what is known of files. Where that fails, the next snapshot reads more; nothing worse.
    pub(crate) fn save_cache(&self, cache: &mut StatCache, file: &Path) {
        if cache.save(file).is_ok_and(|saved| saved) {
            let _ = self.objects.own(file);
        }
    }

    /// Ends the storing. What was packed is there from now on.
    pub(crate) fn finish(self) -> Result<Pending, Error> {
        let packing = self.pack.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut packing) = packing.filter(|packing| !packing.has.is_empty()) {
            let folder = self.objects.folder.join(pack::FOLDER);
            self.objects.make_folder(&folder)?;
            let path = folder.join(packing.draft.finish()?);
            fs::rename(packing.draft.path(), &path).map_err(io("write", &path))?;
            if let Some(pending) = self.pending.get() {
                pending.add(path);
            }
        }
        Ok(self.pending.into_inner().unwrap_or_default())
    }

    fn begin(&self) -> Result<(), Error> {
        if self.pending.get().is_some() {
            return Ok(());
        }
        let _one = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.pending.get().is_none() {
            let pending = Pending::begin(self.objects)?;
            self.pending.get_or_init(|| pending);
        }
        Ok(())
    }

    fn draft(&self) -> Result<(PathBuf, File), Error> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let path = self.objects.folder.join(format!("{DRAFT}{}-{number}", self.name));
        let open = || fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o444).open(&path);
        let file = open().map_err(io("make", &path))?;
        self.objects.own(&path)?;
        Ok((path, file))
    }

    /// Gives a draft its name, or removes it.
    fn publish(&self, draft: &Path, written: Result<(), Error>, path: &Path) -> Result<(), Error> {
        let result = written.and_then(|()| match fs::rename(draft, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.objects.make_folder(path.parent().expect("a content is in a folder"))?;
                fs::rename(draft, path).map_err(io("write", path))
            }
            result => result.map_err(io("write", path)),
        });
        match &result {
            Ok(()) => {
                if let Some(pending) = self.pending.get() {
                    pending.add(path.to_owned());
                }
            }
            Err(_) => _ = fs::remove_file(draft),
        }
        result
    }
}

thread_local! {
    static COMPRESSOR: std::cell::RefCell<Option<zstd::bulk::Compressor<'static>>> =
        const { std::cell::RefCell::new(None) };
}

/// A content as it is stored.
fn encode(content: &[u8]) -> Vec<u8> {
    let compressed = COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        compressor.as_mut().and_then(|compressor| compressor.compress(content).ok())
    });
    match compressed {
        Some(compressed) if compressed.len() < content.len() => [&[ZSTD], compressed.as_slice()].concat(),
        _ => [&[PLAIN], content].concat(),
    }
}

enum Streaming {
    Source(io::Error),
    Target(io::Error),
}

fn stream(from: &mut impl Read, mut to: File) -> Result<(Digest, u64), Streaming> {
    to.write_all(&[ZSTD]).map_err(Streaming::Target)?;
    let mut encoder = zstd::stream::write::Encoder::new(to, LEVEL).map_err(Streaming::Target)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut hasher = Hasher::default();
    let mut bytes = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => {
                hasher.update(&buffer[..got]);
                bytes += got as u64;
                encoder.write_all(&buffer[..got]).map_err(Streaming::Target)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Streaming::Source(error)),
        }
    }
    encoder.finish().map_err(Streaming::Target)?;
    Ok((hasher.finish(), bytes))
}
