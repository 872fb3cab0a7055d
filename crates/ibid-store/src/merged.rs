//! Looking at stacked layers without mounting them: what a path is once all layers lie over each other.
//! Links are followed inside the stack and never leave it.
//!
//! The rules are overlayfs' own: a character device 0/0 hides what lies below, a folder marked
//! `user.overlay.opaque` hides the folders below it, anything that is no folder hides everything below.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// How many links are followed, as in the kernel.
const LINKS_MAX: usize = 40;

/// Stacked folders, topmost first.
#[derive(Debug, Clone)]
pub struct MergedView {
    lowers: Vec<PathBuf>,
}

/// What a path in the stack is.
#[derive(Debug)]
pub enum Found {
    /// A folder: the folders on disk that make it up, topmost first.
    Folder(Vec<PathBuf>),
    /// Anything else: where it is on disk.
    Other(PathBuf),
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Absolute, without links and `..`.
    pub path: PathBuf,
    /// Which of it and the folders above it are not there, outermost first.
    pub missing: Vec<PathBuf>,
}

/// The way that a path goes, without links.
#[derive(Default)]
struct Way {
    /// Folders on the way, each with the folders on disk that make it up; none when it is not there. `..` leaves the
    /// last, and never the root.
    entered: Vec<(OsString, Option<Vec<PathBuf>>)>,
    /// What is at the end when that is no folder: where it is on disk, and its name.
    other: Option<PathBuf>,
    other_name: Option<OsString>,
}

impl MergedView {
    /// Stacks folders, topmost first.
    pub fn new(lowers: Vec<PathBuf>) -> Self {
        Self { lowers }
    }

    /// Finds `path`, which is taken from the root of the stack; links are followed, the last one too.
    /// None when there is nothing, or when links go round in a circle.
    pub fn find(&self, path: &Path) -> std::io::Result<Option<Found>> {
        let Some(way) = self.walk(path, false)? else { return Ok(None) };
        if let Some(other) = way.other {
            return Ok(Some(Found::Other(other)));
        }
        let folders =
            way.entered.into_iter().next_back().map_or_else(|| Some(self.lowers.clone()), |it| it.1);
        Ok(folders.map(Found::Folder))
    }

    /// Where `path` leads, whether or not something is there; links are followed, the last one too, and those to
    /// nowhere as well. None when links go round in a circle, or through what is no folder.
    pub fn place(&self, path: &Path) -> std::io::Result<Option<Place>> {
        let Some(way) = self.walk(path, true)? else { return Ok(None) };
        let mut place = Place { path: PathBuf::from("/"), missing: Vec::new() };
        for (name, folders) in &way.entered {
            place.path.push(name);
            if folders.is_none() {
                place.missing.push(place.path.clone());
            }
        }
        if let Some(name) = way.other_name {
            place.path.push(name);
        }
        Ok(Some(place))
    }

    /// Follows `path`; `through_missing` goes on where nothing is.
    fn walk(&self, path: &Path, through_missing: bool) -> std::io::Result<Option<Way>> {
        let mut links = 0;
        let mut way = Way::default();
        let mut rest: VecDeque<OsString> = names(path);
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                way.entered.pop();
                continue;
            }
            let found = match way.entered.last() {
                Some((_, None)) => None,
                Some((_, Some(folders))) => lookup(folders, Path::new(&name))?,
                None => lookup(&self.lowers, Path::new(&name))?,
            };
            match found {
                None if !through_missing => return Ok(None),
                None => way.entered.push((name, None)),
                Some(Found::Folder(folders)) => way.entered.push((name, Some(folders))),
                Some(Found::Other(found)) => {
                    if std::fs::symlink_metadata(&found)?.is_symlink() {
                        links += 1;
                        if links > LINKS_MAX {
                            return Ok(None);
                        }
                        let target = std::fs::read_link(&found)?;
                        if target.is_absolute() {
                            way.entered.clear();
                        }
                        for name in names(&target).into_iter().rev() {
                            rest.push_front(name);
                        }
                    } else if rest.is_empty() {
                        (way.other, way.other_name) = (Some(found), Some(name));
                    } else {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(way))
    }

    /// Reads a regular file of at most `bytes_max` bytes; none when there is no such file.
    pub fn read(&self, path: &Path, bytes_max: u64) -> std::io::Result<Option<Vec<u8>>> {
        let Some(Found::Other(found)) = self.find(path)? else { return Ok(None) };
        if !std::fs::symlink_metadata(&found)?.is_file() {
            return Ok(None);
        }
        let mut content = Vec::new();
        std::fs::File::open(&found)?.take(bytes_max).read_to_end(&mut content)?;
        Ok(Some(content))
    }
}

/// The names in a path, `..` kept.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from_vec(b"..".to_vec())),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// What `name` is in a folder that is made up of `folders`.
fn lookup(folders: &[PathBuf], name: &Path) -> std::io::Result<Option<Found>> {
    let mut found = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            let is_opaque = is_opaque(&path)?;
            found.push(path);
            if is_opaque {
                break;
            }
        } else if !found.is_empty() || metadata.file_type().is_char_device() && metadata.rdev() == 0 {
            break;
        } else {
            return Ok(Some(Found::Other(path)));
        }
    }
    Ok(if found.is_empty() { None } else { Some(Found::Folder(found)) })
}

fn is_opaque(folder: &Path) -> std::io::Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(folder, c"user.overlay.opaque", &mut value) {
        Ok(length) => Ok(length == 1 && value[0] == b'y'),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn view() -> (tempfile::TempDir, MergedView) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (top, low) = (folder.path().join("top"), folder.path().join("low"));
        for path in ["top/etc", "low/etc", "top/opaque", "low/opaque", "low/usr/lib"] {
            fs::create_dir_all(folder.path().join(path)).expect("folder");
        }
        for (path, content) in [
            ("low/etc/passwd", "low"),
            ("top/etc/group", "top"),
            ("low/etc/group", "low"),
            ("low/opaque/hidden", "low"),
            ("low/usr/lib/file", "low"),
            ("low/dir", "file below"),
        ] {
            fs::write(folder.path().join(path), content).expect("file");
        }
        fs::create_dir(top.join("dir")).expect("folder");
        symlink("/usr/lib", top.join("lib")).expect("link");
        symlink("../../../usr/lib/file", top.join("etc/up")).expect("link");
        symlink("loop", top.join("loop")).expect("link");
        rustix::fs::lsetxattr(
            top.join("opaque"),
            c"user.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        )
        .expect("user xattrs");
        (folder, MergedView::new(vec![top, low]))
    }

    #[test]
    fn upper_files_win_and_links_stay_inside() {
        let (_folder, view) = view();
        let check = |path: &str, expected: Option<&str>| {
            let content = view.read(Path::new(path), 100).expect(path);
            assert_eq!(content.as_deref(), expected.map(str::as_bytes), "{path}");
        };
        check("/etc/passwd", Some("low"));
        check("/etc/group", Some("top"));
        check("lib/file", Some("low"));
        check("/etc/up", Some("low"));
        check("/etc/../../etc/passwd", Some("low"));
        check("/opaque/hidden", None);
        check("/loop", None);
        check("/etc", None);
        check("/etc/passwd/x", None);
        check("/absent", None);
    }

    #[test]
    fn places_are_known_before_they_exist() {
        let (folder, view) = view();
        let top = folder.path().join("top");
        symlink("/var/new/../cache", top.join("to-missing")).expect("link");
        symlink("/usr/lib", top.join("etc/usr")).expect("link");
        let check = |path: &str, expected: &str, missing: &[&str]| {
            let place = view.place(Path::new(path)).expect(path).expect(path);
            assert_eq!(place.path, Path::new(expected), "{path}");
            assert_eq!(place.missing, missing.iter().map(PathBuf::from).collect::<Vec<_>>(), "{path}");
        };
        check("/", "/", &[]);
        check("/etc", "/etc", &[]);
        check("/etc/passwd", "/etc/passwd", &[]);
        check("/etc/new", "/etc/new", &["/etc/new"]);
        check("/a/b/c", "/a/b/c", &["/a", "/a/b", "/a/b/c"]);
        check("/lib/x/y", "/usr/lib/x/y", &["/usr/lib/x", "/usr/lib/x/y"]);
        check("/etc/usr/x", "/usr/lib/x", &["/usr/lib/x"]);
        check("/etc/up", "/usr/lib/file", &[]);
        check("/to-missing/x", "/var/cache/x", &["/var", "/var/cache", "/var/cache/x"]);
        check("/../../etc/../new", "/new", &["/new"]);
        check("/new/../etc/group", "/etc/group", &[]);
        check("/opaque/hidden", "/opaque/hidden", &["/opaque/hidden"]);
        assert_eq!(view.place(Path::new("/loop/x")).expect("readable"), None);
        assert_eq!(view.place(Path::new("/etc/passwd/x")).expect("readable"), None);
        assert!(view.find(Path::new("/new/../etc/group")).expect("readable").is_none(), "nothing is at /new");
    }

    #[test]
    fn folders_are_merged_until_something_hides_them() {
        let (_folder, view) = view();
        let count = |path: &str| match view.find(Path::new(path)).expect(path) {
            Some(Found::Folder(folders)) => folders.len(),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(count("/"), 2);
        assert_eq!(count("/etc"), 2);
        assert_eq!(count("/opaque"), 1);
        assert_eq!(count("/dir"), 1);
        assert_eq!(count("/lib"), 1);
    }
}
