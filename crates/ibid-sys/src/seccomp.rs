//! Installing a seccomp filter, and answering the calls that it hands on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// As [`install`], and gives the end at which calls are heard that the filter answers with `SECCOMP_RET_USER_NOTIF`.
/// A process has at most one such filter: `EBUSY` when it has one already.
pub fn install_with_listener(program: &[Instruction]) -> Result<Listener, Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let request = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: as in `install`; the result is a new descriptor of ours.
    unsafe {
        let result = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const request,
        );
        if result < 0 {
            return Err(last_errno());
        }
        let listener = Listener(OwnedFd::from_raw_fd(result as i32));
        // Kernels before 6.6 know no such flag, and wake whoever hears on another processor.
        let _slower = libc::ioctl(listener.0.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP);
        Ok(listener)
    }
}

/// Hears system calls of processes under a filter, and answers them.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A system call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Names it to [`Listener::answer`].
    pub id: u64,
    /// The thread that makes it, as the listener's process counts.
    pub thread: u32,
    /// The call's number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What a call gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// What the kernel does with it.
    Kernel,
    /// This value.
    Value(i64),
    /// This error.
    Error(Errno),
}

/// `SECCOMP_IOCTL_NOTIF_…` (linux/seccomp.h).
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const IS_VALID: libc::c_ulong = 0x4008_2102;
const ADD_DESCRIPTOR: libc::c_ulong = 0x4018_2103;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
const CONTINUE: u32 = 1;
/// Who makes a call waits for who answers it, so the two take turns on one processor.
const SYNC_WAKE_UP: libc::c_ulong = 1;

impl Listener {
    /// The next call. None when no process is left that could make one.
    pub fn next(&self) -> Result<Option<Call>, Errno> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
            if !ready[0].revents().contains(PollFlags::IN) {
                return Ok(None);
            }
            // SAFETY: all zeros is a value of this structure of numbers, and what the kernel wants to find.
            let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the structure is the one that this request writes.
            let result = unsafe { libc::ioctl(self.0.as_raw_fd(), RECEIVE as _, &raw mut call) };
            if result < 0 {
                match last_errno() {
                    // The caller was killed meanwhile.
                    Errno::INTR | Errno::NOENT => continue,
                    errno => return Err(errno),
                }
            }
            return Ok(Some(Call {
                id: call.id,
                thread: call.pid,
                number: call.data.nr.into(),
                arguments: call.data.args,
            }));
        }
    }

    /// Whether the call still waits: its thread's id means it and nobody else.
    pub fn waits(&self, call: &Call) -> bool {
        // SAFETY: the request reads one number.
        unsafe { libc::ioctl(self.0.as_raw_fd(), IS_VALID as _, &raw const call.id) == 0 }
    }

    /// Gives the caller a copy of an open file, which is what its call is answered with then.
    pub fn answer_with_file(
        &self,
        call: &Call,
        file: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> Result<Answer, Errno> {
        let request = libc::seccomp_notif_addfd {
            id: call.id,
            flags: 0,
            srcfd: file.as_raw_fd() as u32,
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: the structure is the one that this request reads.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), ADD_DESCRIPTOR as _, &raw const request) };
        if result < 0 { Err(last_errno()) } else { Ok(Answer::Value(result.into())) }
    }

    /// Answers a call. That its caller has gone meanwhile is no error.
    pub fn answer(&self, call: &Call, answer: Answer) -> Result<(), Errno> {
        let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Kernel => response.flags = CONTINUE,
            Answer::Value(value) => response.val = value,
            Answer::Error(errno) => response.error = -errno.raw_os_error(),
        }
        // SAFETY: the structure is the one that this request reads.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SEND as _, &raw mut response) };
        match result {
            0.. => Ok(()),
            _ => match last_errno() {
                Errno::NOENT => Ok(()),
                errno => Err(errno),
            },
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}
