//! What a git repository says of names: which it tracks, and which its ignore files leave out.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ibid_core::gitignore::{Decision, GitIgnore};

use rustix::fs::{Mode, OFlags};

use super::git_index::Tracked;
use crate::code;

/// Ignore files are short; what is longer is none.
const IGNORE_FILE_BYTES_MAX: u64 = 16 << 20;
/// A file that holds a path.
const POINTER_BYTES_MAX: u64 = 64 << 10;
const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Room for more than ten million names.
const INDEX_BYTES_MAX: u64 = 2 << 30;

/// A repository that a folder of the project is in.
#[derive(Debug)]
pub(crate) struct Repository {
    top: PathBuf,
    /// Where its index is: `.git`, or for a worktree or a submodule where that says.
    folder: PathBuf,
    /// Length of the start of a full path that is not part of the repository's own names.
    pub(super) skip: usize,
    /// Read on first use, which many projects never come to.
    tracked: OnceLock<Tracked>,
}

impl Repository {
    /// The one whose topmost folder is `top`; none when there is none.
    pub(crate) fn open(top: &Path, skip: usize) -> Option<Self> {
        let git = top.join(".git");
        let status = git.symlink_metadata().ok()?;
        let folder = if status.is_file() {
            let text = read(&git, POINTER_BYTES_MAX)?;
            let path = text.strip_prefix(b"gitdir: ")?.trim_ascii_end();
            top.join(OsStr::from_bytes(path))
        } else {
            git
        };
        // An empty folder named `.git` makes no repository, as git sees it.
        folder.join("HEAD").symlink_metadata().ok()?;
        Some(Self { top: top.to_owned(), folder, skip, tracked: OnceLock::new() })
    }

    /// The rules of `info/exclude`.
    pub(super) fn exclude(&self) -> GitIgnore {
        ignore_file(&self.common().join("info/exclude"))
    }

    /// The text of its settings.
    pub(crate) fn config(&self) -> Option<Vec<u8>> {
        read(&self.common().join("config"), CONFIG_BYTES_MAX)
    }

    /// The folder of what all worktrees share.
    fn common(&self) -> PathBuf {
        match read(&self.folder.join("commondir"), POINTER_BYTES_MAX) {
            Some(text) => self.folder.join(OsStr::from_bytes(text.trim_ascii_end())),
            None => self.folder.clone(),
        }
    }

    fn tracked(&self) -> &Tracked {
        self.tracked.get_or_init(|| match read(&self.folder.join("index"), INDEX_BYTES_MAX) {
            Some(bytes) => Tracked::of_index(&bytes).unwrap_or_else(|| {
                code::tracked(&self.top).map(|list| Tracked::of_list(&list)).unwrap_or_default()
            }),
            // Nothing was ever added.
            None => Tracked::default(),
        })
    }

    /// Whether git tracks a path, a file or a submodule, or something below it.
    pub(super) fn tracks(&self, full_path: &[u8], is_folder: bool) -> bool {
        let name = &full_path[self.skip..];
        self.tracked().has(name) || is_folder && self.tracked().has_below(name)
    }
}

/// The rules of an ignore file; none when it is not there or cannot be read, as git does. A link is none.
pub(super) fn ignore_file(path: &Path) -> GitIgnore {
    read(path, IGNORE_FILE_BYTES_MAX).map(|text| GitIgnore::parse(&text)).unwrap_or_default()
}

/// A file that is one: opening a pipe would wait for somebody to write.
fn read(path: &Path, bytes_max: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let status = file.metadata().ok()?;
    if !status.is_file() || status.len() > bytes_max {
        return None;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Ignore files of a folder and of those above it, the nearest first.
#[derive(Debug)]
pub(super) struct Level {
    /// Length of the start of a full path that the rules are not about.
    skip: usize,
    rules: GitIgnore,
    above: Option<Arc<Level>>,
}

impl Level {
    /// Adds the rules of a nearer folder.
    pub(super) fn below(above: Option<Arc<Level>>, skip: usize, rules: GitIgnore) -> Option<Arc<Level>> {
        if rules.is_empty() { above } else { Some(Arc::new(Self { skip, rules, above })) }
    }

    /// Whether the rules leave a path out, by itself.
    pub(super) fn ignores(level: Option<&Arc<Level>>, full_path: &[u8], is_folder: bool) -> bool {
        let mut level = level;
        while let Some(Level { skip, rules, above }) = level.map(AsRef::as_ref) {
            if let Some(decision) = rules.decide(&full_path[*skip..], is_folder) {
                return decision == Decision::Ignored;
            }
            level = above.as_ref();
        }
        false
    }
}
