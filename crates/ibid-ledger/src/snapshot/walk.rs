//! Which files are code: listing the project in parallel, less what is left out.
//!
//! | path | is code |
//! |---|---|
//! | `.git`, the project's `.ibid`, outputs and data | never |
//! | what git tracks, in the repository or a submodule; the Dockerfile and ibid's own files | always |
//! | what `.gitignore`, `.git/info/exclude` or `.dockerignore` leaves out | no |
//! | a Python virtual environment, `__pycache__`, a file over [`LARGE_BYTES`] | no |
//! | everything else | yes, and folders too |

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ibid_core::dockerignore::Verdict;
use ibid_files::beneath::{open_beneath, open_root};
use ibid_files::parallel;
use ibid_files::stamp::Stamp;
use rustix::fs::{AtFlags, FileType, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::repository::{Level, Repository, ignore_file};
use super::surroundings::{Docker, clean, surroundings};
use super::{Exclusions, LARGE_BYTES};
use crate::ledger::{Error, FOLDER, io};

/// Without these, nobody could build the image again.
const ALWAYS: [&[u8]; 4] = [b"Dockerfile", b".dockerignore", b"ibid.toml", b"ibid.lock"];

/// What is code, and what lies beside it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Sorted by path; the project's own, with the empty path, first.
    pub(super) folders: Vec<Folder>,
    /// Paths that are left out, folders whole. Sorted.
    pub(super) dropped: Vec<Dropped>,
    /// Files that are left out as they are too large. Sorted.
    pub(super) large: Vec<PathBuf>,
}

/// A folder, and what is right in it apart from folders.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: Vec<u8>,
    /// False when it only counts if something in it does.
    pub(super) is_code: bool,
    /// Sorted by name.
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: Box<[u8]>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    File { executable: bool, stamp: Stamp },
    Link { target: Box<[u8]> },
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dropped {
    pub(super) path: Vec<u8>,
    pub(super) why: Why,
}

/// Why a path is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// An ignore file says so. It may hold what a program uses.
    Ignored {
        is_folder: bool,
    },
    Environment,
    Unreadable,
    /// A socket, pipe or device.
    Special,
}

/// The project and the rules that hold everywhere in it.
pub(super) struct Project<'a> {
    root: &'a Path,
    pub(super) root_fd: OwnedFd,
    excluded: Vec<Vec<u8>>,
    always: Vec<Vec<u8>>,
    docker: Docker<'a>,
    /// The project's path in its repository, with a `/` at its end. In front of a path it makes the full one.
    prefix: Vec<u8>,
    first: Option<Place>,
}

/// A folder that is to be listed.
#[derive(Debug, Clone)]
struct Place {
    path: Vec<u8>,
    level: Option<Arc<Level>>,
    repository: Option<Arc<Repository>>,
    docker: Verdict,
    /// Only what is code whatever the rules say is.
    ignored: bool,
    is_code: bool,
}

impl<'a> Project<'a> {
    pub(super) fn open(root: &'a Path, exclusions: &'a Exclusions) -> Result<Self, Error> {
        let root_fd = open_root(root).map_err(|errno| io("open the folder", root)(errno.into()))?;
        let (docker, verdict) = Docker::new(root, exclusions);
        let surroundings = surroundings(root);
        let mut project = Self {
            root,
            root_fd,
            excluded: exclusions.outputs_and_data.iter().filter_map(|path| clean(root, path)).collect(),
            always: ALWAYS
                .iter()
                .map(|name| name.to_vec())
                .chain(exclusions.always.iter().filter_map(|path| clean(root, path)))
                .collect(),
            docker,
            prefix: Vec::new(),
            first: None,
        };
        let (level, repository) = match surroundings {
            Some((prefix, level, repository)) => {
                project.prefix = prefix;
                (level, Some(Arc::new(repository)))
            }
            None => (None, None),
        };
        project.first = Some(Place {
            path: Vec::new(),
            level,
            repository,
            docker: verdict,
            ignored: false,
            is_code: true,
        });
        Ok(project)
    }

    /// Lists what is code.
    pub(super) fn list(&self) -> Result<Listing, Error> {
        let first = self.first.clone().expect("an open project has its first place");
        let lister = || Lister {
            project: self,
            buffer: vec![MaybeUninit::uninit(); 32 * 1024],
            found: Listing::default(),
        };
        let listers = parallel::each(first, lister, |lister, place, more| lister.list(place, more))?;
        let mut all = Listing::default();
        for Lister { mut found, .. } in listers {
            all.folders.append(&mut found.folders);
            all.dropped.append(&mut found.dropped);
            all.large.append(&mut found.large);
        }
        all.folders.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        all.dropped.sort_unstable();
        all.large.sort_unstable();
        Ok(all)
    }

    /// Whether a path is code whatever the ignore files say.
    fn is_wanted(&self, place: &Place, path: &[u8], full_path: &[u8], is_folder: bool) -> bool {
        let is_named = |wanted: &Vec<u8>| match wanted.strip_prefix(path) {
            Some(rest) => rest.is_empty() || is_folder && rest.starts_with(b"/"),
            None => false,
        };
        self.always.iter().any(is_named)
            || place.repository.as_ref().is_some_and(|repository| repository.tracks(full_path, is_folder))
    }

    pub(super) fn absolute(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }
}

struct Lister<'a> {
    project: &'a Project<'a>,
    buffer: Vec<MaybeUninit<u8>>,
    found: Listing,
}

impl Lister<'_> {
    fn list(&mut self, mut place: Place, more: &mut Vec<Place>) -> Result<(), Error> {
        let project = self.project;
        let failed = |errno: Errno| io("list the folder", &project.absolute(&place.path))(errno.into());
        let fd = match open_beneath(&project.root_fd, &place.path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            // Gone, or another thing, since its name was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !place.path.is_empty() => return Ok(()),
            Err(Errno::ACCESS | Errno::PERM) if !place.path.is_empty() => {
                self.drop(place.path, Why::Unreadable);
                return Ok(());
            }
            Err(errno) => return Err(failed(errno)),
        };
        // All names first: the ignore files among them decide about the others.
        let mut names: Vec<(Box<[u8]>, FileType)> = Vec::new();
        let mut listed = RawDir::new(&fd, &mut self.buffer);
        while let Some(entry) = listed.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push((name.into(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let has = |name: &[u8]| names.binary_search_by(|(other, _)| (**other).cmp(name)).is_ok();
        let mut path = place.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        let start = path.len();
        if !place.path.is_empty() {
            if has(b".git") {
                self.enter_repository(&mut place, start);
            }
            if has(b"pyvenv.cfg") && !place.ignored {
                let full_path = [project.prefix.as_slice(), &place.path].concat();
                if !project.is_wanted(&place, &place.path, &full_path, true) {
                    self.drop(place.path, Why::Environment);
                    return Ok(());
                }
                (place.ignored, place.is_code) = (true, false);
            }
        }
        if has(b".gitignore") && !place.ignored {
            let rules = ignore_file(&project.absolute(&place.path).join(".gitignore"));
            place.level = Level::below(place.level, project.prefix.len() + start, rules);
        }
        let mut nodes = Vec::with_capacity(names.len());
        for (name, file_type) in names {
            path.truncate(start);
            path.extend(&name);
            if let Some(node) = self.look(&fd, &place, name, file_type, &path, more)? {
                nodes.push(node);
            }
        }
        self.found.folders.push(Folder { path: place.path, is_code: place.is_code, nodes });
        Ok(())
    }

    /// A repository in the project, such as a submodule: the rules of the one around it say nothing about what it holds.
    fn enter_repository(&self, place: &mut Place, start: usize) {
        let skip = self.project.prefix.len() + start;
        if let Some(repository) = Repository::open(&self.project.absolute(&place.path), skip) {
            place.level = Level::below(None, skip, repository.exclude());
            place.repository = Some(Arc::new(repository));
            (place.ignored, place.is_code) = (false, true);
        }
    }

    /// What one name is: a node, another place in `more`, or nothing.
    fn look(
        &mut self,
        fd: &OwnedFd,
        place: &Place,
        name: Box<[u8]>,
        file_type: FileType,
        path: &[u8],
        more: &mut Vec<Place>,
    ) -> Result<Option<Node>, Error> {
        let project = self.project;
        if *name == *b".git"
            || path == FOLDER.as_bytes()
            || project.excluded.iter().any(|other| other == path)
        {
            return Ok(None);
        }
        let mut known = None;
        let is_folder = match file_type {
            FileType::Unknown => {
                known = self.stat(fd, &name, path)?;
                known.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            }
            file_type => file_type == FileType::Directory,
        };
        let full_path = [project.prefix.as_slice(), path].concat();
        let full_path = full_path.as_slice();
        let docker = project.docker.verdict(place.docker, path);
        let by_git = place.ignored || Level::ignores(place.level.as_ref(), full_path, is_folder);
        let mut below = Place {
            path: Vec::new(),
            level: place.level.clone(),
            repository: place.repository.clone(),
            docker,
            ignored: by_git,
            is_code: true,
        };
        if by_git || docker.ignored || is_folder && *name == *b"__pycache__" {
            let is_open = is_folder && docker.ignored && project.docker.may_descend(docker, path);
            let is_looked_into = is_open && !by_git;
            if !is_looked_into && !project.is_wanted(place, path, full_path, is_folder) {
                if *name != *b"__pycache__" {
                    self.drop(path.to_vec(), Why::Ignored { is_folder });
                }
                return Ok(None);
            }
            below.ignored |= *name == *b"__pycache__" || docker.ignored && !is_open;
            below.is_code = false;
        }
        if is_folder {
            below.path = path.to_vec();
            more.push(below);
            return Ok(None);
        }
        let stat = match known {
            Some(stat) => Some(stat),
            None => self.stat(fd, &name, path)?,
        };
        let Some(stat) = stat else { return Ok(None) };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let stamp = Stamp::of(&stat);
                if stamp.size > LARGE_BYTES && !project.is_wanted(place, path, full_path, false) {
                    self.found.large.push(OsStr::from_bytes(path).into());
                    return Ok(None);
                }
                Kind::File { executable: stat.st_mode & 0o100 != 0, stamp }
            }
            FileType::Symlink => match rustix::fs::readlinkat(fd.as_fd(), &*name, Vec::new()) {
                Ok(target) => Kind::Link { target: target.into_bytes().into() },
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(io("read the link", &project.absolute(path))(errno.into())),
            },
            // A folder since its name was read: it is noticed at the end of the run.
            FileType::Directory => return Ok(None),
            _ => {
                self.drop(path.to_vec(), Why::Special);
                return Ok(None);
            }
        };
        Ok(Some(Node { name, kind }))
    }

    /// The attributes of a name; none when it is gone or they cannot be read.
    fn stat(&mut self, fd: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::ACCESS | Errno::PERM) => {
                self.drop(path.to_vec(), Why::Unreadable);
                Ok(None)
            }
            Err(errno) => Err(io("read the attributes of", &self.project.absolute(path))(errno.into())),
        }
    }

    fn drop(&mut self, path: Vec<u8>, why: Why) {
        self.found.dropped.push(Dropped { path, why });
    }
}
