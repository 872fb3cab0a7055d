//! Files that differ each time they are made, and what a new layer does with them.
//!
//! The rules say what to do with a path; the store does it while a layer is made. They never apply to a layer that
//! exists already, such as a base's, and never to whiteouts: what a step deletes stays deleted. Modification times are
//! no matter of paths: the store clamps all of them.
//!
//! Paths are relative to the root, without `/` at either end, and may hold any bytes.

mod build_stamp;
mod bytecode;
mod keystore;
mod last_change;

pub use build_stamp::clamp_build_stamp;
pub use bytecode::{Bytecode, bytecode};
pub use keystore::clamp_keystore;
pub use last_change::clamp_last_change;

/// What to do with an entry of a new layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave it out, with all that is below it.
    Drop,
    /// Keep the file, without content.
    Empty,
    /// Keep the file, with [`clamp_last_change`] applied to its content.
    ClampLastChange,
    /// Keep the file, with [`clamp_build_stamp`] applied to its content, compressed or not.
    ClampBuildStamp,
    /// Keep the file, with [`clamp_keystore`] applied to its content.
    ClampKeystore,
    /// Do what [`bytecode`] says.
    Bytecode,
}

/// One cause of differing layers and its cure.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Short name, in messages and documentation.
    pub name: &'static str,
    /// What differs.
    pub cause: &'static str,
    /// The cure.
    pub action: Action,
    places: &'static [Place],
}

/// What kind of entry is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A link, a device, a pipe.
    Other,
}

/// Where a rule applies.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// The regular file with this path. A link or folder there is somebody's intention.
    File(&'static str),
    /// Regular files directly in the folder whose names end so.
    FilesEnding(&'static str, &'static str),
    /// The regular file with this path below any folder.
    FileAnywhere(&'static str),
    /// Regular files anywhere whose names end so.
    EndingAnywhere(&'static str),
    /// Whatever is in this folder, but not the folder.
    Below(&'static str),
    /// Whatever is in a folder with this path below any folder, but not that folder.
    BelowAnywhere(&'static str),
    /// Whatever has this path.
    Any(&'static str),
}

/// All rules. At most one applies to a path.
pub static RULES: &[Rule] = &[
    Rule {
        name: "ldconfig-cache",
        cause: "holds inode numbers and times of libraries",
        action: Action::Drop,
        places: &[Place::File("var/cache/ldconfig/aux-cache")],
    },
    Rule {
        name: "package-logs",
        cause: "hold the time of each installation",
        action: Action::Drop,
        places: &[
            Place::File("var/log/dpkg.log"),
            Place::File("var/log/alternatives.log"),
            Place::File("var/log/bootstrap.log"),
            Place::File("var/log/apt/history.log"),
            Place::File("var/log/apt/term.log"),
            Place::File("var/log/apt/eipp.log.xz"),
            Place::File("var/log/dnf.log"),
            Place::File("var/log/dnf.librepo.log"),
            Place::File("var/log/dnf.rpm.log"),
            Place::File("var/log/hawkey.log"),
            Place::File("var/log/yum.log"),
        ],
    },
    Rule {
        name: "apt-cache",
        cause: "memory images with addresses and times",
        action: Action::Drop,
        places: &[Place::File("var/cache/apt/pkgcache.bin"), Place::File("var/cache/apt/srcpkgcache.bin")],
    },
    // The lists themselves stay: a later step may install from them, and for one state of the mirror they are
    // the same. Steps that end with `rm -rf /var/lib/apt/lists/*` keep them out, as in Docker.
    Rule {
        name: "apt-lists",
        cause: "downloads that broke off",
        action: Action::Drop,
        places: &[Place::Below("var/lib/apt/lists/partial")],
    },
    Rule {
        name: "apt-archives",
        cause: "downloaded packages, installed already",
        action: Action::Drop,
        places: &[
            Place::FilesEnding("var/cache/apt/archives", ".deb"),
            Place::Below("var/cache/apt/archives/partial"),
        ],
    },
    Rule {
        name: "dbus-machine-id",
        cause: "random",
        action: Action::Drop,
        places: &[Place::File("var/lib/dbus/machine-id")],
    },
    Rule {
        name: "machine-id",
        cause: "random; an empty one is filled at the first boot",
        action: Action::Empty,
        places: &[Place::File("etc/machine-id")],
    },
    Rule {
        name: "shadow-last-change",
        cause: "holds the day on which an account was made",
        action: Action::ClampLastChange,
        places: &[Place::File("etc/shadow"), Place::File("etc/shadow-")],
    },
    Rule {
        name: "mount-table",
        cause: "the state of the running system",
        action: Action::Drop,
        places: &[Place::File("run/mount/utab")],
    },
    Rule {
        name: "systemd-state",
        cause: "random, or with times inside",
        action: Action::Drop,
        places: &[
            Place::File("var/lib/systemd/random-seed"),
            Place::File("var/lib/systemd/catalog/database"),
        ],
    },
    Rule {
        name: "login-records",
        cause: "sparse files as large as the highest user id",
        action: Action::Drop,
        places: &[Place::File("var/log/lastlog"), Place::File("var/log/faillog")],
    },
    Rule {
        name: "dnf-history",
        cause: "times, and counters of how often repositories were asked",
        action: Action::Drop,
        places: &[
            Place::File("var/lib/dnf/history.sqlite"),
            Place::File("var/lib/dnf/history.sqlite-shm"),
            Place::File("var/lib/dnf/history.sqlite-wal"),
            Place::Below("var/lib/dnf/history"),
            Place::Below("var/lib/dnf/repos"),
            Place::Below("var/lib/yum/history"),
        ],
    },
    Rule {
        name: "conda-history",
        cause: "holds the time of each installation",
        action: Action::Drop,
        places: &[Place::FileAnywhere("conda-meta/history")],
    },
    Rule {
        name: "pip-cache",
        cause: "responses with the time of each download",
        action: Action::Drop,
        places: &[Place::BelowAnywhere(".cache/pip")],
    },
    Rule {
        name: "python-bytecode",
        cause: "holds the time of the source, or the temporary folder that `pip --target` compiled in",
        action: Action::Bytecode,
        places: &[Place::EndingAnywhere(".pyc")],
    },
    Rule {
        name: "r-built",
        cause: "R writes when a package was installed",
        action: Action::ClampBuildStamp,
        places: &[Place::FileAnywhere("DESCRIPTION"), Place::FileAnywhere("Meta/package.rds")],
    },
    Rule {
        name: "java-keystore",
        cause: "holds when each certificate was added",
        action: Action::ClampKeystore,
        places: &[Place::File("etc/ssl/certs/java/cacerts")],
    },
    Rule {
        name: "ibid-mounts",
        cause: "mount points of the sandbox",
        action: Action::Drop,
        places: &[Place::Any("run/ibid")],
    },
];

/// The rule for an entry, if any. What is below a folder whose rule is [`Action::Drop`] is dropped with it.
pub fn rule_for(path: &[u8], entry_type: EntryType) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.places.iter().any(|place| place.holds(path, entry_type)))
}

impl Place {
    fn holds(&self, path: &[u8], entry_type: EntryType) -> bool {
        let is_file = entry_type == EntryType::File;
        match self {
            Self::File(file) => is_file && path == file.as_bytes(),
            Self::FilesEnding(folder, ending) => {
                is_file
                    && path.ends_with(ending.as_bytes())
                    && below(path, folder).is_some_and(|name| !name.contains(&b'/'))
            }
            Self::FileAnywhere(file) => is_file && is_or_ends_with(path, file),
            Self::EndingAnywhere(ending) => is_file && path.ends_with(ending.as_bytes()),
            Self::Below(folder) => below(path, folder).is_some(),
            Self::BelowAnywhere(folder) => parent(path).is_some_and(|parent| is_or_ends_with(parent, folder)),
            Self::Any(any) => path == any.as_bytes(),
        }
    }
}

/// What follows `folder/` in `path`.
fn below<'a>(path: &'a [u8], folder: &str) -> Option<&'a [u8]> {
    path.strip_prefix(folder.as_bytes())?.strip_prefix(b"/")
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|&byte| byte == b'/').map(|slash| &path[..slash])
}

/// Whether the last components of `path` are those of `tail`.
fn is_or_ends_with(path: &[u8], tail: &str) -> bool {
    path.strip_suffix(tail.as_bytes()).is_some_and(|head| head.is_empty() || head.ends_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_cause_has_its_rule_and_neighbours_have_none() {
        #[track_caller]
        fn check(path: &str, entry_type: EntryType, expected: Option<(&str, Action)>) {
            let rule = rule_for(path.as_bytes(), entry_type);
            assert_eq!(rule.map(|rule| (rule.name, rule.action)), expected, "{path}");
        }
        use Action::{Bytecode, ClampBuildStamp, ClampKeystore, ClampLastChange, Drop, Empty};
        use EntryType::{File, Folder, Other};
        check("var/cache/ldconfig/aux-cache", File, Some(("ldconfig-cache", Drop)));
        check("var/cache/ldconfig", Folder, None);
        check("srv/var/cache/ldconfig/aux-cache", File, None);
        for log in ["dpkg.log", "alternatives.log", "bootstrap.log", "apt/history.log", "apt/term.log"] {
            check(&format!("var/log/{log}"), File, Some(("package-logs", Drop)));
        }
        check("var/log/apt/eipp.log.xz", File, Some(("package-logs", Drop)));
        check("var/log/dnf.log", File, Some(("package-logs", Drop)));
        check("var/log/own.log", File, None);
        check("var/log/apt", Folder, None);
        check("var/cache/apt/pkgcache.bin", File, Some(("apt-cache", Drop)));
        check("var/cache/apt/srcpkgcache.bin", File, Some(("apt-cache", Drop)));
        check("var/lib/apt/lists", Folder, None);
        check("var/lib/apt/lists/partial", Folder, None);
        check("var/lib/apt/lists/partial/x", File, Some(("apt-lists", Drop)));
        check("var/lib/apt/lists/mirror_InRelease", File, None);
        check("var/lib/apt/lists-old", File, None);
        check("var/cache/apt/archives/a_1_all.deb", File, Some(("apt-archives", Drop)));
        check("var/cache/apt/archives/own/a.deb", File, None);
        check("var/cache/apt/archives/lock", File, None);
        check("var/cache/apt/archives/partial/a_1_all.deb", File, Some(("apt-archives", Drop)));
        check("opt/a.deb", File, None);
        check("var/lib/dbus/machine-id", File, Some(("dbus-machine-id", Drop)));
        check("var/lib/dbus/machine-id", Other, None);
        check("etc/machine-id", File, Some(("machine-id", Empty)));
        check("etc/machine-id", Other, None);
        check("etc/shadow", File, Some(("shadow-last-change", ClampLastChange)));
        check("etc/shadow-", File, Some(("shadow-last-change", ClampLastChange)));
        check("etc/passwd", File, None);
        check("run/mount/utab", File, Some(("mount-table", Drop)));
        check("var/lib/systemd/random-seed", File, Some(("systemd-state", Drop)));
        check("var/lib/systemd/catalog/database", File, Some(("systemd-state", Drop)));
        check("var/log/lastlog", File, Some(("login-records", Drop)));
        check("var/log/faillog", File, Some(("login-records", Drop)));
        check("var/lib/dnf/history.sqlite", File, Some(("dnf-history", Drop)));
        check("var/lib/dnf/repos/fedora/countme", File, Some(("dnf-history", Drop)));
        check("opt/conda/conda-meta/history", File, Some(("conda-history", Drop)));
        check("conda-meta/history", File, Some(("conda-history", Drop)));
        check("opt/my-conda-meta/history", File, None);
        check("opt/conda/conda-meta/numpy.json", File, None);
        check("root/.cache/pip/http-v2", Folder, Some(("pip-cache", Drop)));
        check("root/.cache/pip", Folder, None);
        check("root/.cache/torch/model", File, None);
        check("code/__pycache__/a.cpython-311.pyc", File, Some(("python-bytecode", Bytecode)));
        check("etc/ssl/certs/java/cacerts", File, Some(("java-keystore", ClampKeystore)));
        check("code/a.pyc", Folder, None);
        check("usr/lib/R/site-library/a/DESCRIPTION", File, Some(("r-built", ClampBuildStamp)));
        check("usr/lib/R/site-library/a/Meta/package.rds", File, Some(("r-built", ClampBuildStamp)));
        check("usr/lib/R/site-library/a/Meta/other.rds", File, None);
        check("code/a.py", File, None);
        check("run/ibid", Folder, Some(("ibid-mounts", Drop)));
        check("run/ibid-own", Folder, None);
        check("", Folder, None);
    }

    /// The rows of the table in `docs/same-bytes.md`, which stands at its end. `IBID_UPDATE_GOLDEN=1` writes them anew.
    #[test]
    fn the_documentation_lists_the_rules() {
        let shown = |place: &Place| match place {
            Place::File(path) | Place::Any(path) => format!("`/{path}`"),
            Place::FilesEnding(folder, ending) => format!("`/{folder}/*{ending}`"),
            Place::FileAnywhere(path) => format!("`**/{path}`"),
            Place::EndingAnywhere(ending) => format!("`**/*{ending}`"),
            Place::Below(folder) => format!("`/{folder}/**`"),
            Place::BelowAnywhere(folder) => format!("`**/{folder}/**`"),
        };
        let row = |rule: &Rule| {
            let places: Vec<String> = rule.places.iter().map(shown).collect();
            let action = match rule.action {
                Action::Drop => "left out",
                Action::Empty => "emptied",
                Action::ClampLastChange => "the day is lowered to the epoch",
                Action::ClampBuildStamp => "the time is lowered to the epoch",
                Action::ClampKeystore => "the times are lowered to the epoch",
                Action::Bytecode => {
                    "the time is lowered to the epoch; left out when compiled in a temporary folder"
                }
            };
            format!("| `{}` | {} | {action} | {} |\n", rule.name, places.join(", "), rule.cause)
        };
        let expected: String = RULES.iter().map(row).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/same-bytes.md");
        let text = std::fs::read_to_string(path).expect("the documentation");
        let (head, rows) = text.split_once("|---|---|---|---|\n").expect("the table");
        if std::env::var_os("IBID_UPDATE_GOLDEN").is_some() {
            std::fs::write(path, format!("{head}|---|---|---|---|\n{expected}")).expect("writable");
        } else {
            assert_eq!(rows, expected, "IBID_UPDATE_GOLDEN=1 writes the rows anew");
        }
    }

    #[test]
    fn rule_names_are_unique() {
        let mut names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
    }
}
