//! What looks like a secret is never written down: only a keyed hash, by which two runs of one person can be compared.
//!
//! A value is a secret when its name says so (`WANDB_API_KEY`, `--password`), or when it is a URL with a password in it. The key
//! is the person's own, made when it is first needed, and never leaves their folder: without it nobody can try guesses.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ibid_core::digest::Hasher;

use crate::ledger::{Error, io};
use crate::parameters;
use crate::record::EnvValue;

/// Words that make a name a secret's wherever they stand in it.
const ANYWHERE: [&str; 8] =
    ["SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "APIKEY", "PRIVATEKEY", "ACCESSKEY"];

/// Words that do as the last one.
const LAST: [&str; 5] = ["TOKEN", "PASS", "AUTH", "AUTHORIZATION", "COOKIE"];

/// Words before a last `KEY`.
const BEFORE_KEY: [&str; 9] =
    ["API", "PRIVATE", "ACCESS", "ENCRYPTION", "SIGNING", "AUTH", "SSH", "DEPLOY", "LICENSE"];

/// Words before a last `TOKEN` that make it one of a vocabulary.
const VOCABULARY: [&str; 9] = ["PAD", "BOS", "EOS", "UNK", "MASK", "SEP", "CLS", "STOP", "START"];

const KEY_BYTES: usize = 32;

/// The length of SHA-256's blocks, which HMAC pads keys to (RFC 2104).
const BLOCK_BYTES: usize = 64;

/// Whether this is the name of a secret.
pub fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let joined: String = upper.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut words: Vec<&str> = upper.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    words.retain(|word| !word.is_empty() && !word.bytes().all(|byte| byte.is_ascii_digit()));
    let Some((last, before)) = words.split_last() else { return false };
    let before = before.last().copied().unwrap_or_default();
    ANYWHERE.iter().any(|word| joined.contains(word))
        || LAST.iter().any(|word| last == word || (*word == "TOKEN" && last.ends_with(word)))
            && !VOCABULARY.contains(&before)
        || *last == "KEY" && BEFORE_KEY.contains(&before)
        || *last == "ID" && upper.contains("ACCESS_KEY")
        || *last == "PWD" && !before.is_empty() && before != "OLD"
}

/// Whether a URL in this text holds a password: `https://ann:secret@host/`.
pub fn holds_password(text: &str) -> bool {
    text.match_indices("://").any(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let authority = &rest[..rest.find(['/', '?', '#', ' ', '"', '\'']).unwrap_or(rest.len())];
        authority.rsplit_once('@').is_some_and(|(person, _)| {
            person.split_once(':').is_some_and(|(_, password)| !password.is_empty())
        })
    })
}

/// Hashes secrets with a person's key, which is read or made when there is one.
#[derive(Debug)]
pub struct Secrets {
    path: PathBuf,
    key: Option<[u8; KEY_BYTES]>,
}

impl Secrets {
    /// With the key in this file.
    pub fn new(key: &Path) -> Self {
        Self { path: key.to_owned(), key: None }
    }

    /// A variable as it may be written down.
    pub fn variable(&mut self, name: &str, value: &str) -> Result<EnvValue, Error> {
        if is_secret_name(name) && !value.is_empty() || holds_password(value) {
            return Ok(EnvValue::Secret { secret_hash: self.hash(value)? });
        }
        Ok(EnvValue::Plain(value.to_owned()))
    }

    /// Arguments as they may be written down, and the names of those whose values are left out: there stands
    /// `<secret HASH>` instead.
    pub fn arguments(&mut self, arguments: &[String]) -> Result<(Vec<String>, Vec<String>), Error> {
        let mut written = arguments.to_vec();
        let mut names = Vec::new();
        for named in parameters::named(arguments) {
            if !is_secret_name(&named.name) {
                continue;
            }
            for position in named.values.clone() {
                let (before, value) = arguments[position].split_at(named.at);
                written[position] = format!("{before}{}", self.placeholder(value)?);
                names.push(named.name.clone());
            }
        }
        for (argument, written) in arguments.iter().zip(&mut written) {
            if argument == written && holds_password(argument) {
                *written = self.placeholder(argument)?;
                names.push("a URL".to_owned());
            }
        }
        Ok((written, names))
    }

    fn placeholder(&mut self, value: &str) -> Result<String, Error> {
        Ok(format!("<secret {}>", &self.hash(value)?[..16]))
    }

    /// HMAC-SHA-256 (RFC 2104), hexadecimal.
    fn hash(&mut self, value: &str) -> Result<String, Error> {
        let key = match self.key {
            Some(key) => key,
            None => *self.key.insert(read_or_make(&self.path)?),
        };
        Ok(hmac(&key, value.as_bytes()))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> String {
    let mut block = [0; BLOCK_BYTES];
    block[..key.len()].copy_from_slice(key);
    let mut inner = Hasher::default();
    inner.update(&block.map(|byte| byte ^ 0x36));
    inner.update(message);
    let mut outer = Hasher::default();
    outer.update(&block.map(|byte| byte ^ 0x5c));
    outer.update(inner.finish().as_bytes());
    outer.finish().hex()
}

fn read_or_make(path: &Path) -> Result<[u8; KEY_BYTES], Error> {
    match read_key(path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let mut key = [0; KEY_BYTES];
    let mut filled = 0;
    while filled < key.len() {
        match rustix::rand::getrandom(&mut key[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(io("draw random numbers for", path)(errno.into())),
        }
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(io("make the folder", folder))?;
    let temporary = folder.join(format!(".key.{}", std::process::id()));
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
        // Of several processes that make one, the first wins.
        .and_then(|()| match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&temporary, path),
            _ => Ok(()),
        });
    let _renamed = fs::remove_file(&temporary);
    made.map_err(io("make", path))?;
    read_key(path)
}

fn read_key(path: &Path) -> Result<[u8; KEY_BYTES], Error> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(KEY_BYTES as u64 + 1).read_to_end(&mut text))
        .map_err(io("read", path))?;
    text.try_into().map_err(|_| Error::Damaged {
        path: path.to_owned(),
        reason: format!("a key has {KEY_BYTES} bytes; without the file, a new one is made"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_others() {
        for name in [
            "WANDB_API_KEY",
            "HF_TOKEN",
            "GITHUBTOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "PGPASSWORD",
            "DB_PASS",
            "my-secret",
            "SSH_PRIVATE_KEY",
            "token",
            "TOKEN_2",
            "api-key",
            "apikey",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "DB_PWD",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "TOKENIZERS_PARALLELISM",
            "max_tokens",
            "n_epochs",
            "PATH",
            "PWD",
            "OLD_PWD",
            "pad_token",
            "KEY",
            "sort_key",
            "AUTHOR",
            "compass",
            "token_dim",
            "",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        assert!(holds_password("http://ann:pw@proxy:3128/") && holds_password("x postgresql://a:b@h"));
        for text in
            ["http://proxy:3128", "ssh://git@host/x", "http://a:@h", "mail@x", "http://h/a:b@c", "://"]
        {
            assert!(!holds_password(text), "{text}");
        }
    }

    #[test]
    fn hashes_are_those_of_rfc_4231() {
        // Test case 2.
        assert_eq!(
            hmac(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn values_are_hashed_with_a_key_that_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ibid/key");
        let one = Secrets::new(&path).variable("TOKEN", "hunter2").expect("hashed");
        assert_eq!(Secrets::new(&path).variable("TOKEN", "hunter2").expect("hashed"), one);
        assert_ne!(Secrets::new(&path).variable("TOKEN", "other").expect("hashed"), one);
        assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o600);
        assert!(matches!(one, EnvValue::Secret { secret_hash } if secret_hash.len() == 64));
        fs::write(&path, "short").expect("ours");
        let error = Secrets::new(&path).variable("TOKEN", "x").expect_err("damaged");
        assert!(error.to_string().contains("key is damaged"), "{error}");
    }

    #[test]
    fn arguments_lose_their_secrets_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let arguments =
            ["--lr", "1", "--api-key", "abc", "--password=def", "http://a:b@h/", "x"].map(str::to_owned);
        let (written, names) =
            Secrets::new(&folder.path().join("key")).arguments(&arguments).expect("hashed");
        assert_eq!(names, ["api_key", "password", "a URL"]);
        assert_eq!([&written[0], &written[1], &written[2], &written[6]], ["--lr", "1", "--api-key", "x"]);
        assert!(
            written[3].starts_with("<secret ") && written[4].starts_with("--password=<secret "),
            "{written:?}"
        );
        assert!(!written.join(" ").contains("a:b"));
    }
}
