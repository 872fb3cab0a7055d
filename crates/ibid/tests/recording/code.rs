//! The code that a run is recorded with.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use ibid_ledger::snapshot::{self, Kind};
use ibid_testing::{Need, need};

use crate::site::{Site, text};

fn git(site: &Site, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "safe.directory=*"]);
    git.args(arguments).current_dir(site.path(""));
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = git.output().expect("git starts");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
}

#[test]
fn the_code_that_ran_can_be_had_again() {
    if !need(&[Need::Git]) {
        return;
    }
    for site in Site::each() {
        site.file(".gitignore", "/bin\n*.so\n/venv\n");
        site.file("removed.py", "old\n");
        git(&site, &["init", "-q", "-b", "trunk"]);
        git(&site, &["remote", "add", "origin", "https://me:hunter2@example.org/site.git"]);
        git(&site, &["add", "-A"]);
        git(&site, &["commit", "-q", "-m", "state"]);
        site.file("model.txt", "another model\n");
        site.file("untracked.py", "new\n");
        site.file("fast.so", "compiled");
        site.file("venv/pyvenv.cfg", "");
        site.file("output/old", "of another run");
        fs::remove_file(site.path("removed.py")).expect("a file");
        site.give();
        let (output, record) = site.run(&["say", "hello"], 0);
        let code = record.code;
        assert_eq!(code.branch.as_deref(), Some("trunk"), "{}", text(&output.stderr));
        assert_eq!(code.remote.as_deref(), Some("https://example.org/site.git"));
        assert_eq!(code.differing, ["model.txt", "removed.py", "untracked.py"]);
        assert_eq!(code.left_out, ["fast.so", "venv/"]);
        let difference = snapshot::content(&site.ledger(), code.difference.expect("a difference"));
        let difference = text(&difference.expect("it is kept"));
        assert!(difference.contains("\n-model\n+another model\n"), "{difference}");

        let taken = code.snapshot.expect("a snapshot");
        let entries = snapshot::entries(&site.ledger(), taken).expect("the entries");
        let files: Vec<_> = entries
            .iter()
            .filter(|entry| entry.kind != Kind::Folder)
            .map(|entry| entry.path.to_str().expect("UTF-8"))
            .collect();
        assert_eq!(files, [".gitignore", "Dockerfile", "ibid.toml", "model.txt", "run.sh", "untracked.py"]);
        let copy = site.place.path().join("copy");
        snapshot::checkout(&site.ledger(), taken, &copy).expect("a checkout");
        assert_eq!(fs::read_to_string(copy.join("model.txt")).expect("text"), "another model\n");

        // The same code has the same snapshot, which costs nothing.
        let before = objects(&site);
        let (_, again) = site.run(&["say", "hello"], 0);
        assert_eq!(again.code.snapshot, Some(taken));
        assert_eq!(objects(&site), before);
    }
}

fn objects(site: &Site) -> Vec<std::path::PathBuf> {
    let objects = site.path(".ibid/objects");
    site.ledger_files().into_iter().filter(|path| path.starts_with(&objects)).collect()
}

#[test]
fn gc_removes_the_code_that_no_run_needs() {
    for site in Site::each() {
        site.run(&["say", "1"], 0);
        site.file("model.txt", "another model\n");
        site.give();
        let (_, kept) = site.run(&["say", "2"], 0);
        let before = objects(&site);
        let gone = site.ids().into_iter().find(|id| *id != kept.id).expect("the first run");
        let removed = |args: &[&str]| {
            let output = site.ibid(&[&["gc", "--json"], args].concat());
            assert!(output.status.success(), "{}", text(&output.stderr));
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            report["snapshots"]["contents"].as_u64().expect("a number")
        };
        fs::remove_dir_all(site.ledger().run_folder(gone)).expect("its folder");
        assert_eq!(removed(&[]), 0, "it is too new");
        let long_ago = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
        for path in &before {
            let file = fs::File::open(path).expect("a content");
            file.set_modified(long_ago).expect("its time is set");
        }
        // The file and the folder that it was in.
        assert_eq!(removed(&["--dry-run"]), 2);
        assert_eq!(removed(&[]), 2);
        assert_eq!(objects(&site).len(), before.len() - 2);
        let taken = kept.code.snapshot.expect("a snapshot");
        let copy = site.place.path().join("copy");
        snapshot::checkout(&site.ledger(), taken, &copy).expect("it is needed");
        assert_eq!(fs::read_to_string(copy.join("model.txt")).expect("text"), "another model\n");

        let record = site.ledger().run_folder(kept.id).join("record.json");
        fs::write(&record, "{").expect("ours");
        let output = site.ibid(&["gc"]);
        let said = text(&output.stderr);
        assert!(output.status.success() && said.contains("the code of runs is all kept: "), "{said}");
        assert!(said.contains("record.json is damaged"), "{said}");
    }
}
