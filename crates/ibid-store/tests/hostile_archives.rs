//! Archives that are made to do harm, and what becomes of each. `import.rs` has those of a single header.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ibid_core::digest::{DiffId, Digest};
use ibid_store::{LedgerNeeds, Limit, Store};
use support::hostile_tar::{Archive, FILE, FOLDER, Fields};
use support::{left_over, listing, needs_root, test_store};

/// What is expected of an archive.
enum Outcome {
    /// It is unpacked to this tree, a line an entry: kind, path, and what a link leads to.
    Tree(&'static str),
    /// It is unpacked, and the tree is not looked at.
    Unpacked,
    /// It is refused with a message that has this part.
    Refused(&'static str),
}

use Outcome::{Refused, Tree, Unpacked};

/// That what is expected comes of an archive; that nothing outside of the store has changed; that a layer gives the same
/// archive again, is sound in the store's own eyes, and can be removed.
#[track_caller]
fn check(case: &str, archive: &[u8], expected: &Outcome) {
    let (folder, store) = test_store();
    let outside = folder.path().join("outside");
    fs::write(&outside, "outside").expect("a file beside the store");
    let imported = store.import_layer(archive);
    match (imported, expected) {
        (Err(error), Refused(part)) => {
            assert!(error.to_string().contains(part), "{case}: {error}");
            assert_eq!(fs::read_dir(store.root().join("layers")).expect("layers").count(), 0, "{case}");
        }
        (Ok(layer), Tree(_) | Unpacked) => check_layer(case, &store, &layer, archive, expected),
        (Err(error), _) => panic!("{case}: {error}"),
        (Ok(_), Refused(_)) => panic!("{case}: it was unpacked"),
    }
    assert_eq!(left_over(&store), [""; 0], "{case}");
    assert_eq!(fs::read_to_string(&outside).expect("the file beside the store"), "outside", "{case}");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 2, "{case}");
}

fn check_layer(case: &str, store: &Store, layer: &DiffId, archive: &[u8], expected: &Outcome) {
    assert_eq!(*layer, DiffId(Digest::of(archive)), "{case}");
    if let Tree(expected) = expected {
        let shown = listing(&store.layer_tree(layer));
        let shown = shown.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let target = line.split_once(" -> ").map(|(_, target)| format!(" -> {target}"));
            format!("{} {}{}", words[0], words[1], target.unwrap_or_default())
        });
        assert_eq!(shown.collect::<Vec<_>>().join("\n"), *expected, "{case}");
    }
    let mut same = Same { expected: archive };
    store.write_layer_tar(layer, &mut same).expect(case);
    assert!(same.expected.is_empty(), "{case}: the archive is cut short");
    assert_eq!(store.layer_tar_size(layer).expect(case), archive.len() as u64, "{case}");
    let verified = store.verify(&|_, _| ()).expect(case);
    assert!(verified.damaged.is_empty(), "{case}: {:?}", verified.damaged);
    store
        .collect(Limit::Bytes(0), false, &|_| LedgerNeeds::Absent, &|| panic!("nobody else is there"))
        .expect(case);
    assert_eq!(fs::read_dir(store.root().join("layers")).expect("layers").count(), 0, "{case}");
}

/// Takes nothing but the bytes that are expected.
struct Same<'a> {
    expected: &'a [u8],
}

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.expected =
            self.expected.strip_prefix(bytes).ok_or_else(|| std::io::Error::other("other bytes"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn gnu(type_flag: u8) -> Fields {
    Fields { type_flag, ..FILE }
}

/// A number as GNU tar writes what octal digits cannot say.
fn with_binary(mut header: Vec<u8>, at: std::ops::Range<usize>, number: u64) -> Vec<u8> {
    let length = at.len();
    header[at.clone()].fill(0);
    header[at.start] = 0x80;
    header[at.end - 8.min(length - 1)..at.end]
        .copy_from_slice(&number.to_be_bytes()[8 - 8.min(length - 1)..]);
    with_sum(header)
}

/// The right checksum for the first header.
fn with_sum(mut header: Vec<u8>) -> Vec<u8> {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn names_do_not_lead_out() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    let climbs = "its name climbs up by `..`";
    let table: Vec<(&str, Vec<u8>, Outcome)> = vec![
        ("an absolute name", start().file("/outside", "x").end(), Tree("file outside")),
        ("an absolute name of many slashes", start().file("///outside", "x").end(), Tree("file outside")),
        ("a name that climbs", start().file("../outside", "x").end(), Refused(climbs)),
        ("a name that climbs later", start().folder("a").file("a/../../outside", "x").end(), Refused(climbs)),
        ("a name that climbs and comes back", start().file("a/../b", "x").end(), Refused(climbs)),
        ("a folder that climbs", start().folder("../outside").end(), Refused(climbs)),
        ("a link that climbs by its name", start().symlink("../outside", "x").end(), Refused(climbs)),
        ("a device that climbs", start().device("../sda", b'4', (8, 0)).end(), Refused(climbs)),
        (
            "a climbing name in a pax header",
            start().pax(&[("path", b"../outside")]).file("x", "x").end(),
            Refused(climbs),
        ),
        (
            "a climbing name in GNU's long name",
            start().entry("././@LongLink", &gnu(b'L'), b"../outside\0").file("x", "x").end(),
            Refused(climbs),
        ),
        (
            "a climbing name of a sparse file",
            start()
                .pax(&[
                    ("GNU.sparse.size", b"1"),
                    ("GNU.sparse.name", b"../outside"),
                    ("GNU.sparse.map", b"0,1"),
                ])
                .file("x", "x")
                .end(),
            Refused(climbs),
        ),
        ("the root as a link", start().symlink("./", "/etc").file("passwd", "x").end(), Tree("file passwd")),
        ("the root as a file", start().file(".", "x").file("a", "x").end(), Tree("file a")),
        ("an entry without a name", start().file("", "x").file("a", "x").end(), Tree("file a")),
        (
            "a NUL in a name",
            start().pax(&[("path", b"a\0/../../outside")]).file("x", "x").end(),
            Refused("its name holds a NUL byte"),
        ),
        (
            "a link to a folder outside, and a file through it",
            start().symlink("l", "../../../..").file("l/outside", "x").end(),
            Tree("link l -> ../../../..\nfile outside"),
        ),
        (
            "links through links",
            start().symlink("a", "/").symlink("b", "a/..").symlink("c", "b/a/b").file("c/x", "x").end(),
            Tree("link a -> /\nlink b -> a/..\nlink c -> b/a/b\nfile x"),
        ),
        (
            "a link that becomes a folder after something was put through it",
            start().symlink("d", "/e").file("d/x", "1").folder("d").file("d/y", "2").end(),
            Tree("folder d\nfile d/y\nfolder e\nfile e/x"),
        ),
        (
            "a folder that becomes a link between two of its files",
            start().folder("d").file("d/x", "1").symlink("d", "/").file("d/y", "2").end(),
            Tree("link d -> /\nfile y"),
        ),
        ("a hard link that climbs", start().hard_link("a", "../outside").end(), Refused(climbs)),
        (
            "a hard link to outside",
            start().hard_link("a", "/etc/passwd").end(),
            Refused("what the layer does not hold"),
        ),
        (
            "a hard link through a link to outside",
            start().symlink("l", "/etc").hard_link("a", "l/passwd").file("a", "x").end(),
            Refused("what the layer does not hold"),
        ),
        (
            "a hard link to a link, written through",
            start().symlink("l", "/outside").hard_link("h", "l").file("h", "x").end(),
            Tree("file h\nlink l -> /outside"),
        ),
        ("a hard link to itself", start().file("a", "x").hard_link("a", "a").end(), Tree("file a")),
        (
            "a whiteout of the parent",
            start().file("d/.wh...", "").end(),
            Refused("a whiteout of a folder that it is in"),
        ),
        (
            "a whiteout of its folder",
            start().file("d/.wh..", "").end(),
            Refused("a whiteout of a folder that it is in"),
        ),
        (
            "a whiteout of nothing",
            start().file("d/.wh.", "").end(),
            Refused("a whiteout of a folder that it is in"),
        ),
        (
            "a whiteout in a whiteout",
            start().file(".wh.a/.wh.b", "").end(),
            Refused("a whiteout holds nothing"),
        ),
        (
            "a whiteout through a link to outside",
            start().symlink("l", "../..").file("l/.wh.outside", "").end(),
            Tree("link l -> ../..\nwhiteout outside"),
        ),
        (
            "an opaque mark through a link to outside",
            start().symlink("l", "..").file("l/.wh..wh..opq", "").file("a", "").end(),
            Tree("file a\nlink l -> .."),
        ),
    ];
    for (case, archive, expected) in table {
        check(case, &archive, &expected);
    }
}

#[test]
fn sizes_and_numbers_that_lie_do_no_harm() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    let header = |size: u64| start().header(b"a", &FILE, size).0;
    let end = |bytes: Vec<u8>| Archive(bytes).end();
    let table: Vec<(&str, Vec<u8>, Outcome)> = vec![
        ("more content than there is", end(header(1 << 33)), Refused("ends in the middle of an entry")),
        (
            "a size of 2^63 - 1",
            end(with_binary(header(0), 124..136, i64::MAX as u64)),
            Refused("an entry is larger than any file can be"),
        ),
        (
            "a size of 2^64 - 1 in a pax header",
            start().pax(&[("size", b"18446744073709551615")]).file("a", "").end(),
            Refused("an entry is larger than any file can be"),
        ),
        (
            "a size of many digits in a pax header",
            start().pax(&[("size", b"99999999999999999999999999")]).file("a", "").end(),
            Refused("the size of an entry is no number"),
        ),
        (
            "a smaller size in a pax header: content is taken for a header",
            start().pax(&[("size", b"0")]).entry("a", &FILE, &[b'x'; 600]).end(),
            Refused("the checksum of a header is wrong"),
        ),
        (
            "an archive in an archive, of whose file the size is hidden",
            start().pax(&[("size", b"0")]).entry("a", &FILE, &start().file("inner", "x").0).end(),
            Tree("file a\nfile inner"),
        ),
        (
            "an id that means no user",
            end(with_binary(header(0), 108..116, u64::from(u32::MAX))),
            Refused("which have no id here"),
        ),
        (
            "an id of 33 bits",
            end(with_binary(header(0), 108..116, 1 << 32)),
            Refused("the user of an entry is no number"),
        ),
        ("a time before 1901", start().pax(&[("mtime", b"-99999999999")]).file("a", "").end(), Unpacked),
        (
            "a time after the sun's",
            start().pax(&[("mtime", b"999999999999999")]).file("a", "").end(),
            Unpacked,
        ),
        (
            "a time of no number",
            start().pax(&[("mtime", b"1e9")]).file("a", "").end(),
            Refused("the time of an entry is no number"),
        ),
        (
            "a record that is longer than its header",
            start().entry("x", &Fields { type_flag: b'x', ..FILE }, b"999999 path=a\n").file("a", "").end(),
            Refused("an extended header is malformed"),
        ),
        (
            "a record of length zero",
            start().entry("x", &Fields { type_flag: b'x', ..FILE }, b"0 path=a\n").file("a", "").end(),
            Refused("an extended header is malformed"),
        ),
        (
            "an extension of a gigabyte",
            start().header(b"x", &Fields { type_flag: b'x', ..FILE }, 1 << 30).end(),
            Refused("an extended header is larger than 1 MiB"),
        ),
        (
            "extensions without end",
            (0..2000).fold(start(), |archive, _| archive.entry("l", &gnu(b'L'), b"a\0")).end(),
            Refused("it ends after an extended header"),
        ),
        (
            "a type that is not known",
            start().entry("a", &gnu(b'Z'), b"").end(),
            Refused("the type of an entry is not known"),
        ),
        (
            "an attribute that only overlay may set",
            start()
                .pax(&[
                    ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
                    ("SCHILY.xattr.user.overlay.metacopy", b""),
                ])
                .folder("d")
                .end(),
            Tree("folder d"),
        ),
        (
            "a name of 256 bytes",
            start().pax(&[("path", &[b'n'; 256])]).file("x", "").end(),
            Refused("longer than 255 bytes"),
        ),
        (
            "a path of 4097 bytes",
            start().pax(&[("path", "d/".repeat(2049).as_bytes())]).file("x", "").end(),
            Refused("longer than 4095 bytes"),
        ),
    ];
    for (case, archive, expected) in table {
        check(case, &archive, &expected);
    }
}

#[test]
fn large_files_of_nothing_take_no_space() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    let tera: u64 = 1 << 40;
    let size = tera.to_string();
    let mut old = start().header(b"s", &gnu(b'S'), 1).0;
    old[257..265].copy_from_slice(b"ustar  \0");
    old[386..398].copy_from_slice(b"00000020000\0");
    old[398..410].copy_from_slice(b"00000000001\0");
    let old = with_binary(old, 483..495, tera);
    let map: &[u8] = b"1\n8192\n1\n";
    let map = [map, &vec![0; 512 - map.len()], b"x"].concat();
    let forms = [
        ("GNU's old form", Archive(old).content(b"x").end()),
        (
            "pax form 0.1",
            start()
                .pax(&[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", b"8192,1")])
                .file("s", "x")
                .end(),
        ),
        (
            "pax form 1.0",
            start()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"s"),
                    ("GNU.sparse.realsize", size.as_bytes()),
                ])
                .entry("x", &FILE, &map)
                .end(),
        ),
    ];
    for (case, archive) in forms {
        let (_folder, store) = test_store();
        let layer = store.import_layer(archive.as_slice()).expect(case);
        let file = fs::metadata(store.layer_tree(&layer).join("s")).expect(case);
        assert_eq!(file.len(), tera, "{case}");
        assert!(file.blocks() * 512 < 1 << 20, "{case}: {} blocks", file.blocks());
        assert_eq!(store.layer_size(&layer).expect(case), tera, "{case}");
        check(case, &archive, &Unpacked);
    }
    // More than a file system can say.
    let size = (i64::MAX as u64 - 600).to_string();
    let archive =
        start().pax(&[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", b"0,1")]).file("s", "x").end();
    let (_folder, store) = test_store();
    match store.import_layer(archive.as_slice()) {
        Err(error) => assert!(error.to_string().starts_with("cannot set the size of"), "{error}"),
        // Some can.
        Ok(layer) => assert_eq!(store.layer_size(&layer).expect("a layer"), i64::MAX as u64 - 600),
    }
}

#[test]
fn deep_trees_are_unpacked_and_removed() {
    if !needs_root() {
        return;
    }
    // As deep as a path can be, each level listed; then a link at the bottom to the top, and a file through it.
    let mut archive = Archive::default();
    let mut path = String::new();
    for _ in 0..2000 {
        path.push_str("d/");
        archive = archive.pax(&[("path", path.as_bytes())]).entry("d/", &FOLDER, b"");
    }
    let bottom = format!("{path}l");
    archive = archive.pax(&[("path", bottom.as_bytes())]).symlink("l", "/");
    let through = format!("{path}l/x");
    archive = archive.pax(&[("path", through.as_bytes())]).file("x", "x");
    check("a tree of 2000 folders", &archive.end(), &Unpacked);
}

#[test]
fn entries_of_one_path_replace_each_other_a_thousand_times() {
    if !needs_root() {
        return;
    }
    let mut archive = Archive::default();
    for number in 0..1000 {
        archive = match number % 4 {
            0 => archive.file("a", &number.to_string()),
            1 => archive.symlink("a", "/"),
            2 => archive.folder("a").file("a/b", &number.to_string()),
            _ => archive.file(".wh.a", ""),
        };
    }
    check("a thousand of one path", &archive.file("a", "last").end(), &Tree("file a"));
}

#[test]
fn a_compressed_bomb_ends_with_the_archive_it_is() {
    if !needs_root() {
        return;
    }
    // Hundreds of megabytes of zeros in some kilobytes: an archive ends with its second empty block, what follows is kept in
    // the split, and costs no more than that.
    let (_folder, store) = test_store();
    let zeros = std::io::repeat(0).take(300 << 20);
    let layer = store.import_layer(zeros).expect("an empty archive");
    let split =
        fs::metadata(store.root().join("layers").join(layer.0.hex()).join("split")).expect("the split");
    assert!(split.len() < 1 << 20, "{} bytes", split.len());
    assert_eq!(listing(Path::new(&store.layer_tree(&layer))), "");
}
