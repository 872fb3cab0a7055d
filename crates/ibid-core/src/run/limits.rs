//! Limits of all processes of a run together, and the sizes that people write for them.

use super::InvalidOption;

/// Limits of all processes of a run together, which control groups keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Time of processors, thousandths of one.
    pub millicpus: Option<u64>,
    /// Memory, bytes, swap included.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Where they cannot be kept, the run goes on without.
    pub best_effort: bool,
}

/// The least memory that a program can be started in, bytes. Docker's is the same.
const MEMORY_MIN: u64 = 6 << 20;

impl Limits {
    /// Whether any was asked for.
    pub fn any(&self) -> bool {
        self.millicpus.is_some() || self.memory_bytes.is_some() || self.pids.is_some()
    }

    /// Reads `--cpus`, `2` or `0.5`, as thousandths of a processor.
    pub fn parse_cpus(text: &str) -> Result<u64, InvalidOption> {
        match text.parse::<f64>() {
            // The kernel keeps no shorter share than 1 ms of each 100 ms.
            Ok(number) if (0.01..=1e6).contains(&number) => Ok((number * 1000.0).round() as u64),
            _ => Err(InvalidOption::new(
                "--cpus",
                text,
                "expected a number of processors, such as 2 or 0.5, at least 0.01",
            )),
        }
    }

    /// Reads `--memory`.
    pub fn parse_memory(text: &str) -> Result<u64, InvalidOption> {
        match bytes(text) {
            Ok(found) if found >= MEMORY_MIN => Ok(found),
            Ok(_) => Err(InvalidOption::new("--memory", text, "no program starts in less than 6m")),
            Err(problem) => Err(InvalidOption::new("--memory", text, problem)),
        }
    }

    /// Reads `--pids`.
    pub fn parse_pids(text: &str) -> Result<u64, InvalidOption> {
        match text.parse() {
            Ok(0) | Err(_) => {
                Err(InvalidOption::new("--pids", text, "expected a number of processes, at least 1"))
            }
            Ok(number) => Ok(number),
        }
    }
}

/// A size as Docker reads it: `64m`, `1.5g`, `1048576`; units are powers of 1024, with or without `b` or `ib` after them.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("expected a size such as 64m or 2g".to_owned()),
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number < 1e9 || (shift == 0 && number > 0.0 && number < 1e18) => {
            Ok((number * (1_u64 << shift) as f64) as u64)
        }
        _ => Err("expected a size such as 64m or 2g".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_docker_s() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text).ok(), expected, "{text}");
        check("64m", Some(64 << 20));
        check("64MB", Some(64 << 20));
        check("1.5GiB", Some(3 << 29));
        check("1048576", Some(1 << 20));
        check("2b", Some(2));
        check("0", None);
        check("-1g", None);
        check("many", None);
        check("", None);
        check("g", None);
        check("1e30", None);
    }

    #[test]
    fn limits_that_cannot_be_meant_are_refused() {
        assert_eq!(Limits::parse_memory("512m"), Ok(512 << 20));
        assert!(Limits::parse_memory("5m").is_err());
        assert_eq!(Limits::parse_pids("100"), Ok(100));
        assert!(Limits::parse_pids("0").is_err());
        assert!(Limits::parse_pids("-1").is_err());
        assert_eq!(Limits::parse_cpus("0.5"), Ok(500));
        for bad in ["0", "-1", "nan", "inf", "x", ""] {
            assert!(Limits::parse_cpus(bad).is_err(), "{bad}");
        }
    }
}
