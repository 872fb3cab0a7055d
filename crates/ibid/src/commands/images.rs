//! `ibid images`: what is in the store.

use std::collections::BTreeMap;

use ibid_core::digest::Digest;
use ibid_store::{Error, Store};
use serde_json::json;

use crate::args::Images;
use crate::image_build::{self, open_store};
use crate::report::Failure;
use crate::ui;

pub fn main(images: &Images) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let store = open_store()?;
    let mut by_image: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (reference, digest) in store.tags()? {
        by_image.entry(digest).or_default().push(reference.to_string());
    }
    let mut rows = Vec::new();
    for (digest, tags) in by_image {
        // A tag whose image is gone, in part or whole, is shown as such rather than hiding the others.
        let bytes = bytes(&store, &digest);
        let built = ibid_build::record::BuildRecord::read(&store, &digest)?.map(|record| record.built);
        rows.push((tags, digest, bytes.as_ref().copied().unwrap_or(0), built, bytes.is_ok()));
    }
    // Newest first; what was not built here last.
    rows.sort_by(|a, b| (&b.3, &a.0).cmp(&(&a.3, &b.0)));
    if images.json {
        let images: Vec<_> = rows
            .iter()
            .map(|(tags, digest, bytes, built, whole)| {
                json!({"digest": digest, "tags": tags, "bytes": bytes, "built": built, "complete": whole})
            })
            .collect();
        ui::print(
            &serde_json::to_string_pretty(&json!({"schema": 1, "images": images})).expect("plain data"),
        );
        return Ok(0);
    }
    let table: Vec<[String; 4]> = rows
        .iter()
        .flat_map(|(tags, digest, bytes, built, whole)| {
            tags.iter().map(move |tag| {
                let size = if *whole { ui::bytes(*bytes) } else { "missing".to_owned() };
                [tag.clone(), ui::short_digest(digest), size, built.clone().unwrap_or_else(|| "-".to_owned())]
            })
        })
        .collect();
    print_table(&["IMAGE", "DIGEST", "SIZE", "BUILT"], &table);
    Ok(0)
}

/// Bytes of content of an image.
fn bytes(store: &Store, image: &Digest) -> Result<u64, Error> {
    let config = store.image(image)?;
    config.rootfs.diff_ids.iter().map(|layer| store.layer_size(layer)).sum()
}

/// Columns as wide as their widest cell.
fn print_table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        ui::print(padded.join("  ").trim_end());
    };
    line(*head);
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
}
