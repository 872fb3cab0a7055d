//! Cutting the text of an instruction: keyword, flags, words, JSON arrays, heredoc markers.

use super::environment::Environment;
use super::expand::{Expander, Quotes};
use super::instruction::Heredoc;

/// White space between words. Other white space of Unicode belongs to the word.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// The first word and the rest, trimmed.
pub(super) fn split_first(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(is_blank).map_or((text, ""), |(first, rest)| (first, rest.trim()))
}

/// Words at white space; quotes mean nothing yet.
pub(super) fn split_blank(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Name and rest of `NAME some value`: the form of `ENV` and `LABEL` without `=`.
pub(super) fn split_name(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once(is_blank)?;
    Some((name, rest.trim_start_matches(is_blank)))
}

/// The flags at the start, without their `--` and without quotes, and what follows them. A lone `--` ends
/// them.
pub(super) fn split_flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while let Some(flag) = rest.strip_prefix("--") {
        let mut word = String::new();
        let mut quote = None;
        let mut chars = flag.chars();
        while let Some(c) = chars.next() {
            match (c, quote) {
                ('\\', _) => word.extend(chars.next()),
                (c, Some(open)) if c == open => quote = None,
                (c, Some(_)) => word.push(c),
                ('"' | '\'', None) => quote = Some(c),
                (c, None) if c.is_whitespace() => break,
                (c, None) => word.push(c),
            }
        }
        rest = chars.as_str().trim_start();
        if word.is_empty() {
            break;
        }
        flags.push(word);
    }
    (flags, rest.trim())
}

/// Words at white space outside quotes. Quotes and escapes stay, for they are worked off when the words are
/// expanded.
pub(super) fn split_quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // At the very end there is nothing to escape.
            let Some(next) = chars.next() else { break };
            word.push(c);
            word.push(next);
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What a text that may be a JSON array is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    Strings(Vec<String>),
    /// An array with something else in it.
    NotStrings,
    /// No JSON, or no array.
    No,
}

/// Reads a JSON array of strings. What is nearly one, such as `['a']` or `["a",]`, is no JSON.
pub(super) fn json_strings(text: &str) -> Json {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Json::No;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Json::No };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    });
    strings.collect::<Option<_>>().map_or(Json::NotStrings, Json::Strings)
}

/// The heredocs that a line announces, still without their content.
pub(super) fn heredocs(line: &str) -> Vec<Heredoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let environment = Environment::default();
    let rules = Expander {
        quotes: Quotes::Kept,
        keeps_escapes: true,
        keeps_unset: true,
        ..Expander::new('\\', &environment, usize::MAX)
    };
    // A line that cannot be read this way, such as one with a lone quote, is left to the shell as it is.
    let words = rules.words(line).unwrap_or_default();
    words.iter().filter_map(|word| heredoc(word)).collect()
}

/// The heredoc that a word announces: `<<NAME`, `<<-NAME` or `<<"NAME"`, with a file descriptor in front if
/// wanted.
pub(super) fn heredoc(word: &str) -> Option<Heredoc> {
    let (name, strips_tabs) = {
        let marker = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        marker.strip_prefix('-').map_or((marker, false), |name| (name, true))
    };
    if name.contains('<') {
        return None;
    }
    let environment = Environment::default();
    let plain = Expander { keeps_unset: true, ..Expander::new('\\', &environment, usize::MAX) };
    let quoted = Expander { quotes: Quotes::Kept, ..plain };
    let [name_plain] = <[String; 1]>::try_from(plain.words(name).ok()?).ok()?;
    let [name_quoted] = <[String; 1]>::try_from(quoted.words(name).ok()?).ok()?;
    let quotes = |text: &str| text.chars().filter(|c| matches!(c, '"' | '\'')).count();
    Some(Heredoc {
        expands: quotes(&name_plain) == quotes(&name_quoted),
        name: name_plain,
        strips_tabs,
        content: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_split() {
        let check =
            |text: &str, first: &str, rest: &str| assert_eq!(split_first(text), (first, rest), "{text:?}");
        check("FROM a b ", "FROM", "a b");
        check(" RUN\t\t a", "RUN", "a");
        check("RUN", "RUN", "");
        check("RUN\u{a0}a b", "RUN\u{a0}a", "b");
    }

    #[test]
    fn flags_are_split() {
        let check = |text: &str, flags: &[&str], rest: &str| {
            let (found, found_rest) = split_flags(text);
            assert_eq!(
                (found.as_slice(), found_rest),
                (flags.iter().map(|&f| f.to_owned()).collect::<Vec<_>>().as_slice(), rest),
                "{text:?}"
            );
        };
        check("a --b", &[], "a --b");
        check("--a=b  c d", &["a=b"], "c d");
        check("--a --b=c\td", &["a", "b=c"], "d");
        check("--a=\"x y\" --b='\"' z", &["a=x y", "b=\""], "z");
        check("--a=\\\"x\\ y z", &["a=\"x y"], "z");
        check("-- --a b", &[], "--a b");
        check("--a -- --b", &["a"], "--b");
        check("--", &[], "");
        check("-a b", &[], "-a b");
        check("--ä=ü x", &["ä=ü"], "x");
        check("--a='x y", &["a=x y"], "");
    }

    #[test]
    fn quoted_words_are_split() {
        let check =
            |text: &str, expected: &[&str]| assert_eq!(split_quoted(text, '\\'), expected, "{text:?}");
        check("", &[]);
        check(" a  b ", &["a", "b"]);
        check("a=b\\ c d=\"e f\"", &["a=b\\ c", "d=\"e f\""]);
        check("a='b \\' c", &["a='b \\'", "c"]);
        check("a=\"b \\\" c\" d", &["a=\"b \\\" c\"", "d"]);
        check("a=\"b", &["a=\"b"]);
        check("a\\", &["a"]);
        check("\"\" ''", &["\"\"", "''"]);
        check("a=\\'b c", &["a=\\'b", "c"]);
        check("a=\"b\\", &["a=\"b"]);
        check("a\u{a0}b", &["a", "b"]);
    }

    #[test]
    fn json_arrays() {
        let check = |text: &str, expected: Json| assert_eq!(json_strings(text), expected, "{text:?}");
        let strings = |texts: &[&str]| Json::Strings(texts.iter().map(|&t| t.to_owned()).collect());
        check("[]", strings(&[]));
        check(" [ \"a\" , \"b c\" ]", strings(&["a", "b c"]));
        check("[\"\\u00e4\\n\\\\\"]", strings(&["ä\n\\"]));
        check("[\"a\",]", Json::No);
        check("['a']", Json::No);
        check("[\"a\"] b", Json::No);
        check("[\"\\a\"]", Json::No);
        check("[ -f x ] && y", Json::No);
        check("[\"a\", 1]", Json::NotStrings);
        check("[null]", Json::NotStrings);
        check("[[\"a\"]]", Json::NotStrings);
        check("\"a\"", Json::No);
        check("{}", Json::No);
        check("", Json::No);
    }

    #[test]
    fn heredocs_are_found() {
        let check = |line: &str, expected: &[(&str, bool, bool)]| {
            let found = heredocs(line);
            let found: Vec<_> = found.iter().map(|h| (h.name.as_str(), h.expands, h.strips_tabs)).collect();
            assert_eq!(found, expected, "{line:?}");
        };
        check("RUN <<EOF", &[("EOF", true, false)]);
        check("RUN <<-EOF cat", &[("EOF", true, true)]);
        check("COPY <<\"A\" <<'B' <<C /d/", &[("A", false, false), ("B", false, false), ("C", true, false)]);
        check("RUN cat 3<<X >y", &[("X", true, false)]);
        check("RUN cat <<E\"O\"F", &[("EOF", false, false)]);
        check("RUN cat <<\\EOF", &[("EOF", true, false)]);
        check("RUN cat <<'a b'", &[("a b", false, false)]);
        check("RUN echo $((1<<2)) a<<b", &[]);
        check("RUN cat <<< word", &[]);
        check("RUN cat << EOF", &[]);
        check("RUN echo '<<A' \"<<B\"", &[]);
        check("RUN echo \\<<A", &[]);
        check("RUN echo it's <<A", &[]);
        check("RUN cat <<''", &[]);
        check("RUN echo ${x:=1} <<A", &[]);
        check("RUN echo ${x:-1} \"$y\" <<A", &[("A", true, false)]);
    }
}
