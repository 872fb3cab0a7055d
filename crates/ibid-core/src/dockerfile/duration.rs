//! Durations in the form of Go's `time.ParseDuration`, which Dockerfiles use: `1m30s`, `1.5h`, `500ms`.

/// Units with their length in nanoseconds; longer names first where one starts another.
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

/// Nanoseconds. None when the text is no duration, is negative, or is longer than 292 years.
pub(super) fn parse(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    loop {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, after) =
            UNITS.iter().find_map(|(name, unit)| after.strip_prefix(name).map(|after| (*unit, after)))?;
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?.checked_add(part(fraction, unit))?;
        rest = after;
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// The part of a unit that decimals give, cut to whole nanoseconds.
fn part(decimals: &str, unit: i64) -> i64 {
    // More decimals are below a nanosecond whatever the unit.
    const DECIMALS_MAX: usize = 18;
    let mut fraction: i128 = 0;
    let mut scale: i128 = 1;
    for digit in decimals.bytes().take(DECIMALS_MAX) {
        fraction = fraction * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    i64::try_from(i128::from(unit) * fraction / scale).expect("a part is less than its unit")
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(super::parse(text), expected, "{text}");
        check("0", Some(0));
        check("0s", Some(0));
        check("30s", Some(30_000_000_000));
        check("+1m30s", Some(90_000_000_000));
        check("1.5h", Some(5_400_000_000_000));
        check("0.1h", Some(360_000_000_000));
        check(".5s", Some(500_000_000));
        check("1.s", Some(1_000_000_000));
        check("1.0000000001s", Some(1_000_000_000));
        check("500ms", Some(500_000_000));
        check("1us2µs3μs4ns", Some(6_004));
        check("1h1h", Some(7_200_000_000_000));
        check(&format!("0.{}s", "3".repeat(1000)), Some(333_333_333));
        for text in
            ["", "5", "-1s", "s", ".s", "1x", "1 s", "1min", "9999999h", "99999999999999999999s", "1s5"]
        {
            check(text, None);
        }
    }
}
