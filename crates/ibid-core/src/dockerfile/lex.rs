//! From bytes to logical lines: directives, comments, continuation lines, and the bodies of heredocs.
//!
//! A comment is dropped before anything looks at it, so it may hold any bytes; all else must be UTF-8 without
//! zero bytes.

use crate::plan::Lines;

use super::error::{Error, ErrorKind};

/// The comments at the top that speak to the parser.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend image that Docker would use. ibid reads the language itself.
    pub syntax: Option<String>,
    /// `# escape=`: the escape and continuation character; `\` when absent.
    pub escape: Option<char>,
    /// `# check=`: options for the linter.
    pub check: Option<String>,
}

/// One instruction's text, continuation lines joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogicalLine {
    pub(super) lines: Lines,
    /// Joined with nothing in between, as the instruction means it.
    pub(super) text: String,
    /// Joined with one space where any white space stood, as people read it.
    pub(super) shown: String,
}

/// Reads a Dockerfile line by line.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    /// Number of the last line that was read.
    line: usize,
    pub(super) escape: char,
}

impl<'a> Lexer<'a> {
    /// Reads the directives; instructions come next.
    pub(super) fn new(source: &'a [u8]) -> Result<(Self, Directives), Error> {
        let rest = source.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(source);
        let mut lexer = Self { rest, line: 0, escape: '\\' };
        let mut directives = Directives::default();
        loop {
            let before = (lexer.rest, lexer.line);
            let Some((name, value)) = lexer.next_raw().and_then(directive) else {
                (lexer.rest, lexer.line) = before;
                break;
            };
            let here = Lines { first: lexer.line, last: lexer.line };
            let known = match name.as_str() {
                "syntax" => directives.syntax.replace(value.clone()).is_some(),
                "check" => directives.check.replace(value.clone()).is_some(),
                _ => {
                    let escape @ ("\\" | "`") = value.as_str() else {
                        return Err(Error { lines: here, kind: ErrorKind::EscapeDirective { value } });
                    };
                    let escape = if escape == "`" { '`' } else { '\\' };
                    lexer.escape = escape;
                    directives.escape.replace(escape).is_some()
                }
            };
            if known {
                return Err(Error { lines: here, kind: ErrorKind::RepeatedDirective { name } });
            }
        }
        Ok((lexer, directives))
    }

    /// Goes on behind the line `line`, where `rest` stands.
    pub(super) fn resume(rest: &'a [u8], line: usize, escape: char) -> Self {
        Self { rest, line, escape }
    }

    /// The number of lines that were read.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The next instruction; none at the end.
    pub(super) fn next_line(&mut self) -> Result<Option<LogicalLine>, Error> {
        let first_line = loop {
            let Some(raw) = self.next_raw() else { return Ok(None) };
            if is_comment(raw) {
                continue;
            }
            let line = self.decode(trim_newline(raw))?.trim_start();
            if !line.is_empty() {
                break line;
            }
        };
        let first = self.line;
        let (start, mut continues) = self.cut_continuation(first_line);
        let mut text = start.to_owned();
        let mut shown = start.to_owned();
        while continues {
            let Some(raw) = self.next_raw() else { break };
            if is_comment(raw) {
                continue;
            }
            let line = self.decode(trim_newline(raw))?;
            if line.trim_start().is_empty() {
                continue;
            }
            let part;
            (part, continues) = self.cut_continuation(line);
            text.push_str(part);
            let bare = part.trim_start();
            if bare.len() < part.len() || shown.ends_with(char::is_whitespace) {
                shown.truncate(shown.trim_end().len());
                shown.push(' ');
            }
            shown.push_str(bare);
        }
        let lines = Lines { first, last: self.line };
        if text.trim().is_empty() {
            return Err(Error { lines, kind: ErrorKind::NothingContinued });
        }
        Ok(Some(LogicalLine { lines, text, shown: shown.trim().to_owned() }))
    }

    /// The body of a heredoc, up to the line that holds only its name; `first` is the line of its instruction.
    pub(super) fn heredoc(&mut self, name: &str, strips_tabs: bool, first: usize) -> Result<String, Error> {
        let mut content = String::new();
        while let Some(raw) = self.next_raw() {
            let line = self.decode(raw)?;
            let mut last = line.trim_end_matches(['\r', '\n']);
            if strips_tabs {
                last = last.trim_start_matches('\t');
            }
            if last == name {
                return Ok(content);
            }
            content.push_str(line);
        }
        let lines = Lines { first, last: self.line };
        Err(Error { lines, kind: ErrorKind::UnterminatedHeredoc { name: name.to_owned() } })
    }

    /// The next line as it stands, with its end.
    fn next_raw(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let length = self.rest.iter().position(|&b| b == b'\n').map_or(self.rest.len(), |end| end + 1);
        let (line, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.line += 1;
        Some(line)
    }

    fn decode(&self, line: &'a [u8]) -> Result<&'a str, Error> {
        let fault = |kind| Error { lines: Lines { first: self.line, last: self.line }, kind };
        let text = std::str::from_utf8(line).map_err(|_| fault(ErrorKind::NotUtf8))?;
        if line.contains(&0) { Err(fault(ErrorKind::ZeroByte)) } else { Ok(text) }
    }

    /// The line without the continuation character at its end, and whether there was one. Two of them in a row
    /// are an escaped character, not a continuation.
    fn cut_continuation(&self, line: &'a str) -> (&'a str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(before) if !before.ends_with(self.escape) => (before, true),
            _ => (line, false),
        }
    }
}

/// Name and value of a directive, if the line is one.
fn directive(line: &[u8]) -> Option<(String, String)> {
    let line = std::str::from_utf8(line).ok()?.trim();
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let value = value.trim();
    let is_known = matches!(name.as_str(), "syntax" | "escape" | "check");
    (is_known && !value.is_empty() && !value.contains('\0')).then(|| (name, value.to_owned()))
}

fn is_comment(line: &[u8]) -> bool {
    match line.iter().find(|b| !b.is_ascii_whitespace() && **b != b'\x0b') {
        Some(b'#') => true,
        // White space outside ASCII is rare enough to be looked for only here.
        Some(byte) if !byte.is_ascii() => {
            std::str::from_utf8(line).is_ok_and(|line| line.trim_start().starts_with('#'))
        }
        _ => false,
    }
}

fn trim_newline(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &[u8]) -> Result<Vec<LogicalLine>, Error> {
        let (mut lexer, _) = Lexer::new(source)?;
        let mut lines = Vec::new();
        while let Some(line) = lexer.next_line()? {
            lines.push(line);
        }
        Ok(lines)
    }

    #[test]
    fn lines_are_joined() {
        let check = |source: &str, expected: &[(usize, usize, &str, &str)]| {
            let found = lines(source.as_bytes()).expect(source);
            let found: Vec<_> = found
                .iter()
                .map(|line| (line.lines.first, line.lines.last, line.text.as_str(), line.shown.as_str()))
                .collect();
            assert_eq!(found, expected, "{source:?}");
        };
        check("", &[]);
        check("\n  \n# only a comment\n", &[]);
        check("FROM a", &[(1, 1, "FROM a", "FROM a")]);
        check("\u{feff}FROM a\r\nRUN b \r\n", &[(1, 1, "FROM a", "FROM a"), (2, 2, "RUN b ", "RUN b")]);
        check("  FROM a\n\n\tRUN b", &[(1, 1, "FROM a", "FROM a"), (3, 3, "RUN b", "RUN b")]);
        check("RUN a \\\n    b", &[(1, 2, "RUN a     b", "RUN a b")]);
        check("RUN a\\\nb", &[(1, 2, "RUN ab", "RUN ab")]);
        check("RUN a \\  \t\n b", &[(1, 2, "RUN a  b", "RUN a b")]);
        check("RUN a \\\r\n b\r\n", &[(1, 2, "RUN a  b", "RUN a b")]);
        check("RUN a \\\n# note\n\n   # more\n b\n", &[(1, 5, "RUN a  b", "RUN a b")]);
        check("RUN a \\\n b # kept\n", &[(1, 2, "RUN a  b # kept", "RUN a b # kept")]);
        check("RUN a \\\\\nRUN b", &[(1, 1, "RUN a \\\\", "RUN a \\\\"), (2, 2, "RUN b", "RUN b")]);
        check("RUN a \\", &[(1, 1, "RUN a ", "RUN a")]);
        check("RUN a \\\n\n\n", &[(1, 3, "RUN a ", "RUN a")]);
        check("\\\nRUN a", &[(1, 2, "RUN a", "RUN a")]);
        check("RUN \\\n\\\n a", &[(1, 3, "RUN  a", "RUN a")]);
        check("RUN a\\ b", &[(1, 1, "RUN a\\ b", "RUN a\\ b")]);
        check(
            "# escape=`\nRUN a `\n b\\\nRUN c",
            &[(2, 3, "RUN a  b\\", "RUN a b\\"), (4, 4, "RUN c", "RUN c")],
        );
        check("RUN a\\\n\u{a0}b", &[(1, 2, "RUN a\u{a0}b", "RUN a b")]);
    }

    #[test]
    fn directives_stand_at_the_top() {
        let check = |source: &str, syntax: Option<&str>, escape: Option<char>, linter: Option<&str>| {
            let (_, directives) = Lexer::new(source.as_bytes()).expect(source);
            assert_eq!(directives.syntax.as_deref(), syntax, "{source:?}");
            assert_eq!(directives.escape, escape, "{source:?}");
            assert_eq!(directives.check.as_deref(), linter, "{source:?}");
        };
        check("# syntax=docker/dockerfile:1\n", Some("docker/dockerfile:1"), None, None);
        check("#syntax = a b \r\n# ESCAPE=`\n", Some("a b"), Some('`'), None);
        check(
            "# check=skip=all;error=true\n# escape=\\\nFROM a",
            None,
            Some('\\'),
            Some("skip=all;error=true"),
        );
        check("\u{feff}# syntax=a", Some("a"), None, None);
        check("\n# escape=`\n", None, None, None);
        check("# note\n# escape=`\n", None, None, None);
        check("# unknown=1\n# escape=`\n", None, None, None);
        check("FROM a\n# escape=`\n", None, None, None);
        check("# escape=\n", None, None, None);
        check("# es cape=`\n", None, None, None);
    }

    #[test]
    fn faults_have_their_line() {
        let check = |source: &[u8], first: usize, last: usize, kind: ErrorKind| {
            let found = lines(source);
            assert_eq!(found, Err(Error { lines: Lines { first, last }, kind }), "{source:?}");
        };
        check(b"FROM a\nRUN \xff\n", 2, 2, ErrorKind::NotUtf8);
        check(b"FROM a\nRUN \\\n a\0b\n", 3, 3, ErrorKind::ZeroByte);
        check(b"# escape=x\n", 1, 1, ErrorKind::EscapeDirective { value: "x".to_owned() });
        check(b"# escape=`\n#escape=`\n", 2, 2, ErrorKind::RepeatedDirective { name: "escape".to_owned() });
        check(b"# syntax=a\n#syntax=b\n", 2, 2, ErrorKind::RepeatedDirective { name: "syntax".to_owned() });
        check(b"FROM a\n\\\n\n", 2, 3, ErrorKind::NothingContinued);
        assert!(lines(b"# caf\xe9 \0\nFROM a\\\n #\xff\n").is_ok(), "a comment holds any bytes");
    }

    #[test]
    fn heredocs_are_read_as_they_stand() {
        let (mut lexer, _) =
            Lexer::new(b"RUN x\n  # kept \\\n\n\tEOF\nEOF\r\nRUN y\n").expect("no directive");
        lexer.next_line().expect("a line");
        assert_eq!(lexer.heredoc("EOF", false, 1).as_deref(), Ok("  # kept \\\n\n\tEOF\n"));
        assert_eq!(lexer.next_line().expect("a line").expect("a line").lines, Lines { first: 6, last: 6 });
        let (mut lexer, _) = Lexer::new(b"\ta\n\t\tEOF").expect("no directive");
        assert_eq!(lexer.heredoc("EOF", true, 1).as_deref(), Ok("\ta\n"));
        let (mut lexer, _) = Lexer::new(b"a\n EOF\n").expect("no directive");
        let fault = lexer.heredoc("EOF", true, 1).expect_err("spaces stay");
        assert_eq!(fault.lines, Lines { first: 1, last: 2 });
    }
}
