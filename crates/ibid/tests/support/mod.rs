//! Projects for tests that run the whole program.
//!
//! All tests share one store, which stays in cargo's temporary folder, so that only the first run on a machine
//! makes the base.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod engine;
pub mod server;
pub mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use ibid_testing::{Need, Place, need};

/// Whether the host can make images from Debian's packages, and run commands in them.
pub fn can_build() -> bool {
    can_copy(&[Need::Mirror])
}

/// Whether it can make an image from scratch in which nothing is run, and has `more`.
pub fn can_copy(more: &[Need]) -> bool {
    let host: &[Need] = if rustix::process::geteuid().is_root() {
        &[Need::Overlay]
    } else {
        &[Need::Userns, Need::Subids, Need::Overlay]
    };
    need(&[host, more].concat())
}

/// A project in a folder of its own, with the shared store.
pub struct Project {
    pub place: Place,
    pub data: PathBuf,
}

impl Project {
    /// `@UNIQUE@` in the Dockerfile becomes what no other test has.
    pub fn new(dockerfile: &str) -> Self {
        let project = Self { place: Place::new(), data: shared_data() };
        // What earlier runs of the tests left in the shared store must not be found.
        let unique = project.place.path().display().to_string();
        project.file("Dockerfile", &dockerfile.replace("@UNIQUE@", &unique));
        project.file("ibid.toml", &format!("name = \"{}\"\n{BASE}", project.name()));
        project
    }

    /// The name of its image: no other test's, since all share one store and run at the same time.
    pub fn name(&self) -> String {
        let folder = self.place.path().file_name().expect("a folder's name").to_string_lossy();
        folder.to_lowercase()
    }

    pub fn file(&self, name: &str, content: &str) {
        self.place.file(&format!("project/{name}"), content);
    }

    pub fn path(&self) -> PathBuf {
        self.place.path().join("project")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(env!("CARGO_BIN_EXE_ibid"));
        command.current_dir(self.path()).args(args).env("XDG_DATA_HOME", &self.data).stdin(Stdio::null());
        if let Some(bundle) = std::env::var_os("SSL_CERT_FILE") {
            command.env("SSL_CERT_FILE", bundle);
        }
        command
    }

    pub fn ibid(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("ibid starts")
    }

    #[track_caller]
    pub fn check(&self, args: &[&str], code: i32) -> String {
        let output = self.ibid(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{}", text(&output.stderr));
        text(&output.stdout)
    }
}

pub const BASE: &str = "[base.\"debian:bookworm-slim\"]\nsuite = \"bookworm\"\n";

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A store in which the base has been made, by the first who asks.
fn shared_data() -> PathBuf {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| {
        let user = rustix::process::geteuid().as_raw();
        let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("share-{user}"));
        fs::create_dir_all(&data).expect("a folder");
        data
    })
    .clone()
}
