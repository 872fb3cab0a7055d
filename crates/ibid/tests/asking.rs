//! What is asked about runs: lists, single runs, differences, drawings, and what people do to runs.

mod support;

use std::fs;
use std::path::Path;

use ibid_testing::{Need, need};
use serde_json::{Value, json};
use support::{Project, can_copy, text};

/// A project whose runs were written by hand.
fn recorded() -> Project {
    let project = Project::new("FROM scratch\n");
    write(
        &project,
        "3eda7e8f3827",
        &json!({"started": "2026-03-01T10:00:00.000Z", "parameters": {"lr": "0.1", "seed": "1"}}),
    );
    write(
        &project,
        "3eda00000000",
        &json!({
            "started": "2026-03-02T10:00:00.000Z", "parameters": {"lr": "0.2", "seed": "1", "text": "a,\"b\"\nc"},
            "status": "failed", "exit_code": 3,
            "metrics": {"accuracy": {"last": 0.75, "min": 0.1, "max": 0.8, "count": 3, "source": "stdout"}},
        }),
    );
    write(
        &project,
        "ff0000000000",
        &json!({
            "started": "2026-03-03T10:00:00.000Z", "parameters": {"lr": "0.03", "seed": "1"},
            "metrics": {"accuracy": {"last": 0.9, "min": 0.1, "max": 0.9, "count": 3, "source": "stdout"}},
            "env": {"API_TOKEN": {"secret_hash": "5ec4e7"}, "MODE": "fast"},
        }),
    );
    project
}

fn write(project: &Project, id: &str, more: &Value) {
    let digest = format!("sha256:{}", "a".repeat(64));
    let mut record = json!({
        "schema": 1, "ibid": "0.1.0", "id": id, "status": "ok", "started": "", "seconds": 61.5, "exit_code": 0,
        "command": ["python3", "train.py", "it's"], "arguments": [], "parameters": {},
        "image": {"digest": digest, "tags": ["mnist:latest"], "layers": []},
        "code": {"mode": "mounted", "differing": []}, "env": {}, "mounts": [], "data": [],
        "host": {"name": "lab", "user": "ann", "uid": 1000, "architecture": "x86_64", "kernel": "6.1", "cpu": "a cpu",
                 "cpus": 2, "memory": 64_000_000_000_u64, "engine": "native"},
        "outputs": [], "metrics": {},
    });
    for (key, value) in more.as_object().expect("an object") {
        record[key] = value.clone();
    }
    project.file(&format!(".ibid/runs/{id}/record.json"), &record.to_string());
}

fn columns(output: &str) -> Vec<Vec<&str>> {
    output.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn runs_are_listed_newest_first_with_what_tells_them_apart_first() {
    let project = recorded();
    let output = project.check(&["runs", "--limit", "1"], 0);
    assert_eq!(
        columns(&output),
        [
            vec!["ID", "WHEN", "STATUS", "CODE", "accuracy", "lr", "seed"],
            vec!["ff0000000000", "2026-03-03T10:00:00.000Z", "ok", "0", "0.9", "0.03", "1"],
        ]
    );
    let output = project.check(&["runs", "--filter", "status==ok"], 0);
    assert_eq!(
        columns(&output),
        [
            vec!["ID", "WHEN", "STATUS", "CODE", "lr", "accuracy", "seed"],
            vec!["ff0000000000", "2026-03-03T10:00:00.000Z", "ok", "0", "0.03", "0.9", "1"],
            vec!["3eda7e8f3827", "2026-03-01T10:00:00.000Z", "ok", "0", "0.1", "-", "1"],
        ]
    );
    // As numbers, not as text, and those without a value last either way.
    let ids = |args: &[&str]| project.check(&[&["runs", "--columns", "id"], args].concat(), 0);
    assert_eq!(ids(&["--sort", "lr"]), "ID\nff0000000000\n3eda7e8f3827\n3eda00000000\n");
    assert_eq!(ids(&["--sort", "-accuracy"]), "ID\nff0000000000\n3eda00000000\n3eda7e8f3827\n");
    assert_eq!(ids(&["--sort", "accuracy"]), "ID\n3eda00000000\nff0000000000\n3eda7e8f3827\n");
    assert_eq!(ids(&["--filter", "lr>=.1 and not code==3"]), "ID\n3eda7e8f3827\n");
    assert_eq!(ids(&["--filter", "seconds>1 and image~mnist and started<2026-03-02"]), "ID\n3eda7e8f3827\n");
}

#[test]
fn lists_are_given_to_programs_whole() {
    let project = recorded();
    assert_eq!(
        project.check(&["runs", "--csv"], 0),
        "id,started,status,code,seconds,tag,lr,seed,text,accuracy\n\
         ff0000000000,2026-03-03T10:00:00.000Z,ok,0,61.5,,0.03,1,,0.9\n\
         3eda00000000,2026-03-02T10:00:00.000Z,failed,3,61.5,,0.2,1,\"a,\"\"b\"\"\nc\",0.75\n\
         3eda7e8f3827,2026-03-01T10:00:00.000Z,ok,0,61.5,,0.1,1,,\n"
    );
    let document: Value = serde_json::from_str(&project.check(&["runs", "--json"], 0)).expect("JSON");
    assert_eq!(document["schema"], 1);
    let runs = document["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 3);
    assert_eq!(runs[1]["id"], "3eda00000000");
    assert_eq!(runs[1]["parameters"]["lr"], "0.2");
    assert_eq!(runs[1]["metrics"]["accuracy"], json!({"last": 0.75, "min": 0.1, "max": 0.8}));
}

#[test]
fn mistakes_in_questions_are_pointed_at() {
    let project = recorded();
    #[track_caller]
    fn check(project: &Project, args: &[&str], expected: &[&str]) {
        let output = project.ibid(&[&["runs"], args].concat());
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        let said = text(&output.stderr);
        expected.iter().for_each(|part| assert!(said.contains(part), "{part}\n{said}"));
    }
    let filter = |condition: &str, expected: &[&str]| check(&project, &["--filter", condition], expected);
    filter("code==0 and acuracy>1", &["no run has `acuracy`", "--filter:1:13", "did you mean `accuracy`?"]);
    filter("(code==0", &["this `(` is never closed", "--filter:1:1"]);
    filter("code==", &["expected a value to compare with", "--filter:1:7"]);
    check(&project, &["--sort", "x"], &["--sort: no run has `x`"]);
    check(&project, &["--columns", "id,zzz"], &["--columns: no run has `zzz`", "there are id, status"]);
    // Before the first run, no name is wrong.
    let empty = Project::new("FROM scratch\n");
    assert_eq!(empty.check(&["runs", "--filter", "acuracy>1", "--sort", "x"], 0), "");
    assert_eq!(empty.check(&["runs", "--json"], 0), "{\n  \"schema\": 1,\n  \"runs\": []\n}\n");
}

#[test]
fn a_run_is_shown_whole_and_its_secrets_are_not() {
    let project = recorded();
    let output = project.check(&["show", "ff"], 0);
    for part in [
        "run          ff0000000000\n",
        "status       ok, exit code 0\n",
        "command      python3 train.py 'it'\\''s'\n",
        "metrics      accuracy = 0.9  from 0.1 to 0.9, 3 values in stdout\n",
        "env          API_TOKEN  a secret, not recorded\n             MODE=fast\n",
        "cpu          2 × a cpu, 64.0 GB of memory\n",
    ] {
        assert!(output.contains(part), "{part}\n{output}");
    }
    assert!(!output.contains("5ec4e7"));
    assert_eq!(project.check(&["show"], 0), output, "it is the last");
    project.check(&["note", "last", "first", "words"], 0);
    let document: Value = serde_json::from_str(&project.check(&["show", "ff", "--json"], 0)).expect("JSON");
    assert_eq!(document["run"]["env"]["MODE"], "fast");
    assert_eq!(document["run"]["notes"][0]["text"], "first words");
    let output = project.ibid(&["show", "3eda"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("several runs start with `3eda`: "), "{}", text(&output.stderr));
}

#[test]
fn a_damaged_record_is_named_and_hides_no_other() {
    let project = recorded();
    project.file(".ibid/runs/ff0000000000/record.json", "{\"schema\": 1, \"ib");
    let output = project.ibid(&["runs", "--columns", "id,status"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stdout),
        "ID            STATUS\n3eda00000000  failed\n3eda7e8f3827  ok\nff0000000000  damaged\n"
    );
    assert!(text(&output.stderr).contains("the record of ff0000000000 cannot be read: EOF while parsing"));
    let output = project.ibid(&["show", "ff"]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("ff0000000000/record.json is damaged: EOF"), "{said}");
    assert!(said.contains("hint: `ibid runs` lists the others"), "{said}");
    project.check(&["rm", "ff"], 0);
    assert!(!project.check(&["runs"], 0).contains("ff0000000000"));
}

#[test]
fn runs_get_tags_go_away_and_come_back() {
    let project = recorded();
    project.check(&["tag-run", "last", "best"], 0);
    project.check(&["tag-run", "best", "paper/table-2"], 0);
    assert_eq!(
        project.check(&["runs", "--filter", "tag==best", "--columns", "id,tag"], 0),
        "ID            TAG\nff0000000000  best, paper/table-2\n"
    );
    project.check(&["tag-run", "best", "cafe"], 125);
    project.check(&["tag-run", "best", "other", "--remove"], 125);
    project.check(&["tag-run", "best", "paper/table-2", "--remove"], 0);
    // None goes when one of them cannot.
    project.check(&["rm", "best", "nosuch"], 125);
    project.check(&["rm", "best", "3eda7e8f3827"], 0);
    assert_eq!(project.check(&["runs", "--columns", "id"], 0), "ID\n3eda00000000\n");
    assert_eq!(
        project.check(&["runs", "--removed", "--columns", "id,tag"], 0).lines().nth(1),
        Some("ff0000000000  best")
    );
    project.check(&["restore", "nosuch"], 125);
    project.check(&["restore", "best", "3e"], 0);
    assert_eq!(project.check(&["runs", "--csv"], 0).lines().count(), 5);
    assert_eq!(project.check(&["runs", "--removed", "--csv", "--columns", "id"], 0), "id\n");
}

#[test]
fn what_differs_between_runs_is_listed_and_told_by_the_exit_code() {
    if !need(&[Need::Userns]) {
        return;
    }
    let project = recorded();
    let output = project.check(&["diff", "3eda0", "ff"], 1);
    for part in [
        "result\n~ exit code: 3, then 0\n",
        "parameters\n~ lr: 0.2, then 0.03\n- text: a,\"b\"\nc\n",
        "environment\n+ API_TOKEN: a secret\n+ MODE: fast\n",
        "metrics\n~ accuracy: 0.75, then 0.9  (+0.15, +20.00 %)\n~ accuracy.max: 0.8, then 0.9  (+0.1, +12.50 %)\n",
    ] {
        assert!(output.contains(part), "{part}\n{output}");
    }
    assert!(
        !output.contains("5ec4e7") && !output.contains("hardware") && !output.contains("image"),
        "{output}"
    );
    let document: Value =
        serde_json::from_str(&project.check(&["diff", "3eda0", "ff", "--json"], 1)).expect("JSON");
    assert_eq!(document["diff"]["result"], json!([{"name": "exit code", "first": "3", "second": "0"}]));
    assert_eq!(project.check(&["diff", "ff", "last"], 0), "");
    let output = project.ibid(&["diff", "ff", "nosuch"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("`nosuch` is no run of this project and no image"));
}

#[test]
fn metrics_are_drawn_and_written_as_pictures() {
    let project = recorded();
    let curve = |factor: f64| -> String {
        let line = |step: u32| {
            format!("{}\n", json!({"name": "accuracy", "step": step, "value": factor * f64::from(step)}))
        };
        (0..20).map(line).collect()
    };
    project.file(".ibid/runs/ff0000000000/metrics.jsonl", &curve(0.05));
    project.file(".ibid/runs/3eda00000000/metrics.jsonl", &curve(0.02));
    let output = project.check(&["plot", "ff", "3eda0", "accuracy"], 0);
    assert!(output.starts_with("accuracy\n"), "{output}");
    assert!(output.contains('•') && output.contains('×'), "{output}");
    assert!(output.contains("  • ff0000000000  lr=0.03  0.95\n"), "{output}");
    assert!(output.lines().all(|line| line.chars().count() <= 80), "{output}");
    assert!(project.check(&["plot"], 0).contains('⣀'), "the last, all metrics, one run: dots");
    project.check(&["plot", "ff", "3eda0", "--svg", "a.svg", "--html", "a.html"], 0);
    let read = |name: &str| fs::read_to_string(project.path().join(name)).expect("a picture");
    assert_eq!(read("a.svg").matches("<polyline").count(), 2);
    let page = read("a.html");
    assert!(page.contains("<svg ") && page.contains("<td>3eda00000000</td>"), "{page}");
    assert!(!page.contains("src=") && !page.contains("href="), "it needs nothing else");
    let document: Value = serde_json::from_str(&project.check(&["plot", "--json"], 0)).expect("JSON");
    assert_eq!(
        document["curves"][0]["metrics"]["accuracy"][19],
        json!({"step": 19, "value": 0.95, "time": null})
    );
    let output = project.ibid(&["plot", "ff", "loss"]);
    assert!(
        text(&output.stderr).contains("`loss` is no run and no metric of these runs"),
        "{}",
        text(&output.stderr)
    );
    project.check(&["plot", "3eda7"], 125);
}

#[test]
fn an_index_that_cannot_be_is_done_without() {
    let project = recorded();
    let expected = project.check(&["runs"], 0);
    for cache in ["/proc", "/dev/null/folder"] {
        let output = project.command(&["runs"]).env("XDG_CACHE_HOME", cache).output().expect("ibid starts");
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), expected.clone()), "{cache}");
    }
    assert_eq!(project.check(&["runs"], 0), expected);
}

/// A project in which a shell script is run.
fn runnable() -> Option<Project> {
    if !can_copy(&[]) {
        return None;
    }
    let Some(busybox) =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists())
    else {
        assert!(std::env::var("IBID_TEST_REQUIRE").as_deref() != Ok("all"), "needs busybox-static");
        eprintln!("skipped: needs busybox: install the package busybox-static");
        return None;
    };
    let project = Project::new(
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY version /usr/lib/python3/dist-packages/tool-1.0.dist-info/METADATA\n\
         WORKDIR /code\nENV PLACE=@UNIQUE@\nENTRYPOINT [\"/bin/sh\", \"/code/train.sh\"]\n",
    );
    fs::copy(busybox, project.path().join("busybox")).expect("busybox");
    project.file("version", "1.0");
    project.file(".dockerignore", "output\n");
    project.file("train.sh", "echo \"loss: 0.$1\"\necho \"$1\" > output/result\n");
    project.file("ibid.toml", &format!("name = \"{}\"\n[run]\noutputs = [\"output\"]\n", project.name()));
    fs::create_dir(project.path().join("output")).expect("a folder");
    Some(project)
}

#[test]
fn real_runs_are_compared_checked_out_and_kept_by_gc() {
    let Some(project) = runnable() else { return };
    project.check(&["run", "5"], 0);
    project.check(&["tag-run", "last", "first"], 0);
    project.file("train.sh", "echo \"loss: 0.$1\"\necho \"result $1\" > output/result\n");
    project.file("new.py", "print(1)\n");
    project.file(
        "Dockerfile",
        &fs::read_to_string(project.path().join("Dockerfile"))
            .expect("a Dockerfile")
            .replace("tool-1.0", "tool-1.1"),
    );
    project.check(&["run", "7"], 0);
    let output = project.check(&["diff", "first", "last"], 1);
    for part in [
        "--- a/train.sh\n+++ b/train.sh\n@@ -1,2 +1,2 @@\n echo \"loss: 0.$1\"\n-echo \"$1\" > output/result\n+echo \"result $1\" > output/result\n",
        "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+print(1)\n",
        "packages\n~ tool (python): 1.0, then 1.1\n",
        "+ /usr/lib/python3/dist-packages/tool-1.1.dist-info/METADATA",
        "~ output/result: 2 bytes, sha256:",
        "metrics\n~ loss: 0.5, then 0.7  (+0.2, +40.00 %)\n",
    ] {
        assert!(output.contains(part), "{part}\n{output}");
    }

    project.check(&["checkout", "first", "old"], 0);
    let script = fs::read_to_string(project.path().join("old/train.sh")).expect("the script");
    assert_eq!(script, "echo \"loss: 0.$1\"\necho \"$1\" > output/result\n");
    assert!(!project.path().join("old/new.py").exists());
    let output = project.ibid(&["checkout", "first", "old"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("old is not empty"), "{}", text(&output.stderr));

    // Mixed up with images.
    let output = project.ibid(&["diff", "last", &project.name()]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("is a run and"), "{}", text(&output.stderr));
    assert_eq!(project.check(&["diff", &project.name(), &project.name()], 0), "");
}

#[test]
fn gc_removes_no_image_that_a_run_needs() {
    let Some(mut project) = runnable() else { return };
    // A store of its own, which nobody else fills.
    project.data = project.place.folder("data");
    project.check(&["run", "5"], 0);
    let document: Value = serde_json::from_str(&project.check(&["show", "--json"], 0)).expect("JSON");
    let image = document["run"]["image"]["digest"].as_str().expect("a digest").to_owned();
    for tag in document["run"]["image"]["tags"].as_array().expect("tags") {
        project.check(&["rmi", tag.as_str().expect("a tag")], 0);
    }
    let is_there = || project.ibid(&["inspect", &image]).status.success();
    assert!(is_there());
    project.check(&["gc", "--keep", "0"], 0);
    assert!(is_there(), "a record needs it");
    project.check(&["rm", "last"], 0);
    project.check(&["gc", "--keep", "0"], 0);
    assert!(is_there(), "the run can be restored");
    // A ledger that is not there keeps its images, too: its disk may come back.
    let (ledger, away) = (project.path().join(".ibid"), project.path().join("away"));
    fs::rename(&ledger, &away).expect("moved");
    project.check(&["gc", "--keep", "0"], 0);
    assert!(is_there());
    fs::rename(&away, &ledger).expect("moved back");
    let id = document["run"]["id"].as_str().expect("an id");
    let removed = fs::File::open(ledger.join("removed").join(id)).expect("a folder");
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 86_400);
    removed.set_modified(then).expect("a time");
    let output = project.check(&["gc", "--keep", "0"], 0);
    assert!(output.contains("1 run that `ibid rm` took away"), "{output}");
    assert!(!is_there(), "nothing needs it");
    project.check(&["restore", id], 125);
}
