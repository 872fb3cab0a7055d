//! What a recorded run lacks: a sound record, its code, its secrets, a result.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{World, text};

#[test]
fn code_that_changed_during_the_run_is_told() {
    let Some(world) = World::new() else { return };
    world.project.file("model.txt", "first");
    let pipe = world.project.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o666.into(), 0).expect("a pipe");
    fs::set_permissions(&pipe, PermissionsExt::from_mode(0o666)).expect("our own");
    let mut run = world.project.command(&["run", "slow"]);
    let mut child = run.stdout(std::process::Stdio::piped()).spawn().expect("ibid starts");
    let mut said = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while line.trim() != "started" {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut said, &mut line).expect("readable"), 0, "it ended early");
    }
    world.project.file("model.txt", "edited");
    // It waits for somebody to open the other end.
    drop(fs::File::options().write(true).open(&pipe).expect("the pipe"));
    assert!(child.wait().expect("it ends").success());
    let id = world.last();
    fs::remove_file(&pipe).expect("removed");
    // Its copy has no pipe: it ends otherwise.
    let replay = world.replay(&[&id], 0);
    let note = replay["notes"][0].as_str().expect("a note");
    assert!(note.contains("model.txt changed while it was going"), "{note}");
}

#[test]
fn secrets_come_from_the_present_environment() {
    let Some(world) = World::new() else { return };
    let with = |args: &[&str], token: Option<&str>| {
        let mut command = world.project.command(args);
        if let Some(token) = token {
            command.env("TOKEN", token);
        }
        command.output().expect("ibid starts")
    };
    with(&["run", "-e", "SEED=1", "-e", "TOKEN", "env"], Some("abc"));
    let id = world.last();
    let same = with(&["replay", &id], Some("abc"));
    assert_eq!(same.status.code(), Some(0), "{}{}", text(&same.stdout), text(&same.stderr));
    let other = with(&["replay", &id], Some("abd"));
    assert_eq!(other.status.code(), Some(1));
    assert!(
        text(&other.stderr).contains("TOKEN is a secret, and has another value"),
        "{}",
        text(&other.stderr)
    );
    let said = text(&other.stdout);
    assert!(
        said.contains("likely cause: the environment: TOKEN has another value, which is a secret"),
        "{said}"
    );
    let none = with(&["replay", &id], None);
    assert_eq!(none.status.code(), Some(125));
    let said = text(&none.stderr);
    assert!(said.contains("TOKEN was a secret of the recorded run, and is not set"), "{said}");
    assert!(said.contains(&format!("`TOKEN=… ibid replay {id}`")), "{said}");
}

#[test]
fn broken_records_and_lost_code_are_told() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["plain"]);
    let record = world.record(&id);
    let sound = fs::read_to_string(&record).expect("a record");
    fs::write(&record, &sound[..sound.len() / 2]).expect("written");
    let said = world.failure(&["replay", &id]);
    assert!(said.contains(&format!("{id}/record.json is damaged: EOF while parsing")), "{said}");
    fs::write(&record, sound.replacen("\"schema\": 1", "\"schema\": 2", 1)).expect("written");
    let said = world.failure(&["replay", &id]);
    assert!(said.contains("is of version 2, and this ibid knows up to 1"), "{said}");
    assert!(said.contains("hint: a newer ibid reads it"), "{said}");
    fs::write(&record, &sound).expect("written");
    assert!(world.failure(&["replay", "ffffffffffff"]).contains("ffffffffffff"));
    let objects = world.project.path().join(".ibid/objects");
    fs::rename(&objects, world.project.path().join("elsewhere")).expect("moved");
    let said = world.failure(&["replay", &id]);
    assert!(said.contains("the code of the run cannot be checked out"), "{said}");
    assert!(said.contains("is missing from"), "{said}");
    fs::rename(world.project.path().join("elsewhere"), &objects).expect("moved");
    world.replay(&[&id], 0);
}

#[test]
fn runs_without_a_result_are_refused() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["plain"]);
    let record = world.record(&id);
    let sound = fs::read_to_string(&record).expect("a record");
    for (status, expected) in [("lost", "nobody saw its end"), ("not_started", "its program never started")] {
        fs::write(&record, sound.replace("\"status\": \"ok\"", &format!("\"status\": \"{status}\"")))
            .expect("written");
        let said = world.failure(&["replay", &id]);
        assert!(said.contains(expected), "{said}");
    }
}
