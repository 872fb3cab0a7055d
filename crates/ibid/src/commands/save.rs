//! `ibid save`: images in a file, a folder or a pipe.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use ibid_core::reference::Reference;
use ibid_store::{ArchiveFormat, Compression, NamedImage, OciFolder, Store};

use crate::args::{LayerCompression, Save, SaveFormat};
use crate::image_build::{self, find_image, open_store};
use crate::report::Failure;
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, save: &Save) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let output = save.output.as_deref().filter(|path| *path != Path::new("-"));
    let format = save.format.unwrap_or(match output {
        Some(path) if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => SaveFormat::Oci,
        _ => SaveFormat::Docker,
    });
    let compression = match (save.compression, format) {
        (Some(LayerCompression::None), _) | (None, SaveFormat::Docker) => None,
        (Some(LayerCompression::Zstd), _) => Some(Compression::Zstd),
        (Some(LayerCompression::Gzip), _) | (None, SaveFormat::Oci | SaveFormat::OciArchive) => {
            Some(Compression::Gzip)
        }
    };
    let format = match (format, output) {
        (SaveFormat::Oci, None) => {
            return Err(Failure::new("a folder cannot be written to stdout").hint("--format oci-archive"));
        }
        (SaveFormat::Oci, Some(path)) => return save_folder(ui, save, path, compression),
        (SaveFormat::Docker, _) => ArchiveFormat::Docker,
        (SaveFormat::OciArchive, _) => ArchiveFormat::Oci,
    };
    let Some(path) = output else {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Failure::new("an archive on a terminal would be unreadable")
                .hint(format!("ibid save {0} -o {0}.tar", save.images[0]))
                .hint(format!("ibid save {} | ssh HOST ibid load", save.images.join(" "))));
        }
        let store = open_store()?;
        let images = named_images(&store, &save.images)?;
        let mut out = BufWriter::with_capacity(1 << 20, stdout.lock());
        return store
            .save_archive(&images, format, compression, &mut out)
            .map(|()| 0)
            .map_err(|error| Failure::from(error).while_doing("cannot write the archive to stdout"));
    };
    if path.is_dir() {
        return Err(Failure::new(format!("{} is a folder, and the archive is a file", path.display()))
            .hint("name a file in it, or leave out --format"));
    }
    let store = open_store()?;
    let images = named_images(&store, &save.images)?;
    let bytes = write_file(path, |out| {
        store
            .save_archive(&images, format, compression, out)
            .map_err(|error| Failure::from(error).while_doing(format!("cannot write {}", path.display())))
    })?;
    say(ui, path, &images, bytes);
    Ok(0)
}

fn save_folder(ui: &Ui, save: &Save, path: &Path, compression: Option<Compression>) -> Result<u8, Failure> {
    let store = open_store()?;
    let images = named_images(&store, &save.images)?;
    let written = OciFolder::open_or_make(path)
        .and_then(|folder| store.save_folder(&images, compression, &folder))
        .map_err(|error| Failure::from(error).while_doing(format!("cannot write {}", path.display())));
    written?;
    let names: Vec<String> = images.iter().flat_map(names).collect();
    ui.say(&format!("{} · {}", path.display(), names.join(", ")));
    Ok(0)
}

/// The images that people name. One that is named by a tag goes by that name, one that is named by its digest by none,
/// as `docker save` has it. The same image under two names is saved once.
fn named_images(store: &Store, texts: &[String]) -> Result<Vec<NamedImage>, Failure> {
    let mut images: Vec<NamedImage> = Vec::new();
    for text in texts {
        let image = find_image(store, text)?;
        let name = text
            .parse::<Reference>()
            .ok()
            .filter(|name| name.digest.is_none() && store.tag(name).is_ok_and(|found| found == Some(image)));
        match images.iter_mut().find(|known| known.image == image) {
            Some(known) => known.names.extend(name),
            None => images.push(NamedImage { image, names: name.into_iter().collect() }),
        }
    }
    for image in &images {
        check_whole(store, &image.image)?;
    }
    Ok(images)
}

/// Before anything is written: half an archive in a pipe is worse than none.
fn check_whole(store: &Store, image: &Digest) -> Result<(), Failure> {
    let config = store.image(image)?;
    match config.rootfs.diff_ids.iter().find(|layer| !store.has_layer(layer)) {
        None => Ok(()),
        Some(layer) => {
            Err(Failure::new(format!("the image {image} is not whole: its layer {layer} is missing"))
                .hint("`ibid build`, `ibid pull` or `ibid load` makes it again"))
        }
    }
}

/// Writes a file under another name until it is whole and on the disk: a half archive must not look like one. Returns its
/// size.
pub fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let cannot =
        |error: std::io::Error| Failure::of(&error).while_doing(format!("cannot write {}", path.display()));
    // A pipe or device is written to as it is; nothing takes its place.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let file = File::options().write(true).open(path).map_err(cannot)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        out.flush().map_err(cannot)?;
        return Ok(0);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path
        .file_name()
        .ok_or_else(|| Failure::new(format!("--output {} names no file", path.display())))?
        .to_owned();
    name.push(format!(".part-{}", std::process::id()));
    let part = Part(folder.join(name));
    let file = File::create(&part.0).map_err(cannot)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    let file = out.into_inner().map_err(|error| cannot(error.into_error()))?;
    file.sync_all().map_err(cannot)?;
    let bytes = file.metadata().map_err(cannot)?.len();
    std::fs::rename(&part.0, path).map_err(cannot)?;
    Ok(bytes)
}

/// A file that is useless unless it gets its name.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // Its removal is a courtesy; after a rename there is nothing of that name.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn say(ui: &Ui, path: &Path, images: &[NamedImage], bytes: u64) {
    let names: Vec<String> = images.iter().flat_map(names).collect();
    ui.say(&format!("{} · {} · {}", path.display(), names.join(", "), ui::bytes(bytes)));
}

/// What an image is called in what is written.
fn names(image: &NamedImage) -> Vec<String> {
    let digest = format!("image {}", ui::short_digest(&image.image));
    image.names.iter().map(ToString::to_string).chain([digest]).collect()
}
