//! `ibid run` and `ibid dev` with options for the container: what is said, and what is left behind.

mod support;

use std::fs;
use std::path::Path;

use ibid_testing::{Need, need};
use support::{Project, can_copy, text};

const DOCKERFILE: &str = "FROM scratch
COPY busybox /bin/busybox
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
RUN echo @UNIQUE@ > /unique
WORKDIR /code
RUN mkdir -p venv web/node_modules pkg && chmod -R 777 web && echo > venv/pyvenv.cfg && echo fast > pkg/_fast.so
COPY word .
";

/// A project whose build leaves things in the code folder.
fn project() -> Option<Project> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    if !can_copy(&[]) {
        return None;
    }
    let Some(busybox) = busybox else {
        assert_ne!(std::env::var("IBID_TEST_REQUIRE").unwrap_or_default(), "all", "needs busybox");
        eprintln!("skipped: needs busybox: install the package busybox-static");
        return None;
    };
    let project = Project::new(DOCKERFILE);
    fs::copy(busybox, project.path().join("busybox")).expect("a copy");
    project.file("word", "word\n");
    Some(project)
}

#[test]
fn what_the_mount_hides_is_said_and_can_be_kept() {
    let Some(project) = project() else { return };
    let said = |args: &[&str]| {
        let output = project.ibid(args);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    // The second time, it is known.
    for _ in 0..2 {
        let (_, stderr) = said(&["run", "--", "sh", "-c", "true"]);
        assert!(
            stderr.contains(
                "warning: the mounted code hides `pkg/_fast.so` and 2 more, which the build put into /code\n\
                 hint: to keep it visible, in ibid.toml:\n  [code]\n  \
                 keep = [\"pkg/_fast.so\", \"venv\", \"web/node_modules\"]\n"
            ),
            "{stderr}"
        );
    }
    let (_, stderr) = said(&["run", "--pegged", "--", "sh", "-c", "true"]);
    assert!(!stderr.contains("hides"), "{stderr}");
    // What the working tree has itself is no loss.
    project.file("venv/own", "");
    let keep = "\n[code]\nkeep = [\"pkg/_fast.so\", \"web\"]\n";
    let toml = fs::read_to_string(project.path().join("ibid.toml")).expect("there");
    project.file("ibid.toml", &format!("{toml}{keep}"));
    let (stdout, stderr) = said(&[
        "run",
        "--",
        "sh",
        "-c",
        "cat pkg/_fast.so; ls web venv; touch web/new && rm -r web/node_modules",
    ]);
    assert_eq!(stdout, "fast\nvenv:\nown\n\nweb:\nnode_modules\n", "{stderr}");
    assert!(!stderr.contains("hides"), "{stderr}");
    // It is there again, as the run's own files were thrown away; and nothing came into the working tree but places.
    let (stdout, _) = said(&["run", "--", "sh", "-c", "ls web"]);
    assert_eq!(stdout, "node_modules\n");
    assert_eq!(fs::metadata(project.path().join("pkg/_fast.so")).expect("a place").len(), 0);
    assert_eq!(fs::read_dir(project.path().join("web")).expect("a place").count(), 0);
}

#[test]
fn what_is_to_be_kept_must_be_there() {
    let Some(project) = project() else { return };
    let toml = fs::read_to_string(project.path().join("ibid.toml")).expect("there");
    project.file("ibid.toml", &format!("{toml}\n[code]\nkeep = [\"venw\"]\n"));
    let output = project.ibid(&["run", "--", "sh", "-c", "true"]);
    assert_eq!(output.status.code(), Some(125));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("error: `venw` is to be kept, but the image has no such thing in `/code`"),
        "{stderr}"
    );
    assert!(!project.path().join("venw").exists());
}

#[test]
fn a_place_for_what_is_kept_is_made_in_the_project_only() {
    let Some(project) = project() else { return };
    project.place.folder("outside");
    std::os::unix::fs::symlink("../outside", project.path().join("pkg")).expect("a link");
    let toml = fs::read_to_string(project.path().join("ibid.toml")).expect("there");
    project.file("ibid.toml", &format!("{toml}\n[code]\nkeep = [\"pkg/_fast.so\"]\n"));
    let output = project.ibid(&["run", "--", "sh", "-c", "true"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("a link on the way leads out of the project"), "{stderr}");
    assert_eq!(fs::read_dir(project.place.path().join("outside")).expect("a folder").count(), 0);
}

#[test]
fn a_mistake_in_a_file_of_variables_is_shown() {
    let Some(project) = project() else { return };
    project.file("env", "A=1\nexport B=2\n");
    let output = project.ibid(&["run", "--env-file", "env", "--", "sh", "-c", "true"]);
    assert_eq!(output.status.code(), Some(125));
    let stderr = text(&output.stderr);
    let expected = "\
error: the name `export B` contains a space
 --> env:2:1
  |
2 | export B=2
  | ^^^^^^^^^^
hint: a line is NAME=VALUE";
    assert!(stderr.starts_with(expected), "{stderr}");
}

#[test]
fn nobody_gives_what_they_do_not_have() {
    if !need(&[Need::Root]) {
        return;
    }
    let Some(project) = project() else { return };
    let ibid = project.command(&["run", "--cap-add", "SYS_TIME", "--", "sh", "-c", "true"]);
    let mut command = project.place.command("setpriv");
    command.args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time"]).arg(ibid.get_program());
    command.args(ibid.get_args()).env("XDG_DATA_HOME", &project.data).current_dir(project.path());
    let output = command.output().expect("setpriv starts");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("`--cap-add SYS_TIME`: ibid itself lacks this capability here"), "{stderr}");
}

#[test]
fn a_group_with_limits_goes_with_its_run_however_that_ends() {
    if !need(&[Need::Root]) {
        return;
    }
    let Some(project) = project() else { return };
    let groups = || {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
        let found = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (folder, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup").then(|| groups_below(Path::new(folder)))
        });
        found.flatten().collect::<Vec<_>>()
    };
    let of = |process: u32| {
        let prefix = format!("ibid-{process}-");
        groups().into_iter().filter(|name| name.starts_with(&prefix)).count()
    };
    let mut command = project.command(&["run", "--pids", "20", "--", "sh", "-c", "echo up; cat"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("ibid starts");
    let mut first = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut stdout, &mut first).expect("readable");
    if first.is_empty() {
        let output = child.wait_with_output().expect("it ends");
        let stderr = text(&output.stderr);
        assert!(stderr.contains("cannot limit processes"), "{stderr}");
        eprintln!("skipped: {stderr}");
        return;
    }
    let process = child.id();
    assert!(of(process) > 0, "there is a group while it runs");
    child.kill().expect("killed");
    child.wait().expect("it ends");
    // The container ends with it; then nobody holds its output open.
    std::io::Read::read_to_string(&mut stdout, &mut first).expect("readable");
    let output = project.ibid(&["run", "--pids", "20", "--", "sh", "-c", "cat /proc/self/cgroup"]);
    assert!(text(&output.stdout).contains("/ibid-"), "{}", text(&output.stderr));
    assert_eq!(of(process), 0, "the next one removes what was left");
}

fn groups_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
            names.extend(groups_below(&entry.path()));
        }
    }
    names
}
