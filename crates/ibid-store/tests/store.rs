//! Blobs, images, tags, the cache; several users at once.

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use ibid_core::digest::Digest;
use ibid_core::image::{ContainerConfig, ImageConfig, RootFs};
use ibid_core::reference::Reference;
use ibid_store::{CommitRules, Error, Store};
use support::{left_over, needs_root, test_store};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn a_download_is_kept_by_its_content_and_only_whole() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let digest = Digest::of(b"content");
    let mut draft = store.draft_download().unwrap();
    draft.write(b"a try that failed").unwrap();
    draft.restart().unwrap();
    draft.write(b"con").unwrap();
    draft.write(b"tent").unwrap();
    assert_eq!(draft.digest(), digest);
    assert_eq!(store.download(&digest).unwrap(), None);
    let path = draft.publish().unwrap();
    assert_eq!(store.download(&digest).unwrap().as_ref(), Some(&path));
    assert_eq!(std::fs::read(&path).unwrap(), b"content");

    // What is given up leaves nothing, and what was damaged is not there.
    let mut draft = store.draft_download().unwrap();
    draft.write(b"half").unwrap();
    drop(draft);
    assert_eq!(left_over(&store), Vec::<String>::new());
    std::fs::write(&path, "damaged").unwrap();
    assert_eq!(store.download(&digest).unwrap(), None);
    let mut draft = store.draft_download().unwrap();
    draft.write(b"content").unwrap();
    draft.publish().unwrap();
    assert_eq!(store.download(&digest).unwrap(), Some(path));

    // A store of an earlier version has no folder for it.
    std::fs::remove_dir_all(store.root().join("downloads")).unwrap();
    let mut draft = store.draft_download().unwrap();
    draft.write(b"content").unwrap();
    draft.publish().unwrap();
    assert!(store.download(&digest).unwrap().is_some());
}

#[test]
fn a_store_is_made_once_and_only_for_its_owner() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let again = Store::open(store.root()).unwrap();
    assert_eq!(again.root(), store.root());
    assert_eq!(fs::metadata(store.root()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(store.root().join("format")).unwrap(), "1\n");
    let mut skeleton = Vec::new();
    for line in support::listing(&store.skeleton()).lines() {
        skeleton.push(line.split(' ').take(4).collect::<Vec<_>>().join(" "));
    }
    assert_eq!(
        skeleton,
        [
            "folder dev 755 0:0",
            "folder etc 755 0:0",
            "file etc/hostname 644 0:0",
            "file etc/hosts 644 0:0",
            "file etc/resolv.conf 644 0:0",
            "folder proc 755 0:0",
            "folder run 755 0:0",
            "folder run/ibid 755 0:0",
            "file run/ibid/apt.conf 644 0:0",
            "file run/ibid/ca-certificates.crt 644 0:0",
            "folder sys 755 0:0",
        ]
    );
}

#[test]
fn other_formats_are_refused() {
    if !needs_root() {
        return;
    }
    #[track_caller]
    fn check(format: &str, expected: &str) {
        let (_folder, store) = test_store();
        fs::write(store.root().join("format"), format).unwrap();
        let error = Store::open(store.root()).unwrap_err().to_string();
        assert_eq!(error, expected.replace("ROOT", &store.root().display().to_string()));
    }
    check("2\n", "the store `ROOT` has format 2; this ibid knows formats up to 1");
    check("", "`ROOT/format` is damaged: `` is no number");
    check("one\n", "`ROOT/format` is damaged: `one` is no number");
}

#[test]
fn blobs_are_checked_when_read_and_mended_when_put_again() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let digest = store.put_blob(b"content").unwrap();
    assert_eq!(digest, Digest::of(b"content"));
    assert_eq!(store.blob(&digest).unwrap(), b"content");
    let path = store.root().join("blobs/sha256").join(digest.hex());
    fs::write(&path, "other").unwrap();
    let error = store.blob(&digest).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("`{}` is damaged: its content has the digest {}", path.display(), Digest::of(b"other"))
    );
    store.put_blob(b"content").unwrap();
    assert_eq!(store.blob(&digest).unwrap(), b"content");
    let absent = Digest::of(b"absent");
    assert!(matches!(store.blob(&absent), Err(Error::NoBlob { digest }) if digest == absent));
    assert_eq!(left_over(&store), Vec::<String>::new());
}

#[test]
fn images_are_named_by_their_configuration() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let config = ImageConfig {
        created: None,
        author: None,
        architecture: "amd64".to_owned(),
        variant: None,
        os: "linux".to_owned(),
        config: ContainerConfig::default(),
        rootfs: RootFs::new(Vec::new()),
        history: Vec::new(),
    };
    let digest = store.put_image(&config).unwrap();
    assert_eq!(digest, config.digest());
    assert_eq!(store.image(&digest).unwrap(), config);
    let no_image = store.put_blob(b"{}").unwrap();
    let error = store.image(&no_image).unwrap_err().to_string();
    assert!(error.contains("is damaged: it is no image configuration: "), "{error}");
}

#[test]
fn tags_are_set_replaced_and_listed() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let by_digest = format!("lab/a@{two}");
    // The tag `b` of `lab/a` and the repository `lab/a/b` are neighbours on disk.
    for text in ["mnist", "lab/a:b", "lab/a/b:c", "localhost:5000/x:1", &by_digest] {
        assert_eq!(store.tag(&reference(text)).unwrap(), None, "{text}");
        store.set_tag(&reference(text), one).unwrap();
        assert_eq!(store.tag(&reference(text)).unwrap(), Some(one), "{text}");
    }
    store.set_tag(&reference("mnist"), two).unwrap();
    let tags: Vec<_> = store
        .tags()
        .unwrap()
        .into_iter()
        .map(|(reference, digest)| (reference.to_string(), digest))
        .collect();
    assert_eq!(
        tags,
        [
            (by_digest, one),
            ("lab/a:b".to_owned(), one),
            ("lab/a/b:c".to_owned(), one),
            ("mnist:latest".to_owned(), two),
            ("localhost:5000/x:1".to_owned(), one),
        ]
    );
    let hostile =
        [("..", "a", "t"), ("r", "../../a", "t"), ("r", "a//b", "t"), ("r", "a", "../t"), ("", "a", "t")];
    for (registry, repository, tag) in hostile {
        let reference = Reference {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: Some(tag.to_owned()),
            digest: None,
        };
        assert!(matches!(store.set_tag(&reference, one), Err(Error::InvalidTag { .. })), "{reference}");
        assert!(matches!(store.tag(&reference), Err(Error::InvalidTag { .. })), "{reference}");
    }
    let path = store.root().join("tags/docker.io/library/mnist/:latest");
    fs::write(&path, "no digest\n").unwrap();
    let error = store.tag(&reference("mnist")).unwrap_err().to_string();
    assert!(error.starts_with(&format!("`{}` is damaged: ", path.display())), "{error}");
}

#[test]
fn the_cache_holds_whole_values() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let key = Digest::of(b"key");
    assert_eq!(store.cache(&key).unwrap(), None);
    for value in [b"one".as_slice(), b"two"] {
        store.put_cache(&key, value).unwrap();
        assert_eq!(store.cache(&key).unwrap().as_deref(), Some(value));
    }
    // As after a power cut.
    fs::write(store.root().join("cache").join(key.hex()), "").unwrap();
    assert_eq!(store.cache(&key).unwrap(), None);
    assert_eq!(left_over(&store), Vec::<String>::new());
}

#[test]
fn what_the_dead_left_is_removed_and_what_lives_is_not() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let live = store.draft_layer().unwrap();
    let scratch = store.scratch().unwrap();
    fs::write(scratch.upper().join("file"), "").unwrap();
    let of_run = store.scratch_of_run().unwrap();
    fs::write(of_run.upper().join("file"), "").unwrap();
    // One of the others of its kind.
    let of_dead_run = of_run.path().with_file_name(if of_run.path().ends_with("07") { "08" } else { "07" });
    fs::create_dir_all(of_dead_run.join("upper/more")).unwrap();
    let tmp = store.root().join("tmp");
    let mut deep = tmp.join("dead-draft");
    for _ in 0..200 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "").unwrap();
    fs::set_permissions(tmp.join("dead-draft/d"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::write(tmp.join("dead-file"), "").unwrap();
    std::os::unix::fs::symlink("/nowhere", tmp.join("no-thing-of-ours")).unwrap();
    Store::open(store.root()).unwrap();
    assert!(of_run.upper().join("file").exists());
    assert_eq!(fs::read_dir(&of_dead_run).unwrap().count(), 0);
    let mut left = left_over(&store);
    left.sort();
    let name = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut expected = vec![name(live.path()), name(scratch.path()), "no-thing-of-ours".to_owned()];
    expected.sort();
    assert_eq!(left, expected);
    let (live_path, scratch_path) = (live.path().to_owned(), scratch.path().to_owned());
    let kept = of_run.path().to_owned();
    of_run.remove().unwrap();
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 0);
    drop(live);
    scratch.remove().unwrap();
    assert!(!live_path.exists() && !scratch_path.exists());
}

/// What each of several processes does to one store.
fn use_store(store: &Store, turns: usize) {
    for turn in 0..turns {
        let draft = store.draft_layer().unwrap();
        fs::write(draft.upper().join("file"), format!("{turn}")).unwrap();
        fs::write(draft.upper().join("large"), vec![turn as u8; 100_000]).unwrap();
        let rules = CommitRules { epoch: 1, ..CommitRules::default() };
        let diff_id = draft.commit(&rules).unwrap().unwrap();
        let bytes = support::archive(store, &diff_id);
        assert_eq!(store.import_layer(bytes.as_slice()).unwrap(), diff_id);
        store.set_tag(&reference("shared:tag"), diff_id.0).unwrap();
        assert!(store.tag(&reference("shared:tag")).unwrap().is_some());
        store.put_cache(&Digest::of(b"shared"), diff_id.to_string().as_bytes()).unwrap();
        assert_eq!(store.cache(&Digest::of(b"shared")).unwrap().unwrap().len(), diff_id.to_string().len());
        store.put_blob(format!("blob {turn}").as_bytes()).unwrap();
        // Others clean up while this one works.
        Store::open(store.root()).unwrap();
    }
}

const TURNS: usize = 20;

/// Not a test of its own: what [`several_processes_use_a_store_at_once`] starts.
#[test]
fn child_that_uses_a_store() {
    if let Some(root) = std::env::var_os("IBID_STORE_TEST_ROOT") {
        use_store(&Store::open(root.as_ref()).unwrap(), TURNS);
    }
}

#[test]
fn several_processes_use_a_store_at_once() {
    if !needs_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let mut children: Vec<_> = (0..3)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child_that_uses_a_store"])
                .env("IBID_STORE_TEST_ROOT", &root)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    // All make the store at once, too.
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let store = Store::open(&root).unwrap();
    assert_eq!(fs::read_dir(root.join("layers")).unwrap().count(), TURNS);
    assert_eq!(fs::read_dir(root.join("blobs/sha256")).unwrap().count(), TURNS);
    assert_eq!(left_over(&store), Vec::<String>::new());
}

#[test]
fn a_full_disk_leaves_nothing_incomplete() {
    if !needs_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mounted = rustix::mount::mount(
        "tmpfs",
        folder.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=1m"),
    );
    if let Err(errno) = mounted {
        support::missing("root", &format!("a small disk is mounted, and mounting gave: {errno}"));
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let store = Store::open(&folder.path().join("store")).unwrap();
        let full = |error: Error| match error {
            Error::Io { action, path, source } => {
                assert!(path.starts_with(store.root()), "{}", path.display());
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{action}");
            }
            other => panic!("{other}"),
        };
        let kept = store.put_blob(b"kept").unwrap();
        // One file by a thread, one piece by piece.
        for size in [1_000_000, 3_000_000] {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(size);
            header.set_mode(0o644);
            for name in ["one", "two"] {
                archive.append_data(&mut header, name, std::io::repeat(7).take(size)).unwrap();
            }
            full(store.import_layer(archive.into_inner().unwrap().as_slice()).unwrap_err());
            assert_eq!(left_over(&store), Vec::<String>::new());
        }
        full(store.put_blob(&vec![7; 2_000_000]).unwrap_err());
        full(store.put_cache(&kept, &vec![7; 2_000_000]).unwrap_err());
        assert_eq!(left_over(&store), Vec::<String>::new());
        let count = |name: &str| fs::read_dir(store.root().join(name)).unwrap().count();
        assert_eq!((count("layers"), count("blobs/sha256"), count("cache")), (0, 1, 0));
        assert_eq!(store.blob(&kept).unwrap(), b"kept");
    });
    rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn what_has_come_of_a_blob_stays_until_it_is_removed() {
    if !needs_root() {
        return;
    }
    use std::io::{Read as _, Write as _};
    let (_folder, store) = test_store();
    let digest = Digest::of(b"blob");
    let nobody = || panic!("nobody else is at it");
    let part = store.part_download(&digest, &nobody).expect("a part");
    part.file().write_all(b"bl").expect("written");
    drop(part);
    let part = store.part_download(&digest, &nobody).expect("the same");
    let mut content = String::new();
    part.file().read_to_string(&mut content).expect("text");
    assert_eq!(content, "bl");
    // Another one waits, and finds nothing when the first has it all.
    std::thread::scope(|scope| {
        let (waits, waiting) = std::sync::mpsc::channel();
        let other = scope
            .spawn(|| store.part_download(&digest, &move || waits.send(()).expect("heard")).expect("a part"));
        waiting.recv().expect("it waits");
        part.remove().expect("removed");
        let other = other.join().expect("no panic");
        assert_eq!(other.file().metadata().expect("a file").len(), 0);
    });
}
