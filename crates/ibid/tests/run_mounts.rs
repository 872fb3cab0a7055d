//! `RUN --mount` and `RUN --network`: what steps see, what they leave, and what is remembered of it.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::process::Stdio;

use support::{Project, can_build, text};

/// Builds, and shows what the image's command writes.
#[track_caller]
fn built_and_run(project: &Project) -> String {
    project.check(&["build"], 0);
    project.check(&["run", "--pegged"], 0)
}

/// The error of a build that fails.
#[track_caller]
fn failed(project: &Project, args: &[&str]) -> String {
    let output = project.ibid(&[&["build"], args].concat());
    let narration = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{narration}");
    narration
}

#[test]
fn files_of_the_context_are_seen_as_a_copy_would_write_them() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nWORKDIR /project\nARG NAME=data\n\
         RUN --mount=target=. --mount=source=$NAME/one,target=/opt/new/one,readonly true @UNIQUE@ \
         && cat data/one /opt/new/one > /seen && ls -A . > /names && stat -c '%n %u:%g %a %Y' data data/one run.sh >> /names \
         && readlink data/link >> /names && test ! -e secret && ! touch data/no 2> /dev/null && ! touch /opt/new/one 2> /dev/null\n\
         RUN --mount=type=bind,source=data/sub/..,target=/rw,rw echo changed > /rw/one && rm /rw/link && echo new > /rw/new \
         && cat /rw/one && chown 5:5 /rw/one && ls /rw > /after\n\
         RUN --mount=source=data,target=/again cat /again/one >> /seen\n\
         RUN ls -A /project /opt >> /names; test ! -e /rw && test ! -e /again\n\
         ENTRYPOINT [\"cat\", \"/seen\", \"/names\", \"/after\"]\n",
    );
    project.file("data/one", "one\n");
    project.file("data/sub/deep", "");
    project.file("run.sh", "#!/bin/sh\n");
    project.file("secret", "");
    project.file(".dockerignore", "secret\nibid.*\nDockerfile\n");
    symlink("one", project.path().join("data/link")).expect("a link");
    let mode = |name: &str, mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(project.path().join(name), permissions).expect("ours");
    };
    mode("run.sh", 0o700);
    mode("data/one", 0o600);
    let epoch = "1577836800";
    let expected = format!(
        "one\none\none\n.dockerignore\ndata\nrun.sh\ndata 0:0 755 {epoch}\ndata/one 0:0 644 {epoch}\nrun.sh 0:0 755 {epoch}\n\
         one\n/opt:\n\n/project:\nnew\none\nsub\n"
    );
    assert_eq!(built_and_run(&project), expected);
    assert_eq!(fs::read_to_string(project.path().join("data/one")).expect("ours"), "one\n");
    assert!(!project.path().join("data/new").exists());
}

#[test]
fn files_of_stages_and_images_are_seen_as_they_are() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim AS unused\nRUN false\n\
         FROM debian:bookworm-slim AS tools\nRUN echo first @UNIQUE@ > /first\n\
         RUN mkdir -p /out/bin && echo tool > /out/bin/tool && chown 3:4 /out/bin/tool && chmod 4750 /out/bin/tool && rm /etc/issue\n\
         FROM scratch AS nothing\nFROM tools AS inner\nRUN --mount=from=tools,source=/out,target=/t,rw touch /t/x && ls /t > /inner\n\
         FROM debian:bookworm-slim\n\
         RUN --mount=from=tools,source=out/bin,target=/tools --mount=from=1,target=/all --mount=from=inner,source=/inner,target=/list --mount=from=nothing,target=/nothing,rw \
         --mount=from=debian:bookworm-slim,source=/etc/debian_version,target=/version \
         stat -c '%u:%g %a' /tools/tool > /seen && cat /list >> /seen && test ! -e /all/etc/issue && test -e /all/first \
         && test ! -e /all/run/ibid && test -z \"$(ls -A /nothing)\" && cmp /version /etc/debian_version && ! rm -f /all/first 2> /dev/null\n\
         RUN test ! -e /tools && test ! -e /all && test ! -e /version\n\
         ENTRYPOINT [\"cat\", \"/seen\"]\n",
    );
    assert_eq!(built_and_run(&project), "3:4 4750\nbin\nx\n");
}

#[test]
fn places_of_mounts_are_no_part_of_the_image() {
    if !can_build() {
        return;
    }
    let plain = "FROM debian:bookworm-slim\nRUN echo made @UNIQUE@ > /made\n";
    let project = Project::new(plain);
    project.check(&["build"], 0);
    let layers = |project: &Project| {
        let output = project.check(&["images", "--json"], 0);
        let digest = project.check(&["build"], 0);
        assert!(output.contains(digest.trim()), "{output}");
        let path = project.data.join("ibid/blobs/sha256").join(digest.trim().trim_start_matches("sha256:"));
        let config: serde_json::Value = serde_json::from_slice(&fs::read(path).expect("kept")).expect("JSON");
        config["rootfs"]["diff_ids"].as_array().expect("a list").clone()
    };
    let expected = layers(&project);
    let unique = project.place.path().display().to_string();
    let mounts = "--mount=type=cache,target=/a/b/c --mount=type=tmpfs,target=/opt/deep/x --mount=target=/srv/y \
                  --mount=source=Dockerfile,target=/usr/new/file --mount=type=cache,target=/a/b/c/nested";
    project.file("Dockerfile", &plain.replace("RUN", &format!("RUN {mounts}")).replace("@UNIQUE@", &unique));
    assert_eq!(layers(&project), expected);
    // What a step writes beside its mounts stays, and only that.
    project.file(
        "Dockerfile",
        &format!(
            "FROM debian:bookworm-slim\nRUN --mount=type=cache,target=/a/b/c --mount=type=cache,target=/x/y \
             echo {unique} > /a/kept && echo > /a/b/c/gone\n\
             RUN find /a /x 2> /dev/null | sort > /found; true\nENTRYPOINT [\"cat\", \"/found\"]\n"
        ),
    );
    assert_eq!(built_and_run(&project), "/a\n/a/kept\n");
}

#[test]
fn cache_mounts_are_found_again() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim AS seed\nRUN mkdir -m 0750 /seed && echo seeded > /seed/file && chown 7:8 /seed && mkfifo /seed/pipe\n\
         FROM debian:bookworm-slim\nARG TURN\n\
         RUN --mount=type=cache,target=/c,id=@UNIQUE@ echo $TURN >> /c/turns && cat /c/turns > /seen\n\
         RUN --mount=type=cache,target=/other,id=@UNIQUE@,ro cat /other/turns >> /seen && ! touch /other/x 2> /dev/null\n\
         RUN --mount=type=cache,target=/c,id=@UNIQUE@2,uid=1000,gid=1001,mode=0700 stat -c '%u:%g %a' /c >> /seen; ls /c >> /seen\n\
         RUN --mount=type=cache,target=/c,id=@UNIQUE@,from=seed,source=/seed stat -c '%u:%g %a' /c /c/file >> /seen \
         && cat /c/file >> /seen && echo $TURN >> /c/file\n\
         ENTRYPOINT [\"cat\", \"/seen\"]\n",
    );
    let turn = |turn: &str| {
        project.check(&["build", "--build-arg", &format!("TURN={turn}")], 0);
        project.check(&["run", "--pegged"], 0)
    };
    assert_eq!(turn("1"), "1\n1\n1000:1001 700\n7:8 750\n0:0 644\nseeded\n");
    assert_eq!(turn("2"), "1\n2\n1\n2\n1000:1001 700\n7:8 750\n0:0 644\nseeded\n1\n");
    // A build that compares starts with empty ones, and leaves the others as they are.
    let output = project.ibid(&["build", "--verify", "--build-arg", "TURN=3"]);
    let narration = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{narration}");
    assert!(narration.contains("/seen"), "{narration}");
    assert_eq!(turn("4"), "1\n2\n3\n4\n1\n2\n3\n4\n1000:1001 700\n7:8 750\n0:0 644\nseeded\n1\n2\n3\n");
    // Another namespace has others.
    project.check(&["build", "--build-arg", "TURN=5", "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=n"], 0);
    assert!(project.check(&["run", "--pegged"], 0).starts_with("5\n5\n"));
}

/// Two steps that both hold a cache mount: each writes, then looks who else has written.
fn two_steps(sharing: &str) -> String {
    let step = |own: &str, other: &str, wait: &str| {
        format!(
            "FROM debian:bookworm-slim AS {own}\n\
             RUN --mount=type=cache,target=/c,id=@UNIQUE@,sharing={sharing} --mount=type=cache,target=/meet,id=@UNIQUE@-meet \
             touch /c/{own} /meet/{own}; {wait} test -e /c/{other} && echo both > /{own} || echo alone > /{own}; rm -f /c/{own}; true\n"
        )
    };
    // The meeting place is shared, so that each knows that the other runs, where that can be.
    let meet = |other: &str| match sharing {
        "locked" => String::new(),
        _ => format!("perl -e 'alarm 120; select(undef,undef,undef,0.01) until -e \"/meet/{other}\"';"),
    };
    format!(
        "{}{}FROM debian:bookworm-slim\nCOPY --from=a /a /a\nCOPY --from=b /b /b\nENTRYPOINT [\"cat\", \"/a\", \"/b\"]\n",
        step("a", "b", &meet("b")),
        step("b", "a", &meet("a")),
    )
}

#[test]
fn cache_mounts_are_shared_as_they_say() {
    if !can_build() {
        return;
    }
    let private = Project::new(&two_steps("private"));
    assert_eq!(built_and_run(&private), "alone\nalone\n");
    let locked = Project::new(&two_steps("locked"));
    assert_eq!(built_and_run(&locked), "alone\nalone\n");
    // Of two that share, the first to look may be too early.
    let shared = Project::new(
        &two_steps("shared").replace("rm -f /c/a; true", "true").replace("rm -f /c/b; true", "true"),
    );
    assert!(built_and_run(&shared).contains("both"), "they met, so one of them came second");
}

#[test]
fn a_locked_mount_makes_other_builds_wait() {
    if !can_build() {
        return;
    }
    let dockerfile = "FROM debian:bookworm-slim\nARG WHO\n\
                      RUN --mount=type=cache,target=/c,id=@UNIQUE@,sharing=locked echo $WHO holds it @UNIQUE@ && \
                      case $WHO in first) exec sleep 100000;; esac\n";
    let project = Project::new(dockerfile);
    let start = |who: &str| {
        let mut command = project.command(&["build", "-t", who, "--build-arg", &format!("WHO={who}")]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("ibid starts");
        let lines =
            BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
        (child, lines)
    };
    let (mut first, mut lines) = start("first");
    assert!(lines.any(|line| line.contains("first holds it") && !line.contains("RUN")));
    let (mut second, mut lines) = start("second");
    assert!(lines.any(|line| line.contains("waiting for the cache mount")), "nobody waits");
    // A step that shares does not wait: it gets a copy of its own.
    let unique = project.place.path().display().to_string();
    let unlocked = Project::new(&dockerfile.replace(",sharing=locked", "").replace("@UNIQUE@", &unique));
    unlocked.check(&["build", "--build-arg", "WHO=third"], 0);
    assert!(second.try_wait().expect("a child").is_none());
    first.kill().expect("it runs");
    first.wait().expect("it ends");
    assert!(lines.any(|line| line.contains("second holds it") && !line.contains("RUN")));
    lines.for_each(drop);
    assert!(second.wait().expect("it ends").success());
}

#[test]
fn a_failing_stage_ends_those_that_wait_for_a_mount() {
    if !can_build() {
        return;
    }
    let holds = "RUN --mount=type=cache,target=/c,id=@UNIQUE@,sharing=locked exec sleep 100000\n";
    let project = Project::new(&format!(
        "FROM debian:bookworm-slim AS one\n{holds}FROM debian:bookworm-slim AS two\n{holds}\
         FROM debian:bookworm-slim AS wrong\nRUN echo @UNIQUE@ && exit 3\n\
         FROM scratch\nCOPY --from=one /etc/hostname /a\nCOPY --from=two /etc/hostname /b\nCOPY --from=wrong /etc/hostname /c\n"
    ));
    let narration = failed(&project, &[]);
    assert!(narration.contains("exit code 3") && narration.contains("Dockerfile:6"), "{narration}");
}

#[test]
fn a_change_of_what_is_mounted_runs_the_step_again_and_nothing_else_does() {
    if !can_build() {
        return;
    }
    let dockerfile = "FROM debian:bookworm-slim AS tools\nARG TOOL=a\nRUN echo $TOOL @UNIQUE@ > /tool\n\
                      FROM debian:bookworm-slim\n\
                      RUN --mount=source=src,target=/src --mount=from=tools,source=/tool,target=/tool \
                      --mount=type=cache,target=/c,id=@UNIQUE@ --mount=type=secret,id=key cat /src/* > /made\n";
    let project = Project::new(dockerfile);
    project.file("src/train.py", "1");
    project.file("src/same.py", "1");
    project.file("beside", "1");
    project.file("key", "1");
    let reasons = |args: &[&str]| {
        let secret = format!("id=key,src={}", project.path().join("key").display());
        let output = project.ibid(&[&["build", "--explain", "--secret", &secret], args].concat());
        let narration = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{narration}");
        let at = narration.lines().position(|line| line.starts_with("[1 2/2]")).expect("the step is shown");
        let lines: Vec<&str> = narration.lines().skip(at).take(2).map(str::trim).collect();
        if lines[0].ends_with("cached") { "cached".to_owned() } else { lines[1].to_owned() }
    };
    assert_eq!(reasons(&[]), "because nothing is known of an earlier build of this project");
    assert_eq!(reasons(&[]), "cached");
    // Not what is beside the mount, not a time, not a secret.
    project.file("beside", "2");
    project.file("key", "2");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::File::open(project.path().join("src/same.py"))
        .and_then(|file| file.set_modified(time))
        .expect("ours");
    assert_eq!(reasons(&[]), "cached");
    project.file("src/train.py", "2");
    project.file("src/new.py", "2");
    assert_eq!(reasons(&[]), "because src/new.py added, src/train.py changed");
    assert_eq!(reasons(&["--build-arg", "TOOL=b"]), "because what it mounts has changed");
    let unique = project.place.path().display().to_string();
    let network = dockerfile.replace("cat /src", "cat  /src").replace("@UNIQUE@", &unique);
    project.file("Dockerfile", &network);
    reasons(&[]);
    let changed = network.replace("RUN --mount=source=src", "RUN --network=none --mount=source=src");
    project.file("Dockerfile", &changed);
    assert_eq!(reasons(&[]), "because the instruction is new, or was written differently");
}

#[test]
fn secrets_are_seen_by_the_step_alone() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN useradd -m -u 1234 ann && mkdir /project\nWORKDIR /project\n\
         RUN --mount=type=secret,id=file --mount=type=secret,id=word,env=WORD,required --mount=type=secret,id=named,target=deep/name,mode=0440,uid=7 \
         --mount=type=secret,id=word,target=/word,env=COPY --mount=type=secret,id=absent --mount=type=secret,id=gone,env=GONE \
         true @UNIQUE@ && (cat /run/secrets/file deep/name /word; echo $WORD $COPY ${GONE-unset}) | sha256sum > /seen \
         && stat -c '%n %u:%g %a' /run/secrets/file deep/name /word >> /seen && stat -f -c %T /run/secrets/file >> /seen \
         && ls /run/secrets >> /seen && ! touch /run/secrets/file 2> /dev/null && tr '\\0' '\\n' < /proc/1/cmdline >> /seen\n\
         USER ann\nRUN --mount=type=secret,id=file --mount=type=secret,id=word,uid=1234 cat /run/secrets/word > /dev/null \
         && ! cat /run/secrets/file 2> /dev/null\n\
         RUN ls -A /run /project > /home/ann/left && ! test -e /word && env >> /home/ann/left\n\
         ENTRYPOINT [\"cat\", \"/seen\", \"/home/ann/left\"]\n",
    );
    let secret = "MARKER-OF-A-SECRET";
    project.file("key", &format!("{secret}-1\n"));
    let build = |args: &[&str]| {
        let mut command = project.command(&[&["build"], args].concat());
        command.env("WORD", format!("{secret}-2")).output().expect("ibid starts")
    };
    let lend = [
        "--secret",
        "id=file,src=key",
        "--secret",
        "id=word,env=WORD",
        "--secret",
        "type=file,id=named,src=./key",
    ];
    let output = build(&[&["-v"], &lend[..]].concat());
    let narration = text(&output.stderr);
    assert!(output.status.success(), "{narration}");
    assert!(!narration.contains(secret), "{narration}");
    let content = format!("{secret}-1\n{secret}-1\n{secret}-2{secret}-2 {secret}-2 unset\n");
    let digest = sha256(content.as_bytes());
    let shown = project.check(&["run", "--pegged"], 0);
    let expected = format!(
        "{digest}  -\n/run/secrets/file 0:0 400\ndeep/name 7:0 440\n/word 0:0 400\ntmpfs\nfile\nibid-init\n1\n"
    );
    assert!(shown.starts_with(&expected), "{shown}\n{expected}");
    assert!(!shown.contains("secrets") || shown.matches("secrets").count() == 1, "{shown}");
    assert!(!shown.contains("WORD=") && !shown.contains("deep\n"), "{shown}");
    // Nothing in the store holds it: no layer, no configuration, no key, no note.
    let found =
        std::process::Command::new("grep").args(["-rlaF", secret]).arg(project.data.join("ibid")).output();
    assert_eq!(text(&found.expect("grep starts").stdout), "");

    // A failing step shows what it wrote, and no environment.
    project.file(
        "Dockerfile",
        &format!(
            "FROM debian:bookworm-slim\nRUN --mount=type=secret,id=word,env=WORD --mount=type=secret,id=file echo wrote {}; exit 7\n",
            project.place.path().display()
        ),
    );
    for args in [&["-v"][..], &["--explain"]] {
        let output = build(&[args, &lend[..]].concat());
        let narration = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{narration}");
        assert!(narration.contains("exit code 7") && !narration.contains(secret), "{narration}");
    }
}

/// The SHA-256 of bytes as `sha256sum` writes it.
fn sha256(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), bytes).expect("written");
    let output = child.wait_with_output().expect("ends");
    text(&output.stdout).split(' ').next().expect("a digest").to_owned()
}

#[test]
fn what_a_step_cannot_do_without_is_asked_for() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN --mount=type=secret,id=key,required \\\n    true @UNIQUE@\n",
    );
    let narration = failed(&project, &[]);
    for part in ["the step needs the secret `key`", "Dockerfile:2", "--secret id=key,src=FILE"] {
        assert!(narration.contains(part), "{part} in {narration}");
    }
    project.file("key", "\0");
    project.file("Dockerfile", "FROM debian:bookworm-slim\nRUN --mount=type=secret,id=key,env=KEY true\n");
    let narration = failed(&project, &["--secret", "id=key,src=key"]);
    assert!(narration.contains("cannot be the variable `KEY`: it holds a zero byte"), "{narration}");
    project
        .file("Dockerfile", "FROM debian:bookworm-slim\nRUN --mount=type=ssh,id=work,required=true true\n");
    let narration = failed(&project, &[]);
    assert!(narration.contains("the agent `work`") && narration.contains("--ssh work"), "{narration}");
    let narration = failed(&project, &["--ssh", "work=key"]);
    assert!(narration.contains("is no socket"), "{narration}");
    let narration = failed(&project, &["--secret", "id=key,src=absent"]);
    assert!(narration.contains("absent: No such file"), "{narration}");
}

#[test]
fn an_agent_answers_a_step_and_knows_whose_it_is() {
    if !can_build() {
        return;
    }
    // Asks for the keys, then to add one; writes who owns the socket.
    let ask = r#"perl -MSocket -e 'alarm 120; socket(S,PF_UNIX,SOCK_STREAM,0); connect(S,sockaddr_un($ENV{SSH_AUTH_SOCK})) or die "$!"; for (11,17) { syswrite S, pack("NC",1,$_); sysread S,$l,4; sysread S,$m,unpack("N",$l); print "$m\n" } '"#;
    let project = Project::new(&format!(
        "FROM debian:bookworm-slim\nRUN useradd -u 1234 ann\nUSER ann\nRUN --mount=type=ssh,uid=1234,mode=0660 --mount=type=ssh,id=absent \
         true @UNIQUE@ && {ask} > /tmp/seen && stat -c '%n %u:%g %a %F' $SSH_AUTH_SOCK >> /tmp/seen\n\
         USER root\nENV SSH_AUTH_SOCK=/mine\n\
         RUN --mount=type=ssh,target=/a/b echo $SSH_AUTH_SOCK >> /tmp/seen; test -S /a/b && ls /run >> /tmp/seen\n\
         RUN --mount=type=ssh test -S /run/buildkit/ssh_agent.0\nRUN test ! -e /a && ls /run >> /tmp/seen\n\
         ENTRYPOINT [\"cat\", \"/tmp/seen\"]\n"
    ));
    let socket = project.place.path().join("agent");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let agent = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().expect("a connection");
        let peer = rustix::net::sockopt::socket_peercred(&stream).expect("a peer");
        assert_eq!(peer.uid, rustix::process::geteuid(), "OpenSSH's agent talks to its own user only");
        let mut request = [0; 5];
        stream.read_exact(&mut request).expect("a request");
        assert_eq!(request, [0, 0, 0, 1, 11]);
        stream.write_all(b"\0\0\0\x04keys").expect("answered");
        // The second request never comes here.
        assert_eq!(stream.read(&mut request).expect("an end"), 0);
    });
    let output = project
        .command(&["build", "--ssh", "default"])
        .env("SSH_AUTH_SOCK", &socket)
        .output()
        .expect("ibid starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    agent.join().expect("the agent saw what it should");
    let shown = project.check(&["run", "--pegged"], 0);
    assert_eq!(
        shown,
        "keys\n\u{5}\n/run/buildkit/ssh_agent.0 1234:0 660 socket\n/mine\nibid\nlock\nibid\nlock\n"
    );
}

#[test]
fn a_step_without_network_has_only_its_own_loopback() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN --network=none echo @UNIQUE@ > /dev/null; ls /sys/class/net > /seen; \
         perl -MSocket -e 'socket(S,PF_INET,SOCK_STREAM,0); bind(S,sockaddr_in(0,INADDR_LOOPBACK)) or die; listen(S,1); \
         socket(C,PF_INET,SOCK_STREAM,0); connect(C,getsockname(S)) and print \"loopback\\n\"; \
         socket(O,PF_INET,SOCK_STREAM,0); connect(O,sockaddr_in(9,inet_aton(\"192.0.2.1\"))) or print \"$!\\n\"' >> /seen\n\
         RUN --network=host --security=sandbox ls -d /sys/class/net/lo && readlink /proc/self/ns/net >> /seen\n\
         RUN --network=default readlink /proc/self/ns/net >> /seen\n\
         ENTRYPOINT [\"cat\", \"/seen\"]\n",
    );
    let shown = built_and_run(&project);
    let host = fs::read_link("/proc/self/ns/net").expect("a namespace").display().to_string();
    assert_eq!(shown, format!("lo\nloopback\nNetwork is unreachable\n{host}\n{host}\n"));
}

#[test]
fn nothing_leads_out_of_where_it_belongs() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim AS hostile\n\
         RUN echo @UNIQUE@; ln -s ../../../../../../..@UNIQUE@/outside /climb; ln -s @UNIQUE@/outside /absolute; ln -s loop /loop; \
         mkdir -p /real && ln -s /real/new /to-new; ln -s /proc/1/root /magic; ln -s ../../../etc/hostname /name; touch /file\n\
         FROM hostile\n\
         RUN --mount=type=tmpfs,target=/climb/x --mount=type=tmpfs,target=/absolute/y --mount=type=tmpfs,target=/../../../up \
         --mount=type=tmpfs,target=/to-new/z true && mountpoint /real/new/z && mountpoint /up && mountpoint /climb/x\n\
         RUN test ! -e /real/new && test ! -e /up && test ! -e @UNIQUE@\n\
         ENTRYPOINT [\"true\"]\n",
    );
    let outside = project.place.folder("outside");
    fs::write(outside.join("host"), "of the host").expect("ours");
    project.check(&["build"], 0);
    assert_eq!(fs::read_dir(&outside).expect("there").count(), 1);

    let unique = project.place.path().display().to_string();
    let hostile = fs::read_to_string(project.path().join("Dockerfile")).expect("ours");
    let hostile = hostile.split("FROM hostile\n").next().expect("the first stage").to_owned();
    let check = |mount: &str, part: &str| {
        let run = format!("{hostile}FROM debian:bookworm-slim\nRUN --mount={mount} cat /m/host /m\n");
        project.file("Dockerfile", &run);
        let narration = failed(&project, &[]);
        assert!(narration.contains(part) && !narration.contains("of the host"), "{mount}: {narration}");
        assert!(narration.contains("Dockerfile:"), "{narration}");
    };
    // The links of a stage end inside it, where nothing of that name is.
    check("from=hostile,source=/climb,target=/m", "`climb` is not in the stage `hostile`");
    check("from=hostile,source=/absolute/host,target=/m", "`absolute/host` is not in the stage");
    check("from=hostile,source=/loop,target=/m", "`loop` is not in the stage");
    check("from=hostile,source=/file/x,target=/m", "`file/x` is not in the stage");
    check("from=hostile,source=../../..,target=/m", "cat: /m/host: No such file");
    check("type=cache,id=c,from=hostile,source=/absolute,target=/m", "`absolute` is not in the stage");
    check("type=cache,id=c,from=hostile,source=/file,target=/m", "cannot start from `file`");
    // Those of the context, inside the context.
    symlink(&outside, project.path().join("absolute")).expect("a link");
    symlink("../outside", project.path().join("climb")).expect("a link");
    symlink("absolute/host", project.path().join("two")).expect("a link");
    for source in ["absolute", "climb", "absolute/host", "two"] {
        check(&format!("source={source},target=/m"), "is not in the build context");
    }
    check("source=../outside,target=/m", "`outside` is not in the build context");
    check("source=*,target=/m", "`*` is not in the build context");
    // Links of the whole context stay links, and lead to nothing in the container.
    check("target=/m", "cat: /m/host: No such file");
    // Targets that cannot be.
    let target = |target: &str, part: &str| {
        let run = format!("{hostile}RUN --mount=type=tmpfs,target={target} echo {unique}\n");
        project.file("Dockerfile", &run);
        let narration = failed(&project, &[]);
        assert!(narration.contains(part), "{target}: {narration}");
    };
    target("/loop/x", "nothing can be mounted at `/loop/x`");
    target("/file/x", "nothing can be mounted at `/file/x`");
    target("/file", "`/file`");
    target("/proc/nothing", "`/proc/nothing`");
    target("/magic/tmp/x", "/magic/tmp/x");
}

#[test]
fn mounts_that_do_not_fit_are_errors_with_their_place() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM debian:bookworm-slim\n");
    let check = |run: &str, parts: &[&str]| {
        project.file("Dockerfile", &format!("FROM debian:bookworm-slim\nWORKDIR /w\n{run}\n"));
        let narration = failed(&project, &[]);
        for part in parts.iter().chain(&["Dockerfile:3"]) {
            assert!(narration.contains(part), "{run}: {part} in {narration}");
        }
    };
    check("RUN --mount=type=cahce,target=/c x", &["no type of mount", "did you mean `type=cache`?"]);
    check("RUN --mount=type=bind,source=absent,target=/c x", &["`absent` is not in the build context"]);
    check("RUN --security=insecure x", &["RUN --security=insecure", "hint:"]);
    check("RUN --device=nvidia.com/gpu=all x", &["RUN --device", "hint:"]);
    check("RUN --network=bridge x", &["cannot be `bridge`", "--network=none"]);
    check("RUN --mount=type=bind,target=/etc/passwd x", &["`/etc/passwd`", "Not a directory"]);
    check("RUN --mount=type=bind,source=Dockerfile,target=/etc x", &["`/etc`", "Is a directory"]);
    project.file(".dockerignore", "dropped\n");
    project.file("dropped", "");
    check("RUN --mount=source=dropped,target=/c x", &["dropped from the build context by .dockerignore:1"]);
}

#[test]
fn a_failed_step_is_entered_with_its_mounts() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nWORKDIR /code\n\
         RUN --mount=source=data,target=data,rw --mount=type=cache,target=/c,id=@UNIQUE@ --mount=type=secret,id=key,env=KEY,target=/key \
         --network=none echo half > data/made && echo kept > /c/made && exit 3\n",
    );
    project.file("data/one", "one");
    project.file("key", "value");
    let command = project.command(&[]);
    let ibid = env!("CARGO_BIN_EXE_ibid");
    let inner = format!("{ibid} build --shell-on-fail --secret id=key,src=key");
    let mut on_terminal = std::process::Command::new("script");
    on_terminal.args(["--quiet", "--return", "--command", &inner, "/dev/null"]).current_dir(project.path());
    on_terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    on_terminal.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = on_terminal.spawn().expect("script is installed");
    let typed = b"echo \"found $(cat data/one data/made /c/made | tr '\\n' ' ')$KEY $(cat /key) $(ls /sys/class/net)\"\nexit\n";
    std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), typed).expect("script reads");
    let output = child.wait_with_output().expect("script ends");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(125), "{said}");
    for part in ["found onehalf kept value value lo", "exit code 3"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
