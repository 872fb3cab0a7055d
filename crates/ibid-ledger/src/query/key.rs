//! Keys: what people call a value of a run in conditions, orders and columns.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::record::Status;
use crate::summary::{MetricSummary, Standing, Summary};

/// A value that every run can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The run's name.
    Id,
    /// `ok`, `failed`, `running`, `lost`, `not_started`, `damaged`.
    Status,
    /// When it started.
    Started,
    /// When it ended.
    Ended,
    /// How long it took, seconds.
    Seconds,
    /// The exit code.
    Code,
    /// The signal that ended it.
    Signal,
    /// The words of the command.
    Command,
    /// Digest and names of the image.
    Image,
    /// `mounted` or `pegged`.
    Mode,
    /// The commit.
    Commit,
    /// The branch.
    Branch,
    /// How many files differed from the commit.
    Differing,
    /// Digest of the snapshot.
    Snapshot,
    /// Name of the machine.
    Host,
    /// The person.
    User,
    /// Model of the processor.
    Cpu,
    /// Models of the GPUs.
    Gpu,
    /// Peak memory, bytes.
    Memory,
    /// Processor time, seconds.
    CpuSeconds,
    /// The run that it repeats.
    ReplayOf,
    /// What people should know.
    Warning,
    /// Names that people gave it.
    Tag,
    /// What people noted.
    Note,
}

/// All fields by name.
pub const FIELDS: [(&str, Field); 24] = [
    ("id", Field::Id),
    ("status", Field::Status),
    ("started", Field::Started),
    ("ended", Field::Ended),
    ("seconds", Field::Seconds),
    ("code", Field::Code),
    ("signal", Field::Signal),
    ("command", Field::Command),
    ("image", Field::Image),
    ("mode", Field::Mode),
    ("commit", Field::Commit),
    ("branch", Field::Branch),
    ("differing", Field::Differing),
    ("snapshot", Field::Snapshot),
    ("host", Field::Host),
    ("user", Field::User),
    ("cpu", Field::Cpu),
    ("gpu", Field::Gpu),
    ("memory", Field::Memory),
    ("cpu_seconds", Field::CpuSeconds),
    ("replay_of", Field::ReplayOf),
    ("warning", Field::Warning),
    ("tag", Field::Tag),
    ("note", Field::Note),
];

/// What a key means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A field.
    Field(Field),
    /// A named argument.
    Parameter(String),
    /// A metric, and which of its values.
    Metric(String, Which),
}

/// Which value of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The last.
    Last,
    /// The smallest.
    Min,
    /// The greatest.
    Max,
}

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownKey {
    /// No run has it.
    #[error("no run has `{text}`")]
    Unknown {
        /// What was given.
        text: String,
        /// All that there are.
        known: Vec<String>,
    },
    /// It is the name of a parameter and of a metric.
    #[error("`{text}` is a parameter and a metric: write `parameters.{text}` or `metrics.{text}`")]
    Ambiguous {
        /// What was given.
        text: String,
    },
}

/// A value of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// It has none.
    None,
    /// A number.
    Number(f64),
    /// A text; one that reads as a number compares as one.
    Text(&'a str),
    /// A text that is made when it is asked for.
    Owned(String),
    /// Several texts.
    List(Vec<&'a str>),
}

/// The names of parameters and metrics that runs have.
#[derive(Debug, Clone, Default)]
pub struct Names<'a> {
    /// Of parameters.
    pub parameters: BTreeSet<&'a str>,
    /// Of metrics.
    pub metrics: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    /// Those of some runs.
    pub fn of<S: AsRef<str> + 'a>(runs: impl IntoIterator<Item = &'a Summary<S>>) -> Self {
        let mut names = Self::default();
        let mut last: Option<&Summary<S>> = None;
        for run in runs {
            // Most runs have what the one before them has.
            if last.is_none_or(|last| !last.parameters.keys().eq(run.parameters.keys())) {
                names.parameters.extend(run.parameters.keys());
            }
            if last.is_none_or(|last| !last.metrics.keys().eq(run.metrics.keys())) {
                names.metrics.extend(run.metrics.keys());
            }
            last = Some(run);
        }
        names
    }

    /// What `text` means. A field goes before parameters and metrics of its name.
    pub fn resolve(&self, text: &str) -> Result<Key, UnknownKey> {
        if let Some((_, field)) = FIELDS.iter().find(|(name, _)| *name == text) {
            return Ok(Key::Field(*field));
        }
        let parameter = |name: &str| self.parameters.contains(name).then(|| Key::Parameter(name.to_owned()));
        match (parameter(text), self.metric(text)) {
            (Some(_), Some(_)) => return Err(UnknownKey::Ambiguous { text: text.to_owned() }),
            (Some(key), None) | (None, Some(key)) => return Ok(key),
            (None, None) => {}
        }
        let found = match text.split_once('.') {
            Some(("parameters", name)) => parameter(name),
            Some(("metrics", name)) => self.metric(name),
            _ => None,
        };
        found.ok_or_else(|| UnknownKey::Unknown { text: text.to_owned(), known: self.all() })
    }

    /// The metric `name`, or `NAME.min` and the like of one.
    fn metric(&self, name: &str) -> Option<Key> {
        if self.metrics.contains(name) {
            return Some(Key::Metric(name.to_owned(), Which::Last));
        }
        let (name, which) = name.rsplit_once('.')?;
        let which = match which {
            "last" => Which::Last,
            "min" => Which::Min,
            "max" => Which::Max,
            _ => return None,
        };
        self.metrics.contains(name).then(|| Key::Metric(name.to_owned(), which))
    }

    fn all(&self) -> Vec<String> {
        let fields = FIELDS.iter().map(|(name, _)| *name);
        fields.chain(self.parameters.iter().chain(&self.metrics).copied()).map(str::to_owned).collect()
    }
}

impl Key {
    /// The name of a column that shows it.
    pub fn title(&self) -> String {
        match self {
            Self::Field(field) => {
                let named = FIELDS.iter().find(|(_, other)| other == field);
                named.expect("every field has a name").0.to_owned()
            }
            Self::Parameter(name) | Self::Metric(name, Which::Last) => name.clone(),
            Self::Metric(name, Which::Min) => format!("{name}.min"),
            Self::Metric(name, Which::Max) => format!("{name}.max"),
        }
    }

    /// What a run has of it.
    pub fn value<'a, S: AsRef<str>>(&self, run: &'a Summary<S>) -> Value<'a> {
        match self {
            Self::Field(field) => field.value(run),
            Self::Parameter(name) => {
                run.parameters.get(name).map_or(Value::None, |text| Value::Text(text.as_ref()))
            }
            Self::Metric(name, which) => {
                let Some(MetricSummary(last, min, max)) = run.metrics.get(name) else { return Value::None };
                let value = match which {
                    Which::Last => last,
                    Which::Min => min,
                    Which::Max => max,
                };
                // One that JSON has no number for.
                Value::Number(value.unwrap_or(f64::NAN))
            }
        }
    }
}

impl Field {
    fn value<S: AsRef<str>>(self, run: &Summary<S>) -> Value<'_> {
        fn some<S: AsRef<str>>(text: Option<&S>) -> Value<'_> {
            text.map_or(Value::None, |text| Value::Text(text.as_ref()))
        }
        fn list<S: AsRef<str>>(texts: &[S]) -> Value<'_> {
            if texts.is_empty() { Value::None } else { Value::List(texts.iter().map(S::as_ref).collect()) }
        }
        fn plain<S: AsRef<str>>(text: &S) -> Value<'_> {
            let text = text.as_ref();
            if text.is_empty() { Value::None } else { Value::Text(text) }
        }
        let number = |number: Option<f64>| number.map_or(Value::None, Value::Number);
        match self {
            Self::Id => Value::Owned(run.id.to_string()),
            Self::Status => Value::Text(run.standing.name()),
            Self::Started => plain(&run.started),
            Self::Ended => some(run.ended.as_ref()),
            Self::Seconds => number(run.seconds),
            Self::Code => number(run.exit_code.map(f64::from)),
            Self::Signal => some(run.signal.as_ref()),
            Self::Command => plain(&run.command),
            Self::Image => list(&run.image),
            Self::Mode => plain(&run.mode),
            Self::Commit => some(run.commit.as_ref()),
            Self::Branch => some(run.branch.as_ref()),
            Self::Differing => match run.standing {
                Standing::Known(Status::NotStarted) | Standing::Unreadable(_) => Value::None,
                _ => Value::Number(run.differing as f64),
            },
            Self::Snapshot => some(run.snapshot.as_ref()),
            Self::Host => plain(&run.host),
            Self::User => plain(&run.user),
            Self::Cpu => plain(&run.cpu),
            Self::Gpu => list(&run.gpu),
            Self::Memory => number(run.peak_memory.map(|bytes| bytes as f64)),
            Self::CpuSeconds => number(run.cpu_seconds),
            Self::ReplayOf => run.replay_of.map_or(Value::None, |id| Value::Owned(id.to_string())),
            Self::Warning => list(&run.warnings),
            Self::Tag => list(&run.tags),
            Self::Note => list(&run.notes),
        }
    }
}

impl Value<'_> {
    /// The number that it is, or reads as.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The order of runs by this value: numbers by size, then texts, then what is no number, then runs without one.
    pub fn order(&self, other: &Self) -> Ordering {
        let rank = |value: &Self| match value {
            Self::None => 3,
            value => match value.number() {
                Some(number) if number.is_nan() => 2,
                Some(_) => 0,
                None => 1,
            },
        };
        rank(self).cmp(&rank(other)).then_with(|| match (self.number(), other.number()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => self.text().cmp(&other.text()),
        })
    }

    /// As a text; several with commas between.
    pub fn text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => (*text).to_owned(),
            Self::Owned(text) => text.clone(),
            Self::List(texts) => texts.join(", "),
        }
    }
}
