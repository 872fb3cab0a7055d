//! `--env-file FILE`: variables, a line each, as Docker reads them: nothing is quoted or expanded.

/// A variable of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Its name.
    pub name: String,
    /// Its value; none takes that of the environment.
    pub value: Option<String>,
}

/// Reads such a file; the error is the number of a line, counted from 1, and what is wrong with it.
pub fn env_file(text: &str) -> Result<Vec<Assignment>, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line.trim_end(), None),
        };
        if name.is_empty() {
            return Err((number + 1, "the variable has no name".to_owned()));
        }
        if name.contains(char::is_whitespace) {
            return Err((number + 1, format!("the name `{name}` contains a space")));
        }
        if line.contains('\0') {
            return Err((number + 1, "there is a zero byte in it".to_owned()));
        }
        found.push(Assignment { name: name.to_owned(), value });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_a_line() {
        let check = |text: &str, expected: Result<&[(&str, Option<&str>)], usize>| {
            let parsed = env_file(text);
            match (&parsed, expected) {
                (Ok(found), Ok(expected)) => {
                    let found: Vec<_> =
                        found.iter().map(|it| (it.name.as_str(), it.value.as_deref())).collect();
                    assert_eq!(found, expected, "{text:?}");
                }
                (Err((line, _)), Err(expected)) => assert_eq!(*line, expected, "{text:?}"),
                _ => panic!("{text:?}: {parsed:?}"),
            }
        };
        check("", Ok(&[]));
        check(
            "# note\n\n  A=1\nB=x y \"z\" # no note\nC\nD=",
            Ok(&[("A", Some("1")), ("B", Some("x y \"z\" # no note")), ("C", None), ("D", Some(""))]),
        );
        check("\u{feff}A=b=c\r\n", Ok(&[("A", Some("b=c"))]));
        check("A=1\n=2", Err(2));
        check("export A=1", Err(1));
        check("A B", Err(1));
    }
}
