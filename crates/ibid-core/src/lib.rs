//! The pure core of ibid: no I/O, no clock, no randomness.
//!
//! Deciding happens here and ends at plain data: the build [`plan::Plan`], image configurations, and
//! digests. Performing that data is the work of the crates above.

pub mod cdi;
pub mod csv;
pub mod digest;
pub mod dockerfile;
pub mod dockerignore;
pub mod gitignore;
pub mod glob;
pub mod gpus;
pub mod image;
pub mod manifest;
pub mod mode;
pub mod plan;
pub mod platform;
pub mod proxy;
pub mod reference;
pub mod remote;
pub mod run;
pub mod scrub;
pub mod time;
pub mod user;
pub mod yaml;
