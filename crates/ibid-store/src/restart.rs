//! After a restart of the machine. Layers are not waited for to reach the disk, so a power cut can take contents of those that were
//! made shortly before it. What was on the disk when the machine started is safe; so the first to open the store after a restart looks
//! at the layers that were made since the restart before: whether each file is there, with its size and attributes.
//! Identity layers of that time go: they are copies.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ibid_core::digest::DiffId;
use rustix::fs::{AtFlags, CWD};

use crate::gc::ItemKind;
use crate::path::as_path;
use crate::staging::StagedFile;
use crate::verify::{Damaged, difference, digests_in, with_causes};
use crate::{Error, Result, Store};

/// The kernel's name for the time from one start of the machine to the next: proc_sys_kernel(5).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Store {
    /// Looks at the layers that a power cut may have damaged, and moves those out of the way that it has.
    pub(crate) fn look_after_restart(&self) -> Result<()> {
        // Without /proc nothing can be told, and `verify` is what is left.
        let Ok(now) = fs::read(BOOT_ID) else { return Ok(()) };
        let path = self.root().join("boot");
        let known = match fs::read(&path) {
            Ok(known) => Some(known),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        if known.as_deref() == Some(&now) {
            return Ok(());
        }
        if known.is_some() {
            let since = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let since = since.map_err(Error::io("look at", &path))?;
            let damaged = self.damaged_since(since)?;
            if !damaged.is_empty() {
                self.quarantine(&damaged, &|| {})?;
            }
            self.drop_identity_layers_since(since)?;
        }
        let mut file = StagedFile::new(&self.tmp())?;
        file.write(&now)?;
        file.publish(&path)
    }

    fn damaged_since(&self, since: SystemTime) -> Result<Vec<Damaged>> {
        let mut damaged = Vec::new();
        for (path, digest) in digests_in(&self.root().join("layers"), "")? {
            let made = fs::metadata(path.join("manifest")).and_then(|metadata| metadata.modified());
            if made.is_ok_and(|made| made < since) {
                continue;
            }
            if let Err(error) = self.look_at_layer(&DiffId(digest)) {
                let reason = with_causes(&error);
                damaged.push(Damaged { kind: ItemKind::Layer, digest, reason, path });
            }
        }
        Ok(damaged)
    }

    /// Removes the identity layers made since: what they hold is listed nowhere, and they are soon made again.
    fn drop_identity_layers_since(&self, since: SystemTime) -> Result<()> {
        let is_older = |path: &Path| {
            fs::metadata(path.join("about"))
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|made| made < since)
        };
        let made = digests_in(&self.identities_folder(), "")?;
        let suspects: Vec<PathBuf> =
            made.into_iter().map(|(path, _)| path).filter(|path| !is_older(path)).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        self.lock_exclusively(&|| {})?;
        // Who was faster has written down this start of the machine, and may be running with a layer that is in order.
        let is_first = fs::read(self.root().join("boot")).ok() != fs::read(BOOT_ID).ok();
        let dropped =
            if is_first { suspects.iter().try_for_each(|path| self.take_folder_away(path)) } else { Ok(()) };
        self.lock_shared()?;
        dropped
    }

    fn look_at_layer(&self, diff_id: &DiffId) -> Result<()> {
        let manifest = self.layer_manifest(diff_id)?;
        let tree = self.layer_tree(diff_id);
        for entry in &manifest.entries {
            let path = tree.join(as_path(&entry.path));
            let status = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::io("look at", &path))?;
            if let Some(reason) = difference(&manifest, entry, &status, None) {
                return Err(Error::Damaged { path, reason: reason.to_owned() });
            }
        }
        Ok(())
    }
}
