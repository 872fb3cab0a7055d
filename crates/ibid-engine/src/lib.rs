//! Image and run spec to exit status: by ibid's own engine, [`native`], or by Docker or Podman, [`remote`].

mod container;
mod engine;
pub mod hidden;
pub mod identity;
pub mod native;
pub mod relay;
pub mod remote;

pub use engine::Engine;
