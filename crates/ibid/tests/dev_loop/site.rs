//! A project of somebody's, with an image that is busybox and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, OrdinaryUser, Place, busybox, copy_program, need};

pub const DOCKERFILE: &str = "FROM scratch\nCOPY bin /bin\nCOPY etc /etc\nENV PATH=/bin\nWORKDIR /code\nENTRYPOINT [\"sh\", \"train.sh\"]\n";

const PROGRAMS: [&str; 14] = [
    "cat", "cp", "echo", "false", "grep", "id", "kill", "mkdir", "pwd", "sh", "sleep", "stty", "touch",
    "true",
];

pub struct Site {
    pub place: Place,
    user: Option<OrdinaryUser>,
}

impl Site {
    /// Each level that this machine has, with the reason for each that it lacks.
    pub fn each(check: impl Fn(&Self)) {
        if !need(&[Need::Busybox]) {
            return;
        }
        type User = fn() -> Option<OrdinaryUser>;
        let levels: [(&[Need], User); 3] = [
            (&[Need::Root, Need::Overlay], || None),
            (&[Need::Userns, Need::Subids, Need::Overlay], OrdinaryUser::find),
            (&[Need::Root, Need::Userns, Need::Overlay], || Some(OrdinaryUser::without_subordinate_ids())),
        ];
        for (needs, user) in levels {
            if need(needs) {
                check(&Self::new(user()));
            }
        }
    }

    pub fn new(user: Option<OrdinaryUser>) -> Self {
        let site = Self { place: Place::new(), user };
        copy_program(env!("CARGO_BIN_EXE_ibid").as_ref(), &site.path("ibid"));
        site.project("project");
        site
    }

    /// Makes a project in a folder.
    pub fn project(&self, name: &str) {
        let bin = self.place.folder(&format!("{name}/bin"));
        fs::copy(busybox().expect("needed"), bin.join("busybox")).expect("a copy");
        for program in PROGRAMS {
            symlink("busybox", bin.join(program)).expect("a link");
        }
        self.place.file(&format!("{name}/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
        self.place.file(&format!("{name}/etc/group"), "root:x:0:\n");
        self.place.file(&format!("{name}/Dockerfile"), DOCKERFILE);
        self.place.file(&format!("{name}/ibid.toml"), "name = \"site\"\n[run]\noutputs = [\"output\"]\n");
        self.own();
    }

    /// Everything is the person's.
    pub fn own(&self) {
        if let Some(user) = &self.user {
            user.own(self.place.path());
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn ids(&self) -> (u32, u32) {
        self.user.as_ref().map_or_else(
            || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            |user| (user.uid, user.gid),
        )
    }

    pub fn is_root(&self) -> bool {
        self.ids().0 == 0
    }

    /// Writes a file of the project, as an editor does that writes another one and gives it the name.
    pub fn save(&self, name: &str, content: &str) {
        let new = self.place.file("project/.new~", content);
        if let Some(user) = &self.user {
            user.own(&new);
        }
        fs::rename(new, self.path("project").join(name)).expect("it gets the name");
    }

    pub fn command(&self, project: &str, args: &[&str]) -> Command {
        let mut command: Command = self.place.command(self.path("ibid"));
        command.args(args).current_dir(self.path(project)).stdin(Stdio::null());
        match &self.user {
            Some(user) => {
                let mut command = user.command(&command);
                command.stdin(Stdio::null());
                command
            }
            None => command,
        }
    }

    #[track_caller]
    pub fn check(&self, args: &[&str], code: i32) -> String {
        let output: Output = self.command("project", args).output().expect("ibid starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
