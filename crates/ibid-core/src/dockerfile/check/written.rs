//! Instructions as they stand in the file: what reading them leaves behind, such as the case of a keyword, empty lines and
//! the comments above.

use std::borrow::Cow;

use crate::plan::Lines;

use super::super::lex::Lexer;
use super::super::words;

/// A Dockerfile's text by lines.
pub(super) struct Source<'a> {
    text: &'a [u8],
    /// Where each line starts.
    starts: Vec<usize>,
    escape: char,
}

/// An instruction as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written<'a> {
    /// Without what follows of heredocs.
    pub(super) lines: Lines,
    pub(super) keyword: String,
    /// Without `--`.
    pub(super) flags: Vec<String>,
    /// What stands behind the flags.
    pub(super) rest: String,
    /// The comments right above, without `#`, topmost first.
    pub(super) comments: Vec<Cow<'a, str>>,
    /// The first empty line inside it.
    pub(super) empty_line: Option<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a [u8], escape: char) -> Self {
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect(), escape }
    }

    /// The instruction that starts on the line `first`, counted from 1; none when there is none.
    pub(super) fn written(&self, first: usize) -> Option<Written<'a>> {
        let rest = &self.text[*self.starts.get(first.checked_sub(1)?)?..];
        let line = Lexer::resume(rest, first - 1, self.escape).next_line().ok()??;
        let (keyword, _) = words::split_first(&line.text);
        let whole = line.text.trim_start()[keyword.len()..].trim_start();
        let (flags, rest) = words::split_flags(whole);
        let empty_line = (line.lines.first..line.lines.last).map(|before| before + 1);
        let mut comments: Vec<Cow<str>> = (1..first).rev().map_while(|number| self.comment(number)).collect();
        comments.reverse();
        Some(Written {
            lines: line.lines,
            keyword: keyword.to_owned(),
            flags,
            rest: rest.to_owned(),
            comments,
            empty_line: empty_line.into_iter().find(|number| self.line(*number).trim_ascii().is_empty()),
        })
    }

    /// What a comment says; none when the line is something else, or an empty comment, which ends a block of them.
    fn comment(&self, number: usize) -> Option<Cow<'a, str>> {
        let text = self.line(number).trim_ascii_start().strip_prefix(b"#")?.trim_ascii();
        (!text.is_empty()).then(|| String::from_utf8_lossy(text))
    }

    fn line(&self, number: usize) -> &'a [u8] {
        let start = self.starts[number - 1];
        let end = self.starts.get(number).copied().unwrap_or(self.text.len());
        &self.text[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_found_as_they_stand() {
        let text = b"# one\n#\n# two\n#three\nRun --a=b x \\\n\n# note\n  y\nFROM z\n\n\nEnv a";
        let source = Source::new(text, '\\');
        let run = source.written(5).expect("an instruction");
        assert_eq!(run.lines, Lines { first: 5, last: 8 });
        assert_eq!((run.keyword.as_str(), run.rest.as_str()), ("Run", "x   y"));
        assert_eq!(run.flags, ["a=b"]);
        assert_eq!(run.comments, ["two", "three"]);
        assert_eq!(run.empty_line, Some(6));
        let from = source.written(9).expect("an instruction");
        assert_eq!((from.comments.len(), from.empty_line), (0, None));
        assert_eq!(source.written(12).expect("an instruction").keyword, "Env");
        assert_eq!(source.written(13), None);
        assert_eq!(source.written(0), None);
    }
}
