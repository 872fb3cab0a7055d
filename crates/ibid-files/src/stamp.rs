//! The marks by which a change of a file is noticed without reading it.

use rustix::fs::Stat;

/// What changes when a file changes. Times in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Of the content, as programs may set it.
    pub modified_ns: i64,
    /// Of the content or the attributes, as only the kernel sets it.
    pub changed_ns: i64,
    /// Number of the inode.
    pub inode: u64,
    /// Number of the file system.
    pub device: u64,
}

impl Stamp {
    /// The stamp in what the kernel says of a file.
    pub fn of(stat: &Stat) -> Self {
        // Years beyond what 64 bits hold wrap around: a stamp is only compared.
        let nanoseconds = |s: i64, ns: u64| s.wrapping_mul(1_000_000_000).wrapping_add(ns as i64);
        Self {
            size: stat.st_size as u64,
            modified_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            inode: stat.st_ino,
            device: stat.st_dev,
        }
    }
}
