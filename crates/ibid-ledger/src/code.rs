//! The identity of a codebase: which commit it is, and which files differ from that.
//!
//! The `git` program is asked, once, because only it honours all of a repository's settings: filters,
//! sparse checkouts, worktrees, submodules. It takes no locks, so it disturbs nothing that the user does
//! meanwhile. [`CodeIdentity::of`] needs about as long as `git status` and may run on a thread of its own.
//!
//! A repository that belongs to someone else is never read with this process's rights, because its settings
//! can name programs to execute: as root, git runs as the repository's owner; otherwise git itself refuses
//! and the identity is [`CodeIdentity::Unknown`].

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

mod remote;

use crate::snapshot::Repository;

/// What is known about the code in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeIdentity {
    /// It is in a git repository.
    Git(Checkout),
    /// No repository holds it.
    NoRepository,
    /// The `git` program is not installed.
    NoGit,
    /// Git could not tell.
    Unknown {
        /// Git's own word, in one line.
        reason: String,
    },
}

/// The state of a folder in a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// The commit that is checked out; none before the first one.
    pub commit: Option<Commit>,
    /// The branch; none when the commit is checked out without one.
    pub branch: Option<String>,
    /// URL of the remote that the branch follows, or of `origin`, without credentials.
    pub remote: Option<String>,
    /// Files in the folder that differ from the commit or are not in it, ignored ones left out, relative to
    /// the folder, sorted. A submodule counts as one.
    pub differing: Vec<PathBuf>,
}

/// The full name of a commit: 40 or 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit(String);

impl Commit {
    /// All digits.
    pub fn full(&self) -> &str {
        &self.0
    }

    /// The first seven.
    pub fn short(&self) -> &str {
        self.0.get(..7).unwrap_or(&self.0)
    }
}

impl CodeIdentity {
    /// Asks git about `folder`. What is in the folders `without`, relative to it, is no code: it is not even looked at.
    pub fn of(folder: &Path, without: &[PathBuf]) -> Self {
        let unknown = |reason: String| Self::Unknown { reason };
        let folder = match folder.canonicalize() {
            Ok(folder) => folder,
            Err(error) => return unknown(format!("{}: {error}", folder.display())),
        };
        // Whether git found no repository or failed in one shows in its words only, which are for people.
        let Some(top) = folder.ancestors().find(|ancestor| ancestor.join(".git").symlink_metadata().is_ok())
        else {
            return Self::NoRepository;
        };
        let output = match git_status(&folder, top, without) {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::NoGit,
            Err(error) => return unknown(format!("git: {error}")),
        };
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let first = words.lines().map(str::trim).find(|line| !line.is_empty());
            return unknown(match first {
                Some(line) => line.trim_start_matches("fatal: ").to_owned(),
                None => format!("git: {}", output.status),
            });
        }
        let prefix = folder.strip_prefix(top).unwrap_or(Path::new(""));
        match read_status(&output.stdout, prefix) {
            Some(Status::Checkout(mut checkout)) => {
                let config = Repository::open(top, 0).and_then(|repository| repository.config());
                checkout.remote =
                    config.and_then(|text| remote::of_config(&text, checkout.branch.as_deref()));
                Self::Git(checkout)
            }
            Some(Status::Ignored) => Self::NoRepository,
            None => unknown("git: unexpected output of `git status`".to_owned()),
        }
    }

    /// The state, where git could tell.
    pub fn checkout(&self) -> Option<&Checkout> {
        match self {
            Self::Git(checkout) => Some(checkout),
            _ => None,
        }
    }
}

/// `commit 3f2a9c1`, `commit 3f2a9c1 + 2 files`, `no commit yet, 12 files`, or why there is none.
impl fmt::Display for CodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git(Checkout { commit, differing, .. }) => {
                let files = |f: &mut fmt::Formatter<'_>, before: &str| match differing.len() {
                    0 => Ok(()),
                    1 => write!(f, "{before}1 file"),
                    count => write!(f, "{before}{count} files"),
                };
                match commit {
                    Some(commit) => {
                        write!(f, "commit {}", commit.short())?;
                        files(f, " + ")
                    }
                    None => {
                        f.write_str("no commit yet")?;
                        files(f, ", ")
                    }
                }
            }
            Self::NoRepository => f.write_str("no git repository"),
            Self::NoGit => f.write_str("no git"),
            Self::Unknown { reason } => write!(f, "unknown ({reason})"),
        }
    }
}

/// Variables by which a surrounding git, as in a hook, names its own repository.
const REPOSITORY_VARIABLES: [&str; 9] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_CEILING_DIRECTORIES",
];

fn git_status(folder: &Path, top: &Path, without: &[PathBuf]) -> io::Result<Output> {
    let mut git = git(folder, top)?;
    git.args(["status", "--porcelain=v2", "-z", "--branch"])
        // What the user's settings would hide is still code that ran.
        .args(["--untracked-files=all", "--ignore-submodules=none", "--ignored=matching", "--no-renames"]);
    only(&mut git, without).output()
}

/// The names that a repository tracks, each ended by a zero; none when git does not tell.
pub(crate) fn tracked(top: &Path) -> Option<Vec<u8>> {
    let output = git(top, top).and_then(|mut git| git.args(["ls-files", "-z"]).output()).ok()?;
    output.status.success().then_some(output.stdout)
}

/// More of a difference is not for people.
const DIFFERENCE_BYTES_MAX: u64 = 10_000_000;

/// How the files in `folder` that git tracks differ from the commit, as `git diff` writes it, less what is in the folders `without`.
/// None when they do not, when there is no commit, and when git cannot tell. What is over ten million bytes is cut, and says so.
///
/// A snapshot holds more: files that are not tracked, and every byte. This is for reading.
pub fn difference(folder: &Path, without: &[PathBuf]) -> Option<Vec<u8>> {
    let folder = folder.canonicalize().ok()?;
    let top = folder.ancestors().find(|ancestor| ancestor.join(".git").symlink_metadata().is_ok())?;
    let mut git = git(&folder, top).ok()?;
    // No program that the settings name.
    git.args([
        "diff",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--submodule=diff",
        "--relative",
        "HEAD",
    ]);
    let mut process = only(&mut git, without).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut difference = Vec::new();
    let output = process.stdout.take()?;
    let read = output.take(DIFFERENCE_BYTES_MAX + 1).read_to_end(&mut difference);
    let is_cut = difference.len() as u64 > DIFFERENCE_BYTES_MAX;
    if is_cut {
        // It would wait for somebody to read the rest.
        let _ = process.kill();
        difference.truncate(DIFFERENCE_BYTES_MAX as usize);
        difference.extend(b"\n[cut after 10 MB]\n");
    }
    let status = process.wait().ok()?;
    (read.is_ok() && (is_cut || status.success()) && !difference.is_empty()).then_some(difference)
}

/// Restricts a command to its folder, less what holds no code.
fn only<'a>(git: &'a mut Command, without: &[PathBuf]) -> &'a mut Command {
    git.args(["--", "."]).args(without.iter().map(|path| {
        let mut exclusion = OsString::from(":(exclude,literal)");
        exclusion.push(path);
        exclusion
    }))
}

/// `git` in a folder of the repository at `top`, with the rights of who owns that.
/// Git in `folder`, of the repository in `top`, as its owner and without the user's settings for other repositories.
pub fn git(folder: &Path, top: &Path) -> io::Result<Command> {
    let mut git = Command::new("git");
    // Not the command's own folder: with that, this process is copied, and pays for it with each page it writes afterwards.
    git.arg("-C").arg(folder).arg("--no-optional-locks").env("LC_ALL", "C").stdin(Stdio::null());
    for variable in REPOSITORY_VARIABLES {
        git.env_remove(variable);
    }
    let owner = top.join(".git").symlink_metadata()?;
    if rustix::process::geteuid().is_root() && owner.uid() != 0 {
        // The settings of root are not theirs.
        git.uid(owner.uid()).gid(owner.gid()).env_remove("HOME").env_remove("XDG_CONFIG_HOME");
    }
    Ok(git)
}

enum Status {
    Checkout(Checkout),
    /// The repository ignores the folder, so it says nothing about it.
    Ignored,
}

/// Reads `git status --porcelain=v2 -z --branch` (git-status(1), "Porcelain Format Version 2"). Paths there
/// are relative to the repository's top; `prefix` is the folder asked about.
fn read_status(output: &[u8], prefix: &Path) -> Option<Status> {
    let mut checkout = Checkout { commit: None, branch: None, remote: None, differing: Vec::new() };
    let mut headed = false;
    let mut records = output.split(|byte| *byte == 0).filter(|record| !record.is_empty());
    while let Some(record) = records.next() {
        let (kind, rest) = record.split_at_checked(2)?;
        let path = match kind {
            b"# " => {
                let header = str::from_utf8(rest).ok()?;
                if let Some(commit) = header.strip_prefix("branch.oid ") {
                    headed = true;
                    checkout.commit = (commit != "(initial)").then(|| Commit(commit.to_owned()));
                } else if let Some(branch) = header.strip_prefix("branch.head ") {
                    checkout.branch = (branch != "(detached)").then(|| branch.to_owned());
                }
                continue;
            }
            b"1 " => after_fields(rest, 7)?,
            b"2 " => {
                records.next()?;
                after_fields(rest, 8)?
            }
            b"u " => after_fields(rest, 9)?,
            b"? " => rest,
            b"! " => {
                if prefix.starts_with(OsStr::from_bytes(rest)) {
                    return Some(Status::Ignored);
                }
                continue;
            }
            _ => return None,
        };
        let path = Path::new(OsStr::from_bytes(path));
        checkout.differing.push(path.strip_prefix(prefix).unwrap_or(path).to_owned());
    }
    checkout.differing.sort_unstable();
    headed.then_some(Status::Checkout(checkout))
}

/// What follows `count` fields, each ended by a space.
fn after_fields(record: &[u8], count: usize) -> Option<&[u8]> {
    record.splitn(count + 1, |byte| *byte == b' ').nth(count)
}

#[cfg(test)]
mod tests;
