//! What files held when they were last read, so that only what has changed is read.
//!
//! ```text
//! magic:10 bytes | count:u64 | records, sorted by path | BLAKE3 of all before
//! record: path length:u32, path, size:u64, modified:i64, changed:i64, inode:u64, device:u64, digest:32 bytes
//! ```
//! Little endian. A file that is missing, cut short, damaged or of another version is an empty cache. It is
//! replaced as a whole by a rename: of two processes that write, the last one's stays.
//!
//! A file is taken for unchanged when size, both times, inode and device are the same. That misses a write
//! which left the time of change as it was, as one within the same tick of the clock does; so what was
//! read too soon after its last change is not remembered ([`is_settled`]).

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::stamp::{STAMP_BYTES, Stamp};

/// The SHA-256 digests of files by path. Of one folder.
#[derive(Debug, Default)]
pub struct StatCache {
    bytes: Vec<u8>,
    /// Sorted by path. As read from the file.
    known: Vec<Record>,
    /// Which of them were asked for.
    used: Vec<bool>,
    /// Learnt since, in any order.
    learnt: Vec<(Box<[u8]>, Stamp, [u8; 32])>,
}

/// Where a record's path is. Its stamp and digest follow it.
type Record = Range<usize>;

/// How a cache starts: what its digests are, and the version of the format.
const MAGIC: &[u8; 10] = b"ibid-sha2\x01";

const HASH_BYTES: usize = 32;

/// Records of files that no build asks for any more are kept up to this number more than of those that are
/// asked for: another Dockerfile in the same folder may ask for them.
const UNUSED_MAX: usize = 10_000;

impl StatCache {
    /// Reads a cache; what is none is an empty one.
    pub fn load(file: &Path) -> Self {
        fs::read(file).ok().and_then(Self::decode).unwrap_or_default()
    }

    fn decode(bytes: Vec<u8>) -> Option<Self> {
        let body_end = bytes.len().checked_sub(HASH_BYTES)?;
        if !bytes.starts_with(MAGIC) || blake3::hash(&bytes[..body_end]).as_bytes() != &bytes[body_end..] {
            return None;
        }
        let mut at = MAGIC.len();
        let mut take = |length: usize| {
            let range = at..at.checked_add(length).filter(|end| *end <= body_end)?;
            at = range.end;
            Some(range)
        };
        let count = u64::from_le_bytes(bytes[take(8)?].try_into().ok()?);
        let mut known: Vec<Record> = Vec::with_capacity(usize::try_from(count).ok()?.min(bytes.len() / 80));
        for _ in 0..count {
            let length = u32::from_le_bytes(bytes[take(4)?].try_into().ok()?);
            let path = take(usize::try_from(length).ok()?)?;
            take(STAMP_BYTES + HASH_BYTES)?;
            if known.last().is_some_and(|last| bytes[last.clone()] >= bytes[path.clone()]) {
                return None;
            }
            known.push(path);
        }
        let used = vec![false; known.len()];
        Some(Self { bytes, known, used, learnt: Vec::new() })
    }

    /// The hash of a file with this stamp. `cursor` is where to look first: that of the last look-up, as
    /// paths are mostly asked for in order.
    pub fn look_up(&mut self, cursor: &mut usize, path: &[u8], stamp: Stamp) -> Option<[u8; 32]> {
        let path_of = |record: &Record| &self.bytes[record.clone()];
        if self.known.get(*cursor).is_none_or(|record| path_of(record) != path) {
            *cursor = self.known.binary_search_by(|record| path_of(record).cmp(path)).ok()?;
        }
        let at = *cursor;
        *cursor += 1;
        self.used[at] = true;
        let (known, hash) = self.facts(&self.known[at]);
        (known == stamp).then_some(hash)
    }

    /// What is recorded of a file.
    fn facts(&self, record: &Record) -> (Stamp, [u8; 32]) {
        let (stamp, hash) = self.bytes[record.end..][..STAMP_BYTES + HASH_BYTES].split_at(STAMP_BYTES);
        (Stamp::from_bytes(stamp.try_into().expect("so long")), hash.try_into().expect("so long"))
    }

    /// Remembers what a file holds. Only for one that [`is_settled`].
    pub fn learn(&mut self, path: &[u8], stamp: Stamp, hash: [u8; 32]) {
        self.learnt.push((path.into(), stamp, hash));
    }

    /// Writes the cache if something was learnt, and says whether it did.
    pub fn save(&mut self, file: &Path) -> io::Result<bool> {
        if self.learnt.is_empty() {
            return Ok(false);
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut draft = tempfile::NamedTempFile::new_in(folder)?;
        draft.write_all(&self.encode())?;
        draft.persist(file).map_err(|error| error.error)?;
        self.learnt.clear();
        Ok(true)
    }

    fn encode(&mut self) -> Vec<u8> {
        self.learnt.sort_by(|a, b| a.0.cmp(&b.0));
        self.learnt.dedup_by(|a, b| a.0 == b.0);
        let used = self.used.iter().filter(|used| **used).count();
        let keep_unused = self.known.len() - used <= used + UNUSED_MAX;
        let mut body = Vec::with_capacity(self.bytes.len() + self.learnt.len() * 160 + 64);
        body.extend(MAGIC);
        body.extend(0u64.to_le_bytes());
        let mut count = 0u64;
        let mut add = |path: &[u8], stamp: &Stamp, hash: &[u8; 32]| {
            let Ok(length) = u32::try_from(path.len()) else { return };
            body.extend(length.to_le_bytes());
            body.extend(path);
            body.extend(stamp.to_bytes());
            body.extend(hash);
            count += 1;
        };
        let mut learnt = self.learnt.iter().peekable();
        for (record, _) in self.known.iter().zip(&self.used).filter(|(_, used)| **used || keep_unused) {
            let path = &self.bytes[record.clone()];
            while let Some((new, stamp, hash)) = learnt.next_if(|(new, ..)| **new < *path) {
                add(new, stamp, hash);
            }
            match learnt.next_if(|(new, ..)| **new == *path) {
                Some((new, stamp, hash)) => add(new, stamp, hash),
                None => {
                    let (stamp, hash) = self.facts(record);
                    add(path, &stamp, &hash);
                }
            }
        }
        for (new, stamp, hash) in learnt {
            add(new, stamp, hash);
        }
        body[MAGIC.len()..MAGIC.len() + 8].copy_from_slice(&count.to_le_bytes());
        let hash = blake3::hash(&body);
        body.extend(hash.as_bytes());
        body
    }
}

/// How a file system keeps time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// This kernel's, in its own ticks.
    Local {
        /// The file system for which that is known.
        device: u64,
    },
    /// Unknown: another computer's perhaps, in steps of up to two seconds.
    Other,
}

const TICK_NS: i64 = 50_000_000;
const UNKNOWN_STEP_NS: i64 = 3_000_000_000;

pub(crate) const OVERLAY: i64 = 0x794c_7630;

/// The number of a file system that keeps this kernel's time; none for others.
pub(crate) fn file_system(folder: impl AsFd) -> Option<i64> {
    const EXT4: i64 = 0xef53;
    const XFS: i64 = 0x5846_5342;
    const BTRFS: i64 = 0x9123_683e;
    const TMPFS: i64 = 0x0102_1994;
    const F2FS: i64 = 0xf2f5_2010;
    const ZFS: i64 = 0x2fc1_2fc1;
    #[allow(clippy::unnecessary_cast, reason = "the field type differs between architectures")]
    let kind = rustix::fs::fstatfs(folder).map(|system| system.f_type as i64);
    kind.ok().filter(|kind| matches!(*kind, EXT4 | XFS | BTRFS | TMPFS | OVERLAY | F2FS | ZFS))
}

impl Clock {
    /// That of the file system of an open folder.
    pub fn of(folder: impl AsFd) -> Self {
        match (file_system(&folder), rustix::fs::fstat(&folder)) {
            (Some(_), Ok(stat)) => Self::Local { device: stat.st_dev },
            _ => Self::Other,
        }
    }
}

/// Whether a file with this stamp, read from the moment `read_ns` on, would show any later change in its
/// stamp.
pub fn is_settled(clock: Clock, stamp: &Stamp, read_ns: i64) -> bool {
    let step = match clock {
        // File systems made with small inodes count whole seconds.
        Clock::Local { device } if stamp.device == device && stamp.changed_ns % 1_000_000_000 != 0 => TICK_NS,
        _ => UNKNOWN_STEP_NS,
    };
    let before = read_ns.saturating_sub(step);
    let after = read_ns.saturating_add(step);
    // A modification time far ahead was set on purpose and says nothing about when.
    stamp.changed_ns < before && !(before..after).contains(&stamp.modified_ns)
}

/// The present time, as stamps have it.
pub fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
