//! Folders of the host: opening what is in them through no link, listing them in parallel, and remembering what their files
//! held, so that only what has changed is read again. Decides nothing about which files matter.

pub mod beneath;
pub mod folder_cache;
pub mod parallel;
pub mod stamp;
pub mod stat_cache;
