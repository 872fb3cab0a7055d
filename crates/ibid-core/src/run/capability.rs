//! `--cap-add` and `--cap-drop`: what a program may do beside an ordinary one (capabilities(7)).

use std::fmt;

use super::InvalidOption;

/// What a program may do beside, and less than, Docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Beside the default.
    pub add: Vec<Capability>,
    /// Less than that.
    pub drop: Vec<Capability>,
}

/// One capability, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// As the kernel numbers it (linux/capability.h).
    Number(u8),
    /// All that there are.
    All,
}

/// In the kernel's order.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.write_str(NAMES.get(usize::from(*number)).unwrap_or(&"?")),
            Self::All => f.write_str("ALL"),
        }
    }
}

impl Capability {
    /// Reads `SYS_PTRACE`, `CAP_SYS_PTRACE`, in any case, or `ALL`.
    pub fn parse(option: &'static str, text: &str) -> Result<Self, InvalidOption> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            return Ok(Self::All);
        }
        if let Some(number) = NAMES.iter().position(|known| *known == name) {
            return Ok(Self::Number(number as u8));
        }
        let error = InvalidOption::new(option, text, "there is no such capability");
        let near = NAMES.iter().min_by_key(|known| strsim::osa_distance(known, name));
        Err(match near.filter(|near| strsim::osa_distance(near, name) * 3 <= near.len()) {
            Some(near) => error.mend(format!("did you mean `{near}`?")),
            None => error.mend("capabilities(7) lists them"),
        })
    }

    /// The numbers that it means.
    pub fn numbers(self) -> std::ops::RangeInclusive<u8> {
        match self {
            Self::Number(number) => number..=number,
            Self::All => 0..=(NAMES.len() - 1) as u8,
        }
    }
}

impl Capabilities {
    /// What was asked for beside the default, a bit for each.
    pub fn added(&self) -> u64 {
        self.add.iter().flat_map(|one| one.numbers()).fold(0, |bits, number| bits | 1 << number)
    }

    /// The set, a bit for each capability, made of a default one: `ALL` comes first on either side, so that
    /// `--cap-drop ALL --cap-add KILL` leaves one, and `--cap-add ALL --cap-drop KILL` all but one.
    pub fn of(&self, default: u64) -> u64 {
        let bits = |set: &[Capability]| {
            set.iter().flat_map(|one| one.numbers()).fold(0_u64, |bits, number| bits | 1 << number)
        };
        let drops_all = self.drop.contains(&Capability::All);
        let adds_all = self.add.contains(&Capability::All);
        let single = |set: &[Capability]| {
            set.iter().copied().filter(|one| *one != Capability::All).collect::<Vec<_>>()
        };
        let start = match (adds_all, drops_all) {
            (true, _) => bits(&[Capability::All]),
            (false, true) => 0,
            (false, false) => default,
        };
        (start | bits(&single(&self.add))) & !bits(&single(&self.drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_people_write_them() {
        let parse = |text| Capability::parse("--cap-add", text);
        assert_eq!(parse("SYS_PTRACE"), Ok(Capability::Number(19)));
        assert_eq!(parse("cap_sys_ptrace"), Ok(Capability::Number(19)));
        assert_eq!(parse("CHECKPOINT_RESTORE"), Ok(Capability::Number(40)));
        assert_eq!(parse("all"), Ok(Capability::All));
        let error = parse("SYS_PTARCE").expect_err("a slip");
        assert_eq!(error.mend.as_deref(), Some("did you mean `SYS_PTRACE`?"));
    }

    #[test]
    fn the_set_is_docker_s() {
        let check = |add: &[Capability], drop: &[Capability], expected: u64| {
            let set = Capabilities { add: add.to_vec(), drop: drop.to_vec() };
            assert_eq!(set.of(0b11), expected, "{set:?}");
        };
        let [a, b, c] = [0, 1, 2].map(Capability::Number);
        let every = (1 << 41) - 1;
        check(&[], &[], 0b11);
        check(&[c], &[a], 0b110);
        check(&[c], &[Capability::All], 0b100);
        check(&[Capability::All], &[b], every & !0b10);
        check(&[Capability::All], &[], every);
        check(&[a], &[a], 0b10);
    }
}
