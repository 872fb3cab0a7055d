//! `ibid pull`: an image from a registry; its digest on stdout.

use ibid_core::reference::Reference;
use ibid_registry::Platform;

use crate::args::Pull;
use crate::image_build::{self, open_store};
use crate::registries;
use crate::report::Failure;
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, pull: &Pull) -> Result<u8, Failure> {
    let reference: Reference = pull.image.parse().map_err(|error| Failure::of(&error))?;
    let platform = pull.platform.as_deref().map(|text| {
        Platform::parse(text).ok_or_else(|| {
            Failure::new(format!("`--platform {text}`: it is no platform"))
                .hint("expected OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as `linux/arm64`")
        })
    });
    let platform = platform.transpose()?;
    image_build::enter_user_namespace()?;
    let store = open_store()?;
    let pulled = registries::pull(ui, &store, &reference, platform.as_ref())?;
    ui::print(&pulled.image.to_string());
    Ok(0)
}
