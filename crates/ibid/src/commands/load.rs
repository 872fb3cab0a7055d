//! `ibid load`: images from a file, a folder or a pipe.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::Path;

use ibid_core::image::host_architecture;
use ibid_store::{Error, LoadedImage, OciFolder, Store};
use serde_json::json;

use crate::args::Load;
use crate::image_build::{self, open_store};
use crate::report::Failure;
use crate::ui::{self, Ui};

/// What messages call what comes in by a pipe.
const STDIN: &str = "stdin";

pub fn main(ui: &Ui, load: &Load) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let input = load.input.as_deref().filter(|path| *path != Path::new("-"));
    if input.is_none() && std::io::stdin().is_terminal() {
        return Err(Failure::new("there is nothing to load: stdin is a terminal")
            .hint("ibid load -i FILE, or a pipe: ssh HOST ibid save IMAGE | ibid load"));
    }
    let store = open_store()?;
    let shown = input.map_or_else(|| STDIN.to_owned(), |path| path.display().to_string());
    let loaded = read(&store, input).map_err(|error| failure(&error, &shown))?;
    let own = format!("linux/{}", host_architecture());
    for image in &loaded {
        if image.platform != own {
            ui.warn(&format!(
                "{} is for {}: it cannot run on this machine, which is {own}",
                ui::short_digest(&image.image),
                image.platform
            ));
        }
        for name in &image.names {
            if let Some(before) = store.tag(name)?.filter(|before| *before != image.image) {
                ui.say(&format!("{name} was {}", ui::short_digest(&before)));
            }
            store.set_tag(name, image.image)?;
        }
    }
    if load.json {
        let images: Vec<_> = loaded
            .iter()
            .map(|image| {
                let tags: Vec<String> = image.names.iter().map(ToString::to_string).collect();
                json!({"digest": image.image, "tags": tags, "platform": image.platform})
            })
            .collect();
        let document = json!({"schema": 1, "images": images});
        ui::print(&serde_json::to_string_pretty(&document).expect("plain data"));
        return Ok(0);
    }
    for image in &loaded {
        for name in &image.names {
            ui::print(&format!("{name} {}", image.image));
        }
        if image.names.is_empty() {
            ui::print(&image.image.to_string());
            ui.hint(&format!("it has no name: `ibid tag {} NAME`", image.image));
        }
    }
    Ok(0)
}

fn read(store: &Store, input: Option<&Path>) -> Result<Vec<LoadedImage>, Error> {
    let Some(path) = input else { return store.load_archive(std::io::stdin().lock()) };
    if path.is_dir() {
        return store.load_folder(&OciFolder::open(path)?);
    }
    let file =
        File::open(path).map_err(|source| Error::Io { action: "open", path: path.to_owned(), source })?;
    store.load_archive(file)
}

fn failure(error: &Error, shown: &str) -> Failure {
    let failure = Failure::of(error).while_doing(format!("cannot load images from {shown}"));
    match error {
        Error::UnknownCompression { program } => {
            let file = if shown == STDIN { "FILE" } else { shown };
            failure.hint(format!("{program} -dc {file} | ibid load"))
        }
        Error::Io { path, .. } if path.ends_with("oci-layout") => {
            failure.hint("it reads folders in the OCI image layout, as `ibid save IMAGE -o DIR/` writes them")
        }
        Error::InvalidArchive { .. } | Error::InvalidImage { .. } | Error::NoImage => failure.hint(
            "it reads what `ibid save`, `docker save` and `podman save` write, and folders in the OCI image layout",
        ),
        _ => failure,
    }
}
