//! How a run differs from the usual one, as people know it from the options of `docker run`.

use std::path::PathBuf;

use super::{Capabilities, InvalidOption, Limits, Port, SeccompProfile, Tmpfs, Ulimit, Volume};

/// What a run's container has beside, or instead of, what the image and the project say. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerOptions {
    /// Replaces the image's entrypoint, and its `CMD` with it; an empty one leaves the arguments alone as the command.
    /// In a session it is the program in place of the shell.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces who the process is: `user[:group]`, each a name or a number.
    pub user: Option<String>,
    /// Replaces the image's working folder. Absolute.
    pub workdir: Option<String>,
    /// Folders and files of the host.
    pub volumes: Vec<Volume>,
    /// Folders in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// The image's files cannot be changed.
    pub read_only: bool,
    /// Size of `/dev/shm`, bytes; none means half of the machine's memory.
    pub shm_bytes: Option<u64>,
    /// Replaces the run's name as host name.
    pub hostname: Option<String>,
    /// What it may do beside and less than by default.
    pub capabilities: Capabilities,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Limits of each process (setrlimit(2)).
    pub ulimits: Vec<Ulimit>,
    /// Which network it sees.
    pub network: Network,
    /// Ports that are to be reachable on the host.
    pub ports: Vec<Port>,
    /// Limits of all its processes together.
    pub limits: Limits,
    /// Folders and files of the image, relative to the code folder, that stay visible where the code is mounted.
    pub keep: Vec<String>,
}

/// Which network a run sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The host's own.
    #[default]
    Host,
    /// Only a loopback device.
    None,
    /// One of its own, from which the host's can be reached outwards.
    Private,
}

/// Which system calls a run may make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// Those of Docker's default profile.
    #[default]
    Docker,
    /// All.
    Unconfined,
    /// Those of a profile in Docker's form.
    Profile(Box<SeccompProfile>),
}

/// What `--security-opt` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityOption {
    /// What holds in every run.
    NoNewPrivileges,
    /// No filter of system calls.
    SeccompUnconfined,
    /// Docker's default profile.
    SeccompBuiltin,
    /// A profile in a file.
    SeccompFile(PathBuf),
}

impl SecurityOption {
    /// Reads `seccomp=unconfined`, `seccomp=FILE` or `no-new-privileges`; what ibid cannot do is refused.
    pub fn parse(text: &str) -> Result<Self, InvalidOption> {
        let invalid = |problem: &str| Err(InvalidOption::new("--security-opt", text, problem));
        // Docker takes `:` too, from times past.
        let (name, value) = match text.split_once(['=', ':']) {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("no-new-privileges", None | Some("true")) => Ok(Self::NoNewPrivileges),
            ("no-new-privileges", Some("false")) => invalid(
                "set-user-id programs never gain rights in a run: that is what makes it safe to start one without root",
            ),
            ("seccomp", Some("unconfined")) => Ok(Self::SeccompUnconfined),
            ("seccomp", Some("builtin")) => Ok(Self::SeccompBuiltin),
            ("seccomp", Some(file)) if !file.is_empty() => Ok(Self::SeccompFile(file.into())),
            ("apparmor" | "label", Some(_)) => invalid(
                "ibid sets no AppArmor profile and no SELinux label: those of the person who runs hold",
            ),
            ("systempaths", Some(_)) => invalid("what is hidden of /proc and /sys stays hidden"),
            _ => Err(InvalidOption::new(
                "--security-opt",
                text,
                "expected seccomp=unconfined, seccomp=FILE or no-new-privileges",
            )),
        }
    }
}

/// Reads the absolute path of a folder in the container.
pub(super) fn container_path(option: &'static str, text: &str, path: &str) -> Result<String, InvalidOption> {
    let trimmed = path.trim_end_matches('/');
    if !path.starts_with('/') {
        return Err(InvalidOption::new(option, text, format!("`{path}` is not absolute")));
    }
    if path.split('/').any(|name| name == "..") || path.contains('\0') {
        return Err(InvalidOption::new(option, text, format!("`{path}` is no place to mount")));
    }
    if trimmed.is_empty() {
        return Err(InvalidOption::new(option, text, "the root folder itself cannot be covered"));
    }
    Ok(trimmed.to_owned())
}

impl ContainerOptions {
    /// Reads `--workdir`.
    pub fn parse_workdir(text: &str) -> Result<String, InvalidOption> {
        if text.starts_with('/') && !text.contains('\0') {
            Ok(text.to_owned())
        } else {
            Err(InvalidOption::new("--workdir", text, "expected an absolute path in the container"))
        }
    }

    /// Reads `--hostname` (hostname(7)).
    pub fn parse_hostname(text: &str) -> Result<String, InvalidOption> {
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // The kernel keeps 64 bytes.
        if text.len() <= 64 && text.split('.').all(is_label) {
            Ok(text.to_owned())
        } else {
            Err(InvalidOption::new(
                "--hostname",
                text,
                "expected at most 64 letters, digits and `-`, in parts with `.` between them",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_taken_or_refused_with_the_reason() {
        let check = |text: &str, expected: Result<SecurityOption, &str>| match (
            SecurityOption::parse(text),
            expected,
        ) {
            (Ok(parsed), Ok(expected)) => assert_eq!(parsed, expected, "{text}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (parsed, _) => panic!("{text}: {parsed:?}"),
        };
        check("seccomp=unconfined", Ok(SecurityOption::SeccompUnconfined));
        check("seccomp:unconfined", Ok(SecurityOption::SeccompUnconfined));
        check("seccomp=builtin", Ok(SecurityOption::SeccompBuiltin));
        check("seccomp=a/b.json", Ok(SecurityOption::SeccompFile("a/b.json".into())));
        check("no-new-privileges", Ok(SecurityOption::NoNewPrivileges));
        check("no-new-privileges=true", Ok(SecurityOption::NoNewPrivileges));
        check("no-new-privileges=false", Err("never gain rights"));
        check("apparmor=unconfined", Err("AppArmor"));
        check("label=disable", Err("SELinux"));
        check("systempaths=unconfined", Err("stays hidden"));
        check("seccomp=", Err("expected seccomp"));
        check("seccomp", Err("expected seccomp"));
        check("nonsense", Err("expected seccomp"));
    }

    #[test]
    fn host_names_and_working_folders() {
        for good in ["a", "lab-3", "node7.cluster.org"] {
            assert_eq!(ContainerOptions::parse_hostname(good).as_deref(), Ok(good));
        }
        for bad in ["", "-a", "a-", "a..b", "a b", "ü", &"x".repeat(65), "a/b"] {
            assert!(ContainerOptions::parse_hostname(bad).is_err(), "{bad}");
        }
        assert_eq!(ContainerOptions::parse_workdir("/code/sub").as_deref(), Ok("/code/sub"));
        assert!(ContainerOptions::parse_workdir("sub").is_err());
    }
}
