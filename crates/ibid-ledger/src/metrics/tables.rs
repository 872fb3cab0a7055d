//! Metrics in files of lines: an object, or the cells of a row, each.

use std::io::{BufRead, Read as _};

use serde_json::Value;

use super::lines::STEPS;
use super::{Found, LINE_BYTES_MAX, Take};

/// Keys that tell when.
const TIMES: [&str; 5] = ["time", "timestamp", "_timestamp", "datetime", "date"];

/// How deep objects in objects are followed.
const DEPTH_MAX: usize = 4;

/// Columns that are read of a table.
const COLUMNS_MAX: usize = 1024;

/// One JSON object a line: each number by its key, those of inner objects by `outer.inner`. `{"name": …, "value": …}` is one
/// value of that name.
pub(super) fn read_json_lines(file: &mut dyn BufRead, take: Take<'_>) {
    each_line(file, |line| {
        let parsed = serde_json::from_slice(line).or_else(|_| serde_json::from_str(&without_nan(line)));
        let Ok(Value::Object(object)) = parsed else { return true };
        let step = STEPS.iter().find_map(|key| object.get(*key)?.as_u64());
        let time = TIMES.iter().find_map(|key| object.get(*key)?.as_str()).map(str::to_owned);
        if let (Some(name), Some(value)) = (object.get("name").and_then(Value::as_str), object.get("value")) {
            let Some(value) = value.as_f64() else { return true };
            return take(Found { name: name.to_owned(), step, value, time });
        }
        let mut found = Vec::new();
        flatten("", &object, DEPTH_MAX, &mut found);
        // An object of steps alone is about them.
        let has_values = found.iter().any(|(name, _)| !STEPS.contains(&name.as_str()));
        found
            .into_iter()
            .filter(|(name, _)| !has_values || !STEPS.contains(&name.as_str()))
            .all(|(name, value)| take(Found { name, step, value, time: time.clone() }))
    });
}

fn flatten(
    prefix: &str,
    object: &serde_json::Map<String, Value>,
    depth: usize,
    found: &mut Vec<(String, f64)>,
) {
    for (key, value) in object {
        if prefix.is_empty() && TIMES.contains(&key.as_str()) {
            continue;
        }
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Number(number) => found.extend(number.as_f64().map(|value| (name, value))),
            Value::Object(inner) if depth > 0 => flatten(&name, inner, depth - 1, found),
            _ => {}
        }
    }
}

/// Python writes `NaN` and `Infinity`, which JSON has not: they become `null` outside of strings.
fn without_nan(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut whole = String::with_capacity(text.len());
    for (number, part) in split_strings(&text).enumerate() {
        if number % 2 == 0 {
            whole.push_str(
                &part.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null"),
            );
        } else {
            whole.push_str(part);
        }
    }
    whole
}

/// Text outside and inside of JSON strings, in turns; quotes belong to the strings.
fn split_strings(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let mut inside = false;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if inside {
            let mut escaped = false;
            rest.char_indices()
                .skip(1)
                .find(|(_, c)| {
                    let closes = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    closes
                })
                .map_or(rest.len(), |(at, _)| at + 1)
        } else {
            rest.find('"').unwrap_or(rest.len())
        };
        inside = !inside;
        let part;
        (part, rest) = rest.split_at(end);
        Some(part)
    })
}

/// A table whose first row names the columns.
pub(super) fn read_csv(file: &mut dyn BufRead, take: Take<'_>) {
    let mut columns: Vec<String> = Vec::new();
    each_line(file, |line| {
        let Ok(line) = std::str::from_utf8(line) else { return true };
        let line = line.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
        let Ok(cells) = ibid_core::csv::fields(line) else { return true };
        if columns.is_empty() {
            columns = cells.into_iter().take(COLUMNS_MAX).map(|cell| cell.trim().to_owned()).collect();
            return true;
        }
        let of_step = |name: &&str| STEPS.contains(&name.to_ascii_lowercase().as_str());
        let named = || columns.iter().map(String::as_str).zip(&cells);
        let step = named().find(|(name, _)| of_step(name)).and_then(|(_, cell)| cell.trim().parse().ok());
        let time = named().find(|(name, _)| TIMES.contains(name)).map(|(_, cell)| cell.clone());
        let has_values =
            columns.iter().any(|name| !of_step(&name.as_str()) && !TIMES.contains(&name.as_str()));
        named()
            .filter(|(name, _)| !(TIMES.contains(name) || has_values && of_step(name)))
            .filter_map(|(name, cell)| Some((name, cell.trim().parse::<f64>().ok()?)))
            .all(|(name, value)| take(Found { name: name.to_owned(), step, value, time: time.clone() }))
    });
}

/// Hands out lines until one is too long, cannot be read, or the taker has enough.
fn each_line(file: &mut dyn BufRead, mut take: impl FnMut(&[u8]) -> bool) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match file.take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(read) if read as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") => return,
            Ok(_) if take(&line) => {}
            Ok(_) => return,
        }
    }
}
