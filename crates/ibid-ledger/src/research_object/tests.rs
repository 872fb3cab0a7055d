use std::collections::BTreeSet;

use super::*;
use crate::record::tests::record;
use crate::record::{Metric, Output};

fn run() -> (Record, Contents) {
    let mut record = record();
    record.outputs = vec![Output { path: "output/a b.json".to_owned(), bytes: 2, digest: Digest::of(b"{}") }];
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
        assert!(text.contains("SEED") && !text.contains("PASSWORD") && !text.contains("feedface"), "{text}");
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
