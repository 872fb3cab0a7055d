//! Archives of others become layers, or are refused.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use ibid_core::digest::{DiffId, Digest};
use ibid_store::{Error, Store};
use support::hostile_tar::{Archive, FILE, FOLDER, Fields};
use support::{archive, left_over, listing, needs_root, test_store};

fn import(store: &Store, bytes: &[u8]) -> Result<DiffId, Error> {
    store.import_layer(bytes)
}

/// The layer's tree after importing `archive`, and that its archive is the same again.
#[track_caller]
fn check(archive_bytes: Vec<u8>, expected: &str) {
    let (_folder, store) = test_store();
    let diff_id = import(&store, &archive_bytes).expect("an archive that is accepted");
    assert_eq!(diff_id, DiffId(Digest::of(&archive_bytes)));
    let tree = listing(&store.layer_tree(&diff_id));
    let expected: String = expected.lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(tree, expected.trim_start());
    assert!(archive(&store, &diff_id) == archive_bytes, "the archive is not the same again");
    assert_eq!(left_over(&store), Vec::<String>::new());
    // The manifest describes the tree.
    for entry in store.layer_manifest(&diff_id).unwrap().entries {
        let path = store.layer_tree(&diff_id).join(OsStr::from_bytes(&entry.path));
        fs::symlink_metadata(path).expect("an entry of the manifest is in the tree");
    }
}

/// The message with which `archive` is refused, and that nothing is left of it, in the store or outside.
#[track_caller]
fn check_refused(archive_bytes: Vec<u8>, expected: &str) {
    let (folder, store) = test_store();
    let error = import(&store, &archive_bytes).expect_err("an archive that is refused");
    assert_eq!(error.to_string(), expected);
    assert_eq!(left_over(&store), Vec::<String>::new());
    assert_eq!(fs::read_dir(store.root().join("layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn folders_that_an_archive_does_not_list_are_told() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let bytes = Archive::default()
        .folder("listed")
        .file("listed/implied/x", "1")
        .file("implied/then-listed/x", "2")
        .folder("implied/then-listed")
        .symlink("link", "listed")
        .file("link/through/x", "3")
        .end();
    let archive = store.import_archive(bytes.as_slice()).unwrap();
    assert_eq!(archive.layer, DiffId(Digest::of(&bytes)));
    let implied: Vec<_> = archive.implied_folders.iter().map(|path| String::from_utf8_lossy(path)).collect();
    assert_eq!(implied, ["implied", "listed/implied", "listed/through"]);
}

#[test]
fn what_is_sound_is_unpacked() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    check(start().end(), "");
    check(Vec::new(), "");
    check(
        start().folder("a/").file("a/b", "hello").symlink("a/c", "../x").hard_link("a/d", "a/b").end(),
        "folder a 755 0:0 7.0
         file a/b 644 0:0 7.0 5 2cf24dba same as a/b
         link a/c 777 0:0 7.0 -> ../x
         file a/d 644 0:0 7.0 5 2cf24dba same as a/b",
    );
    check(
        start().entry("s", &Fields { mode: 0o6755, uid: 5, gid: 6, ..FILE }, b"").end(),
        "file s 6755 5:6 7.0 0 e3b0c442",
    );
    check(
        start().entry("t/", &Fields { mode: 0o1777, ..FOLDER }, b"").file("t/x", "").end(),
        "folder t 1777 0:0 7.0
         file t/x 644 0:0 7.0 0 e3b0c442",
    );
    // Names as engines and programs write them.
    check(
        start().folder("./").file("./a", "").file("/b", "").file("d//e/./f", "").end(),
        "file a 644 0:0 7.0 0 e3b0c442
         file b 644 0:0 7.0 0 e3b0c442
         folder d 755 0:0 0.0
         folder d/e 755 0:0 0.0
         file d/e/f 644 0:0 7.0 0 e3b0c442",
    );
    check(
        start().device("null", b'3', (1, 3)).device("sda", b'4', (8, 0)).device("p", b'6', (0, 0)).end(),
        "char null 644 0:0 7.0 259
         pipe p 644 0:0 7.0
         block sda 644 0:0 7.0 2048",
    );
    // Links have no content, whatever they claim.
    check(
        start().file("a", "").header(b"b", &Fields { type_flag: b'1', link: "a", ..FILE }, 999).end(),
        "file a 644 0:0 7.0 0 e3b0c442 same as a
         file b 644 0:0 7.0 0 e3b0c442 same as a",
    );
    // Old headers have no magic, and folders only by their names.
    let mut old = start().header(b"f/", &Fields { type_flag: 0, mode: 0o755, ..FILE }, 0).0;
    old[257..265].fill(0);
    old[148..156].fill(b' ');
    let sum: u32 = old.iter().map(|&byte| u32::from(byte)).sum();
    old[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    check(old, "folder f 755 0:0 7.0");
    // An end without its blocks, an end with one, and bytes after it.
    check(start().file("a", "x").0, "file a 644 0:0 7.0 1 2d711642");
    check(start().file("a", "x").raw(&[0; 512]).0, "file a 644 0:0 7.0 1 2d711642");
    let with_tail = start().file("a", "x").raw(&[0; 1024]).raw(b"tail of any length").0;
    check(with_tail, "file a 644 0:0 7.0 1 2d711642");
    check(
        start().entry("g", &Fields { type_flag: b'g', ..FILE }, b"13 path=none\n").file("a", "").end(),
        "file a 644 0:0 7.0 0 e3b0c442",
    );
}

#[test]
fn extensions_are_understood() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    let long = "n".repeat(200);
    check(
        start().pax(&[("path", long.as_bytes())]).file("short", "").end(),
        &format!("file {long} 644 0:0 7.0 0 e3b0c442"),
    );
    check(
        start()
            .pax(&[("path", b"\xff\xfe"), ("uid", b"3000000"), ("gid", b"4000000"), ("mtime", b"-1.5")])
            .file("x", "")
            .end(),
        "file \\xff\\xfe 644 3000000:4000000 -2.0 0 e3b0c442",
    );
    check(
        start()
            .pax(&[
                ("SCHILY.xattr.user.note", b"a=b\n\0"),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.security.selinux", b"label"),
            ])
            .folder("d")
            .end(),
        "folder d 755 0:0 7.0 user.note=a=b\\n\\x00",
    );
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    check(
        start().pax(&[("SCHILY.xattr.security.capability", capability)]).entry("ping", &FILE, b"").end(),
        &format!("file ping 644 0:0 7.0 0 e3b0c442 security.capability={}", capability.escape_ascii()),
    );
    // GNU's long names, with their NUL.
    let gnu = |flag: u8| Fields { type_flag: flag, ..FILE };
    let long_nul = format!("{long}\0");
    check(
        start()
            .entry("././@LongLink", &gnu(b'L'), long_nul.as_bytes())
            .entry("././@LongLink", &gnu(b'K'), long_nul.as_bytes())
            .symlink("short", "short")
            .end(),
        &format!("link {long} 777 0:0 7.0 -> {long}"),
    );
    // Sparse files: pax forms 1.0, 0.1 and 0.0.
    let hello_at_8192 = "file s 644 0:0 7.0 10000 ";
    let digest = {
        let mut content = vec![0; 10000];
        content[8192..8197].copy_from_slice(b"hello");
        Digest::of(&content).hex()[..8].to_owned()
    };
    let expected = format!("{hello_at_8192}{digest}");
    let mut map = b"1\n8192\n5\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"hello");
    let form_1_0: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"10000"),
    ];
    check(start().pax(&form_1_0).entry("x", &FILE, &map).end(), &expected);
    let form_0_1: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", b"10000"), ("GNU.sparse.name", b"s"), ("GNU.sparse.map", b"8192,5")];
    check(start().pax(&form_0_1).file("x", "hello").end(), &expected);
    let form_0_0: [(&str, &[u8]); 4] = [
        ("GNU.sparse.size", b"10000"),
        ("path", b"s"),
        ("GNU.sparse.offset", b"8192"),
        ("GNU.sparse.numbytes", b"5"),
    ];
    check(start().pax(&form_0_0).file("x", "hello").end(), &expected);
    // The old form, in the header.
    let mut old = start().header(b"s", &gnu(b'S'), 5).0;
    old[257..265].copy_from_slice(b"ustar  \0");
    old[386..398].copy_from_slice(b"00000020000\0");
    old[398..410].copy_from_slice(b"00000000005\0");
    old[483..495].copy_from_slice(b"00000023420\0");
    old[148..156].fill(b' ');
    let sum: u32 = old.iter().map(|&byte| u32::from(byte)).sum();
    old[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    check(Archive(old).content(b"hello").end(), &expected);
}

#[test]
fn large_contents_are_unpacked_and_put_together_again() {
    if !needs_root() {
        return;
    }
    let large: Vec<u8> =
        (0..3_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let bytes = Archive::default().entry("large", &FILE, &large).file("small", "x").end();
    let digest = &Digest::of(&large).hex()[..8];
    check(bytes, &format!("file large 644 0:0 7.0 3000000 {digest}\nfile small 644 0:0 7.0 1 2d711642"));
}

#[test]
fn of_entries_with_the_same_path_the_last_counts() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    check(
        start().file("a", "first").file("a", "second").file("a", "x").end(),
        "file a 644 0:0 7.0 1 2d711642",
    );
    check(start().file("a", "one").symlink("a", "b").end(), "link a 777 0:0 7.0 -> b");
    check(start().symlink("a", "b").file("a", "x").end(), "file a 644 0:0 7.0 1 2d711642");
    check(
        start().folder("d").file("d/x", "kept in the archive").file("d/y", "too").file("d", "x").end(),
        "file d 644 0:0 7.0 1 2d711642",
    );
    check(
        start().file("d", "x").folder("d").file("d/x", "x").end(),
        "folder d 755 0:0 7.0
         file d/x 644 0:0 7.0 1 2d711642",
    );
    check(
        start().file("d/x", "x").entry("d", &Fields { mode: 0o700, uid: 3, ..FOLDER }, b"").end(),
        "folder d 700 3:0 7.0
         file d/x 644 0:0 7.0 1 2d711642",
    );
    // The content lives on under its other name.
    check(
        start().file("a", "x").hard_link("b", "a").file("a", "second").end(),
        "file a 644 0:0 7.0 6 16367aac
         file b 644 0:0 7.0 1 2d711642",
    );
    check(
        start().file("a", "x").hard_link("b", "a").file("a", "second").file("b", "third").end(),
        "file a 644 0:0 7.0 6 16367aac
         file b 644 0:0 7.0 5 b1e99324",
    );
    check(start().file("a", "x").hard_link("a", "a").end(), "file a 644 0:0 7.0 1 2d711642");
    check(
        start().file("z", "x").hard_link("a", "z").file("q", "y").hard_link("a", "q").end(),
        "file a 644 0:0 7.0 1 a1fce436 same as a
         file q 644 0:0 7.0 1 a1fce436 same as a
         file z 644 0:0 7.0 1 2d711642",
    );
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    check(start().file(".wh.a", "").end(), "whiteout a");
    check(
        start().file("d/.wh.a", "content of a whiteout").end(),
        "folder d 755 0:0 0.0
         whiteout d/a",
    );
    check(start().file("d/.wh..wh..opq", "").end(), "folder d 755 0:0 0.0 user.overlay.opaque=y");
    check(
        start().folder("d").file("d/x", "x").file("d/.wh..wh..opq", "").folder("d").end(),
        "folder d 755 0:0 7.0 user.overlay.opaque=y
         file d/x 644 0:0 7.0 1 2d711642",
    );
    // What the layer has itself stays, and a folder then hides what is below it.
    check(start().file("a", "x").file(".wh.a", "").end(), "file a 644 0:0 7.0 1 2d711642");
    check(start().file(".wh.a", "").file("a", "x").end(), "file a 644 0:0 7.0 1 2d711642");
    for archive in [start().folder("d").file(".wh.d", ""), start().file(".wh.d", "").folder("d")] {
        check(archive.end(), "folder d 755 0:0 7.0 user.overlay.opaque=y");
    }
    check(
        start().file(".wh.d", "").file("d/x", "x").end(),
        "folder d 755 0:0 0.0 user.overlay.opaque=y
         file d/x 644 0:0 7.0 1 2d711642",
    );
    check(
        start().file(".wh..wh..opq", "").file(".wh..wh.plnk", "").file("a", "").end(),
        "file a 644 0:0 7.0 0 e3b0c442",
    );
    check(start().device("a", b'3', (0, 0)).end(), "whiteout a");
    check_refused(
        start().file(".wh...", "").end(),
        "the archive's entry `.wh...` is refused: a whiteout of a folder that it is in",
    );
    check_refused(
        start().file(".wh.a/b", "").end(),
        "the archive's entry `.wh.a/b` is refused: a whiteout holds nothing",
    );
}

#[test]
fn links_are_followed_within_the_layer() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    check(
        start().folder("usr").folder("usr/lib").symlink("lib", "usr/lib").file("lib/x", "x").end(),
        "link lib 777 0:0 7.0 -> usr/lib
         folder usr 755 0:0 7.0
         folder usr/lib 755 0:0 7.0
         file usr/lib/x 644 0:0 7.0 1 2d711642",
    );
    // Out of the layer is its root.
    for target in ["/etc", "../../../etc", "/../etc", "a/../../etc/."] {
        check(
            start().symlink("l", target).file("l/passwd", "x").end(),
            &if target.starts_with('a') {
                format!(
                    "folder a 755 0:0 0.0
                     folder etc 755 0:0 0.0
                     file etc/passwd 644 0:0 7.0 1 2d711642
                     link l 777 0:0 7.0 -> {target}"
                )
            } else {
                format!(
                    "folder etc 755 0:0 0.0
                     file etc/passwd 644 0:0 7.0 1 2d711642
                     link l 777 0:0 7.0 -> {target}"
                )
            },
        );
    }
    check(
        start().symlink("l", "/").file("l/passwd", "x").hard_link("again", "l/passwd").end(),
        "file again 644 0:0 7.0 1 2d711642 same as again
         link l 777 0:0 7.0 -> /
         file passwd 644 0:0 7.0 1 2d711642 same as again",
    );
    // An entry replaces a link, it never writes through it.
    check(
        start().symlink("passwd", "/etc/passwd").file("passwd", "x").end(),
        "file passwd 644 0:0 7.0 1 2d711642",
    );
    check(
        start().symlink("d", "/etc").folder("d").file("d/x", "x").end(),
        "folder d 755 0:0 7.0
         file d/x 644 0:0 7.0 1 2d711642",
    );
    check(
        start().symlink("a", "/etc").hard_link("b", "a").end(),
        "link a 777 0:0 7.0 -> /etc same as a\nlink b 777 0:0 7.0 -> /etc same as a",
    );
}

#[test]
fn hostile_entries_are_refused() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    let refused = |name: &str, reason: &str| format!("the archive's entry `{name}` is refused: {reason}");
    for name in ["../a", "a/../../b", "..", "/../../etc/passwd"] {
        check_refused(start().file(name, "x").end(), &refused(name, "its name climbs up by `..`"));
        check_refused(start().folder(name).end(), &refused(name, "its name climbs up by `..`"));
    }
    let outside = "it is a hard link to what the layer does not hold";
    check_refused(start().hard_link("a", "/etc/passwd").end(), &refused("a", outside));
    check_refused(start().hard_link("a", "b").file("b", "").end(), &refused("a", outside));
    check_refused(
        start().hard_link("a", "../../etc/passwd").end(),
        &refused("a", "its name climbs up by `..`"),
    );
    check_refused(start().hard_link("a", "").end(), &refused("a", outside));
    check_refused(start().symlink("l", "/etc").hard_link("a", "l/passwd").end(), &refused("a", outside));
    check_refused(start().file(".wh.b", "").hard_link("a", "b").end(), &refused("a", outside));
    check_refused(
        start().folder("d").hard_link("a", "d").end(),
        &refused("a", "it is a hard link to a folder"),
    );
    check_refused(
        start().file("d/x", "").hard_link("d", "d/x").end(),
        &refused("d", "it is a hard link that takes the place of its own target"),
    );
    check_refused(start().file("f", "").file("f/x", "").end(), &refused("f/x", "its folder is no folder"));
    check_refused(
        start().symlink("a", "b").symlink("b", "a").file("a/x", "").end(),
        &refused("a/x", "links on the way to it go round in a circle"),
    );
    check_refused(start().symlink("a", "").end(), &refused("a", "it is a link to nothing"));
    let name = "n".repeat(256);
    check_refused(
        start().pax(&[("path", name.as_bytes())]).file("x", "").end(),
        &refused(&name, "a part of its name is longer than 255 bytes"),
    );
    let deep = "d/".repeat(2048) + "f";
    check_refused(
        start().pax(&[("path", deep.as_bytes())]).file("x", "").end(),
        &refused(&deep, "its path is longer than 4095 bytes"),
    );
    check_refused(
        start().pax(&[("path", b"a\0b")]).file("x", "").end(),
        &refused("a\0b", "its name holds a NUL byte"),
    );
    let target = "t".repeat(4096);
    check_refused(
        start().pax(&[("linkpath", target.as_bytes())]).symlink("a", "x").end(),
        &refused("a", "the target of a link is longer than 4095 bytes"),
    );
}

#[test]
fn damaged_archives_are_refused() {
    if !needs_root() {
        return;
    }
    let start = Archive::default;
    let damaged = |offset: usize, reason: &str| format!("the archive is damaged at byte {offset}: {reason}");
    check_refused(vec![b'x'; 2048], &damaged(0, "the checksum of a header is wrong"));
    check_refused(vec![b'x'; 100], &damaged(100, "it ends in the middle of a block"));
    check_refused(
        start().file("a", "x").0[..600].to_vec(),
        &damaged(600, "it ends in the middle of an entry"),
    );
    check_refused(
        start().header(b"a", &FILE, 1 << 40).content(b"x").0,
        &damaged(1024, "it ends in the middle of an entry"),
    );
    check_refused(
        start().file("a", "").raw(&[0; 512]).file("b", "").end(),
        &damaged(512, "an empty block stands between headers"),
    );
    check_refused(start().pax(&[("path", b"a")]).end(), &damaged(1024, "it ends after an extended header"));
    check_refused(start().pax(&[("path", b"a")]).0, &damaged(1024, "it ends after an extended header"));
    check_refused(
        start().entry("x", &Fields { type_flag: b'x', ..FILE }, b"99 path=a\n").file("a", "").end(),
        &damaged(0, "an extended header is malformed"),
    );
    check_refused(
        start().header(b"x", &Fields { type_flag: b'L', ..FILE }, 1 << 30).end(),
        &damaged(0, "an extended header is larger than 1 MiB"),
    );
    check_refused(
        start().entry("v", &Fields { type_flag: b'V', ..FILE }, b"").end(),
        &damaged(0, "the type of an entry is not known"),
    );
    check_refused(
        start().pax(&[("size", b"18446744073709551615")]).file("a", "").end(),
        &damaged(1024, "an entry is larger than any file can be"),
    );
    let mut negative = start().header(b"a", &FILE, 0).0;
    negative[124..136].fill(0xff);
    negative[148..156].fill(b' ');
    let sum: u32 = negative.iter().map(|&byte| u32::from(byte)).sum();
    negative[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    check_refused(negative, &damaged(0, "the size of an entry is no number"));
    for (map, reason) in [
        ("8192,6", "the pieces of a sparse file are not its content"),
        ("9999,5", "the pieces of a sparse file are out of order or outside of it"),
        ("18446744073709551615,5", "the pieces of a sparse file are out of order or outside of it"),
        ("100,3,50,2", "the pieces of a sparse file are out of order or outside of it"),
        ("1,2,3", "the map of a sparse file holds no numbers"),
    ] {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"10000"), ("GNU.sparse.map", map.as_bytes())];
        check_refused(start().pax(&records).file("s", "hello").end(), &damaged(1024, reason));
    }
}

#[test]
fn a_stream_that_fails_leaves_nothing() {
    if !needs_root() {
        return;
    }
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("connection lost"));
            }
            let count = buffer.len().min(self.0);
            buffer[..count].fill(0);
            self.0 -= count;
            Ok(count)
        }
    }
    let (_folder, store) = test_store();
    let file = Archive::default().header(b"a", &FILE, 5_000_000).0;
    let error = store.import_layer(file.chain(Failing(1_000_000))).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the archive of a layer");
    assert_eq!(left_over(&store), Vec::<String>::new());
}
