use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A run of this very process: as its container, it is there.
fn run(id: &str, host: &str) -> LiveRun {
    let process = std::process::id();
    let stat = fs::read_to_string("/proc/self/stat").expect("proc");
    let ticks = stat.rsplit_once(')').expect("a name").1.split_whitespace().nth(19).expect("a field");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("proc");
    let text = format!(
        r#"{{"schema":{SCHEMA},"host":"{host}","id":"{id}","project":"/p","command":["true"],"started":"{id}","engine":"native",
        "process":{process},"is_detached":true,"stop_signal":15,"container":{{"process":{process},"ticks":{ticks},
        "boot":"{}","network":false,"only_id":false,"groups":[],"program":{{"argv":["true"],"env":[],"cwd":"/","uid":0,"gid":0,
        "groups":null,"umask":18,"capabilities":0,"given_capabilities":0,"system_calls":"Docker","rlimits":[],"owners":"Kernel",
        "waits":false,"terminal":null}}}}}}"#,
        boot.trim()
    );
    serde_json::from_str(&text).expect("a run")
}

fn ids(runs: &LiveRuns) -> Vec<String> {
    let listed = runs.list().expect("readable");
    assert!(listed.errors.is_empty(), "{:?}", listed.errors);
    listed.runs.into_iter().map(|run| run.id).collect()
}

#[test]
fn a_run_is_known_while_it_goes_on_and_to_nobody_else() {
    let root = tempfile::tempdir().expect("a folder");
    let runs = LiveRuns::of(root.path());
    assert_eq!(ids(&runs), [""; 0]);
    let first = runs.add(&run("000000000001", &host())).expect("added");
    let second = runs.add(&run("000000000002", &host())).expect("added");
    assert_eq!(ids(&runs), ["000000000002", "000000000001"]);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&runs.folder), mode(&first.path)), (0o700, 0o600));
    drop(first);
    assert_eq!(ids(&runs), ["000000000002"]);
    drop(second);
    assert_eq!(ids(&runs), [""; 0]);
}

#[test]
fn what_a_dead_process_left_is_removed_and_nothing_else() {
    let root = tempfile::tempdir().expect("a folder");
    let runs = LiveRuns::of(root.path());
    runs.make_folder().expect("made");
    let write = |name: &str, content: &[u8]| fs::write(runs.folder.join(name), content).expect("ours");
    let text = |run: &LiveRun| serde_json::to_vec(run).expect("JSON");
    // Its ibid was killed; of another machine; half written; not written yet; a socket without and with its run.
    write("000000000001", &text(&run("000000000001", &host())));
    write("000000000001.socket", b"");
    write("000000000002", &text(&run("000000000002", "elsewhere")));
    write("000000000003", b"{\"schema\":1,");
    write("000000000004", b"");
    assert_eq!(ids(&runs), [""; 0]);
    let mut left: Vec<_> =
        fs::read_dir(&runs.folder).expect("there").flatten().map(|it| it.file_name()).collect();
    left.sort();
    assert_eq!(left, ["000000000002", "000000000004"]);
}

#[test]
fn one_of_another_version_is_told_and_kept() {
    let root = tempfile::tempdir().expect("a folder");
    let runs = LiveRuns::of(root.path());
    let mut newer = run("000000000001", &host());
    newer.schema += 1;
    let _known = runs.add(&newer).expect("added");
    let listed = runs.list().expect("readable");
    assert!(listed.runs.is_empty());
    assert!(matches!(listed.errors[..], [Error::OtherVersion { .. }]), "{:?}", listed.errors);
}
