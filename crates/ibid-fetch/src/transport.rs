//! Files by URL: `http`, `https` and `file`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ibid_core::digest::{Digest, Hasher};
use ibid_core::remote::without_credentials;
use ureq::http::Uri;

use crate::agent::Trust;
use crate::error::{Error, io_error};
use crate::network::Network;
use crate::proxied;

/// How often a file is asked for before its failure counts.
const TRIES: usize = 3;
const REDIRECTIONS_MAX: usize = 10;
const BUFFER_BYTES: usize = 128 << 10;

/// The proxy for a scheme and a host.
type ProxyFor<'a> = dyn Fn(&str, &str) -> Option<String> + Send + Sync + 'a;

/// Fetches files. Used from several threads at once.
pub struct Transport<'a> {
    network: &'a Network,
    proxy: Box<ProxyFor<'a>>,
    /// An agent for each proxy, and one without.
    agents: Mutex<BTreeMap<Option<String>, ureq::Agent>>,
}

/// What comes of a file.
pub enum Piece<'a> {
    /// The start: what came before is void.
    Start,
    /// The next bytes.
    Bytes(&'a [u8]),
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

/// What a server, or a proxy in its place, answers.
pub(crate) enum Answer {
    Body(Body),
    Redirection(String),
    Status(u16),
}

/// The bytes of a file.
pub(crate) struct Body {
    pub(crate) reader: Box<dyn Read>,
    /// How many there are to be, if that was said.
    pub(crate) length: Option<u64>,
}

impl<'a> Transport<'a> {
    /// Through the proxies of `network`.
    pub fn new(network: &'a Network) -> Self {
        Self::with_proxies(network, |scheme, host| network.proxy(scheme, host))
    }

    /// Through others than the network's own.
    pub fn with_proxies(
        network: &'a Network,
        proxy: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'a,
    ) -> Self {
        Self { network, proxy: Box::new(proxy), agents: Mutex::default() }
    }

    /// A whole file of any size, piece by piece. Returns its size. When a try fails it starts again; what `take` has
    /// got when this fails is of no use.
    pub fn pieces(&self, url: &str, take: &mut dyn FnMut(Piece<'_>) -> io::Result<()>) -> Result<u64, Error> {
        let written = |source| Failure::Final(Error::Write { url: without_credentials(url), source });
        self.try_several(url, |body| {
            take(Piece::Start).map_err(written)?;
            let mut buffer = vec![0; BUFFER_BYTES];
            let mut total: u64 = 0;
            loop {
                let count = match body.reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && body.length.is_some() => {
                        break;
                    }
                    Err(error) => return Err(Failure::Passing(error.to_string())),
                };
                total += count as u64;
                take(Piece::Bytes(&buffer[..count])).map_err(written)?;
            }
            match body.length {
                Some(expected) if expected != total => Err(Failure::Truncated { found: total, expected }),
                _ => Ok(total),
            }
        })
    }

    /// A whole file of at most `limit` bytes.
    pub fn bytes(&self, url: &str, limit: u64) -> Result<Vec<u8>, Error> {
        self.try_several(url, |body| {
            let mut bytes = Vec::new();
            (&mut body.reader)
                .take(limit + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::Passing(error.to_string()))?;
            if bytes.len() as u64 > limit {
                return Err(Failure::Final(Error::TooLong { url: without_credentials(url), limit }));
            }
            Ok(bytes)
        })
    }

    /// A whole file of known size and digest, in memory.
    pub fn verified_bytes(&self, url: &str, size: u64, digest: Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.try_several(url, |body| {
            let mut bytes = Vec::with_capacity(usize::try_from(size.min(64 << 20)).unwrap_or(0));
            copy(url, &mut body.reader, size, &|_| {}, |part| {
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
    pub fn file(
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
                    &mut body.reader,
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
        mut take: impl FnMut(&mut Body) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut last = Error::Unreachable { url: without_credentials(url), reason: String::new() };
        for _ in 0..TRIES {
            match self.open(url).and_then(|mut body| take(&mut body)) {
                Ok(value) => return Ok(value),
                Err(Failure::NotFound) => return Err(Error::NotFound { url: without_credentials(url) }),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) => {
                    last = Error::Unreachable { url: without_credentials(url), reason }
                }
                Err(Failure::Truncated { found, expected }) => {
                    last = Error::Truncated { url: without_credentials(url), found, expected };
                }
            }
        }
        Err(last)
    }

    fn open(&self, url: &str) -> Result<Body, Failure> {
        if let Some(path) = local_path(url) {
            return match std::fs::File::open(&path) {
                Ok(file) => Ok(Body { reader: Box::new(file), length: None }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::NotFound),
                Err(error) => Err(Failure::Final(io_error(&path)(error))),
            };
        }
        let mut url = url.to_owned();
        // Each step may need another proxy, so the library follows none.
        for _ in 0..=REDIRECTIONS_MAX {
            match self.ask(&url)? {
                Answer::Body(body) => return Ok(body),
                Answer::Redirection(location) => url = redirected(&url, &location),
                Answer::Status(404 | 410) => return Err(Failure::NotFound),
                // The client is at fault, and will be again; but for what says that it is a matter of time.
                Answer::Status(status @ 400..=499) if !matches!(status, 408 | 425 | 429) => {
                    return Err(Failure::Final(Error::Refused { url: without_credentials(&url), status }));
                }
                Answer::Status(status) => {
                    return Err(Failure::Passing(format!("the server answered with status {status}")));
                }
            }
        }
        let reason = format!("more than {REDIRECTIONS_MAX} redirections");
        Err(Failure::Final(Error::UnsupportedUri { uri: without_credentials(&url), reason }))
    }

    fn ask(&self, url: &str) -> Result<Answer, Failure> {
        let unsupported = |reason: &str| {
            Failure::Final(Error::UnsupportedUri { uri: without_credentials(url), reason: reason.to_owned() })
        };
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(unsupported("only http, https and, to begin with, file are supported"));
        }
        let uri: Uri = encoded(url).parse().map_err(|_| unsupported("malformed"))?;
        let (Some(scheme), Some(server)) = (uri.scheme_str(), uri.host()) else {
            return Err(unsupported("no host"));
        };
        let proxy = (self.proxy)(scheme, server);
        if scheme == "http"
            && let Some(proxy) = proxy.as_deref().and_then(proxied::Proxy::parse)
        {
            return proxied::ask(&proxy, &uri).map_err(|error| Failure::Passing(format!("proxy: {error}")));
        }
        let response =
            self.agent(proxy)?.get(uri).call().map_err(|error| Failure::Passing(error.to_string()))?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        Ok(match (response.status().as_u16(), header("location")) {
            (301 | 302 | 303 | 307 | 308, Some(location)) => Answer::Redirection(location.to_owned()),
            (200..=299, _) => {
                let length = header("content-length").and_then(|length| length.trim().parse().ok());
                Answer::Body(Body { length, reader: Box::new(response.into_body().into_reader()) })
            }
            (status, _) => Answer::Status(status),
        })
    }

    fn agent(&self, proxy: Option<String>) -> Result<ureq::Agent, Failure> {
        let mut agents = self.agents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(agent) = agents.get(&proxy) {
            return Ok(agent.clone());
        }
        let agent = self.network.agent(proxy.as_deref(), Some(Trust::default())).map_err(Failure::Final)?;
        agents.insert(proxy, agent.clone());
        Ok(agent)
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
            return Err(Failure::Final(Error::TooLong { url: without_credentials(url), limit: size }));
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
    if found == expected {
        Ok(())
    } else {
        Err(Error::HashMismatch { url: without_credentials(url), expected, found })
    }
}

/// The path of a `file` or `copy` URI.
pub fn local_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("file:").or_else(|| url.strip_prefix("copy:"))?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// A URL as requests write it: what people leave as it is, such as spaces, encoded (RFC 3986 § 2), and without
/// fragment.
fn encoded(url: &str) -> String {
    let url = url.split('#').next().unwrap_or(url);
    let mut encoded = String::with_capacity(url.len());
    for byte in url.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Where a redirection leads (RFC 3986 § 5.2, less `..`, which servers do not write).
pub fn redirected(url: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else { return location.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let host = rest.split('/').next().unwrap_or(rest);
    if let Some(authority) = location.strip_prefix("//") {
        format!("{scheme}://{authority}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{rest}{location}")
    } else {
        let folder = rest.rfind('/').map_or(rest, |slash| &rest[..slash]);
        format!("{scheme}://{folder}/{location}")
    }
}

/// Joins an archive's URI and a path below it.
pub fn join(uri: &str, path: &str) -> String {
    format!("{}/{path}", uri.trim_end_matches('/'))
}

#[cfg(test)]
mod tests;
