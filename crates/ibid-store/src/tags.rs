//! Tags: which image a name means.
//!
//! `tags/<registry>/<repository>/:<tag>` holds one line, the image's digest; `@<hex>` instead of `:<tag>` serves a
//! reference by digest. The mark in front keeps the tag `b` of the repository `a` apart from the repository `a/b`: no
//! component of a repository starts with one.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use ibid_core::reference::Reference;

use crate::staging::{StagedFile, sync_names};
use crate::{Error, Result, Store};

impl Store {
    /// Makes `reference` mean the image `digest`.
    pub fn set_tag(&self, reference: &Reference, digest: Digest) -> Result<()> {
        let path = self.tag_path(reference)?;
        if read_tag(&path).is_ok_and(|known| known == Some(digest)) {
            return Ok(());
        }
        let folder = path.parent().expect("a tag is below the root");
        fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
        // A tag that outlives a power cut names a configuration that does.
        sync_names(&self.root().join("blobs/sha256"))?;
        let mut file = StagedFile::new(&self.tmp())?;
        file.write(format!("{digest}\n").as_bytes())?;
        file.sync()?;
        file.publish(&path)
    }

    /// Takes a tag away. False when there was none in this very store. The image and its layers stay until nothing needs them and they are
    /// collected.
    pub fn remove_tag(&self, reference: &Reference) -> Result<bool> {
        let path = self.tag_path(reference)?;
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(Error::io("remove", &path)(error)),
        }
    }

    /// The image that `reference` means here.
    pub fn tag(&self, reference: &Reference) -> Result<Option<Digest>> {
        for store in std::iter::once(self).chain(self.additional()) {
            if let Some(digest) = read_tag(&store.tag_path(reference)?)? {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }

    /// All tags, sorted.
    pub fn tags(&self) -> Result<Vec<(Reference, Digest)>> {
        let mut found: BTreeMap<Reference, Digest> = BTreeMap::new();
        for store in std::iter::once(self).chain(self.additional()) {
            for (reference, digest) in store.own_tags()? {
                found.entry(reference).or_insert(digest);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The tags of this very store.
    pub(crate) fn own_tags(&self) -> Result<Vec<(Reference, Digest)>> {
        let root = self.root().join("tags");
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(Error::io("read the folder", &folder))? {
                let entry = entry.map_err(Error::io("read the folder", &folder))?;
                let path = entry.path();
                let file_type = entry.file_type().map_err(Error::io("look at", &path))?;
                if file_type.is_dir() {
                    folders.push(path);
                } else if let Some(reference) = reference_of(&root, &path)
                    && let Some(digest) = read_tag(&path)?
                {
                    found.push((reference, digest));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn tag_path(&self, reference: &Reference) -> Result<PathBuf> {
        let name = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => format!("@{}", digest.hex()),
            (None, Some(tag)) => format!(":{tag}"),
            (None, None) => return Err(Error::InvalidTag { reference: reference.clone() }),
        };
        let components = [reference.registry.as_str()].into_iter().chain(reference.repository.split('/'));
        let mut path = self.root().join("tags");
        for component in components {
            if component.is_empty()
                || component.starts_with(['.', ':', '@'])
                || component.contains(['/', '\0'])
            {
                return Err(Error::InvalidTag { reference: reference.clone() });
            }
            path.push(component);
        }
        if name.contains(['/', '\0']) {
            return Err(Error::InvalidTag { reference: reference.clone() });
        }
        path.push(name);
        Ok(path)
    }
}

fn reference_of(root: &Path, path: &Path) -> Option<Reference> {
    let relative = path.strip_prefix(root).ok()?.to_str()?;
    let (repository, name) = relative.rsplit_once('/')?;
    let (registry, repository) = repository.split_once('/')?;
    let (tag, digest) = match name.split_at_checked(1)? {
        (":", tag) => (Some(tag.to_owned()), None),
        ("@", hex) => (None, Some(Digest::from_hex(hex).ok()?)),
        _ => return None,
    };
    Some(Reference { registry: registry.to_owned(), repository: repository.to_owned(), tag, digest })
}

fn read_tag(path: &Path) -> Result<Option<Digest>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    match text.strip_suffix('\n').unwrap_or(&text).parse() {
        Ok(digest) => Ok(Some(digest)),
        Err(error) => Err(Error::Damaged { path: path.to_owned(), reason: format!("{error}") }),
    }
}
