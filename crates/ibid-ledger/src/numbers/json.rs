//! JSON (RFC 8259) as programs write it: also several values in one file, and `NaN` and `Infinity` as Python's writer has them.

use std::collections::BTreeMap;

use super::{Comparison, Incomparable, malformed, shape};

/// Values within values. Each level takes some memory of the stack.
const NESTED_MAX: usize = 128;

/// A value, with texts and numbers as they stand in the file.
#[derive(Debug, PartialEq)]
enum Value<'a> {
    /// `null`, `true`, `false`.
    Word(&'a str),
    Text(&'a str),
    Number(f64, &'a str),
    List(Vec<Value<'a>>),
    Object(BTreeMap<&'a str, Value<'a>>),
}

pub(super) fn compare(first: &[u8], second: &[u8], comparison: &mut Comparison) -> Result<(), Incomparable> {
    let first = values("first", first)?;
    let second = values("second", second)?;
    if first.len() != second.len() {
        return Err(shape("the file", format!("{} values instead of {}", second.len(), first.len())));
    }
    let is_one = first.len() == 1;
    for (number, (first, second)) in first.iter().zip(&second).enumerate() {
        let place = if is_one { String::new() } else { format!("value {}: ", number + 1) };
        compare_values(first, second, &place, comparison)?;
    }
    Ok(())
}

fn compare_values(
    first: &Value,
    second: &Value,
    place: &str,
    comparison: &mut Comparison,
) -> Result<(), Incomparable> {
    let here = || if place.is_empty() { "the value".to_owned() } else { shown(place) };
    match (first, second) {
        (Value::Number(first, text), Value::Number(second, other)) => {
            // Digits that a double cannot hold differ nonetheless.
            let second = if first == second && text != other && is_long(text, other) {
                return Err(shape(here(), format!("{other} instead of {text}")));
            } else {
                *second
            };
            comparison.pair(*first, second, here);
            Ok(())
        }
        (Value::List(first), Value::List(second)) => {
            if first.len() != second.len() {
                return Err(shape(here(), format!("{} elements instead of {}", second.len(), first.len())));
            }
            for (number, (first, second)) in first.iter().zip(second).enumerate() {
                compare_values(first, second, &format!("{place}[{number}]"), comparison)?;
            }
            Ok(())
        }
        (Value::Object(first), Value::Object(second)) => {
            if let Some(key) = first.keys().find(|key| !second.contains_key(*key)) {
                return Err(shape(here(), format!("`{key}` is missing")));
            }
            for (key, second) in second {
                let Some(first) = first.get(key) else {
                    return Err(shape(here(), format!("`{key}` is new")));
                };
                let dot = if place.is_empty() || place.ends_with(' ') { "" } else { "." };
                compare_values(first, second, &format!("{place}{dot}{key}"), comparison)?;
            }
            Ok(())
        }
        (first, second) if first == second => Ok(()),
        (first, second) => Err(shape(here(), format!("{} instead of {}", second.shown(), first.shown()))),
    }
}

fn shown(place: &str) -> String {
    place.trim_end_matches([' ', ':']).to_owned()
}

/// Whether two ways to write a number that are the same double may be two numbers.
fn is_long(first: &str, second: &str) -> bool {
    let is_integer = |text: &str| text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
    is_integer(first) && is_integer(second) && first.trim_start_matches('-').len() > 15
}

impl Value<'_> {
    fn shown(&self) -> String {
        match self {
            Self::Word(word) => (*word).to_owned(),
            Self::Text(text) => {
                let cut: String = text.chars().take(40).collect();
                let dots = if cut.len() < text.len() { "…" } else { "" };
                format!("\"{cut}{dots}\"")
            }
            Self::Number(_, text) => (*text).to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Object(_) => "an object".to_owned(),
        }
    }
}

fn values<'a>(which: &'static str, bytes: &'a [u8]) -> Result<Vec<Value<'a>>, Incomparable> {
    let text = str::from_utf8(bytes).map_err(|_| malformed(which, "JSON", "it is not UTF-8"))?;
    let mut reader = Reader { text, at: 0 };
    let mut values = Vec::new();
    reader.skip_space();
    while reader.at < text.len() {
        values.push(reader.value(0).map_err(|reason| {
            let line = text[..reader.at.min(text.len())].matches('\n').count() + 1;
            malformed(which, "JSON", format!("line {line}: {reason}"))
        })?);
        reader.skip_space();
    }
    Ok(values)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, &'static str> {
        if depth == NESTED_MAX {
            return Err("it is nested too deep");
        }
        match self.next() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') if !self.text[self.at..].starts_with("-I") => self.number(),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, &'static str> {
        self.at += 1;
        let mut members = BTreeMap::new();
        self.skip_space();
        while !self.take(b'}') {
            if !members.is_empty() && !self.take(b',') {
                return Err("expected `,` or `}`");
            }
            self.skip_space();
            if self.next() != Some(b'"') {
                return Err("expected a key");
            }
            let key = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return Err("expected `:`");
            }
            self.skip_space();
            let value = self.value(depth + 1)?;
            if members.insert(key, value).is_some() {
                return Err("a key stands twice in an object");
            }
            self.skip_space();
        }
        Ok(Value::Object(members))
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, &'static str> {
        self.at += 1;
        let mut elements = Vec::new();
        self.skip_space();
        while !self.take(b']') {
            if !elements.is_empty() && !self.take(b',') {
                return Err("expected `,` or `]`");
            }
            self.skip_space();
            elements.push(self.value(depth + 1)?);
            self.skip_space();
        }
        Ok(Value::List(elements))
    }

    /// The text between the quotes, with its escapes as they are: one program writes the same text the same way.
    fn string(&mut self) -> Result<&'a str, &'static str> {
        self.at += 1;
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.text[start..self.at - 1]);
                }
                b'\\' => self.at += 2,
                b'\n' => return Err("a text is not closed"),
                _ => self.at += 1,
            }
        }
        Err("a text is not closed")
    }

    fn number(&mut self) -> Result<Value<'a>, &'static str> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest
            .iter()
            .take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
            .count();
        let text = &self.text[self.at..self.at + length];
        let value = text.parse().map_err(|_| "expected a number")?;
        self.at += length;
        Ok(Value::Number(value, text))
    }

    fn word(&mut self) -> Result<Value<'a>, &'static str> {
        let rest = &self.text[self.at..];
        for (word, number) in
            [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)]
        {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(Value::Number(number, word));
            }
        }
        for word in ["null", "true", "false"] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(Value::Word(word));
            }
        }
        Err("expected a value")
    }
}
