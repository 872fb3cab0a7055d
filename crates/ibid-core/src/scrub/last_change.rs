//! `/etc/shadow`: the days on which accounts were made.

/// Lowers the day of the last password change (the third field of each line, days since 1970) to `day_max`.
/// `None` when nothing changes.
pub fn clamp_last_change(shadow: &[u8], day_max: i64) -> Option<Vec<u8>> {
    let mut changed = false;
    let mut result = Vec::with_capacity(shadow.len());
    for line in shadow.split_inclusive(|&byte| byte == b'\n') {
        let mut fields = line.splitn(4, |&byte| byte == b':');
        let (name, password, day) = (fields.next(), fields.next(), fields.next());
        let late = day
            .and_then(|day| std::str::from_utf8(day).ok()?.parse::<i64>().ok())
            .is_some_and(|day| day > day_max);
        match (name, password, fields.next()) {
            (Some(name), Some(password), Some(rest)) if late => {
                changed = true;
                for part in [name, b":", password, b":", day_max.to_string().as_bytes(), b":", rest] {
                    result.extend_from_slice(part);
                }
            }
            _ => result.extend_from_slice(line),
        }
    }
    changed.then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_change_is_lowered_never_raised() {
        #[track_caller]
        fn check(shadow: &str, expected: Option<&str>) {
            let clamped = clamp_last_change(shadow.as_bytes(), 100);
            assert_eq!(clamped.as_deref(), expected.map(str::as_bytes), "{shadow:?}");
        }
        check("root:*:101:0:99999:7:::\n", Some("root:*:100:0:99999:7:::\n"));
        check("root:*:100:0:99999:7:::\n", None);
        check("root:*:99:0:99999:7:::\n", None);
        check("root:*::0:99999:7:::\n", None);
        check("a:!:5:0\nb:x:20000:0:9:::\nc:y:20001:0", Some("a:!:5:0\nb:x:100:0:9:::\nc:y:100:0"));
        check("no shadow line\nb:20000\nb:!:20000\n", None);
        check("a:*:99999999999999999999:0\n", None);
        check("", None);
    }
}
