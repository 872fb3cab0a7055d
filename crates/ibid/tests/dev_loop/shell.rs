//! `ibid dev` on a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::site::Site;

/// Far more than anything takes here.
const DEADLINE_SECONDS: i64 = 120;

/// A terminal with ibid on it.
struct Terminal {
    screen: File,
    /// Kept open, so that what is on the screen can be read when all others are gone.
    _line: OwnedFd,
    child: Child,
    seen: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let screen = openpt(flags).expect("a terminal");
        unlockpt(&screen).expect("ours");
        let line = ioctl_tiocgptpeer(&screen, flags).expect("its other end");
        let size = Winsize { ws_row: 33, ws_col: 177, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&line, size).expect("a terminal");
        let end = || Stdio::from(line.try_clone().expect("a copy"));
        command.env("TERM", "xterm-256color");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        Self { screen: File::from(screen), _line: line, child, seen: String::new() }
    }

    /// Waits until `text` is on the screen.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            let deadline = Timespec { tv_sec: DEADLINE_SECONDS, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&self.screen, PollFlags::IN)], Some(&deadline));
            assert_eq!(ready, Ok(1), "no `{text}` in {:?}", self.seen);
            let read = self.screen.read(&mut buffer).unwrap_or(0);
            assert_ne!(read, 0, "the terminal ended with {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }

    fn write(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    fn code(mut self) -> i32 {
        self.child.wait().expect("it ends").code().expect("by itself")
    }
}

#[test]
fn the_shell_is_comfortable() {
    Site::each(|site| {
        site.save("train.sh", "");
        let mut terminal = Terminal::start(site.command("project", &["dev"]));
        let (name, mark) = if site.is_root() { ("root", "#") } else { ("user", "$") };
        terminal.wait_for(&format!("{name}@"));
        terminal.wait_for(&format!(":/code{mark} "));
        terminal.write("echo $TERM $((6*7)); stty size; sh -c 'echo is$((1+1)); exec cat'\n");
        terminal.wait_for("xterm-256color 42\r\n33 177\r\nis2\r\n");
        terminal.write("\u{1a}");
        terminal.wait_for("Stopped");
        // With a stopped job, the first only warns.
        terminal.write("exit 3\nexit 3\n");
        terminal.wait_for("3 in ");
        assert_eq!(terminal.code(), 3);
    });
}

#[test]
fn what_was_typed_is_kept_for_each_project() {
    Site::each(|site| {
        site.project("other/project");
        for project in ["project", "other/project"] {
            let bash = site.path(project).join("bin/bash");
            let script =
                "#!/bin/sh\ncat $HISTFILE 2>/dev/null\necho \"$HISTFILE $PS1\"\necho typed >> $HISTFILE\n";
            std::fs::write(&bash, script).expect("a file");
            std::fs::set_permissions(&bash, PermissionsExt::from_mode(0o755)).expect("its mode");
        }
        site.own();
        for project in ["project", "other/project"] {
            let built = site.command(project, &["build"]).output().expect("ibid starts");
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        }
        let session = |project: &str, args: &[&str]| {
            let mut terminal = Terminal::start(site.command(project, args));
            terminal.wait_for("done in ");
            let seen = terminal.seen.clone();
            assert_eq!(terminal.code(), 0, "{seen}");
            seen
        };
        let prompt = r"/run/ibid/history/bash \u@\h:\w\$ ";
        let seen = session("project", &["dev"]);
        assert!(seen.contains(prompt) && !seen.contains("typed"), "{seen}");
        let seen = session("project", &["dev"]);
        assert!(seen.contains(prompt) && seen.contains("typed\r\n"), "{seen}");
        // Another user of the container is the same person.
        let seen = session("project", &["dev", "--user", "7:7"]);
        assert!(seen.contains("typed\r\ntyped\r\n"), "{seen}");
        let seen = session("other/project", &["dev"]);
        assert!(seen.contains(prompt) && !seen.contains("typed"), "{seen}");
        let state = site.path("home/.local/state/ibid/history");
        let kept: Vec<PathBuf> = std::fs::read_dir(&state)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        for folder in kept {
            let metadata = std::fs::metadata(folder.join("bash")).expect("the history");
            assert_eq!((metadata.uid(), metadata.gid()), site.ids());
            assert_eq!(folder.metadata().expect("a folder").mode() & 0o777, 0o700);
        }
        // A session without a terminal has none, and its shell nothing to write to.
        let said = site.check(&["dev"], 1);
        assert!(said.starts_with(' ') && !said.contains("history"), "{said}");
    });
}
