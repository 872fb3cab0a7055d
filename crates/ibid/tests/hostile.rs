//! Input that is too large, broken or hostile: a clear error or the right result, never a hang, a panic, a full memory or
//! half an image.

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use ibid_testing::{Need, need};
use support::{Project, can_build, text};

/// Standard error of a command that fails with code 125; bounded, and with these parts.
#[track_caller]
fn check_failure(project: &Project, args: &[&str], parts: &[&str]) {
    let output = project.ibid(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said:.2000}");
    assert!(said.len() < 4000 && !said.contains("panicked"), "{said:.4000}");
    for part in parts {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(text(&output.stdout), "");
}

fn check_dockerfile(dockerfile: impl AsRef<[u8]>, parts: &[&str]) {
    let project = Project::new("");
    fs::write(project.path().join("Dockerfile"), dockerfile).expect("written");
    check_failure(&project, &["build"], parts);
}

#[test]
fn dockerfiles_of_ten_megabytes() {
    if !can_build() {
        return;
    }
    const SIZE: usize = 10 << 20;
    check_dockerfile(
        format!("FROM scratch\nRUNN {}\n", "x".repeat(SIZE)),
        &["Dockerfile:2", "did you mean `RUN`?"],
    );
    check_dockerfile(
        format!("FROM scratch\n{}RUNN\n", "ENV a=b\n".repeat(SIZE / 8)),
        &["Dockerfile:1310722"],
    );
    check_dockerfile(
        format!("FROM debian:bookworm-slim\nRUN true {}\n", "x".repeat(SIZE)),
        &["Argument list too long"],
    );
    check_dockerfile("x".repeat(SIZE), &["unknown instruction"]);
    check_dockerfile(format!("FROM scratch\nENV a={}\n", "\"".repeat(SIZE + 1)), &["is not closed"]);
    let project =
        Project::new(&format!("FROM scratch\nLABEL unique=@UNIQUE@\n{}", "# note\n".repeat(SIZE / 7)));
    project.check(&["build"], 0);
    project.check(&["build", "--check"], 0);
}

#[test]
fn ten_thousand_steps() {
    if !can_build() {
        return;
    }
    let steps: String = (0..10_000)
        .map(|n| match n % 5 {
            0 => "WORKDIR /work\n".to_owned(),
            1 => format!("LABEL l{n}=x\n"),
            _ => format!("ENV v{n}=x\n"),
        })
        .collect();
    let project = Project::new(&format!("FROM scratch\nLABEL unique=@UNIQUE@\n{steps}"));
    let digest = project.check(&["build"], 0);
    assert_eq!(project.check(&["build"], 0), digest);
}

/// More layers than an overlay can show.
#[test]
fn five_hundred_layers() {
    if !can_build() {
        return;
    }
    let copies: String = (0..500).map(|n| format!("COPY file /{n}\n")).collect();
    let project = Project::new(&format!("FROM scratch\n{copies}"));
    project.file("file", &project.path().display().to_string());
    check_failure(&project, &["-q", "build"], &["499 layers", "Dockerfile:501", "hint: join steps"]);
}

#[test]
fn text_that_is_no_text() {
    check_dockerfile(
        b"FROM scratch\n# caf\xe9 is a comment\nENV a=caf\xe9\n",
        &["Dockerfile:3", "not UTF-8", "hint:"],
    );
    check_dockerfile(b"FROM scratch\nENV a=\0\n", &["Dockerfile:2", "zero byte"]);
    check_dockerfile(b"\xff\xfeF\0R\0O\0M\0", &["Dockerfile:1", "not UTF-8"]);
}

#[test]
fn triggers_of_triggers() {
    check_dockerfile(
        "FROM scratch\nONBUILD ONBUILD RUN a\n",
        &["Dockerfile:2", "`ONBUILD` cannot be an `ONBUILD` trigger"],
    );
    check_dockerfile("FROM scratch\nONBUILD FROM scratch\n", &["Dockerfile:2", "`FROM` cannot be"]);
    check_dockerfile(
        "FROM scratch AS a\nONBUILD COPY --from=b x /\nFROM a AS b\n",
        &["Dockerfile:3", "the stage `b` comes too late"],
    );
}

#[test]
fn stages_in_a_circle() {
    if !can_build() {
        return;
    }
    check_dockerfile(
        "FROM scratch AS a\nCOPY --from=b x /\nFROM a AS b\nCOPY --from=a x /\n",
        &["Dockerfile:2", "the stage `b` comes too late", "hint: move that stage"],
    );
    check_dockerfile("FROM scratch AS a\nCOPY --from=a x /\n", &["Dockerfile:2", "comes too late"]);
    check_dockerfile("FROM scratch AS a\nCOPY --from=0 x /\n", &["Dockerfile:2", "`0` comes too late"]);
    check_dockerfile(
        "FROM scratch AS a\nCOPY --from=1 x /\n",
        &["Dockerfile:2", "no stage 1", "one stage, 0"],
    );
    check_dockerfile(
        "FROM b AS a\nFROM a AS b\n",
        &["Dockerfile:1", "`b` is not in the store", "the stage `b` comes too late"],
    );
}

#[test]
fn a_hundred_thousand_ignore_patterns() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM scratch\nCOPY . /\n");
    let patterns: String =
        (0..25_000).map(|n| format!("*part{n}*\n**/*.ext{n}\nfolder{n}/*/x\n!folder{n}/*/keep*\n")).collect();
    project.file(".dockerignore", &patterns);
    project.file("unique", &project.path().display().to_string());
    for n in 0..500 {
        project.file(&format!("d{}/e/file{n}", n % 20), "");
    }
    project.file("folder7/a/x", "");
    project.check(&["build"], 0);
    let listed = project.check(&["context", "--all"], 0);
    assert!(listed.contains("folder7/a/x  .dockerignore:31 `folder7/*/x`"), "{listed:.2000}");

    project.file(".dockerignore", &format!("{patterns}[z-a]\n"));
    check_failure(&project, &["build"], &[".dockerignore:100001", "whose end comes before its start"]);
    project.file(".dockerignore", &format!("a\n{}\n", "x".repeat(70_000)));
    check_failure(&project, &["build"], &[".dockerignore:2", "longer than 65536 bytes"]);
}

/// A tar archive with one file, compressed by the host's `gzip` or `xz`.
fn write_archive(path: &Path, size: u64, program: &[&str]) {
    let mut compressor = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(File::create(path).expect("made"))
        .spawn()
        .expect("installed");
    let mut to = compressor.stdin.take().expect("a pipe");
    let mut header = [0; 512];
    header[..5].copy_from_slice(b"zeros");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].fill(b' ');
    header[156] = b'0';
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    to.write_all(&header).expect("written");
    let zeros = vec![0; 1 << 20];
    let mut left = size.next_multiple_of(512) + 1024;
    while left > 0 {
        let count = left.min(zeros.len() as u64);
        to.write_all(&zeros[..count as usize]).expect("written");
        left -= count;
    }
    drop(to);
    assert!(compressor.wait().expect("waited").success());
}

/// As much memory as ibid itself needs, and less than the archive holds.
#[test]
fn an_archive_that_unpacks_to_more_than_the_memory() {
    if !can_build() {
        return;
    }
    const LIMIT_KIB: u64 = 160 << 10;
    let project = Project::new("FROM scratch\nLABEL unique=@UNIQUE@\nADD bomb.tar.gz /\nCMD [\"x\"]\n");
    write_archive(&project.path().join("bomb.tar.gz"), 300 << 20, &["gzip", "-1"]);
    let ibid = project.command(&["build"]);
    let mut limited = Command::new("sh");
    limited.args([
        "-c",
        &format!("ulimit -d {LIMIT_KIB}; exec \"$0\" \"$@\""),
        env!("CARGO_BIN_EXE_ibid"),
        "build",
    ]);
    limited
        .envs(ibid.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(project.path());
    let output = limited.output().expect("sh starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// A dictionary of more memory than unpacking may take: refused, not copied as if it were no archive.
#[test]
fn an_archive_that_asks_for_much_memory() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM scratch\nADD bomb.tar.xz /\n");
    write_archive(&project.path().join("bomb.tar.xz"), 1000, &["xz", "--lzma2=dict=1GiB"]);
    check_failure(&project, &["build"], &["bomb.tar.xz", "memory", "Dockerfile:2"]);
}

/// The disk fills while an archive is unpacked: the store is as sound as before.
#[test]
fn an_archive_that_fills_the_disk() {
    if !need(&[Need::Root, Need::Overlay]) || !can_build() {
        return;
    }
    let project = Project::new("FROM scratch\nADD bomb.tar.gz /\n");
    write_archive(&project.path().join("bomb.tar.gz"), 100 << 20, &["gzip", "-1"]);
    project.file("small/Dockerfile", "FROM scratch\nCOPY file /\n");
    project.file("small/file", "content");
    project.file("small/ibid.toml", "name = \"small\"\n");
    let disk = project.place.folder("disk");
    let ibid = project.command(&[]);
    let script = r#"set -e
        mount -t tmpfs -o size=32m tmpfs "$XDG_DATA_HOME"
        "$0" build small
        "$0" build && exit 90 || [ $? = 125 ]
        [ -z "$(ls "$XDG_DATA_HOME/ibid/tmp")" ] || exit 91
        [ "$(ls "$XDG_DATA_HOME/ibid/layers" | wc -l)" = 1 ] || exit 92
        echo again
        "$0" build small
        "$0" images
    "#;
    let mut own = Command::new("unshare");
    own.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_ibid")]);
    own.envs(ibid.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output =
        own.env("XDG_DATA_HOME", &disk).current_dir(project.path()).output().expect("unshare starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("No space left on device") && said.contains("bomb.tar.gz"), "{said}");
    let listed = text(&output.stdout);
    let digests: Vec<&str> = listed.lines().filter(|line| line.starts_with("sha256:")).collect();
    assert!(digests.len() == 2 && digests[0] == digests[1], "{listed}");
}

#[test]
fn a_context_with_sockets_pipes_and_devices() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM scratch\nCOPY . /code/\n");
    project.file("unique", &project.path().display().to_string());
    let _socket = UnixListener::bind(project.path().join("socket")).expect("bound");
    let pipe = project.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo starts").success());
    let has_device = Command::new("mknod").arg(project.path().join("device")).args(["c", "1", "3"]).status();
    let has_device = has_device.expect("mknod starts").success();
    let output = project.ibid(&["build"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let listed = project.check(&["context", "--all"], 0);
    assert!(listed.contains("socket (socket, pipe or device"), "{listed}");
    assert_eq!(listed.contains("device (socket, pipe or device"), has_device, "{listed}");
}
