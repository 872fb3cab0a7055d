//! Names of runs: twelve hexadecimal digits, like Docker's short container ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId([u8; 6]);

/// Text that is no name of a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no run: expected 12 hexadecimal digits")]
pub struct InvalidRunId {
    /// What was read.
    pub text: String,
}

/// Why an abbreviation names no run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnresolvedRunId {
    /// It is no start of any name.
    #[error("`{text}` is no run: expected up to 12 hexadecimal digits")]
    Invalid {
        /// What was read.
        text: String,
    },
    /// No run starts so.
    #[error("no run starts with `{text}`")]
    None {
        /// What was read.
        text: String,
    },
    /// Several runs do.
    #[error("several runs start with `{text}`: {first}, {second}")]
    Several {
        /// What was read.
        text: String,
        /// One of them.
        first: RunId,
        /// Another.
        second: RunId,
    },
    /// It is neither the start of a name nor a tag.
    #[error("no run has the tag `{text}`, and none is called so")]
    Untagged {
        /// What was read.
        text: String,
    },
    /// Several runs have it as a tag.
    #[error("several runs have the tag `{text}`: {first}, {second}")]
    SeveralTagged {
        /// What was read.
        text: String,
        /// The newest of them.
        first: RunId,
        /// The next.
        second: RunId,
    },
    /// There is no last run.
    #[error("there is no run yet")]
    Empty,
}

impl RunId {
    /// Draws a new name from the system's random numbers.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 6];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self(bytes))
    }

    /// The name made of these bytes.
    pub const fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> [u8; 6] {
        self.0
    }

    /// The one run of `ids` whose name starts with `text`.
    pub fn resolve(text: &str, ids: impl IntoIterator<Item = Self>) -> Result<Self, UnresolvedRunId> {
        let text = text.to_owned();
        if text.is_empty() || text.len() > 12 || !text.bytes().all(is_digit) {
            return Err(UnresolvedRunId::Invalid { text });
        }
        let mut matches = ids.into_iter().filter(|id| id.to_string().starts_with(&text));
        let Some(first) = matches.next() else { return Err(UnresolvedRunId::None { text }) };
        match matches.find(|second| *second != first) {
            Some(second) => Err(UnresolvedRunId::Several { text, first, second }),
            None => Ok(first),
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 12];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&text).expect("ASCII"))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRunId { text: text.to_owned() };
        if text.len() != 12 || !text.bytes().all(is_digit) {
            return Err(invalid());
        }
        let mut bytes = [0; 6];
        for (number, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[number * 2..][..2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Digits)
    }
}

/// Reads an id without a text of its own.
struct Digits;

impl serde::de::Visitor<'_> for Digits {
    type Value = RunId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the id of a run")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RunId, E> {
        text.parse().map_err(E::custom)
    }
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_and_read() {
        let check = |text: &str, expected: Option<[u8; 6]>| {
            assert_eq!(text.parse().ok(), expected.map(RunId::from_bytes), "{text}");
            if let Some(bytes) = expected {
                assert_eq!(RunId::from_bytes(bytes).to_string(), text);
            }
        };
        check("3eda7e8f3827", Some([0x3e, 0xda, 0x7e, 0x8f, 0x38, 0x27]));
        check("000000000000", Some([0; 6]));
        check("", None);
        check("3eda7e8f382", None);
        check("3eda7e8f38270", None);
        check("3EDA7E8F3827", None);
        check("+eda7e8f3827", None);
        check("3eda7e8f382é", None);
    }

    #[test]
    fn abbreviations_name_the_only_run_that_starts_so() {
        let ids: Vec<RunId> =
            ["3eda7e8f3827", "3eda00000000", "ff0000000000"].map(|id| id.parse().expect(id)).to_vec();
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = RunId::resolve(text, ids.iter().copied());
            let shown = found.map(|id| id.to_string()).map_err(|error| error.to_string());
            assert_eq!(shown.as_deref().map_err(String::as_str), expected, "{text}");
        };
        check("f", Ok("ff0000000000"));
        check("3eda7", Ok("3eda7e8f3827"));
        check("3eda7e8f3827", Ok("3eda7e8f3827"));
        check("3eda", Err("several runs start with `3eda`: 3eda7e8f3827, 3eda00000000"));
        check("a", Err("no run starts with `a`"));
        check("", Err("`` is no run: expected up to 12 hexadecimal digits"));
        check("xyz", Err("`xyz` is no run: expected up to 12 hexadecimal digits"));
        check("3eda7e8f38270", Err("`3eda7e8f38270` is no run: expected up to 12 hexadecimal digits"));
    }

    #[test]
    fn a_run_named_twice_is_one_run() {
        let id = RunId::from_bytes([1; 6]);
        assert_eq!(RunId::resolve("01", [id, id]), Ok(id));
    }

    #[test]
    fn random_names_differ() {
        assert_ne!(RunId::random().expect("random numbers"), RunId::random().expect("random numbers"));
    }
}
