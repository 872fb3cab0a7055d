//! What is known about how an image was built: noted beside the image, since it differs between machines.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ibid_core::digest::Digest;
use ibid_store::Store;
use serde::{Deserialize, Serialize};

/// The version of the format that this code writes.
const VERSION: u32 = 1;

/// How an image came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Format version.
    pub version: u32,
    /// Folder of the project on this machine.
    pub project: PathBuf,
    /// RFC 3339 time when the build ended.
    pub built: String,
    /// The code that was copied in, as people name it: commit and number of files that differ from it.
    pub code: String,
    /// The same for programs; none where no commit is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<RecordedCommit>,
    /// Digest of the Dockerfile's text.
    pub dockerfile: Digest,
    /// What was copied from the context: path and content digest of each file.
    pub files: BTreeMap<String, String>,
}

/// A commit, and whether files differed from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedCommit {
    /// All its digits.
    pub id: String,
    /// Whether the code had changes that were not committed.
    pub is_dirty: bool,
    /// The files that had, relative to the project; unknown for images of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differing: Vec<String>,
}

impl BuildRecord {
    /// A record of now.
    pub fn new(
        project: PathBuf,
        built: String,
        code: String,
        commit: Option<RecordedCommit>,
        dockerfile: Digest,
        files: BTreeMap<String, String>,
    ) -> Self {
        Self { version: VERSION, project, built, code, commit, dockerfile, files }
    }

    /// Notes it beside the image.
    pub fn write(&self, store: &Store, image: &Digest) -> Result<(), ibid_store::Error> {
        let text = serde_json::to_vec(self).expect("a record holds only text keys");
        store.put_note(image, &text)
    }

    /// Reads what was noted. None when nothing was, or when it is of a newer version or not readable:
    /// then nothing is known.
    pub fn read(store: &Store, image: &Digest) -> Result<Option<Self>, ibid_store::Error> {
        let Some(text) = store.note(image)? else { return Ok(None) };
        Ok(serde_json::from_slice(&text).ok().filter(|record: &Self| record.version <= VERSION))
    }

    /// Paths that differ between two lists of files: changed, only here, only there.
    pub fn differing<'a>(&'a self, files: &'a BTreeMap<String, String>) -> Vec<&'a str> {
        let changed = self.files.iter().filter(|(path, digest)| files.get(*path) != Some(digest));
        let added = files.keys().filter(|path| !self.files.contains_key(*path));
        changed.map(|(path, _)| path).chain(added).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_added_and_removed_files_differ() {
        let files = |list: &[(&str, &str)]| {
            list.iter()
                .map(|(path, digest)| ((*path).to_owned(), (*digest).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let record = BuildRecord::new(
            PathBuf::new(),
            String::new(),
            String::new(),
            None,
            Digest::of(b""),
            files(&[("a", "1"), ("b", "1"), ("c", "1")]),
        );
        assert_eq!(record.differing(&files(&[("a", "1"), ("b", "2"), ("d", "1")])), ["b", "c", "d"]);
        assert!(record.differing(&record.files).is_empty());
    }
}
