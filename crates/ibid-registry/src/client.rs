//! The client: what is set up, and the servers that are spoken to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ibid_core::reference::Reference;
use ibid_fetch::{Network, Trust};

use crate::certificates;
use crate::configuration::{Configuration, Source};
use crate::credentials::{Credential, Credentials};
use crate::endpoint::{Call, Endpoint};
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::settings::Settings;

/// Something that happens, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A request failed and is made again.
    Retry {
        /// What was asked for.
        url: &'a str,
        /// Why it failed.
        reason: &'a str,
        /// When it is made again, milliseconds.
        wait_ms: u64,
    },
    /// A mirror could not be used; the next place is asked.
    MirrorFailed {
        /// Its host.
        host: &'a str,
        /// Why not.
        reason: String,
    },
    /// Another process fetches the same blob; its end is awaited.
    Waiting,
    /// It is known which layers an image has, and how many bytes of them have to be transferred.
    Layers {
        /// All of them.
        layers: usize,
        /// Those that have to be.
        wanted: usize,
        /// Bytes of those, compressed; 0 when that is not known yet.
        bytes: u64,
    },
    /// So many bytes more have to be transferred.
    Wanted(u64),
    /// So many bytes more were transferred; fewer than none when some have to be transferred again.
    Bytes(i64),
}

/// Speaks to registries. Used from several threads at once.
pub struct Client<'a> {
    settings: Settings,
    network: Network,
    configuration: Configuration,
    credentials: Credentials,
    endpoints: Mutex<BTreeMap<(String, bool), Arc<Endpoint>>>,
    agents: Mutex<BTreeMap<(String, bool), ureq::Agent>>,
    /// Held while a layer is compressed: that takes all processors by itself, and memory for each of them.
    pub(crate) compressing: Mutex<()>,
    tell: &'a (dyn Fn(Event) + Sync),
}

impl<'a> Client<'a> {
    /// Reads what is set up. `tell` hears what happens.
    pub fn new(settings: Settings, tell: &'a (dyn Fn(Event) + Sync)) -> Result<Self> {
        Ok(Self {
            network: settings.network(),
            configuration: Configuration::read(&settings)?,
            credentials: Credentials::new(&settings),
            settings,
            endpoints: Mutex::default(),
            agents: Mutex::default(),
            compressing: Mutex::default(),
            tell,
        })
    }

    /// The places of a repository: mirrors first.
    pub(crate) fn sources(&self, reference: &Reference) -> Result<Vec<Repository<'_>>> {
        let sources = self.configuration.sources(reference)?;
        Ok(sources.into_iter().map(|source| self.repository_at(source)).collect())
    }

    /// The place that a repository really is at, where things can be pushed.
    pub fn repository(&self, reference: &Reference) -> Result<Repository<'_>> {
        let sources = self.configuration.sources(reference)?;
        let source = sources.into_iter().next_back().expect("the place itself is always one");
        Ok(self.repository_at(source))
    }

    fn repository_at(&self, source: Source) -> Repository<'_> {
        let mut endpoints = lock(&self.endpoints);
        let key = (source.host.clone(), source.is_insecure);
        let endpoint =
            endpoints.entry(key).or_insert_with(|| Arc::new(Endpoint::new(&source.host, source.is_insecure)));
        Repository {
            client: self,
            endpoint: Arc::clone(endpoint),
            name: source.repository,
            is_mirror: source.is_mirror,
        }
    }

    /// Keeps a credential, when the registry takes it. Says where.
    pub fn login(&self, registry: &str, credential: &Credential) -> Result<String> {
        let repository = self.repository(&any_repository(registry)?)?;
        let endpoint = &repository.endpoint;
        endpoint.set_credential(credential.clone());
        let url = format!("{}/v2/", endpoint.base(self)?);
        let asked = endpoint.call(self, &Call::get(&url, &[])).and_then(|answer| answer.expect(&[200], &url));
        asked.map_err(|error| match error {
            Error::Unauthorized { registry, had_credentials, reason, .. } => {
                Error::Unauthorized { registry, what: "the login".to_owned(), had_credentials, reason }
            }
            error => error,
        })?;
        self.credentials.put(endpoint.host(), credential)
    }

    /// Forgets a registry's credential. Says where one was, and which other program's file still has one.
    pub fn logout(&self, registry: &str) -> Result<(Option<String>, Option<std::path::PathBuf>)> {
        self.credentials.forget(&any_repository(registry)?.registry)
    }

    pub(crate) fn credential(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        self.credentials.find(host, repository)
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.tell)(event);
    }

    /// Who speaks to a host, with what is trusted there. `is_blind` takes any certificate.
    pub(crate) fn agent(&self, host: &str, scheme: &str, is_blind: bool) -> Result<ureq::Agent> {
        let key = (format!("{scheme}://{host}"), is_blind);
        if let Some(agent) = lock(&self.agents).get(&key) {
            return Ok(agent.clone());
        }
        let proxy = if is_local(host) { None } else { self.network.proxy(scheme, host_name(host)) };
        let is_plain = scheme == "http" && proxy.is_none();
        let trust = if is_plain {
            None
        } else {
            Some(Trust { is_blind, ..certificates::trust(&self.settings, host)? })
        };
        let agent = self.network.agent(proxy.as_deref(), trust)?;
        lock(&self.agents).insert(key, agent.clone());
        Ok(agent)
    }
}

/// A reference in a registry, whichever.
fn any_repository(registry: &str) -> Result<Reference> {
    let host = registry.trim_start_matches("https://").trim_end_matches('/');
    let host = if host == "index.docker.io/v1" { "docker.io" } else { host };
    let text = format!("{host}/any/any");
    let reference = text.parse::<Reference>().ok().filter(|reference| reference.repository == "any/any");
    reference.ok_or_else(|| Error::NotFound {
        registry: registry.to_owned(),
        what: "a registry of that name: expected HOST or HOST:PORT, and what it has".to_owned(),
    })
}

/// A host without its port.
pub(crate) fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// Whether a host is this machine.
pub(crate) fn is_local(host: &str) -> bool {
    let name = host_name(host).trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_names() {
        for local in
            ["localhost", "localhost:5000", "LOCALHOST", "127.0.0.1:1", "127.9.9.9", "[::1]:5000", "[::1]"]
        {
            assert!(is_local(local), "{local}");
        }
        for other in ["localhost.org", "10.0.0.1", "[::2]", "127.0.0.1.org", "docker.io"] {
            assert!(!is_local(other), "{other}");
        }
    }
}
