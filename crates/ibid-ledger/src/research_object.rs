//! A run as other programs understand it: a Process Run Crate 0.5 (RO-Crate 1.1), whose files lie beside it in an archive,
//! and an in-toto statement (v1) with SLSA's provenance (v1).
//!
//! Pure, and the same for the same record. Secrets are in neither: of a variable that is one, nothing is told.

use ibid_core::digest::Digest;
use serde_json::{Value, json};

use crate::record::{EnvValue, Record, Status};

/// Where the crate's description is, relative to the crate.
pub const CRATE_FILE: &str = "ro-crate-metadata.json";
/// Where the statement is, relative to the crate.
pub const STATEMENT_FILE: &str = "run.intoto.json";

const PROFILE: &str = "https://w3id.org/ro/wfrun/process/0.5";
const BUILD_TYPE: &str = "https://github.com/ibid/ibid/run/v1";

/// A file of the crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path in the crate.
    pub path: String,
    /// Size, bytes.
    pub bytes: u64,
    /// Digest of its content.
    pub digest: Digest,
}

/// What of a run lies in the crate.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The record, the log, the metrics, … each with what it is.
    pub files: Vec<(File, &'static str)>,
    /// The folder of the code.
    pub code: Option<String>,
    /// Output files; those of the record that are not among them are described only.
    pub outputs: Vec<File>,
    /// Folders and files of data inputs, as the record calls them, and where they are.
    pub data: Vec<(String, String)>,
    /// The image: an archive in the OCI image layout.
    pub image: Option<String>,
}

/// The description of the crate, `ro-crate-metadata.json`.
pub fn process_run_crate(record: &Record, contents: &Contents) -> Value {
    let mut graph = Graph::default();
    let ended = record.ended.as_deref().unwrap_or(&record.started);
    let action = format!("#run-{}", record.id);
    graph.add(json!({
        "@id": CRATE_FILE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }));
    let root = graph.add(json!({
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": PROFILE},
        "name": format!("Run {}", record.id),
        "description": format!("`{}`, run on {} and recorded by ibid {}", record.command.join(" "), record.started, record.ibid),
        "datePublished": with_offset(ended),
        "license": {"@id": "#licence"},
        "author": {"@id": "#person"},
        "mentions": {"@id": action},
        "hasPart": [],
    }));
    graph
        .add(json!({"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}));
    graph.add(json!({
        "@id": "#licence",
        "@type": "CreativeWork",
        "name": "Not stated",
        "description": "Nobody has said under which licence these files may be used",
    }));
    for (file, description) in &contents.files {
        graph.add_file(root, file, description);
    }
    if let Some(image) = &contents.image {
        graph.add_part(
            root,
            json!({
                "@id": identifier(image),
                "@type": "File",
                "name": image,
                "description": "The image that ran: an archive in the OCI image layout",
                "encodingFormat": media_type(image),
            }),
        );
    }
    let objects = objects(&mut graph, root, record, contents);
    let results = results(&mut graph, root, record, contents);
    graph.add(json!({"@id": "#person", "@type": "Person", "name": record.host.user}));
    graph.add(json!({
        "@id": "#program",
        "@type": "SoftwareApplication",
        "name": record.command.first().map_or("the program", String::as_str),
        "description": format!("The program of the image {}", record.image.digest),
        "softwareVersion": record.code.commit.clone().unwrap_or_else(|| record.image.digest.to_string()),
        "url": record.code.remote.clone().unwrap_or_else(|| "https://github.com/ibid/ibid".to_owned()),
    }));
    let mut image = json!({
        "@id": "#image",
        "@type": "ContainerImage",
        "additionalType": {"@id": "https://w3id.org/ro/terms/workflow-run#DockerImage"},
        "name": record.image.tags.first().cloned().unwrap_or_else(|| record.image.digest.to_string()),
        "sha256": record.image.digest.hex(),
    });
    if let Some(pushed) = record.image.pushed.first() {
        image["registry"] = pushed.split('/').next().unwrap_or(pushed).into();
    }
    graph.add(image);
    let mut run = json!({
        "@id": action,
        "@type": "CreateAction",
        "name": record.command.join(" "),
        "description": format!("{} on {}", record.command.join(" "), record.host.name),
        "instrument": {"@id": "#program"},
        "agent": {"@id": "#person"},
        "startTime": with_offset(&record.started),
        "actionStatus": if record.status == Status::Ok {
            "http://schema.org/CompletedActionStatus"
        } else {
            "http://schema.org/FailedActionStatus"
        },
        "containerImage": {"@id": "#image"},
        "object": one_or_many(objects),
        "result": one_or_many(results),
    });
    if let Some(ended) = &record.ended {
        run["endTime"] = with_offset(ended).into();
    }
    if record.status != Status::Ok {
        run["error"] = how_it_failed(record).into();
    }
    let environment = environment(&mut graph, record);
    if !environment.is_empty() {
        run["environment"] = one_or_many(environment);
    }
    graph.add(run);
    json!({
        "@context": ["https://w3id.org/ro/crate/1.1/context", terms()],
        "@graph": graph.0,
    })
}

/// The statement of the run, `run.intoto.json`: its subjects are the record and the outputs.
pub fn statement(record: &Record, record_digest: Digest) -> Value {
    let descriptor = |name: &str, digest: &Digest| json!({"name": name, "digest": {"sha256": digest.hex()}});
    let outputs = record.outputs.iter().map(|output| descriptor(&output.path, &output.digest));
    let subject: Vec<Value> =
        [descriptor("record.json", &record_digest)].into_iter().chain(outputs).collect();
    let mut dependencies = vec![descriptor("image", &record.image.digest)];
    dependencies.extend(record.image.bases.iter().map(|(name, digest)| descriptor(name, digest)));
    dependencies.extend(record.image.lock.iter().map(|lock| descriptor("ibid.lock", lock)));
    if let Some(snapshot) = &record.code.snapshot {
        dependencies.push(descriptor("code", snapshot));
    }
    if let (Some(remote), Some(commit)) = (&record.code.remote, &record.code.commit) {
        dependencies.push(json!({"uri": format!("git+{remote}@{commit}"), "digest": {"gitCommit": commit}}));
    }
    dependencies.extend(record.data.iter().map(|data| match &data.digest {
        Some(digest) => descriptor(&data.path, digest),
        // Over sizes and times, not over the contents: no digest of the thing itself.
        None => json!({"name": data.path, "annotations": {"identity": data.identity}}),
    }));
    let environment: serde_json::Map<String, Value> = record
        .env
        .iter()
        .filter_map(|(name, value)| match value {
            EnvValue::Plain(value) => Some((name.clone(), value.as_str().into())),
            EnvValue::Secret { .. } => None,
        })
        .collect();
    let mut metadata = json!({"invocationId": record.id, "startedOn": record.started});
    if let Some(ended) = &record.ended {
        metadata["finishedOn"] = ended.as_str().into();
    }
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "command": record.command,
                    "arguments": record.arguments,
                    "environment": environment,
                    "options": record.options,
                },
                "internalParameters": {
                    "host": record.host.name,
                    "architecture": record.host.architecture,
                    "kernel": record.host.kernel,
                    "cpu": record.host.cpu,
                    "cpus": record.host.cpus,
                    "gpus": record.host.gpus,
                    "engine": record.host.engine,
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": "https://github.com/ibid/ibid", "version": {"ibid": record.ibid}},
                "metadata": metadata,
            },
        },
    })
}

/// The entities of a crate.
#[derive(Default)]
struct Graph(Vec<Value>);

impl Graph {
    fn add(&mut self, entity: Value) -> usize {
        self.0.push(entity);
        self.0.len() - 1
    }

    /// Adds an entity that lies in the crate, and says so in the root; returns a reference to it.
    fn add_part(&mut self, root: usize, entity: Value) -> Value {
        let reference = json!({"@id": entity["@id"]});
        self.0[root]["hasPart"].as_array_mut().expect("the root has parts").push(reference.clone());
        self.add(entity);
        reference
    }

    fn add_file(&mut self, root: usize, file: &File, description: &str) -> Value {
        let mut entity = json!({
            "@id": identifier(&file.path),
            "@type": "File",
            "name": file.path,
            "contentSize": file.bytes.to_string(),
            "sha256": file.digest.hex(),
            "encodingFormat": media_type(&file.path),
        });
        if !description.is_empty() {
            entity["description"] = description.into();
        }
        self.add_part(root, entity)
    }
}

/// What the run read: code, data, arguments.
fn objects(graph: &mut Graph, root: usize, record: &Record, contents: &Contents) -> Vec<Value> {
    let mut objects = Vec::new();
    if let Some(code) = &contents.code {
        let id = format!("{}/", identifier(code));
        let entity =
            json!({"@id": id, "@type": "Dataset", "name": "The code", "description": "The code that ran"});
        objects.push(graph.add_part(root, entity));
    }
    for data in &record.data {
        let description = format!("A data input: {} files, {} bytes", data.files, data.bytes);
        match contents.data.iter().find(|(known, _)| *known == data.path) {
            Some((_, place)) => {
                let entity = json!({
                    "@id": format!("{}/", identifier(place)),
                    "@type": "Dataset",
                    "name": data.path,
                    "description": description,
                });
                objects.push(graph.add_part(root, entity));
            }
            None => {
                let id = format!("#{}", identifier(&data.path));
                let description = format!("{description}, which are not in this crate");
                graph.add(json!({"@id": id, "@type": "CreativeWork", "name": data.path, "description": description}));
                objects.push(json!({"@id": id}));
            }
        }
    }
    for (name, value) in &record.parameters {
        let id = format!("#parameter-{}", identifier(name));
        graph.add(json!({"@id": id, "@type": "PropertyValue", "name": name, "value": value}));
        objects.push(json!({"@id": id}));
    }
    objects
}

/// What the run made.
fn results(graph: &mut Graph, root: usize, record: &Record, contents: &Contents) -> Vec<Value> {
    let mut results: Vec<Value> =
        contents.outputs.iter().map(|file| graph.add_file(root, file, "An output of the run")).collect();
    let is_there = |digest: &Digest| contents.outputs.iter().any(|file| file.digest == *digest);
    for output in record.outputs.iter().filter(|output| !is_there(&output.digest)) {
        let id = format!("#{}", identifier(&output.path));
        graph.add(json!({
            "@id": id,
            "@type": "CreativeWork",
            "name": output.path,
            "description": "An output that is not in this crate",
            "contentSize": output.bytes.to_string(),
            "sha256": output.digest.hex(),
        }));
        results.push(json!({"@id": id}));
    }
    for (name, metric) in &record.metrics {
        let id = format!("#metric-{}", identifier(name));
        // JSON has no word for what is not a number.
        let value =
            if metric.last.is_finite() { metric.last.into() } else { Value::from(metric.last.to_string()) };
        graph.add(json!({"@id": id, "@type": "PropertyValue", "name": name, "value": value}));
        results.push(json!({"@id": id}));
    }
    results
}

fn environment(graph: &mut Graph, record: &Record) -> Vec<Value> {
    let mut environment = Vec::new();
    for (name, value) in &record.env {
        if let EnvValue::Plain(value) = value {
            let id = format!("#variable-{}", identifier(name));
            graph.add(json!({"@id": id, "@type": "PropertyValue", "name": name, "value": value}));
            environment.push(json!({"@id": id}));
        }
    }
    environment
}

fn how_it_failed(record: &Record) -> String {
    match (&record.failure, &record.signal, record.exit_code) {
        (Some(failure), ..) => failure.clone(),
        (None, Some(signal), _) => format!("ended by {signal}"),
        (None, None, Some(code)) => format!("exit code {code}"),
        (None, None, None) => "its end was not seen".to_owned(),
    }
}

/// The terms for runs in containers, written out so that a reader need not fetch them.
fn terms() -> Value {
    let of = |name: &str| format!("https://w3id.org/ro/terms/workflow-run#{name}");
    let names = ["ContainerImage", "containerImage", "registry", "tag", "sha256", "environment"];
    names
        .into_iter()
        .map(|name| (name.to_owned(), Value::from(of(name))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A time as the profile's checks want it: RFC 3339 with an offset in place of `Z`.
fn with_offset(time: &str) -> String {
    time.strip_suffix('Z').map_or_else(|| time.to_owned(), |time| format!("{time}+00:00"))
}

/// RO-Crate has no lists of one.
fn one_or_many(mut values: Vec<Value>) -> Value {
    if values.len() == 1 { values.remove(0) } else { values.into() }
}

/// The media type that a file's name tells.
fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "json" | "jsonl" | "ipynb" => "application/json",
        "csv" => "text/csv",
        "py" => "text/x-python",
        "md" => "text/markdown",
        "txt" | "log" | "toml" | "lock" | "sh" | "yaml" | "yml" => "text/plain",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "pdf" => "application/pdf",
        "zip" | "npz" => "application/zip",
        "tar" => "application/x-tar",
        _ => "application/octet-stream",
    }
}

/// A path as a relative reference (RFC 3986), in which few characters may stand as they are.
fn identifier(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte))
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::record::tests::record;
    use crate::record::{Metric, Output};

    fn run() -> (Record, Contents) {
        let mut record = record();
        record.outputs =
            vec![Output { path: "output/a b.json".to_owned(), bytes: 2, digest: Digest::of(b"{}") }];
        record.metrics.insert(
            "loss".to_owned(),
            Metric { last: f64::NAN, min: 0.0, max: 1.0, count: 2, source: "stdout".to_owned() },
        );
        let file = |path: &str| File { path: path.to_owned(), bytes: 2, digest: Digest::of(b"{}") };
        let contents = Contents {
            files: vec![(file("record.json"), "The record")],
            code: Some("code".to_owned()),
            image: Some("image.tar".to_owned()),
            ..Contents::default()
        };
        (record, contents)
    }

    #[test]
    fn every_reference_of_the_crate_leads_somewhere() {
        let (record, mut contents) = run();
        for with_outputs in [false, true] {
            if with_outputs {
                contents.outputs =
                    vec![File { path: "outputs/a b.json".to_owned(), bytes: 2, digest: Digest::of(b"{}") }];
            }
            let document = process_run_crate(&record, &contents);
            let graph = document["@graph"].as_array().expect("a list");
            let names: BTreeSet<&str> =
                graph.iter().map(|entity| entity["@id"].as_str().expect("an id")).collect();
            assert_eq!(names.len(), graph.len(), "each entity once");
            let mut references = Vec::new();
            for entity in graph {
                for (key, value) in entity.as_object().expect("an object") {
                    let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                    references.extend(
                        values
                            .iter()
                            .filter(|_| key != "@id")
                            .filter_map(|value| Some(value["@id"].as_str()?.to_owned())),
                    );
                }
            }
            assert!(references.len() > 10);
            for reference in references.iter().filter(|reference| !reference.starts_with("http")) {
                assert!(names.contains(reference.as_str()), "{reference}");
            }
            assert!(names.contains(if with_outputs { "outputs/a%20b.json" } else { "#output/a%20b.json" }));
        }
    }

    #[test]
    fn secrets_are_in_neither() {
        let (mut record, contents) = run();
        record.env.insert("PASSWORD".to_owned(), EnvValue::Secret { secret_hash: "feedface".to_owned() });
        for document in [process_run_crate(&record, &contents), statement(&record, Digest::of(b""))] {
            let text = document.to_string();
            assert!(
                text.contains("SEED") && !text.contains("PASSWORD") && !text.contains("feedface"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_statement_names_what_went_in_and_came_out() {
        let (record, _) = run();
        let statement = statement(&record, Digest::of(b"record"));
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        let names = |list: &Value| -> Vec<String> {
            let list = list.as_array().expect("a list").iter();
            list.map(|entry| entry["name"].as_str().or(entry["uri"].as_str()).expect("a name").to_owned())
                .collect()
        };
        assert_eq!(names(&statement["subject"]), ["record.json", "output/a b.json"]);
        assert_eq!(statement["subject"][0]["digest"]["sha256"], Digest::of(b"record").hex());
        let commit = "188797a".repeat(6);
        assert_eq!(
            names(&statement["predicate"]["buildDefinition"]["resolvedDependencies"]),
            [
                "image",
                "debian:bookworm-slim",
                "ibid.lock",
                "code",
                &format!("git+https://git.example.org/lab/mnist.git@{commit}")
            ]
        );
    }
}
