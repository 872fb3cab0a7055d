//! What code ran: the identity of a codebase, the name of a run, the records of all runs, and whether a repeated run gave the same.

mod alive;
pub mod assembly;
pub mod causes;
pub mod code;
pub mod data;
pub mod host;
pub mod ledger;
pub mod log;
pub mod metrics;
mod numbers;
mod objects;
pub mod outputs;
pub mod parameters;
pub mod record;
pub mod recording;
pub mod research_object;
pub mod run_archive;
pub mod run_id;
pub mod secrets;
pub mod snapshot;
pub mod tolerance;
pub mod verdict;
