//! The built-in engine: a run spec becomes a sandbox over a scratch overlay that is thrown away at the end.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ibid_core::image::ContainerConfig;
use ibid_core::run::{Capability, Command, Mode, Network, RunSpec};
use ibid_core::user::UnknownUser;
use ibid_sandbox::trust::HostTrust;
use ibid_sandbox::{
    Attendance, ExitStatus, InjectedFile, Mount, MountKind, Overlay, Rootfs, Spec, Started, Stdio, Stop,
    Upper, Usage,
};
use ibid_store::{Copying, MergedView, OwnerChange, Scratch, Store};

use crate::attach::{self, Server};
use crate::container;
use crate::identity::{self, HostUser, Identity};
use crate::live::{self, LiveRun, LiveRuns};
use crate::relay::{self, Relay};
use crate::{shell, terminfo};

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
    /// A detached run that nobody would find.
    #[error("a detached run must be found by others")]
    Live(#[from] live::Error),
    /// A detached run that nobody could join.
    #[error("a detached run must be joined by others")]
    Attach(#[from] attach::Error),
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
    /// Called when the program is executing: what is done here holds nobody up.
    pub on_start: &'a mut dyn FnMut(),
    /// Hears what the program writes.
    pub listener: relay::Listener<'a>,
    /// Set when the run goes on without this process's terminal, and others may join it: called when the program is executing and
    /// they can find it. What the program writes is told to the listener only.
    pub on_detached: Option<&'a mut dyn FnMut()>,
    /// What becomes of `SIGTERM` to this process.
    pub on_terminate: OnTerminate,
}

/// What becomes of `SIGTERM` to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTerminate {
    /// The program gets it, as all other signals.
    PassOn,
    /// The program gets the image's `STOPSIGNAL`, and is killed when it has not ended after so long.
    Stop(Duration),
}

/// Told when files of the image are copied that are to be the person's; once for an image.
pub type OnCopy<'a> = &'a dyn Fn(Copying);

/// How a run went.
#[derive(Debug)]
pub struct Ended {
    /// How its program ended.
    pub status: ExitStatus,
    /// What its processes took, where that is known.
    pub usage: Option<Usage>,
    /// Streams of this process that did not take all that the program wrote.
    pub unwritten: Vec<(relay::Stream, std::io::Error)>,
    /// What it wrote over the image, which is removed when this is dropped.
    pub scratch: Option<Scratch>,
    /// Why other processes could not find it while it went on.
    pub unknown: Option<live::Error>,
}

/// Executes a run to its end. Nothing runs in the container when this returns. Without a watch, the program writes to this
/// process's own streams.
pub fn run(
    store: &Store,
    spec: &RunSpec,
    host: &HostUser,
    trust: &HostTrust,
    on_copy: OnCopy<'_>,
    watch: Option<Watch<'_>>,
) -> Result<Ended, Error> {
    let image = store.image(&spec.image)?;
    let mut lowers = store.lowers(&image.rootfs.diff_ids);
    let view = MergedView::new(lowers.clone());
    let identity = identity::decide(
        host,
        spec.options.user.as_deref(),
        &image.config.user,
        &read_text(&view, "/etc/passwd")?,
        &read_text(&view, "/etc/group")?,
    )?;
    let scratch = store.scratch_of_run()?;
    let (user, person) = ((identity.user.uid, identity.user.gid), (host.uid, host.gid));
    let has_only_the_id = host.uid == 0 && !host.is_root() && user.0 != 0;
    let owner_change =
        identity.owner_change.or(has_only_the_id.then_some(OwnerChange { from: user, to: person }));
    let identity_layer = match owner_change {
        Some(change) => store.identity_layer(&image.rootfs.diff_ids, change, &scratch, on_copy)?,
        None => None,
    };
    if let Some(layer) = &identity_layer {
        lowers.insert(0, layer.tree().to_owned());
    }
    // A run may go on for days: others may delete what it does not use.
    scratch.lease(&image.rootfs.diff_ids, identity_layer.as_ref())?;
    image.rootfs.diff_ids.iter().for_each(|layer| store.use_layer(layer));
    store.unlock();
    if identity.make_home {
        make_home(&scratch, &identity, host)?;
    }
    let stop_signal = image.config.stop_signal();
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
    let live_runs = LiveRuns::of(store.root());
    let mut known = None;
    let mut watch = watch;
    let mut on_detached = watch.as_mut().and_then(|watch| watch.on_detached.take());
    let server = match &on_detached {
        Some(_) => {
            live_runs.make_folder()?;
            Some(Server::new(&live_runs.socket(&spec.id))?)
        }
        None => None,
    };
    // When its program executes already: nothing waits for this.
    let mut add_to_live = |started: Started<'_>| {
        let joinable = server.as_ref().map_or(Ok(()), |server| server.started(&started));
        let run = LiveRun::new(&spec.id, &spec.project, server.is_some(), stop_signal, started.container);
        let failed =
            |source| live::Error::Io { action: "let others join", path: live_runs.socket(&spec.id), source };
        let added = joinable.map_err(failed).and_then(|()| live_runs.add(&run));
        if let (Ok(_), Some(on_detached)) = (&added, &mut on_detached) {
            on_detached();
        } else if server.is_some() {
            // Nobody would ever know of it.
            let _already_dead = started.handle.kill();
        }
        // A store that cannot be written keeps no list; that is said to who wants to use it.
        known = (!store.is_read_only() || server.is_some()).then_some(added);
    };
    let mut ended = match watch {
        Some(watch) => {
            let stop = match watch.on_terminate {
                OnTerminate::PassOn => None,
                OnTerminate::Stop(patience) => Some(Stop { signal: stop_signal, patience }),
            };
            let ended = run_watched(&sandbox, watch, stop, server.as_ref(), &mut add_to_live);
            match (ended, known.take()) {
                (_, Some(Err(error))) if server.is_some() => return Err(error.into()),
                (ended, was_known) => {
                    known = was_known;
                    ended?
                }
            }
        }
        None => {
            let attendance = Attendance { on_start: Some(&mut add_to_live), ..Attendance::default() };
            Ended::new(ibid_sandbox::run_attended(&sandbox, Stdio::default(), attendance)?)
        }
    };
    ended.scratch = Some(scratch);
    ended.unknown = known.and_then(Result::err);
    if let Some(server) = server {
        server.ended(ended.status.shell_code());
    }
    Ok(ended)
}

impl Ended {
    pub(crate) fn new((status, usage): (ExitStatus, Option<Usage>)) -> Self {
        Self { status, usage, unwritten: Vec::new(), scratch: None, unknown: None }
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
    if host.is_root() {
        groups.extend(&spec.gpus.groups);
    }
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let argv = argv(config, spec, view, identity)?;
    let of_terminal = if spec.terminal { of_terminal(spec, &argv[0], view, identity) } else { Vec::new() };
    let mut sandbox = Spec {
        mounts: mounts(spec, host, identity, trust, view)?,
        files: files(spec, identity, trust),
        env: environment(config, spec, identity, trust, &of_terminal),
        cwd: cwd.to_owned(),
        uid: identity.user.uid,
        gid: identity.user.gid,
        groups,
        hostname: hostname(spec).to_owned(),
        terminal: spec.terminal,
        ..Spec::new(root, argv)
    };
    container::apply(&mut sandbox, &spec.options, host);
    Ok(sandbox)
}

fn run_watched(
    sandbox: &Spec,
    watch: Watch<'_>,
    stop: Option<Stop>,
    server: Option<&Server>,
    add_to_live: &mut dyn FnMut(Started<'_>),
) -> Result<Ended, Error> {
    let Watch { before_program, on_start, listener: recorder, .. } = watch;
    let and_joined = |stream: relay::Stream, bytes: &[u8]| {
        recorder(stream, bytes);
        if let Some(server) = server {
            server.written(stream, bytes);
        }
    };
    let listener: relay::Listener<'_> = &and_joined;
    let mut before_program = || before_program(sandbox);
    let mut on_start = |started: Started<'_>| {
        on_start();
        add_to_live(started);
    };
    let mut on_terminal = |bytes: &[u8]| listener(relay::Stream::Stdout, bytes);
    let attendance = Attendance {
        before_program: Some(&mut before_program),
        on_start: Some(&mut on_start),
        on_terminal: Some(&mut on_terminal),
        is_detached: server.is_some(),
        stop,
    };
    if sandbox.terminal {
        return Ok(Ended::new(ibid_sandbox::run_attended(sandbox, Stdio::default(), attendance)?));
    }
    let failed = |source| Error::Relay { source };
    let (relay, [stdout, stderr]) =
        Relay::new((sandbox.uid, sandbox.gid), server.is_some()).map_err(failed)?;
    let null = Path::new("/dev/null");
    let stdin = match server {
        Some(_) => Some(fs::File::open(null).map_err(io("open", null))?.into()),
        None => None,
    };
    std::thread::scope(|scope| {
        let passing = relay.start(scope, listener).map_err(failed)?;
        let stdio = Stdio { stdin, stdout: Some(stdout), stderr: Some(stderr) };
        let result = ibid_sandbox::run_attended(sandbox, stdio, attendance);
        let unwritten = passing.finish();
        Ok(Ended { unwritten, ..Ended::new(result?) })
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
        (Command::Shell, None) => return Ok(vec![shell::choose(config, view, identity)?]),
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

/// Variables that only a program with a terminal gets.
fn of_terminal(
    spec: &RunSpec,
    program: &str,
    view: &MergedView,
    identity: &Identity,
) -> Vec<(&'static str, String)> {
    let name = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
    let mut variables = vec![("TERM", terminfo::term(&name, view))];
    if spec.command == Command::Shell {
        variables.extend(shell::environment(program, view, identity.user.uid == 0, spec.history.is_some()));
    }
    variables
}

/// The image's variables, then what identity and host give where those are silent, then the run's own.
fn environment(
    config: &ContainerConfig,
    spec: &RunSpec,
    identity: &Identity,
    trust: &HostTrust,
    of_terminal: &[(&str, String)],
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
    for (name, value) in &trust.env {
        set(name, value, false);
    }
    for (name, value) in of_terminal {
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
    let history = match &spec.history {
        Some(source) => Some(Mount {
            target: shell::HISTORY_TARGET.to_owned(),
            kind: MountKind::Bind {
                source: source.clone(),
                read_only: false,
                idmap: container::idmap(source, host, identity)?,
            },
        }),
        None => None,
    };
    let Some(folder) = &spec.code.folder else {
        mounts.extend(asked_for);
        mounts.extend(trust.mounts.iter().cloned());
        mounts.extend(history);
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
    mounts.extend(history);
    Ok(mounts)
}

/// The run's own name for the machine.
fn hostname(spec: &RunSpec) -> &str {
    spec.options.hostname.as_deref().unwrap_or(&spec.id)
}

/// A home for a user that the image does not know, in the run's throw-away files.
fn make_home(scratch: &Scratch, identity: &Identity, host: &HostUser) -> Result<(), Error> {
    // Without root, the run's user is on disk the person, by whatever number it is known in the container.
    let owner = if host.is_root() { (identity.user.uid, identity.user.gid) } else { (host.uid, host.gid) };
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
