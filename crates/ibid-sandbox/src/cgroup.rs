//! Control groups: limits of all processes of a container together. Nothing here is touched unless a limit is asked for.
//!
//! A group is a folder that its maker holds a flock on, in each hierarchy that a limit needs:
//!
//! ```text
//! version 1                               version 2
//! /sys/fs/cgroup/memory/<own>/ibid-…      /sys/fs/cgroup/<own>/ibid-…       own hands controllers down
//! /sys/fs/cgroup/pids/<own>/ibid-…        /sys/fs/cgroup/<above>/ibid-…     or one above does
//! ```
//!
//! Its maker removes it when nothing runs in it any more. One that nobody holds a lock on was left behind by a starter
//! that was killed: whoever makes the next one beside it removes it.

mod place;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ibid_sys::Errno;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};

use crate::error::Error;
use crate::spec::Limits;

pub(crate) use place::Obstacle;
use place::{Host, Place};

/// What limits are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// The kernel's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// What it limits.
    fn limits(self) -> &'static str {
        match self {
            Self::Cpu => "processors",
            Self::Memory => "memory",
            Self::Pids => "processes",
        }
    }

    fn is_wanted(self, limits: &Limits) -> bool {
        match self {
            Self::Cpu => limits.millicpus.is_some(),
            Self::Memory => limits.memory_bytes.is_some(),
            Self::Pids => limits.pids.is_some(),
        }
    }
}

/// Whether a limit can be kept here: where not, what is in the way.
pub(crate) fn obstacle(controller: Controller) -> Option<Obstacle> {
    Host::read().place(&[controller]).err()
}

/// Those of the limits that can be kept on this host, and of the others what they limit and what is in the way.
pub fn achievable(limits: &Limits) -> (Limits, Vec<(&'static str, String)>) {
    let (mut kept, mut reasons) = (*limits, Vec::new());
    for controller in Controller::ALL.into_iter().filter(|controller| controller.is_wanted(limits)) {
        let Some(obstacle) = obstacle(controller) else { continue };
        reasons.push((controller.limits(), obstacle.to_string()));
        match controller {
            Controller::Cpu => kept.millicpus = None,
            Controller::Memory => kept.memory_bytes = None,
            Controller::Pids => kept.pids = None,
        }
    }
    (kept, reasons)
}

fn refused(controller: Controller, obstacle: Obstacle) -> Error {
    Error::Limits { limit: controller.limits(), reason: obstacle.to_string(), mend: obstacle.mend() }
}

/// The microseconds in which a share of the processors' time is counted.
const PERIOD: u64 = 100_000;

/// The files of a group and what is written to them. Files that end with `?` may be missing.
fn settings(controller: Controller, limits: &Limits, version: u8) -> Vec<(&'static str, String)> {
    let quota = limits.millicpus.unwrap_or_default() * PERIOD / 1000;
    let memory = limits.memory_bytes.unwrap_or_default().to_string();
    match (controller, version) {
        (Controller::Cpu, 1) => {
            vec![("cpu.cfs_period_us", PERIOD.to_string()), ("cpu.cfs_quota_us", quota.to_string())]
        }
        (Controller::Cpu, _) => vec![("cpu.max", format!("{quota} {PERIOD}"))],
        // The second counts swap too. A kernel that does not count it has no such file.
        (Controller::Memory, 1) => {
            vec![("memory.limit_in_bytes", memory.clone()), ("memory.memsw.limit_in_bytes?", memory)]
        }
        (Controller::Memory, _) => vec![("memory.max", memory), ("memory.swap.max?", "0".to_owned())],
        // The container's first process is ibid's own.
        (Controller::Pids, _) => vec![("pids.max", (limits.pids.unwrap_or_default() + 1).to_string())],
    }
}

/// A group with limits, removed when dropped.
#[derive(Debug)]
pub(crate) struct Group {
    folders: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Group {
    /// Makes it, empty, after removing what dead starters left in the same places.
    pub(crate) fn new(limits: &Limits) -> Result<Self, Error> {
        let wanted: Vec<Controller> =
            Controller::ALL.into_iter().filter(|controller| controller.is_wanted(limits)).collect();
        let host = Host::read();
        let mut group = Self { folders: Vec::new() };
        match host.place(&wanted) {
            Ok(Place::Unified(parent)) => {
                let folder = make_folder(&parent)?;
                for controller in &wanted {
                    set(&folder.path, *controller, limits, 2)?;
                }
                group.folders.push(folder);
            }
            Ok(Place::Split(own)) => {
                let controllers: Vec<&str> = wanted.iter().map(|controller| controller.name()).collect();
                hand_down(&own, &controllers)?;
                let folder = make_folder(&own)?;
                for controller in &wanted {
                    set(&folder.path, *controller, limits, 2)?;
                }
                group.folders.push(folder);
            }
            Ok(Place::Separate(parents)) => {
                for (controller, parent) in wanted.iter().zip(parents) {
                    let folder = make_folder(&parent)?;
                    set(&folder.path, *controller, limits, 1)?;
                    group.folders.push(folder);
                }
            }
            Err(obstacle) => {
                // One of them alone says it more exactly.
                let first = wanted.iter().find_map(|one| Some((*one, host.place(&[*one]).err()?)));
                let (controller, obstacle) = first.unwrap_or((wanted[0], obstacle));
                return Err(refused(controller, obstacle));
            }
        }
        Ok(group)
    }

    /// Its folders, one in each hierarchy.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.path.clone()).collect()
    }

    /// Puts a process into it; what it starts will be in it too.
    pub(crate) fn add(&self, process: u32) -> Result<(), Error> {
        for folder in &self.folders {
            let file = folder.path.join("cgroup.procs");
            fs::write(&file, process.to_string()).map_err(failed("join the control group", &file))?;
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // A process that is still on its way out keeps it; then the next one to make a group removes it.
            let _left_behind = fs::remove_dir(&folder.path);
        }
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Setup { step: step.to_owned(), path: Some(path), source }
}

fn set(folder: &Path, controller: Controller, limits: &Limits, version: u8) -> Result<(), Error> {
    for (name, value) in settings(controller, limits, version) {
        let (name, may_be_missing) = match name.strip_suffix('?') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let file = folder.join(name);
        if may_be_missing && !file.exists() {
            continue;
        }
        fs::write(&file, value).map_err(failed("set the limit", &file))?;
    }
    Ok(())
}

const PREFIX: &str = "ibid-";

fn make_folder(parent: &Path) -> Result<Folder, Error> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    sweep(parent);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match fs::create_dir(&path) {
            // Another starter whose process has this number in another namespace.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            made => made.map_err(failed("make a control group", &path))?,
        }
        // Before it was locked, another starter may have taken it for left behind.
        if let Some(lock) =
            lock(&path).map_err(|errno| failed("lock the control group", &path)(errno.into()))?
        {
            return Ok(Folder { path, _lock: lock });
        }
    }
}

/// The lock on a group that still has its name; none when somebody else has it.
fn lock(path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        folder => folder?,
    };
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        result => result?,
    }
    let is_same = stat(path).is_ok_and(|now| fstat(&folder).is_ok_and(|held| held.st_ino == now.st_ino));
    Ok(is_same.then_some(folder))
}

/// Removes the groups that nobody holds.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if is_ours && let Ok(Some(_lock)) = lock(&entry.path()) {
            // With processes in it, it stays.
            let _in_use = fs::remove_dir(entry.path());
        }
    }
}

/// Lets the groups below `own`, in which this process is, have controllers. The kernel allows it only when no process is in
/// `own` itself: this one moves one down.
fn hand_down(own: &Path, controllers: &[&str]) -> Result<(), Error> {
    let starter = own.join("starter");
    match fs::create_dir(&starter) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.map_err(failed("make a control group", &starter))?,
    }
    let members = starter.join("cgroup.procs");
    fs::write(&members, std::process::id().to_string())
        .map_err(failed("join the control group", &members))?;
    let file = own.join("cgroup.subtree_control");
    let wanted: Vec<String> = controllers.iter().map(|controller| format!("+{controller}")).collect();
    fs::write(&file, wanted.join(" ")).map_err(failed("hand controllers down in", &file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_in_the_kernel_s_units() {
        let limits = Limits { millicpus: Some(1500), memory_bytes: Some(1 << 20), pids: Some(10) };
        let check = |controller, version, expected: &[(&str, &str)]| {
            let settings = settings(controller, &limits, version);
            let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(settings, expected);
        };
        check(Controller::Cpu, 1, &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "150000")]);
        check(Controller::Cpu, 2, &[("cpu.max", "150000 100000")]);
        check(
            Controller::Memory,
            1,
            &[("memory.limit_in_bytes", "1048576"), ("memory.memsw.limit_in_bytes?", "1048576")],
        );
        check(Controller::Memory, 2, &[("memory.max", "1048576"), ("memory.swap.max?", "0")]);
        check(Controller::Pids, 2, &[("pids.max", "11")]);
    }

    #[test]
    fn what_a_dead_starter_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["ibid-1-0", "ibid-2-0", "other"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let held = lock(&folder.path().join("ibid-2-0")).expect("lockable").expect("free");
        let made = make_folder(folder.path()).expect("made");
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .expect("there")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        let own = made.path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut expected = vec!["ibid-2-0".to_owned(), own, "other".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
        drop(held);
    }
}
