//! What a step reads: the key that is made of it, and what is kept of it to explain the next build.

use std::collections::{BTreeMap, BTreeSet};

use ibid_core::digest::{DiffId, Digest};
use ibid_core::plan::{Action, Base, CopyFrom, Stage, Step};

use crate::build::{Request, StepError};
use crate::context::{self, Context, Selection};
use crate::explain::TracedStep;
use crate::key::{self, Key};

/// What a step reads beside the layers below it.
pub(crate) struct Inputs {
    pub(crate) key: Key,
    /// What it takes from folders: of a copy, or of each mount that shows one, in their order.
    pub(crate) selections: Vec<Selection>,
    /// Of a command, what each mount shows, by content: none for those that start empty or whose content does not
    /// count.
    pub(crate) contents: Vec<Option<Digest>>,
}

/// What a step takes from a folder, and the digest of that.
type Selected = (Selection, Digest);

/// The layers of the stages that a step reads, by stage.
pub(crate) type StageLayers<'a> = BTreeMap<usize, &'a [DiffId]>;

impl Inputs {
    /// Those of a step over `layers`; none for one that touches only the configuration.
    pub(crate) fn of(
        step: &Step,
        layers: &[DiffId],
        request: &Request,
        stages: &StageLayers,
    ) -> Result<Option<Self>, StepError> {
        let rules = request.rules();
        let mut selections = Vec::new();
        let mut contents = Vec::new();
        // What the files of a source are, by content.
        let mut content = |from: &CopyFrom, select: &dyn Fn(&Context) -> Result<Selected, context::Error>| {
            let Some(context) = request.folder(from) else {
                return Ok::<_, StepError>(key::stacked(source_layers(from, request, stages)));
            };
            let (selection, digest) = select(context)?;
            selections.push(selection);
            Ok(digest)
        };
        let key = match &step.action {
            Action::Config => return Ok(None),
            Action::Workdir { path, user } => key::workdir(path, user, layers, rules),
            Action::Copy(copy) => {
                let content = content(&copy.from, &|context| {
                    let selection = context.select_copied(copy)?;
                    let digest = context.digest_of_copied(copy, &selection)?;
                    Ok((selection, digest))
                })?;
                let mut pins = BTreeMap::new();
                for (number, source) in copy.sources.iter().enumerate() {
                    let pin = request.remotes.known(source);
                    let before = selections.iter().flat_map(|selection: &Selection| &selection.sources);
                    let before = before.filter(|source| source.number() < number).count();
                    pins.extend(pin.map(|pin| (number, (pin, before))));
                }
                key::copy(copy, &content, &pins, layers, rules)
            }
            Action::Run(run) => {
                for mount in &run.mounts {
                    contents.push(match mount.source() {
                        Some((from, path)) => Some(content(from, &|context| {
                            let selection = context.select_path(path)?;
                            let digest = context.digest(&selection)?;
                            Ok((selection, digest))
                        })?),
                        None => None,
                    });
                }
                key::run(run, &contents, layers, rules)
            }
        };
        Ok(Some(Self { key, selections, contents }))
    }
}

/// The layers of a source that is no folder.
pub(crate) fn source_layers<'a>(
    from: &CopyFrom,
    request: &'a Request,
    stages: &StageLayers<'a>,
) -> &'a [DiffId] {
    match from {
        CopyFrom::Context | CopyFrom::NamedContext(_) | CopyFrom::Scratch => &[],
        CopyFrom::Stage(index) => stages[index],
        CopyFrom::Image(name) => &request.bases[name].config.rootfs.diff_ids,
    }
}

/// What people call a source.
pub(crate) fn source_name(from: &CopyFrom, request: &Request) -> String {
    match from {
        CopyFrom::Context => "context".to_owned(),
        CopyFrom::NamedContext(name) => format!("context `{name}`"),
        CopyFrom::Scratch => "image `scratch`, which is empty".to_owned(),
        CopyFrom::Stage(index) => {
            let name = request.plan.stages[*index].name.clone();
            format!("stage `{}`", name.unwrap_or_else(|| index.to_string()))
        }
        CopyFrom::Image(name) => format!("image `{name}`"),
    }
}

/// What is kept of a step for the next build's explanations.
pub(crate) fn traced(
    step: &Step,
    stage: &Stage,
    label: &str,
    request: &Request,
    Inputs { key, selections, .. }: &Inputs,
) -> Result<TracedStep, StepError> {
    let base = match &stage.base {
        Base::Scratch => ("scratch".to_owned(), String::new()),
        Base::Stage(index) => (format!("stage {index}"), String::new()),
        Base::Image(name) => (name.clone(), request.bases[name].digest.to_string()),
    };
    let mut files = BTreeMap::new();
    let folders = step.action.sources().filter_map(|from| request.folder(from));
    for (context, selection) in folders.zip(selections) {
        for (path, identity) in context.identities(selection)? {
            files.insert(path.display().to_string(), identity);
        }
    }
    // Only of the step's own: all of the stage's, for each of its steps, would grow with the square.
    let read = key.inputs.iter().filter(|(kind, _)| kind == "variable").map(|(_, name)| name.as_str());
    let read: BTreeSet<&str> = read.collect();
    let names = stage.config.env.iter().filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
    let own_variables: BTreeSet<String> =
        names.filter(|name| read.contains(name)).map(str::to_owned).collect();
    Ok(TracedStep {
        stage: label.to_owned(),
        text: step.text.clone(),
        base,
        inputs: key.inputs.clone(),
        own_variables,
        files,
    })
}
