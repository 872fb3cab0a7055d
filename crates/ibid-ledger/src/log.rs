//! What the program of a run wrote, as it came, with times.
//!
//! ```text
//! .ibid/runs/<id>/log      the first part
//! .ibid/runs/<id>/log.2    the next, and so on; of a long log the first and the last three parts are kept
//!
//! 2026-11-30T13:18:23.123Z stdout 13
//! epoch 1: 0.35
//! 2026-11-30T13:18:24.001Z stderr 6
//! …
//! ```
//!
//! A part is a sequence of pieces: a line that says when, which stream and how many bytes, then these bytes as they were, which need not
//! end with a newline. `at N` in place of stream and length says that the program had written N bytes before this place; when fewer
//! can be read, the difference was not kept: the part with it was dropped, or the disk was full. A piece is written by one call and nothing
//! waits in this process, so a crash of ibid loses nothing that ibid had read; the last piece of a log may be cut short then.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ibid_core::time::rfc3339_millis;
use ibid_sys::owner::Owner;

use crate::ledger::{Error, io};

mod reader;

pub use reader::{Chunk, Lines, LogLine, Reader, read};

/// A part that has this many bytes is followed by another.
pub const PART_BYTES: u64 = 16 << 20;

/// How many of the last parts are kept beside the first.
pub const LAST_PARTS_KEPT: u32 = 3;

/// The longest piece.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Which of the program's streams. What a program writes to a terminal is all of [`Stream::Stdout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The present, as records write it.
pub fn now() -> String {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// Writes the log of one run.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    /// Who its files belong to; none is whoever makes them.
    owner: Option<Owner>,
    /// None before the program has written anything.
    file: Option<File>,
    /// Number of the part, from 1.
    part: u32,
    /// Length of the part.
    length: u64,
    part_bytes: u64,
    /// Bytes that the program has written.
    written: u64,
    /// Bytes that are not in the log since the last piece.
    is_behind: bool,
    failure: Option<Error>,
}

impl Writer {
    /// Of a run that has no log yet. Its first file is made when there is something to write.
    pub fn new(run_folder: &Path, owner: Option<Owner>) -> Self {
        Self::with_parts_of(run_folder, owner, PART_BYTES)
    }

    fn with_parts_of(run_folder: &Path, owner: Option<Owner>, part_bytes: u64) -> Self {
        Self {
            folder: run_folder.to_owned(),
            owner,
            file: None,
            part: 1,
            length: 0,
            part_bytes,
            written: 0,
            is_behind: false,
            failure: None,
        }
    }

    /// Adds what the program has just written. A disk that refuses costs these bytes; later ones are tried again, and
    /// [`Self::failure`] tells at the end.
    pub fn append(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(CHUNK_BYTES_MAX) {
            if let Err(error) = self.append_piece(stream, piece) {
                self.is_behind = true;
                let path = part_path(&self.folder, self.part);
                self.failure.get_or_insert_with(|| io("write", &path)(error));
            }
            self.written += piece.len() as u64;
        }
    }

    /// Why bytes are missing, where the disk refused some.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// True when a part was dropped because the log is long.
    pub fn is_shortened(&self) -> bool {
        self.part > 1 + LAST_PARTS_KEPT
    }

    fn append_piece(&mut self, stream: Stream, piece: &[u8]) -> io::Result<()> {
        if self.length >= self.part_bytes {
            self.next_part()?;
        }
        let time = now();
        let mut header = String::new();
        if self.is_behind {
            header = format!("{time} at {}\n", self.written);
        }
        header.push_str(&format!("{time} {} {}\n", stream.name(), piece.len()));
        self.write(header.as_bytes(), piece)?;
        self.is_behind = false;
        Ok(())
    }

    fn next_part(&mut self) -> io::Result<()> {
        let next = self.part + 1;
        self.file = Some(self.make_part(next)?);
        self.part = next;
        self.length = 0;
        self.is_behind = true;
        if let Some(old) = next.checked_sub(LAST_PARTS_KEPT).filter(|old| *old > 1) {
            std::fs::remove_file(part_path(&self.folder, old))?;
        }
        Ok(())
    }

    fn make_part(&self, part: u32) -> io::Result<File> {
        let file = File::create_new(part_path(&self.folder, part))?;
        if let Some(owner) = self.owner {
            ibid_sys::owner::change(&file, owner)?;
        }
        Ok(file)
    }

    /// Writes all or nothing.
    fn write(&mut self, header: &[u8], piece: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(self.make_part(1)?),
        };
        let whole = header.len() + piece.len();
        let mut done = 0;
        while done < whole {
            let rest = [&header[done.min(header.len())..], &piece[done.saturating_sub(header.len())..]];
            let result = match file.write_vectored(&rest.map(IoSlice::new)) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                result => result,
            };
            match result {
                Ok(written) => done += written,
                Err(error) => {
                    // A piece that is cut short would make what follows unreadable.
                    file.set_len(self.length)?;
                    io::Seek::seek(file, io::SeekFrom::Start(self.length))?;
                    return Err(error);
                }
            }
        }
        self.length += whole as u64;
        Ok(())
    }
}

fn part_path(folder: &Path, part: u32) -> PathBuf {
    match part {
        1 => folder.join("log"),
        part => folder.join(format!("log.{part}")),
    }
}

#[cfg(test)]
mod tests;
