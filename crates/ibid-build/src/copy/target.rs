//! The root file system that a copy writes to.
//!
//! Links are followed once, in the destination that the instruction names, and inside the root ([`Target::follow`]).
//! Everything after that works on paths without links and opens nothing through one.
//!
//! What is written to an overlay costs about twice what it costs on the file system below. A folder that was made here hides
//! whatever is below it, so all that is ever in it is in the overlay's upper folder, and can be written there. Then everything
//! in it is looked for there, too, and never through the overlay, which may remember names as missing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::Error;

/// How many links a destination may go through before they count as a circle.
const LINKS_MAX: usize = 255;
/// Folders that are kept open: few are needed at once, and descriptors are not without number.
const FOLDERS_MAX: usize = 256;

/// User and group.
pub(super) type Owner = (u32, u32);

/// A root file system. Paths are relative to it and, but for [`Target::follow`], without links.
pub(super) struct Target {
    top: Top,
    /// The upper folder of the overlay that the root is, for what is in folders made here; none when all goes through the root.
    upper: Option<Top>,
    /// Folders made here in others that were there before, when there is an upper folder.
    made: HashSet<PathBuf>,
    /// Folders that are open, by path.
    folders: HashMap<PathBuf, Arc<OwnedFd>>,
}

/// A folder that paths are relative to.
struct Top {
    path: PathBuf,
    folder: OwnedFd,
}

impl Top {
    fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|errno| Error::Source {
            action: "open the folder",
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self { path: path.to_owned(), folder })
    }
}

impl Target {
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let top = Top::open(root)?;
        Ok(Self { top, upper: None, made: HashSet::new(), folders: HashMap::new() })
    }

    /// As [`Target::open`], of an overlay with the upper folder `upper`. For what makes no hard links: they could not lead from one
    /// to the other.
    pub(super) fn open_over(root: &Path, upper: &Path) -> Result<Self, Error> {
        Ok(Self { upper: Some(Top::open(upper)?), ..Self::open(root)? })
    }

    /// What a path is to be looked for in.
    fn top_of(&self, path: &Path) -> &Top {
        match &self.upper {
            Some(upper) if self.is_in_made(path) => upper,
            _ => &self.top,
        }
    }

    /// Whether it is a folder made here, or in one.
    fn is_in_made(&self, path: &Path) -> bool {
        path.ancestors().any(|folder| self.made.contains(folder))
    }

    /// Where a path leads, links followed inside the root, the last one too. What does not exist stays as it is.
    pub(super) fn follow(&self, path: &Path) -> Result<PathBuf, Error> {
        let names = |path: &[u8]| -> VecDeque<Vec<u8>> {
            path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect()
        };
        let mut rest = names(path.as_os_str().as_bytes());
        let mut real = PathBuf::new();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    real.pop();
                    continue;
                }
                _ => {}
            }
            let next = real.join(OsStr::from_bytes(&name));
            match self.stat(&next)? {
                Some(stat) if file_type(&stat) == FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(in_image("follow the links of", path)(Errno::LOOP));
                    }
                    let folder = self.resolve(&real, OFlags::DIRECTORY);
                    let link = folder
                        .and_then(|folder| rustix::fs::readlinkat(&folder, &name[..], Vec::new()))
                        .map_err(in_image("read the link", &next))?;
                    if link.as_bytes().starts_with(b"/") {
                        real.clear();
                    }
                    for name in names(link.as_bytes()).into_iter().rev() {
                        rest.push_front(name);
                    }
                }
                _ => real = next,
            }
        }
        Ok(real)
    }

    /// Opens what is at a path; a link in it is an error.
    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let top = self.top_of(path);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::openat2(
            &top.folder,
            path,
            OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW | flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// What is at a path; none when nothing is.
    pub(super) fn stat(&self, path: &Path) -> Result<Option<Stat>, Error> {
        let Some(name) = path.file_name() else {
            return rustix::fs::fstat(&self.top.folder).map(Some).map_err(in_image("look at", path));
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let stat = match self.folders.get(parent) {
            Some(folder) => rustix::fs::statat(&**folder, name, AtFlags::SYMLINK_NOFOLLOW),
            None => self
                .resolve(parent, OFlags::DIRECTORY)
                .and_then(|folder| rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)),
        };
        match stat {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(in_image("look at", path)(errno)),
        }
    }

    pub(super) fn is_folder(&self, path: &Path) -> Result<bool, Error> {
        Ok(self.stat(path)?.is_some_and(|stat| file_type(&stat) == FileType::Directory))
    }

    /// A folder, made with mode 755 together with those above it when it is missing.
    pub(super) fn folder(&mut self, path: &Path, owner: Owner) -> Result<Arc<OwnedFd>, Error> {
        if let Some(folder) = self.folders.get(path) {
            return Ok(Arc::clone(folder));
        }
        let folder = match self.resolve(path, OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                let name = path.file_name().ok_or_else(|| in_image("make the folder", path)(Errno::NOENT))?;
                let parent = self.folder(path.parent().unwrap_or(Path::new("")), owner)?;
                self.make_folder(&parent, name, path, 0o755, owner)?;
                self.resolve(path, OFlags::DIRECTORY)
            }
            resolved => resolved,
        };
        let folder = match folder {
            Ok(folder) => Arc::new(folder),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let is_other = |path: &&Path| matches!(self.is_folder(path), Ok(false));
                let in_the_way = path.ancestors().filter(is_other).last().unwrap_or(path);
                return Err(Error::Kind {
                    path: in_the_way.to_owned(),
                    found: "no folder",
                    wanted: "a folder",
                });
            }
            Err(errno) => return Err(in_image("open the folder", path)(errno)),
        };
        if self.folders.len() >= FOLDERS_MAX {
            self.folders.clear();
        }
        self.folders.insert(path.to_owned(), Arc::clone(&folder));
        Ok(folder)
    }

    /// The open folder that a path is in, made when missing, and its last name.
    pub(super) fn place(&mut self, path: &Path, owner: Owner) -> Result<(Arc<OwnedFd>, OsString), Error> {
        let Some(name) = path.file_name() else {
            return Err(Error::Kind { path: path.to_owned(), found: "a folder", wanted: "a file" });
        };
        let folder = self.folder(path.parent().unwrap_or(Path::new("")), owner)?;
        Ok((folder, name.to_owned()))
    }

    /// Makes a folder that must not exist, in one that is open.
    pub(super) fn make_folder(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
        mode: u32,
        owner: Owner,
    ) -> Result<(), Error> {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))
            .map_err(in_image("make the folder", path))?;
        own(&open_folder(parent, name, path)?, path, mode, owner)?;
        if self.upper.is_some() && !self.is_in_made(path) {
            self.made.insert(path.to_owned());
        }
        Ok(())
    }

    /// Removes what is at a path, with all that it holds.
    pub(super) fn remove(&mut self, path: &Path) -> Result<(), Error> {
        let Some(stat) = self.stat(path)? else { return Ok(()) };
        let full = self.top_of(path.parent().unwrap_or(path)).path.join(path);
        if file_type(&stat) == FileType::Directory {
            self.folders.retain(|known, _| !known.starts_with(path));
            self.made.retain(|known| !known.starts_with(path));
            std::fs::remove_dir_all(full)
        } else {
            std::fs::remove_file(full)
        }
        .map_err(in_image("replace", path))
    }

    /// The number of folders that are open.
    pub(super) fn is_crowded(&self) -> bool {
        self.folders.len() >= FOLDERS_MAX - 1
    }

    /// Closes all folders.
    pub(super) fn close(&mut self) {
        self.folders.clear();
    }
}

/// Opens a folder so that its attributes can be set.
pub(super) fn open_folder(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(in_image("open the folder", path))
}

/// Owner first: changing it clears the set-id bits.
pub(super) fn own(file: &impl AsFd, path: &Path, mode: u32, owner: Owner) -> Result<(), Error> {
    ibid_sys::owner::change(file, owner).map_err(in_image("set the owner of", path))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(in_image("set the mode of", path))
}

pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(super) fn in_image<E: Into<std::io::Error>>(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> Error {
    let path = path.strip_prefix("/").unwrap_or(path).to_owned();
    move |source| Error::Image { action, path, source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_inside_the_root() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let root = place.path().join("root");
        std::fs::create_dir_all(root.join("real/deep")).expect("folders");
        std::fs::write(root.join("real/file"), "").expect("a file");
        std::fs::create_dir(place.path().join("outside")).expect("a folder");
        for (target, link) in [
            ("real", "relative"),
            ("/real/deep", "absolute"),
            ("../../outside", "climbs"),
            ("../../../../..", "real/out"),
            ("missing/../x", "dangling"),
            ("loop", "loop"),
            ("relative/deep", "chain"),
            ("/real/file", "to-file"),
        ] {
            symlink(target, root.join(link)).expect("a link");
        }
        symlink(place.path().join("outside"), root.join("host")).expect("a link");
        let target = Target::open(&root).expect("opens");
        let check = |path: &str, expected: &str| {
            assert_eq!(target.follow(Path::new(path)).expect(path), Path::new(expected), "{path}");
        };
        check("real/file", "real/file");
        check("", "");
        check("/", "");
        check("relative/new", "real/new");
        check("absolute/new/er", "real/deep/new/er");
        check("climbs", "outside");
        check("climbs/x", "outside/x");
        check("real/out/x", "x");
        check("dangling/y", "x/y");
        check("chain/x", "real/deep/x");
        check("to-file", "real/file");
        check("real/deep/../../../x", "x");
        let host = place.path().join("outside").display().to_string();
        check("host/x", &format!("{host}/x")[1..]);
        assert!(matches!(target.follow(Path::new("loop/x")), Err(Error::Image { .. })));
    }

    #[test]
    fn nothing_is_opened_through_a_link() {
        let place = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(place.path().join("root/real")).expect("folders");
        symlink("real", place.path().join("root/link")).expect("a link");
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let mut target = Target::open(&place.path().join("root")).expect("opens");
        assert!(matches!(target.folder(Path::new("link"), owner), Err(Error::Kind { .. })));
        assert!(matches!(target.folder(Path::new("link/below"), owner), Err(Error::Kind { .. })));
        std::fs::write(place.path().join("root/real/file"), "").expect("a file");
        for (path, expected) in [("real/file/x/y", "real/file"), ("link/below/x", "link")] {
            let error = target.folder(Path::new(path), owner).expect_err(path);
            assert!(matches!(&error, Error::Kind { path, .. } if path == Path::new(expected)), "{error}");
        }
        assert!(target.folder(Path::new("real/new/er"), owner).is_ok());
        assert!(place.path().join("root/real/new/er").is_dir());
    }
}
