use std::fs;

use super::*;

/// A repository in a temporary folder, and git commands in it that read no settings of this user.
struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        let repository = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        repository.git("", &["init", "-q", "-b", "trunk"]);
        repository
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn write(&self, relative: &str, content: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make the folder");
        fs::write(path, content).expect("write the file");
    }

    fn git(&self, folder: &str, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "protocol.file.allow=always"]).args(arguments).current_dir(self.path(folder));
        for (name, value) in [
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "A"),
            ("GIT_AUTHOR_EMAIL", "a@example.org"),
            ("GIT_COMMITTER_NAME", "A"),
            ("GIT_COMMITTER_EMAIL", "a@example.org"),
        ] {
            git.env(name, value);
        }
        let output = git.output().expect("git is needed by this test");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn commit(&self) -> String {
        self.git("", &["add", "-A"]);
        self.git("", &["commit", "-q", "-m", "state"]);
        self.git("", &["rev-parse", "HEAD"])
    }

    #[track_caller]
    fn check(&self, folder: &str, commit: Option<&str>, branch: Option<&str>, differing: &[&str]) {
        let identity = CodeIdentity::of(&self.path(folder), &[]);
        let expected = Checkout {
            commit: commit.map(|commit| Commit(commit.to_owned())),
            branch: branch.map(str::to_owned),
            remote: None,
            differing: differing.iter().map(PathBuf::from).collect(),
        };
        assert_eq!(identity, CodeIdentity::Git(expected));
    }
}

#[test]
fn differing_files_are_those_of_the_folder() {
    let repository = Repository::new();
    repository.check("", None, Some("trunk"), &[]);
    repository.write("a.py", "1");
    repository.write("sub/b.py", "1");
    repository.write("sub/unchanged.py", "1");
    repository.write("sub/gone.py", "1");
    repository.write(".gitignore", "output\n");
    repository.check(
        "",
        None,
        Some("trunk"),
        &[".gitignore", "a.py", "sub/b.py", "sub/gone.py", "sub/unchanged.py"],
    );
    let commit = repository.commit();
    repository.check("", Some(&commit), Some("trunk"), &[]);
    repository.write("a.py", "2");
    repository.write("sub/b.py", "2");
    repository.write("sub/new/with space\nand line.py", "1");
    repository.write("sub/output/model", "1");
    fs::remove_file(repository.path("sub/gone.py")).expect("remove");
    let in_sub = ["b.py", "gone.py", "new/with space\nand line.py"];
    repository.check("sub", Some(&commit), Some("trunk"), &in_sub);
    // What is staged differs from the commit as well.
    repository.git("", &["add", "sub/b.py"]);
    repository.check("sub", Some(&commit), Some("trunk"), &in_sub);
    repository.git("", &["checkout", "-q", "--detach"]);
    repository.check("sub", Some(&commit), None, &in_sub);
}

#[test]
fn a_folder_that_its_repository_ignores_has_none() {
    let repository = Repository::new();
    repository.write(".gitignore", "/scratch\n");
    repository.write("scratch/project/a.py", "1");
    repository.commit();
    assert_eq!(CodeIdentity::of(&repository.path("scratch/project"), &[]), CodeIdentity::NoRepository);
    assert_eq!(CodeIdentity::of(&repository.path("scratch"), &[]), CodeIdentity::NoRepository);
}

#[test]
fn worktrees_and_submodules_are_checkouts() {
    let repository = Repository::new();
    repository.write("a.py", "1");
    let commit = repository.commit();
    repository.git("", &["worktree", "add", "-q", "-b", "side", "tree"]);
    repository.write("tree/a.py", "2");
    repository.check("tree", Some(&commit), Some("side"), &["a.py"]);

    let outer = Repository::new();
    let source = repository.path("");
    outer.git("", &["submodule", "--quiet", "add", source.to_str().expect("UTF-8"), "module"]);
    let outer_commit = outer.commit();
    outer.check("", Some(&outer_commit), Some("trunk"), &[]);
    outer.write("module/a.py", "3");
    outer.check("", Some(&outer_commit), Some("trunk"), &["module"]);
    let CodeIdentity::Git(module) = CodeIdentity::of(&outer.path("module"), &[]) else {
        panic!("a checkout")
    };
    assert_eq!(module.commit.expect("a commit").full(), commit);
    assert_eq!(module.differing, [Path::new("a.py")]);
    // Its settings are elsewhere, as those of a worktree are.
    assert_eq!(module.remote.as_deref(), source.to_str());
}

#[test]
fn a_conflict_is_a_difference() {
    let repository = Repository::new();
    repository.write("a.py", "1");
    repository.commit();
    repository.git("", &["checkout", "-q", "-b", "side"]);
    repository.write("a.py", "2");
    repository.commit();
    repository.git("", &["checkout", "-q", "trunk"]);
    repository.write("a.py", "3");
    let commit = repository.commit();
    let merge = Command::new("git")
        .args(["-c", "user.name=A", "-c", "user.email=a@example.org", "merge", "-q", "side"])
        .current_dir(repository.path(""))
        .output()
        .expect("git is needed by this test");
    assert!(!merge.status.success(), "the merge must conflict");
    repository.check("", Some(&commit), Some("trunk"), &["a.py"]);
}

#[test]
fn what_git_cannot_tell_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(CodeIdentity::of(folder.path(), &[]), CodeIdentity::NoRepository);
    assert!(matches!(CodeIdentity::of(&folder.path().join("none"), &[]), CodeIdentity::Unknown { .. }));
    fs::write(folder.path().join(".git"), "gitdir: /nowhere\n").expect("write");
    let CodeIdentity::Unknown { reason } = CodeIdentity::of(folder.path(), &[]) else {
        panic!("a broken repository")
    };
    assert!(reason.contains("/nowhere"), "{reason}");
}

#[test]
fn root_reads_the_repository_of_another_user_as_that_user() {
    if !rustix::process::geteuid().is_root() {
        assert!(!required("root"), "root is required and this is not root");
        println!("skipped: needs root because a repository must belong to another user");
        return;
    }
    let repository = Repository::new();
    repository.write("a.py", "1");
    let commit = repository.commit();
    // A program that the repository's settings name would run on `git status`.
    let marker = repository.path(".git/executed-as");
    repository.git("", &["config", "filter.spy.clean", &format!("id -u > '{}'; cat", marker.display())]);
    repository.write(".gitattributes", "*.py filter=spy\n");
    repository.write("a.py", "2");
    let status = Command::new("chown").args(["-R", "12345:12345"]).arg(repository.path("")).status();
    assert!(status.expect("chown").success());
    repository.check("", Some(&commit), Some("trunk"), &[".gitattributes", "a.py"]);
    let executed_as = fs::read_to_string(marker).expect("the filter ran");
    assert_eq!(executed_as.trim(), "12345");
}

#[test]
fn an_identity_is_shown_short() {
    let check = |commit: Option<&str>, differing: usize, expected: &str| {
        let checkout = Checkout {
            commit: commit.map(|commit| Commit(commit.to_owned())),
            branch: None,
            remote: None,
            differing: vec![PathBuf::from("x"); differing],
        };
        assert_eq!(CodeIdentity::Git(checkout).to_string(), expected);
    };
    let commit = Some("3f2a9c1d7d2c3f0c3f2a9c1d7d2c3f0c3f2a9c1d");
    check(commit, 0, "commit 3f2a9c1");
    check(commit, 1, "commit 3f2a9c1 + 1 file");
    check(commit, 2, "commit 3f2a9c1 + 2 files");
    check(None, 12, "no commit yet, 12 files");
    check(None, 0, "no commit yet");
    assert_eq!(CodeIdentity::NoGit.to_string(), "no git");
}

#[test]
fn broken_output_is_not_an_identity() {
    for output in ["", "x", "1 .M N...", "# branch.head trunk\0", "9 a\0", "# branch.oid abc\x002 R. only\0"]
    {
        assert!(read_status(output.as_bytes(), Path::new("")).is_none(), "{output:?}");
    }
}

fn required(need: &str) -> bool {
    std::env::var("IBID_TEST_REQUIRE")
        .is_ok_and(|needs| needs.split(',').any(|name| name == need || name == "all"))
}

#[test]
fn what_is_in_folders_that_hold_no_code_does_not_count() {
    let repository = Repository::new();
    repository.write("project/kept", "1");
    repository.commit();
    repository.write("project/data/new", "1");
    repository.write("project/d*/new", "1");
    repository.write("project/d1/new", "1");
    let identity = |without: &[&str]| {
        let without: Vec<PathBuf> = without.iter().map(PathBuf::from).collect();
        let identity = CodeIdentity::of(&repository.path("project"), &without);
        let checkout = identity.checkout().expect("a checkout").clone();
        checkout.differing.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(identity(&[]), ["d*/new", "d1/new", "data/new"]);
    assert_eq!(identity(&["data", "absent"]), ["d*/new", "d1/new"]);
    assert_eq!(identity(&["d*"]), ["d1/new", "data/new"]);
}

#[test]
fn a_difference_is_readable_and_of_the_folder_only() {
    let repository = Repository::new();
    repository.write("project/a.py", "one\n");
    repository.write("project/output/b", "one\n");
    repository.write("c.py", "one\n");
    let of = |without: &[PathBuf]| {
        difference(&repository.path("project"), without).map(|text| String::from_utf8(text).expect("UTF-8"))
    };
    assert_eq!(of(&[]), None, "no commit yet");
    repository.commit();
    assert_eq!(of(&[]), None);
    for path in ["project/a.py", "project/output/b", "c.py"] {
        repository.write(path, "two\n");
    }
    repository.write("project/untracked.py", "two\n");
    repository.git("", &["config", "color.ui", "always"]);
    repository.git("", &["config", "diff.external", "false"]);
    let text = of(&["output".into()]).expect("a difference");
    assert!(text.starts_with("diff --git a/a.py b/a.py\n"), "{text}");
    assert!(text.ends_with("@@ -1 +1 @@\n-one\n+two\n"), "{text}");
    assert_eq!(text.matches("diff --git").count(), 1, "{text}");
    // What is staged is a difference as well.
    repository.git("", &["add", "project/a.py"]);
    assert_eq!(of(&["output".into()]), Some(text));
    repository.write("project/a.py", &"0123456789abcde\n".repeat(700_000));
    let text = of(&["output".into()]).expect("a difference");
    assert!(text.ends_with("\n[cut after 10 MB]\n"));
}
