//! A program with a terminal of its own, joined with the terminal of who started it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};

use ibid_sys::signal::send;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::world::{Test, World};

pub const TESTS: &[(&str, Test)] = &[
    ("terminal::is_the_container_s_own", own),
    ("terminal::has_the_size_of_the_outer_one", size),
    ("terminal::keys_reach_the_program", keys),
    ("terminal::jobs_can_be_controlled", jobs),
    ("terminal::long_output_is_complete", long_output),
    ("terminal::the_outer_one_gets_its_settings_back", restored),
];

/// A terminal with a container started on it.
struct Outer {
    screen: File,
    line: OwnedFd,
    child: Child,
    seen: String,
}

impl Outer {
    fn start(world: &World, program: &[&str]) -> Self {
        let screen =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        unlockpt(&screen).expect("ours");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let line = ioctl_tiocgptpeer(&screen, flags).expect("its other end");
        resize(&line, 33, 77);
        let mut command = world.command(&["--terminal", "--env", "TERM=dumb"], program);
        let end = || Stdio::from(line.try_clone().expect("a copy"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        Self { screen: File::from(screen), line, child, seen: String::new() }
    }

    /// Waits until `text` is on the screen.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            let read = self.screen.read(&mut buffer).unwrap_or(0);
            assert_ne!(read, 0, "the terminal ended with {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }

    fn write(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    fn code(&mut self) -> i32 {
        self.child.wait().expect("it ends").code().expect("by itself")
    }
}

fn resize(line: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(line, size).expect("a terminal");
}

fn own(world: &World) {
    let script = "tty; ls -l /dev/console | cut -c1; stat -c %u $(tty); test -t 0 -a -t 1 -a -t 2 && echo all; \
                  (: > /dev/tty) && echo controlling; exit 4";
    let mut outer = Outer::start(world, &["sh", "-c", script]);
    let (uid, _) = world.ids();
    outer.wait_for(&format!("/dev/pts/0\r\nc\r\n{uid}\r\nall\r\ncontrolling\r\n"));
    assert_eq!(outer.code(), 4);
}

fn size(world: &World) {
    let script =
        "trap 'stty size; exit 0' WINCH; stty size; echo ready; while :; do sleep 1000 & wait $!; done";
    let mut outer = Outer::start(world, &["sh", "-c", script]);
    outer.wait_for("33 77");
    outer.wait_for("ready");
    resize(&outer.line, 44, 88);
    // The kernel tells only those whose controlling terminal it is.
    send(outer.child.id() as i32, 28).expect("it lives");
    outer.wait_for("44 88");
    assert_eq!(outer.code(), 0);
}

fn keys(world: &World) {
    let mut outer =
        Outer::start(world, &["sh", "-c", "echo ready; read line; echo \"got <$line>\"; exec cat"]);
    outer.wait_for("ready");
    outer.write("some text\n");
    outer.wait_for("got <some text>");
    // The container's terminal makes a signal of it.
    outer.write("\u{3}");
    outer.wait_for("^C");
    assert_eq!(outer.code(), 130);
}

fn jobs(world: &World) {
    let mut outer = Outer::start(world, &["bash", "--norc", "--noprofile", "-i"]);
    // Each waits for the one before: what is typed while the terminal changes its mode may wait for more.
    outer.wait_for("bash-");
    assert!(!outer.seen.contains("no job control"), "{}", outer.seen);
    outer.write("sh -c 'echo is$((1+1)); exec cat'\n");
    outer.wait_for("is2\r\n");
    outer.write("text\n");
    outer.wait_for("text\r\ntext\r\n");
    outer.write("\u{1a}");
    outer.wait_for("Stopped");
    outer.wait_for("exec cat'\r\nbash-");
    // The shell warns once that a job is stopped, and then believes it.
    outer.write("exit 6\nexit 6\n");
    assert_eq!(outer.code(), 6);
}

fn long_output(world: &World) {
    let mut outer = Outer::start(world, &["sh", "-c", "seq 1 50000; echo the very end"]);
    outer.wait_for("the very end");
    assert_eq!(outer.code(), 0);
    let numbers = outer.seen.lines().filter(|line| line.parse::<u32>().is_ok()).count();
    assert_eq!(numbers, 50000);
}

fn restored(world: &World) {
    let settings = |line: &OwnedFd| -> Termios { tcgetattr(line).expect("a terminal") };
    let same = |one: &Termios, other: &Termios| {
        (one.input_modes, one.output_modes, one.local_modes)
            == (other.input_modes, other.output_modes, other.local_modes)
    };
    for ending in ["exit 0", "kill -KILL $$", "TERM"] {
        let script = if ending == "TERM" {
            "echo ready; read line; exec sleep 1000"
        } else {
            "echo ready; read line; eval \"$line\""
        };
        let mut outer = Outer::start(world, &["sh", "-c", script]);
        outer.wait_for("ready");
        let raw = settings(&outer.line);
        if ending == "TERM" {
            send(outer.child.id() as i32, 15).expect("it lives");
        } else {
            outer.write(&format!("{ending}\n"));
        }
        outer.child.wait().expect("it ends");
        let after = settings(&outer.line);
        assert!(!same(&raw, &after), "{ending}");
        assert!(
            after
                .local_modes
                .contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO)
        );
    }
}
