//! The whole program on real images: the base from signed packages, builds, runs, owners, exit codes.
//!
//! All tests share one store, which stays in cargo's temporary folder, so that only the first run on a machine
//! makes the base.

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

use support::{BASE, Project, can_build, text};

#[test]
fn outputs_belong_to_the_person_and_code_is_mounted() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nLABEL test=@UNIQUE@\nARG USER_ID=1000\nARG GROUP_ID=1000\n\
         RUN groupadd -o -g $GROUP_ID user && useradd -o -l -m -u $USER_ID -g $GROUP_ID user\n\
         USER user\nWORKDIR /code\nCOPY . .\nENTRYPOINT [\"sh\", \"run.sh\"]\n",
    );
    project.file(".dockerignore", "output\n");
    project.file("run.sh", "mkdir -p output && echo \"$@\" > output/args && id -un && cat word\n");
    project.file("word", "first");
    project.file("ibid.toml", &format!("name = \"owners\"\n{BASE}[run]\noutputs = [\"output\"]\n"));

    assert_eq!(project.check(&["run", "--n-epochs", "3"], 0), "user\nfirst");
    let output = project.path().join("output/args");
    assert_eq!(fs::read_to_string(&output).expect("written"), "--n-epochs 3\n");
    let mine = fs::metadata(project.path()).expect("exists").uid();
    for path in [&output, &project.path().join("output")] {
        assert_eq!(fs::metadata(path).expect("exists").uid(), mine, "{}", path.display());
    }

    // An edit runs at once, without a build: one line of narration.
    project.file("word", "second");
    let edited = project.ibid(&["run"]);
    assert_eq!(text(&edited.stdout), "user\nsecond");
    let narration = text(&edited.stderr);
    assert_eq!(narration.lines().count(), 1, "{narration}");
    for part in
        ["done in ", "image sha256:", "code mounted, no git repository", "outputs in output", " · run "]
    {
        assert!(narration.contains(part), "{part} in {narration}");
    }

    // The image's own code is that of the build, and ibid says so.
    let pegged = project.ibid(&["run", "--pegged", "x"]);
    assert_eq!(text(&pegged.stdout), "user\nfirst");
    let narration = text(&pegged.stderr);
    assert!(narration.contains("differs from the working tree: word"), "{narration}");
    assert!(narration.contains("code pegged, no git repository, built 2"), "{narration}");
    assert_eq!(fs::read_to_string(&output).expect("written"), "x\n");

    // A build pegs the code as it is now.
    project.check(&["build"], 0);
    let pegged = project.ibid(&["run", "--pegged"]);
    assert_eq!(text(&pegged.stdout), "user\nsecond");
    assert!(!text(&pegged.stderr).contains("warning"), "{}", text(&pegged.stderr));
}

#[test]
fn exit_codes_are_the_programs_own() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM debian:bookworm-slim\nWORKDIR /code\n");
    project.check(&["run", "sh", "-c", "exit 0"], 0);
    project.check(&["run", "sh", "-c", "exit 7"], 7);
    project.check(&["run", "sh", "-c", "kill -TERM $$"], 143);
    project.check(&["run", "sh", "-c", "kill -KILL $$"], 137);
    project.check(&["run", "no-such-program"], 127);
    project.check(&["run", "/etc/passwd"], 126);
    let no_command = Project::new("FROM scratch\nWORKDIR /code\n");
    no_command.check(&["run"], 125);
}

#[test]
fn input_environment_and_data_reach_the_program() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM debian:bookworm-slim\nENV A=image B=image\nWORKDIR /code\n");
    project.file(
        "ibid.toml",
        &format!("{BASE}[run]\ndata = [\"data\"]\nenv = {{ B = \"toml\", C = \"toml\" }}\n"),
    );
    project.file("data/file", "input");
    let shown = project.check(
        &["run", "-e", "C=option", "-e", "ABSENT", "sh", "-c", "echo $A $B $C ${ABSENT-unset} $HOME"],
        0,
    );
    assert!(shown.starts_with("image toml option unset /"), "{shown}");
    let mut command = project.command(&["run", "cat", "-", "data/file"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(b"from stdin, ").expect("written");
    assert_eq!(text(&child.wait_with_output().expect("ends").stdout), "from stdin, input");
    let denied = project.ibid(&["run", "sh", "-c", "echo x > data/file"]);
    assert!(!denied.status.success());
    assert_eq!(fs::read_to_string(project.path().join("data/file")).expect("kept"), "input");
    // Nothing of the host's environment goes in unasked.
    let mut command = project.command(&["run", "env"]);
    let environment = text(&command.env("SECRET_OF_HOST", "x").output().expect("runs").stdout);
    assert!(!environment.contains("SECRET_OF_HOST"), "{environment}");
}

#[test]
fn the_same_context_gives_the_same_digest_anywhere() {
    if !can_build() {
        return;
    }
    let dockerfile = "FROM debian:bookworm-slim\nRUN useradd -u 4000000 someone; echo $RANDOM > /dev/null; date +%s > /tmp/x; rm /tmp/x\n\
                      COPY . /code/\nRUN ls -1 /code > /list\n";
    let digest = |mode: u32, umask: &str| {
        let project = Project::new(dockerfile);
        project.file("ibid.toml", &format!("name = \"same\"\n{BASE}"));
        project.file("b", "2");
        project.file("a", "1");
        fs::set_permissions(project.path().join("a"), fs::Permissions::from_mode(mode)).expect("ours");
        let build = format!("umask {umask} && exec {} build --no-cache", env!("CARGO_BIN_EXE_ibid"));
        let closed = project.command(&[]);
        let output = Command::new("sh")
            .args(["-c", &build])
            .current_dir(project.path())
            .env_clear()
            .envs(closed.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .output()
            .expect("sh starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let first = digest(0o600, "077");
    assert!(first.starts_with("sha256:") && first.lines().count() == 1, "{first}");
    assert_eq!(first, digest(0o664, "002"));
}

#[test]
fn copies_follow_the_dockerfile() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim AS one\nRUN mkdir /made && echo made > /made/file && chown 7:8 /made/file && chmod 4711 /made/file\n\
         FROM debian:bookworm-slim\nCOPY --from=one /made/ /from/\nCOPY --chown=3:4 --chmod=640 *.txt /texts/\n\
         ADD archive.tar /unpacked/\nCOPY <<EOF /heredoc\nline\nEOF\nRUN ln -s /etc /link\nCOPY a.txt /link/\n\
         COPY kept /kept\nWORKDIR /code\n",
    );
    project.file(".dockerignore", "kept/dropped\n");
    project.file("a.txt", "a");
    project.file("b.txt", "b");
    project.file("kept/inside", "x");
    project.file("kept/dropped", "x");
    let made = Command::new("tar")
        .arg("-C")
        .arg(project.path())
        .args(["-cf"])
        .arg(project.path().join("archive.tar"))
        .arg("kept")
        .status();
    assert!(made.expect("tar starts").success());
    let shown = project.check(
        &["run", "sh", "-c", "stat -c '%n %u:%g %a' /from/file /texts/a.txt /unpacked/kept/inside /etc/a.txt; cat /heredoc; ls /kept /texts; test -L /link && echo link"],
        0,
    );
    assert_eq!(
        shown,
        format!(
            "/from/file 7:8 4711\n/texts/a.txt 3:4 640\n/unpacked/kept/inside {}:{} 644\n/etc/a.txt 0:0 644\nline\n\
             /kept:\ninside\n\n/texts:\na.txt\nb.txt\nlink\n",
            fs::metadata(project.path()).expect("exists").uid(),
            fs::metadata(project.path()).expect("exists").gid(),
        )
    );
}

#[test]
fn what_is_no_content_is_left_out_with_a_word() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM scratch\nLABEL test=@UNIQUE@\nCOPY . /code\n");
    let made = Command::new("mkfifo").arg(project.path().join("pipe")).status();
    assert!(made.expect("mkfifo starts").success());
    let narration = text(&project.ibid(&["build", "--no-cache"]).stderr);
    assert!(narration.contains("warning: pipe is left out: it is a socket, pipe or device"), "{narration}");
}

#[test]
fn a_failing_step_is_shown_with_its_lines_and_leaves_no_image() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM debian:bookworm-slim\nRUN echo before && \\\n    false\n");
    project.file("ibid.toml", &format!("name = \"never-built\"\n{BASE}"));
    let output = project.ibid(&["build"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(output.stdout.is_empty());
    let narration = text(&output.stderr);
    for part in
        ["before", "the command failed with exit code 1", "Dockerfile:2", "RUN echo before", "    false"]
    {
        assert!(narration.contains(part), "{part} in {narration}");
    }
    assert!(!project.check(&["images"], 0).contains("never-built"));
}

#[test]
fn changed_arguments_rebuild_only_what_follows() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN echo slow @UNIQUE@\nARG WHO=a\nRUN echo $WHO @UNIQUE@ > /who\nWORKDIR /code\n",
    );
    project.check(&["build"], 0);
    let output = project.ibid(&["build", "--build-arg", "WHO=b"]);
    let narration = text(&output.stderr);
    assert!(
        narration.lines().any(|line| line.starts_with("[1/3]") && line.ends_with("cached")),
        "{narration}"
    );
    assert!(!narration.contains("> /who cached"), "{narration}");
    let unknown = project.ibid(&["build", "--build-arg", "WHOM=b"]);
    assert!(text(&unknown.stderr).contains("no `ARG WHOM`"), "{}", text(&unknown.stderr));
}

#[test]
fn trust_of_the_host_is_seen_inside_and_stored_nowhere() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN test $(wc -c < $SSL_CERT_FILE) = 20 && test -n \"$https_proxy\"\nWORKDIR /code\n",
    );
    let bundle = project.place.file("bundle.crt", "MARKER-OF-THIS-TEST\n");
    let with_trust = |args: &[&str]| {
        let mut command = project.command(args);
        command.env("SSL_CERT_FILE", &bundle).env("https_proxy", "http://marker-proxy:1");
        command.output().expect("ibid starts")
    };
    let built = with_trust(&["build", "--no-cache"]);
    assert!(built.status.success(), "{}", text(&built.stderr));
    let seen = with_trust(&["run", "sh", "-c", "cat $SSL_CERT_FILE; echo $https_proxy"]);
    assert_eq!(text(&seen.stdout), "MARKER-OF-THIS-TEST\nhttp://marker-proxy:1\n");
    let refused =
        with_trust(&["run", "--no-host-trust", "sh", "-c", "echo ${SSL_CERT_FILE-none} ${https_proxy-none}"]);
    assert_eq!(text(&refused.stdout), "none none\n");
    let archive = with_trust(&["save", &project.name(), "-o", "-"]);
    assert!(archive.status.success() && archive.stdout.len() > 1000);
    for marker in ["MARKER-OF-THIS-TEST", "marker-proxy"] {
        let found = archive.stdout.windows(marker.len()).any(|window| window == marker.as_bytes());
        assert!(!found, "{marker} is in the archive");
    }
}

#[test]
fn packages_can_be_installed_from_lists_of_an_earlier_step() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nRUN apt-get update\nRUN apt-get install -y --no-install-recommends hello\nWORKDIR /code\n",
    );
    assert_eq!(project.check(&["run", "-q", "hello", "-g", "installed"], 0), "installed\n");
}
