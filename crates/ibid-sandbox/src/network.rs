//! A network of a container's own, joined with the host's by `pasta` (passt.top), which needs no root.
//!
//! ```text
//! starter                         attendant (this binary, executed anew)       pasta
//! ───────                         ──────────────────────────────────────       ─────
//! opens the container's
//! network namespace ─────────────→ binds it to a path in a mount namespace
//!                                  of its own
//!                                  starts ────────────────────────────────────→ joins the namespace
//!   ←───────────── ready ───────── a pipe in place of the file for its number ←─ listens
//! closes the socket, or dies ────→ ends it
//! ```
//!
//! The attendant is there because `pasta` gives up what ties it to the life of its starter when it changes its rights.

use std::ffi::CString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ibid_sys::clone::{Child, Launch, Namespaces, launch};
use ibid_sys::exec::CStrings;
use ibid_sys::{Errno, exit_now};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::error::Error;
use crate::spec::Forward;
use crate::userns;

/// The attendant's own name. A process of ours whose first argument it is, is one.
pub(crate) const NAME: &str = "ibid-network";

/// Where a container's private network sends questions for names: `pasta` asks the host's servers.
pub(crate) const NAME_SERVER: &str = "169.254.1.1";

/// The network of one container. Dropping it ends what joins it with the host's.
#[derive(Debug)]
pub(crate) struct Joined {
    socket: Option<UnixStream>,
    attendant: Child,
}

fn failed(reason: impl Into<String>) -> Error {
    Error::Network { reason: reason.into(), mend: None }
}

fn system(what: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| failed(format!("cannot {what}: {}", std::io::Error::from(errno)))
}

/// The program, or what to install.
pub(crate) fn find_pasta() -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path).map(|folder| folder.join("pasta")).find(|file| file.is_file()).ok_or_else(
        || Error::Network {
            reason: "the program `pasta` is not installed".to_owned(),
            mend: Some(userns::install("passt", "passt", "passt")),
        },
    )
}

/// Joins the network of a process, which owns a user namespace of its own or is in this one, with the host's. Returns when
/// it works.
pub(crate) fn join(pasta: &Path, process: u32, nested: bool, ports: &[Forward]) -> Result<Joined, Error> {
    let namespace = |name: &str| {
        let path = format!("/proc/{process}/ns/{name}");
        openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(system("open the run's network"))
    };
    let network = namespace("net")?;
    let user = nested.then(|| namespace("user")).transpose()?;
    let (mut ours, theirs) =
        UnixStream::pair().map_err(|error| failed(format!("cannot make a socket: {error}")))?;
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(system("open /dev/null"))?;
    let mut descriptors = vec![null.as_fd(), null.as_fd(), null.as_fd(), theirs.as_fd(), network.as_fd()];
    descriptors.extend(user.as_ref().map(|user| user.as_fd()));
    let mut words = vec![NAME.to_owned(), (descriptors.len() - 3).to_string(), pasta.display().to_string()];
    words.extend(arguments(ports));
    let words = words.into_iter().map(CString::new).collect::<Result<_, _>>();
    let attendant = launch(&Launch {
        argv: &CStrings::new(words.map_err(|_| failed("a path holds a zero byte"))?),
        env: &CStrings::new(Vec::new()),
        descriptors: &descriptors,
        namespaces: Namespaces { mount: true, ..Namespaces::default() },
        keep_capabilities: !rustix::process::geteuid().is_root(),
        known_as: None,
        own_ids: userns::host_ids(),
        within: None,
    })
    .map_err(system("start a process"))?;
    drop(theirs);
    let mut answer = Vec::new();
    let mut byte = [0];
    // Ready is one byte; else it says why not, and leaves.
    match ours.read(&mut byte) {
        Ok(1) if byte[0] == READY => return Ok(Joined { socket: Some(ours), attendant }),
        Ok(1) => answer.push(byte[0]),
        _ => {}
    }
    let _what_there_is = ours.read_to_end(&mut answer);
    drop(Joined { socket: Some(ours), attendant });
    let said = String::from_utf8_lossy(&answer).into_owned();
    // Where no system log listens, every line is followed by a complaint about that.
    let lines: Vec<&str> =
        said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains("syslog")).collect();
    Err(failed(if lines.is_empty() {
        "`pasta` ended without a word".to_owned()
    } else {
        format!("pasta: {}", lines.join("; "))
    }))
}

const READY: u8 = 0;

/// What `pasta` is to do with ports: those that are asked for come in, and the run reaches none of the host's own.
fn arguments(ports: &[Forward]) -> Vec<String> {
    let mut words: Vec<String> =
        ["--config-net", "--foreground", "--quiet", "--no-map-gw", "--dns-forward", NAME_SERVER]
            .map(str::to_owned)
            .to_vec();
    for (option, udp) in [("-t", false), ("-u", true)] {
        let before = words.len();
        for port in ports.iter().filter(|port| port.udp == udp) {
            let address = port.address.map(|address| format!("{address}/")).unwrap_or_default();
            words.extend([option.to_owned(), format!("{address}{}:{}", port.host, port.container)]);
        }
        if words.len() == before {
            words.extend([option, "none"].map(str::to_owned));
        }
    }
    words.extend(["-T", "none", "-U", "none"].map(str::to_owned));
    words
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.socket = None;
        while matches!(waitid(WaitId::PidFd(self.attendant.as_fd()), WaitIdOptions::EXITED), Err(Errno::INTR))
        {
        }
    }
}

/// In the attendant: starts `pasta`, says when it is ready, and ends it when the starter is gone.
pub(crate) fn attend(mut arguments: impl Iterator<Item = String>, descriptors: Vec<OwnedFd>) -> ! {
    let mut descriptors = descriptors.into_iter();
    let (Some(socket), Some(network)) = (descriptors.next(), descriptors.next()) else { exit_now(125) };
    let mut socket = UnixStream::from(socket);
    // What a terminal sends to its foreground is not for this.
    let _has_one = rustix::process::setsid();
    let mut tell = |said: &[u8]| {
        // The starter may be gone; then nobody wants to hear it.
        let _ = socket.write_all(said);
    };
    let started = arguments
        .next()
        .ok_or_else(|| "no program is named".to_owned())
        .and_then(|pasta| start(&pasta, arguments, &network, descriptors.next().as_ref()));
    let (mut child, ready) = match started {
        Ok(started) => started,
        Err(error) => {
            tell(error.as_bytes());
            exit_now(125)
        }
    };
    let Ok(pasta) = rustix::process::pidfd_open(
        rustix::process::Pid::from_child(&child),
        rustix::process::PidfdFlags::empty(),
    ) else {
        exit_now(125)
    };
    let mut is_ready = false;
    loop {
        let mut events = [
            PollFd::new(&pasta, PollFlags::IN),
            PollFd::new(&socket, PollFlags::IN),
            PollFd::new(&ready, if is_ready { PollFlags::empty() } else { PollFlags::IN }),
        ];
        match poll(&mut events, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        let [ended, gone, wrote] = events.map(|event| !event.revents().is_empty());
        if gone {
            break;
        }
        if ended {
            let mut said = String::new();
            if let Some(stderr) = &mut child.stderr {
                let _what_there_is = stderr.read_to_string(&mut said);
            }
            if !is_ready {
                // Its end alone is no byte that could be taken for being ready.
                let _ = socket.write_all(if said.is_empty() { b"\n" } else { said.as_bytes() });
            }
            exit_now(1);
        }
        if wrote {
            is_ready = true;
            let _ = socket.write_all(&[READY]);
        }
    }
    let _already_dead = pidfd_send_signal(&pasta, Signal::KILL);
    let _ = child.wait();
    exit_now(0)
}

/// Starts it. It gets paths, as newer versions close what they find open, and it may look at no other process.
fn start(
    pasta: &str,
    arguments: impl Iterator<Item = String>,
    network: &OwnedFd,
    user: Option<&OwnedFd>,
) -> Result<(std::process::Child, OwnedFd), String> {
    const FOLDER: &str = "/tmp";
    let failed = |what: &str| {
        let what = what.to_owned();
        move |errno: Errno| format!("cannot {what}: {}", std::io::Error::from(errno))
    };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("separate the mounts"))?;
    mount("tmpfs", FOLDER, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755")
        .map_err(failed("make a folder for pasta"))?;
    let bind = |name: &str, namespace: &OwnedFd| {
        let path = format!("{FOLDER}/{name}");
        fs::write(&path, "").map_err(|error| error.to_string())?;
        mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), &path)
            .map_err(failed("show pasta the network"))?;
        Ok::<_, String>(path)
    };
    let mut command = Command::new(pasta);
    command.args(arguments).arg("--netns").arg(bind("net", network)?);
    match user {
        Some(user) => command.arg("--userns").arg(bind("user", user)?),
        None => command.arg("--netns-only"),
    };
    if rustix::process::geteuid().is_root() {
        // As anybody else it may not join the network of root's.
        command.args(["--runas", "0"]);
    }
    let pipe = format!("{FOLDER}/ready");
    rustix::fs::mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).map_err(failed("make a pipe"))?;
    let ready = openat(CWD, &pipe, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open a pipe"))?;
    command.arg("--pid").arg(&pipe);
    ibid_sys::signal::reset();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start `{pasta}`: {error}"))?;
    Ok((child, ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_that_are_asked_for_come_in() {
        let text = |ports: &[Forward]| arguments(ports)[6..].join(" ");
        assert_eq!(text(&[]), "-t none -u none -T none -U none");
        let one = Forward { address: None, host: 8080, container: 80, udp: false };
        let local = Forward { address: Some("127.0.0.1".parse().expect("an address")), udp: true, ..one };
        assert_eq!(text(&[one, local]), "-t 8080:80 -u 127.0.0.1/8080:80 -T none -U none");
    }
}
