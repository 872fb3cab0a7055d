//! The signals that `STOPSIGNAL` may name.

/// Linux's names without `SIG`; the real-time ones are made from their base.
const NAMES: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Whether the text is a signal: a name with or without `SIG`, in whichever case, or a number above 0.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return number > 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.contains(&name) || is_real_time(name)
}

/// `RTMIN`, `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX-1`, `RTMAX`.
fn is_real_time(name: &str) -> bool {
    let offset = |text: &str, most: u8| {
        text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u8>().is_ok_and(|n| (1..=most).contains(&n))
    };
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) | (_, Some("")) => true,
        (Some(rest), _) => rest.strip_prefix('+').is_some_and(|rest| offset(rest, 15)),
        (_, Some(rest)) => rest.strip_prefix('-').is_some_and(|rest| offset(rest, 14)),
        (None, None) => false,
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
}
