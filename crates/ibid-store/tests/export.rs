//! Layers leave the store with the same compressed bytes each time, on any machine and with any later ibid.

mod support;

use ibid_core::digest::Digest;
use ibid_core::manifest::{Descriptor, Manifest};
use ibid_store::{Compression, Store};
use support::{needs_root, test_store};

/// A layer with a folder, a program, a link, and a file of more than one piece.
fn layer() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, path: &str, mode: u32, content: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        match link {
            Some(link) => archive.append_link(&mut header, path, link),
            None => archive.append_data(&mut header, path, content),
        }
        .expect("written to memory");
    };
    let numbers: String = (0..1_000_000).map(|n| format!("{n}\n")).collect();
    add(tar::EntryType::Directory, "code/", 0o755, b"", None);
    add(tar::EntryType::Regular, "code/run", 0o755, b"#!/bin/sh\nexec python3 train.py\n", None);
    add(tar::EntryType::Symlink, "code/latest", 0o777, b"", Some("run"));
    add(tar::EntryType::Regular, "numbers", 0o644, numbers.as_bytes(), None);
    archive.into_inner().expect("finished")
}

/// The digests of the compressed layer and of a manifest that names it.
fn exported(store: &Store, compression: Compression) -> (String, String) {
    let diff_id = store.import_layer(layer().as_slice()).expect("imported");
    let mut bytes = Vec::new();
    let (digest, size) = store.write_compressed_layer(&diff_id, compression, &mut bytes).expect("exported");
    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (digest, size));
    // What was exported is the same layer again.
    assert_eq!(store.import_compressed_layer(compression, bytes.as_slice()).expect("imported"), diff_id);
    let descriptor = |media_type: &str, digest, size| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        artifact_type: None,
    };
    let config = descriptor("application/vnd.oci.image.config.v1+json", Digest::of(b"{}"), 2);
    let manifest =
        Manifest::of_artifact("test/test", config, vec![descriptor(compression.media_type(), digest, size)]);
    let manifest = Digest::of(&serde_json::to_vec(&manifest).expect("plain data"));
    (digest.hex(), manifest.hex())
}

/// These digests are promised; see `compress.rs`.
#[test]
fn exported_layers_have_pinned_digests() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let check = |compression, layer: &str, manifest: &str| {
        assert_eq!(exported(&store, compression), (layer.to_owned(), manifest.to_owned()), "{compression:?}");
    };
    check(
        Compression::Gzip,
        "e21cbd66ef22cbe1ba1d787269a7eb209c4df223cd7ef2cb8a6afd6dade22776",
        "7a2deb2ed7c7ae7fa2e18afd469aca0b61a824917f2dfa693976b1b563f8867a",
    );
    check(
        Compression::Zstd,
        "c923f973a495bc3ce3093a26621c242b2a7288d1e8aa03a68e4d1d3c0a08f782",
        "78711dafc6d89aca3c0735e199de033ff06999c1a81fa785537ce17ae41bd298",
    );
}

#[test]
fn what_is_compressed_otherwise_or_cut_short_is_no_layer() {
    if !needs_root() {
        return;
    }
    let (_folder, store) = test_store();
    let diff_id = store.import_layer(layer().as_slice()).expect("imported");
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut bytes = Vec::new();
        store.write_compressed_layer(&diff_id, compression, &mut bytes).expect("exported");
        let other = if compression == Compression::Gzip { Compression::Zstd } else { Compression::Gzip };
        store.import_compressed_layer(other, bytes.as_slice()).expect_err("another compression");
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            store.import_compressed_layer(compression, &bytes[..length]).expect_err("cut short");
        }
        assert_eq!(support::left_over(&store), [""; 0]);
    }
}

/// Layers come as every engine makes them, and nothing is kept of one that is not what was promised.
#[test]
fn expected_layers_are_known_by_their_first_bytes_and_checked() {
    if !needs_root() {
        return;
    }
    let (_folder, plain_store) = test_store();
    let tar = layer();
    let diff_id = plain_store.import_layer(tar.as_slice()).expect("imported");
    let mut forms = vec![tar.clone()];
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut bytes = Vec::new();
        plain_store.write_compressed_layer(&diff_id, compression, &mut bytes).expect("exported");
        forms.push(bytes);
    }
    // A frame that readers skip stands first.
    forms.push([&[0x52, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], forms[2].as_slice()].concat());
    for form in &forms {
        let (_folder, store) = test_store();
        store.import_expected_layer(diff_id, form.as_slice()).expect("imported");
        assert!(store.has_layer(&diff_id));
    }
    for form in &forms {
        let (_folder, store) = test_store();
        let other = ibid_core::digest::DiffId(Digest::of(b"other"));
        let error = store.import_expected_layer(other, form.as_slice()).expect_err("another layer");
        assert!(error.to_string().contains(&format!("holds {diff_id}")), "{error}");
        assert!(!store.has_layer(&diff_id) && !store.has_layer(&other));
        let cut = &form[..form.len() / 2];
        store.import_expected_layer(diff_id, cut).expect_err("cut off");
        let more = [form.as_slice(), b"more"].concat();
        store.import_expected_layer(diff_id, more.as_slice()).expect_err("something behind it");
        assert!(!store.has_layer(&diff_id));
        assert!(support::left_over(&store).is_empty());
    }
}
