//! Headers of the archives that this crate writes: POSIX ustar (IEEE Std 1003.1, pax, "ustar Interchange Format"), with
//! extended records (`x` headers, "pax Extended Header") only for what ustar cannot say.
//!
//! Every byte here is part of every layer's identity: a change gives each image another digest.

use std::fmt::Write;

use crate::manifest::{Entry, Kind};
use crate::path;

/// Headers, contents and padding come in multiples of this.
pub(crate) const BLOCK_BYTES: usize = 512;

/// Prefix of the name of a whiteout, and the name of the mark of an opaque folder
/// (OCI image specification, layer.md, "Whiteouts").
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// Largest values of ustar's octal fields.
const ID_MAX: u64 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;

/// What a header says.
struct Fields<'a> {
    name: Vec<u8>,
    type_flag: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    size: u64,
    link: &'a [u8],
    device: Option<(u32, u32)>,
    xattrs: Vec<(&'a [u8], &'a [u8])>,
}

/// Appends the headers of an entry to `archive`: its own, and for an opaque folder that of the mark. What follows
/// is the content of a file.
pub(crate) fn append(archive: &mut Vec<u8>, entry: &Entry) {
    let mut fields = Fields {
        name: entry.path.clone(),
        type_flag: b'0',
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        size: 0,
        link: b"",
        device: None,
        xattrs: entry.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect(),
    };
    match &entry.kind {
        Kind::File { size } => fields.size = *size,
        Kind::HardLink { owner } => {
            fields.type_flag = b'1';
            fields.link = owner;
            // The first name has said them.
            fields.xattrs.clear();
        }
        Kind::Symlink { target } => {
            fields.type_flag = b'2';
            fields.link = target;
        }
        Kind::CharacterDevice { major, minor } => {
            fields.type_flag = b'3';
            fields.device = Some((*major, *minor));
        }
        Kind::BlockDevice { major, minor } => {
            fields.type_flag = b'4';
            fields.device = Some((*major, *minor));
        }
        Kind::Folder { opaque } => {
            fields.type_flag = b'5';
            fields.name.push(b'/');
            append_fields(archive, &fields);
            if *opaque {
                append_mark(archive, path::join(&entry.path, OPAQUE_NAME), entry.mtime);
            }
            return;
        }
        Kind::Fifo => fields.type_flag = b'6',
        Kind::Whiteout => {
            let name = [WHITEOUT_PREFIX, path::name(&entry.path)].concat();
            append_mark(archive, path::join(path::parent(&entry.path), &name), entry.mtime);
            return;
        }
    }
    append_fields(archive, &fields);
}

/// Appends what ends an archive.
pub(crate) fn append_end(archive: &mut Vec<u8>) {
    archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
}

/// A whiteout or the mark of an opaque folder: an empty file of root's.
fn append_mark(archive: &mut Vec<u8>, name: Vec<u8>, mtime: i64) {
    let fields = Fields {
        name,
        type_flag: b'0',
        mode: 0,
        uid: 0,
        gid: 0,
        mtime,
        size: 0,
        link: b"",
        device: None,
        xattrs: Vec::new(),
    };
    append_fields(archive, &fields);
}

fn append_fields(archive: &mut Vec<u8>, fields: &Fields<'_>) {
    let mut records = Vec::new();
    let mut record = |key: &[u8], value: &[u8]| append_record(&mut records, key, value);
    // Extended attributes first, then the rest: the keys are in order of their bytes.
    for (name, value) in &fields.xattrs {
        record(&[b"SCHILY.xattr.", *name].concat(), value);
    }
    if u64::from(fields.gid) > ID_MAX {
        record(b"gid", fields.gid.to_string().as_bytes());
    }
    let split = split_name(&fields.name);
    if fields.link.len() > 100 || !fields.link.is_ascii() {
        record(b"linkpath", fields.link);
    }
    let mtime = u64::try_from(fields.mtime).ok().filter(|&mtime| mtime <= SIZE_MAX);
    if mtime.is_none() {
        record(b"mtime", fields.mtime.to_string().as_bytes());
    }
    if split.is_none() {
        record(b"path", &fields.name);
    }
    if fields.size > SIZE_MAX {
        record(b"size", fields.size.to_string().as_bytes());
    }
    if u64::from(fields.uid) > ID_MAX {
        record(b"uid", fields.uid.to_string().as_bytes());
    }
    if !records.is_empty() {
        let mut block = [0; BLOCK_BYTES];
        put(&mut block, 0, b"PaxHeaders.0");
        finish(&mut block, b'x', 0o644, (0, 0), 0, records.len() as u64);
        archive.extend_from_slice(&block);
        archive.extend_from_slice(&records);
        archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    let mut block = [0; BLOCK_BYTES];
    match split {
        Some((prefix, name)) => {
            put(&mut block, 0, name);
            put(&mut block, 345, prefix);
        }
        None => put(&mut block, 0, &shortened(&fields.name)),
    }
    if fields.link.len() <= 100 && fields.link.is_ascii() {
        put(&mut block, 157, fields.link);
    } else {
        put(&mut block, 157, &shortened(fields.link));
    }
    if let Some((major, minor)) = fields.device {
        put_octal(&mut block, 329, 8, major.into());
        put_octal(&mut block, 337, 8, minor.into());
    }
    let fitting = |value: u64, max: u64| if value <= max { value } else { 0 };
    let ids = (fitting(fields.uid.into(), ID_MAX), fitting(fields.gid.into(), ID_MAX));
    let size = fitting(fields.size, SIZE_MAX);
    finish(&mut block, fields.type_flag, fields.mode, ids, mtime.unwrap_or(0), size);
    archive.extend_from_slice(&block);
}

/// Fills what every header has, the checksum last.
fn finish(block: &mut [u8; BLOCK_BYTES], type_flag: u8, mode: u32, ids: (u64, u64), mtime: u64, size: u64) {
    put_octal(block, 100, 8, mode.into());
    put_octal(block, 108, 8, ids.0);
    put_octal(block, 116, 8, ids.1);
    put_octal(block, 124, 12, size);
    put_octal(block, 136, 12, mtime);
    block[156] = type_flag;
    put(block, 257, b"ustar\x0000");
    put(block, 148, b"        ");
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    put_octal(block, 148, 7, sum);
}

fn put(block: &mut [u8; BLOCK_BYTES], offset: usize, bytes: &[u8]) {
    block[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Fills a field with octal digits and a NUL.
fn put_octal(block: &mut [u8; BLOCK_BYTES], offset: usize, field_bytes: usize, mut value: u64) {
    for digit in block[offset..offset + field_bytes - 1].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    block[offset + field_bytes - 1] = 0;
}

/// Splits a name in ustar's prefix (155 bytes) and name (100 bytes) fields; `None` when it does not fit. A
/// name in other characters than ASCII does not, as ustar leaves their encoding open.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // The slash between the fields is not stored, and a folder's last slash belongs to its name.
    let inner = &name[..name.len() - 1];
    let slash = inner.iter().take(156).rposition(|&byte| byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (!prefix.is_empty() && rest.len() <= 100).then_some((prefix, rest))
}

/// What a reader without extended records sees of a long or non-ASCII name.
fn shortened(name: &[u8]) -> Vec<u8> {
    name.iter().take(100).map(|&byte| if byte.is_ascii() { byte } else { b'_' }).collect()
}

/// Appends `length key=value\n`, where the length counts itself.
fn append_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = " ".len() + key.len() + "=".len() + value.len() + "\n".len();
    let mut length = rest + decimal_digits(rest);
    if rest + decimal_digits(length) != length {
        length = rest + decimal_digits(length);
    }
    let mut start = String::new();
    write!(start, "{length} ").expect("a string takes what it is given");
    records.extend_from_slice(start.as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_a_slash_that_makes_both_parts_fit() {
        #[track_caller]
        fn check(name: &str, expected: Option<(usize, usize)>) {
            let split = split_name(name.as_bytes());
            assert_eq!(split.map(|(prefix, name)| (prefix.len(), name.len())), expected);
            if let Some((prefix, rest)) = split.filter(|(prefix, _)| !prefix.is_empty()) {
                assert_eq!([prefix, b"/", rest].concat(), name.as_bytes());
            }
        }
        let a = |count: usize| "a".repeat(count);
        check(&a(100), Some((0, 100)));
        check(&a(101), None);
        check("é", None);
        check(&format!("{}/{}", a(155), a(100)), Some((155, 100)));
        check(&format!("{}/{}", a(156), a(100)), None);
        check(&format!("{}/{}", a(155), a(101)), None);
        check(&format!("{}/{}/", a(50), a(99)), Some((50, 100)));
        check(&format!("{}/", a(100)), None);
    }

    #[test]
    fn a_records_length_counts_itself() {
        for bytes in 0..2000 {
            let mut records = Vec::new();
            append_record(&mut records, b"k", &vec![b'v'; bytes]);
            let space = records.iter().position(|&byte| byte == b' ').expect("a length and a space");
            let length: usize = std::str::from_utf8(&records[..space]).unwrap().parse().unwrap();
            assert_eq!(length, records.len());
        }
    }
}
