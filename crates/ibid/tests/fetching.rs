//! `ADD` of URLs: fetched once, pinned, and nothing half of it.

mod support;

use std::path::PathBuf;

use ibid_core::digest::Digest;
use ibid_core::time::DEFAULT_EPOCH;
use support::server::Server;
use support::{Project, can_build, can_copy, text, tree};

/// `URL` in the steps becomes the server's.
fn project(server: &Server, steps: &str) -> Project {
    let mut project = Project::new("");
    project.data = project.place.folder("share");
    dockerfile(&project, server, steps);
    project
}

fn dockerfile(project: &Project, server: &Server, steps: &str) {
    project.file("Dockerfile", &format!("FROM scratch\n{}\n", steps.replace("URL", &server.url())));
}

#[track_caller]
fn check(project: &Project, expected: &[(&str, &str)]) {
    project.check(&["build"], 0);
    let expected = expected.iter().map(|&(path, line)| (path.to_owned(), line.to_owned())).collect();
    assert_eq!(tree::image(project), expected);
}

/// The message of a build that fails.
#[track_caller]
fn failure(project: &Project) -> String {
    let output = project.ibid(&["build"]);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{message}");
    message
}

fn lock(project: &Project) -> String {
    std::fs::read_to_string(project.path().join("ibid.lock")).unwrap_or_default()
}

/// Files in a folder of the store.
fn kept(project: &Project, folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project.data.join("ibid").join(folder)).expect("a folder of the store");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_url_becomes_a_file() {
    if !can_copy(&[]) {
        return;
    }
    let server = Server::new();
    server.put("/a/data%20set.csv?v=1", b"1,2");
    server.put("/", b"index");
    let redirection = "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\nLocation: /a/data%20set.csv?v=1\r\n\r\n";
    server.put_answer("/latest", redirection);
    let project = project(
        &server,
        "ADD URL/a/data%20set.csv?v=1 /in/\nADD URL/a/data%20set.csv?v=1 /out.csv\n\
         ADD --chown=5:6 --chmod=u=rwX,go=rX URL/latest URL /named/",
    );
    check(
        &project,
        &[
            ("in", "folder 755 0:0"),
            ("in/data set.csv", "file 600 0:0 \"1,2\""),
            ("named", "folder 755 5:6"),
            ("named/__unnamed__", "file 644 5:6 \"index\""),
            ("named/latest", "file 644 5:6 \"1,2\""),
            ("out.csv", "file 600 0:0 \"1,2\""),
        ],
    );
    assert!(tree::times(&project).iter().all(|(_, time)| *time == DEFAULT_EPOCH));
    // The same URL once, though two steps want it.
    assert_eq!(server.asked(), ["/a/data%20set.csv?v=1", "/latest", "/a/data%20set.csv?v=1", "/"]);
}

#[test]
fn sources_are_copied_in_their_order() {
    if !can_copy(&[]) {
        return;
    }
    let server = Server::new();
    server.put("/own", b"fetched");
    let project =
        project(&server, "ADD own URL/own /a/\nADD URL/own own /b/\nADD URL/own o* <<own /c/\ninline\nown");
    project.file("own", "copied");
    check(
        &project,
        &[
            ("a", "folder 755 0:0"),
            ("a/own", "file 600 0:0 \"fetched\""),
            ("b", "folder 755 0:0"),
            ("b/own", "file 644 0:0 \"copied\""),
            ("c", "folder 755 0:0"),
            ("c/own", "file 644 0:0 \"inline\\n\""),
        ],
    );
}

#[test]
fn archives_are_unpacked_when_that_is_asked_for() {
    if !can_copy(&[]) {
        return;
    }
    let server = Server::new();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o640);
    archive.append_data(&mut header, "d/x", &b"hi"[..]).expect("an archive");
    let bytes = archive.into_inner().expect("an archive");
    server.put("/x.tar", &bytes);
    let project = project(
        &server,
        "ADD URL/x.tar /as/\nADD --unpack URL/x.tar /un/\nADD --unpack=true URL/no.tar /no/",
    );
    server.put("/no.tar", b"no archive");
    check(
        &project,
        &[
            ("as", "folder 755 0:0"),
            ("as/x.tar", &format!("file 600 0:0 \"{} bytes\"", bytes.len())),
            ("no", "folder 755 0:0"),
            ("no/no.tar", "file 600 0:0 \"no archive\""),
            ("un", "folder 755 0:0"),
            ("un/d", "folder 755 0:0"),
            ("un/d/x", "file 640 0:0 \"hi\""),
        ],
    );
}

#[test]
fn what_was_fetched_is_pinned_and_not_fetched_again() {
    if !can_copy(&[]) {
        return;
    }
    let server = Server::new();
    server.put("/data", b"first");
    let mut project = project(&server, "ADD URL/data /");
    let first = project.check(&["build"], 0);
    let pin = format!("[url.\"{}/data\"]\ndigest = \"{}\"", server.url(), Digest::of(b"first"));
    assert!(lock(&project).contains(&pin), "{}", lock(&project));
    assert_eq!(server.asked().len(), 1);

    // The server has something else by now; the lock has not.
    server.put("/data", b"second");
    assert_eq!(project.check(&["build"], 0), first);
    // Not even for a step that is new.
    dockerfile(&project, &server, "ADD URL/data /\nADD URL/data /again");
    project.check(&["build", "--no-cache"], 0);
    assert_eq!(server.asked(), Vec::<String>::new());

    // Another machine has the lock and not the file.
    dockerfile(&project, &server, "ADD URL/data /");
    project.data = project.place.folder("other-share");
    let message = failure(&project);
    for part in [
        &format!("{}/data has the digest {}", server.url(), Digest::of(b"second")),
        &format!("the lock says {}", Digest::of(b"first")),
        "Dockerfile:2",
        "hint: ",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(kept(&project, "downloads"), Vec::<PathBuf>::new());
    assert_eq!(kept(&project, "tmp"), Vec::<PathBuf>::new());
    server.put("/data", b"first");
    assert_eq!(project.check(&["build"], 0), first);
    assert_eq!(kept(&project, "downloads").len(), 1);
}

#[test]
fn a_checksum_in_the_dockerfile_decides() {
    if !can_copy(&[]) {
        return;
    }
    let server = Server::new();
    server.put("/data", b"content");
    let right = Digest::of(b"content");
    let project = project(&server, &format!("ARG SUM={right}\nADD --checksum=$SUM URL/data /"));
    check(&project, &[("data", "file 600 0:0 \"content\"")]);
    assert_eq!(lock(&project), "", "it is pinned already");
    assert_eq!(server.asked().len(), 1);

    let wrong = Digest::of(b"something else");
    dockerfile(&project, &server, &format!("ADD --checksum={wrong} URL/data /"));
    let message = failure(&project);
    let part = format!("{}/data has the digest {right}, and the Dockerfile says {wrong}", server.url());
    assert!(message.contains(&part) && message.contains("Dockerfile:2"), "{message}");
    assert_eq!(kept(&project, "downloads").len(), 1);
}

#[test]
fn what_fails_leaves_nothing() {
    if !can_copy(&[]) {
        return;
    }
    let server = Server::new();
    let short = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1000\r\n\r\nhalf";
    server.put_answer("/short", short);
    let project = project(&server, "");
    let check = |path: &str, part: &str| {
        dockerfile(&project, &server, &format!("COPY ibid.toml /\nADD URL{path} /x"));
        let message = failure(&project);
        for part in [part, &server.url(), "Dockerfile:3"] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert!(!message.contains("secret"), "{message}");
        assert_eq!(kept(&project, "tmp"), Vec::<PathBuf>::new());
        assert_eq!(lock(&project), "");
        assert_eq!(project.ibid(&["save", "test", "-o", "/dev/null"]).status.code(), Some(125));
    };
    check("/short", "broke off after 4 of 1000 bytes");
    check("/missing", "not found on the server");
    assert!(!project.data.join("ibid/downloads").exists() || kept(&project, "downloads").is_empty());
}

#[test]
fn stages_that_want_the_same_get_the_same() {
    if !can_copy(&[]) {
        return;
    }
    let server = Server::new();
    server.put("/data", b"content");
    let project = project(&server, "");
    let stages: String =
        (0..4).map(|number| format!("FROM scratch AS s{number}\nADD URL/data /{number}\n")).collect();
    let copies: String = (0..4).map(|number| format!("COPY --from=s{number} / /\n")).collect();
    project.file("Dockerfile", &format!("{stages}FROM scratch\n{copies}").replace("URL", &server.url()));
    let file = "file 600 0:0 \"content\"";
    check(&project, &[("0", file), ("1", file), ("2", file), ("3", file)]);
    assert_eq!(server.asked(), ["/data"]);
}

#[test]
fn a_run_fetches_nothing_when_nothing_changed() {
    if !can_build() {
        return;
    }
    let server = Server::new();
    server.put("/data", b"content\n");
    let project = Project::new("");
    let dockerfile = "FROM debian:bookworm-slim\nADD --chmod=644 URL/data /data-@UNIQUE@\nWORKDIR /code\nENTRYPOINT [\"sh\", \"-c\", \"cat /data-*\"]\n";
    let unique = project.place.path().file_name().expect("a name").to_string_lossy().into_owned();
    project.file("Dockerfile", &dockerfile.replace("URL", &server.url()).replace("@UNIQUE@", &unique));
    assert_eq!(project.check(&["run"], 0), "content\n");
    assert_eq!(server.asked(), ["/data"]);
    server.put("/data", b"other\n");
    assert_eq!(project.check(&["run"], 0), "content\n");
    assert_eq!(server.asked(), Vec::<String>::new());
}
