//! Starting another program in a container that is there: what has to be known of it, and the starter's side. What is done in
//! the container is [`crate::entrant`]'s.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use ibid_sys::Errno;
use ibid_sys::clone::{Launch, Namespaces, launch};
use ibid_sys::exec::{CStrings, LIMITS, limit_of};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::entrant::{self, Entry};
use crate::error::Error;
use crate::plan::{Owners, Process, Terminal};
use crate::report::Report;
use crate::running::{Running, Socket, setup, write_sealed};
use crate::spec::ExitStatus;
use crate::{Stdio, terminal, userns};

/// Largest file of a container that is read, bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A container whose program was started, as other processes of its starter's user find it. It holds the program's environment:
/// nobody else may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveContainer {
    /// Its first process.
    process: u32,
    /// When that was started, in the kernel's ticks: process ids are used again.
    ticks: u64,
    /// The start of the machine in which both mean something.
    boot: String,
    /// Whether it has a network of its own.
    network: bool,
    /// Whether there is one id only in it.
    only_id: bool,
    /// The folders of its control groups.
    groups: Vec<PathBuf>,
    /// Its program.
    program: Process,
}

/// Another program for a container. What is not said here is as for the container's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Another {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables over those of the container's own program.
    pub env: Vec<(String, String)>,
    /// The folder that it starts in.
    pub cwd: Option<String>,
    /// Its user id, group id and other groups.
    pub user: Option<(u32, u32, Vec<u32>)>,
    /// Gives it a terminal of its own.
    pub terminal: bool,
}

/// The first process of a container that is there.
struct Found {
    pidfd: OwnedFd,
}

impl LiveContainer {
    pub(crate) fn new(
        process: u32,
        network: bool,
        only_id: bool,
        groups: Vec<PathBuf>,
        program: Process,
    ) -> Self {
        Self { process, ticks: ticks(process).unwrap_or(0), boot: boot(), network, only_id, groups, program }
    }

    /// Whether it is still there.
    pub fn is_there(&self) -> bool {
        self.find().is_some()
    }

    fn find(&self) -> Option<Found> {
        let process = Pid::from_raw(self.process.try_into().ok()?)?;
        let pidfd = pidfd_open(process, PidfdFlags::empty()).ok()?;
        // In this order: what is compared is the process that is held.
        (self.boot == boot() && ticks(self.process) == Some(self.ticks)).then_some(Found { pidfd })
    }

    fn found(&self) -> Result<Found, Error> {
        self.find().ok_or(Error::Ended)
    }

    /// Whether there is one id only in it, that of its program.
    pub fn only_id(&self) -> bool {
        self.only_id
    }

    /// User and group of its program.
    pub fn user(&self) -> (u32, u32) {
        (self.program.uid, self.program.gid)
    }

    /// Program and arguments.
    pub fn command(&self) -> &[String] {
        &self.program.argv
    }

    /// A variable of its program.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.program.env.iter().find_map(|text| text.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether its program has a terminal of its own.
    pub fn has_terminal(&self) -> bool {
        self.program.terminal.is_some()
    }

    /// A file that its program sees at an absolute path: what it is told there may be hostile. None when there is no such file.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let _held = self.found()?;
        let root = PathBuf::from(format!("/proc/{}/root", self.process));
        let failed = |errno: Errno| Error::Setup {
            step: "read a file of the run".to_owned(),
            path: Some(path.into()),
            source: errno.into(),
        };
        let folder = openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
        // It waits for nothing, whatever is there.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = match openat2(&folder, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT) => return Ok(None),
            file => File::from(file.map_err(failed)?),
        };
        let is_file = file.metadata().is_ok_and(|it| it.is_file() && it.len() <= FILE_BYTES_MAX);
        if !is_file {
            return Err(Error::Setup {
                step: "read a file of the run".to_owned(),
                path: Some(path.into()),
                source: std::io::Error::other("it is no ordinary file of at most 16 MiB"),
            });
        }
        let mut bytes = Vec::new();
        match file.take(FILE_BYTES_MAX).read_to_end(&mut bytes) {
            Ok(_) => Ok(Some(bytes)),
            Err(source) => Err(Error::Setup {
                step: "read a file of the run".to_owned(),
                path: Some(path.into()),
                source,
            }),
        }
    }

    /// Sends a signal to the program; one of those that terminals send, to its whole process group. One that has ended gets nothing.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let Some(found) = self.find() else { return Ok(()) };
        // Process 1 passes on what it gets, but nobody gets a chance to pass this on.
        let to = match signal == Signal::KILL.as_raw() {
            true => match self.program_process() {
                Some(program) => program,
                None => return Ok(()),
            },
            false => found.pidfd,
        };
        match ibid_sys::signal::send_to(to.as_fd(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(setup("send a signal to the run")(errno)),
        }
    }

    /// The program's process: the first that process 1 made.
    fn program_process(&self) -> Option<OwnedFd> {
        let entries = fs::read_dir("/proc").ok()?;
        let processes = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for process in processes {
            let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) else { continue };
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().last()?.parse::<u32>().ok()
            };
            if field("PPid:") != Some(self.process) || field("NSpid:") != Some(FIRST_CHILD) {
                continue;
            }
            let pidfd = pidfd_open(Pid::from_raw(process.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
            // Process 1 is still there, so its child was this one all the time.
            let is_same = fs::read_to_string(format!("/proc/{process}/status")).is_ok_and(|now| {
                now.lines().any(|line| line.split_whitespace().eq(["PPid:", &self.process.to_string()]))
            });
            return (is_same && self.is_there()).then_some(pidfd);
        }
        None
    }
}

/// The number of the program in its container: process 1 makes it first.
const FIRST_CHILD: u32 = 2;

/// Executes another program in a container to its end, as [`crate::run`]: signals that this process gets go to it, and with a
/// terminal of its own it is joined with this process's.
///
/// It ends with this process, and with the container; what it has started itself only with the container.
pub fn enter(container: &LiveContainer, another: &Another, stdio: Stdio) -> Result<ExitStatus, Error> {
    let signals = terminal::catch_signals()?;
    let found = container.found()?;
    let entry = Entry {
        user_namespace: has_other_user_namespace(container.process)?,
        network: container.network,
        groups: container.groups.clone(),
        process: process(container, another)?,
    };
    let json = serde_json::to_vec(&entry).map_err(|_| setup("write what is to be started")(Errno::INVAL))?;
    let entry = write_sealed(c"ibid-entry", &json).map_err(|source| Error::Setup {
        step: "write what is to be started".to_owned(),
        path: None,
        source,
    })?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(setup("make a socket"))?;
    let descriptors = [
        stdio.stdin.as_ref().map_or(rustix::stdio::stdin(), |fd| fd.as_fd()),
        stdio.stdout.as_ref().map_or(rustix::stdio::stdout(), |fd| fd.as_fd()),
        stdio.stderr.as_ref().map_or(rustix::stdio::stderr(), |fd| fd.as_fd()),
        theirs.as_fd(),
        entry.as_fd(),
        found.pidfd.as_fd(),
    ];
    let words = [entrant::NAME.to_owned(), (descriptors.len() - 3).to_string()].map(CString::new);
    let words = words.into_iter().collect::<Result<Vec<_>, _>>();
    let child = launch(&Launch {
        argv: &CStrings::new(words.map_err(|_| setup("name a process")(Errno::INVAL))?),
        env: &CStrings::new(Vec::new()),
        descriptors: &descriptors,
        // Until it is in those of the run. Others than root cannot make one yet.
        namespaces: Namespaces { mount: userns::capable(), ..Namespaces::default() },
        keep_capabilities: !rustix::process::geteuid().is_root(),
        known_as: None,
        own_ids: userns::host_ids(),
        within: None,
    })
    .map_err(setup("start a process that enters the run"))?;
    drop((theirs, stdio, entry, found));
    let mut running = Running::beside(child, Socket::new(ours));
    match running.receive() {
        Ok(Some((Report::Started, terminal))) => running.give_terminal(terminal),
        Ok(Some((Report::Failed(failure), _))) => return Err(failure.into_error()),
        _ => return Err(running.lost()),
    }
    let status = running.attend_program(signals, true, &mut |_| (), None)?;
    running.reap();
    Ok(status)
}

/// The program's process as the container's own has it, with what is to be different.
fn process(container: &LiveContainer, another: &Another) -> Result<Process, Error> {
    let invalid = |what: String| Err(Error::Invalid { what });
    let own = &container.program;
    if another.argv.first().is_none_or(String::is_empty) {
        return invalid("no program to execute".to_owned());
    }
    let texts = another
        .argv
        .iter()
        .chain(&another.cwd)
        .chain(another.env.iter().flat_map(|(name, value)| [name, value]));
    if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
        return invalid(format!("`{}` contains a NUL byte", text.replace('\0', "\\0")));
    }
    let mut env = own.env.clone();
    for (name, value) in &another.env {
        if name.is_empty() || name.contains('=') {
            return invalid(format!("`{name}` is no name for an environment variable"));
        }
        let text = format!("{name}={value}");
        let known = env.iter_mut().find(|known| known.split('=').next() == Some(name));
        match known {
            Some(known) => *known = text,
            None => env.push(text),
        }
    }
    let cwd = another.cwd.clone().unwrap_or_else(|| own.cwd.clone());
    if !cwd.starts_with('/') {
        return invalid(format!("working folder `{cwd}` is not absolute"));
    }
    let (uid, gid, groups) = match &another.user {
        Some((uid, gid, _)) if container.only_id && (*uid, *gid) != (own.uid, own.gid) => {
            return invalid(format!(
                "nobody can be {uid}:{gid} in this run: one user id is mapped, that of its program, {}:{}",
                own.uid, own.gid
            ));
        }
        Some((uid, gid, groups)) => (*uid, *gid, (!container.only_id).then(|| groups.clone())),
        None => (own.uid, own.gid, own.groups.clone()),
    };
    Ok(Process {
        argv: another.argv.clone(),
        env,
        cwd,
        uid,
        gid,
        groups,
        umask: own.umask,
        capabilities: own.capabilities,
        given_capabilities: own.given_capabilities,
        system_calls: own.system_calls.clone(),
        rlimits: rlimits(container),
        // Only who makes a layer remembers owners.
        owners: match own.owners {
            Owners::Kernel => Owners::Kernel,
            Owners::Remembered | Owners::Pretended => Owners::Pretended,
        },
        waits: false,
        terminal: another.terminal.then(|| {
            let (rows, columns) = terminal::own_size().unwrap_or((24, 80));
            Terminal { rows, columns }
        }),
    })
}

/// Those of the container, which its program was started with. One that was higher than this process may set is as high as that.
fn rlimits(container: &LiveContainer) -> Vec<(u8, u64, u64)> {
    let asked_for = &container.program.rlimits;
    let is_root = rustix::process::geteuid().is_root();
    let inherited = (0..LIMITS)
        .filter(|number| asked_for.iter().all(|(known, ..)| known != number))
        .filter_map(|number| {
            let (soft, hard) = limit_of(Some(container.process), number).ok()?;
            let (_, most) = limit_of(None, number).ok()?;
            let most = if is_root { u64::MAX } else { most };
            Some((number, soft.min(most), hard.min(most)))
        });
    inherited.chain(asked_for.iter().copied()).collect()
}

fn has_other_user_namespace(process: u32) -> Result<bool, Error> {
    let namespace = |process: &str| {
        let path = format!("/proc/{process}/ns/user");
        let found = fs::metadata(&path).map(|it| (it.dev(), it.ino()));
        found.map_err(|source| Error::Setup {
            step: "look at the run's namespaces".to_owned(),
            path: Some(path.into()),
            source,
        })
    };
    Ok(namespace("self")? != namespace(&process.to_string())?)
}

/// Another one after each start of the machine.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Field 22 of `/proc/PID/stat` (proc(5)); the second is a name that may hold anything.
fn ticks(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
