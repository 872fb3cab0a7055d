//! Installing a seccomp filter.

use crate::{Errno, last_errno};

/// One instruction of classic BPF, as the kernel's `sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a test holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// The operation's constant.
    pub constant: u32,
}

/// Filters all later system calls of this thread and its children. It needs `no_new_privs` or
/// `CAP_SYS_ADMIN`. The kernel checks the program before it takes it.
pub fn install(program: &[Instruction]) -> Result<(), Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let request = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `Instruction` has the layout of `sock_filter`; the kernel reads `len` of them and writes
    // nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0 as libc::c_ulong,
            &raw const request,
        )
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}
