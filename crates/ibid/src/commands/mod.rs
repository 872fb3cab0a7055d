//! One file a verb.

pub mod build;
pub mod checkout;
pub mod context;
pub mod dev;
pub mod diff;
mod diff_images;
mod diff_runs;
pub mod doctor;
pub mod gc;
pub mod images;
pub mod inspect;
pub mod load;
pub mod login;
pub mod logs;
pub mod marks;
pub mod plot;
pub mod pull;
pub mod push;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod runs;
pub mod save;
pub mod show;
pub mod store;
pub mod tag;
