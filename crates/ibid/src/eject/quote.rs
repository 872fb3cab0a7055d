//! Text inside what other programs read: one word of a shell, one string of YAML.

/// One word of a POSIX shell. Plain words stay as they are.
pub fn shell(text: &str) -> String {
    let is_plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | '@' | '+' | ',')
    };
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    if text.contains(['\'', '$', '`']) {
        return format!("\"{}\"", in_double_quotes(text));
    }
    format!("'{text}'")
}

/// A word of a shell that stays one between double quotes, as after `"$PWD/`.
pub fn in_double_quotes(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

/// A string of YAML, which takes those of JSON, in which Compose replaces no variable.
pub fn compose(text: &str) -> String {
    serde_json::to_string(&text.replace('$', "$$")).expect("text is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_one_word() {
        let check = |text: &str, expected: &str| assert_eq!(shell(text), expected);
        check("mnist", "mnist");
        check("a b", "'a b'");
        check("", "''");
        check("it's", "\"it's\"");
        check("$HOME", "\"\\$HOME\"");
        check("~/x", "'~/x'");
        check("a\nb", "'a\nb'");
        assert_eq!(in_double_quotes("a \"b\" $c `d` \\"), "a \\\"b\\\" \\$c \\`d\\` \\\\");
        assert_eq!(compose("$a \"b\""), "\"$$a \\\"b\\\"\"");
    }
}
