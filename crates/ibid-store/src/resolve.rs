//! The state of a layer while its archive is unpacked: what is at each path so far. Every decision about a hostile
//! archive is made here, on names alone; the disk only follows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use crate::header::{OPAQUE_NAME, WHITEOUT_PREFIX};
use crate::manifest::{Entry, Kind, Manifest};
use crate::path::{self, LayerPath, PATH_BYTES_MAX};

/// How many links are followed on the way to one entry, as in the kernel.
const LINKS_MAX: usize = 40;
const NAME_BYTES_MAX: usize = 255;
/// Names that a union file system of old used for its own notes (OCI leaves them out of layers' meaning, too).
const UNION_PREFIX: &[u8] = b".wh..wh.";

/// Why an entry is refused.
pub(crate) type Refusal = &'static str;

/// What the name of an entry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The layer's root.
    Root,
    /// An entry.
    Entry { folder: Vec<Vec<u8>>, name: Vec<u8> },
    /// Hides what lower layers have at a path.
    Whiteout { folder: Vec<Vec<u8>>, name: Vec<u8> },
    /// Hides what lower layers have in a folder.
    Opaque { folder: Vec<Vec<u8>> },
    /// Means nothing.
    Nothing,
}

/// Takes a name of an archive apart. A leading `/` means the layer's root, as in every engine.
pub(crate) fn target(name: &[u8]) -> Result<Target, Refusal> {
    let mut components = components(name)?;
    let Some(name) = components.pop() else { return Ok(Target::Root) };
    if components.iter().any(|component| component.starts_with(WHITEOUT_PREFIX)) {
        return Err("a whiteout holds nothing");
    }
    if name == OPAQUE_NAME {
        return Ok(Target::Opaque { folder: components });
    }
    if name.starts_with(UNION_PREFIX) {
        return Ok(Target::Nothing);
    }
    match name.strip_prefix(WHITEOUT_PREFIX) {
        None => Ok(Target::Entry { folder: components, name }),
        Some(b"" | b"." | b"..") => Err("a whiteout of a folder that it is in"),
        Some(hidden) => Ok(Target::Whiteout { folder: components, name: hidden.to_vec() }),
    }
}

/// The components of a name, without empty ones and `.`.
fn components(name: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut components = Vec::new();
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err("its name climbs up by `..`"),
            _ if component.contains(&0) => return Err("its name holds a NUL byte"),
            // A whiteout hides a name, and is longer than it.
            _ if component.strip_prefix(WHITEOUT_PREFIX).unwrap_or(component).len() > NAME_BYTES_MAX => {
                return Err("a part of its name is longer than 255 bytes");
            }
            _ => components.push(component.to_vec()),
        }
    }
    Ok(components)
}

/// A file, folder or mark; hard links are several paths of one.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    /// Never a hard link.
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The number of a file's content, when it has any.
    pub(crate) content: Option<usize>,
    /// How many paths it has; [`LayerState`] counts.
    pub(crate) names: usize,
    /// A folder that the archive does not list, but has entries in.
    pub(crate) is_implied: bool,
}

impl Inode {
    /// See [`Inode::is_implied`].
    fn implied_folder(opaque: bool) -> Self {
        Self {
            kind: Kind::Folder { opaque },
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: BTreeMap::new(),
            content: None,
            names: 0,
            is_implied: true,
        }
    }

    pub(crate) fn whiteout(mtime: i64) -> Self {
        Self { kind: Kind::Whiteout, mode: 0, mtime, ..Self::implied_folder(false) }
    }

    pub(crate) fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder { .. })
    }
}

/// What the disk must do.
#[derive(Debug)]
pub(crate) enum Change {
    /// Remove what is at this path; of the contents listed, each at its path, keep the bytes: they have no other
    /// path any more.
    Remove { path: Vec<u8>, contents: Vec<(Vec<u8>, usize)> },
    /// Make a folder; its mode and so on follow at the end.
    MakeFolder { path: Vec<u8> },
}

/// What is at each path.
#[derive(Debug, Default)]
pub(crate) struct LayerState {
    paths: BTreeMap<LayerPath, usize>,
    pub(crate) inodes: Vec<Inode>,
    /// The folder that was found last, as it was asked for and where it is. Entries of a folder follow each other, and
    /// without it each entry of a deep tree would cost as many look-ups as it is deep.
    last_folder: Option<(Vec<Vec<u8>>, Vec<u8>)>,
}

impl LayerState {
    /// Finds where a folder really is, following links within the layer, and makes what is missing of it.
    pub(crate) fn folder(
        &mut self,
        folder: &[Vec<u8>],
        changes: &mut Vec<Change>,
    ) -> Result<Vec<u8>, Refusal> {
        let last = self.last_folder.take().filter(|(asked, _)| folder.starts_with(asked));
        let (known, mut here) = last.map_or((0, Vec::new()), |(asked, found)| (asked.len(), found));
        let mut rest: VecDeque<Vec<u8>> = folder[known..].iter().cloned().collect();
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                // From a link's target. The root is its own parent.
                here.truncate(path::parent(&here).len());
                continue;
            }
            let next = path::join(&here, &name);
            match self.inode(&next).map(|inode| &inode.kind) {
                Some(Kind::Folder { .. }) => here = next,
                Some(Kind::Symlink { target }) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err("links on the way to it go round in a circle");
                    }
                    if target.starts_with(b"/") {
                        here.clear();
                    }
                    for component in target.split(|&byte| byte == b'/').rev() {
                        if component.len() > NAME_BYTES_MAX {
                            return Err("a part of its name is longer than 255 bytes");
                        }
                        if !matches!(component, b"" | b".") {
                            rest.push_front(component.to_vec());
                        }
                    }
                }
                Some(Kind::Whiteout) => {
                    changes.push(self.remove(&next));
                    self.make_folder(&next, Inode::implied_folder(true), changes)?;
                    here = next;
                }
                None => {
                    self.make_folder(&next, Inode::implied_folder(false), changes)?;
                    here = next;
                }
                Some(_) => return Err("its folder is no folder"),
            }
        }
        self.last_folder = Some((folder.to_vec(), here.clone()));
        Ok(here)
    }

    /// Makes way for an entry that is no folder, and registers it.
    pub(crate) fn put(
        &mut self,
        path: &[u8],
        inode: Inode,
        changes: &mut Vec<Change>,
    ) -> Result<usize, Refusal> {
        check_length(path)?;
        if self.inode(path).is_some() {
            changes.push(self.remove(path));
        }
        Ok(self.register(path, inode))
    }

    /// Makes way for a folder and registers it. One that is there keeps what is in it.
    pub(crate) fn put_folder(
        &mut self,
        path: &[u8],
        mut inode: Inode,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        match self.inode_mut(path) {
            Some(present) if present.is_folder() => {
                inode.kind = present.kind.clone();
                inode.names = present.names;
                *present = inode;
                return Ok(());
            }
            // The layer deletes what was there and has a folder of its own.
            Some(Inode { kind: Kind::Whiteout, .. }) => inode.kind = Kind::Folder { opaque: true },
            _ => {}
        }
        if self.inode(path).is_some() {
            changes.push(self.remove(path));
        }
        self.make_folder(path, inode, changes)
    }

    /// Registers a whiteout. It hides lower layers only: what this layer has at the path stays. True when there is nothing
    /// and the whiteout is to be made.
    pub(crate) fn put_whiteout(&mut self, path: &[u8], mtime: i64) -> Result<bool, Refusal> {
        check_length(path)?;
        match self.inode_mut(path) {
            Some(present) => {
                if present.is_folder() {
                    present.kind = Kind::Folder { opaque: true };
                }
                Ok(false)
            }
            None => {
                self.register(path, Inode::whiteout(mtime));
                Ok(true)
            }
        }
    }

    /// Marks a folder opaque. For the root that says nothing: an image has no layers to hide there but by whiteouts.
    pub(crate) fn set_opaque(&mut self, folder: &[u8]) {
        if let Some(inode) = self.inode_mut(folder) {
            inode.kind = Kind::Folder { opaque: true };
        }
    }

    /// Registers another name of the file at `owner`. `None` when both names are the same.
    pub(crate) fn link(
        &mut self,
        path: &[u8],
        owner: &[u8],
        changes: &mut Vec<Change>,
    ) -> Result<Option<usize>, Refusal> {
        check_length(path)?;
        let Some(&inode) = self.paths.get(&LayerPath(owner.to_vec())) else {
            return Err("it is a hard link to what the layer does not hold");
        };
        match self.inodes[inode].kind {
            Kind::Whiteout => return Err("it is a hard link to what the layer does not hold"),
            Kind::Folder { .. } => return Err("it is a hard link to a folder"),
            _ => {}
        }
        if path::is_below(owner, path) {
            return Err("it is a hard link that takes the place of its own target");
        }
        if self.paths.get(&LayerPath(path.to_vec())) == Some(&inode) {
            return Ok(None);
        }
        if self.inode(path).is_some() {
            changes.push(self.remove(path));
        }
        self.paths.insert(LayerPath(path.to_vec()), inode);
        self.inodes[inode].names += 1;
        Ok(Some(inode))
    }

    pub(crate) fn inode(&self, path: &[u8]) -> Option<&Inode> {
        self.paths.get(&LayerPath(path.to_vec())).map(|&inode| &self.inodes[inode])
    }

    /// All folders, those in a folder before it.
    pub(crate) fn folders(&self) -> impl Iterator<Item = (&[u8], &Inode)> {
        let inodes = self.paths.iter().rev().map(|(path, &inode)| (path.0.as_slice(), &self.inodes[inode]));
        inodes.filter(|(_, inode)| inode.is_folder())
    }

    /// Paths of folders that the archive does not list, but has entries in.
    pub(crate) fn implied_folders(&self) -> BTreeSet<Vec<u8>> {
        let implied = self.folders().filter(|(_, inode)| inode.is_implied);
        implied.map(|(path, _)| path.to_vec()).collect()
    }

    /// The list of what the layer holds, and where in the tree each content is found by its number.
    pub(crate) fn finish(self) -> (Manifest, Vec<(usize, Vec<u8>)>) {
        let mut owners: Vec<Option<usize>> = vec![None; self.inodes.len()];
        let mut entries: Vec<Entry> = Vec::with_capacity(self.paths.len());
        let mut contents = Vec::new();
        for (LayerPath(path), index) in self.paths {
            let Inode { kind, mode, uid, gid, mtime, xattrs, content, .. } = self.inodes[index].clone();
            let kind = match owners[index] {
                Some(owner) => Kind::HardLink { owner: entries[owner].path.clone() },
                None => {
                    owners[index] = Some(entries.len());
                    contents.extend(content.map(|content| (content, path.clone())));
                    kind
                }
            };
            entries.push(Entry { path, kind, mode, uid, gid, mtime, xattrs });
        }
        (Manifest { entries }, contents)
    }

    fn inode_mut(&mut self, path: &[u8]) -> Option<&mut Inode> {
        self.paths.get(&LayerPath(path.to_vec())).map(|&inode| &mut self.inodes[inode])
    }

    fn register(&mut self, path: &[u8], mut inode: Inode) -> usize {
        inode.names = 1;
        self.inodes.push(inode);
        self.paths.insert(LayerPath(path.to_vec()), self.inodes.len() - 1);
        self.inodes.len() - 1
    }

    fn make_folder(&mut self, path: &[u8], inode: Inode, changes: &mut Vec<Change>) -> Result<(), Refusal> {
        check_length(path)?;
        self.register(path, inode);
        changes.push(Change::MakeFolder { path: path.to_vec() });
        Ok(())
    }

    /// Forgets a path and all below it.
    fn remove(&mut self, path: &[u8]) -> Change {
        // It may have led through what goes.
        self.last_folder = None;
        let from = LayerPath(path.to_vec());
        let range = self.paths.range((Bound::Included(&from), Bound::Unbounded));
        let gone: Vec<LayerPath> = range
            .map(|(path, _)| path)
            .take_while(|below| below.0 == path || path::is_below(&below.0, path))
            .cloned()
            .collect();
        let mut contents = Vec::new();
        for gone in gone {
            let Some(index) = self.paths.remove(&gone) else { continue };
            let inode = &mut self.inodes[index];
            inode.names -= 1;
            // Under another name the content stays in the tree.
            if inode.names == 0 {
                contents.extend(inode.content.map(|content| (gone.0, content)));
            }
        }
        Change::Remove { path: path.to_vec(), contents }
    }
}

fn check_length(path: &[u8]) -> Result<(), Refusal> {
    if path.len() > PATH_BYTES_MAX { Err("its path is longer than 4095 bytes") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_and_never_climb() {
        #[track_caller]
        fn check(name: &str, expected: Result<Target, Refusal>) {
            assert_eq!(target(name.as_bytes()), expected, "{name:?}");
        }
        let folder = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
        let entry = |names: &[&str], name: &str| {
            Ok(Target::Entry { folder: folder(names), name: name.as_bytes().to_vec() })
        };
        let whiteout = |names: &[&str], name: &str| {
            Ok(Target::Whiteout { folder: folder(names), name: name.as_bytes().to_vec() })
        };
        for root in ["", ".", "./", "/", "//", "/./"] {
            check(root, Ok(Target::Root));
        }
        check("a", entry(&[], "a"));
        check("./a/b/", entry(&["a"], "b"));
        check("/a//b/./c", entry(&["a", "b"], "c"));
        check("...", entry(&[], "..."));
        for climbing in ["..", "../a", "a/..", "a/../b", "/../a", "a/b/../../.."] {
            check(climbing, Err("its name climbs up by `..`"));
        }
        check("a\0b", Err("its name holds a NUL byte"));
        check(&"a".repeat(255), entry(&[], &"a".repeat(255)));
        check(&"a".repeat(256), Err("a part of its name is longer than 255 bytes"));
        check(".wh.a", whiteout(&[], "a"));
        check(&format!(".wh.{}", "a".repeat(255)), whiteout(&[], &"a".repeat(255)));
        check(&format!(".wh.{}", "a".repeat(256)), Err("a part of its name is longer than 255 bytes"));
        check("x/.wh.a", whiteout(&["x"], "a"));
        check("x/.wh..wh..opq", Ok(Target::Opaque { folder: folder(&["x"]) }));
        check(".wh..wh.plnk", Ok(Target::Nothing));
        for parent in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
            check(parent, Err("a whiteout of a folder that it is in"));
        }
        check(".wh.a/b", Err("a whiteout holds nothing"));
    }
}
