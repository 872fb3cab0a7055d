//! What `ADD` fetches: kept in the store by content, and pinned, so that the same build gets the same bytes.
//!
//! A pin is what a lock says that a name stands for. What has none gets one when it is first fetched; what has one is
//! taken from the store or, when it is not there, fetched and refused if it is something else by now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ibid_core::digest::{DiffId, Digest};
use ibid_core::plan::CopySource;
use ibid_core::remote::{GitSource, UrlSource, is_commit, without_credentials};
use ibid_fetch::git::{Commit, Git};
use ibid_fetch::{Network, Piece, Transport};
use ibid_store::{CommitRules, Store};

/// Raised when the same commit becomes other files than before.
const CHECKOUT_VERSION: u32 = 1;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// The digest of a file.
    File(Digest),
    /// A commit of a repository.
    Commit(Commit),
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(digest) => digest.fmt(f),
            Self::Commit(commit) => f.write_str(&commit.id),
        }
    }
}

/// Why something could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be fetched.
    #[error(transparent)]
    Fetch(#[from] ibid_fetch::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] ibid_store::Error),
    /// It is not what the Dockerfile says that it is.
    #[error("{name} has the digest {found}, and the Dockerfile says {expected}")]
    Checksum {
        /// The URL.
        name: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// It is not what it was when it was pinned.
    #[error("{name} has the digest {found}, and the lock says {expected}")]
    Moved {
        /// The URL, as the lock names it.
        name: String,
        /// What the lock says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The commit is not the one that the Dockerfile names.
    #[error("{name} is at the commit {found}, and the Dockerfile says {expected}")]
    Commit {
        /// The repository and its reference.
        name: String,
        /// The digits that were asked for.
        expected: String,
        /// The commit that is there.
        found: String,
    },
}

/// Something that was fetched.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// A file of the store.
    File(PathBuf),
    /// The files of a commit, as a layer of the store; none when it has none.
    Commit(Option<DiffId>),
}

/// Gets what `ADD` fetches. Used from several threads at once.
pub struct Remotes {
    store: Store,
    network: Network,
    pins: BTreeMap<String, Pin>,
    /// What was fetched without a pin.
    found: Mutex<BTreeMap<String, Pin>>,
    /// Held while something is fetched, so that stages that want the same get the same.
    busy: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
}

impl Remotes {
    /// Without pins.
    pub fn new(store: &Store, network: Network) -> Self {
        Self {
            store: store.clone(),
            network,
            pins: BTreeMap::new(),
            found: Mutex::default(),
            busy: Mutex::default(),
        }
    }

    /// Takes the pins of a lock, by [`CopySource::name`].
    pub fn set_pins(&mut self, pins: BTreeMap<String, Pin>) {
        self.pins = pins;
    }

    /// The pins of what had none, as far as it was fetched.
    pub fn found(&self) -> BTreeMap<String, Pin> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a source is pinned, by the lock or by the Dockerfile itself.
    pub fn is_known(&self, source: &CopySource) -> bool {
        self.known(source).is_some()
    }

    /// What a source stands for, as far as that is known; none for what is not fetched.
    pub(crate) fn known(&self, source: &CopySource) -> Option<Pin> {
        let checksum = match source {
            CopySource::Url(UrlSource { sha256: Some(digest), .. }) => return Some(Pin::File(*digest)),
            CopySource::Git(GitSource { reference: Some(id), .. }) if is_commit(id) => {
                return Some(Pin::Commit(Commit { id: id.clone(), tag: None }));
            }
            CopySource::Git(GitSource { checksum, .. }) => checksum.as_deref(),
            _ => None,
        };
        let name = source.name()?;
        let pin = self.pins.get(&name).cloned().or_else(|| self.found().get(&name).cloned())?;
        let is_right = match (source, &pin) {
            (CopySource::Url(_), Pin::File(_)) => true,
            // A Dockerfile that names another commit by now has the last word.
            (CopySource::Git(_), Pin::Commit(commit)) => commit.id.starts_with(checksum.unwrap_or_default()),
            _ => false,
        };
        is_right.then_some(pin)
    }

    /// What a source stands for. Fetches, or asks for, what has no pin.
    pub(crate) fn learn(
        &self,
        source: &CopySource,
        is_cancelled: &(dyn Fn() -> bool + Sync),
        on_line: &dyn Fn(&str),
    ) -> Result<(), Error> {
        let Some(name) = source.name() else { return Ok(()) };
        let turn = self.turn(&name);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (pin, is_new) = match (self.known(source), source) {
            (Some(pin), _) => (pin, false),
            (None, CopySource::Url(url)) => {
                (Pin::File(self.download(url, None, is_cancelled, on_line)?.0), true)
            }
            (None, CopySource::Git(git)) => {
                on_line(&format!("asking for {name}"));
                (Pin::Commit(Git::new(&self.network, is_cancelled).resolve(git)?), true)
            }
            (None, CopySource::Path(_) | CopySource::Below { .. }) => return Ok(()),
        };
        // What the Dockerfile says of a file is compared when that is fetched.
        if let (CopySource::Git(GitSource { checksum: Some(expected), .. }), Pin::Commit(commit)) =
            (source, &pin)
            && !commit.id.starts_with(expected)
        {
            return Err(Error::Commit { name, expected: expected.clone(), found: commit.id.clone() });
        }
        if is_new {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(name, pin);
        }
        Ok(())
    }

    /// A source itself, whose pin is known; none for what is not fetched.
    pub(crate) fn fetch(
        &self,
        source: &CopySource,
        is_cancelled: &(dyn Fn() -> bool + Sync),
        on_line: &dyn Fn(&str),
    ) -> Result<Option<Fetched>, Error> {
        let (Some(name), Some(pin)) = (source.name(), self.known(source)) else { return Ok(None) };
        let turn = self.turn(&name);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match (source, pin) {
            (CopySource::Url(url), Pin::File(digest)) => {
                Some(Fetched::File(match self.store.download(&digest)? {
                    Some(path) => path,
                    None => self.download(url, Some(digest), is_cancelled, on_line)?.1,
                }))
            }
            (CopySource::Git(git), Pin::Commit(commit)) => {
                Some(Fetched::Commit(self.checkout(git, &commit, is_cancelled, on_line)?))
            }
            _ => None,
        })
    }

    /// The files of a commit as a layer, from the store if it is there. It is in no image: what is copied from it is.
    fn checkout(
        &self,
        source: &GitSource,
        commit: &Commit,
        is_cancelled: &(dyn Fn() -> bool + Sync),
        on_line: &dyn Fn(&str),
    ) -> Result<Option<DiffId>, Error> {
        let name = source.name();
        // With `.git`, the layer says where it came from.
        let kept = source.keep_git_dir.then(|| (without_credentials(&source.remote), &commit.tag));
        let key = Digest::of(
            format!(
                "git checkout {CHECKOUT_VERSION} {} submodules {} kept {kept:?}",
                commit.id, source.submodules
            )
            .as_bytes(),
        );
        if let Some(value) = self.store.cache(&key)?
            && let Ok(layer) = serde_json::from_slice::<Option<DiffId>>(&value)
            && layer.as_ref().is_none_or(|layer| self.store.has_layer(layer))
        {
            layer.iter().for_each(|layer| self.store.use_layer(layer));
            return Ok(layer);
        }
        on_line(&format!("fetching {name} at the commit {}", commit.id));
        let draft = self.store.draft_layer()?;
        let work = draft.path().join("git");
        let files = work.join("files");
        std::fs::create_dir_all(&files).map_err(io_error(&files))?;
        Git::new(&self.network, is_cancelled).checkout(source, commit, &work, &files)?;
        // Git is a process of the user's, who may not write where the files go.
        for entry in std::fs::read_dir(&files).map_err(io_error(&files))? {
            let entry = entry.map_err(io_error(&files))?;
            let path = draft.upper().join(entry.file_name());
            std::fs::rename(entry.path(), &path).map_err(io_error(&path))?;
        }
        // Nothing of it is left out: the rules are for what commands write.
        let layer = draft.commit(&CommitRules { keep_nondeterminism: true, ..CommitRules::default() })?;
        self.store.put_cache(&key, &serde_json::to_vec(&layer).expect("plain data"))?;
        Ok(layer)
    }

    /// Fetches a file into the store.
    fn download(
        &self,
        source: &UrlSource,
        expected: Option<Digest>,
        is_cancelled: &(dyn Fn() -> bool + Sync),
        on_line: &dyn Fn(&str),
    ) -> Result<(Digest, PathBuf), Error> {
        let name = source.name();
        on_line(&format!("fetching {name}"));
        let mut draft = self.store.draft_download()?;
        let fetched = Transport::new(&self.network).pieces(&source.url, &mut |piece| {
            if is_cancelled() {
                return Err(std::io::Error::other("given up"));
            }
            match piece {
                Piece::Start => draft.restart(),
                Piece::Bytes(bytes) => draft.write(bytes),
            }
            .map_err(std::io::Error::other)
        });
        let size = fetched?;
        let found = draft.digest();
        on_line(&format!("{size} bytes, {found}"));
        match expected {
            Some(expected) if expected != found && source.sha256.is_some() => {
                Err(Error::Checksum { name, expected, found })
            }
            Some(expected) if expected != found => Err(Error::Moved { name, expected, found }),
            _ => Ok((found, draft.publish()?)),
        }
    }

    /// Held while this name is fetched.
    fn turn(&self, name: &str) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(busy.entry(name.to_owned()).or_default())
    }
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> ibid_fetch::Error + use<> {
    let path = path.to_owned();
    move |source| ibid_fetch::Error::Io { path, source }
}
