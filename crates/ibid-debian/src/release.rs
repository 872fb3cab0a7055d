//! Release files: the signed list of a suite's indexes. Everything that is believed of a mirror is believed
//! because a release file, signed by a key of the keyring, vouches for it.

use std::collections::BTreeMap;

use ibid_core::digest::Digest;
use ibid_core::time::rfc3339;
use pgp::composed::{CleartextSignedMessage, DetachedSignature};

use crate::date;
use crate::deb822::Paragraphs;
use crate::error::Error;
use crate::keyring::{Keyring, Refusal};

/// Largest release file that is read, bytes. Real ones are a tenth of it.
pub(crate) const RELEASE_BYTES_MAX: u64 = 2 << 20;

/// Seconds by which `Date` may lie in the future.
const CLOCK_SKEW_SECONDS: i64 = 600;

/// A release file whose signature holds.
#[derive(Debug)]
pub(crate) struct Release {
    url: String,
    /// `Origin`, such as `Debian`.
    pub origin: String,
    suite: String,
    codename: String,
    date: Option<i64>,
    valid_until: Option<i64>,
    architectures: Vec<String>,
    all_is_in_each: bool,
    /// Whether indexes are also offered under their digest.
    pub by_hash: bool,
    files: BTreeMap<String, IndexFile>,
    /// Primary keys whose signatures hold, upper-case hexadecimal.
    pub signers: Vec<String>,
}

/// An index that the release vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexFile {
    /// Path below the suite's folder.
    pub path: String,
    pub digest: Digest,
    pub size: u64,
}

impl Release {
    /// Verifies a clear-signed `InRelease` and reads the text that was signed, and nothing beside it.
    pub(crate) fn from_clear_signed(
        bytes: &[u8],
        keyring: &Keyring,
        now: i64,
        url: &str,
    ) -> Result<Self, Error> {
        let not_signed = |reason: String| Error::NotSigned { url: url.to_owned(), reason };
        let (message, _) =
            CleartextSignedMessage::from_armor(bytes).map_err(|error| not_signed(error.to_string()))?;
        let text = message.signed_text();
        let signers = good_signers(message.signatures(), text.as_bytes(), keyring, now, url)?;
        Self::read(text.as_bytes(), signers, url)
    }

    /// Verifies a `Release` against the signatures of its `Release.gpg`, in ASCII armour or binary.
    pub(crate) fn from_detached(
        bytes: &[u8],
        signatures: &[u8],
        keyring: &Keyring,
        now: i64,
        url: &str,
    ) -> Result<Self, Error> {
        use pgp::composed::Deserializable as _;
        let not_signed = |reason: String| Error::NotSigned { url: url.to_owned(), reason };
        let parsed: Result<Vec<_>, _> = if signatures.starts_with(b"-----BEGIN PGP") {
            DetachedSignature::from_armor_many(signatures).and_then(|(all, _)| all.collect())
        } else {
            DetachedSignature::from_bytes_many(signatures).and_then(Iterator::collect)
        };
        let parsed = parsed.map_err(|error| not_signed(error.to_string()))?;
        let signatures: Vec<_> = parsed.into_iter().map(|detached| detached.signature).collect();
        let signers = good_signers(&signatures, bytes, keyring, now, url)?;
        Self::read(bytes, signers, url)
    }

    fn read(text: &[u8], signers: Vec<String>, url: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::InvalidRelease { url: url.to_owned(), reason };
        let paragraph = Paragraphs::new(text)
            .next()
            .map_err(|error| invalid(error.to_string()))?
            .ok_or_else(|| invalid("empty release file".to_owned()))?;
        let time = |name: &str| match paragraph.get(name) {
            None => Ok(None),
            Some(value) => {
                date::parse(value).map(Some).ok_or_else(|| invalid(format!("{name} is no date: `{value}`")))
            }
        };
        let mut files = BTreeMap::new();
        let listed =
            paragraph.get("SHA256").ok_or_else(|| invalid("no SHA256 list of its indexes".to_owned()))?;
        for line in listed.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let (digest, size, path) = (words.next(), words.next(), words.next());
            let (Some(Ok(digest)), Some(Ok(size)), Some(path), None) =
                (digest.map(Digest::from_hex), size.map(str::parse), path, words.next())
            else {
                return Err(invalid(format!("malformed line in its SHA256 list: `{line}`")));
            };
            if path.starts_with('/') || path.split('/').any(|part| part == "..") {
                return Err(invalid(format!("lists a path outside the suite: `{path}`")));
            }
            files.insert(path.to_owned(), IndexFile { path: path.to_owned(), digest, size });
        }
        let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        Ok(Self {
            url: url.to_owned(),
            origin: field("Origin"),
            suite: field("Suite"),
            codename: field("Codename"),
            date: time("Date")?,
            valid_until: time("Valid-Until")?,
            architectures: paragraph.words("Architectures"),
            all_is_in_each: paragraph
                .words("No-Support-for-Architecture-all")
                .iter()
                .any(|word| word == "Packages"),
            by_hash: paragraph.get("Acquire-By-Hash").is_some_and(|value| value.eq_ignore_ascii_case("yes")),
            files,
            signers,
        })
    }

    /// Code name, such as `bookworm-security`.
    pub(crate) fn codename(&self) -> &str {
        &self.codename
    }

    /// The folder below `dists` that it was found in.
    pub(crate) fn folder(&self) -> &str {
        let path = self.url.rsplit_once("/dists/").map_or("", |(_, path)| path);
        path.rsplit_once('/').map_or(path, |(folder, _)| folder)
    }

    /// Refuses a release of another suite: a mirror must not pass one suite off as another.
    pub(crate) fn check_suite(&self, wanted: &str) -> Result<(), Error> {
        let short = wanted.split('/').next().unwrap_or(wanted);
        if [wanted, short].iter().any(|name| *name == self.suite || *name == self.codename) {
            return Ok(());
        }
        Err(Error::InvalidRelease {
            url: self.url.clone(),
            reason: format!(
                "the release file is of suite `{}`, code name `{}`, and not of `{wanted}`",
                self.suite, self.codename
            ),
        })
    }

    /// Refuses a release that is past its time.
    pub(crate) fn check_valid_until(&self, now: i64) -> Result<(), Error> {
        match self.valid_until {
            Some(until) if until < now => {
                Err(Error::ExpiredRelease { url: self.url.clone(), valid_until: rfc3339(until) })
            }
            _ => Ok(()),
        }
    }

    /// Refuses a release from the future.
    pub(crate) fn check_date(&self, now: i64) -> Result<(), Error> {
        match self.date {
            Some(date) if date > now + CLOCK_SKEW_SECONDS => {
                Err(Error::FutureRelease { url: self.url.clone(), date: rfc3339(date) })
            }
            _ => Ok(()),
        }
    }

    /// The package indexes of a component: that of the architecture, and that of `all` where it is apart. Of
    /// each the smallest compressed form that can be read.
    pub(crate) fn package_indexes(&self, component: &str, architecture: &str) -> Vec<&IndexFile> {
        let mut folders = vec![architecture];
        if self.architectures.iter().any(|name| name == "all") && !self.all_is_in_each {
            folders.push("all");
        }
        folders
            .into_iter()
            .filter_map(|folder| {
                ["Packages.xz", "Packages.gz", "Packages"]
                    .iter()
                    .find_map(|name| self.files.get(&format!("{component}/binary-{folder}/{name}")))
            })
            .collect()
    }
}

fn good_signers(
    signatures: &[pgp::packet::Signature],
    data: &[u8],
    keyring: &Keyring,
    now: i64,
    url: &str,
) -> Result<Vec<String>, Error> {
    let (mut good, mut unknown, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    for signature in signatures {
        use pgp::packet::SignatureType;
        if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
            bad.push("a signature that is not over a document".to_owned());
            continue;
        }
        match keyring.verify(signature, data, now) {
            Ok(signer) => good.push(signer),
            Err(Refusal::Unknown(key)) => unknown.push(key),
            Err(Refusal::Bad(reason)) => bad.push(reason),
        }
    }
    good.sort();
    good.dedup();
    if !good.is_empty() {
        Ok(good)
    } else if !bad.is_empty() {
        Err(Error::BadSignature { url: url.to_owned(), reasons: bad })
    } else if !unknown.is_empty() {
        Err(Error::UnknownKey { url: url.to_owned(), keys: unknown })
    } else {
        Err(Error::NotSigned { url: url.to_owned(), reason: "it has no signature".to_owned() })
    }
}
