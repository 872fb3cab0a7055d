//! A folder for one test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder that exists for one test, with an empty home in it; removed when dropped.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// Makes one that any user may enter.
    ///
    /// # Panics
    ///
    /// When the disk refuses.
    #[expect(clippy::new_without_default, reason = "making a folder is no default")]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ibid-test-").tempdir().expect("a temporary folder");
        let place = Self { folder };
        open_to_all(place.path());
        place.folder("home");
        // No test depends on what Docker Hub has today.
        place.file(
            "home/.config/containers/registries.conf",
            "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n",
        );
        place
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// Writes a file in it.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a folder");
        }
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// A command whose environment is closed: this home, a fixed time zone and language, nothing of the person
    /// who runs the tests.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let home = self.path().join("home");
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &home)
            .env("XDG_DATA_HOME", home.join(".local/share"))
            .env("XDG_CONFIG_HOME", home.join(".config"))
            .env("XDG_CACHE_HOME", home.join(".cache"))
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .env("NO_COLOR", "1")
            .current_dir(self.path());
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A container leaves files of subordinate owners, and folders closed to everyone: only root of a
        // user namespace can remove them.
        if !rustix::process::geteuid().is_root() && std::fs::remove_dir_all(self.path()).is_err() {
            let _left_behind = Command::new("unshare")
                .args(["--map-root-user", "--map-auto", "rm", "-rf"])
                .arg(self.path())
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}

fn open_to_all(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("our own folder");
}
