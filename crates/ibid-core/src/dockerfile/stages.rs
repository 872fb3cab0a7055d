//! What each `FROM` means, and which stages the target needs.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::ContainerConfig;
use crate::plan::{CopyFrom, Lines};
use crate::platform::{self, Fault};

use super::environment::Environment;
use super::error::{Error, ErrorKind, ExpansionFault};
use super::expand::Expander;
use super::instruction::{Instruction, Statement};
use super::mount::MountWords;
use super::parse::{self, SourceStage};
use super::{Dockerfile, NamedContext, PlanOptions, context_name};

/// The base of a stage, all variables expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BaseName {
    Scratch,
    Image(String),
    /// The files of a named context.
    Context(String),
    /// An earlier stage of the file.
    Stage(usize),
}

/// What the `FROM`s of a file mean.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The arguments before the first `FROM`, and those that are always known there.
    pub(super) global: Environment,
    /// One for each stage of the file.
    pub(super) bases: Vec<BaseName>,
    /// The `--platform` of each stage.
    platforms: Vec<Option<String>>,
    /// Where the last stage of each name is.
    names: BTreeMap<String, usize>,
    /// Stages whose place a named context takes.
    replaced: BTreeSet<usize>,
    contexts: BTreeMap<String, NamedContext>,
    /// Index of the target.
    pub(super) target: usize,
}

impl Resolved {
    /// The instructions of a stage; none when a named context takes its place.
    pub(super) fn statements<'a>(&self, dockerfile: &'a Dockerfile, index: usize) -> &'a [Statement] {
        if self.replaced.contains(&index) { &[] } else { &dockerfile.stages[index].statements }
    }

    /// What a name means that is no stage and not `scratch`.
    fn image_or_context(&self, name: &str) -> BaseName {
        match self.contexts.get(&context_name(name)) {
            Some(NamedContext::Image(image)) => BaseName::Image(image.clone()),
            Some(NamedContext::Folder) => BaseName::Context(context_name(name)),
            None => BaseName::Image(name.to_owned()),
        }
    }
}

/// The stages that a target needs.
#[derive(Debug)]
pub(super) struct Needed {
    /// For each stage of the file, its triggers if it is needed.
    pub(super) triggers: Vec<Option<Vec<Statement>>>,
    /// Images of `COPY --from` and `RUN --mount`, each under the lines that name it first.
    images: Vec<(String, Lines)>,
}

/// Bytes that may still be written while a plan is made.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

/// Most bytes that variables of one Dockerfile may expand to, with the environment of each `RUN`: far above any
/// real file, far below what a machine lacks.
const EXPANDED_BYTES_MAX: usize = 256 << 20;

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: EXPANDED_BYTES_MAX }
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Takes so many bytes away.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), ErrorKind> {
        self.left = self.left.checked_sub(bytes).ok_or(ErrorKind::TooLarge { limit: EXPANDED_BYTES_MAX })?;
        Ok(())
    }

    /// Expands a word, and charges for the result.
    pub(super) fn word(
        &mut self,
        text: &str,
        escape: char,
        environment: &Environment,
    ) -> Result<String, ErrorKind> {
        let result = Expander::new(escape, environment, self.left).word(text);
        let result = result.map_err(|fault| self.fault(text, fault))?;
        self.charge(result.len())?;
        Ok(result)
    }

    /// The error for a word that cannot be expanded.
    pub(super) fn fault(&self, word: &str, fault: ExpansionFault) -> ErrorKind {
        match fault {
            ExpansionFault::TooLarge => ErrorKind::TooLarge { limit: EXPANDED_BYTES_MAX },
            fault => ErrorKind::Expansion { word: word.to_owned(), fault },
        }
    }
}

/// The images that the target needs.
pub(super) fn bases(dockerfile: &Dockerfile, options: &PlanOptions) -> Result<Vec<String>, Error> {
    let resolved = resolve(dockerfile, options, &mut Budget::new())?;
    let needed = needed(dockerfile, options, &resolved, None, &mut Budget::new())?;
    let mut images = Vec::new();
    let mut seen = BTreeSet::new();
    let mut add = |image: &str| {
        if seen.insert(image.to_owned()) {
            images.push(image.to_owned());
        }
    };
    for index in 0..dockerfile.stages.len() {
        if needed.triggers[index].is_none() {
            continue;
        }
        if let BaseName::Image(image) = &resolved.bases[index] {
            add(image);
        }
        for (from, lines) in sources(resolved.statements(dockerfile, index)) {
            let source =
                copy_source(dockerfile, &resolved, index, from).map_err(|kind| Error { lines, kind })?;
            if let CopyFrom::Image(image) = source {
                add(&image);
            }
        }
    }
    // Triggers of stages stand in the file as well.
    needed.images.iter().for_each(|(image, _)| add(image));
    Ok(images)
}

/// Expands the global arguments and every `FROM`, and finds the target.
pub(super) fn resolve(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    budget: &mut Budget,
) -> Result<Resolved, Error> {
    let stages = &dockerfile.stages;
    let mut names = BTreeMap::new();
    for (index, stage) in stages.iter().enumerate() {
        if let Some(name) = &stage.from.name {
            names.insert(name.clone(), index);
        }
    }
    let target = find_target(stages, &names, options)?;
    let mut global = always_known(options, stages[target].from.name.as_deref());
    for (lines, declarations) in &dockerfile.global {
        let fault = |kind| Error { lines: *lines, kind };
        for declaration in declarations {
            let name = budget.word(&declaration.name, dockerfile.escape, &global).map_err(fault)?;
            let value = match (options.build_args.get(&name), &declaration.default) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => budget.word(default, dockerfile.escape, &global).map_err(fault)?,
                (None, None) => continue,
            };
            global.set(&name, &value);
        }
    }
    let contexts = options.contexts.clone();
    let mut resolved = Resolved {
        global,
        bases: Vec::new(),
        platforms: Vec::new(),
        names,
        replaced: BTreeSet::new(),
        contexts,
        target,
    };
    let mut earlier: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, stage) in stages.iter().enumerate() {
        let fault = |kind| Error { lines: stage.lines, kind };
        let base = budget.word(&stage.from.base, dockerfile.escape, &resolved.global).map_err(fault)?;
        if base.is_empty() {
            return Err(fault(ErrorKind::EmptyBase));
        }
        let platform = match &stage.from.platform {
            Some(platform) => {
                Some(budget.word(platform, dockerfile.escape, &resolved.global).map_err(fault)?)
            }
            None => None,
        };
        let name = stage.from.name.as_ref();
        let base = match name.filter(|name| resolved.contexts.contains_key(&context_name(name))) {
            Some(name) => {
                resolved.replaced.insert(index);
                resolved.image_or_context(name)
            }
            None => match earlier.get(base.to_lowercase().as_str()) {
                Some(&stage) => BaseName::Stage(stage),
                None if base == "scratch" => BaseName::Scratch,
                None => resolved.image_or_context(&base),
            },
        };
        resolved.bases.push(base);
        resolved.platforms.push(platform.filter(|_| !resolved.replaced.contains(&index)));
        if let Some(name) = name {
            earlier.insert(name, index);
        }
    }
    Ok(resolved)
}

/// Goes from the target to all that it needs. `images` are the configurations of the base images, whose
/// triggers can need further stages; none leaves those triggers out.
pub(super) fn needed(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    resolved: &Resolved,
    images: Option<&BTreeMap<String, ContainerConfig>>,
    budget: &mut Budget,
) -> Result<Needed, Error> {
    let stages = &dockerfile.stages;
    // As in BuildKit, a stage that nothing needs may not name what is in no file either.
    for (index, _) in stages.iter().enumerate() {
        for (from, lines) in sources(resolved.statements(dockerfile, index)) {
            match copy_source(dockerfile, resolved, index, from) {
                Ok(_) | Err(ErrorKind::StageTooLate { .. }) => {}
                Err(kind) => return Err(Error { lines, kind }),
            }
        }
    }
    let mut needed = Needed { triggers: vec![None; stages.len()], images: Vec::new() };
    let mut wanted = vec![false; stages.len()];
    wanted[resolved.target] = true;
    // A stage needs only earlier ones, so one way back sees all.
    for index in (0..=resolved.target).rev() {
        if !wanted[index] {
            continue;
        }
        let stage = &stages[index];
        let fault = |kind| Error { lines: stage.lines, kind };
        if let Some(platform) = &resolved.platforms[index] {
            platform::check(platform, &options.architecture).map_err(|reason| {
                let (platform, own) = (platform.clone(), format!("linux/{}", options.architecture));
                fault(match reason {
                    Fault::Invalid => ErrorKind::Platform { platform },
                    Fault::Foreign => ErrorKind::ForeignPlatform { platform, own },
                })
            })?;
        }
        let texts: Vec<&str> = match &resolved.bases[index] {
            BaseName::Scratch | BaseName::Context(_) => Vec::new(),
            BaseName::Stage(base) => {
                wanted[*base] = true;
                resolved.statements(dockerfile, *base).iter().filter_map(trigger_text).collect()
            }
            BaseName::Image(image) => match images {
                None => Vec::new(),
                Some(images) => {
                    let config = images
                        .get(image)
                        .ok_or_else(|| fault(ErrorKind::MissingBase { image: image.clone() }))?;
                    // As in BuildKit, where such a stage is done before it starts.
                    let triggers = config.on_build.iter().filter(|_| !resolved.replaced.contains(&index));
                    triggers.map(String::as_str).collect()
                }
            },
        };
        let mut triggers = Vec::new();
        for text in texts {
            // An instruction in memory is a few times as large as its text.
            budget.charge(text.len().saturating_mul(8)).map_err(fault)?;
            triggers.push(parse::parse_trigger(text, stage.lines)?);
        }
        for (from, lines) in sources(&triggers).chain(sources(resolved.statements(dockerfile, index))) {
            match copy_source(dockerfile, resolved, index, from).map_err(|kind| Error { lines, kind })? {
                CopyFrom::Stage(earlier) => wanted[earlier] = true,
                CopyFrom::Image(image) => needed.images.push((image, lines)),
                CopyFrom::Context | CopyFrom::NamedContext(_) | CopyFrom::Scratch => {}
            }
        }
        needed.triggers[index] = Some(triggers);
    }
    needed.images.sort_by_key(|(_, lines)| lines.first);
    if let Some(images) = images {
        for (image, lines) in &needed.images {
            if !images.contains_key(image) {
                let kind = ErrorKind::MissingBase { image: image.clone() };
                return Err(Error { lines: *lines, kind });
            }
        }
    }
    Ok(needed)
}

/// What the `from` of a `COPY` or a mount in the stage `index` names: an earlier stage by number or name, a named
/// context, or an image.
pub(super) fn copy_source(
    dockerfile: &Dockerfile,
    resolved: &Resolved,
    index: usize,
    from: &str,
) -> Result<CopyFrom, ErrorKind> {
    let empty = Environment::default();
    // Variables are not known before the stages are; Docker refuses them too.
    if Expander::new(dockerfile.escape, &empty, usize::MAX).word(from).as_deref() != Ok(from) {
        return Err(ErrorKind::VariableInFrom { from: from.to_owned() });
    }
    if from.bytes().all(|b| b.is_ascii_digit()) {
        let stages = dockerfile.stages.len();
        return match from.parse() {
            Ok(number) if number < index => Ok(CopyFrom::Stage(number)),
            Ok(number) if number < stages => Err(ErrorKind::StageTooLate { name: from.to_owned() }),
            _ => Err(ErrorKind::StageIndex { index: from.to_owned(), stages }),
        };
    }
    match resolved.names.get(&from.to_lowercase()) {
        Some(&earlier) if earlier < index => Ok(CopyFrom::Stage(earlier)),
        Some(_) => Err(ErrorKind::StageTooLate { name: from.to_owned() }),
        None if from == "scratch" => Ok(CopyFrom::Scratch),
        None => Ok(match resolved.image_or_context(from) {
            BaseName::Context(name) => CopyFrom::NamedContext(name),
            BaseName::Image(image) => CopyFrom::Image(image),
            BaseName::Scratch | BaseName::Stage(_) => unreachable!("a name that is neither"),
        }),
    }
}

/// The `from` of each `COPY` and each mount.
fn sources(statements: &[Statement]) -> impl Iterator<Item = (&str, Lines)> {
    statements.iter().flat_map(|statement| {
        let (copy, mounts) = match &statement.instruction {
            Instruction::Copy(copy) => (copy.from.as_deref(), [].as_slice()),
            Instruction::Run(run) => (None, run.mounts.as_slice()),
            _ => (None, [].as_slice()),
        };
        let mounts = mounts.iter().filter_map(MountWords::from);
        copy.into_iter().chain(mounts).map(|from| (from, statement.lines))
    })
}

fn trigger_text(statement: &Statement) -> Option<&str> {
    match &statement.instruction {
        Instruction::Onbuild(trigger) => Some(&trigger.text),
        _ => None,
    }
}

/// The index of the target: of several stages with its name the last one.
fn find_target(
    stages: &[SourceStage],
    names: &BTreeMap<String, usize>,
    options: &PlanOptions,
) -> Result<usize, Error> {
    let last = stages.len() - 1;
    let Some(name) = &options.target else { return Ok(last) };
    let lower = name.to_lowercase();
    names.get(&lower).copied().ok_or_else(|| {
        let nearest = parse::nearest(&lower, names.keys().cloned());
        let kind = ErrorKind::UnknownTarget { name: name.clone(), nearest };
        Error { lines: stages[last].lines, kind }
    })
}

/// The arguments that are known before the first `FROM` without being declared; a stage has to declare them.
pub(super) fn always_known(options: &PlanOptions, target: Option<&str>) -> Environment {
    let mut known = Environment::default();
    let platform = format!("linux/{}", options.architecture);
    for side in ["BUILD", "TARGET"] {
        for (name, value) in [
            ("PLATFORM", platform.as_str()),
            ("OS", "linux"),
            ("OSVERSION", ""),
            ("ARCH", &options.architecture),
            ("VARIANT", ""),
        ] {
            known.set(&format!("{side}{name}"), value);
        }
    }
    known.set("TARGETSTAGE", target.unwrap_or("default"));
    for (name, value) in &options.build_args {
        if known.get(name).is_some() {
            known.set(name, value);
        }
    }
    known
}

/// Whether a name is always known, declared or not.
pub(super) fn is_always_known(name: &str, options: &PlanOptions) -> bool {
    name.starts_with("BUILDKIT_")
        || name == "SOURCE_DATE_EPOCH"
        || crate::proxy::VARIABLES.contains(&name)
        || always_known(options, None).get(name).is_some()
}
