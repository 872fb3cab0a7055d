//! Storing contents.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ibid_core::digest::{Digest, Hasher};
use ibid_files::stat_cache::StatCache;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::pack::{self, Draft, Pack};
use super::pending::{self, Found};
use super::{BUFFER_BYTES, Objects, PLAIN, Pending, ZSTD};
use crate::ledger::{Error, io};
use crate::run_id::RunId;

/// Up to this many bytes a content is small: it is read into memory, and many small ones go into one file.
pub(crate) const SMALL_BYTES: u64 = 1024 * 1024;
/// From this many contents on, making a file for each costs more than making a pack.
const PACKED_MIN: usize = 100;
/// So much of them is held in memory until it shows how many there are.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
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
    small: Mutex<Small>,
    /// Everything that is to be there was looked at.
    is_complete: AtomicBool,
    /// Tells it from all others, in other processes and on other machines.
    name: RunId,
    drafts: AtomicU64,
}

/// How the name of what is not whole yet starts.
pub(super) const DRAFT: &str = "draft-";

/// Small contents that are to be stored.
#[derive(Debug, Default)]
struct Small {
    has: HashSet<Digest>,
    /// As they are stored, in the order in which they came: what refers to others comes after them.
    held: Vec<(Digest, Vec<u8>)>,
    held_bytes: usize,
    /// Once there are many.
    pack: Option<Draft>,
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
            small: Mutex::default(),
            is_complete: AtomicBool::new(false),
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

    /// Says that everything was looked at: once the storing ends, what is there is complete.
    pub(crate) fn complete(&self) {
        self.is_complete.store(true, Ordering::Relaxed);
    }

    /// Keeps a content that is there from being removed for a while, as there is no record yet that names it.
    pub(crate) fn touch(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.objects.path(digest);
        let packs = self.objects.packs()?.iter().filter(|pack| pack.find(digest).is_some());
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        for path in packs.map(Pack::path).chain([path.as_path()]) {
            match rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
                // It is in one of these places.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(io("set the time of", path)(errno.into())),
            }
        }
        Ok(())
    }

    /// Whether a content is there and, when nothing is trusted, is what it should be.
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool, Error> {
        if self.small().has.contains(digest) {
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
        if content.len() as u64 > SMALL_BYTES {
            return self.put_stored(digest, &stored);
        }
        let mut small = self.small();
        if small.has.insert(*digest) {
            small.held_bytes += stored.len();
            small.held.push((*digest, stored));
        }
        if small.held.len() >= PACKED_MIN || small.held_bytes > HELD_BYTES_MAX {
            if small.pack.is_none() {
                let (path, file) = self.draft()?;
                small.pack = Some(Draft::new(path, file)?);
            }
            small.fill_pack()?;
        }
        Ok(())
    }

    /// Stores a content in a file of its own.
    fn put_stored(&self, digest: &Digest, stored: &[u8]) -> Result<(), Error> {
        let (draft, mut file) = self.draft()?;
        let written = file.write_all(stored).map_err(io("write", &draft));
        self.publish(&draft, written, &self.objects.path(digest))
    }

    fn small(&self) -> MutexGuard<'_, Small> {
        self.small.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Ends the storing. Small contents are there from now on.
    pub(crate) fn finish(self) -> Result<Pending, Error> {
        let mut small = std::mem::take(&mut *self.small());
        small.fill_pack()?;
        if let Some(mut pack) = small.pack {
            let folder = self.objects.folder.join(pack::FOLDER);
            self.objects.make_folder(&folder)?;
            let path = folder.join(pack.finish()?);
            fs::rename(pack.path(), &path).map_err(io("write", &path))?;
            if let Some(pending) = self.pending.get() {
                pending.add(path);
            }
        }
        for (digest, stored) in &small.held {
            self.put_stored(digest, stored)?;
        }
        if self.is_complete.into_inner() {
            for mark in &self.interrupted {
                // Who else looked at everything has removed it.
                let _ = fs::remove_file(mark);
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

impl Small {
    /// Moves what is held into the pack, if there is one.
    fn fill_pack(&mut self) -> Result<(), Error> {
        let Some(pack) = &mut self.pack else { return Ok(()) };
        self.held_bytes = 0;
        self.held.drain(..).try_for_each(|(digest, stored)| pack.add(digest, &stored))
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
