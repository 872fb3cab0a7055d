//! From a project to an image: bases, plan, build, and the question whether anything must be built at all.
//! What `build`, `run` and `dev` share.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ibid_build::context::{self, Context};
use ibid_build::record::{BuildRecord, RecordedCommit, context_digest, context_files, differing};
use ibid_build::remote::{self, Remotes};
use ibid_build::verify::{self, Difference};
use ibid_build::{
    BaseImage, Built, Credentials, Explanations, MadeLayer, NoCache, Request, StepError, built_environment,
    mounts,
};
use ibid_core::digest::Digest;
use ibid_core::dockerfile::{self, Dockerfile, ErrorKind, PlanOptions};
use ibid_core::image::{ContainerConfig, host_architecture};
use ibid_core::plan::{Lines, Plan};
use ibid_core::proxy;
use ibid_core::reference::Reference;
use ibid_core::time::{DEFAULT_EPOCH, rfc3339};
use ibid_engine::identity::HostUser;
use ibid_fetch::Network;
use ibid_ledger::code::{Checkout, CodeIdentity};
use ibid_sandbox::ExitStatus;
use ibid_sandbox::trust::HostTrust;
use ibid_sandbox::userns::{self, Entering};
use ibid_store::Store;

use crate::args::BuildShared;
use crate::bases::{self, Bases};
use crate::build_progress::BuildProgress;
use crate::cache_options::{CacheTo, Place};
use crate::cache_transfer;
use crate::checks;
use crate::contexts::{self, Named};
use crate::lock::Lock;
use crate::lock_mode::{LockMode, check_update, lacking, refuse_unlocked, update_command};
use crate::project::Project;
use crate::registries::{self, Transfer};
use crate::report::Failure;
use crate::settings::additional_stores;
use crate::ui::{self, Ui};
use crate::unwanted_files::UnwantedFiles;

/// Becomes able to mount and to own files as a container's users, and says who the person is.
pub fn enter_user_namespace() -> Result<HostUser, Failure> {
    let entering = userns::begin().map_err(|error| not_entered(&error))?;
    host_user(entering)
}

/// The first half of [`enter_user_namespace`] for who will start a container, whose first process is made, too. Meanwhile this process
/// may read files and compute, but not write, mount or start anything.
pub fn begin_container() -> Result<Entering, Failure> {
    let entering = userns::begin().map_err(|error| not_entered(&error))?;
    ibid_sandbox::start_ahead();
    Ok(entering)
}

/// The second half.
pub fn go_on_with_container(entering: Entering) -> Result<HostUser, Failure> {
    let host = host_user(entering)?;
    ibid_sandbox::lay_ground_ahead();
    Ok(host)
}

fn not_entered(error: &userns::Error) -> Failure {
    let failure = Failure::of(error);
    match error.mend() {
        Some(command) => failure.hint(command),
        None => failure.hint("`ibid doctor` says what this machine can do, and what mends it"),
    }
}

/// The person, when they are mapped in the user namespace.
fn host_user(entering: Entering) -> Result<HostUser, Failure> {
    entering.finish().map_err(|error| not_entered(&error))?;
    let (uid, gid) = userns::host_ids();
    let name = std::env::var("USER").ok().filter(|name| is_login_name(name));
    Ok(HostUser { uid, gid, name })
}

fn is_login_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
}

/// Reads a Dockerfile; its text is for people.
pub fn read_dockerfile(path: &Path) -> Result<(String, Dockerfile), Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        let failure = Failure::of(&error).while_doing(format!("cannot read {}", path.display()));
        if error.kind() == std::io::ErrorKind::NotFound {
            failure.hint("a project is a folder with a Dockerfile; `-C DIR` picks another")
        } else {
            failure
        }
    })?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let dockerfile = dockerfile::parse(&bytes).map_err(|error| dockerfile_failure(path, &text, &error))?;
    Ok((text, dockerfile))
}

/// Where the user's store is, or will be.
pub fn store_root() -> Result<PathBuf, Failure> {
    let [many_ids, one_id] = store_roots()?;
    Ok(if userns::only_id().is_some() { one_id } else { many_ids })
}

/// Where stores of the user can be. Files have their owners on disk, or beside them: one store holds files of one kind. A home
/// folder can be shared by computers of both.
pub fn store_roots() -> Result<[PathBuf; 2], Failure> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_DATA_HOME")
        .or_else(|| Some(folder("HOME")?.join(".local/share")))
        .map(|data| ["ibid", "ibid-one-id"].map(|name| data.join(name)))
        .ok_or_else(|| {
            Failure::new("there is no place for the store: neither XDG_DATA_HOME nor HOME is set")
                .hint("export XDG_DATA_HOME=/path/with/space")
        })
}

/// The user's store.
pub fn open_store() -> Result<Store, Failure> {
    let root = store_root()?;
    Store::open_with(&root, &additional_stores()?).map_err(|error| {
        let failure = Failure::of(&error).while_doing(format!("cannot open the store {}", root.display()));
        match error {
            ibid_store::Error::Additional { .. } => {
                failure.hint("docs/images.md says how a store is shared, and where such stores are named")
            }
            _ => failure,
        }
    })
}

/// The image that a person means: a tag, a digest, or the first digits of one.
pub fn find_image(store: &Store, text: &str) -> Result<Digest, Failure> {
    if let Ok(digest) = text.parse::<Digest>() {
        return match store.image(&digest) {
            Ok(_) => Ok(digest),
            Err(error) => Err(Failure::of(&error).hint("`ibid images` lists what is there")),
        };
    }
    let tags = store.tags()?;
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if let Ok(reference) = text.parse::<Reference>()
        && let Some(digest) = store.tag(&reference)?
    {
        return Ok(digest);
    }
    if hex.len() >= 4 && hex.chars().all(|c| c.is_ascii_hexdigit()) {
        let mut found: Vec<Digest> =
            tags.iter().map(|(_, digest)| *digest).filter(|digest| digest.hex().starts_with(hex)).collect();
        found.sort_unstable();
        found.dedup();
        match found[..] {
            [digest] => return Ok(digest),
            [] => {}
            _ => {
                return Err(Failure::new(format!("`{text}` begins the digests of {} images", found.len()))
                    .hint("give more digits"));
            }
        }
    }
    let failure = Failure::new(format!("there is no image `{text}` in the store"));
    // The tag need not be given when it is `latest`.
    let names = tags.iter().flat_map(|(reference, _)| {
        let name = reference.to_string();
        [name.strip_suffix(":latest").map(str::to_owned), Some(name)].into_iter().flatten()
    });
    let nearest = names.map(|known| (strsim::osa_distance(&known, text), known)).min();
    Err(match nearest.filter(|(distance, _)| *distance <= 3) {
        Some((_, known)) => failure.hint(format!("did you mean `{known}`?")),
        None => failure.hint("`ibid images` lists what is there, `ibid build` makes the project's"),
    })
}

/// The signals by which a person or a system asks a program to end, as every Linux numbers them.
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// The build argument that names a frontend, as `# syntax=` does.
const SYNTAX_ARG: &str = "BUILDKIT_SYNTAX";

/// What `ibid build` may ask for beyond the project's own settings.
#[derive(Default)]
pub struct Options {
    pub target: Option<String>,
    pub no_cache: NoCache,
    pub explain: bool,
    pub shell_on_fail: bool,
    pub verify: bool,
    pub keep_nondeterminism: bool,
    pub lock_mode: LockMode,
    pub tags: Vec<Reference>,
    pub cache_from: Vec<Place>,
    pub cache_to: Option<CacheTo>,
}

/// A built image and the names it got.
pub struct NamedImage {
    pub image: Digest,
    pub names: Vec<String>,
    pub steps: usize,
    pub steps_cached: usize,
    /// What a second build made otherwise, by step; none when there was no second one.
    pub differences: Option<Vec<(MadeLayer, Vec<Difference>)>>,
}

/// A project with its Dockerfile read, ready to be planned and built.
pub struct Preparation<'a> {
    project: &'a Project,
    store: Store,
    trust: HostTrust,
    epoch: i64,
    text: String,
    dockerfile: Dockerfile,
    build_args: BTreeMap<String, String>,
    credentials: Credentials,
    named: BTreeMap<String, Named>,
    context: Option<Context>,
    named_contexts: BTreeMap<String, Context>,
    remotes: Remotes,
    lock: OnceCell<Lock>,
    found_bases: BTreeMap<String, Digest>,
}

/// Which code is in an image.
pub struct PeggedCode {
    /// As people name it.
    pub text: String,
    /// The commit that it was built from, where that is known.
    pub commit: Option<RecordedCommit>,
    /// Whether the working tree is the same; none where nobody can say.
    pub equals_working_tree: Option<bool>,
}

/// A plan with the images it starts from.
struct Planned {
    plan: Plan,
    bases: BTreeMap<String, BaseImage>,
}

impl Planned {
    fn base_digests(&self) -> BTreeMap<String, Digest> {
        self.bases.iter().map(|(name, base)| (name.clone(), base.digest)).collect()
    }
}

impl<'a> Preparation<'a> {
    pub fn new(
        ui: &Ui,
        project: &'a Project,
        host: &HostUser,
        shared: &BuildShared,
        directory: &Path,
    ) -> Result<Self, Failure> {
        let named = contexts::named(&shared.build_contexts, directory)?;
        let store = open_store()?;
        let mut trust = if shared.no_host_trust {
            HostTrust::none()
        } else {
            HostTrust::of_host(|name| std::env::var(name).ok())
        };
        let (text, dockerfile) = read_dockerfile(&project.dockerfile)?;
        let build_args = build_args(project, host, shared, &dockerfile)?;
        // Docker's predefined arguments: seen by steps without being declared, and no part of any key.
        for name in proxy::VARIABLES {
            if let Some(value) = build_args.get(name) {
                trust.env.retain(|(known, _)| known != name);
                trust.env.push((name.to_owned(), value.clone()));
            }
        }
        if let Some(frontend) = build_args.get(SYNTAX_ARG).or(dockerfile.directives().syntax.as_ref()) {
            ui.detail(&format!("the frontend `{frontend}` is not used: ibid reads Dockerfiles itself"));
        }
        let epoch = epoch()?;
        let network = Network::new(Path::new("/"), bases::utf8_environment());
        let remotes = Remotes::new(&store, network);
        ui.detail(&format!("project {} in {}", project.name, project.root.display()));
        Ok(Self {
            project,
            store,
            trust,
            epoch,
            text,
            dockerfile,
            build_args,
            credentials: Credentials::default(),
            named,
            context: None,
            named_contexts: BTreeMap::new(),
            remotes,
            lock: OnceCell::new(),
            found_bases: BTreeMap::new(),
        })
    }

    /// Lends these to the steps that ask for them.
    pub fn lend(&mut self, credentials: Credentials) {
        self.credentials = credentials;
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn trust(&self) -> &HostTrust {
        &self.trust
    }

    /// Each `FROM` of the plan that led to the image, and the digest of the image that it meant; empty where that is not known.
    pub fn found_bases(&self) -> &BTreeMap<String, Digest> {
        &self.found_bases
    }

    /// The image to run mounted code in: the one that is there unless its environment is stale.
    pub fn environment_image(&mut self, ui: &Ui) -> Result<Digest, Failure> {
        let planned = self.plan(ui, &Options::default())?;
        self.found_bases = planned.base_digests();
        self.open_sources(&planned, &LockMode::Keep)?;
        let nothing = Explanations::default();
        let found = built_environment(&self.store, &self.request(&planned, NoCache::Never, &nothing))
            .map_err(|error| self.build_failure(error))?;
        match found {
            Some(image) => Ok(image),
            None => Ok(self.perform(ui, &planned, &Options::default())?.image),
        }
    }

    /// The image that has the project's name, where another builder than ibid's own makes it: what of it is out of date is
    /// known to that builder only.
    pub fn image_of_builder(&self) -> Result<Digest, Failure> {
        match self.store.tag(&self.name())? {
            Some(image) => Ok(image),
            None => Err(Failure::new(format!("there is no image {} yet", self.name()))
                .hint("`ibid build` makes it, with the builder that ibid.toml names")),
        }
    }

    /// The image whose own code is to run: the one that has the project's name. It is built when there is none.
    pub fn pegged_image(&mut self, ui: &Ui) -> Result<Digest, Failure> {
        if let Some(image) = self.store.tag(&self.name())?
            && self.store.image(&image).is_ok()
        {
            return Ok(image);
        }
        Ok(self.build(ui, &Options::default())?.image)
    }

    /// Names the code in an image, and warns when the working tree differs from it.
    pub fn pegged_code(&mut self, ui: &Ui, image: &Digest) -> Result<PeggedCode, Failure> {
        let Some(record) = BuildRecord::read(&self.store, image)? else {
            ui.warn("nothing is known about the code in the image: it was not built here");
            let text = "of unknown origin".to_owned();
            return Ok(PeggedCode { text, commit: None, equals_working_tree: None });
        };
        let mut equals_working_tree = None;
        if record.project != self.project.root {
            ui.warn(&format!("the image was built from {}", record.project.display()));
        }
        if record.dockerfile != Digest::of(self.text.as_bytes()) {
            equals_working_tree = Some(false);
            ui.warn("the Dockerfile has changed since the image was built");
            ui.hint("`ibid build` pegs the code as it is now");
        } else if let Some(planned) = self.plan_from_store(None)? {
            self.open_sources(&planned, &LockMode::Keep)?;
            let nothing = Explanations::default();
            self.found_bases = planned.base_digests();
            let request = self.request(&planned, NoCache::Never, &nothing);
            let copied = context_digest(&request).map_err(|error| self.build_failure(error))?;
            equals_working_tree = Some(true);
            if record.copied != Some(copied) {
                let files = context_files(&request).map_err(|error| self.build_failure(error))?;
                let pegged = BuildRecord::files(&self.store, image)?.unwrap_or_default();
                let differing = differing(&pegged, &files);
                if !differing.is_empty() {
                    equals_working_tree = Some(false);
                    ui.warn(&format!(
                        "the code in the image differs from the working tree: {}",
                        listed(&differing)
                    ));
                    ui.hint(
                        "`ibid build` pegs the code as it is now; without `--pegged` the working tree runs",
                    );
                }
            }
        }
        let text = format!("{}, built {}", record.code, record.built);
        Ok(PeggedCode { text, commit: record.commit, equals_working_tree })
    }

    /// Builds the image, whatever is there, and names it.
    pub fn build(&mut self, ui: &Ui, options: &Options) -> Result<NamedImage, Failure> {
        if options.lock_mode == LockMode::Locked {
            // Before any base is made, as far as the store has what is needed to know it.
            let planned = self.plan_from_store(options.target.clone())?;
            self.refuse_unlocked(options, planned.as_ref())?;
        }
        let planned = self.plan(ui, options)?;
        self.open_sources(&planned, &options.lock_mode)?;
        if options.lock_mode == LockMode::Locked {
            self.refuse_unlocked(options, Some(&planned))?;
        }
        check_update(&options.lock_mode, &planned.plan, planned.bases.keys())?;
        self.perform(ui, &planned, options)
    }

    /// Refuses what the lock lacks of what is to be built.
    fn refuse_unlocked(&mut self, options: &Options, planned: Option<&Planned>) -> Result<(), Failure> {
        if let Some(planned) = planned {
            self.open_sources(planned, &options.lock_mode)?;
        }
        let plan_options = self.plan_options(options.target.clone());
        let mut names =
            self.dockerfile.bases(&plan_options).map_err(|error| self.dockerfile_failure(&error))?;
        names.extend(planned.iter().flat_map(|planned| planned.bases.keys().cloned()));
        let mut lacks = planned.map(|planned| lacking(&self.remotes, &planned.plan)).unwrap_or_default();
        for name in names {
            lacks.extend(self.bases().lacking(&name)?);
        }
        refuse_unlocked(lacks)
    }

    fn perform(&mut self, ui: &Ui, planned: &Planned, options: &Options) -> Result<NamedImage, Failure> {
        ibid_sandbox::rootfs::private_mount_namespace().map_err(|error| Failure::of(&error))?;
        for name in &planned.plan.undeclared_args {
            ui.warn(&format!("no `ARG {name}` in the Dockerfile: the build argument has no effect"));
        }
        check_stages(&options.no_cache, &planned.plan)?;
        let plan_options = self.plan_options(options.target.clone());
        checks::end_build(ui, self.project, &self.text, &self.dockerfile, &plan_options, &planned.bases)?;
        let trace = self.trace_key(options);
        let explanations = Explanations::read(&self.store, trace)?;
        let no_cache = if options.verify { NoCache::Always } else { options.no_cache.clone() };
        let transfer = Transfer::new(ui, "fetching");
        let show = |event: ibid_registry::Event| transfer.show(event);
        let places = options.cache_from.iter().chain(options.cache_to.iter().map(|to| &to.place));
        let client = match places.into_iter().any(|place| matches!(place, Place::Registry(_))) {
            true => Some(registries::client(&show)?),
            false => None,
        };
        // A place that cannot be is known before anything is built.
        let cache_to = options.cache_to.as_ref().map(|to| cache_transfer::place(&to.place, client.as_ref()));
        let cache_to = cache_to.transpose()?;
        let cache_from = cache_transfer::open(ui, &options.cache_from, client.as_ref());
        let mut request = self.request(planned, no_cache, &explanations);
        request.cache_from = &cache_from;
        request.keep_nondeterminism = options.keep_nondeterminism;
        let progress = BuildProgress::new(
            ui,
            planned.plan.stages.len() > 1,
            options.explain,
            UnwantedFiles::new(self.project, self.context().ignore_file()),
        );
        let before_shell = || {
            progress.clear();
            ui.write(&format!(
                "{} failed; this shell is in the state it left, and leaving it ends the build",
                ui.paint(ui::RED, "the command")
            ));
        };
        if options.shell_on_fail {
            request.shell_on_fail = Some(&before_shell);
        }
        // What the context drops is not in the image, and may be large.
        let without = if self.project.context == self.project.root {
            self.context().dropped_folders().map_err(|error| Failure::of(&error))?
        } else {
            Vec::new()
        };
        // Git is asked while the build runs: about a tenth of the time of copying as many files.
        let (code, built) = std::thread::scope(|scope| {
            let code = scope.spawn(|| CodeIdentity::of(&self.project.root, &without));
            let built = ibid_build::build(&self.store, &request, &|event| progress.show(event));
            (code.join().expect("asking git does not panic"), built)
        });
        let differences = match &built {
            Ok(first) if options.verify => Some(self.verify(ui, &request, &progress, first)),
            _ => None,
        };
        progress.clear();
        explanations.write()?;
        if options.lock_mode != LockMode::Locked {
            self.write_pins(planned)?;
        }
        let built = built.map_err(|error| self.build_failure(error))?;
        // What was copied is known by now: neither call looks at a file.
        let nothing = Explanations::default();
        let request = self.request(planned, NoCache::Never, &nothing);
        let copied = context_digest(&request).map_err(|error| self.build_failure(error))?;
        let record = BuildRecord::new(
            self.project.root.clone(),
            rfc3339(now()),
            code.to_string(),
            code.checkout().and_then(recorded_commit),
            Digest::of(self.text.as_bytes()),
            copied,
        );
        record.write(&self.store, &built.image, || {
            context_files(&request).map_err(|error| self.build_failure(error))
        })?;
        let names = if options.tags.is_empty() { vec![self.name()] } else { options.tags.clone() };
        for name in &names {
            self.store.set_tag(name, built.image)?;
        }
        if let (Some(to), Some(place)) = (&options.cache_to, &cache_to) {
            cache_transfer::export(ui, &self.store, &built, to, place)?;
        }
        Ok(NamedImage {
            image: built.image,
            names: names.iter().map(Reference::to_string).collect(),
            steps: built.steps,
            steps_cached: built.steps_cached,
            differences: differences.transpose()?,
        })
    }

    /// Writes what had no pin to the lock, though the build may have failed: the next one need not fetch it again.
    fn write_pins(&self, planned: &Planned) -> Result<(), Failure> {
        let images = self.bases().unpinned(&planned.bases)?;
        let found = self.remotes.found();
        if images.is_empty() && found.is_empty() {
            return Ok(());
        }
        let mut lock = Lock::read(&self.project.root)?;
        lock.image.extend(images);
        lock.add(found);
        lock.write(&self.project.root)
    }

    fn bases(&self) -> Bases<'_> {
        Bases { store: &self.store, project: self.project, epoch: self.epoch, lock: &self.lock }
    }

    /// Builds a second time from nothing, in another time zone and temporary folder and with another umask, and
    /// compares what each step made.
    fn verify(
        &self,
        ui: &Ui,
        request: &Request,
        progress: &BuildProgress,
        first: &Built,
    ) -> Result<Vec<(MadeLayer, Vec<Difference>)>, Failure> {
        ui.say("the same again, from nothing, to compare");
        let trial = Request { is_trial: true, no_cache: NoCache::Always, ..*request };
        let second = ibid_build::build(&self.store, &trial, &|event| progress.show(event));
        let second = second.map_err(|error| self.build_failure(error))?;
        let mut found = Vec::new();
        for (one, other) in first.made.iter().zip(&second.made) {
            let differences = verify::differences(&self.store, one.layer, other.layer)?;
            if !differences.is_empty() {
                found.push((one.clone(), differences));
            }
        }
        Ok(found)
    }

    /// Where the trace of the last build of the same thing is kept.
    fn trace_key(&self, options: &Options) -> Digest {
        let parts = [
            b"trace of the last build".as_slice(),
            self.project.dockerfile.as_os_str().as_bytes(),
            self.project.context.as_os_str().as_bytes(),
            options.target.as_deref().unwrap_or_default().as_bytes(),
        ];
        Digest::of(&parts.join(&0))
    }

    fn name(&self) -> Reference {
        self.project.name.parse().expect("the project's name was checked when it was read")
    }

    fn plan_options(&self, target: Option<String>) -> PlanOptions {
        PlanOptions {
            build_args: self.build_args.clone(),
            target,
            architecture: host_architecture().to_owned(),
            contexts: contexts::kinds(&self.named),
        }
    }

    /// Plans, and makes the bases that are missing.
    fn plan(&self, ui: &Ui, options: &Options) -> Result<Planned, Failure> {
        let planned = self.plan_with(options.target.clone(), |name| {
            self.bases().find_or_make(ui, name, &options.lock_mode).map(Some).map_err(|failure| {
                let failure = failure.in_dockerfile(&self.project.dockerfile, &self.text, name);
                if self.dockerfile.has_stage(name) {
                    return failure.hint(format!(
                        "the stage `{name}` comes too late: only one before this line can be meant"
                    ));
                }
                failure
            })
        })?;
        Ok(planned.expect("every base was found or made"))
    }

    /// Plans with the bases that `find` gives; none when it has none for a name.
    fn plan_with(
        &self,
        target: Option<String>,
        find: impl Fn(&str) -> Result<Option<BaseImage>, Failure>,
    ) -> Result<Option<Planned>, Failure> {
        let plan_options = self.plan_options(target);
        let mut wanted =
            self.dockerfile.bases(&plan_options).map_err(|error| self.dockerfile_failure(&error))?;
        let mut bases = BTreeMap::new();
        let mut configs: BTreeMap<String, ContainerConfig> = BTreeMap::new();
        loop {
            for name in wanted.drain(..) {
                let Some(base) = find(&name)? else { return Ok(None) };
                configs.insert(name.clone(), base.config.config.clone());
                bases.insert(name, base);
            }
            match dockerfile::plan(&self.dockerfile, &plan_options, &configs) {
                Ok(plan) => return Ok(Some(Planned { plan, bases })),
                // A trigger of a base can name an image that the Dockerfile does not.
                Err(dockerfile::Error { kind: ErrorKind::MissingBase { image }, .. })
                    if !bases.contains_key(&image) =>
                {
                    wanted.push(image);
                }
                Err(error) => return Err(self.dockerfile_failure(&error)),
            }
        }
    }

    /// Plans from what the store holds; none when a base would have to be made.
    fn plan_from_store(&self, target: Option<String>) -> Result<Option<Planned>, Failure> {
        self.plan_with(target, |name| self.bases().find(name))
    }

    /// Opens the folders that a plan copies from, unless they are open, and reads what the lock says about what it
    /// fetches.
    fn open_sources(&mut self, planned: &Planned, lock_mode: &LockMode) -> Result<(), Failure> {
        if self.context.is_none() {
            let context = contexts::open(&self.store, &self.project.context, Some(&self.project.dockerfile))?;
            self.context = Some(context);
        }
        for name in planned.plan.named_contexts() {
            if let Some(Named::Folder(folder)) = self.named.get(name)
                && !self.named_contexts.contains_key(name)
            {
                let context = contexts::open(&self.store, folder, None)?;
                self.named_contexts.insert(name.to_owned(), context);
            }
        }
        // Reading a lock takes longer than starting a container, and seldom is anything fetched.
        if planned.plan.remotes().next().is_some() {
            let mut pins = self.bases().lock()?.pins();
            pins.retain(|name, _| !lock_mode.updates(name));
            self.remotes.set_pins(pins);
        }
        Ok(())
    }

    fn context(&self) -> &Context {
        self.context.as_ref().expect("the context is opened before it is asked for")
    }

    fn request<'b>(
        &'b self,
        planned: &'b Planned,
        no_cache: NoCache,
        explanations: &'b Explanations,
    ) -> Request<'b> {
        Request {
            plan: &planned.plan,
            context: self.context(),
            named_contexts: &self.named_contexts,
            remotes: &self.remotes,
            bases: &planned.bases,
            epoch: self.epoch,
            code_mount: self.project.code_mount.as_deref(),
            no_cache,
            cache_from: &[],
            explanations,
            trust: &self.trust,
            credentials: &self.credentials,
            keep_nondeterminism: false,
            is_trial: false,
            shell_on_fail: None,
        }
    }

    fn dockerfile_failure(&self, error: &dockerfile::Error) -> Failure {
        dockerfile_failure(&self.project.dockerfile, &self.text, error)
    }

    fn build_failure(&self, error: ibid_build::Error) -> Failure {
        let ibid_build::Error::Step { lines, kind } = error else { return Failure::of(&error) };
        let Lines { first, last } = lines;
        let failure =
            Failure::of(&*kind).excerpt_lines(&self.project.dockerfile, &self.text, first, last, "");
        match *kind {
            StepError::Command { status: status @ ExitStatus::Signal(SIGINT | SIGTERM), .. } => {
                Failure::new("the build was interrupted").code(status.shell_code())
            }
            StepError::Command { output, .. } => failure.output(output),
            StepError::Sandbox(error) if error.mend().is_some() => failure.hint(error.mend().unwrap_or_default()),
            StepError::TooManyLayers => {
                failure.hint("join steps: name several sources in one COPY, and join commands in one RUN with `&&` or a heredoc")
            }
            StepError::Remote(remote::Error::Moved { name, .. }) => {
                failure.hint(format!("if that is right, {} takes what is there now", update_command(&name)))
            }
            StepError::Remote(remote::Error::Fetch(ibid_fetch::Error::NoGit)) => {
                failure.hint("apt-get install git")
            }
            StepError::Remote(remote::Error::Fetch(ibid_fetch::Error::NoReference { .. })) => {
                failure.hint("name a branch, a tag, or all 40 digits of a commit")
            }
            StepError::Remote(remote::Error::Commit { .. }) => {
                failure.hint("if that is right, write the commit that was found after `--checksum=`")
            }
            StepError::Remote(remote::Error::Checksum { .. }) => {
                failure.hint("if that is right, write the digest that was found after `--checksum=`")
            }
            StepError::Context(context::Error::Ignored { file, line, .. }) => failure
                .hint(format!("remove the rule, or add an exception below line {line} of {file}: `!PATH`")),
            StepError::Mount(mounts::Error::NoSecret { id }) => failure.hint(format!(
                "give it with `ibid build --secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`"
            )),
            StepError::Mount(mounts::Error::NoAgent { id }) => failure.hint(format!(
                "give it with `ibid build --ssh {id}`, which asks the agent that SSH_AUTH_SOCK names, or `--ssh {id}=SOCKET`"
            )),
            StepError::Mount(mounts::Error::Owner { .. }) => {
                failure.hint("without root, containers have as many ids as `ibid doctor` counts")
            }
            _ => failure,
        }
    }
}

/// What a record says of a checkout; nothing before the first commit.
fn recorded_commit(checkout: &Checkout) -> Option<RecordedCommit> {
    let commit = checkout.commit.as_ref()?;
    let differing = checkout.differing.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    Some(RecordedCommit { id: commit.full().to_owned(), is_dirty: !checkout.differing.is_empty(), differing })
}

/// Refuses names of stages that are not built.
fn check_stages(no_cache: &NoCache, plan: &Plan) -> Result<(), Failure> {
    let NoCache::Stages(names) = no_cache else { return Ok(()) };
    let known: Vec<&str> = plan.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
    for name in names {
        if !known.contains(&name.as_str()) {
            let failure = Failure::new(format!("--no-cache-filter: the build has no stage `{name}`"));
            return Err(match known.as_slice() {
                [] => failure.hint("no stage has a name: write `FROM IMAGE AS NAME`, or use `--no-cache`"),
                known => failure.hint(format!("its stages are {}", known.join(", "))),
            });
        }
    }
    Ok(())
}

/// Build arguments: the project's, the command line's, and the person's ids where the Dockerfile asks for
/// them. Root's are not given: `useradd` refuses id 0, and the Dockerfile's defaults serve.
pub fn build_args(
    project: &Project,
    host: &HostUser,
    shared: &BuildShared,
    dockerfile: &Dockerfile,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut args = BTreeMap::new();
    if host.uid != 0 {
        let declared = dockerfile.declared_args();
        for (name, id) in [("USER_ID", host.uid), ("GROUP_ID", host.gid)] {
            if declared.contains(name) {
                args.insert(name.to_owned(), id.to_string());
            }
        }
    }
    args.extend(project.build_args.clone());
    for text in &shared.build_args {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            return Err(Failure::new(format!("`--build-arg {text}`: expected NAME or NAME=VALUE")));
        }
        if let Some(value) = value {
            args.insert(name.to_owned(), value);
        }
    }
    Ok(args)
}

/// `SOURCE_DATE_EPOCH`, or the fixed default.
pub fn epoch() -> Result<i64, Failure> {
    let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") else { return Ok(DEFAULT_EPOCH) };
    text.parse().ok().filter(|epoch| *epoch >= 0).ok_or_else(|| {
        Failure::new(format!("SOURCE_DATE_EPOCH is `{text}`, which is no number of seconds since 1970"))
            .hint("unset SOURCE_DATE_EPOCH")
    })
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}

pub fn dockerfile_failure(path: &Path, text: &str, error: &dockerfile::Error) -> Failure {
    let failure =
        Failure::new(error.to_string()).excerpt_lines(path, text, error.lines.first, error.lines.last, "");
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The first few of some paths, and how many more.
fn listed(paths: &[&str]) -> String {
    const SHOWN_MAX: usize = 3;
    let shown = paths[..paths.len().min(SHOWN_MAX)].join(", ");
    match paths.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
