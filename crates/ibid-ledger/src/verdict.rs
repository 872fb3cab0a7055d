//! Whether a run that was repeated gave the same: a verdict for each output file, for each metric, and for the run.
//!
//! Pure: it is decided from two records and the contents that it is handed. What is identical is so by digest, so contents are
//! only asked for where a rule allows a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use ibid_core::dockerignore::{Ignore, MalformedPattern};
use ibid_core::glob::{Glob, InvalidGlob};
use serde::Serialize;

use crate::numbers::{self, Format};
use crate::record::{Metric, Output, Record};
use crate::tolerance::{InvalidTolerance, Tolerance};

/// What may differ: `[replay]` in `ibid.toml`.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    files: Vec<(Ignore, Rule)>,
    metrics: Vec<(Glob, Rule)>,
}

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Anything.
    Ignore,
    /// Numbers that are this close.
    Within(Tolerance),
}

impl FromStr for Rule {
    type Err = InvalidTolerance;

    /// `ignore`, or a tolerance.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "ignore" { Ok(Self::Ignore) } else { text.parse().map(Self::Within) }
    }
}

impl Rules {
    /// For files whose path in the project matches the pattern, as `.dockerignore` means it. The last that matches counts.
    pub fn add_files(&mut self, pattern: &str, rule: Rule) -> Result<(), MalformedPattern> {
        self.files.push((Ignore::of_patterns(&[pattern])?, rule));
        Ok(())
    }

    /// For metrics whose name matches the pattern, in which `*` is any text. The last that matches counts.
    pub fn add_metrics(&mut self, pattern: &str, rule: Rule) -> Result<(), InvalidGlob> {
        self.metrics.push((Glob::parse(pattern.as_bytes())?, rule));
        Ok(())
    }

    /// Whether files of this path are compared by their contents.
    pub fn compares_content(&self, path: &str) -> bool {
        matches!(self.of_file(path), Some(Rule::Within(_)))
    }

    fn of_file(&self, path: &str) -> Option<Rule> {
        let matches = |ignore: &Ignore| ignore.verdict(path.as_bytes()).ignored;
        self.files.iter().rev().find(|(ignore, _)| matches(ignore)).map(|(_, rule)| *rule)
    }

    fn of_metric(&self, name: &str) -> Option<Rule> {
        self.metrics.iter().rev().find(|(glob, _)| glob.matches(name.as_bytes())).map(|(_, rule)| *rule)
    }
}

/// How one thing compares with what it was the first time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Sameness {
    /// To the byte.
    Identical,
    /// By a rule.
    WithinTolerance {
        /// The rule's.
        tolerance: String,
        /// What is furthest apart: `0.9812 → 0.9815`.
        detail: String,
    },
    /// By a rule.
    Ignored,
    /// By more than a rule allows, or without one.
    Different {
        /// In what.
        detail: String,
    },
    /// It was there the first time only.
    Missing,
    /// It was not there the first time.
    Extra,
}

impl Sameness {
    /// Whether the run may still be called the same.
    pub fn is_same(&self) -> bool {
        matches!(self, Self::Identical | Self::WithinTolerance { .. } | Self::Ignored)
    }
}

/// The verdict on a file or a metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Item {
    /// A file's path in the project, or a metric's name.
    pub name: String,
    /// How it compares.
    #[serde(flatten)]
    pub sameness: Sameness,
}

/// The verdict on the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All is identical or ignored.
    Identical,
    /// Something is only within its tolerance.
    WithinTolerance,
    /// Something is not the same.
    Different,
}

/// All verdicts on a repeated run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// On the run.
    pub outcome: Outcome,
    /// How it ended.
    pub end: Sameness,
    /// On its output files, by path.
    pub files: Vec<Item>,
    /// On its metrics, by name.
    pub metrics: Vec<Item>,
}

/// Which of two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The recorded one.
    First,
    /// The repetition.
    Second,
}

/// Every value of each metric, in order.
pub type Curves = BTreeMap<String, Vec<f64>>;

/// Reads an output file of a run, or says why it cannot.
pub type ReadOutput<'a> = dyn FnMut(Which, &Output) -> Result<Vec<u8>, String> + 'a;

/// Compares a run with its repetition. `content` reads an output file, or says why it cannot: only files that a tolerance
/// is for, and that are small enough, are asked for. `curves` are both runs', where they are known.
pub fn compare(
    rules: &Rules,
    first: &Record,
    second: &Record,
    curves: Option<(&Curves, &Curves)>,
    content: &mut ReadOutput<'_>,
) -> Verdict {
    let end = if ending(first) == ending(second) {
        Sameness::Identical
    } else {
        Sameness::Different { detail: format!("{} instead of {}", ending(second), ending(first)) }
    };
    let (before, after) = (outputs_by_path(first), outputs_by_path(second));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let files = paths
        .into_iter()
        .map(|path| Item {
            name: path.clone(),
            sameness: file(rules.of_file(path), before.get(path).copied(), after.get(path).copied(), content),
        })
        .collect();
    let names: BTreeSet<&String> = first.metrics.keys().chain(second.metrics.keys()).collect();
    let metrics = names
        .into_iter()
        .map(|name| {
            let curves = curves.and_then(|(before, after)| Some((before.get(name)?, after.get(name)?)));
            Item {
                name: name.clone(),
                sameness: metric(
                    rules.of_metric(name),
                    first.metrics.get(name),
                    second.metrics.get(name),
                    curves,
                ),
            }
        })
        .collect();
    let mut verdict = Verdict { outcome: Outcome::Identical, end, files, metrics };
    verdict.outcome = verdict.outcome();
    verdict
}

impl Verdict {
    /// Names of the files and metrics that are not the same.
    pub fn differing(&self) -> Vec<&str> {
        let differing = self.files.iter().chain(&self.metrics).filter(|item| !item.sameness.is_same());
        differing.map(|item| item.name.as_str()).collect()
    }

    /// True when there was neither a file nor a metric to compare.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.metrics.is_empty()
    }

    fn outcome(&self) -> Outcome {
        let all = || self.files.iter().chain(&self.metrics).map(|item| &item.sameness).chain([&self.end]);
        if !all().all(Sameness::is_same) {
            Outcome::Different
        } else if all().any(|sameness| matches!(sameness, Sameness::WithinTolerance { .. })) {
            Outcome::WithinTolerance
        } else {
            Outcome::Identical
        }
    }
}

/// `exit code 0`, `SIGKILL`.
fn ending(record: &Record) -> String {
    match (&record.signal, record.exit_code) {
        (Some(signal), _) => signal.clone(),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "no end".to_owned(),
    }
}

/// Outputs by path. `--isolate` puts each run's into a folder of its own, `output/<run>`, whose name is no difference.
fn outputs_by_path(record: &Record) -> BTreeMap<String, &Output> {
    let own = record.output_folder.as_deref().and_then(|own| Some((own, own.rsplit_once('/')?.0)));
    let name = |output: &Output| {
        let inside =
            own.and_then(|(own, parent)| Some((parent, output.path.strip_prefix(own)?.strip_prefix('/')?)));
        inside.map_or_else(|| output.path.clone(), |(parent, path)| format!("{parent}/{path}"))
    };
    record.outputs.iter().map(|output| (name(output), output)).collect()
}

fn file(
    rule: Option<Rule>,
    first: Option<&Output>,
    second: Option<&Output>,
    content: &mut ReadOutput<'_>,
) -> Sameness {
    let (first, second) = match (first, second) {
        (Some(first), Some(second)) if first.digest == second.digest => return Sameness::Identical,
        _ if rule == Some(Rule::Ignore) => return Sameness::Ignored,
        (Some(first), Some(second)) => (first, second),
        (Some(_), None) => return Sameness::Missing,
        (None, _) => return Sameness::Extra,
    };
    let sizes = if first.bytes == second.bytes {
        format!("other content of the same size, {} bytes", first.bytes)
    } else {
        format!("{} bytes instead of {}", second.bytes, first.bytes)
    };
    let Some(Rule::Within(tolerance)) = rule else { return Sameness::Different { detail: sizes } };
    match within(tolerance, first, second, content) {
        Ok(sameness) => sameness,
        Err(reason) => Sameness::Different { detail: format!("{sizes}; not compared by numbers: {reason}") },
    }
}

fn within(
    tolerance: Tolerance,
    first: &Output,
    second: &Output,
    content: &mut ReadOutput<'_>,
) -> Result<Sameness, String> {
    let format = Format::of(Path::new(&first.path))
        .ok_or("its name ends in none of .json, .jsonl, .ndjson, .csv, .tsv, .npy, .npz")?;
    if first.bytes.max(second.bytes) > format.bytes_max() {
        return Err(format!("it has more than {} bytes", format.bytes_max()));
    }
    let (before, after) = (content(Which::First, first)?, content(Which::Second, second)?);
    let found = match numbers::compare(format, &before, &after, tolerance) {
        Ok(found) => found,
        Err(incomparable @ numbers::Incomparable::Malformed { .. }) => return Err(incomparable.to_string()),
        Err(incomparable) => return Ok(Sameness::Different { detail: incomparable.to_string() }),
    };
    let furthest = match &found.furthest {
        Some(pair) => format!("{} → {} at {}", pair.first, pair.second, pair.place),
        None => "the same numbers, written otherwise".to_owned(),
    };
    Ok(if found.beyond == 0 {
        Sameness::WithinTolerance { tolerance: tolerance.to_string(), detail: furthest }
    } else {
        let detail = format!("{} of {} numbers beyond {tolerance}: {furthest}", found.beyond, found.count);
        Sameness::Different { detail }
    })
}

fn metric(
    rule: Option<Rule>,
    first: Option<&Metric>,
    second: Option<&Metric>,
    curves: Option<(&Vec<f64>, &Vec<f64>)>,
) -> Sameness {
    let is_equal = |first: f64, second: f64| first == second || first.is_nan() && second.is_nan();
    let (first, second) = match (first, second) {
        (Some(first), Some(second)) => (first, second),
        _ if rule == Some(Rule::Ignore) => return Sameness::Ignored,
        (Some(_), None) => return Sameness::Missing,
        (None, _) => return Sameness::Extra,
    };
    let parting = curves.and_then(|(before, after)| {
        before.iter().zip(after).position(|(one, other)| !is_equal(*one, *other))
    });
    let is_identical = is_equal(first.last, second.last)
        && is_equal(first.min, second.min)
        && is_equal(first.max, second.max)
        && first.count == second.count
        && parting.is_none();
    if is_identical {
        return Sameness::Identical;
    }
    let values = if is_equal(first.last, second.last) {
        format!("{} at the end", first.last)
    } else {
        format!("{} → {}", first.last, second.last)
    };
    let detail = match (parting, first.count == second.count) {
        (Some(at), _) => format!("{values}, otherwise from value {} on", at + 1),
        (None, false) => format!("{values}, {} values instead of {}", second.count, first.count),
        (None, true) => values,
    };
    match rule {
        Some(Rule::Ignore) => Sameness::Ignored,
        // The last value is what people quote; on the way there a run may go other ways.
        Some(Rule::Within(tolerance)) if tolerance.allows(first.last, second.last) => {
            Sameness::WithinTolerance { tolerance: tolerance.to_string(), detail }
        }
        Some(Rule::Within(tolerance)) => {
            Sameness::Different { detail: format!("{detail}, beyond {tolerance}") }
        }
        None => Sameness::Different { detail },
    }
}

#[cfg(test)]
mod tests;
