//! Layers in which one owner's files of an image are another's.

mod support;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;

use ibid_core::digest::DiffId;
use ibid_store::{
    CommitRules, Copying, IdentityLayer, ItemKind, LedgerNeeds, Limit, OwnerChange, Scratch, Store,
};
use rustix::fs::XattrFlags;
use support::{left_over, listing, needs_root, test_store};

const CHANGE: OwnerChange = OwnerChange { from: (1000, 1000), to: (7, 8) };

/// A layer that `fill` makes in an empty folder; nothing of it is dropped.
fn layer(store: &Store, fill: impl Fn(&Path)) -> DiffId {
    let draft = store.draft_layer().unwrap();
    fill(draft.upper());
    let rules = CommitRules { epoch: 1_000_000, ..CommitRules::default() };
    draft.commit(&rules).unwrap().expect("something was made")
}

fn folder(path: &Path, mode: u32, owner: u32) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
}

fn file(path: &Path, content: &str, mode: u32, owner: u32) {
    fs::write(path, content).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn home(root: &Path) {
    folder(&root.join("home"), 0o755, 0);
    let home = root.join("home/u");
    folder(&home, 0o700, 1000);
    file(&home.join("a"), "content", 0o640, 1000);
    fs::hard_link(home.join("a"), home.join("b")).unwrap();
    file(&home.join("tool"), "program", 0o4755, 1000);
    file(&home.join("roots"), "root's", 0o600, 0);
    rustix::fs::setxattr(home.join("tool"), c"user.note", b"seen", XattrFlags::empty()).unwrap();
    symlink("a", home.join("link")).unwrap();
    lchown(home.join("link"), Some(1000), Some(1000)).unwrap();
    folder(&home.join("closed"), 0o500, 1000);
    file(&home.join("closed/x"), &"x".repeat(100_000), 0o444, 1000);
}

/// The identity layer, and whether anything was copied for it.
fn made(store: &Store, layers: &[DiffId]) -> (Option<IdentityLayer>, bool, Scratch) {
    let scratch = store.scratch().unwrap();
    let copies = Cell::new(false);
    let on_copy = |copying| {
        assert!(matches!(copying, Copying::Starts(_)));
        copies.set(true);
    };
    let layer = store.identity_layer(layers, CHANGE, &scratch, &on_copy).unwrap();
    scratch.lease(layers, layer.as_ref()).unwrap();
    (layer, copies.get(), scratch)
}

#[test]
fn copies_are_what_they_are_copies_of_but_for_the_owner() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let lower = layer(&store, home);
    let upper = layer(&store, |root| {
        folder(&root.join("home"), 0o755, 0);
        folder(&root.join("home/u"), 0o700, 1000);
        file(&root.join("home/u/b"), "another", 0o600, 1000);
        file(&root.join("other"), "others'", 0o666, 1001);
    });
    let before = [lower, upper].map(|layer| listing(&store.layer_tree(&layer)));
    let (identity, copied, _scratch) = made(&store, &[lower, upper]);
    assert!(copied);
    assert_eq!(
        listing(identity.expect("something changes").tree()),
        "folder home 755 0:0 1000000.0\n\
         folder home/u 700 7:8 1000000.0\n\
         file home/u/a 640 7:8 1000000.0 7 ed7002b4\n\
         file home/u/b 600 7:8 1000000.0 7 ae448ac8\n\
         folder home/u/closed 500 7:8 1000000.0\n\
         file home/u/closed/x 444 7:8 1000000.0 100000 d69e6898\n\
         link home/u/link 777 7:8 1000000.0 -> a\n\
         file home/u/tool 4755 7:8 1000000.0 7 1310ca2c user.note=seen\n"
    );
    let after = [lower, upper].map(|layer| listing(&store.layer_tree(&layer)));
    assert_eq!(after, before);
    let (alone, _, _scratch) = made(&store, &[lower]);
    let listing = listing(alone.expect("something changes").tree());
    assert!(listing.contains("home/u/b 640 7:8 1000000.0 7 ed7002b4 same as home/u/a\n"), "{listing}");
}

#[test]
fn what_was_made_is_found_again() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let foreign = layer(&store, home);
    let others = layer(&store, |root| file(&root.join("x"), "x", 0o600, 1001));
    let (first, copied, _first) = made(&store, &[foreign]);
    let (second, copied_again, _second) = made(&store, &[foreign]);
    assert!(copied && !copied_again && first.is_some());
    assert_eq!(first, second);
    // That nothing changes is known, too.
    for expected in [1, 1] {
        let (none, copied, _scratch) = made(&store, &[others]);
        assert!(none.is_none() && !copied);
        assert_eq!(fs::read_dir(store.root().join("identities")).unwrap().count(), 1 + expected);
    }
    let (none, ..) = made(&store, &[]);
    assert!(none.is_none());
}

#[test]
fn many_who_start_at_once_get_the_same() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let layer = layer(&store, |root| {
        for number in 0..300 {
            file(&root.join(number.to_string()), "content", 0o600, 1000);
        }
    });
    let found: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| made(&store, &[layer]))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let tree = found[0].0.as_ref().expect("something changes").tree();
    assert!(found.iter().all(|(identity, ..)| identity.as_ref().is_some_and(|it| it.tree() == tree)));
    assert_eq!(listing(tree).lines().filter(|line| line.contains(" 600 7:8 ")).count(), 300);
    drop(found);
    assert_eq!(left_over(&store), Vec::<String>::new());
}

#[test]
fn what_breaks_off_is_not_there() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let layer = layer(&store, home);
    fs::write(store.layer_tree(&layer).join("home/u/a"), "cut").unwrap();
    let scratch = store.scratch().unwrap();
    let error = store.identity_layer(&[layer], CHANGE, &scratch, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("home/u/a` is damaged: it has 3 bytes"), "{error}");
    drop(scratch);
    assert_eq!(left_over(&store), Vec::<String>::new());
    assert!(!store.root().join("identities").exists());
}

#[test]
fn it_goes_before_layers_and_with_them() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let layer = layer(&store, home);
    let collect = |limit| {
        let collected = store.collect(limit, false, &|_| LedgerNeeds::Absent, &|| {}).unwrap();
        collected.removed.iter().map(|item| item.kind).collect::<Vec<_>>()
    };
    let whole = |store: &Store| {
        let nothing = store.collect(Limit::Bytes(u64::MAX), true, &|_| LedgerNeeds::Absent, &|| {}).unwrap();
        nothing.bytes_left
    };
    let without = whole(&store);
    let (identity, _, scratch) = made(&store, &[layer]);
    let with = whole(&store);
    assert!(with > without + 100_000, "it is counted");
    assert_eq!(collect(Limit::Bytes(0)), [], "a run uses it");
    drop(scratch);
    assert_eq!(collect(Limit::Bytes(with - 1)), [ItemKind::IdentityLayer]);
    assert!(!identity.expect("something changes").tree().exists());
    made(&store, &[layer]);
    assert_eq!(collect(Limit::Bytes(0)), [ItemKind::IdentityLayer, ItemKind::Layer]);

    // A copy of what is damaged is not used either.
    let layer = self::layer(&store, home);
    made(&store, &[layer]);
    fs::write(store.layer_tree(&layer).join("home/u/a"), "damage!").unwrap();
    let damaged = store.verify(&|_, _| {}).unwrap().damaged;
    assert_eq!(damaged.len(), 1);
    store.quarantine(&damaged, &|| {}).unwrap();
    assert_eq!(fs::read_dir(store.root().join("identities")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.root().join("quarantine")).unwrap().count(), 2);
}

#[test]
fn after_a_restart_of_the_machine_it_is_made_anew() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let layer = layer(&store, home);
    made(&store, &[layer]);
    let root = store.root().to_owned();
    drop(store);
    let boot = root.join("boot");
    let noted = fs::metadata(&boot).unwrap().modified().unwrap();
    fs::write(&boot, "another start\n").unwrap();
    fs::File::open(&boot).unwrap().set_modified(noted).unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(fs::read_dir(root.join("identities")).unwrap().count(), 0);
    let (identity, copied, _scratch) = made(&store, &[layer]);
    assert!(identity.is_some() && copied);
}
