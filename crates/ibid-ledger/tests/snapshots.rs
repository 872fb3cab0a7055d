//! Snapshots of real folders and repositories.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ibid_core::digest::Digest;
use ibid_core::dockerignore::Ignore;
use ibid_ledger::ledger::{Error, Ledger};
use ibid_ledger::snapshot::{self, Exclusions, How, Kind, Taken};

/// A project in a temporary folder.
struct Project {
    folder: tempfile::TempDir,
    root: PathBuf,
    exclusions: Exclusions,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().canonicalize().expect("a path").join("project");
        fs::create_dir(&root).expect("make the folder");
        Self { folder, root, exclusions: Exclusions::default() }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make the folder");
        fs::write(path, content).expect("write the file");
    }

    fn git(&self, folder: &str, arguments: &[&str]) {
        git(&self.path(folder), arguments);
    }

    fn ledger(&self) -> Ledger {
        Ledger::of(&self.root)
    }

    #[track_caller]
    fn take(&self) -> Taken {
        snapshot::take(&self.ledger(), &self.root, &self.exclusions).expect("a snapshot")
    }

    #[track_caller]
    fn changed_since(&self, taken: &Taken) -> Vec<String> {
        snapshot::changed_since(&self.ledger(), &self.root, &self.exclusions, taken.digest).expect("a look")
    }

    /// Takes a snapshot, and compares what it holds: a `/` at the end is a folder, an `@` a link, a `*` an executable.
    #[track_caller]
    fn check(&self, expected: &[&str]) -> Taken {
        let taken = self.take();
        let entries = snapshot::entries(&self.ledger(), taken.digest).expect("the entries");
        let shown: Vec<String> = entries
            .iter()
            .map(|entry| {
                let mark = match entry.kind {
                    Kind::Folder => "/",
                    Kind::Link { .. } => "@",
                    Kind::File { executable: true, .. } => "*",
                    Kind::File { .. } => "",
                };
                format!("{}{mark}", entry.path.to_string_lossy())
            })
            .collect();
        assert_eq!(shown, expected);
        for entry in &entries {
            if let Kind::File { digest, bytes, .. } = entry.kind {
                let content = snapshot::content(&self.ledger(), digest).expect("the content");
                assert_eq!(content, fs::read(self.root.join(&entry.path)).expect("read"), "{:?}", entry.path);
                assert_eq!(content.len() as u64, bytes);
            }
        }
        taken
    }

    /// Files in the ledger that hold contents.
    fn objects(&self) -> BTreeSet<PathBuf> {
        files_below(&self.path(".ibid/objects"))
    }
}

fn git(folder: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.args(["-c", "protocol.file.allow=always"]).args(arguments).current_dir(folder);
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
}

fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        match path.symlink_metadata().expect("what it is").is_dir() {
            true => files.append(&mut files_below(&path)),
            false => _ = files.insert(path),
        }
    }
    files
}

/// Everything in a folder that a snapshot keeps, by path.
fn tree(folder: &Path, below: &Path, into: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder.join(below)).expect("read the folder") {
        let path = below.join(entry.expect("an entry").file_name());
        if path == Path::new(".ibid") {
            continue;
        }
        let whole = folder.join(&path);
        let status = whole.symlink_metadata().expect("what it is");
        let what = if status.is_dir() {
            tree(folder, &path, into);
            "folder".to_owned()
        } else if status.is_symlink() {
            format!("link {:?}", fs::read_link(&whole).expect("read the link"))
        } else {
            format!("{:o} {:?}", status.mode() & 0o111, fs::read(&whole).expect("read"))
        };
        into.insert(path, what);
    }
}

#[track_caller]
fn assert_same_trees(a: &Path, b: &Path) {
    let of = |folder: &Path| {
        let mut all = BTreeMap::new();
        tree(folder, Path::new(""), &mut all);
        all
    };
    assert_eq!(of(a), of(b));
}

#[test]
fn a_folder_without_git_is_taken_whole() {
    let project = Project::new();
    project.write("train.py", "print()");
    project.write("run.sh", "#!/bin/sh");
    fs::set_permissions(project.path("run.sh"), PermissionsExt::from_mode(0o700)).expect("chmod");
    project.write("pkg/a.py", "1");
    project.write("pkg-b/a.py", "2");
    project.write("empty.txt", "");
    fs::create_dir_all(project.path("input/nothing")).expect("make the folder");
    symlink("pkg/a.py", project.path("link.py")).expect("link");
    symlink("/nowhere", project.path("pkg/broken")).expect("link");
    project.check(&[
        "empty.txt",
        "input/",
        "input/nothing/",
        "link.py@",
        "pkg/",
        "pkg-b/",
        "pkg-b/a.py",
        "pkg/a.py",
        "pkg/broken@",
        "run.sh*",
        "train.py",
    ]);
}

#[test]
fn ignore_files_count_without_git_too() {
    let mut project = Project::new();
    project.write(".gitignore", "*.log\nbuild/\n!keep.log\n");
    project.write("pkg/.gitignore", "/local\n");
    for path in [
        "a.log",
        "keep.log",
        "build/x",
        "pkg/local",
        "pkg/sub/local",
        "docs/a.md",
        "docs/b/c.md",
        "docs/keep.md",
    ] {
        project.write(path, path);
    }
    project.write("ibid.toml", "");
    project.exclusions.dockerignore = Ignore::parse(b"docs\n!docs/keep.md\n*.toml\n").expect("rules");
    project.check(&[
        ".gitignore",
        "docs/",
        "docs/keep.md",
        "ibid.toml",
        "keep.log",
        "pkg/",
        "pkg/.gitignore",
        "pkg/sub/",
        "pkg/sub/local",
    ]);
}

#[test]
fn outputs_data_and_what_ibid_and_git_keep_are_no_code() {
    let mut project = Project::new();
    project.git("", &["init", "-q"]);
    for path in ["train.py", "output/model", "data/a", "sub/data/b", "sub/output/c", "__pycache__/a.pyc"] {
        project.write(path, path);
    }
    project.git("", &["add", "-f", "output/model"]);
    project.exclusions.outputs_and_data =
        vec!["./output/".into(), "data".into(), "sub/data".into(), "absent".into()];
    let taken = project.check(&["sub/", "sub/output/", "sub/output/c", "train.py"]);
    // What ibid itself wrote meanwhile, and a program that writes its outputs, change nothing.
    project.write("output/model", "more");
    project.write("output/other", "more");
    project.write("__pycache__/b.pyc", "");
    assert_eq!(project.take().digest, taken.digest);
    assert_eq!(project.changed_since(&taken), [""; 0]);
}

#[test]
fn what_git_tracks_is_code_whatever_the_ignore_files_say() {
    let mut project = Project::new();
    project.git("", &["init", "-q"]);
    project.write(".gitignore", "*.bin\nlocal/\n");
    for path in [
        "a.bin",
        "b.bin",
        "local/tracked",
        "local/deep/tracked",
        "local/untracked",
        "docs/tracked",
        "docs/untracked",
    ] {
        project.write(path, path);
    }
    project.git(
        "",
        &["add", "-f", ".gitignore", "a.bin", "local/tracked", "local/deep/tracked", "docs/tracked"],
    );
    project.exclusions.dockerignore = Ignore::parse(b"docs\n").expect("rules");
    let expected = [
        ".gitignore",
        "a.bin",
        "docs/",
        "docs/tracked",
        "local/",
        "local/deep/",
        "local/deep/tracked",
        "local/tracked",
    ];
    project.check(&expected);
    // An index of a kind that only git itself reads.
    project.git("", &["update-index", "--split-index"]);
    project.check(&expected);
}

#[test]
fn commits_stages_and_conflicts_make_no_difference_to_the_files() {
    let project = Project::new();
    project.git("", &["init", "-q", "-b", "trunk"]);
    project.write("tracked.py", "1");
    project.write("modified.py", "1");
    project.write("removed.py", "1");
    let before = project.check(&["modified.py", "removed.py", "tracked.py"]);
    project.git("", &["add", "-A"]);
    assert_eq!(project.take().digest, before.digest);
    project.git("", &["commit", "-q", "-m", "state"]);
    assert_eq!(project.take().digest, before.digest);
    project.write("modified.py", "2");
    project.write("staged.py", "1");
    project.git("", &["add", "staged.py"]);
    project.write("untracked.py", "1");
    fs::remove_file(project.path("removed.py")).expect("remove");
    project.check(&["modified.py", "staged.py", "tracked.py", "untracked.py"]);
    assert_eq!(project.changed_since(&before), ["modified.py", "removed.py", "staged.py", "untracked.py"]);
    // The snapshot does not depend on the repository.
    fs::remove_dir_all(project.path(".git")).expect("remove");
    project.check(&["modified.py", "staged.py", "tracked.py", "untracked.py"]);
}

#[test]
fn a_project_below_the_top_of_its_repository_follows_the_rules_above_it() {
    let project = Project::new();
    let top = project.root.parent().expect("a parent").to_owned();
    git(&top, &["init", "-q"]);
    fs::write(top.join(".gitignore"), "*.log\n/project/only-here\n").expect("write");
    fs::write(top.join(".git/info/exclude"), "private\n").expect("write");
    for path in ["a.log", "b.py", "only-here", "sub/only-here", "private", "forced.log"] {
        project.write(path, path);
    }
    git(&top, &["add", "-f", "project/forced.log"]);
    project.check(&["b.py", "forced.log", "sub/", "sub/only-here"]);
    // A repository that ignores the whole project says nothing about what is in it.
    fs::write(top.join(".gitignore"), "/project\n*.log\n").expect("write");
    project.check(&["a.log", "b.py", "forced.log", "only-here", "private", "sub/", "sub/only-here"]);
}

#[test]
fn worktrees_and_submodules_are_taken_with_their_own_rules() {
    let module = Project::new();
    module.git("", &["init", "-q", "-b", "trunk"]);
    module.write(".gitignore", "*.tmp\n");
    module.write("module.py", "1");
    module.write("forced.tmp", "1");
    module.git("", &["add", "-f", "."]);
    module.git("", &["add", "-f", "forced.tmp"]);
    module.git("", &["commit", "-q", "-m", "state"]);

    let project = Project::new();
    project.git("", &["init", "-q", "-b", "trunk"]);
    project.write(".gitignore", "/lib\n*.py[co]\n");
    project
        .git("", &["submodule", "--quiet", "add", "-f", module.root.to_str().expect("UTF-8"), "lib/module"]);
    project.git("", &["add", ".gitignore"]);
    project.git("", &["commit", "-q", "-m", "state"]);
    project.write("lib/module/new.py", "2");
    project.write("lib/module/kept.pyc", "2");
    project.write("lib/module/a.tmp", "2");
    project.write("lib/ignored.py", "2");
    let expected = [
        ".gitignore",
        ".gitmodules",
        "lib/",
        "lib/module/",
        "lib/module/.gitignore",
        "lib/module/forced.tmp",
        "lib/module/kept.pyc",
        "lib/module/module.py",
        "lib/module/new.py",
    ];
    project.check(&expected);

    project.git("", &["worktree", "add", "-q", "-b", "side", "../side"]);
    let mut side = Project::new();
    side.root = project.root.parent().expect("a parent").join("side").canonicalize().expect("a path");
    fs::write(project.path(".git/info/exclude"), "private\n").expect("write");
    side.write("lib/forced.py", "3");
    side.write("private", "3");
    side.git("", &["add", "-f", "lib/forced.py"]);
    // The submodule is not checked out there: an empty folder, which the rules leave out.
    side.check(&[".gitignore", ".gitmodules", "lib/", "lib/forced.py"]);
}

#[test]
fn nothing_new_takes_no_space() {
    let project = Project::new();
    for number in 0..300 {
        project.write(&format!("pkg{}/file{number}.py", number % 7), format!("content {number}"));
    }
    let first = project.take().digest;
    let objects = project.objects();
    assert!(objects.len() < 10, "many small files are one: {objects:?}");
    assert_eq!(project.take().digest, first);
    assert_eq!(project.objects(), objects);
    // Touched, moved away and back: still the same content.
    fs::rename(project.path("pkg1"), project.path("other")).expect("rename");
    let moved = project.take().digest;
    assert_ne!(moved, first);
    fs::rename(project.path("other"), project.path("pkg1")).expect("rename");
    let objects = project.objects();
    assert_eq!(project.take().digest, first);
    assert_eq!(project.objects(), objects);
    // One edit in a folder of many: the file and the folders above it.
    project.write("pkg1/file1.py", "another");
    project.check_count(objects.len() + 3);
}

impl Project {
    #[track_caller]
    fn check_count(&self, expected: usize) {
        self.take();
        assert_eq!(self.objects().len(), expected, "{:?}", self.objects());
    }
}

#[test]
fn an_edit_of_the_same_length_in_the_same_moment_is_noticed() {
    let project = Project::new();
    project.write("a.py", "0");
    let mut last = project.take();
    for number in 1..30 {
        // As long, in the same inode, and mostly within one tick of the file system's clock.
        let before = fs::metadata(project.path("a.py")).expect("what it is").modified().expect("a time");
        project.write("a.py", (number % 10).to_string());
        let file = fs::File::options().write(true).open(project.path("a.py")).expect("open");
        file.set_modified(before).expect("set the time");
        assert_eq!(project.changed_since(&last), ["a.py"], "{number}");
        let next = project.take();
        assert_ne!(next.digest, last.digest, "{number}");
        last = next;
    }
}

#[test]
fn changes_are_found_by_content() {
    let project = Project::new();
    project.write("a.py", "1");
    project.write("b.py", "1");
    project.write("sub/c.py", "1");
    let taken = project.take();
    assert_eq!(project.changed_since(&taken), [""; 0]);
    project.write("a.py", "2");
    fs::set_permissions(project.path("b.py"), PermissionsExt::from_mode(0o755)).expect("chmod");
    fs::remove_file(project.path("sub/c.py")).expect("remove");
    symlink("../a.py", project.path("sub/c.py")).expect("link");
    project.write("sub/new/d.py", "1");
    assert_eq!(project.changed_since(&taken), ["a.py", "b.py", "sub/c.py", "sub/new/d.py"]);
    project.write("a.py", "1");
    fs::remove_file(project.path("b.py")).expect("remove");
    project.write("b.py", "1");
    fs::remove_dir_all(project.path("sub/new")).expect("remove");
    assert_eq!(project.changed_since(&taken), ["sub/c.py"]);
}

#[test]
fn names_of_any_bytes_are_kept() {
    let project = Project::new();
    let name = OsStr::from_bytes(b"\xff\xfe\n x");
    fs::write(project.root.join(name), "1").expect("write");
    symlink(name, project.path("link")).expect("link");
    let taken = project.take();
    let entries = snapshot::entries(&project.ledger(), taken.digest).expect("the entries");
    assert_eq!(entries[1].path, Path::new(name));
    assert_eq!(entries[0].kind, Kind::Link { target: name.to_owned() });
    let copy = project.folder.path().join("copy");
    snapshot::checkout(&project.ledger(), taken.digest, &copy).expect("a checkout");
    assert_same_trees(&project.root, &copy);
}

#[test]
fn what_cannot_be_stored_is_named() {
    let project = Project::new();
    project.git("", &["init", "-q"]);
    project.write(".gitignore", "build/\n*.so\n.venv/\nnode_modules/\n");
    project.write("train.py", "1");
    project.write("kept.so.txt", "1");
    project.write("fast.so", "1");
    project.write("build/lib/linked.so.1.2", "1");
    project.write("build/lib/other.o", "1");
    project.write("build/env/pyvenv.cfg", "1");
    project.write("build/env/lib/c.so", "1");
    project.write(".venv/pyvenv.cfg", "1");
    project.write("venv/pyvenv.cfg", "1");
    project.write("venv/bin/python", "1");
    project.write("node_modules/x/index.js", "1");
    project.write("large.bin", "1");
    fs::File::options()
        .write(true)
        .open(project.path("large.bin"))
        .and_then(|file| file.set_len(snapshot::LARGE_BYTES + 1))
        .expect("make it large");
    assert!(Command::new("mkfifo").arg(project.path("pipe")).status().expect("mkfifo").success());
    let _socket = std::os::unix::net::UnixListener::bind(project.path("socket")).expect("a socket");
    let taken = project.check(&[".gitignore", "kept.so.txt", "train.py"]);
    assert_eq!(
        taken.left_out,
        [
            ".venv/",
            "build/env/",
            "build/lib/linked.so.1.2",
            "fast.so",
            "large.bin",
            "pipe",
            "socket",
            "venv/"
        ]
    );
    assert_eq!(taken.large, [Path::new("large.bin")]);
    // What git tracks is code, however large, and read piece by piece.
    project.git("", &["add", "large.bin"]);
    let taken = project.check(&[".gitignore", "kept.so.txt", "large.bin", "train.py"]);
    assert_eq!(taken.large, [""; 0].map(PathBuf::from));
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_taken() {
    let project = Project::new();
    project.write("train.py", "1");
    project.write("secret", "1");
    project.write("closed/a", "1");
    fs::set_permissions(project.path("secret"), PermissionsExt::from_mode(0o000)).expect("chmod");
    fs::set_permissions(project.path("closed"), PermissionsExt::from_mode(0o000)).expect("chmod");
    // Root reads everything.
    if fs::read(project.path("secret")).is_ok() {
        project.check(&["closed/", "closed/a", "secret", "train.py"]);
        return;
    }
    let taken = project.check(&["train.py"]);
    assert_eq!(taken.left_out, ["closed", "secret"]);
    fs::set_permissions(project.path("closed"), PermissionsExt::from_mode(0o700)).expect("chmod");
}

#[test]
fn a_missing_or_damaged_content_is_named() {
    let project = Project::new();
    project.write("a.py", "the content");
    let taken = project.take();
    let digest = Digest::of(b"the content");
    let hex = digest.hex();
    let path = project.path(".ibid/objects").join(&hex[..2]).join(&hex[2..]);
    assert!(path.exists());
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
    for damage in [&b""[..], b"\x00another", b"\x01\x28\xb5\x2f\xfd", b"\x07x"] {
        fs::write(&path, damage).expect("write");
        let error = snapshot::content(&project.ledger(), digest).expect_err("damage is noticed");
        assert!(matches!(&error, Error::DamagedObject { digest: named, .. } if *named == digest), "{error}");
        assert!(error.to_string().contains(&hex), "{error}");
    }
    fs::remove_file(&path).expect("remove");
    let into = project.folder.path().join("copy");
    for error in [
        snapshot::content(&project.ledger(), digest).expect_err("it is missing"),
        snapshot::checkout(&project.ledger(), taken.digest, &into).expect_err("it is missing"),
    ] {
        assert!(matches!(&error, Error::MissingObject { digest: named, .. } if *named == digest), "{error}");
    }
    assert!(!into.join("a.py").exists(), "no half file is left");
    let error = snapshot::entries(&project.ledger(), digest).expect_err("it is missing");
    assert!(matches!(error, Error::MissingObject { .. }));
}

#[test]
fn a_content_that_is_no_folder_is_no_snapshot() {
    let project = Project::new();
    project.write("a.py", "1");
    project.take();
    let error = snapshot::entries(&project.ledger(), Digest::of(b"1")).expect_err("it is a file");
    assert!(error.to_string().contains("it is no folder of a snapshot"), "{error}");
}

#[test]
fn after_a_power_cut_nothing_is_taken_for_complete() {
    let project = Project::new();
    project.write("pkg/a.py", "the content");
    let taken = project.take();
    let hex = Digest::of(b"the content").hex();
    let path = project.path(".ibid/objects").join(&hex[..2]).join(&hex[2..]);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("chmod");
    fs::write(&path, "").expect("write");
    // The folders are there, so a snapshot like this one was stored.
    assert_eq!(project.take().digest, taken.digest);
    assert!(snapshot::content(&project.ledger(), Digest::of(b"the content")).is_err());
    // What somebody leaves who stores while the power goes.
    let mark = project.path(".ibid/objects/pending/1-0123456789ab");
    fs::write(&mark, "another start of the machine").expect("write");
    assert_eq!(project.take().digest, taken.digest);
    snapshot::content(&project.ledger(), Digest::of(b"the content")).expect("it was stored again");
    assert!(!mark.exists());
}

#[test]
fn checkouts_go_into_empty_folders_only() {
    let project = Project::new();
    project.write("a.py", "1");
    let taken = project.take();
    let into = project.folder.path().join("into");
    fs::create_dir(&into).expect("make the folder");
    snapshot::checkout(&project.ledger(), taken.digest, &into).expect("an empty one is fine");
    let error = snapshot::checkout(&project.ledger(), taken.digest, &into).expect_err("it is not empty now");
    assert!(error.to_string().contains("into"), "{error}");
}

#[test]
fn snapshots_taken_at_once_are_all_whole() {
    let project = Project::new();
    for number in 0..150 {
        project.write(&format!("pkg/file{number}.py"), format!("content {number}"));
    }
    project.write("only one.py", "1");
    let digests: Vec<Digest> = std::thread::scope(|scope| {
        let takes: Vec<_> = (0..8).map(|_| scope.spawn(|| project.take().digest)).collect();
        takes.into_iter().map(|take| take.join().expect("no panic")).collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    let copy = project.folder.path().join("copy");
    snapshot::checkout(&project.ledger(), digests[0], &copy).expect("a checkout");
    assert_same_trees(&project.root, &copy);
    let left: Vec<_> = files_below(&project.path(".ibid/objects"))
        .into_iter()
        .filter(|path| {
            path.to_string_lossy().contains("draft-") || path.to_string_lossy().contains("pending")
        })
        .collect();
    assert_eq!(left, [""; 0].map(PathBuf::from));
}

#[test]
fn in_a_folder_of_somebody_else_everything_is_theirs() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root because the folder must belong to another user");
        return;
    }
    let project = Project::new();
    for number in 0..150 {
        project.write(&format!("pkg/file{number}.py"), format!("content {number}"));
    }
    let chown = Command::new("chown").args(["-R", "12345:12346"]).arg(&project.root).status();
    assert!(chown.expect("chown").success());
    project.take();
    project.write("one more", "1");
    project.take();
    let objects = project.path(".ibid/objects");
    let mut all = files_below(&objects);
    all.extend(all.clone().iter().filter_map(|path| path.parent()).map(Path::to_owned));
    all.extend([objects]);
    for path in all {
        let status = path.symlink_metadata().expect("what it is");
        assert_eq!((status.uid(), status.gid()), (12345, 12346), "{}", path.display());
    }
}

#[test]
fn differences_are_sorted_by_path() {
    let project = Project::new();
    project.write("a", "1");
    project.write("b", "1");
    project.write("c/d", "1");
    let first = project.take();
    fs::remove_file(project.path("a")).expect("remove");
    project.write("b", "2");
    project.write("c/e", "1");
    let second = project.take();
    let entries = |taken: &Taken| snapshot::entries(&project.ledger(), taken.digest).expect("the entries");
    let changes = |a, b| -> Vec<(String, How)> {
        let changes = snapshot::compare(&entries(a), &entries(b)).into_iter();
        changes.map(|change| (change.path.display().to_string(), change.how)).collect()
    };
    let named = |path: &str, how| (path.to_owned(), how);
    assert_eq!(
        changes(&first, &second),
        [named("a", How::Removed), named("b", How::Changed), named("c/e", How::Added)]
    );
    assert_eq!(
        changes(&second, &first),
        [named("a", How::Added), named("b", How::Changed), named("c/e", How::Removed)]
    );
    assert_eq!(changes(&first, &first), []);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_checked_out_is_what_was_taken(
        files in proptest::collection::btree_map("[a-c]{1,2}(/[a-c.-]{1,2}!?){0,3}", (0usize..4, "[a-z]{0,40}"), 0..25),
        edits in proptest::collection::btree_map("[a-c]{1,2}(/[a-c.-]{1,2}!?){0,3}", (0usize..4, "[a-z]{0,40}"), 0..5),
    ) {
        let project = Project::new();
        for (round, files) in [files, edits].into_iter().enumerate() {
            for (path, (kind, text)) in files {
                let path = project.path(&path);
                // Where a file is in the way of a folder, or the other way round, the first one stays.
                if path.components().any(|part| part.as_os_str() == "." || part.as_os_str() == "..")
                    || fs::create_dir_all(path.parent().expect("a parent")).is_err()
                {
                    continue;
                }
                match kind {
                    0 => _ = fs::create_dir(&path),
                    1 => _ = symlink(&text, &path),
                    _ if path.is_symlink() => {}
                    kind => {
                        if fs::write(&path, &text).is_ok() {
                            let mode = if kind == 2 { 0o755 } else { 0o644 };
                            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
                        }
                    }
                }
            }
            let taken = project.take();
            let copy = project.folder.path().join(format!("copy{round}"));
            snapshot::checkout(&project.ledger(), taken.digest, &copy).expect("a checkout");
            assert_same_trees(&project.root, &copy);
            let again = Ledger::of(&copy);
            let of_copy = snapshot::take(&again, &copy, &Exclusions::default()).expect("a snapshot");
            proptest::prop_assert_eq!(of_copy.digest, taken.digest);
        }
    }
}

/// What a record of a run with this snapshot looks like where `collect` looks.
fn record(project: &Project, id: &str, snapshot: &Taken) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/record.json"))
        .expect("read");
    let text = text.replace("000000000000", id).replace("SNAPSHOT", &snapshot.digest.to_string());
    project.write(&format!(".ibid/runs/{id}/record.json"), text);
}

#[test]
fn what_no_run_needs_is_removed() {
    let project = Project::new();
    let collect = |spare: u64, dry_run: bool| {
        let spare = std::time::Duration::from_secs(spare);
        snapshot::collect(&project.ledger(), spare, dry_run).expect("contents are removed")
    };
    assert_eq!(collect(0, false), Default::default());
    // Many files, so that they are in a pack.
    for number in 0..150 {
        project.write(&format!("pkg/file{number}.py"), format!("content {number}"));
    }
    project.write("shared.py", "shared");
    let first = project.take();
    fs::remove_dir_all(project.path("pkg")).expect("remove");
    project.write("new.py", "new");
    let second = project.take();
    project.write("new.py", "newer");
    let third = project.take();
    let first_entries = snapshot::entries(&project.ledger(), first.digest).expect("the entries");
    record(&project, "111111111111", &second);
    project.write(".ibid/objects/draft-left", "x");

    // Everything is recent.
    assert_eq!(collect(3600, false), Default::default());
    let before = project.objects();
    let planned = collect(0, true);
    assert_eq!(project.objects(), before);
    assert_eq!(collect(0, false), planned);
    // 150 files and two folders of the first, a file and a folder of the third.
    assert_eq!(planned.contents, 154);
    assert!(!project.path(".ibid/objects/draft-left").exists());
    assert_eq!(collect(0, false), Default::default());

    let copy = project.folder.path().join("copy");
    snapshot::checkout(&project.ledger(), second.digest, &copy).expect("it is needed");
    assert_eq!(fs::read_to_string(copy.join("shared.py")).expect("read"), "shared");
    for gone in [first.digest, third.digest] {
        assert!(matches!(snapshot::entries(&project.ledger(), gone), Err(Error::MissingObject { .. })));
    }
    assert!(first_entries.iter().any(|entry| entry.path == Path::new("pkg/file7.py")));

    // What was removed is stored again when it is there again, though it did not change since.
    assert_eq!(project.take().digest, third.digest);
    project.check(&["new.py", "shared.py"]);
}

#[test]
fn runs_that_can_be_restored_keep_their_code() {
    let project = Project::new();
    project.write("a.py", "1");
    record(&project, "111111111111", &project.take());
    fs::create_dir_all(project.path(".ibid/removed")).expect("make the folder");
    let moved = project.path(".ibid/removed/111111111111");
    fs::rename(project.path(".ibid/runs/111111111111"), &moved).expect("rename");
    let zero = std::time::Duration::ZERO;
    assert_eq!(snapshot::collect(&project.ledger(), zero, false).expect("nothing"), Default::default());
    // What a record that cannot be read needs is not known.
    fs::write(moved.join("record.json"), "{").expect("write");
    let error = snapshot::collect(&project.ledger(), zero, false).expect_err("it is damaged");
    assert!(error.to_string().contains("removed/111111111111/record.json is damaged"), "{error}");
    project.check(&["a.py"]);
    fs::remove_dir_all(&moved).expect("remove");
    assert_eq!(snapshot::collect(&project.ledger(), zero, false).expect("all of it").contents, 2);
}

#[test]
fn after_an_interrupted_removal_nothing_is_taken_for_complete() {
    let project = Project::new();
    project.write("pkg/a.py", "the content");
    let taken = project.take();
    let hex = Digest::of(b"the content").hex();
    fs::remove_file(project.path(".ibid/objects").join(&hex[..2]).join(&hex[2..])).expect("remove");
    project.write(".ibid/objects/pending/0123456789ab", "removing …");
    assert_eq!(project.take().digest, taken.digest);
    project.check(&["pkg/", "pkg/a.py"]);
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_half() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root because a small file system is mounted");
        return;
    }
    let project = Project::new();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
        .arg(&project.root)
        .status()
        .expect("mount");
    if !mounted.success() {
        println!("skipped: mounts are not allowed here");
        return;
    }
    let noise: Vec<u8> =
        (0..10_000u32).flat_map(|number| *Digest::of(&number.to_le_bytes()).as_bytes()).collect();
    project.write("noise", &noise);
    let taken = snapshot::take(&project.ledger(), &project.root, &project.exclusions);
    let left = files_below(&project.path(".ibid/objects"));
    let unmounted = Command::new("umount").arg("--lazy").arg(&project.root).status().expect("umount");
    assert!(unmounted.success());
    let error = taken.expect_err("there is no room");
    let Error::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()), "{error}");
    assert!(left.iter().all(|path| !path.to_string_lossy().contains("draft-")), "{left:?}");
}

#[test]
fn root_follows_no_link_in_a_ledger_of_somebody_else() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root because the folder must belong to another user");
        return;
    }
    let project = Project::new();
    let elsewhere = project.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("make the folder");
    project.write("a.py", "1");
    project.write(".ibid/.gitignore", "*");
    symlink(&elsewhere, project.path(".ibid/objects")).expect("link");
    project.take();
    assert!(!files_below(&elsewhere).is_empty(), "one's own link is followed");
    fs::remove_dir_all(&elsewhere).expect("remove");
    fs::create_dir(&elsewhere).expect("make the folder");
    let chown = Command::new("chown").args(["-hR", "12345:12345"]).arg(&project.root).status();
    assert!(chown.expect("chown").success());
    let error = snapshot::take(&project.ledger(), &project.root, &project.exclusions).expect_err("a link");
    let Error::Io { path, source, .. } = &error else { panic!("{error}") };
    assert_eq!(*path, project.path(".ibid/objects"));
    assert!(source.to_string().contains("a symbolic link of another user's"), "{source}");
    assert_eq!(files_below(&elsewhere).len(), 0);
}

#[test]
fn snapshots_and_removals_at_once_do_each_other_no_harm() {
    let project = Project::new();
    for number in 0..120 {
        project.write(&format!("pkg/file{number}.py"), format!("content {number}"));
    }
    let first = project.take().digest;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..8 {
                    // It is spared from the moment that it was taken, and whole.
                    assert_eq!(project.take().digest, first);
                    snapshot::entries(&project.ledger(), first).expect("the entries");
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..8 {
                let spare = std::time::Duration::from_secs(60);
                snapshot::collect(&project.ledger(), spare, false).expect("contents are removed");
            }
        });
    });
    // Without sparing, all of it goes between two snapshots, and all of it comes again.
    for _ in 0..3 {
        let removed = snapshot::collect(&project.ledger(), std::time::Duration::ZERO, false);
        assert_eq!(removed.expect("contents are removed").contents, 122);
        assert_eq!(project.take().digest, first);
        let copy = tempfile::tempdir().expect("a temporary folder");
        snapshot::checkout(&project.ledger(), first, copy.path()).expect("a checkout");
        assert_same_trees(&project.root, copy.path());
    }
}

#[test]
fn damage_in_a_pack_is_noticed() {
    let project = Project::new();
    for number in 0..120 {
        project.write(&format!("file{number}.py"), format!("content {number}"));
    }
    let taken = project.take();
    let pack = project.objects().into_iter().find(|path| path.extension() == Some("pack".as_ref()));
    let pack = pack.expect("many files are a pack");
    fs::set_permissions(&pack, PermissionsExt::from_mode(0o600)).expect("chmod");
    let whole = fs::read(&pack).expect("read");
    let content = Digest::of(b"content 7");
    let at = whole
        .windows(9)
        .position(|bytes| bytes == b"content 7")
        .expect("it is short, so it is not compressed");
    let mut damaged = whole.clone();
    damaged[at] ^= 1;
    fs::write(&pack, &damaged).expect("write");
    let error = snapshot::content(&project.ledger(), content).expect_err("damage is noticed");
    assert!(
        matches!(&error, Error::DamagedObject { digest, path, .. } if *digest == content && *path == pack),
        "{error}"
    );
    snapshot::content(&project.ledger(), Digest::of(b"content 8")).expect("others are whole");
    // A pack that was cut holds nothing.
    for end in [0, 5, 20, whole.len() / 2, whole.len() - 1] {
        fs::write(&pack, &whole[..end]).expect("write");
        let error = snapshot::entries(&project.ledger(), taken.digest).expect_err("it is not there");
        assert!(matches!(error, Error::MissingObject { .. }), "{error}");
    }
    fs::write(&pack, &whole).expect("write");
    project.take();
    snapshot::entries(&project.ledger(), taken.digest).expect("it is whole again");
}

#[test]
fn the_rules_of_a_context_are_about_its_own_paths() {
    let mut project = Project::new();
    for path in ["a/b", "image/a/b", "image/c", "docker/train.Dockerfile", "docker/other"] {
        project.write(path, path);
    }
    project.exclusions.dockerignore = Ignore::parse(b"a\nproject/docker\n").expect("rules");
    let all = [
        "a/",
        "a/b",
        "docker/",
        "docker/other",
        "docker/train.Dockerfile",
        "image/",
        "image/a/",
        "image/a/b",
        "image/c",
    ];
    project.exclusions.context = Some(project.path("image"));
    project.check(&["a/", "a/b", "docker/", "docker/other", "docker/train.Dockerfile", "image/", "image/c"]);
    // The folder that holds the project.
    project.exclusions.context = project.root.parent().map(Path::to_owned);
    project.check(&["a/", "a/b", "image/", "image/a/", "image/a/b", "image/c"]);
    project.exclusions.always = vec!["docker/train.Dockerfile".into()];
    project.check(&[
        "a/",
        "a/b",
        "docker/",
        "docker/train.Dockerfile",
        "image/",
        "image/a/",
        "image/a/b",
        "image/c",
    ]);
    project.exclusions.context = Some("/elsewhere".into());
    project.check(&all);
    // A context that leaves the whole project out.
    project.exclusions.context = project.root.parent().map(Path::to_owned);
    project.exclusions.dockerignore = Ignore::parse(b"project\n").expect("rules");
    project.check(&all);
}
