//! `ibid push`: an image to a registry; the name that it has there on stdout.

use ibid_build::record::BuildRecord;
use ibid_core::digest::Digest;
use ibid_core::reference::Reference;
use ibid_registry::{Event, PushOptions};
use ibid_store::{Compression, Store};

use crate::args::{Cli, Push};
use crate::image_build::{self, find_image, open_store};
use crate::project::{CONFIG_FILE, Project, is_registry_place};
use crate::pushed_names;
use crate::registries::{self, Transfer};
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Digits of the image's digest in a tag that is made.
const DIGEST_DIGITS: usize = 12;

pub fn main(ui: &Ui, cli: &Cli, push: &Push) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let store = open_store()?;
    let (image, reference) = match &push.image {
        Some(name) => {
            let reference: Reference = name.parse().map_err(|error| Failure::of(&error))?;
            (find_image(&store, name)?, reference)
        }
        None => of_project(&store, cli, push.to.as_deref())?,
    };
    let compression = match push.compression.as_str() {
        "zstd" => Compression::Zstd,
        _ => Compression::Gzip,
    };
    ui.say(&format!("{} {reference}", ui.paint(ui::BOLD, "push")));
    let transfer = Transfer::new(ui, "sending");
    let show = |event: Event| transfer.show(event);
    let options = PushOptions { compression, force: push.force };
    let pushed = registries::client(&show)?.push(&store, &image, &reference, options);
    transfer.end();
    let pushed = pushed.map_err(registries::failure)?;
    // A name that was made here is one of the image's from now on.
    store.set_tag(&reference, image)?;
    let place = Reference { tag: None, digest: Some(pushed.manifest), ..reference.clone() };
    pushed_names::add(&store, &image, place.to_string())?;
    ui::print(&reference.to_string());
    let how = if pushed.was_there {
        "it was there".to_owned()
    } else {
        let mounted = match pushed.layers_mounted {
            0 => String::new(),
            count => format!(", {count} from other repositories"),
        };
        format!("{} of {} layers sent{mounted}", pushed.layers_sent, pushed.layers)
    };
    ui.say(&format!(
        "{} {reference} · image {} · manifest {} · {how}",
        ui.paint(ui::GREEN, "pushed"),
        ui::short_digest(&image),
        pushed.manifest
    ));
    Ok(0)
}

/// The project's image, and a name for it that no other image gets.
fn of_project(store: &Store, cli: &Cli, to: Option<&str>) -> Result<(Digest, Reference), Failure> {
    let project = Project::of_command_line(cli.directory.as_deref(), None, None)?;
    let Some(place) = to.or(project.registry.as_deref()) else {
        return Err(Failure::new(
            "there is no place for the image: no name was given, and no registry is set",
        )
        .hint("`ibid push --to REGISTRY/PREFIX`")
        .hint(format!(
            "or write in {}:\n  [image]\n  registry = \"REGISTRY/PREFIX\"",
            project.root.join(CONFIG_FILE).display()
        )));
    };
    let expected = "expected REGISTRY or REGISTRY/PREFIX, such as registry.lab.org/group";
    if !is_registry_place(place) {
        return Err(Failure::new(format!("`--to {place}`: it is no place in a registry")).hint(expected));
    }
    let image = find_image(store, &project.name)?;
    let record = BuildRecord::read(store, &image)?;
    let commit = record.and_then(|record| record.commit);
    let tag = unique_tag(commit.as_ref().map(|commit| (commit.id.as_str(), commit.is_dirty)), &image);
    // The project's name may have a tag of its own.
    let name: Reference = project.name.parse().map_err(|error| Failure::of(&error))?;
    let name = name.repository.strip_prefix("library/").unwrap_or(&name.repository).to_owned();
    let reference = format!("{place}/{name}:{tag}")
        .parse::<Reference>()
        .map_err(|error| Failure::of(&error).hint(expected))?;
    Ok((image, reference))
}

/// `<short commit>[-dirty]-<12 of the digest>`; without a commit, the digest says all.
fn unique_tag(commit: Option<(&str, bool)>, image: &Digest) -> String {
    let digest = &image.hex()[..DIGEST_DIGITS];
    match commit {
        Some((commit, is_dirty)) => {
            let short = commit.get(..7).unwrap_or(commit);
            format!("{short}{}-{digest}", if is_dirty { "-dirty" } else { "" })
        }
        None => digest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_name_code_and_image() {
        let image = Digest::of(b"");
        let check = |commit, expected: &str| assert_eq!(unique_tag(commit, &image), expected);
        check(Some(("3f2a9c1d00", false)), "3f2a9c1-e3b0c44298fc");
        check(Some(("3f2a9c1d00", true)), "3f2a9c1-dirty-e3b0c44298fc");
        check(None, "e3b0c44298fc");
    }
}
