//! A container in the engine's words (Docker Engine API, "Create a container"), from what ibid's own engine would make.
//! Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ibid_core::run::{Capability, resource_name};
use ibid_sandbox::{DEFAULT_CAPABILITIES, Network, Rlimit, Spec, SystemCalls, Tmpfs};
use serde_json::{Map, Value, json};

use super::{Engine, Error, Ids, Kind, init};

/// The engine counts processors in billionths.
const NANOS_PER_MILLI: u64 = 1_000_000;
/// Names a container's run, for whoever looks for what an ibid that was killed left behind.
const RUN_LABEL: &str = "ibid.run";

/// What a container has of the host and of the image, each at an absolute path in it.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// Folders and files of the host: source, target, and whether writing is refused.
    pub(super) binds: Vec<(PathBuf, String, bool)>,
    /// Device nodes of the host: source and target.
    pub(super) devices: Vec<(PathBuf, String)>,
    /// Folders in memory.
    pub(super) tmpfs: Vec<(String, Tmpfs)>,
    /// Folders of the image that are to be seen over other mounts.
    pub(super) kept: Vec<String>,
}

/// What a container is made from.
pub(super) struct Parts<'a> {
    /// As ibid's own engine would make it.
    pub(super) spec: &'a Spec,
    /// What the engine calls the image.
    pub(super) image: &'a str,
    /// The run.
    pub(super) run: &'a str,
    /// Everything that is mounted.
    pub(super) mounts: &'a Mounts,
    /// The engine's word for the user namespace, if another than usual is wanted.
    pub(super) user_namespace: Option<String>,
    /// Where a profile of system calls is, for an engine that reads it itself.
    pub(super) profile: Option<&'a str>,
}

/// The body of the request.
pub(super) fn create(engine: &Engine, parts: &Parts) -> Result<Value, Error> {
    let Parts { spec, image, run, mounts, user_namespace, profile } = parts;
    let (add, drop) = capabilities(engine, spec)?;
    let mut security = vec!["no-new-privileges".to_owned()];
    match &spec.system_calls {
        SystemCalls::Docker => {}
        SystemCalls::All => security.push("seccomp=unconfined".to_owned()),
        SystemCalls::Profile(read) => {
            security.push(format!("seccomp={}", profile.unwrap_or(read.text.as_str())));
        }
    }
    let binds = mounts.binds.iter().map(|(source, target, read_only)| {
        json!({"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only})
    });
    let kept = mounts.kept.iter().map(|target| json!({"Type": "volume", "Target": target}));
    let devices = mounts.devices.iter().map(|(source, target)| {
        json!({"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": "rwm"})
    });
    if let (Kind::Podman, Some((target, of))) =
        (engine.kind, mounts.tmpfs.iter().find(|(_, tmpfs)| (tmpfs.uid, tmpfs.gid) != (0, 0)))
    {
        let what =
            format!("`{target}` cannot belong to {}:{}: it makes folders in memory for root", of.uid, of.gid);
        return Err(engine.unable(what));
    }
    let tmpfs: BTreeMap<&str, String> =
        mounts.tmpfs.iter().map(|(target, tmpfs)| (target.as_str(), tmpfs_options(tmpfs))).collect();
    // Podman does not look at them.
    let rlimits = spec.rlimits.iter().filter(|_| engine.kind == Kind::Docker);
    let ulimits = rlimits.map(|limit| {
        let number = |value: Option<u64>| value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX));
        json!({"Name": resource_name(limit.resource), "Soft": number(limit.soft), "Hard": number(limit.hard)})
    });
    let (network, exposed, bindings) = network(engine, spec);
    let groups: Vec<String> = spec.groups.iter().map(u32::to_string).collect();
    let mut host = json!({
        "Mounts": binds.chain(kept).collect::<Vec<_>>(),
        "Devices": devices.collect::<Vec<_>>(),
        "Tmpfs": tmpfs,
        "NetworkMode": network,
        "PortBindings": bindings,
        "CapAdd": add,
        "CapDrop": drop,
        "SecurityOpt": security,
        "Ulimits": ulimits.collect::<Vec<_>>(),
        "ShmSize": spec.shm_bytes.unwrap_or(engine.memory_bytes / 2),
        "ReadonlyRootfs": spec.read_only,
        "GroupAdd": groups,
        "Init": false,
        // What the program writes is in the run's record.
        "LogConfig": {"Type": "none"},
    });
    if let Some(millicpus) = spec.limits.millicpus {
        host["NanoCpus"] = (millicpus * NANOS_PER_MILLI).into();
    }
    if let Some(bytes) = spec.limits.memory_bytes {
        host["Memory"] = bytes.into();
        // Swap included: none beside it.
        host["MemorySwap"] = bytes.into();
    }
    if let Some(pids) = spec.limits.pids {
        host["PidsLimit"] = pids.into();
    }
    if engine.kind == Kind::Podman && spec.network != Network::Host {
        // As Docker and ibid have it.
        host["Sysctls"] = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
    }
    if let Some(user_namespace) = user_namespace {
        host["UsernsMode"] = user_namespace.as_str().into();
    }
    let env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut entrypoint = vec![init::PATH.to_owned()];
    if engine.kind == Kind::Podman {
        entrypoint.extend(spec.rlimits.iter().map(limit_text));
    }
    entrypoint.push(init::END.to_owned());
    entrypoint.extend(spec.argv.iter().cloned());
    Ok(json!({
        "Image": image,
        "Entrypoint": entrypoint,
        "Cmd": [],
        "Env": env,
        "WorkingDir": spec.cwd,
        "User": format!("{}:{}", spec.uid, spec.gid),
        "Hostname": spec.hostname,
        "Tty": spec.terminal,
        "OpenStdin": true,
        "StdinOnce": true,
        "AttachStdin": true,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": exposed,
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {RUN_LABEL: run},
        "HostConfig": host,
    }))
}

/// What is added to and taken from those that the engine gives.
fn capabilities(engine: &Engine, spec: &Spec) -> Result<(Vec<String>, Vec<String>), Error> {
    let names = |set: u64| -> Vec<String> {
        let all = Capability::All.numbers().fold(0, |all, number| all | 1 << number);
        match set & all == all {
            true => vec![Capability::All.to_string()],
            false => Capability::All
                .numbers()
                .filter(|number| set & 1 << number != 0)
                .map(|number| Capability::Number(number).to_string())
                .collect(),
        }
    };
    let given = names(spec.given_capabilities);
    if engine.kind == Kind::Podman && spec.uid != 0 {
        // It gives such a program all that is named.
        return Ok((given, names(DEFAULT_CAPABILITIES & !spec.capabilities)));
    }
    if let (Kind::Docker, true, Some(name)) = (engine.kind, spec.uid != 0, given.first()) {
        return Err(engine.unable(format!(
            "`--cap-add {name}`: it gives capabilities to root only, and the program is not root"
        )));
    }
    Ok((names(spec.capabilities), vec![Capability::All.to_string()]))
}

fn limit_text(limit: &Rlimit) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
    format!("{}={}:{}", resource_name(limit.resource), number(limit.soft), number(limit.hard))
}

fn tmpfs_options(tmpfs: &Tmpfs) -> String {
    let mut options = vec![
        if tmpfs.read_only { "ro" } else { "rw" }.to_owned(),
        if tmpfs.no_exec { "noexec" } else { "exec" }.to_owned(),
        "nosuid,nodev".to_owned(),
        format!("mode={:o}", tmpfs.mode),
    ];
    options.extend(tmpfs.bytes.map(|bytes| format!("size={bytes}")));
    if (tmpfs.uid, tmpfs.gid) != (0, 0) {
        options.push(format!("uid={},gid={}", tmpfs.uid, tmpfs.gid));
    }
    options.join(",")
}

/// The network's name, the ports that there are, and where they lead from.
fn network(engine: &Engine, spec: &Spec) -> (&'static str, Value, Value) {
    let (mut exposed, mut bindings) = (Map::new(), Map::new());
    let name = match &spec.network {
        Network::Host => "host",
        Network::None => "none",
        Network::Private(ports) => {
            for port in ports {
                let key = format!("{}/{}", port.container, if port.udp { "udp" } else { "tcp" });
                let address = port.address.map(|address| address.to_string()).unwrap_or_default();
                exposed.insert(key.clone(), json!({}));
                let bound = bindings.entry(key).or_insert_with(|| json!([]));
                if let Value::Array(bound) = bound {
                    bound.push(json!({"HostIp": address, "HostPort": port.host.to_string()}));
                }
            }
            // Without root, Podman has no bridge of its own accord.
            let rootless_podman = engine.kind == Kind::Podman && engine.ids != Ids::Same;
            if rootless_podman { "slirp4netns" } else { "bridge" }
        }
    };
    (name, exposed.into(), bindings.into())
}

#[cfg(test)]
mod tests {
    use ibid_sandbox::{Forward, Limits, Rootfs};

    use super::super::tests::engine;
    use super::*;

    fn spec() -> Spec {
        Spec::new(Rootfs::Folder("/none".into()), vec!["python3".to_owned(), "train.py".to_owned()])
    }

    fn parts<'a>(spec: &'a Spec, mounts: &'a Mounts) -> Parts<'a> {
        Parts { spec, image: "sha256:1", run: "ab12", mounts, user_namespace: None, profile: None }
    }

    /// What is at a place of the request.
    #[track_caller]
    fn check(ids: Ids, change: impl FnOnce(&mut Spec), place: &str, expected: Value) {
        let (mut spec, mounts) = (spec(), Mounts::default());
        change(&mut spec);
        let body = create(&engine(ids), &parts(&spec, &mounts)).expect("can be said");
        assert_eq!(body.pointer(place), Some(&expected), "{place}");
    }

    #[track_caller]
    fn check_refused(ids: Ids, change: impl FnOnce(&mut Spec, &mut Mounts), part: &str) {
        let (mut spec, mut mounts) = (spec(), Mounts::default());
        change(&mut spec, &mut mounts);
        let error = create(&engine(ids), &parts(&spec, &mounts)).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }

    fn unchanged(_: &mut Spec) {}

    #[test]
    fn a_program_runs_under_ibids_own_process_1() {
        let entrypoint = json!([init::PATH, "--", "python3", "train.py"]);
        check(Ids::Same, unchanged, "/Entrypoint", entrypoint);
        check(Ids::Same, unchanged, "/Cmd", json!([]));
        check(Ids::Same, unchanged, "/Labels", json!({"ibid.run": "ab12"}));
        check(Ids::Same, |spec| (spec.uid, spec.gid) = (7, 8), "/User", json!("7:8"));
        check(Ids::Same, |spec| spec.env = vec![("A".into(), "b=c".into())], "/Env", json!(["A=b=c"]));
    }

    #[test]
    fn capabilities_are_those_of_ibid() {
        let all = (1 << 41) - 1;
        check(Ids::Same, unchanged, "/HostConfig/CapDrop", json!(["ALL"]));
        check(Ids::Same, |spec| spec.capabilities = 1 << 5, "/HostConfig/CapAdd", json!(["KILL"]));
        check(Ids::Same, |spec| spec.capabilities = all, "/HostConfig/CapAdd", json!(["ALL"]));
        let ordinary = |spec: &mut Spec| {
            (spec.uid, spec.given_capabilities) = (7, 1 << 19);
            spec.capabilities = (DEFAULT_CAPABILITIES | 1 << 19) & !1;
        };
        check(Ids::Chosen, ordinary, "/HostConfig/CapAdd", json!(["SYS_PTRACE"]));
        check(Ids::Chosen, ordinary, "/HostConfig/CapDrop", json!(["CHOWN"]));
        check_refused(
            Ids::Same,
            |spec, _| ordinary(spec),
            "`--cap-add SYS_PTRACE`: it gives capabilities to root",
        );
    }

    #[test]
    fn limits_are_kept_by_whoever_keeps_them() {
        let limit = |spec: &mut Spec| spec.rlimits = vec![Rlimit { resource: 7, soft: Some(9), hard: None }];
        check(Ids::Same, limit, "/HostConfig/Ulimits", json!([{"Name": "nofile", "Soft": 9, "Hard": -1}]));
        check(Ids::Chosen, limit, "/HostConfig/Ulimits", json!([]));
        check(Ids::Chosen, limit, "/Entrypoint/1", json!("nofile=9:unlimited"));
        let limits = |spec: &mut Spec| {
            spec.limits = Limits { millicpus: Some(1500), memory_bytes: Some(1 << 20), pids: Some(9) };
        };
        check(Ids::Same, limits, "/HostConfig/NanoCpus", json!(1_500_000_000));
        check(Ids::Same, limits, "/HostConfig/MemorySwap", json!(1 << 20));
        check(Ids::Same, limits, "/HostConfig/PidsLimit", json!(9));
        check(Ids::Same, unchanged, "/HostConfig/ShmSize", json!(4u64 << 30));
    }

    #[test]
    fn ports_lead_into_a_private_network() {
        let forward = Forward { address: None, host: 8080, container: 80, udp: false };
        let private = |spec: &mut Spec| spec.network = Network::Private(vec![forward]);
        let bound = json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]});
        check(Ids::Same, private, "/HostConfig/PortBindings", bound);
        check(Ids::Same, private, "/ExposedPorts", json!({"80/tcp": {}}));
        check(Ids::Same, private, "/HostConfig/NetworkMode", json!("bridge"));
        check(Ids::Chosen, private, "/HostConfig/NetworkMode", json!("slirp4netns"));
        check(Ids::Same, unchanged, "/HostConfig/NetworkMode", json!("host"));
    }

    #[test]
    fn mounts_devices_and_folders_in_memory() {
        let tmpfs = Tmpfs { uid: 6, gid: 7, read_only: true, no_exec: true, ..Tmpfs::new(Some(9), 0o700) };
        let mounts = Mounts {
            binds: vec![("/h".into(), "/c".to_owned(), true)],
            devices: vec![("/dev/a".into(), "/dev/b".to_owned())],
            tmpfs: vec![("/t".to_owned(), tmpfs)],
            kept: vec!["/code/venv".to_owned()],
        };
        let spec = spec();
        let body = create(&engine(Ids::Same), &parts(&spec, &mounts)).expect("can be said");
        let host = &body["HostConfig"];
        let bind = json!({"Type": "bind", "Source": "/h", "Target": "/c", "ReadOnly": true});
        assert_eq!(host["Mounts"], json!([bind, {"Type": "volume", "Target": "/code/venv"}]));
        let device = json!({"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rwm"});
        assert_eq!(host["Devices"], json!([device]));
        assert_eq!(host["Tmpfs"], json!({"/t": "ro,noexec,nosuid,nodev,mode=700,size=9,uid=6,gid=7"}));
        let foreign = |_: &mut Spec, mounts: &mut Mounts| mounts.tmpfs = vec![("/t".to_owned(), tmpfs)];
        check_refused(Ids::Chosen, foreign, "`/t` cannot belong to 6:7");
    }

    #[test]
    fn system_calls_are_filtered_as_asked() {
        let all = |spec: &mut Spec| spec.system_calls = SystemCalls::All;
        check(Ids::Same, unchanged, "/HostConfig/SecurityOpt", json!(["no-new-privileges"]));
        check(Ids::Same, all, "/HostConfig/SecurityOpt/1", json!("seccomp=unconfined"));
    }
}
