//! What lies in the project that is no code: outputs, data, virtual environments, large files.

use std::collections::BTreeSet;
use std::path::Path;

use super::Error;
use super::script::Entry;

/// Folders that runs write, as people name them.
const OUTPUTS: [&str; 13] = [
    "output",
    "outputs",
    "out",
    "results",
    "result",
    "runs",
    "checkpoints",
    "checkpoint",
    "ckpt",
    "logs",
    "wandb",
    "mlruns",
    "lightning_logs",
];
/// Folders of large inputs.
const DATA: [&str; 6] = ["data", "dataset", "datasets", "input", "inputs", "raw_data"];
/// What tools leave, by name.
const LEFTOVERS: [&str; 7] =
    [".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", "node_modules"];
/// A file from this size on hardly belongs in an image.
const LARGE_BYTES_MIN: u64 = 100_000_000;

/// What was found, and what follows from the script's options.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Folders {
    pub outputs: Vec<String>,
    pub data: Vec<String>,
    /// Virtual environments.
    pub environments: Vec<String>,
    /// What tools left.
    pub leftovers: Vec<String>,
    /// Large files at the top.
    pub large: Vec<String>,
}

impl Folders {
    pub fn find(root: &Path, entry: &Entry) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: root.to_owned(), source };
        let (mut outputs, mut data) = (BTreeSet::new(), BTreeSet::new());
        let mut folders = Self::default();
        for item in std::fs::read_dir(root).map_err(failed)? {
            let item = item.map_err(failed)?;
            let Ok(name) = item.file_name().into_string() else { continue };
            let metadata = item.metadata().map_err(failed)?;
            if metadata.is_file() && metadata.len() >= LARGE_BYTES_MIN {
                folders.large.push(name);
            } else if metadata.is_dir() {
                if item.path().join("pyvenv.cfg").is_file() {
                    folders.environments.push(name);
                } else if LEFTOVERS.contains(&name.as_str()) {
                    folders.leftovers.push(name);
                } else if item.path().join("__init__.py").is_file() {
                    // A package of the project's own, whatever its name.
                } else if OUTPUTS.contains(&name.as_str()) {
                    outputs.insert(name);
                } else if DATA.contains(&name.as_str()) {
                    data.insert(name);
                }
            }
        }
        for (option, value) in &entry.defaults {
            let Some(folder) = folder_of(root, value) else { continue };
            let is_about = |words: &[&str]| words.iter().any(|word| option.contains(word));
            if is_about(&["out", "save", "result", "checkpoint", "ckpt", "log-dir", "log_dir", "logdir"]) {
                outputs.insert(folder);
            } else if is_about(&["data"]) {
                data.insert(folder);
            }
        }
        if outputs.is_empty() {
            outputs.insert("output".to_owned());
        }
        // A folder inside another, or that is both, is said once.
        data.retain(|folder| !outputs.contains(folder));
        folders.outputs = outputs.into_iter().collect();
        folders.data = data.into_iter().collect();
        for names in [&mut folders.environments, &mut folders.leftovers, &mut folders.large] {
            names.sort();
        }
        Ok(folders)
    }

    pub fn words(&self) -> Vec<String> {
        let mut lines = vec![format!("outputs go to {}", self.outputs.join(", "))];
        if !self.data.is_empty() {
            lines.push(format!("data is read from {}", self.data.join(", ")));
        }
        if !self.environments.is_empty() {
            lines.push(format!(
                "the virtual environment {} stays out of the image, which has its own",
                self.environments.join(", ")
            ));
        }
        if !self.large.is_empty() {
            lines.push(format!("large files stay out of the image: {}", self.large.join(", ")));
        }
        lines
    }
}

/// The folder at the project's top that a default value of an option means.
fn folder_of(root: &Path, value: &str) -> Option<String> {
    let path = crate::project::clean(Path::new(value));
    if path.is_absolute() || path.starts_with("..") {
        return None;
    }
    let mut parts = path.components();
    let first = parts.next()?.as_os_str().to_str()?.to_owned();
    let is_folder = match parts.next() {
        Some(_) => true,
        // A lone name with an ending is a file.
        None => root.join(&first).is_dir() || !first.contains('.'),
    };
    let is_plain = first.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let is_code = root.join(&first).join("__init__.py").is_file();
    (is_folder && is_plain && !is_code && !matches!(first.as_str(), "src" | "scripts" | "tests"))
        .then_some(first)
}
