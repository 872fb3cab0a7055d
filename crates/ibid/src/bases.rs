//! The images that a Dockerfile starts from: made from signed packages where `ibid.toml` says so, else the one that the
//! lock pins, else what the store holds under that name. What the store lacks is pulled.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ibid_build::BaseImage;
use ibid_core::digest::Digest;
use ibid_core::reference::Reference;
use ibid_debian::{BaseSpec, Event, LockedBase};
use ibid_store::Store;
use indicatif::ProgressBar;

use crate::lock::{LOCK_FILE, Lock, LockedImage};
use crate::lock_mode::{LockMode, refuse_unlocked, update_command};
use crate::project::{BaseTable, CONFIG_FILE, Project};
use crate::registries;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Raised when a lock is made into other bytes than before, so that older bases are made anew.
const MAKING_VERSION: u32 = 1;

/// Finds and makes the images that a project starts from.
#[derive(Clone, Copy)]
pub struct Bases<'a> {
    pub store: &'a Store,
    pub project: &'a Project,
    pub epoch: i64,
    /// Read when something is looked up in it.
    pub lock: &'a OnceCell<Lock>,
}

impl<'a> Bases<'a> {
    /// The project's lock as it was when it was first asked for.
    pub fn lock(&self) -> Result<&'a Lock, Failure> {
        if let Some(lock) = self.lock.get() {
            return Ok(lock);
        }
        let lock = Lock::read(&self.project.root)?;
        Ok(self.lock.get_or_init(|| lock))
    }

    /// The base, if it is there already.
    pub fn find(&self, name: &str) -> Result<Option<BaseImage>, Failure> {
        let image = match (self.project.bases.get(name), self.pinned(name)?) {
            (Some(table), _) => self.of_packages(name, table)?,
            (None, Some(digest)) => Some(digest),
            (None, None) => self.named(name)?,
        };
        Ok(image.and_then(|digest| self.whole(digest)))
    }

    /// The base; made from packages when `ibid.toml` says how and it is not there, or when the newest packages are asked
    /// for.
    pub fn find_or_make(&self, ui: &Ui, name: &str, mode: &LockMode) -> Result<BaseImage, Failure> {
        let updates = mode.updates(name);
        let Some(table) = self.project.bases.get(name) else {
            return self.of_name(ui, name, mode);
        };
        if !updates && let Some(base) = self.find(name)? {
            return Ok(base);
        }
        if *mode == LockMode::Locked {
            // A trigger can name a base that nobody has heard of before.
            refuse_unlocked(self.lacking(name)?)?;
        }
        let Self { store, project, epoch, .. } = *self;
        let spec = spec(table)?;
        let failed = |error: ibid_debian::Error| {
            let failure = Failure::of(&error).while_doing(format!("cannot make the base `{name}`"));
            match &error {
                ibid_debian::Error::Sandbox(error) if error.mend().is_some() => {
                    failure.hint(error.mend().unwrap_or_default())
                }
                _ => failure,
            }
        };
        let host = ibid_debian::Host::read(Path::new("/"), utf8_environment()).map_err(failed)?;
        let mut lock = Lock::read(&project.root)?;
        let progress = Progress::new(ui, name);
        let known = lock.base.get(name).filter(|locked| !updates && locked.answers(&spec)).cloned();
        let is_new = known.is_none();
        let locked = match known {
            Some(locked) => locked,
            None => {
                let cache = store.root().join("debs");
                ibid_debian::resolve(&spec, &host, &cache, now(), &|event| progress.show(event))
                    .map_err(failed)?
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
        let packages = locked.packages.len();
        // Only now: a lock that nothing can be made from helps nobody.
        if is_new {
            lock.base.insert(name.to_owned(), locked);
            lock.write(&project.root)?;
        }
        store.set_tag(&reference(name)?, digest)?;
        progress.finish(packages, &digest);
        Ok(BaseImage { digest, config: store.image(&digest)? })
    }

    /// What the lock lacks of a base, or has no more as it is; none when it has what a build needs.
    pub fn lacking(&self, name: &str) -> Result<Option<String>, Failure> {
        if let Some(table) = self.project.bases.get(name) {
            let locked = self.lock()?.base.get(name);
            return Ok(match locked {
                None => Some(format!("the packages of the base `{name}`")),
                Some(locked) if !locked.answers(&spec(table)?) => {
                    Some(format!("the packages of the base `{name}` as {CONFIG_FILE} asks for them"))
                }
                Some(_) => None,
            });
        }
        Ok((!has_digest(name) && self.pinned(name)?.is_none()).then(|| format!("the image `{name}`")))
    }

    /// What the lock has no pin for of these images, which a build starts from.
    pub fn unpinned(
        &self,
        bases: &BTreeMap<String, BaseImage>,
    ) -> Result<BTreeMap<String, LockedImage>, Failure> {
        let mut unpinned = BTreeMap::new();
        for (name, base) in bases {
            if !self.project.bases.contains_key(name)
                && !has_digest(name)
                && self.pinned(name)? != Some(base.digest)
            {
                let manifest = registries::known_manifest(self.store, name, &base.digest)?;
                unpinned.insert(name.clone(), LockedImage { digest: base.digest, manifest });
            }
        }
        Ok(unpinned)
    }

    /// What the lock says that a base was made from, if it is what `ibid.toml` asks for, as an image that is there.
    fn of_packages(&self, name: &str, table: &BaseTable) -> Result<Option<Digest>, Failure> {
        let Self { store, project, epoch, .. } = *self;
        // A lock of a hundred packages takes longer to read than a container to start, so what it means is looked up
        // by its bytes.
        let Some(text) = Lock::text(&project.root)? else { return Ok(None) };
        let key = Digest::of(
            format!("base of lock {MAKING_VERSION} {name} {table:?} epoch {epoch}\n{text}").as_bytes(),
        );
        if let Some(digest) = cached_image(store, &key)? {
            return Ok(Some(digest));
        }
        match Lock::read(&project.root)?.base.get(name) {
            Some(locked) if locked.answers(&spec(table)?) => {
                let digest = made(store, locked, epoch)?;
                if let Some(digest) = digest {
                    store.put_cache(&key, digest.to_string().as_bytes())?;
                }
                Ok(digest)
            }
            _ => Ok(None),
        }
    }

    /// An image that nobody here makes: the one that the lock pins, else the one that has the name, else the one that a
    /// registry has under it. What was pulled once is pulled again for `--update`; what was built or loaded here is taken
    /// as it is.
    fn of_name(&self, ui: &Ui, name: &str, mode: &LockMode) -> Result<BaseImage, Failure> {
        let updates = mode.updates(name);
        let pinned = if updates { None } else { self.pinned(name)? };
        let named = self.named(name)?;
        if updates
            && !has_digest(name)
            && let Some(named) = named
            && registries::known_manifest(self.store, name, &named)?.is_some()
        {
            return self.pull(ui, name, &reference(name)?);
        }
        let base = pinned.or(named).and_then(|digest| self.whole(digest));
        let update = update_command(name);
        match (base, pinned, named) {
            (Some(base), Some(pinned), Some(named)) if pinned != named => {
                ui.warn(&format!(
                    "`{name}` is another image by now, {}; {LOCK_FILE} pins {}, which is used",
                    ui::short_digest(&named),
                    ui::short_digest(&pinned)
                ));
                ui.hint(&format!("{update} moves on"));
                Ok(base)
            }
            (Some(base), ..) => Ok(base),
            (None, Some(pinned), named) => self.pull_pinned(ui, name, pinned, named),
            (None, None, _) if name.parse::<Digest>().is_ok() => {
                Err(Failure::new(format!("the base image `{name}` is not in the store"))
                    .hint("a digest without a repository cannot be pulled: write REPOSITORY@sha256:…"))
            }
            (None, None, _) => {
                if *mode == LockMode::Locked {
                    refuse_unlocked(self.lacking(name)?)?;
                }
                self.pull(ui, name, &reference(name)?)
            }
        }
    }

    /// The image that the lock pins, from its registry: by its manifest where that is known, else by its name.
    fn pull_pinned(
        &self,
        ui: &Ui,
        name: &str,
        pinned: Digest,
        named: Option<Digest>,
    ) -> Result<BaseImage, Failure> {
        let manifest = self.lock()?.image.get(name).and_then(|locked| locked.manifest);
        let update = update_command(name);
        if let (None, Some(named)) = (manifest, named)
            && named != pinned
        {
            return Err(Failure::new(format!(
                "the image that {LOCK_FILE} pins for `{name}` is not in the store: {pinned}"
            ))
            .hint(format!("`{name}` is {named} by now; {update} takes it")));
        }
        let by_name = reference(name)?;
        let wanted = match manifest {
            Some(manifest) => by_name.with(None, Some(manifest)),
            None => by_name.clone(),
        };
        let base = self
            .pull(ui, name, &wanted)
            .map_err(|failure| failure.hint(format!("{LOCK_FILE} pins {pinned}")))?;
        if base.digest != pinned {
            return Err(Failure::new(format!(
                "{LOCK_FILE} pins {pinned} for `{name}`, and its registry has {}",
                base.digest
            ))
            .hint(format!("if that is right, {update} takes what is there now")));
        }
        if named.is_none() {
            self.store.set_tag(&by_name, pinned)?;
        }
        Ok(base)
    }

    fn pull(&self, ui: &Ui, name: &str, reference: &Reference) -> Result<BaseImage, Failure> {
        let is_known = self.named(name)?.is_some();
        let pulled = registries::pull(ui, self.store, reference, None).map_err(|failure| {
            let fact = if is_known { "cannot be pulled anew" } else { "is not in the store, and cannot be pulled" };
            failure
                .while_doing(format!("the base image `{name}` {fact}"))
                .hint(format!("to make it from signed Debian packages, write in {}:\n  [base.\"{name}\"]\n  suite = \"bookworm\"", self.project.root.join(CONFIG_FILE).display()))
        })?;
        Ok(BaseImage { digest: pulled.image, config: self.store.image(&pulled.image)? })
    }

    /// The image that the lock pins for a name; none for what is a digest itself.
    fn pinned(&self, name: &str) -> Result<Option<Digest>, Failure> {
        if self.project.bases.contains_key(name) || has_digest(name) {
            return Ok(None);
        }
        Ok(self.lock()?.image.get(name).map(|locked| locked.digest))
    }

    /// The image that the store has under a name.
    fn named(&self, name: &str) -> Result<Option<Digest>, Failure> {
        match name.parse::<Digest>() {
            Ok(digest) => Ok(Some(digest)),
            Err(_) => Ok(self.store.tag(&reference(name)?)?),
        }
    }

    /// An image, when the store has all of it.
    fn whole(&self, digest: Digest) -> Option<BaseImage> {
        let config = self.store.image(&digest).ok()?;
        let is_whole = config.rootfs.diff_ids.iter().all(|layer| self.store.has_layer(layer));
        is_whole.then_some(BaseImage { digest, config })
    }
}

/// Whether a name says by itself which image it is.
fn has_digest(name: &str) -> bool {
    name.parse::<Digest>().is_ok()
        || name.parse::<Reference>().is_ok_and(|reference| reference.digest.is_some())
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
