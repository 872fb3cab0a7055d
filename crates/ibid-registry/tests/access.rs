//! Who somebody is: passwords, tokens, and who gets to know them.

mod support;

use ibid_registry::{Credential, Error, PushOptions, Secret};
use ibid_store::Compression;
use ibid_testing::{Access, Deed, TestRegistry};
use support::{Image, Place, can_unpack};

/// `me:secret-word`, encoded.
const AUTH: &str = "bWU6c2VjcmV0LXdvcmQ=";
const PASSWORD: &str = "me:secret-word";

fn knows(place: &Place, host: &str) {
    place.file(".docker/config.json", &format!(r#"{{"auths":{{"{host}":{{"auth":"{AUTH}"}}}}}}"#));
}

#[test]
fn passwords_and_tokens_open_a_registry() {
    if !can_unpack() {
        return;
    }
    for access in [Access::Basic(PASSWORD.to_owned()), Access::Token(PASSWORD.to_owned())] {
        let registry = TestRegistry::new();
        let image = Image::small();
        let reference = image.put(&registry);
        registry.set_access(access.clone());
        // Nobody is told from the wrong one.
        let place = Place::new();
        let error = place.refused(&reference, "");
        assert!(matches!(error, Error::Unauthorized { had_credentials: false, .. }), "{error:?}");
        place.file(
            ".docker/config.json",
            &format!(r#"{{"auths":{{"{}":{{"auth":"bWU6eA=="}}}}}}"#, registry.host()),
        );
        let error = place.refused(&reference, "");
        assert!(matches!(error, Error::Unauthorized { had_credentials: true, .. }), "{error:?}");
        knows(&place, &registry.host());
        registry.requests();
        let pulled = place.pull(&reference).expect("pulled");
        let tokens = registry.requests().iter().filter(|request| request.path == "/token").count();
        assert_eq!(tokens, usize::from(matches!(access, Access::Token(_))), "one token serves for all");
        // Writing asks for more than reading, and mounting for another repository too.
        let options = PushOptions { compression: Compression::Gzip, force: false };
        for name in ["x", "y"] {
            let target = format!("{}/{name}:t", registry.host()).parse().expect("a reference");
            let pushed = place.with(|client| client.push(&place.store, &pulled.image, &target, options));
            let pushed = pushed.expect("pushed");
            // The layers of the pulled image are compressed otherwise, so they are sent once.
            assert_eq!(
                (pushed.layers_sent, pushed.layers_mounted),
                if name == "x" { (3, 0) } else { (0, 3) }
            );
        }
        let said = place.said();
        assert!(!said.contains("secret-word") && !said.contains(AUTH), "{said}");
    }
}

#[test]
fn a_token_that_is_not_taken_any_more_is_replaced() {
    if !can_unpack() {
        return;
    }
    let registry = TestRegistry::new();
    let reference = Image::small().put(&registry);
    registry.set_access(Access::Token(PASSWORD.to_owned()));
    let place = Place::new();
    knows(&place, &registry.host());
    let refused = std::sync::atomic::AtomicBool::new(false);
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"test\"", registry.host());
    registry.on_request(move |request| {
        let is_blob = request.path.contains("/blobs/") && request.headers.contains_key("authorization");
        match is_blob && !refused.swap(true, std::sync::atomic::Ordering::Relaxed) {
            true => Deed::Answer(401, vec![("WWW-Authenticate", challenge.clone())], vec![]),
            false => Deed::Serve,
        }
    });
    place.pull(&reference).expect("pulled");
    let tokens = registry.requests().iter().filter(|request| request.path == "/token").count();
    assert_eq!(tokens, 2);
}

#[test]
fn credentials_go_nowhere_else() {
    if !can_unpack() {
        return;
    }
    // The registry names a token service that it must not name.
    let registry = TestRegistry::new();
    let reference = Image::small().put(&registry);
    let place = Place::new();
    knows(&place, &registry.host());
    for (realm, expected) in [
        ("ftp://example.org/token", "not reached by https"),
        ("token", "no URL of a token service"),
        ("https://u:p@example.org/token", "user name"),
    ] {
        registry.on_request(move |request| match request.path == "/v2/" {
            true => Deed::Serve,
            false => {
                Deed::Answer(401, vec![("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))], vec![])
            }
        });
        place.refused(&reference, expected);
    }
    // A challenge that is none.
    registry.on_request(|request| match request.path == "/v2/" {
        true => Deed::Serve,
        false => Deed::Answer(401, vec![("WWW-Authenticate", "Negotiate".to_owned())], vec![]),
    });
    let error = place.refused(&reference, "");
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert!(registry.requests().iter().all(|request| !request.headers.contains_key("authorization")));
}

#[test]
fn who_logs_in_is_checked_before_anything_is_kept() {
    if !can_unpack() {
        return;
    }
    for access in [Access::Basic(PASSWORD.to_owned()), Access::Token(PASSWORD.to_owned())] {
        let registry = TestRegistry::new();
        registry.set_access(access);
        let place = Place::new();
        let login = |password: &str| {
            let secret = Secret::Password(password.to_owned());
            let credential = Credential { username: "me".to_owned(), secret };
            place.with(|client| client.login(&registry.host(), &credential))
        };
        let path = place.folder.path().join("home/.docker/config.json");
        let error = login("wrong-word").expect_err("the wrong one");
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("wrong-word"));
        assert!(!path.exists());
        assert_eq!(login("secret-word").expect("the right one"), path.display().to_string());
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(text.contains(AUTH), "{text}");
        let (forgotten, left) = place.with(|client| client.logout(&registry.host())).expect("forgotten");
        assert_eq!((forgotten, left), (Some(path.display().to_string()), None));
        assert!(!std::fs::read_to_string(&path).expect("text").contains(AUTH));
    }
    let place = Place::new();
    for wrong in ["", "a b", "x/y/z", "http://a"] {
        let credential = Credential { username: "me".to_owned(), secret: Secret::Password("x".to_owned()) };
        assert!(place.with(|client| client.login(wrong, &credential)).is_err(), "{wrong}");
    }
}
