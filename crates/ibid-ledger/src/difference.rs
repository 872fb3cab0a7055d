//! What differs between two runs, as far as their records say. For the code see [`crate::code_diff`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crate::record::{CodeMode, EnvValue, Host, Metric, Record};

/// What a difference is about, in the order in which people look for reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// How they ended.
    Result,
    /// Named arguments.
    Parameters,
    /// The command, limits and mounts.
    Command,
    /// Which code: for its content see the snapshots.
    Code,
    /// The image: for its content see the store.
    Image,
    /// Variables.
    Environment,
    /// Data inputs.
    Data,
    /// The machine.
    Hardware,
    /// Files that they made.
    Outputs,
    /// Numbers that they told.
    Metrics,
}

/// A value that is not the same in two runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// What it is about.
    pub section: Section,
    /// Name of the value.
    pub name: String,
    /// In the first run; none where that has none.
    pub first: Option<String>,
    /// In the second.
    pub second: Option<String>,
}

impl Section {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Result,
        Self::Parameters,
        Self::Command,
        Self::Code,
        Self::Image,
        Self::Environment,
        Self::Data,
        Self::Hardware,
        Self::Outputs,
        Self::Metrics,
    ];

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Parameters => "parameters",
            Self::Command => "command",
            Self::Code => "code",
            Self::Image => "image",
            Self::Environment => "environment",
            Self::Data => "data",
            Self::Hardware => "hardware",
            Self::Outputs => "outputs",
            Self::Metrics => "metrics",
        }
    }
}

/// Compares two records. Names, times and what a run took differ always and are left out.
pub fn differences(a: &Record, b: &Record) -> Vec<Difference> {
    let mut found = Found(Vec::new());
    found.maps(Section::Result, &result(a), &result(b));
    found.maps(Section::Parameters, &a.parameters, &b.parameters);
    found.maps(Section::Command, &command(a), &command(b));
    found.maps(Section::Code, &code(a), &code(b));
    found.maps(Section::Image, &image(a), &image(b));
    found.env(&a.env, &b.env);
    found.maps(Section::Data, &data(a), &data(b));
    found.maps(Section::Hardware, &hardware(&a.host), &hardware(&b.host));
    found.maps(Section::Outputs, &outputs(a), &outputs(b));
    found.metrics(&a.metrics, &b.metrics);
    found.0
}

type Values = BTreeMap<String, String>;
/// Picks a value of a metric.
type ValueOf = fn(&Metric) -> f64;

/// Named values, less those that are not known.
fn values<const N: usize>(values: [(&str, Option<String>); N]) -> Values {
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn text(value: &Option<impl Display>) -> Option<String> {
    value.as_ref().map(ToString::to_string)
}

fn result(run: &Record) -> Values {
    values([
        ("exit code", text(&run.exit_code)),
        ("signal", run.signal.clone()),
        ("failure", run.failure.clone()),
    ])
}

fn command(run: &Record) -> Values {
    let mut command = values([("command", Some(run.command.join(" ")))]);
    for (name, value) in &run.options {
        command.insert(format!("option {name}"), value.clone());
    }
    for mount in &run.mounts {
        let mode = if mount.read_only { ", read-only" } else { "" };
        command.insert(format!("mount {}", mount.target), format!("{}{mode}", mount.source));
    }
    command
}

fn code(run: &Record) -> Values {
    let code = &run.code;
    let mode = match code.mode {
        CodeMode::Mounted => "mounted",
        CodeMode::Pegged => "pegged",
    };
    values([
        ("mode", Some(mode.to_owned())),
        ("folder", code.folder.clone()),
        ("commit", code.commit.clone()),
        ("branch", code.branch.clone()),
        ("snapshot", text(&code.snapshot)),
    ])
}

fn image(run: &Record) -> Values {
    let image = &run.image;
    let mut found = values([("digest", Some(image.digest.to_string())), ("ibid.lock", text(&image.lock))]);
    for (name, digest) in &image.bases {
        found.insert(format!("base {name}"), digest.to_string());
    }
    found
}

/// Contents where both runs were asked for them, else what says as much: sizes and times.
fn data(run: &Record) -> Values {
    let about = |data: &crate::record::Data| match &data.digest {
        Some(digest) => format!("{} files, {} bytes, {digest}", data.files, data.bytes),
        None => format!("{} files, {} bytes, sizes and times {}", data.files, data.bytes, data.identity),
    };
    run.data.iter().map(|data| (data.path.clone(), about(data))).collect()
}

fn hardware(host: &Host) -> Values {
    let mut found = values([
        ("host", Some(host.name.clone())),
        ("architecture", Some(host.architecture.clone())),
        ("kernel", Some(host.kernel.clone())),
        ("cpu", Some(host.cpu.clone())),
        ("cpus", Some(host.cpus.to_string())),
        ("memory", Some(format!("{} bytes", host.memory))),
        ("engine", Some(host.engine.clone())),
    ]);
    for (number, gpu) in host.gpus.iter().enumerate() {
        found.insert(format!("gpu {number}"), format!("{}, driver {}", gpu.model, gpu.driver));
    }
    found
}

fn outputs(run: &Record) -> Values {
    let about = |output: &crate::record::Output| format!("{} bytes, {}", output.bytes, output.digest);
    // A folder of this run alone has its name in every path.
    let own = run.output_folder.as_ref().map(|folder| format!("{}/", folder.trim_end_matches('/')));
    let path = |path: &String| match own.as_deref().and_then(|own| path.strip_prefix(own)) {
        Some(rest) => format!("(own folder)/{rest}"),
        None => path.clone(),
    };
    run.outputs.iter().map(|output| (path(&output.path), about(output))).collect()
}

struct Found(Vec<Difference>);

impl Found {
    fn add(&mut self, section: Section, name: &str, first: Option<String>, second: Option<String>) {
        self.0.push(Difference { section, name: name.to_owned(), first, second });
    }

    fn maps(&mut self, section: Section, a: &Values, b: &Values) {
        for name in names(a, b) {
            let (first, second) = (a.get(name), b.get(name));
            if first != second {
                self.add(section, name, first.cloned(), second.cloned());
            }
        }
    }

    /// A secret is compared by its hash and never shown, which is no value of its own either.
    fn env(&mut self, a: &BTreeMap<String, EnvValue>, b: &BTreeMap<String, EnvValue>) {
        let is_secret = |value: Option<&EnvValue>| matches!(value, Some(EnvValue::Secret { .. }));
        for name in names(a, b) {
            let pair = (a.get(name), b.get(name));
            if pair.0 == pair.1 {
                continue;
            }
            let shown = |value: Option<&EnvValue>, secret: &str| {
                value.map(|value| match value {
                    EnvValue::Plain(value) => value.clone(),
                    EnvValue::Secret { .. } => secret.to_owned(),
                })
            };
            let second = if is_secret(pair.0) && is_secret(pair.1) { "another secret" } else { "a secret" };
            self.add(Section::Environment, name, shown(pair.0, "a secret"), shown(pair.1, second));
        }
    }

    fn metrics(&mut self, a: &BTreeMap<String, Metric>, b: &BTreeMap<String, Metric>) {
        for name in names(a, b) {
            let (first, second) = (a.get(name), b.get(name));
            let values: [(&str, ValueOf); 4] = [
                ("", |metric| metric.last),
                (".min", |metric| metric.min),
                (".max", |metric| metric.max),
                (".count", |metric| metric.count as f64),
            ];
            for (suffix, value) in values {
                let (first, second) = (first.map(value), second.map(value));
                // A value that is no number equals another such.
                if first.map(f64::to_bits) != second.map(f64::to_bits) {
                    self.add(Section::Metrics, &format!("{name}{suffix}"), text(&first), text(&second));
                }
                if first.is_none() || second.is_none() {
                    break;
                }
            }
        }
    }
}

fn names<'a, T>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> BTreeSet<&'a String> {
    a.keys().chain(b.keys()).collect()
}
