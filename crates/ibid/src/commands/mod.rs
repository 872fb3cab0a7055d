//! One file a verb.

pub mod build;
pub mod context;
pub mod dev;
pub mod doctor;
pub mod gc;
pub mod images;
pub mod login;
pub mod pull;
pub mod push;
pub mod run;
pub mod save;
