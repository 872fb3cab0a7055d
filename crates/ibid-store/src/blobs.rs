//! Immutable bytes named by their SHA-256 digest.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use ibid_core::digest::Digest;
use ibid_core::image::ImageConfig;

use crate::staging::StagedFile;
use crate::{Error, Result, Store};

impl Store {
    /// Keeps `bytes` and names them.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let target = self.blob_path(&digest);
        // One that is there already may have been damaged since: only the right bytes make writing needless.
        if fs::read(&target).is_ok_and(|present| present == bytes) {
            return Ok(digest);
        }
        let mut file = StagedFile::new(&self.tmp())?;
        file.write(bytes)?;
        file.sync()?;
        file.publish(&target)?;
        Ok(digest)
    }

    /// Reads the bytes that `digest` names, and checks that they are the ones.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let found = self.own_blob(digest);
        if matches!(found, Ok(_) | Err(Error::Io { .. })) {
            return found;
        }
        self.additional().iter().find_map(|other| other.own_blob(digest).ok()).map_or(found, Ok)
    }

    fn own_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::NoBlob { digest: *digest });
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Damaged { path, reason: format!("its content has the digest {found}") });
        }
        Ok(bytes)
    }

    /// Keeps an image's configuration. Its digest names the image.
    pub fn put_image(&self, config: &ImageConfig) -> Result<Digest> {
        self.put_blob(&config.to_json())
    }

    /// Reads an image's configuration.
    pub fn image(&self, digest: &Digest) -> Result<ImageConfig> {
        let bytes = self.blob(digest)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Damaged {
            path: self.blob_path(digest),
            reason: format!("it is no image configuration: {error}"),
        })
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("blobs/sha256").join(digest.hex())
    }
}
