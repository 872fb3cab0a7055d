//! What code ran: the identity of a codebase, the name of a run, and the records of all runs.

pub mod code;
pub mod ledger;
mod objects;
pub mod record;
pub mod run_id;
pub mod snapshot;
