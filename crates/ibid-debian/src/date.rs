//! Dates of release files: `Sat, 11 Jul 2026 10:16:37 UTC` (RFC 822 with the changes of Debian Policy § 5.6.14).

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970 of a date in UTC; nothing when the text is no such date.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = text.split_whitespace();
    let day: i64 = words.next()?.parse().ok()?;
    let month_name = words.next()?;
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month_name))?;
    let year: i64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let zone = words.next()?;
    let offset = match zone {
        "UTC" | "GMT" | "Z" => 0,
        _ => {
            let sign = match zone.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let digits: i64 = zone.get(1..).filter(|digits| digits.len() == 4)?.parse().ok()?;
            sign * (digits / 100 * 3600 + digits % 100 * 60)
        }
    };
    let in_range = (1..=31).contains(&day)
        && (1970..=9999).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    (in_range && clock.next().is_none() && words.next().is_none())
        .then(|| days(year, month as i64 + 1, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// Days from 1970-01-01 to a Gregorian date. Years begin in March, so that the leap day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        let check = |text, expected| assert_eq!(parse(text), expected, "{text}");
        check("Thu, 01 Jan 1970 00:00:00 UTC", Some(0));
        check("Sat, 11 Jul 2026 10:16:37 UTC", Some(1_783_764_997));
        check("29 Feb 2000 00:00:00 GMT", Some(951_782_400));
        check("Wed, 01 Jan 2020 02:00:00 +0200", Some(1_577_836_800));
        check("Mon, 01 Mar 2100 00:00:00 UTC", Some(4_107_542_400));
        for broken in [
            "",
            "today",
            "Sat, 11 Jul 2026",
            "Sat, 11 Jul 2026 10:16 UTC",
            "11 Foo 2026 10:16:37 UTC",
            "11 Jul 2026 25:00:00 UTC",
            "11 Jul 2026 10:16:37 XYZ",
        ] {
            check(broken, None);
        }
    }
}
