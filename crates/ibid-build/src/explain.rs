//! Why a step is run again: what it reads now beside what it read when the project was last built.
//!
//! The trace of the last build is a hint and no truth: it lies in the cache and may be lost, and then a step's reason
//! is that nothing is known of it. It is one small cache value, and one more for the files of each step that reads any, which is
//! read only when a reason needs it: a list of many files takes longer to read than to find unchanged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use ibid_core::digest::Digest;
use ibid_store::Store;
use serde::{Deserialize, Serialize};

/// The version of the format that this code reads and writes; another one is as good as none.
const VERSION: u32 = 3;
/// Changed files that a reason names.
const FILES_SHOWN_MAX: usize = 3;
/// Longest value that a reason shows, characters.
const VALUE_CHARACTERS_MAX: usize = 60;

/// What the steps of a build read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    version: u32,
    steps: Vec<TracedStep>,
}

/// What one step read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TracedStep {
    /// Name or number of the stage.
    pub(crate) stage: String,
    /// The instruction.
    pub(crate) text: String,
    /// What the stage starts from, for people, and its digest.
    pub(crate) base: (String, String),
    /// The inputs of its key, in the key's order.
    pub(crate) inputs: Vec<(String, String)>,
    /// Names of variables that are the image's own; others are build arguments.
    pub(crate) own_variables: BTreeSet<String>,
    /// What it copies or mounts from the context: path and content digest. Kept apart.
    #[serde(skip)]
    pub(crate) files: BTreeMap<String, String>,
}

/// The last build's trace, and the one that is being made.
#[derive(Debug, Default)]
pub struct Explanations {
    /// Where the trace is kept, if anywhere.
    place: Option<(Store, Digest)>,
    previous: Option<Trace>,
    /// Where in it the first step of each stage and text is.
    places: HashMap<(String, String), usize>,
    /// By number of the step.
    now: Mutex<BTreeMap<usize, TracedStep>>,
}

impl Explanations {
    /// Beside what `store` keeps of the last build under `key`, if anything.
    pub fn read(store: &Store, key: Digest) -> Result<Self, ibid_store::Error> {
        let previous = store
            .cache(&key)?
            .and_then(|bytes| serde_json::from_slice::<Trace>(&bytes).ok())
            .filter(|trace| trace.version == VERSION);
        let mut places = HashMap::new();
        for (place, step) in previous.iter().flat_map(|trace: &Trace| &trace.steps).enumerate() {
            places.entry((step.stage.clone(), step.text.clone())).or_insert(place);
        }
        Ok(Self { place: Some((store.clone(), key)), previous, places, now: Mutex::default() })
    }

    /// Whether the last build's step of that name read the same.
    pub(crate) fn knows(&self, stage: &str, text: &str, inputs: &[(String, String)]) -> bool {
        self.find(stage, text).is_some_and(|old| old.inputs == inputs)
    }

    fn find(&self, stage: &str, text: &str) -> Option<&TracedStep> {
        let place = self.places.get(&(stage.to_owned(), text.to_owned()))?;
        self.previous.as_ref()?.steps.get(*place)
    }

    /// Keeps what a step that ended well has read.
    pub(crate) fn keep(&self, number: usize, step: TracedStep) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).insert(number, step);
    }

    /// Keeps what was traced for the next build. Steps that this build did not reach stay as they were.
    pub fn write(self) -> Result<(), ibid_store::Error> {
        let now = self.now.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some((store, key)) = self.place.filter(|_| !now.is_empty()) else { return Ok(()) };
        let mut steps: Vec<TracedStep> = now.into_values().collect();
        for step in &steps {
            // An empty value is none, and a list of no files is one.
            let list = serde_json::to_vec(&step.files).expect("a list holds only text keys");
            store.put_cache(&list_key(&key, step), &list)?;
        }
        let reached: HashSet<(String, String)> =
            steps.iter().map(|step| (step.stage.clone(), step.text.clone())).collect();
        let old = self.previous.map(|trace| trace.steps).unwrap_or_default().into_iter();
        steps.extend(old.filter(|old| !reached.contains(&(old.stage.clone(), old.text.clone()))));
        let trace = serde_json::to_vec(&Trace { version: VERSION, steps }).expect("plain data");
        store.put_cache(&key, &trace)
    }

    /// The files that a step of the last build read; none are known when the list is lost.
    fn files(&self, old: &TracedStep) -> BTreeMap<String, String> {
        let list = self.place.as_ref().and_then(|(store, key)| store.cache(&list_key(key, old)).ok()?);
        list.and_then(|list| serde_json::from_slice(&list).ok()).unwrap_or_default()
    }

    /// Why a step that is not in the cache must run.
    pub(crate) fn reasons(&self, step: &TracedStep) -> Vec<String> {
        if self.previous.is_none() {
            return vec!["nothing is known of an earlier build of this project".to_owned()];
        }
        let Some(old) = self.find(&step.stage, &step.text) else {
            return vec!["the instruction is new, or was written differently".to_owned()];
        };
        let reasons = differences(old, step, &|| self.files(old));
        if reasons.is_empty() {
            return vec!["it reads the same as before, but its result is no longer in the store".to_owned()];
        }
        reasons
    }
}

/// Where the files of a step are kept.
fn list_key(trace: &Digest, step: &TracedStep) -> Digest {
    Digest::of(format!("files\0{trace}\0{}\0{}", step.stage, step.text).as_bytes())
}

/// What a step reads otherwise than before. `old_files` gives the files of `old`.
fn differences(
    old: &TracedStep,
    new: &TracedStep,
    old_files: &dyn Fn() -> BTreeMap<String, String>,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if values(old, "layer") != values(new, "layer") {
        if old.base == new.base {
            reasons.push("what the steps before it made has changed".to_owned());
        } else {
            reasons.push(format!("base {}: {} → {}", new.base.0, short(&old.base.1), short(&new.base.1)));
        }
    }
    let (before, now) = (variables(old), variables(new));
    let names: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
    for name in names {
        let kind =
            if new.own_variables.contains(name) || old.own_variables.contains(name) { "ENV" } else { "ARG" };
        match (before.get(name), now.get(name)) {
            (Some(a), Some(b)) if a != b => {
                reasons.push(format!("{kind} {name}: {} → {}", short(a), short(b)));
            }
            (None, Some(value)) => reasons.push(format!("{kind} {name} is new: {}", short(value))),
            (Some(value), None) => reasons.push(format!("{kind} {name} is gone; it was {}", short(value))),
            _ => {}
        }
    }
    for (name, verb) in [("content", "copies"), ("mounted", "mounts")] {
        if values(old, name) != values(new, name) {
            let files = changed_files(&old_files(), &new.files);
            reasons.push(if files.is_empty() { format!("what it {verb} has changed") } else { files });
        }
    }
    let skipped = ["layer", "variable", "value", "content", "mounted"];
    let names: BTreeSet<&str> = old.inputs.iter().chain(&new.inputs).map(|(name, _)| name.as_str()).collect();
    for name in names.into_iter().filter(|name| !skipped.contains(name)) {
        let (before, now) = (values(old, name).join(" "), values(new, name).join(" "));
        if before != now {
            reasons.push(match name {
                "rules" => "this ibid makes layers by other rules".to_owned(),
                "epoch" => format!("SOURCE_DATE_EPOCH: {before} → {now}"),
                _ => format!("{name}: {} → {}", short(&before), short(&now)),
            });
        }
    }
    reasons
}

fn values<'a>(step: &'a TracedStep, name: &str) -> Vec<&'a str> {
    step.inputs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
}

fn variables(step: &TracedStep) -> BTreeMap<&str, &str> {
    values(step, "variable").into_iter().zip(values(step, "value")).collect()
}

/// `train.py changed, a.txt added, b.txt removed and 4 more`.
fn changed_files(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> String {
    let mut found = Vec::new();
    for (path, content) in new {
        match old.get(path) {
            None => found.push(format!("{path} added")),
            Some(before) if before != content => found.push(format!("{path} changed")),
            Some(_) => {}
        }
    }
    found.extend(old.keys().filter(|path| !new.contains_key(*path)).map(|path| format!("{path} removed")));
    let more = found.len().saturating_sub(FILES_SHOWN_MAX);
    found.truncate(FILES_SHOWN_MAX);
    let shown = found.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// A value as a reason shows it: digests by their first digits, long texts cut, nothing as such.
fn short(value: &str) -> String {
    const DIGEST_CHARACTERS: usize = "sha256:".len() + 12;
    if value.is_empty() {
        return "nothing".to_owned();
    }
    let limit = if value.starts_with("sha256:") { DIGEST_CHARACTERS } else { VALUE_CHARACTERS_MAX };
    let line = value.replace('\n', " ⏎ ");
    match line.char_indices().nth(limit) {
        Some((end, _)) if value.starts_with("sha256:") => line[..end].to_owned(),
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(inputs: &[(&str, &str)], files: &[(&str, &str)]) -> TracedStep {
        let owned = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        TracedStep {
            stage: "0".to_owned(),
            text: "RUN x".to_owned(),
            base: ("debian".to_owned(), "sha256:0123456789abcdef".to_owned()),
            inputs: owned(inputs),
            own_variables: ["PATH".to_owned()].into(),
            files: owned(files).into_iter().collect(),
        }
    }

    /// Only root may make a store outside of a user namespace.
    fn may_make_stores() -> bool {
        let may = rustix::process::geteuid().is_root();
        if !may {
            println!("skipped: needs root because a store has files of several owners");
        }
        may
    }

    /// A store that goes with the folder, and the key of a trace.
    fn place() -> (tempfile::TempDir, Store, Digest) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        (folder, store, Digest::of(b"trace"))
    }

    #[track_caller]
    fn check(old: TracedStep, new: &TracedStep, expected: &[&str]) {
        let (_folder, store, key) = place();
        let read = || Explanations::read(&store, key).expect("the store is readable");
        let first = read();
        first.keep(1, old);
        first.write().expect("the store is writable");
        assert_eq!(read().reasons(new), expected);
    }

    #[test]
    fn a_reason_names_what_changed() {
        if !may_make_stores() {
            return;
        }
        let run = |user: &str, path: &str| {
            step(&[("variable", "PATH"), ("value", path), ("variable", "USER_ID"), ("value", user)], &[])
        };
        check(run("1000", "/a"), &run("1001", "/a"), &["ARG USER_ID: 1000 → 1001"]);
        check(run("", "/a"), &run("1", "/b"), &["ENV PATH: /a → /b", "ARG USER_ID: nothing → 1"]);
        check(step(&[], &[]), &step(&[("variable", "A"), ("value", "1")], &[]), &["ARG A is new: 1"]);
        check(step(&[("variable", "A"), ("value", "1")], &[]), &step(&[], &[]), &["ARG A is gone; it was 1"]);
        let copy = |content: &str, files: &[(&str, &str)]| step(&[("content", content)], files);
        check(
            copy("1", &[("a", "1"), ("b", "1"), ("gone", "1")]),
            &copy("2", &[("a", "2"), ("b", "1"), ("c", "1"), ("d", "1")]),
            &["a changed, c added, d added and 1 more"],
        );
        check(copy("1", &[]), &copy("2", &[]), &["what it copies has changed"]);
        let mounts = |content: &str, files: &[(&str, &str)]| {
            step(&[("mount", "type=bind"), ("mounted", content)], files)
        };
        check(mounts("1", &[("a", "1")]), &mounts("2", &[("a", "2")]), &["a changed"]);
        check(mounts("1", &[]), &mounts("2", &[]), &["what it mounts has changed"]);
        check(step(&[], &[]), &step(&[("network", "none")], &[]), &["network: nothing → none"]);
        check(
            step(&[("layer", "1")], &[]),
            &step(&[("layer", "2")], &[]),
            &["what the steps before it made has changed"],
        );
        let mut other_base = step(&[("layer", "2")], &[]);
        other_base.base.1 = "sha256:fedcba98765432100".to_owned();
        check(
            step(&[("layer", "1")], &[]),
            &other_base,
            &["base debian: sha256:0123456789ab → sha256:fedcba987654"],
        );
        check(step(&[("user", "")], &[]), &step(&[("user", "bob")], &[]), &["user: nothing → bob"]);
        check(
            step(&[], &[]),
            &step(&[], &[]),
            &["it reads the same as before, but its result is no longer in the store"],
        );
        let mut other = step(&[], &[]);
        other.text = "RUN y".to_owned();
        check(step(&[], &[]), &other, &["the instruction is new, or was written differently"]);
    }

    #[test]
    fn what_was_not_reached_stays_known_and_what_cannot_be_read_is_nothing() {
        if !may_make_stores() {
            return;
        }
        let (_folder, store, key) = place();
        let read = || Explanations::read(&store, key).expect("the store is readable");
        let first = read();
        first.keep(1, step(&[("user", "a")], &[]));
        let mut later = step(&[("user", "b"), ("content", "1")], &[("a", "1")]);
        later.text = "RUN later".to_owned();
        first.keep(2, later.clone());
        first.write().expect("written");
        let second = read();
        second.keep(1, step(&[("user", "c")], &[]));
        second.write().expect("written");
        assert!(read().knows("0", "RUN later", &later.inputs));
        later.inputs[0].1 = "d".to_owned();
        later.inputs[1].1 = "2".to_owned();
        later.files.insert("a".to_owned(), "2".to_owned());
        assert_eq!(read().reasons(&later), ["a changed", "user: b → d"]);
        let kept = store.cache(&key).expect("readable").expect("kept");
        read().write().expect("nothing to write");
        assert_eq!(store.cache(&key).expect("readable").expect("kept"), kept);
        for damaged in
            [b"{".to_vec(), kept.iter().map(|byte| if *byte == b'3' { b'4' } else { *byte }).collect()]
        {
            store.put_cache(&key, &damaged).expect("writable");
            assert!(read().previous.is_none());
        }
    }
}
