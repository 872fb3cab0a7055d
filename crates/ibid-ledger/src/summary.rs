//! What lists of runs show: the part of a record that is small and often asked for.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ledger::Error;
use crate::marks::Marks;
use crate::record::{CodeMode, Record, Status};
use crate::run_id::RunId;

/// One run in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub id: RunId,
    /// How it stands.
    pub standing: Standing,
    /// When it started; empty when the record cannot be read.
    pub started: String,
    /// When it ended.
    pub ended: Option<String>,
    /// How long it took, seconds.
    pub seconds: Option<f64>,
    /// Its exit code.
    pub exit_code: Option<u8>,
    /// The signal that ended it.
    pub signal: Option<String>,
    /// The words of its command, with spaces between.
    pub command: String,
    /// Named arguments.
    pub parameters: Named<String>,
    /// Last, smallest and greatest value of each metric.
    pub metrics: Named<MetricSummary>,
    /// Digest of the image, then its names at the time.
    pub image: Vec<String>,
    /// `mounted` or `pegged`.
    pub mode: String,
    /// The commit.
    pub commit: Option<String>,
    /// The branch.
    pub branch: Option<String>,
    /// How many files differed from the commit.
    pub differing: u64,
    /// The snapshot.
    pub snapshot: Option<String>,
    /// Name of the machine.
    pub host: String,
    /// The person.
    pub user: String,
    /// Model of the processor.
    pub cpu: String,
    /// Models of the GPUs.
    pub gpu: Vec<String>,
    /// Bytes.
    pub peak_memory: Option<u64>,
    /// Seconds.
    pub cpu_seconds: Option<f64>,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
    /// What people should know.
    pub warnings: Vec<String>,
    /// Names that people gave it.
    pub tags: Vec<String>,
    /// What people noted.
    pub notes: Vec<String>,
}

/// Values by name, sorted by that. Ten thousand runs of a few names each are read quicker than as maps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named<T>(Vec<(String, T)>);

/// How a run stands, also where its record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// As its record says.
    Known(Status),
    /// The record is damaged, or of a newer ibid; this is why.
    Unreadable(String),
}

/// The values of a metric that lists show. One that is no number is none, as JSON has none such.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary(pub Option<f64>, pub Option<f64>, pub Option<f64>);

impl<T> Named<T> {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Their names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<(String, T)> for Named<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(pairs: I) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self(pairs)
    }
}

impl Standing {
    /// One word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Known(Status::Running) => "running",
            Self::Known(Status::Ok) => "ok",
            Self::Known(Status::Failed) => "failed",
            Self::Known(Status::Lost) => "lost",
            Self::Known(Status::NotStarted) => "not_started",
            Self::Unreadable(_) => "damaged",
        }
    }
}

impl Summary {
    /// Of a record and its marks.
    pub fn new(record: Record, marks: Marks) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        let metrics = record.metrics.into_iter().map(|(name, metric)| {
            (name, MetricSummary(finite(metric.last), finite(metric.min), finite(metric.max)))
        });
        let mut image = vec![record.image.digest.to_string()];
        image.extend(record.image.tags);
        Self {
            id: record.id,
            standing: Standing::Known(record.status),
            started: record.started,
            ended: record.ended,
            seconds: record.seconds,
            exit_code: record.exit_code,
            signal: record.signal,
            command: record.command.join(" "),
            parameters: record.parameters.into_iter().collect(),
            metrics: metrics.collect(),
            image,
            mode: match record.code.mode {
                CodeMode::Mounted => "mounted",
                CodeMode::Pegged => "pegged",
            }
            .to_owned(),
            commit: record.code.commit,
            branch: record.code.branch,
            differing: record.code.differing.len() as u64,
            snapshot: record.code.snapshot.map(|digest| digest.to_string()),
            host: record.host.name,
            user: record.host.user,
            cpu: record.host.cpu,
            gpu: record.host.gpus.into_iter().map(|gpu| gpu.model).collect(),
            peak_memory: record.usage.as_ref().map(|usage| usage.peak_memory),
            cpu_seconds: record.usage.as_ref().map(|usage| usage.cpu_seconds),
            replay_of: record.replay_of,
            warnings: record.warnings,
            tags: marks.tags,
            notes: marks.notes.into_iter().map(|note| note.text).collect(),
        }
    }

    /// Of a run whose record cannot be read.
    fn unreadable(id: RunId, reason: String, marks: Marks) -> Self {
        Self {
            id,
            standing: Standing::Unreadable(reason),
            started: String::new(),
            ended: None,
            seconds: None,
            exit_code: None,
            signal: None,
            command: String::new(),
            parameters: Named::default(),
            metrics: Named::default(),
            image: Vec::new(),
            mode: String::new(),
            commit: None,
            branch: None,
            differing: 0,
            snapshot: None,
            host: String::new(),
            user: String::new(),
            cpu: String::new(),
            gpu: Vec::new(),
            peak_memory: None,
            cpu_seconds: None,
            replay_of: None,
            warnings: Vec::new(),
            tags: marks.tags,
            notes: marks.notes.into_iter().map(|note| note.text).collect(),
        }
    }

    /// Of what came of reading the record in a run's `folder`. None when nothing is written there, or when it is gone.
    pub fn read(id: RunId, folder: &Path, record: Result<Record, Error>) -> Option<Self> {
        // A list is not worth failing for marks that cannot be read; `ibid show` says what is wrong with them.
        let marks = Marks::read(folder).unwrap_or_default();
        match record {
            Ok(record) if record.id != id => {
                Some(Self::unreadable(id, format!("it is the record of {}", record.id), marks))
            }
            Ok(record) => Some(Self::new(record, marks)),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(Self::unreadable(id, reason(&error), marks)),
        }
    }
}

/// Why a record cannot be read, without the path that every message would repeat.
fn reason(error: &Error) -> String {
    match error {
        Error::Damaged { reason, .. } => reason.clone(),
        Error::Io { source, .. } => source.to_string(),
        Error::Newer { version, .. } => format!("it is of version {version}, from a newer ibid"),
        error => error.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One about which nothing is known.
    pub(crate) fn summary(id: &str) -> Summary {
        Summary::unreadable(id.parse().expect("an id"), "nothing was written".to_owned(), Marks::default())
    }
}
