//! Docker as an engine and as a builder, and what is said where an engine cannot be used. What programs may rely on is in
//! `tests/engine`.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, busybox};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use support::{Project, can_copy, text};

const DOCKERFILE: &str = "FROM scratch\nARG USER_ID=5\nENV ID=$USER_ID PATH=/bin PLACE=@UNIQUE@\nCOPY busybox /bin/sh\nCOPY busybox /bin/stty\nCOPY busybox /bin/sleep\nWORKDIR /code\n";
const REST: &str = "[run]\noutputs = [\"output\"]\n";

/// A project with a shell, where Docker can run it.
fn project() -> Option<Project> {
    if !can_copy(&[Need::Docker, Need::Busybox]) {
        return None;
    }
    let project = Project::new(DOCKERFILE);
    project.file("ibid.toml", &format!("name = \"{}\"\n{REST}", project.name()));
    project.file(".dockerignore", "output\n.ibid\n");
    fs::copy(busybox()?, project.path().join("busybox")).expect("a copy");
    Some(project)
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().expect("docker starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// Takes what a test leaves in the engine.
struct InDocker(String);

impl Drop for InDocker {
    fn drop(&mut self) {
        let _never_there = Command::new("docker").args(["rmi", "--force", &self.0]).output();
    }
}

#[track_caller]
fn check_failure(output: &Output, parts: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    for part in parts {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
}

#[test]
fn a_run_is_recorded_as_any_and_leaves_no_container() {
    let Some(project) = project() else { return };
    let name = format!("ibid.local/{}:latest", project.name());
    let _image = InDocker(name.clone());
    let script = "echo said; echo 1 > output/made; exit 3";
    fs::create_dir(project.path().join("output")).expect("made");
    let said = project.check(&["run", "--engine", "docker", "--", "sh", "-c", script], 3);
    assert_eq!(said, "said\n");
    let record: serde_json::Value =
        serde_json::from_str(&project.check(&["show", "last", "--json"], 0)).expect("JSON");
    let record = &record["run"];
    let engine = record["host"]["engine"].as_str().expect("an engine");
    assert!(engine.starts_with("docker "), "{engine}");
    assert_eq!(record["exit_code"], 3);
    assert_eq!(record["outputs"][0]["path"], "output/made");
    assert_eq!(project.check(&["logs", "last"], 0), "said\n");
    // By its own digest, and nothing is left of the run.
    assert_eq!(docker(&["image", "inspect", "--format", "{{.Id}}", &name]), record["image"]["digest"]);
    let label = format!("label=ibid.run={}", record["id"].as_str().expect("an id"));
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &label]), "");
    // By ibid itself it does the same.
    project.check(&["replay", "last"], 0);
}

#[test]
fn what_is_written_to_a_program_and_signals_reach_it() {
    let Some(project) = project() else { return };
    let _image = InDocker(format!("ibid.local/{}:latest", project.name()));
    let start = |script: &str| {
        let mut command =
            project.command(&["--quiet", "run", "--engine", "docker", "--", "sh", "-c", script]);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        pipes.spawn().expect("ibid starts")
    };
    let mut child = start("while read line; do echo \"got $line\"; done; echo end");
    child.stdin.take().expect("a pipe").write_all(b"word of mine\nand another\n").expect("taken");
    let heard = text(&child.wait_with_output().expect("it ends").stdout);
    assert_eq!(heard, "got word of mine\ngot and another\nend\n");

    let mut child = start("trap 'echo told; exit 9' TERM; echo ready; while :; do :; done");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    let killed = Command::new("kill").arg(child.id().to_string()).status();
    assert!(killed.is_ok_and(|status| status.success()));
    assert_eq!(lines.next().expect("a line").expect("text"), "told");
    assert_eq!(child.wait().expect("a child").code(), Some(9));

    // Who stops reading ends a program that goes on writing.
    let mut child = start("while :; do echo on; done");
    let mut first = [0; 3];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("three bytes");
    assert_eq!(child.wait().expect("a child").code(), Some(141));
}

/// A terminal, and what has come out of it and was not looked for yet.
struct Terminal {
    ours: fs::File,
    heard: String,
}

impl Terminal {
    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.ours, size).expect("a size");
    }

    fn type_in(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).expect("taken");
    }

    /// Reads up to `text`.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
        while !self.heard.contains(text) {
            let is_there = poll(&mut [PollFd::new(&self.ours, PollFlags::IN)], Some(&patience));
            assert_ne!(is_there, Ok(0), "no `{text}` for a minute in:\n{}", self.heard);
            let read = self.ours.read(&mut buffer).unwrap_or(0);
            assert!(read > 0, "no `{text}` in:\n{}", self.heard);
            self.heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        let end = self.heard.find(text).expect("it is there") + text.len();
        self.heard.drain(..end);
    }
}

#[test]
fn a_session_has_a_terminal() {
    let Some(project) = project() else { return };
    let _image = InDocker(format!("ibid.local/{}:latest", project.name()));
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&ours).expect("granted");
    unlockpt(&ours).expect("unlocked");
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&ours, flags).expect("its other end");
    let mut terminal = Terminal { ours: ours.into(), heard: String::new() };
    terminal.resize(30, 90);
    let inner = project.command(&["dev", "--engine", "docker"]);
    let mut command = project.place.command("setsid");
    command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
    command
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(project.path());
    let end = || Stdio::from(theirs.try_clone().expect("a descriptor"));
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("ibid starts");
    drop((command, theirs));
    terminal.expect(":/code");
    terminal.type_in("stty size\n");
    terminal.expect("30 90\r\n");
    terminal.resize(20, 70);
    // It is told while the shell goes on.
    terminal.type_in("until test \"$(stty size)\" = '20 70'; do :; done; echo re\"\"sized\n");
    terminal.expect("resized");
    terminal.type_in("sh -c 'echo st\"\"arted; sleep 1000'\n");
    terminal.expect("started");
    terminal.type_in("\x03");
    // What was typed before is thrown away.
    terminal.expect("^C");
    terminal.expect(":/code");
    terminal.type_in("echo code$?\n");
    terminal.expect("code130");
    terminal.type_in("exit 5\n");
    terminal.expect("exit code 5");
    assert_eq!(child.wait().expect("a child").code(), Some(5));
}

#[test]
fn what_docker_builds_is_run_by_whom_one_likes() {
    let Some(project) = project() else { return };
    let _image = InDocker(format!("ibid.local/{}:latest", project.name()));
    let table = "[engine]\nbuilder = \"docker\"\n";
    project.file("ibid.toml", &format!("name = \"{}\"\n{REST}{table}", project.name()));
    check_failure(&project.ibid(&["run", "sh"]), &["there is no image ", "`ibid build` makes it"]);
    let built = project.ibid(&["build"]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let digest = text(&built.stdout).trim().to_owned();
    let name = format!("ibid.local/{}:latest", project.name());
    assert_eq!(docker(&["image", "inspect", "--format", "{{.Id}}", &name]), digest);
    let id = match rustix::process::geteuid().as_raw() {
        0 => 5,
        id => id,
    };
    for engine in ["native", "docker"] {
        let said = project.check(&["run", "--engine", engine, "--", "sh", "-c", "echo $ID"], 0);
        assert_eq!(said, format!("{id}\n"), "{engine}");
    }
    check_failure(&project.ibid(&["build", "--verify"]), &["--verify is of ibid's own builder"]);
}

#[test]
fn why_an_engine_cannot_be_used_is_told() {
    let project = Project::new("FROM scratch\nWORKDIR /code\n");
    let run = |variable: &str, value: &str, args: &[&str]| {
        let mut command = project.command(&[&["run"], args].concat());
        command.env(variable, value).output().expect("ibid starts")
    };
    if !can_copy(&[]) {
        return;
    }
    let docker = |host: &str| run("DOCKER_HOST", host, &["--engine", "docker", "true"]);
    check_failure(&docker("ssh://me@lab"), &["DOCKER_HOST is ssh://me@lab", "hint: `unset DOCKER_HOST`"]);
    check_failure(&docker("unix:///nowhere/d"), &["cannot reach Docker at /nowhere/d", "No such file"]);
    check_failure(
        &run("IBID_ENGINE", "dokcer", &["true"]),
        &["IBID_ENGINE: expected native, docker or podman"],
    );
    check_failure(
        &run("XDG_RUNTIME_DIR", "/nowhere", &["--engine", "podman", "true"]),
        &["podman/podman.sock", "hint: "],
    );
    project.file("ibid.toml", "[engine]\nname = \"dokcer\"\n");
    check_failure(&project.ibid(&["run", "true"]), &["`engine.name`: expected", "ibid.toml:2:8"]);

    // Something else listens, an engine that is too old does, and nobody does any more.
    project.file("ibid.toml", "");
    let socket = project.path().join("d.sock");
    let address = format!("unix://{}", socket.display());
    for (answer, part) in [
        ("SSH-2.0-x\r\n", "is no answer in HTTP"),
        (
            "HTTP/1.1 500 No\r\nContent-Length: 16\r\n\r\n{\"message\":\"no\"}",
            "Docker cannot say its version: ",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{\"ApiVersion\":\"1.24\"}",
            "its API has the version 1.24",
        ),
    ] {
        let listener = UnixListener::bind(&socket).expect("a socket");
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let asked = BufReader::new(stream.try_clone().expect("a stream")).lines();
            let head = asked.map(|line| line.expect("text")).take_while(|line| !line.is_empty());
            assert!(head.count() > 1, "no request");
            stream.write_all(answer.as_bytes()).expect("taken");
        });
        check_failure(&docker(&address), &[part]);
        served.join().expect("served");
        fs::remove_file(&socket).expect("removed");
    }
    drop(UnixListener::bind(&socket).expect("a socket"));
    check_failure(&docker(&address), &["Connection refused", "nobody listens there any more"]);
}
