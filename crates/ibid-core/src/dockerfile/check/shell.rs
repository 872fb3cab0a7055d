//! The commands in a text for the shell, as far as a check needs them: their words without quotes, which reads the
//! output of which, and which stands inside which. No variable is expanded and no syntax is refused.

use std::iter::Peekable;
use std::str::Chars;

/// Deepest nesting of commands in commands; what is deeper is not looked at.
const DEPTH_MAX: usize = 16;

/// One simple command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// `NAME=value` before the command.
    pub(super) assignments: Vec<String>,
    /// The program and its arguments. A command in a word stands there as `$()`, a variable as it is written.
    pub(super) words: Vec<String>,
    /// Number of the command whose output it reads.
    pub(super) reads: Option<usize>,
    /// Number of the command that it is a word of: `"$(…)"`, `<(…)` or the text after `sh -c`.
    pub(super) inside: Option<usize>,
}

impl Command {
    /// The name of the program, without its folder, and its arguments. What only runs another program, such as
    /// `sudo`, is passed over.
    pub(super) fn program(&self) -> (&str, &[String]) {
        let mut words = self.words.as_slice();
        while let [first, rest @ ..] = words {
            let name = first.rsplit('/').next().unwrap_or(first);
            if !matches!(name, "sudo" | "env" | "exec" | "command" | "time" | "nohup" | "nice" | "eatmydata")
            {
                return (name, rest);
            }
            let is_passed_over = |word: &String| word.starts_with('-') || is_assignment(word);
            words = &rest[rest.iter().take_while(|word| is_passed_over(word)).count()..];
        }
        ("", &[])
    }
}

/// The commands of `text`, in the order in which they end.
pub(super) fn commands(text: &str) -> Vec<Command> {
    let mut reader = Reader { chars: text.chars().peekable(), commands: Vec::new() };
    reader.list(None, None, 0);
    let mut commands = reader.commands;
    // What `sh -c` is given is text for a shell as well.
    let mut number = 0;
    let mut depth = 0;
    let mut level_end = commands.len();
    while number < commands.len() && depth < DEPTH_MAX {
        if let Some(text) = shell_text(&commands[number]) {
            let mut inner = Reader { chars: text.chars().peekable(), commands: Vec::new() };
            inner.list(None, None, 0);
            let first = commands.len();
            commands.extend(inner.commands.into_iter().map(|command| Command {
                reads: command.reads.map(|number| first + number),
                inside: Some(command.inside.map_or(number, |number| first + number)),
                ..command
            }));
        }
        number += 1;
        if number == level_end {
            depth += 1;
            level_end = commands.len();
        }
    }
    commands
}

/// Whether a program is a shell.
pub(super) fn is_shell(program: &str) -> bool {
    matches!(program, "sh" | "bash" | "dash" | "zsh" | "ash" | "ksh")
}

/// The text that a command gives to a shell: `sh -c TEXT`.
fn shell_text(command: &Command) -> Option<String> {
    let (program, arguments) = command.program();
    let at = arguments
        .iter()
        .position(|word| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'))?;
    (is_shell(program)).then(|| arguments.get(at + 1).cloned())?
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    commands: Vec<Command>,
}

/// A command in the making.
#[derive(Default)]
struct Draft {
    command: Command,
    /// The word in the making; none between words.
    word: Option<String>,
    /// Whether the word is where something is redirected to.
    is_target: bool,
    /// Commands found inside the words.
    inner: Vec<usize>,
}

impl Reader<'_> {
    /// Reads commands up to `stop`, or to the end when that is none.
    fn list(&mut self, stop: Option<char>, outer: Option<&mut Draft>, depth: usize) {
        let mut draft = Draft::default();
        let mut found = Vec::new();
        let mut reads = None;
        while let Some(c) = self.chars.next() {
            match c {
                c if stop == Some(c) => break,
                ' ' | '\t' | '\r' => self.end_word(&mut draft),
                '\n' | ';' | '(' | ')' => {
                    found.extend(self.end_command(&mut draft, reads.take()));
                }
                '&' => {
                    self.chars.next_if_eq(&'&');
                    found.extend(self.end_command(&mut draft, reads.take()));
                }
                '|' => {
                    let is_pipe = self.chars.next_if_eq(&'|').is_none();
                    let _with_errors = is_pipe && self.chars.next_if_eq(&'&').is_some();
                    let number = self.end_command(&mut draft, reads.take());
                    found.extend(number);
                    reads = number.filter(|_| is_pipe);
                }
                '<' | '>' => self.redirection(&mut draft, depth),
                '#' if draft.word.is_none() => while self.chars.next_if(|c| *c != '\n').is_some() {},
                c => self.character(c, &mut draft, depth),
            }
        }
        found.extend(self.end_command(&mut draft, reads));
        if let Some(outer) = outer {
            outer.inner.extend(found);
        }
    }

    fn redirection(&mut self, draft: &mut Draft, depth: usize) {
        if self.chars.peek() == Some(&'(') && depth < DEPTH_MAX {
            self.chars.next();
            draft.word.get_or_insert_default().push_str("<()");
            return self.list(Some(')'), Some(draft), depth + 1);
        }
        // A number in front says what is redirected.
        if draft.word.as_ref().is_some_and(|word| word.chars().all(|c| c.is_ascii_digit())) {
            draft.word = None;
        }
        self.end_word(draft);
        while self.chars.next_if(|c| matches!(c, '<' | '>' | '&' | '|' | '-')).is_some() {}
        draft.is_target = true;
    }

    /// A character of a word.
    fn character(&mut self, c: char, draft: &mut Draft, depth: usize) {
        match c {
            '\\' => match self.chars.next() {
                Some('\n') | None => {}
                Some(c) => draft.word.get_or_insert_default().push(c),
            },
            '\'' => {
                let word = draft.word.get_or_insert_default();
                word.extend(self.chars.by_ref().take_while(|c| *c != '\''));
            }
            '"' => {
                draft.word.get_or_insert_default();
                while let Some(c) = self.chars.next() {
                    match c {
                        '"' => break,
                        '\\' => draft.word.get_or_insert_default().extend(self.chars.next()),
                        '$' | '`' => self.substitution(c, draft, depth),
                        c => draft.word.get_or_insert_default().push(c),
                    }
                }
            }
            '$' | '`' => self.substitution(c, draft, depth),
            c => draft.word.get_or_insert_default().push(c),
        }
    }

    /// What stands behind `$` or a backtick.
    fn substitution(&mut self, c: char, draft: &mut Draft, depth: usize) {
        let word = draft.word.get_or_insert_default();
        match (c, self.chars.peek()) {
            ('`', _) => {
                word.push_str("$()");
                let mut text = String::new();
                while let Some(c) = self.chars.next() {
                    match c {
                        '`' => break,
                        '\\' => text.extend(self.chars.next()),
                        c => text.push(c),
                    }
                }
                if depth < DEPTH_MAX {
                    let commands = std::mem::take(&mut self.commands);
                    let mut inner = Reader { chars: text.chars().peekable(), commands };
                    inner.list(None, Some(draft), depth + 1);
                    self.commands = inner.commands;
                }
            }
            (_, Some('(')) if depth < DEPTH_MAX => {
                self.chars.next();
                word.push_str("$()");
                if self.chars.next_if_eq(&'(').is_some() {
                    return self.arithmetic();
                }
                self.list(Some(')'), Some(draft), depth + 1);
            }
            (_, Some('{')) => {
                word.push('$');
                for c in self.chars.by_ref() {
                    word.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
            _ => word.push('$'),
        }
    }

    /// Passes over what stands between `$((` and `))`.
    fn arithmetic(&mut self) {
        let mut open = 2;
        for c in self.chars.by_ref() {
            match c {
                '(' => open += 1,
                ')' => open -= 1,
                _ => {}
            }
            if open == 0 {
                return;
            }
        }
    }

    fn end_word(&mut self, draft: &mut Draft) {
        /// Words of the language that a command follows.
        const BEFORE_A_COMMAND: [&str; 11] =
            ["if", "then", "else", "elif", "fi", "while", "until", "do", "done", "!", "{"];
        let Some(word) = draft.word.take() else { return };
        if std::mem::take(&mut draft.is_target) {
            return;
        }
        let command = &mut draft.command;
        if command.words.is_empty() && is_assignment(&word) {
            command.assignments.push(word);
        } else if !(command.words.is_empty() && (BEFORE_A_COMMAND.contains(&word.as_str()) || word == "}")) {
            command.words.push(word);
        }
    }

    /// Keeps the command, unless it is nothing, and gives its number.
    fn end_command(&mut self, draft: &mut Draft, reads: Option<usize>) -> Option<usize> {
        self.end_word(draft);
        let Draft { mut command, inner, .. } = std::mem::take(draft);
        let number = self.commands.len();
        if command.words.is_empty() && command.assignments.is_empty() && inner.is_empty() {
            return None;
        }
        command.reads = reads;
        self.commands.push(command);
        for inner in inner {
            self.commands[inner].inside = Some(number);
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command as its assignments and words, `<N` when it reads from, `@N` when it is inside another.
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> = commands(text)
            .iter()
            .map(|command| {
                let mut shown: Vec<String> = command
                    .assignments
                    .iter()
                    .chain(&command.words)
                    .map(|word| format!("[{word}]"))
                    .collect();
                shown.extend(command.reads.map(|number| format!("<{number}")));
                shown.extend(command.inside.map(|number| format!("@{number}")));
                shown.join(" ")
            })
            .collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn commands_are_told_apart() {
        check("", &[]);
        check("a b  c", &["[a] [b] [c]"]);
        check("a&&b||c;d&e\nf", &["[a]", "[b]", "[c]", "[d]", "[e]", "[f]"]);
        check("a | b |& c || d", &["[a]", "[b] <0", "[c] <1", "[d]"]);
        check("(a; b) | c", &["[a]", "[b]", "[c]"]);
        check("if a; then b; else c; fi", &["[a]", "[b]", "[c]"]);
        check("{ a; }; ! b; while c; do d; done", &["[a]", "[b]", "[c]", "[d]"]);
        check("A=1 B='x y' a C=2", &["[A=1] [B=x y] [a] [C=2]"]);
        check("a # b; c\nd #", &["[a]", "[d]"]);
        check("a#b", &["[a#b]"]);
        check("a \\\n b\\ c \\", &["[a] [b c]"]);
    }

    #[test]
    fn quotes_and_redirections_go() {
        check("a 'b c' \"d $e\" f\"g\"'h' ''", &["[a] [b c] [d $e] [fgh] []"]);
        check("a \"b\\\"c\\$\" 'd", &["[a] [b\"c$] [d]"]);
        check("a > b 2>&1 >>c < d <<< e &>f x", &["[a]", "[x]"]);
        check("a 2>/dev/null b >/dev/null", &["[a] [b]"]);
        check("a ${b:-c d} $e $", &["[a] [${b:-c d}] [$e] [$]"]);
    }

    #[test]
    fn commands_in_words_are_found() {
        check("a $(b c | d) e", &["[b] [c] @2", "[d] <0 @2", "[a] [$()] [e]"]);
        check("a \"x$(b)y\"", &["[b] @1", "[a] [x$()y]"]);
        check("a `b \\`c\\``", &["[c] @1", "[b] [$()] @2", "[a] [$()]"]);
        check("sh <(a)", &["[a] @1", "[sh] [<()]"]);
        check("x=$(a)", &["[a] @1", "[x=$()]"]);
        check("sh -c 'a && b | c'; d", &["[sh] [-c] [a && b | c]", "[d]", "[a] @0", "[b] @0", "[c] <3 @0"]);
        check("bash -ec \"sh -c 'a'\"", &["[bash] [-ec] [sh -c 'a']", "[sh] [-c] [a] @0", "[a] @1"]);
        check("a $((1+(2))) b", &["[a] [$()] [b]"]);
    }

    #[test]
    fn programs_are_named() {
        let check = |text: &str, program: &str, arguments: &[&str]| {
            let commands = commands(text);
            let (found, rest) = commands.last().expect("a command").program();
            assert_eq!(found, program, "{text}");
            assert_eq!(rest, arguments, "{text}");
        };
        check("/usr/bin/apt-get install x", "apt-get", &["install", "x"]);
        check("sudo -E env A=1 pip install", "pip", &["install"]);
        check("exec sudo", "", &[]);
        check("A=1", "", &[]);
    }

    #[test]
    fn no_text_takes_long_or_makes_it_panic() {
        for piece in ["$(", "`", "\"$(", "'", "\"", "${", "a|", "<(", "sh -c '", "\\", "$((", "a=$(", "a;"] {
            commands(&piece.repeat(200_000));
        }
    }
}
