//! The locked choice of packages: what `ibid.lock` keeps of a base.

use ibid_core::digest::Digest;
use serde::{Deserialize, Serialize};

/// Everything that decides a base's content: the same lock gives the same image digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedBase {
    /// Code name of the suite, such as `bookworm`.
    pub suite: String,
    /// Architecture in Debian's names, such as `amd64`.
    pub architecture: String,
    /// The packages that were asked for, as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<String>,
    /// The archives that the packages are from. They become the image's own apt sources.
    pub sources: Vec<LockedSource>,
    /// All packages, sorted by name.
    pub packages: Vec<LockedPackage>,
}

/// One archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSource {
    /// Where it lies, without credentials.
    pub uri: String,
    /// Its suite, such as `bookworm-security`.
    pub suite: String,
    /// Its components that were used.
    pub components: Vec<String>,
    /// Fingerprints of the primary keys that vouched for it, upper-case hexadecimal.
    pub keys: Vec<String>,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture, or `all`.
    pub architecture: String,
    /// Digest of the package file; written as 64 hexadecimal digits.
    #[serde(with = "hex")]
    pub sha256: Digest,
    /// Size of the package file, bytes.
    pub size: u64,
    /// Path of the package file below its source's URI.
    pub filename: String,
    /// Index in [`LockedBase::sources`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub source: usize,
}

impl LockedBase {
    /// Whether the lock still answers what `spec` asks for. The mirror is no part of the question: a lock
    /// stays good when another mirror of the same archive is configured.
    pub fn answers(&self, spec: &crate::BaseSpec) -> bool {
        spec.suite.as_ref().is_none_or(|suite| *suite == self.suite)
            && spec.architecture == self.architecture
            && spec.packages == self.asked
            && self.sources.iter().all(|source| {
                source.components.iter().all(|component| spec.components().any(|wanted| wanted == component))
            })
            && spec.components().all(|wanted| {
                self.sources
                    .iter()
                    .any(|source| source.components.iter().any(|component| component == wanted))
            })
    }

    /// Bytes of all package files.
    pub fn size(&self) -> u64 {
        self.packages.iter().map(|package| package.size).sum()
    }

    /// Refuses an entry that could reach outside what it names.
    pub(crate) fn check(&self) -> Result<(), crate::Error> {
        let invalid = |reason: String| Err(crate::Error::InvalidLock { reason });
        let plain =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.~:_".contains(&byte));
        for source in &self.sources {
            let words = source.components.iter().chain([&source.suite, &source.uri]);
            for word in words {
                if word.is_empty() || word.chars().any(|c| c.is_whitespace() || c.is_control()) {
                    return invalid(format!("`{word}` is no part of a package source"));
                }
            }
        }
        let mut last: Option<&LockedPackage> = None;
        for package in &self.packages {
            if package.source >= self.sources.len() {
                return invalid(format!("package `{}` is of a source that is not listed", package.name));
            }
            if package.name.is_empty()
                || !plain(&package.name)
                || !plain(&package.version)
                || !plain(&package.architecture)
            {
                return invalid(format!("`{}` is no package", package.name));
            }
            if package.filename.starts_with('/') || package.filename.split('/').any(|part| part == "..") {
                return invalid(format!("package `{}` has a file outside the archive", package.name));
            }
            if last.is_some_and(|last| last.name >= package.name) {
                return invalid(format!("package `{}` is listed twice or out of order", package.name));
            }
            last = Some(package);
        }
        Ok(())
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

mod hex {
    use ibid_core::digest::Digest;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digest.hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::from_hex(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LockedBase {
        LockedBase {
            suite: "bookworm".to_owned(),
            architecture: "amd64".to_owned(),
            asked: vec!["python3".to_owned()],
            sources: vec![LockedSource {
                uri: "http://mirror.example/debian".to_owned(),
                suite: "bookworm".to_owned(),
                components: vec!["main".to_owned()],
                keys: vec!["AB".repeat(20)],
            }],
            packages: vec![LockedPackage {
                name: "apt".to_owned(),
                version: "2.6.1".to_owned(),
                architecture: "amd64".to_owned(),
                sha256: Digest::of(b""),
                size: 3,
                filename: "pool/main/a/apt/apt_2.6.1_amd64.deb".to_owned(),
                source: 0,
            }],
        }
    }

    #[test]
    fn lock_is_read_as_it_was_written() {
        let lock = sample();
        let text = toml_edit::ser::to_string_pretty(&lock).expect("writes");
        assert_eq!(toml_edit::de::from_str::<LockedBase>(&text).expect("reads"), lock);
        assert!(text.contains(&format!("sha256 = \"{}\"", Digest::of(b"").hex())), "{text}");
    }

    #[test]
    fn lock_answers_the_question_it_was_made_for() {
        let spec = crate::BaseSpec {
            suite: None,
            packages: vec!["python3".to_owned()],
            mirror: None,
            keyring: None,
            components: Vec::new(),
            architecture: "amd64".to_owned(),
        };
        let lock = sample();
        assert!(lock.answers(&spec));
        assert!(lock.answers(&crate::BaseSpec { mirror: Some("file:/x".to_owned()), ..spec.clone() }));
        assert!(!lock.answers(&crate::BaseSpec { suite: Some("trixie".to_owned()), ..spec.clone() }));
        assert!(!lock.answers(&crate::BaseSpec { packages: Vec::new(), ..spec.clone() }));
        assert!(!lock.answers(&crate::BaseSpec { components: vec!["non-free".to_owned()], ..spec }));
    }

    #[test]
    fn hostile_lock_is_refused() {
        assert!(sample().check().is_ok());
        let refused = |change: &dyn Fn(&mut LockedBase)| {
            let mut lock = sample();
            change(&mut lock);
            assert!(lock.check().is_err(), "{lock:?}");
        };
        refused(&|lock| lock.packages[0].filename = "../x".to_owned());
        refused(&|lock| lock.packages[0].name = "a/b".to_owned());
        refused(&|lock| lock.packages[0].source = 1);
        refused(&|lock| lock.packages.push(lock.packages[0].clone()));
        refused(&|lock| lock.sources[0].uri = "http://x\nTypes: deb".to_owned());
    }
}
