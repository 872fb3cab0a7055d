//! The first process of a container, on its starter's side, until it is told what the container is to be.
//!
//! It is the stage, and does what it is ordered: to lay the [`Ground`], then the rest. A starter who knows that there will be a
//! container makes it ahead: then it starts and lays the ground on another processor, while the starter finds out about the image.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use ibid_sys::Errno;
use ibid_sys::clone::{Child, Launch, Namespaces, launch};
use ibid_sys::exec::CStrings;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::Serialize;

use crate::error::Error;
use crate::plan::{self, Facts, Ground, Steps};
use crate::running::{Socket, setup, write_sealed};
use crate::{stage, userns};

/// In which namespaces the process is.
#[derive(Default)]
pub(crate) struct Whereabouts<'a> {
    /// Whether it has a network of its own.
    pub(crate) network: bool,
    /// The one user and group that a user namespace of its own knows.
    pub(crate) known_as: Option<(u32, u32)>,
    /// The user namespace that it is in, when that is not its starter's.
    pub(crate) within: Option<BorrowedFd<'a>>,
}

impl Whereabouts<'_> {
    fn is_usual(&self) -> bool {
        !self.network && self.known_as.is_none() && self.within.is_none()
    }
}

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct First {
    process: Option<(Child, Socket)>,
    /// What it has been told to lay.
    ground: Option<Ground>,
}

/// The one that was made ahead.
static AHEAD: Mutex<Option<First>> = Mutex::new(None);

/// Makes the first process of the next container, of which only its program is not known to be unusual. Call it with one thread, when
/// [`userns::begin`] has returned. What fails here is said when the container is started.
pub fn start_ahead() {
    let first = First::start(&Whereabouts::default()).ok();
    *AHEAD.lock().unwrap_or_else(PoisonError::into_inner) = first;
}

/// Lets it begin, now that this process's ids are mapped.
pub fn lay_ground_ahead() {
    if let Some(first) = AHEAD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        first.lay(plan::ground(false, None, false, Facts::of_starter(false)));
    }
}

/// Ends it: it does not see what this process mounts from now on.
pub(crate) fn discard_ahead() {
    drop(AHEAD.lock().unwrap_or_else(PoisonError::into_inner).take());
}

impl First {
    /// A process that has laid this ground, or is about to.
    pub(crate) fn on(ground: Ground, whereabouts: &Whereabouts<'_>) -> Result<Self, Error> {
        let ahead = AHEAD.lock().unwrap_or_else(PoisonError::into_inner).take();
        match ahead.filter(|first| whereabouts.is_usual() && first.ground.as_ref() == Some(&ground)) {
            Some(first) => Ok(first),
            None => {
                let mut first = Self::start(whereabouts)?;
                first.lay(ground);
                Ok(first)
            }
        }
    }

    fn start(whereabouts: &Whereabouts<'_>) -> Result<Self, Error> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(setup("make a socket"))?;
        let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(setup("open /dev/null"))?;
        let words = [stage::NAME, "1"].map(|word| CString::new(word).expect("no zero bytes")).to_vec();
        let child = launch(&Launch {
            argv: &CStrings::new(words),
            env: &CStrings::new(Vec::new()),
            descriptors: &[null.as_fd(), null.as_fd(), null.as_fd(), theirs.as_fd()],
            // It leaves the others that it is not to share by itself, while its starter goes on.
            namespaces: Namespaces {
                user: whereabouts.known_as.is_some(),
                mount: true,
                pid: true,
                network: whereabouts.network,
                ..Namespaces::default()
            },
            // Root without its rights, too, is somebody else there.
            keep_capabilities: !rustix::process::geteuid().is_root()
                || whereabouts.known_as.is_some()
                || whereabouts.within.is_some(),
            known_as: whereabouts.known_as,
            own_ids: userns::host_ids(),
            within: whereabouts.within,
        })
        .map_err(setup("start a process in new namespaces"))?;
        Ok(Self { process: Some((child, Socket::new(ours))), ground: None })
    }

    /// One that cannot be told has ended; it has said why.
    fn lay(&mut self, ground: Ground) {
        if let Some((_, socket)) = &self.process {
            let _ended = order(socket, &ground, &[]);
        }
        self.ground = Some(ground);
    }

    /// Tells it the rest: also what the program's standard descriptors are, and the user namespaces of idmapped mounts. Its reports
    /// follow.
    pub(crate) fn make(
        mut self,
        steps: &Steps,
        standard: [BorrowedFd<'_>; 3],
        idmaps: &[Arc<OwnedFd>],
    ) -> Result<(Child, Socket), Error> {
        let idmaps = idmaps.iter().map(|idmap| idmap.as_fd());
        let descriptors: Vec<_> = standard.into_iter().chain(idmaps).collect();
        let (child, socket) = self.process.take().ok_or_else(|| setup("find the process")(Errno::CHILD))?;
        match order(&socket, steps, &descriptors) {
            // It has ended, and said why.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok((child, socket)),
            Err(errno) => {
                end(&child);
                Err(setup("tell a process what the container is to be")(errno))
            }
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some((child, _)) = self.process.take() {
            end(&child);
        }
    }
}

fn end(child: &Child) {
    let _already_dead = pidfd_send_signal(&child.pidfd, Signal::KILL);
    while matches!(waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED), Err(Errno::INTR)) {}
}

fn order(socket: &Socket, what: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let json = serde_json::to_vec(what).map_err(|_| Errno::INVAL)?;
    let written = write_sealed(c"ibid-order", &json);
    let written = written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    socket.send_order(&[&[written.as_fd()], descriptors].concat())
}
