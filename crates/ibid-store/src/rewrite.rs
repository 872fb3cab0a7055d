//! What a rule of [`ibid_core::scrub`] does to the content of a file.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use ibid_core::scrub::{self, Action, Bytecode};

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;
/// Largest content of a compressed file that is looked at, bytes.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;

/// What becomes of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// It stays.
    Same,
    /// It has this content.
    Content(Vec<u8>),
    /// It goes.
    Nothing,
}

/// Applies a rule; times later than `epoch`, in seconds since 1970, are lowered to it.
pub(crate) fn rewritten(action: Action, content: &[u8], epoch: i64) -> Rewritten {
    let or_same = |new: Option<Vec<u8>>| new.map_or(Rewritten::Same, Rewritten::Content);
    match action {
        Action::Drop => Rewritten::Nothing,
        Action::Empty => Rewritten::Content(Vec::new()),
        Action::ClampLastChange => {
            or_same(scrub::clamp_last_change(content, epoch.div_euclid(SECONDS_PER_DAY)))
        }
        Action::ClampBuildStamp => or_same(match content {
            [0x1f, 0x8b, ..] => in_gzip(content, |content| scrub::clamp_build_stamp(content, epoch)),
            _ => scrub::clamp_build_stamp(content, epoch),
        }),
        Action::ClampKeystore => or_same(scrub::clamp_keystore(content, epoch)),
        Action::Bytecode => match scrub::bytecode(content, epoch) {
            Bytecode::Keep => Rewritten::Same,
            Bytecode::Write(offset, bytes) => {
                let mut content = content.to_vec();
                content[offset..offset + bytes.len()].copy_from_slice(&bytes);
                Rewritten::Content(content)
            }
            Bytecode::Drop => Rewritten::Nothing,
        },
    }
}

/// Changes what a gzip file holds; none when nothing changes, or when it cannot be read.
fn in_gzip(content: &[u8], change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    GzDecoder::new(content).take(UNPACKED_BYTES_MAX).read_to_end(&mut unpacked).ok()?;
    let changed = change(&unpacked)?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&changed).expect("a vector takes all");
    Some(encoder.finish().expect("a vector takes all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_in_a_compressed_file_is_lowered() {
        let gzip = |text: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).expect("a vector takes all");
            encoder.finish().expect("a vector takes all")
        };
        let rewrite = |content: &[u8]| rewritten(Action::ClampBuildStamp, content, 0);
        let (late, lowered) = (b"\0\x172026-11-24 23:56:46 UTC\0", b"\0\x171970-01-01 00:00:00 UTC\0");
        assert_eq!(rewrite(&gzip(late)), Rewritten::Content(gzip(lowered)));
        assert_eq!(rewrite(&gzip(lowered)), Rewritten::Same);
        assert_eq!(rewrite(b"\x1f\x8bno gzip after all"), Rewritten::Same);
    }
}
