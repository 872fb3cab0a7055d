//! Facts about an image that differ between machines and builds (who built it, when, from which commit) and
//! so live beside it, never in its digest. One small file an image, replaced by each build of the same image.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use ibid_core::digest::Digest;

use crate::staging::StagedFile;
use crate::{Error, Result, Store};

impl Store {
    /// Reads what is noted about an image.
    pub fn note(&self, image: &Digest) -> Result<Option<Vec<u8>>> {
        for store in std::iter::once(self).chain(self.additional()) {
            let path = store.note_path(image);
            match fs::read(&path) {
                Ok(note) => return Ok(Some(note)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        Ok(None)
    }

    /// Notes something about an image, in place of what was noted before.
    pub fn put_note(&self, image: &Digest, note: &[u8]) -> Result<()> {
        let mut file = StagedFile::new(&self.tmp())?;
        file.write(note)?;
        file.sync()?;
        file.publish(&self.note_path(image))
    }

    fn note_path(&self, image: &Digest) -> PathBuf {
        self.root().join("notes").join(image.hex())
    }
}
