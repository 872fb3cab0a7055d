//! When a request that failed is made again.

use std::time::Duration;

use crate::error::Error;

/// How often something is tried before its failure counts.
pub(crate) const TRIES: u32 = 5;
/// The longest that a registry is waited for before it is asked again; one that wants more time is not asked.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long to wait before the try after `failures` of them.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100) * 2_u32.pow(failures.min(6))
}

/// How long to wait when the answer had this `Retry-After`; none when that is too long. `now` is in seconds since 1970.
pub(crate) fn wait(failures: u32, retry_after: Option<&str>, now: i64) -> Option<Duration> {
    match retry_after.and_then(|text| seconds(text, now)) {
        Some(seconds) => Some(Duration::from_secs(seconds)).filter(|wait| *wait <= WAIT_MAX),
        None => Some(backoff(failures)),
    }
}

/// The same after an error, which may hold what the registry said.
pub(crate) fn wait_after(failures: u32, error: &Error) -> Option<Duration> {
    match error {
        Error::RateLimited { seconds: Some(seconds), .. } => {
            Some(Duration::from_secs(*seconds)).filter(|wait| *wait <= WAIT_MAX)
        }
        _ => Some(backoff(failures)),
    }
}

/// The seconds of a `Retry-After` (RFC 9110 § 10.2.3): a number, or a date.
pub(crate) fn seconds(text: &str, now: i64) -> Option<u64> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(seconds),
        Err(_) => date(text).map(|date| u64::try_from(date - now).unwrap_or(0)),
    }
}

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 § 5.6.7).
fn date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split(' ').collect();
    let [_, day, month, year, clock, "GMT"] = words[..] else { return None };
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let clock: Vec<i64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hour, minute, second] = clock[..] else { return None };
    if !(1..=31).contains(&day) || !(1970..=9999).contains(&year) {
        return None;
    }
    // Years begin in March, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day - 719_469;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_delay_counts() {
        let check = |text: &str, now: i64, expected: Option<u64>| {
            assert_eq!(seconds(text, now), expected, "{text}");
        };
        check("0", 0, Some(0));
        check(" 120 ", 0, Some(120));
        check("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770, Some(7));
        check("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_787, Some(0));
        check("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_399, Some(1));
        for wrong in ["", "soon", "-1", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            check(wrong, 0, None);
        }
        assert_eq!(wait(1, Some("7"), 0), Some(Duration::from_secs(7)));
        assert_eq!(wait(1, Some("61"), 0), None);
        assert_eq!(wait(1, Some("nonsense"), 0), Some(backoff(1)));
        assert_eq!(wait(2, None, 0), Some(Duration::from_millis(400)));
    }
}
