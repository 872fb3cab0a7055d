use std::fs;

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn shown(folder: &Path) -> Vec<String> {
    read(folder)
        .expect("there is a log")
        .map(|line| {
            let line = line.expect("it can be read");
            format!("{} {}", line.stream.name(), String::from_utf8_lossy(&line.bytes))
        })
        .collect()
}

#[test]
fn both_streams_come_back_as_they_were() {
    let folder = folder();
    let mut writer = Writer::new(folder.path(), None);
    writer.append(Stream::Stdout, b"one\ntw");
    writer.append(Stream::Stderr, b"oops\n");
    writer.append(Stream::Stdout, b"o\n\xff\x00");
    assert_eq!(shown(folder.path()), ["stdout one\n", "stderr oops\n", "stdout two\n", "stdout \u{fffd}\0"]);
}

#[test]
fn a_reader_at_the_end_sees_what_comes_later() {
    let folder = folder();
    let mut writer = Writer::new(folder.path(), None);
    let mut lines = read(folder.path()).expect("it opens");
    assert_eq!(lines.next_line().expect("readable"), None);
    writer.append(Stream::Stdout, b"on");
    assert_eq!(lines.next_line().expect("readable"), None);
    writer.append(Stream::Stdout, b"e\n");
    assert_eq!(lines.next_line().expect("readable").expect("a line").bytes, b"one\n");
}

#[test]
fn of_a_long_log_the_first_and_the_last_parts_are_kept() {
    let folder = folder();
    let mut writer = Writer::with_parts_of(folder.path(), None, 100);
    for number in 0..100 {
        writer.append(Stream::Stdout, format!("line {number:02}\n").as_bytes());
    }
    assert!(writer.is_shortened());
    let mut lines = read(folder.path()).expect("it opens");
    let numbers: Vec<u32> = lines
        .by_ref()
        .map(|line| {
            String::from_utf8(line.expect("readable").bytes).expect("text")[5..7].parse().expect("two")
        })
        .collect();
    let kept = numbers.len();
    assert!(numbers.starts_with(&[0, 1]) && numbers.ends_with(&[98, 99]) && kept < 20, "{numbers:?}");
    assert!(numbers.is_sorted());
    assert_eq!(lines.missing(), (100 - kept as u64) * 8);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1 + LAST_PARTS_KEPT as usize);
}

#[test]
fn a_piece_that_a_crash_cut_short_is_still_shown() {
    let folder = folder();
    let mut writer = Writer::new(folder.path(), None);
    writer.append(Stream::Stdout, b"whole\n");
    writer.append(Stream::Stderr, b"cut short\n");
    let path = folder.path().join("log");
    let length = fs::metadata(&path).expect("ours").len();
    fs::File::options().write(true).open(&path).expect("ours").set_len(length - 4).expect("shorter");
    assert_eq!(shown(folder.path()), ["stdout whole\n", "stderr cut sh"]);
    // In the header nothing of the piece is there yet.
    fs::File::options().write(true).open(&path).expect("ours").set_len(length - 20).expect("shorter");
    assert_eq!(shown(folder.path()), ["stdout whole\n"]);
}

#[test]
fn damage_is_an_error_that_names_the_file() {
    for text in ["nonsense\n", "2026-11-30T13:18:23.123Z stdout 99999999999\n", &"x".repeat(100)] {
        let folder = folder();
        fs::write(folder.path().join("log"), text).expect("ours");
        let error = read(folder.path()).expect("it opens").next().expect("something").expect_err(text);
        assert!(error.to_string().contains("log is damaged"), "{error}");
    }
}

#[test]
fn a_run_without_a_log_has_no_lines() {
    assert!(shown(folder().path()).is_empty());
}
