//! What this host can do, as plain data: for `ibid doctor`, and for tests that say what they need.
//!
//! A probe tries the thing itself where that is cheap and leaves no trace; it never changes the host. All can be
//! asked before and after [`crate::userns::ensure`].

mod calls;
mod files;
mod gpus;
mod ids;
mod limits;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use ibid_sys::Errno;
use ibid_sys::clone::{Namespaces, borrow_memory};
use rustix::process::{WaitOptions, waitpid};
use serde::Serialize;

use crate::gpus::Host;
use crate::spec::{IdMap, Overlay, Upper};
use crate::userns;
use crate::{idmap, obstacle, overlay};

pub use calls::{seccomp, seccomp_notification};
pub use files::{attributes, disk_space, home_file_system};
pub use gpus::gpus;
pub use ids::{Level, level, mappers, subordinate_ids, user_namespaces};
pub use limits::cgroups;

/// What was found out about one ability of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The ability, in a few words.
    pub ability: &'static str,
    /// Whether it is there.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What does not work, or works worse, without it; none when it is there.
    pub cost: Option<String>,
    /// The command that mends it, where there is one.
    pub mend: Option<String>,
}

/// Whether an ability is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Works,
    /// Something works worse or slower.
    Degraded,
    /// Not there.
    Missing,
}

impl Finding {
    /// True unless [`State::Missing`].
    pub fn usable(&self) -> bool {
        self.state != State::Missing
    }

    fn works(ability: &'static str, detail: impl Into<String>) -> Self {
        Self { ability, state: State::Works, detail: detail.into(), cost: None, mend: None }
    }

    fn lacks(
        ability: &'static str,
        state: State,
        detail: impl Into<String>,
        cost: &str,
        mend: Option<String>,
    ) -> Self {
        Self { ability, state, detail: detail.into(), cost: Some(cost.to_owned()), mend }
    }
}

/// Everything, in the order a person wants to read it. `folder` is where ibid keeps its images: layers are
/// mounted from there. `host` says where graphics processors are looked for.
pub fn all(folder: &Path, host: &Host) -> Vec<Finding> {
    vec![
        kernel(),
        user_namespaces(),
        subordinate_ids(),
        mappers(),
        git(),
        overlay(folder),
        attributes(folder),
        idmapped_mounts(folder),
        seccomp(),
        seccomp_notification(),
        cgroups(),
        gpus(host),
        disk_space(folder),
        home_file_system(folder),
    ]
}

/// The oldest kernel that has all that is used without a substitute: `mount_setattr`.
const KERNEL: (u32, u32) = (5, 12);

/// The kernel's version.
pub fn kernel() -> Finding {
    let ability = "kernel";
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < KERNEL => Finding::lacks(
            ability,
            State::Missing,
            format!("Linux {release}; {}.{} is the oldest that will do", KERNEL.0, KERNEL.1),
            "containers cannot be made",
            None,
        ),
        _ => Finding::works(ability, format!("Linux {release}")),
    }
}

/// Git, which names the commit of a run and fetches repositories for `ADD`.
pub fn git() -> Finding {
    let ability = "git";
    match find_program("git") {
        Some(program) => Finding::works(ability, program.display().to_string()),
        None => Finding::lacks(
            ability,
            State::Degraded,
            "not found",
            "runs do not say which commit ran, and `ADD` fetches no repositories",
            Some(userns::install("git", "git", "git")),
        ),
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Merged layers, mounted from `folder`.
pub fn overlay(folder: &Path) -> Finding {
    let ability = "overlay file system";
    let cost = "containers cannot be made";
    let parts = match Parts::new(folder) {
        Ok(parts) => parts,
        Err(error) => {
            let detail = format!("cannot write in `{}`: {error}", folder.display());
            return Finding::lacks(ability, State::Missing, detail, cost, None);
        }
    };
    let source = crate::plan::OverlaySource::new(&parts.overlay());
    let at = parts.at.clone();
    let mount = || {
        separate_mounts()?;
        overlay::mount_over(&source, &at).map(drop).map_err(|failure| failure.errno)
    };
    let answer = if userns::capable() {
        answer_in(Namespaces { mount: true, ..Namespaces::default() }, mount)
    } else {
        let (uid, gid) = userns::host_ids();
        answer_in(ALONE, || {
            userns::map_alone(uid, gid)?;
            mount()
        })
    };
    match answer {
        Ok(()) => Finding::works(ability, format!("mounts from `{}`", folder.display())),
        Err(errno) => {
            let load = Path::new("/proc/filesystems");
            let known = fs::read_to_string(load).is_ok_and(|list| list.contains("\toverlay"));
            let on_overlay = obstacle::is_overlay(folder);
            let mend = match (known, on_overlay) {
                (false, _) => Some("sudo modprobe overlay".to_owned()),
                (_, true) => Some("docker run -v NAME:/store -e XDG_DATA_HOME=/store …".to_owned()),
                _ => None,
            };
            let why = match on_overlay {
                true => "it lies on an overlay itself, as a container's own files do".to_owned(),
                false => std::io::Error::from(errno).to_string(),
            };
            let detail = format!("mounting from `{}` fails: {why}", folder.display());
            Finding::lacks(ability, State::Missing, detail, cost, mend)
        }
    }
}

/// Folders for a trial mount, removed when dropped.
struct Parts {
    root: PathBuf,
    at: PathBuf,
}

impl Parts {
    fn new(folder: &Path) -> std::io::Result<Self> {
        // The folder itself may not exist yet; what it will be made in does.
        let existing = folder.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(folder);
        let root = existing.join(format!(".ibid-probe-{}-{}", std::process::id(), next_number()));
        fs::create_dir(&root)?;
        let parts = Self { at: root.join("at"), root };
        for name in ["at", "lower", "upper", "work"] {
            fs::create_dir(parts.root.join(name))?;
        }
        Ok(parts)
    }

    fn overlay(&self) -> Overlay {
        Overlay {
            lowers: vec![self.root.join("lower")],
            upper: Some(Upper { upper: self.root.join("upper"), work: self.root.join("work") }),
            volatile: true,
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // Overlayfs leaves folders in `work` that not even their owner may enter until this.
        for inner in ["work/work", "work/work/incompat", "work/work/incompat/volatile"] {
            let _gone = fs::set_permissions(
                self.root.join(inner),
                std::os::unix::fs::PermissionsExt::from_mode(0o700),
            );
        }
        let _left_behind = fs::remove_dir_all(&self.root);
    }
}

fn next_number() -> u64 {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Mounts that show one owner as another. Only root needs them.
pub fn idmapped_mounts(folder: &Path) -> Finding {
    let ability = "idmapped mounts";
    if !userns::capable() || userns::inside() {
        return Finding::works(ability, "not needed without root");
    }
    let existing = folder.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(folder);
    let cost = "with root, what a run writes may belong to the image's user";
    let lacks = |detail: String| Finding::lacks(ability, State::Degraded, detail, cost, None);
    let map = IdMap { host_uid: 0, container_uid: 1000, host_gid: 0, container_gid: 1000 };
    let namespace = match idmap::user_namespace(&map) {
        Ok(namespace) => namespace,
        Err(error) => return lacks(error.to_string()),
    };
    match try_idmap(existing, &namespace) {
        Ok(()) => Finding::works(ability, format!("`{}` takes them", existing.display())),
        Err(errno) => lacks(format!(
            "the file system of `{}` refuses: {}",
            existing.display(),
            std::io::Error::from(errno)
        )),
    }
}

fn try_idmap(folder: &Path, namespace: &OwnedFd) -> Result<(), Errno> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    use std::os::fd::AsFd;
    let opened = openat(CWD, folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mount = overlay::clone(opened, false)?;
    ibid_sys::mount::set_attributes(mount, Default::default(), false, Some(namespace.as_fd()))
}

/// Docker, for tests and for comparison; ibid needs none.
pub fn docker() -> Finding {
    let ability = "docker";
    let output = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    match output {
        Ok(output) if output.status.success() => {
            Finding::works(ability, String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.lines().next().unwrap_or("no answer").to_owned();
            Finding::lacks(ability, State::Missing, line, "the docker engine cannot be used", None)
        }
        Err(error) => Finding::lacks(
            ability,
            State::Missing,
            error.to_string(),
            "the docker engine cannot be used",
            None,
        ),
    }
}

/// A user namespace with a mount namespace in it.
const ALONE: Namespaces =
    Namespaces { user: true, mount: true, pid: false, ipc: false, uts: false, network: false };

fn separate_mounts() -> Result<(), Errno> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// What the kernel answers to `attempt`, in a process that exists only for it.
fn answer_in(namespaces: Namespaces, mut attempt: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    let mut answer = Err(Errno::CHILD);
    let child = borrow_memory(namespaces, || {
        answer = attempt();
        0
    })?;
    waitpid(Some(child.pid), WaitOptions::empty())?;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_what_it_costs_and_nothing_is_left_behind() {
        let folder = ibid_testing::Place::new();
        let findings = all(&folder.path().join("not/yet/made"), &Host::default());
        assert_eq!(findings.len(), 14);
        for finding in &findings {
            assert!(!finding.detail.is_empty(), "{finding:?}");
            assert_eq!(finding.cost.is_none(), finding.state == State::Works, "{finding:?}");
        }
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).expect("there").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["home"]);
    }
}
