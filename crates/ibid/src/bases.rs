//! The images that a Dockerfile starts from: made from signed packages where `ibid.toml` says so, else what
//! the store holds under that name.

use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ibid_build::BaseImage;
use ibid_core::digest::Digest;
use ibid_core::reference::Reference;
use ibid_debian::{BaseSpec, Event, LockedBase};
use ibid_store::Store;
use indicatif::ProgressBar;

use crate::lock::Lock;
use crate::project::{BaseTable, Project};
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Raised when a lock is made into other bytes than before, so that older bases are made anew.
const MAKING_VERSION: u32 = 1;

/// The base, if it is there already.
pub fn find(store: &Store, project: &Project, name: &str, epoch: i64) -> Result<Option<BaseImage>, Failure> {
    let image = match project.bases.get(name) {
        Some(table) => {
            // A lock of a hundred packages takes longer to read than a container to start, so what it means
            // is looked up by its bytes.
            let Some(text) = Lock::text(&project.root)? else { return Ok(None) };
            let key = Digest::of(
                format!("base of lock {MAKING_VERSION} {name} {table:?} epoch {epoch}\n{text}").as_bytes(),
            );
            match cached_image(store, &key)? {
                Some(digest) => Some(digest),
                None => match Lock::read(&project.root)?.base.get(name) {
                    Some(locked) if locked.answers(&spec(table)?) => {
                        let digest = made(store, locked, epoch)?;
                        if let Some(digest) = digest {
                            store.put_cache(&key, digest.to_string().as_bytes())?;
                        }
                        digest
                    }
                    _ => None,
                },
            }
        }
        None => match name.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => store.tag(&reference(name)?)?,
        },
    };
    let Some(digest) = image else { return Ok(None) };
    let Ok(config) = store.image(&digest) else { return Ok(None) };
    let whole = config.rootfs.diff_ids.iter().all(|layer| store.has_layer(layer));
    Ok(whole.then_some(BaseImage { digest, config }))
}

/// The base; made from packages when `ibid.toml` says how and it is not there, or when `update` asks for
/// the newest packages.
pub fn find_or_make(
    ui: &Ui,
    store: &Store,
    project: &Project,
    name: &str,
    epoch: i64,
    update: bool,
) -> Result<BaseImage, Failure> {
    let Some(table) = project.bases.get(name) else {
        return find(store, project, name, epoch)?.ok_or_else(|| {
            Failure::new(format!("the base image `{name}` is not in the store, and ibid.toml does not say how to make it"))
                .hint(format!("to make it from signed Debian packages, write in {}:\n  [base.\"{name}\"]\n  suite = \"bookworm\"", project.root.join(crate::project::CONFIG_FILE).display()))
                .hint("pulling from a registry is not supported yet")
        });
    };
    if !update && let Some(base) = find(store, project, name, epoch)? {
        return Ok(base);
    }
    let spec = spec(table)?;
    let failed =
        |error: ibid_debian::Error| Failure::of(&error).while_doing(format!("cannot make the base `{name}`"));
    let host = ibid_debian::Host::read(std::path::Path::new("/"), utf8_environment()).map_err(failed)?;
    let mut lock = Lock::read(&project.root)?;
    let progress = Progress::new(ui, name);
    let locked = match lock.base.get(name) {
        Some(locked) if !update && locked.answers(&spec) => locked.clone(),
        _ => {
            let cache = store.root().join("debs");
            let locked = ibid_debian::resolve(&spec, &host, &cache, now(), &|event| progress.show(event))
                .map_err(failed)?;
            lock.base.insert(name.to_owned(), locked.clone());
            locked
        }
    };
    let digest = match made(store, &locked, epoch)? {
        Some(digest) => digest,
        None => {
            let digest =
                ibid_debian::make(store, &locked, &spec, &host, epoch, &|event| progress.show(event))
                    .map_err(failed)?;
            let key = base_key(&locked, epoch);
            store.put_cache(&key, digest.to_string().as_bytes())?;
            digest
        }
    };
    // Only now: a lock that nothing can be made from helps nobody.
    lock.write(&project.root)?;
    store.set_tag(&reference(name)?, digest)?;
    progress.finish(locked.packages.len(), &digest);
    Ok(BaseImage { digest, config: store.image(&digest)? })
}

/// The image that was made from a lock, when the store still has all of it.
fn made(store: &Store, locked: &LockedBase, epoch: i64) -> Result<Option<Digest>, Failure> {
    let Some(digest) = cached_image(store, &base_key(locked, epoch))? else { return Ok(None) };
    let whole = store
        .image(&digest)
        .is_ok_and(|config| config.rootfs.diff_ids.iter().all(|layer| store.has_layer(layer)));
    Ok(whole.then_some(digest))
}

/// An image's digest in the cache; what cannot be read is as good as absent.
fn cached_image(store: &Store, key: &Digest) -> Result<Option<Digest>, Failure> {
    let value = store.cache(key)?;
    Ok(value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()))
}

fn base_key(locked: &LockedBase, epoch: i64) -> Digest {
    let text = serde_json::to_string(locked).expect("a lock is plain data");
    Digest::of(format!("debian base {MAKING_VERSION} epoch {epoch}\n{text}").as_bytes())
}

fn spec(table: &BaseTable) -> Result<BaseSpec, Failure> {
    let architecture = ibid_debian::host_architecture().ok_or_else(|| {
        Failure::new(format!(
            "Debian has no packages for this machine's architecture, {}",
            std::env::consts::ARCH
        ))
    })?;
    Ok(BaseSpec {
        suite: table.suite.clone(),
        packages: table.packages.clone(),
        mirror: table.mirror.clone(),
        keyring: table.keyring.clone(),
        components: Vec::new(),
        architecture: architecture.to_owned(),
    })
}

fn reference(name: &str) -> Result<Reference, Failure> {
    name.parse().map_err(|error: ibid_core::reference::InvalidReference| Failure::of(&error))
}

/// The environment of this process, less what is no UTF-8.
pub fn utf8_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}

/// The making of a base as people see it: bars on a terminal, else a line for each part.
struct Progress<'a> {
    ui: &'a Ui,
    name: &'a str,
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    part: Option<Part>,
    bar: Option<ProgressBar>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Indexes,
    Packages,
    Unpacking,
    Configuring,
}

impl<'a> Progress<'a> {
    fn new(ui: &'a Ui, name: &'a str) -> Self {
        ui.say(&format!("{} {name} from signed packages", ui.paint(ui::BOLD, "base")));
        Self { ui, name, start: Instant::now(), state: Mutex::default() }
    }

    fn show(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            Event::Fetching { url, .. } => {
                self.enter(&mut state, Part::Indexes, "  looking at", || {
                    self.ui.spinner("  release and indexes")
                });
                if let Some(bar) = &state.bar {
                    bar.set_message(url);
                }
            }
            Event::Resolved { packages, bytes } => {
                self.leave(&mut state);
                self.ui.say(&format!("  {packages} packages, {}", ui::bytes(bytes)));
            }
            Event::Fetched { bytes, total } => {
                self.enter(&mut state, Part::Packages, "  fetching packages", || {
                    self.ui.bytes_bar("  fetching packages", total)
                });
                if let Some(bar) = &state.bar {
                    bar.set_position(bytes);
                }
            }
            Event::Unpacked { packages, total } => {
                self.enter(&mut state, Part::Unpacking, "  unpacking", || {
                    self.ui.count_bar("  unpacking", total as u64)
                });
                if let Some(bar) = &state.bar {
                    bar.set_position(packages as u64);
                }
            }
            Event::Configuring { package, packages, total } => {
                self.enter(&mut state, Part::Configuring, "  configuring", || {
                    self.ui.count_bar("  configuring", total as u64)
                });
                if let Some(bar) = &state.bar {
                    bar.set_position(packages as u64);
                    bar.set_message(package);
                }
            }
            Event::Output { line } => self.ui.detail(&format!("    {line}")),
        }
    }

    /// Starts a part's bar, or says its name where bars do not move.
    fn enter(&self, state: &mut State, part: Part, name: &str, bar: impl FnOnce() -> ProgressBar) {
        if state.part == Some(part) {
            return;
        }
        self.leave(state);
        state.part = Some(part);
        if self.ui.is_moving() {
            state.bar = Some(bar());
        } else {
            let name = if part == Part::Indexes { "  fetching release and indexes" } else { name };
            self.ui.say(name);
        }
    }

    fn leave(&self, state: &mut State) {
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        state.part = None;
    }

    fn finish(&self, packages: usize, digest: &Digest) {
        self.leave(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.ui.say(&format!(
            "{} {} · {packages} packages · image {} · {}",
            self.ui.paint(ui::BOLD, "base"),
            self.name,
            ui::short_digest(digest),
            ui::seconds(self.start.elapsed().as_secs_f64())
        ));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.leave(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}
