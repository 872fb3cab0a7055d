//! Real bases from the host's own mirror, made in the sandbox. Its own `main`, since the sandbox starts this
//! program again as its stage.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use ibid_debian::{BaseSpec, Event, Host, LockedBase};
use ibid_store::Store;
use ibid_testing::{Need, OrdinaryUser, need};
use libtest_mimic::{Arguments, Trial};

const EPOCH: i64 = ibid_core::time::DEFAULT_EPOCH;
/// Asks this program to make one image: store, lock file. It prints the digest.
const MAKE: &str = "IBID_DEBIAN_TEST_MAKE";

fn main() -> ExitCode {
    ibid_sandbox::stage_main_if_asked();
    if let Some(store) = std::env::var_os(MAKE) {
        ibid_sandbox::userns::ensure().expect("a user namespace");
        let store = Path::new(&store);
        let lock = std::fs::read_to_string(store.join("lock.toml")).expect("a lock");
        let lock: LockedBase = toml_edit::de::from_str(&lock).expect("a lock");
        let image = make(&store.join("store"), &lock);
        println!("{image}");
        return ExitCode::SUCCESS;
    }
    let trials = vec![
        Trial::test("same_lock_gives_same_digest", || {
            same_lock_gives_same_digest();
            Ok(())
        }),
        Trial::test("failing_script_is_shown", || {
            failing_script_is_shown();
            Ok(())
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn spec(packages: &[&str]) -> BaseSpec {
    BaseSpec {
        suite: None,
        packages: packages.iter().map(|&name| name.to_owned()).collect(),
        mirror: None,
        keyring: None,
        components: Vec::new(),
        architecture: ibid_debian::host_architecture().expect("an architecture of Debian's").to_owned(),
    }
}

fn host() -> Host {
    Host::read(Path::new("/"), std::env::vars()).expect("the host's configuration is read")
}

fn now() -> i64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    i64::try_from(time.as_secs()).expect("a time of this age")
}

fn make(store: &Path, lock: &LockedBase) -> String {
    let store = Store::open(store).expect("a store");
    ibid_debian::make(&store, lock, &spec(&[]), &host(), EPOCH, &|_| {}).expect("an image").to_string()
}

/// Needs what a bootstrap needs; says why it is skipped.
fn can_bootstrap() -> bool {
    if host_has_no_sources() {
        println!("skipped: needs apt sources of Debian on this host because the packages come from there");
        return false;
    }
    need(&[Need::Root, Need::Overlay, Need::Mirror])
}

fn host_has_no_sources() -> bool {
    !Path::new("/etc/debian_version").exists()
}

fn same_lock_gives_same_digest() {
    if !can_bootstrap() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let lock = ibid_debian::resolve(
        &spec(&["ca-certificates"]),
        &host(),
        &folder.path().join("cache"),
        now(),
        &|_| {},
    )
    .expect("packages are chosen");
    assert!(lock.answers(&spec(&["ca-certificates"])));
    let first = make(&folder.path().join("store"), &lock);
    assert_eq!(make(&folder.path().join("store"), &lock), first, "the image that is there is found");

    // Again in another store, by an ordinary user where there is one.
    let again = folder.path().join("again");
    let debs = again.join("store/debs");
    std::fs::create_dir_all(&again).expect("a folder");
    Store::open(&again.join("store")).expect("a store");
    for entry in std::fs::read_dir(folder.path().join("store/debs")).expect("packages") {
        let entry = entry.expect("a package");
        std::fs::copy(entry.path(), debs.join(entry.file_name())).expect("a copy");
    }
    std::fs::write(again.join("lock.toml"), toml_edit::ser::to_string(&lock).expect("a lock"))
        .expect("writes");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(MAKE, &again);
    if let Some(user) = OrdinaryUser::find()
        && need(&[Need::Userns, Need::Subids])
    {
        user.own(&again);
        open_to_all(folder.path());
        command = user.command(&command);
        command.env(MAKE, &again);
    }
    let output = command.output().expect("this program runs");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(text, first, "{}", String::from_utf8_lossy(&output.stderr));

    let store = Store::open(&folder.path().join("store")).expect("a store");
    let image = store.image(&first.parse().expect("a digest")).expect("an image");
    assert_eq!(image.rootfs.diff_ids.len(), 1);
    let tree = store.layer_tree(&image.rootfs.diff_ids[0]);
    check_tree(&tree, &lock);
}

/// Lets an ordinary user pass through a folder that only root could.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

fn check_tree(tree: &Path, lock: &LockedBase) {
    let status = std::fs::read_to_string(tree.join("var/lib/dpkg/status")).expect("dpkg's status");
    let states: BTreeMap<&str, usize> = status.lines().filter_map(|line| line.strip_prefix("Status: ")).fold(
        BTreeMap::new(),
        |mut states, state| {
            *states.entry(state).or_default() += 1;
            states
        },
    );
    assert_eq!(states, BTreeMap::from([("install ok installed", lock.packages.len())]));
    for link in ["bin", "sbin", "lib"] {
        assert_eq!(std::fs::read_link(tree.join(link)).expect("a link"), Path::new("usr").join(link));
    }
    let exists = |path: &str| tree.join(path).symlink_metadata().is_ok();
    for path in
        ["usr/bin/bash", "etc/passwd", "etc/ssl/certs/ca-certificates.crt", "etc/dpkg/dpkg.cfg.d/docker"]
    {
        assert!(exists(path), "{path} is missing");
    }
    for path in [
        "usr/sbin/policy-rc.d",
        "var/lib/dpkg/lock",
        "var/lib/dpkg/status-old",
        "var/log/dpkg.log",
        "usr/share/man/man1",
        "usr/share/doc/bash/README",
        "run/ibid",
    ] {
        assert!(!exists(path), "{path} is there");
    }
    let sources =
        std::fs::read_to_string(tree.join("etc/apt/sources.list.d/debian.sources")).expect("sources");
    assert!(sources.contains(&format!("URIs: {}\n", lock.sources[0].uri)), "{sources}");
    assert!(sources.contains("Signed-By: /usr/share/keyrings/debian-archive-keyring"), "{sources}");
}

/// A package whose script fails, put among real ones: the image is refused, and the last words are shown.
fn failing_script_is_shown() {
    if !can_bootstrap() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut lock = ibid_debian::resolve(&spec(&[]), &host(), &folder.path().join("cache"), now(), &|_| {})
        .expect("packages are chosen");
    let deb = support::deb::Deb::new("zz-fails", "1.0")
        .fields("Maintainer: nobody <nobody@example.com>\nDescription: fails\n")
        .control("postinst", "#!/bin/sh\necho the reason it fails >&2\nexit 7\n")
        .folder("./", 0o755);
    let bytes = deb.bytes();
    let path = folder.path().join("zz-fails.deb");
    std::fs::write(&path, &bytes).expect("writes");
    lock.sources.push(ibid_debian::LockedSource {
        uri: format!("file:{}", folder.path().display()),
        suite: "own".to_owned(),
        components: vec!["main".to_owned()],
        keys: Vec::new(),
    });
    lock.packages.push(ibid_debian::LockedPackage {
        name: "zz-fails".to_owned(),
        version: "1.0".to_owned(),
        architecture: "amd64".to_owned(),
        sha256: ibid_core::digest::Digest::of(&bytes),
        size: bytes.len() as u64,
        filename: "zz-fails.deb".to_owned(),
        source: lock.sources.len() - 1,
    });
    let store = Store::open(&folder.path().join("store")).expect("a store");
    let seen = std::sync::Mutex::new(0);
    let progress = |event: Event| {
        if let Event::Configuring { total, .. } = event {
            assert_eq!(total, lock.packages.len());
            *seen.lock().expect("no panic") += 1;
        }
    };
    let error =
        ibid_debian::make(&store, &lock, &spec(&[]), &host(), EPOCH, &progress).expect_err("a script fails");
    let message = error.to_string();
    assert!(message.contains("zz-fails") && message.contains("the reason it fails"), "{message}");
    assert!(*seen.lock().expect("no panic") > 0);
    assert_eq!(std::fs::read_dir(folder.path().join("store/layers")).expect("layers").count(), 0);
}

mod support;
