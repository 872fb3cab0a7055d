//! One record of comma-separated values (RFC 4180), as which Docker's options such as `type=cache,target=/c` are written.

/// Why a text is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuoteFault {
    /// A quoted field never ends.
    #[error("a double quote is not closed")]
    Open,
    /// A quote inside a field that does not start with one, or text behind a closing one.
    #[error("a double quote stands inside a field")]
    Inside,
}

/// The fields of a record: up to the next comma, or in double quotes that are doubled inside.
///
/// # Errors
///
/// Quotes that do not fit together.
pub fn fields(text: &str) -> Result<Vec<String>, QuoteFault> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let field;
        (field, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        let Some(next) = rest.strip_prefix(',') else { return Ok(fields) };
        rest = next;
    }
}

fn plain_field(text: &str) -> Result<(String, &str), QuoteFault> {
    let (field, rest) = text.split_at(text.find(',').unwrap_or(text.len()));
    if field.contains('"') { Err(QuoteFault::Inside) } else { Ok((field.to_owned(), rest)) }
}

/// A field whose opening quote is gone already.
fn quoted_field(text: &str) -> Result<(String, &str), QuoteFault> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, behind) = rest.split_once('"').ok_or(QuoteFault::Open)?;
        field.push_str(part);
        match behind.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if behind.is_empty() || behind.starts_with(',') => return Ok((field, behind)),
            None => return Err(QuoteFault::Inside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let check = |text: &str, expected: Result<&[&str], QuoteFault>| {
            let expected = expected.map(|list| list.iter().map(|&field| field.to_owned()).collect());
            assert_eq!(fields(text), expected, "{text:?}");
        };
        check("", Ok(&[""]));
        check("a", Ok(&["a"]));
        check("a,b=c d,", Ok(&["a", "b=c d", ""]));
        check("\"a,b\",c", Ok(&["a,b", "c"]));
        check("x,\"a \"\"b\"\"\"", Ok(&["x", "a \"b\""]));
        check("\"\"", Ok(&[""]));
        check("a,\"b", Err(QuoteFault::Open));
        check("\"a\"\"", Err(QuoteFault::Open));
        check("a\"b\",c", Err(QuoteFault::Inside));
        check("\"a\"b", Err(QuoteFault::Inside));
        check("ä,\"ü,\"", Ok(&["ä", "ü,"]));
    }
}
