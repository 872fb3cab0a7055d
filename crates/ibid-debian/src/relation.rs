//! Relations between packages: the text of `Depends`, `Conflicts`, `Provides` and their kin
//! (Debian Policy § 7.1).

use std::cmp::Ordering;

use crate::version;

/// How a version must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Earlier,
    AtMost,
    Exactly,
    AtLeast,
    Later,
}

impl Operator {
    /// Whether `found` stands in this relation to `wanted`.
    pub(crate) fn holds(self, found: &str, wanted: &str) -> bool {
        let order = version::compare(found, wanted);
        match self {
            Self::Earlier => order == Ordering::Less,
            Self::AtMost => order != Ordering::Greater,
            Self::Exactly => order == Ordering::Equal,
            Self::AtLeast => order != Ordering::Less,
            Self::Later => order == Ordering::Greater,
        }
    }
}

/// One package that a relation names: `name:qualifier (op version)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term<'a> {
    pub name: &'a str,
    pub qualifier: Option<&'a str>,
    pub version: Option<(Operator, &'a str)>,
}

impl Term<'_> {
    /// Whether a package of that very name and this version is meant.
    pub(crate) fn admits(&self, version: &str) -> bool {
        self.version.is_none_or(|(operator, wanted)| operator.holds(version, wanted))
    }

    /// Whether something provided under that name is meant: a versioned term needs a versioned provision.
    pub(crate) fn admits_provided(&self, provided: Option<&str>) -> bool {
        match (self.version, provided) {
            (None, _) => true,
            (Some((operator, wanted)), Some(found)) => operator.holds(found, wanted),
            (Some(_), None) => false,
        }
    }

    /// Whether packages of `architecture` can be meant at all.
    pub(crate) fn admits_architecture(&self, architecture: &str) -> bool {
        self.qualifier
            .is_none_or(|qualifier| matches!(qualifier, "any" | "native") || qualifier == architecture)
    }
}

/// The comma-separated groups of a relation field; each is a list of alternatives. Restrictions in `[…]` and
/// `<…>`, which belong to source packages, are passed over.
pub(crate) fn groups(field: &str) -> impl Iterator<Item = &str> {
    field.split(',').map(str::trim).filter(|group| !group.is_empty())
}

/// The alternatives of one group, in order. A malformed one is left out, which makes the group harder to
/// satisfy, never easier.
pub(crate) fn alternatives(group: &str) -> impl Iterator<Item = Term<'_>> {
    group.split('|').filter_map(term)
}

/// All terms of a field that has no alternatives, such as `Conflicts`.
pub(crate) fn terms(field: &str) -> impl Iterator<Item = Term<'_>> {
    groups(field).flat_map(alternatives)
}

fn term(text: &str) -> Option<Term<'_>> {
    let text = text.trim();
    let name_end =
        text.find(|c: char| c.is_ascii_whitespace() || matches!(c, '(' | '[' | '<')).unwrap_or(text.len());
    let (name, rest) = text.split_at(name_end);
    if name.is_empty() {
        return None;
    }
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (name, None),
    };
    let rest = rest.trim_start();
    let version = match rest.strip_prefix('(') {
        Some(inside) => Some(constraint(&inside[..inside.find(')')?])?),
        None => None,
    };
    Some(Term { name, qualifier, version })
}

fn constraint(text: &str) -> Option<(Operator, &str)> {
    let text = text.trim();
    let length = text.find(|c: char| !matches!(c, '<' | '=' | '>'))?;
    let (operator, version) = text.split_at(length);
    let operator = match operator {
        "<<" => Operator::Earlier,
        // A lone angle bracket is the old form of "or equal".
        "<=" | "<" => Operator::AtMost,
        "=" => Operator::Exactly,
        ">=" | ">" => Operator::AtLeast,
        ">>" => Operator::Later,
        _ => return None,
    };
    Some((operator, version.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(group: &str, expected: &[Term<'_>]) {
        assert_eq!(alternatives(group).collect::<Vec<_>>(), expected, "{group}");
    }

    #[test]
    fn alternatives_are_read() {
        let plain = |name| Term { name, qualifier: None, version: None };
        check("libc6", &[plain("libc6")]);
        check("a | b|c", &[plain("a"), plain("b"), plain("c")]);
        check(
            "libc6 (>= 2.36) | musl:any(<<1)",
            &[
                Term { name: "libc6", qualifier: None, version: Some((Operator::AtLeast, "2.36")) },
                Term { name: "musl", qualifier: Some("any"), version: Some((Operator::Earlier, "1")) },
            ],
        );
        check(
            "a (= 1) [amd64] <!nocheck>",
            &[Term { version: Some((Operator::Exactly, "1")), ..plain("a") }],
        );
        check("a (>= 1", &[]);
        check("a (~ 1)", &[]);
        check("", &[]);
    }

    #[test]
    fn versions_are_admitted() {
        let holds = |text: &str, version: &str| alternatives(text).next().expect("one term").admits(version);
        assert!(holds("a (>= 1.0)", "1.0"));
        assert!(!holds("a (>> 1.0)", "1.0"));
        assert!(holds("a (<< 1.0)", "1.0~rc1"));
        assert!(holds("a", "anything"));
        assert!(!alternatives("a (>= 1)").next().expect("one term").admits_provided(None));
    }

    #[test]
    fn field_is_split_in_groups() {
        assert_eq!(groups("a, b | c,\n d,").collect::<Vec<_>>(), ["a", "b | c", "d"]);
    }
}
