//! Whichever engine executes a run.

use ibid_core::digest::Digest;
use ibid_core::run::RunSpec;
use ibid_sandbox::trust::HostTrust;
use ibid_store::Store;

use crate::identity::HostUser;
use crate::native::{self, Ended, OnCopy, Watch};
use crate::remote;

/// What executes a run.
#[derive(Debug, Clone)]
pub enum Engine {
    /// ibid itself.
    Native,
    /// Docker or Podman.
    Remote {
        /// The engine, which answers.
        engine: Box<remote::Engine>,
        /// What it calls the project's images.
        name: remote::Name,
    },
}

impl Engine {
    /// As records name it.
    pub fn text(&self) -> String {
        match self {
            Self::Native => "native".to_owned(),
            Self::Remote { engine, .. } => engine.text(),
        }
    }

    /// Whether the engine has to be given the image first, which may take its time.
    pub fn lacks(&self, store: &Store, image: &Digest) -> Result<bool, native::Error> {
        match self {
            Self::Native => Ok(false),
            Self::Remote { engine, name } => engine.lacks(store, image, name),
        }
    }

    /// Executes a run to its end. Nothing runs in the container when this returns. Without a watch, the program writes to
    /// this process's own streams.
    pub fn run(
        &self,
        store: &Store,
        spec: &RunSpec,
        host: &HostUser,
        trust: &HostTrust,
        on_copy: OnCopy<'_>,
        watch: Option<Watch<'_>>,
    ) -> Result<Ended, native::Error> {
        match self {
            Self::Native => native::run(store, spec, host, trust, on_copy, watch),
            Self::Remote { engine, name } => engine.run(store, spec, name, host, trust, watch),
        }
    }
}
