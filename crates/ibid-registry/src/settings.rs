//! Where a machine and a person keep what concerns registries. Nothing of it is ibid's own: it is what Docker and the
//! tools around Podman read, too.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A machine's files and a person's environment.
#[derive(Debug, Clone)]
pub struct Settings {
    root: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Settings {
    /// Those of the machine whose files are below `root` (`/` for this one).
    pub fn new(root: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { root: root.to_owned(), environment: environment.into_iter().collect() }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn network(&self) -> ibid_fetch::Network {
        ibid_fetch::Network::new(&self.root, self.environment.clone())
    }

    /// A file of the machine.
    pub(crate) fn system(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A path that a variable names.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from)
    }

    /// A file where tools around Podman put what belongs to a login that has no folder of its own.
    pub(crate) fn shared_runtime(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::MetadataExt as _;
        let user = std::fs::metadata("/proc/self").ok()?.uid();
        Some(self.root.join(format!("run/containers/{user}")).join(name))
    }

    /// The person's folder for configuration.
    pub(crate) fn personal(&self) -> Option<PathBuf> {
        let home = || Some(self.path("HOME")?.join(".config"));
        self.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).or_else(home)
    }
}

/// A file's text; none when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// The files of a folder whose names end so, in the order of their names; none when there is no such folder, or it is
/// closed to this person.
pub(crate) fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("read the folder", folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read the folder", folder))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
