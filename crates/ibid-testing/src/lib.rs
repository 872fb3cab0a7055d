//! Hermetic test environments and probes of the host. Not published.
//!
//! A test says what it needs of the host and returns when that is missing:
//!
//! ```no_run
//! use ibid_testing::{Need, need};
//!
//! if !need(&[Need::Root, Need::Overlay]) {
//!     return;
//! }
//! ```

mod docker_registry;
mod git;
mod need;
mod place;
mod program;
mod registry;
mod rootfs;
mod user;

pub use docker_registry::{DockerRegistry, REGISTRY_USER, RegistryAccess};
pub use git::{GitRepository, GitServer};
pub use need::{Need, busybox, need, rocrate_python};
pub use place::Place;
pub use program::copy_program;
pub use registry::{Access, Deed, RegistryRequest, TestRegistry};
pub use rootfs::TinyRoot;
pub use user::OrdinaryUser;
