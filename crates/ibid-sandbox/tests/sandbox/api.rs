//! The library as a program uses it.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use ibid_sandbox::{
    Error, ExitStatus, InjectedFile, Mount, MountKind, Overlay, Rootfs, Spec, Stdio, Upper, rootfs, spawn,
    userns,
};
use ibid_testing::{Need, need};

use crate::world::{Kind, World, own_program};

pub const TESTS: &[(&str, fn())] = &[
    ("api::output_goes_where_it_should", output),
    ("api::errors_are_facts", errors),
    ("api::dropping_ends_the_container", dropping),
    ("api::many_at_once", many),
    ("api::signals_from_another_thread", handle),
    ("api::impossible_specifications_are_refused", invalid),
    ("api::merged_views", merged_views),
    ("api::paths_that_are_no_text", odd_paths),
];

fn root_world() -> Option<World> {
    Kind::root.enter()
}

fn spec(world: &World, argv: &[&str]) -> Spec {
    let path = |name: &str| world.place.path().join(name);
    let overlay = Overlay {
        lowers: vec![world.layer().to_owned()],
        upper: Some(Upper {
            upper: path("upper"),
            work: world.place.folder(&format!("work of {}", argv[0])),
        }),
        volatile: true,
    };
    let mut spec = Spec::new(Rootfs::Overlay(overlay), argv.iter().map(|word| (*word).to_owned()).collect());
    spec.mounts.push(Mount {
        target: "/usr".to_owned(),
        kind: MountKind::Bind { source: "/usr".into(), read_only: true, idmap: None },
    });
    spec
}

fn output() {
    let Some(world) = root_world() else { return };
    let (mut out, stdout) = std::io::pipe().expect("a pipe");
    let (mut err, stderr) = std::io::pipe().expect("a pipe");
    let (stdin, mut input) = std::io::pipe().expect("a pipe");
    let stdio = Stdio { stdin: Some(stdin.into()), stdout: Some(stdout.into()), stderr: Some(stderr.into()) };
    let running = spawn(&spec(&world, &["sh", "-c", "cat; echo bad >&2; exit 3"]), stdio).expect("it starts");
    std::io::Write::write_all(&mut input, b"typed").expect("it reads");
    drop(input);
    let (mut text, mut complaint) = (String::new(), String::new());
    // The ends come before anyone waits for the program.
    out.read_to_string(&mut text).expect("text");
    err.read_to_string(&mut complaint).expect("text");
    assert_eq!((text.as_str(), complaint.as_str()), ("typed", "bad\n"));
    assert_eq!(running.wait().expect("it ends"), ExitStatus::Code(3));
}

fn errors() {
    let Some(world) = root_world() else { return };
    match spawn(&spec(&world, &["no-such-program"]), Stdio::default()) {
        Err(error @ Error::NotFound { .. }) => {
            assert_eq!(error.exit_code(), 127);
            assert!(
                error
                    .to_string()
                    .starts_with("`no-such-program` is not in the container (searched /usr/local/sbin:")
            );
        }
        other => panic!("{other:?}"),
    }
    let mut broken = spec(&world, &["true"]);
    if let Rootfs::Overlay(overlay) = &mut broken.rootfs {
        overlay.lowers = vec!["/no/such/layer".into()];
    }
    match spawn(&broken, Stdio::default()) {
        Err(error @ Error::Setup { .. }) => {
            assert_eq!(
                error.to_string(),
                "cannot mount the layers of the root file system at `/no/such/layer`"
            );
        }
        other => panic!("{other:?}"),
    }
}

fn dropping() {
    let Some(world) = root_world() else { return };
    let (mut out, stdout) = std::io::pipe().expect("a pipe");
    let stdio = Stdio { stdout: Some(stdout.into()), ..Stdio::default() };
    let running = spawn(&spec(&world, &["sleep", "1000"]), stdio).expect("it starts");
    drop(running);
    out.read_to_end(&mut Vec::new()).expect("ends with its last writer");
}

fn many() {
    let Some(_world) = root_world() else { return };
    std::thread::scope(|scope| {
        for code in 1..=8 {
            scope.spawn(move || {
                let world = root_world().expect("as before");
                let running = spawn(&spec(&world, &["sh", "-c", &format!("exit {code}")]), Stdio::default());
                assert_eq!(running.expect("it starts").attend().expect("it ends"), ExitStatus::Code(code));
            });
        }
    });
}

fn handle() {
    let Some(world) = root_world() else { return };
    let running = spawn(&spec(&world, &["sleep", "1000"]), Stdio::default()).expect("it starts");
    let handle = running.handle();
    let sender = std::thread::spawn(move || handle.signal(15).map(|()| handle));
    assert_eq!(running.wait().expect("it ends"), ExitStatus::Signal(15));
    let handle = sender.join().expect("no panic").expect("it was sent");
    handle.signal(15).expect("nobody is left, which is fine");
    handle.kill().expect("nobody is left, which is fine");
}

fn invalid() {
    let check = |change: fn(&mut Spec), expected: &str| {
        let mut spec = Spec::new(Rootfs::Folder("/".into()), vec!["true".to_owned()]);
        change(&mut spec);
        match spawn(&spec, Stdio::default()) {
            Err(Error::Invalid { what }) => assert_eq!(what, expected),
            other => panic!("{expected}: {other:?}"),
        }
    };
    let file = |target: &str| InjectedFile { target: target.to_owned(), content: Vec::new(), mode: 0o644 };
    check(|spec| spec.argv.clear(), "no program to run");
    check(|spec| spec.argv.push("a\0b".to_owned()), "`a\\0b` contains a NUL byte");
    check(
        |spec| spec.env.push(("A=B".to_owned(), String::new())),
        "`A=B` is no name for an environment variable",
    );
    check(|spec| spec.cwd = "here".to_owned(), "working folder `here` is not absolute");
    check(|spec| spec.capabilities |= 1 << 41, "there is no capability number 41");
    let mut spec = Spec::new(Rootfs::Folder("/".into()), vec!["true".to_owned()]);
    for target in ["relative", "/", "/.", ""] {
        spec.files = vec![file(target)];
        let error = spawn(&spec, Stdio::default()).expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("`{target}` is no place to mount: it must be absolute and below `/`")
        );
    }
}

fn merged_views() {
    for kind in World::kinds() {
        let Some(world) = kind.enter() else { continue };
        world.place.folder("work");
        let second = world.place.folder("second");
        std::fs::write(second.join("added"), "added").expect("written");
        world.place.folder("at");
        let mut command = world.place.command(own_program());
        command.arg("merged-view").arg(world.place.path());
        let outcome = world.finish(world.by_its_user(command));
        assert_eq!(outcome.text(), "fine", "{kind:?}: {outcome:?}");
        assert_eq!(std::fs::read_to_string(world.upper().join("etc/new")).expect("there"), "new");
        // Nothing of it was ever seen by the host.
        assert_eq!(std::fs::read_dir(world.place.path().join("at")).expect("there").count(), 0);
    }
}

/// In a process of its own: mounts layers and works on them.
pub fn merged_view(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let place = PathBuf::from(arguments.next().expect("a folder"));
    userns::ensure().expect("a user namespace where one is needed");
    rootfs::private_mount_namespace().expect("a mount namespace");
    let overlay = Overlay {
        lowers: vec![place.join("second"), place.join("layer")],
        upper: Some(Upper { upper: place.join("upper"), work: place.join("work") }),
        volatile: true,
    };
    let at = place.join("at");
    let view = rootfs::mount(&overlay, &at).expect("it mounts");
    assert_eq!(view.path(), at);
    assert_eq!(std::fs::read_to_string(at.join("added")).expect("merged"), "added");
    assert!(at.join("etc/passwd").exists());
    std::fs::write(at.join("etc/new"), "new").expect("written");
    // As a process that is being started elsewhere may hold it.
    let open = std::fs::File::open(at.join("etc/new")).expect("there");
    view.unmount().expect("that it is open does not matter");
    assert!(!at.join("etc").exists());
    assert_eq!(std::io::read_to_string(open).expect("its holder's still"), "new");
    // A view without an upper folder, of several layers and of one.
    for lowers in [vec![place.join("second"), place.join("layer")], vec![place.join("layer")]] {
        let view = rootfs::mount(&Overlay { lowers, upper: None, volatile: false }, &at).expect("it mounts");
        assert!(at.join("etc/passwd").exists());
        let error = std::fs::write(at.join("etc/new"), "new").expect_err("read-only");
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        drop(view);
        assert!(!at.join("etc").exists());
    }
    println!("fine");
    ExitCode::SUCCESS
}

fn odd_paths() {
    use std::os::unix::ffi::OsStringExt;
    if !need(&[Need::Root, Need::Overlay]) {
        return;
    }
    let world = root_world().expect("as needed");
    let odd = std::ffi::OsString::from_vec(b"a:b,c\\d \xff\n".to_vec());
    let source = world.place.path().join(&odd);
    std::fs::create_dir(&source).expect("any byte but / and NUL");
    std::fs::write(source.join("note"), "odd").expect("written");
    let mut spec = spec(&world, &["sh", "-c", "test $(cat /mnt/note) = odd && test $(cat /note) = odd"]);
    spec.mounts.push(Mount {
        target: "/mnt".to_owned(),
        kind: MountKind::Bind { source: source.clone(), read_only: false, idmap: None },
    });
    if let Rootfs::Overlay(overlay) = &mut spec.rootfs {
        overlay.lowers.insert(0, source);
    }
    assert_eq!(
        spawn(&spec, Stdio::default()).expect("it starts").wait().expect("it ends"),
        ExitStatus::Code(0)
    );
}
