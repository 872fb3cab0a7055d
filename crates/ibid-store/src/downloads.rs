//! Files that were fetched for a build, by the SHA-256 digest of their content. Losing one costs the time to fetch it
//! again, from a place that may have something else by then.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

use ibid_core::digest::{Digest, Hasher};

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
