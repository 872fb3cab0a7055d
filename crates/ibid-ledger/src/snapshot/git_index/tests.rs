use std::fs;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn git(folder: &std::path::Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    assert!(git.output().expect("git is needed by this test").status.success(), "{arguments:?}");
}

#[test]
fn indexes_of_all_versions_are_read() {
    let check = |init: &[&str], settings: &[&[&str]], expected: bool| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        git(folder.path(), &[&["init", "-q"], init].concat());
        for name in ["a", "a-b", "a.d/c", "b/with space", "b/é", "b/x/y/z", "c"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("make the folder");
            fs::write(path, name).expect("write");
        }
        git(folder.path(), &["add", "-A"]);
        for setting in settings {
            git(folder.path(), setting);
        }
        let bytes = fs::read(folder.path().join(".git/index")).expect("the index");
        let Some(tracked) = Tracked::of_index(&bytes) else {
            assert!(!expected, "{init:?} {settings:?}");
            return;
        };
        assert!(expected, "{init:?} {settings:?}");
        assert_eq!(tracked.ends.len(), 7);
        for name in ["a", "a-b", "b/with space", "b/é", "b/x/y/z", "c"] {
            assert!(tracked.has(name.as_bytes()), "{name} {init:?} {settings:?}");
        }
        for name in ["", "b", "b/x", "d", "a."] {
            assert!(!tracked.has(name.as_bytes()), "{name}");
        }
        for (folder, expected) in
            [("b", true), ("b/x/y", true), ("a.d", true), ("a", false), ("c", false), ("b/", false)]
        {
            assert_eq!(tracked.has_below(folder.as_bytes()), expected, "{folder}");
        }
    };
    check(&[], &[], true);
    check(&[], &[&["update-index", "--index-version", "4"]], true);
    check(&[], &[&["update-index", "--skip-worktree", "a"]], true);
    check(&["--object-format=sha256"], &[], true);
    check(&["--object-format=sha256"], &[&["update-index", "--index-version", "4"]], true);
    check(&[], &[&["update-index", "--untracked-cache"]], true);
    check(&[], &[&["update-index", "--split-index"]], false);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        version in 1u32..6,
        count in 0u32..4,
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [b"DIRC", &version.to_be_bytes()[..], &count.to_be_bytes(), &body].concat();
        let _ = Tracked::of_index(&bytes);
    }
}
