//! Rules about how a Dockerfile is written.

use std::collections::BTreeSet;

use crate::plan::Lines;

use super::super::instruction::{ArgDeclaration, CommandLine, From, Instruction};
use super::super::words;
use super::Report;
use super::rule::Rule;
use super::written::Written;

/// What the rules remember of the instructions before.
#[derive(Default)]
pub(super) struct Style<'a> {
    /// Each keyword as it is written.
    keywords: Vec<Written<'a>>,
    stage_names: BTreeSet<String>,
    /// Of this stage: the last `CMD`, `ENTRYPOINT` and `HEALTHCHECK`.
    last: [Option<Written<'a>>; 3],
}

impl<'a> Style<'a> {
    pub(super) fn from(&mut self, at: &Written<'a>, from: &From, report: &mut Report) {
        let words = words::split_blank(&at.rest);
        if let [_, keyword, name] = words.as_slice() {
            if is_one_case(&at.keyword) && is_upper(&at.keyword) != is_upper(keyword)
                || !is_one_case(keyword) && is_one_case(&at.keyword)
            {
                let fixed = if is_upper(&at.keyword) { "AS" } else { "as" };
                report.add(
                    Rule::FromAsCasing,
                    at,
                    format!("`{keyword}` is written in another case than `{}`", at.keyword),
                    format!("write `{fixed}`"),
                );
            }
            if name.chars().any(char::is_uppercase) {
                report.add(
                    Rule::StageNameCasing,
                    at,
                    format!("the stage name `{name}` is not in lower case"),
                    format!("name it `{}`", name.to_lowercase()),
                );
            }
        }
        if let Some(name) = &from.name {
            if matches!(name.as_str(), "scratch" | "context") {
                report.add(
                    Rule::ReservedStageName,
                    at,
                    format!("`{name}` is a reserved name and should not name a stage"),
                    "choose another name",
                );
            }
            if !self.stage_names.insert(name.clone()) {
                report.add(
                    Rule::DuplicateStageName,
                    at,
                    format!("an earlier stage is named `{name}`, too"),
                    "give each stage a name of its own",
                );
            }
            describe(at, "FROM", &[name], report);
        }
        self.any(at, report);
    }

    pub(super) fn instruction(&mut self, at: &Written<'a>, instruction: &Instruction, report: &mut Report) {
        match instruction {
            Instruction::Maintainer(name) => report.add(
                Rule::MaintainerDeprecated,
                at,
                "`MAINTAINER` is deprecated",
                format!("write `LABEL org.opencontainers.image.authors={}`", quoted(name)),
            ),
            Instruction::Env(pairs) => legacy_pair(at, "ENV", pairs, report),
            Instruction::Label(pairs) => legacy_pair(at, "LABEL", pairs, report),
            Instruction::Arg(declarations) => {
                for ArgDeclaration { name, .. } in declarations {
                    secret(at, "ARG", name, report);
                }
                let names: Vec<&str> = declarations.iter().map(|arg| arg.name.as_str()).collect();
                describe(at, "ARG", &names, report);
            }
            Instruction::Cmd(_) => self.only_last(0, at, report),
            Instruction::Entrypoint(_) => self.only_last(1, at, report),
            Instruction::Healthcheck(_) => self.only_last(2, at, report),
            _ => {}
        }
        if let Instruction::Env(pairs) = instruction {
            pairs.iter().for_each(|(name, _)| secret(at, "ENV", name, report));
        }
        self.any(at, report);
    }

    pub(super) fn end_of_stage(&mut self) {
        self.last = Default::default();
    }

    /// What is known only when all was seen.
    pub(super) fn finish(self, report: &mut Report) {
        let in_one_case = self.keywords.iter().filter(|at| is_one_case(&at.keyword));
        let (upper, lower): (Vec<_>, Vec<_>) = in_one_case.partition(|at| is_upper(&at.keyword));
        let is_upper_most = upper.len() >= lower.len();
        for at in &self.keywords {
            let fixed = if is_upper_most { at.keyword.to_uppercase() } else { at.keyword.to_lowercase() };
            if at.keyword != fixed {
                report.add(
                    Rule::ConsistentInstructionCasing,
                    at,
                    format!("`{}` is written in another case than most instructions", at.keyword),
                    format!("write `{fixed}`"),
                );
            }
        }
    }

    fn any(&mut self, at: &Written<'a>, report: &mut Report) {
        if let Some(line) = at.empty_line {
            report.add_on(
                Lines { first: line, last: line },
                Rule::NoEmptyContinuation,
                at,
                format!("an empty line stands inside `{}`", at.keyword),
                "remove it, or write `#` on it",
            );
        }
        self.keywords.push(Written {
            keyword: at.keyword.clone(),
            comments: at.comments.clone(),
            lines: at.lines,
            flags: Vec::new(),
            rest: String::new(),
            empty_line: None,
        });
    }

    fn only_last(&mut self, which: usize, at: &Written<'a>, report: &mut Report) {
        let now = Written { flags: Vec::new(), rest: String::new(), ..at.clone() };
        if let Some(before) = self.last[which].replace(now) {
            let keyword = at.keyword.to_uppercase();
            report.add(
                Rule::MultipleInstructionsDisallowed,
                &before,
                format!("the `{keyword}` on line {} takes this one's place", at.lines.first),
                format!("keep one `{keyword}` in a stage"),
            );
        }
    }
}

/// `CMD` or `ENTRYPOINT` in its shell form, in a stage that names no shell.
pub(super) fn shell_form(at: &Written, command: &CommandLine, report: &mut Report) {
    let CommandLine::Shell(text) = command else { return };
    let keyword = at.keyword.to_uppercase();
    let simple =
        !text.contains(['$', '"', '\'', '\\', '|', '&', ';', '<', '>', '(', '`', '*', '?', '~', '#', '=']);
    let fix = if simple && !text.is_empty() {
        format!(
            "write `{keyword} [{}]`",
            words::split_blank(text).iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")
        )
    } else {
        format!("write `{keyword} [\"program\", \"argument\"]`, or name the shell that is meant with `SHELL`")
    };
    report.add(Rule::JsonArgsRecommended, at, format!("`{keyword}` is text for the shell"), fix);
}

/// `NAME value`, without `=`.
fn legacy_pair(at: &Written, keyword: &str, pairs: &[(String, String)], report: &mut Report) {
    let has_sign = at.rest.split(char::is_whitespace).next().is_some_and(|word| word.contains('='));
    let ([(name, value)], false) = (pairs, has_sign) else { return };
    let value = if value.contains(char::is_whitespace) { quoted(value) } else { value.clone() };
    report.add(
        Rule::LegacyKeyValueFormat,
        at,
        format!("`{keyword}` separates name and value by a space"),
        format!("write `{keyword} {name}={value}`"),
    );
}

/// A name such as `API_TOKEN`.
fn secret(at: &Written, keyword: &str, name: &str, report: &mut Report) {
    const SECRETS: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    let lower = name.to_lowercase();
    let parts = || lower.split('_');
    let is_public = parts().any(|part| part == "public");
    // The name of a file that holds a secret, and the version of what has to do with secrets, are none.
    let is_about_one = matches!(parts().next_back(), Some("file" | "version"));
    if parts().any(|part| SECRETS.contains(&part)) && !is_public && !is_about_one {
        report.add(
            Rule::SecretsUsedInArgOrEnv,
            at,
            format!("the name `{name}` says that this `{keyword}` holds a secret"),
            "give it to the step that needs it with `RUN --mount=type=secret`",
        );
    }
}

/// A comment above that is taken for a description.
fn describe(at: &Written, keyword: &str, names: &[&str], report: &mut Report) {
    let is_note = |text: &&str| {
        let directive = text.split('=').next().unwrap_or_default().trim();
        !matches!(directive, "check" | "syntax" | "escape")
    };
    let comments: Vec<&str> = at.comments.iter().map(AsRef::as_ref).filter(is_note).collect();
    let describes = |comment: &&str| {
        names.iter().any(|name| comment.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))
    };
    if !comments.is_empty() && !comments.iter().any(describes) {
        let name = if let [name] = names { name } else { "NAME" };
        report.add(
            Rule::InvalidDefinitionDescription,
            at,
            format!("the comment above this `{keyword}` does not start with its name"),
            format!("write `# {name} …`, or leave an empty line below the comment"),
        );
    }
}

fn is_upper(word: &str) -> bool {
    !word.chars().any(char::is_lowercase)
}

/// All in upper case, or all in lower case.
fn is_one_case(word: &str) -> bool {
    is_upper(word) || !word.chars().any(char::is_uppercase)
}

/// In double quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
