//! What code ran: the identity of a codebase, the name of a run, and the records of all runs.

mod alive;
pub mod code;
pub mod data;
pub mod host;
pub mod ledger;
pub mod log;
pub mod metrics;
mod objects;
pub mod outputs;
pub mod parameters;
pub mod record;
pub mod recording;
pub mod run_id;
pub mod secrets;
pub mod snapshot;
