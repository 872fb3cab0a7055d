//! `ibid ps`: the runs of this person that are going on, in all projects.

use serde_json::json;
use std::borrow::Cow;

use super::show::words;
use crate::live_args::Ps;
use crate::live_runs;
use crate::report::Failure;
use crate::table::{self, Column};
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, quiet: bool, args: &Ps) -> Result<u8, Failure> {
    let runs = live_runs::all(ui)?;
    if args.json {
        let runs: Vec<_> = runs
            .iter()
            .map(|run| {
                json!({
                    "id": run.id, "project": run.project, "started": run.started, "command": run.command,
                    "engine": run.engine, "detached": run.is_detached, "process": run.process,
                })
            })
            .collect();
        ui::print(&serde_json::to_string_pretty(&json!({"schema": 1, "runs": runs})).expect("plain data"));
        return Ok(0);
    }
    if quiet {
        runs.iter().for_each(|run| ui::print(&run.id));
        return Ok(0);
    }
    let column = |title: &str, cells: Vec<String>| Column {
        title: title.to_owned(),
        cells: cells.into_iter().map(Cow::from).collect(),
        right: false,
    };
    let columns = [
        column("ID", runs.iter().map(|run| run.id.clone()).collect()),
        column("STARTED", runs.iter().map(|run| run.started.clone()).collect()),
        column("ENGINE", runs.iter().map(|run| run.engine.clone()).collect()),
        column("PROJECT", runs.iter().map(|run| run.project.display().to_string()).collect()),
        column("COMMAND", runs.iter().map(|run| words(&run.command)).collect()),
    ];
    table::print(ui, &columns, &|_, _| None);
    Ok(0)
}
