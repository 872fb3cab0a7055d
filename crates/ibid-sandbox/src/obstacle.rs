//! What stands behind an answer of the kernel that says too little, in the places where people meet it: containers in which
//! ibid itself is.

use std::io;
use std::path::Path;

use ibid_sys::Errno;

use crate::spec::Overlay;
use crate::userns::seccomp_filtered;

/// `OVERLAYFS_SUPER_MAGIC` (linux/magic.h).
const OVERLAY: u32 = 0x794c_7630;

/// The system's error, or a longer one that says why and what mends it.
pub(crate) fn explained(step: &str, errno: Errno) -> io::Error {
    let reason = match (step, errno) {
        ("mount proc", Errno::PERM) => {
            "part of `/proc` is hidden here, as in a container of Docker, and then the kernel allows no other one \
             (`docker run --security-opt systempaths=unconfined …` hides nothing)"
        }
        (_, Errno::PERM) if seccomp_filtered() => {
            "a seccomp filter refuses it, as in a container of Docker (`docker run --security-opt seccomp=unconfined …` has none)"
        }
        _ => return errno.into(),
    };
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// The same of mounting layers.
pub(crate) fn explained_overlay(overlay: &Overlay, errno: Errno) -> io::Error {
    let upper = overlay.upper.as_ref().map(|upper| upper.upper.as_path());
    match upper.filter(|upper| is_overlay(upper)) {
        Some(upper) if errno == Errno::INVAL => io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "`{}` lies on an overlay itself, as a container's own files do, and the kernel writes to no overlay \
                 through another one (`docker run -v NAME:/store -e XDG_DATA_HOME=/store …` keeps images on a disk)",
                upper.display()
            ),
        ),
        _ => explained("", errno),
    }
}

/// Whether a folder lies on an overlay.
pub(crate) fn is_overlay(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|found| found.f_type as u32 == OVERLAY)
}
