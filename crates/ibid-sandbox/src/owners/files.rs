//! Files that a process in the container means, and the owners that are kept beside them.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use ibid_sys::Errno;
use ibid_sys::owner::{self, Inode, Owner};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, XattrFlags, chownat, fstat, openat, openat2,
};

/// `AT_FDCWD`.
pub(super) const HERE: i32 = -100;
/// `AT_SYMLINK_NOFOLLOW`.
pub(super) const NO_FOLLOW: u32 = 0x100;
/// `AT_EMPTY_PATH`.
pub(super) const EMPTY_PATH: u32 = 0x1000;
/// `AT_STATX_SYNC_TYPE`.
pub(super) const SYNC: u32 = 0x6000;

/// Why there is no file.
pub(super) enum NotFound {
    /// As the kernel would say.
    Is(Errno),
    /// The path means something to that process alone, such as its own descriptors.
    HereOnly,
}

/// A place in the container.
pub(super) struct File {
    place: OwnedFd,
    status: Stat,
}

impl File {
    pub(super) fn new(place: OwnedFd) -> Result<Self, Errno> {
        let status = fstat(&place)?;
        Ok(Self { place, status })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.as_fd()
    }

    /// Whether what is made in this folder gets its group (inode(7)).
    pub(super) fn sets_group(&self) -> bool {
        Mode::from_raw_mode(self.status.st_mode).contains(Mode::SGID)
    }

    /// For calls that take a path only.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.place.as_raw_fd())
    }
}

pub(super) struct Files {
    /// The container's `/`, and its device.
    root: Option<(OwnedFd, u64)>,
    /// Where on the host what is written there lies.
    upper: Option<PathBuf>,
}

impl Files {
    pub(super) fn new(upper: Option<PathBuf>) -> Self {
        Self { root: None, upper }
    }

    /// What a descriptor of the process means.
    pub(super) fn open_in(&self, thread: u32, descriptor: i32) -> Result<File, Errno> {
        let path = match descriptor {
            HERE => format!("/proc/{thread}/cwd"),
            descriptor => format!("/proc/{thread}/fd/{descriptor}"),
        };
        match openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(place) => File::new(place),
            Err(Errno::NOENT) => Err(Errno::BADF),
            Err(errno) => Err(errno),
        }
    }

    /// What a path means to the process. A link at its end is followed on demand, links on the way always.
    pub(super) fn at(
        &mut self,
        thread: u32,
        folder: i32,
        path: &[u8],
        follow: bool,
    ) -> Result<File, NotFound> {
        if path.is_empty() {
            return Err(NotFound::Is(Errno::NOENT));
        }
        if path.starts_with(b"/proc/") || path.starts_with(b"/dev/fd/") {
            return Err(NotFound::HereOnly);
        }
        let mut full = Vec::new();
        if path[0] != b'/' {
            let link = match folder {
                HERE => format!("/proc/{thread}/cwd"),
                descriptor => format!("/proc/{thread}/fd/{descriptor}"),
            };
            full = match fs::read_link(link) {
                Ok(folder) => folder.into_os_string().into_vec(),
                Err(_) => return Err(NotFound::Is(Errno::BADF)),
            };
            // A folder that was deleted, or of another root.
            if full.first() != Some(&b'/') || full.ends_with(b" (deleted)") {
                return Err(NotFound::HereOnly);
            }
            full.push(b'/');
        }
        full.extend_from_slice(path);
        // A path from a descriptor starts at the container's root, one from the process at its own, which `chroot` moves.
        let own_root = fs::read_link(format!("/proc/{thread}/root"));
        let own_root = own_root.map_err(|_| NotFound::HereOnly)?;
        if own_root != Path::new("/") {
            if path[0] != b'/' {
                let Ok(below) = Path::new(std::ffi::OsStr::from_bytes(&full)).strip_prefix(&own_root) else {
                    return Err(NotFound::HereOnly);
                };
                full = below.as_os_str().as_bytes().to_vec();
            }
            let path = format!("/proc/{thread}/root");
            let root = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            return find(root.map_err(NotFound::Is)?.as_fd(), &full, follow);
        }
        let (root, _) = self.root(thread).map_err(NotFound::Is)?;
        find(root, &full, follow)
    }

    fn root(&mut self, thread: u32) -> Result<(BorrowedFd<'_>, u64), Errno> {
        if self.root.is_none() {
            let path = format!("/proc/{thread}/root");
            let root = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let device = fstat(&root)?.st_dev;
            self.root = Some((root, device));
        }
        let Some((root, device)) = &self.root else { return Err(Errno::NOENT) };
        Ok((root.as_fd(), *device))
    }

    /// The owner that is kept; none for what nobody gave away.
    pub(super) fn owner(&self, file: &File, maker: Owner) -> Result<Option<Owner>, Errno> {
        Ok(match self.kept(file)? {
            Some(owner) => Some(owner),
            None => self.inherited_group(file).map(|gid| (maker.0, gid)),
        })
    }

    /// The group of a new file in a folder with the bit that says so (inode(7)).
    fn inherited_group(&self, file: &File) -> Option<u32> {
        let (root, device) = self.root.as_ref()?;
        if file.status.st_dev != *device {
            return None;
        }
        let path = fs::read_link(file.path()).ok()?;
        for folder in path.ancestors().skip(1) {
            let Ok(folder) = find(root.as_fd(), folder.as_os_str().as_bytes(), false) else { return None };
            if !Mode::from_raw_mode(folder.status.st_mode).contains(Mode::SGID) {
                return None;
            }
            if let Ok(Some((_, gid))) = self.kept(&folder) {
                return Some(gid);
            }
        }
        None
    }

    fn kept(&self, file: &File) -> Result<Option<Owner>, Errno> {
        if owner::holds_attribute(&file.status) {
            let mut value = [0; 32];
            return match rustix::fs::getxattr(file.path(), owner::ATTRIBUTE, &mut value) {
                Ok(length) => Ok(owner::parse(&value[..length])),
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(None),
                Err(errno) => Err(errno),
            };
        }
        Ok(owner::remembered(self.inode(file)))
    }

    /// Gives a file another owner. `maker` is what the kernel says its owner is, whatever is done.
    pub(super) fn give(&self, file: &File, owner: Owner, maker: Owner) -> Result<(), Errno> {
        // What the kernel does besides: whether it may be changed at all, set-user-id bits, times, copying up.
        let own = crate::userns::host_ids();
        let (uid, gid) = (Uid::from_raw(own.0), Gid::from_raw(own.1));
        match chownat(&file.place, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH) {
            // A file of the host's that somebody else owns.
            Err(Errno::PERM) if !self.is_ours(file) => return Err(Errno::PERM),
            Err(Errno::PERM) => {}
            result => result?,
        }
        if owner::holds_attribute(&file.status) {
            let written =
                rustix::fs::setxattr(file.path(), owner::ATTRIBUTE, &owner::text(owner), XattrFlags::empty());
            match written {
                Err(Errno::OPNOTSUPP) => {}
                result => return result,
            }
        }
        let inode = self.inode(file);
        if owner != maker || owner::remembered(inode).is_some() {
            owner::remember(inode, owner);
        }
        Ok(())
    }

    fn is_ours(&self, file: &File) -> bool {
        self.root.as_ref().is_some_and(|(_, device)| *device == file.status.st_dev)
    }

    /// The inode that holds a file. A link that was copied up is shown with the number that it had below, and has another.
    fn inode(&self, file: &File) -> Inode {
        let Some(upper) = self.upper.as_ref().filter(|_| self.is_ours(file)) else {
            return Inode::Elsewhere(file.status.st_dev, file.status.st_ino);
        };
        // As the container names it, whatever the process's root is.
        let path = fs::read_link(file.path()).unwrap_or_default();
        let in_upper = path.strip_prefix("/").map(|below| rustix::fs::lstat(upper.join(below)));
        Inode::OfLayers(match in_upper {
            Ok(Ok(status)) if status.st_mode == file.status.st_mode => status.st_ino,
            _ => file.status.st_ino,
        })
    }
}

fn find(root: BorrowedFd<'_>, path: &[u8], follow: bool) -> Result<File, NotFound> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let flags = if follow { flags } else { flags | OFlags::NOFOLLOW };
    loop {
        match openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // A rename elsewhere while `..` was resolved; the kernel asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A link to a descriptor of that process.
            Err(Errno::LOOP | Errno::XDEV) => return Err(NotFound::HereOnly),
            Err(errno) => return Err(NotFound::Is(errno)),
            Ok(place) => return File::new(place).map_err(NotFound::Is),
        }
    }
}
