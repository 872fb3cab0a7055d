//! What is recorded of runs, with real ones, also when they are killed, many, or on a full disk.

mod code;
mod site;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use ibid_ledger::metrics;
use ibid_ledger::record::{EnvValue, Status};
use ibid_testing::{Need, OrdinaryUser, need};
use site::{Site, text};

/// An event file of one scalar, `events 7 = 0.5`: see `ibid_ledger::metrics::tensorboard`.
fn event_file() -> Vec<u8> {
    let mut value = b"\x0a\x06events\x15".to_vec();
    value.extend(0.5f32.to_le_bytes());
    let mut event = b"\x10\x07\x2a".to_vec();
    event.push(value.len() as u8 + 2);
    event.extend([0x0a, value.len() as u8]);
    event.extend(value);
    let mut record = (event.len() as u64).to_le_bytes().to_vec();
    record.extend([0; 4]);
    record.extend(event);
    record.extend([0; 4]);
    record
}

#[test]
fn a_record_says_what_ran_and_what_came_of_it() {
    for site in Site::each() {
        fs::write(site.path("events"), event_file()).expect("ours");
        site.give();
        let args = [
            "-e",
            "API_TOKEN=hunter2",
            "-e",
            "MODE=fast",
            "--",
            "write",
            "--n-epochs",
            "5",
            "--lr=0.1",
            "--password",
            "hush",
        ];
        let (output, record) = site.run(&args, 0);
        let id = record.id.to_string();
        let written = format!("out {id} /code/output\nepoch 1/2 loss 0.5\nepoch 2/2 loss 0.25\n");
        assert_eq!(text(&output.stdout), written);
        assert!(text(&output.stderr).contains("err\n"), "{}", text(&output.stderr));

        assert_eq!((record.status, record.exit_code), (Status::Ok, Some(0)));
        assert_eq!(record.command[..3], ["/bin/sh", "/code/run.sh", "write"]);
        assert_eq!((record.parameters["n_epochs"].as_str(), record.parameters["lr"].as_str()), ("5", "0.1"));
        assert_eq!(record.env["MODE"], EnvValue::Plain("fast".to_owned()));
        assert!(
            matches!(&record.env["API_TOKEN"], EnvValue::Secret { secret_hash } if secret_hash.len() == 64)
        );
        assert!(
            record.code.snapshot.is_some() && record.code.changed_during_run.is_empty(),
            "{:?}",
            record.code
        );
        assert_eq!(record.image.tags, ["site:latest"]);
        assert_eq!((record.data.len(), record.data[0].files, record.data[0].bytes), (1, 1, 6));
        assert!(record.data[0].digest.is_none());
        let usage = record.usage.expect("it took something");
        assert!(usage.peak_memory > 100_000 && usage.cpu_seconds > 0.0, "{usage:?}");
        let outputs: Vec<_> = record.outputs.iter().map(|output| output.path.as_str()).collect();
        assert_eq!(outputs, ["output/events.out.tfevents.1", "output/metrics.jsonl"]);
        let owner = fs::metadata(site.path("")).expect("the project").uid();
        assert_eq!(fs::metadata(site.path("output/metrics.jsonl")).expect("an output").uid(), owner);

        let summaries: Vec<_> =
            record.metrics.iter().map(|(name, metric)| (name.as_str(), metric.last, metric.count)).collect();
        assert_eq!(summaries, [("events", 0.5, 1), ("f1", 0.75, 1), ("loss", 0.25, 2)]);
        let points = metrics::read(&site.ledger().run_folder(record.id)).expect("curves");
        let loss: Vec<_> = points
            .iter()
            .filter(|point| point.name == "loss")
            .map(|point| (point.step, point.value))
            .collect();
        assert_eq!(loss, [(1, 0.5), (2, 0.25)]);
        assert!(points.iter().any(|point| point.name == "f1" && point.step == 3));

        assert_eq!(text(&site.ibid(&["logs", &id[..6], "--stdout"]).stdout), written);
        assert_eq!(text(&site.ibid(&["logs", &id, "--stderr"]).stdout), "err\n");
        let json = text(&site.ibid(&["logs", &id, "--stderr", "--json"]).stdout);
        let line: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&line["line"]["stream"], &line["line"]["text"]), (&"stderr".into(), &"err".into()));
        for file in site.ledger_files() {
            let content = text(&fs::read(&file).expect("ours"));
            assert!(!content.contains("hunter2") && !content.contains("hush"), "{}", file.display());
        }
        // Nothing was made or changed by this one; only the content decides about the digest.
        let (_, second) = site.run(&["--digest-data", "--", "say", "x"], 0);
        assert!(second.outputs.is_empty() && second.data[0].digest.is_some());
        assert_eq!(second.data[0].identity, record.data[0].identity);
        assert_eq!(second.code.snapshot, record.code.snapshot);
        assert_eq!(second.image.digest, record.image.digest, "the ledger is part of the build's context");
    }
}

#[test]
fn what_root_records_is_the_project_owners() {
    if !need(&[Need::Root]) {
        return;
    }
    let Some(site) = Site::own() else { return };
    fs::write(site.path("events"), event_file()).expect("ours");
    let owner = OrdinaryUser::without_subordinate_ids();
    owner.own(&site.path(""));
    let (_, record) = site.run(&["--isolate", "--digest-data", "--", "write"], 0);
    assert!(site.ledger_files().len() > 5);
    for output in record.outputs {
        assert_eq!(fs::metadata(site.path(&output.path)).expect("an output").uid(), owner.uid);
    }
    let folder = site.path(&record.output_folder.expect("its own"));
    assert_eq!(fs::metadata(folder).expect("a folder").uid(), owner.uid);
}

#[test]
fn code_that_changes_while_it_runs_is_named() {
    let Some(site) = Site::own() else { return };
    let (output, record) = site.run(&["--", "edit"], 0);
    assert!(text(&output.stderr).contains("warning: model.txt changed while this ran"), "{output:?}");
    assert_eq!(record.code.changed_during_run, ["model.txt"]);
    assert_eq!(record.warnings, ["new.txt appeared while this ran, and `[run] outputs` does not name it"]);
    // The program can change everything but the ledger.
    let (output, _) = site.run(&["--", "touch"], 0);
    assert_eq!(text(&output.stdout), "1\n");
}

#[test]
fn pegged_and_isolated_runs_are_recorded_as_such() {
    for site in Site::each() {
        fs::write(site.path("events"), event_file()).expect("ours");
        site.give();
        let (_, record) = site.run(&["--isolate", "--", "write"], 0);
        let own = format!("output/{}", record.id);
        assert_eq!(record.output_folder.as_ref(), Some(&own));
        let outputs: Vec<_> = record.outputs.iter().map(|output| output.path.clone()).collect();
        assert_eq!(outputs, [format!("{own}/metrics.jsonl")]);
        let owner = fs::metadata(site.path("")).expect("the project").uid();
        assert_eq!(fs::metadata(site.path(&own)).expect("its folder").uid(), owner);

        let (_, record) = site.run(&["--pegged", "--isolate", "--", "say", "x"], 0);
        assert_eq!((record.code.snapshot, record.code.equals_working_tree), (None, Some(true)));
        assert_eq!(record.warnings.len(), 1, "{:?}", record.warnings);
        site.file("run.sh", "echo other\n");
        site.give();
        let (output, record) = site.run(&["--pegged", "--", "say", "x"], 0);
        assert_eq!(text(&output.stdout), "x\n");
        assert_eq!(record.code.equals_working_tree, Some(false));
    }
}

#[test]
fn how_a_program_ended_is_recorded() {
    let Some(site) = Site::own() else { return };
    site.file("run.sh", "case $1 in code) exit 7;; signal) kill -9 $$;; esac\n");
    let (_, record) = site.run(&["--", "code"], 7);
    assert_eq!((record.status, record.exit_code, record.signal), (Status::Failed, Some(7), None));
    let (_, record) = site.run(&["--", "signal"], 137);
    assert_eq!(
        (record.status, record.exit_code, record.signal.as_deref()),
        (Status::Failed, Some(137), Some("SIGKILL"))
    );
    site.file("Dockerfile", "FROM scratch\nCOPY run.sh /code/\nWORKDIR /code\nENTRYPOINT [\"missing\"]\n");
    let (_, record) = site.run(&[], 127);
    assert_eq!((record.status, record.exit_code), (Status::NotStarted, None));
    assert!(record.failure.expect("why").contains("missing"));
}

#[test]
fn a_run_that_is_killed_says_what_is_known() {
    let Some(site) = Site::own() else { return };
    assert_eq!(site.run(&["--", "say", "built"], 0).1.status, Status::Ok);
    let forget = || fs::remove_dir_all(site.path(".ibid")).expect("ours");

    // While the program runs.
    forget();
    let (mut run, _lines) = site.started(&["sleep"]);
    assert_eq!(site.only().status, Status::Running);
    run.kill().expect("it runs");
    run.wait().expect("it ends");
    let record = site.only();
    assert_eq!(record.status, Status::Lost);
    assert!(record.code.snapshot.is_some() && record.exit_code.is_none());
    assert_eq!(text(&site.ibid(&["logs", "-f", &record.id.to_string()]).stdout), "started\n");

    // While ibid looks at what the program made: a file that takes minutes to read.
    forget();
    let (mut run, _lines) = site.started(&["large"]);
    let id = site.only().id;
    while site.ledger().read(id).expect("it is known").status != Status::Ok {
        assert!(run.try_wait().expect("a child").is_none(), "it ended");
        std::thread::yield_now();
    }
    run.kill().expect("it runs");
    run.wait().expect("it ends");
    let record = site.only();
    assert_eq!((record.status, record.exit_code), (Status::Ok, Some(0)));
    assert!(
        record.warnings.iter().any(|warning| warning.contains("ibid ended before")),
        "{:?}",
        record.warnings
    );
    fs::remove_file(site.path("output/large")).expect("ours");

    // Before the program runs: code that takes a while to keep.
    forget();
    for number in 0..10 {
        let file = fs::File::create(site.path(&format!("weights-{number}"))).expect("ours");
        file.set_len(95_000_000).expect("room");
    }
    site.file(".dockerignore", "weights-*\n!weights-*\n");
    let mut run = site.command(&["run", "--", "sleep"]).stdout(Stdio::piped()).spawn().expect("ibid starts");
    while !site.path(".ibid/.gitignore").exists() {
        assert!(run.try_wait().expect("a child").is_none(), "it ended");
        std::thread::yield_now();
    }
    run.kill().expect("it runs");
    run.wait().expect("it ends");
    let mut written = String::new();
    run.stdout.take().expect("a pipe").read_to_string(&mut written).expect("text");
    assert_eq!((written.as_str(), site.ids().len()), ("", 0));
}

#[test]
fn a_hundred_runs_at_once_are_all_recorded() {
    let Some(site) = Site::own() else { return };
    site.run(&["--", "say", "first"], 0);
    let said = |number: u32| format!("run {number:03}");
    let runs: Vec<_> = (0..100)
        .map(|number| {
            let mut run = site.command(&["run", "-q", "--", "say", &said(number)]);
            run.stdout(Stdio::null()).spawn().expect("ibid starts")
        })
        .collect();
    for mut run in runs {
        assert!(run.wait().expect("it ends").success());
    }
    let ids = site.ids();
    assert_eq!(ids.len(), 101);
    let logs: BTreeSet<String> = ids
        .iter()
        .map(|id| {
            let record = site.ledger().read(*id).expect("a record");
            assert_eq!(record.status, Status::Ok, "{id}");
            let log = ibid_ledger::log::read(&site.ledger().run_folder(*id)).expect("a log");
            log.map(|line| text(&line.expect("readable").bytes)).collect()
        })
        .collect();
    assert!(logs.len() == 101 && (0..100).all(|number| logs.contains(&format!("{}\n", said(number)))));
}

/// A small disk in memory over the site's project; gone when dropped.
struct Disk<'a>(&'a Site);

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path("")).status();
    }
}

#[test]
fn a_full_disk_costs_no_result() {
    if !need(&[Need::Root]) {
        return;
    }
    let Some(site) = Site::own() else { return };
    site.run(&["--", "say", "built"], 0);
    let aside = site.place.path().join("aside");
    fs::rename(site.path(""), &aside).expect("ours");
    fs::create_dir(site.path("")).expect("ours");
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(site.path("")).status();
    assert!(mount.is_ok_and(|status| status.success()));
    let _disk = Disk(&site);
    let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(site.path("")).status();
    assert!(copied.is_ok_and(|status| status.success()));
    fs::remove_dir_all(site.path(".ibid")).expect("ours");

    // The run fills the disk: there is room for its record all the same.
    let (output, record) = site.run(&["--", "fill"], 3);
    assert_eq!((record.status, record.exit_code), (Status::Failed, Some(3)), "{}", text(&output.stderr));
    assert!(record.ended.is_some());

    // There is none for a new one: it runs all the same.
    let fill = site.path("output/more");
    let mut filled = fs::File::create(&fill).expect("ours");
    let _full = std::io::copy(&mut std::io::repeat(0), &mut filled).expect_err("the disk is small");
    let output = site.ibid(&["run", "--", "say", "result"]);
    let narration = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "result\n"), "{narration}");
    assert!(narration.contains("warning: this run is not recorded: cannot"), "{narration}");
    assert!(narration.contains("No space left on device"), "{narration}");
    assert_eq!(site.ids().len(), 1);
}

#[test]
fn a_log_is_seen_while_it_grows() {
    let Some(site) = Site::own() else { return };
    let gate = site.path("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a pipe");
    site.file(".dockerignore", "gate\n");
    let (mut run, mut rest) = site.started(&["wait"]);
    let id = site.only().id.to_string();
    let mut logs = site.command(&["logs", "-f", &id]).stdout(Stdio::piped()).spawn().expect("ibid starts");
    let mut lines = BufReader::new(logs.stdout.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("text");
    assert_eq!(line, "started\n");
    fs::write(&gate, "through\n").expect("a reader");
    let mut more = String::new();
    lines.read_to_string(&mut more).expect("text");
    assert_eq!(more, "through\nover\n");
    assert!(logs.wait().expect("it ends").success() && run.wait().expect("it ends").success());
    more.clear();
    rest.read_to_string(&mut more).expect("text");
    assert_eq!(more, "through\nover\n");
}

#[test]
fn what_a_program_writes_is_passed_on_unchanged() {
    let Some(site) = Site::own() else { return };
    // A long log keeps its beginning and its end.
    let bytes = 100_000_000;
    let (output, record) = site.run(&["--", "loud", &bytes.to_string()], 0);
    assert_eq!(output.stdout.len(), bytes);
    assert!(output.stdout.iter().all(|byte| *byte == 0));
    assert!(
        record.warnings.iter().any(|warning| warning.contains("the log is long")),
        "{:?}",
        record.warnings
    );
    let kept = site.ibid(&["logs", &record.id.to_string()]);
    assert!((40 << 20..70 << 20).contains(&kept.stdout.len()), "{}", kept.stdout.len());
    assert!(text(&kept.stderr).contains("bytes of the log are not kept"));
    // Whom a program leaves behind ends with it, and holds nobody up.
    assert_eq!(text(&site.run(&["--", "descendant"], 0).0.stdout), "early\n");
    // A reader that goes away ends the program, as it would without ibid.
    let mut run = site.command(&["run", "-q", "--", "loud", "100000000000"]);
    let mut run = run.stdout(Stdio::piped()).spawn().expect("ibid starts");
    let mut first = [0; 10];
    run.stdout.take().expect("a pipe").read_exact(&mut first).expect("it writes");
    assert_eq!(run.wait().expect("it ends").code(), Some(128 + 13));
}

#[test]
fn a_program_sees_a_terminal_where_ibid_is_on_one() {
    let Some(site) = Site::own() else { return };
    site.run(&["--", "say", "built"], 0);
    let on_terminal = |redirection: &str| {
        let ibid = site.place.path().join("ibid");
        let mut command = site.place.command("script");
        command.args(["-qec", &format!("{} run -q -- both {redirection}", ibid.display()), "/dev/null"]);
        let output = command.current_dir(site.path("")).stdin(Stdio::null()).output().expect("script starts");
        text(&output.stdout).replace("\r\n", "\n")
    };
    // What `script` itself shows of its end of input may stand between.
    let shown = on_terminal("");
    assert!(shown.contains("terminal\n") && shown.contains("err\n"), "{shown:?}");
    // Without a terminal to read from, it still writes to one.
    let shown = on_terminal("< /dev/null");
    assert!(shown.contains("terminal\n") && shown.contains("err\n"), "{shown}");
    assert!(!text(&site.ibid(&["run", "-q", "--", "both"]).stdout).contains("terminal"));
}
