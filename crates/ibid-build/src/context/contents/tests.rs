use std::fs;

use ibid_files::folder_cache::{FolderCache, Learnt};

use super::*;
use crate::context::IgnoreFile;

/// The present time is given, since the files were only just made.
fn later() -> i64 {
    stat_cache::now_ns() + 60_000_000_000
}

#[test]
fn a_file_is_read_again_only_when_its_stamp_changed() {
    // Of a folder, and one by one.
    for sources in [["."].as_slice(), &["a", "b"], &["*"]] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("context");
        let cache = folder.path().join("made/for/it/cache");
        fs::create_dir(&root).expect("make the folder");
        fs::write(root.join("a"), "one").expect("write");
        fs::write(root.join("b"), "two").expect("write");
        let learn = |now_ns: fn() -> i64| {
            let mut context = Context::open(&root, IgnoreFile::default(), Some(&cache)).expect("open");
            context.now_ns = now_ns;
            let selection = context.select(sources).expect("select");
            context.learn_contents(&selection).expect("learn");
            let entries = selection.sources.iter().flat_map(|source| source.entries());
            entries.map(|(_, entry)| entry.content().expect("learnt").hash).collect::<Vec<_>>()
        };
        let hash = |text: &str| *blake3::hash(text.as_bytes()).as_bytes();
        let stamp = |name: &str| Stamp::of(&rustix::fs::lstat(root.join(name)).expect("stat"));

        assert_eq!(learn(stat_cache::now_ns), [hash("one"), hash("two")]);
        assert!(!cache.exists(), "what was just written is not remembered");
        assert_eq!(learn(later), [hash("one"), hash("two")]);
        assert!(cache.exists());

        // A false memory shows that the file is not read.
        let false_hash = [7; 32];
        let mut learnt = Learnt::default();
        learnt.read(b"a", stamp("a"), false_hash);
        FolderCache::load(&cache).save(&mut learnt, &cache).expect("save");
        assert_eq!(learn(later), [false_hash, hash("two")], "{sources:?}");

        fs::write(root.join("a"), "One").expect("write");
        assert_eq!(learn(later), [hash("One"), hash("two")]);
        assert_eq!(learn(later), [hash("One"), hash("two")]);

        fs::write(&cache, "damaged").expect("write");
        assert_eq!(learn(later), [hash("One"), hash("two")]);
        let remembered = FolderCache::load(&cache);
        let found = LookUps::of(&remembered).content(b"b", &stamp("b"), &mut Learnt::default());
        assert!(found.is_some(), "a damaged cache is replaced");
    }
}
