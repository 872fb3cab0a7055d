//! Snapshots: the state of a codebase by content, as a run saw it at its start.
//!
//! ```text
//! project ─walk→ what is code ─survey→ digests, from the stat cache or by reading ─take→ objects/
//!                                         └──changed_since→ what is another than in the snapshot
//! ```
//! A snapshot is the digest of its topmost folder (see `tree`): the same code has the same one, on any machine. What was stored
//! before costs no space again. [`take`] has read everything when it returns, so a program that is started after it saw what the
//! snapshot holds, unless somebody edits in that very moment; [`changed_since`], asked at the end, finds that too.

mod checkout;
mod collect;
mod git_index;
mod left_out;
mod repository;
mod surroundings;
mod survey;
pub(crate) mod tree;
mod walk;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use ibid_core::dockerignore::Ignore;

use crate::ledger::{Error, Ledger};
pub use crate::objects::Removed;
use crate::objects::{Objects, Pending};
pub use checkout::checkout;
pub use collect::collect;
pub(crate) use repository::Repository;
use tree::What;

/// Larger files are no code, unless git tracks them: they are left out and named.
pub const LARGE_BYTES: u64 = 100_000_000;

/// What the project's settings leave out of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Exclusions {
    /// `[run] outputs` and `data`, relative to the project.
    pub outputs_and_data: Vec<PathBuf>,
    /// The rules of the context's `.dockerignore`. What git tracks is code all the same.
    pub dockerignore: Ignore,
    /// The absolute path of the context, which those rules are about; none when it is the project.
    pub context: Option<PathBuf>,
    /// Files that are code whatever the ignore files say, relative to the project: a Dockerfile of another name. `Dockerfile`,
    /// `.dockerignore`, `ibid.toml` and `ibid.lock` are, always.
    pub always: Vec<PathBuf>,
}

/// A snapshot that was just taken. Dropping it waits until the disk has it, which [`Taken::settle`] does sooner.
#[derive(Debug)]
pub struct Taken {
    /// The snapshot.
    pub digest: Digest,
    /// Number of files in it.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// What a program may have used and the snapshot does not hold: virtual environments (with a `/` at the end) and compiled
    /// files that ignore files leave out, files that are too large, that cannot be read, or that are sockets, pipes or devices.
    pub left_out: Vec<String>,
    /// Those of them that are left out because they are larger than [`LARGE_BYTES`].
    pub large: Vec<PathBuf>,
    pending: Pending,
}

impl Taken {
    /// Waits until the disk has everything. Before that, a power cut may lose the snapshot, which is noticed. Best called while
    /// the program runs.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.pending.settle()
    }
}

/// One path of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the project.
    pub path: PathBuf,
    /// What is there.
    pub kind: Kind,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File {
        /// SHA-256 of its content.
        digest: Digest,
        /// Size.
        bytes: u64,
        /// Its owner may execute it; all that is kept of its mode.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as it is written.
        target: OsString,
    },
    /// A folder.
    Folder,
}

/// A path that differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Relative to the project.
    pub path: PathBuf,
    /// How it differs.
    pub how: How,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Only the second snapshot has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it, with another content, target or mode.
    Changed,
}

/// Stores the state of the code in `project`.
///
/// Costs little more than looking at each file: only those that changed since the last time are read. What cannot be read by
/// this process is left out and named; a disk that is full is an error, and what was stored until then does no harm.
pub fn take(ledger: &Ledger, project: &Path, exclusions: &Exclusions) -> Result<Taken, Error> {
    ledger.prepare()?;
    let objects = Objects::of(ledger);
    survey::take(ledger, &objects, project, exclusions)
}

/// The paths whose content is now another than in `snapshot`, sorted. Empty folders do not count.
pub fn changed_since(
    ledger: &Ledger,
    project: &Path,
    exclusions: &Exclusions,
    snapshot: Digest,
) -> Result<Vec<String>, Error> {
    let present = survey::look(ledger, project, exclusions)?;
    if present.digest == snapshot {
        return Ok(Vec::new());
    }
    let changes = compare(&entries(ledger, snapshot)?, &present.entries);
    Ok(changes.into_iter().map(|change| change.path.to_string_lossy().into_owned()).collect())
}

/// The code as it is now. Nothing of it is kept.
#[derive(Debug, Clone)]
pub struct State {
    /// Everything in it, sorted by path.
    pub entries: Vec<Entry>,
    /// Every folder of the project, relative to it, in which something that appears may be code. The first is the project.
    pub folders: Vec<PathBuf>,
}

/// Looks at the code. Only files that changed since the last snapshot are read.
pub fn look(ledger: &Ledger, project: &Path, exclusions: &Exclusions) -> Result<State, Error> {
    let survey::Present { digest: _, entries, folders } = survey::look(ledger, project, exclusions)?;
    Ok(State { entries, folders })
}

/// Everything in a snapshot, sorted by path.
pub fn entries(ledger: &Ledger, snapshot: Digest) -> Result<Vec<Entry>, Error> {
    let objects = Objects::of(ledger);
    let mut entries = Vec::new();
    let mut folders = vec![(Vec::new(), snapshot)];
    while let Some((path, digest)) = folders.pop() {
        // A folder refers to others by their digests, so there is no way back to it; but one can be named very often.
        if entries.len() > ENTRIES_MAX || path.len() > PATH_BYTES_MAX {
            let reason = "it holds more than any codebase".to_owned();
            return Err(Error::Damaged { path: ledger.folder().join("objects"), reason });
        }
        for entry in folder(&objects, ledger, &digest)? {
            let mut below = path.clone();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(&entry.name);
            let kind = match entry.what {
                What::File { digest, bytes, executable } => Kind::File { digest, bytes, executable },
                What::Link { target } => Kind::Link { target: OsString::from_vec(target.into()) },
                What::Folder(digest) => {
                    folders.push((below.clone(), digest));
                    Kind::Folder
                }
            };
            entries.push(Entry { path: OsString::from_vec(below).into(), kind });
        }
    }
    sort(&mut entries);
    Ok(entries)
}

const ENTRIES_MAX: usize = 20_000_000;
const PATH_BYTES_MAX: usize = 64 * 1024;

fn folder(objects: &Objects, ledger: &Ledger, digest: &Digest) -> Result<Vec<tree::TreeEntry>, Error> {
    tree::decode(&objects.read(digest)?).map_err(|reason| Error::DamagedObject {
        digest: *digest,
        path: ledger.folder().join("objects"),
        reason: reason.to_owned(),
    })
}

fn sort(entries: &mut [Entry]) {
    entries.sort_unstable_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
}

/// The whole of a file, or of what else was kept under this digest. It is what the digest says, or an error.
pub fn content(ledger: &Ledger, blob: Digest) -> Result<Vec<u8>, Error> {
    Objects::of(ledger).read(&blob)
}

/// Keeps some bytes, such as the difference from a commit, and gives the digest by which [`content`] finds them.
pub fn keep(ledger: &Ledger, content: &[u8]) -> Result<Digest, Error> {
    ledger.prepare()?;
    let objects = Objects::of(ledger);
    let writer = objects.writer()?;
    let digest = Digest::of(content);
    writer.put(&digest, content)?;
    writer.finish()?.settle()?;
    Ok(digest)
}

/// The files and links that differ, sorted by path. Both lists are sorted, as [`entries`] gives them.
pub fn compare(a: &[Entry], b: &[Entry]) -> Vec<Change> {
    fn files(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
        entries.iter().filter(|entry| entry.kind != Kind::Folder)
    }
    fn bytes(entry: &Entry) -> &[u8] {
        entry.path.as_os_str().as_bytes()
    }
    let (mut old, mut new) = (files(a).peekable(), files(b).peekable());
    let mut changes = Vec::new();
    let mut add = |entry: &Entry, how| changes.push(Change { path: entry.path.clone(), how });
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(first), second) if second.is_none_or(|second| bytes(first) < bytes(second)) => {
                add(first, How::Removed);
                old.next();
            }
            (first, Some(second)) if first.is_none_or(|first| bytes(second) < bytes(first)) => {
                add(second, How::Added);
                new.next();
            }
            (first, second) => {
                if let (Some(first), Some(second)) = (first, second)
                    && first.kind != second.kind
                {
                    add(second, How::Changed);
                }
                old.next();
                new.next();
            }
        }
    }
}
