use std::fs;
use std::io::Write;
use std::path::Path;

use ibid_core::digest::Digest;
use ibid_store::{ArchiveFormat, NamedImage, PlainArchive, PlainArchiveWriter, PlainEntry, PlainKind, Store};
use tempfile::TempDir;

use super::*;
use crate::data;
use crate::ledger::{self, Ledger};
use crate::output_content;
use crate::record::tests::record;
use crate::record::{Output, Record};
use crate::snapshot::{self, Exclusions};

/// A project with a run in its ledger, and a store with the run's image, which has no layers.
struct Place {
    folder: TempDir,
    store: Store,
    record: Record,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let project = folder.path().join("project");
        for (name, content) in
            [("train.py", "print(1)"), ("lib/a.py", ""), ("output/loss.json", "[1]"), ("data/x/y", "12345")]
        {
            let path = project.join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, content).expect("a file");
        }
        std::os::unix::fs::symlink("train.py", project.join("link")).expect("a link");
        std::os::unix::fs::symlink("x/y", project.join("data/z")).expect("a link");
        fs::create_dir(project.join("empty")).expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        let image = store.put_blob(IMAGE_CONFIG.as_bytes()).expect("a blob");
        let ledger = Ledger::of(&project);
        let exclusions =
            Exclusions { outputs_and_data: vec!["output".into(), "data".into()], ..Exclusions::default() };
        let taken = snapshot::take(&ledger, &project, &exclusions).expect("a snapshot");
        let mut record = record();
        record.code.snapshot = Some(taken.digest);
        record.image.digest = image;
        record.outputs =
            vec![Output { path: "output/loss.json".to_owned(), bytes: 3, digest: Digest::of(b"[1]") }];
        record.data.extend(data::identify(&ledger, &project, "data", false).expect("readable"));
        let run = ledger.run_folder(record.id);
        fs::create_dir_all(&run).expect("a folder");
        ledger::write_json(&run.join("record.json"), &record).expect("written");
        fs::write(run.join("log"), "a line").expect("written");
        fs::write(run.join("marks.json"), "{}").expect("written");
        Self { folder, store, record }
    }

    fn write(&self, choice: Choice) -> (Vec<u8>, Vec<String>) {
        let project = self.folder.path().join("project");
        let images = [NamedImage { image: self.record.image.digest, names: Vec::new() }];
        let image = |out: &mut dyn Write| self.store.save_archive(&images, ArchiveFormat::Oci, None, out);
        let mut archive = Vec::new();
        let left_out = write(&Ledger::of(&project), &project, &self.record, choice, &image, &mut archive)
            .expect("written");
        (archive, left_out)
    }
}

const IMAGE_CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;

/// Only root may make a store outside of a user namespace.
fn may_make_stores() -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        println!("skipped: needs root because a store has files of several owners");
    }
    may
}

/// Another machine: an empty store, an empty ledger.
fn elsewhere(archive: &[u8]) -> (TempDir, Result<Received, Error>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    fs::create_dir(folder.path().join("imported")).expect("a folder");
    let ledger = Ledger::of(&folder.path().join("imported"));
    let received = receive(archive, &ledger, &store, &folder.path().join("into"));
    (folder, received)
}

type Entries = Vec<(PlainEntry, Vec<u8>)>;

/// The entries of an archive, with their contents.
fn entries(archive: &[u8]) -> Entries {
    let mut archive = PlainArchive::new(archive).expect("an archive");
    let mut entries = Vec::new();
    while let Some(entry) = archive.next().expect("sound") {
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut archive, &mut content).expect("sound");
        entries.push((entry, content));
    }
    entries
}

fn archive_of(entries: &[(PlainEntry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = PlainArchiveWriter::new(Vec::new());
    for (entry, content) in entries {
        let mut entry = entry.clone();
        if let PlainKind::File { bytes, .. } = &mut entry.kind {
            *bytes = content.len() as u64;
        }
        writer.append(&entry, &mut content.as_slice()).expect("memory");
    }
    writer.finish().expect("memory")
}

#[test]
fn a_run_arrives_as_it_was() {
    if !may_make_stores() {
        return;
    }
    let place = Place::new();
    let (archive, left_out) = place.write(Choice { outputs: true, data: true });
    assert!(left_out.is_empty());
    let names: Vec<String> = entries(&archive)
        .iter()
        .map(|(entry, _)| String::from_utf8_lossy(&entry.path).into_owned())
        .collect();
    assert_eq!(
        names,
        [
            "ibid-run.json",
            "record.json",
            "ro-crate-metadata.json",
            "run.intoto.json",
            "log",
            "code/empty",
            "code/lib",
            "code/lib/a.py",
            "code/link",
            "code/train.py",
            "data/data/z",
            "data/data/x/y",
            "outputs/output/loss.json",
            "image.tar",
        ]
    );
    let (folder, received) = elsewhere(&zstd::encode_all(archive.as_slice(), 1).expect("memory"));
    let received = received.expect("a sound archive");
    assert_eq!(received.record, place.record);
    assert_eq!(received.outputs.into_iter().collect::<Vec<_>>(), ["output/loss.json"]);
    assert!(received.has_data);
    let ledger = Ledger::of(&folder.path().join("imported"));
    assert_eq!(ledger.read(place.record.id).expect("in the ledger"), place.record);
    assert_eq!(fs::read(ledger.run_folder(place.record.id).join("log")).expect("the log"), b"a line");
    let code = folder.path().join("code");
    snapshot::checkout(&ledger, place.record.code.snapshot.expect("given"), &code)
        .expect("the code is there");
    assert_eq!(fs::read(code.join("link")).expect("a link"), b"print(1)");
    assert!(code.join("empty").is_dir());
    assert_eq!(fs::read(folder.path().join("into/data/data/z")).expect("a link"), b"12345");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    store.image(&place.record.image.digest).expect("the image is there");
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    if !may_make_stores() {
        return;
    }
    let place = Place::new();
    for choice in [Choice::default(), Choice { outputs: true, data: true }] {
        let first = place.write(choice).0;
        let marks =
            Ledger::of(&place.folder.path().join("project")).run_folder(place.record.id).join("marks.json");
        fs::write(marks, r#"{"tags": ["best"]}"#).expect("written");
        assert_eq!(first, place.write(choice).0);
    }
    // What was not asked for is not in it.
    let names = entries(&place.write(Choice::default()).0);
    assert!(
        !names.iter().any(|(entry, _)| entry.path.starts_with(b"data") || entry.path.starts_with(b"outputs"))
    );
}

#[test]
fn data_that_is_another_now_is_not_given_out_as_what_the_run_read() {
    if !may_make_stores() {
        return;
    }
    let place = Place::new();
    let project = place.folder.path().join("project");
    fs::write(project.join("data/x/y"), "123456").expect("written");
    let choice = Choice { outputs: false, data: true };
    let written = write(&Ledger::of(&project), &project, &place.record, choice, &|_| Ok(()), std::io::sink());
    assert!(matches!(written, Err(Error::OtherData { path }) if path == "data"));
}

#[test]
fn outputs_that_are_others_now_are_left_out() {
    if !may_make_stores() {
        return;
    }
    let place = Place::new();
    let project = place.folder.path().join("project");
    let ledger = Ledger::of(&project);
    let run = ledger.run_folder(place.record.id);
    output_content::keep(&ledger, &run, &project, &place.record.outputs[0]).expect("kept");
    fs::write(project.join("output/loss.json"), "[2]").expect("written");
    // Unless they were kept.
    assert!(place.write(Choice { outputs: true, data: false }).1.is_empty());
    fs::remove_dir_all(run.join("outputs")).expect("removed");
    let (archive, left_out) = place.write(Choice { outputs: true, data: false });
    assert_eq!(left_out, ["output/loss.json"]);
    assert!(elsewhere(&archive).1.expect("a sound archive").outputs.is_empty());
}

#[test]
fn what_is_not_what_it_claims_is_refused() {
    if !may_make_stores() {
        return;
    }
    let place = Place::new();
    let sound = entries(&place.write(Choice { outputs: true, data: true }).0);
    let position = |name: &str| {
        sound.iter().position(|(entry, _)| entry.path == name.as_bytes()).unwrap_or_else(|| panic!("{name}"))
    };
    let file = |path: &str, content: &str| {
        let kind = PlainKind::File { bytes: 0, executable: false };
        (PlainEntry { path: path.as_bytes().to_vec(), kind }, content.as_bytes().to_vec())
    };
    let check = |change: &dyn Fn(&mut Entries), expected: &str| {
        let mut entries = sound.clone();
        change(&mut entries);
        let (folder, received) = elsewhere(&archive_of(&entries));
        let error = received.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}\nwhere this was expected: {expected}");
        // Nothing of it is a run now.
        let ledger = Ledger::of(&folder.path().join("imported"));
        assert!(ledger.ids().expect("readable").is_empty(), "{expected}");
    };
    let with_content = |name: &'static str, content: &'static str| {
        move |entries: &mut Entries| entries[position(name)].1 = content.into()
    };
    check(
        &with_content("code/train.py", "print(2)"),
        "code is not what the archive says: it is the snapshot sha256:",
    );
    check(&|entries| drop(entries.remove(position("code/lib/a.py"))), "it is the snapshot");
    check(&|entries| entries.insert(position("image.tar"), file("code/new", "")), "it is the snapshot");
    check(&|entries| entries.insert(position("image.tar"), file("code/train.py", "")), "it comes twice");
    check(
        &|entries| entries.insert(position("image.tar"), file("code/link/x", "")),
        "it is in what is no folder",
    );
    check(&with_content("record.json", "{}"), "record.json is not what the archive says: 2 bytes");
    check(&with_content("log", "another"), "log is not what the archive says");
    check(&with_content("outputs/output/loss.json", "[3]"), "outputs/output/loss.json is not what");
    check(&with_content("data/data/x/y", "54321"), "data/data/x/y is not what");
    check(
        &|entries| drop(entries.remove(position("log"))),
        "log is not what the archive says: it is missing",
    );
    check(
        &|entries| drop(entries.remove(position("image.tar"))),
        "image.tar is not what the archive says: it is missing",
    );
    check(&|entries| entries.push(file("marks.json", "{}")), "it is not listed, or comes twice");
    check(&|entries| entries.push(file("log/x", "")), "it has no place in an archive of a run");
    check(&|entries| drop(entries.remove(0)), "its first entry is not ibid-run.json");
    check(&|entries| drop(entries.remove(1)), "its second entry is not record.json");
    check(&with_content("ibid-run.json", "nonsense"), "it is no archive of a run");
    check(&with_content("ibid-run.json", r#"{"schema": 2}"#), "it is of version 2");
    check(
        &|entries| {
            let other = Place::new();
            let config = IMAGE_CONFIG.replace("\"history\":[]", "\"history\":[], \"author\":\"mallory\"");
            let image = other.store.put_blob(config.as_bytes()).expect("a blob");
            let images = [NamedImage { image, names: Vec::new() }];
            let mut archive = Vec::new();
            other.store.save_archive(&images, ArchiveFormat::Oci, None, &mut archive).expect("memory");
            entries[position("image.tar")].1 = archive;
        },
        "image.tar is not what the archive says: it is the image sha256:",
    );
}

/// An archive whose record is `record`, and whose list agrees with it.
fn archive_with_record(record: &serde_json::Value, sound: &[(PlainEntry, Vec<u8>)]) -> Vec<u8> {
    let mut entries = sound.to_vec();
    entries[1].1 = serde_json::to_vec(record).expect("plain data");
    let mut manifest: serde_json::Value = serde_json::from_slice(&entries[0].1).expect("sound");
    manifest["files"]["record.json"] =
        serde_json::json!({"bytes": entries[1].1.len(), "digest": Digest::of(&entries[1].1)});
    entries[0].1 = serde_json::to_vec(&manifest).expect("plain data");
    archive_of(&entries)
}

#[test]
fn hostile_records_are_refused() {
    if !may_make_stores() {
        return;
    }
    let place = Place::new();
    let sound = entries(&place.write(Choice { outputs: true, data: true }).0);
    let check = |pointer: &str, value: serde_json::Value, expected: &str| {
        let mut record = serde_json::to_value(&place.record).expect("plain data");
        *record.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        let error = elsewhere(&archive_with_record(&record, &sound)).1.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}\nwhere this was expected: {expected}");
    };
    check("/data/0/path", "../../etc".into(), "the path `../../etc` in it leads out of the project");
    check("/data/0/path", "/etc".into(), "the path `/etc` in it leads out of the project");
    check("/data/0/path", "".into(), "the path `` in it leads out of the project");
    check("/outputs/0/path", "a/../../b".into(), "the path `a/../../b` in it leads out of the project");
    check("/code/folder", "code".into(), "the folder of the code, `code`, is no absolute path");
    check("/schema", 2.into(), "record.json is of version 2, and this ibid knows up to 1");
    check("/started", 2.into(), "record.json is damaged: invalid type");
    check("/id", "000000000000".into(), "it is of the run 000000000000, and the list is of 3eda7e8f3827");
}

#[test]
fn links_lead_nothing_out_of_the_folder() {
    if !may_make_stores() {
        return;
    }
    let place = Place::new();
    let outside = tempfile::tempdir().expect("a folder");
    let link = |path: &str, target: &Path| {
        let target = target.as_os_str().as_encoded_bytes().to_vec();
        (PlainEntry { path: path.as_bytes().to_vec(), kind: PlainKind::Link { target } }, Vec::new())
    };
    let sound = entries(&place.write(Choice { outputs: false, data: true }).0);
    for links in [
        vec![link("data/data/x", outside.path())],
        vec![link("data/out", outside.path()), link("data/out/evil", Path::new("target"))],
        vec![link("data/out/evil", Path::new("target")), link("data/out", outside.path())],
    ] {
        let mut entries = sound.clone();
        // Before the files, of which one is data/data/x/y.
        let at = entries.iter().position(|(entry, _)| entry.path.starts_with(b"data/")).expect("data");
        entries.splice(at..at, links);
        let error = elsewhere(&archive_of(&entries)).1.expect_err("a link in the way").to_string();
        assert!(error.starts_with("cannot make the link"), "{error}");
        assert_eq!(
            fs::read_dir(outside.path()).expect("readable").count(),
            0,
            "something was written outside"
        );
    }
}

#[test]
fn an_archive_that_is_cut_off_is_refused() {
    if !may_make_stores() {
        return;
    }
    let archive = Place::new().write(Choice { outputs: true, data: true }).0;
    for end in (0..archive.len()).step_by(3000) {
        let (folder, received) = elsewhere(&archive[..end]);
        // The two empty blocks at the end may be missing.
        if archive.len() - end > 1024 {
            assert!(received.is_err(), "cut at {end}");
            let ledger = Ledger::of(&folder.path().join("imported"));
            assert!(ledger.ids().expect("readable").is_empty(), "cut at {end}");
        }
    }
}
