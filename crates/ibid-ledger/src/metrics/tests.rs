use std::fs;

use super::*;

fn read_file(name: &str, content: &[u8]) -> Metrics {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(name), content).expect("ours");
    let mut metrics = Metrics::default();
    metrics.read_output(folder.path(), name);
    metrics
}

fn check(name: &str, content: &[u8], expected: &[(&str, u64, f64)]) {
    let metrics = read_file(name, content);
    let found: Vec<_> =
        metrics.points().iter().map(|point| (point.name.as_str(), point.step, point.value)).collect();
    assert_eq!(found, expected, "{name}: {}", String::from_utf8_lossy(content));
}

#[test]
fn json_lines_are_read() {
    check(
        "metrics.jsonl",
        b"{\"epoch\": 1, \"loss\": 0.5, \"eval\": {\"acc\": 1}}\n{\"epoch\": 2, \"loss\": 0.25, \"note\": \"x\"}\n",
        &[("loss", 1, 0.5), ("eval.acc", 1, 1.0), ("loss", 2, 0.25)],
    );
    check(
        "metrics-2.jsonl",
        b"{\"name\": \"loss\", \"value\": 3}\n{\"name\": \"loss\", \"value\": 2}",
        &[("loss", 0, 3.0), ("loss", 1, 2.0)],
    );
    check(
        "metrics.jsonl",
        b"{\"a\": NaN, \"NaN\": 1, \"b\": -Infinity}\nbroken\n[1]\n{\"a\": 2}\n",
        &[("NaN", 0, 1.0), ("a", 0, 2.0)],
    );
    check("other.jsonl", b"{\"loss\": 1}\n", &[]);
    check("metrics.jsonl", &[b'x'; 3 << 20], &[]);
}

#[test]
fn tables_are_read() {
    check(
        "metrics.csv",
        b"epoch,\"train loss\",note\r\n1,0.5,good\r\n2,.25,\r\n",
        &[("train loss", 1, 0.5), ("train loss", 2, 0.25)],
    );
    check("metrics.csv", b"loss\nnan\ninf\n1\n", &[("loss", 0, 1.0)]);
    check("metrics.csv", b"", &[]);
}

/// A record with an event of one scalar, as TensorFlow 1 and PyTorch write it, and as TensorFlow 2 does.
fn event(tag: &str, step: u8, value: f32, as_tensor: bool) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
    let mut one = vec![0x0a, length(tag.as_bytes())];
    one.extend(tag.as_bytes());
    if as_tensor {
        let mut tensor = vec![0x08, 1, 0x12, 0, 0x22, 4];
        tensor.extend(value.to_le_bytes());
        one.extend([0x42, length(&tensor)]);
        one.extend(tensor);
    } else {
        one.push(0x15);
        one.extend(value.to_le_bytes());
    }
    let mut summary = vec![0x0a, length(&one)];
    summary.extend(one);
    let mut event = vec![0x09];
    event.extend(1.5e9f64.to_le_bytes());
    event.extend([0x10, step, 0x2a, length(&summary)]);
    event.extend(summary);
    let mut record = (event.len() as u64).to_le_bytes().to_vec();
    record.extend([0; 4]);
    record.extend(event);
    record.extend([0; 4]);
    record
}

#[test]
fn event_files_are_read() {
    let name = "events.out.tfevents.1500000000.host";
    let whole = [event("loss", 1, 0.5, false), event("loss", 2, 0.25, true)].concat();
    check(name, &whole, &[("loss", 1, 0.5), ("loss", 2, 0.25)]);
    assert_eq!(read_file(name, &whole).points()[0].time.as_deref(), Some("2017-07-14T02:40:00.000Z"));
    // Wherever a killed program stopped, what is whole counts.
    for length in 0..whole.len() {
        assert!(read_file(name, &whole[..length]).points().len() < 2, "{length}");
    }
    for at in 12..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        read_file(name, &damaged);
    }
    check(name, &[0xff; 100], &[]);
}

#[test]
fn a_name_is_taken_from_one_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("metrics.jsonl"), "{\"loss\": 1}\n{\"loss\": 0.5}\n").expect("ours");
    let mut metrics = Metrics::default();
    metrics.read_output(folder.path(), "metrics.jsonl");
    let line = |text: &str| LogLine {
        time: "2026-11-30T13:18:23.123Z".to_owned(),
        stream: crate::log::Stream::Stdout,
        bytes: text.as_bytes().to_vec(),
    };
    metrics.read_lines([line("loss: 7 lr: 0.1\n")].into_iter());
    let loss = &metrics.summaries()["loss"];
    assert_eq!(
        (loss.last, loss.min, loss.max, loss.count, loss.source.as_str()),
        (0.5, 0.5, 1.0, 2, "metrics.jsonl")
    );
    assert_eq!(metrics.summaries()["lr"].source, "stdout");
    metrics.write(folder.path()).expect("it is written");
    // It replaces what is there, and comes back the same.
    assert_eq!(read(folder.path()).expect("it is read"), metrics.points());
}

#[test]
fn a_pipe_or_a_link_holds_nobody_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipe = folder.path().join("metrics.jsonl");
    rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .expect("a pipe");
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("metrics.csv")).expect("a link");
    let mut metrics = Metrics::default();
    metrics.read_output(folder.path(), "metrics.jsonl");
    metrics.read_output(folder.path(), "metrics.csv");
    assert!(metrics.points().is_empty());
}
