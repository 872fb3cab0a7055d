//! `--tmpfs DST[:OPTIONS]`: an empty folder in memory.

use super::options::container_path;
use super::{InvalidOption, bytes};

/// An empty folder in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path in the container.
    pub target: String,
    /// Largest size, bytes; none means half of the machine's memory.
    pub bytes: Option<u64>,
    /// Permission bits.
    pub mode: u32,
    /// Programs in it can be executed.
    pub exec: bool,
    /// It cannot be written.
    pub read_only: bool,
    /// Its owner; none means root.
    pub uid: Option<u32>,
    /// Its group; none means root's.
    pub gid: Option<u32>,
}

const OPTION: &str = "--tmpfs";

impl Tmpfs {
    /// Reads `/tmp` or `/tmp:size=64m,mode=1777,exec`. As in Docker, nothing in it can be executed unless `exec` says so.
    pub fn parse(text: &str) -> Result<Self, InvalidOption> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let mut tmpfs = Self {
            target: container_path(OPTION, text, target)?,
            bytes: None,
            mode: 0o1777,
            exec: false,
            read_only: false,
            uid: None,
            gid: None,
        };
        let invalid = |problem: String| InvalidOption::new(OPTION, text, problem);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let number = |value: &str| {
                value.parse::<u32>().map_err(|_| invalid(format!("`{option}`: expected a number")))
            };
            match option.split_once('=').unwrap_or((option, "")) {
                ("size", value) => {
                    tmpfs.bytes =
                        Some(bytes(value).map_err(|problem| invalid(format!("`{option}`: {problem}")))?);
                }
                ("mode", value) => {
                    tmpfs.mode = u32::from_str_radix(value, 8)
                        .ok()
                        .filter(|mode| *mode <= 0o7777)
                        .ok_or_else(|| invalid(format!("`{option}`: expected octal digits, as 1777")))?;
                }
                ("uid", value) => tmpfs.uid = Some(number(value)?),
                ("gid", value) => tmpfs.gid = Some(number(value)?),
                ("exec", "") => tmpfs.exec = true,
                ("noexec", "") => tmpfs.exec = false,
                ("ro", "") => tmpfs.read_only = true,
                // What holds anyway.
                ("rw" | "nosuid" | "nodev", "") => {}
                ("suid" | "dev", "") => {
                    return Err(invalid(format!(
                        "`{option}`: devices and set-user-id programs work in no mount of a run"
                    )));
                }
                _ => {
                    return Err(invalid(format!(
                        "unknown option `{option}`: expected size, mode, uid, gid, exec, noexec, ro or rw"
                    )));
                }
            }
        }
        Ok(tmpfs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_in_memory() {
        let plain = Tmpfs {
            target: "/tmp".to_owned(),
            bytes: None,
            mode: 0o1777,
            exec: false,
            read_only: false,
            uid: None,
            gid: None,
        };
        assert_eq!(Tmpfs::parse("/tmp"), Ok(plain.clone()));
        assert_eq!(
            Tmpfs::parse("/tmp:rw,nosuid,nodev,exec,size=64m,mode=700,uid=7,gid=8"),
            Ok(Tmpfs {
                bytes: Some(64 << 20),
                mode: 0o700,
                exec: true,
                uid: Some(7),
                gid: Some(8),
                ..plain.clone()
            })
        );
        assert_eq!(Tmpfs::parse("/tmp:exec,noexec,ro"), Ok(Tmpfs { read_only: true, ..plain }));
        let check = |text: &str, part: &str| {
            let error = Tmpfs::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("tmp", "not absolute");
        check("/", "root folder");
        check("/t:size=much", "`size=much`");
        check("/t:mode=9", "octal");
        check("/t:suid", "set-user-id");
        check("/t:nr_inodes=3", "unknown option `nr_inodes=3`");
        check("/t:exec=1", "unknown option");
    }
}
