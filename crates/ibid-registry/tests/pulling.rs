//! Pulls from a registry that does what it should, what it may, and what it must not.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use ibid_core::digest::Digest;
use ibid_registry::{Error, Platform};
use ibid_testing::{Deed, RegistryRequest, TestRegistry};
use serde_json::{Value, json};
use support::{GZIP_LAYER, INDEX, Image, MANIFEST, Place, can_unpack, gzip, noise, tar};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

fn is_blob(request: &RegistryRequest) -> bool {
    request.method == "GET" && request.path.contains("/blobs/")
}

fn blobs(registry: &TestRegistry) -> Vec<RegistryRequest> {
    registry.requests().into_iter().filter(is_blob).collect()
}

#[test]
fn images_of_every_form_come_whole() {
    if !can_unpack() {
        return;
    }
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).expect("compressed");
    let docker = |mut manifest: Value| {
        manifest["mediaType"] = DOCKER_MANIFEST.into();
        manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
        manifest
    };
    let without_type = |mut manifest: Value| {
        manifest.as_object_mut().expect("an object").remove("mediaType");
        manifest
    };
    let cases: [(Image, &dyn Fn(Value) -> Value); 6] = [
        (Image::small(), &|manifest| manifest),
        (Image::new(&[1, 300_000], "application/vnd.oci.image.layer.v1.tar+zstd", zstd), &|manifest| {
            manifest
        }),
        (Image::new(&[0, 5000], "application/vnd.oci.image.layer.v1.tar", <[u8]>::to_vec), &without_type),
        (Image::new(&[5000], "application/vnd.docker.image.rootfs.diff.tar.gzip", gzip), &docker),
        // What the media type says is not so: the first bytes count.
        (Image::new(&[5000], GZIP_LAYER, zstd), &|manifest| manifest),
        (Image::new(&[], GZIP_LAYER, gzip), &|manifest| manifest),
    ];
    for (image, change) in cases {
        let registry = TestRegistry::new();
        let place = Place::new();
        image.put_blobs(&registry);
        let reference = image.put_manifest(&registry, &change(image.manifest()));
        let pulled = place.pull(&reference).expect("pulled");
        assert_eq!(pulled.image, Digest::of(&image.config_text()));
        assert_eq!((pulled.layers, pulled.layers_new), (image.layers.len(), image.layers.len()));
        for layer in 0..image.layers.len() {
            let length = place.layer_file(&image, layer).len();
            assert_eq!(place.layer_file(&image, layer), noise(layer as u64, length));
        }
        // The configuration is kept byte for byte, and all has its name.
        assert_eq!(place.store.blob(&pulled.image).expect("kept"), image.config_text());
        assert_eq!(
            place.store.tag(&reference.parse().expect("a reference")).expect("read"),
            Some(pulled.image)
        );
        assert_eq!(place.parts(), [0_u64; 0]);
        assert_eq!(place.said(), "");
    }
}

#[test]
fn what_is_there_under_any_name_is_not_fetched() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let first = Image::small();
    let reference = first.put(&registry);
    place.pull(&reference).expect("pulled");
    assert_eq!(blobs(&registry).len(), 4);
    assert_eq!(place.pull(&reference).expect("pulled again").layers_new, 0);
    assert_eq!(blobs(&registry).len(), 1, "the configuration only");
    // Another image, in another form, with one layer more.
    let plain =
        Image::new(&[1000, 2000, 3000, 4000], "application/vnd.oci.image.layer.v1.tar", <[u8]>::to_vec);
    let pulled = place.pull(&plain.put(&registry)).expect("pulled");
    assert_eq!((pulled.layers, pulled.layers_new), (4, 1));
    assert_eq!(blobs(&registry).len(), 2);
}

#[test]
fn the_platform_is_chosen_from_an_index() {
    if !can_unpack() {
        return;
    }
    let own = ibid_core::image::host_architecture();
    for list in [INDEX, DOCKER_LIST] {
        let registry = TestRegistry::new();
        let place = Place::new();
        let image = Image::small();
        let mut other = Image::new(&[10], GZIP_LAYER, gzip);
        other.config["architecture"] = "riscv64".into();
        let entry = |image: &Image, architecture: &str| {
            let text = image.manifest().to_string();
            image.put(&registry);
            json!({
                "mediaType": MANIFEST, "digest": Digest::of(text.as_bytes()), "size": text.len(),
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let entries = [entry(&other, "riscv64"), entry(&image, own)];
        let index = json!({ "schemaVersion": 2, "mediaType": list, "manifests": entries });
        let reference = image.put_manifest(&registry, &index);
        let pulled = place.pull(&reference).expect("pulled");
        assert_eq!(pulled.image, Digest::of(&image.config_text()));
        let root = Digest::of(index.to_string().as_bytes());
        assert_eq!(pulled.manifest, root);
        let parsed = reference.parse().expect("a reference");
        let known = ibid_registry::manifest_of(&place.store, &parsed, &pulled.image);
        assert_eq!(known.expect("remembered"), Some(root));
        // By digest.
        let by_digest = format!("{}/a/b@{root}", registry.host());
        assert_eq!(place.pull(&by_digest).expect("pulled").image, pulled.image);
        // Another platform, and one that there is not.
        let pull = |platform: &str| {
            let platform = Platform::parse(platform).expect("a platform");
            place.with(|client| client.pull(&place.store, &parsed, Some(&platform)))
        };
        assert_eq!(pull("linux/riscv64").expect("pulled").image, Digest::of(&other.config_text()));
        let error = pull("linux/s390x").expect_err("no such platform").to_string();
        assert!(
            error.contains(&format!("is not there for linux/s390x, but for linux/riscv64, linux/{own}")),
            "{error}"
        );
    }
}

#[test]
fn documents_that_lie_or_are_none_are_refused() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let image = Image::small();
    image.put_blobs(&registry);
    let check = |manifest: &Value, expected: &str| {
        place.refused(&image.put_manifest(&registry, manifest), expected);
    };
    let changed = |path: &str, value: Value| {
        let mut manifest = image.manifest();
        *manifest.pointer_mut(path).expect("a place in the manifest") = value;
        manifest
    };
    check(&changed("/config/size", json!(5)), "bytes instead of 5");
    check(&changed("/config/size", json!(1_u64 << 60)), "8388608 are the most");
    check(&changed("/config/mediaType", json!("application/vnd.helm.config.v1+json")), "it is an artifact");
    check(&changed("/config/digest", json!(Digest::of(b"other"))), "is not in the registry");
    check(&changed("/layers", json!([])), "its manifest lists 0 layers, and its configuration 3");
    check(&changed("/layers/0/mediaType", json!("text/html")), "a layer of the media type `text/html`");
    check(&changed("/layers/0/digest", json!("sha256:../../etc/passwd")), "cannot be read");
    check(&changed("/layers/0/size", json!(-1)), "cannot be read");
    check(&changed("/mediaType", json!("text/html")), "its media type is `text/html`");
    check(&json!({ "schemaVersion": 1, "fsLayers": [] }), "version 1 of the schema");
    check(&json!({ "mediaType": INDEX, "manifests": [] }), "is not there for linux/");
    check(&json!({ "mediaType": INDEX, "manifests": [], "layers": [] }), "a manifest and an index at once");
    // An index that names itself without end cannot be made; a chain of them can.
    let mut inner = image.manifest();
    for _ in 0..4 {
        let text = inner.to_string();
        image.put_manifest(&registry, &inner);
        let entry = json!({ "mediaType": INDEX, "digest": Digest::of(text.as_bytes()), "size": text.len() });
        inner = json!({ "mediaType": INDEX, "manifests": [entry] });
    }
    check(&inner, "without end");
    let reference = image.put_manifest(&registry, &image.manifest());
    registry.on_request(|request| match request.path.contains("/manifests/") {
        true => Deed::Answer(200, vec![], b"<html>".to_vec()),
        false => Deed::Serve,
    });
    place.refused(&reference, "it is no JSON");
    registry.on_request(|_| Deed::Answer(200, vec![], vec![b' '; (4 << 20) + 1]));
    place.refused(&reference, "longer than the 4194304 bytes");
    // By digest, another document is another image.
    registry.on_request(|request| match request.path.contains("/manifests/") {
        true => Deed::Answer(200, vec![], b"{}".to_vec()),
        false => Deed::Serve,
    });
    let by_digest = format!("{}/a/b@{}", registry.host(), Digest::of(b"x"));
    place.refused(&by_digest, &format!("has the digest {}, not {}", Digest::of(b"{}"), Digest::of(b"x")));
}

#[test]
fn configurations_of_other_machines_are_refused() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let mut image = Image::small();
    image.config["architecture"] = "riscv64".into();
    place.refused(&image.put(&registry), "but for linux/riscv64");
    image.config = json!({ "rootfs": 3 });
    place.refused(&image.put(&registry), "its configuration cannot be read");
}

#[test]
fn layers_that_lie_leave_nothing() {
    if !can_unpack() {
        return;
    }
    let image = Image::small();
    let check = |prepare: &dyn Fn(&TestRegistry), expected: &str| {
        let registry = TestRegistry::new();
        let place = Place::new();
        let reference = image.put(&registry);
        prepare(&registry);
        let error = place.pull(&reference).expect_err("refused");
        let text = support::causes(&error);
        assert!(text.contains(expected), "{text}");
        assert_eq!(place.store.tag(&reference.parse().expect("a reference")).expect("read"), None);
        assert!(!place.store.has_layer(&image.diff_ids[1]));
        let tmp = std::fs::read_dir(place.store.root().join("tmp")).expect("a folder");
        assert_eq!(tmp.count(), 0);
        let wrong =
            place.store.root().join("downloads").join(format!("{}.part", Digest::of(&image.layers[1]).hex()));
        assert!(!wrong.exists(), "what is wrong is not gone on with");
    };
    let bytes = &image.layers[1];
    let digest = Digest::of(bytes);
    let put = |other: Vec<u8>| move |registry: &TestRegistry| registry.put_blob_as("a/b", digest, &other);
    // The same length, and other content.
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    check(&put(flipped), &format!("not {digest}"));
    // A sound archive of the same length, but not the one.
    let mut others = (99..).map(|seed| gzip(&tar("file1", &noise(seed, 2000))));
    let other = others.find(|other| other.len() == bytes.len()).expect("noise does not compress");
    check(&put(other), &format!("not {digest}"));
    check(&put(bytes[..bytes.len() - 1].to_vec()), "bytes instead of");
    check(&put([bytes.as_slice(), b"x"].concat()), "bytes instead of");
    check(&put(Vec::new()), "bytes instead of");
    // Without a length, more bytes than there may be.
    let more = [bytes.as_slice(), &[0; 100_000]].concat();
    check(
        &move |registry: &TestRegistry| {
            let (path, more) = (format!("/v2/a/b/blobs/{digest}"), more.clone());
            registry.on_request(move |request| match request.path == path {
                true => Deed::Answer(
                    200,
                    vec![("Content-Length", "18446744073709551615".to_owned())],
                    more.clone(),
                ),
                false => Deed::Serve,
            });
        },
        "bytes instead of",
    );
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let mut image = Image::new(&[1000], GZIP_LAYER, gzip);
    image.config["rootfs"]["diff_ids"] = json!([Digest::of(b"other")]);
    place.refused(&image.put(&registry), &format!("holds {}", image.diff_ids[0]));
    let hostile = tar("../outside", b"x");
    image.layers = vec![gzip(&hostile)];
    image.config["rootfs"]["diff_ids"] = json!([Digest::of(&hostile)]);
    place.refused(&image.put(&registry), "is refused");
    assert!(!place.folder.path().join("outside").exists());
}

#[test]
fn a_connection_that_breaks_off_goes_on_where_it_was() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let image = Image::new(&[1 << 20], GZIP_LAYER, gzip);
    let reference = image.put(&registry);
    let layer = format!("/v2/a/b/blobs/{}", Digest::of(&image.layers[0]));
    let path = layer.clone();
    let count = AtomicUsize::new(0);
    registry.on_request(move |request| {
        let is_early = request.path == path && count.fetch_add(1, Ordering::Relaxed) < 8;
        if is_early { Deed::CutAfter(100_000) } else { Deed::Serve }
    });
    place.pull(&reference).expect("pulled");
    let asked = blobs(&registry).into_iter().filter(|request| request.path == layer);
    let ranges: Vec<Option<String>> = asked.map(|request| request.headers.get("range").cloned()).collect();
    let expected: Vec<Option<String>> = std::iter::once(None)
        .chain((1..9).map(|number| Some(format!("bytes={}-", number * 100_000))))
        .collect();
    assert_eq!(ranges, expected, "more often than tries, since each gets further");
    assert!(place.said().contains("retry: "));
    assert_eq!(place.layer_file(&image, 0), noise(0, 1 << 20));
}

#[test]
fn the_next_pull_goes_on_where_this_one_ended() {
    if !can_unpack() {
        return;
    }
    let image = Image::new(&[1 << 20], GZIP_LAYER, gzip);
    let layer = format!("/v2/a/b/blobs/{}", Digest::of(&image.layers[0]));
    let interrupted = |registry: &TestRegistry, place: &Place, reference: &str| {
        let path = layer.clone();
        let count = AtomicUsize::new(0);
        registry.on_request(move |request| match request.path == path {
            true if count.fetch_add(1, Ordering::Relaxed) == 0 => Deed::CutAfter(300_000),
            true => Deed::KeepAndHangUp(0),
            false => Deed::Serve,
        });
        let error = place.refused(reference, "");
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert_eq!(place.parts(), [300_000]);
        registry.on_request(|_| Deed::Serve);
        registry.requests();
    };
    let first_range = |registry: &TestRegistry| {
        let asked: Vec<_> = blobs(registry).into_iter().filter(|request| request.path == layer).collect();
        (asked.len(), asked[0].headers.get("range").cloned())
    };
    let registry = TestRegistry::new();
    let reference = image.put(&registry);

    let place = Place::new();
    interrupted(&registry, &place, &reference);
    place.pull(&reference).expect("pulled");
    assert_eq!(first_range(&registry), (1, Some("bytes=300000-".to_owned())));
    assert_eq!(place.layer_file(&image, 0), noise(0, 1 << 20));
    assert!(place.parts().is_empty());

    // The part was damaged meanwhile: then all of it is fetched again, at once.
    let place = Place::new();
    interrupted(&registry, &place, &reference);
    let entry = std::fs::read_dir(place.store.root().join("downloads")).expect("a folder").next();
    let part = entry.expect("a part").expect("an entry").path();
    std::fs::write(&part, vec![7; 300_000]).expect("damaged");
    place.pull(&reference).expect("pulled");
    assert_eq!(blobs(&registry).iter().filter(|request| request.path == layer).count(), 2);
    assert_eq!(place.layer_file(&image, 0), noise(0, 1 << 20));

    // It is longer than the blob can be.
    let place = Place::new();
    interrupted(&registry, &place, &reference);
    let entry = std::fs::read_dir(place.store.root().join("downloads")).expect("a folder").next();
    std::fs::write(entry.expect("a part").expect("an entry").path(), vec![7; 9 << 20]).expect("damaged");
    place.pull(&reference).expect("pulled");
    assert_eq!(first_range(&registry), (1, None));

    // The registry knows no ranges.
    let place = Place::new();
    interrupted(&registry, &place, &reference);
    let (path, bytes) = (layer.clone(), image.layers[0].clone());
    registry.on_request(move |request| match request.path == path {
        true => Deed::Answer(200, vec![], bytes.clone()),
        false => Deed::Serve,
    });
    place.pull(&reference).expect("pulled");
    assert_eq!(place.layer_file(&image, 0), noise(0, 1 << 20));

    // It answers with another range than it was asked for.
    let place = Place::new();
    interrupted(&registry, &place, &reference);
    let (path, bytes) = (layer.clone(), image.layers[0][5..].to_vec());
    registry.on_request(move |request| match request.path == path {
        true => Deed::Answer(206, vec![("Content-Range", "bytes 5-9/10".to_owned())], bytes.clone()),
        false => Deed::Serve,
    });
    place.refused(&reference, "does not start at byte 300000");
}

#[test]
fn a_registry_that_wants_fewer_requests_is_given_time() {
    if !can_unpack() {
        return;
    }
    let image = Image::small();
    let pull = |status: u16, headers: Vec<(&'static str, String)>, times: usize| {
        let registry = TestRegistry::new();
        let place = Place::new();
        let reference = image.put(&registry);
        let count = AtomicUsize::new(0);
        registry.on_request(move |request| {
            let is_early =
                request.path.contains("/manifests/") && count.fetch_add(1, Ordering::Relaxed) < times;
            let word = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
            if is_early { Deed::Answer(status, headers.clone(), word.to_vec()) } else { Deed::Serve }
        });
        (place.pull(&reference), place.said(), registry.requests().len())
    };
    let now = || vec![("Retry-After", "0".to_owned())];
    let (pulled, said, _) = pull(429, now(), 2);
    pulled.expect("pulled in the third try");
    assert_eq!(said, ["retry: its rate limit is reached: slow down"; 2].join("\n"));
    let (pulled, said, _) = pull(503, now(), 1);
    pulled.expect("pulled in the second try");
    assert_eq!(said, "retry: status 503");
    // Tries are counted.
    let (pulled, _, requests) = pull(429, now(), 100);
    let error = pulled.expect_err("never");
    assert!(
        matches!(&error, Error::RateLimited { .. }) && error.to_string().contains("slow down"),
        "{error}"
    );
    assert_eq!(requests, 6, "one of them finds out about TLS");
    // Nobody waits an hour.
    let (pulled, said, requests) = pull(429, vec![("Retry-After", "3600".to_owned())], 1);
    assert!(matches!(pulled.expect_err("too long"), Error::RateLimited { seconds: Some(3600), .. }));
    assert_eq!((said.as_str(), requests), ("", 2));
    // What is wrong for good is not tried again.
    let (pulled, said, requests) = pull(400, vec![], 1);
    assert!(pulled.expect_err("refused").to_string().contains("status 400: slow down"));
    assert_eq!((said.as_str(), requests), ("", 2));
}

#[test]
fn redirections_are_followed_so_far() {
    if !can_unpack() {
        return;
    }
    let image = Image::new(&[1000], GZIP_LAYER, gzip);
    let registry = TestRegistry::new();
    let elsewhere = TestRegistry::new();
    let reference = image.put(&registry);
    image.put(&elsewhere);
    let host = elsewhere.host();
    registry.set_access(ibid_testing::Access::Basic("me:pw".to_owned()));
    let to = move |target: &'static str| {
        let host = host.clone();
        move |request: &RegistryRequest| match request.path.contains("/blobs/") {
            true => {
                let location = target.replace("ELSEWHERE", &host).replace("PATH", &request.path);
                Deed::Answer(307, vec![("Location", location)], vec![])
            }
            false => Deed::Serve,
        }
    };
    let place = Place::new();
    let auth = "bWU6cHc=";
    let file = format!(
        r#"{{"auths":{{"{}":{{"auth":"{auth}"}},"{}":{{"auth":"{auth}"}}}}}}"#,
        registry.host(),
        elsewhere.host()
    );
    place.file(".docker/config.json", &file);
    for target in ["file:///etc/passwd", "ftp://ELSEWHEREPATH", "https://", "http://u:p@ELSEWHEREPATH"] {
        registry.on_request(to(target));
        let error = place.pull(&reference).expect_err(target).to_string();
        assert!(!error.contains("u:p"), "{error}");
    }
    registry.on_request(to("http://ELSEWHEREPATH?signature=secret"));
    place.pull(&reference).expect("pulled");
    let asked = elsewhere.requests();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|request| !request.headers.contains_key("authorization")), "{asked:?}");
    assert!(asked.iter().all(|request| request.query == "signature=secret"));
    // Round and round.
    let place = Place::new();
    place.file(".docker/config.json", &file);
    registry.on_request(to("PATH"));
    let error = place.pull(&reference).expect_err("without end").to_string();
    assert!(error.contains("more than 10 redirections"), "{error}");
}

#[test]
fn mirrors_are_asked_first_and_blocked_registries_never() {
    if !can_unpack() {
        return;
    }
    let image = Image::new(&[1000], GZIP_LAYER, gzip);
    let (good, bad, origin) = (TestRegistry::new(), TestRegistry::new(), TestRegistry::new());
    image.put(&good);
    image.put(&origin);
    let place = Place::new();
    let mirror =
        |registry: &TestRegistry| format!("[[registry.mirror]]\nlocation = \"{}\"\n", registry.host());
    let file = format!("[[registry]]\nprefix = \"example.org\"\nlocation = \"{}\"\n", origin.host());
    place.file(".config/containers/registries.conf", &format!("{file}{}{}", mirror(&bad), mirror(&good)));
    place.pull("example.org/a/b:t").expect("pulled");
    assert!(place.said().starts_with(&format!("mirror {}: ", bad.host())));
    assert_eq!(origin.requests().len(), 0);
    let place = Place::new();
    place.file(".config/containers/registries.conf", &format!("{file}{}", mirror(&bad)));
    place.pull("example.org/a/b:t").expect("pulled");
    assert!(!origin.requests().is_empty());
    let place = Place::new();
    place.file(".config/containers/registries.conf", &format!("{file}blocked = true\n{}", mirror(&good)));
    place.refused("example.org/a/b:t", "`example.org/a/b` is blocked by ");
}

#[test]
fn absent_things_and_servers_are_told_apart() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let error = place.refused(&format!("{}/a/b:t", registry.host()), "/a/b:t is not in the registry");
    assert!(matches!(error, Error::NotFound { .. }));
    let host = registry.host();
    drop(registry);
    let error = place.refused(&format!("{host}/a/b:t"), "refused");
    assert!(matches!(error, Error::Unreachable { .. }));
    assert_eq!(place.said(), "", "who is not there is not asked again");
}

#[test]
fn two_pulls_at_once_fetch_each_layer_once() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let place = Place::new();
    let image = Image::new(&[100_000, 200_000, 300_000, 400_000, 500_000, 600_000], GZIP_LAYER, gzip);
    let reference = image.put(&registry);
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..3).map(|_| scope.spawn(|| place.pull(&reference))).collect();
        for pull in pulls {
            let pulled = pull.join().expect("no panic").expect("pulled");
            assert_eq!(pulled.image, Digest::of(&image.config_text()));
        }
    });
    let asked: Vec<String> = blobs(&registry).into_iter().map(|request| request.path).collect();
    for layer in &image.layers {
        let path = format!("/v2/a/b/blobs/{}", Digest::of(layer));
        assert_eq!(asked.iter().filter(|asked| **asked == path).count(), 1, "{path}");
    }
    assert!(place.parts().is_empty());
}
