//! Debian package versions: `[epoch:]upstream[-revision]`, ordered as Debian Policy § 5.6.12 says.
//!
//! Ordering never fails: text that is no well-formed version still has a place in the total order, as it
//! has for dpkg's own comparison of the parts.

use std::cmp::Ordering;

/// Orders two version strings.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left_rest) = split_epoch(left);
    let (right_epoch, right_rest) = split_epoch(right);
    let (left_upstream, left_revision) = split_revision(left_rest);
    let (right_upstream, right_revision) = split_revision(right_rest);
    compare_numbers(left_epoch, right_epoch)
        .then_with(|| compare_part(left_upstream, right_upstream))
        .then_with(|| compare_part(left_revision, right_revision))
}

/// Text before the first colon, if it is a number, and what follows.
fn split_epoch(version: &str) -> (&[u8], &str) {
    match version.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => (epoch.as_bytes(), rest),
        _ => (b"", version),
    }
}

/// Upstream version and revision: the last hyphen divides them.
fn split_revision(version: &str) -> (&[u8], &[u8]) {
    match version.rsplit_once('-') {
        Some((upstream, revision)) => (upstream.as_bytes(), revision.as_bytes()),
        None => (version.as_bytes(), b""),
    }
}

/// Alternately a text without digits, then a number, until both are used up.
fn compare_part(mut left: &[u8], mut right: &[u8]) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        loop {
            let weights = (weight(left.first()), weight(right.first()));
            if weights.0 != weights.1 {
                return weights.0.cmp(&weights.1);
            }
            if weights.0 == 0 && !starts_with_character(left) && !starts_with_character(right) {
                break;
            }
            left = rest(left);
            right = rest(right);
        }
        let (left_number, left_rest) = take_digits(left);
        let (right_number, right_rest) = take_digits(right);
        let order = compare_numbers(left_number, right_number);
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn starts_with_character(part: &[u8]) -> bool {
    part.first().is_some_and(|byte| !byte.is_ascii_digit())
}

fn rest(part: &[u8]) -> &[u8] {
    if starts_with_character(part) { &part[1..] } else { part }
}

/// The place of a character among characters: `~` before the end of the part, letters before all others.
/// A digit counts as the end, since the text without digits ends there.
fn weight(character: Option<&u8>) -> i32 {
    match character {
        None => 0,
        Some(b'~') => -1,
        Some(digit) if digit.is_ascii_digit() => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    }
}

fn take_digits(part: &[u8]) -> (&[u8], &[u8]) {
    part.split_at(part.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Compares decimal numbers of any length. No digits count as zero.
fn compare_numbers(left: &[u8], right: &[u8]) -> Ordering {
    let strip = |digits: &[u8]| digits.iter().take_while(|digit| **digit == b'0').count();
    let (left, right) = (&left[strip(left)..], &right[strip(right)..]);
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(left: &str, right: &str, expected: Ordering) {
        assert_eq!(compare(left, right), expected, "{left} against {right}");
        assert_eq!(compare(right, left), expected.reverse(), "{right} against {left}");
    }

    const TABLE: &[(&str, &str, Ordering)] = &[
        ("1.0", "1.0", Ordering::Equal),
        ("1.0", "1.0-0", Ordering::Equal),
        ("1.0-1", "1.0-2", Ordering::Less),
        ("1.9", "1.10", Ordering::Less),
        ("1.0~rc1", "1.0", Ordering::Less),
        ("1.0~rc1-1", "1.0-1", Ordering::Less),
        ("1.0~~", "1.0~", Ordering::Less),
        ("1.0~~a", "1.0~~", Ordering::Greater),
        ("1.0", "1.0a", Ordering::Less),
        ("1.0a", "1.0+", Ordering::Less),
        ("1.0+dfsg", "1.0.1", Ordering::Less),
        ("1:0.1", "2.0", Ordering::Greater),
        ("0:2.0", "2.0", Ordering::Equal),
        ("00:2.0", "2.0", Ordering::Equal),
        ("2.36-9+deb12u9", "2.36-9+deb12u14", Ordering::Less),
        ("2.36-9", "2.36-9+deb12u1", Ordering::Less),
        ("2.36-9~bpo11+1", "2.36-9", Ordering::Less),
        ("1.2.3-4-5", "1.2.3-4-6", Ordering::Less),
        ("1.001", "1.1", Ordering::Equal),
        ("99999999999999999999999", "100000000000000000000000", Ordering::Less),
        ("1.0-1.1", "1.0-1", Ordering::Greater),
        ("5.36.0-7+deb12u2", "5.36.0-7", Ordering::Greater),
        ("20230311", "20230311+deb12u1", Ordering::Less),
        ("1.a", "1.1", Ordering::Greater),
        ("1.0.", "1.0.a", Ordering::Less),
        ("a", "~", Ordering::Greater),
        ("1:1:2", "1:1:1", Ordering::Greater),
    ];

    #[test]
    fn versions_are_ordered_as_policy_says() {
        for (left, right, expected) in TABLE {
            check(left, right, *expected);
        }
    }

    #[test]
    fn dpkg_orders_versions_the_same() {
        if std::process::Command::new("dpkg").arg("--version").output().is_err() {
            assert!(
                !std::env::var("IBID_TEST_REQUIRE").unwrap_or_default().split(',').any(|need| need == "dpkg"),
                "dpkg is required and absent"
            );
            println!("skipped: needs dpkg because it is the oracle of version order");
            return;
        }
        for (left, right, expected) in TABLE {
            let operator = match expected {
                Ordering::Less => "lt",
                Ordering::Equal => "eq",
                Ordering::Greater => "gt",
            };
            let status = std::process::Command::new("dpkg")
                .args(["--compare-versions", left, operator, right])
                .stderr(std::process::Stdio::null())
                .status()
                .expect("dpkg runs");
            assert!(status.success(), "dpkg: {left} {operator} {right}");
        }
    }

    fn version() -> impl Strategy<Value = String> {
        "([0-2]:)?[0-9][0-9a-c.+~]{0,5}(-[0-9a-c.+~]{1,3})?"
    }

    proptest! {
        #[test]
        fn order_is_total(a in version(), b in version(), c in version()) {
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            let mut sorted = [a, b, c];
            sorted.sort_by(|left, right| compare(left, right));
            prop_assert_ne!(compare(&sorted[0], &sorted[1]), Ordering::Greater);
            prop_assert_ne!(compare(&sorted[1], &sorted[2]), Ordering::Greater);
            prop_assert_ne!(compare(&sorted[0], &sorted[2]), Ordering::Greater);
        }

        #[test]
        fn any_text_is_ordered(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }
}
