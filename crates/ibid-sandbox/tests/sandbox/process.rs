//! The program's start and end.

use crate::world::{Test, World};

pub const TESTS: &[(&str, Test)] = &[
    ("process::exit_codes_are_passed_on", exit_codes),
    ("process::a_program_that_is_not_there", missing_programs),
    ("process::is_the_host_user", identity),
    ("process::environment_and_folder", environment),
    ("process::orphans_end_with_the_program", orphans_end),
    ("process::orphans_are_reaped", orphans_are_reaped),
    ("process::groups_of_the_user_stay", groups),
    ("process::a_failing_step_is_named", failing_step),
];

fn exit_codes(world: &World) {
    let check = |script: &str, expected| assert_eq!(world.shell(&[], script).code, expected, "{script}");
    check("exit 0", 0);
    check("exit 7", 7);
    check("exit 255", 255);
    check("kill -TERM $$", 143);
    check("kill -KILL $$", 137);
    check("kill -SEGV $$", 139);
}

fn missing_programs(world: &World) {
    std::fs::write(world.layer().join("data"), "text").expect("our own layer");
    let script = world.layer().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("our own layer");
    std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our own");
    let check = |program: &str, code, word: &str| {
        let outcome = world.run(&[], &[program]);
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(outcome.stderr.contains(word), "{outcome:?}");
    };
    check("no-such-program", 127, "NotFound { program: \"no-such-program\", path: Some(\"/usr/sbin:");
    check("/no/such/program", 127, "NotFound { program: \"/no/such/program\", path: None }");
    check("/data/below-a-file", 127, "NotFound");
    check("/script", 127, "NoInterpreter");
    check("/data", 126, "NotExecutable");
    check("/etc", 126, "NotExecutable");
}

fn identity(world: &World) {
    let (uid, gid) = world.ids();
    assert_eq!(world.shell(&[], "echo $(id -u):$(id -g)").text(), format!("{uid}:{gid}"));
    assert_eq!(world.shell(&["--uid", "0", "--gid", "0"], "echo $(id -u):$(id -G)").text(), "0:0");
    assert_eq!(world.shell(&["--uid", "12", "--gid", "34"], "echo $(id -u):$(id -G)").text(), "12:34");
    assert_eq!(world.shell(&[], "touch /tmp/mine && stat -c %u:%g /tmp/mine").text(), format!("{uid}:{gid}"));
    let found = std::fs::metadata(world.upper().join("tmp/mine")).expect("it is in the upper folder");
    assert_eq!(
        (std::os::unix::fs::MetadataExt::uid(&found), std::os::unix::fs::MetadataExt::gid(&found)),
        (uid, gid)
    );
}

fn environment(world: &World) {
    let options = ["--env", "NAME=some value", "--cwd", "/tmp/new/folder", "--hostname", "wonderland"];
    let outcome = world.shell(&options, "echo \"$NAME\"; pwd; hostname; umask; env | wc -l");
    let lines: Vec<&str> = outcome.text().lines().collect();
    // PATH and NAME; the shell adds PWD.
    assert_eq!(lines, ["some value", "/tmp/new/folder", "wonderland", "0022", "3"]);
}

fn orphans_end(world: &World) {
    let name = format!("ibid-orphan-{}", world.place.path().file_name().expect("it has one").display());
    let script = format!("(exec -a {name} sleep 1000 & ) ; exit 5");
    assert_eq!(world.run(&[], &["bash", "-c", &script]).code, 5);
    let alive = std::fs::read_dir("/proc").expect("/proc").flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(name.as_bytes()))
    });
    assert!(!alive, "{name}");
}

fn orphans_are_reaped(world: &World) {
    // The orphan tells its id before it ends; then its folder in /proc must go away.
    let script = "read pid <<EOF\n$(sh -c '(sh -c \"echo \\$\\$\") &')\nEOF\n\
                  n=0; while [ -e /proc/$pid ] && [ $n -lt 100000 ]; do n=$((n+1)); done; \
                  [ ! -e /proc/$pid ] && echo gone";
    assert_eq!(world.shell(&[], script).text(), "gone");
}

fn groups(world: &World) {
    // Root has the groups it is given; a user keeps those that open shared folders.
    let outcome = world.shell(&[], "grep ^Groups: /proc/self/status | wc -w");
    let own = world.by_its_user(world.place.command("sh"));
    let mut own = own;
    own.args(["-c", "grep ^Groups: /proc/self/status | wc -w"]);
    let outside = String::from_utf8(own.output().expect("sh").stdout).expect("a number");
    let expected = if world.user.is_some() { outside.trim() } else { "1" };
    assert_eq!(outcome.text(), expected);
}

fn failing_step(world: &World) {
    let outcome = world.run(&["--bind", "/no/such/source:/mnt"], &["true"]);
    assert_eq!(outcome.code, 125);
    let expected = "Setup { step: \"mount\", path: Some(\"/no/such/source\"), source: Os { code: 2";
    assert!(outcome.stderr.contains(expected), "{outcome:?}");
}
