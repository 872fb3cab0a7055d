//! The build cache that travels: where `--cache-from` and `--cache-to` say, opened before a build and written after it.

use ibid_build::Built;
use ibid_build::exported_cache::{self, CachePlace, ExportError, ExportedCache};
use ibid_registry::Client;
use ibid_store::Store;

use crate::cache_options::{CacheTo, Place};
use crate::registries;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// A cache's place, with what is needed to get there.
pub fn place<'a>(place: &Place, client: Option<&'a Client<'a>>) -> Result<CachePlace<'a>, Failure> {
    Ok(match place {
        Place::Folder(path) => CachePlace::Folder(path.clone()),
        Place::Registry(reference) => {
            let client = client.expect("a client is made when there is a registry");
            let tag = reference.tag.clone().expect("the option was checked for a tag");
            CachePlace::Tag(client.repository(reference).map_err(registries::failure)?, tag)
        }
    })
}

/// The caches that can be read; of the others people are told.
pub fn open<'a>(ui: &Ui, places: &[Place], client: Option<&'a Client<'a>>) -> Vec<ExportedCache<'a>> {
    let open_one = |place: &Place| {
        let (name, hint) = match place {
            Place::Folder(path) => (path.display().to_string(), "`ibid build --cache-to FOLDER` writes one"),
            Place::Registry(reference) => (
                reference.to_string(),
                "`ibid build --cache-to type=registry,ref=REGISTRY/REPOSITORY:TAG` writes one",
            ),
        };
        let causes = match self::place(place, client) {
            Ok(place) => match ExportedCache::open(place) {
                Ok(cache) => return Some(cache),
                Err(fault) => with_causes(&fault),
            },
            Err(failure) => failure.summary(),
        };
        ui.warn(&format!("the cache in {name} is not used: {causes}"));
        ui.hint(hint);
        None
    };
    places.iter().filter_map(open_one).collect()
}

/// Writes what the steps made where other machines can take it from.
pub fn export(
    ui: &Ui,
    store: &Store,
    built: &Built,
    to: &CacheTo,
    place: &CachePlace,
) -> Result<(), Failure> {
    let exported = exported_cache::export(store, place, built, to.compression, to.mounts);
    let exported = exported.map_err(|error| {
        let failure = match error {
            ExportError::Registry(error) => registries::failure(error),
            ExportError::OtherTag => {
                Failure::of(&error).hint("give the cache a tag of its own, such as `REPOSITORY:cache`")
            }
            error => Failure::of(&error),
        };
        failure
            .while_doing(format!("the image was built, but its cache cannot be written to {}", place.name()))
    })?;
    ui.say(&format!(
        "{} {} · {} layers of {}, {} of them new{} · {}",
        ui.paint(ui::BOLD, "cache"),
        place.name(),
        exported.layers,
        ui::bytes(exported.bytes),
        exported.layers_new,
        if to.mounts { format!(", {} cache mounts", exported.mounts) } else { String::new() },
        ui::short_digest(&exported.manifest)
    ));
    Ok(())
}

/// An error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
