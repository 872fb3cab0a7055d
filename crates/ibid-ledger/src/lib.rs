//! What code ran: the identity of a codebase, the name of a run, and the records of all runs.

pub mod code;
pub mod ledger;
pub mod log;
pub mod metrics;
pub mod record;
pub mod run_id;
