//! Points in time as RFC 3339 text in UTC, which is how image configurations and records write them.

/// The time that a build gives to everything it makes, unless `SOURCE_DATE_EPOCH` says another:
/// 2020-01-01T00:00:00Z. It is no smaller because archive formats and password ageing take times near
/// 1970 for mistakes.
pub const DEFAULT_EPOCH: i64 = 1_577_836_800;

/// Writes `seconds` since 1970 as `2020-01-01T00:00:00Z`.
pub fn rfc3339(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Writes `milliseconds` since 1970 as `2020-01-01T00:00:00.000Z`.
pub fn rfc3339_millis(milliseconds: i64) -> String {
    let mut text = rfc3339(milliseconds.div_euclid(1000));
    text.truncate(text.len() - 1);
    format!("{text}.{:03}Z", milliseconds.rem_euclid(1000))
}

/// Reads what [`rfc3339`] writes, with or without fractions of the second, as seconds since 1970.
pub fn parse_rfc3339(text: &str) -> Option<f64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let marks = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    if marks.iter().any(|&(at, mark)| text.get(at..at + 1) != Some(mark)) {
        return None;
    }
    let fraction = match text.get(19..)?.strip_suffix('Z')? {
        "" => 0.0,
        rest => format!("0{}", rest.strip_prefix('.').map(|_| rest)?).parse().ok()?,
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) as f64 + fraction)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The Gregorian date of a day counted from 1970-01-01. Years are counted from March, so that the leap
/// day is the last of its year; eras are 400 years.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc3339() {
        let check = |seconds, expected: &str| assert_eq!(rfc3339(seconds), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(DEFAULT_EPOCH, "2020-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        check(-1, "1969-12-31T23:59:59Z");
        assert_eq!(rfc3339_millis(951_782_399_007), "2000-02-28T23:59:59.007Z");
        assert_eq!(rfc3339_millis(-1), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn what_is_written_is_read() {
        for seconds in [0, DEFAULT_EPOCH, 951_782_399, 951_782_400, 4_107_542_400, -1, 1_772_705_472] {
            assert_eq!(parse_rfc3339(&rfc3339(seconds)), Some(seconds as f64));
        }
        assert_eq!(parse_rfc3339("1970-01-01T00:00:01.250Z"), Some(1.25));
        for wrong in [
            "",
            "1970",
            "1970-01-01T00:00:00",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00:00+01:00",
            "1970-01-01T00:00:0éZ",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }
}
