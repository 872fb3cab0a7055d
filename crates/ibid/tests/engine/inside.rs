//! Level 4: inside a container of Docker, with as many of its restrictions lifted as `docs/privileges.md` says are in the way, and
//! before that the reason why not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use super::{Site, support::engine::Engine};

const LIFTED: [&str; 4] =
    ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"];
const IMAGE: &str = "inside";

/// A container that goes on until this is dropped.
pub struct Inside {
    engine: Engine,
    name: &'static str,
    _folders: [tempfile::TempDir; 2],
}

impl Inside {
    /// Starts a container of the site's user that has the place at its own path.
    pub fn start(site: &Site) -> Self {
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let engine = Engine::start(folder.path(), data.path());
        let inside = Self { engine, name: "ibid-inside", _folders: [folder, data] };
        // For a store among the container's own files.
        let store = site.place.folder("image/store");
        fs::set_permissions(store, fs::Permissions::from_mode(0o777)).expect("its mode");
        let script = "tar -c -C \"$0/project\" bin etc -C \"$0/image\" store | docker import - \"$1\"";
        let mut import = inside.engine.command("sh");
        import.args(["-c", script]).arg(site.place.path()).arg(IMAGE);
        check(import);
        let ids = site.ids();
        let user = format!("{}:{}", ids.0, ids.1);
        let mut run = inside.run(site, &LIFTED);
        run.args(["--detach", "--name", inside.name, "--user", &user, IMAGE, "/bin/sleep", "100000"]);
        check(run);
        inside
    }

    fn run(&self, site: &Site, options: &[&str]) -> Command {
        let place = site.place.path().display();
        let mut command = self.engine.command("docker");
        command.args(["run", "--network", "host", "--volume", &format!("{place}:{place}")]).args(options);
        command
    }

    /// Turns `command` into one in the container.
    pub fn command(&self, command: &Command) -> Command {
        let mut inside = self.engine.command("docker");
        inside.arg("exec");
        if let Some(folder) = command.get_current_dir() {
            inside.arg("--workdir").arg(folder);
        }
        for (name, value) in command.get_envs() {
            let (name, value) = (name.to_string_lossy(), value.unwrap_or_default().to_string_lossy());
            inside.args(["--env", &format!("{name}={value}")]);
        }
        inside.arg(self.name).arg(command.get_program()).args(command.get_args());
        inside
    }

    /// What ibid says in containers that lack something.
    pub fn check_refusals(&self, site: &Site) {
        let check = |options: &[&str], store: &str, expected: &str| {
            let mut command = self.run(site, options);
            let ids = site.ids();
            command.args(["--rm", "--user", &format!("{}:{}", ids.0, ids.1), "--tmpfs", "/tmp:exec"]);
            command.args(["--env", &format!("HOME={}", site.path("home").display())]);
            command.args(["--env", &format!("XDG_DATA_HOME={store}")]);
            command.arg("--workdir").arg(site.path("project")).arg(IMAGE).arg(site.path("ibid"));
            let output = command.args(["run", "--", "true"]).output().expect("docker starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{options:?}: {stderr}");
            assert!(stderr.contains(expected), "{options:?}: {stderr}");
        };
        let store = site.path("home/.local/share").display().to_string();
        check(&[], &store, "this host forbids user namespaces: a seccomp filter refuses them");
        check(&LIFTED[..2], &store, "part of `/proc` is hidden here");
        check(&LIFTED, "/store", "lies on an overlay itself");
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut remove = self.engine.command("docker");
        let _ =
            remove.args(["rm", "--force", self.name]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn check(mut command: Command) {
    let Output { status, stderr, .. } = command.output().expect("it starts");
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
}
