//! Users without root, whom tests that run as root become.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// A user, with or without subordinate ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdinaryUser {
    /// Name; empty for one without.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl OrdinaryUser {
    /// The user of this process, if that is not root; else the first on the host with subordinate ids.
    pub fn find() -> Option<Self> {
        let own = rustix::process::geteuid().as_raw();
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        let has_ids = |file: &str, user: &Self| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let number = user.uid.to_string();
            text.lines()
                .filter_map(|line| line.split(':').next())
                .any(|owner| owner == user.name || owner == number)
        };
        users
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let [name, _, uid, gid, ..] = fields[..] else { return None };
                Some(Self { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
            })
            .filter(|user| user.uid != 0 && (own == 0 || own == user.uid))
            .find(|user| has_ids("/etc/subuid", user) && has_ids("/etc/subgid", user))
    }

    /// A user id that has no name, and so no subordinate ids, as on a node of a cluster. Only root can become it.
    pub fn without_subordinate_ids() -> Self {
        const NOBODYS: u32 = 64_321;
        Self { name: String::new(), uid: NOBODYS, gid: NOBODYS }
    }

    /// Turns `command` into one that this user runs.
    pub fn command(&self, command: &Command) -> Command {
        self.command_in_group(command, None)
    }

    /// The same, as a member of another group too.
    pub fn command_in_group(&self, command: &Command, group: Option<u32>) -> Command {
        if !rustix::process::geteuid().is_root() {
            return copy(Command::new(command.get_program()), command);
        }
        let mut as_user = Command::new("setpriv");
        as_user
            .args(["--reuid", &self.uid.to_string(), "--regid", &self.gid.to_string()])
            .args(match (group, self.name.is_empty()) {
                (Some(group), _) => vec!["--groups".to_owned(), format!("{},{group}", self.gid)],
                (None, true) => vec!["--clear-groups".to_owned()],
                (None, false) => vec!["--init-groups".to_owned()],
            })
            .args(["--inh-caps=-all", "--"])
            .arg(command.get_program());
        copy(as_user, command)
    }

    /// Gives a folder, with all in it, to this user.
    ///
    /// # Panics
    ///
    /// When that is refused.
    pub fn own(&self, folder: &Path) {
        if rustix::process::geteuid().is_root() {
            let status = Command::new("chown")
                .args([
                    OsStr::new("-hR"),
                    OsStr::new(&format!("{}:{}", self.uid, self.gid)),
                    folder.as_os_str(),
                ])
                .status();
            assert!(status.is_ok_and(|status| status.success()), "chown {}", folder.display());
        }
    }
}

fn copy(mut to: Command, from: &Command) -> Command {
    to.args(from.get_args());
    to.env_clear();
    to.envs(from.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = from.get_current_dir() {
        to.current_dir(folder);
    }
    to
}
