//! What a program must not see or do.

use std::io::{BufRead as _, BufReader};
use std::process::{ExitCode, Stdio};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::world::{Outcome, Test, World, own_program};

pub const TESTS: &[(&str, Test)] = &[
    ("isolation::masked_and_read_only_paths", masked),
    ("isolation::nothing_is_mounted_but_what_belongs_there", mounts),
    ("isolation::capabilities", capabilities),
    ("isolation::processes_of_the_host_are_hidden", processes),
    ("isolation::descriptors_are_not_inherited", descriptors),
    ("isolation::forbidden_calls_fail", calls),
    ("isolation::devices", devices),
    ("isolation::the_program_file_of_ibid_is_safe", own_file),
    ("isolation::the_program_file_of_ibid_is_read_only_there", own_mount),
    ("isolation::no_network", no_network),
    ("isolation::no_terminal_of_the_host", no_host_terminal),
];

const ROOT: [&str; 4] = ["--uid", "0", "--gid", "0"];

fn masked(world: &World) {
    let check = |script: &str| assert_ne!(world.shell(&ROOT, script).code, 0, "{script}");
    check("echo 1 > /proc/sys/kernel/panic");
    check("echo h > /proc/sysrq-trigger");
    check("touch /sys/kernel/x");
    check("umount /proc/sys");
    check("mount -o remount,rw /proc/sys");
    check("mount -t proc proc /tmp");
    assert_eq!(
        world.shell(&ROOT, "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c").text(),
        "0"
    );
    assert_eq!(
        world.shell(&ROOT, "find /proc/acpi /sys/firmware -mindepth 1 2>/dev/null | wc -l").stdout.trim(),
        "0"
    );
    let protected =
        world.shell(&ROOT, "grep -cE ' /proc/(bus|fs|irq|sys|sysrq-trigger) ro,' /proc/self/mountinfo");
    assert!(protected.text().parse::<u32>().expect("a number") >= 3, "{protected:?}");
}

/// Neither the host's root nor any other mount of the host's is left, in sight or out of it.
fn mounts(world: &World) {
    let script = "cut -d' ' -f5 /proc/self/mountinfo; test / -ef /.. && test / -ef /proc/self/root/../.. && echo one root";
    let check = |outcome: Outcome| {
        let (places, found) = outcome.text().rsplit_once('\n').expect("lines");
        assert_eq!(found, "one root");
        assert_eq!(places.lines().filter(|place| *place == "/").count(), 1, "{places}");
        let expected = ["/proc", "/sys", "/dev", "/usr"];
        for place in places.lines().filter(|place| *place != "/") {
            let is_below = |folder: &&str| {
                place.strip_prefix(*folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            assert!(expected.iter().any(is_below), "{place} of {places}");
        }
    };
    check(world.shell(&ROOT, script));
    check(world.shell(&["--no-network"], script));
    let mut command = world.place.command(own_program());
    command.arg("contain").arg("--folder").arg(world.layer()).args([
        "--bind-read-only",
        "/usr:/usr",
        "sh",
        "-c",
        script,
    ]);
    check(world.finish(command));
}

fn capabilities(world: &World) {
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t' | tr '\\n' ' '";
    assert_eq!(
        world.shell(&ROOT, script).text().trim_end(),
        "CapInh:0000000000000000 CapPrm:00000000a80425fb CapEff:00000000a80425fb CapBnd:00000000a80425fb \
         CapAmb:0000000000000000 NoNewPrivs:1 Seccomp:2"
    );
    assert_eq!(
        world.shell(&["--uid", "7"], script).text().trim_end(),
        "CapInh:0000000000000000 CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:00000000a80425fb \
         CapAmb:0000000000000000 NoNewPrivs:1 Seccomp:2"
    );
}

fn processes(world: &World) {
    let outcome =
        world.shell(&ROOT, "echo $$; ls -d /proc/[0-9]* | wc -l; ipcs -q | grep -c 0x; cat /proc/1/comm");
    let lines: Vec<&str> = outcome.text().lines().collect();
    assert_eq!(lines[0], "2");
    assert!(lines[1].parse::<u32>().expect("a number") <= 5, "{outcome:?}");
    assert_eq!(lines[2], "0");
}

fn descriptors(world: &World) {
    let mut command = world.place.command("bash");
    command.arg("-c").arg("exec 7</etc/passwd 9</ 15>&1; exec \"$@\"").arg("bash");
    let inner = world.command(&[], &["sh", "-c", "ls /proc/self/fd; readlink /proc/self/cwd"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let outcome = world.finish(command);
    // 3 is the folder that `ls` reads.
    assert_eq!(outcome.text(), "0\n1\n2\n3\n/");
}

fn calls(world: &World) {
    let program = format!("{}:/probe", own_program().display());
    for user in [&ROOT[..], &[]] {
        let options = [user, &["--bind-read-only", &program]].concat();
        let outcome = world.run(&options, &["/probe", "forbidden-calls"]);
        assert_eq!(outcome.text(), "all as expected");
    }
    assert_ne!(world.shell(&[], "unshare --user true").code, 0);
    assert_ne!(world.shell(&ROOT, "unshare --mount true").code, 0);
    assert_ne!(world.shell(&ROOT, "nsenter --target 1 --mount true").code, 0);
}

/// In a container: makes calls that the filter must answer, and one of each kind that it must not.
pub fn forbidden_calls() -> ExitCode {
    use rustix::net::{AddressFamily, SocketType, socket};
    use rustix::thread::{UnshareFlags, move_into_link_name_space};
    let family = |number| socket(AddressFamily::from_raw(number), SocketType::STREAM, None).map(drop);
    let own_namespace = std::fs::File::open("/proc/self/ns/uts").expect("one's own namespace");
    let answers = [
        ("vsock", family(40), Err(Errno::PERM)),
        ("algorithms", family(38), Err(Errno::PERM)),
        ("unix", family(1), Ok(())),
        ("internet", family(2), Ok(())),
        (
            "user namespace",
            ibid_sys::clone::leave_shared(UnshareFlags::NEWUSER.bits() as i32),
            Err(Errno::PERM),
        ),
        (
            "enter a namespace",
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&own_namespace), None),
            Err(Errno::PERM),
        ),
        (
            "new mount interface",
            rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::empty()).map(drop),
            Err(Errno::PERM),
        ),
        ("host name", rustix::system::sethostname(b"other"), Err(Errno::PERM)),
        (
            "open2",
            rustix::fs::openat2(
                rustix::fs::CWD,
                "/",
                rustix::fs::OFlags::PATH,
                rustix::fs::Mode::empty(),
                rustix::fs::ResolveFlags::empty(),
            )
            .map(drop),
            Ok(()),
        ),
    ];
    let wrong: Vec<_> = answers.iter().filter(|(_, answer, expected)| answer != expected).collect();
    // Threads are made with `clone3`, which must seem absent and not forbidden.
    let thread = std::thread::Builder::new().spawn(|| 1).map(|thread| thread.join().is_ok());
    if wrong.is_empty() && thread.is_ok_and(|joined| joined) {
        println!("all as expected");
        ExitCode::SUCCESS
    } else {
        println!("{wrong:?}");
        ExitCode::FAILURE
    }
}

fn devices(world: &World) {
    let script = "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 8 /dev/urandom | wc -c; \
                  ls /dev | tr '\\n' ' '";
    let outcome = world.shell(&[], script);
    assert_eq!(
        outcome.text().trim_end(),
        "4\n8\ncore fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    // A node of one's own is of no use, wherever it is: no group of devices guards them here.
    let script =
        "for f in /tmp/n /dev/n /dev/shm/n; do mknod $f c 1 3 2>/dev/null && cat $f 2>&1; done; true";
    let outcome = world.shell(&ROOT, script);
    let refused = outcome.text().lines().filter(|line| line.ends_with("Permission denied")).count();
    assert_eq!(refused, outcome.stdout.lines().count(), "{outcome:?}");
    if world.user.is_none() {
        assert_eq!(refused, 3, "root may make them, and not open them");
    }
}

fn own_file(world: &World) {
    let before = std::fs::read(own_program()).expect("readable");
    let script = "(echo x > /proc/1/exe) 2>/dev/null && echo written; cat /proc/1/exe 2>/dev/null | head -c 1 | wc -c; \
                  ls -l /proc/1/fd 2>/dev/null | grep -c -- '->'; true";
    let outcome = world.shell(&ROOT, script);
    assert_eq!(outcome.text(), "0\n0");
    assert!(std::fs::read(own_program()).expect("readable") == before);
}

/// Also whoever is let into process 1, by a capability or a descriptor, cannot write the file when it ends.
fn own_mount(world: &World) {
    if !rustix::process::geteuid().is_root() {
        // Nobody else may look into the process.
        return;
    }
    let mut command = world.command(&[], &["sh", "-c", "echo started; read end"]);
    let mut contain = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let stdout = contain.stdout.as_mut().expect("a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("it says so");
    let first: Vec<String> = std::fs::read_dir("/proc")
        .expect("a list of processes")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|process| {
            let words = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            words.starts_with(b"ibid-init\0") && status.contains(&format!("\nPPid:\t{}\n", contain.id()))
        })
        .collect();
    assert_eq!(first.len(), 1, "{first:?}");
    let file =
        rustix::fs::open(format!("/proc/{}/exe", first[0]), OFlags::PATH, Mode::empty()).expect("its file");
    let flags = rustix::fs::fstatvfs(&file).expect("it tells").f_flag;
    assert!(flags.contains(StatVfsMountFlags::RDONLY), "{flags:?}");
    drop(contain.stdin.take());
    assert!(contain.wait().expect("it ends").code().is_some());
}

fn no_network(world: &World) {
    let script = "ls /sys/class/net; cat /sys/class/net/lo/flags; cat /proc/net/dev | grep -c :";
    assert_eq!(world.shell(&["--no-network"], script).text(), "lo\n0x9\n1");
}

fn no_host_terminal(world: &World) {
    let outcome = world.shell(&[], "(: > /dev/tty) 2>&1; ps -o sid= -p $$ | tr -d ' '");
    assert!(outcome.stdout.contains("No such device or address"), "{outcome:?}");
    assert_eq!(outcome.stdout.lines().last(), Some("2"));
}
