//! Permission bits as `--chmod` gives them: octal, or symbolic as in chmod(1) (POSIX.1-2017, "chmod", "Extended
//! description"), with no umask.

use std::fmt;
use std::str::FromStr;

/// Set-user-id, set-group-id and sticky bit, and the permissions of user, group and others.
const BITS: u32 = 0o7777;
const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;

/// What becomes of a file's permission bits. Displays as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChange {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Octal(u32),
    Symbolic(Vec<Operation>),
}

/// Such as `go=rX`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Operation {
    /// The bits that may change.
    who: u32,
    operator: Operator,
    bits: u32,
    /// `X`: execution for folders, and for what somebody may execute already.
    conditional: bool,
    /// How far the permissions of `u`, `g` and `o`, which are copied, are shifted to the left.
    copied: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

/// Text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no permission mode")]
pub struct InvalidMode(pub String);

impl ModeChange {
    /// The permission bits that come of `mode`.
    pub fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        let operations = match &self.kind {
            Kind::Octal(bits) => return *bits,
            Kind::Symbolic(operations) => operations,
        };
        let before = mode & BITS;
        let executable = is_folder || before & EXECUTE != 0;
        operations.iter().fold(before, |now, operation| operation.apply(now, executable))
    }
}

impl Operation {
    fn apply(&self, now: u32, executable: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional && executable {
            bits |= EXECUTE;
        }
        for shift in &self.copied {
            let permissions = now >> shift & 0o7;
            bits |= permissions << 6 | permissions << 3 | permissions;
        }
        let bits = bits & self.who;
        match self.operator {
            Operator::Add => now | bits,
            Operator::Remove => now & !bits,
            // The sticky bit belongs to nobody: it stays unless it is set.
            Operator::Set => now & !(self.who & !STICKY) | bits,
        }
    }
}

impl FromStr for ModeChange {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMode(text.to_owned());
        let kind = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| bits & !BITS == 0);
            Kind::Octal(bits.ok_or_else(invalid)?)
        } else {
            let mut operations = Vec::new();
            for clause in text.split(',') {
                parse_clause(clause, &mut operations).ok_or_else(invalid)?;
            }
            Kind::Symbolic(operations)
        };
        Ok(Self { text: text.to_owned(), kind })
    }
}

/// Reads such as `ug+rw-x`.
fn parse_clause(clause: &str, operations: &mut Vec<Operation>) -> Option<()> {
    let end = clause.find(['+', '-', '='])?;
    let (names, mut rest) = clause.split_at(end);
    let mut who = 0;
    for name in names.chars() {
        who |= match name {
            'u' => SET_USER_ID | 0o700,
            'g' => SET_GROUP_ID | 0o070,
            'o' => 0o007,
            'a' => BITS & !STICKY,
            _ => return None,
        };
    }
    // Others have no set-id bit and no say about the sticky one.
    let is_others = who == 0o007;
    let who = if names.is_empty() { BITS & !STICKY } else { who };
    while let Some(sign) = rest.chars().next() {
        let operator = match sign {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            _ => Operator::Set,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |end| end + 1);
        let mut operation = Operation { who, operator, bits: 0, conditional: false, copied: Vec::new() };
        for permission in rest[1..end].chars() {
            match permission {
                'r' => operation.bits |= 0o444,
                'w' => operation.bits |= 0o222,
                'x' => operation.bits |= EXECUTE,
                'X' => operation.conditional = true,
                's' => operation.bits |= SET_USER_ID | SET_GROUP_ID,
                't' if is_others => {}
                't' => {
                    operation.bits |= STICKY;
                    operation.who |= STICKY;
                }
                'u' => operation.copied.push(6),
                'g' => operation.copied.push(3),
                'o' => operation.copied.push(0),
                _ => return None,
            }
        }
        operations.push(operation);
        rest = &rest[end..];
    }
    Some(())
}

impl fmt::Display for ModeChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_changed() {
        let check = |text: &str, before: u32, file: u32, folder: u32| {
            let change: ModeChange = text.parse().expect(text);
            assert_eq!(change.to_string(), text);
            assert_eq!(format!("{:o}", change.apply(before, false)), format!("{file:o}"), "{text} on a file");
            assert_eq!(
                format!("{:o}", change.apply(before, true)),
                format!("{folder:o}"),
                "{text} on a folder"
            );
        };
        check("755", 0o644, 0o755, 0o755);
        check("0", 0o4755, 0, 0);
        check("07421", 0, 0o7421, 0o7421);
        // The documentation's examples.
        check("u=rwX,go=rX", 0o640, 0o644, 0o755);
        check("u=rwX,go=rX", 0o700, 0o755, 0o755);
        check("+x", 0o644, 0o755, 0o755);
        check("a-w", 0o666, 0o444, 0o444);
        check("g=u", 0o741, 0o771, 0o771);
        check("go=u-w", 0o755, 0o755, 0o755);
        check("go=", 0o777, 0o700, 0o700);
        check("a=r,ug=rw,u+x", 0o777, 0o764, 0o764);
        // X looks at the mode as it was, at whoever may execute.
        check("u+X", 0o001, 0o101, 0o101);
        check("u+X", 0o600, 0o600, 0o700);
        check("a-x+X", 0o755, 0o755, 0o755);
        check("-X", 0o755, 0o644, 0o644);
        check("=rw,+X", 0o766, 0o777, 0o777);
        // Operations without a permission, several of them, and all of what can be copied.
        check("=", 0o6777, 0, 0);
        check("+", 0o421, 0o421, 0o421);
        check("u+go", 0o021, 0o321, 0o321);
        check("u+r-w,o=g", 0o240, 0o444, 0o444);
        // Set-id and sticky bits.
        check("u+s", 0o755, 0o4755, 0o4755);
        check("g+s", 0o755, 0o2755, 0o2755);
        check("+s", 0o755, 0o6755, 0o6755);
        check("o+st", 0o755, 0o755, 0o755);
        check("+t", 0o777, 0o1777, 0o1777);
        check("-t", 0o1777, 0o777, 0o777);
        check("u=rw", 0o7777, 0o3677, 0o3677);
        check("o+r,g+w,a+t,g-s,u+og", 0o2100, 0o1724, 0o1724);
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in [
            "",
            "8",
            "10000",
            "77777777777777",
            "0o755",
            "rw",
            "u",
            "go",
            "q+r",
            ",",
            "u+x,",
            "u+r,q",
            "u+rq",
            "+x +r",
            "u+ä",
        ] {
            assert_eq!(text.parse::<ModeChange>(), Err(InvalidMode(text.to_owned())));
        }
    }
}
