//! `ibid runs`: the runs of the project, as a table, JSON or CSV.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ibid_core::time::parse_rfc3339;
use ibid_ledger::query::filter::{Filter, InvalidFilter};
use ibid_ledger::query::key::{FIELDS, Field, Key, Names, UnknownKey, Value, Which};
use ibid_ledger::record::Status;
use ibid_ledger::removed;
use ibid_ledger::summary::{Standing, Summary, Texts};
use serde_json::{Map, json};

use crate::args::Cli;
use crate::image_build::now;
use crate::ledger_args::Runs;
use crate::project_ledger::{ProjectLedger, failure};
use crate::report::Failure;
use crate::table::{self, Column, terminal_width};
use crate::ui::{self, Ui};

/// With fewer, a thread takes longer to start than its columns to make.
const RUNS_PER_THREAD_MIN: usize = 1000;

/// Damaged records that are named one by one.
const DAMAGED_SHOWN_MAX: usize = 5;

pub fn main(ui: &Ui, cli: &Cli, args: &Runs) -> Result<u8, Failure> {
    let project = ProjectLedger::of(cli.directory.as_deref())?;
    let mut texts = Texts::default();
    let all = if args.removed {
        texts.hold(removed::runs(&project.ledger).map_err(failure)?)
    } else {
        project.runs(&mut texts)?
    };
    warn_of_damaged(ui, &all);
    let names = Names::of(&all);
    let mut runs: Vec<&Summary<&str>> = match &args.filter {
        // Before the first run nobody can say what a name means.
        Some(_) | None if all.is_empty() => Vec::new(),
        Some(text) => {
            let filter = Filter::parse(text, &names).map_err(|error| wrong_filter(text, &error))?;
            all.iter().filter(|run| filter.holds(run)).collect()
        }
        None => all.iter().collect(),
    };
    if let Some(order) = &args.sort
        && !all.is_empty()
    {
        sort(&mut runs, order, &names)?;
    }
    if let Some(limit) = args.limit {
        runs.truncate(limit);
    }
    if args.json {
        let runs: Vec<_> = runs.iter().map(|run| document(run)).collect();
        ui::print(&serde_json::to_string_pretty(&json!({"schema": 1, "runs": runs})).expect("plain data"));
        return Ok(0);
    }
    let keys = match &args.columns[..] {
        [] if args.csv => csv_columns(&runs),
        [] => telling_columns(&runs),
        _ if all.is_empty() => Vec::new(),
        columns => columns
            .iter()
            .map(|column| names.resolve(column).map_err(|error| unknown("--columns", error)))
            .collect::<Result<_, _>>()?,
    };
    if args.csv && all.is_empty() && !args.columns.is_empty() {
        // The head that the caller expects, though nobody can say what it means.
        ui::print(&args.columns.join(","));
    } else if args.csv {
        csv(&keys, &runs, &names);
    } else if runs.is_empty() {
        ui.say(match (all.is_empty(), args.removed) {
            (true, false) => "no run yet: `ibid run` makes one",
            (true, true) => "no run was taken away",
            (false, _) => "no run is so",
        });
    } else {
        show(ui, &keys, &runs, &names);
    }
    drop((runs, names));
    // As with cells.
    std::mem::forget(all);
    Ok(0)
}

fn warn_of_damaged(ui: &Ui, runs: &[Summary<&str>]) {
    let mut damaged = runs.iter().filter_map(|run| match &run.standing {
        Standing::Unreadable(reason) => Some((run.id, reason)),
        Standing::Known(_) => None,
    });
    for (id, reason) in damaged.by_ref().take(DAMAGED_SHOWN_MAX) {
        ui.warn(&format!("the record of {id} cannot be read: {reason}"));
    }
    let more = damaged.count();
    if more > 0 {
        ui.warn(&format!("nor can those of {more} more"));
    }
}

fn wrong_filter(text: &str, error: &InvalidFilter) -> Failure {
    let failure = Failure::new(&*error.message).excerpt("--filter".as_ref(), text, error.span.clone(), "");
    match &error.unknown {
        Some(unknown) => with_nearest(failure, unknown),
        None => failure.hint("docs/runs.md says what a condition may be"),
    }
}

fn unknown(option: &str, error: UnknownKey) -> Failure {
    with_nearest(Failure::new(format!("{option}: {error}")), &error)
}

fn with_nearest(failure: Failure, error: &UnknownKey) -> Failure {
    const ALIKE: f64 = 0.75;
    let UnknownKey::Unknown { text, known } = error else { return failure };
    let likeness = |name: &String| strsim::jaro_winkler(name, text);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|name| likeness(name) > ALIKE) {
        Some(name) => failure.hint(format!("did you mean `{name}`?")),
        None => failure.hint(format!("there are {}", known.join(", "))),
    }
}

fn sort(runs: &mut [&Summary<&str>], order: &str, names: &Names) -> Result<(), Failure> {
    let (is_reverse, key) = match order.strip_prefix('-') {
        Some(key) => (true, key),
        None => (false, order),
    };
    let key = names.resolve(key).map_err(|error| unknown("--sort", error))?;
    // What a run does not have stays at the end either way.
    runs.sort_by(|a, b| {
        let (a, b) = (key.value(a), key.value(b));
        match (&a, &b) {
            (Value::None, _) | (_, Value::None) => a.order(&b),
            _ if is_reverse => b.order(&a),
            _ => a.order(&b),
        }
    });
    Ok(())
}

/// What is shown when nobody says what: how each run went, then what tells them apart.
fn telling_columns(runs: &[&Summary<&str>]) -> Vec<Key> {
    let mut keys: Vec<Key> = [Field::Id, Field::Started, Field::Status, Field::Code].map(Key::Field).into();
    if runs.iter().any(|run| !run.tags.is_empty()) {
        keys.push(Key::Field(Field::Tag));
    }
    let Names { parameters, metrics } = Names::of(runs.iter().copied());
    let varies = |name: &&str| {
        let first = runs.first().and_then(|run| run.parameters.get(name));
        runs.iter().any(|run| run.parameters.get(name) != first)
    };
    let (varying, constant): (Vec<&str>, Vec<&str>) = parameters.into_iter().partition(varies);
    keys.extend(varying.into_iter().map(parameter));
    keys.extend(metrics.into_iter().map(last));
    keys.extend(constant.into_iter().map(parameter));
    keys
}

/// For a file: the same columns, whichever runs vary in what.
fn csv_columns(runs: &[&Summary<&str>]) -> Vec<Key> {
    let mut keys: Vec<Key> =
        [Field::Id, Field::Started, Field::Status, Field::Code, Field::Seconds, Field::Tag]
            .map(Key::Field)
            .into();
    let Names { parameters, metrics } = Names::of(runs.iter().copied());
    keys.extend(parameters.into_iter().map(parameter));
    keys.extend(metrics.into_iter().map(last));
    keys
}

fn parameter(name: &str) -> Key {
    Key::Parameter(name.to_owned())
}

fn last(name: &str) -> Key {
    Key::Metric(name.to_owned(), Which::Last)
}

/// A title that means the same to `--columns`.
fn title(key: &Key, names: &Names) -> String {
    let title = key.title();
    match (key, names.resolve(&title)) {
        (_, Ok(meant)) if meant == *key => title,
        (Key::Parameter(_), _) => format!("parameters.{title}"),
        (Key::Metric(..), _) => format!("metrics.{title}"),
        (Key::Field(_), _) => title,
    }
}

fn show(ui: &Ui, keys: &[Key], runs: &[&Summary<&str>], names: &Names) {
    let is_terminal = terminal_width().is_some();
    let now = now() as f64;
    let column = |key: &Key| {
        let title = match key {
            Key::Field(Field::Started) => "WHEN".to_owned(),
            Key::Field(_) => key.title().to_uppercase(),
            key => title(key, names),
        };
        let values: Vec<Value> = runs.iter().map(|run| key.value(run)).collect();
        let is_number = |value: &Value| *value == Value::None || value.number().is_some();
        let right = *key != Key::Field(Field::Id) && values.iter().all(is_number);
        let now = is_terminal.then_some(now);
        let cells = values.into_iter().map(|value| cell(key, value, now)).collect();
        Column { title, cells, right }
    };
    let columns: Vec<Column> = if runs.len() < RUNS_PER_THREAD_MIN {
        keys.iter().map(column).collect()
    } else {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let parts = keys.chunks(keys.len().div_ceil(threads).max(1));
            let parts: Vec<_> =
                parts.map(|part| scope.spawn(move || part.iter().map(column).collect::<Vec<_>>())).collect();
            parts.into_iter().flat_map(|part| part.join().expect("no column panics")).collect()
        })
    };
    let status = keys.iter().position(|key| *key == Key::Field(Field::Status));
    let style = |row: usize, column: usize| {
        (Some(column) == status).then(|| match runs[row].standing {
            Standing::Known(Status::Ok) => ui::GREEN,
            Standing::Known(Status::Running) => ui::CYAN,
            Standing::Known(Status::Failed) => ui::RED,
            _ => ui::YELLOW,
        })
    };
    let hidden = table::print(ui, &columns, &style);
    // This process ends, which takes less time than to give back each cell of many.
    std::mem::forget(columns);
    if hidden > 0 {
        let names: Vec<String> = keys[keys.len() - hidden..].iter().map(|key| title(key, names)).collect();
        let columns = if hidden == 1 { "column has" } else { "columns have" };
        ui.say(&format!(
            "{hidden} {columns} no room here: {} · `--columns` picks",
            ui::one_line(&names.join(", "))
        ));
    }
}

/// A value for people; times are told from `now` where that is given.
fn cell<'a>(key: &Key, value: Value<'a>, now: Option<f64>) -> Cow<'a, str> {
    let text = match (key, value) {
        (Key::Field(Field::Started | Field::Ended), Value::Text(text)) => {
            match now.and_then(|now| Some(now - parse_rfc3339(text)?)) {
                Some(seconds) => ago(seconds, text),
                None => return text.into(),
            }
        }
        (Key::Field(Field::Seconds | Field::CpuSeconds), Value::Number(number)) => ui::seconds(number),
        (Key::Field(Field::Memory), Value::Number(number)) => ui::bytes(number as u64),
        (Key::Field(Field::Image), Value::List(texts)) => {
            texts.iter().map(|text| short(text)).collect::<Vec<_>>().join(", ")
        }
        (Key::Field(Field::Snapshot), Value::Text(text)) => short(text),
        (Key::Field(Field::Commit), Value::Text(text)) => return text.get(..7).unwrap_or(text).into(),
        (Key::Field(Field::Code | Field::Differing), Value::Number(number)) => number.to_string(),
        (_, Value::Number(number)) => ui::number(number),
        (_, Value::None) => return "-".into(),
        (_, Value::Text(text)) => return text.into(),
        (_, value) => value.text(),
    };
    text.into()
}

/// A digest as far as a person reads it; other text as it is.
fn short(text: &str) -> String {
    match text.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.is_ascii() => format!("sha256:{}", &hex[..12]),
        _ => text.to_owned(),
    }
}

/// How long ago something was; the day when that is more than a month.
fn ago(seconds: f64, text: &str) -> String {
    const UNITS: [(f64, &str); 4] = [(86_400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second")];
    if !(0.0..31.0 * 86_400.0).contains(&seconds) {
        return text.get(..16).unwrap_or(text).replace('T', " ");
    }
    let unit = UNITS.iter().find(|(length, _)| seconds >= *length);
    match unit.map(|(length, name)| ((seconds / length) as u64, name)) {
        Some((1, name)) => format!("1 {name} ago"),
        Some((count, name)) => format!("{count} {name}s ago"),
        None => "now".to_owned(),
    }
}

/// As RFC 4180 has it, but with the line ends of Unix.
fn csv(keys: &[Key], runs: &[&Summary<&str>], names: &Names) {
    let quoted = |text: String| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text
        }
    };
    let line = |cells: Vec<String>| cells.into_iter().map(quoted).collect::<Vec<_>>().join(",");
    let mut lines = vec![line(keys.iter().map(|key| title(key, names)).collect())];
    lines.extend(runs.iter().map(|run| line(keys.iter().map(|key| key.value(run).text()).collect())));
    ui::print(&lines.join("\n"));
}

fn document(run: &Summary<&str>) -> Map<String, serde_json::Value> {
    let mut map = Map::new();
    for (name, field) in FIELDS {
        let value = match Key::Field(field).value(run) {
            Value::None => continue,
            Value::Number(number) if number.fract() == 0.0 => json!(number as i64),
            Value::Number(number) => json!(number),
            Value::Text(text) => json!(text),
            Value::Owned(text) => json!(text),
            Value::List(texts) => json!(texts),
        };
        map.insert(name.to_owned(), value);
    }
    if let Standing::Unreadable(reason) = &run.standing {
        map.insert("problem".to_owned(), json!(reason));
    }
    map.insert("parameters".to_owned(), json!(run.parameters.iter().collect::<BTreeMap<_, _>>()));
    let metrics: Map<_, _> = run
        .metrics
        .iter()
        .map(|(name, values)| (name.to_owned(), json!({"last": values.0, "min": values.1, "max": values.2})))
        .collect();
    map.insert("metrics".to_owned(), json!(metrics));
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let check = |seconds, expected: &str| assert_eq!(ago(seconds, "2026-03-05T10:11:12.000Z"), expected);
        check(0.2, "now");
        check(1.9, "1 second ago");
        check(59.0, "59 seconds ago");
        check(3600.0, "1 hour ago");
        check(86_400.0 * 12.5, "12 days ago");
        check(86_400.0 * 40.0, "2026-03-05 10:11");
        check(-5.0, "2026-03-05 10:11");
    }
}
