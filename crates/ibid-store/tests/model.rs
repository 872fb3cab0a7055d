//! Random trees and random archives: what is written is read again, and nothing breaks.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ibid_core::digest::{DiffId, Digest};
use ibid_store::{CommitRules, Kind, Store};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use support::{archive, left_over, listing, needs_root, test_store};

const EPOCH: i64 = 1_000_000_000;

/// Something at a path, with what may vary about it.
#[derive(Debug, Clone)]
struct Planned {
    what: What,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    note: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
enum What {
    File(Vec<u8>),
    Folder {
        opaque: bool,
    },
    Symlink(String),
    /// Another name of the n-th file before it, if there is one.
    HardLink(usize),
    Device(FileType, u32, u32),
    Whiteout,
}

type Plan = BTreeMap<PathBuf, Planned>;

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "[a-c]{1,2}".prop_map(String::into_bytes),
        1 => "[a-z .é%=\\\\]{1,6}".prop_filter("a name", |name| name != "." && name != "..").prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>().prop_filter("a name", |&byte| byte != 0 && byte != b'/'), 1..5)
            .prop_filter("a name", |name| name != b"." && name != b".." && !name.starts_with(b".wh.")),
        1 => (90..255_usize).prop_map(|length| vec![b'n'; length]),
    ]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        5 => prop::collection::vec(any::<u8>(), 0..600).prop_map(What::File),
        1 => (1_usize..2_500_000).prop_map(|size| What::File(vec![b'x'; size])),
        3 => any::<bool>().prop_map(|opaque| What::Folder { opaque }),
        1 => "[a-z/.é]{1,150}".prop_map(What::Symlink),
        2 => (0..8_usize).prop_map(What::HardLink),
        1 => (1..500_u32, 0..500_u32).prop_map(|(major, minor)| {
            let file_type = [FileType::CharacterDevice, FileType::BlockDevice, FileType::Fifo][(major % 3) as usize];
            What::Device(file_type, major, minor)
        }),
        1 => Just(What::Whiteout),
    ]
}

fn planned() -> impl Strategy<Value = Planned> {
    let id = || prop_oneof![Just(0), Just(1000), 2_000_000..3_000_000_u32];
    let time = prop_oneof![-5..5_i64, EPOCH - 5..EPOCH + 5];
    let note = prop::option::weighted(0.2, prop::collection::vec(any::<u8>(), 0..40));
    (what(), 0..0o10000_u32, id(), id(), time, note).prop_map(|(what, mode, uid, gid, mtime, note)| Planned {
        what,
        mode,
        uid,
        gid,
        mtime,
        note,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let path = prop::collection::vec(name(), 1..5).prop_map(|names| {
        use std::os::unix::ffi::OsStringExt;
        names.into_iter().map(std::ffi::OsString::from_vec).collect::<PathBuf>()
    });
    prop::collection::btree_map(path, planned(), 0..25)
}

/// Makes the plan below `root`, as far as its parts do not exclude each other. `later` moves times after the epoch,
/// `reversed` the order in which files are made.
fn make(plan: &Plan, root: &Path, later: i64, reversed: bool) {
    let mut made: Vec<(&PathBuf, &Planned)> = Vec::new();
    for (path, planned) in plan {
        let blocked = path
            .ancestors()
            .skip(1)
            .any(|above| plan.get(above).is_some_and(|planned| !matches!(planned.what, What::Folder { .. })));
        if !blocked {
            made.push((path, planned));
        }
    }
    let files: Vec<&PathBuf> = made
        .iter()
        .filter(|(_, planned)| matches!(planned.what, What::File(_)))
        .map(|(path, _)| *path)
        .collect();
    let linked = |index: usize| files.get(index % files.len().max(1));
    let mut order = made.clone();
    if reversed {
        order.reverse();
    }
    // Files before their other names, folders' attributes and times last.
    for pass in 0..2 {
        for (path, planned) in &order {
            let full = root.join(path);
            let is_link = matches!(planned.what, What::HardLink(_));
            if is_link != (pass == 1) {
                continue;
            }
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            match &planned.what {
                What::File(content) => fs::write(&full, content).unwrap(),
                What::Folder { .. } => fs::create_dir_all(&full).unwrap(),
                What::Symlink(target) => std::os::unix::fs::symlink(target, &full).unwrap(),
                What::HardLink(index) => match linked(*index) {
                    Some(file) => fs::hard_link(root.join(file), &full).unwrap(),
                    None => fs::write(&full, "").unwrap(),
                },
                What::Device(file_type, major, minor) => {
                    let device = rustix::fs::makedev(*major, *minor);
                    rustix::fs::mknodat(CWD, &full, *file_type, Mode::empty(), device).unwrap();
                }
                What::Whiteout => {
                    rustix::fs::mknodat(CWD, &full, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
                }
            }
        }
    }
    let parents = made
        .iter()
        .flat_map(|(path, _)| path.ancestors().skip(1))
        .filter(|path| !path.as_os_str().is_empty());
    let implied = Planned {
        what: What::Folder { opaque: false },
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: EPOCH + 1,
        note: None,
    };
    let mut all: BTreeMap<&Path, &Planned> = parents.map(|path| (path, &implied)).collect();
    all.extend(made.iter().map(|(path, planned)| (path.as_path(), *planned)));
    for (path, planned) in all.into_iter().rev() {
        dress(&root.join(path), planned, later);
    }
}

fn dress(path: &Path, planned: &Planned, later: i64) {
    if matches!(planned.what, What::HardLink(_)) {
        return;
    }
    let (uid, gid) = (Uid::from_raw(planned.uid), Gid::from_raw(planned.gid));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    if !matches!(planned.what, What::Symlink(_)) {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(planned.mode), AtFlags::empty()).unwrap();
    }
    if let (What::File(_) | What::Folder { .. }, Some(note)) = (&planned.what, &planned.note) {
        rustix::fs::lsetxattr(path, "user.note", note, XattrFlags::empty()).unwrap();
    }
    if matches!(planned.what, What::Folder { opaque: true }) {
        rustix::fs::lsetxattr(path, "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    }
    let mtime = if planned.mtime > EPOCH { planned.mtime + later } else { planned.mtime };
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn commit(store: &Store, plan: &Plan, later: i64, reversed: bool) -> Option<DiffId> {
    let draft = store.draft_layer().unwrap();
    make(plan, draft.upper(), later, reversed);
    draft.commit(&CommitRules { epoch: EPOCH, ..CommitRules::default() }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Tree → layer → archive → layer elsewhere: the same tree, the same list, the same archive.
    #[test]
    fn a_layer_survives_the_journey(plan in plan()) {
        if !needs_root() {
            return Ok(());
        }
        let (_folder, store) = test_store();
        let Some(diff_id) = commit(&store, &plan, 0, false) else {
            prop_assert!(left_over(&store).is_empty());
            return Ok(());
        };
        prop_assert_eq!(commit(&store, &plan, 12_345, true), Some(diff_id), "times and order matter");
        let bytes = archive(&store, &diff_id);
        prop_assert_eq!(DiffId(Digest::of(&bytes)), diff_id);
        let (_other_folder, other) = test_store();
        prop_assert_eq!(other.import_layer(bytes.as_slice()).unwrap(), diff_id);
        prop_assert_eq!(listing(&store.layer_tree(&diff_id)), listing(&other.layer_tree(&diff_id)));
        prop_assert_eq!(store.layer_manifest(&diff_id).unwrap(), other.layer_manifest(&diff_id).unwrap());
        prop_assert!(archive(&other, &diff_id) == bytes);
        prop_assert!(left_over(&store).is_empty() && left_over(&other).is_empty());
        // Another program reads the same files out of it.
        let mut read = tar::Archive::new(bytes.as_slice());
        let mut contents = 0;
        for entry in read.entries().unwrap() {
            contents += entry.unwrap().size();
        }
        prop_assert_eq!(contents, store.layer_size(&diff_id).unwrap());
    }

    /// An archive with bytes changed is refused, or accepted and given back as it is. Nothing panics.
    #[test]
    fn a_damaged_archive_is_refused_or_kept_exactly(
        plan in plan(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        if !needs_root() {
            return Ok(());
        }
        let (_folder, store) = test_store();
        let Some(diff_id) = commit(&store, &plan, 0, false) else { return Ok(()) };
        let mut bytes = archive(&store, &diff_id);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        for (index, value, mend) in changes {
            if bytes.is_empty() {
                break;
            }
            let index = index.index(bytes.len());
            bytes[index] = value;
            // With a right checksum, more than the check of it is tested.
            if mend && let Some(block) = bytes.get_mut(index / 512 * 512..).and_then(|rest| rest.get_mut(..512)) {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let (folder, other) = test_store();
        match other.import_layer(bytes.as_slice()) {
            Ok(diff_id) => {
                prop_assert_eq!(diff_id, DiffId(Digest::of(&bytes)));
                prop_assert!(archive(&other, &diff_id) == bytes);
                for entry in other.layer_manifest(&diff_id).unwrap().entries {
                    let own = matches!(entry.kind, Kind::HardLink { ref owner } if owner == &entry.path);
                    prop_assert!(!own, "a link to itself");
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        prop_assert!(left_over(&other).is_empty());
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something is outside of the store");
    }
}
