//! Contents by digest: the files and folders of snapshots, and what else of a run is kept as it was.
//!
//! ```text
//! objects/ab/cdef…          one content; its name is the SHA-256 of what was stored
//! objects/packs/<hex>.pack  many small ones that came at once (see `pack`)
//! objects/pending/<hex>     somebody is storing, or was when the power went (see `pending`)
//! objects/draft-…           not whole yet
//! objects/lock              shared by those who store, alone for who removes
//! ```
//! A content is stored as one byte, 0 for as it is and 1 for Zstandard, and what follows. It appears whole, by a rename, and
//! never changes. Whatever a folder refers to is there before the folder itself, so a folder that is there is complete.

mod pack;
mod pending;
mod removal;
mod writer;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ibid_core::digest::{Digest, Hasher};
use rustix::fs::FlockOperation;

use crate::ledger::{self, Error, Ledger, io};
use pack::Pack;
pub(crate) use pending::Pending;
pub use removal::Removed;
pub(crate) use writer::{SMALL_BYTES, Writer};

/// What the first byte of a stored content says.
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

const BUFFER_BYTES: usize = 256 * 1024;

/// The contents of one ledger.
#[derive(Debug)]
pub(crate) struct Objects {
    folder: PathBuf,
    /// Whose everything made here shall be, where that is not this process.
    owner: Option<ibid_sys::owner::Owner>,
    /// Read on first use.
    packs: OnceLock<Vec<Pack>>,
}

impl Objects {
    /// Those of `ledger`. Nothing is made or looked at.
    pub(crate) fn of(ledger: &Ledger) -> Self {
        let project = ledger.folder().parent().unwrap_or(Path::new("/"));
        // What root does in somebody's project stays theirs.
        let owner = match fs::metadata(project) {
            Ok(status) if rustix::process::geteuid().is_root() && status.uid() != 0 => {
                Some((status.uid(), status.gid()))
            }
            _ => None,
        };
        Self { folder: ledger.folder().join("objects"), owner, packs: OnceLock::new() }
    }

    /// Whether a content is there.
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let path = self.path(digest);
        match rustix::fs::lstat(&path) {
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(io("look at", &path)(errno.into())),
        }
        Ok(self.packs()?.iter().any(|pack| pack.find(digest).is_some()))
    }

    /// The whole of a content, as it was stored.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        self.copy(digest, &mut content)?;
        Ok(content)
    }

    /// Writes a content to `to`. After an error, part of it may have been written.
    pub(crate) fn copy(&self, digest: &Digest, to: &mut impl Write) -> Result<u64, Error> {
        let (path, mut content) = self.open(digest)?;
        let mut hashed = Hashed { to, hasher: Hasher::default(), bytes: 0, refused: None };
        let copied = io::copy(&mut content, &mut hashed);
        match (copied, hashed.refused) {
            (_, Some(refused)) => Err(io("write a copy of", &path)(refused)),
            (Err(error), None) => Err(damaged(digest, &path, error.to_string())),
            (Ok(_), None) if hashed.hasher.finish() != *digest => {
                Err(damaged(digest, &path, "its content is not what its name says".to_owned()))
            }
            (Ok(_), None) => Ok(hashed.bytes),
        }
    }

    /// Whether a content starts so. What is damaged starts with nothing.
    pub(crate) fn starts_with(&self, digest: &Digest, start: &[u8]) -> Result<bool, Error> {
        match self.open(digest) {
            Ok((_, content)) => {
                let mut read = Vec::new();
                let length = content.take(start.len() as u64).read_to_end(&mut read);
                Ok(length.is_ok() && read == start)
            }
            Err(Error::DamagedObject { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The file that holds a content, and the content, not verified.
    fn open(&self, digest: &Digest) -> Result<(PathBuf, Box<dyn Read>), Error> {
        let path = self.path(digest);
        let (path, mut stored): (PathBuf, Box<dyn Read>) = match File::open(&path) {
            Ok(file) => (path, Box::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut found = None;
                for pack in self.packs()? {
                    if let Some(stored) = pack.read(digest)? {
                        found = Some((pack.path().to_owned(), Box::new(io::Cursor::new(stored))));
                        break;
                    }
                }
                let missing = || Error::MissingObject { digest: *digest, folder: self.folder.clone() };
                let (path, stored) = found.ok_or_else(missing)?;
                (path, stored)
            }
            Err(error) => return Err(io("read", &path)(error)),
        };
        let mut encoding = [0];
        stored.read_exact(&mut encoding).map_err(|error| damaged(digest, &path, error.to_string()))?;
        let content: Box<dyn Read> = match encoding[0] {
            PLAIN => stored,
            ZSTD => match zstd::stream::read::Decoder::new(stored) {
                Ok(content) => Box::new(content),
                Err(error) => return Err(damaged(digest, &path, error.to_string())),
            },
            other => return Err(damaged(digest, &path, format!("unknown encoding {other}"))),
        };
        Ok((path, content))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let (start, rest) = hex.split_at(2);
        self.folder.join(start).join(rest)
    }

    fn packs(&self) -> Result<&[Pack], Error> {
        if let Some(packs) = self.packs.get() {
            return Ok(packs);
        }
        let packs = pack::all(&self.folder.join(pack::FOLDER))?;
        Ok(self.packs.get_or_init(|| packs))
    }

    /// Makes a folder in the ledger, and those above it.
    fn make_folder(&self, folder: &Path) -> Result<(), Error> {
        match fs::create_dir(folder) {
            Ok(()) => self.own(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_folder(folder.parent().expect("a folder of the ledger has one above it"))?;
                self.make_folder(folder)
            }
            Err(error) => Err(io("make the folder", folder)(error)),
        }
    }

    /// Gives what was just made to the project's owner.
    fn own(&self, path: &Path) -> Result<(), Error> {
        let Some(owner) = self.owner else { return Ok(()) };
        ibid_sys::owner::change_path(path, owner)
            .map_err(|errno| io("give to the project's owner", path)(errno.into()))
    }

    /// Keeps others from removing contents, or with `alone` from storing them, until the file is dropped. None where the file
    /// system has no locks.
    fn lock(&self, alone: bool) -> Result<Option<File>, Error> {
        self.make_folder(&self.folder)?;
        self.refuse_links()?;
        let path = self.folder.join("lock");
        let is_new = !path.exists();
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o644)
            .open(&path)
            .map_err(io("open", &path))?;
        if is_new {
            self.own(&path)?;
        }
        let operation = if alone { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Some(file)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOLCK | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => {
                    return Ok(None);
                }
                Err(errno) => return Err(io("lock", &path)(errno.into())),
            }
        }
    }
}

fn damaged(digest: &Digest, path: &Path, reason: String) -> Error {
    Error::DamagedObject { digest: *digest, path: path.to_owned(), reason }
}

impl Objects {
    /// Root writes and gives away nothing where a link in somebody's project leads. One's own links are one's own business: the
    /// contents may be on a larger disk.
    fn refuse_links(&self) -> Result<(), Error> {
        if self.owner.is_none() {
            return Ok(());
        }
        ledger::refuse_links(self.folder.ancestors().take(2))
    }
}

/// Hashes what it passes on, and tells a refusal of the other end from a failure of the source.
struct Hashed<'a, W> {
    to: &'a mut W,
    hasher: Hasher,
    bytes: u64,
    refused: Option<io::Error>,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.to.write_all(bytes) {
            self.refused = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
