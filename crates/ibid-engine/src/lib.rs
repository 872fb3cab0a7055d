//! Image and run spec to exit status. The engine here is ibid's own, [`native`].

pub mod identity;
pub mod native;
pub mod relay;
