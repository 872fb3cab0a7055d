//! What `ibid eject` writes does what `ibid` does: the scripts are executed by real engines, and what comes out, which
//! files are left and whose they are is compared with what a run by `ibid` gives the same person.
//!
//! The engines are the test's own: no image or container of the machine is touched.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, OrdinaryUser, Place, copy_program, need};
use support::engine::{Engine, has_program};
use support::text;

const DOCKERFILE: &str = "FROM scratch\nCOPY bin /bin\nCOPY etc /etc\nENV PATH=/bin\n\
    RUN [\"/bin/mkdir\", \"-p\", \"-m\", \"1777\", \"/tmp\"]\n\
    ARG GREETING\nRUN [\"/bin/sh\", \"-c\", \"echo \\\"$GREETING\\\" > /greeting\"]\n\
    WORKDIR \"/the code\"\nCOPY . .\nENTRYPOINT [\"/bin/sh\", \"train.sh\"]\n";

const CONFIG: &str = "name = \"@NAME@\"\n[image]\ndockerfile = \"docker files/Dockerfile\"\n\
    args = { GREETING = \"it's a $HOME\" }\n[run]\noutputs = [\"out put\"]\ndata = [\"da ta\", \"absent\"]\n\
    env = { WORDS = \"a, 'b' $c\" }\n";

const TRAIN: &str = "pwd; cat word /greeting 'da ta/in'; echo \"$WORDS\"; printf '%s|' \"$@\"; echo\n\
    id -u; id -g; touch \"$HOME/x\" && echo home\n(echo x > 'da ta/in') 2>/dev/null || echo read-only\n\
    test $(df -k /dev/shm | tail -n 1 | xargs | cut -d' ' -f2) -gt 70000 && echo much\n\
    test \"$1\" = stdin && cat\nmkdir -p 'out put/d' && echo \"$1\" > 'out put/d/f'; chmod 600 'out put/d/f'\nexit 3\n";

/// A person's project, with `ibid` beside it.
struct Site {
    place: Place,
    person: OrdinaryUser,
}

impl Site {
    fn new() -> Self {
        let site = Self { place: Place::new(), person: OrdinaryUser::without_subordinate_ids() };
        copy_program(env!("CARGO_BIN_EXE_ibid").as_ref(), &site.place.path().join("ibid"));
        site.place.folder("my project/bin");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("was needed"), site.project().join("bin/busybox")).expect("a copy");
        let programs = [
            "cat", "chmod", "cut", "df", "id", "ls", "mkdir", "printf", "sh", "tail", "test", "touch",
            "xargs",
        ];
        for program in programs {
            std::os::unix::fs::symlink("busybox", site.project().join("bin").join(program)).expect("a link");
        }
        let name = site.name();
        for (path, content) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            ("word", "built\n"),
            ("da ta/in", "in\n"),
            ("train.sh", TRAIN),
            (".dockerignore", "out put\nda ta\n*_*.sh\ncompose.yaml\n"),
            ("docker files/Dockerfile", DOCKERFILE),
            ("ibid.toml", &CONFIG.replace("@NAME@", &name)),
        ] {
            site.place.file(&format!("my project/{path}"), content);
        }
        site.person.own(site.place.path());
        site
    }

    fn project(&self) -> PathBuf {
        self.place.path().join("my project")
    }

    fn name(&self) -> String {
        self.place.path().file_name().expect("a name").to_string_lossy().to_lowercase()
    }

    fn ibid(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = self.place.command(self.place.path().join("ibid"));
        command.args(args).current_dir(self.project());
        fed(self.person.command(&command), stdin)
    }

    /// Takes away what a run made, and says what it was: paths with content and owner.
    fn outputs(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let folder = self.project().join("out put");
        list(&folder, &folder, &mut found);
        let _ = fs::remove_dir_all(&folder);
        found
    }

    /// What each way to start the image gives: code and output, and the files that it leaves.
    fn results(&self, start: &dyn Fn(Way, &[&str], &str) -> Output) -> Vec<String> {
        let mut results = Vec::new();
        for (way, args, stdin) in [
            (Way::Run, &["a b", "--x=$Y", ""][..], ""),
            (Way::Run, &["stdin"], "from elsewhere\n"),
            (Way::Run, &[], ""),
            (Way::Shell, &[], "pwd; cat word; sh train.sh dev; exit 4\n"),
            (Way::PeggedShell, &[], "cat word; sh train.sh pegged; ls | xargs\n"),
        ] {
            let output = start(way, args, stdin);
            assert!(!output.stdout.is_empty(), "{way:?}: {}", text(&output.stderr));
            results.push(format!("{way:?} {args:?}: {:?}\n{}", output.status.code(), text(&output.stdout)));
            results.push(format!("{:?}", self.outputs()));
        }
        results
    }
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Run,
    Shell,
    PeggedShell,
}

fn fed(mut command: Command, stdin: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // One that reads nothing closes it early.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn list(root: &Path, path: &Path, found: &mut BTreeMap<String, String>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let name = path.strip_prefix(root).expect("below").display().to_string();
    let content = fs::read_to_string(path).unwrap_or_default();
    found.insert(name, format!("{:o} {}:{} {content:?}", metadata.mode(), metadata.uid(), metadata.gid()));
    for entry in fs::read_dir(path).into_iter().flatten() {
        list(root, &entry.expect("an entry").path(), found);
    }
}

/// What `ibid` gives, after the image is built and the code has changed.
fn results_of_ibid(site: &Site) -> Vec<String> {
    let built = site.ibid(&["build"], "");
    assert!(built.status.success(), "{}", text(&built.stderr));
    site.place.file("my project/word", "mounted\n");
    let results = site.results(&|way, args, stdin| {
        let first: &[&str] = match way {
            Way::Run => &["run", "--"],
            Way::Shell => &["dev"],
            Way::PeggedShell => &["dev", "--pegged"],
        };
        site.ibid(&[first, args].concat(), stdin)
    });
    site.place.file("my project/word", "built\n");
    let all = results.join("\n");
    for expected in [
        "/the code\nmounted\n",
        "it's a $HOME\n",
        "read-only\n",
        "a b|--x=$Y||\n",
        "Some(3)",
        "Some(4)",
        "built\n",
    ] {
        assert!(all.contains(expected), "{expected:?} in\n{all}");
    }
    let (uid, gid) = (site.person.uid, site.person.gid);
    assert!(all.contains(&format!("100600 {uid}:{gid}")), "{all}");
    results
}

/// Does the same by the scripts for `tool`.
fn check(site: &Site, tool: &str, expected: &[String], command: &dyn Fn(&Path) -> Command) {
    let ejected = site.ibid(&["eject", &format!("--{tool}")][..if tool == "docker" { 1 } else { 2 }], "");
    assert!(ejected.status.success(), "{}", text(&ejected.stderr));
    let script = |name: &str| site.project().join(format!("{tool}_{name}.sh"));
    let built = fed(command(&script("build")), "");
    assert!(built.status.success(), "{}{}", text(&built.stdout), text(&built.stderr));
    site.place.file("my project/word", "mounted\n");
    let results = site.results(&|way, args, stdin| {
        let name = match way {
            Way::Run => "run",
            Way::Shell => "dev",
            Way::PeggedShell => "run_bash",
        };
        let mut command = command(&script(name));
        command.args(args);
        fed(command, stdin)
    });
    site.place.file("my project/word", "built\n");
    for (ours, theirs) in expected.iter().zip(&results) {
        assert_eq!(theirs, ours, "{tool}");
    }
}

fn can_run() -> bool {
    has_program("busybox", "busybox") && need(&[Need::Root, Need::Userns, Need::Overlay])
}

#[test]
fn docker_does_the_same() {
    if !can_run() || !Engine::is_installed() {
        return;
    }
    let site = Site::new();
    let expected = results_of_ibid(&site);
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::start(folder.path(), data.path());
    check(&site, "docker", &expected, &|script| {
        let mut command = engine.command(script);
        // What sudo tells a script about who called it.
        command.env("SUDO_UID", site.person.uid.to_string()).env("SUDO_GID", site.person.gid.to_string());
        if script.ends_with("docker_build.sh") {
            command.args(["--network", "host"]);
        }
        command.current_dir("/");
        command
    });
}

#[test]
fn compose_does_the_same() {
    if !can_run() || !Engine::is_installed() || !has_program("docker-compose", "docker-compose") {
        return;
    }
    let site = Site::new();
    let expected = results_of_ibid(&site);
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let engine = Engine::start(folder.path(), data.path());
    let ejected = site.ibid(&["eject", "--compose"], "");
    assert_eq!(text(&ejected.stdout), "compose.yaml\n", "{}", text(&ejected.stderr));
    let said = text(&ejected.stderr);
    assert!(said.contains("absent is not there, so compose.yaml does not mount it"), "{said}");
    let compose = |args: &[&str], stdin: &str| {
        let mut command = engine.command("docker-compose");
        command.args(args).current_dir(site.project());
        command.env("USER_ID", site.person.uid.to_string()).env("GROUP_ID", site.person.gid.to_string());
        // Its own builder runs no step on the host's network, which is all that this engine has.
        fed(command, stdin)
    };
    let mut build = engine.command("docker");
    let dockerfile = site.project().join("docker files/Dockerfile");
    build.args([
        "build",
        "--network",
        "host",
        "--build-arg",
        "GREETING=it's a $HOME",
        "--tag",
        &site.name(),
        "--file",
    ]);
    let built = fed(
        {
            build.arg(dockerfile).arg(site.project());
            build
        },
        "",
    );
    assert!(built.status.success(), "{}", text(&built.stderr));
    site.place.file("my project/word", "mounted\n");
    let results = site.results(&|way, args, stdin| {
        let service = match way {
            Way::Run => "run",
            Way::Shell => "dev",
            Way::PeggedShell => "bash",
        };
        // As the file itself says.
        let output = site.project().join("out put");
        if service == "bash" {
            fs::create_dir_all(&output).expect("a folder");
            site.person.own(&output);
        }
        compose(&[&["run", "--rm", "-T", service], args].concat(), stdin)
    });
    for (ours, theirs) in expected.iter().zip(&results) {
        assert_eq!(theirs, ours);
    }
}

#[test]
fn podman_does_the_same() {
    if !can_run() || !need(&[Need::Podman]) {
        return;
    }
    let site = Site::new();
    let expected = results_of_ibid(&site);
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    // Its path may have no more than 50 characters.
    let runtime = tempfile::tempdir().expect("a temporary folder");
    let settings = data.path().join("containers.conf");
    let storage = data.path().join("storage.conf");
    fs::write(
        &settings,
        "[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"none\"\n\
         [containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
    )
    .expect("a file");
    // Its overlay needs what a test's file system may lack.
    fs::write(
        &storage,
        format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            data.path().join("root").display(),
            runtime.path().display()
        ),
    )
    .expect("a file");
    check(&site, "podman", &expected, &|script| {
        let mut command = site.place.command(script);
        command.env("CONTAINERS_CONF", &settings).env("CONTAINERS_STORAGE_CONF", &storage);
        command.env("SUDO_UID", site.person.uid.to_string()).env("SUDO_GID", site.person.gid.to_string());
        if script.ends_with("podman_build.sh") {
            command.args(["--network", "host", "--isolation", "chroot"]);
        }
        command.current_dir("/");
        command
    });
}

#[test]
fn files_that_are_there_stay() {
    let project = support::Project::new("FROM scratch\nWORKDIR /code\n");
    let paths = project.check(&["eject"], 0);
    let names = "docker_build.sh\ndocker_run.sh\ndocker_run_bash.sh\ndocker_dev.sh\n";
    assert_eq!(paths, names);
    assert_eq!(fs::metadata(project.path().join("docker_run.sh")).expect("written").mode() & 0o777, 0o755);
    // The same again is no loss.
    project.check(&["eject"], 0);
    project.file("docker_run.sh", "mine");
    fs::remove_file(project.path().join("docker_dev.sh")).expect("removed");
    let output = project.ibid(&["eject"]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("docker_run.sh exists already") && said.contains("--force"), "{said}");
    assert!(!project.path().join("docker_dev.sh").exists(), "something was written");
    assert_eq!(fs::read_to_string(project.path().join("docker_run.sh")).expect("there"), "mine");
    project.check(&["eject", "--force"], 0);
    assert!(project.path().join("docker_dev.sh").exists());
    // Elsewhere, from elsewhere.
    let mut elsewhere = project.command(&["-C", "project", "eject", "--compose", "-o", "to run"]);
    let output = elsewhere.current_dir(project.place.path()).output().expect("ibid starts");
    assert_eq!(text(&output.stdout), "project/to run/compose.yaml\n", "{}", text(&output.stderr));
    let compose = fs::read_to_string(project.path().join("to run/compose.yaml")).expect("written");
    assert!(compose.contains("context: \"../.\"") || compose.contains("context: \"..\""), "{compose}");
    // A Dockerfile that is wrong is shown.
    project.file("Dockerfile", "FROM scratch\nWORKDIRR /code\n");
    let said = text(&project.ibid(&["eject"]).stderr);
    assert!(said.contains("Dockerfile:2"), "{said}");
}
