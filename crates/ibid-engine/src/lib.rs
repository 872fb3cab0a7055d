//! Image and run spec to exit status: by ibid's own engine, [`native`], or by Docker or Podman, [`remote`].

pub mod attach;
mod container;
mod engine;
pub mod hidden;
pub mod identity;
pub mod live;
pub mod native;
pub mod relay;
pub mod remote;
mod shell;
mod terminfo;

pub use engine::Engine;
