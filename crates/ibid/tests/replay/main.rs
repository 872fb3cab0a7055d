//! Recorded runs are executed again: what is the same, what is not, and why; and runs that travel in a file.

#[path = "../support/mod.rs"]
mod support;

mod archives;
mod images;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use ibid_testing::{Need, busybox};
use serde_json::Value;
use support::{Project, can_copy, text};

/// A program that does what its first argument says, over an image of busybox alone.
const PROGRAM: &str = r#"
mkdir -p output
echo '{"loss": 0.25, "n": [1, 2]}' > output/result.json
echo "loss: 0.5"
case $1 in
random) head -c 16 /dev/urandom > output/random.bin ;;
random-loss) echo "loss: 0.$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')" ;;
data) cat data/in.txt > output/copy.txt ;;
env) echo "$SEED $TOKEN" > output/env.txt ;;
jitter) echo "[1.000$(od -An -N1 -tu1 /dev/urandom | tr -d ' ')]" > output/jitter.json ;;
log) date > output/log.txt; od -An -N8 -tx8 /dev/urandom >> output/log.txt ;;
new) [ -e ../first ] && touch output/never; echo "$HOSTNAME" > "output/$HOSTNAME.txt" ;;
network) if ip addr show dev eth-none 2> /dev/null || [ "$(ls /sys/class/net | wc -l)" -gt 1 ]; then echo up; else echo down; fi > output/net.txt ;;
slow) echo started; cat < pipe > /dev/null || true ;;
fail) exit 3 ;;
esac
"#;

struct World {
    project: Project,
}

impl World {
    /// None where the machine cannot run it.
    fn new() -> Option<Self> {
        if !can_copy(&[Need::Busybox]) {
            return None;
        }
        let mut project = Project::new(
            "FROM scratch\nCOPY busybox /bin/\nCOPY bin /bin\nLABEL test=@UNIQUE@\nENV PATH=/bin\nWORKDIR /code\nCOPY . .\n\
             ENTRYPOINT [\"sh\", \"run.sh\"]\n",
        );
        // A store of its own: images are taken away from it.
        project.data = project.place.folder("share");
        let program = busybox().expect("it is needed");
        let copy = project.path().join("busybox");
        fs::copy(program, &copy).expect("a copy");
        fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("our own");
        fs::create_dir(project.path().join("bin")).expect("a folder");
        for name in ["sh", "cat", "date", "head", "ip", "ls", "mkdir", "od", "touch", "tr", "wc"] {
            std::os::unix::fs::symlink("busybox", project.path().join("bin").join(name)).expect("a link");
        }
        project.file("run.sh", PROGRAM);
        project.file("data/in.txt", "12345\n");
        project.file(
            "ibid.toml",
            &format!(
                "name = \"{}\"\n[run]\noutputs = [\"output\"]\ndata = [\"data\"]\n\
                 [replay]\nfiles = {{ \"output/jitter.json\" = \"±0.01\", \"output/*.txt\" = \"±0\", \"output/log.txt\" = \"ignore\" }}\n",
                project.name()
            ),
        );
        Some(Self { project })
    }

    /// Runs it with these arguments, and gives the run's name.
    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        self.project.ibid(&[&["run"], args].concat());
        self.last()
    }

    /// The name of the newest run.
    #[track_caller]
    fn last(&self) -> String {
        let runs = self.project.check(&["runs", "--json"], 0);
        let runs: Value = serde_json::from_str(&runs).expect("JSON");
        runs["runs"][0]["id"].as_str().expect("a run").to_owned()
    }

    /// Replays, and gives what it says of that in JSON.
    #[track_caller]
    fn replay(&self, args: &[&str], code: i32) -> Value {
        let said = self.project.check(&[&["replay", "--json"], args].concat(), code);
        serde_json::from_str::<Value>(&said).expect("JSON")["replay"].take()
    }

    /// Runs ibid, which fails, and gives what it says of that.
    #[track_caller]
    fn failure(&self, args: &[&str]) -> String {
        let output = self.project.ibid(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{args:?}\n{said}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
        said
    }

    fn record(&self, id: &str) -> std::path::PathBuf {
        self.project.path().join(".ibid/runs").join(id).join("record.json")
    }

    #[track_caller]
    fn git(&self, args: &[&str]) {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.org"]).args(args);
        let output = command.current_dir(self.project.path()).output().expect("git starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

/// The verdict on one file or metric, in one word.
#[track_caller]
fn verdict_on<'a>(replay: &'a Value, name: &str) -> &'a str {
    let list = |key: &str| replay[key].as_array().expect("a list").iter();
    let found = list("files").chain(list("metrics")).find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {replay:#}"))["verdict"].as_str().expect("a verdict")
}

fn causes(replay: &Value) -> Vec<&str> {
    let causes = replay["causes"].as_array().expect("a list").iter();
    causes.map(|cause| cause["kind"].as_str().expect("a kind")).collect()
}

#[test]
fn a_run_gives_the_same_again_and_is_recorded() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["data"]);
    // What is there now is neither needed nor touched: not the code, not the outputs.
    world.project.file("run.sh", "exit 9\n");
    world.project.file("output/result.json", "mine");
    let replay = world.replay(&[&id], 0);
    assert_eq!(replay["outcome"], "identical", "{replay:#}");
    assert_eq!(replay["image"]["origin"], "store");
    for name in ["output/result.json", "output/copy.txt", "loss"] {
        assert_eq!(verdict_on(&replay, name), "identical");
    }
    let mine = fs::read_to_string(world.project.path().join("output/result.json")).expect("there");
    assert_eq!(mine, "mine");
    let replays = world.project.path().join(".ibid/replays");
    assert_eq!(fs::read_dir(replays).expect("a folder").count(), 0, "throw-away folders are thrown away");
    let record: Value = serde_json::from_slice(
        &fs::read(world.record(replay["run"].as_str().expect("a run"))).expect("a record"),
    )
    .expect("JSON");
    assert_eq!(record["replay_of"], id.as_str());
    assert_eq!(record["arguments"], serde_json::json!(["data"]));

    // For people: the table and the verdict on standard output, the program's words elsewhere.
    let output = world.project.ibid(&["replay", &id]);
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    assert!(table.contains("output/result.json  identical\n"), "{table}");
    assert!(table.contains("loss                identical\n"), "{table}");
    assert!(table.contains(&format!("run {id} replayed as ")), "{table}");
    assert!(table.ends_with(": identical\n") && !table.contains("loss: 0.5"), "{table}");
    assert!(text(&output.stderr).contains("loss: 0.5"), "{}", text(&output.stderr));
}

#[test]
fn the_sample_gives_the_same_again() {
    if !support::can_build() {
        return;
    }
    let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mnist");
    let project = Project::new("FROM scratch\n");
    for name in ["Dockerfile", "ibid.toml", "mnist.py"] {
        fs::copy(sample.join(name), project.path().join(name)).expect("a copy");
    }
    project.check(&["run", "--n-epochs", "1"], 0);
    let replay: Value = serde_json::from_str(&project.check(&["replay", "--json", "last"], 0)).expect("JSON");
    let replay = &replay["replay"];
    assert_eq!(replay["outcome"], "identical", "{replay:#}");
    for name in ["output/metrics.jsonl", "output/model.npz", "accuracy", "loss", "test_loss"] {
        assert_eq!(verdict_on(replay, name), "identical");
    }
}

#[test]
fn a_failure_that_repeats_is_the_same() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["fail"]);
    let replay = world.replay(&[&id], 0);
    assert_eq!(replay["end"]["verdict"], "identical");
}

#[test]
fn randomness_without_a_seed_is_found() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["random"]);
    let replay = world.replay(&[&id], 1);
    assert_eq!(verdict_on(&replay, "output/random.bin"), "different");
    assert_eq!(verdict_on(&replay, "output/result.json"), "identical");
    assert_eq!(causes(&replay), ["unseeded"], "{replay:#}");
    assert_eq!(replay["runs"].as_array().expect("a list").len(), 2);
    let once = world.replay(&["--once", &id], 1);
    assert_eq!(causes(&once), [""; 0]);
    let table = world.project.check(&["replay", &id], 1);
    assert!(
        table.contains("likely cause: time, or randomness without a seed: tried once more, it differs from itself in output/random.bin"),
        "{table}"
    );
    // A metric of it is as good.
    let id = world.run(&["random-loss"]);
    let replay = world.replay(&[&id], 1);
    assert_eq!(verdict_on(&replay, "loss"), "different");
}

#[test]
fn rules_of_the_project_allow_differences() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["jitter"]);
    // The first content is kept, whatever other runs write.
    fs::remove_dir_all(world.project.path().join("output")).expect("removed");
    let replay = loop {
        let replay = world.replay(&[&id], 0);
        // One of 256 times it draws the same.
        if verdict_on(&replay, "output/jitter.json") != "identical" {
            break replay;
        }
    };
    assert_eq!(replay["outcome"], "within_tolerance");
    assert_eq!(verdict_on(&replay, "output/jitter.json"), "within_tolerance");
    let id = world.run(&["log"]);
    assert_eq!(verdict_on(&world.replay(&[&id], 0), "output/log.txt"), "ignored");
    // The present rules count: without them it differs.
    let rules = fs::read_to_string(world.project.path().join("ibid.toml")).expect("there");
    world.project.file("ibid.toml", &rules.replace("\"ignore\"", "\"±0\""));
    let replay = world.replay(&[&id], 1);
    assert_eq!(verdict_on(&replay, "output/log.txt"), "different");
}

#[test]
fn files_that_are_missing_or_new_are_named() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["new"]);
    let replay = world.replay(&[&id], 1);
    assert_eq!(verdict_on(&replay, &format!("output/{id}.txt")), "missing");
    let second = replay["run"].as_str().expect("a run").to_owned();
    assert_eq!(verdict_on(&replay, &format!("output/{second}.txt")), "extra");
}

#[test]
fn options_of_the_run_are_those_of_the_replay() {
    let Some(world) = World::new() else { return };
    let place = world.project.place.folder("volume");
    fs::write(place.join("in.txt"), "of the volume\n").expect("written");
    let volume = format!("{}:/code/data:ro", place.display());
    let id = world.run(&["--hostname", "fixed", "--network", "none", "--volume", &volume, "new"]);
    // The host name is no longer the run's, so the file is the same.
    let replay = world.replay(&[&id], 0);
    assert_eq!(verdict_on(&replay, "output/fixed.txt"), "identical");
    let record = fs::read_to_string(world.record(replay["run"].as_str().expect("a run"))).expect("a record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["options"]["hostname"], "fixed");
    assert_eq!(record["options"]["network"], "none");
    // Elsewhere it gets nothing of the machine.
    world.project.check(&["export", &id, "-o", "run.tar", "--data"], 0);
    let said = world.failure(&["replay", "./run.tar"]);
    assert!(said.contains("was given `--volume`, which one from elsewhere does not get here"), "{said}");
    fs::remove_dir_all(&place).expect("removed");
    assert!(world.failure(&["replay", &id]).contains("volume"));
}

#[test]
fn changed_data_is_the_cause_and_lost_data_an_error() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["data"]);
    world.project.file("data/in.txt", "54321 and more\n");
    let replay = world.replay(&[&id], 1);
    assert_eq!(verdict_on(&replay, "output/copy.txt"), "different");
    assert_eq!(causes(&replay)[0], "data", "{replay:#}");
    // Touched only: the result is the same, and it is said.
    world.project.file("data/in.txt", "12345\n");
    let replay = world.replay(&[&id], 0);
    let note = replay["notes"][0].as_str().expect("a note");
    assert!(note.contains("files in data were touched"), "{note}");
    fs::remove_dir_all(world.project.path().join("data")).expect("removed");
    let said = world.failure(&["replay", &id]);
    assert!(said.contains(&format!("the run {id} read data, which cannot be mounted from")), "{said}");
}

#[test]
fn the_network_is_found_as_a_cause() {
    let Some(world) = World::new() else { return };
    let interfaces = fs::read_dir("/sys/class/net").expect("there").count();
    if interfaces < 2 {
        eprintln!("skipped: this machine has no network but its own loopback");
        return;
    }
    let id = world.run(&["network"]);
    let record = world.record(&id);
    let text = fs::read_to_string(&record).expect("a record");
    let recorded: Value = serde_json::from_str(&text).expect("JSON");
    let output = recorded["outputs"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|output| output["path"] == "output/net.txt");
    let digest = output.expect("an output")["digest"].as_str().expect("a digest").to_owned();
    // As if another answer had come the first time.
    fs::write(&record, text.replace(&digest, &format!("sha256:{}", "0".repeat(64)))).expect("written");
    let replay = world.replay(&[&id], 1);
    assert_eq!(causes(&replay), ["network"], "{replay:#}");
    assert_eq!(replay["runs"].as_array().expect("a list").len(), 3);
}

#[test]
fn another_machine_is_a_cause_only_when_it_repeats_itself() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["plain"]);
    let record = world.record(&id);
    let text = fs::read_to_string(&record).expect("a record");
    let mut recorded: Value = serde_json::from_str(&text).expect("JSON");
    recorded["host"]["cpu"] = "Another Processor".into();
    recorded["outputs"][0]["digest"] = format!("sha256:{}", "0".repeat(64)).into();
    fs::write(&record, recorded.to_string()).expect("written");
    let replay = world.replay(&[&id], 1);
    assert_eq!(causes(&replay), ["cpu"], "{replay:#}");
}

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
fn other_code_or_another_image_show_their_effect() {
    let Some(world) = World::new() else { return };
    if !ibid_testing::need(&[Need::Git]) {
        return;
    }
    world.git(&["init", "--quiet"]);
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "--message", "first"]);
    world.project.file("run.sh", &PROGRAM.replace("0.25", "0.75"));
    let id = world.run(&["plain"]);
    let same = world.replay(&[&id], 0);
    assert_eq!(same["outcome"], "identical");
    let head = world.replay(&[&id, "--code", "HEAD"], 1);
    assert_eq!(head["change"], "code HEAD");
    assert_eq!(verdict_on(&head, "output/result.json"), "different");
    assert_eq!(causes(&head), [""; 0], "what was changed on purpose is no cause");
    assert_eq!(world.replay(&[&id, "--code", "worktree"], 0)["outcome"], "identical");
    let said = world.failure(&["replay", &id, "--code", "nonsense"]);
    assert!(said.contains("`--code nonsense`: git knows no such commit in this project"), "{said}");
    assert!(world.failure(&["replay", &id, "--code=--output=x"]).contains("it is no commit"));

    // The image of the recorded run prints nothing of ENV SEED; another does.
    let dockerfile = fs::read_to_string(world.project.path().join("Dockerfile")).expect("there");
    let id = world.run(&["env"]);
    world.project.file("Dockerfile", &format!("{dockerfile}ENV SEED=7\n"));
    let image = world.project.check(&["build", "--tag", "other"], 0);
    let other = world.replay(&[&id, "--image", "other"], 1);
    assert_eq!(verdict_on(&other, "output/env.txt"), "different");
    assert_eq!(other["image"]["digest"], image.trim());
    assert_eq!(other["image"]["origin"], "asked");
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

#[test]
fn the_folder_of_a_replay_can_be_kept() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["data"]);
    let kept = world.project.path().join("kept");
    world.project.check(&["replay", &id, "--keep", "kept"], 0);
    assert_eq!(fs::read_to_string(kept.join("output/copy.txt")).expect("kept"), "12345\n");
    assert_eq!(fs::read_to_string(kept.join("run.sh")).expect("kept"), PROGRAM);
}

#[test]
fn runs_on_the_images_own_code_are_repeated_on_it() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["--pegged", "data"]);
    let replay = world.replay(&[&id], 0);
    assert_eq!(replay["outcome"], "identical", "{replay:#}");
    assert_eq!(verdict_on(&replay, "output/copy.txt"), "identical");
    let said = world.failure(&["replay", &id, "--code", "worktree"]);
    assert!(said.contains("was on the image's own code"), "{said}");
}

#[test]
fn runs_with_folders_of_their_own_are_compared_by_what_is_in_them() {
    let Some(world) = World::new() else { return };
    let program = PROGRAM.replace("output/", "$IBID_OUTPUT_DIR/");
    world.project.file("run.sh", &program);
    let id = world.run(&["--isolate", "data"]);
    let replay = world.replay(&[&id], 0);
    assert_eq!(verdict_on(&replay, "output/copy.txt"), "identical", "{replay:#}");
}
