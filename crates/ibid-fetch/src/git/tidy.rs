//! Bringing a repository that is to be kept into a state that depends on its commit alone: no times, no branches that
//! happened to be there, no packs as a server made them, no password.

use std::fs;
use std::path::{Path, PathBuf};

use ibid_core::remote::without_credentials;

use super::{Call, Commit, Failure, Git};
use crate::error::{Error, io_error};

/// What is removed of a repository: what differs each time, and what only says how to use it. A missing index is made
/// anew.
const REMOVED: [&str; 12] = [
    "index",
    "FETCH_HEAD",
    "ORIG_HEAD",
    "logs",
    "hooks",
    "branches",
    "description",
    "info",
    "packed-refs",
    "refs/remotes",
    "refs/heads",
    "refs/tags",
];

impl Git<'_> {
    /// Tidies a repository and those of its submodules. It keeps one commit and the tag that led to it, as `fetch
    /// --depth=1` does.
    pub(super) fn tidy(&self, repository: &Path, commit: &Commit) -> Result<(), Failure> {
        for submodule in submodules(repository)? {
            let head = self.call(&Call::of(&["rev-parse", "HEAD"]).in_repository(&submodule))?;
            let commit = Commit { id: head.trim().to_owned(), tag: None };
            self.tidy_one(&submodule, &commit)?;
        }
        self.tidy_one(repository, commit)
    }

    fn tidy_one(&self, repository: &Path, commit: &Commit) -> Result<(), Failure> {
        let call = |arguments: &[&str]| self.call(&Call::of(arguments).in_repository(repository));
        for name in REMOVED {
            remove(&repository.join(name))?;
        }
        for folder in ["refs/heads", "refs/tags"] {
            let folder = repository.join(folder);
            fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        }
        if let Some(tag) = &commit.tag {
            call(&["update-ref", "--no-deref", &format!("refs/tags/{tag}"), &commit.id])?;
        }
        let has_parents = call(&["cat-file", "commit", &commit.id])?
            .lines()
            .take_while(|line| !line.is_empty())
            .any(|line| line.starts_with("parent "));
        let shallow = repository.join("shallow");
        if has_parents {
            fs::write(&shallow, format!("{}\n", commit.id)).map_err(io_error(&shallow))?;
        } else {
            remove(&shallow)?;
        }
        // Neither deltas nor compression: both differ between versions of git and of its libraries.
        let repack = [
            "-c",
            "core.compression=0",
            "-c",
            "pack.compression=0",
            "-c",
            "pack.threads=1",
            "-c",
            "pack.writeReverseIndex=false",
            "-c",
            "repack.writeBitmaps=false",
            "-c",
            "repack.updateServerInfo=false",
            "repack",
            "-q",
            "-a",
            "-d",
            "-F",
            "--window=0",
            "--depth=0",
        ];
        call(&repack)?;
        remove(&repository.join("objects/info"))?;
        let url = call(&["config", "--get", "remote.origin.url"])?;
        call(&["config", "remote.origin.url", &without_credentials(url.trim())])?;
        // An index of what the commit holds, that says nothing about the files on the disk.
        call(&["read-tree", "HEAD"]).map(drop)
    }
}

/// The repositories of submodules, at any depth.
fn submodules(repository: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![repository.join("modules")];
    while let Some(folder) = folders.pop() {
        for path in list(&folder)? {
            if !fs::symlink_metadata(&path).map_err(io_error(&path))?.is_dir() {
                continue;
            }
            if path.join("HEAD").is_file() && path.join("objects").is_dir() {
                folders.push(path.join("modules"));
                found.push(path);
            } else {
                folders.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Removes the files by which submodules name their repositories, as these are not kept.
pub(super) fn remove_git_files(folder: &Path) -> Result<(), Error> {
    for path in list(folder)? {
        let metadata = fs::symlink_metadata(&path).map_err(io_error(&path))?;
        if metadata.is_dir() {
            remove_git_files(&path)?;
        } else if path.file_name().is_some_and(|name| name == ".git") {
            remove(&path)?;
        }
    }
    Ok(())
}

/// What is in a folder; nothing when it is not there.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(folder)(error)),
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(io_error(folder))).collect()
}

/// Removes a file, or a folder with all in it, if it is there.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}
