//! The entrant: this binary, executed anew to start another program in a container that is there. It joins the container's
//! namespaces, starts the program and watches over it as [`crate::init`] does, beside the container's own process 1.
//!
//! ```text
//! starter                          entrant                              program
//! ───────                          ───────                              ───────
//! pidfd of process 1
//! execute anew ──────────────────→ control groups, then all namespaces
//!   waits on the socket            terminal, folder, ids, capabilities
//!                                  clone ─────────────────────────────→ seccomp, exec
//!   ←──────── started, terminal ── knows that the exec worked
//!   ─────────── signals ─────────→ passes them on ────────────────────→
//!   ←──────── exit status ──────── reaps
//! ```
//!
//! What runs in the container may be hostile, and sees the program's process before that executes. So the entrant itself stays
//! outside of the container's process ids, has lost every right that the program will not have when it makes that process, and
//! shares memory with nothing else; both cannot be looked into, and the file that they execute cannot be written from there
//! (CVE-2016-9962, CVE-2019-5736). No descriptor of the host is open in either but those of the starter's choice (CVE-2024-21626).
//!
//! It is started with all signals blocked, and with these descriptors and no others:
//!
//! | 0, 1, 2 | the program's standard ones |
//! | 3 | the socket to its starter |
//! | 4 | [`Entry`], as JSON |
//! | 5 | the container's process 1 |

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use ibid_sys::clone::{Child, Namespaces, join};
use ibid_sys::signal::SignalFd;
use ibid_sys::{Errno, exit_now};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchown, fstat, major, minor, open};
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use serde::{Deserialize, Serialize};

use crate::init;
use crate::plan::{Process, Terminal};
use crate::report::{Failure, Report};
use crate::running::{Socket, read_all};
use crate::stage::{
    Program, become_user, replace_standard_descriptors, restrict, search, start_process, start_session,
};

/// The entrant's own name. A process of ours whose first argument it is, is one.
pub(crate) const NAME: &str = "ibid-exec";

/// What an entrant is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Whether the container has a user namespace that the starter is not in.
    pub(crate) user_namespace: bool,
    /// Whether it has a network of its own.
    pub(crate) network: bool,
    /// Control groups to be in, as folders of the host.
    pub(crate) groups: Vec<PathBuf>,
    /// The program.
    pub(crate) process: Process,
}

pub(crate) fn main(descriptors: Vec<OwnedFd>) -> ! {
    let Ok([socket, entry, container]) = <[OwnedFd; 3]>::try_from(descriptors) else { exit_now(125) };
    let socket = Socket::new(socket);
    match start(&socket, entry, &container) {
        Ok((signals, child)) => {
            drop(container);
            init::run_beside(socket, signals, child)
        }
        Err(failure) => {
            let _gone_if_it_fails = socket.send(&Report::Failed(failure), None);
            exit_now(125)
        }
    }
}

fn failed(step: &'static str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::step(step, None, errno)
}

fn start(socket: &Socket, entry: OwnedFd, container: &OwnedFd) -> Result<(SignalFd, Child), Failure> {
    let tie = || {
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("tie the program to its starter"))
    };
    tie()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("protect the process that enters the run"))?;
    rustix::process::setsid().map_err(failed("leave the session of the starter"))?;
    let signals = SignalFd::all().map_err(failed("watch signals"))?;
    let json = read_all(&entry).map_err(failed("read what is to be started"))?;
    drop(entry);
    let Entry { user_namespace, network, groups, process } = serde_json::from_slice(&json)
        .map_err(|_| Failure::step("read what is to be started", None, Errno::INVAL))?;
    // What is the host's is opened before it cannot be seen any more.
    for group in groups {
        let file = group.join("cgroup.procs");
        let joined = open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|members| rustix::io::write(&members, b"0"));
        joined.map_err(|errno| Failure::step("join the run's control group", Some(file), errno))?;
    }
    let null =
        open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open /dev/null"))?;
    let namespaces =
        Namespaces { user: user_namespace, mount: true, pid: true, ipc: true, uts: true, network };
    join(container.as_fd(), namespaces)
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(failed("enter the run's namespaces"))?;

    let terminal = process
        .terminal
        .map(|terminal| open_terminal(terminal, process.uid))
        .transpose()
        .map_err(failed("open a terminal in the container"))?;
    let program = Program::new(&process)?;
    become_user(&program)?;
    // The change of ids took both away.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("protect the process that enters the run"))?;
    tie()?;
    let (ours, theirs) = terminal.unzip();
    let child = start_process(|| become_program(&program, theirs.as_ref(), socket))?;
    drop(theirs);
    replace_standard_descriptors(&null).map_err(failed("close the program's descriptors"))?;
    socket
        .send(&Report::Started, ours.as_ref().map(|ours| ours.as_fd()))
        .map_err(failed("report the start"))?;
    Ok((signals, child))
}

/// In the program's process: becomes it. Returns only when that fails.
fn become_program(program: &Program<'_>, terminal: Option<&OwnedFd>, socket: &Socket) -> Failure {
    let prepared = start_session(terminal)
        .and_then(|()| {
            // With the entrant, which ends with its starter. The program's own children go on.
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(failed("tie the program to its starter"))
        })
        .and_then(|()| restrict(program, socket));
    match prepared {
        Ok(()) => search(program),
        Err(failure) => failure,
    }
}

/// A terminal of the container's own `devpts`: our end, and the program's. Whoever is root in there may have put something else
/// at its place.
fn open_terminal(terminal: Terminal, uid: u32) -> Result<(OwnedFd, OwnedFd), Errno> {
    const MASTER: (u32, u32) = (5, 2);
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let ours = open("/dev/pts/ptmx", flags, Mode::empty())?;
    let kind = fstat(&ours)?;
    let is_master = FileType::from_raw_mode(kind.st_mode) == FileType::CharacterDevice
        && (major(kind.st_rdev), minor(kind.st_rdev)) == MASTER;
    if !is_master {
        return Err(Errno::NOTTY);
    }
    rustix::pty::unlockpt(&ours)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    let Terminal { rows, columns } = terminal;
    tcsetwinsize(&ours, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    fchown(&theirs, Some(Uid::from_raw(uid)), None::<Gid>)?;
    Ok((ours, theirs))
}
