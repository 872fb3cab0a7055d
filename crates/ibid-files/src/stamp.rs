//! The marks by which a change of a file is noticed without reading it.

use rustix::fs::Stat;

/// Length of a stamp in a cache.
pub(crate) const STAMP_BYTES: usize = 40;

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

    /// As caches keep it: size, both times, inode and device, little endian.
    pub(crate) fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        let fields = [
            self.size.to_le_bytes(),
            self.modified_ns.to_le_bytes(),
            self.changed_ns.to_le_bytes(),
            self.inode.to_le_bytes(),
            self.device.to_le_bytes(),
        ];
        for (to, field) in bytes.chunks_exact_mut(8).zip(fields) {
            to.copy_from_slice(&field);
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; STAMP_BYTES]) -> Self {
        let field = |number: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[number * 8..][..8]);
            field
        };
        Self {
            size: u64::from_le_bytes(field(0)),
            modified_ns: i64::from_le_bytes(field(1)),
            changed_ns: i64::from_le_bytes(field(2)),
            inode: u64::from_le_bytes(field(3)),
            device: u64::from_le_bytes(field(4)),
        }
    }
}
