//! `.gitignore`: which paths git leaves out, as gitignore(5) says and git does.
//!
//! A [`GitIgnore`] holds the rules of one file, which are about paths below the folder that the file is in. The caller asks the
//! files from the nearest folder upwards and takes the first [`Decision`]; what a folder that is left out holds is left out as
//! well, whatever the rules say.
//!
//! Paths are bytes: relative to the file's folder, components separated by `/`.

mod pattern;

use pattern::Pattern;

/// The rules of one `.gitignore`. The default has none.
#[derive(Debug, Clone, Default)]
pub struct GitIgnore {
    /// In the order of the file; the last that matches decides.
    rules: Vec<Rule>,
}

/// What the rules say of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is left out.
    Ignored,
    /// It is brought back by a `!` rule.
    Kept,
}

#[derive(Debug, Clone)]
struct Rule {
    negated: bool,
    folders_only: bool,
    /// Matched with the whole path; otherwise with its last component.
    anchored: bool,
    pattern: Pattern,
}

impl GitIgnore {
    /// Reads the text of a file. Every text has a meaning: what git cannot match, such as `[`, matches nothing.
    pub fn parse(text: &[u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self { rules: text.split(|byte| *byte == b'\n').filter_map(Rule::parse).collect() }
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules say of `path` by itself; none when no rule is about it.
    pub fn decide(&self, path: &[u8], is_folder: bool) -> Option<Decision> {
        let name = &path[path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1)..];
        let rule = self.rules.iter().rev().find(|rule| rule.matches(path, name, is_folder))?;
        Some(if rule.negated { Decision::Kept } else { Decision::Ignored })
    }
}

impl Rule {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") {
            return None;
        }
        let line = without_trailing_spaces(line);
        let (negated, pattern) = match line.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (folders_only, pattern) = match pattern.strip_suffix(b"/") {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let anchored = pattern.contains(&b'/');
        let pattern = pattern.strip_prefix(b"/").unwrap_or(pattern);
        if pattern.is_empty() {
            return None;
        }
        Some(Self { negated, folders_only, anchored, pattern: Pattern::parse(pattern)? })
    }

    fn matches(&self, path: &[u8], name: &[u8], is_folder: bool) -> bool {
        (is_folder || !self.folders_only) && self.pattern.matches(if self.anchored { path } else { name })
    }
}

/// Spaces at the end do not count unless a `\` stands before them.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b' ' => at += 1,
            b'\\' => {
                at = (at + 2).min(line.len());
                end = at;
            }
            _ => {
                at += 1;
                end = at;
            }
        }
    }
    &line[..end]
}

#[cfg(test)]
mod tests;
