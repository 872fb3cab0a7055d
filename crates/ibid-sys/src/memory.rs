//! The memory of another process, and files' status as the bytes that a program gets.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::{Errno, last_errno};

/// Reads from `address` on. Fewer bytes than asked for means that the process has no more there.
pub fn read(process: u32, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: into.len() };
    // SAFETY: `local` is a buffer of ours; the kernel checks the other process's addresses.
    let result = unsafe {
        libc::process_vm_readv(process as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0)
    };
    usize::try_from(result).map_err(|_| last_errno())
}

/// Writes all of `bytes` at `address`.
pub fn write(process: u32, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: `local` is only read; the kernel checks the other process's addresses. Memory of this process is not
    // changed, as `process` must be another one.
    let result = unsafe {
        if process == std::process::id() {
            return Err(Errno::INVAL);
        }
        libc::process_vm_writev(process as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0)
    };
    match usize::try_from(result) {
        Ok(count) if count == bytes.len() => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(_) => Err(last_errno()),
    }
}

/// A text that ends with a zero byte, at most `LONGEST` bytes.
pub fn read_text(process: u32, address: u64) -> Result<Vec<u8>, Errno> {
    const LONGEST: usize = 4096;
    const PAGE: u64 = 4096;
    let mut text = Vec::new();
    let mut at = address;
    let mut page = [0; PAGE as usize];
    loop {
        // Not beyond the end of a page: the next one may be nobody's.
        let length = (PAGE - at % PAGE) as usize;
        let count = read(process, at, &mut page[..length])?;
        if let Ok(found) = CStr::from_bytes_until_nul(&page[..count]) {
            text.extend_from_slice(found.to_bytes());
            return if text.len() < LONGEST { Ok(text) } else { Err(Errno::NAMETOOLONG) };
        }
        text.extend_from_slice(&page[..count]);
        if text.len() >= LONGEST {
            return Err(Errno::NAMETOOLONG);
        }
        if count < length {
            return Err(Errno::FAULT);
        }
        at += length as u64;
    }
}

/// Bytes of a `struct stat`, and where user and group are in it.
#[cfg(target_arch = "x86_64")]
const STATUS: (usize, usize, usize) = (144, 28, 32);
#[cfg(not(target_arch = "x86_64"))]
const STATUS: (usize, usize, usize) = (128, 24, 28);

/// `struct stat` of an open file, as the kernel writes it, with another owner.
pub fn status(file: BorrowedFd<'_>, (uid, gid): (u32, u32)) -> Result<Vec<u8>, Errno> {
    let (length, uid_at, gid_at) = STATUS;
    let mut bytes = vec![0u8; length];
    // SAFETY: the buffer has the size of the structure that the kernel writes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_newfstatat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            bytes.as_mut_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    if result < 0 {
        return Err(last_errno());
    }
    bytes[uid_at..uid_at + 4].copy_from_slice(&uid.to_ne_bytes());
    bytes[gid_at..gid_at + 4].copy_from_slice(&gid.to_ne_bytes());
    Ok(bytes)
}

/// `struct statx` of an open file, as the kernel writes it, with another owner.
pub fn extended_status(
    file: BorrowedFd<'_>,
    flags: u32,
    mask: u32,
    (uid, gid): (u32, u32),
) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0u8; 256];
    let flags = flags & !(libc::AT_SYMLINK_NOFOLLOW as u32) | libc::AT_EMPTY_PATH as u32;
    // SAFETY: the buffer has the size of the structure that the kernel writes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            mask,
            bytes.as_mut_ptr(),
        )
    };
    if result < 0 {
        return Err(last_errno());
    }
    bytes[20..24].copy_from_slice(&uid.to_ne_bytes());
    bytes[24..28].copy_from_slice(&gid.to_ne_bytes());
    Ok(bytes)
}
