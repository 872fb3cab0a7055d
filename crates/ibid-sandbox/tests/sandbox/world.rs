//! Where a test happens: who starts the container, and from which folders.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ibid_testing::{Need, OrdinaryUser, Place, TinyRoot, copy_program, need};

/// A test of something that holds whoever starts the container.
pub type Test = fn(&World);

/// Who starts the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "they end the tests' names")]
pub enum Kind {
    root,
    user,
    one_id,
}

/// A place with a small root file system, and somebody to start containers from it.
pub struct World {
    pub place: Place,
    pub user: Option<OrdinaryUser>,
    root: TinyRoot,
    commands: AtomicU32,
}

/// What a container wrote and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    pub fn kinds() -> [Kind; 3] {
        [Kind::root, Kind::user, Kind::one_id]
    }

    /// The numeric ids of who starts the container.
    pub fn ids(&self) -> (u32, u32) {
        self.user.as_ref().map_or((0, 0), |user| (user.uid, user.gid))
    }

    pub fn layer(&self) -> &Path {
        self.root.layer()
    }

    pub fn upper(&self) -> PathBuf {
        self.place.path().join("upper")
    }

    /// A command that runs `program` in a container over this world's layers.
    pub fn command(&self, options: &[&str], program: &[&str]) -> Command {
        let path = |name: &str| self.place.path().join(name);
        let mut command = self.place.command(own_program());
        command.arg("contain").arg("--lower").arg(self.layer());
        // An overlay without syncing has its work folder for once.
        let work = self.place.folder(&format!("work-{}", self.commands.fetch_add(1, Ordering::Relaxed)));
        command.arg("--upper").arg(path("upper")).arg("--work").arg(work);
        command.args(["--bind-read-only", "/usr:/usr"]).args(options).args(program);
        self.by_its_user(command)
    }

    /// The same command, by the one who starts containers here.
    pub fn by_its_user(&self, command: Command) -> Command {
        match &self.user {
            Some(user) => {
                user.own(self.place.path());
                user.command(&command)
            }
            None => command,
        }
    }

    /// Runs it to its end.
    pub fn run(&self, options: &[&str], program: &[&str]) -> Outcome {
        self.finish(self.command(options, program))
    }

    /// Runs a line of shell to its end.
    pub fn shell(&self, options: &[&str], script: &str) -> Outcome {
        self.run(options, &["sh", "-c", script])
    }

    pub fn finish(&self, mut command: Command) -> Outcome {
        let output: Output = command.stdin(Stdio::null()).output().expect("the command starts");
        Outcome {
            code: output.status.code().expect("it ends by itself"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Outcome {
    /// The output of a program that ended well.
    #[track_caller]
    pub fn text(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.trim_end()
    }
}

impl Kind {
    /// None, and a word why, when the host cannot have this world.
    pub fn enter(self) -> Option<World> {
        let needs: &[Need] = match self {
            Self::root => &[Need::Root, Need::Overlay],
            Self::user => &[Need::Userns, Need::Subids, Need::Overlay],
            // Only root can become somebody whom nobody has given anything.
            Self::one_id => &[Need::Root, Need::Userns, Need::Overlay],
        };
        if !need(needs) {
            return None;
        }
        let place = Place::new();
        let root = TinyRoot::new(&place.path().join("layer"));
        place.folder("upper");
        let user = match self {
            Self::root => None,
            Self::user => Some(OrdinaryUser::find().expect("that was needed")),
            Self::one_id => Some(OrdinaryUser::without_subordinate_ids()),
        };
        Some(World { place, user, root, commands: AtomicU32::new(0) })
    }
}

static COPY: OnceLock<(Place, PathBuf)> = OnceLock::new();

/// This program, where every user can execute it.
pub fn own_program() -> &'static Path {
    let (_place, program) = COPY.get_or_init(|| {
        let place = Place::new();
        let program = place.path().join("sandbox-tests");
        copy_program(&std::env::current_exe().expect("its own path"), &program);
        (place, program)
    });
    program
}

/// Removes the copy. What is static is never dropped.
pub fn remove_own_program() {
    if let Some((place, _program)) = COPY.get() {
        std::fs::remove_dir_all(place.path()).expect("ours");
    }
}
