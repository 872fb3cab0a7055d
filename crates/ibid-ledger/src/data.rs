//! The data that a run reads: which files, by size and time, and by content when that is asked for.
//!
//! The identity is cheap, a look at each file's metadata, and another one when a file is touched. The digest is of names and
//! contents alone, the same on every machine. Contents that were hashed once are not hashed again while size, times and inode of
//! their file stay: these are kept in `.ibid/cache/`, which can be lost.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ibid_core::digest::{Digest, Hasher};

use crate::ledger::{self, Error, Ledger, io as failed};
use crate::outputs::digest_file;
use crate::record::Data;

/// A file that was changed less than this many seconds ago can change again without another time.
const SETTLED_SECONDS: i64 = 2;

/// What can be said of a file without reading it: length, modification, change, inode.
type Stamp = (u64, i64, i64, u64);

/// The data in `path`, which is relative to the project; none where there is nothing.
pub fn identify(
    ledger: &Ledger,
    project: &Path,
    path: &str,
    with_digest: bool,
) -> Result<Option<Data>, Error> {
    let root = match project.join(path).canonicalize() {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &project.join(path))(error)),
    };
    let mut data =
        Data { path: path.to_owned(), files: 0, bytes: 0, identity: Digest::of(b""), digest: None };
    let mut identity = Hasher::default();
    let mut contents = with_digest.then(|| Contents::open(ledger, &root));
    visit(&root, &mut |file, metadata| {
        let name = file.strip_prefix(&root).unwrap_or(file).as_os_str().as_bytes();
        let link = if metadata.is_symlink() { fs::read_link(file).ok() } else { None };
        let target = link.as_ref().map(|link| link.as_os_str().as_bytes());
        if target.is_none() && !metadata.is_file() {
            return Ok(());
        }
        data.files += 1;
        let length = if target.is_some() { 0 } else { metadata.len() };
        data.bytes += length;
        field(&mut identity, name);
        match target {
            Some(target) => field(&mut identity, target),
            None => {
                let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
                field(&mut identity, format!("{length} {seconds}.{nanoseconds:09}").as_bytes());
            }
        }
        match &mut contents {
            Some(contents) => contents.add(name, file, metadata, target),
            None => Ok(()),
        }
    })?;
    data.identity = identity.finish();
    if let Some(contents) = contents {
        data.digest = Some(contents.finish());
    }
    Ok(Some(data))
}

/// Fields that cannot run into each other.
fn field(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Calls `each` for everything that is no folder, in the order of names. Links are not followed.
fn visit(path: &Path, each: &mut dyn FnMut(&Path, &Metadata) -> Result<(), Error>) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(failed("read", path))?;
    if !metadata.is_dir() {
        return each(path, &metadata);
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut paths: Vec<PathBuf> =
        entries.map_err(failed("read", path))?.into_iter().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths.iter().try_for_each(|path| visit(path, each))
}

/// Digests of contents, with those that are known.
struct Contents {
    cache: PathBuf,
    known: HashMap<String, (Stamp, Digest)>,
    now: HashMap<String, (Stamp, Digest)>,
    hasher: Hasher,
    buffer: Vec<u8>,
}

impl Contents {
    fn open(ledger: &Ledger, root: &Path) -> Self {
        let name = format!("data-{}.json", &Digest::of(root.as_os_str().as_bytes()).hex()[..16]);
        let cache = ledger.folder().join("cache").join(name);
        // Without it, everything is hashed.
        let known = ledger::read_json(&cache).unwrap_or_default();
        Self { cache, known, now: HashMap::new(), hasher: Hasher::default(), buffer: Vec::new() }
    }

    fn add(
        &mut self,
        name: &[u8],
        file: &Path,
        metadata: &Metadata,
        target: Option<&[u8]>,
    ) -> Result<(), Error> {
        field(&mut self.hasher, name);
        if let Some(target) = target {
            field(&mut self.hasher, b"link");
            field(&mut self.hasher, target);
            return Ok(());
        }
        let nanoseconds =
            |seconds: i64, nanoseconds: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds);
        let stamp = (
            metadata.len(),
            nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            metadata.ino(),
        );
        let key = String::from_utf8(name.to_vec()).ok();
        let known = key.as_ref().and_then(|key| self.known.get(key)).filter(|(known, _)| *known == stamp);
        let digest = match known {
            Some((_, digest)) => *digest,
            None => digest_file(file, &mut self.buffer).map_err(failed("read", file))?.0,
        };
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let is_settled = metadata.ctime() + SETTLED_SECONDS < i64::try_from(seconds).unwrap_or(0);
        if let Some(key) = key.filter(|_| is_settled) {
            self.now.insert(key, (stamp, digest));
        }
        field(&mut self.hasher, digest.as_bytes());
        Ok(())
    }

    fn finish(self) -> Digest {
        if self.now != self.known
            && let Some(folder) = self.cache.parent()
            && fs::create_dir_all(folder).is_ok()
        {
            // A cache that cannot be kept costs time only.
            let _ = ledger::write_json(&self.cache, &self.now);
        }
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_of_metadata_and_the_digest_of_contents() {
        let project = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| project.path().join(name);
        fs::create_dir_all(path("data/sub")).expect("ours");
        fs::write(path("data/a"), "one").expect("ours");
        fs::write(path("data/sub/b"), "three").expect("ours");
        std::os::unix::fs::symlink("a", path("data/link")).expect("ours");
        let ledger = Ledger::of(project.path());
        let identify =
            |digest| super::identify(&ledger, project.path(), "data", digest).expect("read").expect("there");
        let first = identify(true);
        assert_eq!((first.files, first.bytes), (3, 8));
        assert_eq!(identify(false), Data { digest: None, ..first.clone() });
        assert_eq!(identify(true), first);
        let touch = |seconds| {
            let file = fs::File::options().write(true).open(path("data/a")).expect("ours");
            file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(seconds)).expect("ours");
        };
        touch(1_000_000);
        let touched = identify(true);
        assert_ne!(touched.identity, first.identity);
        assert_eq!(touched.digest, first.digest);
        // Same size and time: only the content tells.
        fs::write(path("data/a"), "two").expect("ours");
        touch(1_000_000);
        let changed = identify(true);
        assert_eq!(changed.identity, touched.identity);
        assert_ne!(changed.digest, first.digest);
        assert!(super::identify(&ledger, project.path(), "missing", false).expect("no error").is_none());
    }
}
