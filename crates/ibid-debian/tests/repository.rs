//! Tiny signed archives: what is believed, what is refused, and with which words.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ibid_debian::Error;
use ibid_testing::{Need, need};
use pgp::crypto::hash::HashAlgorithm;
use support::deb::Deb;
use support::keys::{Key, Signing};
use support::mirror::{Mirror, World, put};

fn check(refusal: &str, parts: &[&str]) {
    for part in parts {
        assert!(refusal.contains(part), "`{part}` is not in `{refusal}`");
    }
}

/// A world with one good archive, not yet written.
fn world() -> (World, Mirror, Key) {
    let (world, key) = (World::new(), Key::new());
    let mirror = world.mirror("main", "test");
    world.trust(&key).use_mirror(&mirror);
    (world, mirror, key)
}

#[test]
fn good_archive_is_believed() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    let lock = world.resolve().expect("packages are chosen");
    assert_eq!(lock.suite, "test");
    assert_eq!(lock.sources.len(), 1);
    assert_eq!(lock.sources[0].keys, [key.fingerprint()]);
    assert_eq!(lock.sources[0].uri, mirror.uri());
    assert_eq!(world.chosen(), ["base 1.0"]);
}

#[test]
fn all_forms_of_signature_and_index_are_read() {
    for compression in [".xz", ".gz", ""] {
        let (world, mirror, key) = world();
        let mirror = Mirror { compression, by_hash: compression == ".gz", ..mirror };
        let release = mirror.write();
        put(&mirror.suite_folder().join("Release"), release.as_bytes());
        put(&mirror.suite_folder().join("Release.gpg"), key.sign(release.as_bytes()).as_bytes());
        assert_eq!(world.chosen(), ["base 1.0"]);
    }
}

#[test]
fn subkey_signs_for_its_key() {
    let (world, mirror, key) = world();
    mirror.publish_with(&key, Signing { by_subkey: true, ..Signing::default() });
    let lock = world.resolve().expect("packages are chosen");
    assert_eq!(lock.sources[0].keys, [key.fingerprint()]);
}

#[test]
fn signature_that_does_not_hold_is_refused() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    let path = mirror.suite_folder().join("InRelease");
    let text = std::fs::read_to_string(&path).expect("reads");
    std::fs::write(&path, text.replace("Components: main", "Components: evil")).expect("writes");
    check(&world.refusal(), &["bad signature", "does not match", &key.fingerprint()]);
}

#[test]
fn text_around_the_signed_text_is_refused() {
    for (before, after) in [("Evil: yes\n", ""), ("", "\nEvil: yes\n")] {
        let (world, mirror, key) = world();
        mirror.publish(&key);
        let path = mirror.suite_folder().join("InRelease");
        let text = std::fs::read_to_string(&path).expect("reads");
        std::fs::write(&path, format!("{before}{text}{after}")).expect("writes");
        check(&world.refusal(), &["not a signed release file"]);
    }
}

#[test]
fn unsigned_release_is_refused() {
    let (world, mirror, _) = world();
    let release = mirror.write();
    put(&mirror.suite_folder().join("Release"), release.as_bytes());
    check(&world.refusal(), &["not a signed release file", "neither InRelease nor Release.gpg"]);
    put(&mirror.suite_folder().join("InRelease"), release.as_bytes());
    check(&world.refusal(), &["not a signed release file"]);
}

#[test]
fn unknown_key_is_refused_and_named() {
    let (world, mirror, key) = world();
    let other = Key::new();
    mirror.publish(&other);
    check(&world.refusal(), &["none of which is in the keyring", &other.fingerprint()]);
    world.trust(&other);
    assert!(world.resolve().is_ok(), "{}", key.fingerprint());
}

#[test]
fn expired_release_is_refused_unless_the_host_says_otherwise() {
    let (world, mirror, key) = world();
    let mirror = Mirror { valid_until: Some(-60), ..mirror };
    mirror.publish(&key);
    check(&world.refusal(), &["expired at 20", "clock"]);
    world.apt("apt.conf.d/10old", "Acquire::Check-Valid-Until \"false\";");
    assert!(world.resolve().is_ok());
}

#[test]
fn release_from_the_future_is_refused() {
    let (world, mirror, key) = world();
    Mirror { date: 86_400, ..mirror }.publish(&key);
    check(&world.refusal(), &["in the future"]);
}

#[test]
fn release_of_another_suite_is_refused() {
    let (world, mirror, key) = world();
    Mirror { codename: "other".to_owned(), ..mirror }.publish(&key);
    assert!(world.resolve().is_ok(), "the suite's name is right");
    let (world, mirror, key) = self::world();
    let release =
        mirror.write().replace("Suite: test", "Suite: other").replace("Codename: test", "Codename: other");
    put(&mirror.suite_folder().join("InRelease"), key.clear_sign(&release, Signing::default()).as_bytes());
    check(&world.refusal(), &["of suite `other`", "not of `test`"]);
}

/// What a signature and its key may be like, and whether that counts.
fn signings() -> Vec<(&'static str, Key, Signing, bool)> {
    let plain = Signing::default();
    let year = 31_536_000;
    vec![
        ("plain", Key::new(), plain, true),
        ("SHA-256", Key::new(), Signing { hash: HashAlgorithm::Sha256, ..plain }, true),
        ("SHA-256 by RSA", Key::rsa(), Signing { hash: HashAlgorithm::Sha256, ..plain }, true),
        ("SHA-1 by RSA", Key::rsa(), Signing { hash: HashAlgorithm::Sha1, ..plain }, false),
        ("by subkey", Key::new(), Signing { by_subkey: true, ..plain }, true),
        ("expired signature", Key::new(), Signing { age: 600, lifetime: Some(60), ..plain }, false),
        ("signature that will expire", Key::new(), Signing { age: 600, lifetime: Some(6000), ..plain }, true),
        ("key that will expire", Key::new().expiring_after(2 * year), plain, true),
        ("expired key", Key::new().expiring_after(year / 2), plain, false),
        ("revoked key", Key::new().revoked(), plain, false),
        (
            "subkey of another key",
            Key::new().with_foreign_subkey(&Key::new()),
            Signing { by_subkey: true, ..plain },
            false,
        ),
        (
            "subkey of an expired key",
            Key::new().expiring_after(year / 2),
            Signing { by_subkey: true, ..plain },
            false,
        ),
    ]
}

#[test]
fn signatures_count_only_when_everything_holds() {
    for (what, key, signing, expected) in signings() {
        let (world, mirror, _) = world();
        world.trust(&key);
        mirror.publish_with(&key, signing);
        let outcome = world.resolve();
        assert_eq!(outcome.is_ok(), expected, "{what}: {:?}", outcome.err().map(|error| error.to_string()));
        if !expected {
            let error = world.resolve().expect_err(what);
            assert!(
                matches!(
                    error,
                    Error::BadSignature { .. }
                        | Error::UnknownKey { .. }
                        | Error::NoKeyring { .. }
                        | Error::InvalidKeyring { .. }
                ),
                "{what}: {error}"
            );
        }
    }
}

#[test]
fn gpgv_judges_signatures_the_same() {
    if Command::new("gpgv").arg("--version").stdout(Stdio::null()).status().is_err() {
        let required = std::env::var("IBID_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|need| need == "gpgv"), "gpgv is required and absent");
        println!("skipped: needs gpgv because it is the oracle");
        return;
    }
    for (what, key, signing, _) in signings() {
        let (world, mirror, _) = world();
        world.trust(&key);
        mirror.publish_with(&key, signing);
        let output = Command::new("gpgv")
            .args(["--status-fd", "1", "--weak-digest", "SHA1", "--keyring"])
            .arg(world.path("host/usr/share/keyrings/debian-archive-keyring.gpg"))
            .arg(mirror.suite_folder().join("InRelease"))
            .env("GNUPGHOME", world.path("gnupg"))
            .stderr(Stdio::null())
            .output()
            .expect("gpgv runs");
        // apt asks for the same: a good signature of a key that is neither expired nor revoked.
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_good = status.contains("GOODSIG ") && output.status.success();
        assert_eq!(world.resolve().is_ok(), is_good, "{what}: {status}");
    }
}

#[test]
fn index_with_another_digest_is_refused() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    let path = mirror.suite_folder().join("main/binary-amd64/Packages.xz");
    let mut bytes = std::fs::read(&path).expect("reads");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, &bytes).expect("writes");
    check(&world.refusal(), &["Packages.xz", "has digest sha256:"]);
    std::fs::write(&path, &bytes[1..]).expect("writes");
    check(&world.refusal(), &["Packages.xz", "broke off after"]);
    bytes.push(0);
    std::fs::write(&path, &bytes).expect("writes");
    check(&world.refusal(), &["Packages.xz", "longer than"]);
    std::fs::remove_file(&path).expect("removes");
    check(&world.refusal(), &["Packages.xz", "not found"]);
}

#[test]
fn host_without_apt_sources_learns_what_to_write() {
    let world = World::new();
    check(&world.refusal(), &["no apt sources for `test`", "mirror = ", "keyring = ", "ibid.toml"]);
    std::fs::remove_file(world.path("host/etc/os-release")).expect("removes");
    check(&world.refusal(), &["suite = ", "ibid.toml"]);
}

#[test]
fn host_without_keyring_learns_where_one_could_be() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    std::fs::remove_dir_all(world.path("host/usr")).expect("removes");
    check(&world.refusal(), &["no keyring", "debian-archive-keyring.gpg", "keyring = "]);
}

#[test]
fn mirror_and_keyring_of_the_base_stand_before_the_host() {
    let (mut world, mirror, key) = world();
    mirror.publish(&key);
    let own_key = Key::new();
    let mut own = world.mirror("own", "test");
    own.debs.push(Deb::new("extra", "2").fields("Priority: required\n"));
    own.publish(&own_key);
    world.spec.mirror = Some(own.uri());
    check(&world.refusal(), &["none of which is in the keyring"]);
    put(&world.path("own.asc"), own_key.armoured().as_bytes());
    world.spec.keyring = Some(world.path("own.asc"));
    assert_eq!(world.chosen(), ["base 1.0", "extra 2"]);
    world.spec.keyring = Some(world.path("absent.gpg"));
    check(&world.refusal(), &["absent.gpg"]);
    put(&world.path("empty.gpg"), b"no key");
    world.spec.keyring = Some(world.path("empty.gpg"));
    check(&world.refusal(), &["empty.gpg"]);
}

#[test]
fn updates_and_security_are_considered() {
    let (mut world, mirror, key) = world();
    mirror.publish(&key);
    for (name, suite, version) in
        [("updates", "test-updates", "1.0+u1"), ("security", "test-security", "1.0+u2")]
    {
        let mut more = world.mirror(name, suite);
        more.debs = vec![Deb::new("base", version).fields("Essential: yes\n")];
        more.publish(&key);
        world.use_mirror(&more);
    }
    assert_eq!(world.chosen(), ["base 1.0+u2"]);
    world.spec.packages = vec!["base=1.0".to_owned()];
    assert_eq!(world.chosen(), ["base 1.0"]);
}

#[test]
fn security_archive_that_fails_is_not_passed_over() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    let security = world.mirror("security", "test-security");
    world.use_mirror(&security);
    check(&world.refusal(), &["test-security", "not found"]);
}

#[test]
fn sources_of_third_parties_do_not_matter() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    let foreign_key = Key::new();
    let foreign = Mirror { origin: "Somebody".to_owned(), ..world.mirror("foreign", "test") };
    foreign.publish(&key);
    let unknown = world.mirror("unknown", "test");
    unknown.publish(&foreign_key);
    let gone = world.mirror("gone", "test");
    let other_suite = world.mirror("other", "nodistro");
    for mirror in [&foreign, &unknown, &gone, &other_suite] {
        world.use_mirror(mirror);
    }
    let lock = world.resolve().expect("packages are chosen");
    assert_eq!(lock.sources.iter().map(|source| source.uri.as_str()).collect::<Vec<_>>(), [mirror.uri()]);
    world.apt("sources.list", "");
    assert!(world.resolve().is_err());
}

#[test]
fn keys_of_a_source_hold_for_it_alone() {
    let (world, mirror, key) = world();
    let own_key = Key::new();
    mirror.publish(&own_key);
    let stanza = |signed_by: &str| {
        format!(
            "Types: deb\nURIs: {}\nSuites: test\nComponents: main\nSigned-By: {signed_by}\n",
            mirror.uri()
        )
    };
    world.apt("sources.list", "").apt("sources.list.d/a.sources", &stanza("/keys/own.gpg"));
    check(&world.refusal(), &["/keys/own.gpg"]);
    put(&world.path("host/keys/own.gpg"), &own_key.public());
    assert!(world.resolve().is_ok());
    let inline = own_key
        .armoured()
        .lines()
        .fold(String::new(), |text, line| format!("{text}\n {}", if line.is_empty() { "." } else { line }));
    world.apt("sources.list.d/a.sources", &stanza(&inline));
    assert!(world.resolve().is_ok());
    world.apt("sources.list.d/a.sources", &stanza(&key.fingerprint()));
    check(&world.refusal(), &["none of which is in the keyring"]);
    world.trust(&own_key).apt("sources.list.d/a.sources", &stanza(&own_key.fingerprint()));
    assert!(world.resolve().is_ok());
}

#[test]
fn list_of_mirrors_is_followed() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    world.apt("sources.list", "deb mirror+file:/etc/apt/mirrors.list test main\n");
    world.apt("mirrors.list", &format!("file:/nowhere\tpriority:2\n{}\tpriority:1\n", mirror.uri()));
    assert_eq!(world.chosen(), ["base 1.0"]);
}

#[test]
fn role_of_a_suite_leads_to_its_code_name() {
    let (world, _, key) = world();
    let mirror = Mirror { codename: "test".to_owned(), ..world.mirror("main", "stable") };
    mirror.publish(&key);
    world.apt("sources.list", &format!("deb {} stable main\n", mirror.uri()));
    let lock = world.resolve().expect("packages are chosen");
    assert_eq!(lock.sources[0].suite, "test");
}

#[test]
fn missing_component_is_named() {
    let (mut world, mirror, key) = world();
    mirror.publish(&key);
    world.spec.components = vec!["main".to_owned(), "non-free".to_owned()];
    check(&world.refusal(), &["no apt source for `test` has the component `non-free`"]);
}

/// Answers each connection with the file that is asked for, cut and answered with as `change` says.
fn serve(folder: &Path, change: impl Fn(&str, Vec<u8>) -> (usize, Vec<u8>) + Send + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split_whitespace().nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            let answer = match std::fs::read(folder.join(&path)) {
                Ok(bytes) => {
                    let (length, bytes) = change(&path, bytes);
                    let mut answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
                            .into_bytes();
                    answer.extend(bytes);
                    answer
                }
                Err(_) => {
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
                }
            };
            let _ = stream.write_all(&answer);
        }
    });
    format!("http://{address}")
}

#[test]
fn archive_is_read_over_http() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let uri = serve(&mirror.folder, move |path, bytes| {
        counted.fetch_add(usize::from(path.contains("Packages")), Ordering::Relaxed);
        (bytes.len(), bytes)
    });
    world.apt("sources.list", &format!("deb {uri} test main\n"));
    assert_eq!(world.chosen(), ["base 1.0"]);
    assert_eq!(world.chosen(), ["base 1.0"]);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the index that was kept is enough the next time");
}

#[test]
fn kept_index_is_verified_again() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    let uri = serve(&mirror.folder, |_, bytes| (bytes.len(), bytes));
    world.apt("sources.list", &format!("deb {uri} test main\n"));
    assert_eq!(world.chosen(), ["base 1.0"]);
    for entry in std::fs::read_dir(world.path("cache")).expect("a cache") {
        std::fs::write(entry.expect("an entry").path(), b"rubbish").expect("writes");
    }
    assert_eq!(world.chosen(), ["base 1.0"]);
}

#[test]
fn unreachable_mirror_is_named() {
    let (world, ..) = world();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    world.apt("sources.list", &format!("deb http://user:secret@{address} test main\n"));
    let refusal = world.refusal();
    check(&refusal, &[&format!("http://{address}/dists/test/InRelease could not be fetched")]);
    assert!(!refusal.contains("secret"), "{refusal}");
}

#[test]
fn index_that_breaks_off_is_named() {
    let (world, mirror, key) = world();
    mirror.publish(&key);
    let uri = serve(&mirror.folder, |path, bytes| {
        let length = bytes.len();
        if path.contains("Packages") { (length, bytes[..length / 2].to_vec()) } else { (length, bytes) }
    });
    world.apt("sources.list", &format!("deb {uri} test main\n"));
    check(&world.refusal(), &["Packages.xz", "broke off after"]);
}

/// Tries to make the image; it must fail before anything is kept.
fn refused_image(world: &World, change: impl FnOnce(&Path)) -> String {
    let lock = world.resolve().expect("packages are chosen");
    change(&world.path("main"));
    let store = ibid_store::Store::open(&world.path("store")).expect("a store");
    let error =
        ibid_debian::make(&store, &lock, &world.spec, &world.host(), 0, &|_| {}).expect_err("it is refused");
    for folder in ["debs", "layers", "blobs/sha256", "tmp"] {
        let left =
            std::fs::read_dir(world.path("store").join(folder)).expect("a folder of the store").count();
        assert_eq!(left, 0, "{folder} after {error}");
    }
    error.to_string()
}

#[test]
fn package_that_is_not_the_locked_one_is_refused() {
    // A store has files of the container's root.
    if !need(&[Need::Root]) {
        return;
    }
    if ibid_debian::host_architecture() != Some("amd64") {
        println!("skipped: needs amd64 because the packages of the test are");
        return;
    }
    let (world, mirror, key) = world();
    mirror.publish(&key);
    let path = |folder: &Path| folder.join("pool/base_1.0.deb");
    let change = |folder: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(path(folder)).expect("reads");
        change(&mut bytes);
        std::fs::write(path(folder), bytes).expect("writes");
    };
    check(
        &refused_image(&world, |folder| change(folder, &|bytes| bytes[0] ^= 1)),
        &["base_1.0.deb", "has digest"],
    );
    check(
        &refused_image(&world, |folder| change(folder, &|bytes| bytes.truncate(100))),
        &["base_1.0.deb", "broke off"],
    );
    mirror.publish(&key);
    check(
        &refused_image(&world, |folder| change(folder, &|bytes| bytes.push(0))),
        &["base_1.0.deb", "longer than"],
    );
    mirror.publish(&key);
    check(
        &refused_image(&world, |folder| std::fs::remove_file(path(folder)).expect("removes")),
        &["base 1.0 is no longer on", "ibid build --update"],
    );
}

#[test]
fn package_is_found_on_the_mirror_of_the_base() {
    // A store has files of the container's root.
    if !need(&[Need::Root]) {
        return;
    }
    let (mut world, mirror, key) = world();
    mirror.publish(&key);
    let mut lock = world.resolve().expect("packages are chosen");
    lock.sources[0].uri = "file:/nowhere".to_owned();
    world.spec.mirror = Some(mirror.uri());
    world.apt("sources.list", "");
    let store = ibid_store::Store::open(&world.path("store")).expect("a store");
    // Making it fails later, since one empty package is no system; the package has come by then.
    let _ = ibid_debian::make(&store, &lock, &world.spec, &world.host(), 0, &|_| {});
    assert_eq!(std::fs::read_dir(world.path("store/debs")).expect("a folder").count(), 1);
}
