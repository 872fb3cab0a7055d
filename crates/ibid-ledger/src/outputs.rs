//! The files that a run made or changed, by what the file system says of their times.
//!
//! Nothing is looked at before the run: a file is the run's when it was written, made, renamed or linked after the run began, by the
//! clock of the file system that holds it. What another process does in the same folders meanwhile cannot be told from it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ibid_core::digest::{Digest, Hasher};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::time::{ClockId, clock_gettime};

use crate::record::Output;

const BUFFER_BYTES: usize = 1 << 20;

/// Files of one thread: for fewer it is not worth its start.
const FILES_OF_THREAD: usize = 16;

/// As much as one thread does alone, bytes.
const BYTES_OF_THREAD: u64 = 4 << 20;

/// The moment when a run began, by the clocks of the file systems that it writes to.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// By device.
    times: Vec<(u64, Time)>,
    /// By this machine's clock, as files get it.
    own: Time,
}

/// Seconds and nanoseconds since 1970.
type Time = (i64, i64);

impl Beginning {
    /// Now. `witness` was just written in the project.
    pub fn now(witness: &Metadata, folders: impl Iterator<Item = PathBuf>) -> Self {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let mut times = vec![(witness.dev(), (witness.ctime(), witness.ctime_nsec()))];
        for folder in folders {
            let Ok(metadata) = fs::metadata(&folder) else { continue };
            if times.iter().any(|(device, _)| *device == metadata.dev()) {
                continue;
            }
            let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
            if let Ok(status) = openat(CWD, &folder, flags, Mode::RUSR).and_then(fstat) {
                times.push((metadata.dev(), (status.st_ctime, status.st_ctime_nsec as i64)));
            }
        }
        Self { times, own: (now.tv_sec, now.tv_nsec) }
    }

    fn is_before(&self, metadata: &Metadata) -> bool {
        let changed =
            (metadata.ctime(), metadata.ctime_nsec()).max((metadata.mtime(), metadata.mtime_nsec()));
        let known = self.times.iter().find(|(device, _)| *device == metadata.dev());
        known.map_or(self.own, |(_, time)| *time) <= changed
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Sorted by path.
    pub files: Vec<Output>,
    /// What could not be read, as people should know it.
    pub warnings: Vec<String>,
}

/// The files in `folders`, which are relative to the project, that were changed since `beginning`.
pub fn changed(project: &Path, folders: &[String], beginning: &Beginning) -> Outputs {
    let mut outputs = Outputs::default();
    let mut found = Vec::new();
    for folder in folders {
        walk(&project.join(folder), beginning, &mut found, &mut outputs.warnings);
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    let digests = digests(&found);
    for (file, digest) in found.into_iter().zip(digests) {
        let path = file.path.strip_prefix(project).unwrap_or(&file.path).to_string_lossy().into_owned();
        match digest {
            Ok((digest, bytes)) => outputs.files.push(Output { path, bytes, digest }),
            // It was somebody's temporary file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => outputs.warnings.push(format!("the output {path} cannot be read: {error}")),
        }
    }
    outputs
}

struct Found {
    path: PathBuf,
    bytes: u64,
    is_link: bool,
}

fn walk(path: &Path, beginning: &Beginning, found: &mut Vec<Found>, warnings: &mut Vec<String>) {
    let mut cannot_read = |path: &Path, error: io::Error| {
        if error.kind() != io::ErrorKind::NotFound {
            warnings.push(format!("the output {} cannot be read: {error}", path.display()));
        }
    };
    // The folder itself may be a link to a larger disk; what is in it is taken as it is.
    let mut waiting = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => vec![path.to_owned()],
        Ok(metadata) => {
            if metadata.is_file() && beginning.is_before(&metadata) {
                found.push(Found { path: path.to_owned(), bytes: metadata.len(), is_link: false });
            }
            return;
        }
        Err(error) => return cannot_read(path, error),
    };
    while let Some(folder) = waiting.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                cannot_read(&folder, error);
                continue;
            }
        };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) {
                Ok((path, metadata)) if metadata.is_dir() => waiting.push(path),
                Ok((path, metadata)) => {
                    let is_link = metadata.is_symlink();
                    if (metadata.is_file() || is_link) && beginning.is_before(&metadata) {
                        found.push(Found { path, bytes: metadata.len(), is_link });
                    }
                }
                Err(error) => cannot_read(&folder, error),
            }
        }
    }
}

/// Digest and size of each, in order.
fn digests(files: &[Found]) -> Vec<io::Result<(Digest, u64)>> {
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let wanted = (files.len() / FILES_OF_THREAD).max((bytes / BYTES_OF_THREAD) as usize).min(files.len());
    let threads = wanted.min(std::thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = Vec::new();
        let mut done = Vec::new();
        while let position = next.fetch_add(1, Ordering::Relaxed)
            && let Some(file) = files.get(position)
        {
            done.push((position, digest(file, &mut buffer)));
        }
        done
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().unwrap_or_default());
        }
        done
    });
    done.sort_unstable_by_key(|(position, _)| *position);
    done.into_iter().map(|(_, result)| result).collect()
}

fn digest(file: &Found, buffer: &mut Vec<u8>) -> io::Result<(Digest, u64)> {
    if file.is_link {
        let target = fs::read_link(&file.path)?;
        let target = target.as_os_str().as_bytes();
        return Ok((Digest::of(target), target.len() as u64));
    }
    digest_file(&file.path, buffer)
}

/// Digest and size of a file's content.
pub(crate) fn digest_file(path: &Path, buffer: &mut Vec<u8>) -> io::Result<(Digest, u64)> {
    // What became a link or a pipe meanwhile must neither lead elsewhere nor hold ibid up.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    buffer.resize(BUFFER_BYTES, 0);
    let mut hasher = Hasher::default();
    let mut bytes = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok((hasher.finish(), bytes)),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_before_are_no_outputs() {
        let project = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| project.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).expect("ours");
        fs::create_dir_all(path("output/deep")).expect("ours");
        for old in ["output/old", "output/changed", "output/deep/old", "output/renamed-from"] {
            write(old, "old");
        }
        // The file system's clock has ticks: the old files must be of an earlier one.
        let newest = fs::metadata(path("output/renamed-from")).expect("ours");
        loop {
            write("witness", "");
            let witness = fs::metadata(path("witness")).expect("ours");
            if (witness.ctime(), witness.ctime_nsec()) > (newest.ctime(), newest.ctime_nsec()) {
                break;
            }
        }
        let witness = fs::metadata(path("witness")).expect("ours");
        let beginning = Beginning::now(&witness, std::iter::once(path("output")));
        write("output/changed", "new");
        write("output/deep/new", "");
        write("other", "");
        fs::rename(path("output/renamed-from"), path("output/renamed")).expect("ours");
        std::os::unix::fs::symlink("elsewhere", path("output/link")).expect("ours");
        rustix::fs::mknodat(CWD, path("output/pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .expect("a pipe");
        let folders = ["output", "output/deep", "missing"].map(str::to_owned);
        let outputs = changed(project.path(), &folders, &beginning);
        let shown: Vec<_> =
            outputs.files.iter().map(|file| (file.path.as_str(), file.bytes, file.digest)).collect();
        assert_eq!(
            shown,
            [
                ("output/changed", 3, Digest::of(b"new")),
                ("output/deep/new", 0, Digest::of(b"")),
                ("output/link", 9, Digest::of(b"elsewhere")),
                ("output/renamed", 3, Digest::of(b"old")),
            ]
        );
        assert!(outputs.warnings.is_empty(), "{:?}", outputs.warnings);
    }
}
