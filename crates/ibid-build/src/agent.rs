//! The socket of an agent, as a step sees it (draft-miller-ssh-agent, section 3).
//!
//! The step gets a socket of its own, with the owner and mode that its mount asks for; what is said there is passed on
//! to the person's agent by this process, whom the agent knows. A step may list keys and have data signed. It may not
//! add, remove or lock keys, and nothing else either: those requests are answered with a failure, as BuildKit does.
//!
//! ```text
//! step ─▶ its socket ─▶ this process ─▶ the person's agent
//!                       one thread a connection; all end with the step
//! ```

use std::collections::BTreeMap;
use std::io::{self, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use ibid_core::plan::Permissions;
use ibid_sys::owner;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, Mode, OFlags, chmodat};
use rustix::io::Errno;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
/// Longest message, bytes: OpenSSH's own limit.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Connections at once; more than that are closed.
const CONNECTIONS_MAX: usize = 32;

/// A socket behind which an agent answers until it is dropped.
pub(crate) struct AgentSocket {
    path: PathBuf,
    /// Closed to end the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl AgentSocket {
    /// Makes the socket `name` in `folder`.
    pub(crate) fn new(folder: &Path, name: &str, agent: &Path, permissions: Permissions) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(folder, flags, Mode::empty())?;
        // The path of a socket may have 108 bytes, less than a store's folder may need.
        let short = format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&opened));
        let listener = UnixListener::bind(short)?;
        owner::change_at(&opened, name, (permissions.uid, permissions.gid))?;
        chmodat(&opened, name, Mode::from_raw_mode(permissions.mode), AtFlags::empty())?;
        listener.set_nonblocking(true)?;
        let (stopped, stop) = io::pipe()?;
        let agent = agent.to_owned();
        let thread = std::thread::spawn(move || serve(&listener, &stopped, &agent));
        Ok(Self { path: folder.join(name), stop: Some(stop), thread: Some(thread) })
    }

    /// The socket, to be mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// Serves connections until the other end of `stopped` is closed.
fn serve(listener: &UnixListener, stopped: &impl AsFd, agent: &Path) {
    let open: Mutex<BTreeMap<u64, [UnixStream; 2]>> = Mutex::default();
    let open = || open.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for number in 0_u64.. {
            let mut ready = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                Err(_) => break,
                Ok(_) if !ready[1].revents().is_empty() => break,
                Ok(_) => {}
            }
            // A connection that cannot be served is closed; the program in the step says so.
            let Ok((client, _)) = listener.accept() else { continue };
            let Ok(server) = UnixStream::connect(agent) else { continue };
            let (Ok(one), Ok(other)) = (client.try_clone(), server.try_clone()) else { continue };
            let mut connections = open();
            if connections.len() >= CONNECTIONS_MAX {
                continue;
            }
            connections.insert(number, [one, other]);
            drop(connections);
            let open = &open;
            scope.spawn(move || {
                // An end of either side ends the connection.
                let _ = client.set_nonblocking(false).and_then(|()| pass_on(&client, &server));
                open().remove(&number);
            });
        }
        for stream in open().values().flatten() {
            // Closed already is fine.
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
}

/// Passes requests on and answers back, one after the other.
fn pass_on(mut client: &UnixStream, mut agent: &UnixStream) -> io::Result<()> {
    while let Some(request) = message(client)? {
        if matches!(request.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST))) {
            send(&mut agent, &request)?;
            let Some(answer) = message(agent)? else { return Ok(()) };
            send(&mut client, &answer)?;
        } else {
            send(&mut client, &[FAILURE])?;
        }
    }
    Ok(())
}

/// The next message; none at the end.
fn message(mut from: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message)?;
    Ok(Some(message))
}

fn send(to: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).expect("a message is short");
    to.write_all(&[&length.to_be_bytes(), message].concat())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

    use super::*;

    const OWN: Permissions = Permissions { uid: 0, gid: 0, mode: 0o600 };

    /// An agent that answers each request with itself, one more in its first byte.
    fn echo_agent(folder: &Path) -> (PathBuf, JoinHandle<()>) {
        let path = folder.join("agent");
        let listener = UnixListener::bind(&path).expect("a socket");
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            while let Ok(Some(mut request)) = message(&stream) {
                request[0] += 1;
                send(&mut stream, &request).expect("sent");
            }
        });
        (path, thread)
    }

    fn own() -> Permissions {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Permissions { uid, gid, ..OWN }
    }

    #[test]
    fn keys_are_listed_and_used_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("d".repeat(200));
        std::fs::create_dir(&deep).expect("a folder");
        let (agent, thread) = echo_agent(folder.path());
        let socket =
            AgentSocket::new(&deep, "0", &agent, Permissions { mode: 0o640, ..own() }).expect("made");
        let metadata = std::fs::metadata(socket.path()).expect("there");
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);

        let near = folder.path().join("near");
        std::os::unix::fs::symlink(&deep, &near).expect("a link");
        let mut client = UnixStream::connect(near.join("0")).expect("connected");
        let mut check = |request: &[u8], expected: &[u8]| {
            send(&mut client, request).expect("sent");
            assert_eq!(message(&client).expect("answered").as_deref(), Some(expected), "{request:?}");
        };
        check(&[11], &[12]);
        check(&[13, 1, 2], &[14, 1, 2]);
        // Adding, removing, locking, extensions, nothing at all, what nobody knows.
        for kind in [17, 18, 19, 20, 21, 22, 23, 25, 26, 27, 0, 255] {
            check(&[kind, 1], &[FAILURE]);
        }
        check(&[], &[FAILURE]);
        check(&[11, 9], &[12, 9]);
        // One that lies about its length ends the connection, and another connection is served.
        client.write_all(&u32::MAX.to_be_bytes()).expect("sent");
        assert_eq!(message(&client).ok().flatten(), None);
        drop(client);
        drop(socket);
        thread.join().expect("the agent lost its connection");
        assert!(!folder.path().join("absent").exists());
    }

    #[test]
    fn open_connections_end_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (agent, thread) = echo_agent(folder.path());
        let socket = AgentSocket::new(folder.path(), "0", &agent, own()).expect("made");
        let mut client = UnixStream::connect(socket.path()).expect("connected");
        send(&mut client, &[11]).expect("sent");
        assert_eq!(message(&client).expect("answered"), Some(vec![12]));
        drop(socket);
        assert_eq!(message(&client).ok().flatten(), None);
        thread.join().expect("the agent lost its connection");
    }

    #[test]
    fn an_agent_that_is_gone_closes_the_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket =
            AgentSocket::new(folder.path(), "0", &folder.path().join("absent"), own()).expect("made");
        let client = UnixStream::connect(socket.path()).expect("connected");
        assert_eq!(message(&client).ok().flatten(), None);
    }
}
