use std::collections::BTreeMap;

use ibid_core::digest::Digest;

use super::*;
use crate::host::host;
use crate::record::{Code, CodeMode, Image, SCHEMA, Status};

fn record() -> Record {
    Record {
        schema: SCHEMA,
        ibid: "0".to_owned(),
        id: RunId::random().expect("random numbers"),
        status: Status::Running,
        started: crate::log::now(),
        ended: None,
        seconds: None,
        exit_code: None,
        signal: None,
        failure: None,
        command: Vec::new(),
        arguments: Vec::new(),
        parameters: BTreeMap::new(),
        image: Image {
            digest: Digest::of(b""),
            tags: Vec::new(),
            pushed: Vec::new(),
            bases: BTreeMap::new(),
            lock: None,
            layers: Vec::new(),
        },
        code: Code {
            mode: CodeMode::Mounted,
            folder: None,
            snapshot: None,
            commit: None,
            branch: None,
            remote: None,
            difference: None,
            differing: Vec::new(),
            equals_working_tree: None,
            changed_during_run: Vec::new(),
            left_out: Vec::new(),
        },
        env: BTreeMap::new(),
        mounts: Vec::new(),
        data: Vec::new(),
        options: BTreeMap::new(),
        host: host("ann".to_owned(), 1000, "native"),
        usage: None,
        outputs: Vec::new(),
        output_folder: None,
        metrics: BTreeMap::new(),
        replay_of: None,
        warnings: Vec::new(),
    }
}

fn start(ledger: &Ledger, record: &Record) -> Result<Recording, Error> {
    Prepared::new(ledger, record.id)?.start(record, std::iter::empty())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn what_is_on_the_disk_says_at_every_moment_what_is_known() {
    let project = tempfile::tempdir().expect("a temporary folder");
    let ledger = Ledger::of(project.path());
    let mut record = record();
    let status = || ledger.read(record.id).map(|record| (record.status, record.warnings.len()));
    assert!(status().is_err());
    let recording = start(&ledger, &record).expect("it starts");
    assert_eq!(status().expect("it runs"), (Status::Running, 0));
    drop(recording);
    assert_eq!(status().expect("it is lost"), (Status::Lost, 0));

    record.id = RunId::random().expect("random numbers");
    let recording = start(&ledger, &record).expect("it starts");
    recording.written(Stream::Stdout, b"hello\n");
    record.status = Status::Ok;
    recording.ended(&record).expect("its end is written");
    assert_eq!(ledger.read(record.id).expect("it ended").status, Status::Ok);
    let folder = recording.folder().to_owned();
    drop(recording);
    let cut_short = ledger.read(record.id).expect("it is known");
    assert_eq!((cut_short.status, cut_short.warnings.len()), (Status::Ok, 1));
    assert_eq!(names(&folder), ["alive", "log"]);

    record.id = RunId::random().expect("random numbers");
    let recording = start(&ledger, &record).expect("it starts");
    let folder = recording.folder().to_owned();
    assert_eq!(names(&folder), ["alive"]);
    recording.started(&record).expect("more is known");
    assert_eq!(names(&folder), ["alive", "start.json"]);
    recording.ended(&record).expect("its end is written");
    recording.finish(&record).expect("it is recorded");
    recording.close();
    assert_eq!(ledger.read(record.id).expect("it is known"), record);
    assert_eq!(names(&folder), ["record.json"]);
    assert_eq!(names(&project.path().join(".ibid/runs")).len(), 3);
}

#[test]
fn root_follows_no_links_of_others() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().expect("a temporary folder");
    let (project, elsewhere) = (place.path().join("project"), place.path().join("elsewhere"));
    for folder in [&project, &elsewhere] {
        fs::create_dir(folder).expect("ours");
    }
    let ledger = Ledger::of(&project);
    std::os::unix::fs::symlink(&elsewhere, ledger.folder()).expect("ours");
    // One's own link to a larger disk is followed.
    ledger.prepare().expect("root's own");
    std::os::unix::fs::chown(&project, Some(1234), Some(1234)).expect("root may");
    let error = start(&ledger, &record()).expect_err("a link of another");
    assert!(matches!(error, Error::Io { action: "write to", .. }), "{error}");
    fs::remove_file(ledger.folder()).expect("ours");
    fs::create_dir(ledger.folder()).expect("ours");
    std::os::unix::fs::symlink(&elsewhere, ledger.folder().join("runs")).expect("ours");
    start(&ledger, &record()).expect_err("a link of another");
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_other_run_left_alone() {
    let project = tempfile::tempdir().expect("a temporary folder");
    let ledger = Ledger::of(project.path());
    let record = record();
    let _first = start(&ledger, &record).expect("it starts");
    assert!(start(&ledger, &record).is_err());
    assert_eq!(ledger.read(record.id).expect("it runs").status, Status::Running);
    assert_eq!(names(&project.path().join(".ibid/runs")), [record.id.to_string()]);
}
