use ibid_core::digest::Digest;

use super::*;
use crate::record::tests::record;

fn output(path: &str, content: &[u8]) -> Output {
    Output { path: path.to_owned(), bytes: content.len() as u64, digest: Digest::of(content) }
}

fn rules(files: &[(&str, &str)], metrics: &[(&str, &str)]) -> Rules {
    let rule = |text: &str| text.parse().expect(text);
    let mut rules = Rules::default();
    for (pattern, text) in files {
        rules.add_files(pattern, rule(text)).expect(pattern);
    }
    for (pattern, text) in metrics {
        rules.add_metrics(pattern, rule(text)).expect(pattern);
    }
    rules
}

/// The verdict on files that had the content `first` and then `second`, in one word each, and on the run.
#[track_caller]
fn check_files(
    rules: &Rules,
    first: &[(&str, &[u8])],
    second: &[(&str, &[u8])],
    outcome: Outcome,
    expected: &[(&str, &str)],
) {
    let of = |files: &[(&str, &[u8])]| {
        let mut record = record();
        record.outputs = files.iter().map(|(path, content)| output(path, content)).collect();
        record
    };
    let mut content = |which, asked: &Output| {
        let files = if which == Which::First { first } else { second };
        let found = files.iter().find(|(path, _)| *path == asked.path).expect("what is asked for was given");
        Ok(found.1.to_vec())
    };
    let verdict = compare(rules, &of(first), &of(second), None, &mut content);
    let found: Vec<(&str, String)> =
        verdict.files.iter().map(|item| (item.name.as_str(), said(&item.sameness))).collect();
    let found: Vec<(&str, &str)> = found.iter().map(|(name, said)| (*name, said.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(verdict.outcome, outcome);
}

fn said(sameness: &Sameness) -> String {
    match sameness {
        Sameness::Identical => "identical".to_owned(),
        Sameness::WithinTolerance { tolerance, detail } => format!("within {tolerance}: {detail}"),
        Sameness::Ignored => "ignored".to_owned(),
        Sameness::Different { detail } => format!("different: {detail}"),
        Sameness::Missing => "missing".to_owned(),
        Sameness::Extra => "extra".to_owned(),
    }
}

#[test]
fn each_file_has_a_verdict() {
    let none = Rules::default();
    check_files(&none, &[], &[], Outcome::Identical, &[]);
    check_files(&none, &[("o/a", b"x")], &[("o/a", b"x")], Outcome::Identical, &[("o/a", "identical")]);
    check_files(
        &none,
        &[("o/a", b"x"), ("o/b", b"1"), ("o/c", b"1")],
        &[("o/b", b"2"), ("o/c", b"12"), ("o/d", b"")],
        Outcome::Different,
        &[
            ("o/a", "missing"),
            ("o/b", "different: other content of the same size, 1 bytes"),
            ("o/c", "different: 2 bytes instead of 1"),
            ("o/d", "extra"),
        ],
    );
}

#[test]
fn rules_allow_differences() {
    let rules = rules(&[("o/**", "1%"), ("o/*.log", "ignore"), ("**/exact.json", "0")], &[]);
    check_files(
        &rules,
        &[("o/a.json", b"[1, 2]"), ("o/x.log", b"1"), ("o/gone.log", b"")],
        &[("o/a.json", b"[1, 2.01]"), ("o/x.log", b"2"), ("o/new.log", b"")],
        Outcome::WithinTolerance,
        &[
            ("o/a.json", "within ±1%: 2 → 2.01 at [1]"),
            ("o/gone.log", "ignored"),
            ("o/new.log", "ignored"),
            ("o/x.log", "ignored"),
        ],
    );
    check_files(
        &rules,
        &[
            ("o/a.json", b"[1]"),
            ("o/b.txt", b"1"),
            ("o/c.json", b"1"),
            ("o/exact.json", b"1"),
            ("o/n.json", b"1"),
        ],
        &[
            ("o/a.json", b"[2]"),
            ("o/b.txt", b"2"),
            ("o/c.json", b"{"),
            ("o/exact.json", b"2"),
            ("o/n.json", b"1.0"),
        ],
        Outcome::Different,
        &[
            ("o/a.json", "different: 1 of 1 numbers beyond ±1%: 1 → 2 at [0]"),
            (
                "o/b.txt",
                "different: other content of the same size, 1 bytes; not compared by numbers: its name ends in none of .json, .jsonl, .ndjson, .csv, .tsv, .npy, .npz",
            ),
            (
                "o/c.json",
                "different: other content of the same size, 1 bytes; not compared by numbers: the second file is no JSON: line 1: expected a key",
            ),
            ("o/exact.json", "different: 1 of 1 numbers beyond ±0: 1 → 2 at the value"),
            ("o/n.json", "within ±1%: the same numbers, written otherwise"),
        ],
    );
}

#[test]
fn folders_of_single_runs_are_no_difference() {
    let of = |folder: &str| {
        let mut record = record();
        record.output_folder = Some(folder.to_owned());
        record.outputs = vec![output(&format!("{folder}/a"), b"x")];
        record
    };
    let unasked = &mut |_, _: &Output| -> Result<Vec<u8>, String> { panic!("nothing differs") };
    let verdict = compare(&Rules::default(), &of("output/1"), &of("output/2"), None, unasked);
    assert_eq!(verdict.files, [Item { name: "output/a".to_owned(), sameness: Sameness::Identical }]);
}

#[test]
fn each_metric_has_a_verdict() {
    let of = |values: &[f64]| Metric {
        last: *values.last().expect("a value"),
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        count: values.len() as u64,
        source: "stdout".to_owned(),
    };
    let rules = rules(&[], &[("acc*", "0.5%"), ("seconds", "ignore")]);
    let check = |name: &str, first: &[f64], second: &[f64], expected: &str| {
        let with = |values: &[f64]| {
            let mut record = record();
            let mut curves = Curves::new();
            if !values.is_empty() {
                record.metrics.insert(name.to_owned(), of(values));
                curves.insert(name.to_owned(), values.to_vec());
            }
            (record, curves)
        };
        let ((first, before), (second, after)) = (with(first), with(second));
        let unasked = &mut |_, _: &Output| -> Result<Vec<u8>, String> { panic!("there is no file") };
        let verdict = compare(&rules, &first, &second, Some((&before, &after)), unasked);
        assert_eq!(said(&verdict.metrics[0].sameness), expected, "{name}");
        assert_eq!(verdict.outcome == Outcome::Different, !verdict.metrics[0].sameness.is_same());
    };
    check("loss", &[2.0, 1.0], &[2.0, 1.0], "identical");
    check("loss", &[f64::NAN], &[f64::NAN], "identical");
    check("loss", &[2.0, 1.0], &[2.0, 1.5], "different: 1 → 1.5, otherwise from value 2 on");
    check(
        "loss",
        &[3.0, 2.0, 2.5, 1.0],
        &[3.0, 2.5, 2.0, 1.0],
        "different: 1 at the end, otherwise from value 2 on",
    );
    check("loss", &[2.0, 1.0], &[2.0], "different: 1 → 2, 1 values instead of 2");
    check("loss", &[1.0], &[], "missing");
    check("loss", &[], &[1.0], "extra");
    check("accuracy", &[0.1, 0.9], &[0.2, 0.9045], "within ±0.5%: 0.9 → 0.9045, otherwise from value 1 on");
    check("accuracy", &[0.9], &[0.91], "different: 0.9 → 0.91, otherwise from value 1 on, beyond ±0.5%");
    check("accuracy", &[0.9], &[], "missing");
    check("seconds", &[1.0], &[9.0], "ignored");
    check("seconds", &[1.0], &[], "ignored");
}

#[test]
fn how_it_ended_counts() {
    let of = |code: u8, signal: Option<&str>| {
        let mut record = record();
        record.exit_code = Some(code);
        record.signal = signal.map(str::to_owned);
        record
    };
    let unasked = &mut |_, _: &Output| -> Result<Vec<u8>, String> { panic!("there is no file") };
    let mut check = |first: &Record, second: &Record, expected: &str| {
        let verdict = compare(&Rules::default(), first, second, None, unasked);
        assert_eq!(said(&verdict.end), expected);
        assert!(verdict.is_empty());
    };
    check(&of(3, None), &of(3, None), "identical");
    check(&of(0, None), &of(1, None), "different: exit code 1 instead of exit code 0");
    check(&of(137, Some("SIGKILL")), &of(137, None), "different: exit code 137 instead of SIGKILL");
}
