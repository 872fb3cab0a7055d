use super::*;

/// A home with files in it; contents may name it as `HOME`.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        path
    }

    fn credentials(&self, more: &[(&str, &str)]) -> Credentials {
        let home = self.0.path().display().to_string();
        let mut environment =
            vec![("HOME".to_owned(), home.clone()), ("PATH".to_owned(), format!("{home}/bin:/usr/bin:/bin"))];
        environment
            .extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.replace("HOME", &home))));
        Credentials::new(&Settings::new(self.0.path(), environment))
    }

    fn helper(&self, name: &str, script: &str) {
        let path = self.file(&format!("bin/docker-credential-{name}"), &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    }
}

fn auth(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

fn shown(found: Option<Credential>) -> String {
    match found {
        None => "none".to_owned(),
        Some(Credential { username, secret: Secret::Password(secret) }) => format!("{username}:{secret}"),
        Some(Credential { username, secret: Secret::IdentityToken(secret) }) => {
            format!("{username} token {secret}")
        }
    }
}

#[test]
fn entries_are_found_however_they_are_written() {
    let home = Home::new();
    home.file(
        ".docker/config.json",
        &format!(
            r#"{{"auths":{{"{HUB}":{{"auth":"{}"}},"r.org":{{"auth":"{}"}},"https://old.org/v1/":{{"auth":"{}"}},
            "r.org/lab":{{"auth":"{}"}},"t.org":{{"auth":"{}","identitytoken":"tok"}},"e.org":{{}},
            "n.org":{{"username":"u","password":"p:q"}}}}}}"#,
            auth("hub:1"),
            auth("all:2"),
            auth("old:3"),
            auth("lab:4:5"),
            auth("t:")
        ),
    );
    let credentials = home.credentials(&[]);
    let check = |host: &str, repository: &str, expected: &str| {
        assert_eq!(shown(credentials.find(host, repository).expect("found out")), expected, "{host}");
    };
    check("docker.io", "library/debian", "hub:1");
    check("r.org", "x", "all:2");
    check("r.org", "labor/x", "all:2");
    check("r.org", "lab/x", "lab:4:5");
    check("old.org", "x", "old:3");
    check("t.org", "x", "t token tok");
    check("n.org", "x", "u:p:q");
    check("e.org", "x", "none");
    check("r.org:5000", "x", "none");
    assert!(!format!("{:?}", credentials.find("r.org", "x")).contains('2'), "secrets are not shown");
}

#[test]
fn files_are_asked_in_their_order() {
    let home = Home::new();
    let entry =
        |user: &str| format!(r#"{{"auths":{{"r.org":{{"auth":"{}"}}}}}}"#, auth(&format!("{user}:p")));
    let runtime = [("XDG_RUNTIME_DIR", "HOME/run")];
    let find = |more: &[(&str, &str)]| shown(home.credentials(more).find("r.org", "x").expect("found out"));
    assert_eq!(find(&runtime), "none");
    home.file(".config/containers/auth.json", &entry("config"));
    assert_eq!(find(&runtime), "config:p");
    let user = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("ourselves"));
    home.file(&format!("run/containers/{user}/auth.json"), &entry("shared"));
    assert_eq!((find(&runtime), find(&[])), ("config:p".to_owned(), "shared:p".to_owned()));
    home.file("run/containers/auth.json", &entry("runtime"));
    assert_eq!(find(&runtime), "runtime:p");
    home.file(".docker/config.json", &entry("docker"));
    assert_eq!(find(&runtime), "docker:p");
    home.file("elsewhere/config.json", &entry("elsewhere"));
    assert_eq!(find(&[("DOCKER_CONFIG", "HOME/elsewhere")]), "elsewhere:p");
    home.file("named.json", &entry("named"));
    assert_eq!(find(&[("REGISTRY_AUTH_FILE", "HOME/named.json")]), "named:p");
}

#[test]
fn helpers_are_asked() {
    let home = Home::new();
    home.helper(
        "own",
        r#"[ "$1" = get ] && read -r server; echo "{\"ServerURL\":\"$server\",\"Username\":\"own\",\"Secret\":\"$server!\"}""#,
    );
    home.helper("all", "echo 'credentials not found in native keychain'; exit 1");
    home.helper("broken", "echo 'the keychain is locked'; exit 1");
    home.helper("token", r#"echo '{"Username":"<token>","Secret":"tok"}'"#);
    home.file(
        ".docker/config.json",
        &format!(
            r#"{{"credsStore":"all","credHelpers":{{"own.org":"own","docker.io":"own","broken.org":"broken","none.org":"none",
            "token.org":"token","evil.org":"../x"}},"auths":{{"plain.org":{{"auth":"{}"}},"own.org":{{"auth":"{}"}}}}}}"#,
            auth("plain:p"),
            auth("old:p")
        ),
    );
    let credentials = home.credentials(&[]);
    let find = |host: &str| match credentials.find(host, "x") {
        Ok(found) => shown(found),
        Err(error) => error.to_string(),
    };
    assert_eq!(find("own.org"), "own:own.org!");
    assert_eq!(find("docker.io"), format!("own:{HUB}!"));
    assert_eq!(find("plain.org"), "plain:p");
    assert_eq!(find("other.org"), "none");
    assert_eq!(find("token.org"), " token tok");
    assert!(find("broken.org").contains("docker-credential-broken failed: the keychain is locked"));
    assert!(find("none.org").contains("docker-credential-none failed"), "{}", find("none.org"));
    assert!(find("evil.org").contains("names no credential helper"));
}

#[test]
fn what_is_kept_is_found_and_forgotten_and_nothing_else_changes() {
    let home = Home::new();
    let path = home.file(
        ".docker/config.json",
        "{\"currentContext\":\"lab\",\"auths\":{\"https://r.org/v2/\":{\"auth\":\"b2xkOm9sZA==\"},\"z.org\":{}}}",
    );
    let credentials = home.credentials(&[]);
    let credential = Credential { username: "me".to_owned(), secret: Secret::Password("p:w".to_owned()) };
    assert_eq!(credentials.put("r.org", &credential).expect("kept"), path.display().to_string());
    assert_eq!(shown(credentials.find("r.org", "x").expect("found")), "me:p:w");
    let text = std::fs::read_to_string(&path).expect("text");
    assert!(text.contains("\"currentContext\": \"lab\"") && !text.contains("/v2/"), "{text}");
    assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    credentials.put("docker.io", &credential).expect("kept");
    assert!(std::fs::read_to_string(&path).expect("text").contains(HUB));
    assert_eq!(credentials.forget("r.org").expect("forgotten"), (Some(path.display().to_string()), None));
    assert_eq!(shown(credentials.find("r.org", "x").expect("found out")), "none");
    assert_eq!(credentials.forget("r.org").expect("nothing"), (None, None));
    assert!(std::fs::read_to_string(&path).expect("text").contains("z.org"));
    assert_eq!(std::fs::read_dir(path.parent().expect("a folder")).expect("a folder").count(), 1);
}

#[test]
fn a_helper_keeps_what_it_is_given() {
    let home = Home::new();
    home.helper(
        "file",
        r#"F=$(dirname "$0")/kept
case $1 in
store) cat > "$F" ;;
get) cat "$F" 2> /dev/null || { echo credentials not found in native keychain; exit 1; } ;;
erase) rm "$F" ;;
esac"#,
    );
    home.file(".docker/config.json", r#"{"credsStore":"file"}"#);
    let credentials = home.credentials(&[]);
    let credential = Credential { username: "me".to_owned(), secret: Secret::Password("pw".to_owned()) };
    assert_eq!(credentials.put("r.org", &credential).expect("kept"), "docker-credential-file");
    assert_eq!(shown(credentials.find("r.org", "x").expect("found")), "me:pw");
    assert!(
        !std::fs::read_to_string(home.0.path().join(".docker/config.json")).expect("text").contains("r.org")
    );
    assert_eq!(credentials.forget("r.org").expect("forgotten").0.as_deref(), Some("docker-credential-file"));
    assert_eq!(credentials.forget("r.org").expect("nothing"), (None, None));
}

#[test]
fn damaged_files_are_named_without_their_secrets() {
    let home = Home::new();
    for (content, expected) in [
        ("{\n\"auths\": {\"r.org\": {\"auth\": \"c2VjcmV0\" \"x\"}}}", "config.json:2: it is no JSON"),
        ("[]", "it is no JSON object"),
        ("{\"auths\":{\"r.org\":{\"auth\":\"c2VjcmV0!\"}}}", "the entry of r.org is no base64"),
        ("{\"auths\":{\"r.org\":{\"auth\":\"c2VjcmV0\"}}}", "holds no user name and password"),
    ] {
        home.file(".docker/config.json", content);
        let error = home.credentials(&[]).find("r.org", "x").expect_err("damaged").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("c2Vj") && !error.contains("secret"), "{error}");
    }
}
