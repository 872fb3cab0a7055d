//! Executes a build plan: cache lookup, steps in the sandbox, layer commit.

pub mod archive;
pub mod build;
pub mod context;
pub mod copy;
mod key;
pub mod record;
mod run_step;

pub use build::{BaseImage, Built, Error, Event, Request, StepError, StepName, build, built_environment};
