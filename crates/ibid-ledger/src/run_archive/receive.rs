//! Reading an archive, which may come from anybody.
//!
//! The record is parsed and its paths are looked at before anything else is used. The code is stored by content, and its digest
//! as a whole must be the record's; so must the image's. Other files must be listed. Nothing is written under a name of the
//! archive but outputs and data, below folders of the caller's own, and links among these are made when all files are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use ibid_core::digest::{Digest, Hasher};
use ibid_store::{PlainArchive, PlainEntry, PlainKind, Store};

use super::{CODE, DATA, Error, IMAGE, Listed, MANIFEST, Manifest, OUTPUTS, RECORD, SCHEMA, io as io_error};
use crate::assembly::{Assembly, AssemblyError};
use crate::ledger::{self, Ledger};
use crate::objects::Objects;
use crate::record::Record;
use crate::research_object::{CRATE_FILE, STATEMENT_FILE};

/// Most bytes of a document that is kept in memory: the list, the record.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
/// Most files, folders and links of an archive.
const ENTRIES_MAX: usize = 20_000_000;
/// Longest path, as the kernel has it. It bounds the depth of folders, too.
const PATH_BYTES_MAX: usize = 4096;

/// What an archive held.
#[derive(Debug)]
pub struct Received {
    /// The run. It is in the ledger now, and its code among the ledger's objects.
    pub record: Record,
    /// Outputs whose contents came along, by their paths in the project.
    pub outputs: BTreeSet<String>,
    /// Whether data inputs came along.
    pub has_data: bool,
}

/// Reads an archive into a ledger and a store. Contents of outputs and data, if they are in it, come to `outputs/` and `data/` in
/// the folder `into`.
pub fn receive(from: impl Read, ledger: &Ledger, store: &Store, into: &Path) -> Result<Received, Error> {
    let mut archive = PlainArchive::new(from)?;
    let manifest = first(&mut archive)?;
    let objects = Objects::of(ledger);
    ledger.prepare()?;
    let mut receiving = Receiving {
        listed: manifest.files,
        into,
        folder: Temporary::new(ledger, manifest.run)?,
        links: Vec::new(),
        outputs: BTreeSet::new(),
        has_data: false,
    };
    let mut record = None;
    let mut has_image = false;
    let mut code = Assembly::begin(&objects)?;
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        entries += 1;
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        if entries > ENTRIES_MAX || entry.path.len() > PATH_BYTES_MAX {
            return Err(untrue(&name, "it holds more, or longer names, than any codebase"));
        }
        let Some(known) = &record else {
            record = Some(receiving.record(&mut archive, &entry, manifest.run)?);
            continue;
        };
        match name.split('/').next().unwrap_or_default() {
            IMAGE if matches!(entry.kind, PlainKind::File { .. }) => {
                has_image |= load_image(store, &mut archive, known)?;
            }
            CODE if name.len() > CODE.len() => add_code(&mut archive, &entry, &mut code)?,
            OUTPUTS | DATA if name.contains('/') => receiving.beside(&mut archive, &entry)?,
            _ => receiving.of_ledger(&mut archive, &entry)?,
        }
    }
    let record = record.ok_or_else(|| foreign("it holds no record"))?;
    if !has_image {
        return Err(untrue(IMAGE, "it is missing"));
    }
    if let Some(name) = receiving.listed.keys().next() {
        return Err(untrue(name, "it is missing"));
    }
    receiving.make_links()?;
    match (record.code.snapshot, code.is_empty()) {
        (None, true) => {}
        (None, false) => return Err(untrue(CODE, "the record names no snapshot")),
        (Some(snapshot), _) => {
            let found = code.finish()?;
            if found != snapshot {
                return Err(untrue(
                    CODE,
                    format!("it is the snapshot {found}, and the record names {snapshot}"),
                ));
            }
        }
    }
    receiving.folder.publish(ledger, &record)?;
    Ok(Received { record, outputs: receiving.outputs, has_data: receiving.has_data })
}

/// The list, which comes first.
fn first(archive: &mut PlainArchive) -> Result<Manifest, Error> {
    let entry = archive.next()?;
    if entry.as_ref().is_none_or(|entry| entry.path != MANIFEST.as_bytes()) {
        return Err(foreign(format!("its first entry is not {MANIFEST}")));
    }
    let text = document(archive, MANIFEST)?;
    #[derive(serde::Deserialize)]
    struct Version {
        schema: u64,
    }
    let damaged = |error: serde_json::Error| foreign(format!("{MANIFEST}: {error}"));
    let version: Version = serde_json::from_slice(&text).map_err(damaged)?;
    if version.schema > u64::from(SCHEMA) {
        return Err(Error::Newer { version: version.schema });
    }
    serde_json::from_slice(&text).map_err(damaged)
}

fn document(archive: &mut PlainArchive, name: &str) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    archive.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text).map_err(cannot_read)?;
    if text.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(untrue(name, format!("it has more than {DOCUMENT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn load_image(store: &Store, archive: &mut PlainArchive, record: &Record) -> Result<bool, Error> {
    let loaded = store.load_archive(&mut *archive)?;
    // What follows the end of the inner archive is nothing's business.
    io::copy(archive, &mut io::sink()).map_err(cannot_read)?;
    if loaded.iter().any(|loaded| loaded.image == record.image.digest) {
        return Ok(true);
    }
    let found = loaded.first().map_or_else(|| "none".to_owned(), |loaded| loaded.image.to_string());
    Err(untrue(IMAGE, format!("it is the image {found}, and the record names {}", record.image.digest)))
}

/// A file of the code goes into the objects; its place in the tree is remembered.
fn add_code(archive: &mut PlainArchive, entry: &PlainEntry, code: &mut Assembly) -> Result<(), Error> {
    let path = &entry.path[CODE.len() + 1..];
    let added = match &entry.kind {
        PlainKind::File { executable, .. } => {
            code.add_file(path, *executable, archive).map_err(|error| match error {
                AssemblyError::Ledger(error) => Error::from(error),
                AssemblyError::Read(error) => cannot_read(error),
            })?
        }
        PlainKind::Link { target } => code.add_link(path, target),
        PlainKind::Folder => code.add_folder(path),
    };
    added.map_err(|misplaced| untrue(&String::from_utf8_lossy(&entry.path), misplaced.0))
}

struct Receiving<'a> {
    /// What is still to come.
    listed: BTreeMap<String, Listed>,
    into: &'a Path,
    folder: Temporary,
    links: Vec<(PathBuf, PathBuf)>,
    outputs: BTreeSet<String>,
    has_data: bool,
}

impl Receiving<'_> {
    fn record(
        &mut self,
        archive: &mut PlainArchive,
        entry: &PlainEntry,
        run: crate::run_id::RunId,
    ) -> Result<Record, Error> {
        if entry.path != RECORD.as_bytes() {
            return Err(foreign(format!("its second entry is not {RECORD}")));
        }
        let text = document(archive, RECORD)?;
        let found = Listed { bytes: text.len() as u64, digest: Digest::of(&text) };
        self.check(RECORD, &found)?;
        let record = ledger::parse_record(Path::new(RECORD), &text)?;
        if record.id != run {
            return Err(untrue(RECORD, format!("it is of the run {}, and the list is of {run}", record.id)));
        }
        check_paths(&record)?;
        let path = self.folder.0.join(RECORD);
        fs::write(&path, &text).map_err(io_error("write", &path))?;
        Ok(record)
    }

    /// A file of the outputs or the data, in its place below `into`.
    fn beside(&mut self, archive: &mut PlainArchive, entry: &PlainEntry) -> Result<(), Error> {
        let name = text(entry)?;
        let path = self.into.join(name);
        let in_project = name.split_once('/').map_or("", |(_, path)| path);
        self.has_data |= name.starts_with(DATA);
        match &entry.kind {
            PlainKind::File { executable, .. } => {
                let parent = path.parent().expect("it is below `into`");
                fs::create_dir_all(parent).map_err(io_error("make the folder", parent))?;
                let mode = if *executable { 0o755 } else { 0o644 };
                let options = File::options().write(true).create_new(true).mode(mode).clone();
                let file = options.open(&path).map_err(io_error("write", &path))?;
                let found = copy(archive, file, &path)?;
                self.check(name, &found)?;
                if name.starts_with(OUTPUTS) {
                    self.outputs.insert(in_project.to_owned());
                }
            }
            PlainKind::Link { target } => {
                self.links.push((path, PathBuf::from(std::ffi::OsStr::from_bytes(target))));
            }
            PlainKind::Folder => fs::create_dir_all(&path).map_err(io_error("make the folder", &path))?,
        }
        Ok(())
    }

    /// The log and the metrics go to the ledger; what is for other programs, or from another ibid, is only checked.
    fn of_ledger(&mut self, archive: &mut PlainArchive, entry: &PlainEntry) -> Result<(), Error> {
        let name = text(entry)?;
        if !matches!(entry.kind, PlainKind::File { .. }) || name.contains('/') {
            return Err(untrue(name, "it has no place in an archive of a run"));
        }
        let found = if matches!(name, CRATE_FILE | STATEMENT_FILE) || !super::write::is_kept(name) {
            let mut hashing = Hashing { to: io::sink(), hasher: Hasher::default() };
            let bytes = io::copy(archive, &mut hashing).map_err(cannot_read)?;
            Listed { bytes, digest: hashing.hasher.finish() }
        } else {
            let path = self.folder.0.join(name);
            let file = File::create_new(&path).map_err(io_error("write", &path))?;
            copy(archive, file, &path)?
        };
        self.check(name, &found)
    }

    /// That a file is listed, as it is, and comes once.
    fn check(&mut self, name: &str, found: &Listed) -> Result<(), Error> {
        match self.listed.remove(name) {
            Some(listed) if listed == *found => Ok(()),
            Some(listed) => Err(untrue(
                name,
                format!(
                    "{} bytes with the digest {} instead of {} bytes with {}",
                    found.bytes, found.digest, listed.bytes, listed.digest
                ),
            )),
            None => Err(untrue(name, "it is not listed, or comes twice")),
        }
    }

    /// Makes the links among the data. All folders are made first: a link where a folder should be is then an error, so none
    /// is ever made through another.
    fn make_links(&self) -> Result<(), Error> {
        for (path, _) in &self.links {
            let parent = path.parent().expect("it is below `into`");
            fs::create_dir_all(parent).map_err(io_error("make the folder", parent))?;
        }
        for (path, target) in &self.links {
            std::os::unix::fs::symlink(target, path).map_err(io_error("make the link", path))?;
        }
        Ok(())
    }
}

/// Refuses a record whose paths lead out of the project.
fn check_paths(record: &Record) -> Result<(), Error> {
    let outputs = record.outputs.iter().map(|output| output.path.as_str());
    let data = record.data.iter().map(|data| data.path.as_str());
    for path in outputs.chain(data).chain(record.output_folder.as_deref()) {
        let stays = !path.is_empty()
            && Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
        if !stays {
            return Err(untrue(RECORD, format!("the path `{path}` in it leads out of the project")));
        }
    }
    match record.code.folder.as_deref() {
        Some(folder) if !folder.starts_with('/') || folder.split('/').any(|part| part == "..") => {
            Err(untrue(RECORD, format!("the folder of the code, `{folder}`, is no absolute path")))
        }
        _ => Ok(()),
    }
}

/// The run's folder while it is not whole; removed unless it gets its name.
struct Temporary(PathBuf);

impl Temporary {
    fn new(ledger: &Ledger, run: crate::run_id::RunId) -> Result<Self, Error> {
        let name = format!(".{run}.{}", std::process::id());
        let folder = ledger.run_folder(run).with_file_name(name);
        fs::create_dir_all(&folder).map_err(io_error("make the folder", &folder))?;
        Ok(Self(folder))
    }

    /// Puts it among the runs. The same run may be there already.
    fn publish(&self, ledger: &Ledger, record: &Record) -> Result<(), Error> {
        let folder = ledger.run_folder(record.id);
        if folder.exists() {
            return match ledger.read(record.id) {
                Ok(known) if known == *record => Ok(()),
                _ => Err(untrue(RECORD, format!("another run {} is in {}", record.id, folder.display()))),
            };
        }
        fs::rename(&self.0, &folder).map_err(io_error("make the folder", &folder))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing of that name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Hashing<W> {
    to: W,
    hasher: Hasher,
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn copy(archive: &mut PlainArchive, to: File, path: &Path) -> Result<Listed, Error> {
    let mut hashing = Hashing { to, hasher: Hasher::default() };
    let bytes = io::copy(archive, &mut hashing).and_then(|bytes| hashing.flush().map(|()| bytes));
    let bytes = bytes.map_err(io_error("write", path))?;
    Ok(Listed { bytes, digest: hashing.hasher.finish() })
}

/// The name of an entry that is listed.
fn text(entry: &PlainEntry) -> Result<&str, Error> {
    str::from_utf8(&entry.path)
        .map_err(|_| untrue(&String::from_utf8_lossy(&entry.path), "its name is not UTF-8"))
}

fn cannot_read(source: io::Error) -> Error {
    ibid_store::Error::PlainArchive { action: "read", source }.into()
}

fn foreign(reason: impl Into<String>) -> Error {
    Error::Foreign { reason: reason.into() }
}

fn untrue(name: &str, reason: impl Into<String>) -> Error {
    Error::Untrue { name: name.to_owned(), reason: reason.into() }
}
