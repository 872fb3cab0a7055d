//! What in a Dockerfile is likely a mistake, or keeps it from giving the same image again: found without building.
//!
//! ```text
//! written       instructions as they stand: case, comments, empty lines
//! settings      which rules apply
//! style         rules about how a file is written
//! variables     rules about what is set where: scopes of stages, followed as the planner does
//! reproducible  rules about what a step brings in; shell.rs reads the commands of `RUN`
//! ```
//!
//! Docker's rules are those of its documentation ("Build checks"), by the same names. All stages are looked at, needed or
//! not. What a rule cannot know, such as the variables of an image that is not here, it does not guess: it is silent.

mod reproducible;
mod rule;
mod settings;
mod shell;
mod style;
mod variables;
mod written;

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerignore::Ignore;
use crate::image::ImageConfig;
use crate::plan::Lines;

pub use rule::{Origin, Rule};
pub use settings::{InvalidSetting, Settings};

use super::instruction::Instruction;
use super::{Dockerfile, Error, PlanOptions};
use style::Style;
use variables::Scopes;
use written::{Source, Written};

/// What the rules are told beside the Dockerfile.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Images whose configuration is known, by the text that names them.
    pub images: &'a BTreeMap<String, ImageConfig>,
    /// What a lock pins: images by the same text, URLs and repositories without user name and password.
    pub pinned: &'a BTreeSet<String>,
    /// What is dropped from the context.
    pub ignore: &'a Ignore,
    /// The file in which that stands, for messages.
    pub ignore_file: &'a str,
}

/// Something that a rule has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// Where.
    pub lines: Lines,
    /// What.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

/// Every image that a stage may start or copy from, as far as the options tell.
pub fn images(dockerfile: &Dockerfile, options: &PlanOptions) -> BTreeSet<String> {
    variables::images(dockerfile, options)
}

/// Applies the rules to `dockerfile`, which was read from `text`. Sorted by line.
///
/// # Errors
///
/// When variables expand to more than any Dockerfile needs.
pub fn check(
    text: &[u8],
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    settings: &Settings,
    facts: &Facts,
) -> Result<Vec<Finding>, Error> {
    let source = Source::new(text, dockerfile.escape);
    let mut report = Report { settings, findings: Vec::new() };
    let mut style = Style::default();
    let mut scopes = Scopes::new(dockerfile, options, facts);
    for (lines, declarations) in &dockerfile.global {
        let Some(written) = source.written(lines.first) else { continue };
        style.instruction(&written, &Instruction::Arg(declarations.clone()), &mut report);
        scopes.global(*lines, declarations)?;
    }
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        let Some(written) = source.written(stage.lines.first) else { continue };
        style.from(&written, &stage.from, &mut report);
        let mut scope = scopes.from(&written, index, &mut report)?;
        for statement in &stage.statements {
            let Some(written) = source.written(statement.lines.first) else { continue };
            style.instruction(&written, &statement.instruction, &mut report);
            scopes.instruction(&written, &statement.instruction, &mut scope, &mut report)?;
            if let Instruction::Run(run) = &statement.instruction {
                reproducible::run(&written, run, &scope, &mut report);
            }
        }
        style.end_of_stage();
        scopes.keep(scope);
    }
    style.finish(&mut report);
    let mut findings = report.findings;
    findings.sort_by_key(|finding| (finding.lines.first, finding.rule));
    Ok(findings)
}

/// The findings so far.
struct Report<'a> {
    settings: &'a Settings,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, rule: Rule, at: &Written, message: impl Into<String>, fix: impl Into<String>) {
        self.add_on(at.lines, rule, at, message, fix);
    }

    /// On other lines than those of the whole instruction.
    fn add_on(
        &mut self,
        lines: Lines,
        rule: Rule,
        at: &Written,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        if self.settings.apply(rule) && !at.comments.iter().any(|text| Settings::comment_skips(text, rule)) {
            self.findings.push(Finding { rule, lines, message: message.into(), fix: fix.into() });
        }
    }
}
