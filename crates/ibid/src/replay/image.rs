//! The image of a recorded run, from the nearest place that has it: the store, the registries it was pushed to, or a build of what
//! was recorded.

use std::path::Path;

use ibid_core::digest::{DiffId, Digest};
use ibid_core::reference::Reference;
use ibid_engine::identity::HostUser;
use ibid_ledger::record::CodeMode;
use ibid_ledger::run_id::RunId;
use ibid_ledger::snapshot;
use ibid_store::{Kind, Store};

use super::source::{Folder, Source};
use crate::args::BuildShared;
use crate::image_build::{Options, Preparation};
use crate::project::Project;
use crate::registries;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Where an image came from.
pub enum Origin {
    Store,
    Registry(String),
    /// Built again. True when it is the same to the byte; otherwise it differs where the mounted code hides it.
    Rebuilt(bool),
    /// It was named.
    Asked,
}

impl Origin {
    pub fn text(&self) -> String {
        match self {
            Self::Store => "from the store".to_owned(),
            Self::Registry(name) => format!("from {name}"),
            Self::Rebuilt(true) => "built again from the recorded code and lock".to_owned(),
            Self::Rebuilt(false) => {
                "built again from the recorded code and lock; it differs in its copy of the code, which the mount hides".to_owned()
            }
            Self::Asked => "as asked for".to_owned(),
        }
    }

    /// In one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Registry(_) => "registry",
            Self::Rebuilt(_) => "rebuilt",
            Self::Asked => "asked",
        }
    }
}

/// The image of the run, in the store at last.
pub fn find(ui: &Ui, host: &HostUser, store: &Store, source: &Source) -> Result<(Digest, Origin), Failure> {
    let wanted = &source.record.image;
    let mut tried = vec![match lacking(store, &wanted.digest) {
        None => return Ok((wanted.digest, Origin::Store)),
        Some(what) => format!("the store lacks {what}"),
    }];
    ui.say(&format!("the image {} is not in the store", ui::short_digest(&wanted.digest)));
    for name in &wanted.pushed {
        match pull(ui, store, name, &wanted.digest) {
            Ok(()) => return Ok((wanted.digest, Origin::Registry(name.clone()))),
            Err(failure) => tried.push(format!("{name}: {}", failure.summary())),
        }
    }
    if wanted.pushed.is_empty() {
        tried.push("as far as is recorded, it was never pushed to a registry".to_owned());
    }
    match rebuild(ui, host, store, source) {
        Ok(found) => return Ok(found),
        Err(failure) => tried.push(format!("it cannot be built again: {}", failure.summary())),
    }
    let mut failure =
        Failure::new(format!("the image {} of the run {} is nowhere", wanted.digest, source.record.id));
    failure = failure.causes(tried);
    Err(failure
        .hint("`ibid load` or `ibid pull` brings it back; `--image IMAGE` shows what another one gives"))
}

/// What of an image is missing, if anything is.
fn lacking(store: &Store, image: &Digest) -> Option<String> {
    match store.image(image) {
        Err(_) => Some("it".to_owned()),
        Ok(config) => {
            let missing = config.rootfs.diff_ids.iter().find(|layer| !store.has_layer(layer))?;
            Some(format!("its layer {missing}"))
        }
    }
}

fn pull(ui: &Ui, store: &Store, name: &str, wanted: &Digest) -> Result<(), Failure> {
    let reference: Reference = name.parse().map_err(|error| Failure::of(&error))?;
    let pulled = registries::pull(ui, store, &reference, None)?;
    if pulled.image == *wanted {
        return Ok(());
    }
    Err(Failure::new(format!("it is the image {}", pulled.image)))
}

/// Builds the recorded code with its lock.
fn rebuild(ui: &Ui, host: &HostUser, store: &Store, source: &Source) -> Result<(Digest, Origin), Failure> {
    let record = &source.record;
    let snapshot = record
        .code
        .snapshot
        .ok_or_else(|| Failure::new("the code that it was built from is not recorded"))?;
    if record.code.mode == CodeMode::Pegged {
        return Err(Failure::new("the code that it was built from is not recorded"));
    }
    let id = RunId::random().map_err(|error| Failure::of(&error))?;
    let folder = Folder::new(&source.ledger, id)?;
    snapshot::checkout(&source.ledger, snapshot, &folder.path).map_err(|error| Failure::of(&error))?;
    let project = Project::in_folder(&folder.path)?;
    ui.say("building it again from the recorded code and lock");
    let mut preparation = Preparation::new(ui, &project, host, &BuildShared::default(), Path::new("."))?;
    // A name that is gone afterwards: the project's own stays where it is.
    let name: Reference = format!("ibid-replay:{id}").parse().expect("a sound name");
    let options = Options { tags: vec![name.clone()], ..Options::default() };
    let built = preparation.build(ui, &options);
    store.remove_tag(&name)?;
    let image = built?.image;
    if image == record.image.digest {
        return Ok((image, Origin::Rebuilt(true)));
    }
    if differs_below_code_only(store, source, &image)? {
        return Ok((image, Origin::Rebuilt(false)));
    }
    Err(Failure::new(format!("what is built now is {image}, another image")))
}

/// Whether an image is the recorded one but for layers that hold nothing outside the folder over which code is mounted. The
/// recorded layers cannot be looked at; but both come from the same Dockerfile, so a layer of one is from the step of the
/// other's.
fn differs_below_code_only(store: &Store, source: &Source, image: &Digest) -> Result<bool, Failure> {
    let Some(folder) = source.record.code.folder.as_deref() else { return Ok(false) };
    let folder = folder.trim_matches('/').as_bytes();
    let layers = store.image(image)?.rootfs.diff_ids;
    let recorded = &source.record.image.layers;
    if layers.len() != recorded.len() {
        return Ok(false);
    }
    for (layer, recorded) in layers.iter().zip(recorded) {
        if *layer == DiffId(*recorded) {
            continue;
        }
        let manifest = store.layer_manifest(layer)?;
        let is_hidden = manifest.entries.iter().all(|entry| {
            let is_above =
                matches!(entry.kind, Kind::Folder { opaque: false }) && is_below(folder, &entry.path);
            is_above || is_below(&entry.path, folder)
        });
        if !is_hidden {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a path is `folder` or in it.
fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
