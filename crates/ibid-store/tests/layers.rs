//! Drafts become layers, layers become archives.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use ibid_core::digest::{DiffId, Digest};
use ibid_store::{CommitRules, Error, Kind, Store};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use support::{archive, left_over, listing, needs_root, test_store};

const EPOCH: i64 = 1_700_000_000;

fn rules() -> CommitRules {
    CommitRules { epoch: EPOCH, ..CommitRules::default() }
}

fn write(root: &Path, path: &str, content: &str) {
    write_bytes(root, path, content.as_bytes());
}

fn write_bytes(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn dress(path: &Path, mode: Option<u32>, uid: u32, gid: u32, mtime: i64) {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let time = Timespec { tv_sec: mtime, tv_nsec: 999_999_999 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn node(path: &Path, file_type: FileType, major: u32, minor: u32) {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, path, file_type, Mode::empty(), device).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Names in an archive, in order, as another program reads them.
fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()).collect()
}

/// One of everything, some of it hard to say in an archive.
fn make_everything(upper: &Path) {
    let long = "l".repeat(150);
    for folder in ["d", "opaque", "dir.long"] {
        fs::create_dir(upper.join(folder)).unwrap();
    }
    write(upper, "d/file", "content\n");
    write(upper, "d/huge-ids", "");
    write(upper, "d/late", "later than the epoch");
    write(upper, "d/ping", "#!");
    write(upper, "d/naïve", "");
    write(upper, &format!("dir.long/{long}"), "x");
    write(upper, &format!("{}end", "deep/".repeat(60)), "deep");
    fs::hard_link(upper.join("d/file"), upper.join("a-second-name")).unwrap();
    symlink("../away", upper.join("d/link")).unwrap();
    symlink(&long, upper.join("d/long-link")).unwrap();
    node(&upper.join("d/null"), FileType::CharacterDevice, 1, 3);
    node(&upper.join("d/disk"), FileType::BlockDevice, 8, 17);
    node(&upper.join("d/pipe"), FileType::Fifo, 0, 0);
    node(&upper.join("d/gone"), FileType::CharacterDevice, 0, 0);
    node(&upper.join("d/socket"), FileType::Socket, 0, 0);
    write(upper, "d/gone-too", "");
    set_xattr(&upper.join("d/gone-too"), "user.overlay.whiteout", b"y");
    for (path, mode, uid, gid, mtime) in [
        ("a-second-name", Some(0o6755), 1, 2, 100),
        ("d/huge-ids", Some(0o600), 3_000_000, 4_000_000, -5),
        ("d/late", Some(0o644), 0, 0, EPOCH + 1000),
        ("d/ping", Some(0o755), 0, 0, 0),
        ("d/naïve", Some(0o000), 0, 0, 1),
        ("d/link", None, 7, 8, EPOCH + 5),
        ("d/long-link", None, 0, 0, 3),
        ("d/null", Some(0o666), 0, 0, 4),
        ("d/disk", Some(0o660), 0, 6, 5),
        ("d/pipe", Some(0o640), 0, 0, 6),
        (&format!("dir.long/{long}"), Some(0o644), 0, 0, 7),
        (&format!("{}end", "deep/".repeat(60)), Some(0o644), 0, 0, 8),
    ] {
        dress(&upper.join(path), mode, uid, gid, mtime);
    }
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    set_xattr(&upper.join("d/ping"), "security.capability", capability);
    set_xattr(&upper.join("d/ping"), "user.note", b"line\n\xff");
    set_xattr(&upper.join("d/ping"), "user.overlay.origin", b"stale");
    set_xattr(&upper.join("opaque"), "user.overlay.opaque", b"y");
    for folder in folders(upper) {
        dress(&folder, Some(0o755), 0, 0, EPOCH + 77);
    }
    fs::set_permissions(upper.join("opaque"), fs::Permissions::from_mode(0o1777)).unwrap();
}

fn folders(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.push(entry.path());
            found.extend(folders(&entry.path()));
        }
    }
    found
}

#[test]
fn empty_files_can_stand_for_devices() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let commit = |stand_in: bool| {
        let draft = store.draft_layer().unwrap();
        let mut rules = rules();
        for (name, minor) in [("null", 3), ("zero", 5)] {
            let path = draft.upper().join(name);
            if stand_in {
                fs::write(&path, "").unwrap();
                let kind = Kind::CharacterDevice { major: 1, minor };
                rules.devices.insert(name.as_bytes().to_vec(), kind);
            } else {
                node(&path, FileType::CharacterDevice, 1, minor);
            }
            dress(&path, Some(0o666), 0, 5, 7);
        }
        fs::hard_link(draft.upper().join("null"), draft.upper().join("second")).unwrap();
        // What is not empty is what it is.
        fs::write(draft.upper().join("file"), "content").unwrap();
        dress(&draft.upper().join("file"), Some(0o644), 0, 0, 7);
        rules.devices.insert(b"file".to_vec(), Kind::CharacterDevice { major: 1, minor: 3 });
        draft.commit(&rules).unwrap().unwrap()
    };
    let layer = commit(true);
    assert_eq!(layer, commit(false));
    assert_eq!(DiffId(Digest::of(&archive(&store, &layer))), layer);
}

#[test]
fn the_bytes_of_a_layer_are_pinned() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let draft = store.draft_layer().unwrap();
    make_everything(draft.upper());
    let diff_id = draft.commit(&rules()).unwrap().unwrap();
    let bytes = archive(&store, &diff_id);
    assert_eq!(DiffId(Digest::of(&bytes)), diff_id);
    // Other bytes would give every image that anybody has built another digest.
    assert_eq!(
        diff_id.to_string(),
        "sha256:7f75b8d0020587033cb3e295b4a25d1c7a5547355f929416c1e7f789cbfde54a"
    );
    let names = names(&bytes);
    let deep = |name: &&str| name.starts_with("deep/");
    let shown: Vec<&str> = names.iter().map(String::as_str).filter(|name| !deep(name)).collect();
    assert_eq!(names.iter().map(String::as_str).filter(deep).count(), 61);
    assert_eq!(
        shown,
        [
            "a-second-name",
            "d/",
            "d/disk",
            "d/file",
            "d/.wh.gone",
            "d/.wh.gone-too",
            "d/huge-ids",
            "d/late",
            "d/link",
            "d/long-link",
            "d/naïve",
            "d/null",
            "d/ping",
            "d/pipe",
            "dir.long/",
            &format!("dir.long/{}", "l".repeat(150)),
            "opaque/",
            "opaque/.wh..wh..opq",
        ]
    );
    assert_eq!(left_over(&store), Vec::<String>::new());
}

#[test]
fn manifest_tree_and_size_agree() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let draft = store.draft_layer().unwrap();
    make_everything(draft.upper());
    let diff_id = draft.commit(&rules()).unwrap().unwrap();
    assert!(store.has_layer(&diff_id));
    let tree = store.layer_tree(&diff_id);
    let manifest = store.layer_manifest(&diff_id).unwrap();
    assert_eq!(store.layer_size(&diff_id).unwrap(), manifest.content_bytes());
    assert_eq!(manifest.content_bytes(), 8 + 20 + 2 + 1 + 4);
    let entry = |path: &str| manifest.entry(path.as_bytes()).unwrap();
    assert_eq!(entry("d/file").kind, Kind::HardLink { owner: b"a-second-name".to_vec() });
    assert_eq!((entry("d/file").mode, entry("d/file").uid), (0o6755, 1));
    assert_eq!(entry("d/gone").kind, Kind::Whiteout);
    assert_eq!(entry("d/gone").mtime, EPOCH);
    assert_eq!(entry("opaque").kind, Kind::Folder { opaque: true });
    assert_eq!(entry("d/late").mtime, EPOCH);
    assert_eq!(manifest.entry(b"d/socket"), None);
    assert!(!tree.join("d/socket").exists());
    let time = |path: &str| {
        let status = fs::symlink_metadata(tree.join(path)).unwrap();
        (status.mtime(), status.mtime_nsec())
    };
    assert_eq!(time("d"), (EPOCH, 0));
    assert_eq!(time("d/late"), (EPOCH, 0));
    assert_eq!(time("d/link"), (EPOCH, 0));
    assert_eq!(time("d/huge-ids"), (-5, 0));
    let kept: Vec<String> = support::xattrs(&tree.join("d/ping")).into_keys().collect();
    assert_eq!(kept, ["security.capability", "user.note"]);
}

/// What a file with `path` is after a commit: its content, or nothing.
#[track_caller]
fn check_scrubbed(path: &str, content: &str, expected: Option<&str>) {
    check_scrubbed_bytes(path, content.as_bytes(), expected.map(str::as_bytes));
}

#[track_caller]
fn check_scrubbed_bytes(path: &str, content: &[u8], expected: Option<&[u8]>) {
    let (_folder, store) = test_store();
    for keep_nondeterminism in [false, true] {
        let draft = store.draft_layer().unwrap();
        write_bytes(draft.upper(), path, content);
        write(draft.upper(), "marker", "");
        let rules = CommitRules { keep_nondeterminism, ..rules() };
        let diff_id = draft.commit(&rules).unwrap().unwrap();
        let found = fs::read(store.layer_tree(&diff_id).join(path)).ok();
        let expected = if keep_nondeterminism { Some(content) } else { expected };
        assert_eq!(found.as_deref(), expected, "{path}");
        let in_archive = names(&archive(&store, &diff_id)).iter().any(|name| name == path);
        assert_eq!(in_archive, expected.is_some(), "{path}");
    }
}

#[test]
fn files_that_always_differ_are_scrubbed() {
    if !needs_root() {
        return;
    }
    check_scrubbed("var/cache/ldconfig/aux-cache", "x", None);
    check_scrubbed("var/log/dpkg.log", "x", None);
    check_scrubbed("var/log/apt/term.log", "x", None);
    check_scrubbed("var/cache/apt/pkgcache.bin", "x", None);
    check_scrubbed("var/lib/apt/lists/partial/x", "x", None);
    check_scrubbed("var/cache/apt/archives/x.deb", "x", None);
    check_scrubbed("var/lib/dbus/machine-id", "x", None);
    check_scrubbed("etc/machine-id", "0123", Some(""));
    check_scrubbed("etc/shadow", "u:!:99999:0:::::\n", Some("u:!:19675:0:::::\n"));
    check_scrubbed("etc/shadow", "u:!:1:0:::::\n", Some("u:!:1:0:::::\n"));
    check_scrubbed("run/mount/utab", "x", None);
    check_scrubbed("var/lib/systemd/random-seed", "x", None);
    check_scrubbed("var/log/lastlog", "x", None);
    check_scrubbed("var/lib/dnf/history.sqlite", "x", None);
    check_scrubbed("opt/conda/conda-meta/history", "x", None);
    check_scrubbed("home/user/.cache/pip/http-v2/0/1", "x", None);
    let compiled =
        |time: i64| [b"\xa7\x0d\r\n\0\0\0\0", &(time as u32).to_le_bytes()[..], b"size, code"].concat();
    check_scrubbed_bytes("a.pyc", &compiled(EPOCH + 5), Some(&compiled(EPOCH)));
    check_scrubbed_bytes("a.pyc", &compiled(EPOCH - 5), Some(&compiled(EPOCH - 5)));
    check_scrubbed("opt/a.pyc", "\0\0\r\n\x03\0\0\0 /tmp/pip-target-x/a.py", None);
    check_scrubbed("run/ibid/ca.pem", "x", None);
    check_scrubbed("etc/passwd", "x", Some("x"));
}

#[test]
fn times_and_the_order_of_making_do_not_matter() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let mut found = BTreeMap::new();
    for (order, later) in [([0, 1, 2, 3], 1), ([3, 1, 0, 2], 1_000_000), ([2, 3, 1, 0], 2)] {
        let draft = store.draft_layer().unwrap();
        for index in order {
            write(draft.upper(), &format!("d{}/f{index}", index % 2), &index.to_string());
        }
        for path in ["d0/f0", "d0/f2", "d1/f1", "d1/f3", "d0", "d1"] {
            dress(&draft.upper().join(path), None, 0, 0, EPOCH + later);
        }
        *found.entry(draft.commit(&rules()).unwrap().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(found.into_values().collect::<Vec<_>>(), [3]);
    assert_eq!(left_over(&store), Vec::<String>::new());
}

#[test]
fn times_are_kept_on_request() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let draft = store.draft_layer().unwrap();
    write(draft.upper(), "file", "");
    dress(&draft.upper().join("file"), None, 0, 0, EPOCH + 5);
    let rules = CommitRules { keep_nondeterminism: true, ..rules() };
    let diff_id = draft.commit(&rules).unwrap().unwrap();
    assert_eq!(store.layer_manifest(&diff_id).unwrap().entry(b"file").unwrap().mtime, EPOCH + 5);
}

#[test]
fn an_empty_draft_is_no_layer() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    assert_eq!(store.draft_layer().unwrap().commit(&rules()).unwrap(), None);
    let draft = store.draft_layer().unwrap();
    write(draft.upper(), "run/ibid/ca.pem", "");
    fs::remove_dir_all(draft.upper().join("run")).unwrap();
    node(&draft.upper().join("socket"), FileType::Socket, 0, 0);
    assert_eq!(draft.commit(&rules()).unwrap(), None);
    assert_eq!(left_over(&store), Vec::<String>::new());
}

#[test]
fn what_no_archive_can_say_is_an_error() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let draft = store.draft_layer().unwrap();
    write(draft.upper(), "d/.wh.file", "");
    let error = draft.commit(&rules()).unwrap_err();
    assert!(matches!(error, Error::Unrepresentable { .. }), "{error}");
    assert_eq!(left_over(&store), Vec::<String>::new());
    let draft = store.draft_layer().unwrap();
    // Deeper than any path reaches.
    let mut folder = rustix::fs::open(draft.upper(), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    let name = "n".repeat(200);
    for _ in 0..30 {
        rustix::fs::mkdirat(&folder, &*name, Mode::RWXU).unwrap();
        folder = rustix::fs::openat(&folder, &*name, rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    }
    let error = draft.commit(&rules()).unwrap_err();
    assert!(matches!(error, Error::Unrepresentable { .. }), "{error}");
    assert_eq!(left_over(&store), Vec::<String>::new());
}

/// An overlay over layers, unmounted when dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// None, with a word why, where overlay cannot be mounted.
    fn new(lowers: &[std::path::PathBuf], upper: &Path, work: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let lowers: Vec<String> = lowers.iter().map(|lower| lower.display().to_string()).collect();
        let options = format!(
            "userxattr,lowerdir={},upperdir={},workdir={}",
            lowers.join(":"),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let mounted = rustix::mount::mount(
            "overlay",
            folder.path(),
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        );
        if let Err(errno) = mounted {
            support::missing("overlay", &format!("a step writes through one, and mounting gave: {errno}"));
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH).expect("what was mounted is unmounted");
    }
}

#[test]
fn what_a_step_does_through_an_overlay_becomes_its_layer() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let draft = store.draft_layer().unwrap();
    for path in ["etc/x", "d/a", "d/b", "opt/old/file", "opt/old/kept", "var/cache/ldconfig/own"] {
        write(draft.upper(), path, path);
    }
    let base = draft.commit(&rules()).unwrap().unwrap();
    let lowers = store.lowers(&[base]);
    assert_eq!(lowers, [store.layer_tree(&base), store.skeleton()]);

    let draft = store.draft_layer().unwrap();
    let Some(mounted) = Mounted::new(&lowers, draft.upper(), draft.work()) else { return };
    let root = mounted.0.path();
    assert!(root.join("run/ibid").is_dir() && root.join("etc/hosts").is_file());
    fs::remove_file(root.join("etc/x")).unwrap();
    fs::remove_dir_all(root.join("d")).unwrap();
    fs::create_dir(root.join("d")).unwrap();
    write(root, "d/new", "new");
    write(root, "opt/fresh/file", "fresh");
    fs::remove_file(root.join("opt/old/file")).unwrap();
    fs::set_permissions(root.join("opt/old/kept"), fs::Permissions::from_mode(0o4755)).unwrap();
    write(root, "var/cache/ldconfig/aux-cache", "dropped");
    drop(mounted);
    let rules = CommitRules { lowers, ..rules() };
    let step = draft.commit(&rules).unwrap().unwrap();
    let shown: Vec<String> = names(&archive(&store, &step));
    assert_eq!(
        shown,
        [
            "d/",
            "d/.wh..wh..opq",
            "d/new",
            "etc/",
            "etc/.wh.x",
            "opt/",
            "opt/fresh/",
            "opt/fresh/file",
            "opt/old/",
            "opt/old/.wh.file",
            "opt/old/kept",
        ]
    );

    // Mounted or imported elsewhere and mounted there: the same.
    let (_other_folder, other) = test_store();
    for layer in [base, step] {
        assert_eq!(other.import_layer(archive(&store, &layer).as_slice()).unwrap(), layer);
    }
    let mut views = Vec::new();
    for store in [&store, &other] {
        let scratch = store.scratch().unwrap();
        let Some(mounted) = Mounted::new(&store.lowers(&[base, step]), scratch.upper(), scratch.work())
        else {
            return;
        };
        let view = listing(mounted.0.path());
        // The skeleton is made by each store at another time.
        views.push(
            view.lines()
                .filter(|line| line.contains(&format!(" {EPOCH}.")))
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(views[0], views[1]);
    let shows = |path: &str| views[0].iter().any(|line| line.split(' ').nth(1) == Some(path));
    assert!(shows("d/new") && shows("opt/old/kept") && shows("opt/fresh/file"));
    assert!(!shows("etc/x") && !shows("d/a") && !shows("var/cache/ldconfig/aux-cache"));

    // A step that writes nothing but what is dropped, or removed again, makes no layer.
    let lowers = store.lowers(&[base, step]);
    let draft = store.draft_layer().unwrap();
    let Some(mounted) = Mounted::new(&lowers, draft.upper(), draft.work()) else { return };
    write(mounted.0.path(), "var/cache/ldconfig/aux-cache", "dropped");
    write(mounted.0.path(), "run/ibid/proxy", "dropped");
    write(mounted.0.path(), "opt/fresh/temporary", "removed");
    fs::remove_file(mounted.0.path().join("opt/fresh/temporary")).unwrap();
    drop(mounted);
    assert_eq!(draft.commit(&CommitRules { lowers, ..rules.clone() }).unwrap(), None);
}

#[test]
fn a_layer_that_occurs_twice_is_mounted_once() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let [same, between, last] = ["same", "between", "last"].map(|content| {
        let draft = store.draft_layer().unwrap();
        write(draft.upper(), "file", content);
        write(draft.upper(), content, "");
        draft.commit(&rules()).unwrap().unwrap()
    });
    let layers = [same, between, same, last, last];
    let trees = [last, same, between].map(|layer| store.layer_tree(&layer));
    assert_eq!(store.layer_trees(&layers), trees);
    let scratch = store.scratch().unwrap();
    let lowers = store.lowers(&layers[..3]);
    let Some(mounted) = Mounted::new(&lowers, scratch.upper(), scratch.work()) else { return };
    assert_eq!(fs::read_to_string(mounted.0.path().join("file")).unwrap(), "same");
    assert!(mounted.0.path().join("between").exists());
}

#[test]
fn places_of_mounts_leave_no_trace() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let draft = store.draft_layer().unwrap();
    for path in ["opt/kept", "var/lib/dpkg", "srv/x"] {
        write(draft.upper(), path, path);
    }
    let base = draft.commit(&rules()).unwrap().unwrap();
    let lowers = store.lowers(&[base]);
    // What is made for mounts at these places, and what the step does beside them.
    let check = |missing: &[&str], files: &[&str], step: &dyn Fn(&Path), expected: &[&str]| {
        let draft = store.draft_layer().unwrap();
        let Some(mounted) = Mounted::new(&lowers, draft.upper(), draft.work()) else { return };
        for path in missing {
            let path = mounted.0.path().join(&path[1..]);
            if files.iter().any(|file| path.ends_with(&file[1..])) {
                fs::write(path, "").unwrap();
            } else {
                fs::create_dir(path).unwrap();
            }
        }
        step(mounted.0.path());
        drop(mounted);
        let mount_points = missing.iter().map(Into::into).collect();
        let rules = CommitRules { lowers: lowers.clone(), mount_points, ..rules() };
        let layer = draft.commit(&rules).unwrap();
        assert_eq!(layer.map(|layer| names(&archive(&store, &layer))).unwrap_or_default(), expected);
        assert!(left_over(&store).is_empty());
    };
    let nothing = |_: &Path| {};
    check(&["/a", "/a/b", "/a/b/c"], &[], &nothing, &[]);
    check(
        &["/opt/x", "/opt/x/file", "/run/secrets", "/run/secrets/key"],
        &["/opt/x/file", "/key"],
        &nothing,
        &[],
    );
    // Not there when somebody else was faster, as below another mount.
    check(&[], &[], &|root| write(root, "new", ""), &["new"]);
    check(&["/a", "/a/b"], &[], &|root| write(root, "a/own", ""), &["a/", "a/own"]);
    check(&["/a", "/a/file"], &["/a/file"], &|root| write(root, "a/file", "own"), &["a/", "a/file"]);
    check(&["/opt/x"], &[], &|root| dress(&root.join("opt"), Some(0o700), 0, 0, 5), &["opt/"]);
    // A step cannot have more removed than places, by putting a link in their way.
    let link = |root: &Path| {
        fs::remove_dir(root.join("a/lib")).unwrap();
        fs::remove_dir(root.join("a")).unwrap();
        symlink("/made", root.join("a")).unwrap();
        fs::create_dir_all(root.join("made/lib")).unwrap();
    };
    check(&["/a", "/a/lib"], &[], &link, &["a", "made/", "made/lib/"]);
    let pipe = |root: &Path| {
        fs::remove_dir(root.join("a")).unwrap();
        node(&root.join("a"), FileType::Fifo, 0, 0);
    };
    check(&["/a"], &[], &pipe, &["a"]);
}

#[test]
fn damage_is_found_when_a_layer_is_read() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let new_layer = |content: &str| {
        let draft = store.draft_layer().unwrap();
        write(draft.upper(), "file", content);
        draft.commit(&rules()).unwrap().unwrap()
    };
    let written = |store: &Store, diff_id: &DiffId| {
        let mut bytes = Vec::new();
        store.write_layer_tar(diff_id, &mut bytes).map_err(|error| error.to_string())
    };
    let changed = new_layer("one");
    let path = store.layer_tree(&changed).join("file");
    fs::write(&path, "two").unwrap();
    let layer = store.root().join("layers").join(changed.0.hex());
    let error = written(&store, &changed).unwrap_err();
    assert!(
        error.starts_with(&format!("`{}` is damaged: its archive has the digest", layer.display())),
        "{error}"
    );
    for content in ["longer than before", "s"] {
        fs::write(&path, content).unwrap();
        assert_eq!(written(&store, &changed), Err(format!("`{}` changed while it was read", path.display())));
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(written(&store, &changed), Err(format!("cannot open `{}`", path.display())));
    let manifest = new_layer("three");
    let path = store.root().join("layers").join(manifest.0.hex()).join("manifest");
    fs::write(&path, "").unwrap();
    assert_eq!(written(&store, &manifest), Err(format!("`{}` is damaged: it is cut short", path.display())));
    let absent = DiffId(Digest::of(b"absent"));
    assert_eq!(written(&store, &absent), Err(format!("the store holds no layer {absent}")));
}
