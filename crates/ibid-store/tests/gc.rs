//! Deleting what nothing needs.

mod support;

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::Command;

use ibid_core::digest::{DiffId, Digest};
use ibid_core::image::{ContainerConfig, ImageConfig, RootFs};
use ibid_store::{CommitRules, ItemKind, LedgerNeeds, Limit, Store};
use support::{left_over, needs_root, test_store};

fn layer(store: &Store, content: &str) -> DiffId {
    let draft = store.draft_layer().unwrap();
    fs::write(draft.upper().join("file"), content).unwrap();
    draft.commit(&CommitRules::default()).unwrap().expect("a file was made")
}

fn image(store: &Store, layers: &[DiffId], name: Option<&str>) -> Digest {
    let config = ImageConfig {
        created: None,
        author: None,
        architecture: "amd64".to_owned(),
        variant: None,
        os: "linux".to_owned(),
        config: ContainerConfig::default(),
        rootfs: RootFs::new(layers.to_vec()),
        history: Vec::new(),
    };
    let digest = store.put_image(&config).unwrap();
    if let Some(name) = name {
        store.set_tag(&name.parse().unwrap(), digest).unwrap();
    }
    digest
}

/// As if the layer had been used that many seconds after 1970 and not since.
fn used_at(store: &Store, layer: &DiffId, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    fs::File::open(store.root().join("layers").join(layer.0.hex())).unwrap().set_modified(time).unwrap();
}

fn no_wait() {
    panic!("nobody else uses the store");
}

#[test]
fn what_tags_and_leases_need_stays() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let [tagged, leased, loose] = ["tagged", "leased", "loose"].map(|content| layer(&store, content));
    let kept_image = image(&store, &[tagged], Some("kept"));
    let loose_image = image(&store, &[loose], None);
    store.put_note(&loose_image, b"note").unwrap();
    let (step, other) = (Digest::of(b"step"), Digest::of(b"other"));
    store.put_cache(&step, format!("{{\"layer\":\"{loose}\"}}").as_bytes()).unwrap();
    store.put_cache(&other, format!("{{\"layer\":\"{tagged}\"}}").as_bytes()).unwrap();
    fs::write(store.root().join("debs/1.deb"), "package").unwrap();
    let mut download = store.draft_download().unwrap();
    download.write(b"fetched").unwrap();
    download.publish().unwrap();
    let scratch = store.scratch_of_run().unwrap();
    scratch.lease(&[leased], None).unwrap();

    let planned = store.collect(Limit::Bytes(0), true, &|_| LedgerNeeds::Absent, &no_wait).unwrap();
    assert!(store.has_layer(&loose), "a dry run removes nothing");
    // A cache value that names a kept layer goes only by its own age; with nothing to be kept, all of them go.
    let mut kinds: Vec<ItemKind> = planned.removed.iter().map(|item| item.kind).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            ItemKind::Layer,
            ItemKind::Image,
            ItemKind::Package,
            ItemKind::Download,
            ItemKind::CacheValue,
            ItemKind::CacheValue
        ]
    );
    let done = store.collect(Limit::Bytes(0), false, &|_| LedgerNeeds::Absent, &no_wait).unwrap();
    assert_eq!(done, planned);
    assert!(store.has_layer(&tagged) && store.has_layer(&leased) && !store.has_layer(&loose));
    assert!(store.image(&kept_image).is_ok() && store.image(&loose_image).is_err());
    assert_eq!(store.note(&loose_image).unwrap(), None);
    assert_eq!(store.cache(&step).unwrap(), None);
    assert!(done.bytes_left >= done.bytes_needed && done.bytes_needed > 0);

    drop(scratch);
    store.collect(Limit::Bytes(0), false, &|_| LedgerNeeds::Absent, &no_wait).unwrap();
    assert!(!store.has_layer(&leased));
    assert_eq!(left_over(&store), Vec::<String>::new());
}

#[test]
fn the_least_recently_used_go_first() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let layers = ["a", "b", "c"].map(|content| layer(&store, &content.repeat(100_000)));
    for (layer, time) in layers.iter().zip([3000, 1000, 2000]) {
        used_at(&store, layer, time);
    }
    let step = Digest::of(b"step");
    store.put_cache(&step, format!("{{\"layer\":\"{}\"}}", layers[1]).as_bytes()).unwrap();
    let has = || layers.map(|layer| store.has_layer(&layer));

    store.collect(Limit::UnusedSince(1000), false, &|_| LedgerNeeds::Absent, &no_wait).unwrap();
    assert_eq!(has(), [true, true, true]);
    let collected = store.collect(Limit::Bytes(250_000), false, &|_| LedgerNeeds::Absent, &no_wait).unwrap();
    assert_eq!(has(), [true, false, true]);
    assert_eq!(collected.removed.len(), 1);
    assert_eq!(store.cache(&step).unwrap(), None, "it names what is gone");
    store.use_layer(&layers[2]);
    store.collect(Limit::UnusedSince(4000), false, &|_| LedgerNeeds::Absent, &no_wait).unwrap();
    assert_eq!(has(), [false, false, true]);
}

/// Not a test by itself: another process that uses a store until its input ends.
#[test]
fn child_that_uses_a_store() {
    let Some(root) = std::env::var_os("IBID_TEST_GC_STORE") else { return };
    let store = Store::open(std::path::Path::new(&root)).unwrap();
    if std::env::var_os("IBID_TEST_GC_UNLOCK").is_some() {
        store.unlock();
    }
    fs::write(std::path::Path::new(&root).join("child"), "").unwrap();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new()).unwrap();
}

#[test]
fn deleting_waits_for_builds_and_not_for_runs() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    for unlocks in [true, false] {
        let ready = store.root().join("child");
        let _ = fs::remove_file(&ready);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child_that_uses_a_store", "--nocapture"]);
        command.env("IBID_TEST_GC_STORE", store.root()).stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::null());
        if unlocks {
            command.env("IBID_TEST_GC_UNLOCK", "1");
        }
        let mut child = command.spawn().unwrap();
        while !ready.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the child ended early");
            std::thread::yield_now();
        }
        let input = std::cell::Cell::new(child.stdin.take());
        let waited = std::cell::Cell::new(false);
        let on_wait = || {
            waited.set(true);
            // Which ends the other.
            drop(input.take());
        };
        store.collect(Limit::Bytes(0), false, &|_| LedgerNeeds::Absent, &on_wait).unwrap();
        assert_eq!(waited.get(), !unlocks);
        drop(input);
        assert!(child.wait().unwrap().success());
        fs::remove_file(&ready).unwrap();
    }
}

#[test]
fn what_ledgers_need_stays() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let images = ["one", "two", "three"].map(|content| image(&store, &[layer(&store, content)], None));
    let ledger = Path::new("/home/ann/project/.ibid");
    store.use_in_ledger(ledger, &images[0]).unwrap();
    store.use_in_ledger(ledger, &images[1]).unwrap();
    store.use_in_ledger(ledger, &images[1]).unwrap();
    let asked = RefCell::new(Vec::new());
    let check = |needs: LedgerNeeds, left: &[Digest]| {
        let ask = |path: &Path| {
            asked.borrow_mut().push(path.to_owned());
            needs.clone()
        };
        // Saying what would go changes nothing.
        store.collect(Limit::Bytes(0), true, &ask, &no_wait).unwrap();
        store.collect(Limit::Bytes(0), false, &ask, &no_wait).unwrap();
        for image in images {
            let is_whole =
                store.image(&image).is_ok_and(|config| store.has_layer(&config.rootfs.diff_ids[0]));
            assert_eq!(is_whole, left.contains(&image), "{needs:?}");
        }
    };
    // Its disk may come back.
    check(LedgerNeeds::Absent, &images[..2]);
    // What it said before counts where it cannot say all.
    check(LedgerNeeds::AtLeast([images[1]].into()), &images[..2]);
    check(LedgerNeeds::Images([images[1]].into()), &images[1..2]);
    assert!(asked.borrow().iter().all(|path| path == ledger));
    assert_eq!(asked.borrow().len(), 6);
    // It was not seen for long.
    let list = fs::read_dir(store.root().join("ledgers")).unwrap().next().unwrap().unwrap().path();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(31 * 86_400);
    fs::File::options().append(true).open(list).unwrap().set_modified(long_ago).unwrap();
    check(LedgerNeeds::Absent, &[]);
    asked.borrow_mut().clear();
    check(LedgerNeeds::Absent, &[]);
    assert!(asked.borrow().is_empty(), "it is forgotten");
}
