//! `--volume SRC:DST[:OPTIONS]`: a folder or file of the host in the container.

use std::path::{Path, PathBuf};

use super::InvalidOption;
use super::options::container_path;

/// A folder or file of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// On the host: as it was given, relative to where the person is, or absolute once resolved.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// It cannot be written.
    pub read_only: bool,
}

const OPTION: &str = "--volume";

impl Volume {
    /// Reads `SRC:DST`, `SRC:DST:ro` or `SRC:DST:rw`.
    pub fn parse(text: &str) -> Result<Self, InvalidOption> {
        let invalid = |problem: String| InvalidOption::new(OPTION, text, problem);
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [source, target] => (source, target, ""),
            [source, target, options] => (source, target, options),
            [target] if target.starts_with('/') => {
                return Err(invalid("expected SRC:DST; ibid has no volumes of its own".to_owned())
                    .mend(format!("`--tmpfs {target}` is an empty folder there; `[code] keep` in ibid.toml leaves visible what the image has in the code folder")));
            }
            _ => {
                return Err(invalid("expected SRC:DST or SRC:DST:ro".to_owned())
                    .mend("to say more of what is done: `--verbose`, or `ibid -v run …`"));
            }
        };
        if source.is_empty() {
            return Err(invalid("no folder of the host is named".to_owned()));
        }
        let is_name = !source.contains('/') && source != "." && source != "..";
        if is_name {
            return Err(invalid(format!("`{source}` is the name of a volume, and ibid has none"))
                .mend(format!("for the folder of that name: `--volume ./{source}:{target}`")));
        }
        let mut read_only = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" | "readonly" => read_only = true,
                "rw" => read_only = false,
                "z" | "Z" => {
                    return Err(invalid(format!(
                        "`{option}` would label the host's files for SELinux, which ibid does not do"
                    )));
                }
                _ => return Err(invalid(format!("unknown option `{option}`: expected ro or rw"))),
            }
        }
        let target = container_path(OPTION, text, target)?;
        Ok(Self { source: PathBuf::from(source), target, read_only })
    }

    /// The same with an absolute source: relative ones are of `folder`.
    #[must_use]
    pub fn within(self, folder: &Path) -> Self {
        Self { source: folder.join(&self.source), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_docker_writes_them() {
        let check =
            |text: &str, expected: Result<(&str, &str, bool), &str>| match (Volume::parse(text), expected) {
                (Ok(volume), Ok((source, target, read_only))) => {
                    let expected = Volume { source: source.into(), target: target.to_owned(), read_only };
                    assert_eq!(volume, expected, "{text}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (parsed, _) => panic!("{text}: {parsed:?}"),
            };
        check("/a:/b", Ok(("/a", "/b", false)));
        check("./a:/b/:ro", Ok(("./a", "/b", true)));
        check(".:/b:rw", Ok((".", "/b", false)));
        check("a/b:/c", Ok(("a/b", "/c", false)));
        check("data:/data", Err("`data` is the name of a volume"));
        check("/data", Err("ibid has no volumes"));
        check("train.py", Err("expected SRC:DST"));
        check(":/x", Err("no folder"));
        check("/a:b", Err("`b` is not absolute"));
        check("/a:/", Err("root folder"));
        check("/a:/b/../c", Err("no place to mount"));
        check("/a:/b:z", Err("SELinux"));
        check("/a:/b:slow", Err("unknown option `slow`"));
        check("/a:/b:ro:x", Err("expected SRC:DST"));
        let within = Volume::parse("./a:/b").expect("sound").within(Path::new("/home/ann"));
        assert_eq!(within.source, Path::new("/home/ann/./a"));
    }
}
