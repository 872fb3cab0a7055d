//! The built-in engine: a run spec becomes a sandbox over a scratch overlay that is thrown away at the end.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use ibid_core::image::ContainerConfig;
use ibid_core::run::{Capability, Command, Mode, Network, RunSpec};
use ibid_core::user::UnknownUser;
use ibid_sandbox::trust::HostTrust;
use ibid_sandbox::{
    Attendance, ExitStatus, InjectedFile, Mount, MountKind, Overlay, Rootfs, Spec, Stdio, Upper, Usage,
};
use ibid_store::{Found, MergedView, Scratch, Store};

use crate::container;
use crate::identity::{self, HostUser, Identity};
use crate::relay::{self, Relay};

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
    /// Docker or Podman could not, or would not.
    #[error(transparent)]
    Remote(#[from] crate::remote::Error),
    /// The image's `USER` means nobody.
    #[error(transparent)]
    User(#[from] UnknownUser),
    /// The image says nothing about what to run.
    #[error("the image has neither ENTRYPOINT nor CMD, and no command was given")]
    NoCommand,
    /// `[code] keep` names what the image does not have.
    #[error("`{path}` is to be kept, but the image has no such thing in `{folder}`")]
    NothingToKeep {
        /// As ibid.toml names it.
        path: String,
        /// The code folder.
        folder: String,
    },
    /// What nobody here can give.
    #[error("`--cap-add {capability}`: ibid itself lacks this capability here, as in a container")]
    NoCapability {
        /// Which one.
        capability: Capability,
    },
    /// A mount would cover the code.
    #[error("`{target}` is where the code is mounted")]
    OverCode {
        /// The place.
        target: String,
    },
    /// What the program writes cannot be passed on.
    #[error("cannot pass on what the program writes")]
    Relay {
        /// The system's word.
        source: std::io::Error,
    },
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

/// Who wants to know of a run.
pub struct Watch<'a> {
    /// Called when the container is made, right before its program starts.
    pub before_program: &'a mut dyn FnMut(&Spec),
    /// Hears what the program writes.
    pub listener: relay::Listener<'a>,
}

/// How a run went.
#[derive(Debug)]
pub struct Ended {
    /// How its program ended.
    pub status: ExitStatus,
    /// What its processes took, where that is known.
    pub usage: Option<Usage>,
    /// Streams of this process that did not take all that the program wrote.
    pub unwritten: Vec<(relay::Stream, std::io::Error)>,
}

/// Executes a run to its end. Nothing runs in the container when this returns. Without a watch, the program writes to this
/// process's own streams.
pub fn run(
    store: &Store,
    spec: &RunSpec,
    host: &HostUser,
    trust: &HostTrust,
    watch: Option<Watch<'_>>,
) -> Result<Ended, Error> {
    let image = store.image(&spec.image)?;
    let lowers = store.lowers(&image.rootfs.diff_ids);
    let view = MergedView::new(lowers.clone());
    let identity = identity::decide(
        host,
        spec.options.user.as_deref(),
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
        make_home(&scratch, &identity, host)?;
    }
    let root = Overlay {
        lowers,
        upper: Some(Upper { upper: scratch.upper().to_owned(), work: scratch.work().to_owned() }),
        // Nothing here outlives the run.
        volatile: true,
    };
    container::check_held(&spec.options)?;
    let root = Rootfs::Overlay(root);
    let mut sandbox = sandbox_of(spec, host, &identity, trust, &image.config, &view, root)?;
    sandbox.waits = watch.is_some();
    match watch {
        Some(watch) => run_watched(&sandbox, watch),
        None => {
            let (status, usage) =
                ibid_sandbox::run_attended(&sandbox, Stdio::default(), Attendance::default())?;
            Ok(Ended { status, usage, unwritten: Vec::new() })
        }
    }
}

/// What the container is to be, on whatever engine.
pub(crate) fn sandbox_of(
    spec: &RunSpec,
    host: &HostUser,
    identity: &Identity,
    trust: &HostTrust,
    config: &ContainerConfig,
    view: &MergedView,
    root: Rootfs,
) -> Result<Spec, Error> {
    let mut groups = identity.user.groups.clone();
    // Without root, the person's own groups are kept, and others cannot be had.
    if host.uid == 0 {
        groups.extend(&spec.gpus.groups);
    }
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let mut sandbox = Spec {
        mounts: mounts(spec, host, identity, trust, view)?,
        files: files(spec, identity, trust),
        env: environment(config, spec, identity, trust),
        cwd: cwd.to_owned(),
        uid: identity.user.uid,
        gid: identity.user.gid,
        groups,
        hostname: hostname(spec).to_owned(),
        terminal: spec.terminal,
        ..Spec::new(root, argv(config, spec, view, identity)?)
    };
    container::apply(&mut sandbox, &spec.options, host);
    Ok(sandbox)
}

fn run_watched(sandbox: &Spec, watch: Watch<'_>) -> Result<Ended, Error> {
    let Watch { before_program, listener } = watch;
    let mut before_program = || before_program(sandbox);
    let mut on_terminal = |bytes: &[u8]| listener(relay::Stream::Stdout, bytes);
    let attendance =
        Attendance { before_program: Some(&mut before_program), on_terminal: Some(&mut on_terminal) };
    if sandbox.terminal {
        let (status, usage) = ibid_sandbox::run_attended(sandbox, Stdio::default(), attendance)?;
        return Ok(Ended { status, usage, unwritten: Vec::new() });
    }
    let failed = |source| Error::Relay { source };
    let (relay, [stdout, stderr]) = Relay::new((sandbox.uid, sandbox.gid)).map_err(failed)?;
    std::thread::scope(|scope| {
        let passing = relay.start(scope, listener).map_err(failed)?;
        let stdio = Stdio { stdin: None, stdout: Some(stdout), stderr: Some(stderr) };
        let result = ibid_sandbox::run_attended(sandbox, stdio, attendance);
        let unwritten = passing.finish();
        let (status, usage) = result?;
        Ok(Ended { status, usage, unwritten })
    })
}

/// The program and its arguments.
fn argv(
    config: &ContainerConfig,
    spec: &RunSpec,
    view: &MergedView,
    identity: &Identity,
) -> Result<Vec<String>, Error> {
    let args = match (&spec.command, &spec.options.entrypoint) {
        (Command::Entrypoint(args), None) => args,
        (Command::Shell, None) => return Ok(vec![shell(config, view, identity)?]),
        (command, Some(program)) => {
            let args = if let Command::Entrypoint(args) = command { &args[..] } else { &[] };
            let argv: Vec<String> = program.iter().chain(args).cloned().collect();
            return if argv.is_empty() { Err(Error::NoCommand) } else { Ok(argv) };
        }
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
    set("HOSTNAME", hostname(spec), false);
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
    files.extend(match spec.options.network {
        Network::Host => ibid_sandbox::trust::network_files(hostname(spec)),
        Network::None => ibid_sandbox::trust::own_network_files(hostname(spec), false),
        Network::Private => ibid_sandbox::trust::own_network_files(hostname(spec), true),
    });
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
    view: &MergedView,
) -> Result<Vec<Mount>, Error> {
    let mut mounts: Vec<Mount> = spec
        .gpus
        .binds
        .iter()
        .map(|bind| Mount {
            target: bind.container.clone(),
            kind: MountKind::Bind { source: bind.host.clone(), read_only: bind.read_only, idmap: None },
        })
        .collect();
    let asked_for = container::asked_for(&spec.options, spec.code.folder.as_deref(), host, identity)?;
    let Some(folder) = &spec.code.folder else {
        mounts.extend(asked_for);
        mounts.extend(trust.mounts.iter().cloned());
        return Ok(mounts);
    };
    let mut bind_from = |from: &Path, relative: &str, read_only: bool| -> Result<(), Error> {
        let source = from.join(relative);
        let target = if relative.is_empty() { folder.clone() } else { format!("{folder}/{relative}") };
        let idmap = container::idmap(&source, host, identity)?;
        mounts.push(Mount { target, kind: MountKind::Bind { source, read_only, idmap } });
        Ok(())
    };
    match spec.code.mode {
        Mode::Mounted => bind_from(&spec.project, "", false)?,
        Mode::Pegged => {
            for output in &spec.outputs {
                let path = spec.project.join(output);
                fs::create_dir_all(&path).map_err(io("make the folder", &path))?;
                bind_from(&spec.project, output, false)?;
            }
        }
    }
    let data_from = spec.data_from.as_ref().unwrap_or(&spec.project);
    for data in &spec.data {
        if data_from.join(data).exists() {
            bind_from(data_from, data, true)?;
        }
    }
    if spec.code.mode == Mode::Mounted {
        for path in &spec.protected {
            bind_from(&spec.project, path, true)?;
        }
    }
    mounts.extend(container::kept(spec, view)?);
    mounts.extend(asked_for);
    // Last, so that a folder in memory over `/run` does not hide them.
    mounts.extend(trust.mounts.iter().cloned());
    Ok(mounts)
}

/// The run's own name for the machine.
fn hostname(spec: &RunSpec) -> &str {
    spec.options.hostname.as_deref().unwrap_or(&spec.id)
}

/// A home for a user that the image does not know, in the run's throw-away files.
fn make_home(scratch: &Scratch, identity: &Identity, host: &HostUser) -> Result<(), Error> {
    // Without root, the run's user is on disk the person, by whatever number it is known in the container.
    let owner = if host.uid == 0 { (identity.user.uid, identity.user.gid) } else { (host.uid, host.gid) };
    let home = scratch.upper().join(identity.user.home.trim_start_matches('/'));
    let parent = home.parent().expect("a home is below /home");
    for (folder, mode, uid, gid) in [(parent, 0o755, 0, 0), (&home, 0o700, owner.0, owner.1)] {
        fs::DirBuilder::new().mode(mode).create(folder).map_err(io("make the folder", folder))?;
        ibid_sys::owner::change_path(folder, (uid, gid))
            .map_err(|errno| io("set the owner of", folder)(errno.into()))?;
    }
    Ok(())
}

pub(crate) fn read_text(view: &MergedView, path: &str) -> Result<String, Error> {
    let content = view.read(Path::new(path), USER_FILE_BYTES_MAX).map_err(io("read", Path::new(path)))?;
    Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
