//! Docker and Podman as engines: the image goes to the engine once, and the run is executed through the engine's socket.
//!
//! ```text
//! RunSpec ─native::sandbox_of→ Spec ─container::create→ JSON ─socket→ a container of the engine
//! store ─image::send→ an archive with the layers that the engine lacks
//! ```
//!
//! What the container is to be is decided as for ibid's own engine, to a [`ibid_sandbox::Spec`]; here it is only said in the
//! engine's words. Process 1 is ibid's own program (`init`), so that signals, exit codes and orphans are as they are
//! without the engine. A container is removed at the end, whatever happened, unless ibid is killed before.

mod attach;
mod container;
mod error;
mod frames;
mod http;
mod image;
pub mod init;
mod person;
pub mod probe;
mod run;
mod socket;

use std::fmt;

use serde_json::Value;

pub use error::Error;
pub use image::Name;

use crate::identity::HostUser;
use http::Answer;
use socket::Address;

/// The newest version of the API whose words are used here; engines know those before theirs.
const API_MINOR_MAX: u32 = 44;
/// The oldest that has all that is used.
const API_MINOR_MIN: u32 = 40;

/// What Podman says of itself in its own words.
const PODMAN_INFO: &str = "/v4.0.0/libpod/info";

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        })
    }
}

/// Whom a number means in a container of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// The same as on the host.
    Same,
    /// Whom the container's maker says: Podman without root.
    Chosen,
    /// Root is the person, everybody else is nobody that they know: Docker without root, and Podman without subordinate ids.
    RootIsPerson,
}

/// An engine that answers.
#[derive(Debug, Clone)]
pub struct Engine {
    kind: Kind,
    address: Address,
    version: String,
    /// What its paths begin with.
    api: String,
    ids: Ids,
    /// Its containers have other ids unless that is asked for.
    remaps: bool,
    /// Whether it names images by their manifests.
    names_by_manifest: bool,
    memory_bytes: u64,
    /// Limits that it cannot keep here.
    lacking_limits: Vec<&'static str>,
}

impl Engine {
    /// Finds the engine and asks what it is. `variable` looks up the environment.
    pub fn connect(
        kind: Kind,
        host: &HostUser,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let place = socket::find(kind, host.uid, variable)?;
        let address = place.address;
        let answer =
            http::request(&address, "GET", "/version", None).map_err(|source| Error::Unreachable {
                kind,
                address: address.to_string(),
                named_by: place.named_by,
                group: socket::group(&address),
                is_ordinary: host.uid != 0,
                source,
            })?;
        let mut engine = Self {
            kind,
            address,
            version: String::new(),
            api: String::new(),
            ids: Ids::Same,
            remaps: false,
            names_by_manifest: false,
            memory_bytes: 0,
            lacking_limits: Vec::new(),
        };
        let about = engine.success("say its version", answer)?.json();
        let minor = about["ApiVersion"].as_str().and_then(|text| text.strip_prefix("1.")?.parse().ok());
        let Some(minor) = minor.filter(|minor| *minor >= API_MINOR_MIN) else {
            let known = about["ApiVersion"].as_str().unwrap_or("none");
            return Err(
                engine.unable(format!("its API has the version {known}, and 1.{API_MINOR_MIN} is needed"))
            );
        };
        engine.version = about["Version"].as_str().unwrap_or("?").to_owned();
        engine.api = format!("/v1.{}", u32::min(minor, API_MINOR_MAX));
        let info = engine.get("say what it can do", "/info")?;
        let secure = |name: &str| {
            info["SecurityOptions"].as_array().is_some_and(|options| {
                options.iter().filter_map(Value::as_str).any(|it| it.starts_with(name))
            })
        };
        engine.ids = match kind {
            Kind::Podman if info["Rootless"] == true => Ids::Chosen,
            Kind::Docker if secure("name=rootless") => Ids::RootIsPerson,
            _ => Ids::Same,
        };
        engine.remaps = secure("name=userns");
        engine.names_by_manifest = info["DriverStatus"].to_string().contains("io.containerd.snapshotter");
        engine.memory_bytes = info["MemTotal"].as_u64().unwrap_or(0);
        let limits = [("MemoryLimit", "memory"), ("CpuCfsQuota", "processors"), ("PidsLimit", "processes")];
        engine.lacking_limits =
            limits.iter().filter(|(key, _)| info[key] == false).map(|(_, name)| *name).collect();
        if kind == Kind::Podman {
            engine.ask_podman()?;
        }
        Ok(engine)
    }

    /// Asks for what Docker's words have no place for: which limits it can really keep, and whether it has ids to choose from.
    fn ask_podman(&mut self) -> Result<(), Error> {
        let answer = http::request(&self.address, "GET", PODMAN_INFO, None).map_err(self.lost())?;
        let info = self.success("say what it can do", answer)?.json();
        let has = |name: &str| {
            info["host"]["cgroupControllers"].as_array().is_some_and(|all| all.iter().any(|it| it == name))
        };
        let limits = [("memory", "memory"), ("cpu", "processors"), ("pids", "processes")];
        self.lacking_limits =
            limits.iter().filter(|(controller, _)| !has(controller)).map(|(_, name)| *name).collect();
        let mappings = info["host"]["idMappings"]["uidmap"].as_array();
        let ids: u64 = mappings.into_iter().flatten().filter_map(|mapping| mapping["size"].as_u64()).sum();
        if self.ids == Ids::Chosen && ids == 1 {
            self.ids = Ids::RootIsPerson;
        }
        Ok(())
    }

    /// Which engine.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name and version, as records have it.
    pub fn text(&self) -> String {
        format!("{} {}", self.kind.to_string().to_lowercase(), self.version)
    }

    /// Its name, version and socket, for people.
    pub fn words(&self) -> String {
        let rootless = if self.ids == Ids::Same { "" } else { ", without root" };
        format!("{} at {}{rootless}", self.version, self.address)
    }

    /// Kinds of limits that it cannot keep here.
    pub fn lacking_limits(&self) -> &[&'static str] {
        &self.lacking_limits
    }

    fn unable(&self, what: impl Into<String>) -> Error {
        Error::Unable { kind: self.kind, what: what.into() }
    }

    fn lost(&self) -> impl FnOnce(std::io::Error) -> Error {
        let (kind, address) = (self.kind, self.address.to_string());
        move |source| Error::Connection { kind, address, source }
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, Error> {
        let path = format!("{}{path}", self.api);
        http::request(&self.address, method, &path, body).map_err(self.lost())
    }

    fn success(&self, action: &'static str, answer: Answer) -> Result<Answer, Error> {
        match answer.status {
            200..=299 => Ok(answer),
            _ => Err(Error::Refused { kind: self.kind, action, message: answer.message() }),
        }
    }

    fn get(&self, action: &'static str, path: &str) -> Result<Value, Error> {
        Ok(self.success(action, self.request("GET", path, None)?)?.json())
    }

    fn post(&self, action: &'static str, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        Ok(self.success(action, self.request("POST", path, body)?)?.json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine that nobody talks to.
    pub(super) fn engine(ids: Ids) -> Engine {
        Engine {
            kind: if ids == Ids::Chosen { Kind::Podman } else { Kind::Docker },
            address: Address::Unix("/nowhere".into()),
            version: "1".to_owned(),
            api: "/v1.41".to_owned(),
            ids,
            remaps: false,
            names_by_manifest: false,
            memory_bytes: 8 << 30,
            lacking_limits: Vec::new(),
        }
    }
}
