//! The folders that a build may copy from: its context, and what `--build-context` names beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ibid_build::context::{Context, IgnoreFile};
use ibid_core::digest::Digest;
use ibid_core::dockerfile::{NamedContext, context_name};
use ibid_core::dockerignore::Ignore;
use ibid_core::reference::Reference;
use ibid_store::Store;
use std::os::unix::ffi::OsStrExt as _;

use crate::report::Failure;

/// What a `--build-context` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A folder of this machine, absolute.
    Folder(PathBuf),
    /// An image of the store, by reference.
    Image(String),
}

/// What the planner needs to know of them.
pub fn kinds(named: &BTreeMap<String, Named>) -> BTreeMap<String, NamedContext> {
    let kind = |named: &Named| match named {
        Named::Folder(_) => NamedContext::Folder,
        Named::Image(image) => NamedContext::Image(image.clone()),
    };
    named.iter().map(|(name, named)| (name.clone(), kind(named))).collect()
}

/// Reads `NAME=PATH` and `NAME=docker-image://REFERENCE`, by the one spelling of their names. Paths are relative to
/// `directory`.
pub fn named(texts: &[String], directory: &Path) -> Result<BTreeMap<String, Named>, Failure> {
    let mut contexts = BTreeMap::new();
    for text in texts {
        let failure = |message: String| Failure::new(format!("`--build-context {text}`: {message}"));
        let expected = "expected `NAME=FOLDER` or `NAME=docker-image://IMAGE`";
        let Some((name, value)) =
            text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())
        else {
            return Err(failure(expected.to_owned()));
        };
        if let Err(error) = name.parse::<Reference>() {
            return Err(failure(error.to_string()).hint("name it like a stage or an image, in lower case"));
        }
        let context = if let Some(image) = value.strip_prefix("docker-image://") {
            image.parse::<Reference>().map_err(|error| failure(error.to_string()))?;
            Named::Image(image.to_owned())
        } else if let Some(kind) = unsupported(value) {
            return Err(failure(format!("{kind} cannot be a context")).hint(expected));
        } else {
            let folder = crate::project::clean(&directory.join(value));
            let folder = std::path::absolute(&folder)
                .map_err(|error| Failure::of(&error).while_doing(folder.display().to_string()))?;
            match std::fs::metadata(&folder) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return Err(failure(format!("{} is no folder", folder.display()))),
                Err(error) => return Err(failure(format!("{}: {error}", folder.display()))),
            }
            Named::Folder(folder)
        };
        contexts.insert(context_name(name), context);
    }
    Ok(contexts)
}

/// What Docker takes as a context beside folders and images, by name.
fn unsupported(value: &str) -> Option<&'static str> {
    let starts = |starts: &[&str]| starts.iter().any(|start| value.starts_with(start));
    if starts(&["oci-layout://"]) {
        Some("an OCI image folder")
    } else if starts(&["git://", "ssh://", "git@"])
        || (starts(&["https://", "http://"]) && value.contains(".git"))
    {
        Some("a git repository")
    } else if starts(&["https://", "http://"]) {
        Some("a URL")
    } else if starts(&["target:", "input:"]) {
        Some("another target")
    } else {
        None
    }
}

/// Opens a folder. `dockerfile` is that of the build whose context it is; none for a named one.
pub fn open(store: &Store, folder: &Path, dockerfile: Option<&Path>) -> Result<Context, Failure> {
    let name = Digest::of(folder.as_os_str().as_bytes()).hex();
    let cache = store.root().join("cache").join(format!("context-{name}"));
    let rules = ignore_file(folder, dockerfile)?;
    Context::open(folder, rules, Some(&cache)).map_err(|error| Failure::of(&error))
}

/// The rules that drop files from a context: `<Dockerfile>.dockerignore` where it exists, as in Docker, else the
/// context's `.dockerignore`.
pub fn ignore_file(folder: &Path, dockerfile: Option<&Path>) -> Result<IgnoreFile, Failure> {
    let beside = dockerfile.map(|dockerfile| {
        let mut beside = dockerfile.as_os_str().to_owned();
        beside.push(".dockerignore");
        PathBuf::from(beside)
    });
    for path in beside.into_iter().chain([folder.join(".dockerignore")]) {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(Failure::of(&error).while_doing(format!("cannot read {}", path.display())));
            }
        };
        let rules = Ignore::parse(&bytes).map_err(|error| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Failure::of(&error).excerpt_lines(&path, &text, error.line, error.line, "")
        })?;
        let shown = if dockerfile.is_some() { path.strip_prefix(folder).unwrap_or(&path) } else { &path };
        return Ok(IgnoreFile { name: shown.display().to_string(), rules });
    }
    Ok(IgnoreFile::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_read() {
        let place = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(place.path().join("data/more")).expect("folders");
        std::fs::write(place.path().join("file"), "").expect("a file");
        let check = |texts: &[&str], expected: Result<&[(&str, Named)], &str>| {
            let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
            let found = named(&texts, place.path());
            match expected {
                Ok(expected) => {
                    let expected =
                        expected.iter().map(|(name, context)| ((*name).to_owned(), context.clone()));
                    assert_eq!(found.expect("sound"), expected.collect(), "{texts:?}");
                }
                Err(part) => {
                    let message = found.expect_err("refused").message().to_owned();
                    assert!(message.contains(part), "{texts:?}: {message}");
                }
            }
        };
        let folder = |path: &str| Named::Folder(place.path().join(path));
        let image = |image: &str| Named::Image(image.to_owned());
        check(&["data=data"], Ok(&[("data", folder("data"))]));
        check(&["a=./data/../data/more/"], Ok(&[("a", folder("data/more"))]));
        check(&["a=data", "a=data/more"], Ok(&[("a", folder("data/more"))]));
        check(&["docker.io/library/alpine:latest=docker-image://x:1"], Ok(&[("alpine", image("x:1"))]));
        check(&["debian:12=docker-image://x"], Ok(&[("debian:12", image("x"))]));
        check(&["data"], Err("expected `NAME=FOLDER`"));
        check(&["=data"], Err("expected `NAME=FOLDER`"));
        check(&["data="], Err("expected `NAME=FOLDER`"));
        check(&["Data=data"], Err("lower case"));
        check(&["data=file"], Err("is no folder"));
        check(&["data=none"], Err("No such file"));
        check(&["a=docker-image://X"], Err("lower case"));
        check(&["a=oci-layout://x"], Err("an OCI image folder cannot be a context"));
        check(&["a=https://host/x.tar"], Err("a URL cannot be a context"));
        check(&["a=https://host/x.git#main"], Err("a git repository cannot be a context"));
        check(&["a=git@host:x"], Err("a git repository cannot be a context"));
    }
}
