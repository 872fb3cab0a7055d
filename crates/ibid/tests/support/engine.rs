//! A real Docker engine for one test: its images and containers live in a temporary folder, so no image, tag or container
//! of the machine is touched.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Whether a program is there that the need `need` stands for. As `ibid_testing::need`, says what is missing, or panics
/// where that is required.
pub fn has_program(need: &str, program: &str) -> bool {
    let Err(error) = Command::new(program).arg("--version").output() else { return true };
    let required = std::env::var("IBID_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == need || name == "all"),
        "needs {need}: {program}: {error}"
    );
    eprintln!("skipped: needs {need}: {program}: {error}");
    false
}

/// A Docker engine of this test, ended when dropped.
pub struct Engine {
    daemon: Child,
    socket: PathBuf,
    /// A mount that the engine leaves behind.
    network: PathBuf,
}

impl Engine {
    /// Whether the programs are there; no running engine is needed. As `ibid_testing::need`, says what is missing, or
    /// panics where that is required.
    pub fn is_installed() -> bool {
        has_program("docker", "dockerd") && has_program("docker", "docker")
    }

    /// `folder` has a short path, as sockets need; `data` lies on a file system that overlays can be made of.
    pub fn start(folder: &Path, data: &Path) -> Engine {
        let socket = folder.join("docker.sock");
        let mut daemon = Command::new("dockerd")
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .arg("--data-root")
            .arg(data.join("docker"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("docker.pid"))
            // The machine's bridges and firewall are not this test's to change.
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dockerd starts");
        let mut lines = BufReader::new(daemon.stderr.take().expect("a pipe")).lines();
        let mut said = String::new();
        loop {
            let Some(Ok(line)) = lines.next() else { panic!("dockerd ended before it listened:\n{said}") };
            said.push_str(&line);
            said.push('\n');
            if line.contains("API listen on") {
                break;
            }
        }
        // It goes on writing, and must never wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Engine { daemon, socket, network: folder.join("exec/netns/default") }
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        command.env_remove("SUDO_UID").env_remove("SUDO_GID").stdin(Stdio::null());
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Asked to end, it stops its containers and unmounts what it mounted; killed, it would leave them.
        let asked = Command::new("kill").arg(self.daemon.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.daemon.kill();
        }
        let _ = self.daemon.wait();
        let _ = Command::new("umount").arg(&self.network).stderr(Stdio::null()).status();
    }
}
