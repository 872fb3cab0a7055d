//! Registries as people meet them: how far a transfer is, and what to do when it fails.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ibid_core::digest::Digest;
use ibid_core::reference::Reference;
use ibid_registry::{Client, Error, Event, Platform, Pulled, Settings};
use ibid_store::Store;
use indicatif::ProgressBar;

use crate::bases::utf8_environment;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// A transfer: a bar on a terminal, else a line.
pub struct Transfer<'a> {
    ui: &'a Ui,
    /// Such as `fetching`.
    verb: &'static str,
    bar: Mutex<Option<ProgressBar>>,
}

impl<'a> Transfer<'a> {
    pub fn new(ui: &'a Ui, verb: &'static str) -> Self {
        Self { ui, verb, bar: Mutex::default() }
    }

    pub fn show(&self, event: Event) {
        match event {
            Event::Retry { url, reason, wait_ms } => {
                let wait = ui::seconds(wait_ms as f64 / 1000.0);
                // A reason that names the place needs it no second time.
                let place = if reason.contains(url) { String::new() } else { format!("{url}: ") };
                self.ui.warn(&format!("{place}{reason}; trying again in {wait}"));
            }
            Event::MirrorFailed { host, reason } => {
                self.ui.warn(&format!("the mirror {host} is not used: {reason}"));
            }
            Event::Waiting => self.ui.say("waiting for another ibid that fetches the same layer"),
            Event::Layers { layers, wanted, bytes } => {
                if wanted > 0 && bytes > 0 && !self.ui.is_moving() {
                    let size = ui::bytes(bytes);
                    self.ui.say(&format!("  {} {wanted} of {layers} layers, {size}", self.verb));
                } else if wanted > 0 {
                    *self.bar() = Some(self.ui.bytes_bar(&format!("  {}", self.verb), bytes));
                }
            }
            Event::Wanted(bytes) => self.bar().iter().for_each(|bar| bar.inc_length(bytes)),
            Event::Bytes(bytes) => {
                if let Some(bar) = &*self.bar() {
                    bar.set_position(bar.position().saturating_add_signed(bytes));
                }
            }
        }
    }

    fn bar(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }
}

/// Speaks to registries as this machine and this person have set it up.
pub fn client<'a>(tell: &'a (dyn Fn(Event) + Sync)) -> Result<Client<'a>, Failure> {
    Client::new(Settings::new(Path::new("/"), utf8_environment()), tell).map_err(failure)
}

/// Pulls, showing how it goes.
pub fn pull(
    ui: &Ui,
    store: &Store,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Pulled, Failure> {
    ui.say(&format!("{} {reference}", ui.paint(ui::BOLD, "pull")));
    let transfer = Transfer::new(ui, "fetching");
    let show = |event: Event| transfer.show(event);
    let pulled = client(&show)?.pull(store, reference, platform);
    transfer.end();
    let pulled = pulled.map_err(failure)?;
    let new = match pulled.layers_new {
        0 => "all layers were here".to_owned(),
        new => format!("{new} of {} layers were new", pulled.layers),
    };
    ui.say(&format!(
        "{} {reference} · image {} · manifest {} · {new}",
        ui.paint(ui::GREEN, "pulled"),
        ui::short_digest(&pulled.image),
        ui::short_digest(&pulled.manifest),
    ));
    Ok(pulled)
}

/// The manifest by which an image is known in the repository that a name is in.
pub fn known_manifest(store: &Store, name: &str, image: &Digest) -> Result<Option<Digest>, Failure> {
    let Ok(reference) = name.parse::<Reference>() else { return Ok(None) };
    ibid_registry::manifest_of(store, &reference, image).map_err(failure)
}

/// Words an error of a registry.
pub fn failure(error: Error) -> Failure {
    let failure = Failure::of(&error);
    match &error {
        Error::Unauthorized { registry, had_credentials: false, .. } => {
            failure.hint(format!("`ibid login {registry}`, if an account there may do it"))
        }
        Error::Unauthorized { registry, had_credentials: true, .. } => failure.hint(format!(
            "the credentials for {registry} are refused: `ibid login {registry}` replaces them"
        )),
        Error::NotFound { .. } => failure.hint("see that name and tag are spelled right; a private image needs `ibid login`"),
        Error::RateLimited { registry, seconds, .. } => {
            let failure = match seconds {
                Some(seconds) => failure.hint(format!("it asks for a pause of {}", ui::seconds(*seconds as f64))),
                None => failure,
            };
            failure.hint(format!("`ibid login {registry}` often gives a higher limit; a mirror in registries.conf needs none"))
        }
        Error::Certificate { registry, .. } => failure.hint(format!(
            "put the certificate of its authority into /etc/containers/certs.d/{registry}/ca.crt or ~/.config/containers/certs.d/{registry}/ca.crt"
        )),
        Error::Unreachable { url, .. } if url.starts_with("https://") => failure.hint(
            "for a registry without TLS, `insecure = true` in a [[registry]] of ~/.config/containers/registries.conf",
        ),
        Error::TagTaken { .. } => {
            failure.hint("push to another tag, or take this one from the other image with `--force`")
        }
        Error::PushByDigest { .. } => failure.hint("name a tag: REGISTRY/REPOSITORY:TAG"),
        Error::Platform { .. } => failure.hint("`ibid pull --platform OS/ARCHITECTURE` takes another one"),
        Error::Helper { .. } => {
            failure.hint("it is named in ~/.docker/config.json by `credsStore` or `credHelpers`: install it, or remove that line")
        }
        Error::Blocked { .. } => failure.hint("that file says `blocked = true`; nothing of the registry is used"),
        _ => failure,
    }
}
