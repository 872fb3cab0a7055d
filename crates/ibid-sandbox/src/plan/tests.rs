//! Plans are looked at, a line a step, in `tests/data/*.steps`. `IBID_BLESS=1` writes what comes out now.

use super::*;
use crate::spec::{Mount, Upper};

const ROOT: Facts = Facts {
    uid: 0,
    kernel: (6, 1),
    user_namespace: false,
    only_id: false,
    processors: 2,
    terminal_size: None,
};
const USER: Facts = Facts {
    uid: 1000,
    kernel: (6, 1),
    user_namespace: true,
    only_id: false,
    processors: 2,
    terminal_size: Some((33, 77)),
};

fn overlay() -> Rootfs {
    Rootfs::Overlay(Overlay {
        lowers: vec!["/store/two/tree".into(), "/store/one/tree".into()],
        upper: Some(Upper { upper: "/store/tmp/x/upper".into(), work: "/store/tmp/x/work".into() }),
        volatile: true,
    })
}

fn spec(change: impl FnOnce(&mut Spec)) -> Spec {
    let mut spec = Spec::new(overlay(), vec!["python3".to_owned(), "mnist.py".to_owned()]);
    change(&mut spec);
    spec
}

fn bind(source: &str, target: &str, read_only: bool, idmap: Option<IdMap>) -> Mount {
    Mount { target: target.to_owned(), kind: MountKind::Bind { source: source.into(), read_only, idmap } }
}

const MAP: IdMap = IdMap { host_uid: 1000, container_uid: 1234, host_gid: 1000, container_gid: 1234 };

const ONE_ID: Facts = Facts { only_id: true, ..USER };

/// From the first step of the ground to the last of all.
fn all_steps(spec: &Spec, facts: Facts) -> Vec<Step> {
    let ground = ground(spec.network != Network::Host, spec.shm_bytes, spec.keeps_owners, facts);
    let (steps, _) = plan(spec, facts).expect("a possible container");
    [ground.steps, steps.steps].concat()
}

#[track_caller]
fn check(name: &str, spec: &Spec, facts: Facts) {
    let (steps, idmaps) = plan(spec, facts).expect("a possible container");
    let mut text: String = all_steps(spec, facts).iter().map(|step| format!("{step:?}\n")).collect();
    text.push_str(&format!("{:?}\n", steps.process));
    for (index, map) in idmaps.iter().enumerate() {
        text.push_str(&format!("idmap {index}: {map:?}\n"));
    }
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{name}.steps"));
    if std::env::var_os("IBID_BLESS").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).expect("a golden file");
    assert_eq!(text, expected, "{}", path.display());
}

#[test]
fn the_usual_container_of_root() {
    check("root", &spec(|_| {}), ROOT);
}

#[test]
fn a_container_of_a_user_with_one_id_gives_nothing_away() {
    check("one-id", &spec(|spec| (spec.groups, spec.keeps_owners) = (vec![5], true)), ONE_ID);
    let (steps, _) = plan(&spec(|_| {}), ONE_ID).expect("a possible container");
    assert_eq!(steps.process.owners, Owners::Kernel, "what a run changes is nobody's layer");
}

#[test]
fn the_usual_container_of_a_user() {
    check(
        "user",
        &spec(|spec| {
            (spec.uid, spec.gid) = (1000, 1000);
            spec.terminal = true;
            spec.mounts = vec![bind("/home/ann/project", "/code", false, Some(MAP))];
        }),
        USER,
    );
}

#[test]
fn everything_at_once() {
    check(
        "everything",
        &spec(|spec| {
            spec.read_only = true;
            spec.network = Network::None;
            spec.hostname = "wonderland".to_owned();
            spec.cwd = "/code/sub".to_owned();
            (spec.uid, spec.gid, spec.groups) = (1234, 1234, vec![44, 5]);
            spec.env = vec![("A".to_owned(), "b=c".to_owned())];
            spec.mounts = vec![
                bind("/project", "/code", false, Some(MAP)),
                bind("/data", "/data", true, Some(MAP)),
                bind("/same", "/same", true, Some(IdMap { container_uid: 1000, container_gid: 1000, ..MAP })),
                bind("/other", "/other", true, Some(IdMap { container_uid: 7, ..MAP })),
                Mount {
                    target: "/tmp".to_owned(),
                    kind: MountKind::Tmpfs(Tmpfs::new(Some(1 << 20), 0o1777)),
                },
                Mount {
                    target: "/run/secrets/key".to_owned(),
                    kind: MountKind::File { content: b"key".to_vec(), uid: 7, gid: 8, mode: 0o10_0400 },
                },
            ];
            spec.files = vec![InjectedFile {
                target: "/etc/hosts".to_owned(),
                content: b"hi".to_vec(),
                mode: 0o10_0644,
            }];
            spec.shm_bytes = Some(1 << 30);
            spec.capabilities |= 1 << 19;
            spec.umask = 0o7027;
        }),
        ROOT,
    );
}

#[test]
fn nothing_is_writable_before_it_is_covered_and_the_root_is_entered_last() {
    for facts in [ROOT, USER] {
        let steps = all_steps(&spec(|spec| spec.read_only = true), facts);
        assert_eq!(steps.first(), Some(&Step::SeparateMounts));
        assert_eq!(steps.last(), Some(&Step::EnterRoot));
        let at = |wanted: &Step| steps.iter().position(|step| step == wanted);
        assert!(at(&Step::ProtectRoot) < at(&Step::EnterRoot));
    }
}

#[test]
fn every_mount_but_devices_refuses_device_nodes() {
    let spec = spec(|spec| spec.mounts = vec![bind("/a", "/b", false, None)]);
    for facts in [ROOT, USER] {
        for step in all_steps(&spec, facts) {
            match step {
                Step::Filesystem { kind, restrict, .. } => {
                    assert!(restrict.devices || kind == "devpts", "{kind}")
                }
                Step::Bind { source, restrict, .. } => {
                    assert!(restrict.devices || source.parent() == Some("/dev".as_ref()));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_user_keeps_their_groups_and_others_get_theirs() {
    let check = |facts, uid, groups: &[u32], expected: Option<&[u32]>| {
        let spec = spec(|spec| (spec.uid, spec.groups) = (uid, groups.to_vec()));
        assert_eq!(plan(&spec, facts).expect("possible").0.process.groups.as_deref(), expected);
    };
    check(USER, 1000, &[], None);
    check(USER, 1000, &[3], Some(&[3]));
    check(USER, 0, &[], Some(&[]));
    check(ROOT, 0, &[], Some(&[]));
    check(ROOT, 1000, &[7], Some(&[7]));
}

#[test]
fn plans_survive_the_way_to_the_stage() {
    use std::os::unix::ffi::OsStringExt;
    let odd = PathBuf::from(std::ffi::OsString::from_vec(vec![b'/', 0xff, b'\n', b'"']));
    let spec = spec(|spec| {
        spec.rootfs = Rootfs::Overlay(Overlay { lowers: vec![odd.clone()], upper: None, volatile: false });
        spec.mounts = vec![Mount {
            target: "/ü \"".to_owned(),
            kind: MountKind::Bind { source: odd, read_only: true, idmap: Some(MAP) },
        }];
        spec.files = vec![InjectedFile { target: "/f".to_owned(), content: vec![0, 255], mode: 0o600 }];
    });
    let (steps, _) = plan(&spec, ROOT).expect("possible");
    let json = serde_json::to_vec(&steps).expect("text");
    assert_eq!(serde_json::from_slice::<Steps>(&json).expect("its own text"), steps);
}
