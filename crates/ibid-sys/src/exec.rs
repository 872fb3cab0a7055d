//! Executing another program.

use std::ffi::{CStr, CString};

use crate::{Errno, last_errno};

/// Texts for `execve`, with the array of pointers it wants, made before anything may fail.
#[derive(Debug)]
pub struct CStrings {
    pointers: Vec<*const libc::c_char>,
    // The pointers above point into these; they are never changed.
    _texts: Vec<CString>,
}

impl CStrings {
    /// Takes the texts over.
    pub fn new(texts: Vec<CString>) -> Self {
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _texts: texts }
    }

    pub(crate) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// Sets a limit of this process by the kernel's number (setrlimit(2)): what holds, and what it can be raised to.
pub fn limit(resource: u8, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one `rlimit`, which lives through the call.
    let result = unsafe { libc::setrlimit(libc::__rlimit_resource_t::from(resource), &raw const limit) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// How many limits of a process the kernel knows, numbered from 0.
pub const LIMITS: u8 = 16;

/// A limit of a process by the kernel's number (prlimit(2)), of this one for none: what holds, and what it can be raised to.
pub fn limit_of(process: Option<u32>, resource: u8) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let process = process.map_or(Ok(0), |process| process.try_into().map_err(|_| Errno::SRCH))?;
    // SAFETY: nothing is set; the kernel writes one `rlimit`, which lives through the call.
    let result = unsafe {
        libc::prlimit(process, libc::__rlimit_resource_t::from(resource), std::ptr::null(), &raw mut limit)
    };
    if result < 0 { Err(last_errno()) } else { Ok((limit.rlim_cur, limit.rlim_max)) }
}

/// Becomes the program at `path`. Returns only when that fails.
pub fn execute(path: &CStr, argv: &CStrings, env: &CStrings) -> Errno {
    // SAFETY: all three are valid and end as `execve` expects.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    last_errno()
}
