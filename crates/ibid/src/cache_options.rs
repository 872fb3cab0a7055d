//! `--cache-to` and `--cache-from`, as Docker writes them: a folder, or `type=local` with its options.

use std::path::{Path, PathBuf};

use ibid_core::csv;
use ibid_store::Compression;

use crate::report::Failure;

/// Where a build's cache is written to.
#[derive(Debug, PartialEq, Eq)]
pub struct CacheTo {
    pub folder: PathBuf,
    pub compression: Compression,
    /// Whether cache mounts are written, too.
    pub mounts: bool,
}

/// Reads `--cache-to`. Folders are relative to `directory`.
pub fn cache_to(text: &str, directory: &Path) -> Result<CacheTo, Failure> {
    let options = Options::read("--cache-to", text, "dest", &["compression", "mode", "mounts"])?;
    let compression = match options.value("compression") {
        None | Some("zstd") => Compression::Zstd,
        Some("gzip") => Compression::Gzip,
        Some(other) => {
            return Err(options.wrong(&format!("the compression `{other}` is not supported"), "zstd or gzip"));
        }
    };
    if let Some(mode) = options.value("mode")
        && mode != "max"
    {
        return Err(options.wrong(&format!("the mode `{mode}` is not supported"), "max: all steps are kept"));
    }
    let mounts = match options.value("mounts") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            return Err(options.wrong(&format!("`mounts={other}` says neither yes nor no"), "true or false"));
        }
    };
    Ok(CacheTo { folder: directory.join(options.folder()?), compression, mounts })
}

/// Reads `--cache-from`.
pub fn cache_from(text: &str, directory: &Path) -> Result<PathBuf, Failure> {
    Ok(directory.join(Options::read("--cache-from", text, "src", &[])?.folder()?))
}

struct Options {
    /// The option that is read.
    name: &'static str,
    /// The key of the folder.
    folder_key: &'static str,
    pairs: Vec<(String, String)>,
}

impl Options {
    fn read(
        name: &'static str,
        text: &str,
        folder_key: &'static str,
        others: &[&str],
    ) -> Result<Self, Failure> {
        let mut options = Self { name, folder_key, pairs: Vec::new() };
        if !text.contains('=') {
            options.pairs.push((folder_key.to_owned(), text.to_owned()));
            return Ok(options);
        }
        let fields = csv::fields(text)
            .map_err(|fault| options.wrong(&fault.to_string(), "quotes around whole options"))?;
        for option in &fields {
            let known = || {
                format!(
                    "type=local, {folder_key}=FOLDER{}",
                    others.iter().map(|key| format!(", {key}=…")).collect::<String>()
                )
            };
            let Some((key, value)) = option.split_once('=') else {
                return Err(options.wrong(&format!("`{option}` is no `key=value`"), &known()));
            };
            match key.trim() {
                "type" if value == "local" => {}
                "type" => {
                    return Err(options
                        .wrong(&format!("the type `{value}` is not supported"), "type=local, a folder"));
                }
                key if key == folder_key || others.contains(&key) => {
                    options.pairs.push((key.to_owned(), value.to_owned()))
                }
                key => return Err(options.wrong(&format!("the key `{key}` is not known"), &known())),
            }
        }
        Ok(options)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn folder(&self) -> Result<&str, Failure> {
        self.value(self.folder_key)
            .filter(|folder| !folder.is_empty())
            .ok_or_else(|| self.wrong("no folder is given", &format!("{}=FOLDER", self.folder_key)))
    }

    fn wrong(&self, what: &str, expected: &str) -> Failure {
        Failure::new(format!("{}: {what}", self.name)).hint(format!("expected {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_both_forms() {
        let check = |text: &str, folder: &str, compression: Compression| {
            let expected = CacheTo { folder: folder.into(), compression, mounts: false };
            assert_eq!(cache_to(text, Path::new("/here")).ok(), Some(expected), "{text}");
        };
        check("cache", "/here/cache", Compression::Zstd);
        check("/a/cache,with comma", "/a/cache,with comma", Compression::Zstd);
        check("type=local,dest=cache", "/here/cache", Compression::Zstd);
        check("type=local,\"dest=a, b\"", "/here/a, b", Compression::Zstd);
        check("dest=/a,compression=gzip,mode=max", "/a", Compression::Gzip);
        assert!(cache_to("dest=/a,mounts=true", Path::new("/")).is_ok_and(|to| to.mounts));
        let from = |text: &str| cache_from(text, Path::new("/here")).ok();
        assert_eq!(from("cache"), Some("/here/cache".into()));
        assert_eq!(from("type=local,src=../cache"), Some("/here/../cache".into()));
        for text in [
            "",
            "type=local",
            "type=registry,dest=x",
            "dest=x,mode=min",
            "dest=x,compression=lz4",
            "dest=x,y",
            "a=b",
        ] {
            assert!(cache_to(text, Path::new("/")).is_err(), "{text}");
        }
        assert!(cache_from("dest=x", Path::new("/")).is_err());
    }
}
