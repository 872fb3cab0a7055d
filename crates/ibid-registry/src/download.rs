//! A layer's blob, from the registry into the store while it comes.
//!
//! ```text
//! registry ──download──▶ part file ──follow──▶ digest, decompress, unpack ──▶ layer
//! ```
//!
//! Two threads a layer: one writes what comes to the part file, the other reads that file behind it. So a slow disk does
//! not slow the network down, memory does not depend on the layer's size, and what has come when the process ends is where
//! the next one goes on: it reads the part from its start and asks for the rest only. The digest is that of all bytes in
//! the order in which they were unpacked. The layer is visible when digest, size and diff id are the promised ones.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use ibid_core::digest::{DiffId, Digest, Hasher};
use ibid_core::manifest::Descriptor;
use ibid_store::Store;

use crate::client::{Event, lock};
use crate::endpoint::{Answer, Call, shown};
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::retry::{self, TRIES};

const BUFFER_BYTES: usize = 256 << 10;
/// Most bytes that are read only to know whether a blob that cannot be unpacked is the right one.
const READ_ON_BYTES_MAX: u64 = 64 << 20;

/// Brings a layer into the store. `cancelled` ends it.
pub(crate) fn fetch_layer(
    repository: &Repository,
    store: &Store,
    descriptor: &Descriptor,
    diff_id: DiffId,
    cancelled: &AtomicBool,
) -> Result<()> {
    let client = repository.client;
    let part = store.part_download(&descriptor.digest, &|| client.tell(Event::Waiting))?;
    // Another process may have been faster.
    if store.has_layer(&diff_id) {
        return Ok(part.remove()?);
    }
    let cannot = |error| Error::io("use", part.path())(error);
    let mut length = part.file().metadata().map_err(cannot)?.len();
    if length > descriptor.size {
        part.file().set_len(0).map_err(cannot)?;
        length = 0;
    }
    let mut transfer = Transfer { repository, store, descriptor, diff_id, cancelled, file: part.file() };
    let mut outcome = transfer.run(length);
    if length > 0 && outcome.as_ref().is_err_and(Fault::is_content) {
        // What was there before may have been damaged: a machine can lose power.
        client.tell(Event::Bytes(-i64::try_from(descriptor.size).unwrap_or(0)));
        part.file().set_len(0).map_err(cannot)?;
        outcome = transfer.run(0);
    }
    match outcome {
        Ok(()) => Ok(part.remove()?),
        Err(fault) => {
            if fault.is_content() {
                part.remove()?;
            }
            Err(fault.into_error())
        }
    }
}

/// Why a layer did not come.
enum Fault {
    /// What came is not what was promised.
    Content(Error),
    /// It did not come, or could not be kept.
    Other(Error),
}

impl Fault {
    fn is_content(&self) -> bool {
        matches!(self, Self::Content(_))
    }

    fn into_error(self) -> Error {
        let (Self::Content(error) | Self::Other(error)) = self;
        error
    }
}

struct Transfer<'a> {
    repository: &'a Repository<'a>,
    store: &'a Store,
    descriptor: &'a Descriptor,
    diff_id: DiffId,
    cancelled: &'a AtomicBool,
    file: &'a File,
}

impl Transfer<'_> {
    /// Unpacks the blob, of which `length` bytes are there.
    fn run(&mut self, length: u64) -> Result<(), Fault> {
        self.repository.client.tell(Event::Bytes(i64::try_from(length).unwrap_or(0)));
        let arrived = Arrived::new(length);
        let (downloaded, imported, found) = std::thread::scope(|scope| {
            let download = scope.spawn(|| {
                let result = self.download(length, &arrived);
                arrived.end();
                result
            });
            let mut follower = Follower {
                file: self.file,
                arrived: &arrived,
                expected: self.descriptor,
                position: 0,
                hasher: Hasher::default(),
                found: None,
            };
            let reader = BufReader::with_capacity(BUFFER_BYTES, &mut follower);
            let imported = self.store.import_expected_layer(self.diff_id, reader);
            if let Err(error) = &imported {
                // The digest says best what is wrong, where it can still be had for little.
                let is_content = !matches!(error, ibid_store::Error::Io { .. });
                if is_content && self.descriptor.size - follower.position <= READ_ON_BYTES_MAX {
                    let _ = io::copy(&mut follower, &mut io::sink());
                }
                arrived.give_up();
            }
            (download.join().expect("a download does not panic"), imported, follower.found)
        });
        let what = || self.repository.shown(&self.descriptor.digest.to_string());
        match (downloaded, imported) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(error @ Error::Size { .. }), _) => Err(Fault::Content(error)),
            (Err(error), Err(_)) if !matches!(error, Error::Cancelled) => Err(Fault::Other(error)),
            (_, Err(_)) if self.cancelled.load(Ordering::Relaxed) => Err(Fault::Other(Error::Cancelled)),
            (_, Err(error)) => Err(match found {
                Some(found) if found != self.descriptor.digest => {
                    Fault::Content(Error::Digest { what: what(), expected: self.descriptor.digest, found })
                }
                _ if matches!(error, ibid_store::Error::Io { .. }) => Fault::Other(error.into()),
                _ => Fault::Content(error.into()),
            }),
            (Err(error), Ok(())) => Err(Fault::Other(error)),
        }
    }

    /// Fetches the rest, going on where a connection broke off.
    fn download(&self, mut at: u64, arrived: &Arrived) -> Result<()> {
        let name = self.descriptor.digest.to_string();
        let (url, scopes) = (self.repository.url(&format!("blobs/{name}"))?, self.repository.reading());
        let mut failures = 0;
        while at < self.descriptor.size {
            let mut call = Call::get(&url, &scopes);
            if at > 0 {
                call = call.header("range", format!("bytes={at}-"));
            }
            let before = at;
            let answer = self.repository.call(&call)?;
            let reason = match self.take(answer, &mut at, arrived) {
                Ok(()) if at == self.descriptor.size => return Ok(()),
                Ok(()) => "the connection broke off".to_owned(),
                Err(Error::Unreachable { reason, .. }) => reason,
                Err(error) => return Err(error),
            };
            failures = if at > before { 1 } else { failures + 1 };
            if failures >= TRIES {
                return Err(Error::Unreachable { url: shown(&url), reason });
            }
            let wait = retry::backoff(failures - 1);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            self.repository.client.tell(Event::Retry { url: &shown(&url), reason: &reason, wait_ms });
            std::thread::sleep(wait);
        }
        Ok(())
    }

    /// Writes what an answer holds. `at` says how much is there.
    fn take(&self, answer: Answer, at: &mut u64, arrived: &Arrived) -> Result<()> {
        let size = self.descriptor.size;
        let what = || self.repository.shown(&self.descriptor.digest.to_string());
        let answer = answer.expect(&[200, 206], &what())?;
        // A server that knows no ranges sends all of it again.
        let mut skipped = if answer.status == 206 {
            let start = answer.header("content-range").and_then(range_start);
            if start.is_some_and(|start| start != *at) {
                let reason = format!("the answer does not start at byte {at}, as it was asked to");
                return Err(Error::Malformed { url: shown(&answer.url), reason });
            }
            0
        } else {
            *at
        };
        let expected = size - *at + skipped;
        if let Some(length) = answer.length()
            && length != expected
        {
            return Err(Error::Size { what: what(), expected: size, found: *at - skipped + length });
        }
        let url = shown(&answer.url);
        let mut reader = answer.reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            if self.cancelled.load(Ordering::Relaxed) || arrived.is_given_up() {
                return Err(Error::Cancelled);
            }
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Unreachable { url, reason: error.to_string() }),
            };
            let passed = usize::try_from(skipped).unwrap_or(usize::MAX).min(count);
            skipped -= passed as u64;
            let bytes = &buffer[passed..count];
            if *at + bytes.len() as u64 > size {
                return Err(Error::Size { what: what(), expected: size, found: *at + bytes.len() as u64 });
            }
            let cannot =
                |error| Error::Io { action: "keep what comes of", path: what().into(), source: error };
            self.file.write_all_at(bytes, *at).map_err(cannot)?;
            *at += bytes.len() as u64;
            arrived.add(*at);
            self.repository.client.tell(Event::Bytes(i64::try_from(bytes.len()).unwrap_or(0)));
        }
    }
}

/// The first byte of `bytes 5-9/10` (RFC 9110 § 14.4).
fn range_start(text: &str) -> Option<u64> {
    text.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// How much of a file is there, and whether more will come.
struct Arrived {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    bytes: u64,
    has_ended: bool,
    is_given_up: bool,
}

impl Arrived {
    fn new(bytes: u64) -> Self {
        Self {
            state: Mutex::new(State { bytes, has_ended: false, is_given_up: false }),
            changed: Condvar::new(),
        }
    }

    fn add(&self, bytes: u64) {
        lock(&self.state).bytes = bytes;
        self.changed.notify_all();
    }

    fn end(&self) {
        lock(&self.state).has_ended = true;
        self.changed.notify_all();
    }

    /// Says that nobody reads any more.
    fn give_up(&self) {
        lock(&self.state).is_given_up = true;
    }

    fn is_given_up(&self) -> bool {
        lock(&self.state).is_given_up
    }

    /// Waits until more than `position` bytes are there. None when there will be no more.
    fn beyond(&self, position: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        loop {
            if state.bytes > position {
                return Some(state.bytes);
            }
            if state.has_ended {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Reads a file behind the one that writes it, and fails at its end unless all of it is what was promised.
struct Follower<'a> {
    file: &'a File,
    arrived: &'a Arrived,
    expected: &'a Descriptor,
    position: u64,
    hasher: Hasher,
    /// The digest, once all was read.
    found: Option<Digest>,
}

impl Read for Follower<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.position < self.expected.size {
            let Some(arrived) = self.arrived.beyond(self.position) else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob did not come whole"));
            };
            let there = usize::try_from(arrived - self.position).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.file.read_at(&mut buffer[..there], self.position)?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the part of the blob was cut off"));
            }
            self.hasher.update(&buffer[..count]);
            self.position += count as u64;
            return Ok(count);
        }
        let found = *self.found.get_or_insert_with(|| self.hasher.clone().finish());
        if found == self.expected.digest {
            Ok(0)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the blob has another digest"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(range_start(text), expected, "{text}");
        check("bytes 5-9/10", Some(5));
        check("bytes 0-0/*", Some(0));
        check("bytes */10", None);
        check("5-9", None);
        check("", None);
    }
}
