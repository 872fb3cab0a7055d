//! Reading a log, also one that is being written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::{CHUNK_BYTES_MAX, Stream, part_path};
use crate::ledger::{Error, io};

/// The longest header: a time, a word and a number.
const HEADER_BYTES_MAX: usize = 80;

/// A line that is longer is handed out in pieces.
const LINE_BYTES_MAX: usize = 1 << 20;

/// One piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// What the program wrote.
    Written {
        /// When ibid read it.
        time: String,
        /// Where it was written.
        stream: Stream,
        /// The bytes as they were.
        bytes: Vec<u8>,
    },
    /// Here this many bytes were not kept.
    Missing {
        /// How many.
        bytes: u64,
    },
}

/// One line that a program wrote, with its end; the last of a stream may have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When its first byte came.
    pub time: String,
    /// Where it was written.
    pub stream: Stream,
    /// The bytes as they were.
    pub bytes: Vec<u8>,
}

/// All lines of a run's log so far, each stream's in order. A run without a log has none.
pub fn read(run_folder: &Path) -> Result<Lines, Error> {
    Ok(Lines::new(Reader::open(run_folder)?))
}

/// Reads the pieces of a log one after the other. At the end of one that grows it can be asked again later.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    part: u32,
    file: Option<File>,
    buffer: Vec<u8>,
    /// How much of the buffer is done with.
    at: usize,
    /// Bytes of the program that were handed out or reported as missing.
    counted: u64,
}

enum Header {
    At(u64),
    Piece { time: String, stream: Stream, length: usize },
}

impl Reader {
    /// Starts at the log's beginning.
    pub fn open(run_folder: &Path) -> Result<Self, Error> {
        let mut reader = Self {
            folder: run_folder.to_owned(),
            part: 1,
            file: None,
            buffer: Vec::new(),
            at: 0,
            counted: 0,
        };
        reader.open_part()?;
        Ok(reader)
    }

    fn open_part(&mut self) -> Result<(), Error> {
        let path = part_path(&self.folder, self.part);
        match File::open(&path) {
            Ok(file) => self.file = Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io("read", &path)(error)),
        }
        Ok(())
    }

    /// The next piece; none when there is no whole one yet.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(end) = rest.iter().take(HEADER_BYTES_MAX).position(|byte| *byte == b'\n') {
                let start = self.at + end + 1;
                match parse_header(&rest[..end]).ok_or_else(|| self.damaged())? {
                    Header::At(position) => {
                        self.at = start;
                        let bytes = position.saturating_sub(self.counted);
                        self.counted = self.counted.max(position);
                        if bytes > 0 {
                            return Ok(Some(Chunk::Missing { bytes }));
                        }
                        continue;
                    }
                    Header::Piece { time, stream, length } => {
                        if let Some(bytes) = self.buffer.get(start..start + length) {
                            let bytes = bytes.to_vec();
                            self.at = start + length;
                            self.counted += length as u64;
                            return Ok(Some(Chunk::Written { time, stream, bytes }));
                        }
                    }
                }
            } else if rest.len() >= HEADER_BYTES_MAX {
                return Err(self.damaged());
            }
            if self.fill()? {
                continue;
            }
            if !self.next_part()? {
                return Ok(None);
            }
        }
    }

    /// What a crash left of a piece that was being written.
    pub fn cut_chunk(&mut self) -> Option<Chunk> {
        let rest = self.buffer.split_off(self.at);
        self.buffer.clear();
        self.at = 0;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        match parse_header(&rest[..end])? {
            Header::Piece { time, stream, .. } if rest.len() > end + 1 => {
                Some(Chunk::Written { time, stream, bytes: rest[end + 1..].to_vec() })
            }
            _ => None,
        }
    }

    /// Reads on in this part; false at its end.
    fn fill(&mut self) -> Result<bool, Error> {
        if self.file.is_none() {
            self.open_part()?;
        }
        let Some(file) = &mut self.file else { return Ok(false) };
        self.buffer.drain(..std::mem::take(&mut self.at));
        let before = self.buffer.len();
        self.buffer.resize(before + (256 << 10), 0);
        let read = loop {
            match file.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(read) => Ok(read > 0),
            Err(error) => Err(io("read", &part_path(&self.folder, self.part))(error)),
        }
    }

    /// Goes on in the next part that is there, once this one is read to its end; false when there is none.
    fn next_part(&mut self) -> Result<bool, Error> {
        let number = |name: &std::ffi::OsStr| name.to_str()?.strip_prefix("log.")?.parse::<u32>().ok();
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io("read", &self.folder)(error)),
        };
        let parts = entries.flatten().filter_map(|entry| number(&entry.file_name()));
        let Some(next) = parts.filter(|part| *part > self.part).min() else { return Ok(false) };
        // This part may have grown before the next one was begun.
        if self.fill()? {
            return Ok(true);
        }
        self.buffer.clear();
        self.at = 0;
        self.part = next;
        self.file = None;
        self.open_part()?;
        Ok(true)
    }

    fn damaged(&self) -> Error {
        Error::Damaged {
            path: part_path(&self.folder, self.part),
            reason: "expected a time, a stream and a length".to_owned(),
        }
    }
}

fn parse_header(line: &[u8]) -> Option<Header> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let (time, word, number) = (words.next()?, words.next()?, words.next()?.parse::<u64>().ok()?);
    if words.next().is_some() || !time.ends_with('Z') {
        return None;
    }
    let stream = match word {
        "at" => return Some(Header::At(number)),
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    let length = usize::try_from(number).ok().filter(|length| *length <= CHUNK_BYTES_MAX)?;
    Some(Header::Piece { time: time.to_owned(), stream, length })
}

/// The lines of a log. Where bytes are missing, a line may be joined from two.
#[derive(Debug)]
pub struct Lines {
    reader: Reader,
    /// A line that has begun, by stream.
    begun: [Option<LogLine>; 2],
    ready: VecDeque<LogLine>,
    missing: u64,
}

impl Lines {
    /// The lines of what `reader` has not handed out.
    pub fn new(reader: Reader) -> Self {
        Self { reader, begun: [None, None], ready: VecDeque::new(), missing: 0 }
    }

    /// How many bytes were found missing so far.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// The next whole line; none when there is none yet.
    pub fn next_line(&mut self) -> Result<Option<LogLine>, Error> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            match self.reader.next_chunk()? {
                Some(chunk) => self.take(chunk),
                None => return Ok(None),
            }
        }
    }

    /// What has no end, once nothing more will come.
    pub fn last_lines(&mut self) -> impl Iterator<Item = LogLine> + use<> {
        if let Some(chunk) = self.reader.cut_chunk() {
            self.take(chunk);
        }
        let mut last: Vec<LogLine> = self.ready.drain(..).collect();
        let mut begun: Vec<LogLine> = self.begun.iter_mut().filter_map(Option::take).collect();
        begun.sort_by(|a, b| a.time.cmp(&b.time));
        last.extend(begun);
        last.into_iter()
    }

    fn take(&mut self, chunk: Chunk) {
        let (time, stream, bytes) = match chunk {
            Chunk::Written { time, stream, bytes } => (time, stream, bytes),
            Chunk::Missing { bytes } => {
                self.missing += bytes;
                return;
            }
        };
        let begun = &mut self.begun[stream as usize];
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = begun.get_or_insert_with(|| LogLine { time: time.clone(), stream, bytes: Vec::new() });
            line.bytes.extend_from_slice(part);
            if part.ends_with(b"\n") || line.bytes.len() >= LINE_BYTES_MAX {
                self.ready.extend(begun.take());
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<LogLine, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_line() {
            Ok(Some(line)) => Some(Ok(line)),
            Ok(None) => {
                let last: Vec<LogLine> = self.last_lines().collect();
                self.ready.extend(last);
                self.ready.pop_front().map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    }
}
