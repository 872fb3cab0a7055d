//! Tables of values with a separator: a record a line, quotes as in RFC 4180. A field that looks like a number is one.

use super::{Comparison, Incomparable, malformed, shape};

pub(super) fn compare(
    first: &[u8],
    second: &[u8],
    separator: char,
    comparison: &mut Comparison,
) -> Result<(), Incomparable> {
    let (mut first, mut second) =
        (Records::new("first", first, separator)?, Records::new("second", second, separator)?);
    let mut names: Option<Vec<String>> = None;
    loop {
        let line = first.line;
        let (one, other) = match (first.next()?, second.next()?) {
            (None, None) => return Ok(()),
            (Some(_), None) => return Err(shape(format!("line {line}"), "the second file ends before it")),
            (None, Some(_)) => return Err(shape(format!("line {line}"), "the second file has more lines")),
            (Some(one), Some(other)) => (one, other),
        };
        if one.len() != other.len() {
            let reason = format!("{} fields instead of {}", other.len(), one.len());
            return Err(shape(format!("line {line}"), reason));
        }
        for (column, (one, other)) in one.iter().zip(&other).enumerate() {
            let place = || match names.as_ref().and_then(|names| names.get(column)) {
                Some(name) => format!("line {line}, column {name}"),
                None => format!("line {line}, column {}", column + 1),
            };
            match (number(one), number(other)) {
                (Some(one), Some(other)) => comparison.pair(one, other, place),
                _ if one == other => {}
                _ => return Err(shape(place(), format!("`{other}` instead of `{one}`"))),
            }
        }
        // A first line without any number names the columns.
        if names.is_none() {
            names = Some(if one.iter().any(|field| number(field).is_some()) { Vec::new() } else { one });
        }
    }
}

fn number(field: &str) -> Option<f64> {
    let field = field.trim();
    match field.to_ascii_lowercase().as_str() {
        "nan" => return Some(f64::NAN),
        "inf" | "+inf" | "infinity" => return Some(f64::INFINITY),
        "-inf" | "-infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    // What Rust reads besides is covered above.
    field.bytes().any(|byte| byte.is_ascii_digit()).then(|| field.parse().ok())?
}

/// The records of a file, one after the other.
struct Records<'a> {
    which: &'static str,
    rest: &'a str,
    separator: char,
    /// Number of the line that comes next.
    line: usize,
}

impl<'a> Records<'a> {
    fn new(which: &'static str, bytes: &'a [u8], separator: char) -> Result<Self, Incomparable> {
        let text = str::from_utf8(bytes).map_err(|_| malformed(which, "table", "it is not UTF-8"))?;
        Ok(Self { which, rest: text.strip_prefix('\u{feff}').unwrap_or(text), separator, line: 1 })
    }

    fn next(&mut self) -> Result<Option<Vec<String>>, Incomparable> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = self.line;
        let mut fields = Vec::new();
        loop {
            let field = match self.rest.strip_prefix('"') {
                Some(quoted) => {
                    self.rest = quoted;
                    self.quoted(start)?
                }
                None => {
                    let separator = self.separator;
                    let end = self.rest.find([separator, '\n']).unwrap_or(self.rest.len());
                    let field = &self.rest[..end];
                    self.rest = &self.rest[end..];
                    field.strip_suffix('\r').unwrap_or(field).to_owned()
                }
            };
            fields.push(field);
            self.rest =
                self.rest.strip_prefix("\r").filter(|rest| rest.starts_with('\n')).unwrap_or(self.rest);
            if let Some(rest) = self.rest.strip_prefix(self.separator) {
                self.rest = rest;
            } else if let Some(rest) = self.rest.strip_prefix('\n') {
                self.rest = rest;
                self.line += 1;
                return Ok(Some(fields));
            } else if self.rest.is_empty() {
                return Ok(Some(fields));
            } else {
                let reason = format!("line {}: text behind a closing quote", self.line);
                return Err(malformed(self.which, "table", reason));
            }
        }
    }

    /// A field whose opening quote is gone already: up to the next quote that is not doubled.
    fn quoted(&mut self, start: usize) -> Result<String, Incomparable> {
        let mut field = String::new();
        loop {
            let Some((part, behind)) = self.rest.split_once('"') else {
                return Err(malformed(self.which, "table", format!("line {start}: a quote is not closed")));
            };
            field.push_str(part);
            self.line += part.matches('\n').count();
            match behind.strip_prefix('"') {
                Some(next) => {
                    field.push('"');
                    self.rest = next;
                }
                None => {
                    self.rest = behind;
                    return Ok(field);
                }
            }
        }
    }
}
