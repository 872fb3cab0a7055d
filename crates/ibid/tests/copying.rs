//! `COPY` and `ADD` of files: what is in the image afterwards, and that Docker's BuildKit makes the same.

mod support;

use std::os::unix::fs::symlink;
use std::path::Path;

use ibid_core::time::DEFAULT_EPOCH;
use ibid_testing::{Need, OrdinaryUser, need};
use support::tree::{self, Tree};
use support::{Project, can_copy, text};
use tar::{Builder, EntryType, Header};

/// A project with the files that the cases copy.
fn project(dockerfile: &str) -> Project {
    let mut project = Project::new(dockerfile);
    // Its own store: nothing that an earlier version of this code copied is found.
    project.data = project.place.folder("share");
    for (path, content) in [
        ("f", "f"),
        ("g.txt", "g"),
        ("d/x", "x"),
        ("d/keep/y", "y"),
        ("d/note.md", "n"),
        ("over/lnk", "a file over a link"),
        ("into/lnk/x", "a folder over a link"),
        ("onto/real", "a file over a folder"),
        ("tree/real/orig", "orig"),
        ("deep/a/b/c.txt", "c"),
        ("deep/a/b/c.md", "m"),
        ("deep/a/e.txt", "e"),
        ("deep/empty/.keep", ""),
    ] {
        project.file(path, content);
    }
    for (target, link) in
        [("real", "tree/lnk"), ("/tree/real", "absolute"), ("/nowhere", "dangling"), ("f", "to-file")]
    {
        symlink(target, project.path().join(link)).expect("a link");
    }
    for (name, entries) in ARCHIVES {
        archive(&project.path().join(name), entries);
    }
    project
}

/// Entries of an archive: path, kind, mode, and content, target or device number.
type Entries = &'static [(&'static str, EntryType, u32, &'static str)];

const ARCHIVES: &[(&str, Entries)] = &[
    (
        "special.tar",
        &[
            ("s", EntryType::Directory, 0o1777, ""),
            ("s/pipe", EntryType::Fifo, 0o640, ""),
            ("s/null", EntryType::Char, 0o666, "1,3"),
            ("s/disk", EntryType::Block, 0o600, "7,200"),
            ("s/setuid", EntryType::Regular, 0o4755, "setuid"),
            ("s/one", EntryType::Regular, 0o644, "several names"),
            ("s/two", EntryType::Link, 0o644, "s/one"),
            ("s/sub", EntryType::Directory, 0o2755, ""),
            ("s/sub/three", EntryType::Link, 0o644, "s/one"),
            ("s/link", EntryType::Symlink, 0o777, "one"),
        ],
    ),
    (
        "base.tar",
        &[
            ("real", EntryType::Directory, 0o750, ""),
            ("real/old", EntryType::Regular, 0o644, "old"),
            ("lnk", EntryType::Symlink, 0o777, "real"),
            ("file", EntryType::Regular, 0o600, "file"),
            ("flnk", EntryType::Symlink, 0o777, "file"),
            ("dir", EntryType::Directory, 0o700, ""),
            ("dir/in", EntryType::Regular, 0o644, "in"),
            ("climb", EntryType::Symlink, 0o777, "../../../real"),
            ("nowhere", EntryType::Symlink, 0o777, "/made/by/copy"),
        ],
    ),
    ("implied.tar", &[("lnk/new", EntryType::Regular, 0o644, "new")]),
    (
        "file-to-dir.tar",
        &[("file", EntryType::Directory, 0o755, ""), ("file/x", EntryType::Regular, 0o644, "x")],
    ),
    ("dir-to-file.tar", &[("dir", EntryType::Regular, 0o644, "now a file")]),
    ("over-link.tar", &[("flnk", EntryType::Regular, 0o644, "now a file")]),
    (
        "inner-link.tar",
        &[("up", EntryType::Symlink, 0o777, "/real"), ("up/x", EntryType::Regular, 0o644, "x")],
    ),
];

/// All entries belong to 3:4.
fn archive(path: &Path, entries: Entries) {
    let mut builder = Builder::new(std::fs::File::create(path).expect("a file"));
    for &(name, kind, mode, detail) in entries {
        let mut header = Header::new_ustar();
        header.set_path(name).expect("a short path");
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(3);
        header.set_gid(4);
        header.set_mtime(1_000_000_000);
        let content = if kind == EntryType::Regular { detail } else { "" };
        header.set_size(content.len() as u64);
        match kind {
            EntryType::Link | EntryType::Symlink => header.set_link_name(detail).expect("a short target"),
            EntryType::Char | EntryType::Block => {
                let (major, minor) = detail.split_once(',').expect("two numbers");
                header.set_device_major(major.parse().expect("a number")).expect("ustar");
                header.set_device_minor(minor.parse().expect("a number")).expect("ustar");
            }
            _ => {}
        }
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("a writable archive");
    }
    builder.finish().expect("a writable archive");
}

fn build(project: &Project) -> Result<Tree, String> {
    let output = project.ibid(&["build"]);
    match output.status.code() {
        Some(0) => Ok(tree::image(project)),
        Some(125) => Err(text(&output.stderr)),
        _ => panic!("{output:?}"),
    }
}

/// Dockerfiles that Docker 20.10 (BuildKit 0.8) builds to the same, or refuses too.
const AS_IN_DOCKER: &[&str] = &[
    // Destinations.
    "COPY f /x",
    "COPY f /x/",
    "COPY f x/y/",
    "COPY f d /n",
    "COPY d d/x /n/",
    "COPY d /",
    "COPY d /n\nCOPY f /n",
    "COPY f /n\nCOPY d/x /n/",
    "COPY f /n\nCOPY d /n",
    "COPY d /a\nCOPY --chown=9:9 d /a",
    "COPY d /n/keep/\nCOPY over d /n",
    // Owners and modes.
    "COPY --chown=1000:1001 f /new/dir/x",
    "COPY --chown=5:6 d /owned/",
    "COPY --chmod=600 f /new/dir/",
    "COPY --chmod=700 d /d2",
    "COPY d /d2\nCOPY --chown=10 --chmod=711 d /d2",
    // Links in the context.
    "COPY absolute /via",
    "COPY tree /t",
    "COPY tree/lnk /t",
    "COPY to-file /t/",
    "COPY dangling /t",
    "COPY d* /t/",
    // Links in the image.
    "COPY tree /a\nCOPY into /a",
    "COPY tree /a\nCOPY over /a",
    "COPY tree /a\nCOPY onto /a",
    "COPY tree /a\nCOPY f /a/lnk",
    "COPY tree /a\nCOPY f /a/lnk/new",
    "COPY tree /a\nCOPY d /a/lnk",
    "ADD base.tar /\nCOPY f /flnk",
    "ADD base.tar /\nCOPY f /climb/x",
    "ADD base.tar /\nCOPY f /nowhere",
    "ADD base.tar /\nCOPY d /nowhere/",
    "ADD base.tar /\nCOPY f /file/x",
    "ADD base.tar /\nWORKDIR /lnk/made",
    // Stages.
    "COPY --from=empty / /c",
    "COPY --from=empty /nothing /c",
    "COPY --from=full /s/one /s/two /c/",
    "COPY --from=full --chown=5:6 /s/sub /c",
    "COPY --from=full /s/link /c",
    "COPY --from=full /s/nothing* /c/",
    "COPY --from=base / /",
    "COPY --from=base /lnk /c",
    "COPY --from=base /climb /c",
    "COPY d /real\nCOPY --from=base / /",
    // Archives.
    "ADD special.tar /",
    "ADD --chown=1000:1001 --chmod=700 base.tar /t/",
    "ADD base.tar f /t/",
    "ADD base.tar /\nADD implied.tar /",
    "ADD base.tar /\nADD implied.tar /lnk",
    "ADD base.tar /\nADD implied.tar /file",
    "ADD base.tar /\nADD deeper.tar /",
    "ADD base.tar /\nADD explicit.tar /",
    "ADD base.tar /\nADD explicit.tar /lnk",
    "ADD base.tar /\nADD file-to-dir.tar /",
    "ADD base.tar /\nADD dir-to-file.tar /",
    "ADD base.tar /\nADD over-link.tar /",
    "ADD base.tar /\nADD inner-link.tar /",
    "COPY base.tar /",
    "COPY --from=empty . .",
];

const STAGES: &str = "FROM scratch AS empty\nFROM scratch AS full\nADD special.tar /\nFROM scratch AS base\nADD base.tar /\nFROM scratch\n";

#[test]
fn copies_are_those_of_docker() {
    if !can_copy(&[]) {
        return;
    }
    let Some(client) = tree::docker_client() else { return };
    let project = project("");
    let mut differing = Vec::new();
    for case in AS_IN_DOCKER {
        project.file("Dockerfile", &format!("{STAGES}{case}\n"));
        let theirs = tree::docker(&client, &project.path());
        let ours = build(&project);
        let is_equal = match (&theirs, &ours) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            (Err(_), Err(_)) => true,
            _ => false,
        };
        if !is_equal {
            differing.push(format!("{case}\n--- docker\n{theirs:#?}\n--- ours\n{ours:#?}\n"));
        }
    }
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
}

/// What a copy of a whole folder of another stage keeps. BuildKit 0.8 made devices into files and left pipes out.
const SPECIAL: &[(&str, &str)] = &[
    ("c", "folder 755 0:0"),
    ("c/disk", "block 600 3:4 (Some(7), Some(200))"),
    ("c/link", "link 3:4 one"),
    ("c/null", "character 666 3:4 (Some(1), Some(3))"),
    ("c/one", "file 644 3:4 \"several names\""),
    ("c/pipe", "pipe 640 3:4"),
    ("c/setuid", "file 4755 3:4 \"setuid\""),
    ("c/sub", "folder 2755 3:4"),
    ("c/sub/three", "file 644 3:4 \"several names\" = c/one"),
    ("c/two", "file 644 3:4 \"several names\" = c/one"),
];

#[track_caller]
fn check(project: &Project, steps: &str, expected: &[(&str, &str)]) {
    project.file("Dockerfile", &format!("{STAGES}{steps}\n"));
    let expected: Tree = expected.iter().map(|&(path, line)| (path.to_owned(), line.to_owned())).collect();
    assert_eq!(build(project).expect(steps), expected, "{steps}");
}

#[test]
fn what_comes_from_other_layers_is_kept_whole() {
    if !can_copy(&[]) {
        return;
    }
    let project = project("");
    check(&project, "COPY --from=full /s /c", SPECIAL);
    for (path, time) in tree::times(&project) {
        // The destination is new, and made at the epoch.
        let expected = if path == "c" { DEFAULT_EPOCH } else { 1_000_000_000 };
        assert_eq!(time, expected, "{path}");
    }
    check(
        &project,
        "COPY --from=full /s/pipe /s/null /s/d* /c/",
        &[
            ("c", "folder 755 0:0"),
            ("c/disk", "block 600 3:4 (Some(7), Some(200))"),
            ("c/null", "character 666 3:4 (Some(1), Some(3))"),
            ("c/pipe", "pipe 640 3:4"),
        ],
    );
    // Through two layers, where an overlay shows them.
    check(
        &project,
        "ADD special.tar /\nCOPY f /s/null\nFROM scratch\nCOPY --from=3 /s/null /s/disk /c/",
        &[
            ("c", "folder 755 0:0"),
            ("c/disk", "block 600 3:4 (Some(7), Some(200))"),
            ("c/null", "file 644 0:0 \"f\""),
        ],
    );
    check(
        &project,
        "COPY --from=full --chmod=u=rwX,go=rX --chown=8:9 /s/sub /s/setuid /c/",
        &[
            ("c", "folder 755 8:9"),
            ("c/setuid", "file 755 8:9 \"setuid\""),
            ("c/three", "file 644 8:9 \"several names\""),
        ],
    );
}

#[test]
fn patterns_leave_out_and_parents_are_kept() {
    if !can_copy(&[]) {
        return;
    }
    let project = project("");
    check(
        &project,
        "COPY --exclude=*.md --exclude=keep d /d\nCOPY --exclude=*.txt f g.txt /f/",
        &[
            ("d", "folder 755 0:0"),
            ("d/x", "file 644 0:0 \"x\""),
            ("f", "folder 755 0:0"),
            ("f/f", "file 644 0:0 \"f\""),
        ],
    );
    check(
        &project,
        "COPY --parents --chown=1:2 deep/a/./**/*.txt ./d/keep f /p/",
        &[
            ("p", "folder 755 1:2"),
            ("p/b", "folder 755 1:2"),
            ("p/b/c.txt", "file 644 1:2 \"c\""),
            ("p/d", "folder 755 1:2"),
            ("p/d/keep", "folder 755 1:2"),
            ("p/d/keep/y", "file 644 1:2 \"y\""),
            ("p/e.txt", "file 644 1:2 \"e\""),
            ("p/f", "file 644 1:2 \"f\""),
        ],
    );
    check(
        &project,
        "COPY --parents --from=full --exclude=**/t* /./s/sub /s/link /s/t* /p",
        &[
            ("p", "folder 755 0:0"),
            ("p/s", "folder 1777 3:4"),
            ("p/s/link", "link 3:4 one"),
            ("p/s/sub", "folder 2755 3:4"),
        ],
    );
    project.file("Dockerfile", "FROM scratch\nCOPY --parents deep/none /p/\n");
    let message = build(&project).expect_err("nothing is there");
    assert!(message.contains("`deep/none` is not in the build context"), "{message}");
}

#[test]
fn a_linked_layer_is_made_by_itself_and_stays_when_what_is_below_changes() {
    if !can_copy(&[]) {
        return;
    }
    let project = project("");
    // The destination's folders are the layer's own: links are not followed, modes are not those below.
    check(
        &project,
        "ADD base.tar /\nCOPY --link f /lnk/new\nCOPY --link --chown=5 d/x /dir/",
        &[
            ("climb", "link 3:4 ../../../real"),
            ("dir", "folder 755 5:5"),
            ("dir/in", "file 644 3:4 \"in\""),
            ("dir/x", "file 644 5:5 \"x\""),
            ("file", "file 600 3:4 \"file\""),
            ("flnk", "link 3:4 file"),
            ("lnk", "folder 755 0:0"),
            ("lnk/new", "file 644 0:0 \"f\""),
            ("nowhere", "link 3:4 /made/by/copy"),
            ("real", "folder 750 3:4"),
            ("real/old", "file 644 3:4 \"old\""),
        ],
    );
    let cached = |steps: &str| {
        project.file("Dockerfile", &format!("{STAGES}{steps}\n"));
        let output = project.ibid(&["build", "--explain"]);
        let narration = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{narration}");
        // By their numbers: copies with --link are done beside the others.
        let mut lines: Vec<&str> = narration.lines().filter(|line| line.contains("] COPY")).collect();
        lines.sort_unstable();
        lines.iter().map(|line| line.ends_with(" cached")).collect::<Vec<_>>()
    };
    assert_eq!(cached("COPY f /other\nCOPY --link f /lnk/new\nCOPY d/x /dir/"), [false, true, false]);
    assert_eq!(cached("COPY g.txt /other\nCOPY --link f /lnk/new\nCOPY d/x /dir/"), [false, true, false]);
    project.file("f", "changed");
    assert_eq!(cached("COPY g.txt /other\nCOPY --link f /lnk/new\nCOPY d/x /dir/"), [true, false, false]);
    // Modes are changed in the usual way, over what is below, as in BuildKit.
    assert_eq!(cached("COPY --link --chmod=600 f /m\nCOPY f /other"), [false, false]);
    assert_eq!(cached("COPY f /first\nCOPY --link --chmod=600 f /m"), [false, false]);
}

#[test]
fn heredocs_are_files() {
    if !can_copy(&[]) {
        return;
    }
    let project = project("");
    check(&project, "COPY --chmod=640 <<EOF /e\ntext\nEOF", &[("e", "file 640 0:0 \"text\\n\"")]);
    check(
        &project,
        "COPY --chown=7 --chmod=u=rwx <<a <<b f /e/\n1\na\n2\nb",
        &[
            ("e", "folder 755 7:7"),
            ("e/a", "file 744 7:7 \"1\\n\""),
            ("e/b", "file 744 7:7 \"2\\n\""),
            ("e/f", "file 744 7:7 \"f\""),
        ],
    );
}

#[test]
fn an_ordinary_user_makes_the_same_image_as_root() {
    if !need(&[Need::Root, Need::Subids, Need::Overlay]) {
        return;
    }
    let project =
        project(&format!("{STAGES}COPY --from=full /s /c\nADD special.tar /t/\nCOPY --chown=7:8 d /d/\n"));
    let as_root = project.check(&["build"], 0);
    let user = OrdinaryUser::find().expect("somebody with subordinate ids");
    let home = project.place.folder("home");
    user.own(&home);
    user.own(&project.path());
    let mut command = project.command(&["build"]);
    command.env("XDG_DATA_HOME", home.join("share"));
    let output = user.command(&command).output().expect("ibid starts");
    assert_eq!(text(&output.stdout), as_root, "{}", text(&output.stderr));
}

#[test]
fn wrong_sources_and_destinations_are_named() {
    if !can_copy(&[]) {
        return;
    }
    let project = project("");
    let check = |steps: &str, expected: &[&str]| {
        project.file("Dockerfile", &format!("{STAGES}{steps}\n"));
        let message = build(&project).expect_err(steps);
        for part in expected.iter().chain(&["Dockerfile:7"]) {
            assert!(message.contains(part), "{steps}: {part} in {message}");
        }
    };
    check("COPY --from=full /s/none /c", &["`s/none` is not in the stage `full`"]);
    check("COPY none /c", &["`none` is not in the build context"]);
}

#[test]
fn a_context_of_many_folders_needs_few_descriptors() {
    if !can_copy(&[]) {
        return;
    }
    const FOLDERS: usize = 1500;
    let project = project("");
    for number in 0..FOLDERS {
        project.file(&format!("many/{number}/file"), "");
    }
    // By itself; and where the folder is new in an overlay, or there.
    for (before, others) in [
        ("", 0),
        ("COPY f /f\n", 1),
        ("COPY f /many/1/before\n", 1),
        ("COPY f /many/1/before\nCOPY f /many/2/file\n", 1),
    ] {
        project.file("Dockerfile", &format!("FROM scratch\n{before}COPY many /many\n"));
        let inner = project.command(&["build"]);
        let mut limited = std::process::Command::new("prlimit");
        limited.args(["--nofile=512:512", env!("CARGO_BIN_EXE_ibid"), "build"]).current_dir(project.path());
        limited.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = limited.output().expect("prlimit is installed");
        assert_eq!(output.status.code(), Some(0), "{before}{}", text(&output.stderr));
        let image = tree::image(&project);
        assert_eq!(image.len(), 2 * FOLDERS + 1 + others, "{before}");
        assert_eq!(image["many/2/file"], "file 644 0:0 \"\"", "{before}");
    }
}
