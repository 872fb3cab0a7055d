//! `ibid run --watch`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ibid_testing::{Need, OrdinaryUser, need};

use crate::site::{DOCKERFILE, Site};

/// Far more than anything takes here.
const DEADLINE: Duration = Duration::from_secs(120);

/// Tells its arguments, and stops only when it is asked to.
const PROGRAM: &str = "trap 'echo asked; exit 3' TERM\ntrap 'exit 7' INT\necho started \"$@\"\n\
    while :; do sleep 1000 & wait $!; done\n";

/// An `ibid run --watch` that goes on, and the lines that it and its programs write.
struct Watched {
    process: Child,
    lines: Receiver<String>,
}

impl Watched {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ibid starts");
        let (to, lines) = channel();
        tell(process.stdout.take().expect("a pipe"), to.clone());
        tell(process.stderr.take().expect("a pipe"), to);
        Self { process, lines }
    }

    /// The lines until one holds `text`, that one too.
    #[track_caller]
    fn until(&self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = self
                .lines
                .recv_timeout(DEADLINE)
                .unwrap_or_else(|_| panic!("no `{text}` in\n{}", seen.join("\n")));
            let is_it = line.contains(text);
            seen.push(line);
            if is_it {
                return seen;
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill starts");
        assert!(status.success(), "it lives");
    }

    /// The exit code, once everything that it wrote is read.
    fn end(mut self) -> i32 {
        while self.lines.recv_timeout(DEADLINE).is_ok() {}
        self.process.wait().expect("it ends").code().expect("a code")
    }
}

fn tell(stream: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _nobody_listens = to.send(line);
        }
    });
}

fn says(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn the_program_starts_again_when_the_code_changes() {
    Site::each(|site| {
        site.save("train.sh", PROGRAM);
        site.save(".gitignore", "*.log\n");
        let watched = Watched::start(site.command("project", &["run", "--watch", "a", "--b"]));
        watched.until("started a --b");
        // What is no code starts nothing, nor what is written again as it was.
        site.place.file("project/output/result", "1\n");
        site.place.file("project/some.log", "line\n");
        site.place.file("project/__pycache__/x.pyc", "");
        site.place.file("project/.git/index", "");
        site.save("train.sh", PROGRAM);
        site.save("train.sh", &format!("{PROGRAM}# more\n"));
        let lines = watched.until("started a --b");
        assert_eq!(says(&lines, "train.sh changed: run again"), 1, "{lines:?}");
        assert_eq!(says(&lines, "run again"), 1, "{lines:?}");
        assert_eq!(says(&lines, "asked"), 1, "{lines:?}");
        // A folder that is new is watched at once, whatever is in it already.
        fs::create_dir_all(site.path("project/pkg/deep")).expect("a folder");
        site.own();
        fs::write(site.path("project/pkg/deep/first"), "1").expect("a file");
        watched.until("pkg/deep/first changed: run again");
        watched.until("started");
        fs::write(site.path("project/pkg/deep/first"), "2").expect("a file");
        watched.until("pkg/deep/first changed: run again");
        watched.until("started");
        // A burst is one change, and not all of it is named.
        for name in ["a", "b", "c", "d", "e"] {
            fs::write(site.path("project").join(name), name).expect("a file");
        }
        watched.until("a, b, c and 2 more changed: run again");
        watched.until("started");
        fs::remove_file(site.path("project/a")).expect("it was there");
        watched.until("a changed: run again");
        watched.until("started");
        // The code that is passed on is the program's.
        watched.signal("INT");
        assert_eq!(watched.end(), 7);
        let runs: serde_json::Value =
            serde_json::from_str(&site.check(&["runs", "--json"], 0)).expect("JSON");
        let codes: Vec<_> = runs["runs"].as_array().expect("a list").iter().map(|run| &run["code"]).collect();
        assert_eq!(codes, [7, 3, 3, 3, 3, 3], "{runs}");
    });
}

#[test]
fn what_ends_or_cannot_be_built_waits_for_the_next_change() {
    Site::each(|site| {
        site.save("train.sh", "echo one; exit 4\n");
        let watched = Watched::start(site.command("project", &["run", "--watch"]));
        watched.until("waiting for a change");
        site.save("Dockerfile", &format!("{DOCKERFILE}COPY absent /\n"));
        let lines = watched.until("waiting for a change");
        assert_eq!(says(&lines, "Dockerfile changed: run again"), 1, "{lines:?}");
        assert_eq!(says(&lines, "error:"), 1, "{lines:?}");
        assert_eq!(says(&lines, "one"), 0, "{lines:?}");
        // So does a project's file that is wrong for a moment.
        site.save("ibid.toml", "[run\n");
        watched.until("waiting for a change");
        site.save("ibid.toml", "name = \"site\"\n[run]\noutputs = [\"output\"]\n");
        watched.until("waiting for a change");
        // The image asks its programs to end in its own way.
        site.save(
            "train.sh",
            "trap 'echo in its way; exit' USR1\necho two\nwhile :; do sleep 1000 & wait $!; done\n",
        );
        watched.until("waiting for a change");
        site.save("Dockerfile", &format!("{DOCKERFILE}STOPSIGNAL USR1\n"));
        watched.until("two");
        site.save("train.sh", "echo three\n");
        let lines = watched.until("three");
        assert_eq!(says(&lines, "in its way"), 1, "{lines:?}");
        watched.until("waiting for a change");
        // A build that does not listen does not hold up the next.
        let deaf = "RUN trap '' TERM; echo in the step; while :; do sleep 1000 & wait $!; done";
        site.save("Dockerfile", &format!("{DOCKERFILE}{deaf}\n"));
        watched.until("in the step");
        site.save("Dockerfile", DOCKERFILE);
        let lines = watched.until("three");
        assert_eq!(says(&lines, "Dockerfile changed: run again"), 1, "{lines:?}");
        watched.until("waiting for a change");
        watched.signal("INT");
        assert_eq!(watched.end(), 130);
    });
}

#[test]
fn what_a_run_writes_into_a_folder_of_its_own_starts_no_other() {
    Site::each(|site| {
        site.save("ibid.toml", "name = \"site\"\n");
        site.save("train.sh", "echo result > $IBID_OUTPUT_DIR/result\n");
        let watched = Watched::start(site.command("project", &["run", "--watch", "--isolate"]));
        watched.until("waiting for a change");
        site.save("train.sh", "echo another > $IBID_OUTPUT_DIR/result\necho two\n");
        let lines = watched.until("two");
        assert_eq!(says(&lines, "run again"), 1, "{lines:?}");
        assert!(lines.iter().any(|line| line == "train.sh changed: run again"), "{lines:?}");
        watched.until("waiting for a change");
        watched.signal("TERM");
        assert_eq!(watched.end(), 143);
    });
}

#[test]
fn a_program_that_does_not_stop_is_killed() {
    if !need(&[Need::Busybox, Need::Userns, Need::Subids, Need::Overlay]) {
        return;
    }
    let site = Site::new(OrdinaryUser::find());
    site.save("train.sh", "trap '' TERM\necho deaf\nwhile :; do sleep 1000 & wait $!; done\n");
    let watched = Watched::start(site.command("project", &["run", "--watch"]));
    watched.until("deaf");
    site.save("train.sh", "echo next\n");
    let lines = watched.until("next");
    assert_eq!(says(&lines, "signal 9 (SIGKILL)"), 1, "{lines:?}");
    watched.until("waiting for a change");
    watched.signal("TERM");
    assert_eq!(watched.end(), 143);
}

#[test]
fn a_watcher_that_is_killed_leaves_no_program_behind() {
    Site::each(|site| {
        site.save("train.sh", PROGRAM);
        let watched = Watched::start(site.command("project", &["run", "--watch"]));
        watched.until("started");
        watched.signal("KILL");
        // The pipes are closed when the program and all of ibid are gone; its record is whole.
        watched.until("asked");
        let Watched { mut process, lines } = watched;
        while lines.recv_timeout(DEADLINE).is_ok() {}
        process.wait().expect("it is dead");
        let runs: serde_json::Value =
            serde_json::from_str(&site.check(&["runs", "--json"], 0)).expect("JSON");
        assert_eq!(runs["runs"][0]["status"], "failed", "{runs}");
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    if !need(&[Need::Busybox, Need::Userns]) {
        return;
    }
    let site = Site::new(None);
    let refused = |command: &mut Command, expected: &[&str]| {
        let output = command.output().expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        expected.iter().for_each(|text| assert!(stderr.contains(text), "{stderr}"));
    };
    refused(
        &mut site.command("project", &["run", "--watch", "--pegged"]),
        &["`--watch` waits for changes of the code on this machine"],
    );
    refused(&mut site.command("project", &["run", "--watch", "--detach"]), &["`--detach` returns when"]);
    // A user namespace has limits of its own.
    let site = Site::new(OrdinaryUser::find());
    let script = "echo 2 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
    let mut command = site.command("project", &["run", "--watch"]);
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let at = words.iter().position(|word| *word == site.path("ibid").as_os_str()).expect("its name");
    let mut limited = Command::new(if at == 0 { "unshare".as_ref() } else { words[0] });
    limited.args(words.get(1..at).unwrap_or_default());
    if at > 0 {
        limited.arg("unshare");
    }
    limited.args(["-Ur", "sh", "-c", script]).args(&words[at..]).current_dir(site.path("project"));
    limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command = limited;
    refused(&mut command, &["this user may watch no more", "fs.inotify.max_user_watches=524288"]);
}
