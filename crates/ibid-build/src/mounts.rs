//! What `RUN --mount` asks for, made ready for the sandbox.
//!
//! ```text
//! bind    context ─▶ a layer that holds the files as COPY would write them ─┐
//!         stage, image ─▶ their layers, merged ─────────────────────────────┴▶ the source in them, resolved inside
//!                                              (writable: under a folder that is thrown away)
//! cache   a copy that the store keeps, locked while the step runs
//! secret  a file in memory, or a variable
//! ssh     a socket of its own, behind which this process asks the person's agent
//! ```
//!
//! Invariants:
//! - a source is resolved in what it is a source of, by `openat2` with `RESOLVE_IN_ROOT`: no link leads out of it;
//! - targets are resolved in the image, links to nowhere included, and mounted parents first; the places that had to be
//!   made are known before the step starts, and are in no layer;
//! - the times, owners and modes that a mount of the context shows depend on its content alone;
//! - cache mounts are taken in one order by all steps of all builds, so none waits for another that waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ibid_core::digest::{DiffId, Digest};
use ibid_core::plan::{CacheBase, CopyFrom, Mount, Permissions, Run, Sharing};
use ibid_sandbox::{MountKind, Overlay, Tmpfs, Upper, rootfs};
use ibid_store::{CacheMount, CommitRules, Found, MergedView};
use ibid_sys::owner;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::agent::AgentSocket;
use crate::build::{CachedStep, StepError};
use crate::context::{self, Context, Selection};
use crate::run_step::Site;
use crate::{copy, inputs, key};

/// How often a step looks whether a cache mount that another uses has become free. Those others may be another
/// build's, of which nobody is told.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The folder of a layer that holds what a mount shows of the context.
const CONTENT: &str = "content";

/// What a mount shows of a folder.
type Shown<'a> = (&'a Context, &'a Selection);

/// Why a mount cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A secret that a step cannot do without was not given.
    #[error("the step needs the secret `{id}`, and it was not given")]
    NoSecret {
        /// Its name.
        id: String,
    },
    /// A secret cannot be a variable.
    #[error("the secret `{id}` cannot be the variable `{variable}`: {reason}")]
    SecretVariable {
        /// Its name.
        id: String,
        /// The variable.
        variable: String,
        /// What it holds that no variable can.
        reason: &'static str,
    },
    /// An agent that a step cannot do without was not given.
    #[error("the step needs the agent `{id}`, and it was not given")]
    NoAgent {
        /// Its name.
        id: String,
    },
    /// The source of a mount is not there.
    #[error("`{path}` is not in the {from}")]
    NoSource {
        /// As the mount has it.
        path: String,
        /// The stage or image.
        from: String,
    },
    /// A cache mount starts from something that is no folder.
    #[error("a cache mount cannot start from `{path}` in the {from}: it is no folder")]
    NoFolder {
        /// As the mount has it.
        path: String,
        /// The stage or image.
        from: String,
    },
    /// There is no way to the target.
    #[error("nothing can be mounted at `{0}`: the way there leads through what is no folder, or in a circle")]
    Target(String),
    /// Ids that this user's containers do not have.
    #[error("a cache mount cannot belong to {uid}:{gid}")]
    Owner {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// The system's word.
        source: std::io::Error,
    },
    /// Something else failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

/// The mounts of a step, to be kept until it has ended.
pub(crate) struct StepMounts {
    /// In the order in which they are made.
    pub(crate) mounts: Vec<ibid_sandbox::Mount>,
    /// Variables that come with them, which win over others of their names.
    pub(crate) env: Vec<(String, String)>,
    /// Where the first agent is, for a step that says nothing else.
    pub(crate) agent: Option<String>,
    /// Places that are made for them, with the folders above that are made for those.
    pub(crate) mount_points: Vec<PathBuf>,
    _held: Held,
}

/// What goes when the step has ended.
#[derive(Default)]
struct Held {
    views: Vec<rootfs::Mounted>,
    _caches: BTreeMap<Digest, CacheMount>,
    agents: Vec<AgentSocket>,
}

impl StepMounts {
    /// Makes all mounts of a command ready. While it waits for others, it says so to `on_line`.
    pub(crate) fn prepare(run: &Run, site: &Site, on_line: &dyn Fn(&str)) -> Result<Self, StepError> {
        let view = MergedView::new(site.store.lowers(site.layers));
        let mut preparation = Preparation { site, view, placed: Vec::new(), missing: BTreeSet::new() };
        let mut held = Held::default();
        let mut env = Vec::new();
        let mut agent = None;
        let mut selections = site.inputs.selections.iter();
        let folders: Vec<Option<Shown>> = run
            .mounts
            .iter()
            .map(|mount| Some((site.request.folder(mount.source()?.0)?, selections.next()?)))
            .collect();
        let caches = preparation.hold_caches(run, &folders, on_line)?;
        for (number, mount) in run.mounts.iter().enumerate() {
            let (target, kind) = match mount {
                Mount::Bind { target, writable, from, source } => {
                    let shown = folders[number];
                    let source =
                        preparation.bind_source(number, from, source, *writable, shown, &mut held)?;
                    (target, MountKind::Bind { source, read_only: !writable, idmap: None })
                }
                Mount::Cache { target, id, writable, base, .. } => {
                    let held = &caches[&key::cache_mount(id, base, site.inputs.contents[number].as_ref())];
                    let source = held.path().to_owned();
                    (target, MountKind::Bind { source, read_only: !writable, idmap: None })
                }
                Mount::Tmpfs { target, bytes } => {
                    let mode = preparation.mode_below(target)?.unwrap_or(0o1777);
                    (target, MountKind::Tmpfs(Tmpfs::new(*bytes, mode)))
                }
                Mount::Secret { id, target, variable, required, permissions } => {
                    let Some(secret) = site.request.credentials.secrets.get(id) else {
                        if *required {
                            return Err(Error::NoSecret { id: id.clone() }.into());
                        }
                        continue;
                    };
                    if let Some(variable) = variable {
                        env.push((variable.clone(), secret_text(id, variable, secret.bytes())?));
                    }
                    let Some(target) = target else { continue };
                    let Permissions { uid, gid, mode } = *permissions;
                    (target, MountKind::File { content: secret.bytes().to_vec(), uid, gid, mode })
                }
                Mount::Ssh { id, target, required, permissions } => {
                    // The variable is set in any case: a step must not see who lends what.
                    agent.get_or_insert_with(|| target.clone());
                    let Some(path) = site.request.credentials.agents.get(id) else {
                        if *required {
                            return Err(Error::NoAgent { id: id.clone() }.into());
                        }
                        continue;
                    };
                    let folder = site.draft.path();
                    let socket = AgentSocket::new(folder, &format!("agent-{number}"), path, *permissions)
                        .map_err(|source| io("make a socket in", folder)(source))?;
                    let source = socket.path().to_owned();
                    held.agents.push(socket);
                    (target, MountKind::Bind { source, read_only: false, idmap: None })
                }
            };
            preparation.place(target, kind)?;
        }
        let Preparation { mut placed, missing, .. } = preparation;
        // Parents before what lies in them; of two on one place, the later one shows.
        placed.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self {
            mounts: placed.into_iter().map(|(_, mount)| mount).collect(),
            env,
            agent,
            mount_points: missing.into_iter().collect(),
            _held: Held { _caches: caches, ..held },
        })
    }
}

struct Preparation<'a> {
    site: &'a Site<'a>,
    /// The image so far.
    view: MergedView,
    placed: Vec<(PathBuf, ibid_sandbox::Mount)>,
    missing: BTreeSet<PathBuf>,
}

impl Preparation<'_> {
    /// Remembers what goes where, once the target's links are followed.
    fn place(&mut self, target: &str, kind: MountKind) -> Result<(), StepError> {
        let found = self
            .view
            .place(Path::new(target))
            .map_err(|source| StepError::Read { path: target.to_owned(), source })?
            .ok_or_else(|| Error::Target(target.to_owned()))?;
        // A name that is no text came from a link of the image; the sandbox follows that link again.
        let target = found.path.to_str().unwrap_or(target).to_owned();
        if target == "/" {
            return Err(Error::Target(target).into());
        }
        self.missing.extend(found.missing);
        self.placed.push((found.path, ibid_sandbox::Mount { target, kind }));
        Ok(())
    }

    /// The mode of the folder of the image that a mount hides. A folder in memory takes it on, as with runc.
    fn mode_below(&self, target: &str) -> Result<Option<u32>, StepError> {
        let read = |source| StepError::Read { path: target.to_owned(), source };
        let Some(Found::Folder(folders)) = self.view.find(Path::new(target)).map_err(read)? else {
            return Ok(None);
        };
        let topmost = folders.first().map(std::fs::symlink_metadata).transpose().map_err(read)?;
        Ok(topmost.map(|metadata| metadata.mode() & 0o7777))
    }

    /// The path on this machine that a bind mount shows.
    fn bind_source(
        &self,
        number: usize,
        from: &CopyFrom,
        path: &str,
        writable: bool,
        shown: Option<Shown>,
        held: &mut Held,
    ) -> Result<PathBuf, StepError> {
        let of_context;
        let (layers, path_inside) = match shown {
            Some((context, selection)) => {
                of_context = [self.context_layer(context, selection)?];
                (of_context.as_slice(), path_in_layer(selection))
            }
            None => (self.layers(from), PathBuf::from(path)),
        };
        let root = self.merged(&format!("mount-{number}"), layers, writable, held)?;
        self.resolve(&root, &path_inside, path, from)
    }

    fn layers(&self, from: &CopyFrom) -> &[DiffId] {
        inputs::source_layers(from, self.site.request, self.site.stages)
    }

    /// The layer that holds a selection of a folder, made unless the store has it.
    fn context_layer(&self, context: &Context, selection: &Selection) -> Result<DiffId, StepError> {
        let (store, request) = (self.site.store, self.site.request);
        let key = key::mounted_context(&context.digest(selection)?, request.epoch);
        if let Some(CachedStep { layer: Some(layer) }) = crate::build::cached_step(store, &key)? {
            store.use_layer(&layer);
            return Ok(layer);
        }
        let draft = store.draft_layer()?;
        copy::into_folder(context, selection, draft.upper(), CONTENT, true)?;
        let rules = CommitRules { epoch: request.epoch, ..CommitRules::default() };
        let layer = draft.commit(&rules)?.expect("the folder of the content is in the layer");
        crate::build::put_cached_step(store, &key, &CachedStep { layer: Some(layer) })?;
        Ok(layer)
    }

    /// The root of merged layers, without the skeleton, which is nobody's content. What is written goes to the folder
    /// `name` of the draft, and with it.
    fn merged(
        &self,
        name: &str,
        layers: &[DiffId],
        writable: bool,
        held: &mut Held,
    ) -> Result<PathBuf, StepError> {
        let store = self.site.store;
        let folder = self.site.draft.path().join(name);
        let make = |name: &str| {
            let path = folder.join(name);
            std::fs::DirBuilder::new()
                .mode(0o755)
                .recursive(true)
                .create(&path)
                .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)))
                .and_then(|()| Ok(owner::change_path(&path, (0, 0))?))
                .map_err(io("make the folder", &path))?;
            Ok::<_, Error>(path)
        };
        let mut lowers = store.layer_trees(layers);
        if lowers.is_empty() {
            lowers.push(make("nothing")?);
        }
        if let ([only], false) = (lowers.as_slice(), writable) {
            return Ok(only.clone());
        }
        let at = make("view")?;
        let upper = match writable {
            true => Some(Upper { upper: make("upper")?, work: make("work")? }),
            false => None,
        };
        let view = rootfs::mount(&Overlay { lowers, upper, volatile: writable }, &at)?;
        held.views.push(view);
        Ok(at)
    }

    /// The path on this machine of what is at `path` in `root`, through no link. `shown` is what the mount says.
    fn resolve(&self, root: &Path, path: &Path, shown: &str, from: &CopyFrom) -> Result<PathBuf, StepError> {
        let failed = |errno: Errno| io("look for the source of a mount in", root)(errno.into());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened: OwnedFd =
            rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = match rustix::fs::openat2(&opened, path, flags, Mode::empty(), resolve) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                let from = inputs::source_name(from, self.site.request);
                return Err(Error::NoSource { path: shown.to_owned(), from }.into());
            }
            Err(errno) => return Err(failed(errno).into()),
        };
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        Ok(std::fs::read_link(&link).map_err(io("read", Path::new(&link)))?)
    }

    /// Takes all cache mounts of a command, waiting for those that others have locked.
    fn hold_caches(
        &self,
        run: &Run,
        folders: &[Option<Shown>],
        on_line: &dyn Fn(&str),
    ) -> Result<BTreeMap<Digest, CacheMount>, StepError> {
        let mut wanted: BTreeMap<Digest, (&str, Sharing, &CacheBase, Option<Shown>)> = BTreeMap::new();
        let contents = &self.site.inputs.contents;
        for ((mount, content), shown) in run.mounts.iter().zip(contents).zip(folders) {
            if let Mount::Cache { id, sharing, base, .. } = mount {
                let name = key::cache_mount(id, base, content.as_ref());
                let entry = wanted.entry(name).or_insert((id, *sharing, base, *shown));
                // A command that mounts one twice has it as it needs it most.
                entry.1 = entry.1.max(*sharing);
            }
        }
        let mut held = BTreeMap::new();
        for (name, (id, sharing, base, shown)) in wanted {
            let mut has_said = false;
            let cache = loop {
                let fill = |tree: &Path| match self.fill_from_caches(&name, tree, on_line)? {
                    true => Ok(()),
                    false => self.fill_cache(base, shown, tree),
                };
                if let Some(cache) = self.site.cache_mounts.hold(&name, id, sharing, fill)? {
                    break cache;
                }
                if !std::mem::replace(&mut has_said, true) {
                    on_line(&format!("waiting for the cache mount `{id}`, which another step uses"));
                }
                if self.site.cancellation.wait(LOOK_AGAIN) {
                    return Err(StepError::Cancelled);
                }
            };
            held.insert(name, cache);
        }
        Ok(held)
    }

    /// Gives a new cache mount what an exported build cache has for it; false when none has.
    fn fill_from_caches(
        &self,
        name: &Digest,
        tree: &Path,
        on_line: &dyn Fn(&str),
    ) -> Result<bool, StepError> {
        for cache in self.site.request.cache_from {
            match cache.find_mount(self.site.store, name) {
                Ok(Some((layer, permissions))) => {
                    if let Some(layer) = layer {
                        let files =
                            Context::of_layers(&self.site.store.layer_tree(&layer), "the cache".to_owned())?;
                        copy::into_folder(&files, &files.select_path(".")?, tree, "", false)?;
                    }
                    own(tree, permissions)?;
                    return Ok(true);
                }
                Ok(None) => {}
                Err(fault) => on_line(&format!(
                    "warning: the cache in {} is damaged, and the cache mount starts anew: {fault}",
                    cache.name()
                )),
            }
        }
        Ok(false)
    }

    /// Gives a new cache mount what it starts with.
    fn fill_cache(&self, base: &CacheBase, shown: Option<Shown>, tree: &Path) -> Result<(), StepError> {
        let (from, path) = match base {
            CacheBase::Empty(permissions) => return Ok(own(tree, *permissions)?),
            CacheBase::Copy { from, source } => (from, source),
        };
        let no_folder =
            || Error::NoFolder { path: path.clone(), from: inputs::source_name(from, self.site.request) };
        if let Some((context, selection)) = shown {
            if !selection.sources.iter().all(context::Source::is_folder) {
                return Err(no_folder().into());
            }
            copy::into_folder(context, selection, tree, "", true)?;
            return Ok(own(tree, Permissions { uid: 0, gid: 0, mode: 0o755 })?);
        }
        let mut held = Held::default();
        let root = self.merged("cache-base", self.layers(from), false, &mut held)?;
        let source = self.resolve(&root, Path::new(path), path, from)?;
        let metadata = std::fs::metadata(&source).map_err(io("look at", &source))?;
        if !metadata.is_dir() {
            return Err(Error::NoFolder {
                path: path.clone(),
                from: inputs::source_name(from, self.site.request),
            }
            .into());
        }
        let files = Context::of_layers(&source, inputs::source_name(from, self.site.request))?;
        copy::into_folder(&files, &files.select_path(".")?, tree, "", false)?;
        let status = rustix::fs::stat(&source).map_err(|errno| io("look at", &source)(errno.into()))?;
        let (uid, gid) = owner::in_layer(source.as_path(), &status)
            .map_err(|errno| io("read the owner of", &source)(errno.into()))?;
        let mode = metadata.mode() & 0o7777;
        Ok(own(tree, Permissions { uid, gid, mode })?)
    }
}

/// Gives a cache mount's folder its owner and mode.
fn own(tree: &Path, permissions: Permissions) -> Result<(), Error> {
    let Permissions { uid, gid, mode } = permissions;
    owner::change_path(tree, (uid, gid)).map_err(|errno| Error::Owner { uid, gid, source: errno.into() })?;
    std::fs::set_permissions(tree, PermissionsExt::from_mode(mode)).map_err(io("set the mode of", tree))
}

/// The cache mounts of a command whose mounts show these contents, and what people call them.
pub(crate) fn cache_names<'a>(
    run: &'a Run,
    contents: &'a [Option<Digest>],
) -> impl Iterator<Item = (Digest, &'a str)> {
    run.mounts.iter().zip(contents).filter_map(|(mount, content)| match mount {
        Mount::Cache { id, base, .. } => Some((key::cache_mount(id, base, content.as_ref()), id.as_str())),
        _ => None,
    })
}

/// Where a selection is in the layer that [`Preparation::context_layer`] makes of it.
fn path_in_layer(selection: &Selection) -> PathBuf {
    let content = PathBuf::from(CONTENT);
    match selection.sources.first() {
        Some(source) if !source.is_folder() => content.join(std::ffi::OsStr::from_bytes(source.name())),
        _ => content,
    }
}

fn secret_text(id: &str, variable: &str, bytes: &[u8]) -> Result<String, Error> {
    let wrong = |reason| Error::SecretVariable { id: id.to_owned(), variable: variable.to_owned(), reason };
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| wrong("it is not UTF-8 text"))?;
    if text.contains('\0') { Err(wrong("it holds a zero byte")) } else { Ok(text) }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
