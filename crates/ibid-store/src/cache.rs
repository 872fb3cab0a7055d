//! The build cache: small values by key. It is derived: whatever is lost is computed again, so nothing is synced,
//! but no reader ever sees half a value.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use ibid_core::digest::Digest;

use crate::staging::StagedFile;
use crate::{Error, Result, Store};

/// Values of less are looked at before they are written: the same again is not.
const SMALL_BYTES: usize = 4096;

impl Store {
    /// Reads a value of the build cache.
    pub fn cache(&self, key: &Digest) -> Result<Option<Vec<u8>>> {
        for store in std::iter::once(self).chain(self.additional()) {
            let path = store.cache_path(key);
            match fs::read(&path) {
                // After a power cut a file that was not synced can be empty. No value is.
                Ok(value) if value.is_empty() => {}
                Ok(value) => return Ok(Some(value)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        Ok(None)
    }

    /// Sets a value of the build cache. An empty value is the same as none. In a store that cannot be written, none is
    /// kept.
    pub fn put_cache(&self, key: &Digest, value: &[u8]) -> Result<()> {
        // To read a value costs less than to write one.
        if self.is_read_only() || (value.len() < SMALL_BYTES && self.cache(key)?.as_deref() == Some(value)) {
            return Ok(());
        }
        let mut file = StagedFile::new(&self.tmp())?;
        file.write(value)?;
        file.publish(&self.cache_path(key))
    }

    fn cache_path(&self, key: &Digest) -> PathBuf {
        self.root().join("cache").join(key.hex())
    }
}
