//! The patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`: `*` is any text, `?`
//! any one character, everything else itself. There are no bracket expressions.
//!
//! A pattern is cut at its stars into segments. Between stars the earliest place of a segment is as good
//! as any, so matching never goes back: searching a whole value looks at each of its bytes a fixed number of times
//! (times the length of a segment when that holds a `?`).

use super::error::ExpansionFault;

/// A pattern, ready to match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// What stands between the stars: one more than there are stars.
    segments: Vec<Segment>,
}

/// A part of a pattern without stars.
#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    /// At least one `?`, which is `None`.
    Wild(Vec<Option<char>>),
}

/// Which of the possible matches is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Shortest,
    Longest,
}

/// Why there is no match at a place.
enum Miss {
    /// Another place may do.
    Here,
    /// No later place can match either.
    Everywhere,
}

impl Pattern {
    /// Reads a pattern in which `escape` takes the meaning from `*`, `?` and itself. Before `/` and `}` it
    /// only served the surrounding `${…}`.
    pub(super) fn parse(text: &str, escape: char) -> Result<Self, ExpansionFault> {
        let mut segments = Vec::new();
        let mut current: Vec<Option<char>> = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' => segments.push(Segment::new(std::mem::take(&mut current))),
                '?' => current.push(None),
                c if c == escape => match chars.next() {
                    Some(next) if matches!(next, '*' | '?' | '/' | '}') || next == escape => {
                        current.push(Some(next));
                    }
                    next => return Err(ExpansionFault::PatternEscape(String::from_iter(next))),
                },
                c => current.push(Some(c)),
            }
        }
        segments.push(Segment::new(current));
        Ok(Self { segments })
    }

    /// The value without the start that matches.
    pub(super) fn strip_prefix<'a>(&self, value: &'a str, extent: Extent) -> &'a str {
        match self.match_at(value, 0, extent) {
            Ok(end) => &value[end..],
            Err(_) => value,
        }
    }

    /// The value without the end that matches.
    pub(super) fn strip_suffix<'a>(&self, value: &'a str, extent: Extent) -> &'a str {
        let (first, rest) = self.split_first();
        let Some((last, between)) = rest.split_last() else {
            return match first.match_end(value) {
                Some(start) => &value[..start],
                None => value,
            };
        };
        let Some(mut start) = last.match_end(value) else { return value };
        for segment in between.iter().rev() {
            let Some((found, _)) = segment.rfind(&value[..start]) else { return value };
            start = found;
        }
        let found = match extent {
            Extent::Shortest => first.rfind(&value[..start]),
            Extent::Longest => first.find(&value[..start]),
        };
        found.map_or(value, |(start, _)| &value[..start])
    }

    /// The value with the first match, or every one, replaced. A match is as long as possible.
    pub(super) fn replace(&self, value: &str, replacement: &str, every: bool) -> String {
        let mut result = String::with_capacity(value.len());
        let mut copied = 0;
        let mut at = 0;
        let mut after_match = false;
        loop {
            let next = match self.match_at(value, at, Extent::Longest) {
                // An empty match directly behind another one would replace the same place twice.
                Ok(end) if end == at && after_match => None,
                Ok(end) => Some(end),
                Err(Miss::Here) => None,
                Err(Miss::Everywhere) => break,
            };
            if let Some(end) = next {
                result.push_str(&value[copied..at]);
                result.push_str(replacement);
                copied = end;
                if !every {
                    break;
                }
            }
            after_match = next.is_some_and(|end| end > at);
            match next {
                Some(end) if end > at => at = end,
                _ => match value[at..].chars().next() {
                    Some(c) => at += c.len_utf8(),
                    None => break,
                },
            }
        }
        result.push_str(&value[copied..]);
        result
    }

    /// Where a match that starts at `at` ends.
    fn match_at(&self, value: &str, at: usize, extent: Extent) -> Result<usize, Miss> {
        let (first, rest) = self.split_first();
        let mut end = at + first.match_start(&value[at..]).ok_or(Miss::Here)?;
        let Some((last, between)) = rest.split_last() else { return Ok(end) };
        for segment in between {
            let (_, found) = segment.find(&value[end..]).ok_or(Miss::Everywhere)?;
            end += found;
        }
        let found = match extent {
            Extent::Shortest => last.find(&value[end..]),
            Extent::Longest => last.rfind(&value[end..]),
        };
        found.map(|(_, found)| end + found).ok_or(Miss::Everywhere)
    }

    fn split_first(&self) -> (&Segment, &[Segment]) {
        self.segments.split_first().expect("a pattern has a segment")
    }
}

impl Segment {
    fn new(chars: Vec<Option<char>>) -> Self {
        match chars.iter().copied().collect() {
            Some(text) => Self::Text(text),
            None => Self::Wild(chars),
        }
    }

    /// Length of the match at the start.
    fn match_start(&self, value: &str) -> Option<usize> {
        match self {
            Self::Text(text) => value.starts_with(text.as_str()).then_some(text.len()),
            Self::Wild(chars) => {
                let mut found = value.char_indices();
                for wanted in chars {
                    let (_, c) = found.next()?;
                    if wanted.is_some_and(|wanted| wanted != c) {
                        return None;
                    }
                }
                Some(found.offset())
            }
        }
    }

    /// Start of the match at the end.
    fn match_end(&self, value: &str) -> Option<usize> {
        match self {
            Self::Text(text) => value.ends_with(text.as_str()).then(|| value.len() - text.len()),
            Self::Wild(chars) => {
                let start = value.char_indices().rev().nth(chars.len() - 1)?.0;
                self.match_start(&value[start..]).map(|_| start)
            }
        }
    }

    /// Start and end of the earliest match.
    fn find(&self, value: &str) -> Option<(usize, usize)> {
        match self {
            Self::Text(text) => value.find(text.as_str()).map(|start| (start, start + text.len())),
            Self::Wild(_) => value.char_indices().find_map(|(start, _)| self.match_from(value, start)),
        }
    }

    /// Start and end of the latest match.
    fn rfind(&self, value: &str) -> Option<(usize, usize)> {
        match self {
            Self::Text(text) => value.rfind(text.as_str()).map(|start| (start, start + text.len())),
            Self::Wild(_) => value.char_indices().rev().find_map(|(start, _)| self.match_from(value, start)),
        }
    }

    fn match_from(&self, value: &str, start: usize) -> Option<(usize, usize)> {
        self.match_start(&value[start..]).map(|length| (start, start + length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_stripped() {
        let check = |pattern: &str, value: &str, shortest: &str, longest: &str| {
            let parsed = Pattern::parse(pattern, '\\').expect(pattern);
            assert_eq!(parsed.strip_prefix(value, Extent::Shortest), shortest, "{pattern} of {value}");
            assert_eq!(parsed.strip_prefix(value, Extent::Longest), longest, "{pattern} of {value}");
        };
        check("", "abc", "abc", "abc");
        check("a", "abc", "bc", "bc");
        check("b", "abc", "abc", "abc");
        check("*", "abc", "abc", "");
        check("*/", "a/b/c", "b/c", "c");
        check("?", "äbc", "bc", "bc");
        check("?*x", "xaxbx", "bx", "");
        check("*x*y", "xxyyz", "yz", "z");
        check("a*b?d", "aabcdbcd!", "bcd!", "!");
        check("\\*", "*a", "a", "a");
        check("\\\\", "\\a", "a", "a");
        check("\\/\\}", "/}a", "a", "a");
        check("[a]", "a", "a", "a");
        check("[a]", "[a]b", "b", "b");
        check("????", "abc", "abc", "abc");
    }

    #[test]
    fn ends_are_stripped() {
        let check = |pattern: &str, value: &str, shortest: &str, longest: &str| {
            let parsed = Pattern::parse(pattern, '\\').expect(pattern);
            assert_eq!(parsed.strip_suffix(value, Extent::Shortest), shortest, "{pattern} of {value}");
            assert_eq!(parsed.strip_suffix(value, Extent::Longest), longest, "{pattern} of {value}");
        };
        check("", "abc", "abc", "abc");
        check("c", "abc", "ab", "ab");
        check(".*", "a.tar.gz", "a.tar", "a");
        check("*", "abc", "abc", "");
        check("?", "abä", "ab", "ab");
        check("x?*y", "axbxcyy", "axb", "a");
        check("\\**", "a***b", "a**", "a");
        check("b*c*d", "abcbcd", "abc", "a");
        check("b*c*d", "abcbd", "a", "a");
        check("????", "abc", "abc", "abc");
    }

    #[test]
    fn matches_are_replaced() {
        let check = |pattern: &str, value: &str, first: &str, every: &str| {
            let parsed = Pattern::parse(pattern, '\\').expect(pattern);
            assert_eq!(parsed.replace(value, "-", false), first, "{pattern} of {value}");
            assert_eq!(parsed.replace(value, "-", true), every, "{pattern} of {value}");
        };
        check("b", "abcb", "a-cb", "a-c-");
        check("x", "abc", "abc", "abc");
        check("", "ab", "-ab", "-a-b-");
        check("*", "abc", "-", "-");
        check("b*", "abcb", "a-", "a-");
        check("b*d", "abcbe", "abcbe", "abcbe");
        check("?/", "/a/bb/c/", "/-bb/c/", "/-b--");
        check("ä", "aäoä", "a-oä", "a-o-");
    }

    #[test]
    fn wrong_escapes_are_refused() {
        let check = |pattern: &str, named: &str| {
            assert_eq!(
                Pattern::parse(pattern, '\\'),
                Err(ExpansionFault::PatternEscape(named.to_owned())),
                "{pattern}"
            );
        };
        check("\\", "");
        check("a\\x", "x");
        check("\\\\\\", "");
    }

    /// Every cut of the value is tried against a plain recursive matcher.
    #[test]
    fn agrees_with_trying_every_cut() {
        fn matches(pattern: &[char], value: &[char]) -> bool {
            match pattern.split_first() {
                None => value.is_empty(),
                Some(('*', rest)) => (0..=value.len()).any(|cut| matches(rest, &value[cut..])),
                Some(('?', rest)) => !value.is_empty() && matches(rest, &value[1..]),
                Some((c, rest)) => value.first() == Some(c) && matches(rest, &value[1..]),
            }
        }
        let all = |alphabet: &[char], length: usize| -> Vec<Vec<char>> {
            let mut texts = vec![Vec::new()];
            let mut from = 0;
            for _ in 0..length {
                let to = texts.len();
                for at in from..to {
                    for &c in alphabet {
                        let mut text: Vec<char> = texts[at].clone();
                        text.push(c);
                        texts.push(text);
                    }
                }
                from = to;
            }
            texts
        };
        for pattern in all(&['a', 'b', '*', '?'], 4) {
            let parsed = Pattern::parse(&String::from_iter(&pattern), '\\').expect("nothing is escaped");
            for value in all(&['a', 'b'], 5) {
                let text = String::from_iter(&value);
                let starts: Vec<usize> =
                    (0..=text.len()).filter(|&cut| matches(&pattern, &value[..cut])).collect();
                let ends: Vec<usize> =
                    (0..=text.len()).filter(|&cut| matches(&pattern, &value[cut..])).collect();
                let after = |cut: Option<&usize>| &text[cut.copied().unwrap_or(0)..];
                let before = |cut: Option<&usize>| &text[..cut.copied().unwrap_or(text.len())];
                let about = format!("{} of {text}", String::from_iter(&pattern));
                assert_eq!(parsed.strip_prefix(&text, Extent::Shortest), after(starts.first()), "# {about}");
                assert_eq!(parsed.strip_prefix(&text, Extent::Longest), after(starts.last()), "## {about}");
                assert_eq!(parsed.strip_suffix(&text, Extent::Shortest), before(ends.last()), "% {about}");
                assert_eq!(parsed.strip_suffix(&text, Extent::Longest), before(ends.first()), "%% {about}");
            }
        }
    }
}
