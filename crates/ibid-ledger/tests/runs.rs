//! Lists of runs, with and without an index, and whatever happens to either.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ibid_ledger::index;
use ibid_ledger::ledger::Ledger;
use ibid_ledger::marks;
use ibid_ledger::removed;
use ibid_ledger::run_id::RunId;
use ibid_ledger::selection::find;
use ibid_ledger::summary::{Standing, Summary, Texts};
use serde_json::{Value, json};

struct Place {
    folder: tempfile::TempDir,
    ledger: Ledger,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::of(folder.path());
        ledger.prepare().expect("a ledger");
        Self { folder, ledger }
    }

    fn index(&self) -> PathBuf {
        self.folder.path().join("index.sqlite")
    }

    /// A record, written long ago.
    fn run(&self, number: u64, more: &Value) -> RunId {
        let id = id(number);
        let folder = self.ledger.run_folder(id);
        fs::create_dir_all(&folder).expect("a folder");
        let mut record = record(number);
        for (key, value) in more.as_object().expect("an object") {
            record[key] = value.clone();
        }
        fs::write(folder.join("record.json"), record.to_string()).expect("a file");
        age(&folder);
        id
    }

    fn some_runs(&self, count: u64) {
        for number in 0..count {
            self.run(number, &json!({}));
        }
    }

    /// What the index says, which is what the files say.
    #[track_caller]
    fn list(&self) -> Vec<Summary> {
        let plain = runs(&self.ledger, None).expect("readable");
        for _ in 0..2 {
            assert_eq!(runs(&self.ledger, Some(&self.index())).expect("readable"), plain);
        }
        plain
    }
}

fn id(number: u64) -> RunId {
    // Spread, so that names are in another order than times.
    let bytes = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    RunId::from_bytes(bytes[..6].try_into().expect("six bytes"))
}

fn record(number: u64) -> Value {
    let digest = format!("sha256:{}", "a".repeat(64));
    let (hour, minute, second) = (number / 3600, number / 60 % 60, number % 60);
    json!({
        "schema": 1, "ibid": "0.1.0", "id": id(number), "status": if number.is_multiple_of(7) { "failed" } else { "ok" },
        "started": format!("2026-03-01T{hour:02}:{minute:02}:{second:02}.000Z"), "seconds": 1.5,
        "exit_code": u8::from(number.is_multiple_of(7)), "command": ["train"], "arguments": [],
        "parameters": {"learning_rate": format!("{}", number as f64 / 100.0)},
        "image": {"digest": digest, "tags": ["mnist:latest"], "layers": []},
        "code": {"mode": "mounted", "differing": []}, "env": {}, "mounts": [], "data": [],
        "host": {"name": "lab", "user": "ann", "uid": 1000, "architecture": "x86_64", "kernel": "6.1", "cpu": "a cpu",
                 "cpus": 2, "memory": 1, "engine": "native"},
        "outputs": [], "metrics": {"loss": {"last": 0.5, "min": 0.25, "max": 1.0, "count": 3, "source": "stdout"}},
    })
}

/// As the library's, with texts of its own.
fn runs(ledger: &Ledger, index: Option<&Path>) -> Result<Vec<Summary>, ibid_ledger::ledger::Error> {
    let mut texts = Texts::default();
    let runs = index::runs(ledger, index, &mut texts)?;
    let owned = |run| postcard::from_bytes(&postcard::to_allocvec(&run).expect("plain data"));
    Ok(runs.into_iter().map(|run| owned(run).expect("a summary")).collect())
}

/// Makes a folder and its files older than what an index distrusts.
fn age(folder: &Path) {
    let then = SystemTime::now() - Duration::from_secs(3600);
    for entry in fs::read_dir(folder).expect("a folder") {
        let file = File::options().append(true).open(entry.expect("an entry").path()).expect("a file");
        file.set_modified(then).expect("a time");
    }
    File::open(folder).expect("a folder").set_modified(then).expect("a time");
}

/// How many runs the index holds.
fn indexed(index: &Path) -> i64 {
    let connection = rusqlite::Connection::open(index).expect("an index");
    connection.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).expect("a number")
}

#[test]
fn ten_thousand_runs_are_listed_as_their_records_say() {
    let place = Place::new();
    place.some_runs(10_000);
    let list = place.list();
    let expected: Vec<RunId> = (0..10_000).rev().map(id).collect();
    assert_eq!(list.iter().map(|run| run.id).collect::<Vec<_>>(), expected);
    assert_eq!(list.iter().filter(|run| run.standing.name() == "failed").count(), 1429);
    assert_eq!(list[0].parameters.get("learning_rate").map(String::as_str), Some("99.99"));
    assert_eq!(indexed(&place.index()), 10_000);
}

#[test]
fn an_empty_or_absent_ledger_has_no_runs() {
    let place = Place::new();
    assert!(place.list().is_empty());
    fs::remove_dir_all(place.ledger.folder()).expect("removed");
    assert!(place.list().is_empty());
}

#[test]
fn changes_are_noticed() {
    let place = Place::new();
    let ids: Vec<RunId> = (0..10).map(|number| place.run(number, &json!({}))).collect();
    assert_eq!(place.list().len(), 10);
    assert_eq!(indexed(&place.index()), 10);

    // A new one, one without an end, one that is gone, and names of none.
    place.run(11, &json!({}));
    let running = place.ledger.run_folder(id(12));
    fs::create_dir(&running).expect("a folder");
    let mut start = record(12);
    start["status"] = json!("running");
    fs::write(running.join("start.json"), start.to_string()).expect("a file");
    age(&running);
    fs::create_dir(place.ledger.folder().join("runs/notes")).expect("a folder");
    fs::create_dir(place.ledger.run_folder(id(13))).expect("a folder");
    removed::remove(&place.ledger, ids[3]).expect("removed");
    let list = place.list();
    assert_eq!(list.len(), 11);
    assert!(list.iter().all(|run| run.id != ids[3]));

    // It ends; a mark is made; a record changes in its place, with the same size.
    fs::write(running.join("record.json"), record(12).to_string()).expect("a file");
    marks::change(&place.ledger, ids[5], |marks| marks.add_tag("baseline")).expect("marked");
    let path = place.ledger.run_folder(ids[6]).join("record.json");
    let text = fs::read_to_string(&path).expect("a record");
    fs::write(&path, text.replace("\"ok\"", "\"o!\"")).expect("a file");
    removed::restore(&place.ledger, ids[3]).expect("restored");
    let list = place.list();
    assert_eq!(list.len(), 12);
    assert_eq!((list[0].id, list[0].standing.name()), (id(12), "ok"));
    let run = |id: RunId| list.iter().find(|run| run.id == id).expect("listed");
    assert_eq!(run(ids[5]).tags, ["baseline"]);
    assert!(
        matches!(&run(ids[6]).standing, Standing::Unreadable(why) if why.contains("unknown variant `o!`"))
    );
    assert_eq!(run(ids[3]).standing.name(), "ok");
}

#[test]
fn a_change_in_the_same_instant_is_noticed() {
    let place = Place::new();
    let id = place.run(1, &json!({}));
    let folder = place.ledger.run_folder(id);
    let path = folder.join("record.json");
    let text = fs::read_to_string(&path).expect("a record");
    // Young, then changed without its time or size showing it.
    let now = SystemTime::now();
    let touch = || {
        File::options().append(true).open(&path).and_then(|file| file.set_modified(now)).expect("a time");
    };
    touch();
    assert_eq!(place.list()[0].host, "lab");
    fs::write(&path, text.replace("\"lab\"", "\"bal\"")).expect("a file");
    touch();
    assert_eq!(place.list()[0].host, "bal");
}

#[test]
fn a_damaged_index_is_made_anew() {
    let place = Place::new();
    place.some_runs(100);
    let index = place.index();
    let break_it = |name: &str, damage: &dyn Fn()| {
        assert_eq!(place.list().len(), 100, "{name}");
        damage();
        assert_eq!(place.list().len(), 100, "{name}");
        assert_eq!(indexed(&index), 100, "{name}: another one took its place");
    };
    let sql = |text: &str| {
        rusqlite::Connection::open(&index).and_then(|index| index.execute_batch(text)).expect("SQL");
    };
    break_it("text", &|| fs::write(&index, "no database").expect("a file"));
    break_it("empty", &|| fs::write(&index, "").expect("a file"));
    break_it("torn", &|| {
        let mut bytes = fs::read(&index).expect("an index");
        bytes[4096..].fill(0x5a);
        fs::write(&index, bytes).expect("a file");
    });
    break_it("no table", &|| sql("DROP TABLE runs"));
    break_it("another table", &|| sql("DROP TABLE runs; CREATE TABLE runs (id TEXT)"));
    break_it("no summary", &|| sql("UPDATE runs SET summary = x'ffffffffffffffffff'"));
    break_it("no id", &|| sql("UPDATE runs SET id = -1 WHERE id = (SELECT min(id) FROM runs)"));
    break_it("another version", &|| sql("PRAGMA user_version = 999"));
    break_it("gone", &|| fs::remove_file(&index).expect("removed"));
}

#[test]
fn where_no_index_can_be_the_records_are_read() {
    let place = Place::new();
    place.some_runs(10);
    let list = runs(&place.ledger, None).expect("readable");
    for index in ["/proc/ibid.sqlite", "/dev/null/x", "/proc/nonexistent/x.sqlite"] {
        assert_eq!(runs(&place.ledger, Some(Path::new(index))).expect("readable"), list, "{index}");
    }
    // Another program holds it.
    let holder = rusqlite::Connection::open(place.index()).expect("an index");
    holder.execute_batch("BEGIN EXCLUSIVE").expect("a lock");
    assert_eq!(runs(&place.ledger, Some(&place.index())).expect("readable"), list);
}

#[test]
fn several_may_ask_at_once() {
    let place = Place::new();
    place.some_runs(300);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(runs(&place.ledger, Some(&place.index())).expect("readable").len(), 300);
            });
        }
    });
    assert_eq!(place.list().len(), 300);
    assert_eq!(indexed(&place.index()), 300);
}

#[test]
fn records_that_cannot_be_read_hide_no_others() {
    let place = Place::new();
    place.some_runs(5);
    place.run(5, &json!({"schema": 99}));
    place.run(6, &json!({"id": id(60)}));
    let damaged = place.run(7, &json!({}));
    fs::write(place.ledger.run_folder(damaged).join("record.json"), "{\"schema\": 1, ").expect("a file");
    let list = place.list();
    assert_eq!(list.len(), 8);
    let why: Vec<&str> = list
        .iter()
        .filter_map(|run| match &run.standing {
            Standing::Unreadable(reason) => Some(reason.as_str()),
            Standing::Known(_) => None,
        })
        .collect();
    assert_eq!(why.len(), 3);
    assert!(why.contains(&"it is of version 99, from a newer ibid"), "{why:?}");
    assert!(why.iter().any(|why| why.starts_with("it is the record of ")), "{why:?}");
    assert!(why.iter().any(|why| why.starts_with("EOF while parsing")), "{why:?}");
}

#[test]
fn a_run_is_found_by_name_tag_or_as_the_last() {
    let place = Place::new();
    let find = |text: &str| {
        let found = find(&place.ledger, Some(&place.index()), text);
        found.map(|id| id.to_string()).map_err(|error| error.to_string())
    };
    assert_eq!(find("last"), Err("there is no run yet".to_owned()));
    let ids: Vec<RunId> = (0..4).map(|number| place.run(number, &json!({}))).collect();
    let tag = |id, name: &str| {
        marks::change(&place.ledger, id, |marks| marks.add_tag(name)).expect("marked");
    };
    tag(ids[1], "baseline");
    tag(ids[1], "paper");
    tag(ids[2], "paper");
    assert_eq!(find("last"), Ok(ids[3].to_string()));
    assert_eq!(find(&ids[0].to_string()[..5]), Ok(ids[0].to_string()));
    assert_eq!(find("baseline"), Ok(ids[1].to_string()));
    assert_eq!(find("paper"), Err(format!("several runs have the tag `paper`: {}, {}", ids[2], ids[1])));
    assert_eq!(find("other"), Err("no run has the tag `other`, and none is called so".to_owned()));
    assert_eq!(find("fffff"), Err("no run has the tag `fffff`, and none is called so".to_owned()));
}

#[test]
fn what_was_removed_long_ago_is_removed_for_good() {
    let place = Place::new();
    let ids: Vec<RunId> = (0..3).map(|number| place.run(number, &json!({}))).collect();
    removed::remove(&place.ledger, ids[0]).expect("removed");
    removed::remove(&place.ledger, ids[1]).expect("removed");
    age(&removed::folder(&place.ledger).join(ids[0].to_string()));
    let before = SystemTime::now() - Duration::from_secs(60);
    assert_eq!(removed::purge(&place.ledger, before, true).expect("looked"), [ids[0]]);
    assert_eq!(removed::purge(&place.ledger, before, false).expect("purged"), [ids[0]]);
    assert_eq!(removed::ids(&place.ledger).expect("readable"), [ids[1]]);
    removed::restore(&place.ledger, ids[1]).expect("restored");
    assert_eq!(place.list().len(), 2);
}
