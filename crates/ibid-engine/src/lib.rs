//! Image and run spec to exit status. The engine here is ibid's own, [`native`].

pub mod attach;
mod container;
pub mod hidden;
pub mod identity;
pub mod live;
pub mod native;
pub mod relay;
mod shell;
mod terminfo;
