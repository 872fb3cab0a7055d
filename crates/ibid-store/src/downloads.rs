//! Files that were fetched for a build, by the SHA-256 digest of their content. Losing one costs the time to fetch it
//! again, from a place that may have something else by then.
//!
//! A blob of a registry that is on its way is `<hex>.part`: what of it has come stays when the process ends, for the next
//! one to go on. Nothing in it is believed: whoever goes on reads it again from its start. Its user holds a flock.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ibid_core::digest::{Digest, Hasher};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::staging::StagedFile;
use crate::{Error, Result, Store};

const COPY_BYTES: usize = 256 << 10;

/// A file that is being fetched: gone when dropped before [`DownloadDraft::publish`].
#[derive(Debug)]
pub struct DownloadDraft {
    store: Store,
    file: StagedFile,
    hasher: Hasher,
}

impl Store {
    /// Starts to keep a file that is fetched.
    pub fn draft_download(&self) -> Result<DownloadDraft> {
        let file = StagedFile::new(&self.tmp())?;
        Ok(DownloadDraft { store: self.clone(), file, hasher: Hasher::default() })
    }

    /// Where the fetched file with this content is, if it is here. It is read once, to see that it has not been damaged:
    /// one that has is as good as absent.
    pub fn download(&self, digest: &Digest) -> Result<Option<PathBuf>> {
        let path = self.download_path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        if hasher.finish() != *digest {
            return Ok(None);
        }
        self.touch(&path);
        Ok(Some(path))
    }

    fn download_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("downloads").join(digest.hex())
    }
}

/// What has come of a blob, locked.
#[derive(Debug)]
pub struct PartDownload {
    path: PathBuf,
    file: File,
}

impl Store {
    /// What has come of the blob with this digest; empty to begin with. `on_wait` is called when another process is at it,
    /// and its end is awaited.
    pub fn part_download(&self, digest: &Digest, on_wait: &dyn Fn()) -> Result<PartDownload> {
        let path = self.root().join("downloads").join(format!("{}.part", digest.hex()));
        let folder = path.parent().expect("a download is below the root");
        fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
        loop {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.map_err(Error::io("open", &path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => {
                    on_wait();
                    flock(&file, FlockOperation::LockExclusive).map_err(Error::io("lock", &path))?;
                }
                locked => locked.map_err(Error::io("lock", &path))?,
            }
            // Who had it before has removed it, when it was complete.
            if file.metadata().map_err(Error::io("look at", &path))?.nlink() > 0 {
                return Ok(PartDownload { path, file });
            }
        }
    }
}

impl PartDownload {
    /// The file; it may be read and written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it: it is of no more use.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }
}

impl DownloadDraft {
    /// Forgets what was written.
    pub fn restart(&mut self) -> Result<()> {
        let Self { file, hasher, .. } = self;
        file.file
            .set_len(0)
            .and_then(|()| file.file.seek(SeekFrom::Start(0)))
            .map_err(Error::io("write", &file.path))?;
        *hasher = Hasher::default();
        Ok(())
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write(bytes)
    }

    /// The file, to read what was written.
    pub fn file(&self) -> &File {
        &self.file.file
    }

    /// The digest of what was written.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Gives the file the name of its content, and says where it is.
    pub fn publish(mut self) -> Result<PathBuf> {
        let digest = self.digest();
        self.file.sync()?;
        let target = self.store.download_path(&digest);
        // A store of an earlier version has no such folder.
        let folder = target.parent().expect("a download is below the root");
        fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
        self.file.publish(&target)?;
        Ok(target)
    }
}
