//! A root file system that costs nothing: the host's `/usr`, mounted.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ibid_sandbox::{Mount, MountKind};

/// A layer with mount points and links into `/usr`, and the mount that fills it. So the host's own programs run in
/// the container, with their libraries.
pub struct TinyRoot {
    layer: PathBuf,
}

impl TinyRoot {
    /// Makes the layer at `layer`, which must not exist.
    ///
    /// # Panics
    ///
    /// When the disk refuses.
    pub fn new(layer: &Path) -> Self {
        for folder in ["dev", "etc", "proc", "root", "run", "sys", "tmp", "usr"] {
            std::fs::create_dir_all(layer.join(folder)).expect("a folder");
        }
        std::fs::set_permissions(layer.join("tmp"), std::fs::Permissions::from_mode(0o1777))
            .expect("our own");
        for folder in ["bin", "sbin", "lib", "lib64"] {
            if Path::new("/usr").join(folder).is_dir() {
                symlink(format!("usr/{folder}"), layer.join(folder)).expect("a link");
            }
        }
        std::fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("a file");
        std::fs::write(layer.join("etc/group"), "root:x:0:\ntty:x:5:\n").expect("a file");
        // Finding libraries without it is slow.
        let _slow_without = std::fs::copy("/etc/ld.so.cache", layer.join("etc/ld.so.cache"));
        Self { layer: layer.to_owned() }
    }

    /// The layer.
    pub fn layer(&self) -> &Path {
        &self.layer
    }

    /// What must be mounted over it.
    pub fn mount(&self) -> Mount {
        Mount {
            target: "/usr".to_owned(),
            kind: MountKind::Bind { source: "/usr".into(), read_only: true, idmap: None },
        }
    }
}
