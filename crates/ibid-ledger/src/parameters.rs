//! A program's arguments as named values, in the forms that people use: nobody tells ibid which there are.
//!
//! | written | read |
//! |---|---|
//! | `--n-epochs 5`, `--n-epochs=5`, `-n-epochs 5` | `n_epochs = 5` |
//! | `-x 3`, `-x3` | `x = 3` |
//! | `--sizes 1 2 3` | `sizes = 1 2 3`; only numbers are taken together |
//! | `--verbose` | `verbose = true` |
//! | `model.width=3`, `+model.width=3` | `model.width = 3` |
//!
//! A word that an option could take is taken for its value. Of an option that is given twice the last value counts. What is
//! behind `--` and other words have no name: they are in the record's arguments only.

use std::collections::BTreeMap;
use std::ops::Range;

/// The named values of these arguments.
pub fn parameters(arguments: &[String]) -> BTreeMap<String, String> {
    named(arguments)
        .into_iter()
        .map(|named| {
            let value = named.values(arguments).collect::<Vec<_>>().join(" ");
            (named.name, if named.values.is_empty() { "true".to_owned() } else { value })
        })
        .collect()
}

/// Where the values of a name are.
pub(crate) struct Named {
    pub(crate) name: String,
    /// The arguments that hold its values; none for an option without one.
    pub(crate) values: Range<usize>,
    /// Where the value starts in its argument, when that holds the name too.
    pub(crate) at: usize,
}

impl Named {
    fn values<'a>(&self, arguments: &'a [String]) -> impl Iterator<Item = &'a str> {
        let at = self.at;
        arguments[self.values.clone()].iter().map(move |argument| &argument[at..])
    }
}

/// Finds names and their values.
pub(crate) fn named(arguments: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut position = 0;
    while let Some(argument) = arguments.get(position) {
        position += 1;
        if argument == "--" {
            break;
        }
        let option = is_option(argument).then(|| argument.trim_start_matches('-'));
        let text = option.unwrap_or_else(|| argument.trim_start_matches('+'));
        let before = argument.len() - text.len();
        if let Some((name, _)) = text.split_once('=') {
            if is_name(name) {
                let at = before + name.len() + 1;
                found.push(Named { name: plain(name), values: position - 1..position, at });
            }
            continue;
        }
        let Some(name) = option else { continue };
        // `-j4`
        if !argument.starts_with("--")
            && let Some((at, _)) = name.char_indices().nth(1)
            && is_number(&name[at..])
        {
            found.push(Named {
                name: name[..at].to_owned(),
                values: position - 1..position,
                at: before + at,
            });
            continue;
        }
        if !is_name(name) {
            continue;
        }
        let start = position;
        if arguments.get(position).is_some_and(|next| !is_option(next)) {
            position += 1;
            if is_number(&arguments[start]) {
                position += arguments[position..].iter().take_while(|next| is_number(next)).count();
            }
        }
        found.push(Named { name: plain(name), values: start..position, at: 0 });
    }
    found
}

/// `-x`, `--x`, and no negative number or `-` alone.
fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-') && !is_number(word)
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
        && word.parse::<f64>().is_ok()
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | ':'))
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    fn check(words: &str, expected: &[(&str, &str)]) {
        let arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let found = super::parameters(&arguments);
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, expected, "{words}");
    }

    #[test]
    fn arguments_are_named_values() {
        check("--n-epochs 5 --lr=0.1", &[("lr", "0.1"), ("n_epochs", "5")]);
        check("-x 3 -j4 -v", &[("j", "4"), ("v", "true"), ("x", "3")]);
        check("--offset -1.5 --flag --name a", &[("flag", "true"), ("name", "a"), ("offset", "-1.5")]);
        check("--sizes 1 2 3 file", &[("sizes", "1 2 3")]);
        check("train a.b=3 +c/d=x ++e= ~f", &[("a.b", "3"), ("c/d", "x"), ("e", "")]);
        check("--lr 1 --lr 2", &[("lr", "2")]);
        check("--a -- --b 1 c=2", &[("a", "true")]);
        check("- file.txt 3 --=1 --1x 2 =x", &[]);
        check("--text=größe=1 --größe 2", &[("größe", "2"), ("text", "größe=1")]);
    }
}
