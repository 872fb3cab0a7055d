//! Control groups: only limits of memory and processors need them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::{Finding, State, find_program};

const COST: &str = "limits of memory and processors cannot be set";
/// What limits are made of.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Whether this process may make groups with limits, and of which version they are.
pub fn cgroups() -> Finding {
    let ability = "cgroups";
    let lacks = |detail: String, mend| Finding::lacks(ability, State::Degraded, detail, COST, mend);
    let root = Path::new("/sys/fs/cgroup");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if !root.join("cgroup.controllers").exists() {
        let found = match (own.lines().next(), root.join("unified/cgroup.controllers").exists()) {
            (None, _) => "there are none",
            (_, true) => "version 1 beside version 2 (hybrid); only version 2 alone is used",
            (_, false) => "version 1; only version 2 is used",
        };
        return lacks(found.to_owned(), Some(unify()));
    }
    if statvfs(root).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return lacks(format!("version 2, but `{}` is read-only, as in a container", root.display()), None);
    }
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let folder = root.join(path);
    let delegate = || {
        find_program("systemd-run").map(|_| "systemd-run --user --scope -p Delegate=yes ibid …".to_owned())
    };
    if !is_writable(&folder) {
        return lacks(format!("version 2, but `{}` is not writable", folder.display()), delegate());
    }
    let listed = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|name| !listed.split_whitespace().any(|controller| controller == *name))
        .collect();
    if missing.is_empty() {
        return Finding::works(ability, "version 2, writable, with all controllers");
    }
    let detail = format!("version 2, writable, but without the controllers {}", missing.join(", "));
    lacks(detail, Some("sudo systemctl set-property user.slice Delegate=\"cpu memory pids\"".to_owned()))
}

fn is_writable(folder: &Path) -> bool {
    let parts: [PathBuf; 2] = [folder.to_owned(), folder.join("cgroup.procs")];
    parts.iter().all(|part| access(part, Access::WRITE_OK).is_ok())
}

/// The command that makes systemd use version 2 alone from the next start on.
fn unify() -> String {
    "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&systemd.unified_cgroup_hierarchy=1 /' /etc/default/grub && sudo update-grub"
        .to_owned()
}
