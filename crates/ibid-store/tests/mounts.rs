//! Cache mounts: who gets which copy, and what is left of them.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ibid_core::digest::Digest;
use ibid_core::plan::Sharing;
use ibid_store::{CacheMount, CacheMounts, Error, ItemKind, LedgerNeeds, Limit, Store};
use support::{left_over, needs_root, test_store};

fn name() -> Digest {
    Digest::of(b"a mount")
}

fn hold(mounts: &CacheMounts, sharing: Sharing) -> Option<CacheMount> {
    mounts.hold::<Error>(&name(), "/cache", sharing, |_| Ok(())).expect("the store works")
}

fn number(mount: &CacheMount) -> u32 {
    let folder = mount.path().parent().and_then(Path::file_name).expect("a copy's folder");
    folder.to_str().expect("a number").parse().expect("a number")
}

#[test]
fn copies_go_to_those_who_can_have_them() {
    if !needs_root() {
        return;
    }
    use Sharing::{Locked, Private, Shared};
    // Who holds the mount already; who wants it; which copy that one gets, if any.
    let check = |held: &[Sharing], wanted: Sharing, expected: Option<u32>| {
        let (_folder, store) = test_store();
        let mounts = store.cache_mounts();
        let _held: Vec<_> = held.iter().map(|sharing| hold(&mounts, *sharing).expect("free")).collect();
        let got = hold(&mounts, wanted);
        assert_eq!(got.as_ref().map(number), expected, "{held:?} {wanted:?}");
        assert!(left_over(&store).is_empty());
    };
    for wanted in [Shared, Private, Locked] {
        check(&[], wanted, Some(0));
    }
    check(&[Shared], Shared, Some(0));
    check(&[Shared], Private, Some(1));
    check(&[Shared], Locked, None);
    check(&[Private], Shared, Some(1));
    check(&[Private], Private, Some(1));
    check(&[Private, Private], Private, Some(2));
    check(&[Private], Locked, None);
    check(&[Locked], Shared, Some(1));
    check(&[Locked], Private, Some(1));
    check(&[Locked], Locked, None);
}

#[test]
fn what_was_written_is_found_again() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let mounts = store.cache_mounts();
    let fill = |tree: &Path| {
        fs::write(tree.join("start"), "filled").expect("ours");
        Ok::<(), Error>(())
    };
    let held = mounts.hold(&name(), "id", Sharing::Locked, fill).expect("works").expect("free");
    fs::write(held.path().join("own"), "kept").expect("ours");
    drop(held);
    let again = mounts.hold(&name(), "id", Sharing::Shared, fill).expect("works").expect("free");
    assert_eq!(fs::read_to_string(again.path().join("own")).expect("kept"), "kept");
    assert_eq!(fs::read_to_string(again.path().join("start")).expect("filled"), "filled");
    // Another name is another mount, and one of a scratch folder is not that of the store.
    let other = mounts.hold::<Error>(&Digest::of(b"other"), "id", Sharing::Shared, |_| Ok(()));
    assert!(!other.expect("works").expect("free").path().join("own").exists());
    let scratch = store.scratch().expect("works");
    let trial = hold(&scratch.cache_mounts(&store), Sharing::Shared).expect("free");
    assert!(!trial.path().join("own").exists());
    fs::write(trial.path().join("own"), "trial").expect("ours");
    drop(trial);
    assert!(hold(&scratch.cache_mounts(&store), Sharing::Locked).expect("free").path().join("own").exists());
    scratch.remove().expect("works");
    assert_eq!(fs::read_to_string(again.path().join("own")).expect("kept"), "kept");
}

#[test]
fn one_that_could_not_be_filled_is_not_there() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let mounts = store.cache_mounts();
    let failed = mounts.hold(&name(), "id", Sharing::Shared, |tree| {
        fs::write(tree.join("half"), "").expect("ours");
        Err(Error::Unrepresentable { path: tree.to_owned(), reason: "of a test" })
    });
    assert!(failed.is_err());
    assert!(left_over(&store).is_empty());
    let held = hold(&mounts, Sharing::Shared).expect("free");
    assert_eq!(fs::read_dir(held.path()).expect("there").count(), 0);
    // An older store has no folder for them.
    drop(held);
    fs::remove_dir_all(store.root().join("mounts")).expect("ours");
    assert_eq!(hold(&mounts, Sharing::Shared).as_ref().map(number), Some(0));
}

#[test]
fn many_at_once_get_one_copy_or_wait() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let mounts = store.cache_mounts();
    let inside = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let held = loop {
                    match hold(&mounts, Sharing::Locked) {
                        Some(held) => break held,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(number(&held), 0);
                use std::sync::atomic::Ordering::SeqCst;
                assert_eq!(inside.fetch_add(1, SeqCst), 0, "two hold it at once");
                std::thread::yield_now();
                inside.fetch_sub(1, SeqCst);
            });
        }
    });
    std::thread::scope(|scope| {
        let mounts = &mounts;
        let shared = |name: &'static [u8]| {
            let hold = move || mounts.hold::<Error>(&Digest::of(name), "id", Sharing::Shared, |_| Ok(()));
            scope.spawn(move || number(&hold().expect("works").expect("shared")))
        };
        let held: Vec<_> = (0..8).map(|_| shared(b"new")).collect();
        for thread in held {
            assert_eq!(thread.join().expect("no panic"), 0);
        }
    });
    assert!(left_over(&store).is_empty());
}

/// Not a test by itself: a process that holds a mount until it is killed.
#[test]
fn child_that_holds_a_mount() {
    let Some(root) = std::env::var_os("IBID_TEST_MOUNT_STORE") else { return };
    let store = Store::open(Path::new(&root)).expect("a store");
    let held = hold(&store.cache_mounts(), Sharing::Locked).expect("free");
    fs::write(held.path().join("half"), "").expect("ours");
    loop {
        std::thread::park();
    }
}

#[test]
fn one_whose_holder_was_killed_is_free_again() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_holds_a_mount"])
        .env("IBID_TEST_MOUNT_STORE", store.root())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let half = store.root().join("mounts").join(name().hex()).join("0/tree/half");
    while !half.exists() {
        assert!(child.try_wait().expect("a child").is_none(), "the child ended early");
        std::thread::yield_now();
    }
    assert!(hold(&store.cache_mounts(), Sharing::Locked).is_none());
    child.kill().expect("it runs");
    child.wait().expect("a child");
    let held = hold(&store.cache_mounts(), Sharing::Locked).expect("free again");
    assert!(held.path().join("half").exists());
}

#[test]
fn a_collector_takes_those_that_nobody_holds() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let mounts = store.cache_mounts();
    let fill = |tree: &Path| {
        fs::write(tree.join("file"), "x".repeat(100_000)).expect("ours");
        Ok::<(), Error>(())
    };
    let hold = |name: &[u8], id: &str| {
        mounts.hold(&Digest::of(name), id, Sharing::Private, fill).expect("works").expect("free")
    };
    let (used, free) = (hold(b"used", "/used"), hold(b"free", "/free"));
    let second = hold(b"free", "/free");
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
    for mount in [&used, &free, &second] {
        let folder = fs::File::open(mount.path().parent().expect("a copy")).expect("there");
        folder.set_modified(old).expect("ours");
    }
    drop((free, second));
    let collect = |limit| {
        store
            .collect(limit, false, &|_| LedgerNeeds::Absent, &|| panic!("nobody else uses the store"))
            .expect("works")
    };
    assert_eq!(collect(Limit::UnusedSince(1000)).removed, []);
    let collected = collect(Limit::UnusedSince(1001));
    let removed: Vec<_> = collected.removed.iter().map(|item| (item.kind, item.name.as_str())).collect();
    assert_eq!(removed, [(ItemKind::CacheMount, "/free")]);
    assert!(collected.removed[0].bytes >= 200_000, "{}", collected.removed[0].bytes);
    assert!(collected.bytes_needed >= 100_000, "{}", collected.bytes_needed);
    assert!(used.path().join("file").exists());
    assert!(!store.root().join("mounts").join(Digest::of(b"free").hex()).exists());
    // Using it makes it new.
    drop(used);
    drop(hold(b"used", "/used"));
    assert_eq!(collect(Limit::UnusedSince(1001)).removed, []);
    assert_eq!(collect(Limit::Bytes(0)).removed.len(), 1);
}
