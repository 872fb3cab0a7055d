//! The sample's four `docker_*.sh` scripts against a real Docker engine.
//!
//! The engine is the test's own: its images and containers live in a temporary folder, so no image, tag or container
//! of the machine is touched. Its base image comes from `ibid`, the way a Docker user without a registry gets it.

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, need};
use support::engine::Engine;

/// A person whose ids a directory service gave out; Debian's own users end at 65535.
const PERSON: (u32, u32) = (2_500_001, 2_500_002);

#[test]
fn scripts_build_and_run_for_the_person_who_asks() {
    if !need(&[Need::Root]) || !Engine::is_installed() || !need(&[Need::Mirror]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let engine = Engine::start(folder.path(), data.path());
    let project = copy_of_sample(&folder.path().join("project"));
    load_base(&engine, &project, data.path());

    // As a person: what sudo tells a script about who called it.
    give_to(&project, PERSON);
    let build = build(&engine, &project);
    assert!(build.status.success(), "{}", text(&build));

    let run = run_script(
        &engine,
        &project,
        "docker_run.sh",
        &["--n-epochs", "2", "--learning-rate", "0.14"],
        Some(PERSON),
    );
    assert!(run.status.success(), "{}", text(&run));
    assert!(text(&run).contains("epoch 2/2"), "{}", text(&run));
    for name in ["", "metrics.jsonl", "model.npz"] {
        let metadata = fs::metadata(project.join("output").join(name)).expect("an output of the run");
        assert_eq!((metadata.uid(), metadata.gid()), PERSON, "output/{name}");
    }
    let refused = run_script(&engine, &project, "docker_run.sh", &["--n-epochs", "0"], Some(PERSON));
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));

    // The code mounted, and the code in the image.
    fs::write(project.join("added.py"), "print('added after the build')\n").expect("a new file");
    let mounted = run_script(&engine, &project, "docker_dev.sh", &["-c", "python3 added.py"], Some(PERSON));
    assert_eq!(text(&mounted), "added after the build\n");
    let pegged = run_script(&engine, &project, "docker_run_bash.sh", &["-c", "ls added.py"], Some(PERSON));
    assert!(!pegged.status.success(), "the image's own code has a file of the project: {}", text(&pegged));
    let pegged = run_script(
        &engine,
        &project,
        "docker_run_bash.sh",
        &["-c", "python3 mnist.py --n-epochs 1 && stat -c %u:%g output/model.npz"],
        Some(PERSON),
    );
    assert!(text(&pegged).ends_with(&format!("\n{}:{}\n", PERSON.0, PERSON.1)), "{}", text(&pegged));

    for script in ["docker_dev.sh", "docker_run_bash.sh"] {
        let shell = on_terminal(&engine, &project, script, "exit\n", PERSON);
        assert!(has_prompt(&text(&shell)), "{script}: {:?}", text(&shell));
    }

    // The sample's own tests, with the interpreter and the NumPy of the image.
    let tests =
        run_script(&engine, &project, "docker_dev.sh", &["-c", "python3 -B -m unittest"], Some(PERSON));
    assert!(tests.status.success() && text(&tests).ends_with("\nOK\n"), "{}", text(&tests));

    // As root, whose files are root's; the image stays the one made for the person.
    fs::remove_dir_all(project.join("output")).expect("outputs to remove");
    let run = run_script(&engine, &project, "docker_run.sh", &["--n-epochs", "1"], None);
    assert!(run.status.success(), "{}", text(&run));
    let metadata = fs::metadata(project.join("output/model.npz")).expect("an output of the run");
    assert_eq!((metadata.uid(), metadata.gid()), (0, 0));
}

#[test]
fn download_refuses_what_has_another_digest() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let project = copy_of_sample(&folder.path().join("project"));
    let mirror = folder.path().join("mirror");
    fs::create_dir(&mirror).expect("a folder");
    let script = project.join("download_mnist.sh");
    let right = fs::read_to_string(&script).expect("the script");

    // Stand-ins for the four files, and a script that expects exactly them.
    let mut expecting = right.clone();
    let mut names = Vec::new();
    for line in right.lines().filter(|line| line.trim_start().starts_with('"') && line.ends_with(".gz\"")) {
        let (digest, name) = line.trim().trim_matches('"').split_once(' ').expect("a digest and a name");
        fs::write(mirror.join(name), name).expect("a file to fetch");
        let sum = Command::new("sha256sum").arg(mirror.join(name)).output().expect("sha256sum runs");
        expecting = expecting.replace(digest, &text(&sum)[..64]);
        names.push(name);
    }
    assert_eq!(names.len(), 4);
    let download = || {
        Command::new(&script)
            .env("MNIST_URL", format!("file://{}", mirror.display()))
            .output()
            .expect("bash runs")
    };

    // The script as it is: these are not the files of MNIST.
    let refused = download();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("instead of 440fcabf"), "{}", text(&refused));
    assert_eq!(entries(&project.join("data")), Vec::<String>::new());

    fs::write(&script, expecting).expect("the script can be written");
    let fetched = download();
    assert!(fetched.status.success(), "{}", text(&fetched));
    names.sort_unstable();
    assert_eq!(entries(&project.join("data")), names);
    assert_eq!(text(&download()).matches("already there").count(), 4);
}

/// The build, which fetches packages: apt now and then waits for ever for an answer that a mirror swallowed.
fn build(engine: &Engine, project: &Path) -> Output {
    const ATTEMPTS: usize = 3;
    const TIMED_OUT: i32 = 124;
    for _ in 1..ATTEMPTS {
        let mut command = engine.command("timeout");
        command.args(["--kill-after", "10", "240"]).arg(project.join("docker_build.sh"));
        let output = as_person(command, &["--network", "host"], Some(PERSON));
        if output.status.code() != Some(TIMED_OUT) {
            return output;
        }
        eprintln!("the build hung and is started again: {}", text(&output));
    }
    run_script(engine, project, "docker_build.sh", &["--network", "host"], Some(PERSON))
}

/// Runs a script of the project from elsewhere, as root, or as root by sudo for `person`.
fn run_script(
    engine: &Engine,
    project: &Path,
    name: &str,
    arguments: &[&str],
    person: Option<(u32, u32)>,
) -> Output {
    as_person(engine.command(project.join(name)), arguments, person)
}

/// Runs a script of the project on a terminal, with `typed` on its keyboard.
fn on_terminal(engine: &Engine, project: &Path, name: &str, typed: &str, person: (u32, u32)) -> Output {
    let mut child = engine
        .command("script")
        .args(["--quiet", "--return", "--command"])
        .arg(project.join(name))
        .arg("/dev/null")
        .env("SUDO_UID", person.0.to_string())
        .env("SUDO_GID", person.1.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("script starts");
    child.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("script reads");
    child.wait_with_output().expect("script ends")
}

fn as_person(mut command: Command, arguments: &[&str], person: Option<(u32, u32)>) -> Output {
    if let Some((uid, gid)) = person {
        command.env("SUDO_UID", uid.to_string()).env("SUDO_GID", gid.to_string());
    }
    command.args(arguments).current_dir("/").output().expect("the script starts")
}

/// Makes the sample's base image with `ibid` and hands it to the engine.
fn load_base(engine: &Engine, project: &Path, data: &Path) {
    let ibid = |arguments: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_ibid"))
            .arg("-C")
            .arg(project)
            .args(arguments)
            .env("XDG_DATA_HOME", data.join("share"))
            .stdin(Stdio::null())
            .output()
            .expect("ibid starts");
        assert!(done.status.success(), "ibid {arguments:?}: {}", text(&done));
    };
    let archive = data.join("base.tar");
    ibid(&["build"]);
    ibid(&["save", "debian:bookworm-slim", "-o", archive.to_str().expect("a path in UTF-8")]);
    let mut load = engine.command("docker");
    load.arg("load").stdin(File::open(&archive).expect("the saved image"));
    let load = load.output().expect("docker starts");
    assert!(load.status.success(), "{}", text(&load));
}

fn copy_of_sample(to: &Path) -> PathBuf {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mnist");
    fs::create_dir(to).expect("a new folder");
    for entry in fs::read_dir(&sample).expect("the sample") {
        let entry = entry.expect("an entry of the sample");
        // Only what is in version control: not the outputs and data of whoever tried it.
        if entry.file_type().expect("its type").is_file() && entry.file_name() != "ibid.lock" {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
    to.to_path_buf()
}

fn give_to(folder: &Path, (uid, gid): (u32, u32)) {
    chown(folder, Some(uid), Some(gid)).expect("root may");
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            give_to(&path, (uid, gid));
        } else {
            chown(path, Some(uid), Some(gid)).expect("root may");
        }
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"))
        .collect();
    names.sort_unstable();
    names
}

/// What a program said, on stdout and then on stderr.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether `user@<12 hexadecimal digits>:/code$ ` is in it.
fn has_prompt(said: &str) -> bool {
    said.split("user@").skip(1).any(|rest| {
        rest.get(..12).is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()))
            && rest[12..].starts_with(":/code$ ")
    })
}
