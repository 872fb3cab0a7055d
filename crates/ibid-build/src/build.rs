//! Performs a plan: stages beside each other, each step by step, which is either found in the cache or executed over
//! an overlay whose upper folder becomes the layer.
//!
//! A stage starts when the one it starts from is done, and waits at a step that needs another. Stages refer only to
//! earlier ones and are taken in their order, so that the first unfinished one never waits. Copies with `--link` need
//! nothing of the steps before them, and are made beside them. The first failure ends what the others run.
//!
//! Invariants:
//! - the result depends on the plan, the context's content, the bases and the epoch, on nothing else;
//! - a layer is in the store before the cache names it, and an image's layers before the image;
//! - certificates and proxies of the host reach the processes, never a layer, a key or a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use ibid_core::digest::{DiffId, Digest};
use ibid_core::image::{History, ImageConfig, RootFs, host_architecture};
use ibid_core::plan::{Action, Base, Copy, CopyFrom, Lines, Plan, Stage, Step};
use ibid_core::time::rfc3339;
use ibid_sandbox::trust::HostTrust;
use ibid_store::{CacheMounts, CommitRules, MergedView, Store};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::cancel::Cancellation;
use crate::context::{self, Context, Selection};
use crate::credentials::Credentials;
use crate::explain::Explanations;
use crate::exported_cache::{ExportedCache, Fault};
use crate::inputs::{self, Inputs, StageLayers};
use crate::remote::{self, Fetched, Remotes};
use crate::run_step::{self, Site};
use crate::{copy, key, mounts};

/// Stages that are worked on at once at least, since many wait for networks and disks; more where there are more
/// processors.
const STAGES_AT_ONCE_MIN: usize = 4;

/// Most layers of a stage: an overlay has at most 500 lower folders (Linux, `OVL_MAX_STACK`), and the skeleton is one.
const LAYERS_MAX: usize = 499;

/// The umask of a trial: few people's.
const TRIAL_UMASK: u32 = 0o077;

/// An image that a stage starts from or copies from.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Its digest.
    pub digest: Digest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// Everything a build reads.
pub struct Request<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The files that may be copied.
    pub context: &'a Context,
    /// Other folders that may be copied from, by the names that the plan gives them.
    pub named_contexts: &'a BTreeMap<String, Context>,
    /// What `ADD` fetches.
    pub remotes: &'a Remotes,
    /// Images by the text that the plan names them with.
    pub bases: &'a BTreeMap<String, BaseImage>,
    /// Time given to everything that is made, in seconds since 1970.
    pub epoch: i64,
    /// Where code is mounted at run time; none means the image's working folder.
    pub code_mount: Option<&'a str>,
    /// Which steps run again though the cache has them.
    pub no_cache: NoCache,
    /// Further caches that steps are looked up in.
    pub cache_from: &'a [ExportedCache<'a>],
    /// What the last build read, to say why a step runs again.
    pub explanations: &'a Explanations,
    /// What processes get from the host.
    pub trust: &'a HostTrust,
    /// What steps are lent that ask for it.
    pub credentials: &'a Credentials,
    /// Keep times, logs, caches and whatever else differs each time: the rules of [`ibid_core::scrub`] are off.
    pub keep_nondeterminism: bool,
    /// A build that is only compared with another: its steps see another time zone and temporary folder,
    /// ibid has another umask, and what comes out is not found by later builds.
    pub is_trial: bool,
    /// Opens a shell on this process's terminal in the state that a failed command left, after calling this.
    pub shell_on_fail: Option<&'a (dyn Fn() + Sync)>,
}

impl Request<'_> {
    /// The folder that files are from; none when they are from layers.
    pub(crate) fn folder(&self, from: &CopyFrom) -> Option<&Context> {
        match from {
            CopyFrom::Context => Some(self.context),
            CopyFrom::NamedContext(name) => Some(&self.named_contexts[name]),
            CopyFrom::Scratch | CopyFrom::Stage(_) | CopyFrom::Image(_) => None,
        }
    }

    pub(crate) fn rules(&self) -> key::Rules {
        key::Rules { epoch: self.epoch, keep_nondeterminism: self.keep_nondeterminism }
    }
}

/// Which steps run again though the cache has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// Those of the stages of these names.
    Stages(BTreeSet<String>),
}

impl NoCache {
    fn covers(&self, stage: &str) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Stages(stages) => stages.contains(stage),
        }
    }
}

/// What happens while a build is performed. Stages that run beside each other report in turns.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was found in the cache.
    Cached(StepName<'a>),
    /// A step starts, because of these reasons.
    Started(StepName<'a>, &'a [String]),
    /// What a cache has for a step cannot be used.
    CacheFault(&'a str, &'a Fault),
    /// The step that starts copies these files of the context.
    Copying(StepName<'a>, &'a Selection),
    /// Something is fetched for a step.
    Fetching(StepName<'a>, &'a str),
    /// The running step wrote a line; seconds since its start.
    Output(StepName<'a>, f64, &'a str),
    /// A step has ended well; seconds it took.
    Finished(StepName<'a>, f64),
}

/// Which step an event is about.
#[derive(Debug, Clone, Copy)]
pub struct StepName<'a> {
    /// Counted from 1 over all stages that are built.
    pub number: usize,
    /// Number of steps in all.
    pub total: usize,
    /// Name or number of the stage, when there are several.
    pub stage: Option<&'a str>,
    /// The instruction.
    pub text: &'a str,
}

/// A built image.
#[derive(Debug, Clone)]
pub struct Built {
    /// The image's digest.
    pub image: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// Steps that made something.
    pub steps: usize,
    /// Those of them that were found in the cache.
    pub steps_cached: usize,
    /// What each of them made; none for one that changed nothing.
    pub made: Vec<MadeLayer>,
    /// The cache mounts that they may use, with what people call them.
    pub cache_mounts: BTreeMap<Digest, String>,
}

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeLayer {
    /// The step's key in the build cache.
    pub key: Digest,
    /// Number of the step, counted from 1 over all stages.
    pub number: usize,
    /// The instruction.
    pub text: String,
    /// Where it stands.
    pub lines: Lines,
    /// The layer; none when the step changed nothing.
    pub layer: Option<DiffId>,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step failed; the kind says how.
    #[error("{kind}")]
    Step {
        /// Where it stands in the Dockerfile.
        lines: Lines,
        /// What went wrong.
        kind: Box<StepError>,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] ibid_store::Error),
    /// The store's folder could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

/// How a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The command ended with another status than 0.
    #[error("the command failed with {status}")]
    Command {
        /// How it ended.
        status: ibid_sandbox::ExitStatus,
        /// The last lines it wrote.
        output: Vec<String>,
    },
    /// The command could not be started.
    #[error("the command could not be started")]
    Sandbox(#[from] ibid_sandbox::Error),
    /// The user does not exist in the image.
    #[error(transparent)]
    User(#[from] ibid_core::user::UnknownUser),
    /// The sources cannot be had from the context.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// Files could not be copied.
    #[error(transparent)]
    Copy(#[from] copy::Error),
    /// Something could not be fetched.
    #[error(transparent)]
    Remote(#[from] remote::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] ibid_store::Error),
    /// A file of the layers below could not be read.
    #[error("cannot read `{path}` in the image")]
    Read {
        /// Path in the image.
        path: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// A mount cannot be had.
    #[error(transparent)]
    Mount(#[from] mounts::Error),
    /// The build was ended before.
    #[error("the build was ended")]
    Cancelled,
    /// No overlay could show one more.
    #[error("the stage has {LAYERS_MAX} layers before this step, and can have no more")]
    TooManyLayers,
    /// A path that should be a folder is something else.
    #[error("`{0}` exists in the image and is no folder")]
    NoFolder(String),
}

/// What the cache keeps for a step.
#[derive(Serialize, Deserialize)]
pub(crate) struct CachedStep {
    /// The layer; none when the step changed nothing.
    pub(crate) layer: Option<DiffId>,
}

/// What the cache keeps for an environment.
#[derive(Serialize, Deserialize)]
struct CachedImage {
    image: Digest,
}

/// Performs a plan.
pub fn build(store: &Store, request: &Request, on_event: &(dyn Fn(Event) + Sync)) -> Result<Built, Error> {
    let plan = request.plan;
    let mut first_numbers = Vec::new();
    let mut total = 0;
    for stage in &plan.stages {
        first_numbers.push(total + 1);
        total += stage.steps.iter().filter(|step| makes(step)).count();
    }
    // What a trial keeps, only its own steps find.
    let scratch = request.is_trial.then(|| store.scratch()).transpose()?;
    let performance = Performance {
        store,
        cache_mounts: scratch.as_ref().map_or_else(|| store.cache_mounts(), |it| it.cache_mounts(store)),
        request,
        on_event,
        first_numbers,
        total,
        built: plan.stages.iter().map(|_| OnceLock::new()).collect(),
        steps_cached: AtomicUsize::new(0),
        cancellation: Cancellation::default(),
        made: Mutex::default(),
        cache_mount_names: Mutex::default(),
        failure: Mutex::default(),
    };
    if request.is_trial {
        let umask = rustix::process::umask(Mode::from_bits_truncate(TRIAL_UMASK));
        performance.stages();
        rustix::process::umask(umask);
    } else {
        performance.stages();
    }
    let Performance { mut built, steps_cached, made, cache_mount_names, failure, .. } = performance;
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let stage = &plan.stages[plan.target];
    let state = built[plan.target].take().flatten().expect("without a failure every stage is done");
    let config = ImageConfig {
        created: Some(rfc3339(request.epoch)),
        author: stage.author.clone(),
        architecture: host_architecture().to_owned(),
        variant: None,
        os: "linux".to_owned(),
        config: stage.config.clone(),
        rootfs: RootFs::new(state.layers),
        history: state.history,
    };
    let image = store.put_image(&config)?;
    let environment = key::environment(&state.environment_layers, &stage.config, request.rules());
    if !request.is_trial {
        store.put_cache(&environment, &serde_json::to_vec(&CachedImage { image }).expect("plain data"))?;
    }
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_by_key(|made: &MadeLayer| made.number);
    let cache_mounts = cache_mount_names.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Built { image, config, steps: total, steps_cached: steps_cached.into_inner(), made, cache_mounts })
}

/// Why a stage ended before its end.
enum Stop {
    /// It failed.
    Failed(Error),
    /// Another one failed.
    Cancelled,
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// One build under way.
struct Performance<'a> {
    store: &'a Store,
    cache_mounts: CacheMounts,
    request: &'a Request<'a>,
    on_event: &'a (dyn Fn(Event) + Sync),
    /// For each stage the number of its first step.
    first_numbers: Vec<usize>,
    total: usize,
    /// What each stage has come to, once it has ended; none when it did not come to its end.
    built: Vec<OnceLock<Option<StageState>>>,
    steps_cached: AtomicUsize,
    cancellation: Cancellation,
    made: Mutex<Vec<MadeLayer>>,
    cache_mount_names: Mutex<BTreeMap<Digest, String>>,
    /// The first failure.
    failure: Mutex<Option<Error>>,
}

impl Performance<'_> {
    /// Performs all stages.
    fn stages(&self) {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.max(STAGES_AT_ONCE_MIN).min(self.built.len());
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(slot) = self.built.get(index) else { break };
                // Those who wait must hear of a stage's end, even when that is a panic.
                let end = End(slot);
                match self.stage(index) {
                    Ok(state) => drop(slot.set(Some(state))),
                    Err(stop) => drop(self.end(stop)),
                }
                drop(end);
            }
        };
        if threads <= 1 {
            return work();
        }
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }

    /// Keeps the first failure, and ends the rest of the build.
    fn end(&self, stop: Stop) -> Stop {
        if let Stop::Failed(error) = stop {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            if failure.is_none() {
                *failure = Some(error);
                self.cancellation.cancel();
            }
        }
        Stop::Cancelled
    }

    /// What an earlier stage has come to, as soon as it has ended.
    fn built(&self, index: usize) -> Result<&StageState, Stop> {
        self.built[index].wait().as_ref().ok_or(Stop::Cancelled)
    }

    /// Performs a stage: its steps one after the other, and beside them those that need nothing of the steps before.
    fn stage(&self, index: usize) -> Result<StageState, Stop> {
        let steps = &self.request.plan.stages[index].steps;
        let is_independent = |position: &usize| steps[*position].action.is_independent();
        let beside: Vec<_> =
            (0..steps.len()).filter(is_independent).map(|it| (it, OnceLock::new())).collect();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((position, slot)) = beside.get(next.fetch_add(1, Ordering::Relaxed)) {
                let end = End(slot);
                match self.step(index, *position, &[]) {
                    Ok(layer) => drop(slot.set(Some(layer))),
                    Err(stop) => drop(self.end(stop)),
                }
                drop(end);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..processors.min(beside.len()) {
                scope.spawn(work);
            }
            // Those beside hear of a failure here, before they are waited for.
            self.sequence(index, &beside.iter().map(|(position, slot)| (*position, slot)).collect())
                .map_err(|stop| self.end(stop))
        })
    }

    /// Performs the steps of a stage one after the other. `beside` are those that somebody else performs, by position.
    fn sequence(
        &self,
        index: usize,
        beside: &BTreeMap<usize, &OnceLock<Option<Option<DiffId>>>>,
    ) -> Result<StageState, Stop> {
        let request = self.request;
        let stage = &request.plan.stages[index];
        let base = match stage.base {
            Base::Stage(base) => Some(self.built(base)?),
            _ => None,
        };
        let mut state = StageState::of_base(stage, request, base);
        state.layers.iter().for_each(|layer| self.store.use_layer(layer));
        let code_start = trailing_code_start(stage, code_mount(stage, request.code_mount).as_deref());
        for (position, step) in stage.steps.iter().enumerate() {
            if position == code_start {
                state.environment_layers = state.layers.clone();
            }
            if !makes(step) {
                state.history.extend(history(step, request, true));
                continue;
            }
            // The skeleton is one of them.
            if self.store.lowers(&state.layers).len() > LAYERS_MAX {
                let kind = Box::new(StepError::TooManyLayers);
                return Err(Error::Step { lines: step.lines, kind }.into());
            }
            let layer = match beside.get(&position) {
                Some(slot) => slot.wait().ok_or(Stop::Cancelled)?,
                None => self.step(index, position, &state.layers)?,
            };
            state.layers.extend(layer);
            state.history.extend(history(step, request, layer.is_none()));
        }
        if code_start >= stage.steps.len() {
            state.environment_layers = state.layers.clone();
        }
        Ok(state)
    }

    /// The layer of one step over `layers`, from the cache or made.
    fn step(&self, index: usize, position: usize, layers: &[DiffId]) -> Result<Option<DiffId>, Stop> {
        if self.cancellation.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let plan = self.request.plan;
        let stage = &plan.stages[index];
        let step = &stage.steps[position];
        let label = stage.name.clone().unwrap_or_else(|| index.to_string());
        let before = stage.steps[..position].iter().filter(|step| makes(step)).count();
        let name = StepName {
            number: self.first_numbers[index] + before,
            total: self.total,
            stage: (plan.stages.len() > 1).then_some(label.as_str()),
            text: &step.text,
        };
        let (key, layer) = self.find_or_perform(step, layers, stage, &label, name)?;
        let made = MadeLayer { key, number: name.number, text: step.text.clone(), lines: step.lines, layer };
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(made);
        Ok(layer)
    }

    /// Finds a step's layer in the cache, or makes it. Its key and the layer.
    fn find_or_perform(
        &self,
        step: &Step,
        layers: &[DiffId],
        stage: &Stage,
        label: &str,
        name: StepName<'_>,
    ) -> Result<(Digest, Option<DiffId>), Stop> {
        let (store, request) = (self.store, self.request);
        let at = |kind: StepError| Error::Step { lines: step.lines, kind: Box::new(kind) };
        let mut stages = StageLayers::new();
        for index in step.action.stages() {
            stages.insert(index, self.built(index)?.layers.as_slice());
        }
        let on_fetch = |line: &str| (self.on_event)(Event::Fetching(name, line));
        let is_cancelled = || self.cancellation.is_cancelled();
        if let Action::Copy(copy) = &step.action {
            for source in &copy.sources {
                request.remotes.learn(source, &is_cancelled, &on_fetch).map_err(|error| at(error.into()))?;
            }
        }
        let inputs =
            Inputs::of(step, layers, request, &stages).map_err(at)?.expect("the step makes something");
        let digest = inputs.key.digest;
        if let Action::Run(run) = &step.action {
            let names = mounts::cache_names(run, &inputs.contents).map(|(name, id)| (name, id.to_owned()));
            self.cache_mount_names.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
        }
        let skips_cache = request.no_cache.covers(label);
        if !skips_cache && let Some(cached) = self.cached(&digest)? {
            self.steps_cached.fetch_add(1, Ordering::Relaxed);
            (self.on_event)(Event::Cached(name));
            cached.layer.iter().for_each(|layer| store.use_layer(layer));
            if !request.explanations.knows(label, &step.text, &inputs.key.inputs) {
                let traced = inputs::traced(step, stage, label, request, &inputs).map_err(at)?;
                request.explanations.keep(name.number, traced);
            }
            return Ok((digest, cached.layer));
        }
        let traced = inputs::traced(step, stage, label, request, &inputs).map_err(at)?;
        let reasons = if skips_cache {
            vec!["the cache is not asked".to_owned()]
        } else {
            request.explanations.reasons(&traced)
        };
        (self.on_event)(Event::Started(name, &reasons));
        // What a mount shows does not come into the image, and other folders have ignore files of their own.
        if let (Action::Copy(Copy { from: CopyFrom::Context, .. }), Some(selection)) =
            (&step.action, inputs.selections.first())
        {
            (self.on_event)(Event::Copying(name, selection));
        }
        let start = Instant::now();
        let on_line = |line: &str| (self.on_event)(Event::Output(name, start.elapsed().as_secs_f64(), line));
        for path in inputs.selections.iter().flat_map(Selection::skipped) {
            on_line(&format!("warning: {} is left out: it is a socket, pipe or device", path.display()));
        }
        let mut fetched = BTreeMap::new();
        if let Action::Copy(copy) = &step.action {
            for (number, source) in copy.sources.iter().enumerate() {
                let found = request.remotes.fetch(source, &is_cancelled, &on_fetch);
                fetched.extend(found.map_err(|error| at(error.into()))?.map(|found| (number, found)));
            }
        }
        let layer = self.perform(step, layers, &inputs, &fetched, &stages, &on_line).map_err(at)?;
        if !request.is_trial {
            put_cached_step(store, &digest, &CachedStep { layer })?;
            request.explanations.keep(name.number, traced);
        }
        (self.on_event)(Event::Finished(name, start.elapsed().as_secs_f64()));
        Ok((digest, layer))
    }

    /// A step in the cache of the store, or in an exported one, from where it then comes into the store.
    fn cached(&self, key: &Digest) -> Result<Option<CachedStep>, Error> {
        if let Some(cached) = cached_step(self.store, key)? {
            return Ok(Some(cached));
        }
        for cache in self.request.cache_from {
            match cache.find(self.store, key) {
                Ok(Some(cached)) => {
                    let value = serde_json::to_vec(&cached).expect("plain data");
                    self.store.put_cache(key, &value)?;
                    return Ok(Some(cached));
                }
                Ok(None) => {}
                Err(fault) => (self.on_event)(Event::CacheFault(cache.name(), &fault)),
            }
        }
        Ok(None)
    }

    /// Executes a step and commits its layer. `fetched` are its sources that are fetched, by number.
    fn perform(
        &self,
        step: &Step,
        layers: &[DiffId],
        inputs: &Inputs,
        fetched: &BTreeMap<usize, Fetched>,
        stages: &StageLayers,
        on_line: &(dyn Fn(&str) + Sync),
    ) -> Result<Option<DiffId>, StepError> {
        let (store, request) = (self.store, self.request);
        let rules = CommitRules {
            epoch: request.epoch,
            keep_nondeterminism: request.keep_nondeterminism,
            // Only what a container ran in has its mount points below it.
            lowers: match step.action {
                Action::Run(_) => store.lowers(layers),
                _ => store.layer_trees(layers),
            },
            ..CommitRules::default()
        };
        match &step.action {
            Action::Config => Ok(None),
            Action::Run(run) => {
                let draft = store.draft_layer()?;
                let site = Site {
                    store,
                    request,
                    layers,
                    draft: &draft,
                    inputs,
                    stages,
                    cache_mounts: &self.cache_mounts,
                    cancellation: &self.cancellation,
                };
                let run_step::Made { mount_points, maker } = run_step::run(run, &site, on_line)?;
                Ok(draft.commit(&CommitRules { mount_points, maker, ..rules })?)
            }
            Action::Workdir { path, user } => {
                let view = MergedView::new(store.layer_trees(layers));
                let found = view
                    .find(Path::new(path))
                    .map_err(|source| StepError::Read { path: path.clone(), source })?;
                match found {
                    Some(ibid_store::Found::Folder(_)) => return Ok(None),
                    Some(ibid_store::Found::Other(_)) => return Err(StepError::NoFolder(path.clone())),
                    None => {}
                }
                let draft = store.draft_layer()?;
                let owner = match user.as_str() {
                    "" => (0, 0),
                    user => run_step::owner(store, user, layers)?,
                };
                let place = copy::Place { store, layers, draft: &draft };
                copy::make_folder(place, path, owner)?;
                Ok(draft.commit(&rules)?)
            }
            Action::Copy(copy) => {
                let draft = store.draft_layer()?;
                let layers = if copy.link { &[] } else { layers };
                let owner = match &copy.chown {
                    Some(text) => Some(run_step::owner(store, text, layers)?),
                    None => None,
                };
                let place = copy::Place { store, layers, draft: &draft };
                let devices = match (request.folder(&copy.from), inputs.selections.first()) {
                    (Some(context), Some(selection)) => {
                        copy::from_context(place, copy, context, selection, fetched, owner)?
                    }
                    _ => {
                        let source = inputs::source_layers(&copy.from, request, stages);
                        let name = format!("the {}", inputs::source_name(&copy.from, request));
                        copy::from_layers(place, copy, name, source, owner)?
                    }
                };
                let lowers = store.layer_trees(layers);
                Ok(draft.commit(&CommitRules { lowers, devices: devices.into_commit(), ..rules })?)
            }
        }
    }
}

/// Tells those who wait for a stage or a step that it has ended, whatever ended it.
struct End<'a, T>(&'a OnceLock<Option<T>>);

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        // Taken already where it came to its end.
        let _ = self.0.set(None);
    }
}

/// The image to run mounted code in, when nothing needs to be built: every step is in the cache, save
/// trailing copies of code that the mount hides anyway. Such copies are not even looked at, so
/// an edit of the code costs nothing.
pub fn built_environment(store: &Store, request: &Request) -> Result<Option<Digest>, Error> {
    let plan = request.plan;
    if plan.remotes().any(|(source, _)| request.remotes.known(source).is_none()) {
        return Ok(None);
    }
    let mut built: BTreeMap<usize, StageState> = BTreeMap::new();
    for (index, stage) in plan.stages.iter().enumerate() {
        let base = match stage.base {
            Base::Stage(base) => Some(&built[&base]),
            _ => None,
        };
        let mut state = StageState::of_base(stage, request, base);
        let end = if index == plan.target {
            trailing_code_start(stage, code_mount(stage, request.code_mount).as_deref())
        } else {
            stage.steps.len()
        };
        for step in &stage.steps[..end.min(stage.steps.len())] {
            let at = |kind: StepError| Error::Step { lines: step.lines, kind: Box::new(kind) };
            let stages = step.action.stages().map(|index| (index, built[&index].layers.as_slice())).collect();
            let Some(inputs) = Inputs::of(step, &state.layers, request, &stages).map_err(at)? else {
                continue;
            };
            let Some(cached) = cached_step(store, &inputs.key.digest)? else { return Ok(None) };
            cached.layer.iter().for_each(|layer| store.use_layer(layer));
            state.layers.extend(cached.layer);
        }
        built.insert(index, state);
    }
    let stage = &plan.stages[plan.target];
    let key = key::environment(&built[&plan.target].layers, &stage.config, request.rules());
    let Some(value) = store.cache(&key)? else { return Ok(None) };
    let Ok(cached) = serde_json::from_slice::<CachedImage>(&value) else { return Ok(None) };
    match store.image(&cached.image) {
        Ok(config) if config.rootfs.diff_ids.iter().all(|layer| store.has_layer(layer)) => {
            Ok(Some(cached.image))
        }
        _ => Ok(None),
    }
}

fn makes(step: &Step) -> bool {
    step.action != Action::Config
}

/// Where code is mounted: as asked for, else the image's working folder unless that is the root.
fn code_mount(stage: &Stage, mount: Option<&str>) -> Option<String> {
    let mount = mount.unwrap_or(&stage.config.working_dir).trim_end_matches('/');
    (!mount.is_empty()).then(|| mount.to_owned())
}

/// The position from which a stage only brings files of the context into the folder that a mount hides.
fn trailing_code_start(stage: &Stage, mount: Option<&str>) -> usize {
    let Some(mount) = mount else { return stage.steps.len() };
    let is_hidden = |path: &str| Path::new(path).starts_with(mount);
    let start = stage
        .steps
        .iter()
        .rposition(|step| match &step.action {
            Action::Config => false,
            Action::Workdir { path, .. } => !is_hidden(path),
            Action::Copy(copy) => copy.from != CopyFrom::Context || !is_hidden(&copy.dest),
            Action::Run(_) => true,
        })
        .map_or(0, |last| last + 1);
    // A folder that `WORKDIR` makes before the code is part of the environment: it costs nothing to
    // keep, and the order of the layers stays that of the file.
    stage.steps[start..]
        .iter()
        .position(|step| matches!(step.action, Action::Copy(_)))
        .map_or(stage.steps.len(), |position| start + position)
}

/// What a stage has come to.
struct StageState {
    /// Layers, lowest first.
    layers: Vec<DiffId>,
    history: Vec<History>,
    /// The layers below the code that a mount hides.
    environment_layers: Vec<DiffId>,
}

impl StageState {
    /// At a stage's start; `base` is the stage it starts from, if it does.
    fn of_base(stage: &Stage, request: &Request, base: Option<&Self>) -> Self {
        let (layers, history) = match (&stage.base, base) {
            (Base::Image(name), _) => {
                let base = &request.bases[name].config;
                (base.rootfs.diff_ids.clone(), base.history.clone())
            }
            (_, Some(base)) => (base.layers.clone(), base.history.clone()),
            (_, None) => (Vec::new(), Vec::new()),
        };
        Self { layers, history, environment_layers: Vec::new() }
    }
}

fn history(step: &Step, request: &Request, empty_layer: bool) -> Option<History> {
    Some(History {
        created: Some(rfc3339(request.epoch)),
        author: step.author.clone(),
        created_by: Some(step.created_by.clone()?),
        comment: None,
        empty_layer,
    })
}

pub(crate) fn put_cached_step(
    store: &Store,
    key: &Digest,
    step: &CachedStep,
) -> Result<(), ibid_store::Error> {
    store.put_cache(key, &serde_json::to_vec(step).expect("plain data"))
}

pub(crate) fn cached_step(store: &Store, key: &Digest) -> Result<Option<CachedStep>, ibid_store::Error> {
    let Some(value) = store.cache(key)? else { return Ok(None) };
    // What cannot be read is as good as absent: the cache is no truth.
    let Ok(cached) = serde_json::from_slice::<CachedStep>(&value) else { return Ok(None) };
    Ok(Some(cached).filter(|cached| cached.layer.as_ref().is_none_or(|layer| store.has_layer(layer))))
}
