//! The loop of edit and run: `ibid run --watch`, `ibid dev`, and many runs at once, on every level of privilege that this
//! machine can provide (`docs/privileges.md`).

mod crowd;
mod shell;
mod site;
mod watching;
