//! Mounting merged layers.
//!
//! Every part is named to the kernel as `/proc/self/fd/N`. So the names are short, which the older interface
//! needs (one page for all options); need no escaping of `:` and `,`; and a program in the
//! container finds no path of the host in `/proc/self/mountinfo`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use ibid_sys::Errno;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount, open_tree,
};

use crate::plan::OverlaySource;

/// Which interface of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    /// `fsopen` with `lowerdir+` (Linux 6.7).
    Layerwise,
    /// `mount`.
    Classic,
}

/// Why a merged view could not be mounted.
pub(crate) struct Failure {
    /// The layer or folder that it was about, if one.
    pub(crate) path: Option<PathBuf>,
    pub(crate) errno: Errno,
}

struct Parts {
    lowers: Vec<OwnedFd>,
    upper_and_work: Vec<OwnedFd>,
}

impl Parts {
    fn open(source: &OverlaySource) -> Result<Self, Failure> {
        let open = |paths: &[PathBuf]| {
            paths
                .iter()
                .map(|path| {
                    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                        .map_err(|errno| Failure { path: Some(path.clone()), errno })
                })
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { lowers: open(&source.lowers)?, upper_and_work: open(&source.upper_and_work)? })
    }
}

fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Mounts `source` and returns its root, attached over the folder `at` or, when the kernel can do so and
/// `at` is none, over this process's own root.
pub(crate) fn mount_over(source: &OverlaySource, at: &Path) -> Result<OwnedFd, Failure> {
    match mount_by(Interface::Layerwise, source, at) {
        // Older kernels know no `lowerdir+`, the oldest no `fsopen`.
        Err(Failure { path: None, errno: Errno::INVAL | Errno::NOSYS }) => {
            mount_by(Interface::Classic, source, at)
        }
        result => result,
    }
}

pub(crate) fn mount_by(interface: Interface, source: &OverlaySource, at: &Path) -> Result<OwnedFd, Failure> {
    let fail = |errno| Failure { path: None, errno };
    let parts = Parts::open(source)?;
    // One layer alone is no overlay; it needs none.
    if let [only] = parts.lowers.as_slice()
        && parts.upper_and_work.is_empty()
    {
        let mount = clone(only, false).map_err(fail)?;
        let read_only =
            ibid_sys::mount::Attributes { read_only: true, no_devices: true, ..Default::default() };
        ibid_sys::mount::set_attributes(&mount, read_only, false, None).map_err(fail)?;
        crate::root::attach_at(&mount, at).map_err(fail)?;
        return Ok(mount);
    }
    match interface {
        Interface::Layerwise => {
            let mount = layerwise(&parts, source.volatile).map_err(fail)?;
            crate::root::attach_at(&mount, at).map_err(fail)?;
            Ok(mount)
        }
        Interface::Classic => {
            classic(&parts, source.volatile, at).map_err(fail)?;
            openat(CWD, at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)
        }
    }
}

fn layerwise(parts: &Parts, volatile: bool) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for lower in &parts.lowers {
        fsconfig_set_string(&context, "lowerdir+", name(lower))?;
    }
    for (key, folder) in ["upperdir", "workdir"].iter().zip(&parts.upper_and_work) {
        fsconfig_set_string(&context, *key, name(folder))?;
    }
    fsconfig_set_flag(&context, "userxattr")?;
    if volatile {
        fsconfig_set_flag(&context, "volatile")?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
}

fn classic(parts: &Parts, volatile: bool, at: &Path) -> Result<(), Errno> {
    let lowers: Vec<String> = parts.lowers.iter().map(name).collect();
    let mut options = format!("userxattr,lowerdir={}", lowers.join(":"));
    for (key, folder) in ["upperdir", "workdir"].iter().zip(&parts.upper_and_work) {
        options.push_str(&format!(",{key}={}", name(folder)));
    }
    if volatile {
        options.push_str(",volatile");
    }
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    mount("overlay", at, "overlay", MountFlags::NODEV, Some(options.as_c_str()))
}

/// A detached copy of the mount at `place`.
pub(crate) fn clone(place: impl std::os::fd::AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(place, "", flags)
}

#[cfg(test)]
mod tests {
    use ibid_sys::clone::{Namespaces, borrow_memory};
    use ibid_testing::{Need, Place, need};
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    /// How many files are seen, and what the topmost layer says; in a mount namespace of its own.
    fn look(interface: Interface, source: &OverlaySource, at: &Path) -> Result<(usize, String), Errno> {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        mount_by(interface, source, at).map_err(|failure| failure.errno)?;
        let names = std::fs::read_dir(at).map_err(|_| Errno::IO)?.count();
        let top = std::fs::read_to_string(at.join("same")).map_err(|_| Errno::IO)?;
        std::fs::write(at.join("written"), "").map_err(|_| Errno::IO)?;
        unmount(at, UnmountFlags::DETACH)?;
        Ok((names, top))
    }

    /// Both interfaces give the same view, of few layers and of many.
    #[test]
    fn older_kernels_are_served_too() {
        if !need(&[Need::Root, Need::Overlay]) {
            return;
        }
        for interface in [Interface::Layerwise, Interface::Classic] {
            for count in [1, 2, 120] {
                let place = Place::new();
                let layer = |number| {
                    let folder = place.folder(&format!("a,b:c\\ {number}"));
                    std::fs::write(folder.join(format!("file {number}")), "").expect("written");
                    std::fs::write(folder.join("same"), format!("{number}")).expect("written");
                    folder
                };
                let source = OverlaySource {
                    lowers: (0..count).map(layer).collect(),
                    upper_and_work: vec![place.folder("upper"), place.folder("work")],
                    volatile: true,
                };
                let at = place.folder("at");
                let mut seen = Err(Errno::CHILD);
                let namespaces = Namespaces { mount: true, ..Namespaces::default() };
                let child = borrow_memory(namespaces, || {
                    seen = look(interface, &source, &at);
                    0
                })
                .expect("a process");
                waitpid(Some(child.pid), WaitOptions::empty()).expect("it ends");
                assert_eq!(seen, Ok((count + 1, "0".to_owned())), "{interface:?} {count}");
                assert!(place.path().join("upper/written").exists());
            }
        }
    }
}
