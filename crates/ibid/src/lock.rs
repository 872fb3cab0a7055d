//! `ibid.lock`: what each base was made from or which image it was, and what was fetched. Written by ibid, to be kept
//! with the project.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ibid_build::remote::Pin;
use ibid_core::digest::Digest;
use ibid_core::remote::is_commit;
use ibid_debian::LockedBase;
use ibid_fetch::git::Commit;
use serde::{Deserialize, Serialize};

use crate::report::Failure;

/// Name of the lock file, beside `ibid.toml`.
pub const LOCK_FILE: &str = "ibid.lock";
/// The version of the format that this code writes, and the newest it reads. Version 1 had nothing but bases.
const VERSION: u32 = 2;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// Bases that are made from packages, by the text of `FROM`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub base: BTreeMap<String, LockedBase>,
    /// Images that were pulled, or that the store had under a name, by the text of `FROM`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub image: BTreeMap<String, LockedImage>,
    /// What `ADD` fetches, by URL without user name and password.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub url: BTreeMap<String, LockedUrl>,
    /// Commits that `ADD` fetches, by repository and reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub git: BTreeMap<String, LockedCommit>,
}

/// The image that a name stood for. A machine that lacks it pulls it by the manifest, which registries know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    /// Its digest, with `sha256:` in front.
    pub digest: Digest,
    /// That of the manifest, or index, that the name led to in its registry; none when the image came from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
}

/// The content of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedUrl {
    /// Its digest, with `sha256:` in front.
    pub digest: Digest,
}

/// The commit of a reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedCommit {
    /// All its digits.
    #[serde(deserialize_with = "commit_digits")]
    pub commit: String,
    /// The tag that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// Nothing but digits is given to git as a commit.
fn commit_digits<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_commit(&text) { Ok(text) } else { Err(serde::de::Error::custom(format!("`{text}` is no commit"))) }
}

impl Lock {
    /// The text of the project's lock; none when there is no file.
    pub fn text(project: &Path) -> Result<Option<String>, Failure> {
        let path = project.join(LOCK_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::of(&error).while_doing(format!("cannot read {}", path.display()))),
        }
    }

    /// Reads the project's lock; an absent file is an empty lock.
    pub fn read(project: &Path) -> Result<Self, Failure> {
        let path = project.join(LOCK_FILE);
        let Some(text) = Self::text(project)? else {
            return Ok(Self {
                version: VERSION,
                base: BTreeMap::new(),
                image: BTreeMap::new(),
                url: BTreeMap::new(),
                git: BTreeMap::new(),
            });
        };
        let damaged = |message: String, span: Option<std::ops::Range<usize>>| {
            Failure::new(message)
                .excerpt(&path, &text, span.unwrap_or(0..0), "")
                .hint("mend it, or remove the file: the next build writes it anew")
        };
        /// Only the version, so that a newer file is told from a damaged one.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = toml_edit::de::from_str(&text)
            .map_err(|error| damaged(error.message().to_owned(), error.span()))?;
        if head.version > VERSION {
            return Err(Failure::new(format!(
                "{} has version {}; this ibid knows versions up to {VERSION}",
                path.display(),
                head.version
            ))
            .hint("use a newer ibid"));
        }
        toml_edit::de::from_str(&text).map_err(|error| damaged(error.message().to_owned(), error.span()))
    }

    /// What `ADD` fetches, as far as that is pinned.
    pub fn pins(&self) -> BTreeMap<String, Pin> {
        let files = self.url.iter().map(|(name, locked)| (name.clone(), Pin::File(locked.digest)));
        let commits = self.git.iter().map(|(name, locked)| {
            (name.clone(), Pin::Commit(Commit { id: locked.commit.clone(), tag: locked.tag.clone() }))
        });
        files.chain(commits).collect()
    }

    /// Takes over what was fetched without a pin.
    pub fn add(&mut self, found: BTreeMap<String, Pin>) {
        for (name, pin) in found {
            match pin {
                Pin::File(digest) => drop(self.url.insert(name, LockedUrl { digest })),
                Pin::Commit(Commit { id: commit, tag }) => {
                    self.git.insert(name, LockedCommit { commit, tag });
                }
            }
        }
    }

    /// Writes the project's lock: whole or not at all.
    pub fn write(&self, project: &Path) -> Result<(), Failure> {
        let path = project.join(LOCK_FILE);
        let lock = Self { version: VERSION, ..self.clone() };
        let text = toml_edit::ser::to_string_pretty(&lock).expect("a lock is plain data");
        let part: PathBuf = project.join(format!("{LOCK_FILE}.part-{}", std::process::id()));
        let write = || {
            let mut file = std::fs::File::create(&part)?;
            file.write_all(
                b"# Written by ibid. Keep it with the project: it makes builds the same everywhere.\n",
            )?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)
        };
        write().map_err(|error| {
            // The half-written file is of no use, and its removal a courtesy.
            let _ = std::fs::remove_file(&part);
            Failure::of(&error).while_doing(format!("cannot write {}", path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Lock, Failure> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(LOCK_FILE), text).expect("a file");
        Lock::read(folder.path())
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut lock = Lock::read(folder.path()).expect("no lock is an empty one");
        lock.image.insert("lower:1".to_owned(), LockedImage { digest: Digest::of(b"image"), manifest: None });
        let pulled = LockedImage { digest: Digest::of(b"image"), manifest: Some(Digest::of(b"manifest")) };
        lock.image.insert("pulled:1".to_owned(), pulled);
        lock.add([("https://host/x?y#z".to_owned(), Pin::File(Digest::of(b"x")))].into());
        let commit = Commit { id: "1".repeat(40), tag: Some("v1".to_owned()) };
        lock.add([("git@host:x#v1".to_owned(), Pin::Commit(commit))].into());
        lock.write(folder.path()).expect("written");
        assert_eq!(Lock::read(folder.path()).expect("read"), lock);
        assert_eq!(lock.pins().len(), 2);
        let text = std::fs::read_to_string(folder.path().join(LOCK_FILE)).expect("text");
        assert!(text.contains("version = 2\n\n[image.\"lower:1\"]\ndigest = \"sha256:"), "{text}");
        assert!(text.contains("\n\n[url.\"https://host/x?y#z\"]\ndigest = \"sha256:"), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing half-written");
    }

    #[test]
    fn locks_of_other_versions_are_read_or_refused() {
        let old = read(
            "version = 1\n[base.\"debian:12\"]\nsuite = \"bookworm\"\narchitecture = \"amd64\"\nasked = []\nsources = []\npackages = []\n",
        );
        assert_eq!(old.expect("version 1").base.len(), 1);
        let newer = read("version = 3\n[new]\n").expect_err("a newer one");
        assert!(newer.message().contains("has version 3"), "{}", newer.message());
        for damaged in [
            "",
            "version = 2\n[url.x]\n",
            "version = 2\n[url.x]\ndigest = \"md5:0\"\n",
            "version = 2\nother = 1\n",
            "version = 2\n[git.x]\ncommit = \"--upload-pack=x\"\n",
            "<<<<<<<",
        ] {
            assert!(read(damaged).is_err(), "{damaged}");
        }
    }
}
