//! The build context: the files that a build may copy, and what they are as content.
//!
//! ```text
//! sources of COPY ──select──▶ entries of the folder, less what the ignore file drops; names known from the cache or listed
//!                                │ digest: BLAKE3 of each file, known from the cache or read
//!                                ▼
//!                             the key of the copy        copy_file: the same bytes, or an error
//! ```
//!
//! Invariants:
//! - content counts, never times, owners or the builder's umask: of a file's mode only whether its owner
//!   may execute it, because no more than that ends in a layer;
//! - nothing outside the root is opened: links are resolved inside it, as if it were `/`, and files are
//!   opened through no link at all;
//! - a file is read for its digest once; if it has changed when it is copied, the copy fails, so that a
//!   layer never holds other bytes than its key says;
//! - one [`Context`] sees one state of a folder: what was listed once is not listed again;
//! - what is remembered from other builds is names and digests, none of which is believed without the marks that the system
//!   keeps of folders and files: each file is looked at in each build.

mod contents;
mod entry;
mod names;
mod select;
mod walk;

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ibid_core::digest::Digest;
use ibid_core::dockerignore::Ignore;
use ibid_core::plan::{Copy, CopySource};
use ibid_files::beneath::open_root;
use ibid_files::folder_cache::{FolderCache, Learnt};
use ibid_files::stat_cache;

pub(crate) use entry::ContentReader;
pub use entry::{Entry, Kind};
pub use select::{Selection, Source};
pub use walk::{Entries, Found, Listing};

/// Records of files that are hashed at a time, bytes.
const RECORDS_BYTES: usize = 32 << 10;

/// A folder whose files a build may copy.
#[derive(Debug)]
pub struct Context {
    root: PathBuf,
    root_fd: OwnedFd,
    rules: IgnoreFile,
    /// The name of merged layers, whose devices and pipes are copied too; none for a folder of the host.
    layers: Option<String>,
    cache_file: Option<PathBuf>,
    /// Read on first use.
    cache: OnceLock<FolderCache>,
    /// What the next build is to know.
    learnt: Mutex<Learnt>,
    /// What folders held when they were first listed, by path.
    listed: Mutex<HashMap<Box<[u8]>, Arc<Entries>>>,
    /// The present time, as stamps have it.
    now_ns: fn() -> i64,
    /// Digests of what copies brought, by their sources and what they leave out.
    copied: Mutex<HashMap<Copied, Digest>>,
}

/// What decides which files a copy brings.
type Copied = (Vec<CopySource>, Vec<String>);

/// The rules that drop files from a context, and the file they stand in.
#[derive(Debug, Clone, Default)]
pub struct IgnoreFile {
    /// The file as messages name it, such as `.dockerignore`. Empty when there is none.
    pub name: String,
    /// Its rules.
    pub rules: Ignore,
}

/// Why the context cannot give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// No file matches a source.
    #[error("`{pattern}` is not in {place}")]
    Missing {
        /// The source as the Dockerfile has it.
        pattern: String,
        /// Where it was looked for, as people name it.
        place: String,
    },
    /// The ignore file drops a source.
    #[error("`{pattern}` is dropped from the build context by {file}:{line}")]
    Ignored {
        /// The source as the Dockerfile has it.
        pattern: String,
        /// The ignore file.
        file: String,
        /// The line of its rule.
        line: usize,
    },
    /// A source is no valid pattern.
    #[error("`{pattern}` is no pattern: {reason}")]
    Pattern {
        /// The source as the Dockerfile has it.
        pattern: String,
        /// What is wrong with it.
        reason: ibid_core::glob::InvalidGlob,
    },
    /// Links lead in a circle.
    #[error("`{pattern}` goes through too many symbolic links")]
    Links {
        /// The source as the Dockerfile has it.
        pattern: String,
    },
    /// A source is a socket, a pipe or a device.
    #[error("`{pattern}` is neither a file, a folder nor a symbolic link")]
    Special {
        /// The source as the Dockerfile has it.
        pattern: String,
    },
    /// A file got shorter, or something else, between being listed and being read.
    #[error("{} changed while the build was reading it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl Context {
    /// Opens the folder `root`. The names in its folders and the digests of its files are remembered in `cache_file`, which
    /// is rewritten when the context is dropped; losing that file costs time only.
    pub fn open(root: &Path, rules: IgnoreFile, cache_file: Option<&Path>) -> Result<Self, Error> {
        let root_fd = open_root(root).map_err(|source| Error::Io {
            action: "open the folder",
            path: root.to_owned(),
            source: source.into(),
        })?;
        Ok(Self {
            root: root.to_owned(),
            root_fd,
            rules,
            layers: None,
            cache_file: cache_file.map(Path::to_owned),
            cache: OnceLock::new(),
            learnt: Mutex::new(Learnt::default()),
            listed: Mutex::new(HashMap::new()),
            now_ns: stat_cache::now_ns,
            copied: Mutex::new(HashMap::new()),
        })
    }

    /// Opens the root of merged layers that messages call `name`. Their devices and pipes are content like all else.
    pub(crate) fn of_layers(root: &Path, name: String) -> Result<Self, Error> {
        let mut context = Self::open(root, IgnoreFile::default(), None)?;
        context.layers = Some(name);
        Ok(context)
    }

    /// As messages name it.
    fn name(&self) -> String {
        self.layers.clone().unwrap_or_else(|| format!("the build context {}", self.root.display()))
    }

    /// The context's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What drops files from it.
    pub fn ignore_file(&self) -> &IgnoreFile {
        &self.rules
    }

    /// Everything that is kept, sorted by path. The root itself is no entry.
    pub fn walk(&self) -> Result<Arc<Entries>, Error> {
        self.folder(b"")
    }

    /// The folders right below the root that the rules drop with all that is in them; only the first of very many.
    pub fn dropped_folders(&self) -> Result<Vec<PathBuf>, Error> {
        walk::dropped_folders(self)
    }

    /// Every path with the rule that keeps or drops it, sorted by path. Folders that are dropped whole are
    /// listed without what they hold.
    pub fn explain(&self) -> Result<Listing, Error> {
        walk::listing(self)
    }

    /// Finds the sources of a `COPY`: paths or patterns relative to the root; `.` and the empty path are
    /// all of it.
    pub fn select<S: AsRef<str>>(&self, sources: &[S]) -> Result<Selection, Error> {
        let mut selection = Selection::default();
        for (number, pattern) in sources.iter().enumerate() {
            select::expand(self, pattern.as_ref(), number, &Ignore::default(), &mut selection)?;
        }
        Ok(selection)
    }

    /// Finds a single path, less what patterns leave out.
    pub(crate) fn select_one(&self, path: &str, exclude: &[String]) -> Result<Selection, Error> {
        let exclude = Ignore::of_patterns(exclude).expect("a plan holds patterns that were read");
        let mut selection = Selection::default();
        select::expand(self, path, 0, &exclude, &mut selection)?;
        Ok(selection)
    }

    /// Finds the sources of an instruction that are here.
    pub fn select_copied(&self, copy: &Copy) -> Result<Selection, Error> {
        let exclude = Ignore::of_patterns(&copy.exclude).expect("a plan holds patterns that were read");
        let mut selection = Selection::default();
        for (number, source) in copy.sources.iter().enumerate() {
            match source {
                CopySource::Path(path) => select::expand(self, path, number, &exclude, &mut selection)?,
                CopySource::Below { folder, pattern } => {
                    select::expand_below(self, folder, pattern, number, &exclude, &mut selection)?;
                }
                CopySource::Url(_) | CopySource::Git(_) => {}
            }
        }
        Ok(selection)
    }

    /// Finds one path, whatever characters it holds; `.` and the empty path are all of the context.
    pub fn select_path(&self, path: &str) -> Result<Selection, Error> {
        let mut selection = Selection::default();
        select::exact(self, path, 0, &Ignore::default(), &mut selection)?;
        Ok(selection)
    }

    /// The digest of everything a copy of `selection` makes: names, links, content, and which files are
    /// executable. Reads the files whose content is not known yet.
    pub fn digest(&self, selection: &Selection) -> Result<Digest, Error> {
        self.learn_contents(selection)?;
        // Twice as fast as SHA-256 over the records of many files.
        let mut hasher = blake3::Hasher::new();
        let mut record = Vec::with_capacity(2 * RECORDS_BYTES);
        // Numbers of fixed width and lengths before texts: no two selections give the same bytes.
        let text = |record: &mut Vec<u8>, text: &[u8]| {
            record.extend((text.len() as u64).to_le_bytes());
            record.extend(text);
        };
        for source in &selection.sources {
            record.push(if source.is_folder() { b'D' } else { b'F' });
            if !source.is_folder() {
                text(&mut record, source.name());
            }
            for (path, entry) in source.entries() {
                match &entry.kind {
                    Kind::Folder => record.push(b'd'),
                    Kind::Link { target } => {
                        record.push(b'l');
                        text(&mut record, target);
                    }
                    Kind::File { executable } => {
                        record.push(if *executable { b'x' } else { b'f' });
                        let content = entry.content().expect("learn_contents has set it or failed");
                        record.extend(content.hash);
                        record.extend(content.size.to_le_bytes());
                    }
                    Kind::Special => continue,
                }
                text(&mut record, path);
                if record.len() >= RECORDS_BYTES {
                    hasher.update(&record);
                    record.clear();
                }
            }
            record.push(b'.');
        }
        hasher.update(&record);
        Ok(Digest::of(hasher.finalize().as_bytes()))
    }

    /// [`Context::digest`] of what an instruction copies from here; it is computed once.
    pub fn digest_of_copied(&self, copy: &Copy, selection: &Selection) -> Result<Digest, Error> {
        let copied = (copy.sources.clone(), copy.exclude.clone());
        let lock = || self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = lock().get(&copied) {
            return Ok(*digest);
        }
        let digest = self.digest(selection)?;
        lock().insert(copied, digest);
        Ok(digest)
    }

    /// Every file and link of a selection with what identifies its content: the hash of its bytes, or a
    /// link's target. Reads the files whose content is not known yet.
    pub fn identities(&self, selection: &Selection) -> Result<Vec<(PathBuf, String)>, Error> {
        self.learn_contents(selection)?;
        let entries = selection.sources.iter().flat_map(Source::entries);
        let identity = |entry: &Entry| match &entry.kind {
            Kind::File { executable } => {
                let hash = blake3::Hash::from_bytes(entry.content()?.hash).to_hex();
                Some(format!("{}{hash}", if *executable { "executable " } else { "" }))
            }
            Kind::Link { target } => Some(format!("link {}", String::from_utf8_lossy(target))),
            Kind::Folder | Kind::Special => None,
        };
        Ok(entries.filter_map(|(_, entry)| Some((entry.path().to_owned(), identity(entry)?))).collect())
    }

    /// Writes the content of the file `entry` to `to`. When [`Context::digest`] has read it before, the
    /// bytes are the same, or this fails with [`Error::Changed`].
    pub fn copy_file(&self, entry: &Entry, to: &mut impl Write) -> Result<u64, Error> {
        let mut file = self.open_file(entry)?;
        let size = entry.content().map_or(file.size(), |content| content.size);
        let copied = file.read(self, size, |bytes| {
            to.write_all(bytes).map_err(|source| Error::Io {
                action: "write the copy of",
                path: self.path_of(entry),
                source,
            })
        })?;
        match entry.content() {
            Some(content) if content.hash != copied => Err(Error::Changed { path: self.path_of(entry) }),
            _ => Ok(size),
        }
    }

    /// The path of an entry on this machine.
    pub fn path_of(&self, entry: &Entry) -> PathBuf {
        self.root.join(entry.path())
    }

    /// What is remembered of folders and files; none where nothing is to be.
    fn cache(&self) -> Option<&FolderCache> {
        let file = self.cache_file.as_ref()?;
        Some(self.cache.get_or_init(|| FolderCache::load(file)))
    }

    /// The entries below a folder, by its path.
    fn folder(&self, path: &[u8]) -> Result<Arc<Entries>, Error> {
        let listed = |context: &Self| {
            context.listed.lock().unwrap_or_else(PoisonError::into_inner).get(path).map(Arc::clone)
        };
        if let Some(entries) = listed(self) {
            return Ok(entries);
        }
        let entries = Arc::new(walk::below(self, path, false)?);
        let mut all = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(all.entry(path.into()).or_insert(entries)))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let learnt = self.learnt.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some(cache), Some(file)) = (self.cache.get(), &self.cache_file) {
            // A cache that cannot be written makes the next build slower and nothing worse.
            let _ = cache.save(learnt, file);
        }
    }
}

#[cfg(test)]
mod tests;
