//! What differs between two builds of the same plan, and what would cure it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ibid_core::digest::DiffId;
use ibid_store::{Entry, Kind, Store};

/// Largest files that are read whole, bytes: of larger ones only where they begin to differ is said.
const LOOKED_AT_BYTES_MAX: u64 = 64 << 20;
/// Characters of a differing line that are shown.
const LINE_CHARACTERS_MAX: usize = 60;

/// A path that is not the same in two layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Path in the image, with `/` in front.
    pub path: String,
    /// What about it differs.
    pub kind: DifferenceKind,
    /// What would cure it.
    pub advice: &'static str,
}

/// What about a path differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Only the first build made it.
    OnlyFirst,
    /// Only the second build made it.
    OnlySecond,
    /// It is another kind of file.
    Type,
    /// A link leads elsewhere, or another path is the file's first name.
    Target(String, String),
    /// Permission bits.
    Mode(u32, u32),
    /// User and group.
    Owner((u32, u32), (u32, u32)),
    /// Time of last change, seconds since 1970.
    Time(i64, i64),
    /// Extended attributes.
    Attributes,
    /// Content; where and how, in words.
    Content(String),
}

impl std::fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OnlyFirst => f.write_str("only in the first build"),
            Self::OnlySecond => f.write_str("only in the second build"),
            Self::Type => f.write_str("another kind of file"),
            Self::Target(a, b) => write!(f, "leads to `{a}`, then to `{b}`"),
            Self::Mode(a, b) => write!(f, "mode {a:o}, then {b:o}"),
            Self::Owner((a, b), (c, d)) => write!(f, "owner {a}:{b}, then {c}:{d}"),
            Self::Time(a, b) => write!(f, "time {a}, then {b}"),
            Self::Attributes => f.write_str("extended attributes"),
            Self::Content(how) => write!(f, "content: {how}"),
        }
    }
}

/// Compares two layers; none is one without an entry.
pub fn differences(
    store: &Store,
    first: Option<DiffId>,
    second: Option<DiffId>,
) -> Result<Vec<Difference>, ibid_store::Error> {
    if first == second {
        return Ok(Vec::new());
    }
    let entries = |layer: Option<DiffId>| match layer {
        Some(layer) => Ok(store.layer_manifest(&layer)?.entries),
        None => Ok::<_, ibid_store::Error>(Vec::new()),
    };
    let (old, new) = (entries(first)?, entries(second)?);
    let new_by_path: BTreeMap<&[u8], &Entry> =
        new.iter().map(|entry| (entry.path.as_slice(), entry)).collect();
    let tree = |layer: Option<DiffId>| layer.map(|layer| store.layer_tree(&layer)).unwrap_or_default();
    let (old_tree, new_tree) = (tree(first), tree(second));
    let mut found = Vec::new();
    for entry in &old {
        match new_by_path.get(entry.path.as_slice()) {
            None => found.push(difference(&entry.path, DifferenceKind::OnlyFirst)),
            Some(other) => {
                let kinds = compare(entry, other, &old_tree, &new_tree);
                found.extend(kinds.into_iter().map(|kind| difference(&entry.path, kind)));
            }
        }
    }
    let known: BTreeSet<&[u8]> = old.iter().map(|entry| entry.path.as_slice()).collect();
    let added = new.iter().filter(|entry| !known.contains(entry.path.as_slice()));
    found.extend(added.map(|entry| difference(&entry.path, DifferenceKind::OnlySecond)));
    Ok(found)
}

/// What differs between two entries, whose files are in these trees.
pub(crate) fn compare(old: &Entry, new: &Entry, old_tree: &Path, new_tree: &Path) -> Vec<DifferenceKind> {
    if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
        return vec![DifferenceKind::Type];
    }
    let mut kinds = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (&old.kind, &new.kind) {
        (Kind::File { size: old_size }, Kind::File { size: new_size }) => {
            let path = std::ffi::OsStr::from_bytes(&old.path);
            let (a, b) = (old_tree.join(path), new_tree.join(path));
            match content_difference(&a, &b, (*old_size, *new_size)) {
                Ok(None) => {}
                Ok(Some(how)) => kinds.push(DifferenceKind::Content(how)),
                Err(error) => kinds.push(DifferenceKind::Content(format!("cannot be compared: {error}"))),
            }
        }
        (Kind::Symlink { target: a }, Kind::Symlink { target: b })
        | (Kind::HardLink { owner: a }, Kind::HardLink { owner: b })
            if a != b =>
        {
            kinds.push(DifferenceKind::Target(text(a), text(b)));
        }
        (a, b) if a != b => kinds.push(DifferenceKind::Type),
        _ => {}
    }
    if old.mode != new.mode {
        kinds.push(DifferenceKind::Mode(old.mode, new.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        kinds.push(DifferenceKind::Owner((old.uid, old.gid), (new.uid, new.gid)));
    }
    if old.mtime != new.mtime {
        kinds.push(DifferenceKind::Time(old.mtime, new.mtime));
    }
    if old.xattrs != new.xattrs {
        kinds.push(DifferenceKind::Attributes);
    }
    kinds
}

/// How the contents of two files differ; none when they do not.
fn content_difference(a: &Path, b: &Path, sizes: (u64, u64)) -> std::io::Result<Option<String>> {
    if sizes.0.max(sizes.1) <= LOOKED_AT_BYTES_MAX {
        let (a, b) = (std::fs::read(a)?, std::fs::read(b)?);
        return Ok((a != b).then(|| how(&a, &b)));
    }
    if sizes.0 != sizes.1 {
        return Ok(Some(format!("{} bytes, then {}", sizes.0, sizes.1)));
    }
    let open = |path: &Path| Ok::<_, std::io::Error>(BufReader::with_capacity(1 << 20, File::open(path)?));
    let (mut a, mut b) = (open(a)?, open(b)?);
    let mut offset = 0;
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let count = left.len().min(right.len());
        if count == 0 {
            return Ok((left.len() != right.len()).then(|| format!("one ends at {offset}")));
        }
        if let Some(place) = left[..count].iter().zip(&right[..count]).position(|(a, b)| a != b) {
            return Ok(Some(format!("{} bytes, the first that differs is at {}", sizes.0, offset + place)));
        }
        a.consume(count);
        b.consume(count);
        offset += count;
    }
}

/// How two contents differ: the first differing line of texts, else how many bytes from where on.
fn how(old: &[u8], new: &[u8]) -> String {
    if let (Ok(a), Ok(b)) = (std::str::from_utf8(old), std::str::from_utf8(new))
        && !a.contains('\0')
    {
        let (mut left, mut right, mut number) = (a.lines(), b.lines(), 1);
        loop {
            match (left.next(), right.next()) {
                (None, None) => break,
                (a, b) if a != b => {
                    return format!("line {number}: {}, then {}", shown(a), shown(b));
                }
                _ => number += 1,
            }
        }
    }
    let first = old.iter().zip(new).position(|(a, b)| a != b).unwrap_or(old.len().min(new.len()));
    if old.len() == new.len() {
        let count = old.iter().zip(new).filter(|(a, b)| a != b).count();
        format!("{count} of {} bytes, the first at {first}", old.len())
    } else {
        format!("{} bytes, then {}; the first that differs is at {first}", old.len(), new.len())
    }
}

fn shown(line: Option<&str>) -> String {
    let Some(line) = line else { return "nothing".to_owned() };
    let clean: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(LINE_CHARACTERS_MAX) {
        Some((end, _)) => format!("`{}…`", &clean[..end]),
        None => format!("`{clean}`"),
    }
}

fn difference(path: &[u8], kind: DifferenceKind) -> Difference {
    let path = format!("/{}", String::from_utf8_lossy(path));
    let advice = advice(&path, &kind);
    Difference { path, kind, advice }
}

/// What would cure a difference, by what is known of such files.
fn advice(path: &str, kind: &DifferenceKind) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if is(&[".pyc", ".pyo"]) {
        return "compile with `python -m compileall --invalidation-mode checked-hash`, or set PYTHONDONTWRITEBYTECODE=1";
    }
    if is(&[".gz", ".tgz"]) {
        return "compress with `gzip -n`, which writes no time and no name";
    }
    if is(&[".zip", ".jar", ".whl", ".egg"]) {
        return "zip with `zip -X` after `touch -d @$SOURCE_DATE_EPOCH` on every file";
    }
    if is(&[".tar", ".tar.xz", ".tar.zst"]) {
        return "pack with `tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner`";
    }
    if is(&[".a"]) {
        return "make archives with `ar rcD`";
    }
    if is(&[".o", ".so"]) || name.contains(".so.") {
        return "compile without __DATE__ and with -ffile-prefix-map, in a folder with a fixed name";
    }
    if is(&[".key", ".pem", ".crt"]) || name.starts_with("ssh_host_") {
        return "a key made while building is known to everyone who has the image: make it at the first start";
    }
    if path.starts_with("/etc/shadow") {
        return "the salt of a password is random: set one that is made elsewhere, with `usermod --password HASH`";
    }
    if is(&[".log"])
        || path.starts_with("/var/log/")
        || path.starts_with("/tmp/")
        || path.starts_with("/var/tmp/")
    {
        return "remove it at the end of the same RUN";
    }
    if is(&[".db", ".sqlite", ".sqlite3"]) {
        return "make the database at the first start, or fix the times and the order of what is put in";
    }
    if path.contains("/.cache/") || path.contains("/var/cache/") {
        return "keep it out of the image: `RUN --mount=type=cache,target=…`, or remove it in the same RUN";
    }
    match kind {
        DifferenceKind::Content(_) => {
            "look for a time, a random value, a process id or the order of a folder in what the step writes; \
             SOURCE_DATE_EPOCH is set for it"
        }
        DifferenceKind::OnlyFirst | DifferenceKind::OnlySecond => {
            "its name holds something random, or a server gave something else: pin what is downloaded"
        }
        DifferenceKind::Mode(..) => "set the mode with `chmod`, whatever the umask",
        DifferenceKind::Owner(..) => "set the owner with `chown` or `COPY --chown`",
        DifferenceKind::Time(..) => "leave out --keep-nondeterminism, which keeps times",
        _ => "make it the same way each time",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_differ_in_a_line_or_in_bytes() {
        let check = |old: &[u8], new: &[u8], expected: &str| assert_eq!(how(old, new), expected);
        check(b"a\nb\n", b"a\nc\n", "line 2: `b`, then `c`");
        check(b"a\n", b"a\nb\n", "line 2: nothing, then `b`");
        check(b"\x00ab\xff", b"\x00cd\xff", "2 of 4 bytes, the first at 1");
        check(b"\xff\x00", b"\xff\x00\x01", "2 bytes, then 3; the first that differs is at 2");
        check(b"a", b"a\n", "1 bytes, then 2; the first that differs is at 1");
    }

    #[test]
    fn large_files_are_compared_too() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let size = LOOKED_AT_BYTES_MAX + 5_000_000;
        for path in [&a, &b] {
            File::create(path).and_then(|file| file.set_len(size)).expect("a sparse file");
        }
        let check = |expected: Option<&str>, sizes| {
            assert_eq!(content_difference(&a, &b, sizes).expect("readable").as_deref(), expected);
        };
        check(None, (size, size));
        check(Some("72108864 bytes, then 72108865"), (size, size + 1));
        let changed = File::options().write(true).open(&b).expect("a file");
        std::os::unix::fs::FileExt::write_at(&changed, b"x", 70_000_000).expect("written");
        check(Some("72108864 bytes, the first that differs is at 70000000"), (size, size));
    }

    #[test]
    fn advice_fits_the_file() {
        let check = |path: &str, part: &str| {
            let given = advice(path, &DifferenceKind::Content(String::new()));
            assert!(given.contains(part), "{path}: {given}");
        };
        check("/usr/lib/python3/x.pyc", "checked-hash");
        check("/usr/lib/libx.so.1.2", "-ffile-prefix-map");
        check("/doc/a.gz", "gzip -n");
        check("/root/.cache/pip/http/1", "type=cache");
        check("/etc/made", "SOURCE_DATE_EPOCH");
    }
}
