use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use ibid_core::dockerignore::Ignore;
use ibid_files::folder_cache::Learnt;
use ibid_testing::{Need, need};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

use super::*;
use crate::context::IgnoreFile;

/// A context and its cache.
struct Place(tempfile::TempDir);

/// The folders of a test were only just made, so the present time is given.
fn later() -> i64 {
    stat_cache::now_ns() + 60_000_000_000
}

impl Place {
    /// `path/` is a folder, everything else an empty file.
    fn new(paths: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = ibid_files::beneath::open_root(folder.path()).expect("open");
        // Where temporary files are in an overlay, as in a container, names are not remembered.
        let is_fit = folder_cache::clock_of_names(&root).is_some();
        let in_memory = || tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let place = Self(if is_fit { folder } else { in_memory() });
        fs::create_dir(place.path("")).expect("make the folder");
        paths.iter().for_each(|path| place.add(path));
        place
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("context").join(path)
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn add(&self, path: &str) {
        match path.strip_suffix('/') {
            Some(folder) => fs::create_dir_all(self.path(folder)).expect("make the folder"),
            None => {
                fs::create_dir_all(self.path(path).parent().expect("a parent")).expect("make the folder");
                fs::write(self.path(path), "").expect("write");
            }
        }
    }

    fn stamp(&self, path: &str) -> Stamp {
        Stamp::of(&rustix::fs::lstat(self.path(path)).expect("stat"))
    }

    /// What a build sees: folders with `/`, links with `@`. It remembers what it learns.
    fn walk(&self, rules: &str, now_ns: fn() -> i64) -> String {
        let rules = Ignore::parse(rules.as_bytes()).expect("well formed");
        let rules = IgnoreFile { name: ".dockerignore".to_owned(), rules };
        let mut context = Context::open(&self.path(""), rules, Some(&self.cache())).expect("open");
        context.now_ns = now_ns;
        let selection = context.select(&["."]).expect("select");
        context.digest(&selection).expect("digest");
        let shown = |entry: &Entry| {
            let end = match entry.kind {
                Kind::Folder => "/",
                Kind::Link { .. } => "@",
                _ => "",
            };
            format!("{}{end}", entry.path().display())
        };
        context.walk().expect("walk").iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    /// Makes the next walk believe that a folder with this stamp has these names; one that ends with `/` is taken for a folder.
    fn remember(&self, folder: &str, stamp: Stamp, names: &[&str]) {
        let mut listed = RememberedNames::new(folder.as_bytes(), stamp);
        for name in names {
            let folder = name.strip_suffix('/');
            listed.add(folder.unwrap_or(name).as_bytes(), folder.is_some());
        }
        let mut learnt = Learnt::default();
        learnt.listed(listed);
        // Names alone would be too few to be saved.
        learnt.read(b"none", stamp, [0; 32]);
        FolderCache::load(&self.cache()).save(&mut learnt, &self.cache()).expect("save");
    }

    /// What is remembered of a folder, if that is what it is now.
    fn remembered(&self, folder: &str) -> Option<String> {
        let cache = FolderCache::load(&self.cache());
        let known = cache.folder(folder.as_bytes())?;
        let name = |name: folder_cache::Name| String::from_utf8_lossy(name.name).into_owned();
        known.has_names_of(&self.stamp(folder)).then(|| known.names().map(name).collect::<Vec<_>>().join(" "))
    }
}

#[test]
fn a_folder_that_has_not_changed_is_not_read() {
    let place = Place::new(&["a", "dir/b", "dir/c"]);
    assert_eq!(place.walk("", later), "a dir/ dir/b dir/c");
    assert_eq!(place.remembered("dir").as_deref(), Some("b c"));
    // A false memory shows that.
    place.remember("dir", place.stamp("dir"), &["c"]);
    assert_eq!(place.walk("", later), "a dir/ dir/c");
    assert_eq!(place.walk("", stat_cache::now_ns), "a dir/ dir/c", "it was settled when it was read");
    // Content that changes leaves the names alone.
    fs::write(place.path("dir/c"), "changed").expect("write");
    assert_eq!(place.walk("", later), "a dir/ dir/c");
}

#[test]
fn a_folder_that_has_changed_is_read_again() {
    let check = |what: &str, expected: &str, change: &dyn Fn(&Place)| {
        let place = Place::new(&["a", "dir/b", "dir/sub/c", "other/d"]);
        assert_eq!(place.walk("", later), "a dir/ dir/b dir/sub/ dir/sub/c other/ other/d");
        assert!(["", "dir", "dir/sub", "other"].iter().all(|folder| place.remembered(folder).is_some()));
        let before = rustix::fs::lstat(place.path("dir")).expect("stat");
        change(&place);
        // Whoever sets the time of a folder back does not hide what was done to it.
        if place.path("dir").is_dir() {
            let time = |seconds, nanoseconds: u64| rustix::fs::Timespec {
                tv_sec: seconds,
                tv_nsec: nanoseconds.try_into().expect("less than a second"),
            };
            let times = rustix::fs::Timestamps {
                last_access: time(before.st_atime, before.st_atime_nsec),
                last_modification: time(before.st_mtime, before.st_mtime_nsec),
            };
            rustix::fs::utimensat(rustix::fs::CWD, place.path("dir"), &times, AtFlags::SYMLINK_NOFOLLOW)
                .expect("set the times");
        }
        assert_eq!(place.walk("", later), expected, "{what}");
        assert_eq!(place.walk("", later), expected, "{what}, again");
    };
    check("a file is added", "a dir/ dir/b dir/new dir/sub/ dir/sub/c other/ other/d", &|place| {
        place.add("dir/new");
    });
    check("a file is removed", "a dir/ dir/sub/ dir/sub/c other/ other/d", &|place| {
        fs::remove_file(place.path("dir/b")).expect("remove");
    });
    check("a file is renamed", "a dir/ dir/B dir/sub/ dir/sub/c other/ other/d", &|place| {
        fs::rename(place.path("dir/b"), place.path("dir/B")).expect("rename");
    });
    check("another folder takes its place", "a dir/ dir/d", &|place| {
        fs::rename(place.path("dir"), place.0.path().join("old")).expect("rename");
        fs::rename(place.path("other"), place.path("dir")).expect("rename");
    });
    check("a link takes its place", "a dir@ other/ other/d", &|place| {
        fs::rename(place.path("dir"), place.0.path().join("old")).expect("rename");
        symlink("other", place.path("dir")).expect("link");
    });
    check("a file takes its place", "a dir other/ other/d", &|place| {
        fs::remove_dir_all(place.path("dir")).expect("remove");
        place.add("dir");
    });
}

#[test]
fn names_are_remembered_only_once_a_folder_has_settled() {
    fn earlier() -> i64 {
        stat_cache::now_ns() - 60_000_000_000
    }
    // So many that they are saved without any content.
    let place = Place::new(&[]);
    (0..1_000).for_each(|number| place.add(&format!("dir/{number}")));
    // It was changed just now; and then, with a clock that was set back, in the future.
    for now_ns in [stat_cache::now_ns, earlier] {
        place.walk("", now_ns);
        assert_eq!(place.remembered("dir"), None);
    }
    place.walk("", later);
    assert!(place.remembered("dir").is_some());
}

#[test]
fn names_are_all_that_is_remembered() {
    let place = Place::new(&["a", "dir/b", "dir/c"]);
    place.walk("", later);
    // One that is gone means that the rest may be false, too.
    place.remember("dir", place.stamp("dir"), &["b", "gone"]);
    assert_eq!(place.walk("", later), "a dir/ dir/b dir/c");
    assert_eq!(place.remembered("dir").as_deref(), Some("b c"));
    // What was taken for a folder is looked at, and a link not followed.
    symlink("dir", place.path("link")).expect("link");
    place.remember("", place.stamp(""), &["a/", "dir/", "link/"]);
    place.remember("link", place.stamp("dir"), &["b"]);
    assert_eq!(place.walk("", later), "a dir/ dir/b dir/c link@");
    // What is no name is none.
    for name in ["", ".", "..", "../cache", "/dir", "b\0"] {
        place.remember("dir", place.stamp("dir"), &[name]);
        assert_eq!(place.walk("", later), "a dir/ dir/b dir/c link@", "{name:?}");
    }
}

#[test]
fn other_rules_find_what_the_first_ones_dropped() {
    let place = Place::new(&["a", "dir/b", "dir/sub/c", "dir/sub/d", ".ibid/runs"]);
    assert_eq!(place.walk("dir/b\ndir/sub\n!dir/sub/d", later), "a dir/ dir/sub/ dir/sub/d");
    assert_eq!(place.remembered("").as_deref(), Some(".ibid a dir"));
    assert_eq!(place.remembered("dir").as_deref(), Some("b sub"));
    assert_eq!(place.walk("dir/sub", later), "a dir/ dir/b");
    assert_eq!(place.walk("", later), "a dir/ dir/b dir/sub/ dir/sub/c dir/sub/d");
    assert_eq!(place.walk("**/c", later), "a dir/ dir/b dir/sub/ dir/sub/d");
}

/// Calls `test` where what it mounts is seen by nobody else.
fn among_own_mounts(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| {
            ibid_sys::clone::leave_shared(UnshareFlags::NEWNS.bits() as i32).expect("a namespace of its own");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
            test();
        });
        if let Err(panic) = alone.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_mount_in_a_context_is_read_each_time() {
    if !need(&[Need::Root]) {
        return;
    }
    let place = Place::new(&["a", "dir/b"]);
    assert_eq!(place.walk("", later), "a dir/ dir/b");
    among_own_mounts(|| {
        mount("tmpfs", place.path("dir"), "tmpfs", MountFlags::empty(), None).expect("mount");
        place.add("dir/mounted");
        assert_eq!(place.walk("", later), "a dir/ dir/mounted");
        assert_eq!(place.remembered("dir"), None);
        // Even where what is known would fit.
        place.remember("dir", place.stamp("dir"), &[]);
        assert_eq!(place.walk("", later), "a dir/ dir/mounted");
    });
    assert_eq!(place.walk("", later), "a dir/ dir/b");
}

#[test]
fn names_in_an_overlay_are_not_remembered() {
    if !need(&[Need::Root, Need::Overlay]) {
        return;
    }
    let place = Place::new(&["upper/dir/b", "lower/dir/c", "merged/"]);
    among_own_mounts(|| {
        let folders = format!("lowerdir={}:{}", place.path("upper").display(), place.path("lower").display());
        let options = std::ffi::CString::new(folders).expect("a path");
        let merged = place.path("merged");
        mount("overlay", &merged, "overlay", MountFlags::empty(), Some(options.as_c_str())).expect("mount");
        let cache = place.cache();
        let walk = |root: &Path| {
            let mut context = Context::open(root, IgnoreFile::default(), Some(&cache)).expect("open");
            context.now_ns = later;
            let selection = context.select(&["."]).expect("select");
            context.digest(&selection).expect("digest");
        };
        walk(&merged);
        let folder = rustix::fs::lstat(merged.join("dir")).expect("stat");
        let cache = FolderCache::load(&place.cache());
        assert!(!cache.folder(b"dir").is_some_and(|known| known.has_names_of(&Stamp::of(&folder))));
        assert!(cache.folder(b"dir").is_some(), "its files are");
    });
}
