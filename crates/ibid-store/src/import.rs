//! Unpacking a layer's archive, which may be hostile.
//!
//! | module | its part |
//! |---|---|
//! | [`crate::tar_stream`] | bytes → headers; hashes all of them |
//! | [`crate::resolve`] | headers → what the layer holds; refuses what must not be |
//! | [`crate::unpack`] | what the layer holds → files |
//! | [`crate::split`] | keeps the bytes between contents, for the same archive again |
//!
//! Nothing is visible before all of the archive was read and its digest is known.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use ibid_core::digest::DiffId;

use crate::attributes::travels;
use crate::draft::make_layer_folder;
use crate::layers::write_manifest;
use crate::manifest::Kind;
use crate::path::{self, to_path};
use crate::resolve::{Change, Inode, LayerState, Refusal, Target, target};
use crate::split::{Place, SplitWriter};
use crate::staging::StagedFolder;
use crate::tar_stream::{Header, Sparse, TarStream, TarType};
use crate::unpack::{Job, Unpacker, with_unpacker};
use crate::{Error, Result, Store};

/// Files up to this size are made by several threads, larger ones while they are read.
const SMALL_BYTES_MAX: u64 = 1 << 20;
const COPY_BYTES: usize = 256 << 10;
/// Most memory that names, links and attributes of all entries may take: some millions of entries. What they hold goes
/// to the disk.
const ENTRIES_BYTES_MAX: usize = 1 << 30;
/// What an entry takes beside them, about.
const ENTRY_BYTES: usize = 400;

/// A layer that was unpacked and is not visible yet: gone when dropped before [`UnpackedLayer::publish`]. So the caller
/// can first check what else it knows about it.
#[derive(Debug)]
pub struct UnpackedLayer {
    store: Store,
    draft: StagedFolder,
    diff_id: DiffId,
}

impl UnpackedLayer {
    /// The digest of its archive.
    pub fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    /// Gives it its name in the store.
    pub fn publish(self) -> Result<()> {
        self.store.publish_layer(self.draft, self.diff_id)
    }
}

/// An unpacked archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedArchive {
    /// What it became.
    pub layer: DiffId,
    /// Paths of folders that it does not list, but has entries in.
    pub implied_folders: BTreeSet<Vec<u8>>,
}

impl Store {
    /// Unpacks an uncompressed tar archive and publishes it as a layer. Returns the digest of the archive's bytes, all
    /// of them up to the end of the stream.
    ///
    /// The archive may come from anywhere. Names that climb up by `..`, hard links to what the layer does not hold,
    /// and the like are refused; links within the layer are followed within it; of entries with the same path the last
    /// counts. [`Store::write_layer_tar`] gives the same bytes again.
    pub fn import_layer(&self, tar: impl Read) -> Result<DiffId> {
        Ok(self.import_archive(tar)?.layer)
    }

    /// The same for an archive that is no layer, of which something is copied on: it matters then which folders the
    /// archive itself lists.
    pub fn import_archive(&self, tar: impl Read) -> Result<ImportedArchive> {
        let (unpacked, implied_folders) = self.unpack(tar)?;
        let layer = unpacked.diff_id;
        unpacked.publish()?;
        Ok(ImportedArchive { layer, implied_folders })
    }

    /// As [`Store::import_layer`], but leaves it to the caller to make the layer visible.
    pub fn unpack_layer(&self, tar: impl Read) -> Result<UnpackedLayer> {
        Ok(self.unpack(tar)?.0)
    }

    fn unpack(&self, tar: impl Read) -> Result<(UnpackedLayer, BTreeSet<Vec<u8>>)> {
        let draft = StagedFolder::new(&self.tmp())?;
        make_layer_folder(&draft)?;
        let folder = draft.path().join("layer");
        let stream = TarStream::of_layer(tar, SplitWriter::new(&folder)?);
        let (diff_id, manifest, implied_folders) = with_unpacker(&folder, |unpacker| {
            let memory = Memory { bytes_left: ENTRIES_BYTES_MAX };
            let mut import = Import { stream, state: LayerState::default(), contents: 0, memory, unpacker };
            while let Some(header) = import.stream.next()? {
                import.entry(header)?;
            }
            import.finish(&folder)
        })?;
        write_manifest(&draft, &manifest)?;
        Ok((UnpackedLayer { store: self.clone(), draft, diff_id }, implied_folders))
    }
}

struct Import<'a, 'b, R> {
    stream: TarStream<R>,
    state: LayerState,
    /// How many contents there are.
    contents: usize,
    memory: Memory,
    unpacker: &'a mut Unpacker<'b>,
}

impl<R: Read> Import<'_, '_, R> {
    fn entry(&mut self, header: Header) -> Result<()> {
        let refused = |name: &[u8]| {
            let path = to_path(name);
            move |reason: Refusal| Error::RefusedEntry { path, reason }
        };
        self.memory.take(&header).map_err(refused(&header.name))?;
        let mut changes = Vec::new();
        match target(&header.name).map_err(refused(&header.name))? {
            Target::Root | Target::Nothing => Ok(()),
            Target::Opaque { folder } => {
                let folder = self.state.folder(&folder, &mut changes).map_err(refused(&header.name))?;
                self.state.set_opaque(&folder);
                self.unpacker.apply(&changes)
            }
            Target::Whiteout { folder, name } => {
                let path = self.place(&folder, &name, &mut changes).map_err(refused(&header.name))?;
                self.whiteout(path, header.mtime, &changes).map_err(|failure| failure.of(&header.name))
            }
            Target::Entry { folder, name } => {
                let path = self.place(&folder, &name, &mut changes).map_err(refused(&header.name))?;
                let name = header.name.clone();
                self.make(path, header, changes).map_err(|failure| failure.of(&name))
            }
        }
    }

    /// Where an entry really goes.
    fn place(
        &mut self,
        folder: &[Vec<u8>],
        name: &[u8],
        changes: &mut Vec<Change>,
    ) -> Result<Vec<u8>, Refusal> {
        Ok(path::join(&self.state.folder(folder, changes)?, name))
    }

    fn whiteout(&mut self, path: Vec<u8>, mtime: i64, changes: &[Change]) -> Result<(), Failure> {
        let make = self.state.put_whiteout(&path, mtime)?;
        self.unpacker.apply(changes)?;
        if make {
            self.unpacker.make(Job { path, inode: Inode::whiteout(mtime), content: Vec::new() })?;
        }
        Ok(())
    }

    fn make(&mut self, path: Vec<u8>, header: Header, mut changes: Vec<Change>) -> Result<(), Failure> {
        let kind = match header.file_type {
            TarType::HardLink => return self.link(path, &header.link, changes),
            // Every overlay would take it for one.
            TarType::CharacterDevice { major: 0, minor: 0 } => {
                return self.whiteout(path, header.mtime, &changes);
            }
            TarType::File => {
                let size = header.sparse.as_ref().map_or(header.content_bytes, |sparse| sparse.size);
                Kind::File { size }
            }
            TarType::Folder => Kind::Folder { opaque: false },
            TarType::Symlink => Kind::Symlink { target: link_target(header.link)? },
            TarType::CharacterDevice { major, minor } => Kind::CharacterDevice { major, minor },
            TarType::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            TarType::Fifo => Kind::Fifo,
        };
        let mut inode = Inode {
            kind,
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            mtime: header.mtime,
            xattrs: header.xattrs.into_iter().filter(|(name, _)| travels(name)).collect(),
            content: None,
            names: 0,
            is_implied: false,
        };
        match header.file_type {
            TarType::Folder => {
                self.state.put_folder(&path, inode, &mut changes)?;
                self.unpacker.apply(&changes)?;
                return Ok(());
            }
            TarType::Symlink => inode.mode = 0o777,
            _ => {}
        }
        if !matches!(inode.kind, Kind::File { .. }) {
            inode.xattrs.clear();
        }
        if header.content_bytes > 0 {
            inode.content = Some(self.contents);
            self.contents += 1;
        }
        self.state.put(&path, inode.clone(), &mut changes)?;
        self.unpacker.apply(&changes)?;
        match header.sparse {
            None if header.content_bytes <= SMALL_BYTES_MAX => {
                let mut content = vec![0; header.content_bytes as usize];
                self.stream.content(&mut content)?;
                if let Some(number) = inode.content {
                    self.stream.put_at(number, 0, header.content_bytes)?;
                }
                self.unpacker.make(Job { path, inode, content })?;
                Ok(())
            }
            None => {
                let pieces = vec![(0, header.content_bytes)];
                self.make_large(&path, &inode, Sparse { size: header.content_bytes, pieces })
            }
            Some(sparse) => self.make_large(&path, &inode, sparse),
        }
    }

    /// Makes a file piece by piece, straight from the archive.
    fn make_large(&mut self, path: &[u8], inode: &Inode, sparse: Sparse) -> Result<(), Failure> {
        let mut file = self.unpacker.create(path)?;
        let shown = self.unpacker.shown(path);
        self.fill(&mut file, inode.content, &sparse, &shown)?;
        self.unpacker.complete(path, &file, inode)?;
        Ok(())
    }

    fn fill(&mut self, file: &mut File, number: Option<usize>, sparse: &Sparse, shown: &Path) -> Result<()> {
        let mut buffer = vec![0; COPY_BYTES];
        for &(offset, length) in &sparse.pieces {
            file.seek(SeekFrom::Start(offset)).map_err(Error::io("write", shown))?;
            let mut left = length;
            while left > 0 {
                let count = left.min(COPY_BYTES as u64) as usize;
                self.stream.content(&mut buffer[..count])?;
                file.write_all(&buffer[..count]).map_err(Error::io("write", shown))?;
                left -= count as u64;
            }
            if let Some(number) = number {
                self.stream.put_at(number, offset, length)?;
            }
        }
        // A hole at the end, or nothing but holes.
        file.set_len(sparse.size).map_err(Error::io("set the size of", shown))
    }

    fn link(&mut self, path: Vec<u8>, link: &[u8], mut changes: Vec<Change>) -> Result<(), Failure> {
        let Target::Entry { folder, name } = target(link)? else {
            return Err(Failure::Refused("it is a hard link to what the layer does not hold"));
        };
        // Folders that are missing on the way to the target would be made, so the target must be known first.
        let mut missing = Vec::new();
        let owner = path::join(&self.state.folder(&folder, &mut missing)?, &name);
        if !missing.is_empty() {
            return Err(Failure::Refused("it is a hard link to what the layer does not hold"));
        }
        let linked = self.state.link(&path, &owner, &mut changes)?;
        self.unpacker.apply(&changes)?;
        if linked.is_some() {
            self.unpacker.link(path, owner);
        }
        Ok(())
    }

    fn finish(self, layer: &Path) -> Result<(DiffId, crate::Manifest, BTreeSet<Vec<u8>>)> {
        self.unpacker.finish(&self.state)?;
        let implied_folders = self.state.implied_folders();
        let (digest, split) = self.stream.finish()?.expect("the archive of a layer is hashed and kept");
        let (manifest, contents) = self.state.finish();
        let mut places = vec![Place::Shadowed; self.contents];
        for (number, path) in contents {
            places[number] = Place::Tree(path);
        }
        split.finish(layer, &places)?;
        Ok((DiffId(digest), manifest, implied_folders))
    }
}

/// An entry that is refused, or another failure.
enum Failure {
    Refused(Refusal),
    Other(Error),
}

impl Failure {
    fn of(self, name: &[u8]) -> Error {
        match self {
            Self::Refused(reason) => Error::RefusedEntry { path: to_path(name), reason },
            Self::Other(error) => error,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(reason: Refusal) -> Self {
        Self::Refused(reason)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// What entries may take of the memory until the archive is unpacked.
struct Memory {
    bytes_left: usize,
}

impl Memory {
    fn take(&mut self, header: &Header) -> Result<(), Refusal> {
        let attributes = header.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64);
        // The name stands in several tables.
        let bytes = ENTRY_BYTES + 3 * header.name.len() + header.link.len() + attributes.sum::<usize>();
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or("the archive has more entries than memory is set aside for")?;
        Ok(())
    }
}

fn link_target(target: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    match target.len() {
        0 => Err("it is a link to nothing"),
        1..=path::PATH_BYTES_MAX if !target.contains(&0) => Ok(target),
        1..=path::PATH_BYTES_MAX => Err("the target of a link holds a NUL byte"),
        _ => Err("the target of a link is longer than 4095 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_small_archive_cannot_fill_the_memory() {
        let header = |name: usize, attribute: usize| Header {
            name: vec![b'n'; name],
            link: Vec::new(),
            file_type: TarType::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: BTreeMap::from([(b"user.x".to_vec(), vec![0; attribute])]),
            content_bytes: 0,
            sparse: None,
        };
        let fitting = |header: Header| {
            let mut memory = Memory { bytes_left: ENTRIES_BYTES_MAX };
            (0..).take_while(|_| memory.take(&header).is_ok()).count()
        };
        assert!((1_500_000..3_000_000).contains(&fitting(header(40, 0))), "a large data set fits");
        assert!(fitting(header(4000, 0)) < 100_000);
        assert!(fitting(header(1, 1 << 20)) < 1100);
    }
}
