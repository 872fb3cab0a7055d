//! Writing an archive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ibid_core::digest::{Digest, Hasher};
use ibid_store::{PlainArchiveWriter, PlainEntry, PlainKind};

use super::{CODE, DATA, Error, IMAGE, Listed, MANIFEST, Manifest, OUTPUTS, RECORD, SCHEMA, io};
use crate::data;
use crate::ledger::{self, Ledger};
use crate::objects::Objects;
use crate::record::{Data, Output, Record};
use crate::research_object::{self, CRATE_FILE, Contents, STATEMENT_FILE};
use crate::snapshot::{self, Kind};

/// What goes into an archive besides what a repetition needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice {
    /// The contents of the outputs, which comparing within tolerances needs.
    pub outputs: bool,
    /// The data inputs.
    pub data: bool,
}

/// A file outside the ledger's objects that is to be written.
struct Source {
    path: PathBuf,
    executable: bool,
    listed: Listed,
}

/// Writes the archive of a run that has ended. `image` writes the image as an archive, the same bytes each time. Returns the
/// outputs that are left out, since they are no longer what the run wrote.
pub fn write(
    ledger: &Ledger,
    project: &Path,
    record: &Record,
    choice: Choice,
    image: &dyn Fn(&mut dyn Write) -> Result<(), ibid_store::Error>,
    out: impl Write,
) -> Result<Vec<String>, Error> {
    let folder = ledger.run_folder(record.id);
    let path = folder.join(RECORD);
    let record_text = fs::read(&path).map_err(io("read", &path))?;
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(io("read", &folder))? {
        let name = entry.map_err(io("read", &folder))?.file_name();
        if let Some(name) = name.to_str().filter(|name| is_kept(name)) {
            sources.insert(name.to_owned(), source(&folder.join(name))?);
        }
    }
    let mut left_out = Vec::new();
    let mut outputs = Vec::new();
    if choice.outputs {
        for output in &record.outputs {
            match unchanged(project, output)? {
                Some(source) => {
                    let name = format!("{OUTPUTS}/{}", output.path);
                    outputs.push(file(&name, &source.listed));
                    sources.insert(name, source);
                }
                None => left_out.push(output.path.clone()),
            }
        }
    }
    let mut links = Vec::new();
    let mut data = Vec::new();
    if choice.data {
        for input in &record.data {
            check_data(ledger, project, input)?;
            let place = format!("{DATA}/{}", input.path);
            add_tree(&project.join(&input.path), &place, &mut sources, &mut links)?;
            data.push((input.path.clone(), place));
        }
    }
    let mut files: Vec<_> = sources
        .iter()
        .filter(|(name, _)| !name.contains('/'))
        .map(|(name, source)| (file(name, &source.listed), described(name)))
        .collect();
    files.insert(
        0,
        (
            research_object::File {
                path: RECORD.to_owned(),
                bytes: record_text.len() as u64,
                digest: Digest::of(&record_text),
            },
            "The record of the run, as ibid reads it",
        ),
    );
    let contents = Contents {
        files,
        code: record.code.snapshot.is_some().then(|| CODE.to_owned()),
        outputs,
        data,
        image: Some(IMAGE.to_owned()),
    };
    let described = [
        (RECORD, record_text.clone()),
        (CRATE_FILE, json(&research_object::process_run_crate(record, &contents))),
        (STATEMENT_FILE, json(&research_object::statement(record, Digest::of(&record_text)))),
    ];
    let mut listed: BTreeMap<String, Listed> =
        sources.iter().map(|(name, source)| (name.clone(), source.listed.clone())).collect();
    for (name, text) in &described {
        listed.insert((*name).to_owned(), Listed { bytes: text.len() as u64, digest: Digest::of(text) });
    }
    let manifest = json(&Manifest { schema: SCHEMA, run: record.id, files: listed });

    let mut archive = PlainArchiveWriter::new(out);
    for (name, text) in
        [(MANIFEST, &manifest)].into_iter().chain(described.iter().map(|(name, text)| (*name, text)))
    {
        archive.append(&plain_file(name.as_bytes(), text.len() as u64, false), &mut text.as_slice())?;
    }
    for (name, source) in sources.iter().filter(|(name, _)| !name.contains('/')) {
        append_source(&mut archive, name, source)?;
    }
    if let Some(snapshot) = record.code.snapshot {
        append_code(&mut archive, ledger, snapshot)?;
    }
    for (name, target) in links {
        let target = target.into_os_string().into_encoded_bytes();
        archive.append(
            &PlainEntry { path: name.into_bytes(), kind: PlainKind::Link { target } },
            &mut io::empty(),
        )?;
    }
    for (name, source) in sources.iter().filter(|(name, _)| name.contains('/')) {
        append_source(&mut archive, name, source)?;
    }
    // Its size stands before it, so it is made twice: reading it again is cheaper than room for a copy.
    let mut counted = Counted(0);
    image(&mut counted)?;
    archive.append_by(&plain_file(IMAGE.as_bytes(), counted.0, false), |out| image(out))?;
    archive.finish()?;
    Ok(left_out)
}

/// Whether a file of the run's folder goes into the archive: not what is written about it later, as tags and notes are.
pub(super) fn is_kept(name: &str) -> bool {
    name == "log" || name.starts_with("log.") || name == "metrics.jsonl"
}

fn described(name: &str) -> &'static str {
    match name {
        "metrics.jsonl" => "Every value of each metric",
        _ => "What the program wrote, with times",
    }
}

fn append_code(
    archive: &mut PlainArchiveWriter<impl Write>,
    ledger: &Ledger,
    snapshot: Digest,
) -> Result<(), Error> {
    let objects = Objects::of(ledger);
    for entry in snapshot::entries(ledger, snapshot)? {
        let path = [CODE.as_bytes(), b"/", entry.path.as_os_str().as_encoded_bytes()].concat();
        match entry.kind {
            Kind::File { digest, bytes, executable } => {
                let mut failure = None;
                let written = archive.append_by(&plain_file(&path, bytes, executable), |mut out| {
                    objects.copy(&digest, &mut out).map(drop).map_err(|error| {
                        failure = Some(error);
                        ibid_store::Error::PlainArchive {
                            action: "write",
                            source: io::ErrorKind::Other.into(),
                        }
                    })
                });
                match (failure, written) {
                    (Some(failure), _) => return Err(failure.into()),
                    (None, written) => written?,
                }
            }
            Kind::Link { target } => {
                let target = target.into_encoded_bytes();
                archive.append(&PlainEntry { path, kind: PlainKind::Link { target } }, &mut io::empty())?;
            }
            Kind::Folder => {
                archive.append(&PlainEntry { path, kind: PlainKind::Folder }, &mut io::empty())?
            }
        }
    }
    Ok(())
}

fn append_source(
    archive: &mut PlainArchiveWriter<impl Write>,
    name: &str,
    source: &Source,
) -> Result<(), Error> {
    let entry = plain_file(name.as_bytes(), source.listed.bytes, source.executable);
    let file = File::open(&source.path).map_err(io("open", &source.path))?;
    let mut hashed = Hashed { from: file, hasher: Hasher::default() };
    archive.append(&entry, &mut hashed)?;
    if hashed.hasher.finish() != source.listed.digest {
        return Err(ledger::Error::Damaged {
            path: source.path.clone(),
            reason: "it changed while it was exported".to_owned(),
        }
        .into());
    }
    Ok(())
}

/// An output, if it is still what the run wrote.
fn unchanged(project: &Path, output: &Output) -> Result<Option<Source>, Error> {
    let path = project.join(&output.path);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() == output.bytes => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", &path)(error)),
    }
    Ok(Some(source(&path)?).filter(|source| source.listed.digest == output.digest))
}

/// Refuses data that is no longer what the run read.
fn check_data(ledger: &Ledger, project: &Path, input: &Data) -> Result<(), Error> {
    let found = data::identify(ledger, project, &input.path, input.digest.is_some())?;
    let is_same = found.is_some_and(|found| match input.digest {
        Some(_) => found.digest == input.digest,
        None => found.identity == input.identity,
    });
    if is_same { Ok(()) } else { Err(Error::OtherData { path: input.path.clone() }) }
}

/// Everything in a folder, or a file by itself, under the name `place`.
fn add_tree(
    path: &Path,
    place: &str,
    sources: &mut BTreeMap<String, Source>,
    links: &mut Vec<(String, PathBuf)>,
) -> Result<(), Error> {
    let found = fs::symlink_metadata(path).map_err(io("read", path))?;
    if found.is_symlink() {
        links.push((place.to_owned(), fs::read_link(path).map_err(io("read", path))?));
    } else if found.is_dir() {
        let mut entries: Vec<_> =
            fs::read_dir(path).and_then(Iterator::collect::<io::Result<_>>).map_err(io("read", path))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let inner = entry.path();
            let name = entry.file_name().into_string().map_err(|_| Error::Name { path: inner.clone() })?;
            add_tree(&inner, &format!("{place}/{name}"), sources, links)?;
        }
    } else {
        sources.insert(place.to_owned(), source(path)?);
    }
    Ok(())
}

fn source(path: &Path) -> Result<Source, Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = File::open(path).map_err(io("open", path))?;
    let mode = file.metadata().map_err(io("read", path))?.permissions().mode();
    let mut hashed = Hashed { from: file, hasher: Hasher::default() };
    let bytes = io::copy(&mut hashed, &mut io::sink()).map_err(io("read", path))?;
    let listed = Listed { bytes, digest: hashed.hasher.finish() };
    Ok(Source { path: path.to_owned(), executable: mode & 0o100 != 0, listed })
}

fn file(name: &str, listed: &Listed) -> research_object::File {
    research_object::File { path: name.to_owned(), bytes: listed.bytes, digest: listed.digest }
}

fn plain_file(path: &[u8], bytes: u64, executable: bool) -> PlainEntry {
    PlainEntry { path: path.to_vec(), kind: PlainKind::File { bytes, executable } }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain data");
    text.push(b'\n');
    text
}

struct Hashed<R> {
    from: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }
}

/// Counts what is written to it.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
