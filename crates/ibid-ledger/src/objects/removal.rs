//! Removing contents that nothing needs.
//!
//! Nobody stores meanwhile. A mark (see `pending`) says that contents are being removed, so that nobody takes a folder for complete
//! whose removal was interrupted.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ibid_core::digest::Digest;

use super::pack::{self, Draft, Pack};
use super::writer::DRAFT;
use super::{Objects, Pending};
use crate::ledger::{Error, io};

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Number of contents.
    pub contents: u64,
    /// Space on the disk that they took, bytes.
    pub bytes: u64,
}

/// A content in a file of its own.
struct Loose {
    digest: Digest,
    path: PathBuf,
    bytes: u64,
    is_recent: bool,
}

impl Objects {
    /// Removes what `needed` does not name and was not stored or asked for since `spare` ago. `needed` is given the contents that
    /// are spared, whatever they are, and names everything that is needed for them and otherwise.
    pub(crate) fn remove_all_but(
        &self,
        spare: Duration,
        dry_run: bool,
        needed: impl FnOnce(&Self, Vec<Digest>) -> Result<HashSet<Digest>, Error>,
    ) -> Result<Removed, Error> {
        let Some(_lock) = self.lock(true)? else {
            return Err(io("lock", &self.folder.join("lock"))(io::ErrorKind::Unsupported.into()));
        };
        let is_recent = |path: &Path| -> Result<bool, Error> {
            let modified = fs::symlink_metadata(path).and_then(|status| status.modified());
            let age = SystemTime::now().duration_since(modified.map_err(io("look at", path))?);
            // A time ahead of ours is no reason to remove something.
            Ok(age.map_or(true, |age| age < spare))
        };
        let loose = self.loose(&is_recent)?;
        let mut spared: Vec<Digest> =
            loose.iter().filter(|loose| loose.is_recent).map(|loose| loose.digest).collect();
        for pack in self.packs()? {
            if is_recent(pack.path())? {
                spared.extend(pack.digests());
            }
        }
        let needed = needed(self, spared)?;
        if dry_run {
            return self.remove(&loose, &needed, None);
        }
        let mut pending = Pending::begin_removing(self)?;
        match self.remove(&loose, &needed, Some(&pending)) {
            Ok(removed) => pending.settle().map(|()| removed),
            Err(error) => {
                pending.abandon();
                Err(error)
            }
        }
    }

    /// Removes it, or without `pending` only counts.
    fn remove(
        &self,
        loose: &[Loose],
        needed: &HashSet<Digest>,
        pending: Option<&Pending>,
    ) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        for pack in self.packs()? {
            self.shrink(pack, needed, pending, &mut removed)?;
        }
        for Loose { path, bytes, .. } in loose.iter().filter(|loose| !needed.contains(&loose.digest)) {
            removed.contents += 1;
            removed.bytes += bytes;
            if pending.is_some() {
                fs::remove_file(path).map_err(io("remove", path))?;
            }
        }
        if pending.is_some() {
            self.remove_drafts()?;
        }
        Ok(removed)
    }

    /// Takes what is not needed out of a pack.
    fn shrink(
        &self,
        pack: &Pack,
        needed: &HashSet<Digest>,
        pending: Option<&Pending>,
        removed: &mut Removed,
    ) -> Result<(), Error> {
        let (kept, gone): (Vec<Digest>, Vec<Digest>) =
            pack.digests().partition(|digest| needed.contains(digest));
        if gone.is_empty() {
            return Ok(());
        }
        removed.contents += gone.len() as u64;
        removed.bytes +=
            gone.iter().filter_map(|digest| pack.find(digest)).map(|(_, bytes)| bytes).sum::<u64>();
        let Some(pending) = pending else { return Ok(()) };
        if !kept.is_empty() {
            let path = self.folder.join(format!("{DRAFT}{}", kept[0].hex()));
            let file = fs::File::create(&path).map_err(io("make", &path))?;
            let mut draft = Draft::new(path, file)?;
            self.own(draft.path())?;
            for digest in kept {
                if let Some(stored) = pack.read(&digest)? {
                    draft.add(digest, &stored)?;
                }
            }
            let path = self.folder.join(pack::FOLDER).join(draft.finish()?);
            fs::File::open(draft.path())
                .and_then(|file| file.sync_all())
                .map_err(io("sync", draft.path()))?;
            fs::rename(draft.path(), &path).map_err(io("write", &path))?;
            pending.add(path);
        }
        fs::remove_file(pack.path()).map_err(io("remove", pack.path()))
    }

    fn loose(&self, is_recent: &impl Fn(&Path) -> Result<bool, Error>) -> Result<Vec<Loose>, Error> {
        let mut all = Vec::new();
        for start in names(&self.folder)? {
            let is_start = start.len() == 2 && start.bytes().all(|byte| byte.is_ascii_hexdigit());
            let folder = self.folder.join(&start);
            if !is_start {
                continue;
            }
            for rest in names(&folder)? {
                let Ok(digest) = Digest::from_hex(&format!("{start}{rest}")) else { continue };
                let path = folder.join(rest);
                let bytes = fs::symlink_metadata(&path).map_err(io("look at", &path))?.len();
                let is_recent = is_recent(&path)?;
                all.push(Loose { digest, path, bytes, is_recent });
            }
        }
        Ok(all)
    }

    /// Nobody stores now, so whoever began these was killed.
    fn remove_drafts(&self) -> Result<(), Error> {
        for name in names(&self.folder)?.into_iter().filter(|name| name.starts_with(DRAFT)) {
            let path = self.folder.join(name);
            fs::remove_file(&path).map_err(io("remove", &path))?;
        }
        Ok(())
    }
}

/// The names in a folder that are text: all that are ours.
fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("read", folder))? {
        names.extend(entry.map_err(io("read", folder))?.file_name().into_string());
    }
    Ok(names)
}
