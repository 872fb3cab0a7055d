use std::io::Write as _;
use std::process::{Command, Stdio};

use super::Decision::{Ignored, Kept};
use super::*;

#[test]
fn the_last_rule_that_matches_decides() {
    let check = |text: &str, path: &str, expected: Option<Decision>| {
        let is_folder = path.ends_with('/');
        let path = path.trim_end_matches('/');
        let decision = GitIgnore::parse(text.as_bytes()).decide(path.as_bytes(), is_folder);
        assert_eq!(decision, expected, "{text:?} {path}");
    };
    check("", "a", None);
    check("a", "a", Some(Ignored));
    check("a", "b/a", Some(Ignored));
    check("/a", "b/a", None);
    check("b/a", "b/a", Some(Ignored));
    check("b/a", "c/b/a", None);
    check("a/", "a", None);
    check("a/", "a/", Some(Ignored));
    check("*.o\n!keep.o", "keep.o", Some(Kept));
    check("!keep.o\n*.o", "keep.o", Some(Ignored));
    check("# a\n\\#a\n\\!b", "#a", Some(Ignored));
    check("# a\n\\#a\n\\!b", "!b", Some(Ignored));
    check("a  \r\nb\\ ", "a", Some(Ignored));
    check("a  \r\nb\\ ", "b ", Some(Ignored));
    check("*.py[cod]", "x/y.pyc", Some(Ignored));
    check("*.py[cod]", "x/y.py", None);
    check("**/logs", "a/b/logs", Some(Ignored));
    check("**/logs", "logs", Some(Ignored));
    check("a/**/b", "a/b", Some(Ignored));
    check("a/**/b", "a/x/y/b", Some(Ignored));
    check("a/**/b", "a/xb", None);
    check("a/**", "a/x/y", Some(Ignored));
    check("a/**", "a/", None);
    check("a*", "b/ac", Some(Ignored));
    check("/a*", "a/c", None);
    check("[[:digit:]]x", "3x", Some(Ignored));
    check("[!a]", "b", Some(Ignored));
    check("[a", "[a", None);
    check("\u{feff}a", "a", Some(Ignored));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Many patterns and paths to one `git`: starting it is what costs.
    #[test]
    fn patterns_match_as_in_git(
        patterns in proptest::collection::vec("[ab*?/!\\[\\]\\\\^ -]{1,7}", 1..6),
        paths in proptest::collection::btree_set("[ab!]{1,2}(/[ab \\-^]{1,2}){0,3}", 1..40),
    ) {
        let text = patterns.join("\n");
        let rules = GitIgnore::parse(text.as_bytes());
        for (path, expected) in paths.iter().zip(git_ignores(&text, &paths)) {
            // `git check-ignore` asks about a path that is not there as about a file, and about the folders above it.
            let ends = path.match_indices('/').map(|(at, _)| (at, true)).chain([(path.len(), false)]);
            let mut ignored = false;
            for (end, is_folder) in ends {
                ignored |= rules.decide(&path.as_bytes()[..end], is_folder) == Some(Ignored);
            }
            proptest::prop_assert_eq!(ignored, expected, "{:?} {:?}", text, path);
        }
    }
}

/// What `git check-ignore` says of each path.
fn git_ignores(text: &str, paths: &std::collections::BTreeSet<String>) -> Vec<bool> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let git = || {
        let mut git = Command::new("git");
        git.current_dir(folder.path()).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git
    };
    assert!(git().args(["init", "-q"]).status().expect("git is needed by this test").success());
    std::fs::write(folder.path().join(".gitignore"), text).expect("write");
    let mut check = git()
        .args(["check-ignore", "--no-index", "--verbose", "--non-matching", "-z", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git is needed by this test");
    let input: Vec<u8> = paths.iter().flat_map(|path| [path.as_bytes(), b"\0"].concat()).collect();
    check.stdin.take().expect("a pipe").write_all(&input).expect("write");
    let output = check.wait_with_output().expect("git answers").stdout;
    // Source, line, pattern, path.
    let fields: Vec<&[u8]> = output.split(|byte| *byte == 0).collect();
    fields.chunks_exact(4).map(|answer| !answer[2].is_empty() && !answer[2].starts_with(b"!")).collect()
}
