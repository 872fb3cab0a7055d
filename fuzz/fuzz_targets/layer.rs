//! Any archive is unpacked or refused; what is unpacked gives the same archive again, is sound, and can be removed. Checksums
//! of headers are mended first: a wrong one is refused at once, and nothing behind it would be reached.

#![no_main]

use std::sync::OnceLock;

use ibid_core::digest::{DiffId, Digest};
use ibid_store::{LedgerNeeds, Limit, Store};
use libfuzzer_sys::fuzz_target;

const BLOCK_BYTES: usize = 512;

fn store() -> &'static Store {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        (folder, store)
    });
    store
}

fuzz_target!(|bytes: &[u8]| {
    let mut archive = bytes.to_vec();
    for header in archive.chunks_exact_mut(BLOCK_BYTES).filter(|header| &header[257..262] == b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let store = store();
    if let Ok(layer) = store.import_layer(archive.as_slice()) {
        assert_eq!(layer, DiffId(Digest::of(&archive)));
        let mut again = Vec::new();
        store.write_layer_tar(&layer, &mut again).expect("an archive");
        assert!(again == archive);
        assert_eq!(store.layer_tar_size(&layer).expect("a size"), archive.len() as u64);
        let verified = store.verify(&|_, _| ()).expect("readable");
        assert!(verified.damaged.is_empty(), "{:?}", verified.damaged);
        store.collect(Limit::Bytes(0), false, &|_| LedgerNeeds::Absent, &|| ()).expect("removable");
    }
    let left = std::fs::read_dir(store.root().join("tmp")).expect("the folder of drafts").count();
    assert_eq!(left, 0);
});
