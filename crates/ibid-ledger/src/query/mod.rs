//! Questions about runs: what a key of a run means, and conditions over keys.

pub mod filter;
pub mod key;
