//! Listing a folder in parallel, without what the ignore rules drop.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use ibid_core::dockerignore::Verdict;
use ibid_core::run::LEDGER_FOLDER;
use ibid_files::beneath::open_beneath;
use ibid_files::folder_cache::{self, FolderCache, KnownFolder, Listing as RememberedNames};
use ibid_files::parallel;
use ibid_files::stamp::Stamp;
use ibid_files::stat_cache::{self, Clock};
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::entry::Content;
use super::names::{self, Buffer, Names};
use super::{Context, Entry, Error, Kind};

/// Everything in a context, kept and dropped.
#[derive(Debug)]
pub struct Listing {
    /// Sorted by path.
    pub found: Vec<Found>,
    /// Files kept, folders and links not counted.
    pub files_kept: usize,
    /// Their size.
    pub bytes_kept: u64,
    /// Paths dropped. A folder dropped whole counts once.
    pub paths_dropped: usize,
}

/// A path and why it is kept or dropped.
#[derive(Debug)]
pub struct Found {
    /// What is there.
    pub entry: Entry,
    /// True when builds see it. A folder is also kept for something below it.
    pub kept: bool,
    /// The line of the ignore file that decided; none when no rule matches.
    pub rule: Option<usize>,
}

/// What a folder and those below it hold that builds see, sorted by path.
#[derive(Debug)]
pub struct Entries {
    /// What each of the folders holds, where it was found: there are many, and moving them would cost as much as finding them.
    folders: Vec<Vec<Found>>,
    order: Vec<Position>,
}

/// Which of the folders an entry is in, and which of those there it is.
type Position = (u32, u32);

impl Entries {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The entry with a number below [`Entries::len`].
    pub fn get(&self, number: usize) -> &Entry {
        let (folder, place) = self.order[number];
        &self.folders[folder as usize][place as usize].entry
    }

    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        (0..self.len()).map(|number| self.get(number))
    }
}

/// The folders right below the root that are dropped whole.
pub(super) fn dropped_folders(context: &Context) -> Result<Vec<PathBuf>, Error> {
    const FOLDERS_MAX: usize = 200;
    let failed = |errno: Errno| error(context, "list the folder", b"", errno);
    let root = open_beneath(&context.root_fd, b"", OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    let mut buffer = names::buffer();
    let mut names = RawDir::new(&root, &mut buffer);
    let mut folders = Vec::new();
    while let Some(name) = names.next() {
        let name = name.map_err(failed)?;
        let path = name.file_name().to_bytes();
        let verdict = context.rules.rules.verdict(path);
        let is_dropped = verdict.ignored && !context.rules.rules.may_descend(verdict, path);
        if is_dropped && name.file_type() == FileType::Directory && folders.len() < FOLDERS_MAX {
            folders.push(PathBuf::from(OsStr::from_bytes(path)));
        }
    }
    folders.sort_unstable();
    Ok(folders)
}

/// Everything in the context.
pub(super) fn listing(context: &Context) -> Result<Listing, Error> {
    let Entries { folders, order } = below(context, b"", true)?;
    let mut folders: Vec<_> = folders.into_iter().map(Vec::into_iter).collect();
    let mut found: Vec<Found> =
        order.iter().filter_map(|(folder, _)| folders[*folder as usize].next()).collect();
    // Some rule may have brought something back in them, so they were looked into; it did not.
    let dropped: HashSet<Box<[u8]>> = found
        .iter()
        .filter(|found| !found.kept && found.entry.kind == Kind::Folder)
        .map(|found| found.entry.path_bytes().into())
        .collect();
    found.retain(|found| found.kept || !parents(found.entry.path_bytes()).any(|path| dropped.contains(path)));
    let kept_files =
        || found.iter().filter(|found| found.kept && matches!(found.entry.kind, Kind::File { .. }));
    Ok(Listing {
        files_kept: kept_files().count(),
        bytes_kept: kept_files().map(|found| found.entry.size()).sum(),
        paths_dropped: found.iter().filter(|found| !found.kept).count(),
        found,
    })
}

/// What is kept below a folder of the context; with what is dropped, if asked for.
pub(super) fn below(context: &Context, folder: &[u8], with_dropped: bool) -> Result<Entries, Error> {
    let memory = context.cache().map(|cache| Memory {
        cache,
        clock: folder_cache::clock_of_names(&context.root_fd),
        start_ns: (context.now_ns)(),
    });
    let lister = || Lister {
        context,
        with_dropped,
        memory: memory.as_ref(),
        buffer: names::buffer(),
        folders: Vec::new(),
        has_dropped: false,
        used: Vec::new(),
        listed: Vec::new(),
    };
    let first = (folder.to_vec(), context.rules.rules.verdict(folder));
    let listers = parallel::each(first, lister, |lister, (folder, verdict), subfolders| {
        lister.list(&folder, verdict, subfolders)
    })?;
    let has_dropped = listers.iter().any(|lister| lister.has_dropped);
    let mut folders = Vec::new();
    let mut learnt = context.learnt.lock().unwrap_or_else(PoisonError::into_inner);
    for lister in listers {
        folders.extend(lister.folders);
        lister.used.into_iter().for_each(|number| learnt.used(number));
        lister.listed.into_iter().for_each(|names| learnt.listed(names));
    }
    drop(learnt);
    let mut order = in_order(folder, &folders);
    let mut folders: Vec<Vec<Found>> = folders.into_iter().map(|(_, found)| found).collect();
    if has_dropped {
        keep_parents(&mut folders);
        order.retain(|(folder, place)| with_dropped || folders[*folder as usize][*place as usize].kept);
    }
    Ok(Entries { folders, order })
}

/// Where each entry of `folder` and below is, sorted by path; what each of the folders holds is sorted already.
fn in_order(folder: &[u8], folders: &[(Vec<u8>, Vec<Found>)]) -> Vec<Position> {
    let number = |number: usize| u32::try_from(number).expect("memory holds fewer entries");
    let numbers: HashMap<&[u8], usize> =
        folders.iter().enumerate().map(|(number, (path, _))| (path.as_slice(), number)).collect();
    let mut all = Vec::with_capacity(folders.iter().map(|(_, found)| found.len()).sum());
    // From the outermost folder to the one at hand: what is left of each, and those of its folders that come next. A path is
    // sorted as a text, so that `a-b` is between `a` and `a/b`.
    let begun = |folder: &[u8]| {
        let folder = *numbers.get(folder)?;
        Some((folder, folders[folder].1.iter().enumerate(), Vec::<&[u8]>::new()))
    };
    let mut levels: Vec<_> = begun(folder).into_iter().collect();
    while let Some((folder, left, waiting)) = levels.last_mut() {
        let is_next = |folder: &mut &[u8]| {
            let next = left.clone().next().map(|(_, found)| found.entry.path_bytes());
            next.is_none_or(|next| folder.iter().chain(b"/").lt(next.iter()))
        };
        if let Some(folder) = waiting.pop_if(is_next) {
            levels.extend(begun(folder));
        } else if let Some((place, found)) = left.next() {
            if found.entry.kind == Kind::Folder {
                waiting.push(found.entry.path_bytes());
            }
            all.push((number(*folder), number(place)));
        } else {
            levels.pop();
        }
    }
    all
}

/// Keeps the dropped folders that hold something kept.
fn keep_parents(folders: &mut [Vec<Found>]) {
    let is_dropped_folder = |found: &Found| !found.kept && found.entry.kind == Kind::Folder;
    let mut needed: HashSet<Box<[u8]>> = HashSet::new();
    for kept in folders.iter().flatten().filter(|found| found.kept) {
        for path in parents(kept.entry.path_bytes()) {
            if !needed.insert(path.into()) {
                break;
            }
        }
    }
    for folder in folders.iter_mut().flatten().filter(|found| is_dropped_folder(found)) {
        folder.kept = needed.contains(folder.entry.path_bytes());
    }
}

/// The folders that hold a path, the nearest first; the root is none of them.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(slash, _)| &path[..slash])
}

/// What is known from other builds, and how more of it is learnt.
struct Memory<'a> {
    cache: &'a FolderCache,
    /// That of the file system, if names may be remembered there.
    clock: Option<Clock>,
    /// When the walk began.
    start_ns: i64,
}

impl Memory<'_> {
    /// Whether a folder's stamp tells of every change of its names.
    fn vouches_for(&self, stamp: &Stamp) -> bool {
        matches!(self.clock, Some(Clock::Local { device }) if device == stamp.device)
    }
}

struct Lister<'a> {
    context: &'a Context,
    with_dropped: bool,
    memory: Option<&'a Memory<'a>>,
    buffer: Buffer,
    /// What folders hold, sorted.
    folders: Vec<(Vec<u8>, Vec<Found>)>,
    /// Whether the rules drop any of that.
    has_dropped: bool,
    /// The numbers of those that were known.
    used: Vec<usize>,
    /// The names of those that were read, to be remembered.
    listed: Vec<RememberedNames>,
}

/// A folder whose path and verdict are known.
type Subfolder = (Vec<u8>, Verdict);

impl Lister<'_> {
    /// Finds what `folder` holds, and adds those of its folders that are to be listed to `subfolders`.
    fn list(
        &mut self,
        folder: &[u8],
        verdict: Verdict,
        subfolders: &mut Vec<Subfolder>,
    ) -> Result<(), Error> {
        let failed = |errno: Errno| error(self.context, "list the folder", folder, errno);
        let fd = match open_beneath(&self.context.root_fd, folder, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            // Gone since its name was read, or dropped by the rules anyway.
            Err(Errno::NOENT) if !folder.is_empty() => return Ok(()),
            Err(Errno::ACCESS | Errno::PERM) if verdict.ignored => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        let known = self.memory.and_then(|memory| memory.cache.folder(folder));
        self.used.extend(known.map(|known| known.number));
        // Before its names are read: one that comes later makes another stamp.
        let stamp = match self.memory {
            Some(_) => Some(Stamp::of(&rustix::fs::fstat(&fd).map_err(failed)?)),
            None => None,
        };
        let vouched = stamp.filter(|stamp| self.memory.is_some_and(|memory| memory.vouches_for(stamp)));
        let before = subfolders.len();
        let remembered = known.filter(|known| vouched.is_some_and(|stamp| known.has_names_of(&stamp)));
        if let Some(names) = remembered.and_then(|known| Names::remembered(&known, folder))
            && let Some(found) = self.find(&fd, &names, verdict, known, true, subfolders)?
        {
            self.found(folder, found);
            return Ok(());
        }
        subfolders.truncate(before);
        let names = Names::read(&fd, folder, &mut self.buffer).map_err(failed)?;
        let found = self.find(&fd, &names, verdict, known, false, subfolders)?.unwrap_or_default();
        self.found(folder, found);
        if let (Some(memory), Some(stamp)) = (self.memory, vouched)
            && let Some(clock) = memory.clock
            && stat_cache::is_settled(clock, &stamp, memory.start_ns)
        {
            let mut listed = RememberedNames::new(folder, stamp);
            names.iter().for_each(|name| listed.add(name.bytes(), name.may_be_folder));
            self.listed.push(listed);
        }
        Ok(())
    }

    fn found(&mut self, folder: &[u8], found: Vec<Found>) {
        self.has_dropped |= found.iter().any(|found| !found.kept);
        self.folders.push((folder.to_vec(), found));
    }

    /// What has these names in a folder. Of names that are only remembered, none when one of them is gone.
    fn find(
        &self,
        fd: &OwnedFd,
        names: &Names,
        verdict: Verdict,
        known: Option<KnownFolder>,
        are_remembered: bool,
        subfolders: &mut Vec<Subfolder>,
    ) -> Result<Option<Vec<Found>>, Error> {
        let rules = &self.context.rules.rules;
        let mut contents = known.map(|known| known.names());
        let mut all = Vec::with_capacity(names.len());
        for name in names.iter() {
            // What is recorded of runs changes with each run, and is nobody's code.
            if name.may_be_folder && name.bytes() == LEDGER_FOLDER.as_bytes() && self.context.layers.is_none()
            {
                continue;
            }
            let path = name.path();
            let own = if rules.is_empty() { Verdict::default() } else { rules.verdict_below(verdict, path) };
            if own.ignored && !self.with_dropped && !(name.may_be_folder && rules.may_descend(own, path)) {
                continue;
            }
            let stat = match rustix::fs::statat(fd, name.for_system(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) if are_remembered => return Ok(None),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(error(self.context, "read the attributes of", path, errno)),
            };
            let Some(kind) = kind(self.context, fd, name.for_system(), path, &stat)? else { continue };
            if kind == Kind::Folder && rules.may_descend(own, path) {
                subfolders.push((path.to_vec(), own));
            }
            let stamp = Stamp::of(&stat);
            let entry = Entry::new(Arc::clone(name.paths), name.start..name.end, kind, stamp);
            if matches!(entry.kind, Kind::File { .. })
                && let Some(known) = contents.as_mut().and_then(|contents| contents.find(name.bytes()))
                && let Some(hash) = known.content_of(&stamp)
            {
                entry.set_content(Content { hash, size: stamp.size });
            }
            all.push(Found { entry, kept: !own.ignored, rule: own.rule });
        }
        Ok(Some(all))
    }
}

/// What `stat` says; none when a link is gone already.
pub(super) fn kind(
    context: &Context,
    folder: impl AsFd,
    name: impl rustix::path::Arg,
    path: &[u8],
    stat: &Stat,
) -> Result<Option<Kind>, Error> {
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File { executable: stat.st_mode & 0o100 != 0 },
        FileType::Directory => Kind::Folder,
        FileType::Symlink => match rustix::fs::readlinkat(folder, name, Vec::new()) {
            Ok(target) => Kind::Link { target: target.into_bytes().into() },
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(error(context, "read the link", path, errno)),
        },
        _ => Kind::Special,
    }))
}

pub(super) fn error(context: &Context, action: &'static str, path: &[u8], errno: Errno) -> Error {
    Error::Io { action, path: context.root.join(OsStr::from_bytes(path)), source: errno.into() }
}

#[cfg(test)]
mod tests;
