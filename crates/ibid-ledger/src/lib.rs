//! What code ran: the identity of a codebase, the name of a run, the records of all runs, and whether a repeated run gave the same.

pub mod causes;
pub mod code;
pub mod ledger;
mod numbers;
pub mod record;
pub mod research_object;
pub mod run_id;
pub mod tolerance;
pub mod verdict;
