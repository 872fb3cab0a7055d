//! The runs that are going on, and which of them a person means.

use std::path::{Path, PathBuf};

use ibid_engine::live::{LiveRun, LiveRuns};
use ibid_ledger::record::{Record, Status};
use ibid_ledger::run_id::RunId;
use ibid_ledger::selection::LAST;

use crate::image_build;
use crate::project_ledger::ProjectLedger;
use crate::report::Failure;
use crate::ui::Ui;

/// All of this person on this machine, newest first.
pub fn all(ui: &Ui) -> Result<Vec<LiveRun>, Failure> {
    Ok(all_with_sockets(ui)?.into_iter().map(|(run, _)| run).collect())
}

fn all_with_sockets(ui: &Ui) -> Result<Vec<(LiveRun, PathBuf)>, Failure> {
    let mut runs = Vec::new();
    for root in image_build::store_roots()? {
        let folder = LiveRuns::of(&root);
        let listed = folder.list().map_err(|error| Failure::of(&error))?;
        for error in &listed.errors {
            ui.warn(&Failure::of(error).summary());
        }
        runs.extend(listed.runs.into_iter().map(|run| {
            let socket = folder.socket(&run.id);
            (run, socket)
        }));
    }
    runs.sort_by(|(a, _), (b, _)| (&b.started, &b.id).cmp(&(&a.started, &a.id)));
    Ok(runs)
}

/// As [`find`], with the path of the socket where it is joined if it is a detached one.
pub fn find_with_socket(
    ui: &Ui,
    directory: Option<&Path>,
    text: &str,
) -> Result<(LiveRun, PathBuf), Failure> {
    let run = find(ui, directory, text)?;
    let found = all_with_sockets(ui)?.into_iter().find(|(known, _)| known.id == run.id);
    found.ok_or_else(|| Failure::new(format!("run {} has just ended", run.id)))
}

/// The one that a person means: by the start of its id in all projects, and else as in the project's ledger.
pub fn find(ui: &Ui, directory: Option<&Path>, text: &str) -> Result<LiveRun, Failure> {
    let runs = all(ui)?;
    let is_id = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut found = runs.iter().filter(|run| is_id && run.id.starts_with(text));
    match (found.next(), found.next()) {
        (Some(run), None) => return Ok(run.clone()),
        (Some(first), Some(second)) => {
            return Err(Failure::new(format!(
                "several runs that are going on start with `{text}`: {}, {}",
                first.id, second.id
            ))
            .hint("give more digits"));
        }
        (None, _) => {}
    }
    let unknown = || {
        Failure::new(format!("no run that is going on is called `{text}`"))
            .hint("`ibid ps` lists those that are going on")
    };
    let Ok(ledger) = ProjectLedger::of(directory) else { return Err(unknown()) };
    if text == LAST {
        let folder = ledger.ledger.folder().parent().and_then(|root| root.canonicalize().ok());
        let of_project = |run: &&LiveRun| folder.is_some() && run.project.canonicalize().ok() == folder;
        if let Some(run) = runs.iter().find(of_project) {
            return Ok(run.clone());
        }
    }
    let id = ledger.find(text).map_err(|failure| failure.hint("`ibid ps` lists those that are going on"))?;
    if let Some(run) = runs.iter().find(|run| run.id == id.to_string()) {
        return Ok(run.clone());
    }
    Err(match ledger.ledger.read(id) {
        Ok(record) => not_going_on(id, &record),
        Err(_) => unknown(),
    })
}

/// Why nothing can be done with a run, and how it ended.
fn not_going_on(id: RunId, record: &Record) -> Failure {
    let when = record.ended.as_ref().map(|time| format!(" at {time}")).unwrap_or_default();
    let how = match record.status {
        Status::Ok | Status::Failed => format!("it ended{when} with {}", end(record)),
        Status::Lost => "the ibid that executed it was killed".to_owned(),
        Status::NotStarted => "it never started".to_owned(),
        Status::Running => {
            let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
            return if record.host.name == here {
                let why = "its program has just ended, or its store cannot be written";
                Failure::new(format!("run {id} cannot be reached: {why}"))
            } else {
                Failure::new(format!("run {id} goes on on another machine, `{}`", record.host.name))
            };
        }
    };
    Failure::new(format!("run {id} is not going on: {how}"))
        .hint(format!("`ibid logs {id}` shows what it wrote, `ibid replay {id}` executes it again"))
}

/// How a program ended, as people name it.
pub fn end(record: &Record) -> String {
    match (&record.signal, record.exit_code) {
        (Some(signal), _) => signal.clone(),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "an unknown exit code".to_owned(),
    }
}
