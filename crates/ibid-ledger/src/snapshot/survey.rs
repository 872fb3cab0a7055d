//! The digests of what is code now: known from the stat cache, or by reading; and storing what is new.
//!
//! A file that changes while it is read is read again, a few times; then what was read counts, and the change shows in the next
//! look. So the log that another program writes into the project stops no run.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ibid_core::digest::{Digest, Hasher};
use ibid_files::beneath::open_beneath;
use ibid_files::parallel;
use ibid_files::stamp::Stamp;
use ibid_files::stat_cache::{self, Clock, StatCache};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::tree::{self, TreeEntry, What};
use super::walk::{self, Dropped, Folder, Listing, Project, Why};
use super::{Entry, Exclusions, Kind, Taken, left_out};
use crate::ledger::{Error, Ledger, io};
use crate::objects::{Objects, SMALL_BYTES, Writer};

/// The state of the code, nothing stored.
pub(super) struct Present {
    pub(super) digest: Digest,
    /// Sorted by path.
    pub(super) entries: Vec<Entry>,
    /// All that were listed, those without code too.
    pub(super) folders: Vec<PathBuf>,
}

/// See [`super::changed_since`].
pub(super) fn look(ledger: &Ledger, project: &Path, exclusions: &Exclusions) -> Result<Present, Error> {
    let project = Project::open(project, exclusions)?;
    let survey = Survey::of(ledger, &project, None, true)?;
    let mut entries = Vec::new();
    for (path, folder) in &survey.trees {
        if !path.is_empty() {
            entries.push(Entry { path: OsString::from_vec(path.clone()).into(), kind: Kind::Folder });
        }
        for entry in &folder.entries {
            let kind = match &entry.what {
                What::File { digest, bytes, executable } => {
                    Kind::File { digest: *digest, bytes: *bytes, executable: *executable }
                }
                What::Link { target } => Kind::Link { target: OsString::from_vec(target.to_vec()) },
                What::Folder(_) => continue,
            };
            entries.push(Entry { path: OsString::from_vec(join(path, &entry.name)).into(), kind });
        }
    }
    super::sort(&mut entries);
    let folders = survey.folders.iter().map(|folder| OsStr::from_bytes(&folder.path).into()).collect();
    Ok(Present { digest: survey.digest(), entries, folders })
}

/// See [`super::take`].
pub(super) fn take(
    ledger: &Ledger,
    objects: &Objects,
    project: &Path,
    exclusions: &Exclusions,
) -> Result<Taken, Error> {
    let project = Project::open(project, exclusions)?;
    let writer = objects.writer()?;
    let mut tries = 0;
    let survey = loop {
        tries += 1;
        let survey = Survey::of(ledger, &project, Some(&writer), tries == 1)?;
        match survey.store(&project, &writer) {
            Err(Error::Changing { .. }) if tries < TRIES => {}
            result => break result.map(|()| survey)?,
        }
    };
    let pending = writer.finish()?;
    let files = || {
        survey.trees.values().flat_map(|folder| &folder.entries).filter_map(|entry| match entry.what {
            What::File { bytes, .. } => Some(bytes),
            _ => None,
        })
    };
    Ok(Taken {
        digest: survey.digest(),
        files: files().count() as u64,
        bytes: files().sum(),
        left_out: left_out::names(&project, &survey.dropped, &survey.large),
        large: survey.large,
        pending,
    })
}

struct Survey {
    /// By path. The project's own has the empty one.
    trees: HashMap<Vec<u8>, Tree>,
    /// As they were listed.
    folders: Vec<Folder>,
    dropped: Vec<Dropped>,
    large: Vec<std::path::PathBuf>,
}

struct Tree {
    digest: Digest,
    content: Vec<u8>,
    entries: Vec<TreeEntry>,
}

/// A file whose content is not known.
struct Unknown<'a> {
    path: Vec<u8>,
    at: (usize, &'a walk::Node),
}

/// What was read of a file.
struct Content {
    digest: Digest,
    bytes: u64,
    /// From before it was read.
    stamp: Stamp,
}

/// Why there is no content.
enum Unread {
    /// It is gone, or something else now.
    Gone,
    /// This process may not read it.
    Unreadable,
    Failed(Error),
}

impl Survey {
    /// Looks at everything. Without `remembering`, every file is read.
    fn of(
        ledger: &Ledger,
        project: &Project,
        writer: Option<&Writer>,
        remembering: bool,
    ) -> Result<Self, Error> {
        let start_ns = stat_cache::now_ns();
        let cache_file = ledger.folder().join("files");
        let mut cache = match remembering {
            true => StatCache::load(&cache_file),
            false => StatCache::default(),
        };
        let Listing { folders, mut dropped, large } = project.list()?;
        let mut contents: HashMap<(usize, &[u8]), (Digest, u64)> = HashMap::new();
        let mut unknown = Vec::new();
        let mut cursor = 0;
        let mut path = Vec::new();
        let mut known: Vec<Vec<Option<(Digest, u64)>>> = Vec::with_capacity(folders.len());
        for (number, folder) in folders.iter().enumerate() {
            let mut of_folder = Vec::with_capacity(folder.nodes.len());
            for node in &folder.nodes {
                let walk::Kind::File { stamp, .. } = node.kind else {
                    of_folder.push(None);
                    continue;
                };
                path.clear();
                path.extend(&folder.path);
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend(&node.name);
                let hash = cache.look_up(&mut cursor, &path, stamp);
                of_folder.push(hash.map(|hash| (Digest::from_bytes(hash), stamp.size)));
                if hash.is_none() {
                    unknown.push(Unknown { path: path.clone(), at: (number, node) });
                }
            }
            known.push(of_folder);
        }
        if !unknown.is_empty() {
            let clock = Clock::of(&project.root_fd);
            for (file, read) in read_all(project, &unknown, writer) {
                match read {
                    Ok(Content { digest, bytes, stamp }) => {
                        contents.insert((file.at.0, &file.at.1.name), (digest, bytes));
                        if stat_cache::is_settled(clock, &stamp, start_ns) && stamp.size == bytes {
                            cache.learn(&file.path, stamp, *digest.as_bytes());
                        }
                    }
                    Err(Unread::Gone) => {}
                    Err(Unread::Unreadable) => {
                        dropped.push(Dropped { path: file.path.clone(), why: Why::Unreadable });
                    }
                    Err(Unread::Failed(error)) => return Err(error),
                }
            }
            dropped.sort_unstable();
        }
        let find = |number: usize, at: usize, node: &walk::Node| {
            known[number][at].or_else(|| contents.get(&(number, &*node.name)).copied())
        };
        let trees = trees(&folders, find);
        // Only who stores keeps the cache: what it knows was stored.
        if let Some(writer) = writer {
            writer.save_cache(&mut cache, &cache_file);
        }
        Ok(Self { trees, folders, dropped, large })
    }

    fn digest(&self) -> Digest {
        self.trees[&Vec::new()].digest
    }

    /// Stores the folders that are not there, and what they refer to.
    fn store(&self, project: &Project, writer: &Writer) -> Result<(), Error> {
        self.store_folder(project, writer, &[])?;
        writer.complete();
        writer.touch(&self.digest())
    }

    fn store_folder(&self, project: &Project, writer: &Writer, path: &[u8]) -> Result<(), Error> {
        let tree = &self.trees[path];
        // Whoever stored it has stored what is below it first.
        if writer.is_trusted() && writer.has(&tree.digest)? {
            return Ok(());
        }
        for entry in &tree.entries {
            match &entry.what {
                What::Folder(_) => self.store_folder(project, writer, &join(path, &entry.name))?,
                What::File { digest, .. } if !writer.has(digest)? => {
                    // It was stored once, as the stat cache knows it, and removed since.
                    let path = join(path, &entry.name);
                    match read_file(project, &path, Some(writer)) {
                        Ok(content) if content.digest == *digest => {}
                        Ok(_) | Err(Unread::Gone | Unread::Unreadable) => {
                            return Err(Error::Changing { path: project.absolute(&path) });
                        }
                        Err(Unread::Failed(error)) => return Err(error),
                    }
                }
                What::File { .. } | What::Link { .. } => {}
            }
        }
        writer.put(&tree.digest, &tree.content)
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// The folders as contents, by path. `find` gives the content of a file; none for one that is gone.
fn trees(
    folders: &[Folder],
    find: impl Fn(usize, usize, &walk::Node) -> Option<(Digest, u64)>,
) -> HashMap<Vec<u8>, Tree> {
    let mut trees: HashMap<Vec<u8>, Tree> = HashMap::with_capacity(folders.len());
    // Folders in folders that are done, by the path of what holds them.
    let mut held: HashMap<&[u8], Vec<TreeEntry>> = HashMap::new();
    // What a folder holds comes after it.
    for (number, folder) in folders.iter().enumerate().rev() {
        let mut entries = held.remove(folder.path.as_slice()).unwrap_or_default();
        for (at, node) in folder.nodes.iter().enumerate() {
            let what = match &node.kind {
                walk::Kind::File { executable, .. } => match find(number, at, node) {
                    Some((digest, bytes)) => What::File { digest, bytes, executable: *executable },
                    None => continue,
                },
                walk::Kind::Link { target } => What::Link { target: target.clone() },
            };
            entries.push(TreeEntry { name: node.name.clone(), what });
        }
        if entries.is_empty() && !folder.is_code && !folder.path.is_empty() {
            continue;
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        let content = tree::encode(&entries);
        let digest = Digest::of(&content);
        if !folder.path.is_empty() {
            let (above, name) = match folder.path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => (&folder.path[..slash], &folder.path[slash + 1..]),
                None => (&folder.path[..0], folder.path.as_slice()),
            };
            let entry = TreeEntry { name: name.into(), what: What::Folder(digest) };
            held.entry(above).or_default().push(entry);
        }
        trees.insert(folder.path.clone(), Tree { digest, content, entries });
    }
    trees
}

/// Reads files in parallel, and stores them.
fn read_all<'a, 'b>(
    project: &Project,
    files: &'b [Unknown<'a>],
    writer: Option<&Writer>,
) -> Vec<(&'b Unknown<'a>, Result<Content, Unread>)> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        let mut read = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let content = read_file(project, &file.path, writer);
            failed.fetch_or(matches!(content, Err(Unread::Failed(_))), Ordering::Relaxed);
            read.push((file, content));
        }
        read
    };
    // A thread costs more than reading a few files does.
    let threads = parallel::threads().min(files.len() / 16 + 1);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut read = work();
        for other in others {
            match other.join() {
                Ok(more) => read.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        read
    })
}

/// How often a file that changes meanwhile is read.
const TRIES: usize = 3;

fn read_file(project: &Project, path: &[u8], writer: Option<&Writer>) -> Result<Content, Unread> {
    let failed = |error: io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Unread::Gone,
        Some(Errno::ACCESS | Errno::PERM) => Unread::Unreadable,
        _ => Unread::Failed(io("read", &project.absolute(path))(error)),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        // Should a pipe have taken the file's place, opening it must not wait for a writer.
        let fd = open_beneath(&project.root_fd, path, OFlags::RDONLY | OFlags::NONBLOCK)
            .map_err(|errno| failed(errno.into()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Unread::Gone);
        }
        let stamp = Stamp::of(&stat);
        let mut file = File::from(fd);
        let (digest, bytes) = read_open(&mut file, stamp.size, writer)?.map_err(failed)?;
        let after = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
        if Stamp::of(&after) == stamp || tries == TRIES {
            return Ok(Content { digest, bytes, stamp });
        }
    }
}

/// Reads an open file to its end and stores what it held.
fn read_open(
    file: &mut File,
    size: u64,
    writer: Option<&Writer>,
) -> Result<Result<(Digest, u64), io::Error>, Unread> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        if size <= SMALL_BYTES {
            // One that has grown since goes the way of the large ones.
            if let Err(error) = file.take(SMALL_BYTES + 1).read_to_end(buffer) {
                return Ok(Err(error));
            }
            if buffer.len() as u64 <= SMALL_BYTES {
                let digest = Digest::of(buffer);
                if let Some(writer) = writer {
                    writer.put(&digest, buffer).map_err(Unread::Failed)?;
                }
                return Ok(Ok((digest, buffer.len() as u64)));
            }
        }
        let mut whole = buffer.as_slice().chain(&*file);
        match writer {
            Some(writer) => writer.put_stream(&mut whole).map_err(Unread::Failed),
            None => Ok(hash(&mut whole)),
        }
    })
}

fn hash(from: &mut impl Read) -> Result<(Digest, u64), io::Error> {
    let mut hasher = Hasher::default();
    let mut piece = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok((hasher.finish(), bytes)),
            Ok(got) => {
                hasher.update(&piece[..got]);
                bytes += got as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A path as people read it.
pub(super) fn shown(path: &[u8]) -> String {
    Path::new(OsStr::from_bytes(path)).to_string_lossy().into_owned()
}
