//! Performs [`Steps`](crate::plan::Steps): a short interpreter that decides nothing.
//!
//! Mounts are made detached, restricted, and only then attached to an open place in the new root, so there
//! is no moment in which one is writable that should not be, and no path to be exchanged under way.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ibid_sys::mount::{Attributes, set_attributes};
use ibid_sys::{Errno, owner};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat, statat, symlinkat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_change, unmount,
};

use crate::error::OVERLAY_STEP;
use crate::overlay;
use crate::plan::{File, Giving, Restrict, Step};
use crate::report::Failure;
use crate::root::{Root, attach, attach_at};

/// Where the new root is mounted until it is entered: over the old one.
const OVER_THE_OLD_ROOT: &str = "/";

/// A container in the making.
pub(crate) struct Making {
    /// How files are given to their owners.
    giving: Giving,
    /// The new root; at first, that in memory.
    root: Option<Root>,
    /// A root in memory. Below the new one, and gone with the old one when that is entered.
    ahead: Option<Root>,
    /// How many files lie in it, which names the next one.
    files_written: usize,
    /// What the root file system has at some places, with each place.
    held: Vec<(String, OwnedFd)>,
    /// An empty read-only folder, for masking.
    empty: Option<OwnedFd>,
}

fn failure(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::step(step, Some(path.into()), errno)
}

fn no_root() -> Failure {
    Failure::step("find the root file system", None, Errno::NOENT)
}

impl From<Restrict> for Attributes {
    fn from(restrict: Restrict) -> Self {
        Self {
            read_only: restrict.write,
            no_suid: restrict.suid,
            no_devices: restrict.devices,
            no_exec: restrict.exec,
        }
    }
}

impl Making {
    pub(crate) fn new(giving: Giving) -> Self {
        Self { giving, root: None, ahead: None, files_written: 0, held: Vec::new(), empty: None }
    }

    /// Performs steps. `idmaps` are the user namespaces that [`Step::Bind`] refers to.
    pub(crate) fn apply(&mut self, steps: &[Step], idmaps: &[OwnedFd]) -> Result<(), Failure> {
        steps.iter().try_for_each(|step| self.perform(step, idmaps))
    }

    fn root(&self) -> Result<&Root, Failure> {
        self.root.as_ref().ok_or_else(no_root)
    }

    fn perform(&mut self, step: &Step, idmaps: &[OwnedFd]) -> Result<(), Failure> {
        match step {
            Step::SeparateMounts => {
                let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                mount_change("/", flags).map_err(failure("separate the mounts from the host's", "/"))
            }
            Step::Loopback => {
                // As in Docker: nobody else's port has a number below 1024 here. An older kernel keeps its limit.
                let _as_it_was = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
                ibid_sys::network::loopback_up()
                    .map_err(|errno| Failure::step("switch the loopback device on", None, errno))
            }
            Step::AheadRoot => {
                let options = [("mode".to_owned(), "700".to_owned())];
                let restrict = Restrict { suid: true, devices: true, ..Default::default() };
                let made = || {
                    let memory = filesystem("tmpfs", &options, restrict)?;
                    // Only an attached mount can have others in it, or be cloned.
                    attach_at(&memory, Path::new(OVER_THE_OLD_ROOT))?;
                    Ok(Root::new(memory, self.giving))
                };
                self.root = Some(made().map_err(|errno| Failure::filesystem("tmpfs", "/", errno))?);
                Ok(())
            }
            Step::Hostname(name) => rustix::system::sethostname(name.as_bytes())
                .map_err(|errno| Failure::step("set the host name", None, errno)),
            Step::RootOverlay(source) => {
                let folder = overlay::mount_over(source, Path::new(OVER_THE_OLD_ROOT))
                    .map_err(|failure| Failure::step(OVERLAY_STEP, failure.path, failure.errno))?;
                self.cover_with(folder);
                Ok(())
            }
            Step::RootFolder(path) => {
                let mounted = || {
                    let folder =
                        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                    let mount = overlay::clone(&folder, false)?;
                    set_attributes(
                        &mount,
                        Attributes { no_devices: true, ..Default::default() },
                        false,
                        None,
                    )?;
                    attach_at(&mount, Path::new(OVER_THE_OLD_ROOT))?;
                    Ok(mount)
                };
                let mounted = mounted().map_err(failure("mount the root file system", path))?;
                self.cover_with(mounted);
                Ok(())
            }
            Step::TakeOver(folders) => {
                let ahead = self.ahead.as_ref().ok_or_else(no_root)?;
                let root = self.root()?;
                folders.iter().try_for_each(|path| {
                    let moved = || attach(ahead.find(path, false)?, root.folder(path, false)?);
                    moved().map_err(failure("mount in the container", path))
                })
            }
            Step::Filesystem { kind, target, options, restrict } => {
                let root = self.root()?;
                let made = || {
                    let place = root.folder(&target.path, target.follow_links)?;
                    attach(filesystem(kind, options, *restrict)?, place)
                };
                made().map_err(|errno| Failure::filesystem(kind, &target.path, errno))
            }
            Step::Bind { source, target, recursive, restrict, idmap } => {
                let idmap = match idmap {
                    None => None,
                    Some(index) => Some(idmaps.get(*index).map(|fd| fd.as_fd()).ok_or_else(|| {
                        Failure::step(
                            "find the map of owners for the mount",
                            Some(source.clone()),
                            Errno::BADF,
                        )
                    })?),
                };
                self.bind(source, *recursive, (*restrict).into(), idmap, &target.path, target.follow_links)
            }
            Step::Hold(paths) => {
                let root = self.root.as_ref().ok_or_else(no_root)?;
                for path in paths {
                    let hold = || overlay::clone(root.find(path, true)?, false);
                    self.held.push((path.clone(), hold().map_err(failure("keep what the image has", path))?));
                }
                Ok(())
            }
            Step::Uncover(index) => {
                let root = self.root()?;
                let (path, held) = self.held.get(*index).ok_or_else(no_root)?;
                let uncovered = || {
                    let is_folder = FileType::from_raw_mode(fstat(held)?.st_mode) == FileType::Directory;
                    let place = if is_folder { root.folder(path, true)? } else { root.file(path, true)? };
                    attach(held, place)
                };
                uncovered().map_err(failure("show what the image has", path))
            }
            Step::Folders(paths) => {
                let root = self.root()?;
                paths.iter().try_for_each(|path| {
                    root.folder(path, true).map(drop).map_err(failure("make the folder", path))
                })
            }
            Step::Links(links) => {
                let root = self.root()?;
                links.iter().try_for_each(|(path, to)| {
                    let made = || {
                        let (parent, name) = root.parent(path, false)?;
                        symlinkat(to.as_str(), &parent, name)?;
                        root.own(&parent, name)
                    };
                    made().map_err(failure("make the link", path))
                })
            }
            Step::Inject(files) => files
                .iter()
                .try_for_each(|file| self.inject(file).map_err(failure("put the file", &file.target))),
            Step::Mask(paths) => {
                for path in paths {
                    self.mask(path).map_err(failure("hide", path))?;
                }
                Ok(())
            }
            Step::Protect(paths) => {
                paths.iter().try_for_each(|path| self.protect(path).map_err(failure("make read-only", path)))
            }
            Step::ProtectRoot => {
                let attributes = Attributes { read_only: true, ..Default::default() };
                set_attributes(self.root()?, attributes, false, None)
                    .map_err(failure("make the root file system read-only", "/"))
            }
            Step::EnterRoot => self.enter(),
        }
    }

    /// The new root is mounted over the one in memory.
    fn cover_with(&mut self, folder: OwnedFd) {
        self.ahead = self.root.replace(Root::new(folder, self.giving));
    }

    fn bind(
        &self,
        source: &Path,
        recursive: bool,
        mut attributes: Attributes,
        idmap: Option<BorrowedFd<'_>>,
        target: &str,
        follow_links: bool,
    ) -> Result<(), Failure> {
        let at_source = |errno| Failure::step("mount", Some(source.to_owned()), errno);
        let opened = openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(at_source)?;
        let kind = FileType::from_raw_mode(fstat(&opened).map_err(at_source)?.st_mode);
        // Who names a device means to use it.
        attributes.no_devices &= !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let mount = overlay::clone(&opened, recursive).map_err(at_source)?;
        if idmap.is_some() {
            set_attributes(&mount, Attributes::default(), recursive, idmap).map_err(|errno| {
                Failure::IdmapRefused { path: source.to_owned(), errno: errno.raw_os_error() }
            })?;
        }
        set_attributes(&mount, attributes, recursive, None).map_err(at_source)?;
        let root = self.root()?;
        let attached = || {
            let place = if kind == FileType::Directory {
                root.folder(target, follow_links)?
            } else {
                root.file(target, follow_links)?
            };
            attach(&mount, place)
        };
        attached().map_err(failure("mount in the container", target))
    }

    fn inject(&mut self, file: &File) -> Result<(), Errno> {
        let (Some(files), Some(root)) = (&self.ahead, &self.root) else { return Err(Errno::NOENT) };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let name = self.files_written.to_string();
        self.files_written += 1;
        let written = openat(files, &name, flags, Mode::RUSR)?;
        let mut rest = file.content.as_slice();
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&written, rest)?..];
        }
        match self.giving {
            Giving::Kernel => fchown(&written, Some(Uid::from_raw(file.uid)), Some(Gid::from_raw(file.gid)))?,
            // Older kernels keep no attributes in memory; then it shows as the user's.
            Giving::Beside => drop(owner::mark(files, name.as_str(), (file.uid, file.gid))),
            Giving::Nothing => {}
        }
        fchmod(&written, Mode::from_raw_mode(file.mode))?;
        drop(written);
        let opened = openat(files, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mount = overlay::clone(&opened, false)?;
        let attributes = Attributes { read_only: true, no_exec: !file.exec, ..Default::default() };
        set_attributes(&mount, attributes, false, None)?;
        attach(&mount, root.file(&file.target, true)?)
    }

    fn mask(&mut self, path: &str) -> Result<(), Errno> {
        let Some(root) = &self.root else { return Err(Errno::NOENT) };
        let place = match root.find(path, false) {
            Err(Errno::NOENT) => return Ok(()),
            result => result?,
        };
        let mount = if FileType::from_raw_mode(fstat(&place)?.st_mode) == FileType::Directory {
            match &self.empty {
                Some(empty) => overlay::clone(empty, false)?,
                None => {
                    let everything = Restrict { write: true, suid: true, devices: true, exec: true };
                    self.empty =
                        Some(filesystem("tmpfs", &[("size".to_owned(), "0".to_owned())], everything)?);
                    let Some(empty) = &self.empty else { return Err(Errno::NOENT) };
                    return attach(empty, place);
                }
            }
        } else {
            let null = openat(CWD, "/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let mount = overlay::clone(&null, false)?;
            set_attributes(
                &mount,
                Attributes { no_suid: true, no_exec: true, ..Default::default() },
                false,
                None,
            )?;
            mount
        };
        attach(&mount, place)
    }

    fn protect(&self, path: &str) -> Result<(), Errno> {
        let Some(root) = &self.root else { return Err(Errno::NOENT) };
        let place = match root.find(path, false) {
            Err(Errno::NOENT) => return Ok(()),
            result => result?,
        };
        let mount = overlay::clone(&place, true)?;
        set_attributes(&mount, Attributes { read_only: true, ..Default::default() }, true, None)?;
        attach(&mount, place)
    }

    fn enter(&self) -> Result<(), Failure> {
        let entered = || {
            rustix::process::fchdir(self.root.as_ref().ok_or(Errno::NOENT)?)?;
            // The old root ends up over the new one's own folder, and over the old one's the root in memory, whose files that were put
            // over others are mounts of their own and stay. Both are taken off from there, the upper one first.
            rustix::process::pivot_root(".", ".")?;
            unmount(".", UnmountFlags::DETACH)?;
            unmount(".", UnmountFlags::DETACH)?;
            // What still lay over it would be found by `..`, and be the host's.
            let [here, above] = [".", ".."].map(|path| statat(CWD, path, AtFlags::empty()));
            let (here, above) = (here?, above?);
            if (here.st_dev, here.st_ino) != (above.st_dev, above.st_ino) {
                return Err(Errno::XDEV);
            }
            rustix::process::chdir("/")
        };
        entered().map_err(failure("enter the root file system", "/"))
    }
}

fn filesystem(kind: &str, options: &[(String, String)], restrict: Restrict) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", kind)?;
    for (key, value) in options {
        fsconfig_set_string(&context, key.as_str(), value.as_str())?;
    }
    fsconfig_create(&context)?;
    let attributes = [
        (restrict.write, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (restrict.suid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (restrict.devices, MountAttrFlags::MOUNT_ATTR_NODEV),
        (restrict.exec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ]
    .into_iter()
    .filter(|(refused, _)| *refused)
    .fold(MountAttrFlags::empty(), |all, (_, attribute)| all | attribute);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
