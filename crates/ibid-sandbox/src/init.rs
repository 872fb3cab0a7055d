//! Process 1 of a container: reaps what is left behind, passes signals on, reports how the program ended.
//!
//! It sleeps on two things: the signals (all are blocked, so none is lost and none interrupts), and
//! the socket, whose end means that the starter is dead.

use ibid_sys::clone::Child;
use ibid_sys::signal::{SignalFd, send};
use ibid_sys::{Errno, exit_now};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use rustix::thread::{Timespec, nanosleep};

use crate::report::Report;
use crate::running::Socket;
use crate::spec::ExitStatus;

/// How long programs that entered may take to be gone, milliseconds.
const ENTRANTS_PATIENCE: u32 = 1000;

/// What a terminal sends, it sends to everything in the foreground, not to one process.
const OF_TERMINALS: [Signal; 6] =
    [Signal::INT, Signal::QUIT, Signal::TSTP, Signal::CONT, Signal::WINCH, Signal::HUP];

/// Watches over `child`, the program, until it ends; then ends everything else, reports, and leaves.
pub(crate) fn run(socket: Socket, signals: SignalFd, child: Child) -> ! {
    match watch(&socket, &signals, child) {
        Ok(status) => end(&socket, status),
        // So are we, and with us, by the kernel, the whole container.
        Err(Gone) => exit_now(125),
    }
}

/// As [`run`], beside process 1: what else runs in the container is not this process's to end.
pub(crate) fn run_beside(socket: Socket, signals: SignalFd, child: Child) -> ! {
    let program = child.pid;
    match watch(&socket, &signals, child) {
        Ok(status) => {
            let _starter_may_be_dead = socket.send(&Report::of(status), None);
            exit_now(0)
        }
        Err(Gone) => {
            // It is not reaped yet, so the number is its own.
            let _ended = send(-program.as_raw_nonzero().get(), Signal::KILL.as_raw());
            exit_now(125)
        }
    }
}

/// The starter is gone, or nothing can be watched any more.
struct Gone;

/// How the program ended. Until then, signals are passed on.
fn watch(socket: &Socket, signals: &SignalFd, child: Child) -> Result<ExitStatus, Gone> {
    let Child { pid: program, pidfd } = child;
    drop(pidfd);
    loop {
        let mut ready = [PollFd::new(signals, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(Gone),
        }
        let [_, from_starter] = ready.map(|entry| entry.revents());
        while let Some(signal) = signals.next() {
            if signal == Signal::CHILD.as_raw() {
                if let Some(status) = reap(program) {
                    return Ok(status);
                }
            } else {
                pass_on(program, signal);
            }
        }
        if from_starter.intersects(PollFlags::IN) {
            match socket.receive_signal() {
                Ok(Some(signal)) => pass_on(program, signal),
                Ok(None) => return Err(Gone),
                Err(_) => {}
            }
        } else if from_starter.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Err(Gone);
        }
    }
}

fn pass_on(program: Pid, signal: i32) {
    let number = program.as_raw_nonzero().get();
    let of_terminal = OF_TERMINALS.iter().any(|known| known.as_raw() == signal);
    // It may have ended a moment ago: then there is nobody to tell.
    let _ended = send(if of_terminal { -number } else { number }, signal);
}

/// Takes leave of every process that has ended. The program's status, if it was among them.
fn reap(program: Pid) -> Option<ExitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == program {
            ended = exit_status(status);
        }
    }
    ended
}

fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(ExitStatus::Code(code as u8)),
        (None, Some(signal)) => Some(ExitStatus::Signal(signal)),
        (None, None) => None,
    }
}

/// Ends everything else, so that who hears of the end knows that no file changes any more.
fn end(socket: &Socket, status: ExitStatus) -> ! {
    // From process 1, -1 means everyone else in the container.
    if send(-1, Signal::KILL.as_raw()).is_ok() {
        while let Ok(_) | Err(Errno::INTR) = wait(WaitOptions::empty()) {}
        // Those that entered are somebody else's children, who takes leave of them; one that is stopped holds nobody up.
        let mut patience = ENTRANTS_PATIENCE;
        while send(-1, 0).is_ok() && patience > 0 {
            patience -= 1;
            let _interrupted = nanosleep(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
        }
    }
    if let Ok(ibid_sys::usage::Usage { peak_memory, cpu_micros }) = ibid_sys::usage::of_children() {
        let _starter_may_be_dead = socket.send(&Report::Usage { peak_memory, cpu_micros }, None);
    }
    let _starter_may_be_dead = socket.send(&Report::of(status), None);
    exit_now(0)
}
