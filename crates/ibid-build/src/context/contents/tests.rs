use std::fs;

use super::*;
use crate::context::IgnoreFile;

const SECOND: i64 = 1_000_000_000;

#[test]
fn a_file_is_read_again_only_when_its_stamp_changed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("context");
    let cache = folder.path().join("made/for/it/cache");
    fs::create_dir(&root).expect("make the folder");
    fs::write(root.join("a"), "one").expect("write");
    fs::write(root.join("b"), "two").expect("write");
    // The present time is given, since the files were only just made.
    let later = stat_cache::now_ns() + 60 * SECOND;
    let learn = |read_ns: i64| {
        let context = Context::open(&root, IgnoreFile::default(), Some(&cache)).expect("open");
        let selection = context.select(&["."]).expect("select");
        context.learn_contents(&selection, read_ns).expect("learn");
        let hash = |(_, entry): (&[u8], &Entry)| entry.content().expect("learnt").hash;
        selection.sources[0].entries().map(hash).collect::<Vec<_>>()
    };
    let hash = |text: &str| *blake3::hash(text.as_bytes()).as_bytes();

    assert_eq!(learn(stat_cache::now_ns()), [hash("one"), hash("two")]);
    assert!(!cache.exists(), "what was just written is not remembered");
    assert_eq!(learn(later), [hash("one"), hash("two")]);
    assert!(cache.exists());

    // A false memory shows that the file is not read.
    let mut known = StatCache::load(&cache, stat_cache::BLAKE3);
    let false_hash = [7; 32];
    known.learn(b"a", Stamp::of(&rustix::fs::lstat(root.join("a")).expect("stat")), false_hash);
    known.save(&cache).expect("save");
    assert_eq!(learn(later), [false_hash, hash("two")]);

    fs::write(root.join("a"), "One").expect("write");
    assert_eq!(learn(later), [hash("One"), hash("two")]);
    assert_eq!(learn(later), [hash("One"), hash("two")]);

    fs::write(&cache, "damaged").expect("write");
    assert_eq!(learn(later), [hash("One"), hash("two")]);
    let mut remembered = StatCache::load(&cache, stat_cache::BLAKE3);
    let b = Stamp::of(&rustix::fs::lstat(root.join("b")).expect("stat"));
    assert!(remembered.look_up(&mut 0, b"b", b).is_some(), "a damaged cache is replaced");
}
