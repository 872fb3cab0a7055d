//! Executes a build plan: cache lookup, steps in the sandbox, layer commit.

mod agent;
pub mod archive;
pub mod build;
mod cancel;
pub mod context;
pub mod copy;
mod credentials;
mod explain;
pub mod exported_cache;
pub mod image_diff;
mod inputs;
mod key;
pub mod mounts;
pub mod packages;
pub mod record;
pub mod remote;
mod run_step;
pub mod unwanted;
pub mod verify;

pub use build::{
    BaseImage, Built, Error, Event, MadeLayer, NoCache, Request, StepError, StepName, build,
    built_environment,
};
pub use credentials::{Credentials, Secret};
pub use explain::Explanations;
