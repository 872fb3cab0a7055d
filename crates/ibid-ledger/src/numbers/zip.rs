//! Archives of arrays, as `numpy.savez` and `numpy.savez_compressed` write them: zip files (APPNOTE.TXT 6.3), stored or
//! deflated, with 64-bit sizes where Python wants them. Times of entries, by which two such files of the same arrays may
//! differ, are passed over.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::{ARRAY_BYTES_MAX, Comparison, Incomparable, malformed, npy, shape};

const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// Length of the end without its comment, and the longest comment.
const END_BYTES: usize = 22;
const COMMENT_BYTES_MAX: usize = 65_535;

pub(super) fn compare(first: &[u8], second: &[u8], comparison: &mut Comparison) -> Result<(), Incomparable> {
    let read =
        |which, bytes| entries(bytes).map_err(|reason| malformed(which, "archive of NumPy arrays", reason));
    let (first, second) = (read("first", first)?, read("second", second)?);
    if let Some(name) = first.keys().find(|name| !second.contains_key(*name)) {
        return Err(shape("the archive", format!("the array `{name}` is missing")));
    }
    for (name, second) in &second {
        let Some(first) = first.get(name) else {
            return Err(shape("the archive", format!("the array `{name}` is new")));
        };
        let content = |which, entry: &Entry| {
            entry
                .content()
                .map_err(|reason| malformed(which, "archive of NumPy arrays", format!("{name}: {reason}")))
        };
        let (first, second) = (content("first", first)?, content("second", second)?);
        npy::compare(&first, &second, name.strip_suffix(".npy").unwrap_or(name), comparison)?;
    }
    Ok(())
}

struct Entry<'a> {
    is_deflated: bool,
    checksum: u32,
    size: u64,
    packed: &'a [u8],
}

impl Entry<'_> {
    fn content(&self) -> Result<Vec<u8>, String> {
        if self.size > ARRAY_BYTES_MAX {
            return Err(format!("it has more than {ARRAY_BYTES_MAX} bytes"));
        }
        let mut content = Vec::new();
        if self.is_deflated {
            // No more than it claims to be: a small archive may claim to hold little and hold much.
            flate2::read::DeflateDecoder::new(self.packed)
                .take(self.size + 1)
                .read_to_end(&mut content)
                .map_err(|error| error.to_string())?;
        } else {
            content.extend_from_slice(self.packed);
        }
        let mut checksum = flate2::Crc::new();
        checksum.update(&content);
        if content.len() as u64 != self.size || checksum.sum() != self.checksum {
            return Err("its content is damaged".to_owned());
        }
        Ok(content)
    }
}

/// The entries by name, from the list at the archive's end.
fn entries(bytes: &[u8]) -> Result<BTreeMap<String, Entry<'_>>, String> {
    let tail = bytes.len().saturating_sub(END_BYTES + COMMENT_BYTES_MAX);
    let end = bytes[tail..]
        .windows(END_BYTES)
        .rposition(|window| window.starts_with(&END))
        .map(|position| tail + position)
        .ok_or("it has no end")?;
    let mut count = u64::from(u16_at(bytes, end + 10)?);
    let mut start = u64::from(u32_at(bytes, end + 16)?);
    if count == 0xffff || start == 0xffff_ffff {
        // The locator stands right before the end, and says where the longer form of the end is.
        let at = position(u64_at(bytes, end.checked_sub(12).ok_or("it has no end")?)?)?;
        if bytes.get(at..).is_none_or(|rest| !rest.starts_with(&END_64)) {
            return Err("it has no end".to_owned());
        }
        count = u64_at(bytes, at + 32)?;
        start = u64_at(bytes, at + 48)?;
    }
    let mut at = position(start)?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        if bytes.get(at..).is_none_or(|rest| !rest.starts_with(&CENTRAL)) {
            return Err("its list of entries is damaged".to_owned());
        }
        let flags = u16_at(bytes, at + 8)?;
        let method = u16_at(bytes, at + 10)?;
        let checksum = u32_at(bytes, at + 16)?;
        let mut packed_bytes = u64::from(u32_at(bytes, at + 20)?);
        let mut size = u64::from(u32_at(bytes, at + 24)?);
        let name_bytes = usize::from(u16_at(bytes, at + 28)?);
        let extra_bytes = usize::from(u16_at(bytes, at + 30)?);
        let comment_bytes = usize::from(u16_at(bytes, at + 32)?);
        let mut offset = u64::from(u32_at(bytes, at + 42)?);
        let name = slice(bytes, at + 46, name_bytes)?;
        let mut extra = slice(bytes, at + 46 + name_bytes, extra_bytes)?;
        while let [kind_low, kind_high, low, high, rest @ ..] = extra {
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let field = slice(rest, 0, length)?;
            if (*kind_low, *kind_high) == (1, 0) {
                let mut at = 0;
                for value in [&mut size, &mut packed_bytes, &mut offset] {
                    if *value == 0xffff_ffff {
                        *value = u64_at(field, at)?;
                        at += 8;
                    }
                }
            }
            extra = &rest[length..];
        }
        at += 46 + name_bytes + extra_bytes + comment_bytes;
        let name = String::from_utf8_lossy(name).into_owned();
        if flags & 1 == 1 {
            return Err(format!("{name} is encrypted"));
        }
        let is_deflated = match method {
            0 => false,
            8 => true,
            method => return Err(format!("{name} is compressed by the unknown method {method}")),
        };
        let local = position(offset)?;
        if bytes.get(local..).is_none_or(|rest| !rest.starts_with(&LOCAL)) {
            return Err(format!("{name} is not where the list says"));
        }
        let skipped = usize::from(u16_at(bytes, local + 26)?) + usize::from(u16_at(bytes, local + 28)?);
        let packed = slice(bytes, local + 30 + skipped, position(packed_bytes)?)?;
        if entries.insert(name.clone(), Entry { is_deflated, checksum, size, packed }).is_some() {
            return Err(format!("it holds {name} twice"));
        }
    }
    Ok(entries)
}

/// An offset or a length in memory; sums of two of them cannot overflow.
fn position(value: u64) -> Result<usize, String> {
    usize::try_from(value)
        .ok()
        .filter(|&value| value < usize::MAX / 4)
        .ok_or_else(|| "an offset is wrong".to_owned())
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], String> {
    bytes.get(at..at.saturating_add(length)).ok_or_else(|| "it is cut off".to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    Ok(u16::from_le_bytes(slice(bytes, at, 2)?.try_into().expect("two bytes")))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    Ok(u32::from_le_bytes(slice(bytes, at, 4)?.try_into().expect("four bytes")))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    Ok(u64::from_le_bytes(slice(bytes, at, 8)?.try_into().expect("eight bytes")))
}
