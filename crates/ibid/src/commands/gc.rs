//! `ibid gc`: removes what nothing needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ibid_core::time::rfc3339;
use ibid_ledger::ledger::Ledger;
use ibid_ledger::run_id::RunId;
use ibid_ledger::summary::{Standing, Summary, Texts};
use ibid_ledger::{index, removed};
use ibid_store::{LedgerNeeds, Limit};
use serde_json::json;

use crate::args::{Cli, Gc};
use crate::image_build::{self, now, open_store};
use crate::project_ledger::{ProjectLedger, failure};
use crate::report::Failure;
use crate::snapshot_gc;
use crate::ui::{self, Ui};

const WEEK_SECONDS: i64 = 7 * 24 * 60 * 60;

pub fn main(ui: &Ui, cli: &Cli, gc: &Gc) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let store = open_store()?;
    let limit = match gc.keep {
        Some(bytes) => Limit::Bytes(bytes),
        None => Limit::UnusedSince(now() - WEEK_SECONDS),
    };
    let on_wait = || ui.say("waiting for another ibid that uses the store");
    // Before what they need is looked for.
    let purged = purge(cli, gc.dry_run)?;
    let code = snapshot_gc::collect(ui, cli, gc.dry_run);
    let collected = store.collect(limit, gc.dry_run, &needs, &on_wait)?;
    let freed: u64 = collected.removed.iter().map(|item| item.bytes).sum::<u64>() + code.bytes;
    if gc.json {
        let removed: Vec<_> = collected
            .removed
            .iter()
            .map(|item| {
                json!({
                    "kind": item.kind.name(),
                    "name": item.name,
                    "bytes": item.bytes,
                    "last_used": rfc3339(item.last_used),
                })
            })
            .collect();
        let report = json!({
            "schema": 1,
            "removed": removed,
            "removed_runs": purged,
            "snapshots": { "contents": code.contents, "bytes": code.bytes },
            "dry_run": gc.dry_run,
            "bytes_freed": freed,
            "bytes_left": collected.bytes_left,
            "bytes_needed": collected.bytes_needed,
        });
        ui::print(&serde_json::to_string_pretty(&report).expect("plain data"));
        return Ok(0);
    }
    let mut by_kind: BTreeMap<_, (usize, u64)> = BTreeMap::new();
    for item in &collected.removed {
        let (count, bytes) = by_kind.entry(item.kind).or_default();
        *count += 1;
        *bytes += item.bytes;
    }
    for (kind, (count, bytes)) in by_kind {
        let plural = match (count, kind.name()) {
            (1, name) => name.to_owned(),
            (_, "image without tag") => "images without tag".to_owned(),
            (_, name) => format!("{name}s"),
        };
        ui::print(&format!("{count} {plural}, {}", ui::bytes(bytes)));
    }
    if !purged.is_empty() {
        let plural = if purged.len() == 1 { "run" } else { "runs" };
        ui::print(&format!("{} {plural} that `ibid rm` took away", purged.len()));
    }
    if code.contents > 0 {
        let plural = if code.contents == 1 { "file or folder" } else { "files and folders" };
        ui::print(&format!("{} {plural} of snapshots, {}", code.contents, ui::bytes(code.bytes)));
    }
    let verb = if gc.dry_run { "would free" } else { "freed" };
    ui.say(&format!(
        "{verb} {} · {} left, of which tags and runs need {}",
        ui::bytes(freed),
        ui::bytes(collected.bytes_left),
        ui::bytes(collected.bytes_needed)
    ));
    if let Limit::Bytes(bytes) = limit
        && collected.bytes_left > bytes
    {
        ui.warn(&format!(
            "the store takes more than {}: the rest is needed by tags and runs",
            ui::bytes(bytes)
        ));
    }
    Ok(0)
}

/// Which images the runs of a ledger need, those that were taken away and can be put back too.
fn needs(folder: &Path) -> LedgerNeeds {
    let Some(project) = folder.parent().filter(|_| folder.is_dir()) else { return LedgerNeeds::Absent };
    let ledger = Ledger::of(project);
    let (mut texts, mut removed_texts) = (Texts::default(), Texts::default());
    let (Ok(runs), Ok(removed)) = (index::runs(&ledger, None, &mut texts), removed::runs(&ledger)) else {
        return LedgerNeeds::AtLeast(BTreeSet::new());
    };
    let removed = removed_texts.hold(removed);
    let all = || runs.iter().chain(&removed);
    let images = all().filter_map(|run| run.image.first()?.parse().ok()).collect();
    let is_known = |run: &Summary<&str>| matches!(run.standing, Standing::Known(_));
    if all().all(is_known) { LedgerNeeds::Images(images) } else { LedgerNeeds::AtLeast(images) }
}

/// Removes for good the runs of the project at hand that were taken away long ago.
fn purge(cli: &Cli, dry_run: bool) -> Result<Vec<RunId>, Failure> {
    // Outside of a project there is only the store.
    let Ok(project) = ProjectLedger::of(cli.directory.as_deref()) else { return Ok(Vec::new()) };
    let before = SystemTime::now() - Duration::from_secs(WEEK_SECONDS.unsigned_abs());
    removed::purge(&project.ledger, before, dry_run).map_err(failure)
}
