//! Any file with images is loaded or refused, and what is refused leaves nothing. Checksums of headers are mended as in the
//! target `layer`; a configuration and manifests are looked for by name, so the corpus should have some.

#![no_main]

use std::sync::OnceLock;

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
    match store.load_archive(archive.as_slice()) {
        Ok(images) => {
            for image in images {
                let config = store.image(&image.image).expect("a configuration");
                assert!(config.rootfs.diff_ids.iter().all(|layer| store.has_layer(layer)));
            }
            store.collect(Limit::Bytes(0), false, &|_| LedgerNeeds::Absent, &|| ()).expect("removable");
        }
        Err(_) => {
            let layers = std::fs::read_dir(store.root().join("layers")).expect("layers").count();
            assert_eq!(layers, 0);
        }
    }
    let left = std::fs::read_dir(store.root().join("tmp")).expect("the folder of drafts").count();
    assert_eq!(left, 0);
});
