//! Unpacking all packages into a root file system, several at once.
//!
//! Which thread comes first must not show in the result:
//! - Every path is claimed before it is written. A second claim is settled by the packages' `Replaces`, never by
//!   time; when the second claimant is to have it, its file is written at the end, by one thread.
//! - Folders are made with plain attributes, and at the end get those of the first package in order of names.
//! - Times of folders are not set: they all become those of the build.
//! - `base-files`, whose links others build upon, is unpacked first and alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ibid_sys::owner;
use md5::{Digest as _, Md5};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use tar::EntryType;

use crate::Event;
use crate::database::Unpacked;
use crate::error::Error;
use crate::package::PackageFile;
use crate::relation::terms;
use crate::root::{self, Folder, Root};
use crate::slim;

/// The package with the links at the top.
const LAYOUT_PACKAGE: &str = "base-files";
/// Folders at the top that become links into `/usr` (Debian's merged `/usr`).
const MERGED: [&str; 7] = ["bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin"];
const BUFFER_BYTES: usize = 256 << 10;

/// A package file to unpack.
#[derive(Debug)]
pub(crate) struct Source {
    pub name: String,
    pub path: PathBuf,
    /// Size of the file, which says roughly how long it takes.
    pub size: u64,
}

/// Owner and mode of an entry.
#[derive(Debug, Clone, Copy)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    modified: i64,
}

/// Who has what. Paths are where files really are, without leading slash.
#[derive(Default)]
struct Claims {
    /// Everything but folders, with the number of the package.
    files: HashMap<String, usize>,
    /// Folders, with the first package in order of names that has them, and its attributes.
    folders: BTreeMap<String, (usize, Attributes)>,
    /// Paths that a later claimant is to have.
    late: BTreeMap<String, usize>,
    /// Paths that a package has lost to another.
    lost: BTreeSet<(usize, String)>,
    /// Names of [`MERGED`] that packages use.
    merged: BTreeSet<&'static str>,
}

struct Unpacker<'a> {
    root: &'a Root,
    sources: &'a [Source],
    claims: Mutex<Claims>,
}

/// Unpacks everything. `sources` are in order of their names; the answer has the same order.
pub(crate) fn unpack(
    root: &Root,
    sources: &[Source],
    architecture: &str,
    threads: usize,
    progress: &(dyn Fn(Event) + Sync),
) -> Result<Vec<Unpacked>, Error> {
    let unpacker = Unpacker { root, sources, claims: Mutex::default() };
    unpacker.link_into_usr(match architecture {
        "amd64" | "loong64" | "mips64el" | "ppc64el" => &["bin", "lib", "lib64", "sbin"],
        _ => &["bin", "lib", "sbin"],
    })?;

    // The largest first, so that no thread is left with a large one at the end.
    let mut order: Vec<usize> = (0..sources.len()).collect();
    order.sort_by_key(|&number| {
        (sources[number].name != LAYOUT_PACKAGE, std::cmp::Reverse(sources[number].size))
    });
    let results: Vec<Mutex<Option<Result<Unpacked, Error>>>> =
        sources.iter().map(|_| Mutex::default()).collect();
    let (next, done, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let work_on = |number: usize| {
        let result = unpacker.package(number);
        if result.is_ok() {
            let packages = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(Event::Unpacked { packages, total: sources.len() });
        } else {
            stop.store(true, Ordering::Relaxed);
        }
        *locked(&results[number]) = Some(result);
    };
    let alone = order.iter().take_while(|&&number| sources[number].name == LAYOUT_PACKAGE).count();
    order[..alone].iter().for_each(|&number| work_on(number));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(&number) = order[alone..].get(next.fetch_add(1, Ordering::Relaxed)) else {
                        break;
                    };
                    work_on(number);
                }
            });
        }
    });
    let mut all = Vec::new();
    let mut is_complete = true;
    for result in results {
        match result.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(result) => all.push(result?),
            None => is_complete = false,
        }
    }
    assert!(is_complete, "a package is left out only after a failure, which was returned");
    unpacker.finish(&mut all)?;
    Ok(all)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry's path without `./` and trailing slash; refuses what could lead elsewhere.
fn clean(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "has a path that is not UTF-8".to_owned())?;
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(format!("has a path that climbs: `{text}`")),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The name at the top that is a link into `/usr`, if the path begins with one.
fn merged_name(path: &str) -> Option<&'static str> {
    let top = path.split('/').next().unwrap_or_default();
    MERGED.iter().find(|name| **name == top).copied()
}

/// What one package's unpacking reuses: the last folder, kept open since files come folder by folder, and a buffer.
struct Recent {
    path: String,
    folder: Option<Folder>,
    buffer: Vec<u8>,
}

impl Recent {
    fn folder(&mut self, root: &Root, path: &str) -> rustix::io::Result<&Folder> {
        if self.folder.is_none() || self.path != path {
            self.folder = Some(root.folder(path)?);
            self.path.clear();
            self.path.push_str(path);
        }
        Ok(self.folder.as_ref().expect("just opened"))
    }
}

impl Unpacker<'_> {
    fn invalid(&self, number: usize, reason: impl Into<String>) -> Error {
        Error::InvalidPackage { package: self.sources[number].name.clone(), reason: reason.into() }
    }

    /// Makes links at the top, before any package can make folders in their place, or for those found in use.
    fn link_into_usr(&self, names: &[&str]) -> Result<(), Error> {
        let top = self.root.folder("").map_err(self.root.failed(""))?;
        for name in names {
            let target = format!("usr/{name}");
            self.root.folder(&target).map_err(self.root.failed(&target))?;
            match rustix::fs::symlinkat(&target, &top, *name) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(self.root.failed(name)(errno)),
            }
            owner::change_at(&top, *name, (0, 0)).map_err(self.root.failed(name))?;
        }
        Ok(())
    }

    fn package(&self, number: usize) -> Result<Unpacked, Error> {
        let source = &self.sources[number];
        let mut package = PackageFile::open(&source.path, &source.name)?;
        let configuration_files = package.configuration_files();
        let mut hashes = BTreeMap::new();
        let mut paths = Vec::new();
        self.entries(number, &mut package, |recent, path, place, attributes, entry| {
            paths.push(if path.is_empty() { "/.".to_owned() } else { format!("/{path}") });
            match entry.header().entry_type() {
                EntryType::Directory => return self.claim_folder(number, place, attributes),
                EntryType::Symlink if merged_name(path) == Some(path) => return Ok(()),
                kind if slim::is_excluded(place, kind == EntryType::Symlink) => return Ok(()),
                _ => {}
            }
            if self.claim_file(number, place)? {
                let absolute = format!("/{path}");
                let mut hasher = configuration_files.contains(&absolute).then(Md5::new);
                self.write(number, recent, place, attributes, entry, hasher.as_mut())?;
                if let Some(hasher) = hasher {
                    hashes.insert(
                        absolute,
                        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
                    );
                }
            }
            Ok(())
        })?;
        let configuration = configuration_files
            .into_iter()
            .filter_map(|path| hashes.remove(&path).map(|hash| (path, hash)))
            .collect();
        Ok(Unpacked {
            name: source.name.clone(),
            info_name: package.info_name(),
            fields: package.fields,
            control: package.control,
            paths,
            configuration,
        })
    }

    /// Goes through a package's content: the path as the package has it, where it really is, what it is.
    fn entries(
        &self,
        number: usize,
        package: &mut PackageFile,
        mut take: impl FnMut(
            &mut Recent,
            &str,
            &str,
            Attributes,
            &mut tar::Entry<'_, Box<dyn Read + '_>>,
        ) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let damaged = |error: std::io::Error| self.invalid(number, error.to_string());
        let mut archive = tar::Archive::new(package.content().map_err(damaged)?);
        let mut recent = Recent { path: String::new(), folder: None, buffer: vec![0; BUFFER_BYTES] };
        for entry in archive.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            let path = clean(&entry.path_bytes()).map_err(|reason| self.invalid(number, reason))?;
            let place = self.place(&path);
            let header = entry.header();
            let id = |id: std::io::Result<u64>| {
                id.and_then(|id| u32::try_from(id).map_err(std::io::Error::other)).map_err(damaged)
            };
            let attributes = Attributes {
                mode: header.mode().map_err(damaged)? & 0o7777,
                uid: id(header.uid())?,
                gid: id(header.gid())?,
                modified: header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0),
            };
            take(&mut recent, &path, &place, attributes, &mut entry)?;
        }
        Ok(())
    }

    /// Where a path really is with a merged `/usr`.
    fn place(&self, path: &str) -> String {
        match merged_name(path) {
            Some(name) => {
                locked(&self.claims).merged.insert(name);
                format!("usr/{path}")
            }
            None => path.to_owned(),
        }
    }

    fn claim_folder(&self, number: usize, place: &str, attributes: Attributes) -> Result<(), Error> {
        if slim::is_excluded(place, false) {
            return Ok(());
        }
        let mut claims = locked(&self.claims);
        if let Some(&other) = claims.files.get(place) {
            let is_layout = self.sources[other].name == LAYOUT_PACKAGE;
            return if is_layout { Ok(()) } else { Err(self.conflict(number, other, place)) };
        }
        match claims.folders.get(place) {
            Some((other, _)) if *other <= number => return Ok(()),
            Some(_) => {
                claims.folders.insert(place.to_owned(), (number, attributes));
                return Ok(());
            }
            None => claims.folders.insert(place.to_owned(), (number, attributes)),
        };
        // Made while the claim is held, so that nobody finds a claimed folder missing.
        self.root.folder(place).map_err(self.root.failed(place))?;
        Ok(())
    }

    /// True when the package is to write the path now.
    fn claim_file(&self, number: usize, place: &str) -> Result<bool, Error> {
        let mut claims = locked(&self.claims);
        if let Some((other, _)) = claims.folders.get(place) {
            return Err(self.conflict(number, *other, place));
        }
        let Some(&first) = claims.files.get(place) else {
            claims.files.insert(place.to_owned(), number);
            return Ok(true);
        };
        let holder = claims.late.get(place).copied().unwrap_or(first);
        if holder == number {
            // The same file under two names, one of them through a merged folder: the first stays.
            return Ok(false);
        }
        let (winner, loser) = match (self.replaces(number, holder)?, self.replaces(holder, number)?) {
            (true, true) => (number.max(holder), number.min(holder)),
            (true, false) => (number, holder),
            (false, true) => (holder, number),
            (false, false) => return Err(self.conflict(number, holder, place)),
        };
        claims.lost.insert((loser, place.to_owned()));
        if winner == number {
            claims.late.insert(place.to_owned(), number);
        }
        Ok(false)
    }

    fn conflict(&self, one: usize, other: usize, place: &str) -> Error {
        Error::FileConflict {
            package: self.sources[one.max(other)].name.clone(),
            other: self.sources[one.min(other)].name.clone(),
            path: place.to_owned(),
        }
    }

    /// Whether a package may take over files of another.
    fn replaces(&self, number: usize, other: usize) -> Result<bool, Error> {
        let open = |number: usize| PackageFile::open(&self.sources[number].path, &self.sources[number].name);
        let (package, other_package) = (open(number)?, open(other)?);
        let version = other_package.fields.get("Version").unwrap_or_default();
        let field = package.fields.get("Replaces").unwrap_or_default();
        Ok(terms(field).any(|term| term.name == self.sources[other].name && term.admits(version)))
    }

    /// Writes one entry that is no folder, at a place where nothing is.
    fn write<R: Read>(
        &self,
        number: usize,
        recent: &mut Recent,
        place: &str,
        attributes: Attributes,
        entry: &mut tar::Entry<'_, R>,
        hasher: Option<&mut Md5>,
    ) -> Result<(), Error> {
        let failed = |errno: Errno| self.root.failed(place)(errno);
        let (parent_path, name) = root::split(place);
        if name.is_empty() {
            return Err(self.invalid(number, "has an entry without a name"));
        }
        let Attributes { mode, uid, gid, modified } = attributes;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let parent = recent.folder(self.root, parent_path).map_err(failed)?;
                let file = root::create(parent, name).map_err(failed)?;
                let mut file = std::fs::File::from(file);
                self.copy(number, place, entry, &mut file, &mut recent.buffer, hasher)?;
                root::finish(&file, mode, uid, gid, Some(modified)).map_err(failed)
            }
            EntryType::Symlink => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| self.invalid(number, "has a link to nothing"))?;
                let parent = recent.folder(self.root, parent_path).map_err(failed)?;
                rustix::fs::symlinkat(&*target, parent, name).map_err(failed)?;
                owner::change_at(parent, name, (uid, gid)).map_err(failed)?;
                rustix::fs::utimensat(parent, name, &root::times(modified), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed)
            }
            EntryType::Link => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| self.invalid(number, "has a link to nothing"))?;
                let target = clean(&target).map_err(|reason| self.invalid(number, reason))?;
                let target = self.place(&target);
                let (target_parent, target_name) = root::split(&target);
                let target_folder = self.root.folder(target_parent).map_err(failed)?;
                let parent = recent.folder(self.root, parent_path).map_err(failed)?;
                rustix::fs::linkat(&target_folder, target_name, parent, name, AtFlags::empty())
                    .map_err(failed)
            }
            EntryType::Fifo => {
                let parent = recent.folder(self.root, parent_path).map_err(failed)?;
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(parent, name, kind, rustix::fs::Mode::from_raw_mode(0o600), 0)
                    .map_err(failed)?;
                root::set_attributes(parent, name, mode, uid, gid).map_err(failed)
            }
            other => {
                Err(self
                    .invalid(number, format!("has an entry of an unsupported kind ({other:?}): `{place}`")))
            }
        }
    }

    fn copy(
        &self,
        number: usize,
        place: &str,
        entry: &mut impl Read,
        file: &mut std::fs::File,
        buffer: &mut [u8],
        mut hasher: Option<&mut Md5>,
    ) -> Result<(), Error> {
        loop {
            let count = match entry.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.invalid(number, error.to_string())),
            };
            if let Some(hasher) = hasher.as_deref_mut() {
                hasher.update(&buffer[..count]);
            }
            file.write_all(&buffer[..count]).map_err(|error| {
                self.root.failed(place)(Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })?;
        }
    }

    /// Writes what changed hands, gives folders their attributes, and takes lost paths off their losers' lists.
    fn finish(self, all: &mut [Unpacked]) -> Result<(), Error> {
        let claims = std::mem::take(&mut *locked(&self.claims));
        let mut late: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for (place, number) in &claims.late {
            late.entry(*number).or_default().insert(place);
        }
        for (number, places) in late {
            let mut package = PackageFile::open(&self.sources[number].path, &self.sources[number].name)?;
            self.entries(number, &mut package, |recent, _, place, attributes, entry| {
                if !places.contains(place) || entry.header().entry_type() == EntryType::Directory {
                    return Ok(());
                }
                self.root.remove(place)?;
                self.write(number, recent, place, attributes, entry, None)
            })?;
        }
        for (number, unpacked) in all.iter_mut().enumerate() {
            unpacked.paths.retain(|path| {
                let path = path.trim_start_matches('/');
                let place = if merged_name(path).is_some() { format!("usr/{path}") } else { path.to_owned() };
                !claims.lost.contains(&(number, place))
            });
        }
        self.link_into_usr(&claims.merged.iter().copied().collect::<Vec<_>>())?;
        for (place, (_, attributes)) in &claims.folders {
            let Attributes { mode, uid, gid, .. } = *attributes;
            if (mode, uid, gid) != (0o755, 0, 0) && !place.is_empty() {
                let (parent, name) = root::split(place);
                let parent = self.root.folder(parent).map_err(self.root.failed(place))?;
                if root::file_type(&parent, name) == Ok(rustix::fs::FileType::Directory) {
                    root::set_attributes(&parent, name, mode, uid, gid).map_err(self.root.failed(place))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../tests/support/deb.rs"]
#[allow(dead_code, reason = "shared with the tests of archives")]
mod deb;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    use super::deb::Deb;
    use super::*;

    /// Unpacks packages, given in order of their names. None when this user may not give files to root.
    fn unpack_all(debs: &[Deb]) -> Option<(tempfile::TempDir, Result<Vec<Unpacked>, Error>)> {
        let folder = tempfile::tempdir().expect("temporary folder");
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root because files are given to user 0");
            return None;
        }
        let mut sources = Vec::new();
        for deb in debs {
            let path = folder.path().join(format!("{}.deb", deb.name));
            std::fs::write(&path, deb.bytes()).expect("writes");
            sources.push(Source { name: deb.name.clone(), path, size: 1 });
        }
        std::fs::create_dir(folder.path().join("root")).expect("a folder");
        let root = Root::open(&folder.path().join("root")).expect("opens");
        let result = unpack(&root, &sources, "amd64", 2, &|_| {});
        Some((folder, result))
    }

    fn check(debs: &[Deb], expected: &[(&str, &str)]) {
        let Some((folder, result)) = unpack_all(debs) else { return };
        result.expect("unpacks");
        for (path, content) in expected {
            let path = folder.path().join("root").join(path);
            let found = std::fs::read_link(&path).map_or_else(
                |_| std::fs::read_to_string(&path).unwrap_or_else(|error| error.to_string()),
                |target| format!("-> {}", target.display()),
            );
            assert_eq!(&found, content, "{}", path.display());
        }
    }

    fn check_fails(debs: &[Deb], expected: &str) {
        let Some((_folder, result)) = unpack_all(debs) else { return };
        let message = result.expect_err("is refused").to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn paths_are_cleaned() {
        let check = |path: &str, expected: Result<&str, ()>| {
            assert_eq!(clean(path.as_bytes()).map_err(|_| ()), expected.map(str::to_owned), "{path}");
        };
        check("./", Ok(""));
        check("./usr/bin/", Ok("usr/bin"));
        check("/etc//x", Ok("etc/x"));
        check("./a/../../etc/passwd", Err(()));
        check("..", Err(()));
        assert!(clean(b"\xff").is_err());
    }

    #[test]
    fn merged_folders_are_known() {
        assert_eq!(merged_name("bin/ls"), Some("bin"));
        assert_eq!(merged_name("lib"), Some("lib"));
        assert_eq!(merged_name("library/x"), None);
        assert_eq!(merged_name("usr/bin/ls"), None);
    }

    #[test]
    fn content_is_written_with_a_merged_usr() {
        check(
            &[Deb::new("a", "1").folder("./", 0o755).folder("./bin/", 0o755).file("./bin/tool", "tool")],
            &[("bin", "-> usr/bin"), ("usr/bin/tool", "tool"), ("lib64", "-> usr/lib64")],
        );
        check(
            &[Deb::new("a", "1")
                .file("./sbin/first", "x")
                .link("./sbin/same", "./sbin/first")
                .symlink("./lib32", "usr/lib32")],
            &[("usr/sbin/same", "x"), ("lib32", "-> usr/lib32")],
        );
        check(
            &[Deb::new("a", "1").file("./libx32/x", "x")],
            &[("libx32", "-> usr/libx32"), ("usr/libx32/x", "x")],
        );
    }

    #[test]
    fn attributes_are_those_of_the_first_package() {
        let debs = [
            Deb::new("a", "1").folder("./shared/", 0o1777).file("./shared/x", "x"),
            Deb::new("b", "1").folder("./shared/", 0o700).file("./shared/y", "y"),
        ];
        let Some((folder, result)) = unpack_all(&debs) else { return };
        result.expect("unpacks");
        let metadata =
            |path: &str| std::fs::metadata(folder.path().join("root").join(path)).expect("is there");
        assert_eq!(metadata("shared").permissions().mode() & 0o7777, 0o1777);
        let file = metadata("shared/x");
        assert_eq!((file.permissions().mode() & 0o7777, file.uid(), file.mtime()), (0o644, 0, 1_000_000_000));
    }

    #[test]
    fn documentation_is_left_out() {
        check(
            &[Deb::new("a", "1")
                .folder("./usr/share/doc/a/", 0o755)
                .file("./usr/share/doc/a/README", "no")
                .file("./usr/share/doc/a/copyright", "yes")
                .folder("./usr/share/man/man1/", 0o755)
                .file("./usr/share/man/man1/a.1", "no")],
            &[
                ("usr/share/doc/a/copyright", "yes"),
                ("usr/share/doc/a/README", "No such file or directory (os error 2)"),
                ("usr/share/man", "No such file or directory (os error 2)"),
            ],
        );
    }

    #[test]
    fn same_file_of_two_packages_goes_to_the_one_that_replaces() {
        let plain = |name: &str, content: &str| Deb::new(name, "1").file("./etc/x", content);
        check_fails(&[plain("a", "a"), plain("b", "b")], "b and a both contain /etc/x");
        check(&[plain("a", "a"), plain("b", "b").fields("Replaces: a (<< 2)\n")], &[("etc/x", "b")]);
        check(&[plain("a", "a").fields("Replaces: b\n"), plain("b", "b")], &[("etc/x", "a")]);
        check_fails(&[plain("a", "a"), plain("b", "b").fields("Replaces: a (<< 1)\n")], "both contain");
        let debs = [plain("a", "a"), plain("b", "b").fields("Replaces: a\n")];
        let Some((_folder, result)) = unpack_all(&debs) else { return };
        let lists: Vec<_> = result.expect("unpacks").into_iter().map(|package| package.paths).collect();
        assert_eq!(lists, [vec![], vec!["/etc/x".to_owned()]]);
    }

    #[test]
    fn file_and_folder_of_one_name_are_refused() {
        let debs = [Deb::new("a", "1").file("./x", "file"), Deb::new("b", "1").folder("./x/", 0o755)];
        check_fails(&debs, "b and a both contain /x");
        // The links of the layout are built upon.
        check(
            &[
                Deb::new("base-files", "1").folder("./run/", 0o755).symlink("./var/run", "/run"),
                Deb::new("old", "1").folder("./var/run/", 0o755).file("./var/run/x", "x"),
            ],
            &[("var/run", "-> /run"), ("run/x", "x")],
        );
    }

    #[test]
    fn hostile_packages_reach_nothing_outside() {
        let outside = tempfile::tempdir().expect("temporary folder");
        let target = outside.path().to_str().expect("text");
        check_fails(&[Deb::new("a", "1").file("./../../x", "x")], "climbs");
        check_fails(&[Deb::new("a", "1").device("./dev/x")], "unsupported kind");
        check_fails(&[Deb::new("a", "1").link("./x", "../../etc/passwd")], "climbs");
        check_fails(&[Deb::new("a", "1").link("./x", "/etc/hostname")], "No such file");
        // The link leads to a place inside, where nothing is.
        check_fails(&[Deb::new("a", "1").symlink("./out", target).file("./out/evil", "x")], "No such file");
        check_fails(
            &[Deb::new("a", "1").symlink("./out", "../../../../../../..").file("./out/out", "x")],
            "/root/out",
        );
        assert_eq!(std::fs::read_dir(outside.path()).expect("a folder").count(), 0);
        assert!(!Path::new("/evil").exists());
        let mut deb = Deb::new("a", "1").file("./x", "x");
        deb.name = "other".to_owned();
        let bytes = deb.bytes();
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a.deb");
        for (bytes, expected) in [
            (bytes.clone(), "names `other`"),
            (bytes[..bytes.len() / 2].to_vec(), "too soon"),
            (b"!<arch>\n".to_vec(), "no control"),
            (b"rubbish".to_vec(), "not a package file"),
        ] {
            std::fs::write(&path, bytes).expect("writes");
            let message = PackageFile::open(&path, "a").err().expect("is refused").to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn configuration_files_are_hashed() {
        let deb = Deb::new("a", "1")
            .control("conffiles", "/etc/a\n/etc/absent\nremove-on-upgrade /etc/old\n")
            .file("./etc/a", "hello\n");
        let Some((_folder, result)) = unpack_all(&[deb]) else { return };
        let configuration = &result.expect("unpacks")[0].configuration;
        assert_eq!(configuration, &[("/etc/a".to_owned(), "b1946ac92492d2347c6235b4d2611184".to_owned())]);
    }
}
