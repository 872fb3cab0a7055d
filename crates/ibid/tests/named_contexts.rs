//! `--build-context`: other folders and images to build from.

mod support;

use support::tree;
use support::{Project, can_build, can_copy, text};

fn project(dockerfile: &str) -> Project {
    let mut project = Project::new(dockerfile);
    project.data = project.place.folder("share");
    project.file("own", "the project's");
    project.place.file("data/a.csv", "1,2");
    project.place.file("data/b.tmp", "dropped");
    project.place.file("data/.dockerignore", "*.tmp\n.dockerignore\n");
    project
}

#[track_caller]
fn check(project: &Project, args: &[&str], expected: &[(&str, &str)]) {
    project.check(&[&["build"], args].concat(), 0);
    let expected = expected.iter().map(|&(path, line)| (path.to_owned(), line.to_owned())).collect();
    assert_eq!(tree::image(project), expected);
}

#[test]
fn a_folder_stands_for_a_stage_an_image_and_a_source() {
    if !can_copy(&[]) {
        return;
    }
    let data = &[("a.csv", "file 644 0:0 \"1,2\"")];
    let project = project("FROM data\n");
    // Relative to where ibid is called; its own ignore file counts, and the project's does not.
    project.file(".dockerignore", "*.csv\n");
    check(&project, &["--build-context", "data=../data"], data);
    project.file("Dockerfile", "FROM scratch\nCOPY --from=data . /\nCOPY own /\n");
    let with_own = [data[0], ("own", "file 644 0:0 \"the project's\"")];
    check(&project, &["--build-context", "data=../data"], &with_own);
    project.file("Dockerfile", "FROM unknown AS data\nRUN never\nFROM data\nCOPY own /\n");
    check(&project, &["--build-context", "data=../data"], &with_own);

    // Its content is what counts.
    project.file("Dockerfile", "FROM data\n");
    let explain = || {
        let output = project.ibid(&["build", "--explain", "--build-context", "data=../data"]);
        text(&output.stderr)
    };
    assert!(explain().contains("FROM data cached"));
    project.place.file("data/b.tmp", "other");
    assert!(explain().contains("FROM data cached"));
    project.place.file("data/a.csv", "3");
    let narration = explain();
    assert!(narration.contains("because a.csv changed"), "{narration}");
}

#[test]
fn an_image_of_the_store_stands_for_another() {
    if !can_copy(&[]) {
        return;
    }
    let project = project("FROM scratch\nCOPY own /other\nENV from=other\n");
    project.check(&["build", "-t", "other:1"], 0);
    project.file("Dockerfile", "FROM unknown:2\nCOPY --from=unknown:2 /other /copied\n");
    check(
        &project,
        &["--build-context", "unknown:2=docker-image://other:1"],
        &[("copied", "file 644 0:0 \"the project's\""), ("other", "file 644 0:0 \"the project's\"")],
    );
    let failed = project.ibid(&["build", "--build-context", "unknown:2=docker-image://none:1"]);
    assert_eq!(failed.status.code(), Some(125));
    assert!(text(&failed.stderr).contains("`none:1`"), "{}", text(&failed.stderr));
}

#[test]
fn a_named_context_stays_a_folder_that_nothing_leads_out_of() {
    if !can_copy(&[]) {
        return;
    }
    let project = project("FROM scratch\nCOPY --from=data out/secret /got\n");
    project.place.file("secret", "outside");
    std::os::unix::fs::symlink("..", project.place.path().join("data/out")).expect("a link");
    let failed = project.ibid(&["build", "--build-context", "data=../data"]);
    let message = text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(125), "{message}");
    assert!(message.contains("`out/secret` is not in the build context"), "{message}");
    assert!(message.contains("Dockerfile:2"), "{message}");
}

#[test]
fn mounts_take_from_them() {
    if !can_build() {
        return;
    }
    let mut project = project(
        "FROM debian:bookworm-slim\n\
         LABEL test=@UNIQUE@\n\
         RUN --mount=from=data,target=/d ls -A /d > /bound && cat /d/a.csv >> /bound\n\
         RUN --mount=from=data,source=a.csv,target=/file cat /file > /single\n\
         RUN --mount=type=cache,from=data,target=/cache cat /cache/a.csv > /cached && echo 3 > /cache/a.csv\n",
    );
    project.data = Project::new("").data;
    let contents = |project: &Project| {
        project.check(&["build", "--build-context", "data=../data"], 0);
        let found = tree::image(project);
        ["bound", "single", "cached"].map(|name| found[name].clone())
    };
    let file = |content: &str| format!("file 644 0:0 {content:?}");
    assert_eq!(contents(&project), [file("a.csv\n1,2"), file("1,2"), file("1,2")]);
    // The steps run again when its content changes, and a cache mount of other content is another one.
    project.place.file("data/a.csv", "3,4");
    assert_eq!(contents(&project), [file("a.csv\n3,4"), file("3,4"), file("3,4")]);
    let explained = project.ibid(&["build", "--explain", "--build-context", "data=../data"]);
    assert_eq!(text(&explained.stderr).matches(" cached").count(), 3, "{}", text(&explained.stderr));

    project
        .file("Dockerfile", "FROM debian:bookworm-slim\nRUN --mount=from=data,source=b.tmp,target=/d true\n");
    let failed = project.ibid(&["build", "--build-context", "data=../data"]);
    let message = text(&failed.stderr);
    assert!(message.contains("`b.tmp` is dropped from the build context by"), "{message}");
    project.file(
        "Dockerfile",
        "FROM debian:bookworm-slim\nRUN --mount=type=cache,from=data,source=a.csv,target=/d true\n",
    );
    let failed = project.ibid(&["build", "--build-context", "data=../data"]);
    let message = text(&failed.stderr);
    assert!(message.contains("a cache mount cannot start from `a.csv` in the context `data`"), "{message}");
}
