//! The ledger of the project at hand, where its index is, and what to say when it cannot be read.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use ibid_ledger::ledger::{Error, Ledger};
use ibid_ledger::run_id::{RunId, UnresolvedRunId};
use ibid_ledger::summary::{Summary, Texts};
use ibid_ledger::{index, selection};

use crate::project::Project;
use crate::report::Failure;

/// File systems of other computers, by their numbers in `statfs(2)`: SQLite's locks and shared memory are not safe on them.
const NETWORK_FILE_SYSTEMS: [i64; 12] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x7461_636f, // OCFS2
    0x0102_1997, // 9P
    0x6573_5546, // FUSE: sshfs among others
];

/// The ledger of a project.
pub struct ProjectLedger {
    pub ledger: Ledger,
    /// The index; none where no place for one is.
    index: Option<PathBuf>,
}

impl ProjectLedger {
    /// That of the project that `directory` belongs to; none means the current folder.
    pub fn of(directory: Option<&Path>) -> Result<Self, Failure> {
        let project = Project::find(directory.unwrap_or(Path::new(".")))?;
        let ledger = Ledger::of(&project.root);
        let index = index_path(&ledger);
        Ok(Self { ledger, index })
    }

    /// All runs, newest first.
    pub fn runs<'t>(&self, texts: &'t mut Texts) -> Result<Vec<Summary<&'t str>>, Failure> {
        index::runs(&self.ledger, self.index.as_deref(), texts).map_err(failure)
    }

    /// The run that a person means.
    pub fn find(&self, text: &str) -> Result<RunId, Failure> {
        selection::find(&self.ledger, self.index.as_deref(), text).map_err(failure)
    }
}

/// Where the index of a ledger is kept: in the person's folder for caches if that is on a local disk, else in the one that
/// lasts as long as they are logged in.
fn index_path(ledger: &Ledger) -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let name = Digest::of(ledger.folder().as_os_str().as_encoded_bytes());
    let places = [cache, folder("XDG_RUNTIME_DIR")].into_iter().flatten();
    places.map(|place| place.join("ibid/runs")).find_map(|place| {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&place).ok()?;
        let is_own = fs::metadata(&place).is_ok_and(|it| it.uid() == rustix::process::geteuid().as_raw());
        let kind = rustix::fs::statfs(&place).ok()?.f_type as i64;
        (is_own && !NETWORK_FILE_SYSTEMS.contains(&kind))
            .then(|| place.join(format!("{}.sqlite", &name.hex()[..32])))
    })
}

/// What is wrong with a ledger, and what to do.
pub fn failure(error: Error) -> Failure {
    let failure = Failure::of(&error);
    match error {
        Error::Unresolved(UnresolvedRunId::Empty) => failure.hint("`ibid run` makes one"),
        Error::Unresolved(UnresolvedRunId::Several { .. }) => failure.hint("give more digits"),
        Error::Unresolved(UnresolvedRunId::SeveralTagged { .. }) => failure.hint("give the id of one"),
        Error::Unresolved(_) => {
            failure.hint("`ibid runs` lists what there is; `-C DIR` picks another project")
        }
        Error::Damaged { .. } => {
            failure.hint("`ibid runs` lists the others; a copy of the file from a backup can take its place")
        }
        Error::MissingObject { .. } | Error::DamagedObject { .. } => {
            failure.hint("the code was kept there when it ran: a backup of `.ibid/objects` may have it")
        }
        Error::Newer { .. } => failure.hint("a newer ibid reads it"),
        Error::Io { .. } | Error::Changing { .. } => failure,
    }
}
