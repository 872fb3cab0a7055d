//! The stage: this binary, executed anew as process 1 of the container's namespaces. It does what it is ordered, starts the program
//! and becomes [`crate::init`].
//!
//! It is started with all signals blocked, and with a socket to its starter as descriptor 3. Over that it gets two orders, each with
//! descriptors; the first of them holds the order, as JSON:
//!
//! | [`Ground`] | nothing else |
//! | [`Steps`] | the program's three standard ones, then user namespaces for idmapped mounts |

use std::collections::VecDeque;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};

use ibid_sys::clone::{Child, Namespaces, borrow_memory};
use ibid_sys::exec::{CStrings, execute};
use ibid_sys::signal::SignalFd;
use ibid_sys::{Errno, exit_now, seccomp, signal};
use rustix::fs::{Gid, Mode, Uid, fchown};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::UnshareFlags;
use serde::de::DeserializeOwned;

use crate::apply::Making;
use crate::plan::{Calls, Ground, Owners, Process, Steps, Terminal};
use crate::report::{Failure, Report};
use crate::running::{Socket, read_all};
use crate::seccomp::filter;
use crate::{capabilities, entrant, init, network};

/// The stage's own name. A process of ours whose first argument it is, is one.
pub(crate) const NAME: &str = "ibid-init";

/// Searched when the environment has no `PATH`, as Docker does.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes the stage when this process was started as one, and then never returns. The first thing in
/// `main`, before any thread, log or argument parser.
pub fn stage_main_if_asked() {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let is = |known: &str| name.as_deref() == Some(OsStr::new(known));
    let (is_network, is_entrant) = (is(network::NAME), is(entrant::NAME));
    if !is_network && !is_entrant && !is(NAME) {
        return;
    }
    let count = arguments.next().and_then(|text| text.to_str()?.parse().ok());
    let descriptors = count.and_then(ibid_sys::descriptor::take_inherited);
    let Some(mut descriptors) = descriptors else {
        // Started by hand. There is nobody to tell.
        exit_now(125);
    };
    if is_network {
        network::attend(arguments.filter_map(|text| text.into_string().ok()), descriptors);
    }
    if is_entrant {
        entrant::main(descriptors);
    }
    let Some(socket) = descriptors.pop() else { exit_now(125) };
    let socket = Socket::new(socket);
    match start(&socket) {
        Ok(Some((signals, child))) => init::run(socket, signals, child),
        // The starter needs no container after all, or is dead.
        Ok(None) => exit_now(0),
        Err(failure) => {
            let _gone_if_it_fails = socket.send(&Report::Failed(failure), None);
            exit_now(125)
        }
    }
}

fn start(socket: &Socket) -> Result<Option<(SignalFd, Child)>, Failure> {
    // Until the program runs, the starter's thread waits for us; a dead starter needs no container. Later its
    // socket tells: this signal would also come when only that thread ends.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(failed("tie the container to its starter"))?;
    ibid_sys::clone::leave_shared((UnshareFlags::NEWIPC | UnshareFlags::NEWUTS).bits() as i32)
        .map_err(failed("leave the namespaces of the starter"))?;
    // What a terminal sends to its foreground, the starter passes on; here it would come a second time.
    rustix::process::setsid().map_err(failed("leave the session of the starter"))?;
    let signals = SignalFd::all().map_err(failed("watch signals"))?;
    let Some((Ground { steps, giving }, _)) = next_order(socket)? else { return Ok(None) };
    let mut making = Making::new(giving);
    making.apply(&steps, &[])?;
    let Some((Steps { steps, process }, mut descriptors)) = next_order(socket)? else { return Ok(None) };
    take_standard_descriptors(&mut descriptors).map_err(failed("take the program's descriptors"))?;
    making.apply(&steps, descriptors.make_contiguous())?;
    drop((making, descriptors));

    let terminal = process
        .terminal
        .map(|terminal| open_terminal(terminal, process.uid))
        .transpose()
        .map_err(failed("open a terminal in the container"))?;
    let program = Program::new(&process)?;
    if process.waits {
        socket
            .send(&Report::Waiting, None)
            .and_then(|()| socket.wait_for_leave())
            .map_err(failed("wait for what the starter prepares"))?;
    }
    // Nobody in the container may look into this process or open its file.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(failed("protect the container's first process"))?;
    let (ours, theirs) = terminal.unzip();
    let child = start_process(|| become_program(&program, theirs.as_ref(), socket))?;
    drop(theirs);
    rustix::process::set_parent_process_death_signal(None)
        .map_err(failed("untie the container from its starter's thread"))?;
    release_standard_descriptors().map_err(failed("close the program's descriptors"))?;
    socket
        .send(&Report::Started, ours.as_ref().map(|ours| ours.as_fd()))
        .map_err(failed("report the start"))?;
    Ok(Some((signals, child)))
}

/// The next order with the descriptors that came beside it; none when the starter is gone.
fn next_order<T: DeserializeOwned>(socket: &Socket) -> Result<Option<(T, VecDeque<OwnedFd>)>, Failure> {
    let received = socket.receive_order().map_err(failed("receive an order"))?;
    let Some(mut descriptors) = received else { return Ok(None) };
    let invalid = || Failure::step("read an order", None, Errno::INVAL);
    let json = read_all(&descriptors.pop_front().ok_or_else(invalid)?).map_err(failed("read an order"))?;
    Ok(Some((serde_json::from_slice(&json).map_err(|_| invalid())?, descriptors)))
}

/// Makes the first three the standard ones of this process.
fn take_standard_descriptors(descriptors: &mut VecDeque<OwnedFd>) -> Result<(), Errno> {
    let mut next = || descriptors.pop_front().ok_or(Errno::BADF);
    rustix::stdio::dup2_stdin(next()?)?;
    rustix::stdio::dup2_stdout(next()?)?;
    rustix::stdio::dup2_stderr(next()?)
}

/// Whoever reads the program's output must see its end when the program closes it, not when we leave.
fn release_standard_descriptors() -> Result<(), Errno> {
    let null =
        rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, Mode::empty())?;
    replace_standard_descriptors(&null)
}

pub(crate) fn replace_standard_descriptors(with: &OwnedFd) -> Result<(), Errno> {
    rustix::stdio::dup2_stdin(with)?;
    rustix::stdio::dup2_stdout(with)?;
    rustix::stdio::dup2_stderr(with)
}

/// A terminal of the container's own `devpts`: our end, and the program's, which is its `/dev/console` too.
fn open_terminal(terminal: Terminal, uid: u32) -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::fs::{OFlags, open};
    let ours = open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::pty::unlockpt(&ours)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    let Terminal { rows, columns } = terminal;
    tcsetwinsize(&ours, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    fchown(&theirs, Some(Uid::from_raw(uid)), None)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let mount = crate::overlay::clone(
        open(name.as_c_str(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?,
        false,
    )?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open("/dev/console", flags | OFlags::WRONLY, Mode::RUSR)?;
    let place = open("/dev/console", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    crate::root::attach(mount, place)?;
    Ok((ours, theirs))
}

/// Everything the program's start needs, allocated before its process is made.
pub(crate) struct Program<'a> {
    process: &'a Process,
    /// Paths to try, in order.
    candidates: Vec<CString>,
    argv: CStrings,
    env: CStrings,
    groups: Option<Vec<Gid>>,
    filter: Vec<seccomp::Instruction>,
    /// For a kernel that hands no calls on: one that answers them as if they had been done.
    pretending_filter: Vec<seccomp::Instruction>,
}

impl<'a> Program<'a> {
    pub(crate) fn new(process: &'a Process) -> Result<Self, Failure> {
        let texts = |texts: &[String]| {
            texts
                .iter()
                .map(|text| CString::new(text.as_str()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| Failure::step("prepare the program's arguments", None, Errno::INVAL))
        };
        let program = process.argv.first().map(String::as_str).unwrap_or_default();
        let candidates = if program.contains('/') {
            vec![program.to_owned()]
        } else {
            path(process)
                .split(':')
                .map(|folder| format!("{}/{program}", if folder.is_empty() { "." } else { folder }))
                .collect()
        };
        Ok(Self {
            process,
            candidates: texts(&candidates)?,
            argv: CStrings::new(texts(&process.argv)?),
            env: CStrings::new(texts(&process.env)?),
            groups: process
                .groups
                .as_ref()
                .map(|groups| groups.iter().map(|gid| Gid::from_raw(*gid)).collect()),
            filter: match &process.system_calls {
                Calls::Docker => filter(process.capabilities, process.owners),
                Calls::All => Vec::new(),
                Calls::Filtered(filter) => filter
                    .iter()
                    .map(|&(code, jump_true, jump_false, constant)| seccomp::Instruction {
                        code,
                        jump_true,
                        jump_false,
                        constant,
                    })
                    .collect(),
            },
            pretending_filter: match process.owners {
                Owners::Remembered => filter(process.capabilities, Owners::Pretended),
                Owners::Kernel | Owners::Pretended => Vec::new(),
            },
        })
    }
}

fn path(process: &Process) -> &str {
    process.env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH)
}

/// Makes a process that becomes a program by `become_program`, which returns only when that fails. This one goes on once it has.
pub(crate) fn start_process(mut become_program: impl FnMut() -> Failure) -> Result<Child, Failure> {
    let mut outcome = None;
    let child = borrow_memory(Namespaces::default(), || {
        outcome = Some(become_program());
        127
    })
    .map_err(failed("start a process in the container"))?;
    match outcome {
        Some(failure) => Err(failure),
        None => Ok(child),
    }
}

/// In the program's process: becomes it. Returns only when that fails.
fn become_program(program: &Program<'_>, terminal: Option<&OwnedFd>, socket: &Socket) -> Failure {
    let prepared =
        start_session(terminal).and_then(|()| become_user(program)).and_then(|()| restrict(program, socket));
    match prepared {
        Ok(()) => search(program),
        Err(failure) => failure,
    }
}

fn failed(step: &'static str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::step(step, None, errno)
}

/// A session of its own: no terminal of the host can be typed into from here.
pub(crate) fn start_session(terminal: Option<&OwnedFd>) -> Result<(), Failure> {
    rustix::process::setsid().map_err(failed("start a session"))?;
    let Some(terminal) = terminal else { return Ok(()) };
    rustix::process::ioctl_tiocsctty(terminal)
        .and_then(|()| replace_standard_descriptors(terminal))
        .map_err(failed("take the terminal"))
}

/// Takes the program's folder, limits, ids and capabilities, and loses all others.
pub(crate) fn become_user(program: &Program<'_>) -> Result<(), Failure> {
    let process = program.process;
    let in_folder = || {
        rustix::process::chdir(process.cwd.as_str())?;
        // A folder outside the root shows as "(unreachable)…".
        match rustix::process::getcwd(Vec::new())?.as_bytes().first() {
            Some(b'/') => Ok(()),
            _ => Err(Errno::XDEV),
        }
    };
    in_folder().map_err(|errno| {
        Failure::step("enter the working folder", Some(process.cwd.as_str().into()), errno)
    })?;
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    for (resource, soft, hard) in &process.rlimits {
        ibid_sys::exec::limit(*resource, *soft, *hard).map_err(|errno| Failure::rlimit(*resource, errno))?;
    }
    capabilities::limit(process.capabilities).map_err(failed("drop capabilities"))?;
    if let Some(groups) = &program.groups {
        rustix::thread::set_thread_groups(groups).map_err(failed("set the groups"))?;
    }
    // A change of user would take them all.
    rustix::thread::set_keep_capabilities(process.given_capabilities != 0)
        .map_err(failed("keep the capabilities"))?;
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("set the group id"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("set the user id"))?;
    capabilities::keep(process.capabilities, process.given_capabilities, process.uid == 0)
        .map_err(failed("set the capabilities"))
}

/// The last thing before the program is executed: limits what it may ask of the kernel.
pub(crate) fn restrict(program: &Program<'_>, socket: &Socket) -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).map_err(failed("refuse new privileges"))?;
    filter_calls(program, socket).map_err(failed("install the seccomp filter"))?;
    signal::reset();
    Ok(())
}

/// From here on, the starter may be asked about calls: it must have the listener first.
fn filter_calls(program: &Program<'_>, socket: &Socket) -> Result<(), Errno> {
    if program.filter.is_empty() {
        return Ok(());
    }
    if program.process.owners == Owners::Kernel {
        return seccomp::install(&program.filter);
    }
    match seccomp::install_with_listener(&program.filter) {
        Ok(listener) => socket.send(&Report::Listening, Some(listener.as_fd())),
        // Another filter's listener is above this process already, or the kernel knows none.
        Err(Errno::BUSY | Errno::INVAL | Errno::PERM) => seccomp::install(&program.pretending_filter),
        Err(errno) => Err(errno),
    }
}

/// Executes the first candidate that can be, as a shell searches `PATH`.
pub(crate) fn search(program: &Program<'_>) -> Failure {
    let name = program.process.argv.first().cloned().unwrap_or_default();
    let mut found: Option<Failure> = None;
    for candidate in &program.candidates {
        let errno = execute(candidate, &program.argv, &program.env);
        let failure = match errno {
            Errno::NOENT if rustix::fs::stat(candidate.as_c_str()).is_ok() => {
                Failure::NoInterpreter { program: name.clone() }
            }
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => continue,
            errno => Failure::NotExecutable { program: name.clone(), errno: errno.raw_os_error() },
        };
        found.get_or_insert(failure);
        if errno != Errno::ACCESS && errno != Errno::NOENT {
            break;
        }
    }
    found.unwrap_or_else(|| Failure::NotFound {
        path: (!name.contains('/')).then(|| path(program.process).to_owned()),
        program: name,
    })
}
