//! Where an engine listens: what people have set up for its own command line counts here too.
//!
//! | engine | in this order |
//! |---|---|
//! | Docker | `DOCKER_HOST`; the context that `DOCKER_CONTEXT` or `~/.docker/config.json` names; `/var/run/docker.sock`; `$XDG_RUNTIME_DIR/docker.sock` |
//! | Podman | `CONTAINER_HOST`; `$XDG_RUNTIME_DIR/podman/podman.sock` without root; `/run/podman/podman.sock` |

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use serde_json::Value;

use super::{Error, Kind};

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A port of this machine.
    Port(IpAddr, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Port(address, port) => write!(f, "{address}:{port}"),
        }
    }
}

impl Address {
    /// Connects.
    pub(crate) fn connect(&self) -> std::io::Result<File> {
        let socket: OwnedFd = match self {
            Self::Unix(path) => UnixStream::connect(path)?.into(),
            Self::Port(address, port) => TcpStream::connect((*address, *port))?.into(),
        };
        Ok(File::from(socket))
    }
}

/// An address, and what named it when it is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: Address,
    pub(crate) named_by: Option<String>,
}

/// Finds the address. `variable` looks up the environment; `uid` is the person's.
pub(crate) fn find(kind: Kind, uid: u32, variable: &dyn Fn(&str) -> Option<String>) -> Result<Place, Error> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let host = if kind == Kind::Docker { "DOCKER_HOST" } else { "CONTAINER_HOST" };
    if let Some(text) = set(host) {
        return named(&text, host);
    }
    if kind == Kind::Docker
        && let Some(place) = of_context(&set)?
    {
        return Ok(place);
    }
    let runtime =
        set("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
    let tried = match kind {
        Kind::Docker => vec![PathBuf::from("/var/run/docker.sock"), runtime.join("docker.sock")],
        Kind::Podman if uid == 0 => vec![PathBuf::from("/run/podman/podman.sock")],
        Kind::Podman => vec![runtime.join("podman/podman.sock"), PathBuf::from("/run/podman/podman.sock")],
    };
    match tried.iter().find(|path| path.exists()) {
        Some(path) => Ok(Place { address: Address::Unix(path.clone()), named_by: None }),
        None => Err(Error::NoSocket { kind, tried, is_ordinary: uid != 0 }),
    }
}

/// Reads `unix://PATH`, or `tcp://HOST:PORT` of this machine; other machines are refused.
fn named(text: &str, by: &str) -> Result<Place, Error> {
    let wrong = |problem: String| Error::Address { named_by: by.to_owned(), problem };
    let elsewhere = || Error::Elsewhere { address: text.to_owned(), named_by: by.to_owned() };
    let address = match text.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Address::Unix(path.into()),
        Some(("tcp" | "http", rest)) => {
            let rest = rest.trim_end_matches('/');
            let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "2375"));
            let port = port.parse().map_err(|_| wrong(format!("`{text}` has no valid port")))?;
            let host = host.trim_matches(['[', ']']);
            let address =
                if host == "localhost" { Ok([127, 0, 0, 1].into()) } else { host.parse::<IpAddr>() };
            match address {
                Ok(address) if address.is_loopback() => Address::Port(address, port),
                _ => return Err(elsewhere()),
            }
        }
        Some(("https" | "ssh", _)) => return Err(elsewhere()),
        _ => {
            return Err(wrong(format!(
                "`{text}` is no address: expected unix:///PATH or tcp://127.0.0.1:PORT"
            )));
        }
    };
    Ok(Place { address, named_by: Some(by.to_owned()) })
}

/// The address of Docker's current context, unless that is the usual one.
fn of_context(set: &dyn Fn(&str) -> Option<String>) -> Result<Option<Place>, Error> {
    let folder = set("DOCKER_CONFIG").map(PathBuf::from);
    let Some(folder) = folder.or_else(|| Some(PathBuf::from(set("HOME")?).join(".docker"))) else {
        return Ok(None);
    };
    let (name, by) = match set("DOCKER_CONTEXT") {
        Some(name) => (name, "DOCKER_CONTEXT".to_owned()),
        None => {
            let path = folder.join("config.json");
            let Some(document) = read(&path)? else { return Ok(None) };
            match document["currentContext"].as_str() {
                Some(name) => (name.to_owned(), format!("the context `{name}` of {}", path.display())),
                None => return Ok(None),
            }
        }
    };
    if name.is_empty() || name == "default" {
        return Ok(None);
    }
    let path = folder.join("contexts/meta").join(Digest::of(name.as_bytes()).hex()).join("meta.json");
    let Some(document) = read(&path)? else {
        return Err(Error::Address {
            named_by: by,
            problem: format!("there is no context `{name}`: `docker context ls` lists them"),
        });
    };
    match document["Endpoints"]["docker"]["Host"].as_str() {
        Some(host) => named(host, &by).map(Some),
        None => Err(Error::Address { named_by: by, problem: format!("{} names no address", path.display()) }),
    }
}

/// A JSON file; none when there is none.
fn read(path: &Path) -> Result<Option<Value>, Error> {
    let wrong = |problem: String| Error::Address { named_by: path.display().to_string(), problem };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// The group that may use a socket, where it can be told.
pub(crate) fn group(address: &Address) -> Option<String> {
    let Address::Unix(path) = address else { return None };
    let gid = std::fs::metadata(path).ok()?.gid();
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    // A user namespace shows the ids that it lacks as nobody's.
    ibid_core::user::group_entries(&groups)
        .find(|(name, known, _)| *known == gid && *known != 0 && !name.starts_with("no"))
        .map(|(name, ..)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, set: &[(&str, &str)], expected: Result<(&str, Option<&str>), &str>) {
        let variable =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        match (find(kind, 77, &variable), expected) {
            (Ok(place), Ok((address, by))) => {
                assert_eq!((place.address.to_string().as_str(), place.named_by.as_deref()), (address, by));
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn variables_name_a_socket_of_this_machine() {
        let docker = |text: &str, expected| check(Kind::Docker, &[("DOCKER_HOST", text)], expected);
        docker("unix:///x/d.sock", Ok(("/x/d.sock", Some("DOCKER_HOST"))));
        docker("tcp://127.0.0.1:2375", Ok(("127.0.0.1:2375", Some("DOCKER_HOST"))));
        docker("tcp://localhost", Ok(("127.0.0.1:2375", Some("DOCKER_HOST"))));
        docker("tcp://[::1]:1", Ok(("::1:1", Some("DOCKER_HOST"))));
        docker("tcp://lab.org:2376", Err("another machine"));
        docker("tcp://10.0.0.1:2376", Err("another machine"));
        docker("ssh://me@lab", Err("another machine"));
        docker("tcp://localhost:x", Err("no valid port"));
        docker("unix://relative", Err("is no address"));
        docker("nonsense", Err("is no address"));
        check(
            Kind::Podman,
            &[("CONTAINER_HOST", "unix:///p"), ("DOCKER_HOST", "unix:///d")],
            Ok(("/p", Some("CONTAINER_HOST"))),
        );
    }

    #[test]
    fn contexts_of_docker_count() {
        let place = tempfile::tempdir().expect("a folder");
        let home = place.path().to_str().expect("UTF-8");
        let lab = Digest::of(b"lab").hex();
        let meta = place.path().join(".docker/contexts/meta").join(lab);
        std::fs::create_dir_all(&meta).expect("made");
        let host = r#"{"Name":"lab","Endpoints":{"docker":{"Host":"unix:///lab.sock"}}}"#;
        std::fs::write(meta.join("meta.json"), host).expect("written");
        check(
            Kind::Docker,
            &[("HOME", home), ("DOCKER_CONTEXT", "lab")],
            Ok(("/lab.sock", Some("DOCKER_CONTEXT"))),
        );
        check(Kind::Docker, &[("HOME", home), ("DOCKER_CONTEXT", "none")], Err("there is no context `none`"));
        let config = place.path().join(".docker/config.json");
        std::fs::write(&config, r#"{"currentContext": "lab"}"#).expect("written");
        let by = format!("the context `lab` of {}", config.display());
        check(Kind::Docker, &[("HOME", home)], Ok(("/lab.sock", Some(&by))));
        // As for Docker's own command line, the variable with an address goes first.
        check(
            Kind::Docker,
            &[("HOME", home), ("DOCKER_CONTEXT", "lab"), ("DOCKER_HOST", "unix:///d")],
            Ok(("/d", Some("DOCKER_HOST"))),
        );
        std::fs::write(&config, "{").expect("written");
        check(Kind::Docker, &[("HOME", home)], Err("config.json: "));
    }

    #[test]
    fn where_nothing_listens_is_told() {
        let place = tempfile::tempdir().expect("a folder");
        let runtime = place.path().to_str().expect("UTF-8");
        let at = format!("there is no {runtime}/podman/podman.sock");
        check(Kind::Podman, &[("XDG_RUNTIME_DIR", runtime)], Err(&at));
        let socket = place.path().join("podman/podman.sock");
        std::fs::create_dir_all(place.path().join("podman")).expect("made");
        std::fs::write(&socket, "").expect("written");
        check(Kind::Podman, &[("XDG_RUNTIME_DIR", runtime)], Ok((socket.to_str().expect("UTF-8"), None)));
    }
}
