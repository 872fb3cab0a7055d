//! `RUN --mount`: a record of options becomes a [`Mount`].
//!
//! Values are expanded like the words of an instruction, except `from`, since what is built first must not depend on
//! what is known later. The type may come from a variable, so which options belong to it is checked last.
//!
//! Each type has the options of the Dockerfile reference. Where BuildKit ignores an option, as `from` of a `tmpfs`, it
//! is refused here, for somebody believes that it does something.

use crate::csv;
use crate::plan::{CacheBase, CopyFrom, Mount, Permissions, Sharing};

use super::error::ErrorKind;
use super::parse::nearest;
use super::paths;

/// Where secrets are mounted that name no place.
const SECRETS_FOLDER: &str = "/run/secrets";
/// Where agents are mounted that name no place, with their number.
const AGENT_SOCKET: &str = "/run/buildkit/ssh_agent.";
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [(&str, Sharing); 3] =
    [("shared", Sharing::Shared), ("private", Sharing::Private), ("locked", Sharing::Locked)];
/// Highest permission bits: set-id and sticky bits included.
const MODE_MAX: u32 = 0o7777;

/// The options of one `--mount`, nothing expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountWords {
    /// Names in lower case, and values where there is a `=`.
    fields: Vec<(String, Option<String>)>,
}

impl MountWords {
    pub(super) fn parse(text: &str) -> Result<Self, ErrorKind> {
        let fields = csv::fields(text)
            .map_err(|fault| ErrorKind::MountQuotes { mount: text.to_owned(), fault })?
            .into_iter()
            .map(|field| match field.split_once('=') {
                Some((name, value)) => (name.to_lowercase(), Some(value.to_owned())),
                None => (field.to_lowercase(), None),
            });
        Ok(Self { fields: fields.collect() })
    }

    /// The values that are expanded.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|(name, _)| name != "from").filter_map(|(_, value)| value.as_deref())
    }

    /// The stage or image that it needs, whatever its type.
    pub(super) fn from(&self) -> Option<&str> {
        let last = self.fields.iter().rev().find(|(name, _)| name == "from")?;
        last.1.as_deref().filter(|from| !matches!(*from, "" | "scratch"))
    }
}

/// What a mount is read with.
pub(super) struct Reading<'a> {
    /// Expands a value.
    pub(super) expand: &'a mut dyn FnMut(&str) -> Result<String, ErrorKind>,
    /// What `from` names.
    pub(super) source: &'a dyn Fn(&str) -> Result<CopyFrom, ErrorKind>,
    /// The working folder, which targets are relative to.
    pub(super) folder: &'a str,
    /// What is put before the ids of cache mounts, with a `/` where there is something.
    pub(super) cache_namespace: &'a str,
    /// How many agents the instruction mounts before this one.
    pub(super) agents: usize,
}

/// Expanded options, each as it was written last.
#[derive(Default)]
struct Options {
    kind: String,
    /// The names that were used, without abbreviation.
    given: Vec<&'static str>,
    from_name: String,
    /// What that is, unless it is nothing.
    from: Option<CopyFrom>,
    source: String,
    target: String,
    readonly: Option<bool>,
    required: bool,
    bytes: Option<u64>,
    id: String,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    variable: Option<String>,
}

/// All names of options with what they abbreviate.
const NAMES: [(&str, &str); 19] = [
    ("type", "type"),
    ("from", "from"),
    ("source", "source"),
    ("src", "source"),
    ("target", "target"),
    ("dst", "target"),
    ("destination", "target"),
    ("readonly", "readonly"),
    ("ro", "readonly"),
    ("readwrite", "readwrite"),
    ("rw", "readwrite"),
    ("required", "required"),
    ("size", "size"),
    ("id", "id"),
    ("sharing", "sharing"),
    ("mode", "mode"),
    ("uid", "uid"),
    ("gid", "gid"),
    ("env", "env"),
];

/// The options of a type, without abbreviations.
pub(super) fn options_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "bind" => &["type", "target", "source", "from", "readonly", "readwrite"],
        "cache" => &[
            "type",
            "target",
            "id",
            "sharing",
            "from",
            "source",
            "mode",
            "uid",
            "gid",
            "readonly",
            "readwrite",
        ],
        "tmpfs" => &["type", "target", "size", "readwrite"],
        "secret" => &["type", "id", "source", "target", "env", "required", "mode", "uid", "gid", "readonly"],
        "ssh" => &["type", "id", "target", "required", "mode", "uid", "gid"],
        _ => &[],
    }
}

/// Decides what a mount is.
pub(super) fn mount(words: &MountWords, reading: &mut Reading) -> Result<Mount, ErrorKind> {
    let options = Options::read(words, reading)?;
    let known = options_of(&options.kind);
    if let Some(option) = options.given.iter().find(|given| !known.contains(given)) {
        let kind = options.kind.clone();
        return Err(ErrorKind::MountOption { kind, option: (*option).to_owned(), nearest: None });
    }
    match options.kind.as_str() {
        "bind" if options.from_name == "scratch" => Err(ErrorKind::MountFromScratch),
        "bind" => Ok(Mount::Bind {
            target: options.target(reading)?,
            writable: options.readonly == Some(false),
            from: options.from.unwrap_or(CopyFrom::Context),
            source: paths::source(&options.source),
        }),
        "cache" => options.cache(reading),
        "tmpfs" if options.readonly == Some(true) => {
            Err(wrong("readwrite", "false", "true: an empty folder that cannot be written serves nothing"))
        }
        "tmpfs" => Ok(Mount::Tmpfs { target: options.target(reading)?, bytes: options.bytes }),
        "secret" => options.secret(reading),
        _ => Ok(Mount::Ssh {
            target: match options.target.as_str() {
                "" => format!("{AGENT_SOCKET}{}", reading.agents),
                _ => options.target(reading)?,
            },
            id: if options.id.is_empty() { "default".to_owned() } else { options.id.clone() },
            required: options.required,
            permissions: options.permissions(0o600),
        }),
    }
}

impl Options {
    fn read(words: &MountWords, reading: &mut Reading) -> Result<Self, ErrorKind> {
        let mut options = Self { kind: "bind".to_owned(), ..Self::default() };
        let mut unknown = None;
        for (written, value) in &words.fields {
            let Some((_, name)) = NAMES.iter().find(|(name, _)| name == written) else {
                unknown.get_or_insert(written);
                continue;
            };
            let value = match value {
                None if !matches!(*name, "readonly" | "readwrite" | "required") => {
                    return Err(ErrorKind::MountWithoutValue { option: written.clone() });
                }
                None => "true".to_owned(),
                Some(value) if *name == "from" => value.clone(),
                Some(value) => (reading.expand)(value)?,
            };
            options.set(name, written, value)?;
            options.given.push(name);
        }
        // Of several, the last alone: only that one is sure to be there.
        if !matches!(options.from_name.as_str(), "" | "scratch") {
            options.from = Some((reading.source)(&options.from_name)?);
        }
        match unknown {
            Some(option) => Err(ErrorKind::MountOption {
                nearest: nearest(option, options_of(&options.kind).iter().copied()),
                kind: options.kind,
                option: option.clone(),
            }),
            None => Ok(options),
        }
    }

    fn set(&mut self, name: &str, written: &str, value: String) -> Result<(), ErrorKind> {
        let wrong = |expected| Err(wrong(written, &value, expected));
        match name {
            "type" => {
                let kind = value.to_lowercase();
                if !TYPES.contains(&kind.as_str()) {
                    return Err(ErrorKind::MountType { nearest: nearest(&kind, TYPES), kind: value });
                }
                self.kind = kind;
            }
            "from" => self.from_name = value,
            "source" => self.source = value,
            "target" => self.target = value,
            "readonly" | "readwrite" | "required" => {
                let Some(truth) = truth(&value) else { return wrong("true or false") };
                match name {
                    "required" => self.required = truth,
                    _ => self.readonly = Some(truth == (name == "readonly")),
                }
            }
            "size" => match bytes(&value) {
                // As in Docker, no bytes at all are no limit.
                Some(bytes) => self.bytes = Some(bytes).filter(|&bytes| bytes > 0),
                None => return wrong("a size such as 64m or 2GiB"),
            },
            "id" => self.id = value,
            "sharing" => match SHARINGS.iter().find(|(name, _)| value.eq_ignore_ascii_case(name)) {
                Some((_, sharing)) => self.sharing = Some(*sharing),
                None => return wrong("shared, private or locked"),
            },
            "mode" => match u32::from_str_radix(&value, 8) {
                Ok(mode) if mode <= MODE_MAX && is_digits(&value) => self.mode = Some(mode),
                _ => return wrong("octal digits from 0 to 7777, such as 0755"),
            },
            "uid" | "gid" => {
                let Some(id) = value.parse().ok().filter(|_| is_digits(&value)) else {
                    return wrong("a number, such as 1000");
                };
                if name == "uid" { self.uid = Some(id) } else { self.gid = Some(id) }
            }
            _ => match value.contains(['=', '\0']) {
                false => self.variable = Some(value),
                true => return wrong("the name of a variable"),
            },
        }
        Ok(())
    }

    /// The absolute target.
    fn target(&self, reading: &Reading) -> Result<String, ErrorKind> {
        if self.target.is_empty() {
            return Err(ErrorKind::MountWithoutTarget { kind: self.kind.clone() });
        }
        match paths::absolute(reading.folder, &self.target) {
            root if root == "/" => Err(ErrorKind::MountOverRoot),
            target => Ok(target),
        }
    }

    fn permissions(&self, mode: u32) -> Permissions {
        Permissions {
            uid: self.uid.unwrap_or(0),
            gid: self.gid.unwrap_or(0),
            mode: self.mode.unwrap_or(mode),
        }
    }

    fn cache(self, reading: &Reading) -> Result<Mount, ErrorKind> {
        let target = self.target(reading)?;
        let id = if self.id.is_empty() { paths::cleaned(&self.target) } else { self.id.clone() };
        let is_given = |name: &&&str| self.given.contains(*name);
        let base = match &self.from {
            Some(from) => {
                // BuildKit takes one of both and forgets the other.
                if let Some(&second) = ["uid", "gid", "mode"].iter().find(is_given) {
                    return Err(ErrorKind::MountConflict { first: "from", second });
                }
                CacheBase::Copy { from: from.clone(), source: paths::source(&self.source) }
            }
            None if paths::source(&self.source) != "." => return Err(ErrorKind::MountSourceWithoutFrom),
            None => CacheBase::Empty(self.permissions(0o755)),
        };
        Ok(Mount::Cache {
            target,
            id: format!("{}{id}", reading.cache_namespace),
            sharing: self.sharing.unwrap_or(Sharing::Shared),
            writable: self.readonly != Some(true),
            base,
        })
    }

    fn secret(self, reading: &Reading) -> Result<Mount, ErrorKind> {
        if !self.id.is_empty() && !self.source.is_empty() {
            return Err(ErrorKind::MountConflict { first: "id", second: "source" });
        }
        if self.readonly == Some(false) {
            return Err(wrong("readonly", "false", "true: nobody can write to a secret"));
        }
        let id = [&self.id, &self.source].into_iter().find(|id| !id.is_empty()).cloned();
        let id = match id {
            Some(id) => id,
            None => base_name(&self.target).ok_or(ErrorKind::SecretWithoutName)?.to_owned(),
        };
        let target = match (self.target.as_str(), &self.variable) {
            ("", Some(_)) => None,
            ("", None) => {
                let name = base_name(&id).ok_or(ErrorKind::SecretWithoutName)?;
                Some(format!("{SECRETS_FOLDER}/{name}"))
            }
            _ => Some(self.target(reading)?),
        };
        let variable = self.variable.clone().map(|name| if name.is_empty() { id.clone() } else { name });
        let permissions = self.permissions(0o400);
        Ok(Mount::Secret { id, target, variable, required: self.required, permissions })
    }
}

fn wrong(option: &str, value: &str, expected: &'static str) -> ErrorKind {
    ErrorKind::MountValue { option: option.to_owned(), value: value.to_owned(), expected }
}

/// The last name of a path.
fn base_name(path: &str) -> Option<&str> {
    path.split('/').rfind(|part| !part.is_empty()).filter(|name| !matches!(*name, "." | ".."))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A truth value as Go reads it.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A size as Docker reads it: units are powers of 1024, with or without `i` and `b`.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: &str = "kmgtp";
    let lower = text.to_ascii_lowercase();
    let number_end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(number_end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let unit = match unit.strip_suffix('i') {
        Some("") => return None,
        Some(letter) => letter,
        None => unit,
    };
    let power = match unit {
        "" => 0,
        unit => 1 + UNITS.find(unit).filter(|_| unit.len() == 1)?,
    };
    let bytes = number.parse::<f64>().ok()? * 1024_f64.powi(i32::try_from(power).ok()?);
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests;
