//! `ibid export`: a run in one file, for another machine.

use std::io::Write;
use std::path::Path;

use ibid_ledger::record::Status;
use ibid_ledger::run_archive::{self, Choice};
use ibid_store::{ArchiveFormat, NamedImage, Store};

use crate::args::{Cli, Export};
use crate::commands::save::write_file;
use crate::image_build::{self, open_store};
use crate::project::Project;
use crate::project_ledger::{self, ProjectLedger};
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Code compresses well at any level, and layers are most of the bytes: the level is one that costs little.
const LEVEL: i32 = 3;

pub fn main(ui: &Ui, cli: &Cli, export: &Export) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let project = Project::find(cli.directory.as_deref().unwrap_or(Path::new(".")))?;
    let of_project = ProjectLedger::of(cli.directory.as_deref())?;
    let id = of_project.find(&export.run)?;
    let ledger = of_project.ledger;
    let record = ledger.read(id).map_err(|error| {
        project_ledger::failure(error).while_doing(format!("the run {id} cannot be exported"))
    })?;
    if !matches!(record.status, Status::Ok | Status::Failed) {
        return Err(Failure::new(format!("the run {} has no end that could be repeated", record.id)));
    }
    let store = open_store()?;
    check_image(&store, &record.image.digest, export)?;
    let images = [NamedImage { image: record.image.digest, names: Vec::new() }];
    let image = |out: &mut dyn Write| store.save_archive(&images, ArchiveFormat::Oci, None, out);
    let choice = Choice { outputs: export.outputs, data: export.data };
    let path = &export.output;
    let is_compressed = path.extension().is_some_and(|extension| extension == "zst" || extension == "zstd");
    let mut left_out = Vec::new();
    let cannot = |error: &run_archive::Error| {
        Failure::of(error).while_doing(format!("the run {} cannot be exported", record.id))
    };
    let bytes = write_file(path, |out| {
        if !is_compressed {
            left_out = run_archive::write(&ledger, &project.root, &record, choice, &image, out)
                .map_err(|error| cannot(&error))?;
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            Failure::of(&error).while_doing(format!("cannot write {}", path.display()))
        };
        let mut encoder = zstd::Encoder::new(out, LEVEL).map_err(failed)?;
        encoder.include_checksum(true).map_err(failed)?;
        left_out = run_archive::write(&ledger, &project.root, &record, choice, &image, &mut encoder)
            .map_err(|error| cannot(&error))?;
        encoder.finish().map_err(failed)?;
        Ok(())
    })?;
    for output in &left_out {
        ui.warn(&format!("the output {output} is left out: it is no longer what the run wrote"));
    }
    if !record.data.is_empty() && !export.data {
        ui.warn("the data inputs are not in the file");
        ui.hint("`--data` puts them there");
    }
    ui.say(&format!("{} · run {} · {}", path.display(), record.id, ui::bytes(bytes)));
    Ok(0)
}

fn check_image(store: &Store, image: &ibid_core::digest::Digest, export: &Export) -> Result<(), Failure> {
    let is_whole = store
        .image(image)
        .is_ok_and(|config| config.rootfs.diff_ids.iter().all(|layer| store.has_layer(layer)));
    if is_whole {
        return Ok(());
    }
    Err(Failure::new(format!("the image {image} of the run is not in the store")).hint(format!(
        "`ibid replay {}` gets it from where it was pushed to, or builds it again",
        export.run
    )))
}
