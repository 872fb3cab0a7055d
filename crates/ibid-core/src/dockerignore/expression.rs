//! Ignore patterns with wildcards, as the regular expressions that Docker makes of them.
//!
//! Docker (moby/patternmatcher) rewrites a pattern as text of a regular expression without tracking
//! whether it stands inside `[…]`. What a pattern then means in odd corners (`[*]`, `[^a]` matching `/`,
//! `\d`, a `^` in the middle) follows from that text alone, so this module makes the same text and
//! matches it itself: it is a straight list of parts, nested nowhere, and the set of places reached in
//! that list after each character is all that matching needs. Time is bounded by the length of the
//! pattern times the length of the path, whatever the pattern.
//!
//! Two differences are meant: `{`, `|` and `}` are ordinary characters, as they are documented to be (moby
//! forgets to escape them), and classes by Unicode property, such as `\pL`, are refused.

use std::ops::Range;

use crate::glob::Characters;

/// What a pattern without its `!` turns into.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    /// The path itself.
    Exact(Box<[u8]>),
    /// Every path that starts so: `docs/**`.
    Prefix(Box<[u8]>),
    /// Every path that ends so: `**/name`; a leading `/` may be missing when the whole path matched.
    Suffix(Box<[u8]>),
    /// Everything else.
    Expression(Expression),
}

/// A regular expression without nesting.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    parts: Vec<Part>,
    ends: Ends,
}

/// What a path must have at both ends to match. Looking at it is a hundred times as fast as matching.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The ASCII characters that it may start with, a bit for each.
    first: u128,
    /// The ASCII characters that it may end with.
    last: u128,
    /// Characters that it has at least.
    length_min: usize,
}

impl Ends {
    const ANY: Self = Self { first: u128::MAX, last: u128::MAX, length_min: 0 };

    fn of(parts: &[Part]) -> Self {
        let admitted = |part: Option<&Part>| match part {
            Some(Part::One(set)) => {
                (0..128).filter(|bit| set.contains(char::from(*bit))).map(|bit| 1 << bit).sum()
            }
            _ => u128::MAX,
        };
        let length_min = parts.iter().filter(|part| matches!(part, Part::One(_))).count();
        Self { first: admitted(parts.first()), last: admitted(parts.last()), length_min }
    }

    pub(super) fn admit(&self, path: &[u8]) -> bool {
        // The last byte of a longer character is no ASCII either.
        let fits =
            |set: u128, byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii() || set >> byte & 1 == 1);
        self.length_min <= path.len() && fits(self.first, path.first()) && fits(self.last, path.last())
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    One(Set),
    Many(Set),
    /// Before `(.*/)?`: goes on to [`Part::Within`] or skips it.
    Folders,
    /// Inside `(.*/)?`: stays for any character, and `/` may also end it.
    Within,
    Start,
    End,
    WordBoundary {
        negated: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Set {
    Char(char),
    NotNewline,
    NotSlash,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// Why a pattern makes no regular expression.
pub(super) type Reason = &'static str;

impl Matcher {
    /// Compiles a cleaned pattern.
    pub(super) fn new(pattern: &[u8]) -> Result<Self, Reason> {
        #[derive(PartialEq)]
        enum Kind {
            Exact,
            Prefix,
            Suffix,
            Expression,
        }
        let mut kind = Kind::Exact;
        let mut text = String::new();
        let mut rest = Characters(pattern);
        let mut first = true;
        while let Some((c, _)) = rest.next() {
            match c {
                '*' if rest.0.first() == Some(&b'*') => {
                    rest.next();
                    if rest.0.first() == Some(&b'/') {
                        rest.next();
                    }
                    if !rest.0.is_empty() {
                        text.push_str("(.*/)?");
                        kind = Kind::Expression;
                    } else if kind == Kind::Exact {
                        kind = Kind::Prefix;
                    } else {
                        text.push_str(".*");
                        kind = Kind::Expression;
                    }
                    if first {
                        kind = Kind::Suffix;
                    }
                }
                '*' => {
                    text.push_str("[^/]*");
                    kind = Kind::Expression;
                }
                '?' => {
                    text.push_str("[^/]");
                    kind = Kind::Expression;
                }
                '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => text.extend(['\\', c]),
                '\\' => {
                    text.push('\\');
                    if let Some((escaped, _)) = rest.next() {
                        text.push(escaped);
                        kind = Kind::Expression;
                    }
                }
                '[' | ']' => {
                    text.push(c);
                    kind = Kind::Expression;
                }
                c => text.push(c),
            }
            first = false;
        }
        Ok(match kind {
            Kind::Exact => Self::Exact(pattern.into()),
            Kind::Prefix => Self::Prefix(pattern[..pattern.len() - 2].into()),
            Kind::Suffix => Self::Suffix(pattern[2..].into()),
            Kind::Expression => Self::Expression(Expression::parse(&(text + "$"))?),
        })
    }

    /// Whether `path` itself matches.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(own) => **own == *path,
            Self::Prefix(head) => path.starts_with(head),
            Self::Suffix(tail) => path.ends_with(tail) || tail.strip_prefix(b"/") == Some(path),
            Self::Expression(expression) => {
                expression.ends.admit(path)
                    && expression.run(path).is_some_and(|reached| reached[expression.parts.len()])
            }
        }
    }

    /// Whether some path below the folder `folder` could match. May say yes where none can.
    pub(super) fn may_match_below(&self, folder: &[u8]) -> bool {
        let below = |path: &[u8]| path.starts_with(folder) && path.get(folder.len()) == Some(&b'/');
        match self {
            Self::Exact(own) => below(own),
            Self::Prefix(head) => {
                below(head) || (folder.starts_with(head)) || [folder, b"/"].concat() == **head
            }
            Self::Suffix(_) => true,
            Self::Expression(expression) => expression.run(&[folder, b"/"].concat()).is_some(),
        }
    }

    /// Bytes that every matching path starts with.
    pub(super) fn head(&self) -> Vec<u8> {
        match self {
            Self::Exact(own) => own.to_vec(),
            Self::Prefix(head) => head.to_vec(),
            Self::Suffix(_) => Vec::new(),
            Self::Expression(expression) => {
                expression.parts.iter().map_while(Part::literal).collect::<String>().into()
            }
        }
    }

    /// Bytes that every matching path ends with.
    pub(super) fn tail(&self) -> Vec<u8> {
        match self {
            Self::Exact(own) => own.to_vec(),
            Self::Prefix(_) => Vec::new(),
            Self::Suffix(tail) => tail.strip_prefix(b"/").unwrap_or(tail).to_vec(),
            Self::Expression(expression) => {
                let reversed: Vec<char> = expression.parts.iter().rev().map_while(Part::literal).collect();
                reversed.into_iter().rev().collect::<String>().into()
            }
        }
    }
}

impl Matcher {
    /// What a path must have at both ends.
    pub(super) fn ends(&self) -> Ends {
        match self {
            Self::Expression(expression) => expression.ends,
            _ => Ends::ANY,
        }
    }

    /// Bytes that every matching path holds somewhere, each as long as it can be.
    pub(super) fn inner(&self) -> Vec<Vec<u8>> {
        let Self::Expression(expression) = self else { return Vec::new() };
        let runs = expression.parts.split(|part| part.literal().is_none());
        let texts = runs.map(|run| run.iter().filter_map(Part::literal).collect::<String>().into_bytes());
        texts.filter(|text| !text.is_empty()).collect()
    }
}

impl Expression {
    /// Parses text in the syntax of RE2 as far as [`Matcher::new`] can make it.
    fn parse(text: &str) -> Result<Self, Reason> {
        let mut reader = Reader { text };
        let mut parts: Vec<Part> = Vec::new();
        let mut anchored = false;
        while let Some(c) = reader.next() {
            match c {
                '^' => parts.push(Part::Start),
                '$' => anchored = true,
                '(' => {
                    reader.text = reader.text.strip_prefix(".*/)?").ok_or("a group that is never closed")?;
                    // `**/**/` says no more than `**/`.
                    if parts.last() != Some(&Part::Within) {
                        parts.extend([Part::Folders, Part::Within]);
                    }
                }
                '.' => parts.push(reader.repeated(Set::NotNewline)),
                '[' => {
                    let set = reader.class()?;
                    parts.push(reader.repeated(set));
                }
                '\\' => match reader.next().ok_or("nothing follows the last `\\`")? {
                    'A' => parts.push(Part::Start),
                    'z' => parts.push(Part::End),
                    'b' => parts.push(Part::WordBoundary { negated: false }),
                    'B' => parts.push(Part::WordBoundary { negated: true }),
                    'Q' => {
                        let (literal, rest) = reader.text.split_once("\\E").unwrap_or((reader.text, ""));
                        reader.text = rest;
                        parts.extend(literal.chars().map(|c| Part::One(Set::Char(c))));
                    }
                    escaped => parts.push(Part::One(match perl_class(escaped) {
                        Some((negated, ranges)) => Set::Class { negated, ranges: ranges.to_vec() },
                        None => Set::Char(reader.escaped(escaped)?),
                    })),
                },
                c => parts.push(Part::One(Set::Char(c))),
            }
        }
        if !anchored {
            // A `\Q` without `\E` has taken the final `$` for itself.
            parts.push(Part::Many(Set::Class { negated: true, ranges: Vec::new() }));
        }
        Ok(Self { ends: Ends::of(&parts), parts })
    }

    /// The places that can be reached after all of `path`, the place after the last part included;
    /// none when no path that starts so can match.
    fn run(&self, path: &[u8]) -> Option<Vec<bool>> {
        let mut now = vec![false; self.parts.len() + 1];
        let mut next = now.clone();
        // Every place reached lies in this range, so that a long pattern costs only as far as it is reached.
        let mut reached = 0..1;
        now[0] = true;
        let mut previous = None;
        let mut rest = Characters(path);
        loop {
            let current = rest.next().map(|(c, _)| c);
            reached = self.close(&mut now, reached, previous, current);
            let Some(c) = current else { return Some(now) };
            let mut reached_next: Option<Range<usize>> = None;
            for place in reached {
                if !std::mem::take(&mut now[place]) {
                    continue;
                }
                let to = match self.parts.get(place) {
                    Some(Part::One(set)) if set.contains(c) => place + 1..place + 2,
                    Some(Part::Many(set)) if set.contains(c) => place..place + 1,
                    Some(Part::Within) if c == '/' => place..place + 2,
                    Some(Part::Within) if c != '\n' => place..place + 1,
                    _ => continue,
                };
                next[to.clone()].fill(true);
                reached_next = Some(match reached_next {
                    Some(so_far) => so_far.start..so_far.end.max(to.end),
                    None => to,
                });
            }
            reached = reached_next?;
            std::mem::swap(&mut now, &mut next);
            previous = current;
        }
    }

    /// Adds the places that can be reached without a character. They all lie further on.
    fn close(
        &self,
        places: &mut [bool],
        reached: Range<usize>,
        previous: Option<char>,
        next: Option<char>,
    ) -> Range<usize> {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        let Range { start, mut end } = reached;
        let mut place = start;
        while place < end.min(self.parts.len()) {
            if places[place] {
                let furthest = match &self.parts[place] {
                    Part::One(_) | Part::Within => place,
                    Part::Many(_) => place + 1,
                    Part::Folders => place + 2,
                    Part::Start => place + usize::from(previous.is_none()),
                    Part::End => place + usize::from(next.is_none()),
                    Part::WordBoundary { negated } => {
                        place + usize::from((is_word(previous) != is_word(next)) != *negated)
                    }
                };
                places[place..=furthest].fill(true);
                end = end.max(furthest + 1);
            }
            place += 1;
        }
        start..end
    }
}

impl Part {
    /// The character this part stands for, when it is one that only its own bytes match.
    fn literal(&self) -> Option<char> {
        match self {
            Part::One(Set::Char(c)) if *c != char::REPLACEMENT_CHARACTER => Some(*c),
            _ => None,
        }
    }
}

impl Set {
    fn contains(&self, c: char) -> bool {
        match self {
            Set::Char(own) => *own == c,
            Set::NotNewline => c != '\n',
            Set::NotSlash => c != '/',
            Set::Class { negated, ranges } => in_ranges(ranges, c) != *negated,
        }
    }
}

fn in_ranges(ranges: &[(char, char)], c: char) -> bool {
    ranges.iter().any(|(low, high)| (*low..=*high).contains(&c))
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.text.chars().next()?;
        self.text = &self.text[c.len_utf8()..];
        Some(c)
    }

    fn eat(&mut self, text: &str) -> bool {
        let rest = self.text.strip_prefix(text);
        self.text = rest.unwrap_or(self.text);
        rest.is_some()
    }

    fn repeated(&mut self, set: Set) -> Part {
        if self.eat("*") { Part::Many(set) } else { Part::One(set) }
    }

    /// The inside of a class, after its `[`.
    fn class(&mut self) -> Result<Set, Reason> {
        const UNCLOSED: Reason = "`[` without its `]`";
        if self.eat("^/]") {
            return Ok(Set::NotSlash);
        }
        let negated = self.eat("^");
        let mut ranges = Vec::new();
        let mut first = true;
        while first || !self.eat("]") {
            first = false;
            if self.text.starts_with("[:")
                && let Some(end) = self.text[2..].find(":]")
            {
                let name = &self.text[2..2 + end];
                let (inside, name) = match name.strip_prefix('^') {
                    Some(name) => (false, name),
                    None => (true, name),
                };
                let class = posix_class(name).ok_or("an unknown class in `[: :]`")?;
                add_ranges(&mut ranges, class, !inside);
                self.text = &self.text[2 + end + 2..];
                continue;
            }
            let escape = self.text.strip_prefix('\\').and_then(|rest| rest.chars().next());
            if let Some((negated, class)) = escape.and_then(perl_class) {
                add_ranges(&mut ranges, class, negated);
                self.text = &self.text[2..];
                continue;
            }
            let low = self.class_character()?.ok_or(UNCLOSED)?;
            let mut high = low;
            if self.text.starts_with('-') && self.text.len() >= 2 && !self.text.starts_with("-]") {
                self.next();
                high = self.class_character()?.ok_or(UNCLOSED)?;
            }
            if high < low {
                return Err("a range whose end comes before its start");
            }
            ranges.push((low, high));
        }
        Ok(Set::Class { negated, ranges })
    }

    fn class_character(&mut self) -> Result<Option<char>, Reason> {
        match self.next() {
            Some('\\') => match self.next() {
                Some(escaped) => self.escaped(escaped).map(Some),
                None => Err("nothing follows the last `\\`"),
            },
            c => Ok(c),
        }
    }

    /// The character that `\c` stands for, `c` being read already.
    fn escaped(&mut self, c: char) -> Result<char, Reason> {
        const INVALID: Reason = "`\\` before a letter or digit; folders are separated by `/`";
        Ok(match c {
            'a' => '\x07',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '0'..='7' => {
                let mut value = c.to_digit(8).ok_or(INVALID)?;
                let more = self.text.bytes().take_while(|digit| (b'0'..=b'7').contains(digit)).count().min(2);
                if c != '0' && more == 0 {
                    return Err(INVALID);
                }
                for _ in 0..more {
                    value = value * 8 + self.next().and_then(|digit| digit.to_digit(8)).ok_or(INVALID)?;
                }
                char::from_u32(value).ok_or(INVALID)?
            }
            'x' => {
                let digits = if self.eat("{") {
                    let (digits, rest) = self.text.split_once('}').ok_or(INVALID)?;
                    self.text = rest;
                    digits
                } else {
                    let (digits, rest) = self.text.split_at_checked(2).ok_or(INVALID)?;
                    self.text = rest;
                    digits
                };
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(INVALID);
                }
                u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).ok_or(INVALID)?
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            _ => return Err(INVALID),
        })
    }
}

/// Adds `class`, or its complement.
fn add_ranges(ranges: &mut Vec<(char, char)>, class: &[(char, char)], negated: bool) {
    if !negated {
        ranges.extend(class);
        return;
    }
    // Classes are sorted ASCII ranges, so that the steps to their neighbours stay valid characters.
    let mut low = '\0';
    for (start, end) in class {
        if let Some(before) = (u32::from(*start)).checked_sub(1).and_then(char::from_u32)
            && low <= before
        {
            ranges.push((low, before));
        }
        low = char::from_u32(u32::from(*end) + 1).unwrap_or(char::MAX);
    }
    ranges.push((low, char::MAX));
}

type Ranges = &'static [(char, char)];

/// `\d`, `\s`, `\w` and their complements.
fn perl_class(letter: char) -> Option<(bool, Ranges)> {
    let ranges: Ranges = match letter.to_ascii_lowercase() {
        'd' => &[('0', '9')],
        's' => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
        'w' => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        _ => return None,
    };
    Some((letter.is_ascii_uppercase(), ranges))
}

fn posix_class(name: &str) -> Option<Ranges> {
    Some(match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    })
}
