//! What a run asks for beside the image and the project, on the built-in engine.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use ibid_core::run::{Capability, ContainerOptions, Mode, Network, Protocol, RunSpec, Seccomp};
use ibid_sandbox::{
    DEFAULT_CAPABILITIES, Forward, IdMap, Limits, Mount, MountKind, Rlimit, Spec, SystemCalls, Tmpfs,
};
use ibid_store::{Found, MergedView};

use crate::identity::{HostUser, Identity};
use crate::native::{Error, io};

/// Checks that ibid itself can give what is to be added.
pub(crate) fn check_held(options: &ContainerOptions) -> Result<(), Error> {
    // `ALL` is all that there are; one that is named must be among them.
    let held = rustix::thread::capabilities(None)
        .map_err(|errno| io("read", Path::new("/proc/self/status"))(errno.into()))?;
    let lacks = |one: &&Capability| match one {
        Capability::Number(number) => held.permitted.bits() & 1 << number == 0,
        Capability::All => false,
    };
    match options.capabilities.add.iter().find(lacks) {
        Some(capability) => Err(Error::NoCapability { capability: *capability }),
        None => Ok(()),
    }
}

/// Lays the options over a container, except for mounts.
pub(crate) fn apply(spec: &mut Spec, options: &ContainerOptions, host: &HostUser) {
    if let Some(workdir) = &options.workdir {
        spec.cwd.clone_from(workdir);
    }
    spec.read_only = options.read_only;
    spec.shm_bytes = options.shm_bytes;
    spec.capabilities = options.capabilities.of(DEFAULT_CAPABILITIES);
    spec.given_capabilities = options.capabilities.added() & spec.capabilities;
    spec.system_calls = match &options.seccomp {
        Seccomp::Docker => SystemCalls::Docker,
        Seccomp::Unconfined => SystemCalls::All,
        Seccomp::Profile(profile) => SystemCalls::Profile(profile.clone()),
    };
    spec.rlimits = options
        .ulimits
        .iter()
        .map(|limit| Rlimit { resource: limit.resource, soft: limit.soft, hard: limit.hard })
        .collect();
    spec.network = match options.network {
        Network::Host => ibid_sandbox::Network::Host,
        Network::None => ibid_sandbox::Network::None,
        Network::Private => ibid_sandbox::Network::Private(
            options
                .ports
                .iter()
                .map(|port| Forward {
                    address: port.address,
                    host: port.host,
                    container: port.container,
                    udp: port.protocol == Protocol::Udp,
                })
                .collect(),
        ),
    };
    spec.limits = Limits {
        millicpus: options.limits.millicpus,
        memory_bytes: options.limits.memory_bytes,
        pids: options.limits.pids,
    };
    spec.is_starter = !host.is_root() && (options.user.is_some() || host.uid == 0);
}

/// Shows the owner of a folder or file of the host as the run's user, where that is another and root runs; without root,
/// the user namespace does it.
pub(crate) fn idmap(path: &Path, host: &HostUser, identity: &Identity) -> Result<Option<IdMap>, Error> {
    if !host.is_root() {
        return Ok(None);
    }
    let owner = fs::metadata(path).map_err(io("read", path))?;
    let ids = IdMap {
        host_uid: owner.uid(),
        host_gid: owner.gid(),
        container_uid: identity.user.uid,
        container_gid: identity.user.gid,
    };
    Ok((ids.host_uid != ids.container_uid || ids.host_gid != ids.container_gid).then_some(ids))
}

/// What the image has in the code folder and is to be seen although the code is mounted there.
pub(crate) fn kept(spec: &RunSpec, view: &MergedView) -> Result<Vec<Mount>, Error> {
    let (Mode::Mounted, Some(folder)) = (spec.code.mode, &spec.code.folder) else { return Ok(Vec::new()) };
    let mut mounts = Vec::new();
    for path in &spec.options.keep {
        let target = format!("{folder}/{path}");
        let found = view.find(Path::new(&target)).map_err(io("read", Path::new(&target)))?;
        let is_folder = match found {
            None => return Err(Error::NothingToKeep { path: path.clone(), folder: folder.clone() }),
            Some(Found::Folder(_)) => true,
            Some(Found::Other(_)) => false,
        };
        make_place(&spec.project, path, is_folder)?;
        mounts.push(Mount { target, kind: MountKind::Underneath });
    }
    Ok(mounts)
}

/// An empty folder or file of the project, for a mount that lies over it, where there is none.
fn make_place(project: &Path, path: &str, is_folder: bool) -> Result<(), Error> {
    let place = project.join(path);
    if place.exists() {
        return Ok(());
    }
    let failed = |path: &Path, source| Error::Io {
        action: "make a place for what is kept at",
        path: path.to_owned(),
        source,
    };
    let owner = fs::metadata(project).map_err(io("read", project))?;
    // Outermost first.
    let missing: Vec<&Path> =
        place.ancestors().take_while(|ancestor| !ancestor.exists() && *ancestor != project).collect();
    let nearest = missing.last().and_then(|part| part.parent()).unwrap_or(project);
    let real = |path: &Path| fs::canonicalize(path).map_err(|error| failed(path, error));
    if !real(nearest)?.starts_with(real(project)?) {
        return Err(failed(&place, std::io::Error::other("a link on the way leads out of the project")));
    }
    for part in missing.into_iter().rev() {
        let made = match part == place && !is_folder {
            true => fs::File::create_new(part).map(drop),
            false => fs::create_dir(part),
        };
        match made {
            // Another run of the project was faster.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            made => made.map_err(|error| failed(part, error))?,
        }
        // Root may run in somebody's project.
        if rustix::process::geteuid().is_root() {
            chown(part, Some(owner.uid()), Some(owner.gid())).map_err(|error| failed(part, error))?;
        }
    }
    Ok(())
}

/// Folders and files of the host, and folders in memory; those that hold others first.
pub(crate) fn asked_for(
    options: &ContainerOptions,
    code_folder: Option<&str>,
    host: &HostUser,
    identity: &Identity,
) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    for volume in &options.volumes {
        let kind = MountKind::Bind {
            source: volume.source.clone(),
            read_only: volume.read_only,
            idmap: idmap(&volume.source, host, identity)?,
        };
        mounts.push(Mount { target: volume.target.clone(), kind });
    }
    for tmpfs in &options.tmpfs {
        let kind = MountKind::Tmpfs(Tmpfs {
            bytes: tmpfs.bytes,
            mode: tmpfs.mode,
            uid: tmpfs.uid.unwrap_or(0),
            gid: tmpfs.gid.unwrap_or(0),
            read_only: tmpfs.read_only,
            no_exec: !tmpfs.exec,
        });
        mounts.push(Mount { target: tmpfs.target.clone(), kind });
    }
    if let Some(mount) = mounts.iter().find(|mount| Some(mount.target.as_str()) == code_folder) {
        return Err(Error::OverCode { target: mount.target.clone() });
    }
    mounts.sort_by_key(|mount| mount.target.matches('/').count());
    Ok(mounts)
}
