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
            if engine.ids == Ids::Chosen { "slirp4netns" } else { "bridge" }
        }
    };
    (name, exposed.into(), bindings.into())
}
