//! Where ibid keeps its images: room, and what kind of file system.

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatFs, XattrFlags, statfs};

use super::{Finding, State};

/// Less than this and a base with a few Python packages does not fit, bytes.
const ROOM_BYTES: u64 = 2 << 30;

/// Magic numbers of file systems that live on other computers (statfs(2)).
const NETWORKS: [(u32, &str); 9] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0102_1997, "9p"),
];

/// The nearest folder that exists: the folder itself may be made later.
fn existing(folder: &Path) -> PathBuf {
    folder.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn look(folder: &Path) -> std::io::Result<StatFs> {
    Ok(statfs(existing(folder))?)
}

/// Room for images.
pub fn disk_space(folder: &Path) -> Finding {
    let ability = "disk space";
    let place = folder.display();
    match look(folder) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(u64::try_from(found.f_bsize).unwrap_or(0));
            let detail = format!("{:.1} GB free in `{place}`", free as f64 / 1e9);
            if free < ROOM_BYTES {
                let cost = "a build may run out of room";
                return Finding::lacks(ability, State::Degraded, detail, cost, None);
            }
            Finding::works(ability, detail)
        }
        Err(error) => {
            Finding::lacks(ability, State::Degraded, format!("`{place}`: {error}"), "room is unknown", None)
        }
    }
}

/// Attributes of files, in which overlays keep their marks, and a user with one id the owners.
pub fn attributes(folder: &Path) -> Finding {
    let ability = "attributes of files";
    let existing = existing(folder);
    let place = existing.display();
    let tried = || -> rustix::io::Result<()> {
        // A file without a name: nothing is left behind.
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&existing, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fsetxattr(file, "user.ibid.owner", b"0:0", XattrFlags::empty())
    };
    match tried() {
        Ok(()) => Finding::works(ability, format!("`{place}` takes them")),
        Err(errno) => Finding::lacks(
            ability,
            State::Degraded,
            format!("`{place}` refuses: {}", std::io::Error::from(errno)),
            "images can often not be built there",
            Some("export XDG_DATA_HOME=/var/tmp/$USER".to_owned()),
        ),
    }
}

/// Whether images are on a disk of this computer. Network file systems refuse subordinate ids, and overlayfs
/// refuses them.
pub fn home_file_system(folder: &Path) -> Finding {
    let ability = "file system of the images";
    let place = folder.display();
    let network = look(folder).ok().and_then(|found| {
        let magic = found.f_type as u32;
        NETWORKS.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
    });
    match network {
        Some(name) => Finding::lacks(
            ability,
            State::Degraded,
            format!("`{place}` is on {name}"),
            "layers can often not be unpacked or mounted there",
            Some("export XDG_DATA_HOME=/var/tmp/$USER".to_owned()),
        ),
        None => Finding::works(ability, format!("`{place}` is local")),
    }
}
