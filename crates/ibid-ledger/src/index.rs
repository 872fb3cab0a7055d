//! All runs of a ledger, newest first, quickly: what was read of their records before is kept in an SQLite file.
//!
//! The index is a cache. It may be removed at any time, is made anew when it is damaged or of another version, and is
//! done without where it cannot be written. It never decides which runs there are: names, sizes and times of the files in
//! the ledger do. A record that has changed in any way that these show is read again, and so is every run that has not ended.
//!
//! ```text
//! runs   id           the run's name, 48 bits
//!        record_time  when its record was written, nanoseconds since 1970
//!        record_bytes size of its record
//!        folder_time  when something in its folder was made, renamed or removed
//!        summary      its `Summary` in postcard's encoding
//! ```

use std::cmp::Reverse;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, open, statat};
use rustix::io::Errno;

use crate::ledger::{Error, Ledger, io};
use crate::record::Status;
use crate::run_id::RunId;
use crate::summary::{Standing, Summary, Texts, decode, encode, started};

/// Another layout of the file, or of what it holds, gets another number.
const VERSION: i64 = 2;
/// A file that is younger than this could change again without its time showing it.
const SETTLED_NANOSECONDS: i128 = 2_000_000_000;
/// So long somebody waits for another who writes the index, before going without.
const WAIT: Duration = Duration::from_millis(300);
/// Fewer are not worth a thread.
const ITEMS_PER_THREAD_MIN: usize = 64;
const THREADS_MAX: usize = 8;

/// What the files of a run looked like: time and size of its record, and time of its folder, which changes when marks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    record_time: i64,
    record_bytes: i64,
    folder_time: i64,
}

/// All runs of `ledger`, newest first; those without a readable record last. `index` is the file to keep it in, none to do
/// without; `texts` is what they borrow from.
pub fn runs<'t>(
    ledger: &Ledger,
    index: Option<&Path>,
    texts: &'t mut Texts,
) -> Result<Vec<Summary<&'t str>>, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
    let Texts { known: known_texts, fresh: fresh_texts } = texts;
    // Looking at the files and reading the index take about as long: neither waits for the other.
    let (found, (mut index, known)) = std::thread::scope(|scope| {
        let found = scope.spawn(|| scan(&ledger.folder().join("runs")));
        // Here, as the memory of other threads grows by a system call for each page.
        let known = known(index, known_texts);
        (found.join().expect("looking at files does not panic"), known)
    });
    let found = found?;
    let known_texts: &[u8] = known_texts;
    let (mut same, mut changed, mut gone) = (Vec::with_capacity(found.len()), Vec::new(), Vec::new());
    // Both are in the order of their names.
    let mut known = known.into_iter().peekable();
    for &(id, stamp) in &found {
        while let Some(row) = known.next_if(|row| row.id < id) {
            gone.push(row.id);
        }
        match known.next_if(|row| row.id == id) {
            Some(row) if Some(row.stamp) == stamp => {
                let summary = &known_texts[row.summary];
                same.push((started(summary), id, stamp, summary));
            }
            _ => changed.push((id, stamp)),
        }
    }
    gone.extend(known.map(|row| row.id));
    // Summaries are large: it is quicker to put them in order before they are there.
    same.sort_unstable_by_key(|&(started, id, ..)| Reverse((started, id)));
    let mut runs = Vec::new();
    for (mut part, damaged) in on_threads(&same, |part| {
        let (mut runs, mut damaged) = (Vec::with_capacity(part.len()), Vec::new());
        for &(_, id, stamp, summary) in part {
            match decode(summary).filter(|run| run.id == id) {
                Some(run) => runs.push(run),
                // In a way that SQLite does not see.
                None => damaged.push((id, stamp)),
            }
        }
        (runs, damaged)
    }) {
        if runs.is_empty() {
            runs = part;
        } else {
            runs.append(&mut part);
        }
        changed.extend(damaged);
    }
    let read = on_threads(&changed, |part| {
        let read = |&(id, stamp): &(RunId, _)| {
            Some((stamp, Summary::read(id, &ledger.run_folder(id), ledger.read(id))?))
        };
        part.iter().filter_map(read).collect::<Vec<_>>()
    });
    let fresh = read.into_iter().flatten().map(|(stamp, run)| (settled(stamp, &run, now), run));
    let encoded = encode(fresh_texts, fresh);
    let fresh_texts: &[u8] = fresh_texts;
    let fresh: Vec<_> = encoded
        .into_iter()
        .map(|(stamp, at)| (stamp, &fresh_texts[at.clone()], decode(&fresh_texts[at]).expect("just encoded")))
        .collect();
    if let Some(index) = &mut index {
        let settled: Vec<_> =
            fresh.iter().filter_map(|(stamp, encoded, run)| Some((run.id, (*stamp)?, *encoded))).collect();
        if !settled.is_empty() || !gone.is_empty() {
            index.write(&settled, &gone);
        }
    }
    if !fresh.is_empty() {
        runs.extend(fresh.into_iter().map(|(_, _, run)| run));
        runs.sort_by_key(|run| Reverse((run.started, run.id)));
    }
    Ok(runs)
}

/// The runs in a folder by name, and what their files look like; no stamp where there is no record yet.
fn scan(folder: &Path) -> Result<Vec<(RunId, Option<Stamp>)>, Error> {
    let failed = |errno: Errno| io("read", folder)(errno.into());
    let handle = match open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(handle) => handle,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(failed(errno)),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&handle).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_str().map(str::to_owned);
        names.extend(name.ok().and_then(|name| Some((name.parse::<RunId>().ok()?, name))));
    }
    let time = |stat: &rustix::fs::Stat| {
        stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64)
    };
    names.sort_unstable_by_key(|(id, _)| *id);
    let stamped = |(id, name): &(RunId, String)| {
        let stat = |path: &str| statat(&handle, path, AtFlags::empty()).ok();
        let stamp = stat(&format!("{name}/record.json")).zip(stat(name)).map(|(record, folder)| Stamp {
            record_time: time(&record),
            record_bytes: record.st_size,
            folder_time: time(&folder),
        });
        (*id, stamp)
    };
    Ok(on_threads(&names, |part| part.iter().map(stamped).collect::<Vec<_>>()).concat())
}

/// The stamp of a run that will be the same as long as its files are; none when they are too young to tell, or the run
/// has not ended.
fn settled(stamp: Option<Stamp>, run: &Summary, now: i128) -> Option<Stamp> {
    let stamp = stamp?;
    let is_old = now - i128::from(stamp.record_time.max(stamp.folder_time)) > SETTLED_NANOSECONDS;
    (is_old && run.standing != Standing::Known(Status::Running)).then_some(stamp)
}

/// Does something with `items`, in parts on several threads where there are many, and returns what came of each part, in order.
fn on_threads<T: Sync, R: Send>(items: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let size = items.len().div_ceil(threads).max(ITEMS_PER_THREAD_MIN);
    if items.len() <= size {
        return vec![work(items)];
    }
    let work = &work;
    std::thread::scope(|scope| {
        let (own, others) = items.split_at(size);
        let others: Vec<_> = others.chunks(size).map(|part| scope.spawn(move || work(part))).collect();
        let own = work(own);
        let others = others.into_iter().map(|part| part.join().expect("no work here panics"));
        std::iter::once(own).chain(others).collect()
    })
}

/// The index, and what is known from it. One that is damaged is replaced by an empty one.
fn known(path: Option<&Path>, texts: &mut Vec<u8>) -> (Option<Index>, Vec<Row>) {
    let Some(index) = path.and_then(Index::open) else { return (None, Vec::new()) };
    match index.read(texts) {
        Ok(rows) => (Some(index), rows),
        Err(error) if is_damage(&error) => (index.replace(), Vec::new()),
        Err(_) => (None, Vec::new()),
    }
}

/// A run in the index.
struct Row {
    id: RunId,
    stamp: Stamp,
    /// Where it is among the texts.
    summary: Range<usize>,
}

/// The SQLite file.
struct Index {
    path: PathBuf,
    connection: Connection,
}

impl Index {
    /// None where none can be had.
    fn open(path: &Path) -> Option<Self> {
        match Self::try_open(path) {
            Ok(index) => Some(index),
            Err(error) if is_damage(&error) => {
                remove(path);
                Self::try_open(path).ok()
            }
            Err(_) => None,
        }
    }

    fn try_open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(WAIT)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
            // All of it is read each time: by few large pages. Readers go on beside a writer.
            connection.execute_batch(&format!(
                "PRAGMA synchronous = OFF;
                 PRAGMA page_size = 32768;
                 PRAGMA journal_mode = WAL;
                 BEGIN IMMEDIATE;
                 DROP TABLE IF EXISTS runs;
                 CREATE TABLE runs (
                     id INTEGER PRIMARY KEY, record_time INTEGER NOT NULL, record_bytes INTEGER NOT NULL,
                     folder_time INTEGER NOT NULL, summary BLOB NOT NULL
                 );
                 PRAGMA user_version = {VERSION};
                 COMMIT;"
            ))?;
        }
        // Waits for no disk. A power cut can damage it then, which shows, or take it back to what was true before, which stamps show.
        connection.execute_batch("PRAGMA synchronous = OFF")?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// All rows, by name; their summaries are appended to `texts`.
    fn read(&self, texts: &mut Vec<u8>) -> rusqlite::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut statement = self
            .connection
            .prepare("SELECT id, record_time, record_bytes, folder_time, summary FROM runs ORDER BY id")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let stamp =
                Stamp { record_time: row.get(1)?, record_bytes: row.get(2)?, folder_time: row.get(3)? };
            let start = texts.len();
            texts.extend_from_slice(row.get_ref(4)?.as_blob()?);
            rows.push(Row { id: id_of(row.get(0)?)?, stamp, summary: start..texts.len() });
        }
        Ok(rows)
    }

    /// An empty one in place of a damaged one.
    fn replace(self) -> Option<Self> {
        let path = self.path.clone();
        drop(self);
        remove(&path);
        Self::try_open(&path).ok()
    }

    /// What cannot be written now is written by the next who asks.
    fn write(&mut self, runs: &[(RunId, Stamp, &[u8])], gone: &[RunId]) {
        let _ = self.try_write(runs, gone);
    }

    fn try_write(&mut self, runs: &[(RunId, Stamp, &[u8])], gone: &[RunId]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut insert = transaction.prepare("INSERT OR REPLACE INTO runs VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for (id, stamp, summary) in runs {
            let Stamp { record_time, record_bytes, folder_time } = stamp;
            insert.execute(params![number_of(*id), record_time, record_bytes, folder_time, summary])?;
        }
        drop(insert);
        let mut delete = transaction.prepare("DELETE FROM runs WHERE id = ?1")?;
        for id in gone {
            delete.execute([number_of(*id)])?;
        }
        drop(delete);
        transaction.commit()
    }
}

/// A run's name as the index has it: as a number, it orders the rows without an index of their own.
fn number_of(id: RunId) -> i64 {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&id.bytes());
    i64::from_be_bytes(bytes)
}

fn id_of(number: i64) -> rusqlite::Result<RunId> {
    match number.to_be_bytes() {
        [0, 0, name @ ..] => Ok(RunId::from_bytes(name)),
        _ => Err(rusqlite::Error::IntegralValueOutOfRange(0, number)),
    }
}

/// Whether the file holds what no index does. One that is in use, or on a full disk, is not damaged.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            // The last is said when the table is not there, or another one.
            ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown
        ),
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => true,
        rusqlite::Error::SqlInputError { .. } => true,
        _ => false,
    }
}

/// Also what SQLite keeps beside it.
fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = fs::remove_file(name);
    }
}
