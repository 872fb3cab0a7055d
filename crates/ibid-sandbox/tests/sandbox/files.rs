//! The root file system and what is mounted over it.

use std::os::unix::fs::{MetadataExt, symlink};

use ibid_testing::{Need, OrdinaryUser, need};

use crate::world::{Test, World};

pub const TESTS: &[(&str, Test)] = &[
    ("files::what_is_written_is_in_the_upper_folder", upper),
    ("files::a_read_only_root", read_only_root),
    ("files::binds", binds),
    ("files::injected_files", injected),
    ("files::mounted_files_are_in_memory_and_others_cannot_read_them", secret),
    ("files::targets_stay_inside", targets_stay_inside),
    ("files::trusted_places_are_no_links", trusted_places),
    ("files::shared_memory", shared_memory),
    ("files::idmapped", idmapped),
    ("files::no_path_of_the_host_shows", no_host_paths),
    ("files::a_folder_as_root", folder_as_root),
];

fn upper(world: &World) {
    world.shell(&["--uid", "0", "--gid", "0"], "echo new > /etc/new; rm /etc/passwd").text();
    assert_eq!(std::fs::read_to_string(world.upper().join("etc/new")).expect("there"), "new\n");
    let whiteout = std::fs::symlink_metadata(world.upper().join("etc/passwd")).expect("a whiteout");
    assert_eq!((whiteout.mode() & 0o17_0000, whiteout.rdev()), (0o2_0000, 0));
    assert!(world.layer().join("etc/passwd").exists());
    // Nothing that was only mounted over is there.
    for name in ["dev", "proc", "sys", "usr"] {
        assert!(!world.upper().join(name).exists(), "{name}");
    }
}

fn read_only_root(world: &World) {
    let options = ["--uid", "0", "--gid", "0", "--read-only", "--tmpfs", "/tmp"];
    let script =
        "touch /etc/new 2>&1; touch /tmp/new && echo fine; mount -o remount,rw / 2>/dev/null; touch /root/x";
    let outcome = world.shell(&options, script);
    assert!(outcome.stdout.contains("Read-only file system"), "{outcome:?}");
    assert!(outcome.stdout.contains("fine"), "{outcome:?}");
    assert_ne!(outcome.code, 0);
}

fn binds(world: &World) {
    world.place.file("shared/note", "from outside");
    let shared = world.place.path().join("shared");
    let writable = format!("{}:/mnt/deep/shared", shared.display());
    let text = world
        .shell(&["--bind", &writable], "cat /mnt/deep/shared/note; echo inside > /mnt/deep/shared/reply");
    assert_eq!(text.text(), "from outside");
    let reply = shared.join("reply");
    assert_eq!(std::fs::read_to_string(&reply).expect("written through"), "inside\n");
    let found = reply.metadata().expect("there");
    assert_eq!((found.uid(), found.gid()), world.ids());

    let options = ["--uid", "0", "--gid", "0", "--bind-read-only", &writable];
    let outcome = world.shell(
        &options,
        "touch /mnt/deep/shared/no; mount -o remount,rw,bind /mnt/deep/shared; touch /mnt/deep/shared/no",
    );
    assert_ne!(outcome.code, 0);
    assert!(!shared.join("no").exists());

    let one_file = format!("{}:/etc/note", shared.join("note").display());
    assert_eq!(world.shell(&["--bind", &one_file], "cat /etc/note").text(), "from outside");
    // The empty file it was mounted on is root's, and empty.
    let place = world.upper().join("etc/note").metadata().expect("made");
    assert_eq!(place.len(), 0);
}

fn injected(world: &World) {
    let options =
        ["--uid", "0", "--gid", "0", "--file", "/etc/hosts=127.0.0.1 here", "--file", "/run/a/b=deep"];
    let script = "cat /etc/hosts; echo; cat /run/a/b; echo; stat -c %u:%g:%a /etc/hosts; echo x > /etc/hosts; echo $?; \
                  rm /etc/hosts || echo stays; umount /etc/hosts 2>/dev/null || echo mounted";
    let outcome = world.shell(&options, script);
    let lines: Vec<&str> = outcome.text().lines().collect();
    assert_eq!(lines[..3], ["127.0.0.1 here", "deep", "0:0:644"]);
    assert_ne!(lines[3], "0");
    assert_eq!(lines[4..], ["stays", "mounted"]);
}

fn secret(world: &World) {
    // In the order of the mounts: a file can lie in a folder that was mounted before it.
    let options = ["--tmpfs", "/cache", "--secret", "/cache/key=ssh", "--secret", "/run/key=second"];
    let script = "cat /cache/key /run/key; stat -c %u:%g:%a /cache/key; stat -f -c %T /run/key; \
                  grep ' /run/key ' /proc/mounts | cut -d' ' -f4 | tr , '\\n' | grep -c -x -e ro -e noexec -e nosuid -e nodev";
    let outcome = world.shell(&options, script);
    let (owner, mut group) = (world.ids().0, 0);
    // Where one id is mapped, nothing can be given to root.
    if world.user.as_ref().is_some_and(|user| user.name.is_empty()) {
        group = world.ids().1;
    }
    assert_eq!(outcome.text(), format!("sshsecond{owner}:{group}:400\ntmpfs\n4"));
    assert!(!world.upper().join("cache/key").exists());
    assert_eq!(std::fs::read(world.upper().join("run/key")).expect("the place it was mounted on"), b"");
}

fn targets_stay_inside(world: &World) {
    let outside = world.place.folder("outside");
    symlink(&outside, world.layer().join("absolute")).expect("a link");
    let climbing = format!("../../../../../../../../..{}", outside.display());
    symlink(climbing, world.layer().join("climbing")).expect("a link");
    symlink("/nowhere", world.layer().join("dangling")).expect("a link");
    std::fs::create_dir_all(world.layer().join("inside")).expect("a folder");
    symlink("/inside", world.layer().join("harmless")).expect("a link");
    let bind = |target: &str| format!("{}:{target}", world.place.path().join("home").display());

    // The links' own targets do not exist in the container: they lead nowhere, not outside.
    for target in ["/absolute/x", "/climbing/x", "/dangling/x", "/dangling"] {
        let outcome = world.run(&["--bind", &bind(target)], &["true"]);
        assert_eq!(outcome.code, 125, "{target}: {outcome:?}");
        let outcome = world.run(&["--file", &format!("{target}=content")], &["true"]);
        assert_eq!(outcome.code, 125, "{target}: {outcome:?}");
        let outcome = world.run(&["--secret", &format!("{target}=content")], &["true"]);
        assert_eq!(outcome.code, 125, "{target}: {outcome:?}");
        let outcome = world.run(&["--tmpfs", target], &["true"]);
        assert_eq!(outcome.code, 125, "{target}: {outcome:?}");
    }
    assert_eq!(std::fs::read_dir(&outside).expect("there").count(), 0);

    // What is no folder, or is one, is said so.
    world.place.file("note", "");
    for (option, value, word) in [
        ("--tmpfs", "/etc/passwd".to_owned(), "NotADirectory"),
        ("--bind", bind("/etc/passwd"), "NotADirectory"),
        ("--bind", format!("{}:/etc", world.place.path().join("note").display()), "IsADirectory"),
        ("--file", "/etc=content".to_owned(), "IsADirectory"),
    ] {
        let outcome = world.run(&[option, &value], &["true"]);
        assert_eq!(outcome.code, 125, "{value}: {outcome:?}");
        assert!(outcome.stderr.contains(word), "{value}: {outcome:?}");
    }

    // One that stays inside is followed.
    let option = bind("/harmless/deep");
    let text = world.shell(&["--bind", &option], "mountpoint -q /inside/deep && echo mounted");
    assert_eq!(text.text(), "mounted");
    // `..` ends at the root.
    let option = bind("/../../inside/up");
    assert_eq!(
        world.shell(&["--bind", &option], "mountpoint -q /inside/up && echo mounted").text(),
        "mounted"
    );
}

fn trusted_places(world: &World) {
    std::fs::create_dir_all(world.layer().join("elsewhere")).expect("a folder");
    for place in ["proc", "sys", "dev"] {
        std::fs::remove_dir(world.layer().join(place)).expect("empty");
        symlink("elsewhere", world.layer().join(place)).expect("a link");
        let outcome = world.run(&[], &["true"]);
        assert_eq!(outcome.code, 125, "{place}: {outcome:?}");
        assert!(outcome.stderr.contains(&format!("/{place}")), "{outcome:?}");
        std::fs::remove_file(world.layer().join(place)).expect("a link");
        std::fs::create_dir(world.layer().join(place)).expect("a folder");
    }
}

fn shared_memory(world: &World) {
    let script =
        "echo x > /dev/shm/x && df --output=size,fstype /dev/shm | tail -1; df --output=size /dev | tail -1";
    let outcome = world.shell(&[], script);
    let words: Vec<&str> = outcome.text().split_whitespace().collect();
    let size_kib: u64 = words[0].parse().expect("a size");
    assert_eq!(words[1], "tmpfs");
    assert!(size_kib > 64 * 1024, "{size_kib} KiB is Docker's size, too small for data loaders");
    assert_eq!(words[2], "65536");
}

fn idmapped(world: &World) {
    let (Some(user), None) = (OrdinaryUser::find(), &world.user) else { return };
    if !need(&[Need::Idmap]) {
        return;
    }
    let project = world.place.folder("project");
    std::fs::write(project.join("code"), "print()").expect("written");
    user.own(&project);
    let map = format!("{}:4321:{}:8765", user.uid, user.gid);
    let bind = format!("{}:/code", project.display());
    let options = ["--idmap", &map, "--bind", &bind, "--uid", "4321", "--gid", "8765", "--cwd", "/code"];
    let script = "stat -c %u:%g . code; echo x > output; mkdir folder; stat -c %u:%g output folder";
    let outcome = world.shell(&options, script);
    assert_eq!(outcome.text(), ["4321:8765"; 4].join("\n"));
    for name in ["output", "folder"] {
        let found = project.join(name).metadata().expect("written through");
        assert_eq!((found.uid(), found.gid()), (user.uid, user.gid), "{name}");
    }
    // Everybody else stays who they are; root too.
    let options = ["--idmap", &map, "--bind", &bind, "--uid", "0", "--gid", "0"];
    world.shell(&options, "touch /code/by-root; chown 77:88 /code/code").text();
    let found =
        |name: &str| project.join(name).metadata().map(|found| (found.uid(), found.gid())).expect("there");
    assert_eq!(found("by-root"), (0, 0));
    assert_eq!(found("code"), (77, 88));
}

fn no_host_paths(world: &World) {
    let place = world.place.path().display().to_string();
    let outcome = world.shell(&[], "cat /proc/self/mountinfo /proc/mounts");
    assert!(!outcome.text().contains(&place), "{}", outcome.stdout);
    assert!(!outcome.text().contains("(unreachable)"), "{}", outcome.stdout);
}

fn folder_as_root(world: &World) {
    let mut command = world.place.command(crate::world::own_program());
    command.arg("contain").arg("--folder").arg(world.layer());
    command.args([
        "--bind-read-only",
        "/usr:/usr",
        "sh",
        "-c",
        "echo kept > /tmp/kept; pwd; readlink /proc/self/root",
    ]);
    let outcome = world.finish(world.by_its_user(command));
    assert_eq!(outcome.text(), "/\n/");
    assert_eq!(std::fs::read_to_string(world.layer().join("tmp/kept")).expect("there"), "kept\n");
}
