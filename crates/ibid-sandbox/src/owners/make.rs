//! What a process makes that has become another user.

use std::fs;
use std::os::fd::AsFd as _;

use ibid_sys::seccomp::{Answer, Call};
use ibid_sys::{Errno, memory};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, mkdirat, mknodat, openat, statat, symlinkat};

use super::Answers;
use super::files::File;

/// What `creat` opens with.
#[cfg(target_arch = "x86_64")]
pub(super) const CREAT_FLAGS: u32 = OFlags::CREATE.union(OFlags::WRONLY).union(OFlags::TRUNC).bits();

/// What is to be made; modes are less the umask.
pub(super) enum Make {
    File {
        flags: OFlags,
        mode: u32,
    },
    Folder {
        mode: u32,
    },
    /// With the type of the file in its mode.
    Node {
        mode: u32,
    },
    /// Where it points is in the process's memory.
    Link {
        target: u64,
    },
}

impl Make {
    pub(super) fn file(flags: u32, mode: u32) -> Self {
        Self::File { flags: OFlags::from_bits_retain(flags), mode }
    }
}

impl Answers {
    /// Lets the kernel make it, unless it would belong to somebody else then. Where anything is unusual, it is the kernel's
    /// too, since it knows the error.
    pub(super) fn make(&mut self, call: &Call, folder: i32, path: u64, make: &Make) -> Result<Answer, Errno> {
        let maker = self.processes.ids_of(call.thread).maker();
        if maker == self.maker {
            return Ok(Answer::Kernel);
        }
        let path = memory::read_text(call.thread, path)?;
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let (parent, name) = match path[..end].iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..=slash], &path[slash + 1..end]),
            None => (&b"."[..], &path[..end]),
        };
        if name.is_empty() || name == b"." || name == b".." {
            return Ok(Answer::Kernel);
        }
        let Ok(folder) = self.files.at(call.thread, folder, parent, true) else { return Ok(Answer::Kernel) };
        let is_free = statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).err() == Some(Errno::NOENT);
        if !is_free || !self.listener.waits(call) {
            return Ok(Answer::Kernel);
        }
        if !make.perform(call.thread, &folder, name)? {
            return Ok(Answer::Kernel);
        }
        let place =
            openat(folder.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let made = File::new(place)?;
        let gid = match self.files.owner(&folder, self.maker)? {
            Some((_, gid)) if folder.sets_group() => gid,
            _ => maker.1,
        };
        self.files.give(&made, (maker.0, gid), self.maker)?;
        match make {
            Make::File { flags, .. } if flags.contains(OFlags::EXCL) => {
                let rest = *flags - OFlags::CREATE - OFlags::EXCL - OFlags::TRUNC;
                let opened =
                    openat(folder.as_fd(), name, rest | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                self.listener.answer_with_file(call, opened.as_fd(), flags.contains(OFlags::CLOEXEC))
            }
            // There is a file now, and the kernel opens it.
            Make::File { .. } => Ok(Answer::Kernel),
            _ => Ok(Answer::Value(0)),
        }
    }
}

impl Make {
    /// Makes it. False when the kernel had better say what becomes of it.
    fn perform(&self, thread: u32, folder: &File, name: &[u8]) -> Result<bool, Errno> {
        let at = folder.as_fd();
        // This process's own umask is no matter: the mode is set afterwards.
        let mode = match self {
            Self::File { mode, .. } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(at, name, flags, Mode::RUSR | Mode::WUSR)?;
                *mode
            }
            Self::Folder { mode } => {
                mkdirat(at, name, Mode::RWXU)?;
                *mode
            }
            Self::Node { mode } => {
                let kind = FileType::from_raw_mode(*mode);
                if !matches!(kind, FileType::Fifo | FileType::Socket | FileType::RegularFile) {
                    return Ok(false);
                }
                mknodat(at, name, kind, Mode::RUSR | Mode::WUSR, 0)?;
                *mode
            }
            Self::Link { target } => {
                let target = memory::read_text(thread, *target)?;
                symlinkat(target.as_slice(), at, name)?;
                return Ok(true);
            }
        };
        let made = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let inherited = Mode::from_raw_mode(made.st_mode) & Mode::SGID;
        let asked = Mode::from_raw_mode(mode & 0o7777 & !umask(thread));
        chmodat(at, name, asked | inherited, AtFlags::empty())?;
        Ok(true)
    }
}

fn umask(thread: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}
