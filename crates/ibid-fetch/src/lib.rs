//! Getting what lies elsewhere, as this machine reaches other computers, through its proxies and with the certificates
//! that it trusts: files by `http`, `https` and `file`, and commits of git repositories.
//!
//! Nothing that comes is believed here: whoever asks knows the digest, verifies a signature, or writes down what came.

mod agent;
mod error;
pub mod git;
mod network;
mod proxied;
mod transport;

pub use agent::Trust;
pub use error::Error;
pub use network::Network;
pub use transport::{Piece, Transport, join, local_path, redirected};
