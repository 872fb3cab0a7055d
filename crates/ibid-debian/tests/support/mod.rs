//! Signed archives, keys and packages made for tests.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod deb;
pub mod keys;
pub mod mirror;
