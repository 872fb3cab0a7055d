//! `--cache-to` and `--cache-from`, as Docker writes them: a folder, or `type=local` or `type=registry` with options.

use std::path::{Path, PathBuf};

use ibid_core::csv;
use ibid_core::reference::Reference;
use ibid_store::Compression;

use crate::report::Failure;

/// Where a build's cache is written to.
#[derive(Debug, PartialEq, Eq)]
pub struct CacheTo {
    pub place: Place,
    pub compression: Compression,
    /// Whether cache mounts are written, too.
    pub mounts: bool,
}

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Folder(PathBuf),
    /// It has a tag.
    Registry(Reference),
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
    Ok(CacheTo { place: options.place(directory)?, compression, mounts })
}

/// Reads `--cache-from`.
pub fn cache_from(text: &str, directory: &Path) -> Result<Place, Failure> {
    Options::read("--cache-from", text, "src", &[])?.place(directory)
}

struct Options {
    /// The option that is read.
    name: &'static str,
    /// The key of the place: that of a folder, or `ref`.
    place_key: &'static str,
    pairs: Vec<(String, String)>,
}

impl Options {
    fn read(
        name: &'static str,
        text: &str,
        folder_key: &'static str,
        others: &[&str],
    ) -> Result<Self, Failure> {
        let mut options = Self { name, place_key: folder_key, pairs: Vec::new() };
        if !text.contains('=') {
            options.pairs.push((folder_key.to_owned(), text.to_owned()));
            return Ok(options);
        }
        let expected = "quotes around whole options";
        let fields = csv::fields(text).map_err(|fault| options.wrong(&fault.to_string(), expected))?;
        let kind = fields
            .iter()
            .rev()
            .find_map(|field| field.split_once('=').filter(|(key, _)| key.trim() == "type"));
        match kind.map_or("local", |(_, kind)| kind) {
            "local" => {}
            "registry" => options.place_key = "ref",
            kind => {
                return Err(options.wrong(
                    &format!("the type `{kind}` is not supported"),
                    "type=local, a folder, or type=registry",
                ));
            }
        }
        let others_text = others.iter().map(|key| format!(", {key}=…")).collect::<String>();
        let known = match options.place_key {
            "ref" => format!("type=registry, ref=IMAGE{others_text}"),
            key => format!("type=local, {key}=FOLDER{others_text}"),
        };
        for option in &fields {
            let Some((key, value)) = option.split_once('=') else {
                return Err(options.wrong(&format!("`{option}` is no `key=value`"), &known));
            };
            match key.trim() {
                "type" => {}
                key if key == options.place_key || others.contains(&key) => {
                    options.pairs.push((key.to_owned(), value.to_owned()));
                }
                key => return Err(options.wrong(&format!("the key `{key}` is not known"), &known)),
            }
        }
        Ok(options)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn place(&self, directory: &Path) -> Result<Place, Failure> {
        let value = self.value(self.place_key).filter(|value| !value.is_empty());
        match (self.place_key, value) {
            ("ref", None) => Err(self.wrong("no image is named", "ref=REGISTRY/REPOSITORY:TAG")),
            ("ref", Some(text)) => {
                let reference: Reference = text.parse().map_err(|error| {
                    Failure::of(&error).while_doing(format!("{}: `ref={text}`", self.name))
                })?;
                if reference.digest.is_some() {
                    return Err(self.wrong(
                        &format!("`ref={text}` is a digest"),
                        "a tag: a cache is replaced by the next",
                    ));
                }
                Ok(Place::Registry(reference))
            }
            (key, None) => Err(self.wrong("no folder is given", &format!("{key}=FOLDER"))),
            (_, Some(folder)) => Ok(Place::Folder(directory.join(folder))),
        }
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
            let expected = CacheTo { place: Place::Folder(folder.into()), compression, mounts: false };
            assert_eq!(cache_to(text, Path::new("/here")).ok(), Some(expected), "{text}");
        };
        check("cache", "/here/cache", Compression::Zstd);
        check("/a/cache,with comma", "/a/cache,with comma", Compression::Zstd);
        check("type=local,dest=cache", "/here/cache", Compression::Zstd);
        check("type=local,\"dest=a, b\"", "/here/a, b", Compression::Zstd);
        check("dest=/a,compression=gzip,mode=max", "/a", Compression::Gzip);
        assert!(cache_to("dest=/a,mounts=true", Path::new("/")).is_ok_and(|to| to.mounts));
        let from = |text: &str| cache_from(text, Path::new("/here")).ok();
        assert_eq!(from("cache"), Some(Place::Folder("/here/cache".into())));
        assert_eq!(from("type=local,src=../cache"), Some(Place::Folder("/here/../cache".into())));
        for text in [
            "",
            "type=local",
            "type=registry,dest=x",
            "type=registry",
            "type=registry,ref=",
            "type=registry,ref=A",
            "type=s3,dest=x",
            "dest=x,ref=y",
            "dest=x,mode=min",
            "dest=x,compression=lz4",
            "dest=x,y",
            "a=b",
        ] {
            assert!(cache_to(text, Path::new("/")).is_err(), "{text}");
        }
        assert!(cache_from("dest=x", Path::new("/")).is_err());
    }
    #[test]
    fn tags_are_read() {
        let tag = |text: &str| Some(Place::Registry(text.parse().expect("a reference")));
        let from = |text: &str| cache_from(text, Path::new("/")).ok();
        assert_eq!(from("type=registry,ref=r.org/a/cache"), tag("r.org/a/cache:latest"));
        assert_eq!(from("ref=r.org/a/cache:x,type=registry"), tag("r.org/a/cache:x"));
        assert_eq!(from("ref=r.org/a/cache:x"), None);
        assert_eq!(from(&format!("type=registry,ref=a@sha256:{}", "0".repeat(64))), None);
        let to =
            cache_to("type=registry,ref=r.org/a:x,mode=max,compression=gzip", Path::new("/")).expect("read");
        assert_eq!((Some(to.place), to.compression), (tag("r.org/a:x"), Compression::Gzip));
    }
}
