//! Runs that are going on: entered, listed, joined and stopped, on every level.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Case, Site, shell};

const MANY_IDS: &[u8] = &[1, 2];
const ONE_ID: &[u8] = &[3];

/// What a program that enters a run may rely on.
const CASES: &[Case] = &[
    shell("it ends well", &["true"], ""),
    Case { code: 7, ..shell("its exit code is passed on", &["sh", "-c", "exit 7"], "") },
    Case { code: 137, ..shell("a signal is 128 and its number", &["sh", "-c", "kill -9 $$"], "") },
    Case {
        code: 127,
        stderr: "`no-such-program` is not in the container (searched /bin)",
        ..shell("a program that is not there", &["no-such-program"], "")
    },
    Case { code: 126, ..shell("a file that is no program", &["/etc/group"], "") },
    shell(
        "arguments stay as they are",
        &["printf", "%s|", "a b", "", "*", "--x=$Y", "-e"],
        "a b||*|--x=$Y|-e|",
    ),
    shell("the person's ids", &["sh", "-c", "id -u; id -g; id -un"], "@UID@\n@GID@\n@NAME@\n"),
    shell(
        "the rights of the run's own program",
        &[
            "sh",
            "-c",
            "for of in 2 $$; do grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/$of/status > /tmp/$of; done; \
             grep -c . /tmp/2; cat /tmp/2 > /tmp/a; cat /tmp/$$ > /tmp/b; test \"$(cat /tmp/a)\" = \"$(cat /tmp/b)\" && echo same",
        ],
        "11\nsame\n",
    ),
    shell(
        "its namespaces",
        &[
            "sh",
            "-c",
            "for name in user mnt pid ipc uts cgroup net; do test \"$(readlink /proc/2/ns/$name)\" = \"$(readlink /proc/self/ns/$name)\" || echo $name; done",
        ],
        "",
    ),
    shell("its limits", &["sh", "-c", "ulimit -n; ulimit -H -n"], "77\n99\n"),
    shell("its folder and code", &["sh", "-c", "pwd; cat word"], "/code\nmounted\n"),
    shell(
        "its environment",
        &["sh", "-c", "test \"$HOSTNAME\" = \"$(hostname)\" && echo \"$WORD|$LEAK|$PATH\""],
        "of run||/bin\n",
    ),
    Case {
        options: &["-e", "WORD=own", "--env", "LEAK", "-w", "/tmp"],
        ..shell("what is asked for differs", &["sh", "-c", "echo \"$WORD|$LEAK\"; pwd"], "own|leaked\n/tmp\n")
    },
    shell("nothing of the host's descriptors", &["sh", "-c", "ls /proc/$$/fd; true"], "0\n1\n2\n"),
    shell("its processes", &["sh", "-c", "cat /proc/1/comm /proc/2/comm"], "ibid\nsleep\n"),
    shell(
        "nothing of the host's files",
        &[
            "sh",
            "-c",
            "ls -d @PLACE@ 2>/dev/null; ls /proc/1/root 2>/dev/null; ls /proc/1/cwd 2>/dev/null; true",
        ],
        "",
    ),
    shell("no new rights", &["sh", "-c", "mount -t tmpfs x /tmp 2>/dev/null || echo refused"], "refused\n"),
    shell(
        "what is written is the person's",
        &["sh", "-c", "mkdir -p output/d; echo 1 > output/d/f; stat -c %u:%g output/d/f"],
        "@UID@:@GID@\n",
    ),
    Case {
        options: &["--root"],
        levels: MANY_IDS,
        ..shell("root", &["sh", "-c", "id -u; echo $HOME; touch /made && stat -c %u /made"], "0\n/root\n0\n")
    },
    Case {
        options: &["--user", "worker"],
        levels: MANY_IDS,
        ..shell(
            "another user",
            &["sh", "-c", "id -u; id -g; id -G; echo $HOME $USER"],
            "60\n61\n61 50\n/home/worker worker\n",
        )
    },
    Case {
        name: "where there is nobody else",
        options: &["--user", "60:61"],
        levels: ONE_ID,
        code: 125,
        stderr: "nobody can be 60:61 in this run: one user id is mapped",
        ..shell("", &["true"], "")
    },
    Case {
        name: "a user that nobody knows",
        options: &["--user", "nobody-knows"],
        code: 125,
        stderr: "no user `nobody-knows` in the image's /etc/passwd",
        ..shell("", &["true"], "")
    },
    Case {
        name: "a folder that is not there",
        options: &["-w", "/none"],
        code: 125,
        stderr: "cannot enter the working folder at `/none`",
        ..shell("", &["true"], "")
    },
];

pub fn check_all(site: &Site) {
    let _nothing_goes_on = StopAll(site);
    entering(site);
    detaching(site);
    stopping(site);
    if site.inside.is_some() {
        // Neither signals nor terminals get into it from here.
        return;
    }
    joining(site);
    typing(site);
    if site.level == 1 {
        hostile(site);
    }
}

/// Ends what a failed check left.
struct StopAll<'a>(&'a Site);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        for id in text(&self.0.ibid(&["ps", "--quiet"], &[]).stdout).lines() {
            self.0.ibid(&["stop", "--time", "0", id], &[]);
        }
    }
}

impl Site {
    #[track_caller]
    fn ok(&self, options: &[&str], program: &[&str]) -> String {
        let output = self.ibid(options, program);
        assert!(output.status.success(), "{options:?} {program:?}\n{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Fails with ibid's own code and says this.
    #[track_caller]
    fn refuses(&self, words: &[&str], said: &str) {
        let output = self.ibid(words, &[]);
        assert_eq!(output.status.code(), Some(125), "{words:?}");
        assert!(text(&output.stderr).contains(said), "{words:?}\n{}", text(&output.stderr));
    }

    /// The id of a detached run.
    #[track_caller]
    fn detach(&self, options: &[&str], program: &[&str]) -> String {
        let printed = self.ok(&[&["run", "--detach"], options, &["--"]].concat(), program);
        let id = printed.trim_end().to_owned();
        assert!(id.len() == 12 && printed == format!("{id}\n"), "the id alone: {printed:?}");
        id
    }

    fn record(&self, id: &str) -> serde_json::Value {
        let shown: serde_json::Value =
            serde_json::from_str(&self.ok(&["show", "--json", id], &[])).expect("JSON");
        shown["run"].clone()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn entering(site: &Site) {
    let options = ["--env", "WORD=of run", "--ulimit", "nofile=77:99"];
    let id = site.detach(&options, &["sleep", "1000"]);
    let cases: Vec<&Case> =
        CASES.iter().filter(|case| case.levels.is_empty() || case.levels.contains(&site.level)).collect();
    let failures: Vec<String> =
        cases.iter().filter_map(|case| site.check_as("project", case, &["exec"], &id).err()).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    // By the start of its id, as the last, and by a name.
    site.ok(&["tag-run", &id, "mine"], &[]);
    for name in [&id[..6], "last", "mine"] {
        site.ok(&["exec", name, "true"], &[]);
    }
    let listed: serde_json::Value = serde_json::from_str(&site.ok(&["ps", "--json"], &[])).expect("JSON");
    assert_eq!(listed["runs"].as_array().expect("a list").len(), 1, "{listed}");
    assert_eq!(listed["runs"][0]["id"], id);
    assert_eq!(listed["runs"][0]["command"][0], "sleep");
    assert_eq!(listed["runs"][0]["detached"], true);
    // One that entered ends with the run.
    let mut entered = site.command("project", &["exec", &id, "sh", "-c", "echo in; exec sleep 1000"], &[]);
    let mut entered = entered.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    assert_eq!(line(&mut entered), "in\n");
    site.ok(&["stop", "--time", "0", &id], &[]);
    assert_eq!(entered.wait().expect("it ends").code(), Some(137));
    assert_eq!(site.ok(&["ps", "--quiet"], &[]), "");
    site.refuses(&["exec", &id, "true"], "is not going on: it ended at");
    site.refuses(&["exec", "ffffffffffff", "true"], "no run has the tag `ffffffffffff`");
}

fn line(child: &mut Child) -> String {
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    // Byte by byte: what follows is somebody else's to read.
    let mut byte = [0];
    while !line.ends_with('\n') && stdout.read(&mut byte).expect("readable") == 1 {
        line.push(char::from(byte[0]));
    }
    line
}

fn detaching(site: &Site) {
    // Nothing to read, no terminal, and its words are in the log.
    let script = "cat; test -t 0 || test -t 1 || echo none; (: < /dev/tty) 2>/dev/null || echo none; echo bad >&2; exit 6";
    let id = site.detach(&[], &["sh", "-c", script]);
    let joined = site.ibid(&["attach", &id], &[]);
    // It may have ended before anybody could join.
    assert!([Some(6), Some(125)].contains(&joined.status.code()), "{}", text(&joined.stderr));
    let logged = site.ibid(&["logs", "--follow", "--stdout", &id], &[]);
    assert_eq!(text(&logged.stdout), "none\nnone\n");
    // What cannot start says so at once, with the usual codes.
    let check = |program: &[&str], code| {
        let output = site.ibid(&["run", "-d", "--"], program);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(code), ""), "{program:?}");
        assert!(text(&output.stderr).contains("error:"), "{}", text(&output.stderr));
    };
    check(&["no-such-program"], 127);
    check(&["/etc/group"], 126);
    if site.inside.is_some() {
        // Its processes have other numbers there than here.
        return;
    }
    // Killed, it leaves a record, and nothing of the run goes on.
    let id = site.detach(&[], &["sleep", "1000"]);
    let listed: serde_json::Value = serde_json::from_str(&site.ok(&["ps", "--json"], &[])).expect("JSON");
    let executor = listed["runs"][0]["process"].as_i64().expect("a number");
    let executor = Pid::from_raw(executor.try_into().expect("a process id")).expect("not 0");
    let mut entered = site.command("project", &["exec", &id, "sh", "-c", "echo in; exec sleep 1000"], &[]);
    let mut entered = entered.stdout(Stdio::piped()).spawn().expect("it starts");
    assert_eq!(line(&mut entered), "in\n");
    kill_process(executor, Signal::KILL).expect("it lives");
    assert_eq!(entered.wait().expect("it ends").code(), Some(137));
    assert_eq!(site.ok(&["ps", "-q"], &[]), "");
    assert_eq!(site.record(&id)["status"], "lost");
    site.refuses(&["attach", &id], "the ibid that executed it was killed");
}

fn stopping(site: &Site) {
    // The image's STOPSIGNAL is SIGUSR1.
    let waits =
        "mkfifo /tmp/go; trap 'exit 5' USR1; trap '' TERM; echo ready; while :; do read x < /tmp/go; done";
    let first = site.detach(&[], &["sh", "-c", waits]);
    ready(site, &first);
    site.ok(&["stop", "--time", "1000", &first], &[]);
    assert_eq!(site.record(&first)["exit_code"], 5);
    // One that does not listen is killed.
    let deaf = "trap '' USR1 TERM; echo ready; while :; do sleep 1000; done";
    let second = site.detach(&[], &["sh", "-c", deaf]);
    ready(site, &second);
    let third = site.detach(&[], &["sleep", "1000"]);
    site.ok(&["stop", "-t", "0", &second, &third], &[]);
    assert_eq!(site.record(&second)["signal"], "SIGKILL");
    assert_eq!(site.record(&second)["status"], "failed");
    assert!(!site.record(&third)["exit_code"].is_null());
    site.refuses(&["stop", &second], "is not going on: it ended at");
    // One in the foreground, too.
    let mut command = site.command("project", &["run", "--", "sh", "-c", waits], &[]);
    let mut foreground = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    assert_eq!(line(&mut foreground), "ready\n");
    let id = site.ok(&["ps", "-q"], &[]).trim_end().to_owned();
    site.refuses(&["attach", &id], "has a terminal of its own already");
    site.ok(&["stop", "--time", "1000", &id], &[]);
    assert_eq!(foreground.wait().expect("it ends").code(), Some(5));
}

/// Waits until the program of a run has said so.
fn ready(site: &Site, id: &str) {
    let mut logs = site.command("project", &["logs", "--follow", id], &[]);
    let mut logs = logs.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    assert_eq!(line(&mut logs), "ready\n");
    let _ends_with_the_run = logs.kill();
    let _ = logs.wait();
}

fn joining(site: &Site) {
    let script = "mkfifo /tmp/go; exec 3<>/tmp/go; trap 'echo interrupted; exit 4' INT; echo early; echo bad >&2; \
                  read x <&3; echo late; while :; do read x <&3; done";
    let id = site.detach(&[], &["sh", "-c", script]);
    let join = || {
        let mut command = site.command("project", &["attach", &id], &[]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    // What was said before, and to both.
    let (mut first, mut second) = (join(), join());
    for child in [&mut first, &mut second] {
        assert_eq!(line(child), "early\n");
    }
    site.ok(&["exec", &id, "sh", "-c", "echo > /tmp/go"], &[]);
    for child in [&mut first, &mut second] {
        assert_eq!(line(child), "late\n");
    }
    // One that goes leaves the run as it is.
    first.kill().expect("it lives");
    first.wait().expect("it ends");
    // What interrupts the other is the program's.
    kill_process(Pid::from_child(&second), Signal::INT).expect("it lives");
    let Output { status, stdout, stderr } = second.wait_with_output().expect("it ends");
    assert_eq!((status.code(), text(&stdout).as_str()), (Some(4), "interrupted\n"));
    assert_eq!(text(&stderr), "bad\n");
    assert_eq!(site.record(&id)["exit_code"], 4);
}

/// A terminal, with somebody at it.
struct Outer {
    screen: BufReader<File>,
    line: OwnedFd,
    child: Child,
}

impl Outer {
    fn start(site: &Site, words: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let screen = openpt(flags).expect("a terminal");
        unlockpt(&screen).expect("ours");
        let line = ioctl_tiocgptpeer(&screen, flags).expect("its other end");
        resize(&line, 33, 77);
        let end = || Stdio::from(line.try_clone().expect("a copy"));
        let mut command = site.command("project", words, &[]);
        let child =
            command.env("TERM", "dumb").stdin(end()).stdout(end()).stderr(end()).spawn().expect("it starts");
        Self { screen: BufReader::new(File::from(screen)), line, child }
    }

    /// Reads lines until one is as expected.
    #[track_caller]
    fn wait_for(&mut self, expected: &str) {
        let mut seen = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.screen.read_line(&mut line).unwrap_or(0);
            assert_ne!(read, 0, "the terminal ended with {seen:?} instead of {expected:?}");
            let is_it = line.trim_end().ends_with(expected);
            seen.push(line);
            if is_it {
                return;
            }
        }
    }

    fn write(&mut self, keys: &str) {
        self.screen.get_mut().write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

fn resize(line: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(line, size).expect("a terminal");
}

fn typing(site: &Site) {
    let script = "echo ready; while read word; do case $word in size) stty size;; end) exit 3;; *) echo \"<$word>\";; esac; done";
    let id = site.detach(&["--tty"], &["sh", "-c", script]);
    let mut outer = Outer::start(site, &["attach", &id]);
    outer.wait_for("ready");
    outer.write("a word\r");
    outer.wait_for("<a word>");
    // The size of the window is the program's, at once and later.
    outer.write("size\r");
    outer.wait_for("33 77");
    resize(&outer.line, 44, 88);
    kill_process(Pid::from_child(&outer.child), Signal::WINCH).expect("it lives");
    outer.write("more\r");
    outer.wait_for("<more>");
    outer.write("size\r");
    outer.wait_for("44 88");
    // Left, it goes on; the next one sees what was said.
    outer.write("\u{10}\u{11}");
    outer.wait_for("goes on");
    assert_eq!(outer.code(), Some(0));
    let mut outer = Outer::start(site, &["attach", &id]);
    outer.wait_for("<more>");
    outer.write("again\r");
    outer.wait_for("<again>");
    outer.write("end\r");
    assert_eq!(outer.code(), Some(3));
    // A program that enters has a terminal of its own, too.
    let id = site.detach(&[], &["sh", "-c", "echo ready; exec sleep 1000"]);
    let script = "tty; stty size; echo $TERM; read word; echo \"<$word>\"; exit 8";
    let mut outer = Outer::start(site, &["exec", &id, "sh", "-c", script]);
    outer.wait_for("/dev/pts/0");
    outer.wait_for("33 77");
    outer.wait_for("dumb");
    outer.write("typed\r");
    outer.wait_for("<typed>");
    assert_eq!(outer.code(), Some(8));
    // Nobody types to a program without a terminal, and it can be left all the same.
    let mut outer = Outer::start(site, &["attach", &id]);
    outer.wait_for("ready");
    outer.write("\u{10}\u{11}");
    outer.wait_for("goes on");
    assert_eq!(outer.code(), Some(0));
    site.ok(&["stop", "-t", "0", &id], &[]);
}

/// What root in a container has put in the way holds nobody up who enters.
fn hostile(site: &Site) {
    let options = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"];
    let id = site.detach(&options, &["sleep", "1000"]);
    let script = "mkfifo /tmp/f && mount --bind /tmp/f /dev/pts/ptmx && mount --bind /tmp/f /etc/passwd";
    site.ok(&["exec", &id, "sh", "-c", script], &[]);
    site.refuses(&["exec", "--user", "worker", &id, "true"], "it is no ordinary file");
    let mut outer = Outer::start(site, &["exec", &id, "true"]);
    outer.wait_for("cannot open a terminal in the container");
    assert_eq!(outer.code(), Some(125));
    site.ok(&["stop", "--time", "0", &id], &[]);
}
