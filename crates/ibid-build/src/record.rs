//! What is known about how an image was built: noted beside the image, since it differs between machines. The list of the files that were
//! copied in is a note of its own: it may be long, and most who ask do not need it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ibid_core::digest::{Digest, Hasher};
use ibid_core::plan::{Action, Copy, CopyFrom, Step};
use ibid_store::Store;
use serde::{Deserialize, Serialize};

use crate::build::{Error, Request};
use crate::context;

/// The version of the format that this code writes.
const VERSION: u32 = 2;

/// How an image came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Format version.
    pub version: u32,
    /// Folder of the project on this machine.
    pub project: PathBuf,
    /// RFC 3339 time when the build ended that first gave this image from this code.
    pub built: String,
    /// The code that was copied in, as people name it: commit and number of files that differ from it.
    pub code: String,
    /// The same for programs; none where no commit is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<RecordedCommit>,
    /// Digest of the Dockerfile's text.
    pub dockerfile: Digest,
    /// Digest over what was copied from the context, names and content; none in a record of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Digest>,
}

/// What was copied from the context: path and content digest of each file.
pub type Files = BTreeMap<String, String>;

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
        copied: Digest,
    ) -> Self {
        Self { version: VERSION, project, built, code, commit, dockerfile, copied: Some(copied) }
    }

    /// Notes it beside the image, with the list of the files that `files` gives. What says the same already, but for the time, stays.
    pub fn write<E: From<ibid_store::Error>>(
        &self,
        store: &Store,
        image: &Digest,
        files: impl FnOnce() -> Result<Files, E>,
    ) -> Result<(), E> {
        let known = Self::read(store, image)?;
        if known.as_ref().is_none_or(|known| known.copied != self.copied) || !store.has_files_note(image) {
            let list = serde_json::to_vec(&files()?).expect("a list holds only text keys");
            store.put_files_note(image, &list)?;
        }
        if known.is_none_or(|known| Self { built: self.built.clone(), ..known } != *self) {
            let text = serde_json::to_vec(self).expect("plain data");
            store.put_note(image, &text)?;
        }
        Ok(())
    }

    /// Reads what was noted. None when nothing was, or when it is of a newer version or not readable:
    /// then nothing is known.
    pub fn read(store: &Store, image: &Digest) -> Result<Option<Self>, ibid_store::Error> {
        let Some(text) = store.note(image)? else { return Ok(None) };
        Ok(serde_json::from_slice(&text).ok().filter(|record: &Self| record.version <= VERSION))
    }

    /// The files that were copied into an image; none when that is not known.
    pub fn files(store: &Store, image: &Digest) -> Result<Option<Files>, ibid_store::Error> {
        /// A record of version 1, which holds the list itself.
        #[derive(Deserialize)]
        struct First {
            files: Files,
        }
        if let Some(list) = store.files_note(image)? {
            return Ok(serde_json::from_slice(&list).ok());
        }
        let Some(text) = store.note(image)? else { return Ok(None) };
        Ok(serde_json::from_slice::<First>(&text).ok().map(|first| first.files))
    }
}

/// Paths that differ between two lists of files: changed, only in the first, only in the second.
pub fn differing<'a>(files: &'a Files, others: &'a Files) -> Vec<&'a str> {
    let changed = files.iter().filter(|(path, digest)| others.get(*path) != Some(digest));
    let added = others.keys().filter(|path| !files.contains_key(*path));
    changed.map(|(path, _)| path).chain(added).map(String::as_str).collect()
}

/// What copies from the context bring into the image: the path of each file and link, with a digest of its
/// content. The identity of the code that a build pegs.
pub fn context_files(request: &Request) -> Result<Files, Error> {
    let mut files = Files::new();
    for (step, copy) in context_copies(request) {
        let at = |error: context::Error| Error::Step { lines: step.lines, kind: Box::new(error.into()) };
        let selection = request.context.select_copied(copy).map_err(at)?;
        for (path, identity) in request.context.identities(&selection).map_err(at)? {
            files.insert(path.display().to_string(), identity);
        }
    }
    Ok(files)
}

/// A digest over what [`context_files`] lists, which costs nothing after a build.
pub fn context_digest(request: &Request) -> Result<Digest, Error> {
    let mut digests = Hasher::default();
    for (step, copy) in context_copies(request) {
        let at = |error: context::Error| Error::Step { lines: step.lines, kind: Box::new(error.into()) };
        let selection = request.context.select_copied(copy).map_err(at)?;
        digests.update(request.context.digest_of_copied(copy, &selection).map_err(at)?.as_bytes());
    }
    Ok(digests.finish())
}

fn context_copies<'a>(request: &Request<'a>) -> impl Iterator<Item = (&'a Step, &'a Copy)> {
    let steps = request.plan.stages.iter().flat_map(|stage| &stage.steps);
    steps.filter_map(|step| match &step.action {
        Action::Copy(copy) if copy.from == CopyFrom::Context => Some((step, copy)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_added_and_removed_files_differ() {
        let files = |list: &[(&str, &str)]| {
            list.iter().map(|(path, digest)| ((*path).to_owned(), (*digest).to_owned())).collect::<Files>()
        };
        let first = files(&[("a", "1"), ("b", "1"), ("c", "1")]);
        assert_eq!(differing(&first, &files(&[("a", "1"), ("b", "2"), ("d", "1")])), ["b", "c", "d"]);
        assert!(differing(&first, &first).is_empty());
    }
}
