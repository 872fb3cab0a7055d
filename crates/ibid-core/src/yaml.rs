//! YAML as JSON's values: what configuration files of others are written in. JSON itself is YAML, too.

use serde_json::{Map, Number, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// Largest document that is read, bytes.
pub const BYTES_MAX: usize = 4 << 20;
/// Most aliases of one document: aliases of aliases make a small text a large document, while it is read.
const ALIASES_MAX: usize = 16;
/// Most values that one document may have, with those that aliases repeat.
const VALUES_MAX: usize = 200_000;

/// Why a text is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The syntax.
    #[error("line {line}: {what}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The size.
    #[error("it is too large")]
    TooLarge,
    /// Something that JSON has no word for.
    #[error("{0} is no text, number, list or table")]
    NoValue(String),
}

/// Reads one document; none at all is null. Keys of tables become text.
pub fn parse(text: &str) -> Result<Value, Error> {
    let bytes = text.as_bytes();
    let is_alias = |pair: &[u8]| b" \t[,{:-".contains(&pair[0]) && pair[1] == b'*';
    let aliases = if text.contains('&') { bytes.windows(2).filter(|pair| is_alias(pair)).count() } else { 0 };
    if text.len() > BYTES_MAX || aliases > ALIASES_MAX {
        return Err(Error::TooLarge);
    }
    let documents = YamlLoader::load_from_str(text)
        .map_err(|error| Error::Syntax { line: error.marker().line(), what: error.info().to_owned() })?;
    let mut left = VALUES_MAX;
    documents.into_iter().next().map_or(Ok(Value::Null), |document| value(document, &mut left))
}

fn value(yaml: Yaml, left: &mut usize) -> Result<Value, Error> {
    *left = left.checked_sub(1).ok_or(Error::TooLarge)?;
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(flag) => Value::Bool(flag),
        Yaml::Integer(number) => Value::Number(number.into()),
        Yaml::Real(text) => match text.parse().ok().and_then(Number::from_f64) {
            Some(number) => Value::Number(number),
            None => Value::String(text),
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Array(items) => {
            Value::Array(items.into_iter().map(|item| value(item, left)).collect::<Result<_, _>>()?)
        }
        Yaml::Hash(entries) => {
            let mut map = Map::new();
            for (key, item) in entries {
                let key = match key {
                    Yaml::String(key) | Yaml::Real(key) => key,
                    Yaml::Integer(key) => key.to_string(),
                    Yaml::Boolean(key) => key.to_string(),
                    key => return Err(Error::NoValue(format!("{key:?}"))),
                };
                map.insert(key, value(item, left)?);
            }
            Value::Object(map)
        }
        yaml @ (Yaml::Alias(_) | Yaml::BadValue) => return Err(Error::NoValue(format!("{yaml:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_become_values() {
        let check = |text: &str, expected: Value| assert_eq!(parse(text), Ok(expected), "{text}");
        check("", Value::Null);
        check("a: 1\nb: [x, 'y', true, ~, 1.5]\n", json!({"a": 1, "b": ["x", "y", true, null, 1.5]}));
        check("{\"kind\": \"a/b\", \"n\": [{\"x\": 0}]}", json!({"kind": "a/b", "n": [{"x": 0}]}));
        check("- a=1.20\n- pip:\n  - x==1\n", json!(["a=1.20", {"pip": ["x==1"]}]));
        check("# nothing\n", Value::Null);
        check("a: &x [1]\nb: *x\n", json!({"a": [1], "b": [1]}));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        assert!(matches!(parse("a: [1\nb: 2\n"), Err(Error::Syntax { .. })));
        assert!(matches!(parse("a: b: c"), Err(Error::Syntax { line: 1, .. })));
        assert_eq!(parse(&"x".repeat(BYTES_MAX + 1)), Err(Error::TooLarge));
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..5 {
            let before = format!("*a{}", n - 1);
            laughs.push_str(&format!("a{n}: &a{n} [{}]\n", [before.as_str(); 20].join(", ")));
        }
        assert_eq!(parse(&laughs), Err(Error::TooLarge));
    }
}
