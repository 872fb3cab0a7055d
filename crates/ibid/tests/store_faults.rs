//! The store under bad conditions: killed at any call that changes something, several users at once, a full disk, nothing
//! that can be written, a file system that overlays cannot be made of.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, need};
use support::engine::has_program;
use support::{Project, can_build, text};

/// Calls by which ibid changes the store. It is killed before each of them has an effect.
const CALLS: [&str; 12] = [
    "renameat", "rename", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "fsync", "syncfs", "fchown",
    "chmod", "flock",
];
/// More than any of the operations below has of one call.
const CALLS_MAX: usize = 300;

const DOCKERFILE: &str =
    "FROM scratch\nLABEL of=@UNIQUE@\nCOPY train.py data/ /code/\nCOPY Dockerfile /last\n";

/// A small project with a store of its own, in the folder that is given or in its place.
fn project(data: Option<PathBuf>) -> Project {
    let mut project = Project::new(DOCKERFILE);
    project.data = data.unwrap_or_else(|| project.place.folder("share"));
    project.file("train.py", "print(1)\n");
    for number in 0..3 {
        project.file(&format!("data/{number}/file"), &format!("{number}\n").repeat(1000));
    }
    project
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()), "cp -a {} {}", from.display(), to.display());
}

/// Kills an operation at each of its calls that change something. Before each try the store is that of `before`. What is
/// left must be sound, and the operation must do when it is called again what it does undisturbed.
#[track_caller]
fn check_killed(project: &Project, before: Option<&Path>, args: &[&str], code: i32, is_done: &dyn Fn()) {
    let prepare = || match before {
        Some(before) => copy(before, &project.data),
        None => {
            let _ = fs::remove_dir_all(&project.data);
        }
    };
    let mut killed = 0;
    for call in CALLS {
        for number in 1..=CALLS_MAX {
            prepare();
            let inner = project.command(args);
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
            command.arg(inner.get_program()).args(args).current_dir(project.path()).stdin(Stdio::null());
            command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let output = command.output().expect("strace starts");
            if output.status.signal() != Some(9) {
                assert_eq!(
                    output.status.code(),
                    Some(code),
                    "{args:?} {call} {number}: {}",
                    text(&output.stderr)
                );
                break;
            }
            assert!(number < CALLS_MAX, "{args:?} has more than {CALLS_MAX} times {call}");
            killed += 1;
            let case = format!("{args:?} killed at {call} {number}");
            // Damage that was there before is found, and none is new.
            let sound = project.ibid(&["store", "verify"]);
            let said = text(&sound.stdout) + &text(&sound.stderr);
            assert!(sound.status.code() == Some(0) || args.contains(&"verify"), "{case}: {said}");
            let again = project.ibid(args);
            let expected = [Some(code), Some(0)];
            assert!(expected.contains(&again.status.code()), "{case}: {}", text(&again.stderr));
            is_done();
            project.check(&["store", "verify"], 0);
            let left = fs::read_dir(project.data.join("ibid/tmp")).expect("the store").count();
            assert_eq!(left, 0, "{case}: left in the folder of drafts");
        }
    }
    assert!(killed > 2, "{args:?} was killed {killed} times");
}

#[test]
fn a_store_is_sound_wherever_its_user_was_killed() {
    if !need(&[Need::Root]) || !has_program("strace", "strace") {
        return;
    }
    let project = project(None);
    let name = format!("{}:latest", project.name());
    let image = project.check(&["build"], 0).trim().to_owned();
    project.check(&["save", &name, "-o", "a.tar"], 0);
    let archive = fs::read(project.path().join("a.tar")).expect("the archive");
    let built = project.place.path().join("built");
    copy(&project.data, &built);
    let has_image = || {
        let listed = project.check(&["images"], 0);
        assert!(
            listed.contains(&name) && listed.contains(&image[..19]) && !listed.contains("missing"),
            "{listed}"
        );
    };

    check_killed(&project, None, &["load", "-i", "a.tar"], 0, &has_image);
    check_killed(&project, None, &["build"], 0, &has_image);
    check_killed(&project, Some(&built), &["tag", &name, "other"], 0, &|| {
        assert!(project.check(&["images"], 0).contains("other:latest"));
    });
    check_killed(&project, Some(&built), &["save", &name, "-o", "b.tar"], 0, &|| {
        assert!(fs::read(project.path().join("b.tar")).expect("the archive") == archive);
        // A part of an archive does not look like one.
        for entry in fs::read_dir(project.path()).expect("the project") {
            let path = entry.expect("an entry").path();
            if path.to_string_lossy().contains(".part-") || path.ends_with("b.tar") {
                fs::remove_file(path).expect("removed");
            }
        }
    });

    // Without its name, the image goes.
    copy(&built, &project.data);
    project.check(&["rmi", &name], 0);
    let untagged = project.place.path().join("untagged");
    copy(&project.data, &untagged);
    check_killed(&project, Some(&untagged), &["gc", "--keep", "0"], 0, &|| {
        assert_eq!(fs::read_dir(project.data.join("ibid/layers")).expect("layers").count(), 0);
    });

    copy(&built, &project.data);
    let layer = fs::read_dir(project.data.join("ibid/layers")).expect("layers").next().expect("a layer");
    fs::write(layer.expect("a layer").path().join("manifest"), "damaged").expect("written");
    let damaged = project.place.path().join("damaged");
    copy(&project.data, &damaged);
    check_killed(&project, Some(&damaged), &["store", "verify"], 1, &|| ());
}

#[test]
fn builds_loads_and_collections_go_on_beside_each_other() {
    let project = project(None);
    if !need(&[if rustix::process::geteuid().is_root() { Need::Root } else { Need::Subids }]) {
        return;
    }
    const ROUNDS: usize = 5;
    let name = format!("{}:latest", project.name());
    let image = project.check(&["build"], 0);
    project.check(&["save", &name, "-o", "a.tar"], 0);
    for (folder, content) in [("one", "1"), ("two", "2")] {
        project.file(&format!("{folder}/Dockerfile"), DOCKERFILE);
        project.file(&format!("{folder}/train.py"), content);
        project.file(&format!("{folder}/data/file"), "the same\n");
    }
    let repeat = |args: &[&str]| {
        for _ in 0..ROUNDS {
            project.check(args, 0);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| repeat(&["build", "--no-cache", "one", "--tag", "one"]));
        scope.spawn(|| repeat(&["build", "two", "--tag", "two"]));
        scope.spawn(|| repeat(&["load", "-i", "a.tar"]));
        scope.spawn(|| repeat(&["gc", "--keep", "0"]));
        scope.spawn(|| repeat(&["save", &name, "-o", "b.tar"]));
    });
    project.check(&["store", "verify"], 0);
    let listed = project.check(&["images"], 0);
    assert!(!listed.contains("missing") && listed.lines().count() == 4, "{listed}");
    assert_eq!(project.check(&["build"], 0), image);
}

/// Something mounted for a test.
struct Mounted(PathBuf);

impl Mounted {
    #[track_caller]
    fn new(args: &[&str], at: PathBuf) -> Self {
        fs::create_dir_all(&at).expect("a folder");
        let status = Command::new("mount").args(args).arg(&at).status().expect("mount starts");
        assert!(status.success(), "mount {args:?}");
        Self(at)
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "remount {options}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part} in\n{said}");
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    if !need(&[Need::Root]) {
        return;
    }
    let mut project = project(None);
    project.file("data/large", &"0123456789abcdef".repeat(100_000));
    project.check(&["build"], 0);
    project.check(&["save", &project.name(), "-o", "a.tar"], 0);
    let disk = Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "none"], project.place.path().join("disk"));
    let full = ["No space left on device", "hint: make room: `ibid gc --keep 0`"];
    refused(&project.ibid(&["save", &project.name(), "-o", "../disk/a.tar"]), &full);
    assert_eq!(fs::read_dir(&disk.0).expect("the disk").count(), 0, "something is left");
    project.data = disk.0.clone();
    for args in [&["load", "-i", "a.tar"][..], &["build"]] {
        refused(&project.ibid(args), &full);
        for folder in ["layers", "blobs/sha256", "tags", "tmp"] {
            let count = fs::read_dir(disk.0.join("ibid").join(folder)).expect(folder).count();
            assert_eq!(count, 0, "{args:?} left something in {folder}");
        }
    }
    // With room, the same store serves.
    disk.remount("size=64m");
    project.check(&["load", "-i", "a.tar"], 0);
    project.check(&["store", "verify"], 0);
}

/// A project whose image can be run, in a store of its own that is filled from the shared one.
fn runnable() -> Option<Project> {
    if !can_build() {
        return None;
    }
    let mut project = Project::new(
        "FROM debian:bookworm-slim\nRUN echo @UNIQUE@ > /one\nWORKDIR /code\nCOPY train.py .\nENTRYPOINT [\"cat\", \"/one\"]\n",
    );
    project.file("train.py", "print(1)\n");
    project.check(&["build"], 0);
    project.check(&["save", &project.name(), "debian:bookworm-slim", "-o", "a.tar"], 0);
    project.data = project.place.folder("share");
    project.check(&["load", "-i", "a.tar"], 0);
    // The base is the one that was loaded: making it would take its time in each of these stores.
    project.file("ibid.toml", &format!("name = \"{}\"\n", project.name()));
    Some(project)
}

#[test]
fn a_store_that_cannot_be_written_serves_what_it_has() {
    if !need(&[Need::Root]) {
        return;
    }
    let Some(project) = runnable() else { return };
    let data = project.data.to_str().expect("UTF-8").to_owned();
    // An archive of an image that is here, under a name that is not.
    for args in
        [&["tag", &project.name(), "other"][..], &["save", "other", "-o", "other.tar"], &["rmi", "other"]]
    {
        let output = project.command(args).output().expect("ibid starts");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    }
    let read_only = Mounted::new(&["--bind", &data], project.data.clone());
    read_only.remount("ro,bind");
    let temporary = project.place.folder("temporary");
    let ibid = |args: &[&str]| project.command(args).env("TMPDIR", &temporary).output().expect("ibid starts");
    let expected = format!("{}\n", project.place.path().display());
    for args in [
        &["images"][..],
        &["inspect", &project.name()],
        &["store", "verify"],
        &["save", &project.name(), "-o", "b.tar"],
        // It is there, and so is its tag.
        &["load", "-i", "a.tar"],
    ] {
        let output = ibid(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    }
    assert_eq!(text(&ibid(&["run", "--pegged"]).stdout), expected);
    assert_eq!(fs::read_dir(&temporary).expect("the folder").count(), 0, "a run left something");
    let said = ["Read-only file system", "hint: images that are there can be run"];
    let name = project.name();
    for args in
        [&["load", "-i", "other.tar"][..], &["tag", &name, "x"], &["rmi", &name], &["build", "--no-cache"]]
    {
        refused(&ibid(args), &said);
    }
}

#[test]
fn images_of_an_additional_store_are_used_where_they_are() {
    let Some(mut project) = runnable() else { return };
    let shared = project.data.join("ibid");
    let before = fs::read_dir(shared.join("layers")).expect("layers").count();
    project.data = project.place.folder("own");
    let own_layers = || fs::read_dir(project.data.join("ibid/layers")).map_or(0, Iterator::count);
    let ibid = |args: &[&str]| {
        let output =
            project.command(args).env("IBID_ADDITIONAL_STORES", &shared).output().expect("ibid starts");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let name = project.name();
    let expected = format!("{}\n", project.place.path().display());
    assert!(ibid(&["images"]).contains(&name));
    assert_eq!(ibid(&["run", "--pegged"]), expected);
    ibid(&["save", &name, "debian:bookworm-slim", "-o", "b.tar"]);
    let path = project.path();
    assert!(fs::read(path.join("a.tar")).expect("saved") == fs::read(path.join("b.tar")).expect("saved"));
    ibid(&["load", "-i", "a.tar"]);
    assert_eq!(own_layers(), 0, "layers were copied");
    // What is built on it is here, and only that.
    project.file("Dockerfile", &format!("FROM {name}\nCOPY Dockerfile /new\n"));
    ibid(&["build", "--tag", "new"]);
    assert_eq!(own_layers(), 1);
    ibid(&["gc", "--keep", "0"]);
    assert_eq!(own_layers(), 1);
    assert_eq!(fs::read_dir(shared.join("layers")).expect("layers").count(), before);
    // A name of our own goes before; what is theirs stays.
    ibid(&["tag", "new", &name]);
    assert_eq!(ibid(&["rmi", &name]), format!("{name}:latest\n"));
    let output = project
        .command(&["rmi", &name])
        .env("IBID_ADDITIONAL_STORES", &shared)
        .output()
        .expect("ibid starts");
    refused(&output, &["is a name in an additional store"]);

    // The same by a file; and what is wrong in it.
    let config = |content: &str| project.place.file("home/.config/ibid/config.toml", content);
    config(&format!("additional_stores = [\"{}\"]\n", shared.display()));
    assert_eq!(project.check(&["run", "--pegged"], 0), expected);
    config("additional_stores = [\"/nowhere\"]\n");
    refused(&project.ibid(&["images"]), &["the additional store `/nowhere` cannot be used", "No such file"]);
    config("additional_stores = [\"here\"]\n");
    refused(&project.ibid(&["images"]), &["config.toml: the additional store `here` is no absolute path"]);
    config("additional_store = []\n");
    refused(&project.ibid(&["images"]), &["unknown field `additional_store`", "config.toml:1"]);
}

#[test]
fn a_file_system_without_overlays_is_said() {
    if !need(&[Need::Root]) {
        return;
    }
    let Some(mut project) = runnable() else { return };
    let part = |name: &str| project.place.folder(name).display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={}", part("lower"), part("upper"), part("work"));
    let over = Mounted::new(&["-t", "overlay", "-o", &options, "none"], project.place.path().join("over"));
    project.data = over.0.clone();
    // What needs no container works.
    project.check(&["load", "-i", "a.tar"], 0);
    project.check(&["store", "verify"], 0);
    let said = [
        "cannot mount the layers of the root file system",
        "hint: the store must be on a file system that overlays can be made of",
    ];
    refused(&project.ibid(&["run", "--pegged"]), &said);
    refused(&project.ibid(&["build", "--no-cache"]), &said);
}
