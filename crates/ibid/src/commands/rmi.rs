//! `ibid rmi`: takes names from images. What no name needs any more goes with `ibid gc`.

use ibid_core::reference::Reference;
use ibid_store::Store;

use crate::args::Rmi;
use crate::image_build::{self, find_image, open_store};
use crate::report::Failure;
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, rmi: &Rmi) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let store = open_store()?;
    // All or none: one that is missing is likely a mistake in the whole line.
    let names = rmi.images.iter().map(|text| name_of(&store, text)).collect::<Result<Vec<_>, _>>()?;
    let mut is_last = false;
    for name in &names {
        let image = store.tag(name)?;
        if !store.remove_tag(name)? {
            return Err(Failure::new(format!(
                "`{name}` is a name in an additional store, which is not changed"
            ))
            .hint("whoever owns that store can take it away"));
        }
        ui::print(&name.to_string());
        is_last |= !store.tags()?.iter().any(|(_, other)| Some(*other) == image);
    }
    if is_last {
        ui.say("`ibid gc` removes what no name needs any more and was not used for a week");
    }
    Ok(0)
}

/// The name that a person means: one that is written so, or the only one of an image that is named by digest.
fn name_of(store: &Store, text: &str) -> Result<Reference, Failure> {
    if let Ok(reference) = text.parse::<Reference>()
        && store.tag(&reference)?.is_some()
    {
        return Ok(reference);
    }
    let image = find_image(store, text)?;
    let mut names: Vec<Reference> =
        store.tags()?.into_iter().filter(|(_, digest)| *digest == image).map(|(name, _)| name).collect();
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        (None, _) => Err(Failure::new(format!("the image {image} has no name that could be taken from it"))
            .hint("`ibid gc` removes it when it was not used for a week; `ibid gc --keep 0` at once")),
        (Some(name), false) => {
            names.push(name);
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            Err(Failure::new(format!("the image {image} has {} names", names.len()))
                .hint(format!("say which: ibid rmi {}", names.join(" "))))
        }
    }
}
