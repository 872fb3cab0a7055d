use super::*;

/// A run as its end is recorded, without outputs and metrics.
pub(crate) fn record() -> Record {
    Record {
        schema: SCHEMA,
        ibid: "0.1.0".to_owned(),
        id: "3eda7e8f3827".parse().expect("a name"),
        status: Status::Ok,
        started: "2026-03-01T10:00:00.000Z".to_owned(),
        ended: Some("2026-03-01T10:01:00.500Z".to_owned()),
        seconds: Some(60.5),
        exit_code: Some(0),
        signal: None,
        failure: None,
        command: ["python3", "train.py", "--n-epochs", "5"].map(str::to_owned).to_vec(),
        arguments: ["--n-epochs", "5"].map(str::to_owned).to_vec(),
        parameters: BTreeMap::from([("n_epochs".to_owned(), "5".to_owned())]),
        image: Image {
            digest: Digest::of(b"image"),
            tags: vec!["mnist:latest".to_owned()],
            pushed: Vec::new(),
            bases: BTreeMap::from([("debian:bookworm-slim".to_owned(), Digest::of(b"base"))]),
            lock: Some(Digest::of(b"lock")),
            layers: vec![Digest::of(b"layer")],
        },
        code: Code {
            mode: CodeMode::Mounted,
            folder: Some("/code".to_owned()),
            snapshot: Some(Digest::of(b"snapshot")),
            commit: Some("188797a".repeat(6)),
            branch: Some("main".to_owned()),
            difference: None,
            remote: Some("https://git.example.org/lab/mnist.git".to_owned()),
            differing: Vec::new(),
            equals_working_tree: None,
            changed_during_run: Vec::new(),
            left_out: Vec::new(),
        },
        env: BTreeMap::from([
            ("SEED".to_owned(), EnvValue::Plain("1".to_owned())),
            ("TOKEN".to_owned(), EnvValue::Secret { secret_hash: "a".repeat(64) }),
        ]),
        mounts: Vec::new(),
        data: Vec::new(),
        options: BTreeMap::from([("memory".to_owned(), "4GB".to_owned())]),
        host: Host {
            name: "lab".to_owned(),
            user: "alice".to_owned(),
            uid: 1000,
            architecture: "x86_64".to_owned(),
            kernel: "6.1.0".to_owned(),
            cpu: "EPYC".to_owned(),
            cpus: 8,
            memory: 64 << 30,
            gpus: Vec::new(),
            engine: "native".to_owned(),
        },
        usage: None,
        outputs: Vec::new(),
        output_folder: None,
        metrics: BTreeMap::new(),
        replay_of: None,
        warnings: Vec::new(),
    }
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let text = serde_json::to_string_pretty(&record()).expect("plain data");
    assert_eq!(serde_json::from_str::<Record>(&text).expect("sound"), record());
}
