//! Archives of plain files, folders and links, for what is neither a layer nor an image.
//!
//! Written so that the same entries give the same bytes: time 0, owner 0, modes 0644 or 0755. Read with distrust: a name that
//! is absolute, climbs out or has empty parts, and anything but files, folders and symbolic links, is refused, so that a caller
//! who writes names below a folder of its own, and through no link, stays there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::compress::decompressed;
use crate::header::{self, BLOCK_BYTES};
use crate::tar_stream::{TarStream, TarType};
use crate::{Entry, Error, Kind, Result};

/// One entry of such an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainEntry {
    /// Its path: relative, of whole parts.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: PlainKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlainKind {
    /// A file, whose content follows.
    File {
        /// Size of the content.
        bytes: u64,
        /// Whether it can be executed.
        executable: bool,
    },
    /// A symbolic link; where it leads may be anything.
    Link {
        /// Its target.
        target: Vec<u8>,
    },
    /// A folder.
    Folder,
}

/// Writes an archive.
pub struct PlainArchiveWriter<W> {
    out: W,
}

impl<W: Write> PlainArchiveWriter<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Appends a folder or a link, or a file with what `content` reads. A file that holds less or more than was said is an
    /// error, and the archive then of no use.
    pub fn append(&mut self, entry: &PlainEntry, content: &mut dyn Read) -> Result<()> {
        self.append_by(entry, |out| {
            io::copy(content, out).map_err(|source| Error::PlainArchive { action: "write", source })?;
            Ok(())
        })
    }

    /// As [`Self::append`], with the content that `write` writes.
    pub fn append_by(
        &mut self,
        entry: &PlainEntry,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let (kind, executable, bytes) = match &entry.kind {
            PlainKind::File { bytes, executable } => (Kind::File { size: *bytes }, *executable, *bytes),
            PlainKind::Link { target } => (Kind::Symlink { target: target.clone() }, true, 0),
            PlainKind::Folder => (Kind::Folder { opaque: false }, true, 0),
        };
        let mode = if executable { 0o755 } else { 0o644 };
        let mut head = Vec::new();
        let path = entry.path.clone();
        header::append(
            &mut head,
            &Entry { path, kind, mode, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() },
        );
        self.out.write_all(&head).map_err(cannot_write)?;
        let mut exactly = Exactly { out: &mut self.out, left: bytes };
        write(&mut exactly)?;
        if exactly.left > 0 {
            let source = io::Error::other("a file has become shorter");
            return Err(Error::PlainArchive { action: "write", source });
        }
        let padding = bytes.next_multiple_of(BLOCK_BYTES as u64) - bytes;
        self.out.write_all(&[0; BLOCK_BYTES][..padding as usize]).map_err(cannot_write)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<W> {
        let mut end = Vec::new();
        header::append_end(&mut end);
        self.out.write_all(&end).and_then(|()| self.out.flush()).map_err(cannot_write)?;
        Ok(self.out)
    }
}

/// Takes as many bytes as were announced.
struct Exactly<'a, W> {
    out: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Exactly<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("a file has become longer"));
        }
        let written = self.out.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads an archive once, from its start to its end. It may be compressed. Between two entries it reads as the content of the
/// last one.
pub struct PlainArchive<'a> {
    stream: TarStream<Box<dyn Read + 'a>>,
}

impl<'a> PlainArchive<'a> {
    /// Begins to read.
    pub fn new(from: impl Read + 'a) -> Result<Self> {
        Ok(Self { stream: TarStream::new(decompressed(BufReader::new(from))?) })
    }

    /// The next entry; none at the end.
    #[allow(clippy::should_implement_trait, reason = "it can fail, and lends its content")]
    pub fn next(&mut self) -> Result<Option<PlainEntry>> {
        let Some(header) = self.stream.next()? else { return Ok(None) };
        let path = PathBuf::from(OsStr::from_bytes(&header.name));
        let refuse = |reason| Error::RefusedEntry { path, reason };
        let kind = match header.file_type {
            TarType::File if header.sparse.is_none() => {
                PlainKind::File { bytes: header.content_bytes, executable: header.mode & 0o111 != 0 }
            }
            TarType::Symlink => PlainKind::Link { target: header.link },
            TarType::Folder => PlainKind::Folder,
            _ => return Err(refuse("it is no plain file, folder or symbolic link")),
        };
        let mut path = header.name;
        if path.last() == Some(&b'/') {
            path.pop();
        }
        let is_part = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
        if !path.split(|byte| *byte == b'/').all(is_part) {
            return Err(refuse("its name leads out of the archive's folder"));
        }
        Ok(Some(PlainEntry { path, kind }))
    }
}

impl Read for PlainArchive<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.some_content(bytes).map_err(io::Error::other)
    }
}

fn cannot_write(source: io::Error) -> Error {
    Error::PlainArchive { action: "write", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<(PlainEntry, Vec<u8>)> {
        let of = |path: &[u8], kind| PlainEntry { path: path.to_vec(), kind };
        let long = "n".repeat(150);
        let file = |bytes, executable| PlainKind::File { bytes, executable };
        vec![
            (of(b"a", file(5, false)), b"hello".to_vec()),
            (of(b"folder", PlainKind::Folder), Vec::new()),
            (of(b"folder/run", file(1024, true)), vec![7; 1024]),
            (of(format!("{long}/{long}").as_bytes(), file(0, false)), Vec::new()),
            (of(b"\xff\xfe", file(1, false)), b"x".to_vec()),
            (of(b"link", PlainKind::Link { target: b"../elsewhere".to_vec() }), Vec::new()),
        ]
    }

    fn written() -> Vec<u8> {
        let mut writer = PlainArchiveWriter::new(Vec::new());
        for (entry, content) in entries() {
            writer.append(&entry, &mut content.as_slice()).expect("memory");
        }
        writer.finish().expect("memory")
    }

    #[test]
    fn what_is_written_is_read() {
        for archive in [written(), zstd::encode_all(written().as_slice(), 1).expect("memory")] {
            let mut archive = PlainArchive::new(archive.as_slice()).expect("an archive");
            for (expected, content) in entries() {
                assert_eq!(archive.next().expect("sound"), Some(expected));
                let mut read = Vec::new();
                archive.read_to_end(&mut read).expect("sound");
                assert_eq!(read, content);
            }
            assert_eq!(archive.next().expect("sound"), None);
        }
        assert_eq!(written(), written());
    }

    #[test]
    fn files_that_change_meanwhile_are_errors() {
        let entry = PlainEntry { path: b"a".to_vec(), kind: PlainKind::File { bytes: 3, executable: false } };
        for (content, reason) in [("ab", "a file has become shorter"), ("abcd", "a file has become longer")] {
            let error = PlainArchiveWriter::new(Vec::new()).append(&entry, &mut content.as_bytes());
            let Err(Error::PlainArchive { source, .. }) = error else { panic!("{error:?}") };
            assert_eq!(source.to_string(), reason);
        }
    }

    #[test]
    fn hostile_names_and_kinds_are_refused() {
        let check = |name: &str, kind: tar::EntryType, expected: bool| {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(0);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            if kind.is_character_special() {
                header.set_device_major(1).and_then(|()| header.set_device_minor(3)).expect("ustar");
            }
            header.set_cksum();
            let archive = [header.as_bytes().as_slice(), &[0; 1024]].concat();
            let read = PlainArchive::new(archive.as_slice()).expect("an archive").next();
            assert_eq!(read.is_ok(), expected, "{name} {kind:?}: {read:?}");
        };
        use tar::EntryType;
        check("a/b", EntryType::Regular, true);
        check("a/b/", EntryType::Directory, true);
        check("a", EntryType::Symlink, true);
        check("/a", EntryType::Regular, false);
        check("../a", EntryType::Regular, false);
        check("a/../../b", EntryType::Regular, false);
        check("a//b", EntryType::Regular, false);
        check("./a", EntryType::Regular, false);
        check("", EntryType::Regular, false);
        check("..", EntryType::Symlink, false);
        check("a", EntryType::Link, false);
        check("a", EntryType::Char, false);
        check("a", EntryType::Fifo, false);
    }
}
