//! Owners of files, where the disk can hold them and where it cannot.
//!
//! As root, and in a user namespace with many ids, an owner is an owner. Where one id is mapped, all files on disk are the
//! user's, and the owner that a file has in its image is kept beside it:
//!
//! | a file or folder | in its attribute `user.ibid.owner`, as `UID:GID` |
//! | a link, pipe, socket or device, which can have no such attribute | in this process's memory, until its layer is made |
//!
//! Where many are mapped, an image can still name ids beyond them, such as those of another institute's directory service. On disk, [`NOBODY`]
//! stands for each of them, and the owner is kept in the same ways.
//!
//! So the attribute moves with a file, whether it is renamed, linked, or copied up by an overlay. What has neither was made
//! by a process in a container and belongs to whoever that ran as.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Gid, Stat, Uid, XattrFlags};
use rustix::path::Arg;

use crate::Errno;

/// The attribute's name.
pub const ATTRIBUTE: &str = "user.ibid.owner";

/// User and group id.
pub type Owner = (u32, u32);

/// Stands for a user, or group, that the user namespace has no id for; the number by which the kernel shows such ids, too.
const NOBODY: u32 = 65_534;

/// The one mapped user id; the highest number, which nobody can have, where there are many.
static ONLY_UID: AtomicU32 = AtomicU32::new(u32::MAX);

/// What can have no attribute, by its inode's number.
static OTHERS: Mutex<Option<HashMap<Inode, Owner>>> = Mutex::new(None);

/// An inode. Layers lie on one file system, and overlays of them, though they are devices of their own, show its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inode {
    /// Of a layer, a draft, or an overlay of them.
    OfLayers(u64),
    /// Of another file system: its device, and the number.
    Elsewhere(u64, u64),
}

/// From now on only `uid` is mapped, to itself.
pub fn keep_beside(uid: u32) {
    ONLY_UID.store(uid, Ordering::Relaxed);
}

/// The one mapped user id; none where files have their owners on disk.
pub fn only_uid() -> Option<u32> {
    Some(ONLY_UID.load(Ordering::Relaxed)).filter(|uid| *uid != u32::MAX)
}

/// Gives an open file or folder an owner. Set-user-id bits and capabilities may go.
pub fn change(file: impl AsFd, (uid, gid): Owner) -> Result<(), Errno> {
    if only_uid().is_some() {
        return rustix::fs::fsetxattr(file, ATTRIBUTE, &text((uid, gid)), XattrFlags::empty());
    }
    let file = file.as_fd();
    let change = |(uid, gid)| rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match change((uid, gid)) {
        Err(Errno::INVAL) => {
            with_stand_in((uid, gid), change)?;
            rustix::fs::fsetxattr(file, ATTRIBUTE, &text((uid, gid)), XattrFlags::empty())
        }
        result => result,
    }
}

/// Whether a file whose owner nobody gave it, and whose status this is, has this owner on disk: then there is none to give.
pub fn is_on_disk(status: &Stat, owner: Owner) -> bool {
    only_uid().is_none() && (status.st_uid, status.st_gid) == owner
}

/// Changes an owner that has no ids here to one that stands for it.
fn with_stand_in((uid, gid): Owner, change: impl Fn(Owner) -> Result<(), Errno>) -> Result<(), Errno> {
    let stand_ins = [(uid, NOBODY), (NOBODY, gid), (NOBODY, NOBODY)];
    let tried = stand_ins.into_iter().map(change).find(|result| *result != Err(Errno::INVAL));
    tried.unwrap_or(Err(Errno::INVAL))
}

/// Whether the owner of a file with these ids on disk may be kept beside it: then [`in_layer`] knows more than its status.
pub fn needs_more_than(uid: u32, gid: u32) -> bool {
    only_uid().is_some() || uid == NOBODY || gid == NOBODY
}

/// The owner for whom somebody may stand.
fn behind_stand_in(path: impl Arg, status: &Stat) -> Result<Owner, Errno> {
    let on_disk = (status.st_uid, status.st_gid);
    if !needs_more_than(on_disk.0, on_disk.1) {
        return Ok(on_disk);
    }
    let kept = match holds_attribute(status) {
        true => read(path)?,
        false => remembered(Inode::OfLayers(status.st_ino)),
    };
    Ok(kept.unwrap_or(on_disk))
}

/// Gives what is at `name` an owner, a link itself.
pub fn change_at(folder: impl AsFd, name: impl Arg + Copy, owner: Owner) -> Result<(), Errno> {
    if only_uid().is_none() {
        let folder = folder.as_fd();
        let change = |(uid, gid)| {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        };
        match change(owner) {
            Err(Errno::INVAL) => with_stand_in(owner, change)?,
            result => return result,
        }
    }
    let status = rustix::fs::statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    if !holds_attribute(&status) {
        remember(Inode::OfLayers(status.st_ino), owner);
        return Ok(());
    }
    mark(folder, name, owner)
}

/// Writes an owner beside what is at `name`, which is not followed.
pub fn mark(folder: impl AsFd, name: impl Arg, owner: Owner) -> Result<(), Errno> {
    rustix::fs::lsetxattr(in_folder(folder, name)?, ATTRIBUTE, &text(owner), XattrFlags::empty())
}

/// As [`change_at`], by a path of this process.
pub fn change_path(path: &Path, owner: Owner) -> Result<(), Errno> {
    change_at(rustix::fs::CWD, path, owner)
}

/// The owner that was given to a file; none when it is who made it. `path` is not followed; `status` is the file's.
/// What was held in memory is forgotten.
pub fn take(path: impl Arg, status: &Stat) -> Result<Option<Owner>, Errno> {
    if only_uid().is_none() {
        return behind_stand_in(path, status).map(Some);
    }
    if holds_attribute(status) {
        return read(path);
    }
    let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(others.as_mut().and_then(|others| others.remove(&Inode::OfLayers(status.st_ino))))
}

/// As [`take`], of what is in a layer: what nobody gave an owner is root's. Nothing is forgotten.
pub fn in_layer(path: impl Arg, status: &Stat) -> Result<Owner, Errno> {
    if only_uid().is_none() {
        return behind_stand_in(path, status);
    }
    if holds_attribute(status) {
        return Ok(read(path)?.unwrap_or((0, 0)));
    }
    Ok(remembered(Inode::OfLayers(status.st_ino)).unwrap_or((0, 0)))
}

/// The attribute of the file at `path`, which is not followed.
pub fn read(path: impl Arg) -> Result<Option<Owner>, Errno> {
    let mut buffer = [0; 32];
    match rustix::fs::lgetxattr(path, ATTRIBUTE, &mut buffer) {
        Ok(length) => Ok(parse(&buffer[..length])),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Holds the owner of what can have no attribute.
pub fn remember(inode: Inode, owner: Owner) {
    let mut others = OTHERS.lock().unwrap_or_else(PoisonError::into_inner);
    others.get_or_insert_default().insert(inode, owner);
}

/// The owner that is held for an inode.
pub fn remembered(inode: Inode) -> Option<Owner> {
    OTHERS.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&inode).copied()
}

/// Whether this is a file or folder: others can have no attribute of a user's.
pub fn holds_attribute(status: &Stat) -> bool {
    use rustix::fs::FileType;
    matches!(FileType::from_raw_mode(status.st_mode), FileType::RegularFile | FileType::Directory)
}

/// The attribute's value.
pub fn text((uid, gid): Owner) -> Vec<u8> {
    format!("{uid}:{gid}").into_bytes()
}

/// What a value of the attribute says. Anything could have been written there.
pub fn parse(value: &[u8]) -> Option<Owner> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// A name of an entry for calls that take a path, however deep its folder is.
fn in_folder(folder: impl AsFd, name: impl Arg) -> Result<Vec<u8>, Errno> {
    let name = name.into_c_str()?;
    if name.to_bytes().starts_with(b"/") || folder.as_fd().as_raw_fd() == rustix::fs::CWD.as_raw_fd() {
        return Ok(name.to_bytes().to_vec());
    }
    let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    Ok(path)
}

/// Values of `security.capability` (linux/capability.h): the second version grants its capabilities in all namespaces,
/// the third, which has the id of a namespace's root at its end, in that namespace.
const VERSION_MASK: u32 = 0xff00_0000;
const SECOND: u32 = 0x0200_0000;
const THIRD: u32 = 0x0300_0000;
const SECOND_BYTES: usize = 20;

/// A value of `security.capability` of an image, as the disk takes it.
pub fn capability_for_disk(value: &[u8]) -> Vec<u8> {
    match (only_uid(), version(value)) {
        (Some(uid), Some(SECOND)) if value.len() == SECOND_BYTES => {
            [&with_version(value, THIRD)[..], &uid.to_le_bytes()].concat()
        }
        _ => value.to_vec(),
    }
}

/// A value of `security.capability` on disk, as an image has it.
pub fn capability_in_image(value: &[u8]) -> Vec<u8> {
    match (only_uid(), version(value)) {
        (Some(_), Some(THIRD)) if value.len() == SECOND_BYTES + 4 => {
            with_version(&value[..SECOND_BYTES], SECOND)
        }
        _ => value.to_vec(),
    }
}

fn version(value: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(value.get(..4)?.try_into().ok()?) & VERSION_MASK)
}

fn with_version(value: &[u8], version: u32) -> Vec<u8> {
    let flags = u32::from_le_bytes([value[0], value[1], value[2], value[3]]) & !VERSION_MASK;
    [&(flags | version).to_le_bytes()[..], &value[4..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_an_owner_or_nothing() {
        let check = |value: &[u8], expected| assert_eq!(parse(value), expected, "{value:?}");
        check(b"0:0", Some((0, 0)));
        check(&text((1000, 4_000_000_000)), Some((1000, 4_000_000_000)));
        for value in [&b""[..], b"1", b"1:", b":1", b"-1:0", b"1:4294967296", b"1:2:3", b"\xff:1"] {
            check(value, None);
        }
    }
}
