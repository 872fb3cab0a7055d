//! What lists of runs show: the part of a record that is small and often asked for.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ledger::Error;
use crate::marks::Marks;
use crate::record::{CodeMode, Record, Status};
use crate::run_id::RunId;

/// One run in a list. `S` is `&str` where the texts are those of [`Texts`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary<S = String> {
    /// Its name.
    pub id: RunId,
    /// How it stands.
    pub standing: Standing,
    /// When it started; empty when the record cannot be read.
    pub started: S,
    /// When it ended.
    pub ended: Option<S>,
    /// How long it took, seconds.
    pub seconds: Option<f64>,
    /// Its exit code.
    pub exit_code: Option<u8>,
    /// The signal that ended it.
    pub signal: Option<S>,
    /// The words of its command, with spaces between.
    pub command: S,
    /// Named arguments.
    pub parameters: Named<S, S>,
    /// Last, smallest and greatest value of each metric.
    pub metrics: Named<S, MetricSummary>,
    /// Digest of the image, then its names at the time.
    pub image: Vec<S>,
    /// `mounted` or `pegged`.
    pub mode: S,
    /// The commit.
    pub commit: Option<S>,
    /// The branch.
    pub branch: Option<S>,
    /// How many files differed from the commit.
    pub differing: u64,
    /// The snapshot.
    pub snapshot: Option<S>,
    /// Name of the machine.
    pub host: S,
    /// The person.
    pub user: S,
    /// Model of the processor.
    pub cpu: S,
    /// Models of the GPUs.
    pub gpu: Vec<S>,
    /// Bytes.
    pub peak_memory: Option<u64>,
    /// Seconds.
    pub cpu_seconds: Option<f64>,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
    /// What people should know.
    pub warnings: Vec<S>,
    /// Names that people gave it.
    pub tags: Vec<S>,
    /// What people noted.
    pub notes: Vec<S>,
}

/// Values by name, sorted by that. Ten thousand runs of a few names each are read quicker than as maps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named<S, T>(Vec<(S, T)>);

/// What summaries were read from. Those of ten thousand runs are read quicker when their texts stay where they are.
#[derive(Debug, Default)]
pub struct Texts {
    pub(crate) known: Vec<u8>,
    pub(crate) fresh: Vec<u8>,
}

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

impl Texts {
    /// Summaries whose texts are here.
    pub fn hold(&mut self, runs: impl IntoIterator<Item = Summary>) -> Vec<Summary<&str>> {
        let encoded = encode(&mut self.fresh, runs.into_iter().map(|run| ((), run)));
        encoded.into_iter().map(|((), encoded)| decode(&self.fresh[encoded]).expect("just encoded")).collect()
    }
}

/// Appends summaries to `texts`, and says where each is.
pub(crate) fn encode<T>(
    texts: &mut Vec<u8>,
    runs: impl IntoIterator<Item = (T, Summary)>,
) -> Vec<(T, Range<usize>)> {
    let mut encoded = Vec::new();
    for (with, run) in runs {
        let start = texts.len();
        *texts = postcard::to_extend(&run, std::mem::take(texts)).expect("plain data");
        encoded.push((with, start..texts.len()));
    }
    encoded
}

/// None when `encoded` is no summary.
pub(crate) fn decode(encoded: &[u8]) -> Option<Summary<&str>> {
    postcard::from_bytes(encoded).ok()
}

/// When the run of a summary started; nothing when `encoded` is no summary.
pub(crate) fn started(encoded: &[u8]) -> &str {
    // That is how a `Summary` begins.
    postcard::take_from_bytes::<(RunId, Standing, &str)>(encoded).map_or("", |((.., started), _)| started)
}

impl<S: AsRef<str>, T> Named<S, T> {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// Their names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }
}

impl<S, T> Default for Named<S, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<(String, T)> for Named<String, T> {
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
