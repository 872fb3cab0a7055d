//! `ibid tag`: another name for an image.

use ibid_core::reference::Reference;

use crate::args::Tag;
use crate::image_build::{self, find_image, open_store};
use crate::report::Failure;
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, tag: &Tag) -> Result<u8, Failure> {
    image_build::enter_user_namespace()?;
    let name: Reference =
        tag.name.parse().map_err(|error: ibid_core::reference::InvalidReference| Failure::of(&error))?;
    if name.digest.is_some() {
        return Err(Failure::new(format!("`{}` holds a digest, which no tag can choose", tag.name))
            .hint("give a name such as `mnist:first`"));
    }
    let store = open_store()?;
    let image = find_image(&store, &tag.image)?;
    let before = store.tag(&name)?.filter(|before| *before != image);
    store.set_tag(&name, image)?;
    let moved = before.map(|before| format!(", which was {}", ui::short_digest(&before))).unwrap_or_default();
    ui.say(&format!("{} is {name}{moved}", ui::short_digest(&image)));
    Ok(0)
}
