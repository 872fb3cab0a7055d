//! Pushes to a registry that does what it should, what it may, and what it must not.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use ibid_core::digest::Digest;
use ibid_core::image::{ContainerConfig, ImageConfig, RootFs, host_architecture};
use ibid_registry::{Error, PushOptions, Pushed};
use ibid_store::Compression;
use ibid_testing::{Deed, RegistryRequest, TestRegistry};
use serde_json::Value;
use support::{Place, can_unpack, noise, tar};

const GZIP: PushOptions = PushOptions { compression: Compression::Gzip, force: false };

/// Makes an image with layers of so many bytes.
fn image(place: &Place, sizes: &[usize]) -> Digest {
    let layers = sizes.iter().enumerate().map(|(number, size)| {
        let tar = tar(&format!("file{number}"), &noise(number as u64, *size));
        place.store.import_layer(tar.as_slice()).expect("imported")
    });
    let config = ImageConfig {
        created: None,
        author: None,
        architecture: host_architecture().to_owned(),
        variant: None,
        os: "linux".to_owned(),
        config: ContainerConfig::default(),
        rootfs: RootFs::new(layers.collect()),
        history: Vec::new(),
    };
    place.store.put_image(&config).expect("kept")
}

fn push(place: &Place, image: &Digest, reference: &str, options: PushOptions) -> Result<Pushed, Error> {
    let reference = reference.parse().expect("a reference");
    place.with(|client| client.push(&place.store, image, &reference, options))
}

fn writes(registry: &TestRegistry) -> Vec<RegistryRequest> {
    let requests = registry.requests().into_iter();
    requests.filter(|request| !matches!(request.method.as_str(), "GET" | "HEAD")).collect()
}

/// Checks that the registry has the whole image, and that it comes back the same.
#[track_caller]
fn comes_back(registry: &TestRegistry, reference: &str, image: &Digest) {
    registry.on_request(|_| Deed::Serve);
    let other = Place::new();
    assert_eq!(other.pull(reference).expect("pulled").image, *image);
}

#[test]
fn an_image_goes_once_and_comes_back_the_same() {
    if !can_unpack() {
        return;
    }
    for compression in [Compression::Gzip, Compression::Zstd] {
        let registry = TestRegistry::new();
        let (place, other) = (Place::new(), Place::new());
        let options = PushOptions { compression, force: false };
        let digest = image(&place, &[1000, 200_000]);
        let reference = format!("{}/a/b:t", registry.host());
        let pushed = push(&place, &digest, &reference, options).expect("pushed");
        assert_eq!((pushed.layers, pushed.layers_sent, pushed.was_there), (2, 2, false));
        let requests = writes(&registry);
        let last = requests.last().expect("a request");
        assert_eq!(
            (last.method.as_str(), last.path.as_str()),
            ("PUT", "/v2/a/b/manifests/t"),
            "the manifest is last"
        );
        let text = registry.manifest("a/b", "t").expect("a manifest");
        assert_eq!(Digest::of(&text), pushed.manifest);
        let manifest: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(manifest["layers"][0]["mediaType"], compression.media_type());
        comes_back(&registry, &reference, &digest);
        // Again, from here and from elsewhere: nothing changes.
        registry.requests();
        assert!(push(&place, &digest, &reference, options).expect("pushed").was_there);
        assert_eq!(registry.requests().len(), 2, "is it TLS, and what has the tag");
        assert_eq!(image(&other, &[1000, 200_000]), digest);
        assert!(push(&other, &digest, &reference, options).expect("pushed").was_there);
        assert_eq!(writes(&registry), []);
        // Another tag sends the manifest only, another repository takes the blobs over.
        let second = format!("{}/a/b:u", registry.host());
        assert_eq!(push(&place, &digest, &second, options).expect("pushed").layers_sent, 0);
        assert_eq!(writes(&registry).len(), 1);
        let third = format!("{}/c:t", registry.host());
        let pushed = push(&place, &digest, &third, options).expect("pushed");
        assert_eq!((pushed.layers_sent, pushed.layers_mounted), (0, 2));
        comes_back(&registry, &third, &digest);
    }
}

#[test]
fn a_tag_with_other_content_is_kept_unless_it_is_forced() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let (first, second) = (image(&place, &[10]), image(&place, &[20]));
    let reference = format!("{}/a/b:t", registry.host());
    let pushed = push(&place, &first, &reference, GZIP).expect("pushed");
    registry.requests();
    let error = push(&place, &second, &reference, GZIP).expect_err("taken");
    assert!(matches!(error, Error::TagTaken { found, .. } if found == pushed.manifest));
    assert_eq!(writes(&registry), []);
    push(&place, &second, &reference, PushOptions { force: true, ..GZIP }).expect("forced");
    comes_back(&registry, &reference, &second);
    let by_digest = format!("{}/a/b@{}", registry.host(), pushed.manifest);
    assert!(matches!(push(&place, &first, &by_digest, GZIP), Err(Error::PushByDigest { .. })));
}

#[test]
fn what_a_registry_leaves_out_is_done_without() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let digest = image(&place, &[1000, 2000]);
    let reference = format!("{}/a/b:t", registry.host());
    push(&place, &digest, &reference, GZIP).expect("pushed");
    // No HEAD, and no mounts: a mount is answered by a new upload, or refused.
    for status in [202, 405] {
        registry.on_request(move |request| {
            let is_mount = request.query.contains("mount=");
            match request.method.as_str() {
                "HEAD" => Deed::Answer(405, vec![], vec![]),
                "POST" if is_mount && status == 202 => {
                    Deed::Answer(202, vec![("Location", "/v2/c/blobs/uploads/never".to_owned())], vec![])
                }
                "POST" if is_mount => Deed::Answer(405, vec![], vec![]),
                _ => Deed::Serve,
            }
        });
        let other = format!("{}/c{status}:t", registry.host());
        assert_eq!(push(&place, &digest, &other, GZIP).expect("pushed").layers_sent, 2);
        registry.requests();
        assert!(push(&place, &digest, &other, GZIP).expect("pushed").was_there, "GET tells, too");
        assert_eq!(writes(&registry), []);
        comes_back(&registry, &other, &digest);
    }
}

#[test]
fn a_lost_connection_goes_on_where_it_was() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    // Compressed, more than one chunk and less than two after what is kept first.
    let digest = image(&place, &[70 << 20]);
    let reference = format!("{}/a/b:t", registry.host());
    let count = AtomicUsize::new(0);
    registry.on_request(move |request| {
        if request.method != "PATCH" {
            return Deed::Serve;
        }
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => Deed::KeepAndHangUp(0),
            1 => Deed::KeepAndHangUp(5_000_000),
            3 => Deed::Answer(503, vec![], vec![]),
            4 => Deed::Answer(429, vec![("Retry-After", "0".to_owned())], vec![]),
            _ => Deed::Serve,
        }
    });
    push(&place, &digest, &reference, GZIP).expect("pushed");
    let requests = registry.requests();
    let starts: Vec<String> = requests
        .iter()
        .filter(|request| request.method == "PATCH")
        .map(|request| request.headers["content-range"].split('-').next().unwrap_or_default().to_owned())
        .collect();
    let (five, next) = (5_000_000, 5_000_000 + (32 << 20));
    let expected = [0, 0, five, next, next, next].map(|start| start.to_string());
    assert_eq!(starts, expected);
    assert_eq!(
        requests.iter().filter(|request| request.method == "POST").count(),
        2,
        "the layer, and the configuration"
    );
    comes_back(&registry, &reference, &digest);
}

#[test]
fn an_upload_that_the_registry_forgot_begins_again() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let digest = image(&place, &[1000]);
    let reference = format!("{}/a/b:t", registry.host());
    // Forgotten; then the end is answered by an error; then all is well.
    let count = AtomicUsize::new(0);
    registry.on_request(move |request| match request.method.as_str() {
        "PATCH" if count.fetch_add(1, Ordering::Relaxed) == 0 => Deed::Answer(404, vec![], vec![]),
        "PUT" if request.path.contains("/uploads/") && count.fetch_add(1, Ordering::Relaxed) == 2 => {
            Deed::Answer(500, vec![], vec![])
        }
        _ => Deed::Serve,
    });
    push(&place, &digest, &reference, GZIP).expect("pushed");
    comes_back(&registry, &reference, &digest);
    // The end was taken, only its answer was lost.
    let registry = TestRegistry::new();
    let reference = format!("{}/a/b:t", registry.host());
    let count = AtomicUsize::new(0);
    registry.on_request(move |request| {
        let is_end = request.method == "PUT" && request.path.contains("/uploads/");
        match is_end && count.fetch_add(1, Ordering::Relaxed) == 0 {
            true => Deed::KeepAndHangUp(usize::MAX),
            false => Deed::Serve,
        }
    });
    push(&place, &digest, &reference, GZIP).expect("pushed");
    comes_back(&registry, &reference, &digest);
    // It forgets for ever.
    registry.on_request(|request| match request.method.as_str() {
        "HEAD" | "PATCH" => Deed::Answer(404, vec![], vec![]),
        "POST" if request.query.contains("mount=") => Deed::Answer(405, vec![], vec![]),
        _ => Deed::Serve,
    });
    let other = format!("{}/d:t", registry.host());
    assert!(push(&place, &digest, &other, GZIP).is_err());
    assert_eq!(registry.manifest("d", "t"), None, "no manifest without its layers");
}

#[test]
fn what_a_registry_says_of_an_upload_is_not_believed_blindly() {
    if !can_unpack() {
        return;
    }
    let place = Place::new();
    let digest = image(&place, &[1000]);
    let check = |hook: fn(&RegistryRequest) -> Deed, expected: &str| {
        let registry = TestRegistry::new();
        registry.on_request(hook);
        let error = push(&place, &digest, &format!("{}/a:t", registry.host()), GZIP).expect_err(expected);
        assert!(support::causes(&error).contains(expected), "{error}");
        assert_eq!(registry.manifest("a", "t"), None);
    };
    check(
        |request| match request.method.as_str() {
            "POST" => Deed::Answer(202, vec![], vec![]),
            _ => Deed::Serve,
        },
        "does not say where it goes",
    );
    check(
        |request| match request.method.as_str() {
            "POST" => Deed::Answer(202, vec![("Location", "file:///etc/passwd".to_owned())], vec![]),
            _ => Deed::Serve,
        },
        "away from https",
    );
    check(
        |request| match request.method.as_str() {
            "POST" => Deed::Answer(403, vec![], br#"{"errors":[{"message":"read only"}]}"#.to_vec()),
            _ => Deed::Serve,
        },
        "read only",
    );
    check(
        |request| match request.method == "PUT" && request.path.contains("/manifests/") {
            true => Deed::Answer(400, vec![], br#"{"errors":[{"message":"blob unknown"}]}"#.to_vec()),
            false => Deed::Serve,
        },
        "blob unknown",
    );
}

#[test]
fn an_upload_that_is_sent_elsewhere_gets_no_credentials() {
    if !can_unpack() {
        return;
    }
    let (registry, elsewhere) = (TestRegistry::new(), TestRegistry::new());
    let place = Place::new();
    let digest = image(&place, &[1000]);
    registry.set_access(ibid_testing::Access::Basic("me:pw".to_owned()));
    let entry = |host: String| format!(r#""{host}":{{"auth":"bWU6cHc="}}"#);
    let file = format!(r#"{{"auths":{{{},{}}}}}"#, entry(registry.host()), entry(elsewhere.host()));
    place.file(".docker/config.json", &file);
    let host = elsewhere.host();
    registry.on_request(move |request| {
        let location = || format!("http://{host}/v2/a/blobs/uploads/x");
        match request.method == "POST" && request.headers.contains_key("authorization") {
            true => Deed::Answer(202, vec![("Location", location())], vec![]),
            false => Deed::Serve,
        }
    });
    let requests = {
        push(&place, &digest, &format!("{}/a:t", registry.host()), GZIP).expect_err("nobody keeps it");
        elsewhere.requests()
    };
    assert!(!requests.is_empty());
    assert!(requests.iter().all(|request| !request.headers.contains_key("authorization")), "{requests:?}");
}
