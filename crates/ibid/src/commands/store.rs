//! `ibid store verify`: whether the store holds what it promises.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ibid_core::digest::Digest;
use ibid_store::{Damaged, ItemKind, Store};
use serde_json::json;

use crate::args::{Store as Args, StoreCommand, Verify};
use crate::image_build::{self, open_store};
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Exit code when something is damaged.
const EXIT_DAMAGED: u8 = 1;

pub fn main(ui: &Ui, args: &Args) -> Result<u8, Failure> {
    match &args.command {
        StoreCommand::Verify(verify) => self::verify(ui, verify),
    }
}

fn verify(ui: &Ui, verify: &Verify) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let store = open_store()?;
    let spinner = RefCell::new(ui.is_moving().then(|| ui.spinner("verifying the store")));
    let found = store.verify(&|kind, digest| {
        if let Some(spinner) = &*spinner.borrow() {
            spinner.set_message(format!("{} {}", kind.name(), ui::short_digest(digest)));
        }
    });
    if let Some(spinner) = spinner.take() {
        spinner.finish_and_clear();
    }
    let found = found?;
    // A store that cannot be written is told about all the same.
    let quarantined = if found.damaged.is_empty() {
        Ok(())
    } else {
        store.quarantine(&found.damaged, &|| ui.say("waiting for another ibid that uses the store"))
    };
    let incomplete = incomplete_images(&store)?;
    if verify.json {
        let counts: BTreeMap<&str, usize> =
            found.counts.iter().map(|(kind, count)| (json_name(*kind), *count)).collect();
        let damaged: Vec<_> = found
            .damaged
            .iter()
            .map(|item| json!({"kind": json_name(item.kind), "digest": item.digest, "reason": item.reason}))
            .collect();
        let document = json!({
            "schema": 1,
            "verified": counts,
            "damaged": damaged,
            "quarantined": quarantined.is_ok(),
            "incomplete_images": incomplete,
        });
        ui::print(&serde_json::to_string_pretty(&document).expect("plain data"));
    } else {
        show(ui, &found.damaged, &incomplete);
    }
    quarantined.map_err(|error| {
        Failure::of(&error)
            .while_doing("what is damaged cannot be moved away")
            .hint("until it is, builds and runs use it: call this as the one who owns the store")
    })?;
    if found.damaged.is_empty() {
        let counts: Vec<String> =
            found.counts.iter().map(|(kind, count)| format!("{count} {}", plural(*kind, *count))).collect();
        let what = if counts.is_empty() { "nothing in it".to_owned() } else { counts.join(", ") };
        ui.say(&format!("{}: {what}", ui.paint(ui::GREEN, "sound")));
        return Ok(0);
    }
    ui.hint("the next `ibid build`, `ibid pull` or `ibid load` makes what is needed anew; `ibid gc` removes what is in quarantine");
    Ok(EXIT_DAMAGED)
}

fn show(ui: &Ui, damaged: &[Damaged], incomplete: &[String]) {
    for item in damaged {
        let word = ui.paint_stdout(ui::RED, "damaged");
        ui::print(&format!("{word} {} {}: {}", plural(item.kind, 1), item.digest, item.reason));
    }
    if !incomplete.is_empty() {
        ui.warn(&format!("not whole: {}", incomplete.join(", ")));
    }
}

/// Names of images of which something is missing.
fn incomplete_images(store: &Store) -> Result<Vec<String>, Failure> {
    let is_whole = |image: &Digest| {
        store
            .image(image)
            .is_ok_and(|config| config.rootfs.diff_ids.iter().all(|layer| store.has_layer(layer)))
    };
    let tags = store.tags()?.into_iter().filter(|(_, image)| !is_whole(image));
    Ok(tags.map(|(name, _)| name.to_string()).collect())
}

fn plural(kind: ItemKind, count: usize) -> String {
    let name = if kind == ItemKind::Image { "configuration" } else { kind.name() };
    if count == 1 { name.to_owned() } else { format!("{name}s") }
}

fn json_name(kind: ItemKind) -> &'static str {
    if kind == ItemKind::Image { "configuration" } else { kind.name() }
}
