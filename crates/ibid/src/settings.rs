//! What a person or a machine has settled for every project: `ibid/config.toml` in the person's folder for configuration,
//! else `/etc/ibid/config.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::report::Failure;

/// Stores of others, as paths separated by `:`; in place of those in a file.
const ADDITIONAL_STORES: &str = "IBID_ADDITIONAL_STORES";
const OF_MACHINE: &str = "/etc/ibid/config.toml";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    additional_stores: Vec<PathBuf>,
    /// Folders of CDI files, in place of the usual ones.
    cdi_folders: Option<Vec<PathBuf>>,
}

/// Stores in which images are looked up after the person's own.
pub fn additional_stores() -> Result<Vec<PathBuf>, Failure> {
    if let Some(paths) = std::env::var_os(ADDITIONAL_STORES) {
        let paths = std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect();
        return absolute(paths, ADDITIONAL_STORES, "additional store");
    }
    match settings()? {
        Some((path, settings)) => {
            absolute(settings.additional_stores, &path.display().to_string(), "additional store")
        }
        None => Ok(Vec::new()),
    }
}

/// Folders of CDI files, when others than the usual ones are meant. The later one counts.
pub fn cdi_folders() -> Result<Option<Vec<PathBuf>>, Failure> {
    match settings()? {
        Some((path, Settings { cdi_folders: Some(folders), .. })) => {
            absolute(folders, &path.display().to_string(), "folder of CDI files").map(Some)
        }
        _ => Ok(None),
    }
}

/// The person's settings, else the machine's, and where they stand.
fn settings() -> Result<Option<(PathBuf, Settings)>, Failure> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    for path in own.map(|folder| folder.join("ibid/config.toml")).into_iter().chain([OF_MACHINE.into()]) {
        if let Some(settings) = read(&path)? {
            return Ok(Some((path, settings)));
        }
    }
    Ok(None)
}

/// Where the key is with which secrets are hashed before they are recorded.
pub fn secrets_key() -> PathBuf {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    own.unwrap_or_else(|| PathBuf::from("/etc")).join("ibid/secrets.key")
}

fn read(path: &Path) -> Result<Option<Settings>, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::of(&error).while_doing(format!("cannot read {}", path.display())));
        }
    };
    toml_edit::de::from_str(&text).map(Some).map_err(|error| {
        let span = error.span().unwrap_or_default();
        Failure::new(error.message())
            .excerpt(path, &text, span, "")
            .hint("it may hold `additional_stores = [\"/srv/ibid\"]` and `cdi_folders = [\"/srv/cdi\"]`")
    })
}

/// A relative path would be another one in each folder.
fn absolute(paths: Vec<PathBuf>, place: &str, what: &str) -> Result<Vec<PathBuf>, Failure> {
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => {
            Err(Failure::new(format!("{place}: the {what} `{}` is no absolute path", path.display())))
        }
        None => Ok(paths),
    }
}
