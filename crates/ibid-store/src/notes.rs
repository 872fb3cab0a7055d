//! Facts about an image that differ between machines and builds (who built it, when, from which commit) and
//! so live beside it, never in its digest. One small file an image, and one for the list of the files that were copied in,
//! which may be long.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use ibid_core::digest::Digest;

use crate::gc::remove_file;
use crate::staging::StagedFile;
use crate::{Error, Result, Store};

impl Store {
    /// Reads what is noted about an image.
    pub fn note(&self, image: &Digest) -> Result<Option<Vec<u8>>> {
        self.read_note(&image.hex())
    }

    /// Notes something about an image, in place of what was noted before.
    pub fn put_note(&self, image: &Digest, note: &[u8]) -> Result<()> {
        self.write_note(&image.hex(), note)
    }

    /// Reads the list of files that is kept beside an image.
    pub fn files_note(&self, image: &Digest) -> Result<Option<Vec<u8>>> {
        self.read_note(&files_name(&image.hex()))
    }

    /// Whether a list of files is kept beside an image.
    pub fn has_files_note(&self, image: &Digest) -> bool {
        let name = files_name(&image.hex());
        std::iter::once(self).chain(self.additional()).any(|store| store.note_path(&name).exists())
    }

    /// Keeps a list of files beside an image, in place of what was there.
    pub fn put_files_note(&self, image: &Digest, list: &[u8]) -> Result<()> {
        self.write_note(&files_name(&image.hex()), list)
    }

    /// Forgets what is noted about the image whose digest has these digits.
    pub(crate) fn remove_notes(&self, hex: &str) -> Result<()> {
        remove_file(&self.note_path(hex))?;
        remove_file(&self.note_path(&files_name(hex)))
    }

    fn read_note(&self, name: &str) -> Result<Option<Vec<u8>>> {
        for store in std::iter::once(self).chain(self.additional()) {
            let path = store.note_path(name);
            match fs::read(&path) {
                Ok(note) => return Ok(Some(note)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        Ok(None)
    }

    fn write_note(&self, name: &str, note: &[u8]) -> Result<()> {
        let mut file = StagedFile::new(&self.tmp())?;
        file.write(note)?;
        file.sync()?;
        file.publish(&self.note_path(name))
    }

    fn note_path(&self, name: &str) -> PathBuf {
        self.root().join("notes").join(name)
    }
}

fn files_name(hex: &str) -> String {
    format!("{hex}.files")
}
