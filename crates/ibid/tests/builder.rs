//! Builds that people watch: stages beside each other, and why a step runs again.

mod support;

use support::{Project, can_build, text};

/// One of two stages that meet: each ends only when the other runs at the same time. They share the host's
/// network, and so its abstract sockets.
const MEETING: &str = r#"FROM debian:bookworm-slim AS one
RUN perl -MSocket -e 'alarm 120; socket(S,PF_UNIX,SOCK_STREAM,0); bind(S,pack("Sa*",PF_UNIX,"\0@UNIQUE@")) or die "$!"; listen(S,1); accept(C,S) or die "$!"; print C "hello\n"; close C' && echo one > /met
FROM debian:bookworm-slim AS two
RUN perl -MSocket -e 'alarm 120; for (;;) { socket(S,PF_UNIX,SOCK_STREAM,0); last if connect(S,pack("Sa*",PF_UNIX,"\0@UNIQUE@")); select(undef,undef,undef,0.05) } print scalar <S>' > /met
FROM debian:bookworm-slim AS unused
RUN echo never; false
FROM debian:bookworm-slim
COPY --from=one /met /one
COPY --from=two /met /two
ENTRYPOINT ["cat", "/one", "/two"]
"#;

#[test]
fn independent_stages_run_beside_each_other_and_unneeded_ones_not_at_all() {
    if !can_build() {
        return;
    }
    let project = Project::new(MEETING);
    let output = project.ibid(&["build"]);
    let narration = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{narration}");
    assert!(!narration.contains("never"), "{narration}");
    assert_eq!(project.check(&["run", "--pegged"], 0), "one\nhello\n");
}

#[test]
fn a_failing_stage_ends_the_others() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim AS slow\nRUN echo @UNIQUE@ && exec sleep 100000\n\
         FROM debian:bookworm-slim AS wrong\nRUN echo @UNIQUE@ && sleep 0.3 && exit 3\n\
         FROM scratch\nCOPY --from=slow /etc/hostname /a\nCOPY --from=wrong /etc/hostname /b\n",
    );
    let output = project.ibid(&["build"]);
    let narration = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{narration}");
    assert!(narration.contains("exit code 3") && narration.contains("Dockerfile:4"), "{narration}");
}

#[test]
fn a_copy_of_its_own_layer_does_not_wait_for_the_steps_before() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN echo @UNIQUE@; exec sleep 100000\nCOPY --link absent /x\n",
    );
    let output = project.ibid(&["build"]);
    let narration = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{narration}");
    assert!(narration.contains("Dockerfile:3") && narration.contains("`absent`"), "{narration}");
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN echo @UNIQUE@ > /1\nCOPY --link one /2\nRUN cat /1 /2 > /3\nCOPY --link one /4\n\
         ENTRYPOINT [\"cat\", \"/3\", \"/4\"]\n",
    );
    project.file("one", "one\n");
    project.check(&["build"], 0);
    let unique = project.place.path().display().to_string();
    assert_eq!(project.check(&["run", "--pegged"], 0), format!("{unique}\none\none\n"));
}

#[test]
fn a_step_that_runs_again_says_why() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN echo base @UNIQUE@\nARG WHO=a\nRUN echo $WHO @UNIQUE@ > /who\n\
         COPY src /src\nRUN ls /src\n",
    );
    project.file("src/train.py", "1");
    project.file("src/same.py", "1");
    let explain = |args: &[&str]| {
        let output = project.ibid(&[&["build", "--explain"], args].concat());
        let narration = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{narration}");
        let relevant = narration
            .lines()
            .filter(|line| line.starts_with('[') && !line.contains("done in") || line.contains("because"));
        relevant.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let first = explain(&[]);
    assert_eq!(first[1], "because nothing is known of an earlier build of this project", "{first:#?}");
    let same = explain(&[]);
    assert!(same.len() == 4 && same.iter().all(|line| line.ends_with("cached")), "{same:#?}");

    project.file("src/train.py", "2");
    project.file("src/new.py", "1");
    let changed = explain(&[]);
    assert!(changed[1].ends_with("cached"), "{changed:#?}");
    assert_eq!(changed[3], "because src/new.py added, src/train.py changed", "{changed:#?}");
    assert_eq!(changed[5], "because what the steps before it made has changed", "{changed:#?}");

    let other = explain(&["--build-arg", "WHO=b"]);
    assert!(other[0].ends_with("cached"), "{other:#?}");
    assert_eq!(other[2], "because ARG WHO: a → b", "{other:#?}");

    let failed = project.ibid(&["build", "--no-cache-filter", "nobody"]);
    assert_eq!(failed.status.code(), Some(125));
    assert!(text(&failed.stderr).contains("no stage `nobody`"), "{}", text(&failed.stderr));
}

#[test]
fn only_the_stages_asked_for_run_again() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim AS tools\nRUN echo tools @UNIQUE@ > /tools\n\
         FROM debian:bookworm-slim AS code\nRUN echo code @UNIQUE@ > /code\nCOPY --from=tools /tools /\n",
    );
    project.check(&["build"], 0);
    let output = project.ibid(&["build", "--explain", "--no-cache-filter", "tools"]);
    let narration = text(&output.stderr);
    let cached = |part: &str| narration.lines().any(|line| line.contains(part) && line.ends_with("cached"));
    assert!(!cached("RUN echo tools") && cached("RUN echo code"), "{narration}");
    assert!(narration.contains("because the cache is not asked"), "{narration}");
    // The same layer came out, so what follows is there.
    assert!(cached("COPY --from=tools"), "{narration}");
}

#[test]
fn two_builds_are_compared() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN echo @UNIQUE@ > /same; dpkg --print-architecture; touch /var/log/dpkg.log\nCOPY a /a\n",
    );
    project.file("a", "text");
    let output = project.ibid(&["build", "--verify"]);
    let narration = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{narration}");
    assert!(narration.contains("identical: two builds made the same bytes"), "{narration}");
    let digest = text(&output.stdout);
    // The second build is kept nowhere, and the first is what the cache has.
    assert_eq!(project.check(&["build"], 0), digest);

    project.file(
        "Dockerfile",
        "FROM debian:bookworm-slim\nRUN cat /proc/sys/kernel/random/uuid > /id\nRUN date > /when; echo $TZ > /zone\n",
    );
    let output = project.ibid(&["build", "--verify"]);
    let narration = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{narration}");
    for part in
        ["different: two builds differ in 3 places", "/id", "content: line 1", "/zone", "SOURCE_DATE_EPOCH"]
    {
        assert!(narration.contains(part), "{part} in {narration}");
    }
}

#[test]
fn what_differs_each_time_is_kept_when_asked_for() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN echo @UNIQUE@ > /var/log/dpkg.log\nENTRYPOINT [\"stat\", \"-c\", \"%s\", \"/var/log/dpkg.log\"]\n",
    );
    let unique = project.place.path().display().to_string();
    project.check(&["build"], 0);
    assert_ne!(project.ibid(&["run", "--pegged"]).status.code(), Some(0), "the rules drop the log");
    project.check(&["build", "--keep-nondeterminism"], 0);
    assert_eq!(project.check(&["run", "--pegged"], 0), format!("{}\n", unique.len() + 1));
}

#[test]
fn a_failed_step_can_be_entered() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nENV NAME=value\nWORKDIR /code\nRUN echo half > made; exit 3\n",
    );
    let refused = project.ibid(&["build", "--shell-on-fail"]);
    assert!(text(&refused.stderr).contains("needs a terminal"), "{}", text(&refused.stderr));
    let command = project.command(&[]);
    let ibid = env!("CARGO_BIN_EXE_ibid");
    let inner = format!("{ibid} build --shell-on-fail");
    let mut on_terminal = std::process::Command::new("script");
    on_terminal.args(["--quiet", "--return", "--command", &inner, "/dev/null"]).current_dir(project.path());
    on_terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    on_terminal.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = on_terminal.spawn().expect("script is installed");
    let typed = b"echo \"found $(cat made) $NAME $PWD\"\nexit\n";
    std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), typed).expect("script reads");
    let output = child.wait_with_output().expect("script ends");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(125), "{said}");
    for part in ["found half value /code", "this shell is in the state it left", "exit code 3"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
