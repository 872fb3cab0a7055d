//! Removing what no run needs: neither one that is recorded, nor one that was removed and can be restored.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::time::Duration;

use ibid_core::digest::Digest;

use super::folder;
use super::tree::{self, What};
use crate::ledger::{Error, Ledger, io, read_early, read_record};
use crate::objects::{Objects, Removed};
use crate::record::Code;

/// Removes the contents that no run needs and that were neither stored nor taken again since `spare` ago: a run that is about to
/// start has no record yet. With `dry_run`, only says what it would remove.
///
/// A record that cannot be read is an error, as what it needs is not known; then nothing is removed.
pub fn collect(ledger: &Ledger, spare: Duration, dry_run: bool) -> Result<Removed, Error> {
    if !ledger.folder().join("objects").is_dir() {
        return Ok(Removed::default());
    }
    Objects::of(ledger).remove_all_but(spare, dry_run, |objects, spared| {
        let mut needed: HashSet<Digest> = HashSet::new();
        let mut folders = Vec::new();
        for digest in spared {
            if objects.starts_with(&digest, tree::MAGIC)? {
                folders.push(digest);
            }
            needed.insert(digest);
        }
        for code in recorded(ledger)? {
            folders.extend(code.snapshot);
            needed.extend(code.difference);
        }
        let mut seen = HashSet::new();
        while let Some(digest) = folders.pop() {
            if !seen.insert(digest) {
                continue;
            }
            needed.insert(digest);
            let entries = match folder(objects, ledger, &digest) {
                Ok(entries) => entries,
                // It needs nothing more. Whoever asks for it is told.
                Err(Error::MissingObject { .. } | Error::DamagedObject { .. }) => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                match entry.what {
                    What::File { digest, .. } => _ = needed.insert(digest),
                    What::Folder(digest) => folders.push(digest),
                    What::Link { .. } => {}
                }
            }
        }
        Ok(needed)
    })
}

/// Which code all records name.
fn recorded(ledger: &Ledger) -> Result<Vec<Code>, Error> {
    let mut all = Vec::new();
    for place in ["runs", "removed"] {
        let place = ledger.folder().join(place);
        let runs = match fs::read_dir(&place) {
            Ok(runs) => runs,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io("read", &place)(error)),
        };
        for run in runs {
            let run = run.map_err(io("read", &place))?.path();
            for record in [read_record(&run.join("record.json")), read_early(&run)] {
                match record {
                    Ok(record) => all.push(record.code),
                    Err(Error::Io { source, .. })
                        if matches!(
                            source.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                        ) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(all)
}
