//! The user namespace in which a user without root may mount and change owners.
//!
//! This process enters it in place, so nothing waits around it. `newuidmap` and `newgidmap` must be run from outside, so their
//! processes are made before:
//!
//! ```text
//! this process                     newuidmap, newgidmap (outside)
//! ────────────                     ──────────────────────────────
//! clone, clone ──────────────────→ each waits on a pipe
//! unshare(user)
//! writes a byte to each ─────────→ execute, and map
//! waits for both ←──────────────── end
//! ```
//!
//! One mapping, always: the user is themself on both sides; the other ids of the container, in order, are
//! the user's subordinate ids, in order. So files of the user, and files of the user's id in an image, are
//! the same files, whatever the id.
//!
//! A user without subordinate ids, or without the programs that map them, gets a namespace in which there is no other
//! id ([`only_id`]). Then [`ibid_sys::owner`] keeps the owners of files.

mod map;
mod nested;

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ibid_sys::Errno;
use ibid_sys::exec::CStrings;
use ibid_sys::held::{self, Held};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities};

pub(crate) use map::{Range, subordinate};
pub(crate) use nested::swapped;

/// Why there is no user namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host does not let this user make one.
    #[error("this host forbids user namespaces: {obstacle}")]
    Forbidden {
        /// What forbids it.
        obstacle: Obstacle,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The user has no subordinate ids.
    #[error("`{user}` has no subordinate ids in `{file}`")]
    NoSubordinateIds {
        /// The user.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// A range of ids that nobody has there: first, and last.
        free: (u32, u32),
    },
    /// A program that maps subordinate ids is missing.
    #[error("`{program}` is not installed")]
    NoMapper {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
    },
    /// The ids were not mapped.
    #[error("subordinate ids could not be mapped: {message}")]
    MapRefused {
        /// What `newuidmap` or `newgidmap` said.
        message: String,
    },
    /// This process has no entry in the system's list of users.
    #[error("user id {uid} has no name on this host")]
    NoName {
        /// Its id.
        uid: u32,
    },
    /// Called too late.
    #[error("a user namespace must be entered before any thread is started")]
    Threads,
    /// Something else failed.
    #[error("cannot {step}")]
    System {
        /// What.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What can forbid user namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's kernels).
    UnprivilegedUsernsClone,
    /// `user.max_user_namespaces` is 0 (Red Hat's old default).
    MaxUserNamespaces,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu).
    AppArmor,
    /// A seccomp filter, as in a Docker container.
    Seccomp,
    /// The kernel was built without them.
    Kernel,
    /// Nothing that is known here; perhaps a `chroot` or a security module.
    Unknown,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnprivilegedUsernsClone => "the setting kernel.unprivileged_userns_clone is 0",
            Self::MaxUserNamespaces => "the setting user.max_user_namespaces is 0",
            Self::AppArmor => "the setting kernel.apparmor_restrict_unprivileged_userns is 1",
            Self::Seccomp => "a seccomp filter refuses them, as in a container of Docker",
            Self::Kernel => "the kernel has none (CONFIG_USER_NS)",
            Self::Unknown => "the kernel refuses, perhaps because of a chroot or a security module",
        })
    }
}

impl Obstacle {
    /// The command that takes it away, where there is one.
    pub fn mend(self) -> Option<String> {
        let command = match self {
            Self::UnprivilegedUsernsClone => "sudo sysctl -w kernel.unprivileged_userns_clone=1",
            Self::MaxUserNamespaces => "sudo sysctl -w user.max_user_namespaces=15000",
            Self::AppArmor => "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            Self::Seccomp => {
                "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined …"
            }
            Self::Kernel | Self::Unknown => return None,
        };
        Some(command.to_owned())
    }

    /// What forbids user namespaces here, after the kernel answered `errno`.
    pub(crate) fn find(errno: Errno) -> Self {
        let setting = |path: &str| {
            fs::read_to_string(Path::new("/proc/sys").join(path)).ok().map(|text| text.trim().to_owned())
        };
        if setting("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
            Self::UnprivilegedUsernsClone
        } else if setting("user/max_user_namespaces").as_deref() == Some("0") {
            Self::MaxUserNamespaces
        } else if setting("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
            Self::AppArmor
        } else if errno == Errno::INVAL {
            Self::Kernel
        } else if seccomp_filtered() {
            Self::Seccomp
        } else {
            Self::Unknown
        }
    }
}

/// True when a seccomp filter watches this process.
pub(crate) fn seccomp_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

impl Error {
    /// The command that mends it, where there is one.
    pub fn mend(&self) -> Option<String> {
        match self {
            Self::Forbidden { obstacle, .. } => obstacle.mend(),
            Self::NoSubordinateIds { user, free: (first, last), .. } => {
                Some(format!("sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}"))
            }
            Self::NoMapper { .. } => Some(install_mappers()),
            Self::MapRefused { .. } | Self::NoName { .. } | Self::Threads | Self::System { .. } => None,
        }
    }
}

/// The command that installs `newuidmap`.
pub(crate) fn install_mappers() -> String {
    install("uidmap", "shadow-utils", "shadow")
}

/// The command that installs a package, by this host's package manager: by its name in Debian, in Fedora, and in others.
pub(crate) fn install(debian: &str, fedora: &str, other: &str) -> String {
    let has = |program: &str| Path::new("/usr/bin").join(program).exists();
    if has("dnf") {
        format!("sudo dnf install {fedora}")
    } else if has("zypper") || has("pacman") {
        format!("sudo zypper install {other} || sudo pacman -S {other}")
    } else {
        format!("sudo apt-get install {debian}")
    }
}

/// What this process must be able to do.
const NEEDED: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETPCAP);

/// Makes this process able to change owners, and to mount in namespaces of its own: for a user without these capabilities it enters,
/// in place, a user namespace that maps the user to themself and all other ids to subordinate ones. The
/// process keeps its user id, its process id and its files. Without need it does nothing. Call it first in `main`, after
/// [`crate::stage_main_if_asked`] and before any thread.
pub fn ensure() -> Result<(), Error> {
    begin()?.finish()
}

/// The first half of [`ensure`]: what takes longest goes on beside this process, which may meanwhile read files and
/// compute, but not write, mount or start anything before [`Entering::finish`].
pub fn begin() -> Result<Entering, Error> {
    // Kept from here on: until the ids are mapped, the kernel has no number for them.
    let (uid, gid) = host_ids();
    if capable() {
        return Ok(Entering(State::Capable));
    }
    let mut state = match subordinate(uid) {
        Ok(ids) => {
            let (uids, gids) = (map::lines(uid, &ids.uids), map::lines(gid, &ids.gids));
            match Mappers::new(&uids, &gids) {
                Ok(mappers) => State::Mapping(mappers),
                Err(reason @ Error::NoMapper { .. }) => State::Alone(reason),
                Err(error) => return Err(error),
            }
        }
        Err(reason) => State::Alone(reason),
    };
    let leave = |namespaces: UnshareFlags| ibid_sys::clone::leave_shared(namespaces.bits() as i32);
    leave(UnshareFlags::NEWUSER).map_err(|errno| match errno {
        Errno::INVAL if threads() > 1 => Error::Threads,
        errno => Error::Forbidden { obstacle: Obstacle::find(errno), source: errno.into() },
    })?;
    match &mut state {
        State::Mapping(mappers) => mappers.go()?,
        _ => map_alone(uid, gid).map_err(|errno| Error::System {
            step: "map the own id in a user namespace",
            source: errno.into(),
        })?,
    }
    // The cheapest thing that needs a capability: AppArmor lets the namespace be made and then denies them.
    leave(UnshareFlags::NEWUTS)
        .map_err(|errno| Error::Forbidden { obstacle: Obstacle::find(errno), source: errno.into() })?;
    Ok(Entering(state))
}

/// A user namespace whose ids are being mapped.
#[must_use = "the ids are not mapped before `finish`"]
pub struct Entering(State);

enum State {
    /// None was needed.
    Capable,
    /// Many ids are being mapped.
    Mapping(Mappers),
    /// One is mapped, for this reason.
    Alone(Error),
}

impl Entering {
    /// Waits until the ids are mapped.
    pub fn finish(self) -> Result<(), Error> {
        let reason = match self.0 {
            State::Capable => return Ok(()),
            State::Mapping(mappers) => match mappers.finish() {
                Ok(()) => None,
                Err(reason @ (Error::NoMapper { .. } | Error::MapRefused { .. })) => {
                    let (uid, gid) = host_ids();
                    // Half of a map can be there: then this is refused, and there is no way on.
                    if map_alone(uid, gid).is_err() {
                        return Err(reason);
                    }
                    Some(reason)
                }
                Err(error) => return Err(error),
            },
            State::Alone(reason) => Some(reason),
        };
        if let Some(reason) = reason {
            ibid_sys::owner::keep_beside(host_ids().0);
            // Entered once.
            let _ = ONLY_ID.set(reason);
        }
        ENTERED.store(true, Ordering::Relaxed);
        Ok(())
    }
}

static ENTERED: AtomicBool = AtomicBool::new(false);
static ONLY_ID: OnceLock<Error> = OnceLock::new();

/// Why the namespace that [`ensure`] made knows one id only; none when it knows many, or was not needed.
pub fn only_id() -> Option<&'static Error> {
    ONLY_ID.get()
}

/// True when [`ensure`] made the namespace that this process is in.
pub fn entered() -> bool {
    ENTERED.load(Ordering::Relaxed)
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// True when this process may mount and change owners.
pub(crate) fn capable() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(NEEDED))
}

/// The user and group ids of the person who runs this process: the same on both sides of [`ensure`].
pub fn host_ids() -> (u32, u32) {
    static IDS: OnceLock<(u32, u32)> = OnceLock::new();
    *IDS.get_or_init(|| (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()))
}

/// In a fresh user namespace without maps: maps the user, and nobody else, to themself.
pub(crate) fn map_alone(uid: u32, gid: u32) -> Result<(), Errno> {
    ibid_sys::clone::map_own_ids((uid, gid), (uid, gid))
}

/// True when this process is in a user namespace that is not the host's own. The answer is kept: ask after
/// [`ensure`].
pub fn inside() -> bool {
    static INSIDE: OnceLock<bool> = OnceLock::new();
    *INSIDE.get_or_init(|| {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_whitespace().ne(["0", "0", "4294967295"])
    })
}

/// The programs outside that map the ids of this process.
struct Mappers {
    programs: [(&'static str, Held); 2],
    /// What goes wrong.
    complaints: OwnedFd,
}

impl Mappers {
    fn new(uids: &[map::Extent], gids: &[map::Extent]) -> Result<Self, Error> {
        let system = |step| move |errno: Errno| Error::System { step, source: errno.into() };
        let (complaints, complain) = pipe_with(PipeFlags::CLOEXEC).map_err(system("make a pipe"))?;
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(system("open /dev/null"))?;
        let process = rustix::process::getpid().as_raw_nonzero();
        let held = |name: &'static CStr, extents: &[map::Extent]| {
            let program = name.to_str().expect("plain letters");
            let path = held::find(name).ok_or(Error::NoMapper { program })?;
            let numbers = extents.iter().flat_map(|extent| [extent.inside, extent.outside, extent.count]);
            let words =
                [program.to_owned(), process.to_string()].into_iter().chain(numbers.map(|it| it.to_string()));
            let words = words.map(|word| CString::new(word).expect("no zero bytes")).collect();
            let nothing = CStrings::new(Vec::new());
            let held = Held::new(path, CStrings::new(words), nothing, null.as_fd(), complain.as_fd());
            Ok((program, held.map_err(system("start a process"))?))
        };
        let programs = [held(c"newuidmap", uids)?, held(c"newgidmap", gids)?];
        Ok(Self { programs, complaints })
    }

    fn go(&mut self) -> Result<(), Error> {
        let system = |errno: Errno| Error::System { step: "start newuidmap", source: errno.into() };
        self.programs.iter_mut().try_for_each(|(_, program)| program.go().map_err(system))
    }

    fn finish(self) -> Result<(), Error> {
        let system = |step| move |source: io::Error| Error::System { step, source };
        let mut message = String::new();
        fs::File::from(self.complaints)
            .read_to_string(&mut message)
            .map_err(system("read what newuidmap says"))?;
        let mut refused = false;
        for (program, held) in self.programs {
            let status = held.wait().map_err(|errno| system("wait for newuidmap")(errno.into()))?;
            match status.exit_status() {
                Some(0) => {}
                Some(held::NOT_EXECUTED) => return Err(Error::NoMapper { program }),
                _ => refused = true,
            }
        }
        if !refused {
            return Ok(());
        }
        let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Err(Error::MapRefused { message: lines.join("; ") })
    }
}
