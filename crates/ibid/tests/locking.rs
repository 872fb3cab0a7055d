//! `ibid.lock`: what a build takes from it, adds to it, and with `--locked` or `--update` does about it.

mod support;

use ibid_core::digest::Digest;
use ibid_testing::{GitRepository, GitServer, Need};
use support::server::Server;
use support::{Project, can_copy, text, tree};

/// A project without bases of its own, in an empty store.
fn project() -> Project {
    let mut project = Project::new("");
    project.data = project.place.folder("share");
    project.file("ibid.toml", &format!("name = \"{}\"\n", project.name()));
    project
}

/// Makes the image `lower:1`, of one file. Gives its digest.
#[track_caller]
fn lower(project: &Project, content: &str) -> String {
    project.file("lower", content);
    project.file("lower.dockerfile", "FROM scratch\nCOPY lower /lower\n");
    project.check(&["build", "-f", "lower.dockerfile", "-t", "lower:1"], 0).trim().to_owned()
}

/// The file that the project's image has from `lower:1`.
fn lower_file(project: &Project) -> String {
    tree::image(project)["lower"].clone()
}

fn lock(project: &Project) -> String {
    std::fs::read_to_string(project.path().join("ibid.lock")).unwrap_or_default()
}

#[track_caller]
fn narration(project: &Project, args: &[&str], code: i32) -> String {
    let output = project.ibid(args);
    let narration = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{narration}");
    narration
}

/// The message of a build that ends before it begins.
#[track_caller]
fn refused(project: &Project, args: &[&str], parts: &[&str]) {
    let before = lock(project);
    let message = narration(project, &[&["build"], args].concat(), 125);
    for part in parts {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(lock(project), before);
}

#[test]
fn an_image_is_pinned_when_its_name_is_first_used() {
    if !can_copy(&[]) {
        return;
    }
    let mut project = project();
    let first = lower(&project, "first");
    assert_eq!(lock(&project), "");
    project.file("Dockerfile", "FROM lower:1\nCOPY --from=lower:1 /lower /copied\n");
    let image = project.check(&["build"], 0);
    let pin = |digest: &str| format!("[image.\"lower:1\"]\ndigest = \"{digest}\"\n");
    assert!(lock(&project).ends_with(&pin(&first)), "{}", lock(&project));

    // The name goes on; the lock does not, and says so.
    let second = lower(&project, "second");
    let said = narration(&project, &["build"], 0);
    for part in
        ["warning: `lower:1` is another image by now", "ibid.lock pins", "`ibid build --update lower:1`"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(project.check(&["build", "--locked", "--no-cache"], 0), image);
    assert_eq!(lower_file(&project), "file 644 0:0 \"first\"");
    assert!(lock(&project).ends_with(&pin(&first)), "{}", lock(&project));

    // Until that is asked for.
    assert!(!narration(&project, &["build", "--update", "lower:1"], 0).contains("warning"));
    assert_eq!(lower_file(&project), "file 644 0:0 \"second\"");
    assert!(lock(&project).ends_with(&pin(&second)), "{}", lock(&project));
    let third = lower(&project, "third");
    project.check(&["build", "--update"], 0);
    assert!(lock(&project).ends_with(&pin(&third)), "{}", lock(&project));

    // Where the pinned image never was.
    project.data = project.place.folder("other-share");
    refused(&project, &[], &["`lower:1` is not in the store", &third, "Dockerfile:1"]);
    let other = lower(&project, "other");
    for args in [&[][..], &["--locked"]] {
        refused(
            &project,
            args,
            &[
                "ibid.lock pins for `lower:1` is not in the store",
                &third,
                &other,
                "`ibid build --update lower:1`",
            ],
        );
    }
    project.check(&["build", "--update", "lower:1"], 0);
    assert_eq!(lower_file(&project), "file 644 0:0 \"other\"");

    // What names itself needs no pin.
    std::fs::remove_file(project.path().join("ibid.lock")).expect("a lock");
    project.file("Dockerfile", &format!("FROM {other}\n"));
    project.check(&["build", "--locked"], 0);
    project.check(&["build"], 0);
    assert_eq!(lock(&project), "");
}

#[test]
fn a_locked_build_names_all_that_the_lock_lacks() {
    if !can_copy(&[]) {
        return;
    }
    let server = Server::new();
    server.put("/a", b"first");
    server.put("/b", b"b");
    let mut project = project();
    lower(&project, "lower");
    let url = server.url();
    let sum = Digest::of(b"first");
    project.file(
        "Dockerfile",
        &format!("ARG V=a\nFROM lower:1\nARG V=a\nADD {url}/$V /\nADD --checksum={sum} {url}/a /sum\nADD {url}/b /\n"),
    );
    let a = format!("the content of {url}/a");
    let b = format!("the content of {url}/b");
    refused(
        &project,
        &["--locked"],
        &["--locked: ibid.lock lacks", "the image `lower:1`", &a, &b, "hint: `ibid build` adds it"],
    );
    assert_eq!(server.asked().len(), 0);
    let image = project.check(&["build"], 0);
    let locked = lock(&project);
    assert_eq!(project.check(&["build", "--locked"], 0), image);
    assert_eq!(lock(&project), locked);

    // Another Dockerfile.
    refused(&project, &["--locked", "--build-arg", "V=c"], &[&format!("lacks the content of {url}/c\n")]);
    // Another content, on another machine.
    project.data = project.place.folder("other-share");
    lower(&project, "lower");
    server.put("/b", b"other");
    let message =
        [&format!("{url}/b has the digest"), "the lock says", &format!("`ibid build --update {url}/b`")]
            .map(|part| part.to_owned());
    refused(&project, &["--locked"], &message.each_ref().map(String::as_str));
    refused(&project, &["--locked", "--update"], &[]);

    // A base that would have to be made.
    project.file("ibid.toml", "name = \"test\"\n[base.\"debian:12\"]\nsuite = \"bookworm\"\n");
    project.file("Dockerfile", "FROM debian:12\nFROM lower:1\nCOPY --from=0 / /\n");
    refused(&project, &["--locked"], &["lacks the packages of the base `debian:12`\n"]);
    project.file(
        "ibid.lock",
        "version = 1\n[base.\"debian:12\"]\nsuite = \"trixie\"\narchitecture = \"amd64\"\nasked = []\nsources = []\npackages = []\n",
    );
    refused(
        &project,
        &["--locked"],
        &["lacks the image `lower:1`, the packages of the base `debian:12` as ibid.toml asks for them\n"],
    );
}

#[test]
fn one_url_or_all_are_looked_at_anew() {
    if !can_copy(&[]) {
        return;
    }
    let server = Server::new();
    server.put("/a?x&y", b"a1");
    server.put("/b", b"b1");
    let project = project();
    project.file("ibid.lock", "version = 1\n");
    let url = server.url();
    project.file("Dockerfile", &format!("FROM scratch\nADD {url}/a?x&y {url}/b /\n"));
    let check = |args: &[&str], a: &str, b: &str| {
        project.check(&[&["build"], args].concat(), 0);
        let found = tree::image(&project);
        assert_eq!(found["a"], format!("file 600 0:0 \"{a}\""), "{args:?}");
        assert_eq!(found["b"], format!("file 600 0:0 \"{b}\""), "{args:?}");
    };
    check(&[], "a1", "b1");
    assert!(lock(&project).contains("version = 2"), "{}", lock(&project));
    server.put("/a?x&y", b"a2");
    server.put("/b", b"b2");
    check(&["--no-cache"], "a1", "b1");
    check(&["--update", &format!("{url}/a?x&y")], "a2", "b1");
    check(&[], "a2", "b1");
    check(&["--update"], "a2", "b2");
    check(&["--locked"], "a2", "b2");
    refused(
        &project,
        &["--update", "other"],
        &["the build has no base and no URL `other`", &format!("hint: it has {url}/a?x&y, {url}/b")],
    );
    refused(&project, &["--update", "."], &["hint: for a folder, name it first: `ibid build . --update`"]);
    check(&[".", "--update"], "a2", "b2");
}

#[test]
fn a_commit_is_locked_like_all_else() {
    if !can_copy(&[Need::Git]) {
        return;
    }
    let project = project();
    let served = project.place.folder("served");
    let server = GitServer::new(&served);
    let repository = GitRepository::new(&served.join("repo.git"));
    repository.file("x", "1");
    repository.commit("first");
    let url = server.url("repo.git");
    project.file("Dockerfile", &format!("FROM scratch\nADD {url}#main /\n"));
    refused(&project, &["--locked"], &[&format!("lacks the commit of {url}#main\n")]);
    let image = project.check(&["build"], 0);
    repository.file("x", "2");
    let second = repository.commit("second");
    assert_eq!(project.check(&["build", "--locked", "--no-cache"], 0), image);
    project.file("Dockerfile", &format!("FROM scratch\nADD --checksum={} {url}#main /\n", &second[..8]));
    refused(&project, &["--locked"], &[&format!("lacks the commit {} of {url}#main\n", &second[..8])]);
    project.file("Dockerfile", &format!("FROM scratch\nADD {url}#main /\n"));
    project.check(&["build", "--update", &format!("{url}#main")], 0);
    assert!(lock(&project).contains(&second), "{}", lock(&project));
    project.file("Dockerfile", &format!("FROM scratch\nADD {url}#{second} /\n"));
    project.check(&["build", "--locked"], 0);
}
