use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use ibid_testing::{GitRepository, GitServer, Need, need};

use super::*;

/// Repositories on a server, and what is made of them.
struct World {
    folder: tempfile::TempDir,
    server: GitServer,
    network: Network,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = GitServer::new(&folder.path().join("served"));
        let environment =
            ["PATH", "HOME"].map(|name| (name.to_owned(), std::env::var(name).unwrap_or_default()));
        let network = Network::new(Path::new("/"), environment);
        Self { folder, server, network }
    }

    fn repository(&self, name: &str) -> GitRepository {
        GitRepository::new(&self.folder.path().join("served").join(name))
    }

    fn source(&self, name: &str, reference: Option<&str>) -> GitSource {
        GitSource {
            remote: self.server.url(name),
            reference: reference.map(str::to_owned),
            folder: None,
            checksum: None,
            keep_git_dir: false,
            submodules: true,
        }
    }

    fn resolve(&self, source: &GitSource) -> Result<Commit, Error> {
        Git::new(&self.network, &|| false).resolve(source)
    }

    /// What a checkout of a commit holds: paths with content, `*` for an executable file, `->` for a link.
    fn checkout(&self, source: &GitSource, commit: &Commit) -> Result<BTreeMap<String, String>, Error> {
        let place = tempfile::tempdir_in(self.folder.path()).expect("a temporary folder");
        let (work, into) = (place.path().join("work"), place.path().join("into"));
        for folder in [&work, &into] {
            std::fs::create_dir(folder).expect("a folder");
        }
        Git::new(&self.network, &|| false).checkout(source, commit, &work, &into)?;
        let mut found = BTreeMap::new();
        list(&into, "", &mut found);
        Ok(found)
    }
}

fn list(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = format!("{prefix}{}", path.file_name().expect("a name").to_string_lossy());
        let metadata = std::fs::symlink_metadata(&path).expect("metadata");
        if metadata.is_dir() {
            found.insert(format!("{name}/"), String::new());
            list(&path, &format!("{name}/"), found);
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).expect("a link");
            found.insert(name, format!("-> {}", target.display()));
        } else {
            let content = std::fs::read(&path).expect("a file");
            let mark = if metadata.permissions().mode() & 0o100 == 0 { "" } else { "*" };
            found.insert(name, format!("{}{mark}", String::from_utf8_lossy(&content)));
        }
    }
}

fn tree(lines: &[(&str, &str)]) -> BTreeMap<String, String> {
    lines.iter().map(|&(path, line)| (path.to_owned(), line.to_owned())).collect()
}

#[test]
fn references_stand_for_commits() {
    if !need(&[Need::Git]) {
        return;
    }
    let world = World::new();
    let repository = world.repository("repo.git");
    repository.file("a", "1");
    let first = repository.commit("first");
    repository.git(&["tag", "light"]);
    repository.git(&["tag", "--annotate", "--message", "with words", "v1"]);
    repository.git(&["branch", "v1-branch"]);
    repository.git(&["branch", "both"]);
    repository.file("a", "2");
    let second = repository.commit("second");
    repository.git(&["tag", "both"]);
    repository.git(&["update-ref", "refs/pull/1/head", &first]);
    repository.git(&["branch", "deep/main"]);
    let check = |reference: Option<&str>, id: &str, tag: Option<&str>| {
        let commit = world.resolve(&world.source("repo.git", reference)).expect("resolves");
        assert_eq!((commit.id.as_str(), commit.tag.as_deref()), (id, tag), "{reference:?}");
    };
    check(None, &second, None);
    check(Some("main"), &second, None);
    check(Some("light"), &first, Some("light"));
    check(Some("v1"), &first, Some("v1"));
    check(Some("refs/tags/v1"), &first, Some("v1"));
    check(Some("tags/v1"), &first, Some("v1"));
    check(Some("v1-branch"), &first, None);
    check(Some("deep/main"), &second, None);
    // A branch wins over a tag of its name.
    check(Some("both"), &first, None);
    check(Some("refs/tags/both"), &second, Some("both"));
    check(Some("refs/pull/1/head"), &first, None);
    check(Some("pull/1/head"), &first, None);
    check(Some(&first), &first, None);
    let unknown = world.resolve(&world.source("repo.git", Some("none")));
    assert!(matches!(unknown, Err(Error::NoReference { .. })), "{unknown:?}");
    let part = world.resolve(&world.source("repo.git", Some(&first[..12])));
    assert!(matches!(part, Err(Error::NoReference { .. })), "{part:?}");
    let missing = world.resolve(&world.source("none.git", None)).expect_err("no such repository");
    assert!(missing.to_string().starts_with(&format!("git cannot fetch {}", world.server.url("none.git"))));
}

#[test]
fn a_commit_becomes_files() {
    if !need(&[Need::Git]) {
        return;
    }
    let world = World::new();
    let repository = world.repository("repo.git");
    repository.file("old", "gone later");
    let first = repository.commit("first");
    std::fs::remove_file(repository.file("old", "")).expect("removed");
    repository.file("sub/text", "text\n");
    repository.file("crlf.txt", "a\nb\n");
    repository.file(".gitattributes", "*.txt text eol=crlf\n*.bad filter=evil\n");
    repository.file("x.bad", "as it is");
    let script = repository.file("run", "#!/bin/sh\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    symlink("sub/text", script.with_file_name("link")).expect("a link");
    let second = repository.commit("second");
    let source = world.source("repo.git", None);
    let commit = |id: &str| Commit { id: id.to_owned(), tag: None };
    let expected = tree(&[
        (".gitattributes", "*.txt text eol=crlf\n*.bad filter=evil\n"),
        ("crlf.txt", "a\r\nb\r\n"),
        ("link", "-> sub/text"),
        ("run", "#!/bin/sh\n*"),
        ("sub/", ""),
        ("sub/text", "text\n"),
        ("x.bad", "as it is"),
    ]);
    assert_eq!(world.checkout(&source, &commit(&second)).expect("checked out"), expected);
    // One that no name leads to.
    assert_eq!(
        world.checkout(&source, &commit(&first)).expect("checked out"),
        tree(&[("old", "gone later")])
    );
    let unknown = world.checkout(&source, &commit(&"1".repeat(40)));
    assert!(matches!(unknown, Err(Error::Git { .. })), "{unknown:?}");
}

#[test]
fn configuration_hooks_and_other_protocols_do_nothing() {
    if !need(&[Need::Git]) {
        return;
    }
    let mut world = World::new();
    let home = world.folder.path().join("home");
    let trace = world.folder.path().join("trace");
    std::fs::create_dir_all(home.join("hooks")).expect("folders");
    let hook = home.join("hooks/post-checkout");
    std::fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", trace.display())).expect("a hook");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let filter = format!("[filter \"evil\"]\nsmudge = touch {}\n", trace.display());
    let hooks = format!("[core]\nhooksPath = {}\n", home.join("hooks").display());
    std::fs::write(home.join(".gitconfig"), format!("{filter}{hooks}")).expect("a configuration");
    let repository = world.repository("repo.git");
    repository.file(".gitattributes", "* filter=evil\n");
    let id = repository.commit("first");
    let path = std::env::var("PATH").expect("a path");
    let variables = [("PATH", path), ("HOME", home.display().to_string()), ("GIT_SSH", "false".to_owned())];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    world.network = Network::new(Path::new("/"), variables);
    let source = world.source("repo.git", None);
    world.checkout(&source, &Commit { id, tag: None }).expect("checked out");
    assert!(!trace.exists(), "something of the configuration was run");

    let ext = format!("ext::sh -c 'touch {}'", trace.display());
    let file = format!("file://{}", world.folder.path().join("served/repo.git").display());
    for remote in [ext, file, "--upload-pack=touch".to_owned()] {
        let source = GitSource { remote, ..world.source("repo.git", None) };
        assert!(matches!(world.resolve(&source), Err(Error::Git { .. })), "{source:?}");
    }
    assert!(!trace.exists());
}

#[test]
fn submodules_come_too_unless_they_are_not_wanted() {
    if !need(&[Need::Git]) {
        return;
    }
    let world = World::new();
    let inner = world.repository("inner.git");
    inner.file("deep", "inner");
    inner.commit("inner");
    let middle = world.repository("middle.git");
    middle.file("text", "middle");
    let url = world.server.url("inner.git");
    middle.git(&["submodule", "--quiet", "add", &url, "in"]);
    middle.commit("middle");
    inner.file("deep", "later");
    inner.commit("later");
    let outer = world.repository("outer.git");
    // Relative to the repository's own place.
    outer.git(&["remote", "add", "origin", &world.server.url("outer.git")]);
    outer.git(&["submodule", "--quiet", "add", "../middle.git", "lib/middle"]);
    let id = outer.commit("outer");
    let source = world.source("outer.git", None);
    let commit = Commit { id, tag: None };
    let found = world.checkout(&source, &commit).expect("checked out");
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let expected = [
        ".gitmodules",
        "lib/",
        "lib/middle/",
        "lib/middle/.gitmodules",
        "lib/middle/in/",
        "lib/middle/in/deep",
        "lib/middle/text",
    ];
    assert_eq!(names, expected);
    assert_eq!(found["lib/middle/in/deep"], "inner");
    let without = GitSource { submodules: false, ..source.clone() };
    let found = world.checkout(&without, &commit).expect("checked out");
    assert_eq!(found.keys().collect::<Vec<_>>(), [".gitmodules", "lib/", "lib/middle/"]);

    // With their repositories, twice the same.
    let kept = GitSource { keep_git_dir: true, ..source };
    let first = world.checkout(&kept, &commit).expect("checked out");
    assert_eq!(world.checkout(&kept, &commit).expect("checked out"), first);
    assert_eq!(first["lib/middle/.git"], "gitdir: ../../.git/modules/lib/middle\n");
}

#[test]
fn a_kept_repository_is_the_same_each_time_and_of_use() {
    if !need(&[Need::Git]) {
        return;
    }
    let world = World::new();
    let repository = world.repository("repo.git");
    for number in 0..5 {
        repository.file(&format!("{number}"), &"content\n".repeat(1000 + number));
        repository.commit("one of several");
    }
    let id = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "v1"]);
    let source = GitSource { keep_git_dir: true, ..world.source("repo.git", Some("v1")) };
    let commit = world.resolve(&source).expect("resolves");
    assert_eq!(commit, Commit { id: id.clone(), tag: Some("v1".to_owned()) });
    let first = world.checkout(&source, &commit).expect("checked out");
    // The server has more by now, packs it otherwise, and the tag is gone.
    repository.file("more", "more");
    repository.commit("later");
    repository.git(&["branch", "another"]);
    repository.git(&["tag", "--delete", "v1"]);
    repository.git(&["repack", "-a", "-d", "--quiet"]);
    assert_eq!(world.checkout(&source, &commit).expect("checked out"), first);
    assert_eq!(first[".git/HEAD"], format!("{id}\n"));
    assert_eq!(first[".git/shallow"], format!("{id}\n"));
    assert_eq!(first[".git/refs/tags/v1"], format!("{id}\n"));
    assert!(first[".git/config"].contains(&source.remote), "{}", first[".git/config"]);

    let place = tempfile::tempdir().expect("a temporary folder");
    let into = place.path().join("into");
    std::fs::create_dir(&into).expect("a folder");
    Git::new(&world.network, &|| false).checkout(&source, &commit, place.path(), &into).expect("checked out");
    let there = GitRepository::new(&into);
    assert_eq!(there.git(&["status", "--porcelain"]), "");
    assert_eq!(there.git(&["describe", "--tags"]), "v1");
    assert_eq!(there.git(&["fsck", "--strict"]), "");
}

#[test]
fn passwords_are_in_no_message_and_no_kept_repository() {
    if !need(&[Need::Git]) {
        return;
    }
    let world = World::new();
    let repository = world.repository("repo.git");
    let id = repository.commit("empty");
    let remote = world.server.url("repo.git").replace("git://", "git://me:secret@");
    let source = GitSource { remote, keep_git_dir: true, ..world.source("repo.git", None) };
    let error = Git::new(&world.network, &|| false).resolve(&source).expect_err("git:// has no passwords");
    assert!(!error.to_string().contains("secret"), "{error}");
    // As a server with passwords would leave it.
    let place = tempfile::tempdir().expect("a temporary folder");
    let git = Git::new(&world.network, &|| false);
    let plain = GitSource { remote: world.server.url("repo.git"), ..source.clone() };
    let folder = place.path().join(".git");
    assert!(git.fetch(&plain, &id, &folder).is_ok());
    let call = Call::of(&["config", "remote.origin.url", &source.remote]);
    assert!(git.call(&call.in_repository(&folder)).is_ok());
    let call = Call::of(&["checkout", "--quiet", "--detach", &id]);
    assert!(git.call(&call.on(&folder, place.path())).is_ok());
    assert!(git.tidy(&folder, &Commit { id, tag: None }).is_ok());
    let mut found = BTreeMap::new();
    list(&folder, "", &mut found);
    assert!(found.values().all(|content| !content.contains("secret")), "{found:?}");
}

#[test]
fn what_is_not_wanted_any_more_ends() {
    if !need(&[Need::Git]) {
        return;
    }
    // Accepts and says nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let world = World::new();
    let remote = format!("git://{}/x", silent.local_addr().expect("an address"));
    let source = GitSource { remote, ..world.source("x", None) };
    let ended = Git::new(&world.network, &|| true).resolve(&source);
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
}
