//! Answers a program's calls about owners and ids, where one id is mapped.
//!
//! The kernel would refuse to give a file to a user whom it has no id for, or to become that user. So the program's filter
//! hands such calls on to its starter, in a thread of which they are answered as they would be with many ids:
//!
//! | `chown` and its kin | the owner is kept beside the file, see [`ibid_sys::owner`] |
//! | `stat` and its kin | with the owner that is kept; the kernel answers when that is what it knows |
//! | `open`, `mkdir` and their kin | by the kernel, unless the process has become another user: then what is made is that user's |
//! | `setuid`, `getuid` and their kin | each process has the ids that it would have, see [`ids`] |
//!
//! It is no protection, and need not be: whatever the program believes to be, to the host it is the user. What is read
//! from the program's memory can change right after, and nothing worse follows than a wrong answer.
//!
//! One thing differs from the kernel's own doing: a process that has become another user may still do all that its
//! namespace's root may.

mod files;
pub(crate) mod ids;
mod make;

use std::path::PathBuf;
use std::thread::JoinHandle;

use ibid_sys::seccomp::{Answer, Call, Listener};
use ibid_sys::{Errno, memory, owner};

use crate::error::Error;
use crate::spec::{Rootfs, Spec};
use files::Files;
use ids::{Ids, Processes};
use make::Make;

/// Answers until nobody is left who could ask.
pub(crate) fn answer(listener: Listener, spec: &Spec) -> Result<JoinHandle<()>, Error> {
    let upper: Option<PathBuf> = match &spec.rootfs {
        Rootfs::Overlay(overlay) => overlay.upper.as_ref().map(|upper| upper.upper.clone()),
        Rootfs::Folder(folder) => Some(folder.clone()),
    };
    let ids = Ids::of(spec.uid, spec.gid, spec.groups.clone());
    let mut answers = Answers {
        listener,
        maker: (spec.uid, spec.gid),
        files: Files::new(upper),
        processes: Processes::new(ids),
    };
    let thread = std::thread::Builder::new().name("owners".to_owned()).spawn(move || answers.serve());
    thread.map_err(|source| Error::Setup { step: "start a thread".to_owned(), path: None, source })
}

struct Answers {
    listener: Listener,
    /// Whose the kernel says all files are.
    maker: owner::Owner,
    files: Files,
    processes: Processes,
}

impl Answers {
    fn serve(&mut self) {
        // When the listener fails, the calls fail too (`ENOSYS`), and the program with them: it says so itself.
        while let Ok(Some(call)) = self.listener.next() {
            let answer = self.call(&call).unwrap_or_else(Answer::Error);
            if self.listener.answer(&call, answer).is_err() {
                return;
            }
        }
    }

    fn call(&mut self, call: &Call) -> Result<Answer, Errno> {
        let [first, second, third, fourth, fifth, _] = call.arguments;
        // What the kernel takes as an `int` or an id.
        let [low, low_second, low_third, low_fourth] = [first, second, third, fourth].map(|it| it as u32);
        let here = files::HERE;
        match call.number {
            #[cfg(target_arch = "x86_64")]
            numbers::CHOWN => self.change(call, here, first, (low_second, low_third), true),
            #[cfg(target_arch = "x86_64")]
            numbers::LCHOWN => self.change(call, here, first, (low_second, low_third), false),
            numbers::FCHOWN => self.change_open(call, low as i32, (low_second, low_third)),
            numbers::FCHOWNAT => {
                let (owner, flags) = ((low_third, low_fourth), fifth as u32);
                if flags & !(files::NO_FOLLOW | files::EMPTY_PATH) != 0 {
                    return Err(Errno::INVAL);
                }
                if flags & files::EMPTY_PATH != 0 && memory::read_text(call.thread, second)?.is_empty() {
                    return self.change_open(call, low as i32, owner);
                }
                self.change(call, low as i32, second, owner, flags & files::NO_FOLLOW == 0)
            }
            #[cfg(target_arch = "x86_64")]
            numbers::STAT => self.status(call, here, first, second, 0),
            #[cfg(target_arch = "x86_64")]
            numbers::LSTAT => self.status(call, here, first, second, files::NO_FOLLOW),
            numbers::FSTAT => self.status(call, low as i32, 0, second, files::EMPTY_PATH),
            numbers::NEWFSTATAT => self.status(call, low as i32, second, third, low_fourth),
            numbers::STATX => self.extended_status(call, low as i32, second, low_third, low_fourth, fifth),
            #[cfg(target_arch = "x86_64")]
            numbers::OPEN => self.make(call, here, first, &Make::file(low_second, low_third)),
            numbers::OPENAT => self.make(call, low as i32, second, &Make::file(low_third, low_fourth)),
            #[cfg(target_arch = "x86_64")]
            numbers::CREAT => self.make(call, here, first, &Make::file(make::CREAT_FLAGS, low_second)),
            #[cfg(target_arch = "x86_64")]
            numbers::MKDIR => self.make(call, here, first, &Make::Folder { mode: low_second }),
            numbers::MKDIRAT => self.make(call, low as i32, second, &Make::Folder { mode: low_third }),
            #[cfg(target_arch = "x86_64")]
            numbers::MKNOD => self.make(call, here, first, &Make::Node { mode: low_second }),
            numbers::MKNODAT => self.make(call, low as i32, second, &Make::Node { mode: low_third }),
            #[cfg(target_arch = "x86_64")]
            numbers::SYMLINK => self.make(call, here, second, &Make::Link { target: first }),
            numbers::SYMLINKAT => self.make(call, low_second as i32, third, &Make::Link { target: first }),
            _ => self.processes.call(call, &self.listener),
        }
    }

    /// Gives what is at a path another owner.
    fn change(
        &mut self,
        call: &Call,
        folder: i32,
        path: u64,
        new: owner::Owner,
        follow: bool,
    ) -> Result<Answer, Errno> {
        let path = memory::read_text(call.thread, path)?;
        match self.files.at(call.thread, folder, &path, follow) {
            Ok(file) => self.give(call, &file, new),
            Err(files::NotFound::Is(errno)) => Err(errno),
            // The kernel finds it, and refuses what it must.
            Err(files::NotFound::HereOnly) => Ok(Answer::Kernel),
        }
    }

    fn change_open(&mut self, call: &Call, descriptor: i32, new: owner::Owner) -> Result<Answer, Errno> {
        let file = self.files.open_in(call.thread, descriptor)?;
        self.give(call, &file, new)
    }

    fn give(&mut self, call: &Call, file: &files::File, new: owner::Owner) -> Result<Answer, Errno> {
        if !self.listener.waits(call) {
            return Ok(Answer::Kernel);
        }
        let old = self.files.owner(file, self.maker)?.unwrap_or(self.maker);
        let keep = |new: u32, old: u32| if new == u32::MAX { old } else { new };
        let owner = (keep(new.0, old.0), keep(new.1, old.1));
        if !self.processes.ids_of(call.thread).may_give(old, owner) {
            return Err(Errno::PERM);
        }
        self.files.give(file, owner, self.maker)?;
        Ok(Answer::Value(0))
    }

    fn status(
        &mut self,
        call: &Call,
        folder: i32,
        path: u64,
        into: u64,
        flags: u32,
    ) -> Result<Answer, Errno> {
        let Some((file, owner)) = self.kept_owner(call, folder, path, flags) else {
            return Ok(Answer::Kernel);
        };
        let bytes = memory::status(file.as_fd(), owner)?;
        self.tell(call, into, &bytes)
    }

    fn extended_status(
        &mut self,
        call: &Call,
        folder: i32,
        path: u64,
        flags: u32,
        mask: u32,
        into: u64,
    ) -> Result<Answer, Errno> {
        let Some((file, owner)) = self.kept_owner(call, folder, path, flags) else {
            return Ok(Answer::Kernel);
        };
        let bytes = memory::extended_status(file.as_fd(), flags & files::SYNC, mask, owner)?;
        self.tell(call, into, &bytes)
    }

    /// What is asked about, where its owner is another one than the kernel says. What cannot be found out is the kernel's.
    fn kept_owner(
        &mut self,
        call: &Call,
        folder: i32,
        path: u64,
        flags: u32,
    ) -> Option<(files::File, owner::Owner)> {
        let path = match path {
            0 => Vec::new(),
            path => memory::read_text(call.thread, path).ok()?,
        };
        let file = if path.is_empty() {
            if flags & files::EMPTY_PATH == 0 {
                return None;
            }
            self.files.open_in(call.thread, folder).ok()?
        } else {
            self.files.at(call.thread, folder, &path, flags & files::NO_FOLLOW == 0).ok()?
        };
        let owner = self.files.owner(&file, self.maker).ok()??;
        (owner != self.maker).then_some((file, owner))
    }

    fn tell(&self, call: &Call, into: u64, bytes: &[u8]) -> Result<Answer, Errno> {
        if self.listener.waits(call) {
            memory::write(call.thread, into, bytes)?;
        }
        Ok(Answer::Value(0))
    }
}

/// Numbers of the calls that are handed on (`CHANGES_OWNERS` and `ASKS_FOR_OWNERS` of the filter).
mod numbers {
    macro_rules! numbers {
        ($($name:ident $x86_64:tt $aarch64:tt)*) => {
            $(number! { $name $x86_64 $aarch64 })*
        };
    }
    #[cfg(target_arch = "x86_64")]
    macro_rules! number {
        ($name:ident _ $aarch64:tt) => {};
        ($name:ident $x86_64:tt $aarch64:tt) => {
            pub(super) const $name: i64 = $x86_64;
        };
    }
    #[cfg(not(target_arch = "x86_64"))]
    macro_rules! number {
        ($name:ident $x86_64:tt _) => {};
        ($name:ident $x86_64:tt $aarch64:tt) => {
            pub(super) const $name: i64 = $aarch64;
        };
    }
    numbers! {
        CHOWN 92 _
        LCHOWN 94 _
        FCHOWN 93 55
        FCHOWNAT 260 54
        STAT 4 _
        LSTAT 6 _
        FSTAT 5 80
        NEWFSTATAT 262 79
        STATX 332 291
        SETUID 105 146
        SETGID 106 144
        SETREUID 113 145
        SETREGID 114 143
        SETRESUID 117 147
        SETRESGID 119 149
        SETFSUID 122 151
        SETFSGID 123 152
        SETGROUPS 116 159
        GETUID 102 174
        GETEUID 107 175
        GETGID 104 176
        GETEGID 108 177
        GETRESUID 118 148
        GETRESGID 120 150
        GETGROUPS 115 158
        PRCTL 157 167
        OPEN 2 _
        OPENAT 257 56
        CREAT 85 _
        MKDIR 83 _
        MKDIRAT 258 34
        MKNOD 133 _
        MKNODAT 259 33
        SYMLINK 88 _
        SYMLINKAT 266 36
    }
}
