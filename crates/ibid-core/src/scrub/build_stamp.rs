//! Packages that R installed: when it did.

use crate::time::rfc3339;

/// Lowers the time at which R installed a package, `2026-11-24 23:56:46 UTC`, to `epoch`, in seconds since 1970. `None` when
/// nothing changes.
///
/// It stands in `DESCRIPTION` as `Built: R 4.2.2; ; TIME; unix`, and in `package.rds` behind `; ` or its length, 23.
pub fn clamp_build_stamp(content: &[u8], epoch: i64) -> Option<Vec<u8>> {
    const SHAPE: &[u8] = b"0000-00-00 00:00:00 UTC";
    let stamp = rfc3339(epoch).replace('T', " ").replace('Z', " UTC");
    let mut result: Option<Vec<u8>> = None;
    for end in memchr::memmem::find_iter(content, b" UTC").map(|position| position + b" UTC".len()) {
        let Some(start) = end.checked_sub(SHAPE.len()) else { continue };
        let found = &content[start..end];
        let has_shape = found.iter().zip(SHAPE).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            shape => byte == shape,
        });
        let before = &content[..start];
        let is_stamp = before.ends_with(b"; ") || before.ends_with(&[SHAPE.len() as u8]);
        if has_shape && is_stamp && stamp.len() == SHAPE.len() && found > stamp.as_bytes() {
            result.get_or_insert_with(|| content.to_vec())[start..end].copy_from_slice(stamp.as_bytes());
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_installation_by_r_is_lowered() {
        #[track_caller]
        fn check(content: &[u8], expected: Option<&[u8]>) {
            assert_eq!(clamp_build_stamp(content, 0).as_deref(), expected, "{content:?}");
        }
        check(
            b"Package: a\nBuilt: R 4.2.2; ; 2026-11-24 23:56:46 UTC; unix\n",
            Some(b"Package: a\nBuilt: R 4.2.2; ; 1970-01-01 00:00:00 UTC; unix\n"),
        );
        check(b"Built: R 4.2.2; ; 1969-11-24 23:56:46 UTC; unix\n", None);
        check(b"Packaged: 2026-11-24 23:56:46 UTC; somebody\n", None);
        check(b"a \x172026-11-24 23:56:46 UTC", Some(b"a \x171970-01-01 00:00:00 UTC"));
        check(b" UTC", None);
        check(b"; 2026-11-24_23:56:46 UTC", None);
    }
}
