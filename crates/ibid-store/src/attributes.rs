//! Extended attributes: those that travel with a layer, and overlay's own.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;

use ibid_sys::owner;
use rustix::io::Errno;

use crate::{Error, Result};

/// Set to `y` on a folder that hides what lower layers have in it (overlay mounted with `userxattr`).
pub(crate) const OPAQUE: &str = "user.overlay.opaque";
/// On an empty regular file that stands for a whiteout.
const WHITEOUT: &[u8] = b"user.overlay.whiteout";
const OVERLAY_PREFIX: &[u8] = b"user.overlay.";
/// File capabilities.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// The attributes of a file or folder.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// Those that travel with the layer.
    pub(crate) kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The folder is opaque.
    pub(crate) opaque: bool,
    /// The file stands for a whiteout.
    pub(crate) whiteout: bool,
    /// Overlay's notes on where a copy came from: without meaning in a lower layer.
    pub(crate) stale: Vec<Vec<u8>>,
}

/// Whether an attribute travels with a layer: file capabilities, and users' own. Others are the host's (SELinux labels)
/// or a mount's (overlay's marks). An owner has fields of its own. A name with `=` fits in no archive.
pub(crate) fn travels(name: &[u8]) -> bool {
    (name == CAPABILITY || (name.starts_with(b"user.") && !name.starts_with(OVERLAY_PREFIX)))
        && name != owner::ATTRIBUTE.as_bytes()
        && !name.contains(&b'=')
}

/// Reads the attributes of the file at `path`, of a link itself. `shown` names it in errors.
pub(crate) fn read(path: &CStr, shown: &Path) -> Result<Attributes> {
    let mut attributes = Attributes::default();
    let names = match names(path) {
        Ok(names) => names,
        // A file system without extended attributes has none.
        Err(Errno::OPNOTSUPP) => return Ok(attributes),
        Err(errno) => return Err(Error::io("list the attributes of", shown)(errno)),
    };
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if travels(name) {
            let mut value = value(path, name).map_err(Error::io("read an attribute of", shown))?;
            if name == CAPABILITY {
                value = owner::capability_in_image(&value);
            }
            attributes.kept.insert(name.to_vec(), value);
        } else if name == OPAQUE.as_bytes() {
            let value = value(path, name).map_err(Error::io("read an attribute of", shown))?;
            if value == b"y" {
                attributes.opaque = true;
            } else {
                attributes.stale.push(name.to_vec());
            }
        } else if name == WHITEOUT {
            attributes.whiteout = true;
        } else if name.starts_with(OVERLAY_PREFIX) {
            attributes.stale.push(name.to_vec());
        }
    }
    Ok(attributes)
}

/// The same of an entry of an open folder, by a path that cannot be too long.
pub(crate) fn read_at(folder: impl AsFd, name: &[u8], shown: &Path) -> Result<Attributes> {
    let path = [format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).as_bytes(), name].concat();
    read(&CString::new(path).expect("a name in a folder holds no NUL"), shown)
}

fn names(path: &CStr) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = [0; 256];
    match rustix::fs::llistxattr(path, &mut buffer) {
        Ok(length) => return Ok(buffer[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice())?;
    names.truncate(length);
    Ok(names)
}

fn value(path: &CStr, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; 64 << 10];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice())?;
    value.truncate(length);
    value.shrink_to_fit();
    Ok(value)
}
