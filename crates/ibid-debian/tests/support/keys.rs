//! OpenPGP keys and signatures made for a test.

use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, DetachedSignature, KeyType, SecretKeyParamsBuilder,
    SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Duration, KeyDetails as _, Password, SigningKey, Tag, Timestamp};

const YEAR_SECONDS: u32 = 31_536_000;

/// A key pair.
pub struct Key {
    secret: SignedSecretKey,
}

/// How to sign.
#[derive(Debug, Clone, Copy)]
pub struct Signing {
    pub hash: HashAlgorithm,
    /// Seconds before now.
    pub age: i64,
    pub lifetime: Option<u32>,
    pub by_subkey: bool,
}

impl Default for Signing {
    fn default() -> Self {
        Self { hash: HashAlgorithm::Sha512, age: 60, lifetime: None, by_subkey: false }
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    i64::from(Timestamp::now().as_secs())
}

fn ago(seconds: i64) -> Timestamp {
    Timestamp::from_secs(u32::try_from(now() - seconds).expect("a time of this century"))
}

fn subpacket(data: SubpacketData) -> Subpacket {
    Subpacket::regular(data).expect("a valid part of a signature")
}

impl Key {
    /// A key made a year ago, with a subkey that may sign too.
    pub fn new() -> Self {
        Self::of_type(KeyType::Ed25519Legacy)
    }

    /// The same of another kind, for what the usual one cannot do.
    pub fn rsa() -> Self {
        Self::of_type(KeyType::Rsa(2048))
    }

    fn of_type(kind: KeyType) -> Self {
        let subkey = SubkeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(true)
            .created_at(ago(i64::from(YEAR_SECONDS)))
            .build()
            .expect("valid parameters");
        let secret = SecretKeyParamsBuilder::default()
            .key_type(kind)
            .can_certify(true)
            .can_sign(true)
            .created_at(ago(i64::from(YEAR_SECONDS)))
            .primary_user_id("Archive <archive@example.com>".to_owned())
            .subkey(subkey)
            .build()
            .expect("valid parameters")
            .generate(rand::thread_rng())
            .expect("a key");
        Self { secret }
    }

    /// The same key, valid for so many seconds after it was made.
    pub fn expiring_after(mut self, seconds: u32) -> Self {
        let mut flags = KeyFlags::default();
        flags.set_certify(true);
        flags.set_sign(true);
        let primary = self.secret.primary_key.clone();
        let mut config =
            SignatureConfig::v4(SignatureType::CertPositive, primary.algorithm(), HashAlgorithm::Sha512);
        config.hashed_subpackets = vec![
            subpacket(SubpacketData::SignatureCreationTime(Timestamp::now())),
            subpacket(SubpacketData::KeyFlags(flags)),
            subpacket(SubpacketData::KeyExpirationTime(Duration::from_secs(seconds))),
            subpacket(SubpacketData::IssuerFingerprint(primary.fingerprint())),
        ];
        config.unhashed_subpackets = vec![subpacket(SubpacketData::IssuerKeyId(primary.legacy_key_id()))];
        let user = &mut self.secret.details.users[0];
        let certification = config
            .sign_certification(&primary, primary.public_key(), &Password::empty(), Tag::UserId, &user.id)
            .expect("a certification");
        user.signatures = vec![certification];
        self
    }

    /// The same key, revoked by itself.
    pub fn revoked(mut self) -> Self {
        let primary = self.secret.primary_key.clone();
        let mut config =
            SignatureConfig::v4(SignatureType::KeyRevocation, primary.algorithm(), HashAlgorithm::Sha512);
        config.hashed_subpackets = vec![
            subpacket(SubpacketData::SignatureCreationTime(ago(3600))),
            subpacket(SubpacketData::IssuerFingerprint(primary.fingerprint())),
        ];
        config.unhashed_subpackets = vec![subpacket(SubpacketData::IssuerKeyId(primary.legacy_key_id()))];
        let revocation =
            config.sign_key(&primary, &Password::empty(), primary.public_key()).expect("a revocation");
        self.secret.details.revocation_signatures.push(revocation);
        self
    }

    /// The same key, with a subkey that is not bound to it.
    pub fn with_foreign_subkey(mut self, other: &Self) -> Self {
        self.secret.secret_subkeys = other.secret.secret_subkeys.clone();
        self
    }

    /// The fingerprint of the primary key, upper-case hexadecimal.
    pub fn fingerprint(&self) -> String {
        let fingerprint = self.secret.primary_key.fingerprint();
        fingerprint.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// The public key, binary.
    pub fn public(&self) -> Vec<u8> {
        SignedPublicKey::from(self.secret.clone()).to_bytes().expect("writes to memory")
    }

    /// The public key in ASCII armour.
    pub fn armoured(&self) -> String {
        SignedPublicKey::from(self.secret.clone())
            .to_armored_string(ArmorOptions::default())
            .expect("writes to memory")
    }

    /// A clear-signed text.
    pub fn clear_sign(&self, text: &str, signing: Signing) -> String {
        let message = if signing.by_subkey {
            let key = &self.secret.secret_subkeys[0].key;
            CleartextSignedMessage::new(
                text,
                config(key, SignatureType::Text, signing),
                key,
                &Password::empty(),
            )
        } else {
            let key = &self.secret.primary_key;
            CleartextSignedMessage::new(
                text,
                config(key, SignatureType::Text, signing),
                key,
                &Password::empty(),
            )
        };
        message.expect("a signature").to_armored_string(ArmorOptions::default()).expect("writes to memory")
    }

    /// A detached signature in ASCII armour.
    pub fn sign(&self, bytes: &[u8]) -> String {
        let key = &self.secret.primary_key;
        let config = config(key, SignatureType::Binary, Signing::default());
        let signature = config.sign(key, &Password::empty(), bytes).expect("a signature");
        DetachedSignature::new(signature)
            .to_armored_string(ArmorOptions::default())
            .expect("writes to memory")
    }
}

fn config(key: &impl SigningKey, kind: SignatureType, signing: Signing) -> SignatureConfig {
    let mut config = SignatureConfig::v4(kind, key.algorithm(), signing.hash);
    config.hashed_subpackets = vec![
        subpacket(SubpacketData::SignatureCreationTime(ago(signing.age))),
        subpacket(SubpacketData::IssuerFingerprint(key.fingerprint())),
    ];
    if let Some(seconds) = signing.lifetime {
        config
            .hashed_subpackets
            .push(subpacket(SubpacketData::SignatureExpirationTime(Duration::from_secs(seconds))));
    }
    config.unhashed_subpackets = vec![subpacket(SubpacketData::IssuerKeyId(key.legacy_key_id()))];
    config
}
