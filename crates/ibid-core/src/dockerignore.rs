//! `.dockerignore`: which paths of a build context are left out.
//!
//! The same answer as Docker's for every file: lines are read as moby's `ignorefile.ReadAll` reads them
//! and matched as `patternmatcher.MatchesOrParentMatches` matches. Patterns are anchored at the root of
//! the context; `**` stands for any number of folders; `!` brings paths back; the last pattern that
//! matches a path or a folder above it decides.
//!
//! A path is bytes: relative, components separated by `/`, with no `.` or `..`.
//!
//! Deciding about one path costs about one hash look-up for each different length of the literal ends of
//! the patterns, however many patterns there are. Only patterns with a wildcard at both ends (`*cache*`)
//! are tried one by one.

mod expression;

use std::collections::HashMap;

use crate::glob::{Glob, InvalidGlob};
use expression::Matcher;

/// The rules of an ignore file. The default has none.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    /// In the order of the file.
    rules: Vec<Rule>,
    /// The rules that bring paths back.
    exceptions: Vec<usize>,
    index: Index,
}

/// Whether a path is left out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// True when the path is left out of the context.
    pub ignored: bool,
    /// The line, counted from 1, of the last rule that matches the path or a folder above it. None when
    /// no rule does.
    pub rule: Option<usize>,
}

/// A line that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{pattern}` is no pattern: {reason}")]
pub struct MalformedPattern {
    /// Counted from 1.
    pub line: usize,
    /// The pattern, without leading and trailing space.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Debug, Clone)]
struct Rule {
    line: usize,
    /// As it stands in the file, without white space around it.
    text: Box<[u8]>,
    exception: bool,
    matcher: Matcher,
}

/// Docker reads no longer line.
const LINE_BYTES_MAX: usize = 64 * 1024;

impl Ignore {
    /// Reads the text of an ignore file.
    pub fn parse(text: &[u8]) -> Result<Self, MalformedPattern> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut ignore = Self::default();
        for (line, bytes) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line + 1;
            let malformed = |reason: String| MalformedPattern {
                line,
                pattern: String::from_utf8_lossy(&trim(bytes)[..trim(bytes).len().min(200)]).into_owned(),
                reason,
            };
            if bytes.len() >= LINE_BYTES_MAX {
                return Err(malformed(format!("longer than {LINE_BYTES_MAX} bytes")));
            }
            let Some(pattern) = normalised(bytes) else { continue };
            let (exception, pattern) = match pattern.strip_prefix(b"!") {
                Some(b"") => return Err(malformed("nothing follows the `!`".to_owned())),
                Some(rest) => (true, rest),
                None => (false, pattern.as_slice()),
            };
            Glob::parse(pattern).map_err(|invalid: InvalidGlob| malformed(invalid.to_string()))?;
            let matcher = Matcher::new(pattern).map_err(|reason| malformed(reason.to_owned()))?;
            let number = ignore.rules.len();
            if exception {
                ignore.exceptions.push(number);
            }
            ignore.index.add(number, &matcher);
            ignore.rules.push(Rule { line, text: trim(bytes).into(), exception, matcher });
        }
        Ok(ignore)
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rule on a line says, for people; none when no rule stands there.
    pub fn text(&self, line: usize) -> Option<String> {
        let at = self.rules.binary_search_by_key(&line, |rule| rule.line).ok()?;
        Some(String::from_utf8_lossy(&self.rules[at].text).into_owned())
    }

    /// Decides about `path`. The context's root, the empty path, is always kept.
    pub fn verdict(&self, path: &[u8]) -> Verdict {
        if path.is_empty() {
            return Verdict::default();
        }
        let parents = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        parents
            .chain([path.len()])
            .fold(Verdict::default(), |above, end| self.verdict_below(above, &path[..end]))
    }

    /// Decides about `path` when the verdict on the folder that holds it is known already: the same
    /// answer as [`Ignore::verdict`], for less.
    pub fn verdict_below(&self, parent: Verdict, path: &[u8]) -> Verdict {
        let from = parent.rule.map_or(0, |line| self.first_after(line));
        match self.index.last_match(&self.rules, from, path) {
            Some(rule) => Verdict { ignored: !rule.exception, rule: Some(rule.line) },
            None => parent,
        }
    }

    /// Whether anything below `folder`, whose verdict is given, may be kept. False lets a walk pass it by.
    /// May be true where nothing is kept in the end.
    pub fn may_descend(&self, verdict: Verdict, folder: &[u8]) -> bool {
        if !verdict.ignored {
            return true;
        }
        // Whatever stands before the rule that ignores the folder ignores or keeps nothing below it.
        let from = verdict.rule.map_or(0, |line| self.first_after(line));
        let first = self.exceptions.partition_point(|number| *number < from);
        self.exceptions[first..].iter().any(|number| self.rules[*number].matcher.may_match_below(folder))
    }

    fn first_after(&self, line: usize) -> usize {
        self.rules.partition_point(|rule| rule.line <= line)
    }
}

/// Where rules are looked up by the literal bytes that a path must start or end with.
#[derive(Debug, Clone, Default)]
struct Index {
    tails: Vec<Bucket>,
    heads: Vec<Bucket>,
    /// Rules with neither.
    others: Vec<usize>,
}

/// Rules whose literal has the same length.
#[derive(Debug, Clone)]
struct Bucket {
    length: usize,
    rules: HashMap<Box<[u8]>, Vec<usize>>,
}

impl Index {
    fn add(&mut self, number: usize, matcher: &Matcher) {
        let (head, tail) = (matcher.head(), matcher.tail());
        let (buckets, literal) =
            if tail.len() >= head.len() { (&mut self.tails, tail) } else { (&mut self.heads, head) };
        if literal.is_empty() {
            self.others.push(number);
            return;
        }
        let at = buckets.partition_point(|bucket| bucket.length < literal.len());
        if buckets.get(at).is_none_or(|bucket| bucket.length != literal.len()) {
            buckets.insert(at, Bucket { length: literal.len(), rules: HashMap::new() });
        }
        buckets[at].rules.entry(literal.into()).or_default().push(number);
    }

    /// The last rule that matches `path` itself, of those numbered `from` and up.
    fn last_match<'a>(&self, rules: &'a [Rule], from: usize, path: &[u8]) -> Option<&'a Rule> {
        let mut best: Option<usize> = None;
        let mut search = |numbers: &[usize]| {
            let from = best.map_or(from, |best| best + 1);
            let later = numbers.iter().rev().take_while(|number| **number >= from);
            if let Some(number) = later.copied().find(|number| rules[*number].matcher.matches(path)) {
                best = Some(number);
            }
        };
        for bucket in self.tails.iter().take_while(|bucket| bucket.length <= path.len()) {
            if let Some(numbers) = bucket.rules.get(&path[path.len() - bucket.length..]) {
                search(numbers);
            }
        }
        for bucket in self.heads.iter().take_while(|bucket| bucket.length <= path.len()) {
            if let Some(numbers) = bucket.rules.get(&path[..bucket.length]) {
                search(numbers);
            }
        }
        search(&self.others);
        best.map(|number| &rules[number])
    }
}

/// A line as Docker hands it to the matcher; none for a comment or a blank line.
fn normalised(line: &[u8]) -> Option<Vec<u8>> {
    if line.starts_with(b"#") {
        return None;
    }
    let line = trim(line);
    let (exception, rest) = match line.strip_prefix(b"!") {
        Some(rest) => (true, trim(rest)),
        None => (false, line),
    };
    let mut pattern = if exception { b"!".to_vec() } else { Vec::new() };
    if !rest.is_empty() {
        let cleaned = clean(rest);
        // A leading `/` means the root of the context, where every pattern starts anyway.
        pattern.extend(match cleaned.as_slice() {
            [b'/', relative @ ..] if !relative.is_empty() => relative,
            whole => whole,
        });
    }
    // Docker trims and cleans once more, now with the `!` in front.
    match trim(&pattern) {
        b"" => None,
        pattern => Some(clean(pattern)),
    }
}

/// Without white space at both ends.
fn trim(line: &[u8]) -> &[u8] {
    match str::from_utf8(line) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => line.trim_ascii(),
    }
}

/// The shortest path that means the same: Go's `filepath.Clean`.
fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if components.last().is_some_and(|last| *last != b"..") => {
                components.pop();
            }
            b".." if rooted => {}
            component => components.push(component),
        }
    }
    let mut cleaned = if rooted { b"/".to_vec() } else { Vec::new() };
    cleaned.extend(components.join(&b'/'));
    if cleaned.is_empty() { b".".to_vec() } else { cleaned }
}

#[cfg(test)]
mod tests;
