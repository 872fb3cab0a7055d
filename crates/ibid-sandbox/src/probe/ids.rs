//! Whom a container can have for users.

use std::path::Path;

use rustix::fs::{Access, StatVfsMountFlags};

use super::{ALONE, Finding, State, answer_in, find_program, separate_mounts};
use crate::userns::{self, Obstacle};

/// What is lost with one id, in a few words. The rest stands in the documentation.
const ONE_ID: &str =
    "one id is mapped: the same images, but builds are slower (docs/privileges.md says what else differs)";

/// How much ibid can do here, as the documentation numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Root.
    Root = 1,
    /// A user with many ids.
    ManyIds = 2,
    /// A user with one.
    OneId = 3,
}

/// The level of this process; none when it can make no containers.
pub fn level() -> Option<Level> {
    if userns::capable() && !userns::entered() {
        return Some(Level::Root);
    }
    if !user_namespaces().usable() {
        return None;
    }
    let (uid, _) = userns::host_ids();
    let many = userns::subordinate(uid).is_ok() && mappers().state == State::Works;
    Some(if many { Level::ManyIds } else { Level::OneId })
}

/// User namespaces: an ordinary user cannot mount without them.
pub fn user_namespaces() -> Finding {
    let ability = "user namespaces";
    if userns::entered() || userns::capable() && userns::inside() {
        return Finding::works(ability, "in use");
    }
    // Changing a mount too: AppArmor lets the namespace be made, and denies what it is for.
    let answer = answer_in(ALONE, separate_mounts);
    match answer {
        Ok(()) => Finding::works(ability, "can be made"),
        Err(errno) => {
            let obstacle = Obstacle::find(errno);
            let root = userns::capable();
            Finding::lacks(
                ability,
                if root { State::Degraded } else { State::Missing },
                obstacle.to_string(),
                if root { "other users than root cannot use ibid" } else { "containers cannot be made" },
                obstacle.mend(),
            )
        }
    }
}

/// The user's subordinate ids. Root needs none.
pub fn subordinate_ids() -> Finding {
    let ability = "subordinate ids";
    let (uid, _) = userns::host_ids();
    match userns::subordinate(uid) {
        Ok(ids) => {
            let count =
                |ranges: &[userns::Range]| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
            let (uids, gids) = (count(&ids.uids), count(&ids.gids));
            let detail = format!("{uids} user ids, {gids} group ids");
            if uids.min(gids) < 65_535 {
                let cost = "images with larger ids cannot be unpacked";
                return Finding::lacks(ability, State::Degraded, detail, cost, None);
            }
            Finding::works(ability, detail)
        }
        Err(_) if uid == 0 && userns::capable() => Finding::works(ability, "not needed by root"),
        Err(error) => Finding::lacks(ability, State::Degraded, error.to_string(), ONE_ID, error.mend()),
    }
}

/// `newuidmap` and `newgidmap`, which map subordinate ids: they must be allowed to.
pub fn mappers() -> Finding {
    let ability = "newuidmap and newgidmap";
    let lacks = |detail: String, mend| Finding::lacks(ability, State::Degraded, detail, ONE_ID, mend);
    if userns::capable() && !userns::inside() {
        return Finding::works(ability, "not needed by root");
    }
    let mut detail = Vec::new();
    for name in ["newuidmap", "newgidmap"] {
        let Some(program) = find_program(name) else {
            return lacks(format!("{name} not found"), Some(userns::install_mappers()));
        };
        let place = program.display();
        if rustix::fs::access(&program, Access::EXEC_OK).is_err() {
            return lacks(format!("`{place}` cannot be executed"), Some(format!("sudo chmod 755 {place}")));
        }
        match right_of(&program) {
            Some(right) => detail.push(right),
            None => {
                let capability = if name == "newuidmap" { "cap_setuid" } else { "cap_setgid" };
                return lacks(
                    format!("`{place}` has neither a set-user-id bit nor {capability}"),
                    Some(format!("sudo setcap {capability}+ep {place}")),
                );
            }
        }
        let ignores = rustix::fs::statvfs(&program);
        if ignores.is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::NOSUID)) {
            return lacks(format!("`{place}` is on a file system that is mounted with `nosuid`"), None);
        }
    }
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return lacks(
            "this process may gain no rights (`no_new_privs`), so they cannot help".to_owned(),
            None,
        );
    }
    detail.dedup();
    Finding::works(ability, format!("installed, with {}", detail.join(" and ")))
}

/// What lets a program map ids.
fn right_of(program: &Path) -> Option<&'static str> {
    let status = rustix::fs::stat(program).ok()?;
    if rustix::fs::Mode::from_raw_mode(status.st_mode).contains(rustix::fs::Mode::SUID) && status.st_uid == 0
    {
        return Some("the set-user-id bit");
    }
    let mut value = [0; 64];
    rustix::fs::getxattr(program, "security.capability", &mut value).ok().map(|_| "a file capability")
}
