//! `--ulimit NAME=SOFT[:HARD]`: limits of each process (setrlimit(2)).

use super::InvalidOption;

/// A limit of each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// As the kernel numbers it (asm-generic/resource.h).
    pub resource: u8,
    /// What holds; none is no limit.
    pub soft: Option<u64>,
    /// What it can be raised to; none is no limit.
    pub hard: Option<u64>,
}

/// Docker's names, in the kernel's order.
const NAMES: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// Docker's name of a limit that the kernel numbers so.
pub fn resource_name(resource: u8) -> &'static str {
    NAMES.get(usize::from(resource)).copied().unwrap_or("?")
}

impl Ulimit {
    /// Reads `nofile=1024`, `nofile=1024:4096` or `core=unlimited`. Numbers are in the units of the system call.
    pub fn parse(text: &str) -> Result<Self, InvalidOption> {
        let invalid = |problem: String| InvalidOption::new("--ulimit", text, problem);
        let (name, value) =
            text.split_once('=').ok_or_else(|| invalid("expected NAME=SOFT or NAME=SOFT:HARD".to_owned()))?;
        let resource = NAMES.iter().position(|known| *known == name).ok_or_else(|| {
            invalid(format!("unknown limit `{name}`: expected one of {}", NAMES.join(", ")))
        })?;
        let number = |value: &str| match value {
            "unlimited" | "-1" => Ok(None),
            value => value
                .parse()
                .map(Some)
                .map_err(|_| invalid(format!("`{value}`: expected a number or `unlimited`"))),
        };
        let (soft, hard) = value.split_once(':').unwrap_or((value, value));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
            return Err(invalid("the soft limit is above the hard one".to_owned()));
        }
        Ok(Self { resource: resource as u8, soft, hard })
    }

    /// Its name, as [`Self::parse`] reads it.
    pub fn name(&self) -> &'static str {
        resource_name(self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_process() {
        let check = |text: &str, expected: Option<(u8, Option<u64>, Option<u64>)>| {
            let parsed = Ulimit::parse(text).ok().map(|limit| (limit.resource, limit.soft, limit.hard));
            assert_eq!(parsed, expected, "{text}");
        };
        check("nofile=1024", Some((7, Some(1024), Some(1024))));
        check("nofile=1024:4096", Some((7, Some(1024), Some(4096))));
        check("core=unlimited", Some((4, None, None)));
        check("cpu=5:-1", Some((0, Some(5), None)));
        check("rttime=1", Some((15, Some(1), Some(1))));
        check("nofile=5:4", None);
        check("nofile=unlimited:4", None);
        check("files=1", None);
        check("nofile", None);
        check("nofile=many", None);
    }
}
