//! `.dockerignore`: which paths of a build context are left out.
//!
//! The same answer as Docker's for every file: lines are read as moby's `ignorefile.ReadAll` reads them
//! and matched as `patternmatcher.MatchesOrParentMatches` matches. Patterns are anchored at the root of
//! the context; `**` stands for any number of folders; `!` brings paths back; the last pattern that
//! matches a path or a folder above it decides.
//!
//! A path is bytes: relative, components separated by `/`, with no `.` or `..`.
//!
//! Deciding about one path costs a few hash look-ups for each different length of the literals in the patterns, however
//! many patterns there are; see `index`.

mod expression;
mod index;

use std::collections::HashSet;

use crate::glob::{Glob, InvalidGlob};
use expression::Matcher;
use index::{Exceptions, Index};

/// The rules of an ignore file. The default has none.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    /// In the order of the file. Of rules with the same pattern only the last: it decides wherever another would.
    rules: Vec<Rule>,
    exceptions: Exceptions,
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
        let mut rules = Vec::new();
        let mut patterns = Vec::new();
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
            if !bytes.starts_with(b"#")
                && let Some((rule, pattern)) = rule(line, bytes).map_err(malformed)?
            {
                rules.push(rule);
                patterns.push(pattern);
            }
        }
        Ok(Self::of_rules(rules, &patterns))
    }

    /// The same of patterns by themselves, such as those of `COPY --exclude`: the lines of rules are their numbers,
    /// counted from 1, and `#` starts no comment.
    pub fn of_patterns<S: AsRef<str>>(given: &[S]) -> Result<Self, MalformedPattern> {
        let mut rules = Vec::new();
        let mut patterns = Vec::new();
        for (line, text) in (1..).zip(given) {
            let text = text.as_ref();
            let malformed = |reason| MalformedPattern { line, pattern: text.to_owned(), reason };
            if let Some((rule, pattern)) = rule(line, text.as_bytes()).map_err(malformed)? {
                rules.push(rule);
                patterns.push(pattern);
            }
        }
        Ok(Self::of_rules(rules, &patterns))
    }

    /// Of rules with the same pattern, only the last one counts.
    fn of_rules(mut rules: Vec<Rule>, patterns: &[Vec<u8>]) -> Self {
        let mut seen = HashSet::new();
        let is_last: Vec<bool> = patterns.iter().rev().map(|pattern| seen.insert(pattern)).collect();
        let mut is_last = is_last.into_iter().rev();
        rules.retain(|_| is_last.next().unwrap_or(true));
        Self { exceptions: Exceptions::new(&rules), index: Index::new(&rules), rules }
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
        self.exceptions.may_match_below(&self.rules, from, folder)
    }

    fn first_after(&self, line: usize) -> usize {
        self.rules.partition_point(|rule| rule.line <= line)
    }
}

/// A rule and its pattern; none for a blank text. The error says why the text is no pattern.
fn rule(line: usize, text: &[u8]) -> Result<Option<(Rule, Vec<u8>)>, String> {
    let Some(pattern) = normalised(text) else { return Ok(None) };
    let (exception, pattern) = match pattern.strip_prefix(b"!") {
        Some(b"") => return Err("nothing follows the `!`".to_owned()),
        Some(rest) => (true, rest),
        None => (false, pattern.as_slice()),
    };
    Glob::parse(pattern).map_err(|invalid: InvalidGlob| invalid.to_string())?;
    let matcher = Matcher::new(pattern).map_err(str::to_owned)?;
    let rule = Rule { line, text: trim(text).into(), exception, matcher };
    Ok(Some((rule, pattern.to_vec())))
}

/// A pattern as Docker hands it to the matcher; none for a blank one.
fn normalised(line: &[u8]) -> Option<Vec<u8>> {
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
