//! `ibid save`: an image as a Docker archive, which `docker load` and `podman load` take.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::Path;

use crate::args::Save;
use crate::image_build::{self, find_image, open_store};
use crate::report::Failure;
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, save: &Save) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let store = open_store()?;
    let image = find_image(&store, &save.image)?;
    let names: Vec<String> = store
        .tags()?
        .into_iter()
        .filter(|(_, digest)| *digest == image)
        .map(|(reference, _)| reference.to_string())
        .collect();
    if save.output == Path::new("-") {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Failure::new("an archive on a terminal would be unreadable")
                .hint(format!("ibid save {} -o - | docker load", save.image)));
        }
        let mut out = BufWriter::with_capacity(1 << 20, stdout.lock());
        store.write_docker_archive(&image, &names, &mut out)?;
        out.flush().map_err(|error| Failure::of(&error).while_doing("cannot write the archive to stdout"))?;
        return Ok(0);
    }
    let folder =
        save.output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = |error: std::io::Error| {
        Failure::of(&error).while_doing(format!("cannot write {}", save.output.display()))
    };
    // Under another name until it is whole: a half archive must not look like one.
    let mut name = save.output.file_name().ok_or_else(|| Failure::new("--output names no file"))?.to_owned();
    name.push(format!(".part-{}", std::process::id()));
    let part = folder.join(name);
    let file = File::create(&part).map_err(cannot)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = store
        .write_docker_archive(&image, &names, &mut out)
        .map_err(Failure::from)
        .and_then(|()| out.flush().map_err(cannot))
        .and_then(|()| std::fs::rename(&part, &save.output).map_err(cannot));
    if let Err(failure) = written {
        // The file is useless and its removal is a courtesy.
        let _ = std::fs::remove_file(&part);
        return Err(failure);
    }
    let bytes = std::fs::metadata(&save.output).map_err(cannot)?.len();
    ui.say(&format!("{} · image {} · {}", save.output.display(), ui::short_digest(&image), ui::bytes(bytes)));
    Ok(0)
}
