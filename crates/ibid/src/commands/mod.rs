//! One file a verb.

pub mod build;
pub mod dev;
pub mod doctor;
pub mod images;
pub mod run;
pub mod save;
