//! Images that travel through real registries, to and from other tools.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ibid_testing::{DockerRegistry, GitRepository, Need, REGISTRY_USER, RegistryAccess, need};
use serde_json::Value;
use support::{Project, text};

fn can_travel(more: &[Need]) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let mut needs =
        if is_root { vec![Need::Overlay] } else { vec![Need::Userns, Need::Subids, Need::Overlay] };
    needs.push(Need::DockerRegistry);
    needs.extend(more);
    need(&needs)
}

/// A project with a store of its own, a registry, and an image that has a name in it.
struct World {
    project: Project,
    registry: DockerRegistry,
}

impl World {
    fn new(access: RegistryAccess) -> Self {
        let mut project = Project::new(
            "FROM scratch\nCOPY --chmod=4755 a /bin/a\nCOPY tree /tree\nENV A=b\nCMD [\"/bin/a\"]\n",
        );
        project.data = project.place.folder("share");
        project.file("a", "program\n");
        for number in 0..50 {
            project.file(&format!("tree/{}/file{number}", number % 7), &format!("{number} ").repeat(1000));
        }
        let registry = DockerRegistry::new(&project.place.folder("registry"), access);
        Self { project, registry }
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.host())
    }

    /// Builds an image under that name, and gives its digest.
    #[track_caller]
    fn build(&self, reference: &str) -> String {
        self.project.check(&["build", "--tag", reference], 0).trim().to_owned()
    }

    /// Runs ibid with an empty store, or the one that an earlier call with that name made.
    #[track_caller]
    fn elsewhere(&self, store: &str, args: &[&str], code: i32) -> (String, String) {
        let mut command = self.project.command(args);
        let output = command.env("XDG_DATA_HOME", self.project.place.path().join(store)).output();
        let output = output.expect("ibid starts");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{said}");
        (text(&output.stdout).trim().to_owned(), said)
    }

    /// Runs another tool, in the same closed environment.
    #[track_caller]
    fn tool(&self, program: &str, args: &[&str]) -> String {
        let mut command = self.project.place.command(program);
        // Without it, they look into a folder of root's for credentials.
        let output = command.args(args).env("XDG_RUNTIME_DIR", self.project.place.folder("run")).output();
        let output = output.expect("the tool starts");
        assert!(output.status.success(), "{program} {args:?}\n{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Copies an image to a folder in the OCI layout by skopeo. Gives the folder.
    #[track_caller]
    fn copy_by_skopeo(&self, reference: &str, folder: &str) -> PathBuf {
        let target = format!("oci:{folder}:x");
        let source = format!("docker://{reference}");
        self.tool("skopeo", &["--insecure-policy", "copy", "--src-tls-verify=false", &source, &target]);
        self.project.place.path().join(folder)
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON")
}

fn blob_path(folder: &Path, digest: &Value) -> PathBuf {
    let hex = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
    folder.join("blobs/sha256").join(hex)
}

#[test]
fn what_is_pushed_others_pull_byte_for_byte() {
    if !can_travel(&[Need::Skopeo]) {
        return;
    }
    let world = World::new(RegistryAccess::Plain);
    let reference = world.reference("lab/one:1");
    let digest = world.build(&reference);
    assert_eq!(world.project.check(&["push", &reference], 0).trim(), reference);
    let folder = world.copy_by_skopeo(&reference, "copied");
    let index = read_json(&folder.join("index.json"));
    let manifest = read_json(&blob_path(&folder, &index["manifests"][0]["digest"]));
    assert_eq!(manifest["config"]["digest"], digest.as_str());
    for layer in manifest["layers"].as_array().expect("layers") {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        let path = blob_path(&folder, &layer["digest"]);
        let hex = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(
            std::fs::read(&path).expect("read"),
            std::fs::read(world.registry.blob(&hex)).expect("read")
        );
    }
    // An empty store gets the same, and then has all of it.
    assert_eq!(world.elsewhere("other", &["pull", &reference], 0).0, digest);
    let (again, said) = world.elsewhere("other", &["pull", &reference], 0);
    assert_eq!(again, digest);
    assert!(said.contains("all layers were here"), "{said}");
    let (saved, _) = world.elsewhere("other", &["save", &reference, "-o", "other.tar"], 0);
    assert_eq!(saved, "");
    world.project.check(&["save", &reference, "-o", "own.tar"], 0);
    let read = |name: &str| std::fs::read(world.project.path().join(name)).expect("read");
    assert!(read("own.tar") == read("other.tar"), "the same archive");
    // Pushing again, from either store, changes nothing.
    assert!(text(&world.project.ibid(&["push", &reference]).stderr).contains("it was there"));
    assert!(world.elsewhere("other", &["push", &reference], 0).1.contains("it was there"));
    // In zstd, under another tag, and back.
    let zstd = world.reference("lab/one:zstd");
    world.build(&zstd);
    world.project.check(&["push", "--compression", "zstd", &zstd], 0);
    let folder = world.copy_by_skopeo(&zstd, "copied-zstd");
    let index = read_json(&folder.join("index.json"));
    let manifest = read_json(&blob_path(&folder, &index["manifests"][0]["digest"]));
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    assert_eq!(world.elsewhere("third", &["pull", &zstd], 0).0, digest);
}

#[test]
fn docker_pulls_what_is_pushed_and_the_other_way_round() {
    if !can_travel(&[Need::Docker]) {
        return;
    }
    let world = World::new(RegistryAccess::Plain);
    let (reference, back) = (world.reference("lab/docker:1"), world.reference("lab/back:1"));
    let digest = world.build(&reference);
    world.project.check(&["push", &reference], 0);
    world.tool("docker", &["pull", "--quiet", &reference]);
    let id = world.tool("docker", &["image", "inspect", "--format", "{{.Id}}", &reference]);
    world.tool("docker", &["tag", &reference, &back]);
    let pushed = Command::new("docker").args(["push", "--quiet", &back]).stdout(Stdio::null()).status();
    world.tool("docker", &["rmi", &reference, &back]);
    assert!(pushed.expect("docker starts").success());
    assert_eq!(id.trim(), digest);
    // Docker writes its own kind of manifest and compresses anew: the image is the same.
    assert_eq!(world.elsewhere("other", &["pull", &back], 0).0, digest);
}

#[test]
fn podman_and_skopeo_pull_what_is_pushed_and_the_other_way_round() {
    if !can_travel(&[Need::Podman, Need::Skopeo, Need::Root]) {
        return;
    }
    let world = World::new(RegistryAccess::Plain);
    let reference = world.reference("lab/podman:1");
    let digest = world.build(&reference);
    world.project.check(&["push", &reference], 0);
    let place = world.project.place.path();
    let (root, run) =
        (place.join("podman").display().to_string(), place.join("podman-run").display().to_string());
    let podman = |args: &[&str]| {
        let store =
            ["--root", &root, "--runroot", &run, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"];
        world.tool("podman", &[&store[..], args].concat())
    };
    podman(&["pull", "--quiet", "--tls-verify=false", &reference]);
    let id = podman(&["image", "inspect", "--format", "{{.Id}}", &reference]);
    assert_eq!(id.trim(), digest.trim_start_matches("sha256:"));
    let back = world.reference("lab/back:1");
    podman(&["push", "--quiet", "--tls-verify=false", &reference, &back]);
    assert_eq!(world.elsewhere("other", &["pull", &back], 0).0, digest);
    let source = format!("docker://{reference}");
    for (format, tag) in [("v2s2", "docker"), ("oci", "oci")] {
        let back = world.reference(&format!("lab/skopeo:{tag}"));
        let target = format!("docker://{back}");
        world.tool(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--format",
                format,
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                &source,
                &target,
            ],
        );
        // Docker's form of the configuration is another text, so another image; the layers are the same.
        let (pulled, said) = world.elsewhere("other", &["pull", &back], 0);
        assert!(said.contains("all layers were here"), "{said}");
        assert_eq!(pulled, digest);
    }
}

#[test]
fn tls_needs_an_authority_that_is_trusted() {
    if !can_travel(&[]) {
        return;
    }
    let world = World::new(RegistryAccess::Tls);
    let reference = world.reference("lab/one:1");
    let digest = world.build(&reference);
    let output = world.project.ibid(&["push", &reference]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    for part in
        ["the certificate of localhost:", "is not trusted", "hint: put the certificate of its authority"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    let authority = std::fs::read_to_string(world.registry.authority()).expect("a certificate");
    let certs = format!("home/.config/containers/certs.d/{}", world.registry.host());
    world.project.place.file(&format!("{certs}/ca.crt"), &authority);
    world.project.check(&["push", &reference], 0);
    assert_eq!(world.elsewhere("other", &["pull", &reference], 0).0, digest);
    // A file there that is no certificate is named.
    world.project.place.file(&format!("{certs}/other.crt"), "no certificate");
    let (_, said) = world.elsewhere("other", &["pull", &reference], 125);
    assert!(said.contains("other.crt: there is no certificate in it"), "{said}");
    // Or none is wanted.
    std::fs::remove_dir_all(world.project.place.path().join(&certs)).expect("removed");
    world.project.place.file(
        "home/.config/containers/registries.conf",
        &format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", world.registry.host()),
    );
    assert_eq!(world.elsewhere("third", &["pull", &reference], 0).0, digest);
}

#[test]
fn a_client_certificate_is_shown_to_the_registry_that_it_is_for() {
    if !can_travel(&[]) {
        return;
    }
    let world = World::new(RegistryAccess::ClientCertificate);
    let reference = world.reference("lab/one:1");
    let digest = world.build(&reference);
    let put = |name: &str, from: &Path| {
        let text = std::fs::read_to_string(from).expect("a file");
        world
            .project
            .place
            .file(&format!("home/.config/docker/certs.d/{}/{name}", world.registry.host()), &text);
    };
    put("ca.crt", &world.registry.authority());
    assert_eq!(world.project.ibid(&["push", &reference]).status.code(), Some(125));
    let (certificate, key) = world.registry.client();
    put("client.cert", &certificate);
    let said = text(&world.project.ibid(&["push", &reference]).stderr);
    assert!(said.contains("there is no key for it"), "{said}");
    put("client.key", &key);
    world.project.check(&["push", &reference], 0);
    assert_eq!(world.elsewhere("other", &["pull", &reference], 0).0, digest);
}

#[test]
fn a_pull_that_is_killed_is_gone_on_with() {
    use ibid_testing::{Deed, TestRegistry};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, mpsc};
    if !can_travel(&[]) {
        return;
    }
    let world = World::new(RegistryAccess::Plain);
    let registry = TestRegistry::new();
    let reference = format!("{}/lab/one:1", registry.host());
    // Numbers in hexadecimal, so that compressed enough is left.
    let content: String =
        (0..200_000_u64).map(|number| format!("{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    world.project.file("a", &content);
    let digest = world.build(&reference);
    world.project.check(&["push", &reference], 0);
    let manifest: Value =
        serde_json::from_slice(&registry.manifest("lab/one", "1").expect("pushed")).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers");
    let large = layers.iter().max_by_key(|layer| layer["size"].as_u64()).expect("a layer");
    let path = format!("/v2/lab/one/blobs/{}", large["digest"].as_str().expect("a digest"));
    assert!(large["size"].as_u64() > Some(500_000));

    // The first answer breaks off; the second never comes while the one who asks lives.
    let (arrives, arrived) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (count, released, asked) = (AtomicUsize::new(0), Mutex::new(released), path.clone());
    registry.on_request(move |request| match request.path == asked {
        true if count.fetch_add(1, Ordering::Relaxed) == 0 => Deed::CutAfter(400_000),
        true => {
            arrives.send(()).expect("the test waits");
            let _ = released.lock().expect("nobody panics").recv();
            Deed::KeepAndHangUp(0)
        }
        false => Deed::Serve,
    });
    let store = world.project.place.path().join("other");
    let mut command = world.project.command(&["pull", &reference]);
    command.env("XDG_DATA_HOME", &store).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("ibid starts");
    arrived.recv().expect("it goes on");
    child.kill().expect("killed");
    child.wait().expect("gone");
    drop(release);
    registry.on_request(|_| Deed::Serve);
    registry.requests();
    assert_eq!(world.elsewhere("other", &["images"], 0).0, "IMAGE  DIGEST  SIZE  BUILT");
    assert_eq!(world.elsewhere("other", &["pull", &reference], 0).0, digest);
    let requests = registry.requests();
    let ranges: Vec<_> = requests
        .iter()
        .filter(|request| request.path == path)
        .map(|request| request.headers.get("range"))
        .collect();
    assert_eq!(ranges, [Some(&"bytes=400000-".to_owned())]);
}

#[test]
fn a_password_opens_a_registry_and_is_nowhere_to_be_seen() {
    if !can_travel(&[Need::Skopeo]) {
        return;
    }
    let world = World::new(RegistryAccess::Password);
    let host = world.registry.host().to_owned();
    let (user, password) = REGISTRY_USER;
    let reference = world.reference("lab/one:1");
    let digest = world.build(&reference);
    let output = world.project.ibid(&["push", &reference]);
    let said = text(&output.stderr);
    assert!(said.contains(&format!("hint: `ibid login {host}`")), "{said}");
    let login = |password: &str| {
        let input = world.project.place.file("password", &format!("{password}\n"));
        let mut command = world.project.command(&["login", &host, "-u", user, "--password-stdin"]);
        command.stdin(std::fs::File::open(input).expect("a file")).output().expect("ibid starts")
    };
    let output = login("wrong");
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("refuses the login"), "{}", text(&output.stderr));
    let output = login(password);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("logged in to") && said.contains(".docker/config.json") && !said.contains(password),
        "{said}"
    );
    world.project.check(&["push", &reference], 0);
    assert_eq!(world.elsewhere("other", &["pull", "-v", &reference], 0).0, digest);
    // Other tools take it from where it was written.
    let file = world.project.place.path().join("home/.docker/config.json").display().to_string();
    let source = format!("docker://{reference}");
    world.tool("skopeo", &["inspect", "--tls-verify=false", "--authfile", &file, &source]);
    world.project.check(&["logout", &host], 0);
    let (_, said) = world.elsewhere("third", &["pull", &reference], 125);
    assert!(said.contains("hint: `ibid login"), "{said}");
    // Without a terminal nobody is asked.
    let output = world.project.ibid(&["login", &host]);
    assert!(text(&output.stderr).contains("--password-stdin"), "{}", text(&output.stderr));
}

#[test]
fn a_base_is_pulled_and_pinned_by_its_manifest() {
    if !can_travel(&[]) {
        return;
    }
    let mut world = World::new(RegistryAccess::Plain);
    let base = world.reference("lab/base:1");
    let first = world.build(&base);
    world.project.check(&["push", &base], 0);
    let write = |world: &World| {
        world.project.file("Dockerfile", &format!("FROM {base}\nCOPY a /more\n"));
        world.project.file("ibid.toml", "name = \"lower\"\n");
    };
    write(&world);
    let (image, said) = world.elsewhere("one", &["build"], 0);
    assert!(said.contains(&format!("pulled {base}")), "{said}");
    let path = world.project.path().join("ibid.lock");
    let lock = std::fs::read_to_string(&path).expect("a lock");
    assert!(
        lock.contains(&format!("[image.\"{base}\"]\ndigest = \"{first}\"\nmanifest = \"sha256:")),
        "{lock}"
    );
    // It is there now: nothing is pulled, not even without the registry's word.
    assert!(!world.elsewhere("one", &["build"], 0).1.contains("pull"), "the store has it");

    // The tag moves on; the lock does not.
    world.project.file("a", "another program\n");
    world.project.file("Dockerfile", "FROM scratch\nCOPY a /bin/a\n");
    std::fs::remove_file(&path).expect("a lock");
    let second = world.build(&base);
    world.project.check(&["push", "--force", &base], 0);
    world.project.file("a", "program\n");
    write(&world);
    std::fs::write(&path, &lock).expect("a lock");
    assert_eq!(world.elsewhere("two", &["build", "--locked"], 0).0, image);
    assert_eq!(world.elsewhere("one", &["build", "--locked"], 0).0, image);
    // Until that is asked for: what was pulled is pulled again.
    let (_, said) = world.elsewhere("one", &["build", "--update", &base], 0);
    assert!(said.contains(&format!("pulled {base}")), "{said}");
    let moved = std::fs::read_to_string(&path).expect("a lock");
    assert!(moved.contains(&second) && !moved.contains(&first), "{moved}");

    // A pin without a manifest is checked against what the name gives.
    std::fs::write(&path, format!("version = 2\n[image.\"{base}\"]\ndigest = \"{first}\"\n"))
        .expect("a lock");
    let (_, said) = world.elsewhere("three", &["build"], 125);
    assert!(
        said.contains(&format!("ibid.lock pins {first} for `{base}`, and its registry has {second}")),
        "{said}"
    );
    // By digest in the Dockerfile itself, nothing is pinned.
    let (_, said) = world.elsewhere("four", &["pull", &base], 0);
    let manifest =
        said.split("manifest ").nth(1).expect("a manifest").split(' ').next().expect("a digest").to_owned();
    let full = moved.split(&manifest[7..]).nth(1).expect("the rest of the digest");
    let full = format!("{manifest}{}", &full[..52]);
    world.project.file("Dockerfile", &format!("FROM {}@{full}\nCOPY a /more\n", world.reference("lab/base")));
    std::fs::remove_file(&path).expect("a lock");
    world.elsewhere("five", &["build", "--locked"], 0);
    assert!(!path.exists());

    // No registry, no image, and a clear word.
    world.project.file("Dockerfile", &format!("FROM {base}\n"));
    world.registry =
        DockerRegistry::new(&world.project.place.folder("other-registry"), RegistryAccess::Plain);
    let (_, said) = world.elsewhere("six", &["build"], 125);
    for part in [
        &format!("the base image `{base}` is not in the store, and cannot be pulled"),
        "Dockerfile:1",
        "refused",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let absent = world.reference("lab/base:none");
    world.project.file("Dockerfile", &format!("FROM {absent}\n"));
    let (_, said) = world.elsewhere("six", &["build"], 125);
    assert!(said.contains("lab/base:none is not in the registry"), "{said}");
    world.project.file("Dockerfile", "FROM debian:none\n");
    let (_, said) = world.elsewhere("six", &["build"], 125);
    assert!(said.contains("`docker.io/library/debian` is blocked by"), "{said}");
}

#[test]
fn the_projects_image_gets_a_tag_of_its_own() {
    if !can_travel(&[Need::Git]) {
        return;
    }
    let world = World::new(RegistryAccess::Plain);
    world.project.file("ibid.toml", "name = \"mnist\"\n");
    let repository = GitRepository::new(&world.project.path());
    let commit = repository.commit("first");
    let digest = world.project.check(&["build"], 0);
    let hex = &digest.trim().trim_start_matches("sha256:")[..12];
    let output = world.project.ibid(&["push"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("`ibid push --to REGISTRY/PREFIX`") && said.contains("ibid.toml"), "{said}");
    let place = world.reference("lab");
    let expected = format!("{place}/mnist:{}-{hex}", &commit[..7]);
    assert_eq!(world.project.check(&["push", "--to", &place], 0).trim(), expected);
    assert_eq!(world.elsewhere("other", &["pull", &expected], 0).0, digest.trim());
    // What is not committed shows.
    world.project.file("ibid.toml", &format!("name = \"mnist\"\n[image]\nregistry = \"{place}\"\n"));
    world.project.file("a", "changed\n");
    let digest = world.project.check(&["build"], 0);
    let hex = &digest.trim().trim_start_matches("sha256:")[..12];
    let expected = format!("{place}/mnist:{}-dirty-{hex}", &commit[..7]);
    assert_eq!(world.project.check(&["push"], 0).trim(), expected);
    // The same twice.
    assert!(text(&world.project.ibid(&["push"]).stderr).contains("it was there"));
    for (args, part) in [
        (&["push", "--to", "https://x"][..], "it is no place in a registry"),
        (&["push", "none.example/x:1"], "there is no image `none.example/x:1` in the store"),
        (&["push", "--to", "x.org", "y"], "cannot be used with"),
        (&["pull", "A B"], "is no image reference"),
        (&["pull", "--platform", "x", "y"], "it is no platform"),
    ] {
        let output = world.project.ibid(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        assert!(text(&output.stderr).contains(part), "{part} in {}", text(&output.stderr));
    }
}

#[test]
fn a_build_cache_travels_by_registry() {
    if !can_travel(&[]) {
        return;
    }
    let world = World::new(RegistryAccess::Plain);
    let cache = world.reference("lab/one:cache");
    let to = format!("type=registry,ref={cache}");
    world.project.file("Dockerfile", "FROM scratch AS tools\nCOPY a /bin/a\nFROM scratch\nCOPY tree /tree\nCOPY --from=tools /bin/a /usr/\n");
    let (digest, said) = world.elsewhere("one", &["build", "--cache-to", &to], 0);
    assert!(
        said.contains(&format!("cache {cache} · 3 layers of ")) && said.contains("3 of them new"),
        "{said}"
    );
    let (again, said) = world.elsewhere("two", &["build", "--cache-from", &to], 0);
    assert_eq!(again, digest);
    assert!(said.contains("3 of 3 steps from the cache") && !said.contains("warning"), "{said}");
    // The same again is the same manifest; another machine sends nothing that is there.
    let (_, said) = world.elsewhere("two", &["build", "--cache-to", &to], 0);
    assert!(said.contains("0 of them new"), "{said}");
    // An image's tag is not taken for a cache, and not made one.
    let image = world.reference("lab/one:1");
    world.elsewhere("one", &["build", "--tag", &image], 0);
    world.elsewhere("one", &["push", &image], 0);
    let as_cache = format!("type=registry,ref={image}");
    let (_, said) = world.elsewhere("three", &["build", "--cache-from", &as_cache], 0);
    assert!(said.contains("is not used: there is no build cache in it"), "{said}");
    let (_, said) = world.elsewhere("three", &["build", "--cache-to", &as_cache], 125);
    assert!(said.contains("the tag holds something else than a build cache"), "{said}");
    // A cache is no image.
    let (_, said) = world.elsewhere("three", &["pull", &cache], 125);
    assert!(said.contains("it is an artifact, `application/vnd.ibid.build-cache.config.v1+json`"), "{said}");
    // A layer that is gone is built.
    let folder = world.project.place.path().join("registry/data/docker/registry/v2");
    let layers = folder.join("repositories/lab/one/_layers/sha256");
    let text = world.tool(
        "curl",
        &[
            "-s",
            "-H",
            "Accept: application/vnd.oci.image.manifest.v1+json",
            &format!("http://{}/v2/lab/one/manifests/cache", world.registry.host()),
        ],
    );
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    for layer in manifest["layers"].as_array().expect("layers") {
        let hex = layer["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
        std::fs::remove_dir_all(layers.join(&hex)).expect("a layer's link");
    }
    let (again, said) = world.elsewhere("four", &["build", "--cache-from", &to], 0);
    assert_eq!(again, digest);
    assert!(
        said.contains(&format!("the cache in {cache} cannot be used, and what it lacks is built")),
        "{said}"
    );
    // Nor does a registry that is not there end a build.
    let (again, said) =
        world.elsewhere("five", &["build", "--cache-from", "type=registry,ref=localhost:1/x:y"], 0);
    assert_eq!(again, digest);
    assert!(said.contains("the cache in localhost:1/x:y is not used"), "{said}");
}
