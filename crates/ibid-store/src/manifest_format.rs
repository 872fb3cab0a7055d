//! A manifest as a file.
//!
//! ```text
//! ibid-layer 1 4 7                                   format, entries, bytes of content
//! d etc 755 0 0 0                                    letter, path, mode, user, group, time, more by letter
//! f etc/motd 644 0 0 0 7 user.note=seen              size, then extended attributes
//! h etc/motd%20again etc/motd                        no mode, owner, time: they are those of the first name
//! w old 0                                            time
//! end 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! ```
//!
//! Letters: `f` file, `d` folder, `o` opaque folder, `l` symbolic link (target), `h` hard link (first name), `c` and `b`
//! devices (major, minor), `p` pipe, `w` whiteout. Fields are separated by one space; modes are octal, all other
//! numbers decimal; bytes that are not printable ASCII, and `%` and `=`, are written `%XX`. The last line
//! is the SHA-256 of all before it, so that a file cut short or altered is noticed.

use std::collections::BTreeMap;
use std::fmt::Write;

use ibid_core::digest::Digest;

use crate::manifest::{Entry, Kind, Manifest};
use crate::path;

const MAGIC: &str = "ibid-layer";
const FORMAT: u32 = 1;

/// Why a manifest cannot be read.
type Reason = String;

/// The file's bytes.
pub(crate) fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut text = String::with_capacity(64 * (manifest.entries.len() + 2));
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("a string takes what it is given");
    };
    line(format_args!("{MAGIC} {FORMAT} {} {}\n", manifest.entries.len(), manifest.content_bytes()));
    for Entry { path, kind, mode, uid, gid, mtime, xattrs } in &manifest.entries {
        let path = Escaped(path);
        let letter = match kind {
            Kind::HardLink { owner } => {
                line(format_args!("h {path} {}\n", Escaped(owner)));
                continue;
            }
            Kind::Whiteout => {
                line(format_args!("w {path} {mtime}\n"));
                continue;
            }
            Kind::File { .. } => 'f',
            Kind::Folder { opaque: false } => 'd',
            Kind::Folder { opaque: true } => 'o',
            Kind::Symlink { .. } => 'l',
            Kind::CharacterDevice { .. } => 'c',
            Kind::BlockDevice { .. } => 'b',
            Kind::Fifo => 'p',
        };
        line(format_args!("{letter} {path} {mode:o} {uid} {gid} {mtime}"));
        match kind {
            Kind::File { size } => line(format_args!(" {size}")),
            Kind::Symlink { target } => line(format_args!(" {}", Escaped(target))),
            Kind::CharacterDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                line(format_args!(" {major} {minor}"));
            }
            Kind::Folder { .. } | Kind::Fifo | Kind::HardLink { .. } | Kind::Whiteout => {}
        }
        for (name, value) in xattrs {
            line(format_args!(" {}={}", Escaped(name), Escaped(value)));
        }
        line(format_args!("\n"));
    }
    let digest = Digest::of(text.as_bytes()).hex();
    text.push_str("end ");
    text.push_str(&digest);
    text.push('\n');
    text.into_bytes()
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, Reason> {
    const END_BYTES: usize = "end ".len() + 64 + "\n".len();
    let body_bytes = bytes.len().checked_sub(END_BYTES).ok_or("it is cut short")?;
    let (body, end) = bytes.split_at(body_bytes);
    if end != format!("end {}\n", Digest::of(body).hex()).as_bytes() {
        return Err("its content does not match its checksum".to_owned());
    }
    let body = std::str::from_utf8(body).map_err(|_| "it is no text")?;
    let mut lines = body.lines();
    let (count, _) = first_line(lines.next().unwrap_or(""))?;
    let mut manifest = Manifest { entries: Vec::with_capacity(count.min(bytes.len() / 8)) };
    for text in lines {
        let entry = entry(text).ok_or_else(|| format!("`{text}` is no entry"))?;
        if let Some(last) = manifest.entries.last()
            && path::compare(&last.path, &entry.path).is_ge()
        {
            return Err(format!("`{text}` is out of order"));
        }
        manifest.entries.push(entry);
    }
    if manifest.entries.len() != count {
        return Err(format!("it has {} entries instead of {count}", manifest.entries.len()));
    }
    resolve_hard_links(&mut manifest)?;
    Ok(manifest)
}

/// The bytes of content that a manifest's first line tells, without reading the rest.
pub(crate) fn decode_content_bytes(start: &[u8]) -> Result<u64, Reason> {
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or(b"");
    let line = std::str::from_utf8(line).map_err(|_| "it is no text")?;
    Ok(first_line(line)?.1)
}

fn first_line(line: &str) -> Result<(usize, u64), Reason> {
    let mut fields = line.split(' ');
    if fields.next() != Some(MAGIC) {
        return Err("it is no manifest".to_owned());
    }
    match fields.next().and_then(|number| number.parse::<u32>().ok()) {
        Some(FORMAT) => {}
        Some(other) => {
            return Err(format!("it has format {other}, and this ibid knows formats up to {FORMAT}"));
        }
        None => return Err("it names no format".to_owned()),
    }
    let numbers = (|| Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)))();
    numbers.ok_or_else(|| format!("`{line}` is no first line"))
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split(' ');
    let letter = fields.next()?;
    let path = unescape(fields.next()?)?;
    let sound = |component: &[u8]| !matches!(component, b"" | b"." | b"..");
    if !path.split(|&byte| byte == b'/').all(sound) || path.contains(&0) {
        return None;
    }
    let mut entry =
        Entry { path, kind: Kind::Whiteout, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() };
    match letter {
        "h" => {
            entry.kind = Kind::HardLink { owner: unescape(fields.next()?)? };
            return fields.next().is_none().then_some(entry);
        }
        "w" => {
            entry.mtime = fields.next()?.parse().ok()?;
            return fields.next().is_none().then_some(entry);
        }
        _ => {}
    }
    entry.mode = u32::from_str_radix(fields.next()?, 8).ok().filter(|mode| mode & !0o7777 == 0)?;
    entry.uid = fields.next()?.parse().ok()?;
    entry.gid = fields.next()?.parse().ok()?;
    entry.mtime = fields.next()?.parse().ok()?;
    entry.kind = match letter {
        "f" => Kind::File { size: fields.next()?.parse().ok()? },
        "d" => Kind::Folder { opaque: false },
        "o" => Kind::Folder { opaque: true },
        "l" => Kind::Symlink { target: unescape(fields.next()?)? },
        "c" => {
            Kind::CharacterDevice { major: fields.next()?.parse().ok()?, minor: fields.next()?.parse().ok()? }
        }
        "b" => Kind::BlockDevice { major: fields.next()?.parse().ok()?, minor: fields.next()?.parse().ok()? },
        "p" => Kind::Fifo,
        _ => return None,
    };
    for field in fields {
        let (name, value) = field.split_once('=')?;
        entry.xattrs.insert(unescape(name)?, unescape(value)?);
    }
    Some(entry)
}

/// Gives each hard link the mode, owner, time and attributes of its first name, which the file does not repeat.
fn resolve_hard_links(manifest: &mut Manifest) -> Result<(), Reason> {
    for index in 0..manifest.entries.len() {
        let Kind::HardLink { owner } = &manifest.entries[index].kind else { continue };
        let owner_index =
            manifest.entries[..index].binary_search_by(|entry| path::compare(&entry.path, owner));
        let found = owner_index.ok().map(|owner_index| &manifest.entries[owner_index]).filter(|owner| {
            !matches!(owner.kind, Kind::HardLink { .. } | Kind::Folder { .. } | Kind::Whiteout)
        });
        let Some(found) = found else {
            let link = path::to_path(&manifest.entries[index].path);
            return Err(format!("`{}` is a hard link to nothing", link.display()));
        };
        let Entry { mode, uid, gid, mtime, xattrs, .. } = found.clone();
        let link = &mut manifest.entries[index];
        (link.mode, link.uid, link.gid, link.mtime, link.xattrs) = (mode, uid, gid, mtime, xattrs);
    }
    Ok(())
}

/// Bytes as text without spaces.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%' && byte != b'=';
        for chunk in self.0.chunk_by(|&a, &b| plain(a) == plain(b)) {
            match std::str::from_utf8(chunk) {
                Ok(text) if plain(chunk[0]) => f.write_str(text)?,
                _ => chunk.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))?,
            }
        }
        Ok(())
    }
}

pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_of(path: &[u8], kind: Kind) -> Entry {
        Entry { path: path.to_vec(), kind, mode: 0o644, uid: 1, gid: 2, mtime: -3, xattrs: BTreeMap::new() }
    }

    fn sample() -> Manifest {
        let mut file = entry_of(b"a/\xff %=\n", Kind::File { size: 7 });
        file.xattrs.insert(b"user.a=b".to_vec(), b"\0=".to_vec());
        let mut link = entry_of(b"b", Kind::HardLink { owner: file.path.clone() });
        link.xattrs = file.xattrs.clone();
        let folder = Entry { mode: 0o7777, ..entry_of(b"a", Kind::Folder { opaque: true }) };
        let whiteout = Entry { mode: 0, uid: 0, gid: 0, ..entry_of(b"g", Kind::Whiteout) };
        let entries = vec![
            folder,
            file,
            link,
            entry_of(b"c", Kind::Symlink { target: b"../x y".to_vec() }),
            entry_of(b"d", Kind::CharacterDevice { major: 1, minor: 3 }),
            entry_of(b"e", Kind::BlockDevice { major: 8, minor: 0 }),
            entry_of(b"f", Kind::Fifo),
            whiteout,
            entry_of(b"h", Kind::Folder { opaque: false }),
        ];
        Manifest { entries }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let manifest = sample();
        let bytes = encode(&manifest);
        assert_eq!(decode(&bytes), Ok(manifest));
        assert_eq!(decode_content_bytes(&bytes), Ok(7));
        assert_eq!(decode(&encode(&Manifest::default())), Ok(Manifest::default()));
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let bytes = encode(&sample());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1;
            assert!(decode(&damaged).is_err(), "bit flipped in byte {index}");
        }
    }

    #[test]
    fn wrong_lists_with_a_right_checksum_are_refused() {
        #[track_caller]
        fn check(body: &str, expected: &str) {
            let file = format!("{body}end {}\n", Digest::of(body.as_bytes()).hex());
            assert_eq!(decode(file.as_bytes()), Err(expected.to_owned()));
        }
        check("ibid-layer 2 0 0\n", "it has format 2, and this ibid knows formats up to 1");
        check("other 1 0 0\n", "it is no manifest");
        check("ibid-layer 1 1 0\n", "it has 0 entries instead of 1");
        check("ibid-layer 1 2 0\nw b 0\nw a 0\n", "`w a 0` is out of order");
        check("ibid-layer 1 2 0\nw a 0\nw a 0\n", "`w a 0` is out of order");
        check("ibid-layer 1 1 0\nh b a\n", "`b` is a hard link to nothing");
        check("ibid-layer 1 2 0\nd a 755 0 0 0\nh b a\n", "`b` is a hard link to nothing");
        for line in
            ["w ../a 0", "w /a 0", "w a/ 0", "w . 0", "w a%00 0", "w a%0 0", "f a 17777 0 0 0 0", "z a 0"]
        {
            check(&format!("ibid-layer 1 1 0\n{line}\n"), &format!("`{line}` is no entry"));
        }
    }
}
