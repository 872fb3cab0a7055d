//! Merged views of layers in this process's own mount namespace, for work on a root file system
//! from outside a container.

use std::path::{Path, PathBuf};

use ibid_sys::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::UnshareFlags;

use crate::error::Error;
use crate::plan::OverlaySource;
use crate::{first, obstacle, overlay, spec};

/// Gives this process a mount namespace of its own, so that nothing it mounts is seen by the host; what
/// the host mounts later it still sees. Call it once, early, before any thread, and after [`crate::userns::ensure`].
pub fn private_mount_namespace() -> Result<(), Error> {
    first::discard_ahead();
    let private = || {
        ibid_sys::clone::leave_shared(UnshareFlags::NEWNS.bits() as i32)?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
    };
    private().map_err(|errno: Errno| Error::Setup {
        step: "make a mount namespace".to_owned(),
        path: None,
        source: errno.into(),
    })
}

/// A merged view, mounted at a folder until dropped.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    mounted: bool,
}

/// Mounts a merged view at the existing folder `at`. From any thread.
pub fn mount(overlay: &spec::Overlay, at: &Path) -> Result<Mounted, Error> {
    overlay::mount_over(&OverlaySource::new(overlay), at).map_err(|failure| Error::Setup {
        step: "mount layers".to_owned(),
        path: Some(failure.path.unwrap_or_else(|| at.to_owned())),
        source: obstacle::explained_overlay(overlay, failure.errno),
    })?;
    Ok(Mounted { at: at.to_owned(), mounted: true })
}

impl Mounted {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Takes the view off its folder now; what is open in it goes with its last holder.
    ///
    /// Whoever calls this holds nothing any more, and yet the view can be in use: a process that another thread is
    /// starting has copies of all that is open here until it executes its program.
    pub fn unmount(mut self) -> Result<(), Error> {
        self.mounted = false;
        unmount(&self.at, UnmountFlags::DETACH).map_err(|errno| Error::Setup {
            step: "unmount layers".to_owned(),
            path: Some(self.at.clone()),
            source: errno.into(),
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            // Nobody is left to hear of a failure; detached, it goes with its last open file.
            let _unheard = unmount(&self.at, UnmountFlags::DETACH);
        }
    }
}
