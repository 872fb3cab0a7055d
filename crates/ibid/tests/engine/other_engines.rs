//! The same cases on Docker and Podman. What they cannot do, or do otherwise, is a row here, with what comes of it instead.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use ibid_testing::{Need, OrdinaryUser, Place, need};

use super::{Case, check_all};

/// Docker or Podman, listening.
pub enum OtherEngine {
    Docker,
    Podman(PodmanService),
}

/// What comes of a case in place of what the table says.
enum Instead {
    /// A refusal with this reason.
    Refused(&'static str),
    /// This output, for the reason.
    Gives(&'static str, &'static str),
    /// No refusal, for the reason.
    Works(&'static str),
}

use Instead::{Gives, Refused, Works};

struct Row {
    engine: &'static str,
    /// Empty means all.
    levels: &'static [u8],
    case: &'static str,
    instead: Instead,
}

const fn row(engine: &'static str, levels: &'static [u8], case: &'static str, instead: Instead) -> Row {
    Row { engine, levels, case, instead }
}

const NO_IDS: &str = "ids are not mapped there";
const TO_ROOT_ONLY: &str = "it gives capabilities to root only";
const DEVICES: &str = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n2\n2\n";
const ENVIRONMENT: &str = "HOME HOSTNAME IBID_OUTPUT_DIR IBID_RUN_ID PATH PWD SHLVL TERM USER container\n\n";

const ROWS: &[Row] = &[
    row("docker", &[], "the devices that every program expects", Gives(DEVICES, "there is no /dev/core")),
    row("podman", &[], "the devices that every program expects", Gives(DEVICES, "there is no /dev/core")),
    row(
        "docker",
        &[1],
        "devices stay the host's",
        Gives("", "it makes nodes of its own, which root may change"),
    ),
    row(
        "podman",
        &[1],
        "devices stay the host's",
        Gives("", "it makes nodes of its own, which root may change"),
    ),
    row(
        "podman",
        &[],
        "nothing of the host's environment",
        Gives(ENVIRONMENT, "it sets two variables itself"),
    ),
    row(
        "docker",
        &[2, 3],
        "nothing is mounted but what belongs to a run",
        Gives(
            "/ /code /code/.ibid /code/data /code/venv /home/user\n",
            "a home that the image lacks is mounted",
        ),
    ),
    row(
        "podman",
        &[1],
        "nothing is mounted but what belongs to a run",
        Gives("/ /code /code/.ibid /code/data /code/venv /run/.containerenv\n", "it adds a file"),
    ),
    row(
        "podman",
        &[2, 3],
        "nothing is mounted but what belongs to a run",
        Gives(
            "/ /code /code/.ibid /code/data /code/venv /home/user /run/.containerenv\n",
            "it adds a file, and a home that the image lacks is mounted",
        ),
    ),
    row("podman", &[], "a folder in memory of somebody else", Refused("it makes folders in memory for root")),
    row("docker", &[], "another user", Refused(NO_IDS)),
    row("podman", &[1], "another user", Refused(NO_IDS)),
    row("docker", &[], "their groups", Refused(NO_IDS)),
    row("podman", &[1], "their groups", Refused(NO_IDS)),
    row("docker", &[], "a user that the image does not know", Refused(NO_IDS)),
    row("podman", &[1], "a user that the image does not know", Refused(NO_IDS)),
    row("docker", &[3], "where there is nobody else", Works("it has everybody's ids")),
    row("docker", &[2, 3], "root", Refused(NO_IDS)),
    row("docker", &[2, 3], "root gives files away", Refused(NO_IDS)),
    row("docker", &[2, 3], "all but one", Refused(NO_IDS)),
    row("docker", &[2, 3], "capabilities", Refused(TO_ROOT_ONLY)),
    row("docker", &[2, 3], "what is added can be used", Refused(TO_ROOT_ONLY)),
    row("docker", &[2, 3], "a limit above one's own", Refused("error setting rlimit")),
    row("podman", &[2], "a limit above one's own", Refused("cannot keep the limit nofile=")),
];

impl OtherEngine {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman(_) => "podman",
        }
    }

    /// How ibid finds it.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Docker => Vec::new(),
            Self::Podman(service) => vec![("CONTAINER_HOST", format!("unix://{}", service.socket.display()))],
        }
    }

    /// The group that may use its socket, when the person alone may not.
    pub fn group(&self) -> Option<u32> {
        match self {
            Self::Docker => std::fs::metadata("/var/run/docker.sock").ok().map(|socket| socket.gid()),
            Self::Podman(_) => None,
        }
    }

    /// Why ports of a container cannot be reached here.
    pub fn no_ports(&self, level: u8) -> Option<&'static str> {
        match self {
            Self::Docker if std::fs::exists("/sys/class/net/docker0").unwrap_or(false) => None,
            Self::Docker => Some("Docker was started without its bridge docker0"),
            Self::Podman(_) if level == 1 => Some("with root, Podman leads them through the host's firewall"),
            Self::Podman(_) if !std::fs::exists("/usr/bin/slirp4netns").unwrap_or(false) => {
                Some("without root, Podman needs the program slirp4netns")
            }
            Self::Podman(_) => None,
        }
    }

    /// The case as it is on this engine.
    pub fn case(&self, case: &Case, level: u8) -> Case {
        let is_here = |row: &&Row| {
            row.engine == self.name()
                && row.case == case.name
                && (row.levels.is_empty() || row.levels.contains(&level))
        };
        match ROWS.iter().find(is_here).map(|row| &row.instead) {
            None => case.clone(),
            Some(Refused(reason)) => {
                eprintln!("not available on {}, level {level}: {}: {reason}", self.name(), case.name);
                Case { code: 125, stdout: "", stderr: reason, ..case.clone() }
            }
            Some(Gives(stdout, reason)) => {
                eprintln!("otherwise on {}, level {level}: {}: {reason}", self.name(), case.name);
                Case { stdout, ..case.clone() }
            }
            Some(Works(reason)) => {
                eprintln!("otherwise on {}, level {level}: {}: {reason}", self.name(), case.name);
                Case { code: 0, stderr: "", ..case.clone() }
            }
        }
    }
}

/// Podman's API, served for as long as this lives.
pub struct PodmanService {
    process: Child,
    socket: PathBuf,
    place: Place,
}

impl PodmanService {
    /// With limits and a runtime that are there in a container too.
    fn start(user: Option<&OrdinaryUser>) -> Self {
        let place = Place::new();
        for folder in ["run", "storage", "home"] {
            place.folder(folder);
        }
        let driver = if user.is_some() { "vfs" } else { "overlay" };
        place.file(
            "containers.conf",
            "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\n[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n",
        );
        let path = |name: &str| place.path().join(name);
        let socket = path("run/podman.sock");
        if let Some(user) = user {
            user.own(place.path());
        }
        let mut command = place.command("podman");
        command
            .arg("--root")
            .arg(path("storage"))
            .arg("--runroot")
            .arg(path("run/containers"))
            .args(["--storage-driver", driver, "system", "service", "--time", "60"])
            .arg(format!("unix://{}", socket.display()))
            .env("CONTAINERS_CONF", path("containers.conf"))
            .env("XDG_RUNTIME_DIR", path("run"));
        if let Some(user) = user {
            command = user.command(&command);
        }
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("podman starts");
        while !socket.exists() {
            assert!(process.try_wait().expect("a child").is_none(), "podman serves nothing");
            std::thread::yield_now();
        }
        Self { process, socket, place }
    }
}

impl Drop for PodmanService {
    fn drop(&mut self) {
        // Without root it is two processes, of which the first passes this on.
        let _ended = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ended = self.process.wait();
        // Layers belong to subordinate ids, and storage is mounted.
        let storage = self.place.path().join("storage/overlay");
        let _not_mounted = Command::new("umount").arg(storage).stderr(Stdio::null()).status();
    }
}

#[test]
fn docker_of_root() {
    if need(&[Need::Root, Need::Overlay, Need::Docker]) {
        check_all(1, None, Some(OtherEngine::Docker), false);
    }
}

#[test]
fn docker_of_a_member_of_its_group() {
    if need(&[Need::Root, Need::Userns, Need::Subids, Need::Overlay, Need::Docker]) {
        check_all(2, OrdinaryUser::find(), Some(OtherEngine::Docker), false);
    }
}

#[test]
fn docker_of_a_member_of_its_group_with_one_id() {
    if need(&[Need::Root, Need::Userns, Need::Overlay, Need::Docker]) {
        check_all(3, Some(OrdinaryUser::without_subordinate_ids()), Some(OtherEngine::Docker), false);
    }
}

#[test]
fn podman_of_root() {
    if need(&[Need::Root, Need::Overlay, Need::Podman]) {
        check_all(1, None, Some(OtherEngine::Podman(PodmanService::start(None))), false);
    }
}

#[test]
fn podman_of_an_ordinary_user() {
    if need(&[Need::Userns, Need::Subids, Need::Overlay, Need::Podman]) {
        let user = OrdinaryUser::find();
        let service = PodmanService::start(user.as_ref());
        check_all(2, user, Some(OtherEngine::Podman(service)), false);
    }
}
