//! Images as people handle them: names, files, pipes, and other programs that read and write the same files.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, need};
use serde_json::Value;
use support::engine::{Engine, has_program};
use support::{Project, can_build, text};

const DOCKERFILE: &str = "FROM debian:bookworm-slim\nLABEL of=@UNIQUE@\nRUN echo @UNIQUE@ > /one && ln -s one /two\n\
                          WORKDIR /code\nCOPY train.py .\nENTRYPOINT [\"cat\", \"/one\"]\n";

/// A project whose image is built, and its digest.
fn built() -> (Project, String) {
    let project = Project::new(DOCKERFILE);
    project.file("train.py", "print(1)\n");
    let digest = project.check(&["build"], 0).trim().to_owned();
    (project, digest)
}

/// A command on another store, empty at first.
fn elsewhere(project: &Project, args: &[&str]) -> Command {
    let mut command = project.command(args);
    command.env("XDG_DATA_HOME", project.place.path().join("elsewhere"));
    command
}

/// From now on the other store is an empty one. The old one is moved away: only root may remove what belongs to others.
fn forget_elsewhere(project: &Project) {
    let folder = project.place.path();
    let mut aside = (0..).map(|number| folder.join(format!("elsewhere-{number}")));
    let aside = aside.find(|path| !path.exists()).expect("a free name");
    if folder.join("elsewhere").exists() {
        fs::rename(folder.join("elsewhere"), aside).expect("moved away");
    }
}

#[track_caller]
fn check(mut command: Command, code: i32) -> Output {
    let output = command.output().expect("the program starts");
    assert_eq!(
        output.status.code(),
        Some(code),
        "{command:?}\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// A part of what `--json` printed.
#[track_caller]
fn json(output: &str, pointer: &str) -> Value {
    let document: Value = serde_json::from_str(output).expect("JSON");
    assert_eq!(document["schema"], 1);
    document.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {document:#}")).clone()
}

#[test]
fn names_come_and_go() {
    if !can_build() {
        return;
    }
    let (project, digest) = built();
    let name = project.name();
    let (first, second) = (format!("{name}:first"), format!("lab.org/{name}:second"));
    project.check(&["tag", &name, &first], 0);
    project.check(&["tag", &digest, &second], 0);
    let of_image = |listing: &str| {
        let lines = listing.lines().filter(|line| line.contains(&name) && line.contains(&digest[..19]));
        lines.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let listed = of_image(&project.check(&["images"], 0));
    assert_eq!(listed, [format!("{name}:first"), format!("{name}:latest"), second.clone()]);
    let images = json(&project.check(&["images", "--json"], 0), "/images");
    let image = images.as_array().expect("a list").iter().find(|image| image["digest"] == digest.as_str());
    assert_eq!(image.expect("the image")["complete"], true);
    // By digest it is not clear which name is meant.
    let refused = project.ibid(&["rmi", &digest]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(
        text(&refused.stderr).contains(&format!("hint: say which: ibid rmi {name}:first")),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(project.check(&["rmi", &first, &name], 0), format!("{first}\n{name}:latest\n"));
    assert_eq!(of_image(&project.check(&["images"], 0)), [second.as_str()]);
    // All or none.
    assert_eq!(project.ibid(&["rmi", &second, "nobody:1"]).status.code(), Some(125));
    assert_eq!(of_image(&project.check(&["images"], 0)), [second.as_str()]);
    assert_eq!(project.check(&["rmi", &digest], 0), format!("{second}\n"));
    let refused = project.ibid(&["rmi", &digest]);
    assert!(
        text(&refused.stderr).contains("has no name that could be taken from it"),
        "{}",
        text(&refused.stderr)
    );
    let refused = project.ibid(&["tag", &digest, "Upper"]);
    assert!(text(&refused.stderr).contains("must be lower case"), "{}", text(&refused.stderr));
    // The layers are still there: a name for it, and it runs.
    project.check(&["tag", &digest, &name], 0);
    assert_eq!(project.check(&["run", "--pegged"], 0), format!("{}\n", project.place.path().display()));
}

#[test]
fn what_is_known_of_an_image_is_told() {
    if !can_build() {
        return;
    }
    let (project, digest) = built();
    let shown = project.check(&["inspect", &project.name()], 0);
    let expected = [digest.as_str(), "/code", "[\"cat\",\"/one\"]", "train.py", "layer 4", "COPY train.py ."];
    for part in expected {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let document = project.check(&["inspect", "--json", &project.name()], 0);
    let at = |pointer: &str| json(&document, pointer);
    assert_eq!(at("/image/digest"), digest);
    assert_eq!(at("/image/config/WorkingDir"), "/code");
    assert_eq!(at("/image/layers").as_array().map(Vec::len), Some(4));
    assert_eq!(at("/image/layers/3/files"), 1);
    assert_eq!(at("/image/layers/3/bytes"), 9);
    assert_eq!(at("/image/code/project"), project.path().display().to_string());
    assert_eq!(
        at("/image/code/files").as_object().map(|files| files.keys().cloned().collect::<Vec<_>>()),
        Some(vec!["train.py".to_owned()])
    );
    let history = at("/image/history");
    let of_copy =
        history.as_array().expect("a list").iter().find(|step| step["instruction"] == "COPY train.py .");
    assert_eq!(of_copy.expect("the step")["layer"], at("/image/layers/3/digest"));
    let refused = project.ibid(&["inspect", &format!("{}x", project.name())]);
    assert!(text(&refused.stderr).contains("did you mean"), "{}", text(&refused.stderr));
}

#[test]
fn images_go_to_another_store_by_file_and_by_pipe() {
    if !can_build() {
        return;
    }
    let (project, digest) = built();
    let name = format!("{}:latest", project.name());
    let loaded = format!("{name} {digest}\n");
    for args in [
        &["-o", "a.tar"][..],
        &["-o", "a.tar", "--compression", "zstd"],
        &["-o", "a.tar", "--format", "oci-archive"],
        &["-o", "a.tar", "--format", "oci-archive", "--compression", "none"],
        &["-o", "folder/"],
    ] {
        project.check(&[&["save", &name], args].concat(), 0);
        forget_elsewhere(&project);
        let output = check(elsewhere(&project, &["load", "-i", args[1]]), 0);
        assert_eq!(text(&output.stdout), loaded, "{args:?}");
    }
    // By a pipe, to a store that has all of it, and the same bytes as in a file.
    project.check(&["save", &name, "-o", "a.tar"], 0);
    let mut save = project.command(&["save", &name]).stdout(Stdio::piped()).spawn().expect("ibid starts");
    let mut load = elsewhere(&project, &["load", "--json"]);
    load.stdin(save.stdout.take().expect("a pipe"));
    let output = check(load, 0);
    assert!(save.wait().expect("ibid ends").success());
    assert_eq!(json(&text(&output.stdout), "/images/0/tags/0"), name);
    assert_eq!(json(&text(&output.stdout), "/images/0/digest"), digest);
    let piped = check(project.command(&["save", &name, "-o", "-"]), 0).stdout;
    assert!(piped == fs::read(project.path().join("a.tar")).expect("the archive"), "the bytes differ");
    assert_eq!(
        fs::metadata(project.path().join("a.tar")).expect("the archive").uid(),
        rustix::process::geteuid().as_raw()
    );
    // Several images, one of them by its digest and so without a name.
    let mut both = elsewhere(&project, &["load"]);
    let archive = check(project.command(&["save", &digest, "debian:bookworm-slim", "-o", "-"]), 0).stdout;
    fs::write(project.path().join("both.tar"), archive).expect("written");
    both.stdin(fs::File::open(project.path().join("both.tar")).expect("the archive"));
    let both = text(&check(both, 0).stdout);
    assert!(both.starts_with(&format!("{digest}\ndebian:bookworm-slim sha256:")), "{both}");
    // What has gone elsewhere runs there.
    let mut run = elsewhere(&project, &["run", "--pegged"]);
    run.env("IBID_TEST", "1");
    assert_eq!(text(&check(run, 0).stdout), format!("{}\n", project.place.path().display()));
}

#[test]
fn what_cannot_be_saved_or_loaded_is_said_and_leaves_nothing() {
    if !can_build() {
        return;
    }
    let (project, _) = built();
    let name = project.name();
    let refused = |args: &[&str], part: &str| {
        let output = project.ibid(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        assert!(text(&output.stderr).contains(part), "{args:?}: {}", text(&output.stderr));
    };
    let before = || {
        let names = fs::read_dir(project.path()).expect("the project");
        let mut names: Vec<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    project.file("full/file", "");
    project.file("text", "text");
    let names = before();
    refused(&["save", &name, "-o", "missing/a.tar"], "cannot write missing/a.tar");
    refused(&["save", &name, "-o", "full"], "it is no folder in the OCI image layout, and not empty");
    refused(
        &["save", &name, "-o", "full", "--format", "docker"],
        "full is a folder, and the archive is a file",
    );
    refused(&["save", &name, "--format", "oci"], "a folder cannot be written to stdout");
    refused(&["save", &name, "nobody", "-o", "a.tar"], "there is no image `nobody` in the store");
    refused(&["save", &name, "-o", "/dev/full"], "No space left on device");
    refused(&["load", "-i", "text"], "cannot load images from text");
    refused(&["load", "-i", "full"], "hint: it reads folders in the OCI image layout");
    refused(&["load", "-i", "missing"], "cannot open `missing`");
    refused(&["load"], "nor is an `index.json`");
    assert_eq!(before(), names);
}

#[test]
fn an_archive_is_not_written_to_a_terminal() {
    if !can_build() {
        return;
    }
    let (project, _) = built();
    let of = |words: &str| {
        let command = project.command(&[]);
        let mut on_terminal = Command::new("script");
        let inner = format!("{} {words}", env!("CARGO_BIN_EXE_ibid"));
        on_terminal
            .args(["--quiet", "--return", "--command", &inner, "/dev/null"])
            .current_dir(project.path());
        on_terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = on_terminal.stdin(Stdio::null()).output().expect("script is installed");
        assert_eq!(output.status.code(), Some(125));
        text(&output.stdout)
    };
    let said = of(&format!("save {}", project.name()));
    assert!(said.contains("unreadable") && said.contains("| ssh HOST ibid load"), "{said}");
    let said = of("load");
    assert!(said.contains("stdin is a terminal"), "{said}");
}

/// The ids of `expected` under their names in another engine's list, `NAME:TAG sha256:…` a line.
#[track_caller]
fn check_listed(output: &Output, name: &str, digest: &str) {
    let listed = text(&output.stdout);
    let is_listed = listed.lines().any(|line| line.contains(name) && line.ends_with(digest));
    assert!(is_listed, "{name} {digest} in\n{listed}{}", text(&output.stderr));
}

const LIST: [&str; 4] = ["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"];

#[test]
fn a_docker_engine_and_ibid_load_what_the_other_saves() {
    if !can_build() || !need(&[Need::Root]) || !Engine::is_installed() {
        return;
    }
    let (project, digest) = built();
    let name = format!("{}:latest", project.name());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let engine = Engine::start(folder.path(), data.path());
    let docker = |args: &[&str]| {
        let mut command = engine.command("docker");
        command.args(args).current_dir(project.path());
        check(command, 0)
    };
    for compression in ["none", "gzip"] {
        project.check(&["save", &name, "-o", "a.tar", "--compression", compression], 0);
        docker(&["load", "--input", "a.tar"]);
        check_listed(&docker(&LIST), &name, &digest);
        docker(&["save", &name, "--output", "docker.tar"]);
        docker(&["rmi", &name]);
        forget_elsewhere(&project);
        let loaded = check(elsewhere(&project, &["load", "-i", "docker.tar"]), 0);
        assert_eq!(text(&loaded.stdout), format!("{name} {digest}\n"));
    }
    // What the engine has built, with layers that are links to others in its archive.
    project.file(
        "Dockerfile",
        "FROM scratch\nCOPY train.py /a\nCOPY train.py /b\nCOPY train.py /a\nENV A=b\nHEALTHCHECK CMD true\nONBUILD RUN x\n",
    );
    docker(&["build", "--tag", "built-by-docker:1", "."]);
    docker(&["save", "built-by-docker:1", "--output", "docker.tar"]);
    let id = text(&docker(&["images", "--no-trunc", "--quiet", "built-by-docker:1"]).stdout);
    let loaded = check(elsewhere(&project, &["load", "-i", "docker.tar"]), 0);
    assert_eq!(text(&loaded.stdout), format!("built-by-docker:1 {id}"));
    docker(&["rmi", "built-by-docker:1"]);
    check(elsewhere(&project, &["save", "built-by-docker:1", "-o", "a.tar"]), 0);
    docker(&["load", "--input", "a.tar"]);
    check_listed(&docker(&LIST), "built-by-docker:1", id.trim());
}

#[test]
fn podman_and_ibid_load_what_the_other_saves() {
    if !can_build() || !need(&[Need::Root]) || !has_program("podman", "podman") {
        return;
    }
    // Small: without overlays, podman copies the files of each layer.
    let project =
        Project::new("FROM scratch\nLABEL of=@UNIQUE@\nCOPY train.py /\nCOPY Dockerfile /\nCMD [\"x\"]\n");
    project.file("train.py", "print(1)\n");
    let digest = project.check(&["build"], 0).trim().to_owned();
    let name = format!("{}:latest", project.name());
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    // Its path may have no more than 50 characters.
    let runtime = tempfile::tempdir().expect("a temporary folder");
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(data.path().join("root")).arg("--runroot").arg(runtime.path());
        // Its overlay needs what a test's file system may lack.
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]).args(args);
        command.current_dir(project.path()).stdin(Stdio::null());
        check(command, 0)
    };
    for args in [
        &["-o", "a.tar"][..],
        &["-o", "a.tar", "--compression", "zstd"],
        &["-o", "a.tar", "--format", "oci-archive"],
        &["-o", "a.tar", "--format", "oci-archive", "--compression", "zstd"],
    ] {
        project.check(&[&["save", &name], args].concat(), 0);
        podman(&["load", "--input", "a.tar"]);
        check_listed(&podman(&LIST), &name, &digest);
        let _ = fs::remove_file(project.path().join("podman.tar"));
        // In the form in which it came: podman's change to another form gives an image another configuration.
        let form = if args.contains(&"oci-archive") { "oci-archive" } else { "docker-archive" };
        podman(&["save", &name, "--format", form, "--output", "podman.tar"]);
        forget_elsewhere(&project);
        let loaded = check(elsewhere(&project, &["load", "-i", "podman.tar"]), 0);
        // Names without a registry are podman's own.
        let loaded = text(&loaded.stdout);
        assert_eq!(loaded.trim_start_matches("localhost/"), format!("{name} {digest}\n"));
        podman(&["rmi", "--all", "--force"]);
    }
}

#[test]
fn skopeo_and_ibid_read_what_the_other_writes() {
    if !can_build() || !has_program("skopeo", "skopeo") {
        return;
    }
    let (project, digest) = built();
    let name = format!("{}:latest", project.name());
    let skopeo = |from: &str, to: &str| {
        let mut command = project.place.command("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", from, to]).current_dir(project.path());
        command.env("TMPDIR", project.path());
        check(command, 0)
    };
    let docker_archive = |path: &str| format!("docker-archive:{path}:{name}");
    let load = |path: &Path| {
        forget_elsewhere(&project);
        let output = check(elsewhere(&project, &["load", "-i", path.to_str().expect("UTF-8")]), 0);
        text(&output.stdout)
    };
    let path = PathBuf::from("a.tar");
    project.check(&["save", &name, "-o", "a.tar", "--compression", "gzip"], 0);
    skopeo(&docker_archive("a.tar"), &docker_archive("b.tar"));
    assert_eq!(load(Path::new("b.tar")), format!("{name} {digest}\n"));
    // From one OCI layout to another, nothing of an image changes.
    project.check(&["save", &name, "-o", "a.tar", "--format", "oci-archive"], 0);
    // Debian 12's skopeo unpacks such an archive with its owners, which only root may.
    if rustix::process::geteuid().is_root() {
        skopeo("oci-archive:a.tar", "oci:copied:there");
        assert_eq!(load(Path::new("copied")), format!("there:latest {digest}\n"));
    }
    project.check(&["save", &name, "-o", "folder/"], 0);
    skopeo("oci:folder:latest", "oci-archive:a.tar");
    assert_eq!(load(&path), format!("{digest}\n"));
}

#[test]
fn what_differs_between_two_images_is_listed() {
    if !can_build() {
        return;
    }
    let (project, first) = built();
    project.file(
        "Dockerfile",
        "FROM debian:bookworm-slim\nLABEL of=another\nRUN echo @UNIQUE@ > /one && mkdir /d && chmod 700 /mnt && rm -r /etc/apt\n\
         WORKDIR /code\nCOPY train.py .\nENV A=b\nENTRYPOINT [\"cat\", \"/one\"]\n",
    );
    project.file("train.py", "print(2)\n");
    let second = project.check(&["build"], 0).trim().to_owned();
    let listed = project.check(&["diff", &first, &second], 1);
    let place = project.place.path().display();
    for line in [
        "+ /d  layer 2",
        "- /two  layer 2",
        "~ /mnt  mode 755, then 700  layer 1, then layer 2",
        "~ /code/train.py  content: line 1: `print(1)`, then `print(2)`  layer 4, then layer 4",
        "+ config Env A: nothing, then b",
        &format!("~ config Label of: {place}, then another"),
        &format!("~ /one  content: line 1: `{place}`, then `@UNIQUE@`  layer 2, then layer 2"),
    ] {
        assert!(listed.lines().any(|found| found == line), "{line} in\n{listed}");
    }
    assert!(listed.contains("- /etc/apt/trusted.gpg.d  layer 1\n"), "{listed}");
    assert!(!listed.contains("/bin/sh"), "{listed}");
    let document = project.check(&["diff", "--json", &first, &second], 1);
    let files = json(&document, "/diff/files");
    let added =
        files.as_array().expect("a list").iter().find(|file| file["path"] == "/d").expect("the folder");
    assert_eq!((&added["change"], &added["first"]), (&"added".into(), &Value::Null));
    let layers = json(&project.check(&["inspect", "--json", &second], 0), "/image/layers");
    assert_eq!(added["second"]["layer"], layers[1]["digest"]);
    assert_eq!(project.check(&["diff", &first, &first], 0), "");
}
