//! The apt settings that matter for fetching: a reader of apt.conf(5), whose settings form a tree of names.
//!
//! Scripts that a setting names are never executed, and `#include` is not followed.

use std::collections::BTreeMap;

/// Settings by full name in lower case, such as `acquire::http::proxy`. Of a repeated name the last value
/// stands.
#[derive(Debug, Default, Clone)]
pub(crate) struct AptConf {
    values: BTreeMap<String, String>,
}

impl AptConf {
    /// Adds the settings of one file.
    pub(crate) fn read(&mut self, text: &str) {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in (Tokens { text }) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => scopes.push(words.drain(..).next().unwrap_or_default()),
                Token::Close => {
                    scopes.pop();
                    words.clear();
                }
                Token::End => {
                    if let [name, value] = words.as_slice() {
                        let mut full = scopes.join("::");
                        if !full.is_empty() {
                            full.push_str("::");
                        }
                        full.push_str(name);
                        self.values.insert(full.to_ascii_lowercase(), value.clone());
                    }
                    words.clear();
                }
            }
        }
    }

    /// The value of a name in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// False only when the setting is there and denies.
    pub(crate) fn is_not_denied(&self, name: &str) -> bool {
        !self.get(name).is_some_and(|value| {
            matches!(
                value.to_ascii_lowercase().as_str(),
                "false" | "no" | "0" | "off" | "without" | "disable"
            )
        })
    }
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

struct Tokens<'a> {
    text: &'a str,
}

impl Tokens<'_> {
    fn skip_to(&mut self, end: &str) {
        self.text = self.text.split_once(end).map_or("", |(_, rest)| rest);
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            self.text = self.text.trim_start();
            let first = self.text.chars().next()?;
            if first == '#' || self.text.starts_with("//") {
                self.skip_to("\n");
                continue;
            }
            if self.text.starts_with("/*") {
                self.skip_to("*/");
                continue;
            }
            let punctuation = match first {
                '{' => Some(Token::Open),
                '}' => Some(Token::Close),
                ';' => Some(Token::End),
                _ => None,
            };
            if punctuation.is_some() {
                self.text = &self.text[1..];
                return punctuation;
            }
            if first == '"' {
                let rest = &self.text[1..];
                let (word, rest) = rest.split_once('"').unwrap_or((rest, ""));
                self.text = rest;
                return Some(Token::Word(word.to_owned()));
            }
            let end = self
                .text
                .find(|c: char| c.is_ascii_whitespace() || matches!(c, '{' | '}' | ';' | '"'))
                .unwrap_or(self.text.len());
            let (word, rest) = self.text.split_at(end);
            self.text = rest;
            return Some(Token::Word(word.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, name: &str, expected: Option<&str>) {
        let mut conf = AptConf::default();
        conf.read(text);
        assert_eq!(conf.get(name), expected, "{text}");
    }

    #[test]
    fn settings_are_read() {
        let name = "acquire::http::proxy";
        check("Acquire::http::Proxy \"http://proxy:3142\";", name, Some("http://proxy:3142"));
        check("Acquire { http { Proxy \"http://proxy:3142/\"; }; };", name, Some("http://proxy:3142/"));
        check("Acquire::http { Proxy DIRECT; }", name, Some("DIRECT"));
        check("// Acquire::http::Proxy \"x\";\n# y\n/* z \n*/", name, None);
        check("Acquire::http::Proxy \"a\";\nAcquire::http::Proxy \"b\";", name, Some("b"));
        check("Acquire::http::Proxy \"\";", name, None);
        check("DPkg::Post-Invoke { \"rm -f /x || true\"; };\nAcquire::http::Proxy \"a\";", name, Some("a"));
        check("Acquire::http::Proxy \"unterminated", name, None);
        check("}}};;{", name, None);
    }

    #[test]
    fn denial_is_read() {
        let mut conf = AptConf::default();
        conf.read("Acquire::Check-Valid-Until \"false\";");
        assert!(!conf.is_not_denied("acquire::check-valid-until"));
        assert!(conf.is_not_denied("acquire::check-date"));
    }
}
