//! What a test needs of the host, found out by the probes of `ibid doctor`.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ibid_sandbox::probe::{self, Finding};

use crate::user::OrdinaryUser;

/// Something of the host that a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root, with the power to mount.
    Root,
    /// User namespaces for users without root.
    Userns,
    /// An ordinary user with subordinate ids, and `newuidmap`: this user, or one that root can become.
    Subids,
    /// The overlay file system on the disk of temporary files.
    Overlay,
    /// Idmapped mounts on the disk of temporary files.
    Idmap,
    /// The package mirror that the host's apt sources name.
    Mirror,
    /// A working Docker engine.
    Docker,
    /// Git, with its server.
    Git,
    /// Debian's registry, and `openssl` for its certificates.
    DockerRegistry,
    /// The `skopeo` program.
    Skopeo,
    /// The `podman` program.
    Podman,
    /// Busybox, linked statically: a program for an image that is made from scratch.
    Busybox,
    /// `rocrate-validator` with the package `rocrate` beside it.
    RocrateValidator,
}

impl Need {
    const ALL: [(Self, &str); 13] = [
        (Self::Root, "root"),
        (Self::Userns, "userns"),
        (Self::Subids, "subids"),
        (Self::Overlay, "overlay"),
        (Self::Idmap, "idmap"),
        (Self::Mirror, "mirror"),
        (Self::Docker, "docker"),
        (Self::Git, "git"),
        (Self::DockerRegistry, "docker-registry"),
        (Self::Skopeo, "skopeo"),
        (Self::Podman, "podman"),
        (Self::Busybox, "busybox"),
        (Self::RocrateValidator, "rocrate-validator"),
    ];

    /// As `IBID_TEST_REQUIRE` names it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(need, _)| *need == self).map_or("", |(_, name)| name)
    }

    /// Why the host does not have it; none when it does.
    pub fn missing(self) -> Option<String> {
        let temporary = std::env::temp_dir();
        let unless = |finding: Finding| (!finding.usable()).then_some(finding.detail);
        match self {
            Self::Root => (!is_root()).then(|| "this is not root".to_owned()),
            Self::Userns => unless(probe::user_namespaces()),
            // What is degraded there is degraded to one id.
            Self::Subids => Some(probe::mappers())
                .filter(|finding| finding.state != probe::State::Works)
                .map(|finding| finding.detail)
                .or_else(|| OrdinaryUser::find().is_none().then(|| "no user has subordinate ids".to_owned())),
            Self::Overlay => unless(probe::overlay(&temporary)),
            Self::Idmap if !is_root() => Some("this is not root".to_owned()),
            Self::Idmap => {
                let finding = probe::idmapped_mounts(&temporary);
                (finding.state != probe::State::Works).then_some(finding.detail)
            }
            Self::Mirror => no_mirror(),
            Self::Docker => unless(probe::docker()),
            Self::Git => no_git(),
            Self::DockerRegistry => {
                no_program("docker-registry", "--version").or_else(|| no_program("openssl", "version"))
            }
            Self::Skopeo => no_program("skopeo", "--version"),
            Self::Podman => no_program("podman", "--version"),
            Self::Busybox => busybox().is_none().then(|| "there is no /bin/busybox".to_owned()),
            Self::RocrateValidator => rocrate_python().is_none().then(|| {
                "there is no rocrate-validator in PATH: `pip install roc-validator rocrate`".to_owned()
            }),
        }
    }
}

/// The program that [`Need::Busybox`] stands for.
pub fn busybox() -> Option<&'static Path> {
    ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(Path::new).find(|path| path.exists())
}

/// The Python that has what [`Need::RocrateValidator`] stands for.
pub fn rocrate_python() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let program =
        std::env::split_paths(&path).map(|folder| folder.join("rocrate-validator")).find(|it| it.exists())?;
    let python = program.canonicalize().ok()?.with_file_name("python3");
    let has = Command::new(&python).args(["-c", "import rocrate, rocrate_validator"]).status().ok()?;
    has.success().then_some(python)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn no_program(name: &str, version: &str) -> Option<String> {
    Command::new(name).arg(version).output().err().map(|error| format!("{name}: {error}"))
}

fn no_git() -> Option<String> {
    let folder = match Command::new("git").arg("--exec-path").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => return Some(format!("git: {error}")),
    };
    let daemon = std::path::Path::new(&folder).join("git-daemon");
    (!daemon.exists()).then(|| format!("there is no {}", daemon.display()))
}

/// Whether the first of the host's package sources answers: where it does, base images can be made.
fn no_mirror() -> Option<String> {
    let asked = Command::new("apt-get").args(["--print-uris", "update"]).output();
    let listed = match asked {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => return Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => return Some(format!("apt-get: {error}")),
    };
    // Lines such as `'http://host/path' name size`.
    let uri = listed.split('\'').find(|word| word.contains("://"))?;
    let (scheme, rest) = uri.split_once("://")?;
    let host = rest.split('/').next().unwrap_or(rest);
    let port = if scheme == "https" { 443 } else { 80 };
    if scheme == "file" || std::env::var_os(format!("{scheme}_proxy")).is_some() {
        return None;
    }
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
    let reached = address
        .to_socket_addrs()
        .map_err(|error| error.to_string())
        .and_then(|mut addresses| addresses.next().ok_or_else(|| "no address".to_owned()))
        .and_then(|address| {
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(|error| error.to_string())
        });
    reached.err().map(|error| format!("{host}: {error}"))
}

/// True when the host has all of `needs`. Otherwise says on standard error what is missing, so that the test can
/// return.
///
/// # Panics
///
/// When `IBID_TEST_REQUIRE` (names separated by commas, or `all`) names what is missing.
#[must_use]
pub fn need(needs: &[Need]) -> bool {
    let required = std::env::var("IBID_TEST_REQUIRE").unwrap_or_default();
    let required: Vec<&str> = required.split(',').map(str::trim).collect();
    needs.iter().all(|need| match need.missing() {
        None => true,
        Some(reason) => {
            let name = need.name();
            assert!(!required.contains(&name) && !required.contains(&"all"), "needs {name}: {reason}");
            eprintln!("skipped: needs {name}: {reason}");
            false
        }
    })
}
