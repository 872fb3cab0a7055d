//! Which ledgers have runs of images in this store. The images that they need are no waste, with a tag or without.
//!
//! ```text
//! ledgers/<SHA-256 of the path>     the ledger's path, a NUL byte, then a line with the digest of each image
//! ```
//!
//! A run adds its image. Whoever collects waste asks the ledger itself and writes the list anew; where the ledger is not
//! there, perhaps because its disk is not, the list is what is known of it, for [`ABSENT_SECONDS`].

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ibid_core::digest::Digest;

use crate::staging::StagedFile;
use crate::{Error, Result, Store};

/// So long the images of a ledger that is not there are kept after it was last seen or used.
pub const ABSENT_SECONDS: i64 = 30 * 24 * 60 * 60;

/// What a ledger says when it is asked which images its runs need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerNeeds {
    /// These.
    Images(BTreeSet<Digest>),
    /// At least these: something in it cannot be read.
    AtLeast(BTreeSet<Digest>),
    /// There is no ledger at that path.
    Absent,
}

/// Asks the ledger at a path.
pub type AskLedger<'a> = &'a dyn Fn(&Path) -> LedgerNeeds;

impl Store {
    /// Notes that the ledger at an absolute path has a run of an image.
    pub fn use_in_ledger(&self, ledger: &Path, image: &Digest) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        let path = self.ledger_path(ledger);
        match read(&path)? {
            Some((_, images)) if images.contains(image) => Ok(()),
            Some(_) => {
                let appended = OpenOptions::new().append(true).open(&path);
                let line = format!("{image}\n");
                appended
                    .and_then(|mut file| file.write_all(line.as_bytes()))
                    .map_err(Error::io("write", &path))
            }
            None => self.put_ledger(ledger, &BTreeSet::from([*image])),
        }
    }

    /// The images that runs need.
    pub(crate) fn needed_by_ledgers(&self, ask: AskLedger, dry_run: bool) -> Result<BTreeSet<Digest>> {
        let mut needed = BTreeSet::new();
        let folder = self.root().join("ledgers");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(needed),
            Err(error) => return Err(Error::io("read", &folder)(error)),
        };
        for entry in entries {
            let path = entry.map_err(Error::io("read", &folder))?.path();
            let Some((ledger, listed)) = read(&path)? else { continue };
            let images = match ask(&ledger) {
                LedgerNeeds::Images(images) => images,
                LedgerNeeds::AtLeast(images) => images.union(&listed).copied().collect(),
                LedgerNeeds::Absent => {
                    let seen = fs::metadata(&path).map_err(Error::io("read", &path))?.mtime();
                    let now =
                        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs() as i64);
                    if now - seen <= ABSENT_SECONDS {
                        needed.extend(listed);
                    } else if !dry_run {
                        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                    }
                    continue;
                }
            };
            if !dry_run {
                // Also where it is the same: it was seen now.
                self.put_ledger(&ledger, &images)?;
            }
            needed.extend(images);
        }
        Ok(needed)
    }

    fn put_ledger(&self, ledger: &Path, images: &BTreeSet<Digest>) -> Result<()> {
        let folder = self.root().join("ledgers");
        fs::create_dir_all(&folder).map_err(Error::io("make the folder", &folder))?;
        let lines: String = images.iter().map(|image| format!("{image}\n")).collect();
        let mut file = StagedFile::new(&self.tmp())?;
        file.write(&[ledger.as_os_str().as_bytes(), b"\0", lines.as_bytes()].concat())?;
        file.publish(&self.ledger_path(ledger))
    }

    fn ledger_path(&self, ledger: &Path) -> PathBuf {
        self.root().join("ledgers").join(Digest::of(ledger.as_os_str().as_bytes()).hex())
    }
}

/// A ledger's path and its images. What is no digest is what a power cut left of one: the ledger knows better.
fn read(path: &Path) -> Result<Option<(PathBuf, BTreeSet<Digest>)>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let Some(end) = bytes.iter().position(|byte| *byte == 0) else { return Ok(None) };
    let lines = String::from_utf8_lossy(&bytes[end + 1..]);
    let images = lines.lines().filter_map(|line| line.parse().ok()).collect();
    Ok(Some((PathBuf::from(OsString::from_vec(bytes[..end].to_vec())), images)))
}
