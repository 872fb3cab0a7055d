//! Quotes, escapes and variables in the words of an instruction.
//!
//! The rules are those of the Dockerfile reference ("Environment replacement") as BuildKit carries them out:
//! single quotes keep everything; double quotes keep everything but variables and the escape character before
//! `"`, `$` and itself; elsewhere the escape character keeps the next character. A variable that is not set is empty.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::environment::Environment;
use super::error::ExpansionFault;
use super::pattern::{Extent, Pattern};

/// Deepest nesting of variables in variables, such as `${a:-${b:-c}}`.
const DEPTH_MAX: usize = 64;

/// How a text is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expander<'a> {
    /// The character that takes the meaning from the next one: `\`, or what `# escape=` says.
    pub(super) escape: char,
    /// The variables.
    pub(super) environment: &'a Environment,
    /// What becomes of quotes.
    pub(super) quotes: Quotes,
    /// Whether escape characters stay in the result.
    pub(super) keeps_escapes: bool,
    /// Whether variables that are not set stay as they are written.
    pub(super) keeps_unset: bool,
    /// Most bytes the result may have.
    pub(super) limit: usize,
    /// Where to note the variables that are not set.
    pub(super) unset: Option<&'a RefCell<Unset>>,
}

/// Variables that a text uses and that are not set.
#[derive(Debug, Default)]
pub(super) struct Unset {
    /// Nothing is said for that case: `$name`, `${name#pattern}`.
    pub(super) plain: BTreeSet<String>,
    /// The text says what is to be then: `${name:-value}`.
    pub(super) provided: BTreeSet<String>,
}

/// What becomes of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// They do their work and go.
    Removed,
    /// They do their work and stay.
    Kept,
    /// They are characters like any other, as in a heredoc.
    Literal,
}

impl<'a> Expander<'a> {
    /// The rules for the words of an instruction.
    pub(super) fn new(escape: char, environment: &'a Environment, limit: usize) -> Self {
        Self {
            escape,
            environment,
            quotes: Quotes::Removed,
            keeps_escapes: false,
            keeps_unset: false,
            limit,
            unset: None,
        }
    }

    /// The rules for a heredoc that `COPY` or `ADD` writes to a file.
    pub(super) fn for_heredoc(environment: &'a Environment, limit: usize) -> Self {
        Self { quotes: Quotes::Literal, ..Self::new('\\', environment, limit) }
    }

    /// One text to one text.
    pub(super) fn word(self, text: &str) -> Result<String, ExpansionFault> {
        if text.len() <= self.limit && !text.contains(['$', '"', '\'', self.escape]) {
            return Ok(text.to_owned());
        }
        Ok(self.expand(text, false)?.text)
    }

    /// One text to words: cut at white space outside quotes, after variables are replaced. Nothing, or an empty
    /// quoted text, makes no word.
    pub(super) fn words(self, text: &str) -> Result<Vec<String>, ExpansionFault> {
        Ok(self.expand(text, true)?.into_words())
    }

    fn expand(self, text: &str, cuts: bool) -> Result<Expansion, ExpansionFault> {
        let mut reader = Reader { rules: self, rest: text };
        let mut result = Expansion { cuts, ..Expansion::default() };
        reader.read(None, self.keeps_escapes, 0, &mut result)?;
        Ok(result)
    }
}

/// A result in the making.
#[derive(Debug, Default)]
struct Expansion {
    text: String,
    /// Whether words are wanted.
    cuts: bool,
    /// Start and end of the white space that cuts words.
    breaks: Vec<(usize, usize)>,
}

impl Expansion {
    /// A character that belongs to a word whatever it is.
    fn push(&mut self, c: char) {
        self.text.push(c);
    }

    fn push_str(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Text whose white space cuts words.
    fn push_cut(&mut self, text: &str) {
        if self.cuts {
            let start = self.text.len();
            let spaces = text.char_indices().filter(|(_, c)| c.is_whitespace());
            self.breaks.extend(spaces.map(|(at, c)| (start + at, start + at + c.len_utf8())));
        }
        self.text.push_str(text);
    }

    fn into_words(self) -> Vec<String> {
        let starts = std::iter::once(0).chain(self.breaks.iter().map(|&(_, end)| end));
        let ends = self.breaks.iter().map(|&(start, _)| start).chain([self.text.len()]);
        let words = starts.zip(ends).map(|(start, end)| &self.text[start..end]);
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }
}

/// Reads a text from front to back.
struct Reader<'a, 't> {
    rules: Expander<'a>,
    rest: &'t str,
}

impl<'t> Reader<'_, 't> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    fn take(&mut self, wanted: char) -> bool {
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes the characters that mean themselves wherever they stand.
    fn take_plain(&mut self, stop: Option<char>) -> &'t str {
        let special = ['$', '"', '\'', self.rules.escape, stop.unwrap_or('$')];
        let (plain, rest) = self.rest.split_at(self.rest.find(special).unwrap_or(self.rest.len()));
        self.rest = rest;
        plain
    }

    /// Reads up to `stop`, or to the end when that is none.
    fn read(
        &mut self,
        stop: Option<char>,
        keeps_escapes: bool,
        depth: usize,
        out: &mut Expansion,
    ) -> Result<(), ExpansionFault> {
        let quotes = self.rules.quotes;
        loop {
            let plain = self.take_plain(stop);
            out.push_cut(plain);
            if out.text.len() > self.rules.limit {
                return Err(ExpansionFault::TooLarge);
            }
            let Some(c) = self.next() else { break };
            match c {
                c if stop == Some(c) => return Ok(()),
                '\'' if quotes != Quotes::Literal => self.read_single_quoted(out)?,
                '"' if quotes != Quotes::Literal => self.read_double_quoted(keeps_escapes, depth, out)?,
                '$' => {
                    let value = self.read_variable(depth)?;
                    out.push_cut(&value);
                }
                c if c == self.rules.escape => {
                    if keeps_escapes {
                        out.push(c);
                    }
                    if let Some(next) = self.next() {
                        out.push(next);
                    }
                }
                // Quotes that mean nothing.
                c => out.push(c),
            }
        }
        match stop {
            None => Ok(()),
            Some('/') => Err(ExpansionFault::NoSlash),
            Some(_) => Err(ExpansionFault::NoBrace),
        }
    }

    fn read_single_quoted(&mut self, out: &mut Expansion) -> Result<(), ExpansionFault> {
        let (text, rest) = self.rest.split_once('\'').ok_or(ExpansionFault::OpenQuote('\''))?;
        self.rest = rest;
        if self.rules.quotes == Quotes::Kept {
            out.push('\'');
            out.push_str(text);
            out.push('\'');
        } else {
            out.push_str(text);
        }
        Ok(())
    }

    fn read_double_quoted(
        &mut self,
        keeps_escapes: bool,
        depth: usize,
        out: &mut Expansion,
    ) -> Result<(), ExpansionFault> {
        let keeps_quotes = self.rules.quotes == Quotes::Kept;
        if keeps_quotes {
            out.push('"');
        }
        loop {
            out.push_str(self.take_plain(None));
            match self.next().ok_or(ExpansionFault::OpenQuote('"'))? {
                '"' => {
                    if keeps_quotes {
                        out.push('"');
                    }
                    return Ok(());
                }
                '$' => {
                    let value = self.read_variable(depth)?;
                    out.push_str(&value);
                    if out.text.len() > self.rules.limit {
                        return Err(ExpansionFault::TooLarge);
                    }
                }
                c if c == self.rules.escape => match self.peek() {
                    Some(next) if matches!(next, '"' | '$') || next == c => {
                        self.next();
                        if keeps_escapes {
                            out.push(c);
                        }
                        out.push(next);
                    }
                    _ => out.push(c),
                },
                c => out.push(c),
            }
        }
    }

    /// What stands behind `$`.
    fn read_variable(&mut self, depth: usize) -> Result<String, ExpansionFault> {
        if depth >= DEPTH_MAX {
            return Err(ExpansionFault::Depth(DEPTH_MAX));
        }
        if !self.take('{') {
            let name = self.read_name();
            return Ok(match self.look_up(name, false) {
                Some(value) => value.to_owned(),
                None if name.is_empty() || self.rules.keeps_unset => format!("${name}"),
                None => String::new(),
            });
        }
        match self.peek() {
            None => return Err(ExpansionFault::NoBrace),
            Some('{' | '}' | ':') => return Err(ExpansionFault::NoName),
            Some(_) => {}
        }
        let name = self.read_name();
        let mut modifier = String::from_iter(self.next());
        if modifier == ":" {
            modifier.extend(self.next());
        }
        let (operator, empty_is_unset) = match modifier.as_str() {
            "" | ":" => return Err(ExpansionFault::NoBrace),
            "}" => {
                return Ok(match self.look_up(name, false) {
                    Some(value) => value.to_owned(),
                    None if self.rules.keeps_unset => format!("${{{name}}}"),
                    None => String::new(),
                });
            }
            operator @ ("-" | "+" | "?" | "#" | "%" | "/") => (operator, false),
            operator => match operator.strip_prefix(':') {
                Some(operator @ ("-" | "+" | "?" | "#" | "%")) => (operator, true),
                _ => return Err(ExpansionFault::Modifier(modifier)),
            },
        };
        let every = operator == "/" && self.take('/');
        let is_pattern = matches!(operator, "#" | "%" | "/");
        let word = self.read_part(if operator == "/" { '/' } else { '}' }, is_pattern, depth)?;
        let replacement = if operator == "/" { self.read_part('}', true, depth)? } else { String::new() };
        let value = self.look_up(name, !is_pattern);
        if value.is_none() && self.rules.keeps_unset {
            let slash = if every { "/" } else { "" };
            let tail = if operator == "/" { format!("/{replacement}") } else { replacement };
            return Ok(format!("${{{name}{modifier}{slash}{word}{tail}}}"));
        }
        let given = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match operator {
            "-" => Ok(given.map_or(word, str::to_owned)),
            "+" => Ok(given.map_or_else(String::new, |_| word)),
            "?" => given.map(str::to_owned).ok_or_else(|| {
                let message = match (word.is_empty(), value) {
                    (false, _) => word,
                    (true, None) => "is not set".to_owned(),
                    (true, Some(_)) => "is empty".to_owned(),
                };
                ExpansionFault::Required { name: name.to_owned(), message }
            }),
            _ => self.match_pattern(operator, value.unwrap_or_default(), &word, &replacement, every),
        }
    }

    /// The value of a variable. One that is not set is noted, unless it is one of the shell's special parameters.
    fn look_up(&self, name: &str, is_provided: bool) -> Option<&str> {
        let value = self.rules.environment.get(name);
        if let (None, Some(unset)) = (value, self.rules.unset)
            && name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        {
            let mut unset = unset.borrow_mut();
            let names = if is_provided { &mut unset.provided } else { &mut unset.plain };
            names.insert(name.to_owned());
        }
        value
    }

    fn match_pattern(
        &self,
        operator: &str,
        value: &str,
        word: &str,
        replacement: &str,
        every: bool,
    ) -> Result<String, ExpansionFault> {
        let doubled = if operator == "/" { None } else { word.strip_prefix(operator) };
        let extent = if doubled.is_some() { Extent::Longest } else { Extent::Shortest };
        let pattern = Pattern::parse(doubled.unwrap_or(word), self.rules.escape)?;
        match operator {
            "#" => Ok(pattern.strip_prefix(value, extent).to_owned()),
            "%" => Ok(pattern.strip_suffix(value, extent).to_owned()),
            _ if replacement.len().saturating_mul(value.len() + 1) > self.rules.limit => {
                Err(ExpansionFault::TooLarge)
            }
            _ => Ok(pattern.replace(value, replacement, every)),
        }
    }

    /// A part of `${…}`, itself expanded.
    fn read_part(&mut self, stop: char, keeps_escapes: bool, depth: usize) -> Result<String, ExpansionFault> {
        let mut part = Expansion::default();
        self.read(Some(stop), keeps_escapes, depth + 1, &mut part)?;
        Ok(part.text)
    }

    /// A name: letters, digits and `_`; or digits; or one of the shell's special parameters, which are never set.
    fn read_name(&mut self) -> &'t str {
        let rest = self.rest;
        let length = match self.peek() {
            Some(c) if c.is_numeric() => rest.find(|c: char| !c.is_numeric()).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len()),
        };
        let (name, rest) = rest.split_at(length);
        self.rest = rest;
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let mut environment = Environment::default();
        for (name, value) in [
            ("x", "value"),
            ("empty", ""),
            ("spaced", "a b  c"),
            ("path", "/usr/lib/python3.11/site.tar.gz"),
            ("ünï", "code"),
            ("quoted", "'q'"),
            ("star", "*"),
            ("back", "\\*"),
        ] {
            environment.set(name, value);
        }
        environment
    }

    fn expand(text: &str) -> Result<String, ExpansionFault> {
        Expander::new('\\', &environment(), 1000).word(text)
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
    }

    fn check_fault(text: &str, expected: ExpansionFault) {
        assert_eq!(expand(text), Err(expected), "{text}");
    }

    #[test]
    fn quotes_and_escapes() {
        check("", "");
        check("plain text ", "plain text ");
        check("'single $x \\n \"'", "single $x \\n \"");
        check("\"double $x '\"", "double value '");
        check("a'b'\"c\"d", "abcd");
        check("\\a\\$x\\\\", "a$x\\");
        check("a\\ b", "a b");
        check("\"\\\" \\$ \\\\ \\n \\'\"", "\" $ \\ \\n \\'");
        check("\\'\\\"", "'\"");
        check("end\\", "end");
        check("''", "");
        check("$quoted", "'q'");
        check_fault("'a", ExpansionFault::OpenQuote('\''));
        check_fault("it's", ExpansionFault::OpenQuote('\''));
        check_fault("\"a", ExpansionFault::OpenQuote('"'));
        check_fault("\"a\\\"", ExpansionFault::OpenQuote('"'));
        check_fault("\"a\\", ExpansionFault::OpenQuote('"'));
    }

    #[test]
    fn names() {
        check("$x", "value");
        check("${x}", "value");
        check("$x.y", "value.y");
        check("$xy", "");
        check("${x}y", "valuey");
        check("$x$x", "valuevalue");
        check("$unset", "");
        check("$empty", "");
        check("${ünï}$ünï", "codecode");
        check("$", "$");
        check("a$", "a$");
        check("$ x", "$ x");
        check("$/", "$/");
        check("$1x", "x");
        check("$12", "");
        check("$$x", "x");
        check("$@$*$#$?$-$!", "");
        check("\\$x \\${x}", "$x ${x}");
        check("\"$\"", "$");
    }

    #[test]
    fn faults_of_braces() {
        check_fault("${", ExpansionFault::NoBrace);
        check_fault("${x", ExpansionFault::NoBrace);
        check_fault("${x:", ExpansionFault::NoBrace);
        check_fault("${x:-a", ExpansionFault::NoBrace);
        check_fault("${x/a}", ExpansionFault::NoSlash);
        check_fault("${x//a}", ExpansionFault::NoSlash);
        check_fault("${x/a/b", ExpansionFault::NoBrace);
        check_fault("${}", ExpansionFault::NoName);
        check_fault("${:-a}", ExpansionFault::NoName);
        check_fault("${{x}}", ExpansionFault::NoName);
        check_fault("${x=a}", ExpansionFault::Modifier("=".to_owned()));
        check_fault("${x:=a}", ExpansionFault::Modifier(":=".to_owned()));
        check_fault("${x:}", ExpansionFault::Modifier(":}".to_owned()));
        check_fault("${x:1:2}", ExpansionFault::Modifier(":1".to_owned()));
        check_fault("${x^^}", ExpansionFault::Modifier("^".to_owned()));
        check_fault("${ x}", ExpansionFault::Modifier(" ".to_owned()));
        check_fault("${!x}", ExpansionFault::Modifier("x".to_owned()));
    }

    #[test]
    fn defaults_and_alternatives() {
        check("${x:-d}${x-d}${x:+a}${x+a}", "valuevalueaa");
        check("${empty:-d}|${empty-d}|${empty:+a}|${empty+a}", "d|||a");
        check("${unset:-d}|${unset-d}|${unset:+a}|${unset+a}", "d|d||");
        check("${unset:-}", "");
        check("${unset:-$x}${unset:-${unset:-${x}}}", "valuevalue");
        check("${unset:-'$x'}${unset:-\"$x }\"}", "$xvalue }");
        check("${unset:-a\\}b}", "a}b");
        check("${unset:-a b}", "a b");
        check("${x?no}${x:?no}${empty?no}", "valuevalue");
        let required = |name: &str, message: &str| ExpansionFault::Required {
            name: name.to_owned(),
            message: message.to_owned(),
        };
        check_fault("${unset?}", required("unset", "is not set"));
        check_fault("${unset:?say $x}", required("unset", "say value"));
        check_fault("${empty:?}", required("empty", "is empty"));
    }

    #[test]
    fn patterns() {
        check("${path#*/}", "usr/lib/python3.11/site.tar.gz");
        check("${path##*/}", "site.tar.gz");
        check("${path%.*}", "/usr/lib/python3.11/site.tar");
        check("${path%%.*}", "/usr/lib/python3");
        check("${path%/*}", "/usr/lib/python3.11");
        check("${path:#*/}", "usr/lib/python3.11/site.tar.gz");
        check("${path#}|${path##}|${path%}|${path%%}", &["/usr/lib/python3.11/site.tar.gz"; 4].join("|"));
        check("${path/\\//:}", ":usr/lib/python3.11/site.tar.gz");
        check("${path//\\//:}", ":usr:lib:python3.11:site.tar.gz");
        check("${path//[0-9]/}", "/usr/lib/python3.11/site.tar.gz");
        check("${path/lib*3/$x}", "/usr/value.11/site.tar.gz");
        check("${path//./\\/}", "/usr/lib/python3\\/11/site\\/tar\\/gz");
        check("${path/${unset:-usr}/}", "//lib/python3.11/site.tar.gz");
        check("${x#$star}${x##$star}${x##$back}", "valuevalue");
        check("${unset#a}${unset/a/b}", "");
        check("${x#v\\}}", "value");
        check_fault("${x#\\a}", ExpansionFault::PatternEscape("a".to_owned()));
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| format!("{}a{}", "${u:-".repeat(depth), "}".repeat(depth));
        check(&nested(DEPTH_MAX), "a");
        check_fault(&nested(DEPTH_MAX + 1), ExpansionFault::Depth(DEPTH_MAX));
        check_fault(&"${u:-".repeat(1_000_000), ExpansionFault::Depth(DEPTH_MAX));
    }

    #[test]
    fn results_have_a_largest_size() {
        check_fault(&"$path".repeat(100), ExpansionFault::TooLarge);
        check_fault(&format!("\"{}\"", "$path".repeat(100)), ExpansionFault::TooLarge);
        check_fault(&format!("${{path//*/{}}}", "y".repeat(500)), ExpansionFault::TooLarge);
    }

    #[test]
    fn words_are_cut_after_variables_are_replaced() {
        let environment = environment();
        let check = |text: &str, expected: &[&str]| {
            let words = Expander::new('\\', &environment, 1000).words(text);
            assert_eq!(
                words.as_deref(),
                Ok(expected.iter().map(|&w| w.to_owned()).collect::<Vec<_>>().as_slice()),
                "{text}"
            );
        };
        check("", &[]);
        check("  a  b ", &["a", "b"]);
        check("$spaced", &["a", "b", "c"]);
        check("1$spaced!", &["1a", "b", "c!"]);
        check("\"$spaced\"", &["a b  c"]);
        check("a\\ b 'c d'", &["a b", "c d"]);
        check("'' $unset", &[]);
        check("80 ${unset:-443 8080}", &["80", "443", "8080"]);
    }

    #[test]
    fn heredocs_keep_quotes() {
        let environment = environment();
        let check = |text: &str, expected: &str| {
            assert_eq!(
                Expander::for_heredoc(&environment, 1000).word(text).as_deref(),
                Ok(expected),
                "{text}"
            );
        };
        check("\"$x\" it's '$x'\n", "\"value\" it's 'value'\n");
        check("\\$x \\\\ \\n\n", "$x \\ n\n");
        check("${unset:-\"d\"}", "\"d\"");
    }

    #[test]
    fn other_escape_character() {
        let environment = environment();
        let check = |text: &str, expected: &str| {
            assert_eq!(Expander::new('`', &environment, 1000).word(text).as_deref(), Ok(expected), "{text}");
        };
        check("c:\\$x\\", "c:\\value\\");
        check("`$x `` \"`$x`\"\"", "$x ` $x\"");
        check("${path//`//`}}", "`}usr`}lib`}python3.11`}site.tar.gz");
    }

    #[test]
    fn unset_variables_are_noted() {
        let environment = environment();
        let check = |text: &str, plain: &[&str], provided: &[&str]| {
            let unset = RefCell::default();
            let rules = Expander { unset: Some(&unset), ..Expander::new('\\', &environment, 1000) };
            rules.word(text).expect(text);
            let Unset { plain: found, provided: found_provided } = unset.into_inner();
            assert_eq!(found.iter().collect::<Vec<_>>(), plain, "{text}");
            assert_eq!(found_provided.iter().collect::<Vec<_>>(), provided, "{text}");
        };
        check("$x ${empty} $ $1 $@ '$a' \\$a", &[], &[]);
        check("$b ${a} ${c#x} ${d/x/y}", &["a", "b", "c", "d"], &[]);
        check("${a:-$b} ${c+d} \"$e\"", &["b", "e"], &["a", "c"]);
    }

    #[test]
    fn unset_variables_can_stay() {
        let environment = environment();
        let rules = Expander {
            quotes: Quotes::Kept,
            keeps_escapes: true,
            keeps_unset: true,
            ..Expander::new('\\', &environment, 1000)
        };
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(rules.words(text).expect(text), expected, "{text}");
        };
        check(
            "echo \"$x a\" \\$u $u ${u} ${u:-a} ${u//a/b}",
            &["echo", "\"value a\"", "\\$u", "$u", "${u}", "${u:-a}", "${u//a/b}"],
        );
        check("cat <<'E F' 'q'", &["cat", "<<'E F'", "'q'"]);
    }
}
