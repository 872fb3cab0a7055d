use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn stamp(number: u64) -> Stamp {
    let time = i64::try_from(number).expect("small");
    Stamp { size: number, modified_ns: time, changed_ns: -time, inode: number, device: 1 }
}

fn listing(folder: &str, number: u64, names: &[&str]) -> Listing {
    let mut listing = Listing::new(folder.as_bytes(), stamp(number));
    for name in names {
        match name.strip_suffix('/') {
            Some(folder) => listing.add(folder.as_bytes(), true),
            None => listing.add(name.as_bytes(), false),
        }
    }
    listing
}

/// What a cache is after something was learnt and it was read again.
fn after(cache: &FolderCache, learn: impl FnOnce(&mut Learnt)) -> FolderCache {
    let mut learnt = Learnt::default();
    learn(&mut learnt);
    FolderCache::decode(cache.encode(&mut learnt)).expect("its own output")
}

/// `folder: names`, those of folders with `/`, those of files with the number of their content; `?` where the names are not all.
fn shown(cache: &FolderCache) -> String {
    let folder = |number: usize| {
        let known = cache.known(number);
        let name = |name: Name| {
            let content = name.content().map_or(String::new(), |(_, hash)| format!("={}", hash[0]));
            let end = if name.may_be_folder { "/" } else { "" };
            format!(" {}{end}{content}", String::from_utf8_lossy(name.name))
        };
        let names: String = known.names().map(name).collect();
        let open = if known.listed.is_some() { "" } else { "?" };
        format!("{}:{names}{open}", String::from_utf8_lossy(cache.path(&cache.folders[number])))
    };
    (0..cache.folders.len()).map(folder).collect::<Vec<_>>().join("; ")
}

#[test]
fn names_are_those_of_a_folder_with_just_that_stamp() {
    let cache = after(&FolderCache::default(), |learnt| learnt.listed(listing("a", 5, &["b", "c/"])));
    let known = cache.folder(b"a").expect("known");
    assert!(known.has_names_of(&stamp(5)));
    let others = [
        Stamp { size: 6, ..stamp(5) },
        Stamp { modified_ns: 6, ..stamp(5) },
        Stamp { changed_ns: 6, ..stamp(5) },
        Stamp { inode: 6, ..stamp(5) },
        Stamp { device: 6, ..stamp(5) },
    ];
    for other in others {
        assert!(!known.has_names_of(&other), "{other:?}");
    }
    assert!(cache.folder(b"b").is_none());
}

#[test]
fn what_is_learnt_takes_the_place_of_what_was_known() {
    let first = after(&FolderCache::default(), |learnt| {
        learnt.listed(listing("", 1, &["a", "d/", "e"]));
        learnt.listed(listing("d", 2, &["x", "y"]));
        learnt.read(b"a", stamp(1), [1; 32]);
        learnt.read(b"d/x", stamp(1), [2; 32]);
        learnt.read(b"d/x", stamp(1), [3; 32]);
    });
    assert_eq!(shown(&first), ": a=1 d/ e; d: x=3 y");
    // A folder listed anew: contents stay with the names that are still there.
    let second = after(&first, |learnt| {
        learnt.listed(listing("d", 3, &["a"]));
        learnt.listed(listing("d", 4, &["b", "x"]));
        learnt.read(b"e", stamp(1), [4; 32]);
    });
    assert_eq!(shown(&second), ": a=1 d/ e=4; d: b x=3");
    assert!(second.folder(b"d").is_some_and(|known| known.has_names_of(&stamp(4))));
    // Files of folders that were not listed, or had no such name then.
    let third = after(&second, |learnt| {
        learnt.read(b"d/aa", stamp(1), [5; 32]);
        learnt.read(b"d/z", stamp(1), [6; 32]);
        learnt.read(b"n/ew", stamp(1), [7; 32]);
    });
    assert_eq!(shown(&third), ": a=1 d/ e=4; d: aa=5 b x=3 z=6?; n: ew=7?");
    assert!(!third.folder(b"d").is_some_and(|known| known.has_names_of(&stamp(4))));
}

#[test]
fn files_are_looked_up_one_by_one_in_any_order() {
    let cache = after(&FolderCache::default(), |learnt| {
        for (number, path) in ["a", "b/a", "b/c", "b/e", "c/a"].iter().enumerate() {
            learnt.read(path.as_bytes(), stamp(1), [number as u8; 32]);
        }
    });
    let mut learnt = Learnt::default();
    let mut look_ups = LookUps::of(&cache);
    let mut found = |path: &str, number: u64| {
        look_ups.content(path.as_bytes(), &stamp(number), &mut learnt).map(|hash| hash[0])
    };
    let order = [
        ("b/e", Some(3)),
        ("b/a", Some(1)),
        ("b/a", Some(1)),
        ("b/b", None),
        ("b/c", Some(2)),
        ("b/d", None),
        ("b/e", Some(3)),
        ("b/f", None),
        ("b/c", Some(2)),
        ("a", Some(0)),
        ("c/a", Some(4)),
        ("none/a", None),
        ("c/a", Some(4)),
    ];
    for (path, expected) in order {
        assert_eq!(found(path, 1), expected, "{path}");
    }
    assert_eq!(found("b/a", 2), None, "another stamp");
    assert_eq!(learnt.used.len(), 3);
}

#[test]
fn a_cache_that_cannot_be_written_does_no_harm() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("file"), "").expect("write");
    let mut learnt = Learnt::default();
    learnt.read(b"a", stamp(1), [0; 32]);
    assert!(FolderCache::default().save(&mut learnt, &folder.path().join("file/cache")).is_err());
    assert!(FolderCache::load(&folder.path().join("none")).folders.is_empty());
    assert!(FolderCache::load(folder.path()).folders.is_empty());
}

#[test]
fn names_alone_are_written_when_they_are_many() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("made/for/it/cache");
    let many = |folder: &str, count: usize| {
        let mut listing = Listing::new(folder.as_bytes(), stamp(1));
        (0..count).for_each(|number| listing.add(format!("{number:06}").as_bytes(), false));
        listing
    };
    let saves = |cache: &FolderCache, listings: Vec<Listing>| {
        let mut learnt = Learnt { listings, ..Learnt::default() };
        cache.save(&mut learnt, &file).expect("writable")
    };
    assert!(!saves(&FolderCache::default(), vec![]));
    assert!(!saves(&FolderCache::default(), vec![many("a", LISTED_MIN - 1)]));
    assert!(!file.exists());
    assert!(saves(&FolderCache::default(), vec![many("a", LISTED_MIN), many("b", 7 * LISTED_MIN)]));
    let cache = FolderCache::load(&file);
    assert!(!saves(&cache, vec![many("a", LISTED_MIN)]), "few of those that are known");
    assert!(saves(&cache, vec![many("a", 2 * LISTED_MIN)]));
}

#[test]
fn what_is_asked_for_no_more_is_forgotten_when_it_is_most() {
    let mut many = Listing::new(b"many", stamp(1));
    (0..UNUSED_MAX + 2).for_each(|number| many.add(format!("{number:06}").as_bytes(), false));
    let cache = after(&FolderCache::default(), |learnt| {
        learnt.listed(many);
        learnt.listed(listing("few", 1, &["a", "b"]));
        learnt.listed(listing("other", 1, &["c"]));
    });
    let number = |cache: &FolderCache, folder: &str| cache.folder(folder.as_bytes()).expect("known").number;
    let few = after(&cache, |learnt| {
        learnt.used(number(&cache, "few"));
        learnt.read(b"few/a", stamp(1), [1; 32]);
    });
    assert_eq!(shown(&few), "few: a=1 b");
    let all = after(&cache, |learnt| {
        learnt.used(number(&cache, "few"));
        learnt.used(number(&cache, "other"));
    });
    assert_eq!(all.folders.len(), 3);
}

proptest! {
    #[test]
    fn a_cache_survives_being_written_and_read(
        steps in prop::collection::vec(
            (
                prop::collection::btree_map("[a-c]{0,2}", prop::collection::btree_set("[x-z]{1,2}", 0..5), 0..4),
                prop::collection::btree_map("([a-c]{1,2}/)?[x-z]{1,2}", 0u64..9, 0..8),
            ),
            1..4,
        ),
    ) {
        let mut cache = FolderCache::default();
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut contents: BTreeMap<String, u64> = BTreeMap::new();
        for (listings, files) in steps {
            cache = after(&cache, |learnt| {
                for (folder, names) in &listings {
                    learnt.listed(listing(folder, 1, &names.iter().map(String::as_str).collect::<Vec<_>>()));
                }
                for (path, number) in files.iter().rev() {
                    learnt.read(path.as_bytes(), stamp(*number), [*number as u8; 32]);
                }
            });
            for (folder, listed) in listings {
                let below = |path: &str| path.rsplit_once('/').map_or(("", path), |split| split).0 == folder;
                contents.retain(|path, _| {
                    !below(path) || listed.contains(path.rsplit('/').next().expect("a name"))
                });
                names.insert(folder, listed);
            }
            for (path, number) in files {
                let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
                names.entry(folder.to_owned()).or_default().insert(name.to_owned());
                contents.insert(path, number);
            }
        }
        prop_assert_eq!(cache.folders.len(), names.len());
        let (mut look_ups, mut learnt) = (LookUps::of(&cache), Learnt::default());
        for (folder, names) in &names {
            let known = cache.folder(folder.as_bytes()).expect("known");
            let mut rest = known.names();
            let found: Vec<_> = rest.by_ref().map(|name| String::from_utf8_lossy(name.name).into_owned()).collect();
            prop_assert!(rest.is_at_end());
            prop_assert_eq!(found, names.iter().cloned().collect::<Vec<_>>());
            for name in names {
                let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                let expected = contents.get(&path);
                let stamp_of = expected.map_or(stamp(3), |number| stamp(*number));
                let hash = look_ups.content(path.as_bytes(), &stamp_of, &mut learnt);
                prop_assert_eq!(hash, expected.map(|number| [*number as u8; 32]));
            }
        }
    }

    #[test]
    fn damage_is_noticed(at in 0usize..300, flip in 1u8..=255, cut in 0usize..300) {
        let mut learnt = Learnt::default();
        learnt.listed(listing("folder", 3, &["name"]));
        learnt.read(b"folder/name", stamp(3), [3; 32]);
        let bytes = FolderCache::default().encode(&mut learnt);
        let mut damaged = bytes.clone();
        damaged[at % bytes.len()] ^= flip;
        prop_assert!(FolderCache::decode(damaged).is_none());
        prop_assert!(FolderCache::decode(bytes[..cut % bytes.len()].to_vec()).is_none());
    }

    #[test]
    fn no_bytes_make_it_panic(folders in 0u64..3, body in prop::collection::vec(any::<u8>(), 0..200)) {
        // With a valid checksum, so that the rest is looked at.
        let mut bytes = [MAGIC.as_slice(), &folders.to_le_bytes(), &body].concat();
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        if let Some(cache) = FolderCache::decode(bytes) {
            (0..cache.folders.len()).for_each(|number| cache.known(number).names().for_each(drop));
        }
    }

    #[test]
    fn no_names_make_it_panic(rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut names = Names { rest: &rest };
        names.by_ref().for_each(|name| _ = name.content());
        names.find(b"name");
    }
}
