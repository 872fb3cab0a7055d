//! What code ran: the identity of a codebase, the name of a run, and the records of all runs.

pub mod code;
pub mod index;
pub mod ledger;
pub mod marks;
pub mod query;
pub mod record;
pub mod removed;
pub mod run_id;
pub mod selection;
pub mod summary;
