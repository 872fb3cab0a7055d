//! File name patterns as Go's `path/filepath.Match` defines them, which Docker uses for the sources of
//! `COPY` and, for the syntax only, for `.dockerignore`:
//!
//! `*` any run of characters, `?` one character, `[a-z]` and `[^a-z]` one character of a class, `\c` the
//! character `c` itself. None of them matches `/`: a [`Glob`] is for one component of a path.
//!
//! Names are bytes; each byte that is no UTF-8 counts as one character, U+FFFD.

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGlob {
    /// `[` has no `]`.
    #[error("`[` without its `]`")]
    UnclosedClass,
    /// A class is empty, or a range in it lacks an end.
    #[error("an empty character class, or a `-` or `]` in it that lacks its `\\`")]
    BadClass,
    /// The pattern ends with a lone `\`.
    #[error("nothing follows the last `\\`")]
    DanglingEscape,
}

/// One component of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Many,
    Any,
    Char(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Reads the pattern of one component.
    pub fn parse(pattern: &[u8]) -> Result<Self, InvalidGlob> {
        let mut rest = Characters(pattern);
        let mut parts = Vec::new();
        while let Some((c, _)) = rest.next() {
            parts.push(match c {
                '*' if parts.last() == Some(&Part::Many) => continue,
                '*' => Part::Many,
                '?' => Part::Any,
                '[' => class(&mut rest)?,
                '\\' => Part::Char(rest.next().ok_or(InvalidGlob::DanglingEscape)?.0),
                c => Part::Char(c),
            });
        }
        Ok(Self { parts })
    }

    /// Whether the whole of `name`, which holds no `/`, matches.
    pub fn matches(&self, name: &[u8]) -> bool {
        let name: Vec<char> = Characters(name).map(|(c, _)| c).collect();
        let (mut at, mut part) = (0, 0);
        // Where the last `*` stands and where its run ends now. Only the last one ever needs to grow,
        // which bounds the work by the product of both lengths.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.parts.get(part) {
                Some(Part::Many) => {
                    retry = Some((part, at));
                    part += 1;
                    continue;
                }
                Some(single) if at < name.len() && single.matches(name[at]) => {
                    at += 1;
                    part += 1;
                    continue;
                }
                None if at == name.len() => return true,
                _ => {}
            }
            match retry {
                Some((star, end)) if end < name.len() => {
                    retry = Some((star, end + 1));
                    at = end + 1;
                    part = star + 1;
                }
                _ => return false,
            }
        }
    }
}

impl Part {
    fn matches(&self, c: char) -> bool {
        match self {
            Part::Many => false,
            Part::Any => true,
            Part::Char(own) => *own == c,
            Part::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

fn class(rest: &mut Characters) -> Result<Part, InvalidGlob> {
    let negated = rest.0.first() == Some(&b'^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        if rest.0.first() == Some(&b']') && !ranges.is_empty() {
            rest.next();
            return Ok(Part::Class { negated, ranges });
        }
        let low = class_character(rest)?;
        let mut high = low;
        if rest.0.first() == Some(&b'-') {
            rest.next();
            high = class_character(rest)?;
        }
        ranges.push((low, high));
    }
}

fn class_character(rest: &mut Characters) -> Result<char, InvalidGlob> {
    let (c, valid) = match rest.next().ok_or(InvalidGlob::UnclosedClass)? {
        ('-' | ']', _) => return Err(InvalidGlob::BadClass),
        ('\\', _) => rest.next().ok_or(InvalidGlob::DanglingEscape)?,
        character => character,
    };
    match (valid, rest.0.is_empty()) {
        (false, _) => Err(InvalidGlob::BadClass),
        (true, true) => Err(InvalidGlob::UnclosedClass),
        (true, false) => Ok(c),
    }
}

/// The characters of some bytes, each with false when it stands for a byte that is no UTF-8.
pub(crate) struct Characters<'a>(pub(crate) &'a [u8]);

impl Iterator for Characters<'_> {
    type Item = (char, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let first = *self.0.first()?;
        let length = match first {
            0..0x80 => 1,
            0x80..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let decoded =
            self.0.get(..length).and_then(|bytes| str::from_utf8(bytes).ok()).and_then(|s| s.chars().next());
        let (c, length, valid) = match decoded {
            Some(c) => (c, length, true),
            None => (char::REPLACEMENT_CHARACTER, 1, false),
        };
        self.0 = &self.0[length..];
        Some((c, valid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        let check = |pattern: &str, name: &str, expected: bool| {
            let glob = Glob::parse(pattern.as_bytes()).expect(pattern);
            assert_eq!(glob.matches(name.as_bytes()), expected, "{pattern} {name}");
        };
        check("", "", true);
        check("abc", "abc", true);
        check("*", "", true);
        check("*", "abc", true);
        check("*c", "abc", true);
        check("a*", "a", true);
        check("a*", "ba", false);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
        check("**a", "ba", true);
        check("a?c", "abc", true);
        check("a?c", "aéc", true);
        check("a?c", "ac", false);
        check("[a-c]x", "bx", true);
        check("[^a-c]x", "bx", false);
        check("[^a-c]x", "dx", true);
        check("[!a]", "!", true);
        check("[\\]a]", "]", true);
        check("[\\-x]", "-", true);
        check("a\\*b", "a*b", true);
        check("a\\*b", "aXb", false);
        check("[*?]", "?", true);
        check("*a*a*a*a*a*a*a*a*a*a*a*a*b", &"a".repeat(200), false);
    }

    #[test]
    fn malformed_patterns_are_refused() {
        let check = |pattern: &str, expected: InvalidGlob| {
            assert_eq!(Glob::parse(pattern.as_bytes()), Err(expected), "{pattern}");
        };
        check("[", InvalidGlob::UnclosedClass);
        check("[a", InvalidGlob::UnclosedClass);
        check("[^", InvalidGlob::UnclosedClass);
        check("[a-", InvalidGlob::UnclosedClass);
        check("[]a]", InvalidGlob::BadClass);
        check("[-x]", InvalidGlob::BadClass);
        check("[x-]", InvalidGlob::BadClass);
        check("x\\", InvalidGlob::DanglingEscape);
        check("[\\", InvalidGlob::DanglingEscape);
    }

    #[test]
    fn bytes_that_are_no_utf8_are_characters() {
        let glob = Glob::parse(b"a?b").expect("well formed");
        assert!(glob.matches(b"a\xffb"));
        assert!(!glob.matches(b"a\xff\xfeb"));
        assert_eq!(Glob::parse(b"[\xff]"), Err(InvalidGlob::BadClass));
    }
}
