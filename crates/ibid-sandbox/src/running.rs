//! Starting a container and watching it.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ibid_sys::Errno;
use ibid_sys::clone::Child;
use ibid_sys::signal::Catcher;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::enter::LiveContainer;
use crate::error::{Error, OVERLAY_STEP};
use crate::first::{First, Whereabouts};
use crate::plan::{self, Facts, Process};
use crate::report::Report;
use crate::spec::{ExitStatus, Network, Rootfs, Spec};
use crate::{cgroup, idmap, network, obstacle, owners, terminal, userns};

/// What the program reads and writes. Ignored with [`Spec::terminal`].
#[derive(Debug, Default)]
pub struct Stdio {
    /// None: this process's own standard input.
    pub stdin: Option<OwnedFd>,
    /// None: this process's own standard output.
    pub stdout: Option<OwnedFd>,
    /// None: this process's own standard error.
    pub stderr: Option<OwnedFd>,
}

/// Hears what a program writes.
pub type Listener<'a> = &'a mut dyn FnMut(&[u8]);

/// What its starter does for a container.
#[derive(Default)]
pub struct Attendance<'a> {
    /// Called when the container is made, right before its program starts, if [`Spec::waits`].
    pub before_program: Option<&'a mut dyn FnMut()>,
    /// Called when the program is executing.
    pub on_start: Option<&'a mut dyn FnMut(Started<'_>)>,
    /// Called with what the program writes to its terminal, before that is shown.
    pub on_terminal: Option<Listener<'a>>,
    /// Leaves the program's terminal alone: nothing is shown, and nothing typed here.
    pub is_detached: bool,
    /// What `SIGTERM` to this process means; none: the program gets it as it is.
    pub stop: Option<Stop>,
}

/// A program that is executing.
pub struct Started<'a> {
    /// Its container, for other processes.
    pub container: LiveContainer,
    /// For signals to it.
    pub handle: Handle,
    /// The other end of its terminal, when it has one. Reading and writing wait for nothing.
    pub terminal: Option<BorrowedFd<'a>>,
}

/// How a program is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The signal that asks it.
    pub signal: i32,
    /// How long it may take; then it is killed.
    pub patience: Duration,
}

/// What the processes of a container took together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Most memory that one of them had at a time, bytes.
    pub peak_memory: u64,
    /// Time of processors, microseconds.
    pub cpu_micros: u64,
}

/// A started container. Dropping it kills everything inside and waits for that.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    terminal: Option<OwnedFd>,
    /// Answers the program's calls about owners.
    owners: Option<JoinHandle<()>>,
    /// What joins its network with the host's.
    network: Option<network::Joined>,
    /// What limits it. Gone when the first process is.
    group: Option<cgroup::Group>,
    usage: Option<Usage>,
    waited: bool,
    /// What is to be known to start another program in it; none of one that is no container of its own.
    entrance: Option<Entrance>,
}

#[derive(Debug)]
struct Entrance {
    program: Process,
    network: bool,
    only_id: bool,
}

#[derive(Debug)]
struct Shared {
    child: Child,
    socket: Socket,
}

/// Sends signals to a container from any thread, whoever waits for it.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Sends a signal to the program; one of those that terminals send, to its whole process group. A
    /// program that has ended gets nothing, without an error.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.0.socket.send_signal(signal).or_else(ended).map_err(setup("send a signal to the container"))
    }

    /// Ends everything inside at once.
    pub fn kill(&self) -> Result<(), Error> {
        pidfd_send_signal(&self.0.child.pidfd, Signal::KILL)
            .or_else(ended)
            .map_err(setup("kill the container"))
    }
}

/// That there is nobody any more to get a signal is no failure.
fn ended(errno: Errno) -> Result<(), Errno> {
    match errno {
        Errno::SRCH | Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Ok(()),
        errno => Err(errno),
    }
}

/// Says more of layers that cannot be mounted.
fn in_overlay(error: Error, rootfs: &Rootfs) -> Error {
    match (error, rootfs) {
        (Error::Setup { step, path: None, source }, Rootfs::Overlay(overlay))
            if step == OVERLAY_STEP && source.raw_os_error() == Some(Errno::INVAL.raw_os_error()) =>
        {
            Error::Setup { step, path: None, source: obstacle::explained_overlay(overlay, Errno::INVAL) }
        }
        (error, _) => error,
    }
}

pub(crate) fn setup(step: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Setup { step: step.to_owned(), path: None, source: errno.into() }
}

/// Starts a container and returns once its program is executing.
pub fn spawn(spec: &Spec, stdio: Stdio) -> Result<Running, Error> {
    spawn_after(spec, stdio, &mut || ())
}

fn spawn_after(spec: &Spec, stdio: Stdio, before_program: &mut dyn FnMut()) -> Result<Running, Error> {
    let facts = Facts::of_starter(spec.terminal);
    reap_leaving();
    // What cannot be had is known before anything is made.
    let pasta = matches!(spec.network, Network::Private(_)).then(network::find_pasta).transpose()?;
    let group = spec.limits.any().then(|| cgroup::Group::new(&spec.limits)).transpose()?;
    let (steps, maps) = plan::plan(spec, facts)?;
    let ground = plan::ground(spec.network != Network::Host, spec.shm_bytes, spec.keeps_owners, facts);
    let idmaps = maps.iter().map(idmap::user_namespace).collect::<Result<Vec<_>, _>>()?;
    // The one id that is mapped is the program's user, whoever that is.
    let own_ids = userns::host_ids();
    let known_as =
        facts.only_id.then_some((spec.uid, spec.gid)).filter(|ids| *ids != own_ids || pasta.is_some());
    // With many ids, the two change places. Who joins a network must be let into its user namespace.
    let is_another = spec.is_starter && (spec.uid, spec.gid) != own_ids;
    let within = (userns::entered() && !facts.only_id && (is_another || pasta.is_some()))
        .then(|| {
            let wanted = if spec.is_starter { (spec.uid, spec.gid) } else { own_ids };
            userns::swapped(own_ids, wanted)
        })
        .transpose()?;
    let first = First::on(
        ground,
        &Whereabouts {
            network: spec.network != Network::Host,
            known_as,
            within: within.as_ref().map(|namespace| namespace.as_fd()),
        },
    )?;
    let standard = [
        stdio.stdin.as_ref().map_or(rustix::stdio::stdin(), |fd| fd.as_fd()),
        stdio.stdout.as_ref().map_or(rustix::stdio::stdout(), |fd| fd.as_fd()),
        stdio.stderr.as_ref().map_or(rustix::stdio::stderr(), |fd| fd.as_fd()),
    ];
    let (child, socket) = first.make(&steps, standard, &idmaps)?;
    drop(stdio);

    let mut running = Running {
        shared: Arc::new(Shared { child, socket }),
        terminal: None,
        owners: None,
        network: None,
        group,
        usage: None,
        waited: false,
        entrance: Some(Entrance {
            program: steps.process,
            network: spec.network != Network::Host,
            only_id: facts.only_id,
        }),
    };
    let is_nested = known_as.is_some() || within.is_some();
    loop {
        match running.shared.socket.receive() {
            Ok(Some((Report::Waiting, _))) => {
                if let Some(group) = &running.group {
                    group.add(running.id())?;
                }
                if let (Network::Private(ports), Some(pasta)) = (&spec.network, &pasta) {
                    running.network = Some(network::join(pasta, running.id(), is_nested, ports)?);
                }
                before_program();
                // One that cannot be told has ended, which the next report says.
                let _ended = running.shared.socket.give_leave();
            }
            Ok(Some((Report::Listening, Some(listener)))) => {
                running.owners = Some(owners::answer(listener.into(), spec)?);
            }
            Ok(Some((Report::Started, terminal))) => {
                running.terminal = terminal;
                return Ok(running);
            }
            Ok(Some((Report::Failed(failure), _))) => {
                return Err(in_overlay(failure.into_error(), &spec.rootfs));
            }
            _ => return Err(running.lost()),
        }
    }
}

/// Starts a container and attends it to its end, as [`Running::attend`], from the first moment on: a signal that
/// comes while it starts reaches the program too.
///
/// It returns as soon as nothing runs in the container. Its mounts last a moment longer; who needs the upper folder
/// for another mount right away takes [`spawn`] and [`Running::attend`].
pub fn run(spec: &Spec, stdio: Stdio) -> Result<ExitStatus, Error> {
    run_attended(spec, stdio, Attendance::default()).map(|(status, _)| status)
}

/// As [`run`], doing meanwhile what `attendance` asks for; also says what the container's processes took, where that is known.
pub fn run_attended(
    spec: &Spec,
    stdio: Stdio,
    attendance: Attendance<'_>,
) -> Result<(ExitStatus, Option<Usage>), Error> {
    let signals = terminal::catch_signals()?;
    let Attendance { before_program, on_start, on_terminal, is_detached, stop } = attendance;
    let mut running = spawn_after(spec, stdio, before_program.unwrap_or(&mut || ()))?;
    if let Some(on_start) = on_start {
        running.tell(on_start)?;
    }
    let status = running.attend_program(signals, !is_detached, on_terminal.unwrap_or(&mut |_| ()), stop)?;
    let usage = running.usage;
    match running.group.is_some() || running.network.is_some() {
        // What it was in can only be removed when it is gone.
        true => drop(running.reap()),
        false => running.leave(),
    }
    Ok((status, usage))
}

/// First processes that have reported their program's end and are on their way out. Whoever starts the next
/// container takes leave of those that have gone; the system, of those that are left when this process ends.
static LEAVING: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

fn reap_leaving() {
    let mut leaving = LEAVING.lock().unwrap_or_else(PoisonError::into_inner);
    leaving.retain(|process| {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        matches!(waitid(WaitId::PidFd(process.as_fd()), options), Ok(None) | Err(Errno::INTR))
    });
}

/// Bytes for a process of ours, which nobody can change.
pub(crate) fn write_sealed(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file)
}

pub(crate) fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let size = usize::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        match rustix::io::pread(file, &mut bytes[at..], at as u64)? {
            0 => break,
            read => at += read,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}

impl Facts {
    /// What this process can say of itself and the machine; with a terminal, also that one's size.
    pub(crate) fn of_starter(has_terminal: bool) -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            user_namespace: userns::inside(),
            only_id: userns::only_id().is_some(),
            kernel: kernel(),
            processors: processors(),
            terminal_size: has_terminal.then(terminal::own_size).flatten(),
        }
    }
}

/// The kernel's version, as far as it has one.
fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    }
}

/// How many processors the machine may ever have.
fn processors() -> u32 {
    static PROCESSORS: OnceLock<u32> = OnceLock::new();
    *PROCESSORS.get_or_init(|| {
        let text = std::fs::read_to_string(Path::new("/sys/devices/system/cpu/possible")).unwrap_or_default();
        let last = text.trim().rsplit([',', '-']).next().and_then(|number| number.parse::<u32>().ok());
        last.map_or(0, |last| last + 1)
    })
}

impl Running {
    /// One that watches over a program in somebody else's container.
    pub(crate) fn beside(child: Child, socket: Socket) -> Self {
        Self {
            shared: Arc::new(Shared { child, socket }),
            terminal: None,
            owners: None,
            network: None,
            group: None,
            usage: None,
            waited: false,
            entrance: None,
        }
    }

    /// The next report of the first process, with the descriptor that came along.
    pub(crate) fn receive(&self) -> Result<Option<(Report, Option<OwnedFd>)>, Errno> {
        self.shared.socket.receive()
    }

    pub(crate) fn give_terminal(&mut self, terminal: Option<OwnedFd>) {
        self.terminal = terminal;
    }

    /// Tells who wants to know that the program is executing.
    fn tell(&mut self, on_start: &mut dyn FnMut(Started<'_>)) -> Result<(), Error> {
        let Some(Entrance { program, network, only_id }) = self.entrance.take() else { return Ok(()) };
        let groups = self.group.as_ref().map(cgroup::Group::folders).unwrap_or_default();
        if let Some(terminal) = &self.terminal {
            rustix::io::ioctl_fionbio(terminal, true).map_err(setup("prepare the terminal"))?;
        }
        on_start(Started {
            container: LiveContainer::new(self.id(), network, only_id, groups, program),
            handle: self.handle(),
            terminal: self.terminal.as_ref().map(|terminal| terminal.as_fd()),
        });
        Ok(())
    }

    /// Process id of the container's first process, as this process counts.
    pub fn id(&self) -> u32 {
        self.shared.child.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// For signals from other threads.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// The other end of the program's terminal, once, when [`Spec::terminal`] asked for one.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Waits until nothing runs in the container and its mounts are gone.
    pub fn wait(mut self) -> Result<ExitStatus, Error> {
        let status = self.wait_for_program()?;
        self.reap();
        Ok(status)
    }

    /// Waits until nothing runs in the container. Its mounts may last a moment longer, which saves a caller who
    /// only wants the status some time; the kernel takes them off without help.
    pub fn wait_for_program(&mut self) -> Result<ExitStatus, Error> {
        loop {
            match self.shared.socket.receive() {
                Ok(Some((Report::Code(code), _))) => return Ok(ExitStatus::Code(code)),
                Ok(Some((Report::Signal(signal), _))) => return Ok(ExitStatus::Signal(signal)),
                Ok(Some((Report::Usage { peak_memory, cpu_micros }, _))) => {
                    self.usage = Some(Usage { peak_memory, cpu_micros });
                }
                Ok(Some((Report::Waiting | Report::Listening | Report::Started | Report::Failed(_), _))) => {}
                Ok(None) | Err(_) => return Err(self.lost()),
            }
        }
    }

    /// As [`Self::wait`], and meanwhile passes the signals that this process gets on to the program, and,
    /// when it has a terminal, joins that with this process's own standard input and output. Several
    /// containers can be attended at once, by a thread each; then all get the signals.
    pub fn attend(mut self) -> Result<ExitStatus, Error> {
        let status = self.attend_program(terminal::catch_signals()?, true, &mut |_| (), None)?;
        self.reap();
        Ok(status)
    }

    pub(crate) fn attend_program(
        &mut self,
        signals: Catcher,
        is_shown: bool,
        on_terminal: &mut dyn FnMut(&[u8]),
        stop: Option<Stop>,
    ) -> Result<ExitStatus, Error> {
        let terminal = self.terminal.take();
        let terminal = terminal.map(|terminal| (terminal, is_shown));
        terminal::attend(&self.handle(), &self.shared.socket, signals, terminal, on_terminal, stop)?;
        self.wait_for_program()
    }

    /// Lets the first process, whose program has ended, go without waiting for it.
    fn leave(mut self) {
        if let Ok(process) = self.shared.child.pidfd.try_clone() {
            LEAVING.lock().unwrap_or_else(PoisonError::into_inner).push(process);
            self.waited = true;
        }
    }

    /// Takes leave of the first process, which has ended or is about to.
    pub(crate) fn reap(&mut self) -> Option<rustix::process::WaitIdStatus> {
        if std::mem::replace(&mut self.waited, true) {
            return None;
        }
        let status = loop {
            match waitid(WaitId::PidFd(self.shared.child.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                result => break result.ok().flatten(),
            }
        };
        if let Some(owners) = self.owners.take() {
            // It ends when nobody is left to ask. What it has remembered is complete then.
            let _ = owners.join();
        }
        status
    }

    pub(crate) fn lost(&mut self) -> Error {
        let status = self.reap().map_or_else(
            || "nobody knows how".to_owned(),
            |status| match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (_, Some(signal)) => format!("signal {signal}"),
                _ => "nobody knows how".to_owned(),
            },
        );
        Error::Lost { status }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.waited {
            let _already_dead = pidfd_send_signal(&self.shared.child.pidfd, Signal::KILL);
            self.reap();
        }
    }
}

/// One end of the socket between starter and stage. It keeps messages apart.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// Enough for the longest report: two paths and a `PATH`.
const LONGEST_REPORT: usize = 64 * 1024;

/// Enough for an order with its program's three and the user namespaces of many idmapped mounts.
const DESCRIPTORS_MAX: usize = 64;

impl Socket {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    pub(crate) fn send(&self, report: &Report, descriptor: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let json = serde_json::to_vec(report).map_err(|_| Errno::INVAL)?;
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        sendmsg(&self.0, &[IoSlice::new(&json)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }

    /// The next report; none when the other end is closed.
    pub(crate) fn receive(&self) -> Result<Option<(Report, Option<OwnedFd>)>, Errno> {
        let mut bytes = vec![0; LONGEST_REPORT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let into = &mut [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                result => break result?.bytes,
            }
        };
        if received == 0 {
            return Ok(None);
        }
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let report = serde_json::from_slice(&bytes[..received]).map_err(|_| Errno::BADMSG)?;
        Ok(Some((report, descriptor)))
    }

    /// The starter's: an order for the stage, which is in the first of these descriptors.
    pub(crate) fn send_order(&self, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::MFILE);
        }
        sendmsg(&self.0, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }

    /// The stage's: the next order; none when the starter is gone.
    pub(crate) fn receive_order(&self) -> Result<Option<VecDeque<OwnedFd>>, Errno> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            {
                Err(Errno::INTR) => {}
                result => break result?.bytes,
            }
        };
        let descriptors = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        });
        Ok((received > 0).then(|| descriptors.collect()))
    }

    fn send_signal(&self, signal: i32) -> Result<(), Errno> {
        rustix::net::send(&self.0, &signal.to_ne_bytes(), SendFlags::NOSIGNAL).map(drop)
    }

    /// Lets the program start.
    fn give_leave(&self) -> Result<(), Errno> {
        self.send_signal(0)
    }

    /// Waits until the starter lets the program start.
    pub(crate) fn wait_for_leave(&self) -> Result<(), Errno> {
        let mut bytes = [0; 4];
        loop {
            match rustix::net::recv(&self.0, &mut bytes, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Ok((_, 4)) => return Ok(()),
                Ok(_) => return Err(Errno::PIPE),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// A signal that the starter wants passed on; none when the starter is gone.
    pub(crate) fn receive_signal(&self) -> Result<Option<i32>, Errno> {
        let mut bytes = [0; 4];
        match rustix::net::recv(&self.0, &mut bytes, RecvFlags::DONTWAIT)?.1 {
            0 => Ok(None),
            4 => Ok(Some(i32::from_ne_bytes(bytes))),
            _ => Err(Errno::BADMSG),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
