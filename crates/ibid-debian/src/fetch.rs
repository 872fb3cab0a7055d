//! Getting files from mirrors: `http`, `https` and `file`, through the host's proxies, with its trusted
//! certificates.
//!
//! Nothing that comes is believed here: whoever asks gives the size and digest, or verifies a signature.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ibid_core::digest::{Digest, Hasher};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::{Error, io_error};
use crate::host::Host;
use crate::proxied;

/// How often a file is asked for before its failure counts.
const TRIES: usize = 3;
const CONNECT_SECONDS_MAX: u64 = 15;
const SILENCE_SECONDS_MAX: u64 = 60;
const BUFFER_BYTES: usize = 128 << 10;

/// Fetches files. Used from several threads at once.
pub(crate) struct Transport<'a> {
    host: &'a Host,
    /// An agent for each proxy, and one without.
    agents: Mutex<BTreeMap<Option<String>, ureq::Agent>>,
}

/// Why one try failed.
enum Failure {
    /// The file is not there; asking again is of no use.
    NotFound,
    /// Something that may pass.
    Passing(String),
    /// Fewer bytes than promised; that may pass too.
    Truncated { found: u64, expected: u64 },
    /// Something that will not.
    Final(Error),
}

impl<'a> Transport<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host, agents: Mutex::default() }
    }

    /// A whole file of at most `limit` bytes.
    pub(crate) fn bytes(&self, url: &str, limit: u64) -> Result<Vec<u8>, Error> {
        self.try_several(url, |body| {
            let mut bytes = Vec::new();
            body.take(limit + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::Passing(error.to_string()))?;
            if bytes.len() as u64 > limit {
                return Err(Failure::Final(Error::TooLong { url: url.to_owned(), limit }));
            }
            Ok(bytes)
        })
    }

    /// A whole file of known size and digest, in memory.
    pub(crate) fn verified_bytes(&self, url: &str, size: u64, digest: Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.try_several(url, |body| {
            let mut bytes = Vec::with_capacity(usize::try_from(size.min(64 << 20)).unwrap_or(0));
            copy(url, body, size, &|_| {}, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })?;
            Ok(bytes)
        })?;
        check_digest(url, Digest::of(&bytes), digest)?;
        Ok(bytes)
    }

    /// Writes a file of known size and digest to `path`, which must not exist. On failure nothing is left there.
    /// `received` hears of bytes as they come, and of the same number taken back when a try failed.
    pub(crate) fn file(
        &self,
        url: &str,
        path: &Path,
        size: u64,
        digest: Digest,
        received: &dyn Fn(i64),
    ) -> Result<(), Error> {
        let outcome = self
            .try_several(url, |body| {
                let failed = |error| Failure::Final(io_error(path)(error));
                let mut file = std::fs::File::create(path).map_err(failed)?;
                let mut hasher = Hasher::default();
                let so_far = std::cell::Cell::new(0);
                let outcome = copy(
                    url,
                    body,
                    size,
                    &|count| {
                        so_far.set(so_far.get() + count);
                        received(count);
                    },
                    |part| {
                        hasher.update(part);
                        file.write_all(part).map_err(|error| io_error(path)(error))
                    },
                );
                if outcome.is_err() {
                    received(-so_far.get());
                }
                outcome.map(|()| hasher.finish())
            })
            .and_then(|found| check_digest(url, found, digest));
        if outcome.is_err() {
            let _ = std::fs::remove_file(path);
        }
        outcome
    }

    fn try_several<T>(
        &self,
        url: &str,
        mut take: impl FnMut(&mut dyn Read) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut last = Error::Unreachable { url: shown(url), reason: String::new() };
        for _ in 0..TRIES {
            match self.open(url).and_then(|mut body| take(&mut *body)) {
                Ok(value) => return Ok(value),
                Err(Failure::NotFound) => return Err(Error::NotFound { url: shown(url) }),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => last = Error::Unreachable { url: shown(url), reason },
                Err(Failure::Truncated { found, expected }) => {
                    last = Error::Truncated { url: shown(url), found, expected };
                }
            }
        }
        Err(last)
    }

    fn open(&self, url: &str) -> Result<Box<dyn Read>, Failure> {
        if let Some(path) = local_path(url) {
            return match std::fs::File::open(&path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Failure::NotFound),
                Err(error) => Err(Failure::Final(io_error(&path)(error))),
            };
        }
        let unsupported = |reason: &str| {
            Failure::Final(Error::UnsupportedUri { uri: shown(url), reason: reason.to_owned() })
        };
        let uri: ureq::http::Uri = url.parse().map_err(|_| unsupported("malformed"))?;
        let (Some(scheme), Some(server)) = (uri.scheme_str(), uri.host()) else {
            return Err(unsupported("no scheme or no host"));
        };
        let proxy = match scheme {
            "http" | "https" => self.host.proxy(scheme, server),
            _ => return Err(unsupported("only http, https, file and mirror lists are supported")),
        };
        if scheme == "http"
            && let Some(proxy) = proxy.as_deref().and_then(proxied::Proxy::parse)
        {
            return match proxied::open(&proxy, &uri) {
                Ok(body) => Ok(Box::new(body)),
                Err(proxied::Failure::Status(404 | 410)) => Err(Failure::NotFound),
                Err(proxied::Failure::Status(status)) => {
                    Err(Failure::Passing(format!("the proxy answered with status {status}")))
                }
                Err(proxied::Failure::Io(error)) => Err(Failure::Passing(format!("proxy: {error}"))),
            };
        }
        match self.agent(proxy)?.get(uri).call() {
            Ok(response) => Ok(Box::new(response.into_body().into_reader())),
            Err(ureq::Error::StatusCode(404 | 410)) => Err(Failure::NotFound),
            Err(ureq::Error::StatusCode(status)) => {
                Err(Failure::Passing(format!("the server answered with status {status}")))
            }
            Err(error) => Err(Failure::Passing(error.to_string())),
        }
    }

    fn agent(&self, proxy: Option<String>) -> Result<ureq::Agent, Failure> {
        let mut agents = self.agents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(agent) = agents.get(&proxy) {
            return Ok(agent.clone());
        }
        let unsupported = |uri: &str, error: ureq::Error| {
            Failure::Final(Error::UnsupportedUri { uri: shown(uri), reason: error.to_string() })
        };
        let through =
            proxy.as_deref().map(|uri| ureq::Proxy::new(uri).map_err(|error| unsupported(uri, error)));
        let config = ureq::Agent::config_builder()
            .proxy(through.transpose()?)
            .tls_config(self.tls().map_err(Failure::Final)?)
            .user_agent("ibid")
            .max_idle_connections_per_host(8)
            .timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
            .timeout_resolve(Some(Duration::from_secs(CONNECT_SECONDS_MAX)))
            .timeout_recv_response(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))
            .timeout_per_read(Some(Duration::from_secs(SILENCE_SECONDS_MAX)))
            .build();
        let agent = config.new_agent();
        agents.insert(proxy, agent.clone());
        Ok(agent)
    }

    /// TLS with the certificates that the host trusts. Without a bundle there are none, and `https` fails.
    fn tls(&self) -> Result<TlsConfig, Error> {
        let mut certificates: Vec<Certificate<'static>> = Vec::new();
        if let Some(path) = self.host.certificate_bundle() {
            let pem = std::fs::read(&path).map_err(io_error(&path))?;
            for item in parse_pem(&pem).flatten() {
                if let PemItem::Certificate(certificate) = item {
                    certificates.push(certificate);
                }
            }
        }
        Ok(TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&certificates))
            .build())
    }
}

/// Copies exactly `size` bytes.
fn copy(
    url: &str,
    body: &mut dyn Read,
    size: u64,
    received: &dyn Fn(i64),
    mut write: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Failure> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total: u64 = 0;
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(Failure::Passing(error.to_string())),
        };
        total += count as u64;
        if total > size {
            return Err(Failure::Final(Error::TooLong { url: shown(url), limit: size }));
        }
        write(&buffer[..count]).map_err(Failure::Final)?;
        received(i64::try_from(count).unwrap_or(i64::MAX));
    }
    if total < size {
        return Err(Failure::Truncated { found: total, expected: size });
    }
    Ok(())
}

fn check_digest(url: &str, found: Digest, expected: Digest) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::HashMismatch { url: shown(url), expected, found }) }
}

/// The path of a `file` or `copy` URI.
pub(crate) fn local_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("file:").or_else(|| url.strip_prefix("copy:"))?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// A URI without user name and password, for messages and for the lock.
pub(crate) fn shown(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => uri.to_owned(),
    }
}

/// Joins an archive's URI and a path below it.
pub(crate) fn join(uri: &str, path: &str) -> String {
    format!("{}/{path}", uri.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let check = |uri, expected: &str| assert_eq!(shown(uri), expected);
        check("http://user:secret@mirror.example/debian", "http://mirror.example/debian");
        check("http://mirror.example/a@b", "http://mirror.example/a@b");
        check("file:/srv/mirror", "file:/srv/mirror");
    }

    #[test]
    fn local_paths_are_found() {
        assert_eq!(local_path("file:/srv/x"), Some(PathBuf::from("/srv/x")));
        assert_eq!(local_path("file:///srv/x"), Some(PathBuf::from("/srv/x")));
        assert_eq!(local_path("copy:/srv/x"), Some(PathBuf::from("/srv/x")));
        assert_eq!(local_path("http://x"), None);
        assert_eq!(local_path("file:relative"), None);
    }
}
