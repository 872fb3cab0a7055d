//! Why Docker or Podman could not execute a run, and what to do about it.

use std::path::PathBuf;

use super::Kind;

/// Why an engine did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is where its socket would be.
    #[error("{kind} does not run here: there is no {}", tried.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and no "))]
    NoSocket {
        /// Which engine.
        kind: Kind,
        /// Where its socket was looked for.
        tried: Vec<PathBuf>,
        /// Whether a person without root asks.
        is_ordinary: bool,
    },
    /// The socket is there, and cannot be used.
    #[error("cannot reach {kind} at {address}{}", named(named_by.as_deref()))]
    Unreachable {
        /// Which engine.
        kind: Kind,
        /// Its address.
        address: String,
        /// What named the address, when it is not the usual one.
        named_by: Option<String>,
        /// The group that may use the socket.
        group: Option<String>,
        /// Whether a person without root asks.
        is_ordinary: bool,
        /// The system's word.
        source: std::io::Error,
    },
    /// The address is that of another machine.
    #[error("{named_by} is {address}: an engine on another machine does not have this project's folders")]
    Elsewhere {
        /// The address.
        address: String,
        /// What names it.
        named_by: String,
    },
    /// What names an address cannot be read.
    #[error("{named_by}: {problem}")]
    Address {
        /// A variable, or a file.
        named_by: String,
        /// What is wrong.
        problem: String,
    },
    /// The connection broke.
    #[error("{kind} at {address} does not answer as it should")]
    Connection {
        /// Which engine.
        kind: Kind,
        /// Its address.
        address: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// It refused.
    #[error("{kind} cannot {action}: {message}")]
    Refused {
        /// Which engine.
        kind: Kind,
        /// What was asked for.
        action: &'static str,
        /// What it said.
        message: String,
    },
    /// What this engine cannot do as ibid's own does it.
    #[error("not on {kind}: {what}")]
    Unable {
        /// Which engine.
        kind: Kind,
        /// What, and why.
        what: String,
    },
    /// This program's own file, which is process 1 of a container, cannot be found.
    #[error("cannot find ibid's own program file, which containers of {kind} start with")]
    OwnProgram {
        /// Which engine.
        kind: Kind,
        /// The system's word.
        source: std::io::Error,
    },
    /// Signals or streams of this process.
    #[error("cannot {action}")]
    Own {
        /// What was tried.
        action: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
}

fn named(by: Option<&str>) -> String {
    by.map(|by| format!(", which {by} names")).unwrap_or_default()
}

impl Error {
    /// The command that mends it, or what else to do.
    pub fn mend(&self) -> Option<String> {
        let own = Some("`--engine native` needs no other engine".to_owned());
        match self {
            Self::NoSocket { kind, is_ordinary, .. } => Some(start(*kind, *is_ordinary)),
            Self::Unreachable { kind, group, is_ordinary, source, named_by, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => Some(match named_by {
                    Some(by) => format!(
                        "nothing listens where {by} says: change it, or {}",
                        start(*kind, *is_ordinary)
                    ),
                    None => start(*kind, *is_ordinary),
                }),
                std::io::ErrorKind::PermissionDenied => Some(match kind {
                    Kind::Docker => format!(
                        "its group may use it: `sudo usermod -aG {} $USER`, then log in again; who may use it can become root",
                        group.as_deref().unwrap_or("docker")
                    ),
                    Kind::Podman => start(*kind, *is_ordinary),
                }),
                std::io::ErrorKind::ConnectionRefused => {
                    Some(format!("nobody listens there any more: {}", start(*kind, *is_ordinary)))
                }
                _ => Some(start(*kind, *is_ordinary)),
            },
            Self::Elsewhere { named_by, .. } => Some(format!("`{}`, or `--engine native`", undo(named_by))),
            Self::Unable { .. } | Self::OwnProgram { .. } => own,
            _ => None,
        }
    }
}

/// How to get from another machine's engine back to this one's.
fn undo(named_by: &str) -> String {
    match named_by {
        "DOCKER_HOST" | "CONTAINER_HOST" | "DOCKER_CONTEXT" => format!("unset {named_by}"),
        _ => "DOCKER_CONTEXT=default".to_owned(),
    }
}

/// How an engine is started.
fn start(kind: Kind, is_ordinary: bool) -> String {
    match (kind, is_ordinary) {
        (Kind::Docker, _) => "`sudo systemctl start docker`".to_owned(),
        (Kind::Podman, true) => {
            "`systemctl --user start podman.socket`, or `podman system service -t 0 &`".to_owned()
        }
        (Kind::Podman, false) => {
            "`systemctl start podman.socket`, or `podman system service -t 0 &`".to_owned()
        }
    }
}
