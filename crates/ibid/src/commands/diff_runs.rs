//! `ibid diff RUN RUN`: what differs between two runs.

use std::collections::BTreeSet;

use ibid_build::image_diff::{ImageDiff, image_diff};
use ibid_build::packages::{Manager, Packages, packages};
use ibid_core::digest::Digest;
use ibid_ledger::code_diff::{FileDiff, code_diff};
use ibid_ledger::difference::{Difference, Section, differences};
use ibid_ledger::record::Record;
use ibid_ledger::run_id::RunId;
use ibid_ledger::snapshot::How;
use ibid_store::Store;
use serde_json::{Map, Value, json};

use super::diff_images::{self, EXIT_DIFFERENT};
use crate::args::Diff;
use crate::project_ledger::{ProjectLedger, failure};
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Files of the images that are named as examples.
const FILES_SHOWN_MAX: usize = 20;

/// Everything that differs.
struct RunDiff {
    first: RunId,
    second: RunId,
    records: Vec<Difference>,
    /// None when one of them has no snapshot.
    code: Option<Vec<FileDiff>>,
    /// None when it is the same one, or cannot be looked at.
    images: Option<Images>,
    /// What could not be compared, and why.
    unknown: Vec<String>,
}

struct Images {
    digests: (Digest, Digest),
    content: ImageDiff,
    packages: Vec<PackageChange>,
}

struct PackageChange {
    manager: Manager,
    name: String,
    first: Option<String>,
    second: Option<String>,
}

/// `store` is where the images are, or why there is none.
pub fn main(
    ui: &Ui,
    diff: &Diff,
    project: &ProjectLedger,
    first: RunId,
    second: RunId,
    store: Result<&Store, String>,
) -> Result<u8, Failure> {
    let read = |id| project.ledger.read(id).map_err(failure);
    let found = compare(project, &read(first)?, &read(second)?, store.clone());
    if diff.json {
        let document = found.document(store.ok())?;
        ui::print(&serde_json::to_string_pretty(&document).expect("plain data"));
    } else {
        found.show(ui);
    }
    for unknown in &found.unknown {
        ui.warn(unknown);
    }
    let differs = !found.records.is_empty() || found.code.as_ref().is_some_and(|files| !files.is_empty());
    if !differs && found.unknown.is_empty() {
        let word = if first == second { "the same run" } else { "the same in all that is recorded" };
        ui.say(&format!("{}: {word}", ui.paint(ui::GREEN, "identical")));
    }
    Ok(if differs { EXIT_DIFFERENT } else { 0 })
}

fn compare(project: &ProjectLedger, a: &Record, b: &Record, store: Result<&Store, String>) -> RunDiff {
    let mut unknown = Vec::new();
    let code = match (a.code.snapshot, b.code.snapshot) {
        (Some(first), Some(second)) => match code_diff(&project.ledger, first, second) {
            Ok(files) => Some(files),
            Err(error) => {
                unknown.push(format!("the code cannot be compared: {}", Failure::of(&error).summary()));
                None
            }
        },
        (None, None) => None,
        (first, _) => {
            let without = if first.is_none() { a.id } else { b.id };
            unknown.push(format!("the code cannot be compared: run {without} has no snapshot"));
            None
        }
    };
    let digests = (a.image.digest, b.image.digest);
    let images = match store {
        _ if digests.0 == digests.1 => None,
        Ok(store) => match Images::compare(store, digests) {
            Ok(images) => Some(images),
            Err(error) => {
                let why = Failure::of(&error).summary();
                unknown.push(format!("the images are others, and their content cannot be compared: {why}"));
                None
            }
        },
        Err(why) => {
            unknown.push(format!("the images are others, and their content cannot be compared: {why}"));
            None
        }
    };
    RunDiff { first: a.id, second: b.id, records: differences(a, b), code, images, unknown }
}

impl Images {
    fn compare(store: &Store, digests: (Digest, Digest)) -> Result<Self, ibid_store::Error> {
        let content = image_diff(store, &digests.0, &digests.1)?;
        let packages = package_changes(&packages(store, &digests.0)?, &packages(store, &digests.1)?);
        Ok(Self { digests, content, packages })
    }
}

fn package_changes(a: &Packages, b: &Packages) -> Vec<PackageChange> {
    let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let changed = names.into_iter().filter(|key| a.get(key) != b.get(key));
    changed
        .map(|key| PackageChange {
            manager: key.0,
            name: key.1.clone(),
            first: a.get(key).cloned(),
            second: b.get(key).cloned(),
        })
        .collect()
}

impl RunDiff {
    fn show(&self, ui: &Ui) {
        for section in Section::ALL {
            let records: Vec<&Difference> =
                self.records.iter().filter(|difference| difference.section == section).collect();
            let has_files =
                section == Section::Code && self.code.as_ref().is_some_and(|files| !files.is_empty());
            if records.is_empty() && !has_files {
                continue;
            }
            ui::print(&ui.paint_stdout(ui::BOLD, section.name()));
            for difference in records {
                self.show_value(ui, &difference.name, difference);
            }
            match section {
                Section::Code => self.code.iter().flatten().for_each(|file| show_file(ui, file)),
                Section::Image => self.show_images(ui),
                _ => {}
            }
        }
    }

    fn show_value(&self, ui: &Ui, name: &str, difference: &Difference) {
        let change = match (difference.section, &difference.first, &difference.second) {
            (Section::Metrics, Some(first), Some(second)) => change(first, second),
            _ => String::new(),
        };
        show_pair(ui, name, difference.first.as_deref(), difference.second.as_deref(), &change);
    }

    fn show_images(&self, ui: &Ui) {
        let Some(images) = &self.images else { return };
        if !images.packages.is_empty() {
            ui::print(&ui.paint_stdout(ui::BOLD, "packages"));
            for package in &images.packages {
                let name = format!("{} ({})", package.name, package.manager);
                show_pair(ui, &name, package.first.as_deref(), package.second.as_deref(), "");
            }
        }
        if images.content.files.is_empty() && images.content.config.is_empty() {
            return;
        }
        ui::print(&ui.paint_stdout(ui::BOLD, "files and configuration of the image"));
        let more = images.content.files.len().saturating_sub(FILES_SHOWN_MAX);
        let mut shown = images.content.clone();
        shown.files.truncate(FILES_SHOWN_MAX);
        diff_images::show(ui, &shown);
        if more > 0 {
            ui::print(&format!("and {more} more: `ibid diff {} {}`", images.digests.0, images.digests.1));
        }
    }

    fn document(&self, store: Option<&Store>) -> Result<Value, Failure> {
        let mut diff = Map::new();
        diff.insert("first".to_owned(), json!(self.first));
        diff.insert("second".to_owned(), json!(self.second));
        for section in Section::ALL {
            let records = self.records.iter().filter(|difference| difference.section == section);
            let values: Vec<_> =
                records.map(|it| json!({"name": it.name, "first": it.first, "second": it.second})).collect();
            diff.insert(section.name().to_owned(), json!(values));
        }
        let file = |file: &FileDiff| {
            json!({
                "path": file.path.to_string_lossy(),
                "change": word(file.how),
                "about": file.about,
                "unified": file.unified,
            })
        };
        let files = self.code.as_ref().map(|files| files.iter().map(file).collect::<Vec<_>>());
        diff.insert("code_files".to_owned(), json!(files));
        let mut packages = None;
        let mut content = None;
        if let (Some(images), Some(store)) = (&self.images, store) {
            let package = |it: &PackageChange| json!({"manager": it.manager.to_string(), "name": it.name, "first": it.first, "second": it.second});
            packages = Some(images.packages.iter().map(package).collect::<Vec<_>>());
            let (first, second) = &images.digests;
            let mut document = diff_images::document(store, first, second, &images.content)?;
            content = Some(document["diff"].take());
        }
        diff.insert("packages".to_owned(), json!(packages));
        diff.insert("image_content".to_owned(), json!(content));
        diff.insert("unknown".to_owned(), json!(self.unknown));
        Ok(json!({"schema": 1, "diff": diff}))
    }
}

fn word(how: How) -> &'static str {
    match how {
        How::Added => "added",
        How::Removed => "removed",
        How::Changed => "changed",
    }
}

/// `+ name: value`, `- name: value` or `~ name: before, then after`.
fn show_pair(ui: &Ui, name: &str, first: Option<&str>, second: Option<&str>, about: &str) {
    let (mark, style, values) = match (first, second) {
        (None, second) => ("+", ui::GREEN, second.unwrap_or_default().to_owned()),
        (Some(first), None) => ("-", ui::RED, first.to_owned()),
        (Some(first), Some(second)) => ("~", ui::YELLOW, format!("{first}, then {second}")),
    };
    let values = ui::with_short_digests(&values);
    ui::print(&format!("{} {name}: {values}{about}", ui.paint_stdout(style, mark)));
}

/// By how much a number changed.
fn change(first: &str, second: &str) -> String {
    let (Ok(before), Ok(after)) = (first.parse::<f64>(), second.parse::<f64>()) else { return String::new() };
    let change = after - before;
    let sign = if change > 0.0 { "+" } else { "" };
    if before == 0.0 || !change.is_finite() {
        return format!("  ({sign}{})", ui::number(change));
    }
    format!("  ({sign}{}, {sign}{:.2} %)", ui::number(change), change / before.abs() * 100.0)
}

fn show_file(ui: &Ui, file: &FileDiff) {
    let path = file.path.display();
    if let Some(about) = &file.about {
        let (mark, style) = match file.how {
            How::Added => ("+", ui::GREEN),
            How::Removed => ("-", ui::RED),
            How::Changed => ("~", ui::YELLOW),
        };
        ui::print(&format!("{} {path}: {about}", ui.paint_stdout(style, mark)));
    }
    let Some(unified) = &file.unified else { return };
    let coloured = unified.lines().map(|line| {
        let style = match line.as_bytes() {
            [b'-', b'-', b'-', b' ', ..] | [b'+', b'+', b'+', b' ', ..] => ui::BOLD,
            [b'@', b'@', ..] => ui::CYAN,
            [b'+', ..] => ui::GREEN,
            [b'-', ..] => ui::RED,
            _ => return line.to_owned(),
        };
        ui.paint_stdout(style, line)
    });
    ui::print(&coloured.collect::<Vec<_>>().join("\n"));
}
