//! `ibid context`: the files that a build may copy, and the rule of the ignore file that kept or dropped each.

use std::collections::BTreeMap;
use std::path::Path;

use ibid_build::context::{Context, Found, IgnoreFile, Kind, Listing};
use serde_json::json;

use crate::args::{Cli, Context as Args};
use crate::context_tree::{Tree, rows};
use crate::contexts::ignore_file;
use crate::project::Project;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Paths that are named as examples of what a rule drops.
const EXAMPLES_MAX: usize = 3;

pub fn main(ui: &Ui, cli: &Cli, args: &Args) -> Result<u8, Failure> {
    let project =
        Project::of_command_line(cli.directory.as_deref(), args.context.as_deref(), args.file.as_deref())?;
    let rules = ignore_file(&project.context, Some(&project.dockerfile))?;
    let context =
        Context::open(&project.context, rules.clone(), None).map_err(|error| Failure::of(&error))?;
    let listing = context.explain().map_err(|error| Failure::of(&error))?;
    if args.json {
        ui::print(
            &serde_json::to_string_pretty(&report(&project.context, &rules, &listing)).expect("plain data"),
        );
        return Ok(0);
    }
    if args.all {
        listing.found.iter().for_each(|found| ui::print(&line(found, &rules)));
    } else {
        show_tree(ui, &rules, &listing);
    }
    let dropped = match (listing.paths_dropped, rules.name.as_str()) {
        (_, "") => "no .dockerignore".to_owned(),
        (count, name) => format!("{} dropped by {name}", counted(count, "path")),
    };
    ui.say(&format!(
        "{} of {} · {dropped} · {}",
        counted(listing.files_kept, "file"),
        ui::bytes(listing.bytes_kept),
        project.context.display()
    ));
    Ok(0)
}

/// What `--json` prints.
fn report(folder: &Path, rules: &IgnoreFile, listing: &Listing) -> serde_json::Value {
    let paths: Vec<_> = listing
        .found
        .iter()
        .map(|found| {
            let rule = found.rule.map(|line| json!({"line": line, "pattern": rules.rules.text(line)}));
            json!({
                "path": found.entry.path().to_string_lossy(),
                "kind": kind(&found.entry.kind),
                "bytes": found.entry.size(),
                "kept": found.kept,
                "rule": rule,
            })
        })
        .collect();
    let ignore_file = Some(&rules.name).filter(|name| !name.is_empty());
    json!({"schema": 1, "context": {
        "folder": folder.to_string_lossy(),
        "ignore_file": ignore_file,
        "files": listing.files_kept,
        "bytes": listing.bytes_kept,
        "paths_dropped": listing.paths_dropped,
        "paths": paths,
    }})
}

fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Folder => "folder",
        Kind::Link { .. } => "link",
        Kind::Special => "special",
    }
}

/// One path with its rule.
fn line(found: &Found, rules: &IgnoreFile) -> String {
    let mark = if found.kept { '+' } else { '-' };
    let size = match found.entry.kind {
        Kind::File { .. } => ui::bytes(found.entry.size()),
        _ => String::new(),
    };
    let rule = match found.rule {
        Some(line) => format!("  {}", rule(rules, line)),
        None => String::new(),
    };
    format!("{mark} {size:>8}  {}{rule}", shown_path(found))
}

/// A path as people read it: folders end with `/`, and what is never copied says so.
fn shown_path(found: &Found) -> String {
    let path = found.entry.path().display();
    match &found.entry.kind {
        Kind::Folder => format!("{path}/"),
        Kind::Link { target } => format!("{path} -> {}", String::from_utf8_lossy(target)),
        Kind::Special => format!("{path} (socket, pipe or device: never copied)"),
        Kind::File { .. } => path.to_string(),
    }
}

fn rule(rules: &IgnoreFile, line: usize) -> String {
    format!("{}:{line} `{}`", rules.name, rules.rules.text(line).unwrap_or_default())
}

/// Where the bytes are, largest first, then what each rule drops.
fn show_tree(ui: &Ui, rules: &IgnoreFile, listing: &Listing) {
    let mut tree = Tree::default();
    let kept = listing.found.iter().filter(|found| found.kept);
    for found in kept {
        match found.entry.kind {
            Kind::Folder => tree.folder(found.entry.path()),
            _ => {
                let note = match (&found.entry.kind, found.rule) {
                    (Kind::Special, _) => "socket, pipe or device: never copied".to_owned(),
                    (_, Some(line)) => format!("kept by {}", rule(rules, line)),
                    _ => String::new(),
                };
                tree.file(found.entry.path(), found.entry.size(), note);
            }
        }
    }
    for row in rows(&tree) {
        let bytes = ui::bytes(row.bytes);
        let files = if row.files > 0 { counted(row.files, "file") } else { String::new() };
        let name = format!("{}{}", "  ".repeat(row.depth), row.name);
        let text = format!("{bytes:>8}  {files:>12}  {name}  {}", ui.paint_stdout(ui::DIM, &row.note));
        ui::print(text.trim_end());
    }
    let mut dropped: BTreeMap<usize, Vec<&Found>> = BTreeMap::new();
    for found in listing.found.iter().filter(|found| !found.kept) {
        dropped.entry(found.rule.unwrap_or_default()).or_default().push(found);
    }
    if dropped.is_empty() {
        return;
    }
    ui::print("");
    ui::print("dropped:");
    for (line, paths) in &dropped {
        let mut shown: Vec<String> = paths.iter().take(EXAMPLES_MAX).map(|found| shown_path(found)).collect();
        if paths.len() > EXAMPLES_MAX {
            shown.push(format!("{} more", paths.len() - EXAMPLES_MAX));
        }
        ui::print(&format!("  {}  {}", rule(rules, *line), ui.paint_stdout(ui::DIM, &shown.join(", "))));
    }
}

/// `1 file`, `2 files`.
fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
