//! Listing a folder in parallel, without what the ignore rules drop.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ibid_core::dockerignore::Verdict;
use ibid_core::run::LEDGER_FOLDER;
use ibid_files::beneath::open_beneath;
use ibid_files::parallel;
use ibid_files::stamp::Stamp;
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, Stat};
use rustix::io::Errno;

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

/// What is kept below a folder of the context, sorted by path.
pub(super) fn kept_below(context: &Context, folder: &[u8]) -> Result<Vec<Entry>, Error> {
    let mut found = walk(context, folder, false)?;
    found.retain(|found| found.kept);
    Ok(found.into_iter().map(|found| found.entry).collect())
}

/// The folders right below the root that are dropped whole.
pub(super) fn dropped_folders(context: &Context) -> Result<Vec<PathBuf>, Error> {
    const FOLDERS_MAX: usize = 200;
    let failed = |errno: Errno| error(context, "list the folder", b"", errno);
    let root = open_beneath(&context.root_fd, b"", OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
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
    let mut found = walk(context, b"", true)?;
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

fn walk(context: &Context, folder: &[u8], with_dropped: bool) -> Result<Vec<Found>, Error> {
    let lister = || Lister {
        context,
        with_dropped,
        buffer: vec![MaybeUninit::uninit(); 32 * 1024],
        folders: Vec::new(),
    };
    let first = (folder.to_vec(), context.rules.rules.verdict(folder));
    let listers = parallel::each(first, lister, |lister, (folder, verdict), subfolders| {
        lister.list(&folder, verdict, subfolders)
    })?;
    let folders = listers.into_iter().flat_map(|lister| lister.folders).collect();
    let mut found = in_order(folder, folders);
    keep_parents(&mut found);
    Ok(found)
}

/// What was found in `folder` and below, sorted by path; what each of the folders holds is sorted already.
fn in_order(folder: &[u8], mut folders: HashMap<Vec<u8>, Vec<Found>>) -> Vec<Found> {
    let mut all = Vec::with_capacity(folders.values().map(Vec::len).sum());
    // From the outermost folder to the one at hand: what is left of each, and those of its folders that come next. A path is
    // sorted as a text, so that `a-b` is between `a` and `a/b`.
    let begun = |found: Vec<Found>| (found.into_iter(), Vec::<Vec<u8>>::new());
    let mut levels: Vec<_> = folders.remove(folder).map(begun).into_iter().collect();
    while let Some((left, waiting)) = levels.last_mut() {
        let next = left.as_slice().first().map(|found| found.entry.path_bytes());
        let is_next =
            |folder: &mut Vec<u8>| next.is_none_or(|next| folder.iter().chain(b"/").lt(next.iter()));
        if let Some(folder) = waiting.pop_if(is_next) {
            levels.extend(folders.remove(&folder).map(begun));
        } else if let Some(found) = left.next() {
            if found.entry.kind == Kind::Folder {
                waiting.push(found.entry.path_bytes().to_vec());
            }
            all.push(found);
        } else {
            levels.pop();
        }
    }
    all
}

/// Keeps the dropped folders that hold something kept.
fn keep_parents(found: &mut [Found]) {
    let dropped_folders = found.iter().any(|found| !found.kept && found.entry.kind == Kind::Folder);
    if !dropped_folders {
        return;
    }
    let mut needed: HashSet<Box<[u8]>> = HashSet::new();
    for kept in found.iter().filter(|found| found.kept) {
        for path in parents(kept.entry.path_bytes()) {
            if !needed.insert(path.into()) {
                break;
            }
        }
    }
    for folder in found.iter_mut().filter(|found| !found.kept && found.entry.kind == Kind::Folder) {
        folder.kept = needed.contains(folder.entry.path_bytes());
    }
}

/// The folders that hold a path, the nearest first; the root is none of them.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(slash, _)| &path[..slash])
}

struct Lister<'a> {
    context: &'a Context,
    with_dropped: bool,
    buffer: Vec<MaybeUninit<u8>>,
    /// What folders hold, sorted.
    folders: Vec<(Vec<u8>, Vec<Found>)>,
}

impl Lister<'_> {
    /// Finds what `folder` holds, and adds those of its folders that are to be listed to `subfolders`.
    fn list(
        &mut self,
        folder: &[u8],
        verdict: Verdict,
        subfolders: &mut Vec<(Vec<u8>, Verdict)>,
    ) -> Result<(), Error> {
        let rules = &self.context.rules.rules;
        let failed = |errno: Errno| error(self.context, "list the folder", folder, errno);
        let fd = match open_beneath(&self.context.root_fd, folder, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            // Gone since its name was read, or dropped by the rules anyway.
            Err(Errno::NOENT) if !folder.is_empty() => return Ok(()),
            Err(Errno::ACCESS | Errno::PERM) if verdict.ignored => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        let mut found = Vec::new();
        let mut names = RawDir::new(&fd, &mut self.buffer);
        while let Some(name) = names.next() {
            let name = name.map_err(failed)?;
            let (file_type, name) = (name.file_type(), name.file_name());
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // What is recorded of runs changes with each run, and is nobody's code.
            if name.to_bytes() == LEDGER_FOLDER.as_bytes()
                && self.context.layers.is_none()
                && matches!(file_type, FileType::Directory | FileType::Unknown)
            {
                continue;
            }
            let mut path = Vec::with_capacity(folder.len() + 1 + name.count_bytes());
            if !folder.is_empty() {
                path.extend(folder);
                path.push(b'/');
            }
            path.extend(name.to_bytes());
            let own = if rules.is_empty() { Verdict::default() } else { rules.verdict_below(verdict, &path) };
            let may_be_folder = matches!(file_type, FileType::Directory | FileType::Unknown);
            if own.ignored && !self.with_dropped && !(may_be_folder && rules.may_descend(own, &path)) {
                continue;
            }
            let stat = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(error(self.context, "read the attributes of", &path, errno)),
            };
            let Some(kind) = kind(self.context, &fd, name, &path, &stat)? else { continue };
            if kind == Kind::Folder && rules.may_descend(own, &path) {
                subfolders.push((path.clone(), own));
            }
            let entry = Entry::new(path.into(), kind, Stamp::of(&stat));
            found.push(Found { entry, kept: !own.ignored, rule: own.rule });
        }
        found.sort_unstable_by(|a, b| a.entry.path_bytes().cmp(b.entry.path_bytes()));
        self.folders.push((folder.to_vec(), found));
        Ok(())
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
