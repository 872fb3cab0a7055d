//! What `ibid init` writes: a Dockerfile, an ignore file and an `ibid.toml` for a project that has none. It looks at
//! what lies in the folder, chooses, and says what it chose; nothing is executed.
//!
//! ```text
//! folder ─packages, python, script, folders→ Survey ─files→ texts
//! ```

mod conda;
mod files;
mod folders;
mod imports;
mod packages;
mod python;
mod script;

use std::path::{Path, PathBuf};

pub use files::files;
use folders::Folders;
use packages::Packages;
use python::Python;
use script::Entry;

/// Largest file of a project that is read, bytes.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Why nothing can be chosen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {what}", path.display())]
    Syntax { path: PathBuf, what: String },
    #[error("{file} asks for what `ibid init` cannot install: {}", what.join(", "))]
    NotInstallable { file: &'static str, what: Vec<String>, hint: String },
    #[error("{file} asks for Python {wanted}, which no image that `ibid init` knows has")]
    Python { file: String, wanted: String },
}

/// What was found, and what is made of it.
#[derive(Debug)]
pub struct Survey {
    /// The image's name.
    pub name: String,
    pub python: Python,
    pub packages: Packages,
    pub entry: Entry,
    pub folders: Folders,
    /// Where modules are imported from, seen from the project, when that is not the folder itself.
    pub source_folder: Option<&'static str>,
}

impl Survey {
    /// Looks at a project's folder.
    pub fn of(root: &Path, name: &str) -> Result<Self, Error> {
        let entry = Entry::find(root)?;
        let packages = Packages::find(root, &entry)?;
        let python = Python::choose(root, packages.python.as_ref())?;
        let folders = Folders::find(root, &entry)?;
        let source_folder = (packages.is_package && root.join("src").is_dir()).then_some("src");
        Ok(Self { name: name.to_owned(), python, packages, entry, folders, source_folder })
    }

    /// What was found and chosen, a line each.
    pub fn words(&self) -> Vec<String> {
        let mut lines = vec![self.packages.words(), self.python.words(), self.entry.words()];
        lines.extend(self.folders.words());
        lines.retain(|line| !line.is_empty());
        lines
    }
}

/// A file of the project, when it is there and no larger than what people write.
fn read(root: &Path, name: &str) -> Result<Option<String>, Error> {
    let path = root.join(name);
    let failed = |source| Error::Read { path: path.clone(), source };
    match std::fs::metadata(&path) {
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(metadata) if metadata.len() > TEXT_BYTES_MAX => {
            return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let bytes = std::fs::read(&path).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests;
