//! OpenPGP keys that may vouch for packages, and what each may do (RFC 9580).
//!
//! A key counts only by what it says of itself now: its newest valid self-signature decides its expiry and
//! use, and any valid revocation ends it. A signing subkey must be bound by the primary key and must bind
//! itself back. Only SHA-2 and SHA-3 count, in self-signatures too.

use std::path::{Path, PathBuf};

use pgp::composed::{Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Fingerprint, KeyDetails, PublicParams, Tag};

use crate::error::{Error, io_error};
use crate::sources::SignedBy;

/// Seconds by which a signature's time may lie in the future, for clocks that differ a little.
const CLOCK_SKEW_SECONDS: i64 = 600;
const RSA_BYTES_MIN: usize = 2048 / 8;

/// Keys that are trusted for one repository.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    certificates: Vec<SignedPublicKey>,
}

/// Where the host keeps the keys that it trusts for packages.
pub(crate) fn host_files(root: &Path) -> Vec<PathBuf> {
    let mut files = vec![root.join("etc/apt/trusted.gpg")];
    let parts = root.join("etc/apt/trusted.gpg.d");
    if let Ok(entries) = std::fs::read_dir(&parts) {
        let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        names.retain(|path| {
            path.extension().is_some_and(|extension| extension == "gpg" || extension == "asc")
        });
        names.sort();
        files.extend(names);
    }
    for name in ["debian-archive-keyring.gpg", "debian-archive-keyring.pgp"] {
        files.push(root.join("usr/share/keyrings").join(name));
    }
    files
}

impl Keyring {
    /// The keys that a source may be signed with. `root` is the host's root folder.
    pub(crate) fn of_source(signed_by: &SignedBy, root: &Path, url: &str) -> Result<Self, Error> {
        let mut keyring = Self::default();
        let mut looked = Vec::new();
        match signed_by {
            SignedBy::Inline(armour) => {
                keyring.add(armour.as_bytes(), Path::new("Signed-By"))?;
            }
            SignedBy::Host => {
                looked = host_files(root);
                keyring.add_files(&looked, true)?;
            }
            SignedBy::Keys { files, fingerprints } => {
                looked = files.iter().map(|file| root.join(file.strip_prefix("/").unwrap_or(file))).collect();
                keyring.add_files(&looked, false)?;
                if !fingerprints.is_empty() {
                    let mut host = Self::default();
                    if files.is_empty() {
                        looked = host_files(root);
                        host.add_files(&looked, true)?;
                    } else {
                        host.certificates = std::mem::take(&mut keyring.certificates);
                    }
                    host.certificates.retain(|certificate| fingerprints.contains(&primary_hex(certificate)));
                    keyring = host;
                }
            }
        }
        if keyring.certificates.is_empty() {
            return Err(Error::NoKeyring { url: url.to_owned(), looked });
        }
        Ok(keyring)
    }

    /// The keys of one file, which must be there.
    pub(crate) fn of_file(path: &Path) -> Result<Self, Error> {
        let mut keyring = Self::default();
        keyring.add_files(std::slice::from_ref(&path.to_owned()), false)?;
        Ok(keyring)
    }

    /// The keys in the bytes of a file; `path` is for messages.
    pub(crate) fn of_bytes(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        let mut keyring = Self::default();
        keyring.add(bytes, path)?;
        Ok(keyring)
    }

    fn add_files(&mut self, files: &[PathBuf], lenient: bool) -> Result<(), Error> {
        for file in files {
            match std::fs::read(file) {
                Ok(bytes) => match self.add(&bytes, file) {
                    Err(_) if lenient => {}
                    other => other?,
                },
                Err(error) if lenient && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) if lenient && error.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(io_error(file)(error)),
            }
        }
        Ok(())
    }

    /// Adds keys, in ASCII armour or binary. A key that cannot be read is passed over as long as another can.
    fn add(&mut self, bytes: &[u8], path: &Path) -> Result<(), Error> {
        let invalid = |reason: String| Error::InvalidKeyring { path: path.to_owned(), reason };
        let before = self.certificates.len();
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(64 << 10)]);
        let mut last_failure = None;
        if text.contains("-----BEGIN PGP") {
            let text = std::str::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
            // A file may hold several armoured blocks, one after another.
            for block in text.split_inclusive("-----END PGP PUBLIC KEY BLOCK-----") {
                let Some(start) = block.find("-----BEGIN PGP") else { continue };
                match SignedPublicKey::from_armor_many(&block.as_bytes()[start..]) {
                    Ok((certificates, _)) => self.take(certificates, &mut last_failure),
                    Err(error) => last_failure = Some(error.to_string()),
                }
            }
        } else {
            match SignedPublicKey::from_bytes_many(bytes) {
                Ok(certificates) => self.take(certificates, &mut last_failure),
                Err(error) => last_failure = Some(error.to_string()),
            }
        }
        if self.certificates.len() == before && !bytes.is_empty() {
            return Err(invalid(last_failure.unwrap_or_else(|| "holds no OpenPGP key".to_owned())));
        }
        Ok(())
    }

    fn take(
        &mut self,
        certificates: impl Iterator<Item = pgp::errors::Result<SignedPublicKey>>,
        last_failure: &mut Option<String>,
    ) {
        for certificate in certificates {
            match certificate {
                Ok(certificate) => self.certificates.push(certificate),
                Err(error) => *last_failure = Some(error.to_string()),
            }
        }
    }

    /// Whether a primary key of this fingerprint (upper-case hexadecimal) is here.
    pub(crate) fn contains(&self, fingerprint: &str) -> bool {
        self.certificates.iter().any(|certificate| primary_hex(certificate) == fingerprint)
    }

    /// Verifies one signature over `data`. On success, gives the fingerprint of the certificate's primary key.
    pub(crate) fn verify(&self, signature: &Signature, data: &[u8], now: i64) -> Result<String, Refusal> {
        let refuse = |reason: &str| Refusal::Bad(format!("{}: {reason}", issuer(signature)));
        let mut failure = None;
        for certificate in &self.certificates {
            let key = certificate.primary_key.fingerprint();
            if is_issuer(signature, &certificate.primary_key, &key) {
                match usable_primary(certificate, now) {
                    Err(reason) => failure = Some(refuse(&reason)),
                    Ok(None) => failure = Some(refuse("the key may not sign")),
                    Ok(Some(())) => {
                        match check(signature, now, || signature.verify(&certificate.primary_key, data)) {
                            Ok(()) => return Ok(primary_hex(certificate)),
                            Err(reason) => failure = Some(refuse(&reason)),
                        }
                    }
                }
            }
            for subkey in &certificate.public_subkeys {
                if is_issuer(signature, &subkey.key, &subkey.key.fingerprint()) {
                    let outcome = usable_primary(certificate, now)
                        .and_then(|_| usable_subkey(certificate, subkey, now))
                        .and_then(|()| check(signature, now, || signature.verify(&subkey.key, data)));
                    match outcome {
                        Ok(()) => return Ok(primary_hex(certificate)),
                        Err(reason) => failure = Some(refuse(&reason)),
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| Refusal::Unknown(issuer(signature))))
    }
}

/// Why a signature does not count.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// By a key that is not in the keyring.
    Unknown(String),
    /// By a known key, with the reason.
    Bad(String),
}

fn primary_hex(certificate: &SignedPublicKey) -> String {
    hex(&certificate.primary_key.fingerprint())
}

fn hex(fingerprint: &Fingerprint) -> String {
    fingerprint.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The key that made a signature, as the signature says.
fn issuer(signature: &Signature) -> String {
    if let Some(fingerprint) = signature.issuer_fingerprint().first() {
        return format!("key {}", hex(fingerprint));
    }
    match signature.issuer_key_id().first() {
        Some(id) => format!("key {}", id.to_string().to_ascii_uppercase()),
        None => "an unnamed key".to_owned(),
    }
}

fn is_issuer(signature: &Signature, key: &impl KeyDetails, fingerprint: &Fingerprint) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if !fingerprints.is_empty() {
        return fingerprints.contains(&fingerprint);
    }
    let id = key.legacy_key_id();
    signature.issuer_key_id().into_iter().any(|issuer| *issuer == id)
}

/// Checks what a signature of any type must fulfil, then the mathematics.
fn check(
    signature: &Signature,
    now: i64,
    verify: impl FnOnce() -> pgp::errors::Result<()>,
) -> Result<(), String> {
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => {}
        Some(weak) => return Err(format!("made with the weak hash {weak}")),
        None => return Err("made with an unknown hash".to_owned()),
    }
    let Some(config) = signature.config() else { return Err("of an unknown version".to_owned()) };
    for subpacket in &config.hashed_subpackets {
        if subpacket.is_critical
            && matches!(subpacket.data, SubpacketData::Experimental(..) | SubpacketData::Other(..))
        {
            return Err("has a critical part of unknown meaning".to_owned());
        }
    }
    let Some(created) = signature.created() else { return Err("has no time".to_owned()) };
    let created = i64::from(created.as_secs());
    if created > now + CLOCK_SKEW_SECONDS {
        return Err("made in the future".to_owned());
    }
    if let Some(lifetime) =
        signature.signature_expiration_time().map(|lifetime| i64::from(lifetime.as_secs()))
        && lifetime > 0
        && created + lifetime < now
    {
        return Err("the signature has expired".to_owned());
    }
    verify().map_err(|_| "the signature does not match the content".to_owned())
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created().map(|created| created.as_secs()))
}

fn expired(created: i64, self_signature: &Signature, now: i64) -> bool {
    self_signature
        .key_expiration_time()
        .map(|lifetime| i64::from(lifetime.as_secs()))
        .is_some_and(|lifetime| lifetime > 0 && created + lifetime < now)
}

fn strong(params: &PublicParams) -> Result<(), String> {
    match params {
        // The modulus is nearly all of what is written; the exponent and two lengths are a few bytes more.
        PublicParams::RSA(rsa) if rsa.write_len() < RSA_BYTES_MIN => {
            Err("an RSA key of less than 2048 bits".to_owned())
        }
        PublicParams::DSA(_) => Err("a DSA key".to_owned()),
        _ => Ok(()),
    }
}

/// Whether the primary key is valid now. `Some(())` when it may itself sign data.
fn usable_primary(certificate: &SignedPublicKey, now: i64) -> Result<Option<()>, String> {
    let key = &certificate.primary_key;
    strong(key.public_params())?;
    let details = &certificate.details;
    let revoked = details
        .revocation_signatures
        .iter()
        .filter(|signature| signature.typ() == Some(SignatureType::KeyRevocation))
        .any(|signature| signature.verify_key(key).is_ok());
    if revoked {
        return Err("the key is revoked".to_owned());
    }
    let direct = details.direct_signatures.iter().filter(|signature| {
        signature.typ() == Some(SignatureType::Key)
            && check(signature, now, || signature.verify_key(key)).is_ok()
    });
    let by_user = details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(move |signature| {
            signature.is_certification()
                && is_issuer(signature, key, &key.fingerprint())
                && check(signature, now, || signature.verify_certification(key, Tag::UserId, &user.id))
                    .is_ok()
        })
    });
    let self_signature = newest(direct.chain(by_user)).ok_or("the key has no valid self-signature")?;
    if expired(i64::from(key.created_at().as_secs()), self_signature, now) {
        return Err("the key has expired".to_owned());
    }
    let flags = self_signature.key_flags();
    let unrestricted = !self_signature.config().is_some_and(|config| {
        config.hashed_subpackets.iter().any(|subpacket| matches!(subpacket.data, SubpacketData::KeyFlags(_)))
    });
    Ok((flags.sign() || unrestricted).then_some(()))
}

/// Whether a subkey may sign data now.
fn usable_subkey(certificate: &SignedPublicKey, subkey: &SignedPublicSubKey, now: i64) -> Result<(), String> {
    let primary = &certificate.primary_key;
    strong(subkey.key.public_params())?;
    let revoked = subkey
        .signatures
        .iter()
        .filter(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation))
        .any(|signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok());
    if revoked {
        return Err("the subkey is revoked".to_owned());
    }
    let bindings = subkey.signatures.iter().filter(|signature| {
        signature.typ() == Some(SignatureType::SubkeyBinding)
            && check(signature, now, || signature.verify_subkey_binding(primary, &subkey.key)).is_ok()
    });
    let binding = newest(bindings).ok_or("the subkey is not bound to its key")?;
    if expired(i64::from(subkey.key.created_at().as_secs()), binding, now) {
        return Err("the subkey has expired".to_owned());
    }
    if !binding.key_flags().sign() {
        return Err("the subkey may not sign".to_owned());
    }
    let back = binding.embedded_signature().ok_or("the subkey does not bind itself to its key")?;
    check(back, now, || back.verify_primary_key_binding(&subkey.key, primary))
        .map_err(|_| "the subkey does not bind itself to its key".to_owned())
}
