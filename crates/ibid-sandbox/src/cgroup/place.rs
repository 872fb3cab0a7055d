//! Where groups can be made: found from what the kernel says of this process, touching nothing.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::Controller;

/// What this process is in.
#[derive(Debug, Default)]
pub(super) struct Host {
    hierarchies: Vec<Hierarchy>,
}

#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// None of version 2, which lists them in a file.
    controllers: Option<Vec<String>>,
    /// Where it is mounted.
    mount: PathBuf,
    /// The folder of this process.
    own: PathBuf,
}

/// Where a group is to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In this folder of version 2.
    Unified(PathBuf),
    /// In this folder of version 2, which is this process's own and must hand controllers down first.
    Split(PathBuf),
    /// In these folders of version 1, one for each controller.
    Separate(Vec<PathBuf>),
}

/// Why no group with a limit can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Nothing is mounted.
    None,
    /// The kernel, or this part of the tree, does not have the controller.
    NoController { name: &'static str, version: u8, at: PathBuf },
    /// Not this user's to change.
    NotWritable { version: u8, at: PathBuf },
    /// Mounted read-only, as in a container.
    ReadOnly { version: u8, at: PathBuf },
    /// Other processes are in the group that would have to hand controllers down.
    Shared { at: PathBuf },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "no control groups are mounted"),
            Self::NoController { name, version, at } => {
                write!(
                    f,
                    "control groups are of version {version}, and `{}` has no controller `{name}`",
                    at.display()
                )
            }
            Self::NotWritable { version, at } => {
                write!(
                    f,
                    "control groups are of version {version}, and `{}` is not yours to change",
                    at.display()
                )
            }
            Self::ReadOnly { version, at } => {
                write!(
                    f,
                    "control groups are of version {version}, and `{}` is read-only, as in a container",
                    at.display()
                )
            }
            Self::Shared { at } => {
                write!(
                    f,
                    "other processes are in the control group `{}`, which must have none of its own",
                    at.display()
                )
            }
        }
    }
}

impl Obstacle {
    /// The command that mends it, where there is one.
    pub(crate) fn mend(&self) -> Option<String> {
        let has_systemd = Path::new("/run/systemd/system").exists();
        match self {
            // Version 2 alone lets a user have a part of the tree.
            Self::NotWritable { version: 1, .. } => has_systemd.then(unify),
            Self::NotWritable { .. } | Self::Shared { .. } if has_systemd => {
                Some("systemd-run --user --scope -p Delegate=yes ibid …".to_owned())
            }
            Self::NoController { version: 2, .. } if has_systemd => {
                Some("sudo systemctl set-property user.slice Delegate=\"cpu memory pids\"".to_owned())
            }
            _ => None,
        }
    }
}

/// The command that makes systemd use version 2 alone from the next start on.
fn unify() -> String {
    "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&systemd.unified_cgroup_hierarchy=1 /' /etc/default/grub && sudo update-grub"
        .to_owned()
}

impl Host {
    pub(super) fn read() -> Self {
        // Where they cannot be read, nothing is mounted as far as anybody can know.
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// From `/proc/self/mountinfo` (proc(5)) and `/proc/self/cgroup` (cgroups(7)).
    fn parse(mounts: &str, own: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let mut before = before.split(' ').skip(3);
            let (Some(root), Some(mount)) = (before.next(), before.next()) else { continue };
            let after: Vec<&str> = after.split(' ').collect();
            let [kind, _, options, ..] = after[..] else { continue };
            let controllers = match kind {
                "cgroup2" => None,
                "cgroup" => Some(options.split(',').map(str::to_owned).collect::<Vec<_>>()),
                _ => continue,
            };
            let path = own.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (names, path) = (fields.next()?, fields.next()?);
                let is_this = match &controllers {
                    None => names.is_empty(),
                    Some(controllers) => {
                        !names.is_empty()
                            && names.split(',').all(|name| controllers.iter().any(|it| it == name))
                    }
                };
                is_this.then_some(path)
            });
            let Some(path) = path else { continue };
            // A part of the tree can be mounted; above it nothing can be reached.
            let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
            let mount = PathBuf::from(mount);
            // An empty path would end the folder's with `/`.
            let own = mount.components().chain(below.components()).collect();
            hierarchies.push(Hierarchy { controllers, mount, own });
        }
        Self { hierarchies }
    }

    /// Where a group with these controllers can be made: all in version 2, or all in version 1.
    pub(super) fn place(&self, wanted: &[Controller]) -> Result<Place, Obstacle> {
        let unified = self.hierarchies.iter().find(|it| it.controllers.is_none());
        let first = |controller: &Controller| {
            self.hierarchies
                .iter()
                .find(|it| it.controllers.iter().flatten().any(|name| name == controller.name()))
        };
        if wanted.iter().any(|controller| first(controller).is_some()) || unified.is_none() {
            let parents = wanted.iter().map(|controller| {
                let Some(hierarchy) = first(controller) else {
                    return Err(match self.hierarchies.first() {
                        None => Obstacle::None,
                        Some(any) => Obstacle::NoController {
                            name: controller.name(),
                            version: 1,
                            at: any.mount.parent().unwrap_or(&any.mount).to_owned(),
                        },
                    });
                };
                writable(&hierarchy.own, 1)?;
                Ok(hierarchy.own.clone())
            });
            return parents.collect::<Result<_, _>>().map(Place::Separate);
        }
        let Some(Hierarchy { mount, own, .. }) = unified else { return Err(Obstacle::None) };
        let has = |file: &Path| missing_in(file, wanted).is_none();
        // The nearest that has them all, so that limits above this process hold for what it starts as well.
        for parent in own.ancestors().take_while(|above| above.starts_with(mount)) {
            if has(&parent.join("cgroup.subtree_control")) && writable(parent, 2).is_ok() {
                return Ok(Place::Unified(parent.to_owned()));
            }
        }
        writable(own, 2)?;
        if let Some(missing) = missing_in(&own.join("cgroup.controllers"), wanted) {
            return Err(Obstacle::NoController { name: missing.name(), version: 2, at: own.clone() });
        }
        let members = fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
        let this = std::process::id().to_string();
        match members.lines().all(|process| process == this) {
            true => Ok(Place::Split(own.clone())),
            false => Err(Obstacle::Shared { at: own.clone() }),
        }
    }
}

/// The first controller that a file does not list.
fn missing_in(file: &Path, wanted: &[Controller]) -> Option<Controller> {
    let listed = fs::read_to_string(file).unwrap_or_default();
    wanted.iter().copied().find(|wanted| !listed.split_whitespace().any(|name| name == wanted.name()))
}

fn writable(folder: &Path, version: u8) -> Result<(), Obstacle> {
    let at = || folder.to_owned();
    if statvfs(folder).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return Err(Obstacle::ReadOnly { version, at: at() });
    }
    // Version 1 has no processes to be moved in common.
    let parts = [folder.to_owned(), folder.join("cgroup.procs")];
    let needed = if version == 1 { &parts[..1] } else { &parts[..] };
    match needed.iter().all(|part| access(part, Access::WRITE_OK).is_ok()) {
        true => Ok(()),
        false => Err(Obstacle::NotWritable { version, at: at() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(folder: &Path, mounts: &str, own: &str) -> Host {
        Host::parse(&mounts.replace("@", &folder.display().to_string()), own)
    }

    fn file(folder: &Path, path: &str, content: &str) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    const UNIFIED: &str = "30 23 0:26 / @ rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "32 31 0:29 / @/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 /jobs @/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / @/unified rw - cgroup2 cgroup2 rw\n";
    const ALL: [Controller; 3] = Controller::ALL;

    #[test]
    fn version_1_has_a_folder_for_each_controller() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["cpu/a", "memory/7", "unified"] {
            fs::create_dir_all(folder.path().join(path)).expect("made");
        }
        let host = host(folder.path(), HYBRID, "4:memory:/jobs/7\n1:cpu,cpuacct:/a\n0::/\n");
        assert_eq!(
            host.place(&[Controller::Cpu, Controller::Memory]),
            Ok(Place::Separate(vec![folder.path().join("cpu/a"), folder.path().join("memory/7")]))
        );
        let refused = host.place(&ALL).expect_err("there are no pids");
        assert_eq!(
            refused,
            Obstacle::NoController { name: "pids", version: 1, at: folder.path().to_owned() }
        );
    }

    #[test]
    fn version_2_is_used_where_it_is_handed_down() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let host = host(at, UNIFIED, "0::/user/app\n");
        file(at, "user/app/cgroup.procs", &format!("{}\n", std::process::id()));
        file(at, "user/cgroup.procs", "");
        file(at, "user/app/cgroup.controllers", "cpu io\n");
        assert_eq!(
            host.place(&ALL),
            Err(Obstacle::NoController { name: "memory", version: 2, at: at.join("user/app") })
        );
        file(at, "user/app/cgroup.controllers", "cpu io memory pids\n");
        assert_eq!(host.place(&ALL), Ok(Place::Split(at.join("user/app"))));
        file(at, "user/app/cgroup.procs", &format!("{}\n1\n", std::process::id()));
        assert_eq!(host.place(&ALL), Err(Obstacle::Shared { at: at.join("user/app") }));
        file(at, "user/cgroup.subtree_control", "cpu memory pids\n");
        assert_eq!(host.place(&ALL), Ok(Place::Unified(at.join("user"))));
        fs::remove_file(at.join("user/cgroup.subtree_control")).expect("removed");
        file(at, "cgroup.procs", "");
        file(at, "cgroup.subtree_control", "cpu memory pids\n");
        assert_eq!(host.place(&ALL), Ok(Place::Unified(at.to_owned())));
        file(at, "user/app/cgroup.subtree_control", "memory pids\n");
        assert_eq!(host.place(&[Controller::Memory]), Ok(Place::Unified(at.join("user/app"))));
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(host(folder.path(), "", "").place(&ALL), Err(Obstacle::None));
        let host = host(folder.path(), UNIFIED, "0::/gone\n");
        let at = folder.path().join("gone");
        assert_eq!(host.place(&ALL), Err(Obstacle::NotWritable { version: 2, at }));
    }
}
