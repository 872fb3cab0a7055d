//! The code of two snapshots as a diff.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use ibid_core::digest::Digest;
use ibid_ledger::code_diff::{FileDiff, code_diff};
use ibid_ledger::ledger::{Error, Ledger};
use ibid_ledger::snapshot::{Exclusions, How, take};

fn snapshot(ledger: &Ledger, project: &Path) -> Digest {
    take(ledger, project, &Exclusions::default()).expect("a snapshot").digest
}

#[test]
fn every_kind_of_change_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = folder.path();
    let ledger = Ledger::of(project);
    let file = |name: &str, content: &[u8]| fs::write(project.join(name), content).expect("a file");
    file("same", b"same\n");
    file("gone", b"gone\n");
    file("text", b"one\ntwo\nthree\n");
    file("script", b"#!/bin/sh\n");
    file("picture", b"\x89PNG\0\x01");
    file("turned", b"a file\n");
    symlink("same", project.join("link")).expect("a link");
    let first = snapshot(&ledger, project);
    assert_eq!(code_diff(&ledger, first, first).expect("compared"), []);

    fs::remove_file(project.join("gone")).expect("removed");
    file("new", b"no line end");
    file("text", b"one\n2\nthree\n");
    fs::set_permissions(project.join("script"), fs::Permissions::from_mode(0o755)).expect("a mode");
    file("picture", b"\x89PNG\0\x02\x03");
    for (name, target) in [("turned", "same"), ("link", "text")] {
        fs::remove_file(project.join(name)).expect("removed");
        symlink(target, project.join(name)).expect("a link");
    }
    let second = snapshot(&ledger, project);
    let files = code_diff(&ledger, first, second).expect("compared");
    let shown: Vec<(&str, How, Option<&str>, Option<&str>)> = files
        .iter()
        .map(|FileDiff { path, how, unified, about }| {
            (path.to_str().expect("UTF-8"), *how, about.as_deref(), unified.as_deref())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("gone", How::Removed, None, Some("--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n")),
            ("link", How::Changed, Some("a link to same, then a link to text"), None),
            (
                "new",
                How::Added,
                None,
                Some("--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+no line end\n\\ No newline at end of file\n")
            ),
            ("picture", How::Changed, Some("binary, 6 bytes, then 7 bytes"), None),
            ("script", How::Changed, Some("a file, then an executable file"), None),
            (
                "text",
                How::Changed,
                None,
                Some("--- a/text\n+++ b/text\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n")
            ),
            ("turned", How::Changed, Some("a file, then a link to same"), None),
        ]
    );

    // What is no longer there is named.
    fs::remove_dir_all(ledger.folder().join("objects")).expect("removed");
    let error = code_diff(&ledger, first, second).expect_err("nothing to compare");
    assert!(matches!(error, Error::MissingObject { .. }), "{error}");
}
