//! What `ADD` fetches: kept in the store by content, and pinned, so that the same build gets the same bytes.
//!
//! A pin is what a lock says that a name stands for. What has none gets one when it is first fetched; what has one is
//! taken from the store or, when it is not there, fetched and refused if it is something else by now.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ibid_core::digest::Digest;
use ibid_core::plan::CopySource;
use ibid_core::remote::UrlSource;
use ibid_fetch::{Network, Piece, Transport};
use ibid_store::Store;

use crate::cancel::Cancellation;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// The digest of a file.
    File(Digest),
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(digest) => digest.fmt(f),
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
    /// The build ended meanwhile.
    #[error("the build was cancelled")]
    Cancelled,
}

/// Something that was fetched.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// A file of the store.
    File(PathBuf),
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

    /// What a source stands for, as far as that is known; none for what is not fetched.
    pub(crate) fn known(&self, source: &CopySource) -> Option<Pin> {
        if let CopySource::Url(UrlSource { sha256: Some(digest), .. }) = source {
            return Some(Pin::File(*digest));
        }
        let name = source.name()?;
        self.pins.get(&name).cloned().or_else(|| self.found().get(&name).cloned())
    }

    /// What a source stands for. Fetches what has no pin.
    pub(crate) fn learn(
        &self,
        source: &CopySource,
        cancellation: &Cancellation,
        on_line: &dyn Fn(&str),
    ) -> Result<Option<Pin>, Error> {
        let CopySource::Url(url) = source else { return Ok(None) };
        if let Some(pin) = self.known(source) {
            return Ok(Some(pin));
        }
        let name = url.name();
        let turn = self.turn(&name);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pin) = self.known(source) {
            return Ok(Some(pin));
        }
        let (digest, _) = self.download(url, None, cancellation, on_line)?;
        let pin = Pin::File(digest);
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(name, pin.clone());
        Ok(Some(pin))
    }

    /// A source itself, whose pin is known; none for what is not fetched.
    pub(crate) fn fetch(
        &self,
        source: &CopySource,
        cancellation: &Cancellation,
        on_line: &dyn Fn(&str),
    ) -> Result<Option<Fetched>, Error> {
        let (CopySource::Url(url), Some(Pin::File(digest))) = (source, self.known(source)) else {
            return Ok(None);
        };
        let turn = self.turn(&url.name());
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let path = match self.store.download(&digest)? {
            Some(path) => path,
            None => self.download(url, Some(digest), cancellation, on_line)?.1,
        };
        Ok(Some(Fetched::File(path)))
    }

    /// Fetches a file into the store.
    fn download(
        &self,
        source: &UrlSource,
        expected: Option<Digest>,
        cancellation: &Cancellation,
        on_line: &dyn Fn(&str),
    ) -> Result<(Digest, PathBuf), Error> {
        let name = source.name();
        on_line(&format!("fetching {name}"));
        let mut draft = self.store.draft_download()?;
        let fetched = Transport::new(&self.network).pieces(&source.url, &mut |piece| {
            if cancellation.is_cancelled() {
                return Err(std::io::Error::other("the build was cancelled"));
            }
            match piece {
                Piece::Start => draft.restart(),
                Piece::Bytes(bytes) => draft.write(bytes),
            }
            .map_err(std::io::Error::other)
        });
        let size = match fetched {
            Err(_) if cancellation.is_cancelled() => return Err(Error::Cancelled),
            fetched => fetched?,
        };
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

    fn turn(&self, name: &str) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(busy.entry(name.to_owned()).or_default())
    }
}
