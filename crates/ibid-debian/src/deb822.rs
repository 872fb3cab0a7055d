//! Paragraphs of `Name: value` fields, the form of apt sources, release files, package indexes and the
//! control files of packages (deb822(5)).
//!
//! Reading is by line and keeps one paragraph, so that an index of any length needs little memory.

use std::io::{self, BufRead};

/// Longest line that is read, so that hostile input cannot fill the memory.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// One paragraph: fields in order. A continuation line is kept after a `\n`, without its leading space.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Paragraph {
    fields: Vec<(String, String)>,
}

impl Paragraph {
    /// The value of a field; names are compared without regard to case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// All fields in order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value's words, over all its lines.
    pub(crate) fn words(&self, name: &str) -> Vec<String> {
        self.get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }
}

/// Reads paragraphs one after another.
pub(crate) struct Paragraphs<R> {
    input: R,
    line: String,
}

impl<R: BufRead> Paragraphs<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, line: String::new() }
    }

    /// The next paragraph, or `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Paragraph>> {
        let mut paragraph = Paragraph::default();
        while self.read_line()? {
            let line = self.line.trim_end_matches(['\n', '\r']);
            if line.starts_with('#') {
                continue;
            }
            if line.trim().is_empty() {
                if paragraph.fields.is_empty() {
                    continue;
                }
                break;
            }
            if let Some(continuation) = line.strip_prefix([' ', '\t']) {
                let Some((_, value)) = paragraph.fields.last_mut() else {
                    return Err(invalid(format!("continuation line before any field: `{line}`")));
                };
                value.push('\n');
                value.push_str(continuation.trim_end());
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(invalid(format!("line without a colon: `{line}`")));
            };
            paragraph.fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        Ok((!paragraph.fields.is_empty()).then_some(paragraph))
    }

    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let length = io::Read::take(&mut self.input, LINE_BYTES_MAX).read_line(&mut self.line)?;
        if length as u64 == LINE_BYTES_MAX && !self.line.ends_with('\n') {
            return Err(invalid(format!("line longer than {LINE_BYTES_MAX} bytes")));
        }
        Ok(length > 0)
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Vec<Vec<(String, String)>>> {
        let mut paragraphs = Paragraphs::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(paragraph) = paragraphs.next()? {
            all.push(paragraph.fields);
        }
        Ok(all)
    }

    fn check(text: &str, expected: &[&[(&str, &str)]]) {
        let expected: Vec<Vec<_>> = expected
            .iter()
            .map(|fields| {
                fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
            })
            .collect();
        assert_eq!(read(text).expect("reads"), expected, "{text:?}");
    }

    #[test]
    fn paragraphs_are_read() {
        check("", &[]);
        check("\n\n# comment\n\n", &[]);
        check("A: 1\nB:2 \n", &[&[("A", "1"), ("B", "2")]]);
        check("A: 1\n\n\nB: 2", &[&[("A", "1")], &[("B", "2")]]);
        check("A:\n one\n two\n# no\n .\n three\n", &[&[("A", "\none\ntwo\n.\nthree")]]);
        check("A: 1\r\n\r\nB: x: y\r\n", &[&[("A", "1")], &[("B", "x: y")]]);
    }

    #[test]
    fn broken_input_is_refused() {
        assert!(read(" lost\n").is_err());
        assert!(read("no colon\n").is_err());
        assert!(Paragraphs::new(&b"A: \xff\n"[..]).next().is_err());
    }
}
