//! `ibid.lock`: what each base was made from. Written by ibid, to be kept with the project.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ibid_debian::LockedBase;
use serde::{Deserialize, Serialize};

use crate::report::Failure;

/// Name of the lock file, beside `ibid.toml`.
pub const LOCK_FILE: &str = "ibid.lock";
/// The version of the format that this code writes, and the newest it reads.
const VERSION: u32 = 1;

/// The whole file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// By the text of `FROM`.
    #[serde(default)]
    pub base: BTreeMap<String, LockedBase>,
}

impl Lock {
    /// The text of the project's lock; none when there is no file.
    pub fn text(project: &Path) -> Result<Option<String>, Failure> {
        let path = project.join(LOCK_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::of(&error).while_doing(format!("cannot read {}", path.display()))),
        }
    }

    /// Reads the project's lock; an absent file is an empty lock.
    pub fn read(project: &Path) -> Result<Self, Failure> {
        let path = project.join(LOCK_FILE);
        let Some(text) = Self::text(project)? else {
            return Ok(Self { version: VERSION, base: BTreeMap::new() });
        };
        let damaged = |message: String, span: Option<std::ops::Range<usize>>| {
            Failure::new(message)
                .excerpt(&path, &text, span.unwrap_or(0..0), "")
                .hint("`ibid build --update` writes the file anew")
        };
        /// Only the version, so that a newer file is told from a damaged one.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = toml_edit::de::from_str(&text)
            .map_err(|error| damaged(error.message().to_owned(), error.span()))?;
        if head.version > VERSION {
            return Err(Failure::new(format!(
                "{} has version {}; this ibid knows versions up to {VERSION}",
                path.display(),
                head.version
            ))
            .hint("use a newer ibid"));
        }
        toml_edit::de::from_str(&text).map_err(|error| damaged(error.message().to_owned(), error.span()))
    }

    /// Writes the project's lock: whole or not at all.
    pub fn write(&self, project: &Path) -> Result<(), Failure> {
        let path = project.join(LOCK_FILE);
        let text = toml_edit::ser::to_string_pretty(self).expect("a lock is plain data");
        let part: PathBuf = project.join(format!("{LOCK_FILE}.part-{}", std::process::id()));
        let write = || {
            let mut file = std::fs::File::create(&part)?;
            file.write_all(
                b"# Written by ibid. Keep it with the project: it makes the bases the same everywhere.\n",
            )?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)
        };
        write().map_err(|error| {
            // The half-written file is of no use, and its removal a courtesy.
            let _ = std::fs::remove_file(&part);
            Failure::of(&error).while_doing(format!("cannot write {}", path.display()))
        })
    }
}
