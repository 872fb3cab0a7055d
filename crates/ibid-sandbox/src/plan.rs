//! Decides how a container is made: a [`Spec`] becomes [`Steps`], plain data that [`crate::apply`] performs
//! in order. Pure: no system call, no file.
//!
//! First comes what every container has, the [`Ground`], which a stage can lay before the rest is known.
//!
//! The steps up to [`Step::EnterRoot`] run in the host's file tree, as a private copy of its mounts;
//! targets are paths below the new root, resolved so that no link leads out of it.

mod path_text;
mod path_texts;

use std::path::PathBuf;

use ibid_core::run::SeccompProfile;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::spec::{IdMap, InjectedFile, MountKind, Network, Overlay, Rootfs, Spec, SystemCalls, Tmpfs};
use crate::{capabilities, seccomp};

/// What the plan needs to know of the process that starts the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The starter's user id.
    pub(crate) uid: u32,
    /// The kernel's version.
    pub(crate) kernel: (u32, u32),
    /// True when the starter is in a user namespace, so not in the host's own.
    pub(crate) user_namespace: bool,
    /// True when that namespace knows one id only.
    pub(crate) only_id: bool,
    /// How many processors the machine may have.
    pub(crate) processors: u32,
    /// Rows and columns of the starter's own terminal.
    pub(crate) terminal_size: Option<(u16, u16)>,
}

/// What every container has, whatever image and program: made while its starter still finds out about those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ground {
    /// In this order.
    pub(crate) steps: Vec<Step>,
    /// How root gets what is made.
    pub(crate) giving: Giving,
}

/// How a file that is made for a container is given to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Giving {
    /// The kernel keeps its owner.
    Kernel,
    /// There is one id: its owner is kept beside it, as a layer may be made of it.
    Beside,
    /// There is one id, whose everything is, and nobody will ask.
    Nothing,
}

/// The way from there to the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Steps {
    /// In this order.
    pub(crate) steps: Vec<Step>,
    /// The program to execute then.
    pub(crate) process: Process,
}

/// One change to the stage's namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Cuts all mounts off from the host's: nothing done later is seen there.
    SeparateMounts,
    /// Switches the loopback device on.
    Loopback,
    /// Begins a root in memory, in which folders are mounted ahead and files lie that are injected.
    AheadRoot,
    /// Names the machine.
    Hostname(String),
    /// Mounts merged layers as the new root.
    RootOverlay(OverlaySource),
    /// Mounts a folder as the new root.
    RootFolder(#[serde(with = "path_text")] PathBuf),
    /// Takes these folders, with all that is mounted in them, from the root in memory to the same places.
    TakeOver(Vec<String>),
    /// Mounts a file system that the kernel makes.
    Filesystem {
        /// The kernel's name for it.
        kind: String,
        /// Where.
        target: Target,
        /// Its options.
        options: Vec<(String, String)>,
        /// How the mount restricts it.
        restrict: Restrict,
    },
    /// Mounts a folder or file of the host.
    Bind {
        /// Absolute path on the host.
        #[serde(with = "path_text")]
        source: PathBuf,
        /// Where.
        target: Target,
        /// With all that is mounted below it.
        recursive: bool,
        /// How the mount restricts it.
        restrict: Restrict,
        /// Index of the user namespace whose maps it gets.
        idmap: Option<usize>,
    },
    /// Takes hold of what the root file system has at these places, for [`Step::Uncover`].
    Hold(Vec<String>),
    /// Mounts the one of this index of what was held over its own place.
    Uncover(usize),
    /// Makes folders.
    Folders(Vec<String>),
    /// Makes symbolic links: name, and where it points.
    Links(Vec<(String, String)>),
    /// Puts read-only files over the root file system.
    Inject(Vec<File>),
    /// Hides those paths that exist.
    Mask(Vec<String>),
    /// Makes those paths read-only that exist.
    Protect(Vec<String>),
    /// Makes the root file system read-only.
    ProtectRoot,
    /// Leaves the host's file tree for good.
    EnterRoot,
}

/// A place below the new root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Absolute path in the container.
    pub(crate) path: String,
    /// False refuses a link anywhere on the path: for the places every program trusts.
    pub(crate) follow_links: bool,
}

/// What a mount refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct Restrict {
    /// Writing.
    pub(crate) write: bool,
    /// Set-user-id programs.
    pub(crate) suid: bool,
    /// Device nodes.
    pub(crate) devices: bool,
    /// Executing.
    pub(crate) exec: bool,
}

/// The parts of a merged view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OverlaySource {
    #[serde(with = "path_texts")]
    pub(crate) lowers: Vec<PathBuf>,
    #[serde(with = "path_texts")]
    pub(crate) upper_and_work: Vec<PathBuf>,
    pub(crate) volatile: bool,
}

/// A file to inject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) target: String,
    pub(crate) content: Vec<u8>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    /// Whether the mount lets it be executed.
    pub(crate) exec: bool,
}

/// The program and what it is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// None leaves the groups of the starter.
    pub(crate) groups: Option<Vec<u32>>,
    pub(crate) umask: u32,
    /// A bit for each capability it may ever have.
    pub(crate) capabilities: u64,
    /// What it has of them when it is not root.
    pub(crate) given_capabilities: u64,
    /// Which system calls it may make.
    pub(crate) system_calls: Calls,
    /// Limits by the kernel's numbers: what holds, and what it can be raised to. [`u64::MAX`] is no limit.
    pub(crate) rlimits: Vec<(u8, u64, u64)>,
    /// What becomes of its calls about owners and ids.
    pub(crate) owners: Owners,
    /// Whether the starter has something to do for it before it starts.
    pub(crate) waits: bool,
    pub(crate) terminal: Option<Terminal>,
}

/// Which system calls a program may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Calls {
    /// Those of Docker's default profile.
    Docker,
    /// All.
    All,
    /// Those that this filter lets pass: operation, two jumps and constant of each instruction.
    Filtered(Vec<(u16, u8, u8, u32)>),
}

/// What becomes of calls that change owners or ids, or ask for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Owners {
    /// The kernel does them.
    Kernel,
    /// The starter answers them: see [`crate::owners`].
    Remembered,
    /// Those that change something succeed and do nothing.
    Pretended,
}

/// The terminal that a program starts with. It has its size before the program can ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terminal {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// Docker's `DefaultMaskedPaths`; there is one folder for each processor besides.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Docker's `DefaultReadonlyPaths`.
const PROTECTED: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The folders of the ground.
const GROUND: [&str; 3] = ["/proc", "/sys", "/dev"];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Most of the nodes and links every program expects in `/dev`.
const DEVICE_LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Decides what there is below `/dev`, `/proc` and `/sys`, without and with a network of the container's own.
pub(crate) fn ground(has_network: bool, shm_bytes: Option<u64>, keeps_owners: bool, facts: Facts) -> Ground {
    let mut steps = vec![Step::SeparateMounts];
    if has_network {
        steps.push(Step::Loopback);
    }
    steps.push(Step::AheadRoot);
    steps.extend(kernel_filesystems(has_network, facts));
    steps.extend(devices(shm_bytes, facts));
    let giving = match (facts.only_id, keeps_owners) {
        (false, _) => Giving::Kernel,
        (true, true) => Giving::Beside,
        (true, false) => Giving::Nothing,
    };
    Ground { steps, giving }
}

/// Decides the rest. The idmaps come back beside the steps, because only the starter can make their user
/// namespaces; [`Step::Bind`] refers to them by index.
pub(crate) fn plan(spec: &Spec, facts: Facts) -> Result<(Steps, Vec<IdMap>), Error> {
    check(spec, facts)?;
    let mut steps = vec![
        Step::Hostname(spec.hostname.clone()),
        root(&spec.rootfs),
        Step::TakeOver(GROUND.map(str::to_owned).to_vec()),
    ];
    let held: Vec<&str> = spec
        .mounts
        .iter()
        .filter(|mount| mount.kind == MountKind::Underneath)
        .map(|mount| mount.target.as_str())
        .collect();
    if !held.is_empty() {
        steps.push(Step::Hold(held.iter().map(|path| (*path).to_owned()).collect()));
    }
    let mut uncovered = 0..held.len();
    let mut idmaps = Vec::new();
    for mount in &spec.mounts {
        let target = Target { path: mount.target.clone(), follow_links: true };
        steps.push(match &mount.kind {
            MountKind::Bind { source, read_only, idmap } => Step::Bind {
                source: source.clone(),
                target,
                recursive: true,
                restrict: Restrict { write: *read_only, suid: true, devices: true, exec: false },
                // A user namespace has its maps already: its user is the same on both sides.
                idmap: idmap
                    .filter(|map| !facts.user_namespace && !is_identity(map))
                    .map(|map| index_of(&mut idmaps, map)),
            },
            MountKind::Tmpfs(tmpfs) => Step::Filesystem {
                kind: "tmpfs".to_owned(),
                target,
                options: tmpfs_options(*tmpfs, facts),
                restrict: Restrict { write: tmpfs.read_only, suid: true, devices: true, exec: tmpfs.no_exec },
            },
            MountKind::Underneath => Step::Uncover(uncovered.next().unwrap_or_default()),
            MountKind::File { content, uid, gid, mode } => Step::Inject(vec![File {
                target: mount.target.clone(),
                content: content.clone(),
                uid: *uid,
                gid: *gid,
                mode: mode & 0o7777,
                exec: false,
            }]),
        });
    }
    if !spec.files.is_empty() {
        steps.push(Step::Inject(spec.files.iter().map(file).collect()));
    }
    steps.push(Step::Folders(vec![spec.cwd.clone()]));
    if spec.read_only {
        steps.push(Step::ProtectRoot);
    }
    steps.push(Step::EnterRoot);
    let process = process(spec, facts)?;
    Ok((Steps { steps, process }, idmaps))
}

fn check(spec: &Spec, facts: Facts) -> Result<(), Error> {
    let invalid = |what: String| Err(Error::Invalid { what });
    if spec.argv.is_empty() || spec.argv[0].is_empty() {
        return invalid("no program to run".to_owned());
    }
    let texts = spec
        .argv
        .iter()
        .chain([&spec.cwd, &spec.hostname])
        .chain(spec.env.iter().flat_map(|(name, value)| [name, value]))
        .chain(spec.mounts.iter().map(|mount| &mount.target))
        .chain(spec.files.iter().map(|file| &file.target));
    for text in texts {
        if text.contains('\0') {
            return invalid(format!("`{}` contains a NUL byte", text.replace('\0', "\\0")));
        }
    }
    for (name, _) in &spec.env {
        if name.is_empty() || name.contains('=') {
            return invalid(format!("`{name}` is no name for an environment variable"));
        }
    }
    let targets =
        spec.mounts.iter().map(|mount| &mount.target).chain(spec.files.iter().map(|file| &file.target));
    for path in targets {
        if !path.starts_with('/') || path.split('/').all(|part| part.is_empty() || part == ".") {
            return invalid(format!("`{path}` is no place to mount: it must be absolute and below `/`"));
        }
    }
    if facts.only_id {
        for mount in &spec.mounts {
            if let MountKind::Tmpfs(Tmpfs { uid, gid, .. }) = mount.kind
                && ((uid != 0 && uid != spec.uid) || (gid != 0 && gid != spec.gid))
            {
                return invalid(format!(
                    "`{}` cannot belong to {uid}:{gid}: one user id is mapped, and everything is {}:{}'s",
                    mount.target, spec.uid, spec.gid
                ));
            }
        }
    }
    if !spec.cwd.starts_with('/') {
        return invalid(format!("working folder `{}` is not absolute", spec.cwd));
    }
    if let Rootfs::Overlay(overlay) = &spec.rootfs
        && overlay.lowers.is_empty()
    {
        return invalid("a root file system needs a layer".to_owned());
    }
    let beyond = (spec.capabilities | spec.given_capabilities) >> (capabilities::LAST + 1);
    if beyond != 0 {
        let number = u32::from(capabilities::LAST) + 1 + beyond.trailing_zeros();
        return invalid(format!("there is no capability number {number}"));
    }
    Ok(())
}

fn root(rootfs: &Rootfs) -> Step {
    match rootfs {
        Rootfs::Overlay(overlay) => Step::RootOverlay(OverlaySource::new(overlay)),
        Rootfs::Folder(path) => Step::RootFolder(path.clone()),
    }
}

impl OverlaySource {
    pub(crate) fn new(overlay: &Overlay) -> Self {
        Self {
            lowers: overlay.lowers.clone(),
            upper_and_work: overlay
                .upper
                .iter()
                .flat_map(|upper| [upper.upper.clone(), upper.work.clone()])
                .collect(),
            volatile: overlay.volatile && overlay.upper.is_some(),
        }
    }
}

fn trusted(path: &str) -> Target {
    Target { path: path.to_owned(), follow_links: false }
}

fn kernel_filesystems(has_network: bool, facts: Facts) -> [Step; 4] {
    let closed = Restrict { write: false, suid: true, devices: true, exec: true };
    let read_only = Restrict { write: true, ..closed };
    // The kernel lets only the owner of the network namespace mount a fresh `/sys`.
    let sys = if !facts.user_namespace || has_network {
        filesystem("sysfs", "/sys", &[], read_only)
    } else {
        Step::Bind {
            source: "/sys".into(),
            target: trusted("/sys"),
            recursive: true,
            restrict: read_only,
            idmap: None,
        }
    };
    let throttles =
        (0..facts.processors).map(|number| format!("/sys/devices/system/cpu/cpu{number}/thermal_throttle"));
    let masked = MASKED.map(str::to_owned).into_iter().chain(throttles).collect();
    [
        filesystem("proc", "/proc", &[], closed),
        sys,
        Step::Protect(PROTECTED.map(str::to_owned).to_vec()),
        Step::Mask(masked),
    ]
}

fn filesystem(kind: &str, path: &str, options: &[(&str, &str)], restrict: Restrict) -> Step {
    Step::Filesystem {
        kind: kind.to_owned(),
        target: trusted(path),
        options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        restrict,
    }
}

/// A small `/dev`. Its nodes are mounts of the host's, because every other mount refuses device nodes: a
/// program with `CAP_MKNOD` can make one for the host's disk, but never open it.
fn devices(shm_bytes: Option<u64>, facts: Facts) -> Vec<Step> {
    let no_exec = Restrict { write: false, suid: true, devices: true, exec: true };
    let mut folder_options = tmpfs_options(Tmpfs::new(None, 0o755), facts);
    folder_options.push(("size".to_owned(), "65536k".to_owned()));
    let mut steps = vec![
        Step::Filesystem {
            kind: "tmpfs".to_owned(),
            target: trusted("/dev"),
            options: folder_options,
            restrict: Restrict { write: false, suid: true, devices: true, exec: false },
        },
        Step::Folders(["/dev/pts", "/dev/shm", "/dev/mqueue"].map(str::to_owned).to_vec()),
        Step::Links(DEVICE_LINKS.map(|(name, to)| (name.to_owned(), to.to_owned())).to_vec()),
    ];
    steps.extend(DEVICES.map(|name| Step::Bind {
        source: format!("/dev/{name}").into(),
        target: trusted(&format!("/dev/{name}")),
        recursive: false,
        // A device can be written all the same; the node, which is the host's, keeps its owner and mode.
        restrict: Restrict { write: true, suid: true, devices: false, exec: true },
        idmap: None,
    }));
    steps.push(filesystem(
        "devpts",
        "/dev/pts",
        // Where one id is mapped, there is no group of terminals.
        &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")][..if facts.only_id { 2 } else { 3 }],
        Restrict { devices: false, ..no_exec },
    ));
    steps.push(Step::Filesystem {
        kind: "tmpfs".to_owned(),
        target: trusted("/dev/shm"),
        options: tmpfs_options(Tmpfs::new(shm_bytes, 0o1777), facts),
        restrict: no_exec,
    });
    steps.push(filesystem("mqueue", "/dev/mqueue", &[], no_exec));
    steps
}

/// The kernel itself takes half of the memory when no size is given.
fn tmpfs_options(tmpfs: Tmpfs, facts: Facts) -> Vec<(String, String)> {
    let mut options = vec![("mode".to_owned(), format!("{:o}", tmpfs.mode))];
    if !facts.only_id {
        options.extend(
            [("uid", tmpfs.uid), ("gid", tmpfs.gid)].map(|(name, id)| (name.to_owned(), id.to_string())),
        );
    }
    options.extend(tmpfs.bytes.map(|bytes| ("size".to_owned(), bytes.to_string())));
    options
}

fn is_identity(map: &IdMap) -> bool {
    map.host_uid == map.container_uid && map.host_gid == map.container_gid
}

fn index_of(idmaps: &mut Vec<IdMap>, map: IdMap) -> usize {
    idmaps.iter().position(|known| *known == map).unwrap_or_else(|| {
        idmaps.push(map);
        idmaps.len() - 1
    })
}

fn file(file: &InjectedFile) -> File {
    File {
        target: file.target.clone(),
        content: file.content.clone(),
        uid: 0,
        gid: 0,
        mode: file.mode & 0o7777,
        exec: true,
    }
}

fn process(spec: &Spec, facts: Facts) -> Result<Process, Error> {
    Ok(Process {
        argv: spec.argv.clone(),
        env: spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: spec.cwd.clone(),
        uid: spec.uid,
        gid: spec.gid,
        // A user's own groups open the shared folders of their institute; they have no name inside the
        // user namespace, so they can only be kept, not given.
        groups: (!facts.only_id && (facts.uid == 0 || facts.uid != spec.uid || !spec.groups.is_empty()))
            .then(|| spec.groups.clone()),
        umask: spec.umask & 0o777,
        capabilities: spec.capabilities,
        given_capabilities: spec.given_capabilities & spec.capabilities,
        system_calls: match &spec.system_calls {
            SystemCalls::Docker => Calls::Docker,
            SystemCalls::All => Calls::All,
            SystemCalls::Profile(profile) => Calls::Filtered(filtered(profile, spec, facts)?),
        },
        rlimits: spec
            .rlimits
            .iter()
            .map(|limit| (limit.resource, limit.soft.unwrap_or(u64::MAX), limit.hard.unwrap_or(u64::MAX)))
            .collect(),
        owners: if facts.only_id && spec.keeps_owners { Owners::Remembered } else { Owners::Kernel },
        waits: spec.waits || spec.limits.any() || matches!(spec.network, Network::Private(_)),
        terminal: spec.terminal.then(|| {
            let (rows, columns) = facts.terminal_size.unwrap_or((24, 80));
            Terminal { rows, columns }
        }),
    })
}

fn filtered(profile: &SeccompProfile, spec: &Spec, facts: Facts) -> Result<Vec<(u16, u8, u8, u32)>, Error> {
    let filter = seccomp::profile::compile(profile, spec.capabilities, facts.kernel).map_err(|problem| {
        Error::Invalid { what: format!("the seccomp profile cannot be used: {problem}") }
    })?;
    Ok(filter.iter().map(|it| (it.code, it.jump_true, it.jump_false, it.constant)).collect())
}

#[cfg(test)]
mod tests;
