//! The options that people know from `docker run`, on every level.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use super::{Case, Site, shell};

const REFUSED: Case = Case { code: 125, ..shell("", &["true"], "") };

/// Root itself, a user with subordinate ids, and one without.
const MANY_IDS: &[u8] = &[1, 2];
const ONE_ID: &[u8] = &[3];

pub const CASES: &[Case] = &[
    Case {
        options: &["-v", "../shared:/shared/deep"],
        ..shell(
            "a folder of the host",
            &["sh", "-c", "cat /shared/deep/in; echo x > /shared/deep/out; stat -c %u:%g /shared/deep/out"],
            "shared\n@UID@:@GID@\n",
        )
    },
    Case {
        options: &["--volume", "../shared/in:/one:ro", "-v", "@PLACE@/shared:/all:ro"],
        ..shell(
            "a file of the host, and a folder that cannot be written",
            &[
                "sh",
                "-c",
                "cat /one; echo x 2>/dev/null > /one || echo no; echo x 2>/dev/null > /all/x || echo no",
            ],
            "shared\nno\nno\n",
        )
    },
    Case {
        name: "a volume by name",
        options: &["-v", "cache:/cache"],
        stderr: "`cache` is the name of a volume, and ibid has none",
        ..REFUSED
    },
    Case {
        name: "a volume that is not there",
        options: &["-v", "./none:/x"],
        stderr: "hint: ibid makes no folder there by itself: `mkdir -p ./none`",
        ..REFUSED
    },
    Case {
        name: "a volume over the code",
        options: &["-v", "../shared:/code"],
        stderr: "`/code` is where the code is mounted",
        ..REFUSED
    },
    Case {
        options: &["--tmpfs", "/t/in:size=1m,mode=700", "--tmpfs", "/t", "--tmpfs", "/ro:exec,ro"],
        ..shell(
            "folders in memory",
            &[
                "sh",
                "-c",
                "stat -c %a /t /t/in; echo x 2>/dev/null > /ro/x || echo no; touch /t/x && df -k /t/in | grep -c 1024",
            ],
            "1777\n700\nno\n1\n",
        )
    },
    Case {
        options: &["--tmpfs", "/t:uid=60,gid=61"],
        levels: MANY_IDS,
        ..shell("a folder in memory of somebody else", &["stat", "-c", "%u:%g", "/t"], "60:61\n")
    },
    Case {
        name: "where there is nobody else",
        options: &["--tmpfs", "/t:uid=60,gid=61"],
        levels: ONE_ID,
        stderr: "`/t` cannot belong to 60:61: one user id is mapped",
        ..REFUSED
    },
    Case {
        options: &["--env-file", "../env", "--env", "B=2"],
        ..shell("a file of variables", &["sh", "-c", "echo \"$A|$B|$LEAK|$C\""], "a b=\"c\"|2|leaked|\n")
    },
    Case {
        options: &["--user", "worker"],
        ..shell(
            "another user",
            &[
                "sh",
                "-c",
                "id -u; id -g; id -un; echo $HOME $USER; echo x > output/by-worker; stat -c %u:%g output/by-worker",
            ],
            "60\n61\nworker\n/home/worker worker\n60:61\n",
        )
    },
    Case {
        options: &["--user", "worker"],
        levels: MANY_IDS,
        ..shell("their groups", &["id", "-G"], "61 50\n")
    },
    Case {
        options: &["-u", "77:88"],
        ..shell(
            "a user that the image does not know",
            &["sh", "-c", "id -u; id -g; cd && touch new && stat -c '%n %u:%g' new; stat -c %u:%g /code"],
            "77\n88\nnew 77:88\n77:88\n",
        )
    },
    Case {
        name: "a user that nobody knows",
        options: &["--user", "nobody-knows"],
        stderr: "no user `nobody-knows` in the image's /etc/passwd",
        ..REFUSED
    },
    Case {
        options: &["--root"],
        ..shell(
            "root",
            &[
                "sh",
                "-c",
                "id -u; echo $HOME; touch /made; echo x > output/by-root; stat -c %u:%g output/by-root /code /made",
            ],
            "0\n/root\n0:0\n0:0\n0:0\n",
        )
    },
    Case {
        options: &["--root"],
        levels: MANY_IDS,
        ..shell("root gives files away", &["sh", "-c", "touch /f; chown 7:8 /f; stat -c %u:%g /f"], "7:8\n")
    },
    Case { options: &["--workdir", "/made/for/it"], ..shell("a working folder", &["pwd"], "/made/for/it\n") },
    Case { options: &["--entrypoint", "printf"], ..shell("an entrypoint", &["%s,%s", "a", "b"], "a,b") },
    Case {
        options: &["--read-only", "--tmpfs", "/tmp"],
        ..shell(
            "nothing but mounts is writable",
            &[
                "sh",
                "-c",
                "for f in /x /bin/x /etc/x; do echo x 2>/dev/null > $f || echo no; done; touch /tmp/x output/x /dev/shm/x && echo yes",
            ],
            "no\nno\nno\nyes\n",
        )
    },
    Case {
        options: &["--shm-size", "2m"],
        ..shell("the size of shared memory", &["sh", "-c", "df -k /dev/shm | grep -c ' 2048 '"], "1\n")
    },
    Case {
        options: &["--hostname", "wonderland"],
        ..shell(
            "a host name",
            &["sh", "-c", "hostname; echo $HOSTNAME; grep -c wonderland /etc/hosts; cat /etc/hostname"],
            "wonderland\nwonderland\n1\nwonderland\n",
        )
    },
    Case {
        options: &["--cap-add", "SYS_PTRACE", "--cap-drop", "cap_kill,CHOWN"],
        ..shell("capabilities", &["sh", "-c", "grep CapBnd /proc/self/status"], "CapBnd:\t00000000a80c25da\n")
    },
    Case {
        options: &["--root", "--cap-drop", "ALL", "--cap-add", "KILL"],
        ..shell("all but one", &["grep", "CapEff", "/proc/self/status"], "CapEff:\t0000000000000020\n")
    },
    Case {
        options: &["--cap-add", "SYS_ADMIN"],
        ..shell(
            "what is added can be used",
            &["sh", "-c", "mount -t tmpfs x /tmp && echo mounted"],
            "mounted\n",
        )
    },
    Case {
        options: &["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"],
        ..shell(
            "no filter of system calls",
            &["grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status"],
            "NoNewPrivs:\t1\nSeccomp:\t0\n",
        )
    },
    Case {
        options: &["--security-opt", "seccomp=../no-folders.json"],
        ..shell(
            "a filter of one's own",
            &[
                "sh",
                "-c",
                "mkdir /tmp/x 2>/dev/null || echo refused; touch /tmp/y && grep Seccomp: /proc/self/status",
            ],
            "refused\nSeccomp:\t2\n",
        )
    },
    Case {
        name: "a filter that is none",
        options: &["--security-opt", "seccomp=../shared/in"],
        stderr: "is no seccomp profile",
        ..REFUSED
    },
    Case {
        name: "what ibid does not do",
        options: &["--security-opt", "apparmor=unconfined"],
        stderr: "ibid sets no AppArmor profile",
        ..REFUSED
    },
    Case {
        options: &["--ulimit", "nofile=99:100", "--ulimit", "core=0"],
        ..shell("limits of a process", &["sh", "-c", "ulimit -n; ulimit -H -n; ulimit -c"], "99\n100\n0\n")
    },
    Case {
        name: "a limit above one's own",
        options: &["--ulimit", "nofile=1999999999"],
        levels: &[2, 3],
        stderr: "hint: only root can raise a limit",
        ..REFUSED
    },
    Case {
        options: &["--network", "none"],
        ..shell(
            "no network",
            &[
                "sh",
                "-c",
                "ls -d /sys/class/net/*; cat /etc/resolv.conf /proc/sys/net/ipv4/ip_unprivileged_port_start",
            ],
            "/sys/class/net/lo\n0\n",
        )
    },
    Case {
        options: &["-p", "8080:8080"],
        stderr: "what it listens on is reachable here without --publish: 8080",
        ..shell("ports are the host's", &["true"], "")
    },
    Case {
        name: "another port on the host's network",
        options: &["-p", "8080:80"],
        stderr: "hint: `--network private`",
        ..REFUSED
    },
    Case {
        name: "a port without a network",
        options: &["-p", "80", "--network", "none"],
        stderr: "a run without a network has no ports",
        ..REFUSED
    },
    shell("what the build made in the code folder", &["sh", "-c", "ls venv; touch word"], "pyvenv.cfg\n"),
    Case {
        options: &["--limits=best-effort", "--pids", "50", "--cpus", "0.5", "-m", "64m"],
        ..shell("limits, where they can be had", &["true"], "")
    },
];

/// What cannot be a row of the table: it depends on what this machine has.
pub fn check_all(site: &Site) {
    if site.engine.is_none() {
        limits_agree_with_doctor(site);
    }
    match site.engine.as_ref().and_then(|engine| engine.no_ports(site.level)) {
        Some(reason) => eprintln!("not available: ports of a private network: {reason}"),
        None => a_private_network(site),
    }
}

fn limits_agree_with_doctor(site: &Site) {
    let doctor = site.ibid(&["doctor", "--json"], &[]);
    let found: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let findings = found["findings"].as_array().expect("findings");
    let cgroups = findings.iter().find(|finding| finding["ability"] == "cgroups").expect("looked at");
    let script = "cat /proc/self/cgroup | grep -c /ibid-; (for i in 1 2 3 4 5 6; do sleep 9 >/dev/null 2>&1 & done) 2>&1 | grep -c fork";
    let output = site.ibid(&["run", "--pids", "5", "--memory", "64m", "--"], &["sh", "-c", script]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if cgroups["state"] == "works" {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = stdout.lines().map(|line| line.parse::<u32>().unwrap_or(0));
        assert!(lines.next() > Some(0), "not in a group: {stdout}{stderr}");
        assert_eq!(lines.next(), Some(1), "more processes than allowed: {stdout}{stderr}");
    } else {
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains("error: cannot limit memory: "), "{stderr}");
        assert!(stderr.contains("hint: `--limits=best-effort`"), "{stderr}");
    }
}

fn a_private_network(site: &Site) {
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|it| it.local_addr()).expect("a port").port();
    let publish = format!("127.0.0.1:{port}:80");
    let mut options = vec!["run"];
    options.extend(site.engine.iter().flat_map(|engine| ["--engine", engine.name()]));
    options.extend(["--network", "private", "-p", &publish, "--"]);
    let mut command = site.command(
        "project",
        &options,
        &["sh", "-c", "ls /sys/class/net | grep -c -v lo; nc -l -p 80 < word"],
    );
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ibid starts");
    let mut heard = String::new();
    // It listens when it has come so far; until then, nobody answers.
    while heard.is_empty() && child.try_wait().expect("a child").is_none() {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let _reset = stream.read_to_string(&mut heard);
        }
        std::thread::yield_now();
    }
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let has_pasta = site.inside.is_none()
        && std::env::split_paths("/usr/local/bin:/usr/bin:/bin").any(|folder| folder.join("pasta").exists());
    if has_pasta || site.engine.is_some() {
        assert_eq!(heard, "mounted\n", "{stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{stderr}");
    } else {
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains("the program `pasta` is not installed"), "{stderr}");
        assert!(stderr.contains("passt"), "{stderr}");
    }
}
