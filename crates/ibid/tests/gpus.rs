//! `--gpus`, with CDI files over harmless devices and libraries, on every level of privilege (`docs/privileges.md`).

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, OrdinaryUser, Place, copy_program, need};
use support::engine::has_program;
use support::{Project, can_build, text};

const DOCKERFILE: &str =
    "FROM scratch\nCOPY bin /bin\nCOPY etc /etc\nWORKDIR /code\nENV PATH=/bin KEPT=of-image LAB=of-image\n";

/// Two devices: `full`, which nothing can be written to, and `zero`, which gives nothing but zeros.
const FILE: &str = r#"
cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: /dev/lab/full, hostPath: /dev/full}]
- name: "1"
  containerEdits:
    deviceNodes: [{path: /dev/zero1, hostPath: /dev/zero, type: c, major: 1, minor: 5}]
containerEdits:
  env: [LAB=of-file, ASKED=of-file]
  additionalGids: [4242]
  mounts:
  - {hostPath: @PLACE@/driver/libdriver.so.5, containerPath: /usr/lib/lab/libdriver.so.5, options: [ro, nosuid, nodev, bind]}
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args: [nvidia-ctk, hook, update-ldcache, --folder, /usr/lib/lab]
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args: [nvidia-ctk, hook, create-symlinks, --link, "libdriver.so.5::/usr/lib/lab/libdriver.so"]
  - hookName: createContainer
    path: @PLACE@/driver/hook
    args: [hook, now]
"#;

struct Site {
    place: Place,
    user: Option<OrdinaryUser>,
}

impl Site {
    fn new(user: Option<OrdinaryUser>) -> Self {
        let site = Self { place: Place::new(), user };
        copy_program(env!("CARGO_BIN_EXE_ibid").as_ref(), &site.path("ibid"));
        site.place.folder("project/bin");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("was needed"), site.path("project/bin/busybox")).expect("a copy");
        for program in ["cat", "head", "id", "ls", "sh", "test", "wc"] {
            std::os::unix::fs::symlink("busybox", site.path("project/bin").join(program)).expect("a link");
        }
        let place = site.place.path().display().to_string();
        for (path, content) in [
            ("project/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("project/etc/group", "root:x:0:\n"),
            ("project/Dockerfile", DOCKERFILE),
            ("project/ibid.toml", "name = \"gpus\"\n[run]\ngpus = \"nvidia.com/gpu=1\"\n"),
            ("cdi/lab.yaml", &FILE.replace("@PLACE@", &place)),
            (
                "home/.config/ibid/config.toml",
                &format!("cdi_folders = [\"{place}/none\", \"{place}/cdi\"]\n"),
            ),
            ("driver/libdriver.so.5", "of the driver\n"),
            ("driver/hook", "#!/bin/sh\ntouch \"$0.ran\"\n"),
        ] {
            site.place.file(path, content);
        }
        fs::set_permissions(site.path("driver/hook"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("a mode");
        if let Some(user) = &site.user {
            user.own(site.place.path());
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn ibid(&self, args: &[&str]) -> Output {
        let mut command: Command = self.place.command(self.path("ibid"));
        command.args(args).current_dir(self.path("project"));
        if let Some(user) = &self.user {
            command = user.command(&command);
        }
        command.stdin(Stdio::null()).output().expect("ibid starts")
    }
}

fn check_level(user: Option<OrdinaryUser>) {
    if !has_program("busybox", "busybox") {
        return;
    }
    let is_root = user.is_none();
    let site = Site::new(user);
    let check = |options: &[&str], script: &str, expected: &str| {
        let output = site.ibid(&[&["run"], options, &["--", "sh", "-c", script]].concat());
        let said = text(&output.stderr);
        assert_eq!(text(&output.stdout), expected, "{options:?} {script}\n{said}");
        said
    };
    // What the project asks for, what the command line asks for instead, and nothing.
    let script = "cd /dev; ls -d lab zero1 2>/dev/null; echo $LAB $KEPT $LD_LIBRARY_PATH";
    check(&[], script, "zero1\nof-file of-image /run/ibid/gpus\n");
    check(&["--gpus", "1"], script, "lab\nof-file of-image /run/ibid/gpus\n");
    check(&["--gpus", "device=0,1"], script, "lab\nzero1\nof-file of-image /run/ibid/gpus\n");
    check(&["--gpus", "none"], script, "of-image of-image\n");
    // They are the devices, not copies of them.
    let script = "test -c /dev/lab/full && (echo x > /dev/lab/full) 2>/dev/null || echo full; head -c 5 /dev/zero1 | wc -c";
    let said = check(&["--gpus", "all"], script, "full\n5\n");
    // A hook is not executed, and that is said.
    let hook = format!(
        "warning: a CDI file asks for what was not done: the hook `{}/driver/hook now`",
        site.place.path().display()
    );
    assert!(said.contains(&hook), "{said}");
    assert!(!site.path("driver/hook.ran").exists(), "a hook was executed");
    // Files are at their places, under the names that links would give them, and for the linker.
    let script = "cd /usr/lib/lab; ls; cat libdriver.so /run/ibid/gpus/libdriver.so.5; (echo x > libdriver.so) 2>/dev/null || echo read-only";
    check(
        &["--gpus", "1"],
        script,
        "libdriver.so\nlibdriver.so.5\nof the driver\nof the driver\nread-only\n",
    );
    // The person's own words count most.
    let env = ["--gpus", "1", "--env", "LAB=mine", "--env", "LD_LIBRARY_PATH=/mine"];
    check(&env, "echo $LAB $ASKED $LD_LIBRARY_PATH", "mine of-file /mine:/run/ibid/gpus\n");
    if is_root {
        check(&[], "id -G", "0 4242\n");
    }
    // `dev` has them, too.
    let mut dev = site.place.command(site.path("ibid"));
    dev.args(["dev", "--gpus", "1", "--pegged"]).current_dir(site.path("project"));
    if let Some(user) = &site.user {
        dev = user.command(&dev);
    }
    let commands = site.place.file("commands", "ls -d /dev/lab\n");
    let output = dev.stdin(fs::File::open(commands).expect("a file")).output().expect("ibid starts");
    assert_eq!(text(&output.stdout), "/dev/lab\n", "{}", text(&output.stderr));

    // What cannot be had is refused before anything is started.
    let refused = |request: &str, expected: &[&str]| {
        let output = site.ibid(&["run", "--gpus", request, "--", "true"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{request}: {said}");
        for expected in expected {
            assert!(said.contains(expected), "{request}: {expected:?} in\n{said}");
        }
    };
    refused("3", &["3 GPUs were asked for, and there are 2"]);
    refused(
        "lab.org/x=1",
        &["no CDI file describes `lab.org/x=1`", "hint: there are nvidia.com/gpu=0, nvidia.com/gpu=1"],
    );
    refused("some", &["expected `all`, `none`, a number"]);
    fs::remove_file(site.path("driver/libdriver.so.5")).expect("removed");
    refused(
        "all",
        &["/cdi/lab.yaml names ", "/driver/libdriver.so.5, which is not there", "nvidia-ctk cdi generate"],
    );
    let doctor = text(&site.ibid(&["doctor"]).stdout);
    assert!(doctor.contains("driver/libdriver.so.5, which is not there"), "{doctor}");
    site.place.file("cdi/lab.yaml", "kind: [\n");
    refused("all", &["/cdi/lab.yaml: line "]);
    fs::remove_file(site.path("cdi/lab.yaml")).expect("removed");
    if !Path::new("/proc/driver/nvidia/version").exists() {
        refused(
            "all",
            &[
                "there is no GPU: no CDI file for nvidia.com/gpu or amd.com/gpu in ",
                "/cdi, and no NVIDIA driver in /proc/driver/nvidia/version",
            ],
        );
    }
}

#[test]
fn level_1_root() {
    if need(&[Need::Root, Need::Overlay]) {
        check_level(None);
    }
}

#[test]
fn level_2_a_user_with_subordinate_ids() {
    if need(&[Need::Userns, Need::Subids, Need::Overlay]) {
        check_level(OrdinaryUser::find());
    }
}

#[test]
fn level_3_a_user_with_one_id() {
    if need(&[Need::Root, Need::Userns, Need::Overlay]) {
        check_level(Some(OrdinaryUser::without_subordinate_ids()));
    }
}

/// The image's own linker finds a library by the name that programs have for it.
#[test]
fn programs_find_the_libraries() {
    if !can_build() {
        return;
    }
    // One that the host has and that needs nothing but the C library, under another name.
    let real = ["/lib/x86_64-linux-gnu/libutil.so.1", "/lib/aarch64-linux-gnu/libutil.so.1"];
    let Some(real) = real.into_iter().find(|path| Path::new(path).exists()) else {
        eprintln!("skipped: needs a Debian with libutil.so.1");
        return;
    };
    let project = Project::new("FROM debian:bookworm-slim\nWORKDIR /code\n");
    let place = project.place.path().display().to_string();
    project.place.folder("driver");
    fs::copy(real, project.place.path().join("driver/libdriver.so.5.1")).expect("a copy");
    project.place.file(
        "cdi/lab.json",
        &format!(
            "{{\"cdiVersion\": \"0.6.0\", \"kind\": \"lab.org/x\", \"devices\": [{{\"name\": \"all\"}}], \"containerEdits\": {{\
             \"mounts\": [{{\"hostPath\": \"{place}/driver/libdriver.so.5.1\", \"containerPath\": \"/opt/lab/libdriver.so.5.1\"}}],\
             \"hooks\": [{{\"hookName\": \"createContainer\", \"path\": \"/usr/bin/nvidia-cdi-hook\",\
             \"args\": [\"nvidia-cdi-hook\", \"update-ldcache\", \"--folder\", \"/opt/lab\"]}}]}}}}"
        ),
    );
    project.place.file("home/.config/ibid/config.toml", &format!("cdi_folders = [\"{place}/cdi\"]\n"));
    for name in ["libdriver.so.5.1", "libutil.so.1"] {
        let preload = format!("LD_PRELOAD={name}");
        let args = ["run", "--gpus", "lab.org/x=all", "--", "env", &preload, "cat", "/proc/self/maps"];
        let output = project.ibid(&args);
        assert!(
            text(&output.stdout).contains(&format!("/run/ibid/gpus/{name}\n")),
            "{name}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    }
}
