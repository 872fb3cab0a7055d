//! `ibid diff IMAGE IMAGE`: what differs between two images.

use ibid_build::image_diff::{ConfigChange, FileChange, ImageDiff, image_diff};
use ibid_core::digest::{DiffId, Digest};
use ibid_store::Store;
use serde_json::{Value, json};

use crate::args::Diff;
use crate::image_build::find_image;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Exit code when something differs.
pub(super) const EXIT_DIFFERENT: u8 = 1;

pub(super) fn main(ui: &Ui, diff: &Diff, store: &Store) -> Result<u8, Failure> {
    let (first, second) = (find_image(store, &diff.first)?, find_image(store, &diff.second)?);
    let found = image_diff(store, &first, &second).map_err(|error| {
        let failure = Failure::of(&error);
        match error {
            ibid_store::Error::NoLayer { .. } => {
                failure.hint("`ibid inspect IMAGE` says which layers of an image are missing")
            }
            _ => failure,
        }
    })?;
    if diff.json {
        let document = document(store, &first, &second, &found)?;
        ui::print(&serde_json::to_string_pretty(&document).expect("plain data"));
    } else {
        show(ui, &found);
    }
    let is_same = found.files.is_empty() && found.config.is_empty();
    if is_same {
        let word = if first == second { "the same image" } else { "the same files and configuration" };
        ui.say(&format!("{}: {word}", ui.paint(ui::GREEN, "identical")));
    }
    Ok(if is_same { 0 } else { EXIT_DIFFERENT })
}

pub(super) fn show(ui: &Ui, found: &ImageDiff) {
    for change in &found.files {
        let (mark, style, about) = match (change.first_layer, change.second_layer) {
            (None, Some(layer)) => ("+", ui::GREEN, with_bytes(change.bytes.1, layer)),
            (Some(layer), None) => ("-", ui::RED, with_bytes(change.bytes.0, layer)),
            (first, second) => {
                let kinds: Vec<String> = change.kinds.iter().map(ToString::to_string).collect();
                let layers = format!("{}, then {}", layer_name(first), layer_name(second));
                ("~", ui::YELLOW, format!("{}  {layers}", kinds.join(", ")))
            }
        };
        let mark = ui.paint_stdout(style, mark);
        ui::print(&format!("{mark} {}  {}", change.path, ui.paint_stdout(ui::DIM, &about)));
    }
    for change in &found.config {
        let value = |value: &Option<Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "nothing".to_owned(),
        };
        let mark = match change {
            ConfigChange { first: None, .. } => ui.paint_stdout(ui::GREEN, "+"),
            ConfigChange { second: None, .. } => ui.paint_stdout(ui::RED, "-"),
            _ => ui.paint_stdout(ui::YELLOW, "~"),
        };
        let values = format!("{}, then {}", value(&change.first), value(&change.second));
        ui::print(&format!("{mark} config {}: {values}", change.name));
    }
}

fn with_bytes(bytes: Option<u64>, layer: usize) -> String {
    let bytes = bytes.map(|bytes| format!("{}  ", ui::bytes(bytes))).unwrap_or_default();
    format!("{bytes}{}", layer_name(Some(layer)))
}

/// As `ibid inspect` counts them.
fn layer_name(position: Option<usize>) -> String {
    position.map_or_else(String::new, |position| format!("layer {}", position + 1))
}

pub(super) fn document(
    store: &Store,
    first: &Digest,
    second: &Digest,
    found: &ImageDiff,
) -> Result<Value, Failure> {
    let (old, new) = (store.image(first)?.rootfs.diff_ids, store.image(second)?.rootfs.diff_ids);
    let layer = |layers: &[DiffId], position: Option<usize>| position.map(|position| layers[position]);
    let file = |change: &FileChange| {
        let (first, second) = (change.first_layer, change.second_layer);
        let what = match (first, second) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        json!({
            "path": change.path,
            "change": what,
            "differences": change.kinds.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "first": first.map(|_| json!({"layer": layer(&old, first), "bytes": change.bytes.0})),
            "second": second.map(|_| json!({"layer": layer(&new, second), "bytes": change.bytes.1})),
        })
    };
    let config =
        |change: &ConfigChange| json!({"name": change.name, "first": change.first, "second": change.second});
    Ok(json!({"schema": 1, "diff": {
        "first": first,
        "second": second,
        "files": found.files.iter().map(file).collect::<Vec<_>>(),
        "config": found.config.iter().map(config).collect::<Vec<_>>(),
    }}))
}
