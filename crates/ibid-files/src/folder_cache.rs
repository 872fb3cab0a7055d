//! What folders held when they were last listed, and their files when they were last read, so that only what has changed is
//! listed and read again.
//!
//! ```text
//! magic:10 bytes | count:u64 | folders, sorted by path | BLAKE3 of all before
//! folder: path length:u32, path, listed:u8, stamp:40 bytes, names length:u64, names, sorted
//! name:   flags:u8, length:u16, name, and if its content is known: stamp:40 bytes, digest:32 bytes
//! ```
//! Little endian. A file that is missing, cut short, damaged or of another version is an empty cache. It is
//! replaced as a whole by a rename: of two processes that write, the last one's stays.
//!
//! A file is taken for unchanged as [`crate::stat_cache`] does. A folder is taken to have the same names when its own stamp is
//! the same: adding, removing and renaming an entry sets its time of change. Both are remembered only when they are settled
//! ([`is_settled`](crate::stat_cache::is_settled)), and names only where the file system keeps that promise ([`clock_of_names`]).
//! They are names and no more: what is there now has to be asked of each, and a name that is gone means that the promise was
//! broken. All names are kept, whatever rules drop them.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;

use crate::stamp::{STAMP_BYTES, Stamp};
use crate::stat_cache::{self, Clock};

/// What is known of one folder and those below it. Never changes; what is new is in [`Learnt`].
#[derive(Debug, Default)]
pub struct FolderCache {
    bytes: Vec<u8>,
    /// Sorted by path.
    folders: Vec<Known>,
}

/// A folder, by where its parts are.
#[derive(Debug)]
struct Known {
    path: Range<usize>,
    listed: Option<Stamp>,
    names: Range<usize>,
}

/// How a cache starts, with the version of the format.
const MAGIC: &[u8; 10] = b"ibid-fold\x01";

const HASH_BYTES: usize = 32;

/// Names of folders that no build asks for any more are kept up to this number more than of those that are
/// asked for: another Dockerfile in the same folder may ask for them.
const UNUSED_MAX: usize = 10_000;

/// With fewer names that are new, and no new content, writing the cache costs more than it saves.
const LISTED_MIN: usize = 1_000;

/// Flags of a name.
const MAY_BE_FOLDER: u8 = 1;
const HAS_CONTENT: u8 = 2;

/// What a process has learnt, to be saved.
#[derive(Debug, Default)]
pub struct Learnt {
    /// Known folders that were asked for.
    used: HashSet<usize>,
    listings: Vec<Listing>,
    files: Vec<(Box<[u8]>, Stamp, [u8; HASH_BYTES])>,
}

/// The names in a folder, sorted.
#[derive(Debug)]
pub struct Listing {
    folder: Box<[u8]>,
    stamp: Stamp,
    count: usize,
    names: Vec<u8>,
}

/// What is known of a folder.
#[derive(Debug, Clone, Copy)]
pub struct KnownFolder<'a> {
    /// By which [`Learnt::used`] knows it.
    pub number: usize,
    /// How it was when it was listed.
    listed: Option<Stamp>,
    names: &'a [u8],
}

/// Names of a folder, in their order.
#[derive(Debug, Clone)]
pub struct Names<'a> {
    rest: &'a [u8],
}

/// A name that a folder had.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    /// One component.
    pub name: &'a [u8],
    /// Whether it was a folder, or the file system did not tell.
    pub may_be_folder: bool,
    /// Stamp and digest.
    content: Option<&'a [u8]>,
}

/// The clock of an open folder's file system, where the stamp of a folder tells of every change of its names: not where another
/// computer or program answers, nor in an overlay, whose folders have the stamp of one of those that they are merged from.
pub fn clock_of_names(folder: impl AsFd) -> Option<Clock> {
    match stat_cache::file_system(&folder) {
        Some(stat_cache::OVERLAY) | None => None,
        Some(_) => Some(Clock::of(folder)).filter(|clock| matches!(clock, Clock::Local { .. })),
    }
}

impl FolderCache {
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
        let mut take = |length: u64| {
            let range = at..at.checked_add(usize::try_from(length).ok()?).filter(|end| *end <= body_end)?;
            at = range.end;
            Some(range)
        };
        let count = u64::from_le_bytes(bytes[take(8)?].try_into().ok()?);
        let mut folders: Vec<Known> = Vec::new();
        for _ in 0..count {
            let length = u32::from_le_bytes(bytes[take(4)?].try_into().ok()?);
            let path = take(length.into())?;
            let is_listed = bytes[take(1)?][0] != 0;
            let stamp = Stamp::from_bytes(bytes[take(STAMP_BYTES as u64)?].try_into().ok()?);
            let length = u64::from_le_bytes(bytes[take(8)?].try_into().ok()?);
            let names = take(length)?;
            if folders.last().is_some_and(|last| bytes[last.path.clone()] >= bytes[path.clone()]) {
                return None;
            }
            folders.push(Known { path, listed: is_listed.then_some(stamp), names });
        }
        Some(Self { bytes, folders })
    }

    /// What is known of a folder.
    pub fn folder(&self, path: &[u8]) -> Option<KnownFolder<'_>> {
        let number = self.folders.binary_search_by(|known| self.path(known).cmp(path)).ok()?;
        Some(self.known(number))
    }

    fn path(&self, known: &Known) -> &[u8] {
        &self.bytes[known.path.clone()]
    }

    fn known(&self, number: usize) -> KnownFolder<'_> {
        let known = &self.folders[number];
        KnownFolder { number, listed: known.listed, names: &self.bytes[known.names.clone()] }
    }

    /// Writes the cache, with what was learnt, if that is worth it, and says whether it did.
    pub fn save(&self, learnt: &mut Learnt, file: &Path) -> io::Result<bool> {
        if learnt.files.is_empty() && !self.is_worth(&learnt.listings) {
            return Ok(false);
        }
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut draft = tempfile::NamedTempFile::new_in(folder)?;
        draft.write_all(&self.encode(learnt))?;
        draft.persist(file).map_err(|error| error.error)?;
        Ok(true)
    }

    /// Whether names alone are reason to write all that is known.
    fn is_worth(&self, listings: &[Listing]) -> bool {
        let listed: usize = listings.iter().map(|listing| listing.count).sum();
        let known =
            || (0..self.folders.len()).map(|number| self.known(number).names().count()).sum::<usize>();
        listed >= LISTED_MIN && listed >= known() / 4
    }

    fn encode(&self, learnt: &mut Learnt) -> Vec<u8> {
        let Learnt { used, listings, files } = learnt;
        // The last of several stays.
        files.sort_by(|a, b| split(&a.0).cmp(&split(&b.0)));
        files.dedup_by(|later, earlier| later.0 == earlier.0 && replace(earlier, later));
        listings.sort_by(|a, b| a.folder.cmp(&b.folder));
        listings.dedup_by(|later, earlier| later.folder == earlier.folder && replace(earlier, later));
        let count = |number: usize| self.known(number).names().count();
        let all: usize = (0..self.folders.len()).map(count).sum();
        let used_names: usize = used.iter().copied().map(count).sum();
        let keep_unused = all - used_names <= used_names + UNUSED_MAX;
        let kept = self.folders.iter().enumerate().filter(|(number, _)| keep_unused || used.contains(number));
        let paths: BTreeSet<&[u8]> = kept
            .map(|(_, known)| self.path(known))
            .chain(listings.iter().map(|listing| &*listing.folder))
            .chain(files.iter().map(|(path, ..)| split(path).0))
            .collect();
        let mut body = Vec::with_capacity(self.bytes.len() + files.len() * 128 + 64);
        body.extend(MAGIC);
        body.extend((paths.len() as u64).to_le_bytes());
        let mut listings = listings.iter().peekable();
        let mut files = files.iter().peekable();
        for path in paths {
            let listing = listings.next_if(|listing| *listing.folder == *path);
            let known = self.folder(path);
            let mut contents = known.map(|known| known.names());
            let (mut listed, names) = match (listing, known) {
                (Some(listing), _) => (Some(listing.stamp), Names { rest: &listing.names }),
                (None, Some(known)) => (known.listed, known.names()),
                (None, None) => (None, Names { rest: &[] }),
            };
            // A file that was read, and comes before `limit` or has that name.
            let mut next_file = |limit: Option<&[u8]>| {
                let next = files.next_if(|(file, ..)| {
                    let (folder, name) = split(file);
                    folder == path && limit.is_none_or(|limit| name <= limit)
                });
                next.map(|(file, stamp, hash)| (split(file).1, (stamp, hash)))
            };
            let mut block = Vec::new();
            for name in names {
                let found = contents.as_mut().and_then(|contents| contents.find(name.name));
                let known = found.and_then(|found| found.content());
                let mut content = known.as_ref().map(|(stamp, hash)| (stamp, hash));
                while let Some((file, read)) = next_file(Some(name.name)) {
                    if file == name.name {
                        content = Some(read);
                    } else {
                        add(&mut block, file, false, Some(read));
                        // It came after the listing, which is no more that of the folder.
                        listed = None;
                    }
                }
                add(&mut block, name.name, name.may_be_folder, content);
            }
            while let Some((file, read)) = next_file(None) {
                add(&mut block, file, false, Some(read));
                listed = None;
            }
            body.extend((path.len() as u32).to_le_bytes());
            body.extend(path);
            body.push(listed.is_some().into());
            body.extend(listed.map_or([0; STAMP_BYTES], Stamp::to_bytes));
            body.extend((block.len() as u64).to_le_bytes());
            body.extend(block);
        }
        let hash = blake3::hash(&body);
        body.extend(hash.as_bytes());
        body
    }
}

/// Puts the later of two that are about the same in the place of the earlier one.
fn replace<T>(earlier: &mut T, later: &mut T) -> bool {
    std::mem::swap(earlier, later);
    true
}

/// The folder that holds a path, and its name there.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    }
}

fn add(to: &mut Vec<u8>, name: &[u8], may_be_folder: bool, content: Option<(&Stamp, &[u8; HASH_BYTES])>) {
    // No file system has names so long that this cuts them; one that is cut is not found, and the folder is read.
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let folder = if may_be_folder { MAY_BE_FOLDER } else { 0 };
    to.push(folder | if content.is_some() { HAS_CONTENT } else { 0 });
    to.extend(length.to_le_bytes());
    to.extend(&name[..usize::from(length)]);
    if let Some((stamp, hash)) = content {
        to.extend(stamp.to_bytes());
        to.extend(hash);
    }
}

impl<'a> KnownFolder<'a> {
    /// Whether a folder with this stamp has just the names that are known.
    pub fn has_names_of(&self, stamp: &Stamp) -> bool {
        self.listed.as_ref() == Some(stamp)
    }

    /// Its names.
    pub fn names(&self) -> Names<'a> {
        Names { rest: self.names }
    }
}

impl<'a> Names<'a> {
    /// The name, if it is among those that are left. Names are to be asked for in their order.
    pub fn find(&mut self, name: &[u8]) -> Option<Name<'a>> {
        loop {
            let mut after = self.clone();
            let next = after.next()?;
            if *next.name > *name {
                return None;
            }
            *self = after;
            if *next.name == *name {
                return Some(next);
            }
        }
    }

    /// Whether no byte is left that makes no name.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = Name<'a>;

    fn next(&mut self) -> Option<Name<'a>> {
        let (head, rest) = self.rest.split_at_checked(3)?;
        let length = u16::from_le_bytes([head[1], head[2]]);
        let (name, rest) = rest.split_at_checked(usize::from(length))?;
        let content_bytes = if head[0] & HAS_CONTENT == 0 { 0 } else { STAMP_BYTES + HASH_BYTES };
        let (content, rest) = rest.split_at_checked(content_bytes)?;
        self.rest = rest;
        let content = (content_bytes > 0).then_some(content);
        Some(Name { name, may_be_folder: head[0] & MAY_BE_FOLDER != 0, content })
    }
}

impl Name<'_> {
    /// The digest of the file with this name, if it has this stamp.
    pub fn content_of(&self, stamp: &Stamp) -> Option<[u8; HASH_BYTES]> {
        self.content().filter(|(known, _)| known == stamp).map(|(_, hash)| hash)
    }

    fn content(&self) -> Option<(Stamp, [u8; HASH_BYTES])> {
        let (stamp, hash) = self.content?.split_at_checked(STAMP_BYTES)?;
        Some((Stamp::from_bytes(stamp.try_into().ok()?), hash.try_into().ok()?))
    }
}

impl Learnt {
    /// Notes that a known folder was asked for.
    pub fn used(&mut self, number: usize) {
        self.used.insert(number);
    }

    /// Remembers a folder's names.
    pub fn listed(&mut self, listing: Listing) {
        self.listings.push(listing);
    }

    /// Remembers what a file holds. Only for one that [`is_settled`](crate::stat_cache::is_settled).
    pub fn read(&mut self, path: &[u8], stamp: Stamp, hash: [u8; HASH_BYTES]) {
        self.files.push((path.into(), stamp, hash));
    }
}

impl Listing {
    /// Of a folder that had this stamp before it was listed, and [`is_settled`](crate::stat_cache::is_settled). Without names yet.
    pub fn new(folder: &[u8], stamp: Stamp) -> Self {
        Self { folder: folder.into(), stamp, count: 0, names: Vec::new() }
    }

    /// Adds the next name in their order.
    pub fn add(&mut self, name: &[u8], may_be_folder: bool) {
        add(&mut self.names, name, may_be_folder, None);
        self.count += 1;
    }
}

/// Looks up files one by one.
#[derive(Debug)]
pub struct LookUps<'a> {
    cache: &'a FolderCache,
    /// The folder of the last one, what is left of its names, and its own.
    last: Option<(KnownFolder<'a>, &'a [u8], Names<'a>, Vec<u8>)>,
}

impl<'a> LookUps<'a> {
    /// Those of a cache. They are fast where files of one folder are asked for in the order of their names.
    pub fn of(cache: &'a FolderCache) -> Self {
        Self { cache, last: None }
    }

    /// The digest of the file at `path`, if it has this stamp.
    pub fn content(&mut self, path: &[u8], stamp: &Stamp, learnt: &mut Learnt) -> Option<[u8; HASH_BYTES]> {
        let (folder, name) = split(path);
        if self.last.as_ref().is_none_or(|(_, last, ..)| *last != folder) {
            let known = self.cache.folder(folder)?;
            learnt.used(known.number);
            self.last =
                Some((known, self.cache.path(&self.cache.folders[known.number]), known.names(), Vec::new()));
        }
        let (known, _, names, last) = self.last.as_mut()?;
        if *name <= **last {
            *names = known.names();
        }
        last.clear();
        last.extend(name);
        names.find(name)?.content_of(stamp)
    }
}

#[cfg(test)]
mod tests;
