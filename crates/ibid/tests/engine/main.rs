//! What a program in a container may rely on, whoever starts it: one table of cases, run on every level of privilege that
//! this machine can provide (`docs/privileges.md`). A level that it cannot is reported with its reason.

mod identity;
mod inside;
mod live;
mod options;
mod other_engines;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, OrdinaryUser, Place, copy_program, need};
use inside::Inside;
use support::engine::Engine;

use other_engines::OtherEngine;

/// A program in the container, and what is to come of it. `@UID@` and `@GID@` are those of the person, `@NAME@` what they
/// are called in the container, `@PLACE@` a folder of theirs on the host. `@RUN_UID@` and `@RUN_GID@` are those of the program where the
/// image has a user: root becomes that one.
#[derive(Clone)]
struct Case {
    name: &'static str,
    options: &'static [&'static str],
    program: &'static [&'static str],
    code: i32,
    stdout: &'static str,
    /// What is said beside it.
    stderr: &'static str,
    /// On which levels; none means all.
    levels: &'static [u8],
}

const fn shell(name: &'static str, script: &'static [&'static str], stdout: &'static str) -> Case {
    Case { name, options: &[], program: script, code: 0, stdout, stderr: "", levels: &[] }
}

const CASES: &[Case] = &[
    shell("a program ends well", &["true"], ""),
    Case { code: 7, ..shell("its exit code is passed on", &["sh", "-c", "exit 7"], "") },
    Case { code: 137, ..shell("a signal is 128 and its number", &["sh", "-c", "kill -9 $$"], "") },
    Case { code: 143, ..shell("so is another one", &["sh", "-c", "kill $$"], "") },
    Case { code: 127, ..shell("a program that is not there", &["no-such-program"], "") },
    Case { code: 126, ..shell("a file that is no program", &["/etc/group"], "") },
    shell("arguments stay as they are", &["printf", "%s|", "a b", "", "*", "--x=$Y"], "a b||*|--x=$Y|"),
    shell("the person's ids", &["sh", "-c", "id -u; id -g; id -un"], "@UID@\n@GID@\n@NAME@\n"),
    shell(
        "the person is in passwd, once",
        &["sh", "-c", "grep -c \"^$USER:x:@UID@:@GID@:\" /etc/passwd"],
        "1\n",
    ),
    shell("the group is in group", &["sh", "-c", "grep -q \":@GID@:\" /etc/group && echo yes"], "yes\n"),
    shell(
        "a home of their own",
        &["sh", "-c", "cd && pwd | grep -q \"$HOME\" && touch new && ls -A && stat -c %u:%g ."],
        "new\n@UID@:@GID@\n",
    ),
    shell("code is mounted where the image works", &["sh", "-c", "pwd; cat word"], "/code\nmounted\n"),
    Case {
        options: &["--pegged"],
        ..shell("or the image's own", &["sh", "-c", "pwd; cat word"], "/code\nbuilt\n")
    },
    shell(
        "what is written is the person's",
        &["sh", "-c", "mkdir -p output/d; echo 1 > output/d/f; stat -c '%u:%g %a' output/d output/d/f"],
        "@UID@:@GID@ 755\n@UID@:@GID@ 644\n",
    ),
    shell(
        "data can be read and not written",
        &["sh", "-c", "cat data/in; echo x 2>/dev/null > data/in || echo no"],
        "in\nno\n",
    ),
    shell(
        "nothing of the host's environment",
        &[
            "sh",
            "-c",
            "env | cut -d= -f1 | grep -v -i -e _proxy -e CERT -e CA_BUNDLE -e CAINFO -e APT_CONFIG | sort | xargs echo; echo \"$LEAK\"",
        ],
        "HOME HOSTNAME IBID_OUTPUT_DIR IBID_RUN_ID PATH PWD SHLVL USER\n\n",
    ),
    Case {
        options: &["--env", "WORD=a=b", "--env", "LEAK"],
        ..shell("what is asked for comes in", &["sh", "-c", "echo \"$WORD $LEAK\""], "a=b leaked\n")
    },
    shell(
        "nothing of the host's files",
        &[
            "sh",
            "-c",
            "ls -A /tmp; ls -d @PLACE@ 2>/dev/null; ls /home /root 2>/dev/null | grep -c secret; true",
        ],
        "0\n",
    ),
    shell("nothing of the host's descriptors", &["sh", "-c", "ls /proc/$$/fd; true"], "0\n1\n2\n"),
    shell(
        "nor of ibid's own process there",
        &[
            "sh",
            "-c",
            "cat /proc/1/environ 2>/dev/null | grep -c leaked; ls -l /proc/1 /proc/1/fd 2>/dev/null | grep -c -e '->'; true",
        ],
        "0\n0\n",
    ),
    shell(
        "nothing is mounted but what belongs to a run",
        &[
            "sh",
            "-c",
            "cut -d' ' -f5 /proc/self/mountinfo | grep -v -E '^/(proc|sys|dev|etc|run/ibid)(/|$)' | sort | xargs echo",
        ],
        "/ /code /code/.ibid /code/data /code/venv\n",
    ),
    Case {
        options: &["--pegged"],
        ..shell("nothing of the project where it is not mounted", &["ls", "-A"], "data\noutput\nvenv\nword\n")
    },
    shell(
        "no memory that is shared with the host",
        &["sh", "-c", "ls -A /dev/shm; ls -A /dev/mqueue; wc -l < /proc/sysvipc/shm"],
        "1\n",
    ),
    shell(
        "nothing of the host's processes",
        &["sh", "-c", "set -- /proc/[0-9]*; echo $#; cat /proc/1/comm"],
        "2\nibid\n",
    ),
    shell(
        "the devices that every program expects",
        &[
            "sh",
            "-c",
            "ls /dev | xargs echo; echo lost > /dev/null; head -c 2 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c",
        ],
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n2\n2\n",
    ),
    shell(
        "devices stay the host's",
        &["sh", "-c", "chmod 600 /dev/null 2>/dev/null || echo refused"],
        "refused\n",
    ),
    shell(
        "no terminal unless there is one",
        &["sh", "-c", "tty; test -t 1 || echo none; (: < /dev/tty) 2>/dev/null || echo none"],
        "not a tty\nnone\nnone\n",
    ),
    shell(
        "temporary files",
        &[
            "sh",
            "-c",
            "stat -c %a /tmp /dev/shm; echo x > /tmp/x && echo y > /dev/shm/y && cat /tmp/x /dev/shm/y",
        ],
        "1777\n1777\nx\ny\n",
    ),
    shell(
        "the machine is called as the run",
        &["sh", "-c", "test \"$(hostname)\" = \"$HOSTNAME\" && grep -q \"$HOSTNAME\" /etc/hosts && echo yes"],
        "yes\n",
    ),
    shell(
        "the host's network",
        &[
            "sh",
            "-c",
            "test -e /sys/class/net/lo && test -s /etc/resolv.conf -o ! -s /etc/resolv.conf && echo yes",
        ],
        "yes\n",
    ),
    shell(
        "no new rights",
        &["sh", "-c", "grep NoNewPrivs /proc/self/status; mount -t tmpfs x /tmp 2>/dev/null || echo refused"],
        "NoNewPrivs:\t1\nrefused\n",
    ),
    shell("an ordinary umask", &["sh", "-c", "umask"], "0022\n"),
];

const DOCKERFILE: &str = "FROM scratch\nCOPY bin /bin\nCOPY etc /etc\nRUN [\"/bin/mkdir\", \"-p\", \"-m\", \"1777\", \"/tmp\", \"/root\"]\nWORKDIR /code\n\
    RUN [\"/bin/sh\", \"-c\", \"mkdir venv && touch venv/pyvenv.cfg && mkdir -p /home/worker\"]\nCOPY word .\nENV PATH=/bin\nSTOPSIGNAL SIGUSR1\n";

/// Where programs run: a project and the program, reachable for whoever runs it.
struct Site {
    place: Place,
    user: Option<OrdinaryUser>,
    level: u8,
    /// Level 4: the container in which programs run. There, all is as on level 3.
    inside: Option<Inside>,
    /// None is ibid's own.
    engine: Option<OtherEngine>,
}

impl Site {
    fn new(level: u8, user: Option<OrdinaryUser>, engine: Option<OtherEngine>, busybox: &str) -> Self {
        let site = Self { place: Place::new(), user, level, inside: None, engine };
        copy_program(env!("CARGO_BIN_EXE_ibid").as_ref(), &site.path("ibid"));
        site.place.folder("project/bin");
        fs::copy(busybox, site.path("project/bin/busybox")).expect("a copy");
        let programs = [
            "cat", "chmod", "chown", "cut", "dd", "df", "env", "false", "grep", "head", "hostname", "id",
            "ln", "ls", "mkdir", "mkfifo", "mount", "mv", "nc", "printf", "pwd", "readlink", "rm", "sleep",
            "sh", "sort", "stat", "stty", "touch", "true", "tty", "wc", "xargs",
        ];
        for program in programs {
            std::os::unix::fs::symlink("busybox", site.path("project/bin").join(program)).expect("a link");
        }
        site.place.file(
            "project/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nworker:x:60:61::/home/worker:/bin/sh\n",
        );
        site.place.file("project/etc/group", "root:x:0:\nlab:x:50:worker\nworker:x:61:\n");
        site.place.file("shared/in", "shared\n");
        site.place.file("env", "# variables\nA=a b=\"c\"\nB=1\nLEAK\nC\n");
        site.place.file(
            "no-folders.json",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#,
        );
        site.place.file("project/word", "built\n");
        site.place.file("project/data/in", "in\n");
        site.place.file("home/secret", "");
        site.place.file("project/Dockerfile", DOCKERFILE);
        site.place.file(
            "project/ibid.toml",
            "name = \"cases\"\n[code]\nkeep = [\"venv\"]\n[run]\noutputs = [\"output\"]\ndata = [\"data\"]\n",
        );
        if let Some(user) = &site.user {
            user.own(site.place.path());
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn ids(&self) -> (u32, u32) {
        self.user.as_ref().map_or((0, 0), |user| (user.uid, user.gid))
    }

    /// With an open descriptor and a variable that nobody should get to see.
    fn ibid(&self, options: &[&str], program: &[&str]) -> Output {
        self.ibid_in("project", options, program)
    }

    fn ibid_in(&self, project: &str, options: &[&str], program: &[&str]) -> Output {
        let mut command = self.command(project, options, program);
        command.stdin(Stdio::null()).output().expect("ibid starts")
    }

    fn command(&self, project: &str, options: &[&str], program: &[&str]) -> Command {
        let mut command = self.place.command("sh");
        command.args(["-c", "exec 7</etc/hostname && exec \"$0\" \"$@\""]).arg(self.path("ibid"));
        command.args(options).args(program).env("LEAK", "leaked").current_dir(self.path(project));
        if let Some(engine) = &self.engine {
            command.envs(engine.env());
        }
        match (&self.inside, &self.user) {
            (Some(inside), _) => inside.command(&command),
            (None, Some(user)) => {
                let group = self.engine.as_ref().and_then(OtherEngine::group);
                user.command_in_group(&command, group)
            }
            (None, None) => command,
        }
    }

    fn check(&self, project: &str, case: &Case) -> Result<(), String> {
        self.check_as(project, case, &["run"], "--")
    }

    /// As the command of these words, with `last` between its options and the program.
    fn check_as(&self, project: &str, case: &Case, command: &[&str], last: &str) -> Result<(), String> {
        let (uid, gid) = self.ids();
        let name = if uid == 0 { "root" } else { "user" };
        let fill = |text: &str| {
            text.replace("@UID@", &uid.to_string())
                .replace("@GID@", &gid.to_string())
                .replace("@RUN_UID@", &(if uid == 0 { 60 } else { uid }).to_string())
                .replace("@RUN_GID@", &(if uid == 0 { 61 } else { gid }).to_string())
                .replace("@NAME@", name)
                .replace("@PLACE@", &self.place.path().display().to_string())
        };
        let given: Vec<String> = case.options.iter().map(|word| fill(word)).collect();
        let mut options = command.to_vec();
        options.extend(self.engine.iter().flat_map(|engine| ["--engine", engine.name()]));
        options.extend(given.iter().map(String::as_str).chain([last]));
        let program: Vec<String> = case.program.iter().map(|word| fill(word)).collect();
        let output = self.ibid_in(project, &options, &program.iter().map(String::as_str).collect::<Vec<_>>());
        let (stdout, expected) = (String::from_utf8_lossy(&output.stdout), fill(case.stdout));
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(case.code) && stdout == expected && stderr.contains(case.stderr) {
            return Ok(());
        }
        Err(format!(
            "{}: {:?} instead of {}\n  gave   {stdout:?}\n  not    {expected:?}\n{stderr}",
            case.name,
            output.status.code(),
            case.code
        ))
    }
}

fn check_all(level: u8, user: Option<OrdinaryUser>, engine: Option<OtherEngine>, is_inside: bool) {
    let Some(busybox) =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| fs::exists(path).unwrap_or(false))
    else {
        let required = std::env::var("IBID_TEST_REQUIRE").unwrap_or_default();
        assert!(required != "all", "needs busybox: install the package busybox-static");
        eprintln!("not available: needs busybox: install the package busybox-static");
        return;
    };
    let mut site = Site::new(level, user, engine, busybox);
    if is_inside {
        let inside = Inside::start(&site);
        inside.check_refusals(&site);
        site.inside = Some(inside);
    }
    let built = site.ibid(&["build"], &[]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    site.place.file("project/word", "mounted\n");
    let cases: Vec<&Case> = CASES
        .iter()
        .chain(options::CASES)
        .filter(|case| case.levels.is_empty() || case.levels.contains(&site.level))
        .collect();
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| match &site.engine {
            Some(engine) => site.check("project", &engine.case(case, level)).err(),
            None => site.check("project", case).err(),
        })
        .collect();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    options::check_all(&site);
    if site.engine.is_none() {
        // Others cannot give the person somebody else's files, and leave no run without its terminal.
        identity::check_all(&site);
        live::check_all(&site);
    }
    // On the host, too, what was written is the person's, whoever they were in the container.
    for path in [
        "project/output",
        "project/output/d",
        "project/output/d/f",
        "project/output/by-worker",
        "project/output/by-root",
        "project/venv",
        "shared/out",
    ] {
        let written = match fs::metadata(site.path(path)) {
            // Nobody else can be had there, who would have written it.
            Err(_) if site.engine.is_some() && path.contains("/by-") => continue,
            written => written.expect("written"),
        };
        assert_eq!((written.uid(), written.gid()), site.ids(), "{path}");
    }
}

#[test]
fn level_1_root() {
    if need(&[Need::Root, Need::Overlay]) {
        check_all(1, None, None, false);
    }
}

#[test]
fn level_2_a_user_with_subordinate_ids() {
    if need(&[Need::Userns, Need::Subids, Need::Overlay]) {
        check_all(2, OrdinaryUser::find(), None, false);
    }
}

#[test]
fn level_3_a_user_with_one_id() {
    // Only root can become somebody whom nobody has given anything.
    if need(&[Need::Root, Need::Userns, Need::Overlay]) {
        check_all(3, Some(OrdinaryUser::without_subordinate_ids()), None, false);
    }
}

#[test]
fn level_4_inside_a_container() {
    if need(&[Need::Root, Need::Overlay]) && Engine::is_installed() {
        check_all(3, Some(OrdinaryUser::without_subordinate_ids()), None, true);
    }
}

#[test]
fn level_4_inside_a_container_as_its_root() {
    if need(&[Need::Root, Need::Overlay]) && Engine::is_installed() {
        check_all(3, None, None, true);
    }
}
