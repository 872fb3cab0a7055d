//! `ADD` of git repositories: a commit, pinned, and nothing that depends on the day or on who builds.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ibid_core::time::DEFAULT_EPOCH;
use ibid_testing::{GitRepository, GitServer, Need, OrdinaryUser, need};
use support::server::Server;
use support::{Project, text, tree};

fn can_fetch() -> bool {
    need(if rustix::process::geteuid().is_root() {
        &[Need::Overlay, Need::Git]
    } else {
        &[Need::Userns, Need::Subids, Need::Overlay, Need::Git]
    })
}

/// A project, and repositories that are served.
struct World {
    project: Project,
    server: GitServer,
}

impl World {
    fn new() -> Self {
        let mut project = Project::new("");
        project.data = project.place.folder("share");
        let server = GitServer::new(&project.place.folder("served"));
        Self { project, server }
    }

    fn repository(&self, name: &str) -> GitRepository {
        GitRepository::new(&self.project.place.path().join("served").join(name))
    }

    /// `URL` becomes that of the repository `repo.git`.
    fn dockerfile(&self, steps: &str) {
        let steps = steps.replace("URL", &self.server.url("repo.git"));
        self.project.file("Dockerfile", &format!("FROM scratch\n{steps}\n"));
    }

    #[track_caller]
    fn check(&self, expected: &[(&str, &str)]) {
        self.project.check(&["build"], 0);
        let expected = expected.iter().map(|&(path, line)| (path.to_owned(), line.to_owned())).collect();
        assert_eq!(tree::image(&self.project), expected);
    }

    #[track_caller]
    fn failure(&self) -> String {
        let output = self.project.ibid(&["build"]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{message}");
        assert_eq!(left_over(&self.project), 0, "{message}");
        message
    }

    fn lock(&self) -> String {
        std::fs::read_to_string(self.project.path().join("ibid.lock")).unwrap_or_default()
    }
}

fn left_over(project: &Project) -> usize {
    std::fs::read_dir(project.data.join("ibid/tmp")).expect("the store's tmp").count()
}

/// A repository with two commits; gives both.
fn filled(repository: &GitRepository) -> [String; 2] {
    repository.file("docs/read.me", "first");
    let run = repository.file("run", "#!/bin/sh\n");
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let first = repository.commit("first");
    repository.git(&["tag", "v1"]);
    repository.file("docs/read.me", "second");
    repository.file("docs/note.md", "note");
    [first, repository.commit("second")]
}

#[test]
fn a_repository_becomes_files() {
    if !can_fetch() {
        return;
    }
    let world = World::new();
    let [first, _] = filled(&world.repository("repo.git"));
    world.dockerfile(&format!(
        "ADD URL /all\nADD --chown=5:6 --exclude=*.md URL#main:docs URL?tag=v1&subdir=/docs/../docs /docs/\n\
         ADD --chmod=u=rwX,go= URL#{first} /first/"
    ));
    world.check(&[
        ("all", "folder 755 0:0"),
        ("all/docs", "folder 755 0:0"),
        ("all/docs/note.md", "file 644 0:0 \"note\""),
        ("all/docs/read.me", "file 644 0:0 \"second\""),
        ("all/run", "file 755 0:0 \"#!/bin/sh\\n\""),
        ("docs", "folder 755 5:6"),
        ("docs/read.me", "file 644 5:6 \"first\""),
        ("first", "folder 755 0:0"),
        ("first/docs", "folder 700 0:0"),
        ("first/docs/read.me", "file 600 0:0 \"first\""),
        ("first/run", "file 700 0:0 \"#!/bin/sh\\n\""),
    ]);
    assert!(tree::times(&world.project).iter().all(|(_, time)| *time == DEFAULT_EPOCH));
    assert_eq!(left_over(&world.project), 0);
}

#[test]
fn a_reference_is_pinned_to_its_commit() {
    if !can_fetch() {
        return;
    }
    let mut world = World::new();
    let repository = world.repository("repo.git");
    let [_, second] = filled(&repository);
    world.dockerfile("ADD URL#main /x/");
    let image = world.project.check(&["build"], 0);
    let files = tree::image(&world.project);
    let pin = format!("[git.\"{}#main\"]\ncommit = \"{second}\"", world.server.url("repo.git"));
    assert!(world.lock().contains(&pin), "{}", world.lock());

    // The branch goes on; the lock does not, on a machine that has nothing of it either.
    repository.file("docs/read.me", "third");
    let third = repository.commit("third");
    assert_eq!(world.project.check(&["build", "--no-cache"], 0), image);
    world.project.data = world.project.place.folder("other-share");
    assert_eq!(world.project.check(&["build"], 0), image);
    assert!(world.lock().contains(&pin), "{}", world.lock());

    // What the Dockerfile says counts more.
    world.dockerfile(&format!("ADD --checksum={} URL#main /x/", &third[..9]));
    world.project.check(&["build"], 0);
    assert!(world.lock().contains(&third) && !world.lock().contains(&second), "{}", world.lock());
    world.dockerfile("ADD --checksum=0123 URL#main /x/");
    let message = world.failure();
    for part in ["#main is at the commit ", &third, "the Dockerfile says 0123", "Dockerfile:2", "hint: "] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(world.lock().contains(&third), "{}", world.lock());

    // All digits are a pin by themselves.
    std::fs::remove_file(world.project.path().join("ibid.lock")).expect("a lock");
    world.dockerfile(&format!("ADD URL#{second} /x/"));
    world.project.check(&["build"], 0);
    assert_eq!(tree::image(&world.project), files);
    assert_eq!(world.lock(), "");
}

#[test]
fn the_repository_is_kept_when_that_is_asked_for() {
    if !can_fetch() {
        return;
    }
    let mut world = World::new();
    filled(&world.repository("repo.git"));
    world.dockerfile("ADD --keep-git-dir=true URL#v1 /x/");
    let image = world.project.check(&["build"], 0);
    let found = tree::image(&world.project);
    assert!(found.contains_key("x/.git/HEAD") && found.contains_key("x/.git/refs/tags/v1"), "{found:?}");
    world.project.data = world.project.place.folder("other-share");
    assert_eq!(world.project.check(&["build", "--verify"], 0), image);
    world.dockerfile("ADD URL?tag=v1&keep-git-dir&subdir=docs /x/");
    world.check(&[("x", "folder 755 0:0"), ("x/read.me", "file 644 0:0 \"first\"")]);
}

#[test]
fn an_ordinary_user_gets_the_same_image() {
    if !need(&[Need::Root, Need::Subids, Need::Overlay, Need::Git]) {
        return;
    }
    let world = World::new();
    filled(&world.repository("repo.git"));
    world.dockerfile("ADD URL /x/\nADD --keep-git-dir URL /y/");
    let as_root = world.project.check(&["build"], 0);
    let user = OrdinaryUser::find().expect("somebody with subordinate ids");
    let home = world.project.place.folder("home");
    user.own(&home);
    user.own(&world.project.path());
    let mut command = world.project.command(&["build"]);
    command.env("XDG_DATA_HOME", home.join("share"));
    let output = user.command(&command).output().expect("ibid starts");
    assert_eq!(text(&output.stdout), as_root, "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_fetched_is_said_and_leaves_nothing() {
    if !can_fetch() {
        return;
    }
    let world = World::new();
    let repository = world.repository("repo.git");
    filled(&repository);
    let check = |steps: &str, parts: &[&str]| {
        world.dockerfile(steps);
        let message = world.failure();
        for part in parts.iter().chain(&["Dockerfile:2"]) {
            assert!(message.contains(part), "{part} in {message}");
        }
        // The user's own line is shown as it is.
        let shown = |line: &&str| !line.contains("ADD ");
        assert!(!message.lines().filter(shown).any(|line| line.contains("secret")), "{message}");
    };
    check("ADD URL#none /x/", &["has no branch or tag `none`", "hint: name a branch"]);
    check("ADD URL#1111111111111111111111111111111111111111 /x/", &["git cannot fetch git://127.0.0.1"]);
    check("ADD URL#main:none /x/", &["`none` is not in git://"]);
    check("ADD URL#main:run /x/", &["`run` is no folder in git://"]);
    check("ADD git://127.0.0.1:1/x /x/", &["git cannot fetch git://127.0.0.1:1/x: ", "refused"]);
    check("ADD http://me:secret@127.0.0.1:1/x.git /x/", &["git cannot fetch http://127.0.0.1:1/x.git: "]);
}

#[test]
fn without_git_the_package_is_named() {
    if !can_fetch() {
        return;
    }
    let world = World::new();
    filled(&world.repository("repo.git"));
    world.dockerfile("ADD URL /x/");
    let programs = world.project.place.folder("programs");
    for name in ["newuidmap", "newgidmap"] {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(name), programs.join(name)).expect("a link");
    }
    let output = world.project.command(&["build"]).env("PATH", &programs).output().expect("ibid starts");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{message}");
    assert!(
        message.contains("git is not installed") && message.contains("hint: apt-get install git"),
        "{message}"
    );
}

#[test]
fn a_server_without_shallow_fetches_will_do() {
    if !can_fetch() {
        return;
    }
    let world = World::new();
    let repository = world.repository("repo.git");
    let [first, _] = filled(&repository);
    // Plain files, as any web server gives them.
    let bare = world.project.place.path().join("bare");
    repository.git(&["clone", "--quiet", "--bare", ".", bare.to_str().expect("UTF-8")]);
    GitRepository::new(&world.project.place.folder("unused")).git(&[
        "--git-dir",
        bare.to_str().expect("UTF-8"),
        "update-server-info",
    ]);
    let server = Server::new();
    serve(&server, &bare, "/repo.git");
    world.project.file(
        "Dockerfile",
        &format!(
            "FROM scratch\nADD {url}/repo.git#v1 /v1/\nADD --keep-git-dir {url}/repo.git#v1 /kept/\n",
            url = server.url()
        ),
    );
    world.project.check(&["build"], 0);
    let found = tree::image(&world.project);
    assert_eq!(found["v1/docs/read.me"], "file 644 0:0 \"first\"");
    assert_eq!(found["kept/.git/HEAD"], format!("file 644 0:0 \"{first}\\n\""));
}

/// Puts all files of a folder on a server.
fn serve(server: &Server, folder: &Path, path: &str) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry").path();
        let path = format!("{path}/{}", entry.file_name().expect("a name").to_string_lossy());
        if entry.is_dir() {
            serve(server, &entry, &path);
        } else {
            let content = std::fs::read(&entry).expect("a file");
            server.put(&path, &content);
            // Git asks so first.
            server.put(&format!("{path}?service=git-upload-pack"), &content);
        }
    }
}
