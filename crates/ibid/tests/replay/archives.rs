//! Runs that travel in a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ibid_testing::{Need, need, rocrate_python};
use serde_json::Value;

use super::{World, text, verdict_on};

impl World {
    #[track_caller]
    fn export(&self, id: &str, name: &str, more: &[&str]) -> PathBuf {
        self.project.check(&[&["export", id, "-o", name], more].concat(), 0);
        self.project.path().join(name)
    }

    /// Another person's machine: no project, an empty store, no key of secrets.
    fn elsewhere(&self, args: &[&str]) -> Output {
        let place = self.project.place.folder("elsewhere");
        let mut command = self.project.command(args);
        command.current_dir(&place).env("HOME", &place).env("XDG_DATA_HOME", place.join("share"));
        command.env("XDG_CONFIG_HOME", place.join("config")).output().expect("ibid starts")
    }
}

fn unpacked(archive: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    tar::Archive::new(fs::File::open(archive).expect("there"))
        .unpack(folder.path())
        .expect("a sound archive");
    folder
}

#[test]
fn a_run_is_repeated_elsewhere_from_one_file() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["data"]);
    for (name, more) in [("run.tar", &["--data", "--outputs"][..]), ("run.tar.zst", &["--data"])] {
        let file = world.export(&id, name, more);
        let first = fs::read(&file).expect("written");
        let again = fs::read(world.export(&id, &format!("again.{name}"), more)).expect("written");
        assert!(first == again, "the same run gives other bytes");
        let output = world.elsewhere(&["replay", "--json", &file.display().to_string()]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let replay: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(replay["replay"]["of"], id.as_str());
        assert_eq!(replay["replay"]["outcome"], "identical");
        assert_eq!(replay["replay"]["notes"], serde_json::json!([]), "{replay:#}");
        assert_eq!(verdict_on(&replay["replay"], "output/copy.txt"), "identical");
    }
    // The second time, all of it is known there.
    let output = world.elsewhere(&["replay", "../project/run.tar"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn data_that_is_not_in_the_file_is_asked_for() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["data"]);
    let file = world.export(&id, "run.tar", &[]).display().to_string();
    let output = world.elsewhere(&["replay", &file]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("`ibid export {id} --data` puts it into the file")), "{said}");
    let project = world.project.path().display().to_string();
    let output = world.elsewhere(&["-C", &project, "replay", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // What is another by now is not given out as what the run read.
    world.project.file("data/in.txt", "another\n");
    let said = world.failure(&["export", &id, "-o", "x.tar", "--data"]);
    assert!(said.contains("data is not what the run read"), "{said}");
    assert!(!world.project.path().join("x.tar").exists());
}

#[test]
fn tolerances_hold_elsewhere_when_the_outputs_come_along() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["jitter"]);
    let with = world.export(&id, "with.tar", &["--outputs", "--data"]).display().to_string();
    let without = world.export(&id, "without.tar", &["--data"]).display().to_string();
    let replay = |file: &str| loop {
        let output = world.elsewhere(&["replay", "--once", "--json", file]);
        let replay: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        if verdict_on(&replay["replay"], "output/jitter.json") != "identical" {
            break replay["replay"].clone();
        }
    };
    assert_eq!(verdict_on(&replay(&with), "output/jitter.json"), "within_tolerance");
    let replay = replay(&without);
    assert_eq!(verdict_on(&replay, "output/jitter.json"), "different");
    assert!(replay.to_string().contains("its first content is no longer there"), "{replay:#}");
}

const SECRET: &str = "correct horse battery staple";

#[test]
fn a_run_from_elsewhere_gets_no_secret_and_no_option() {
    let Some(world) = World::new() else { return };
    let output = world.project.command(&["run", "-e", "TOKEN", "env"]).env("TOKEN", SECRET).output();
    assert!(output.expect("ibid starts").status.success());
    let id = world.last();
    let file = world.export(&id, "run.tar", &["--data"]).display().to_string();
    let place = world.project.place.folder("elsewhere");
    let mut command = world.project.command(&["replay", &file]);
    command.env("HOME", &place).env("XDG_DATA_HOME", place.join("share")).env("TOKEN", "of the other person");
    let output = command.output().expect("ibid starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("TOKEN was a secret of the recorded run, and is not set here"), "{said}");
    let bytes = fs::read(&file).expect("written");
    assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "the secret is in the file");
}

#[test]
fn what_is_no_such_file_is_refused() {
    let Some(world) = World::new() else { return };
    world.project.file("nonsense.tar", "nonsense");
    let said = world.failure(&["replay", "nonsense.tar"]);
    assert!(said.contains("cannot replay nonsense.tar"), "{said}");
    assert!(said.contains("hint: it reads what `ibid export RUN -o FILE` writes"), "{said}");
    assert!(world.failure(&["replay", "./absent"]).contains("cannot open ./absent"));
    let id = world.run(&["plain"]);
    let file = world.export(&id, "run.tar", &["--data"]);
    let mut bytes = fs::read(&file).expect("written");
    let at = bytes.windows(8).position(|word| word == b"mkdir -p").expect("the code is in it");
    bytes[at] = b'M';
    fs::write(&file, bytes).expect("written");
    let output = world.elsewhere(&["replay", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("code is not what the archive says: it is the snapshot sha256:"), "{said}");
}

#[test]
fn a_public_validator_takes_the_crate() {
    let Some(world) = World::new() else { return };
    if !need(&[Need::RocrateValidator]) {
        return;
    }
    let python = rocrate_python().expect("it is needed");
    let validate = |crate_folder: &Path| {
        let mut command = Command::new(&python);
        command.arg("-c").arg(include_str!("validate_crate.py")).arg(crate_folder);
        command.env("HOME", world.project.place.folder("home")).output().expect("Python starts")
    };
    for (name, args, more) in [
        ("a.tar", "data", &["--data", "--outputs"][..]),
        ("b.tar", "plain", &[]),
        ("c.tar", "fail", &["--outputs"]),
    ] {
        let id = world.run(&[args, "--n-epochs", "5"]);
        let folder = unpacked(&world.export(&id, name, more));
        let output = validate(folder.path());
        let said = text(&output.stdout);
        assert!(output.status.success(), "{said}{}", text(&output.stderr));
        assert!(!said.contains("REQUIRED"), "{said}");
        // And would not take another.
        let description = folder.path().join("ro-crate-metadata.json");
        let sound = fs::read_to_string(&description).expect("there");
        fs::write(&description, sound.replace("\"instrument\"", "\"description\"")).expect("written");
        let output = validate(folder.path());
        assert!(!output.status.success(), "{}", text(&output.stdout));
        assert!(text(&output.stdout).contains("REQUIRED"), "{}", text(&output.stdout));
    }
}

#[test]
fn the_statement_is_of_the_files_in_the_archive() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["data"]);
    let folder = unpacked(&world.export(&id, "run.tar", &["--outputs"]));
    let statement: Value =
        serde_json::from_slice(&fs::read(folder.path().join("run.intoto.json")).expect("there"))
            .expect("JSON");
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    let mut names = Vec::new();
    for subject in statement["subject"].as_array().expect("a list") {
        let name = subject["name"].as_str().expect("a name");
        let place = if name == "record.json" { name.to_owned() } else { format!("outputs/{name}") };
        let digest = ibid_core::digest::Digest::of(&fs::read(folder.path().join(place)).expect("there"));
        assert_eq!(subject["digest"]["sha256"], digest.hex());
        names.push(name.to_owned());
    }
    assert_eq!(names, ["record.json", "output/copy.txt", "output/result.json"]);
}
