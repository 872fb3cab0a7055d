//! What a person lends to the steps that ask for it: secrets, and agents that hold keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// What a build may lend, by the names that mounts use.
#[derive(Debug, Default)]
pub struct Credentials {
    /// Secrets.
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of agents.
    pub agents: BTreeMap<String, PathBuf>,
}

/// Bytes that are shown to nobody but the step that mounts them.
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps it.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
