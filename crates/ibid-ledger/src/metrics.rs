//! Numbers that a run told again and again, read from what it wrote anyway: no library is linked into the program.
//!
//! | where | what is read | module |
//! |---|---|---|
//! | `metrics*.jsonl` and `metrics*.csv` among the outputs | numbers by their keys or columns | `tables` |
//! | TensorBoard's `*tfevents*` among the outputs | scalars | `tensorboard` |
//! | standard output | `loss: 0.35`, `loss=0.35`, `loss 0.35` | `lines` |
//!
//! A name that several of them tell is taken from the first in this order. All input is the program's: it is bounded, and what
//! cannot be read is passed over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use crate::ledger::{self, Error, io};
use crate::log::LogLine;
use crate::record::Metric;

mod lines;
mod tables;
mod tensorboard;

/// Name of the file beside the record.
pub const FILE: &str = "metrics.jsonl";

/// Values that are kept of a run.
const POINTS_MAX: usize = 2_000_000;

/// Names that are kept of a run.
const NAMES_MAX: usize = 4096;

/// The longest name.
const NAME_BYTES_MAX: usize = 256;

/// The longest line that is looked at in a file of the program.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// One value of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Name of the metric.
    pub name: String,
    /// The step that the program told with it, else how many values of this name came before.
    pub step: u64,
    /// The value.
    pub value: f64,
    /// When it came, where that is known: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// The metrics of one run.
#[derive(Debug, Default)]
pub struct Metrics {
    points: Vec<Point>,
    summaries: BTreeMap<String, Metric>,
}

impl Metrics {
    /// Reads a file among the outputs, if it is of a kind that holds metrics. `name` is its path relative to the project. A
    /// file that cannot be read tells nothing.
    pub fn read_output(&mut self, project: &Path, name: &str) {
        let file_name = name.rsplit('/').next().unwrap_or(name);
        let is_table = |end| file_name.starts_with("metrics") && file_name.ends_with(end);
        let read = if is_table(".jsonl") {
            tables::read_json_lines
        } else if is_table(".csv") {
            tables::read_csv
        } else if file_name.contains("tfevents") {
            tensorboard::read
        } else {
            return;
        };
        // A pipe of that name must not hold ibid up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(CWD, project.join(name), flags, Mode::empty()).map(File::from) else { return };
        if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            let mut found = Vec::new();
            read(&mut BufReader::new(file), &mut |point| {
                found.push(point);
                found.len() < POINTS_MAX
            });
            self.add(name, found);
        }
    }

    /// Reads what the program wrote to its standard output.
    pub fn read_lines(&mut self, lines: impl Iterator<Item = LogLine>) {
        let mut found = Vec::new();
        for line in lines {
            lines::read(&line.bytes, |name, step, value| {
                found.push(Found { name, step, value, time: Some(line.time.clone()) });
            });
            if found.len() >= POINTS_MAX {
                break;
            }
        }
        self.add("stdout", found);
    }

    fn add(&mut self, source: &str, found: Vec<Found>) {
        for Found { name, step, value, time } in found {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !value.is_finite() {
                continue;
            }
            if self.points.len() >= POINTS_MAX
                || self.summaries.len() >= NAMES_MAX && !self.summaries.contains_key(&name)
            {
                continue;
            }
            let metric = self.summaries.entry(name.clone()).or_insert_with(|| Metric {
                last: value,
                min: value,
                max: value,
                count: 0,
                source: source.to_owned(),
            });
            if metric.source != source {
                continue;
            }
            let step = step.unwrap_or(metric.count);
            metric.last = value;
            metric.min = metric.min.min(value);
            metric.max = metric.max.max(value);
            metric.count += 1;
            self.points.push(Point { name, step, value, time });
        }
    }

    /// Last, least, greatest and number of the values, by name.
    pub fn summaries(&self) -> &BTreeMap<String, Metric> {
        &self.summaries
    }

    /// All values, each name's in the order in which they came.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Writes all values beside the record of a run; nothing where there are none.
    pub fn write(&self, run_folder: &Path) -> Result<(), Error> {
        if self.points.is_empty() {
            return Ok(());
        }
        let path = run_folder.join(FILE);
        let temporary = run_folder.join(format!(".{FILE}"));
        let written = || {
            let mut file = BufWriter::new(File::create(&temporary)?);
            for point in &self.points {
                serde_json::to_writer(&mut file, point)?;
                file.write_all(b"\n")?;
            }
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            std::fs::rename(&temporary, &path)
        };
        written().map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            io("write", &path)(error)
        })
    }
}

/// All values of a run's metrics, each name's in the order in which they came. A run without metrics has none.
pub fn read(run_folder: &Path) -> Result<Vec<Point>, Error> {
    let path = run_folder.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("read", &path)(error)),
    };
    let mut points = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(io("read", &path))?;
        points.push(serde_json::from_str(&line).map_err(|error| ledger::Error::Damaged {
            path: path.clone(),
            reason: format!("line {}: {error}", number + 1),
        })?);
    }
    Ok(points)
}

/// A value as it was found.
#[derive(Debug, Clone, PartialEq)]
struct Found {
    name: String,
    step: Option<u64>,
    value: f64,
    time: Option<String>,
}

/// Takes values one after the other; false when it wants no more.
type Take<'a> = &'a mut dyn FnMut(Found) -> bool;

#[cfg(test)]
mod tests;
