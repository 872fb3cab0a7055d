//! Writing a snapshot into a folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ibid_core::digest::Digest;

use super::{Kind, entries};
use crate::ledger::{Error, Ledger, io};
use crate::objects::Objects;

/// Writes the code of `snapshot` into the folder `into`, which is made, or is empty. Files are 644 or 755 less the umask.
///
/// Nothing is written through a link: names in a snapshot cannot climb out, and no two entries share one.
pub fn checkout(ledger: &Ledger, snapshot: Digest, into: &Path) -> Result<(), Error> {
    let entries = entries(ledger, snapshot)?;
    match fs::create_dir(into) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut holds = fs::read_dir(into).map_err(io("read", into))?;
            if holds.next().is_some() {
                return Err(io("write into", into)(io::ErrorKind::DirectoryNotEmpty.into()));
            }
        }
        result => result.map_err(io("make the folder", into))?,
    }
    let objects = Objects::of(ledger);
    // A folder comes before what it holds.
    for entry in &entries {
        let path = into.join(&entry.path);
        match &entry.kind {
            Kind::Folder => fs::create_dir(&path).map_err(io("make the folder", &path))?,
            Kind::Link { target } => {
                std::os::unix::fs::symlink(target, &path).map_err(io("make the link", &path))?
            }
            Kind::File { digest, executable, .. } => {
                let file = create(&path, *executable).map_err(io("write", &path))?;
                let mut to = BufWriter::new(file);
                let written = objects.copy(digest, &mut to);
                let written = written.and_then(|_| to.flush().map_err(io("write", &path)));
                if let Err(error) = written {
                    // Half a file would look like a whole one.
                    let _ = fs::remove_file(&path);
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

fn create(path: &Path, executable: bool) -> io::Result<File> {
    let mode = if executable { 0o755 } else { 0o644 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}
