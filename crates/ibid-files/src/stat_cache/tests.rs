use std::fs;

use proptest::prelude::*;

use super::*;
const SECOND: i64 = 1_000_000_000;

fn stamp(number: u64) -> Stamp {
    let time = i64::try_from(number).expect("small");
    Stamp { size: number, modified_ns: time, changed_ns: -time, inode: number, device: 1 }
}

#[test]
fn a_stamp_is_trusted_only_when_its_times_lie_behind() {
    let now = 1_000 * SECOND + 1;
    let local = Clock::Local { device: 1 };
    let check = |clock: Clock, changed_ns: i64, modified_ns: i64, expected: bool| {
        let stamp = Stamp { changed_ns, modified_ns, ..stamp(0) };
        assert_eq!(is_settled(clock, &stamp, now), expected, "{clock:?} {changed_ns} {modified_ns}");
    };
    check(local, now - SECOND, now - SECOND, true);
    check(local, now - TICK_NS + 1, now - SECOND, false);
    check(local, now, now, false);
    check(local, now + SECOND, now - SECOND, false);
    check(local, now - SECOND, now, false);
    // A modification time that was set: long ago, or far ahead.
    check(local, now - SECOND, 0, true);
    check(local, now - SECOND, now + 1_000 * SECOND, true);
    // Whole seconds, another device, another computer: longer steps.
    check(local, 999 * SECOND, 0, false);
    check(local, 990 * SECOND, 0, true);
    check(Clock::Local { device: 2 }, now - SECOND, 0, false);
    check(Clock::Other, now - SECOND, 0, false);
    check(Clock::Other, now - 4 * SECOND, 0, true);
}

#[test]
fn a_cache_that_cannot_be_written_does_no_harm() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("file"), "").expect("write");
    let mut cache = StatCache::default();
    cache.learnt.push((b"a".as_slice().into(), stamp(1), [0; 32]));
    assert!(cache.save(&folder.path().join("file/cache")).is_err());
    assert!(StatCache::load(&folder.path().join("none")).known.is_empty());
    assert!(StatCache::load(folder.path()).known.is_empty());
}

#[test]
fn what_is_asked_for_no_more_is_forgotten_when_it_is_most() {
    let mut cache = StatCache::default();
    for number in 0..UNUSED_MAX as u64 + 5 {
        cache.learnt.push((number.to_string().into_bytes().into(), stamp(number), [0; 32]));
    }
    let mut cache = StatCache::decode(cache.encode()).expect("its own output");
    let mut cursor = 0;
    assert!(cache.look_up(&mut cursor, b"7", stamp(7)).is_some());
    cache.learnt.push((b"new".as_slice().into(), stamp(1), [1; 32]));
    let mut cache = StatCache::decode(cache.encode()).expect("its own output");
    assert_eq!(cache.known.len(), 2);
    assert!(cache.look_up(&mut cursor, b"new", stamp(1)).is_some());
    assert!(cache.look_up(&mut cursor, b"7", stamp(8)).is_none());
    cache.learnt.push((b"other".as_slice().into(), stamp(1), [1; 32]));
    assert_eq!(StatCache::decode(cache.encode()).expect("its own output").known.len(), 3);
}

proptest! {
    #[test]
    fn a_cache_survives_being_written_and_read(
        first in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..6), 0u64..9, 0..20),
        second in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..6), 0u64..9, 0..20),
    ) {
        let learn = |cache: &mut StatCache, from: &std::collections::BTreeMap<Vec<u8>, u64>| {
            for (path, number) in from.iter().rev() {
                cache.learnt.push((path.as_slice().into(), stamp(*number), [*number as u8; 32]));
            }
        };
        let mut cache = StatCache::default();
        learn(&mut cache, &first);
        let mut cache = StatCache::decode(cache.encode()).expect("its own output");
        learn(&mut cache, &second);
        let mut cache = StatCache::decode(cache.encode()).expect("its own output");
        let mut all = first;
        all.extend(second);
        prop_assert_eq!(cache.known.len(), all.len());
        let mut cursor = 0;
        for (path, number) in &all {
            prop_assert_eq!(cache.look_up(&mut cursor, path, stamp(*number)), Some([*number as u8; 32]));
            prop_assert_eq!(cache.look_up(&mut cursor, path, stamp(*number + 10)), None);
        }
    }

    #[test]
    fn damage_is_noticed(at in 0usize..200, flip in 1u8..=255, cut in 0usize..200) {
        let mut cache = StatCache::default();
        cache.learnt.push((b"path".as_slice().into(), stamp(3), [3; 32]));
        let bytes = cache.encode();
        let mut damaged = bytes.clone();
        damaged[at % bytes.len()] ^= flip;
        prop_assert!(StatCache::decode(damaged).is_none());
        prop_assert!(StatCache::decode(bytes[..cut % bytes.len()].to_vec()).is_none());
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        // With a valid checksum, so that the records are looked at.
        let mut bytes = [MAGIC.as_slice(), &body].concat();
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        let _ = StatCache::decode(bytes);
    }
}
