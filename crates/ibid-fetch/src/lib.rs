//! Getting what lies elsewhere: files by `http`, `https` and `file`, as this machine reaches other computers, through its
//! proxies and with the certificates that it trusts.
//!
//! Nothing that comes is believed here: whoever asks knows the digest, verifies a signature, or writes down what came.

mod error;
mod network;
mod proxied;
mod transport;

pub use error::Error;
pub use network::Network;
pub use transport::{Piece, Transport, join, local_path};
