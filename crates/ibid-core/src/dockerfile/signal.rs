//! The signals that `STOPSIGNAL` may name, with their numbers on Linux for x86-64 and arm64.

/// Names without `SIG`; the real-time ones are made from their base.
const SIGNALS: [(&str, u8); 34] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// The real-time signals that the C library leaves to programs.
const REAL_TIME_FIRST: u8 = 34;
const LAST: u8 = 64;

/// Whether the text is a signal: a name with or without `SIG`, in whichever case, or a number above 0.
pub(super) fn is_signal(text: &str) -> bool {
    match text.parse::<u32>() {
        Ok(number) => number > 0,
        Err(_) => named(text).is_some(),
    }
}

/// The number of a signal; none for what this kernel does not have.
pub(crate) fn number(text: &str) -> Option<u8> {
    match text.parse::<u8>() {
        Ok(number) => (1..=LAST).contains(&number).then_some(number),
        Err(_) => named(text),
    }
}

fn named(text: &str) -> Option<u8> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).or_else(|| real_time(name))
}

/// `RTMIN`, `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX-1`, `RTMAX`.
fn real_time(name: &str) -> Option<u8> {
    let offset = |text: &str, sign: char, most: u8| match text.strip_prefix(sign) {
        None => text.is_empty().then_some(0),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<u8>().ok().filter(|number| (1..=most).contains(number))
        }
        Some(_) => None,
    };
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => Some(REAL_TIME_FIRST + offset(rest, '+', 15)?),
        (_, Some(rest)) => Some(LAST - offset(rest, '-', 14)?),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn signals() {
        let check = |text: &str, expected: bool| assert_eq!(super::is_signal(text), expected, "{text}");
        for text in
            ["SIGTERM", "term", "SigInt", "9", "1", "64", "SIGRTMIN", "RTMIN+15", "SIGRTMAX-14", "RTMAX"]
        {
            check(text, true);
        }
        for text in
            ["", "0", "-9", "SIG", "SIGFOO", "RTMIN+16", "RTMIN+0", "RTMIN-1", "RTMAX-15", "RTMIN++1", "9.5"]
        {
            check(text, false);
        }
    }

    #[test]
    fn numbers() {
        let check = |text: &str, expected: Option<u8>| assert_eq!(super::number(text), expected, "{text}");
        check("SIGTERM", Some(15));
        check("int", Some(2));
        check("SigWinch", Some(28));
        check("10", Some(10));
        check("SIGRTMIN", Some(34));
        check("RTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        check("RTMAX", Some(64));
        for absent in ["0", "65", "300", "SIGFOO", "", "RTMIN+16"] {
            check(absent, None);
        }
    }
}
