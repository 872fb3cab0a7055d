//! Reading a tar archive that may be hostile: headers, extensions, sparse maps.
//!
//! Understood are POSIX ustar and pax, GNU's long names and sparse files (its old form and pax forms 0.0, 0.1 and 1.0), and
//! headers before POSIX. Where formats leave room, this reads as the `archive/tar` package that Docker uses does, so that an
//! image means the same in both: links, folders, devices and pipes have no content whatever size they claim;
//! global pax records are ignored.
//!
//! Of a layer every byte is hashed, and all but the content that the caller asks for goes to the [`SplitWriter`]; of any
//! other archive nothing is kept.

use std::collections::BTreeMap;
use std::io::{self, Read};

use ibid_core::digest::{Digest, Hasher};

use crate::header::BLOCK_BYTES;
use crate::split::SplitWriter;
use crate::{Error, Result};

/// The most an extension of a header may hold: names and attributes are far smaller.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// The most the map of a sparse file may hold.
const SPARSE_MAP_BYTES_MAX: u64 = 16 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// An entry's header, extensions included.
#[derive(Debug)]
pub(crate) struct Header {
    /// As written.
    pub(crate) name: Vec<u8>,
    /// As written; empty for all but links.
    pub(crate) link: Vec<u8>,
    pub(crate) file_type: TarType,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of content that follow in the archive.
    pub(crate) content_bytes: u64,
    /// Where the content belongs in the file, when it is not simply all of it.
    pub(crate) sparse: Option<Sparse>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TarType {
    File,
    HardLink,
    Symlink,
    CharacterDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Folder,
    Fifo,
}

/// A file with holes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// Size of the file.
    pub(crate) size: u64,
    /// Offsets and lengths of what is no hole, in order; the lengths add up to the content in the archive.
    pub(crate) pieces: Vec<(u64, u64)>,
}

/// An archive being read.
pub(crate) struct TarStream<R> {
    input: R,
    /// Of a layer: the digest so far, and what is kept to put the same archive together again.
    layer: Option<(Hasher, SplitWriter)>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    offset: u64,
    /// What is left of the current entry: content, then padding.
    content_left: u64,
    padding_left: u64,
}

/// What extensions say about the next entry.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_major: Option<u64>,
    sparse_numbers: Vec<u64>,
}

impl<R: Read> TarStream<R> {
    /// An archive that is a layer.
    pub(crate) fn of_layer(input: R, split: SplitWriter) -> Self {
        Self { layer: Some((Hasher::default(), split)), ..Self::new(input) }
    }

    /// An archive that is read once and not kept.
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            layer: None,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            offset: 0,
            content_left: 0,
            padding_left: 0,
        }
    }

    /// The next entry; `None` at the end of the archive. What was not read of the last one's content is kept in the split.
    pub(crate) fn next(&mut self) -> Result<Option<Header>> {
        self.keep(self.content_left)?;
        self.content_left = 0;
        self.keep(self.padding_left)?;
        self.padding_left = 0;
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            let offset = self.offset;
            let Some(block) = self.block()? else {
                if extended {
                    return Err(invalid(offset, "it ends after an extended header"));
                }
                return Ok(None);
            };
            if block == [0; BLOCK_BYTES] {
                if extended {
                    return Err(invalid(offset, "it ends after an extended header"));
                }
                return match self.block()? {
                    Some(second) if second != [0; BLOCK_BYTES] => {
                        Err(invalid(offset, "an empty block stands between headers"))
                    }
                    _ => Ok(None),
                };
            }
            check_sum(&block).map_err(|reason| invalid(offset, reason))?;
            let size = number(&block[124..136]).and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| invalid(offset, "the size of an entry is no number"))?;
            match block[156] {
                b'x' | b'X' => {
                    let records = self.extension(offset, size)?;
                    extensions.read_records(&records).map_err(|reason| invalid(offset, reason))?;
                }
                b'g' => drop(self.extension(offset, size)?),
                b'L' => extensions.name = Some(until_nul(&self.extension(offset, size)?).to_vec()),
                b'K' => extensions.link = Some(until_nul(&self.extension(offset, size)?).to_vec()),
                _ => return self.entry(offset, &block, size, extensions).map(Some),
            }
            extended = true;
        }
    }

    /// Reads content of the current entry. It is no part of the split: the caller says by [`Self::put_at`] where it puts it.
    pub(crate) fn content(&mut self, bytes: &mut [u8]) -> Result<()> {
        debug_assert!(bytes.len() as u64 <= self.content_left);
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.some_content(&mut bytes[filled..])?;
        }
        Ok(())
    }

    /// Reads some content of the current entry; nothing at its end.
    pub(crate) fn some_content(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.content_left).map_or(bytes.len(), |left| left.min(bytes.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let available = self.fill()?;
        if available == 0 {
            return Err(invalid(self.offset, "it ends in the middle of an entry"));
        }
        let count = available.min(wanted);
        bytes[..count].copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.consume(count);
        self.content_left -= count as u64;
        Ok(count)
    }

    /// Says that content that was read is part of the content `number`, at `offset` in its file.
    pub(crate) fn put_at(&mut self, number: usize, offset: u64, length: u64) -> Result<()> {
        match &mut self.layer {
            Some((_, split)) => split.content(number, offset, length),
            None => Ok(()),
        }
    }

    /// Reads what follows the last entry, to the end of the stream. Returns the digest of all, for a layer.
    pub(crate) fn finish(mut self) -> Result<Option<(Digest, SplitWriter)>> {
        loop {
            let available = self.fill()?;
            if available == 0 {
                return Ok(self.layer.map(|(hasher, split)| (hasher.finish(), split)));
            }
            if let Some((_, split)) = &mut self.layer {
                split.raw(&self.buffer[self.start..self.start + available])?;
            }
            self.consume(available);
        }
    }

    fn entry(
        &mut self,
        offset: u64,
        block: &[u8; BLOCK_BYTES],
        size: u64,
        mut extensions: Extensions,
    ) -> Result<Header> {
        let refuse = |reason| invalid(offset, reason);
        let name = match extensions.sparse_name.take().or(extensions.name.take()) {
            Some(name) => name,
            None => name_of(block),
        };
        let number_u32 = |field: &[u8]| number(field).and_then(|value| u32::try_from(value).ok());
        // A device number is left empty by many where there is no device.
        let device = || {
            let numbers = (|| Some((number_u32(&block[329..337])?, number_u32(&block[337..345])?)))();
            numbers.ok_or_else(|| refuse("the number of a device is no number"))
        };
        let file_type = match block[156] {
            b'0' | 0 | b'7' if name.ends_with(b"/") => TarType::Folder,
            b'0' | 0 | b'7' | b'S' => TarType::File,
            b'1' => TarType::HardLink,
            b'2' => TarType::Symlink,
            b'3' => device().map(|(major, minor)| TarType::CharacterDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| TarType::BlockDevice { major, minor })?,
            b'5' => TarType::Folder,
            b'6' => TarType::Fifo,
            _ => return Err(refuse("the type of an entry is not known")),
        };
        let owner = |extension: Option<u32>, field: &[u8], reason| {
            extension.or_else(|| number_u32(field)).ok_or_else(|| refuse(reason))
        };
        let uid = owner(extensions.uid, &block[108..116], "the user of an entry is no number")?;
        let gid = owner(extensions.gid, &block[116..124], "the group of an entry is no number")?;
        let mode = number(&block[100..108]).and_then(|mode| u32::try_from(mode).ok());
        let mode = mode.ok_or_else(|| refuse("the mode of an entry is no number"))? & 0o7777;
        let mtime = extensions.mtime.or_else(|| number(&block[136..148]));
        let mtime = mtime.ok_or_else(|| refuse("the time of an entry is no number"))?;
        let is_link = matches!(file_type, TarType::HardLink | TarType::Symlink);
        let link = extensions.link.take().unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        let mut header = Header {
            name,
            link: if is_link { link } else { Vec::new() },
            file_type,
            mode,
            uid,
            gid,
            mtime,
            xattrs: std::mem::take(&mut extensions.xattrs),
            content_bytes: 0,
            sparse: None,
        };
        if file_type == TarType::File {
            header.content_bytes = extensions.size.unwrap_or(size);
            self.content_left = header.content_bytes;
            let end = header.content_bytes.checked_next_multiple_of(BLOCK_BYTES as u64);
            let end = end.filter(|&end| i64::try_from(end).is_ok());
            let end = end.ok_or_else(|| refuse("an entry is larger than any file can be"))?;
            self.padding_left = end - header.content_bytes;
            header.sparse = self.sparse(offset, block, &extensions)?;
            header.content_bytes = self.content_left;
            if let Some(sparse) = &header.sparse {
                check_sparse(sparse, header.content_bytes).map_err(refuse)?;
            }
        }
        Ok(header)
    }

    /// The map of a sparse file, in any of its four forms.
    fn sparse(
        &mut self,
        offset: u64,
        block: &[u8; BLOCK_BYTES],
        extensions: &Extensions,
    ) -> Result<Option<Sparse>> {
        let refuse = |reason| invalid(offset, reason);
        let no_number = "the map of a sparse file holds no numbers";
        let numbers = if block[156] == b'S' {
            let field = |field: &[u8]| {
                number(field).and_then(|value| u64::try_from(value).ok()).ok_or_else(|| refuse(no_number))
            };
            let mut numbers = Vec::new();
            let size = field(&block[483..495])?;
            let mut pieces = |fields: &[u8]| -> Result<()> {
                for piece in fields.chunks_exact(24) {
                    if piece[0] == 0 {
                        break;
                    }
                    numbers.extend([field(&piece[..12])?, field(&piece[12..])?]);
                }
                Ok(())
            };
            pieces(&block[386..482])?;
            let mut more = block[482] != 0;
            let map_start = self.offset;
            while more {
                if self.offset - map_start > SPARSE_MAP_BYTES_MAX {
                    return Err(refuse("the map of a sparse file is too large"));
                }
                let next = self.block()?.ok_or_else(|| refuse("it ends in the map of a sparse file"))?;
                pieces(&next[..504])?;
                more = next[504] != 0;
            }
            return Ok(Some(Sparse { size, pieces: pairs(&numbers) }));
        } else if extensions.sparse_major == Some(1) {
            self.sparse_numbers(offset)?
        } else if extensions.sparse_size.is_some() {
            extensions.sparse_numbers.clone()
        } else {
            return Ok(None);
        };
        let size = extensions.sparse_size.ok_or_else(|| refuse("a sparse file has no size"))?;
        if numbers.len() % 2 != 0 {
            return Err(refuse(no_number));
        }
        Ok(Some(Sparse { size, pieces: pairs(&numbers) }))
    }

    /// The map at the start of the content of a sparse file in pax form 1.0: decimal numbers, each on a line, the
    /// first of them how many pairs follow.
    fn sparse_numbers(&mut self, offset: u64) -> Result<Vec<u64>> {
        let refuse = |reason| invalid(offset, reason);
        let mut numbers = Vec::new();
        let mut wanted = None;
        let mut digits = Vec::new();
        let mut read = 0;
        while wanted != Some(numbers.len() as u64) {
            if self.content_left < BLOCK_BYTES as u64 || read > SPARSE_MAP_BYTES_MAX {
                return Err(refuse("the map of a sparse file is cut short or too large"));
            }
            let block = self.block()?.ok_or_else(|| refuse("it ends in the map of a sparse file"))?;
            self.content_left -= BLOCK_BYTES as u64;
            read += BLOCK_BYTES as u64;
            for byte in block {
                if wanted == Some(numbers.len() as u64) {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return Err(refuse("the map of a sparse file holds no numbers"));
                    }
                    continue;
                }
                let value =
                    decimal(&digits).ok_or_else(|| refuse("the map of a sparse file holds no numbers"))?;
                digits.clear();
                match wanted {
                    None => {
                        let count = value.checked_mul(2);
                        wanted = Some(count.ok_or_else(|| refuse("the map of a sparse file is too large"))?);
                    }
                    Some(_) => numbers.push(value),
                }
            }
        }
        Ok(numbers)
    }

    /// Reads what an extension holds.
    fn extension(&mut self, offset: u64, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_BYTES_MAX {
            return Err(invalid(offset, "an extended header is larger than 1 MiB"));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        while (bytes.len() as u64) < size {
            let block = self.block()?.ok_or_else(|| invalid(offset, "it ends in an extended header"))?;
            let wanted = (size - bytes.len() as u64).min(BLOCK_BYTES as u64) as usize;
            bytes.extend_from_slice(&block[..wanted]);
        }
        Ok(bytes)
    }

    /// Reads a block and keeps it in the split; `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let available = self.fill()?;
            if available == 0 && filled == 0 {
                return Ok(None);
            }
            if available == 0 {
                return Err(invalid(self.offset, "it ends in the middle of a block"));
            }
            let count = available.min(BLOCK_BYTES - filled);
            block[filled..filled + count].copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.consume(count);
            filled += count;
        }
        if let Some((_, split)) = &mut self.layer {
            split.raw(&block)?;
        }
        Ok(Some(block))
    }

    /// Passes bytes on to the split.
    fn keep(&mut self, mut bytes: u64) -> Result<()> {
        while bytes > 0 {
            let available = self.fill()?;
            if available == 0 {
                return Err(invalid(self.offset, "it ends in the middle of an entry"));
            }
            let count = usize::try_from(bytes).map_or(available, |bytes| bytes.min(available));
            if let Some((_, split)) = &mut self.layer {
                split.raw(&self.buffer[self.start..self.start + count])?;
            }
            self.consume(count);
            bytes -= count as u64;
        }
        Ok(())
    }

    /// Makes bytes available, and says how many; none at the end of the stream.
    fn fill(&mut self) -> Result<usize> {
        while self.start == self.end {
            match self.input.read(&mut self.buffer) {
                Ok(0) => return Ok(0),
                Ok(count) => {
                    (self.start, self.end) = (0, count);
                    if let Some((hasher, _)) = &mut self.layer {
                        hasher.update(&self.buffer[..count]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Stream { action: "read", source }),
            }
        }
        Ok(self.end - self.start)
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }
}

impl Extensions {
    /// Reads pax records: `length key=value\n` again and again, the length counting all of it.
    fn read_records(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        const MALFORMED: &str = "an extended header is malformed";
        while !records.is_empty() {
            let space = records.iter().take(20).position(|&byte| byte == b' ').ok_or(MALFORMED)?;
            let length = decimal(&records[..space]).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|&length| length > space + 1).ok_or(MALFORMED)?;
            let (record, rest) = records.split_at_checked(length).ok_or(MALFORMED)?;
            records = rest;
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(MALFORMED)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(MALFORMED)?;
            self.set(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // An empty value takes back what an earlier record said.
        let given = (!value.is_empty()).then_some(value);
        let integer = |reason| given.map(|value| decimal(value).ok_or(reason)).transpose();
        let id = |reason| integer(reason)?.map(|id| u32::try_from(id).map_err(|_| reason)).transpose();
        match key {
            b"path" => self.name = given.map(<[u8]>::to_vec),
            b"linkpath" => self.link = given.map(<[u8]>::to_vec),
            b"size" => self.size = integer("the size of an entry is no number")?,
            b"uid" => self.uid = id("the user of an entry is no number")?,
            b"gid" => self.gid = id("the group of an entry is no number")?,
            b"mtime" => {
                self.mtime = given
                    .map(|value| whole_seconds(value).ok_or("the time of an entry is no number"))
                    .transpose()?;
            }
            b"GNU.sparse.name" => self.sparse_name = given.map(<[u8]>::to_vec),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse_size = integer("the size of a sparse file is no number")?;
            }
            b"GNU.sparse.major" => self.sparse_major = integer("the form of a sparse file is no number")?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse_numbers.extend(integer("the map of a sparse file holds no numbers")?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|&byte| byte == b',').map(decimal).collect::<Option<Vec<u64>>>();
                self.sparse_numbers = numbers.ok_or("the map of a sparse file holds no numbers")?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

fn invalid(offset: u64, reason: &'static str) -> Error {
    Error::InvalidArchive { offset, reason }
}

/// The sum of a header's bytes, its own field taken as spaces; some old programs added signed bytes.
pub(crate) fn check_sum(block: &[u8; BLOCK_BYTES]) -> Result<(), &'static str> {
    let bytes = || block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
    let unsigned: i64 = bytes().map(|&byte| i64::from(byte)).sum();
    let signed: i64 = bytes().map(|&byte| i64::from(byte as i8)).sum();
    match number(&block[148..156]) {
        Some(sum) if sum == unsigned || sum == signed => Ok(()),
        _ => Err("the checksum of a header is wrong"),
    }
}

/// A number field: octal digits among spaces and NULs, or, with the highest bit set, binary. An empty field is zero.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        // Two's complement, the mark taken as part of the sign.
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0] as i8) } else { i128::from(field[0] & 0x7f) };
        let value = field[1..].iter().fold(first, |value, &byte| value << 8 | i128::from(byte));
        return i64::try_from(value).ok();
    }
    let is_filler = |byte: &u8| *byte == b' ' || *byte == 0;
    let digits: Vec<u8> =
        field.iter().copied().skip_while(is_filler).take_while(|byte| !is_filler(byte)).collect();
    if digits.is_empty() {
        return Some(0);
    }
    digits.iter().all(|digit| (b'0'..=b'7').contains(digit)).then_some(())?;
    i64::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()
}

/// Decimal digits and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A time with an optional sign and fraction, rounded down.
fn whole_seconds(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let point = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..point])?).ok()?;
    let fraction = text.get(point + 1..).unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let partial = fraction.iter().any(|&digit| digit != b'0');
    Some(if negative { -seconds - i64::from(partial) } else { seconds })
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(b"")
}

/// The name in a header's own fields. Only POSIX headers have a prefix: GNU's have something else there.
fn name_of(block: &[u8; BLOCK_BYTES]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = if &block[257..263] == b"ustar\0" { until_nul(&block[345..500]) } else { b"" };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn pairs(numbers: &[u64]) -> Vec<(u64, u64)> {
    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

fn check_sparse(sparse: &Sparse, content_bytes: u64) -> Result<(), &'static str> {
    let mut end = 0;
    let mut total: u64 = 0;
    for &(offset, length) in &sparse.pieces {
        let piece_end =
            offset.checked_add(length).filter(|&piece_end| offset >= end && piece_end <= sparse.size);
        end = piece_end.ok_or("the pieces of a sparse file are out of order or outside of it")?;
        // Cannot overflow: pieces do not overlap.
        total += length;
    }
    if total != content_bytes {
        return Err("the pieces of a sparse file are not its content");
    }
    if i64::try_from(sparse.size).is_err() {
        return Err("an entry is larger than any file can be");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_fields_are_octal_or_binary() {
        #[track_caller]
        fn check(field: &[u8], expected: Option<i64>) {
            assert_eq!(number(field), expected, "{field:?}");
        }
        check(b"0000644\0", Some(0o644));
        check(b"  644 \0\0", Some(0o644));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"77777777", Some(0o77777777));
        check(b"0000648\0", None);
        check(b"-000001\0", None);
        check(b"+000001\0", None);
        check(b"\x80\0\0\0\0\0\x01\0", Some(256));
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1));
        check(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None);
        check(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX));
    }

    #[test]
    fn times_are_rounded_down() {
        #[track_caller]
        fn check(text: &str, expected: Option<i64>) {
            assert_eq!(whole_seconds(text.as_bytes()), expected, "{text}");
        }
        check("12", Some(12));
        check("12.999", Some(12));
        check("-12", Some(-12));
        check("-12.5", Some(-13));
        check("-12.000", Some(-12));
        check("12.", Some(12));
        for text in ["", "-", ".5", "1e3", "1.2.3", "+1", "99999999999999999999"] {
            check(text, None);
        }
    }

    #[test]
    fn pax_records_are_read_exactly() {
        #[track_caller]
        fn check(records: &str, expected: Result<Option<&str>, &'static str>) {
            let mut extensions = Extensions::default();
            let result = extensions.read_records(records.as_bytes());
            let name = result.map(|()| extensions.name.map(|name| String::from_utf8(name).unwrap()));
            assert_eq!(name.as_ref().map(Option::as_deref), expected.as_ref().copied(), "{records:?}");
        }
        check("", Ok(None));
        check("9 path=a\n", Ok(Some("a")));
        check("9 path=a\n9 path=b\n", Ok(Some("b")));
        check("9 path=a\n8 path=\n", Ok(None));
        check("12 path=a=b\n", Ok(Some("a=b")));
        check("14 unknown=abc\n", Err("an extended header is malformed"));
        check("15 unknown=abc\n", Ok(None));
        for records in ["9 path=ab", "8 path=a\n", "99 path=a\n", "path=a\n", "0 ", "-9 path=a\n", "5 ab\n"] {
            check(records, Err("an extended header is malformed"));
        }
        check("11 size=-1\n", Err("the size of an entry is no number"));
        check("18 uid=4294967296\n", Err("the user of an entry is no number"));
    }
}
