//! Names of signals, as a Dockerfile's `STOPSIGNAL` and people write them: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.

/// What asks a program to end when nothing else is said.
pub const TERM: i32 = 15;

/// The largest number.
const LAST: i32 = 64;

/// The first that has no meaning of its own: the C library keeps two for itself.
const REAL_TIME_FIRST: i32 = 34;

/// Linux's names by number from 1, the same on x86-64 and arm64 (signal(7)).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The signal that a text means.
pub fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=LAST).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| -> Option<i32> { if text.is_empty() { Some(0) } else { text.parse().ok() } };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest)
            .map(|more| REAL_TIME_FIRST + more)
            .filter(|it| (REAL_TIME_FIRST..=LAST).contains(it));
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(rest).map(|less| LAST + less).filter(|it| (REAL_TIME_FIRST..=LAST).contains(it));
    }
    let position = NAMES.iter().position(|known| *known == name)?;
    i32::try_from(position + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        let check = |text: &str, expected: Option<i32>| assert_eq!(number(text), expected, "{text}");
        check("SIGTERM", Some(15));
        check("int", Some(2));
        check("SIGWINCH", Some(28));
        check("9", Some(9));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        check("SIGRTMIN", Some(34));
        check("RTMIN+40", None);
        check("RTMAX+1", None);
        check("0", None);
        check("65", None);
        check("-1", None);
        check("SIGNOTHING", None);
        check("", None);
    }
}
