//! A blob, into a repository (OCI distribution specification, "Pushing blobs").
//!
//! ```text
//! HEAD blob ──there──▶ done
//!   └─▶ POST uploads?mount=…&from=… ──201──▶ done
//!         └─202─▶ PATCH a chunk, and the next ──▶ PUT ?digest=…
//!                   └─ connection lost ─▶ GET how much came ─▶ PATCH from there
//! ```

use std::fs::File;
use std::time::Duration;

use ibid_core::digest::Digest;
use ibid_store::Store;
use ureq::http::Method;

use crate::client::Event;
use crate::endpoint::{Answer, Body, Call, next, shown};
use crate::error::{Error, Result};
use crate::known;
use crate::push::Arrival;
use crate::repository::Repository;
use crate::retry::{self, TRIES};
use crate::token;

/// Bytes that are sent in one request. A registry may ask for more.
const CHUNK_BYTES: u64 = 32 << 20;
/// The most that a registry may ask for.
const CHUNK_BYTES_MAX: u64 = 1 << 30;
/// How often an upload that a registry has forgotten, or got wrong, is begun again.
const BEGINNINGS_MAX: u32 = 3;

/// What is sent.
pub(crate) enum Blob<'a> {
    Bytes(&'a [u8]),
    /// A file and its length.
    File(&'a File, u64),
}

impl<'a> Blob<'a> {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }

    fn part(&self, offset: u64, length: u64) -> Body<'a> {
        match self {
            Self::Bytes(bytes) => Body::Bytes(&bytes[offset as usize..(offset + length) as usize]),
            Self::File(file, _) => Body::Part { file, offset, length },
        }
    }
}

/// Whether a blob is there, or can be taken from another repository. None when it must be sent.
pub(crate) fn arrive_without_sending(
    repository: &Repository,
    store: &Store,
    digest: &Digest,
    size: u64,
) -> Result<Option<Arrival>> {
    let (url, scopes) = (repository.url(&format!("blobs/{digest}"))?, repository.writing());
    let answer = repository.call(&Call::new(Method::HEAD, &url, &scopes))?;
    match answer.status {
        // One of another size is not it, whatever the registry says.
        200 if answer.length().is_none_or(|length| length == size) => return Ok(Some(Arrival::Present)),
        401 | 403 => return Err(answer.refused(&repository.shown(&digest.to_string()), false)),
        // A registry that has it not, or knows no HEAD.
        _ => {}
    }
    for from in known::places(store, repository.endpoint.host(), digest)? {
        if from == repository.name {
            continue;
        }
        let digest = digest.to_string();
        let query = token::query(&[("mount", &digest), ("from", &from)]);
        let url = repository.url(&format!("blobs/uploads/?{query}"))?;
        let mut scopes = repository.writing();
        scopes.push(format!("repository:{from}:pull"));
        match repository.call(&Call::new(Method::POST, &url, &scopes)) {
            Ok(answer) if answer.status == 201 => return Ok(Some(Arrival::Mounted)),
            Ok(answer) if answer.status == 202 => {
                // It wants to have it sent; that begins anew, and this one is given back as a courtesy.
                if let Some(location) = answer.header("location")
                    && let Ok(location) = next(&answer.url, location)
                {
                    let _ = repository.call(&Call::new(Method::DELETE, &location, &scopes));
                }
            }
            // Mounting is the registry's favour: without it the blob is sent.
            Ok(_) | Err(Error::Unauthorized { .. } | Error::NotFound { .. } | Error::Status { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Sends a blob.
pub(crate) fn send(repository: &Repository, blob: &Blob, digest: &Digest) -> Result<()> {
    let mut beginnings = 1;
    loop {
        match (Upload { repository, blob, digest, sent: 0 }).run() {
            Err(Ended::Lost(_)) if beginnings < BEGINNINGS_MAX => beginnings += 1,
            Err(Ended::Lost(error) | Ended::Failed(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

/// Why an upload ended.
enum Ended {
    /// The registry has lost it, or got something else: it can be begun again.
    Lost(Error),
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

struct Upload<'a, 'b> {
    repository: &'a Repository<'a>,
    blob: &'a Blob<'b>,
    digest: &'a Digest,
    /// Bytes of which the registry has said that it has them.
    sent: u64,
}

impl Upload<'_, '_> {
    fn run(&mut self) -> Result<(), Ended> {
        let (repository, size) = (self.repository, self.blob.size());
        let scopes = repository.writing();
        let url = repository.url("blobs/uploads/")?;
        let what = repository.shown(&self.digest.to_string());
        let begun = repository.call(&Call::new(Method::POST, &url, &scopes))?.expect(&[202], &what)?;
        let mut location = location(&begun)?.ok_or_else(|| Error::Malformed {
            url: shown(&url),
            reason: "the answer to a new upload does not say where it goes".to_owned(),
        })?;
        let asked = begun.header("oci-chunk-min-length").and_then(|text| text.trim().parse::<u64>().ok());
        let chunk = asked.unwrap_or(0).clamp(CHUNK_BYTES, CHUNK_BYTES_MAX);
        // Small ones in one request with their end.
        let is_small = matches!(self.blob, Blob::Bytes(_));
        let mut failures = 0;
        while !is_small && self.sent < size {
            let length = chunk.min(size - self.sent);
            let mut call = Call::new(Method::PATCH, &location, &scopes)
                .header("content-type", "application/octet-stream")
                .header("content-range", format!("{}-{}", self.sent, self.sent + length - 1))
                .body(self.blob.part(self.sent, length));
            call.is_repeated = false;
            let before = self.sent;
            let fault = match repository.call(&call) {
                Ok(answer) if matches!(answer.status, 201 | 202 | 204) => {
                    self.sent =
                        received(&answer).filter(|sent| *sent > before).unwrap_or(before + length).min(size);
                    location = self::location(&answer)?.unwrap_or(location);
                    failures = 0;
                    continue;
                }
                Ok(answer) if matches!(answer.status, 404 | 410) => {
                    return Err(Ended::Lost(answer.refused(&what, false)));
                }
                Ok(answer) if answer.status == 416 || answer.status >= 500 => answer.refused(&what, false),
                Ok(answer) => return Err(answer.refused(&what, false).into()),
                Err(error @ (Error::Unreachable { .. } | Error::RateLimited { .. })) => error,
                Err(error) => return Err(error.into()),
            };
            failures += 1;
            let wait = retry::wait_after(failures - 1, &fault).filter(|_| failures < TRIES);
            let Some(wait) = wait else { return Err(fault.into()) };
            self.wait(wait, &fault);
            location = self.ask(&location, &scopes, &what)?;
            // What was told as sent has to be sent again.
            let lost = (before + length).saturating_sub(self.sent);
            repository.client.tell(Event::Bytes(-i64::try_from(lost.min(length)).unwrap_or(0)));
        }
        self.end(&location, &scopes, &what, is_small)
    }

    /// Asks how much has come, and where the rest goes.
    fn ask(&mut self, location: &str, scopes: &[String], what: &str) -> Result<String, Ended> {
        let answer = self.repository.call(&Call::get(location, scopes))?;
        match answer.status {
            200 | 202 | 204 => {
                self.sent = received(&answer).unwrap_or(0).min(self.blob.size());
                Ok(self::location(&answer)?.unwrap_or_else(|| location.to_owned()))
            }
            _ => Err(Ended::Lost(answer.refused(what, false))),
        }
    }

    /// Says that this was all. A registry that did not get to answer is asked whether it has the blob.
    fn end(&self, location: &str, scopes: &[String], what: &str, with_bytes: bool) -> Result<(), Ended> {
        let mark = if location.contains('?') { '&' } else { '?' };
        let digest = self.digest.to_string();
        let url = format!("{location}{mark}{}", token::query(&[("digest", &digest)]));
        let mut call =
            Call::new(Method::PUT, &url, scopes).header("content-type", "application/octet-stream");
        if with_bytes {
            call = call.body(self.blob.part(0, self.blob.size()));
        }
        call.is_repeated = false;
        match self.repository.call(&call) {
            Ok(answer) if matches!(answer.status, 201 | 204) => Ok(()),
            Ok(answer) if matches!(answer.status, 400 | 404 | 410 | 416 | 500..) => {
                Err(Ended::Lost(answer.refused(what, false)))
            }
            Ok(answer) => Err(answer.refused(what, false).into()),
            Err(error @ Error::Unreachable { .. }) => {
                self.wait(retry::backoff(0), &error);
                let url = self.repository.url(&format!("blobs/{digest}"))?;
                let answer = self.repository.call(&Call::new(Method::HEAD, &url, scopes))?;
                if answer.status == 200 { Ok(()) } else { Err(Ended::Lost(error)) }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn wait(&self, wait: Duration, fault: &Error) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let url = self.repository.shown(&self.digest.to_string());
        self.repository.client.tell(Event::Retry { url: &url, reason: &fault.to_string(), wait_ms });
        std::thread::sleep(wait);
    }
}

/// Where the next request of an upload goes.
fn location(answer: &Answer) -> Result<Option<String>> {
    answer.header("location").map(|location| next(&answer.url, location)).transpose()
}

/// How many bytes of an upload the registry says that it has: `Range: 0-<last>`. `0-0` is what registries say of none.
fn received(answer: &Answer) -> Option<u64> {
    let text = answer.header("range")?.trim();
    let last: u64 = text.strip_prefix("bytes=").unwrap_or(text).strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}
