//! Java's store of trusted certificates: when each was added.
//!
//! ```text
//! FE ED FE ED   version (4)   entries (4)
//! per entry     2 (4)   alias   time (8)   type   certificate
//! at the end    SHA-1 of the password in UTF-16, "Mighty Aphrodite", and all that stands before
//! ```
//!
//! Numbers are big-endian; alias and type have a length of 2 bytes before them, the certificate one of 4 bytes; times are in
//! milliseconds since 1970. The format is that of OpenJDK's `sun.security.provider.JavaKeyStore`.

use sha1::{Digest as _, Sha1};

const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
const TRUSTED_CERTIFICATE: u32 = 2;
const DIGEST_BYTES: usize = 20;
/// The password that every Java has, and that no one changes for a store without secrets.
const PASSWORD: &str = "changeit";

/// Lowers the time at which certificates were added to `epoch`, in seconds since 1970. `None` when nothing changes, and for
/// a store with keys, with another password, or in another format.
pub fn clamp_keystore(content: &[u8], epoch: i64) -> Option<Vec<u8>> {
    let end = content.len().checked_sub(DIGEST_BYTES)?;
    let (entries, found) = content.split_at(end);
    if digest(entries) != found {
        return None;
    }
    let mut rest = Reader { content: entries, position: 0 };
    if rest.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let _version = rest.number()?;
    let count = rest.number()?;
    let latest = u64::try_from(epoch).ok()?.checked_mul(1000)?;
    let mut result = content.to_vec();
    for _ in 0..count {
        if rest.number()? != TRUSTED_CERTIFICATE {
            return None;
        }
        rest.text()?;
        let at = rest.position;
        let time = rest.take(8)?;
        if u64::from_be_bytes(time.try_into().expect("8 bytes")) > latest {
            result[at..at + 8].copy_from_slice(&latest.to_be_bytes());
        }
        rest.text()?;
        let length = rest.number()?;
        rest.take(length as usize)?;
    }
    if rest.position != end || result == content {
        return None;
    }
    let digest = digest(&result[..end]);
    result[end..].copy_from_slice(&digest);
    Some(result)
}

fn digest(entries: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut hasher = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        hasher.update(unit.to_be_bytes());
    }
    hasher.update(b"Mighty Aphrodite");
    hasher.update(entries);
    hasher.finalize().into()
}

struct Reader<'a> {
    content: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(count)?;
        let taken = self.content.get(self.position..end)?;
        self.position = end;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().expect("4 bytes")))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().expect("2 bytes"));
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(kind: u32, times: &[u64]) -> Vec<u8> {
        let mut store = MAGIC.to_vec();
        store.extend(2_u32.to_be_bytes());
        store.extend((times.len() as u32).to_be_bytes());
        for time in times {
            store.extend(kind.to_be_bytes());
            store.extend(b"\0\x06debian");
            store.extend(time.to_be_bytes());
            store.extend(b"\0\x05X.509\0\0\0\x04cert");
        }
        let digest = digest(&store);
        store.extend(digest);
        store
    }

    #[test]
    fn times_are_lowered_and_the_digest_is_right_again() {
        let lowered = clamp_keystore(&store(2, &[1_700_000_000_000, 5, 1_000_001]), 1000);
        assert_eq!(lowered, Some(store(2, &[1_000_000, 5, 1_000_000])));
        assert_eq!(clamp_keystore(&store(2, &[1_000_000]), 1000), None);
        assert_eq!(clamp_keystore(&store(2, &[]), 1000), None);
    }

    #[test]
    fn what_is_no_such_store_stays() {
        let check = |content: &[u8]| assert_eq!(clamp_keystore(content, 0), None, "{content:?}");
        check(b"");
        check(b"no store at all, but longer than a digest");
        check(&store(1, &[5]));
        let mut other_password = store(2, &[5]);
        *other_password.last_mut().expect("a digest") ^= 1;
        check(&other_password);
        let mut more = store(2, &[5]);
        let end = more.len() - DIGEST_BYTES;
        more[11] = 2;
        let right = digest(&more[..end]);
        more[end..].copy_from_slice(&right);
        check(&more);
    }
}
