//! What code ran: the identity of a codebase, and the name of a run.

pub mod code;
pub mod run_id;
