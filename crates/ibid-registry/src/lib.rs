//! A client of image registries, as the OCI distribution specification and Docker's before it define them: pull, push,
//! and what people have set up for both.
//!
//! | module | its part |
//! |---|---|
//! | `settings`, `configuration`, `certificates`, `credentials` | what the machine and the person have set up |
//! | `endpoint` | one server: TLS or not, who asks, redirections, what is tried again |
//! | `challenge`, `token`, `retry` | how a server wants to be asked, and when again |
//! | `image` | manifests and indexes → the manifest of one platform |
//! | `repository` | manifests and blobs by name |
//! | `download` | a layer's blob → the store, while it comes; goes on where it broke off |
//! | `upload` | a blob → the registry; goes on where it broke off |
//! | `pull`, `push` | whole images |
//! | `known` | what a store remembers of registries; all of it can be lost |
//!
//! Nothing that a registry says is believed: manifests, configurations and layers are what their digests say, sizes are
//! those of their descriptors, layers those of their diff ids, and nothing is visible in the store before that is known.
//! What a registry can make this client do is bounded: documents have limits, tries and redirections are counted, and
//! credentials go to no host but the registry's own and the token service that it names.
//!
//! Blocking, on threads. Nothing here writes to the terminal: what happens is told as [`Event`]s.

mod certificates;
mod challenge;
mod client;
mod configuration;
mod credential_helper;
mod credentials;
mod download;
mod endpoint;
mod error;
mod image;
mod known;
mod pull;
mod push;
mod repository;
mod retry;
mod settings;
mod token;
mod upload;

pub use client::{Client, Event};
pub use credentials::{Credential, Secret};
pub use error::Error;
pub use image::Platform;
pub use known::manifest_of;
pub use pull::Pulled;
pub use push::{Arrival, PushOptions, Pushed, PushedLayer};
pub use repository::Repository;
pub use settings::Settings;
