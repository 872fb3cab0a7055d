//! The built-in engine: a run spec becomes a sandbox over a scratch overlay that is thrown away at the end.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ibid_core::image::ContainerConfig;
use ibid_core::run::{Command, Mode, RunSpec};
use ibid_core::user::UnknownUser;
use ibid_sandbox::trust::HostTrust;
use ibid_sandbox::{ExitStatus, IdMap, InjectedFile, Mount, MountKind, Overlay, Rootfs, Spec, Stdio, Upper};
use ibid_store::{Found, MergedView, Scratch, Store};

use crate::identity::{self, HostUser, Identity};

/// Largest `passwd` or `group` that is read, bytes.
const USER_FILE_BYTES_MAX: u64 = 16 << 20;

/// Folders in which the dynamic linker looks for libraries.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// Why a run could not be executed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] ibid_store::Error),
    /// The sandbox could not be made, or the program not be started.
    #[error(transparent)]
    Sandbox(#[from] ibid_sandbox::Error),
    /// The image's `USER` means nobody.
    #[error(transparent)]
    User(#[from] UnknownUser),
    /// The image says nothing about what to run.
    #[error("the image has neither ENTRYPOINT nor CMD, and no command was given")]
    NoCommand,
    /// A file or folder could not be read or made.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

/// Executes a run to its end. The container is gone when this returns.
pub fn run(store: &Store, spec: &RunSpec, host: &HostUser, trust: &HostTrust) -> Result<ExitStatus, Error> {
    let image = store.image(&spec.image)?;
    let lowers = store.lowers(&image.rootfs.diff_ids);
    let view = MergedView::new(lowers.clone());
    let identity = identity::decide(
        host,
        &image.config.user,
        &read_text(&view, "/etc/passwd")?,
        &read_text(&view, "/etc/group")?,
    )?;
    let scratch = store.scratch()?;
    // A run may go on for days: others may delete what it does not use.
    scratch.lease(&image.rootfs.diff_ids)?;
    image.rootfs.diff_ids.iter().for_each(|layer| store.use_layer(layer));
    store.unlock();
    if identity.make_home {
        make_home(&scratch, &identity)?;
    }
    let argv = argv(&image.config, spec, &view, &identity)?;
    let root = Overlay {
        lowers,
        upper: Some(Upper { upper: scratch.upper().to_owned(), work: scratch.work().to_owned() }),
        // Nothing here outlives the run.
        volatile: true,
    };
    let mut groups = identity.user.groups.clone();
    // Without root, the person's own groups are kept, and others cannot be had.
    if host.uid == 0 {
        groups.extend(&spec.gpus.groups);
    }
    let sandbox = Spec {
        mounts: mounts(spec, host, &identity, trust)?,
        files: files(spec, &identity, trust),
        env: environment(&image.config, spec, &identity, trust),
        cwd: if image.config.working_dir.is_empty() { "/".to_owned() } else { image.config.working_dir },
        uid: identity.user.uid,
        gid: identity.user.gid,
        groups,
        hostname: spec.id.clone(),
        terminal: spec.terminal,
        ..Spec::new(Rootfs::Overlay(root), argv)
    };
    Ok(ibid_sandbox::run(&sandbox, Stdio::default())?)
}

/// The program and its arguments.
fn argv(
    config: &ContainerConfig,
    spec: &RunSpec,
    view: &MergedView,
    identity: &Identity,
) -> Result<Vec<String>, Error> {
    let args = match &spec.command {
        Command::Entrypoint(args) => args,
        Command::Shell => return Ok(vec![shell(config, view, identity)?]),
    };
    let mut argv = config.entrypoint.clone().unwrap_or_default();
    if args.is_empty() {
        argv.extend(config.cmd.iter().flatten().cloned());
    } else {
        argv.extend(args.iter().cloned());
    }
    if argv.is_empty() { Err(Error::NoCommand) } else { Ok(argv) }
}

/// The image's choice of a shell: its `SHELL` variable, bash where it has one, the user's login shell.
fn shell(config: &ContainerConfig, view: &MergedView, identity: &Identity) -> Result<String, Error> {
    let of_image = config.env.iter().find_map(|pair| pair.strip_prefix("SHELL="));
    let of_user = identity
        .user
        .shell
        .as_deref()
        .filter(|shell| !shell.ends_with("nologin") && !shell.ends_with("/false"));
    for shell in of_image.into_iter().chain(["/bin/bash"]).chain(of_user) {
        if let Some(Found::Other(_)) = view.find(Path::new(shell)).map_err(io("read", Path::new(shell)))? {
            return Ok(shell.to_owned());
        }
    }
    Ok("/bin/sh".to_owned())
}

/// The image's variables, then what identity and host give where those are silent, then the run's own.
fn environment(
    config: &ContainerConfig,
    spec: &RunSpec,
    identity: &Identity,
    trust: &HostTrust,
) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str, wins: bool| match env.iter_mut().find(|(known, _)| known == name)
    {
        Some((_, known)) if wins => value.clone_into(known),
        Some(_) => {}
        None => env.push((name.to_owned(), value.to_owned())),
    };
    for pair in &config.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(name, value, true);
    }
    set("PATH", ibid_core::image::DEFAULT_PATH, false);
    set("HOME", &identity.user.home, false);
    set("USER", identity.user.name.as_deref().unwrap_or("user"), false);
    set("HOSTNAME", &spec.id, false);
    if spec.terminal {
        set("TERM", &std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned()), false);
    }
    for (name, value) in &trust.env {
        set(name, value, false);
    }
    for (name, value) in &spec.gpus.env {
        set(name, value, true);
    }
    for (name, value) in &spec.env {
        set(name, value, true);
    }
    if !spec.gpus.library_folders.is_empty() {
        let folders = spec.gpus.library_folders.join(":");
        match env.iter_mut().find(|(name, _)| name == LIBRARY_PATH) {
            // After those that the image or the person named.
            Some((_, known)) if !known.is_empty() => {
                known.push(':');
                known.push_str(&folders);
            }
            Some((_, known)) => *known = folders,
            None => env.push((LIBRARY_PATH.to_owned(), folders)),
        }
    }
    env
}

fn files(spec: &RunSpec, identity: &Identity, trust: &HostTrust) -> Vec<InjectedFile> {
    let mut files = trust.files.clone();
    files.extend(ibid_sandbox::trust::network_files(&spec.id));
    for (target, content) in [("/etc/passwd", &identity.passwd), ("/etc/group", &identity.group)] {
        if let Some(content) = content {
            files.push(InjectedFile {
                target: target.to_owned(),
                content: content.clone().into_bytes(),
                mode: 0o644,
            });
        }
    }
    files
}

/// The code, the data and the outputs, each from the project's folder.
fn mounts(
    spec: &RunSpec,
    host: &HostUser,
    identity: &Identity,
    trust: &HostTrust,
) -> Result<Vec<Mount>, Error> {
    let mut mounts = trust.mounts.clone();
    mounts.extend(spec.gpus.binds.iter().map(|bind| Mount {
        target: bind.container.clone(),
        kind: MountKind::Bind { source: bind.host.clone(), read_only: bind.read_only, idmap: None },
    }));
    let Some(folder) = &spec.code.folder else { return Ok(mounts) };
    let idmap = |path: &Path| -> Result<Option<IdMap>, Error> {
        if host.uid != 0 {
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
    };
    let mut bind = |relative: &str, read_only: bool| -> Result<(), Error> {
        let source = spec.project.join(relative);
        let target = if relative.is_empty() { folder.clone() } else { format!("{folder}/{relative}") };
        let idmap = idmap(&source)?;
        mounts.push(Mount { target, kind: MountKind::Bind { source, read_only, idmap } });
        Ok(())
    };
    match spec.code.mode {
        Mode::Mounted => bind("", false)?,
        Mode::Pegged => {
            for output in &spec.outputs {
                let path = spec.project.join(output);
                fs::create_dir_all(&path).map_err(io("make the folder", &path))?;
                bind(output, false)?;
            }
        }
    }
    for data in &spec.data {
        if spec.project.join(data).exists() {
            bind(data, true)?;
        }
    }
    Ok(mounts)
}

/// A home for a user that the image does not know, in the run's throw-away files.
fn make_home(scratch: &Scratch, identity: &Identity) -> Result<(), Error> {
    let home = scratch.upper().join(identity.user.home.trim_start_matches('/'));
    let parent = home.parent().expect("a home is below /home");
    for (folder, mode, uid, gid) in
        [(parent, 0o755, 0, 0), (&home, 0o700, identity.user.uid, identity.user.gid)]
    {
        fs::DirBuilder::new().mode(mode).create(folder).map_err(io("make the folder", folder))?;
        ibid_sys::owner::change_path(folder, (uid, gid))
            .map_err(|errno| io("set the owner of", folder)(errno.into()))?;
    }
    Ok(())
}

fn read_text(view: &MergedView, path: &str) -> Result<String, Error> {
    let content = view.read(Path::new(path), USER_FILE_BYTES_MAX).map_err(io("read", Path::new(path)))?;
    Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
