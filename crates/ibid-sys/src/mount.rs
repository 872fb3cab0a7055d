//! `mount_setattr(2)`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::{Errno, last_errno};

/// Attributes of a mount (`MOUNT_ATTR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Refuses writing.
    pub read_only: bool,
    /// Ignores set-user-id bits and file capabilities.
    pub no_suid: bool,
    /// Refuses opening device nodes.
    pub no_devices: bool,
    /// Refuses executing.
    pub no_exec: bool,
}

impl Attributes {
    fn bits(self) -> u64 {
        [
            (self.read_only, libc::MOUNT_ATTR_RDONLY),
            (self.no_suid, libc::MOUNT_ATTR_NOSUID),
            (self.no_devices, libc::MOUNT_ATTR_NODEV),
            (self.no_exec, libc::MOUNT_ATTR_NOEXEC),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |bits, (_, bit)| bits | bit)
    }
}

/// Adds attributes to the mount that `mount` refers to, and with `recursive` to all mounts below it.
/// `user_namespace` turns it into an idmapped mount with that namespace's maps; the mount must then be
/// detached.
pub fn set_attributes(
    mount: impl AsFd,
    attributes: Attributes,
    recursive: bool,
    user_namespace: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let request = libc::mount_attr {
        attr_set: attributes.bits() | if user_namespace.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 },
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, the request lives through the call, its size is right.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const request,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}
