//! What code ran: the identity of a codebase, the name of a run, and the records of all runs.

mod alive;
pub mod code;
pub mod code_diff;
pub mod data;
pub mod difference;
pub mod host;
pub mod index;
pub mod ledger;
pub mod log;
pub mod marks;
pub mod metrics;
mod objects;
pub mod outputs;
pub mod parameters;
pub mod query;
pub mod record;
pub mod recording;
pub mod removed;
pub mod run_id;
pub mod secrets;
pub mod selection;
pub mod snapshot;
pub mod summary;
