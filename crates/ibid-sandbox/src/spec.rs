//! What a container is to be, as plain data.

use std::fmt;
use std::path::PathBuf;

/// One container: its root file system, what is mounted into it, and the program it runs.
///
/// Paths on the host are absolute [`PathBuf`]s; paths in the container are absolute text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Where `/` comes from.
    pub rootfs: Rootfs,
    /// Makes `/` read-only; mounts over it keep their own setting.
    pub read_only: bool,
    /// Mounts beside the usual ones (`/proc`, `/sys`, `/dev`), made in this order.
    pub mounts: Vec<Mount>,
    /// Small read-only files put over the root file system, never stored in it.
    pub files: Vec<InjectedFile>,
    /// Program and arguments. A program without `/` is searched in the `PATH` of [`Self::env`].
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited from the host.
    pub env: Vec<(String, String)>,
    /// The folder the program starts in; made when missing.
    pub cwd: String,
    /// User id, as the container counts.
    pub uid: u32,
    /// Group id, as the container counts.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Host name in the container.
    pub hostname: String,
    /// Which network the program sees.
    pub network: Network,
    /// Gives the program a terminal of its own; the other end is [`crate::Running::take_terminal`].
    pub terminal: bool,
    /// Whether the program starts only when the starter has done what comes right before: see [`crate::Attendance`].
    pub waits: bool,
    /// Size of `/dev/shm`, bytes. None means half of the machine's memory.
    pub shm_bytes: Option<u64>,
    /// File mode creation mask.
    pub umask: u32,
    /// Whether owners that the program gives to files outlast it, because a layer is made of them. Where one id is
    /// mapped, they are remembered beside the files; without this, such a program is refused to change an owner there.
    pub keeps_owners: bool,
    /// Capabilities beside Docker's default 14, as the kernel numbers them (`CAP_SYS_PTRACE` is 19).
    pub extra_capabilities: Vec<u8>,
}

impl Spec {
    /// A container of `rootfs` that runs `argv` as root in `/`, with everything else at its default:
    /// the host's network, no terminal, no mounts.
    pub fn new(rootfs: Rootfs, argv: Vec<String>) -> Self {
        Self {
            rootfs,
            read_only: false,
            mounts: Vec::new(),
            files: Vec::new(),
            argv,
            env: Vec::new(),
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            hostname: "ibid".to_owned(),
            network: Network::Host,
            terminal: false,
            waits: false,
            shm_bytes: None,
            umask: 0o022,
            keeps_owners: false,
            extra_capabilities: Vec::new(),
        }
    }
}

/// Where a container's `/` comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// Layers under one writable folder.
    Overlay(Overlay),
    /// One folder as it is; what the program writes stays there.
    Folder(PathBuf),
}

/// Layers merged by overlayfs, with `userxattr` always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Read-only folders, the topmost first. At least one.
    pub lowers: Vec<PathBuf>,
    /// Takes what is written. None makes the merged view read-only.
    pub upper: Option<Upper>,
    /// Leaves out every sync of the upper folder, at unmounting too: right for what is thrown away
    /// or synced by its maker afterwards. The work folder cannot be mounted a second time.
    pub volatile: bool,
}

/// The writable part of an [`Overlay`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// The folder that takes what is written.
    pub upper: PathBuf,
    /// An empty folder on the same file system, for overlayfs itself.
    pub work: PathBuf,
}

/// A mount over the root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path in the container. Links on it are followed inside the container; what is missing
    /// is made, a folder or a file as the source is one.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A folder or file of the host, with everything mounted below it.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Refuses writing, in mounts below the source too.
        read_only: bool,
        /// Shows one owner as another; see [`IdMap`].
        idmap: Option<IdMap>,
    },
    /// An empty folder in memory.
    Tmpfs {
        /// Largest size, bytes; none means half of the machine's memory.
        bytes: Option<u64>,
        /// Permission bits of the folder, `0o1777` for a `/tmp`.
        mode: u32,
    },
    /// A small read-only file in memory that cannot be executed, such as a secret.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Owner, as the container counts.
        uid: u32,
        /// Group, as the container counts.
        gid: u32,
        /// Permission bits.
        mode: u32,
    },
}

/// Swaps an owner on disk and an owner in the container on one mount; every other id stays itself. So
/// what the container's `container_uid` writes belongs to `host_uid` on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdMap {
    /// Owner on disk.
    pub host_uid: u32,
    /// Owner in the container.
    pub container_uid: u32,
    /// Group on disk.
    pub host_gid: u32,
    /// Group in the container.
    pub container_gid: u32,
}

/// A file put over the root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectedFile {
    /// Absolute path in the container, as for [`Mount::target`].
    pub target: String,
    /// Its bytes.
    pub content: Vec<u8>,
    /// Permission bits. Owned by root.
    pub mode: u32,
}

/// Which network a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The host's own.
    Host,
    /// Only a loopback device of its own.
    None,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It left with this code.
    Code(u8),
    /// A signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// True for code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The code a shell shows: 128 + N for signal N.
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}

impl ExitStatus {
    /// The signal that ended it, such as `SIGKILL`; its number where that has no name.
    pub fn signal_text(&self) -> Option<String> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => {
                Some(signal_name(*signal).map_or_else(|| signal.to_string(), str::to_owned))
            }
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
        }
    }
}

/// The name of a signal that ends programs; its number is the same on every architecture that ibid runs on.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}
