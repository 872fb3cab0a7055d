//! One file a verb.

pub mod build;
pub mod context;
pub mod dev;
pub mod diff_images;
pub mod doctor;
pub mod gc;
pub mod images;
pub mod inspect;
pub mod load;
pub mod login;
pub mod logs;
pub mod pull;
pub mod push;
pub mod rmi;
pub mod run;
pub mod save;
pub mod store;
pub mod tag;
