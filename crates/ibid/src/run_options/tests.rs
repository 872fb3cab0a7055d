use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: RunOptions,
}

fn resolve(words: &[&str]) -> Result<ContainerOptions, String> {
    let line = Line::try_parse_from([&["run"], words].concat()).map_err(|error| error.to_string())?;
    line.options.resolve(Path::new("/"), &[]).map_err(|failure| failure.summary())
}

#[test]
fn nothing_asked_for_is_nothing_changed() {
    assert_eq!(resolve(&[]), Ok(ContainerOptions::default()));
}

#[test]
fn options_become_plain_data() {
    let options = resolve(&[
        "-v",
        "/proc:/x:ro",
        "--tmpfs",
        "/t",
        "--root",
        "-w",
        "/w",
        "--entrypoint",
        "sh",
        "--read-only",
        "--shm-size",
        "64m",
        "--hostname",
        "lab",
        "--network",
        "private",
        "-p",
        "8080:80",
        "--cap-add",
        "NET_ADMIN,KILL",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "seccomp=unconfined",
        "--ulimit",
        "nofile=9",
        "--cpus",
        "1.5",
        "-m",
        "1g",
        "--pids",
        "9",
    ])
    .expect("sound");
    assert_eq!(options.volumes[0].source, Path::new("/proc"));
    assert_eq!(options.user.as_deref(), Some("0:0"));
    assert_eq!(options.entrypoint, Some(vec!["sh".to_owned()]));
    assert_eq!(options.shm_bytes, Some(64 << 20));
    assert_eq!(options.seccomp, Seccomp::Unconfined);
    assert_eq!(options.ports.len(), 1);
    assert_eq!(options.capabilities.add.len(), 2);
    let limits =
        Limits { millicpus: Some(1500), memory_bytes: Some(1 << 30), pids: Some(9), best_effort: false };
    assert_eq!(options.limits, limits);
    assert_eq!(resolve(&["--entrypoint", ""]).expect("sound").entrypoint, Some(Vec::new()));
}

#[test]
fn what_cannot_be_had_says_why() {
    let check = |words: &[&str], part: &str| {
        let message = resolve(words).expect_err(part);
        assert!(message.contains(part), "{words:?}: {message}");
    };
    check(&["-p", "8080:80"], "its port 80 is port 80 here too");
    check(&["-p", "127.0.0.1:80:80"], "the program itself chooses the address");
    check(&["-p", "80", "--network", "none"], "a run without a network has no ports");
    check(&["-v", "/no/such:/x"], "cannot find `/no/such`");
    check(&["-v", "/proc:/x", "--tmpfs", "/x"], "two mounts are at `/x`");
    check(&["--security-opt", "seccomp=/no/such"], "cannot read `/no/such`");
    check(&["--cap-add", "FLY"], "no such capability");
    check(&["--root", "--user", "1"], "cannot be used with");
    check(&["--workdir", "code"], "expected an absolute path");
    assert!(resolve(&["-p", "80:80"]).is_ok());
}
