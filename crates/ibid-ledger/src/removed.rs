//! Runs that were taken out of the ledger, and can be put back until they are removed for good.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::ledger::{Error, Ledger, io, read_early, read_record};
use crate::run_id::RunId;
use crate::summary::Summary;

/// Where the folders of removed runs are.
pub fn folder(ledger: &Ledger) -> PathBuf {
    ledger.folder().join("removed")
}

/// Takes a run out of the ledger.
pub fn remove(ledger: &Ledger, id: RunId) -> Result<(), Error> {
    let folder = folder(ledger);
    fs::create_dir_all(&folder).map_err(io("make the folder", &folder))?;
    ledger.give(&folder)?;
    let (from, to) = (ledger.run_folder(id), folder.join(id.to_string()));
    fs::rename(&from, &to).map_err(io("move", &from))?;
    // Since when it is here is what `purge` goes by.
    let _ = fs::File::open(&to).and_then(|handle| handle.set_modified(SystemTime::now()));
    Ok(())
}

/// Puts a run back.
pub fn restore(ledger: &Ledger, id: RunId) -> Result<(), Error> {
    let (from, to) = (folder(ledger).join(id.to_string()), ledger.run_folder(id));
    fs::rename(&from, &to).map_err(io("move", &from))
}

/// The runs that can be put back, in no order.
pub fn ids(ledger: &Ledger) -> Result<Vec<RunId>, Error> {
    let folder = folder(ledger);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("read", &folder)(error)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io("read", &folder))?;
        ids.extend(entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()));
    }
    Ok(ids)
}

/// Those runs, newest first, as far as anything is known of them.
pub fn runs(ledger: &Ledger) -> Result<Vec<Summary>, Error> {
    let read = |id: RunId| {
        let folder = folder(ledger).join(id.to_string());
        // Nobody records them, so the last that was written is all that there is.
        let record = folder.join("record.json");
        Summary::read(id, &folder, if record.exists() { read_record(&record) } else { read_early(&folder) })
    };
    let mut runs: Vec<Summary> = ids(ledger)?.into_iter().filter_map(read).collect();
    runs.sort_by(|a, b| (&b.started, &b.id).cmp(&(&a.started, &a.id)));
    Ok(runs)
}

/// Removes for good what was taken out before a point in time, and returns what that was. With `dry_run`, only says so.
pub fn purge(ledger: &Ledger, before: SystemTime, dry_run: bool) -> Result<Vec<RunId>, Error> {
    let mut purged = Vec::new();
    for id in ids(ledger)? {
        let path = folder(ledger).join(id.to_string());
        let metadata = fs::metadata(&path).map_err(io("read", &path))?;
        if metadata.modified().map_err(io("read", &path))? < before {
            if !dry_run {
                fs::remove_dir_all(&path).map_err(io("remove", &path))?;
            }
            purged.push(id);
        }
    }
    Ok(purged)
}
