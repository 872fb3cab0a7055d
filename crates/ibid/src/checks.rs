//! `ibid build --check`: what in the Dockerfile is likely a mistake or keeps the build from giving the same image again,
//! found without building. And the builds that such findings end: those whose Dockerfile says `# check=error=true`.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ibid_build::BaseImage;
use ibid_core::digest::Digest;
use ibid_core::dockerfile::check::{self, Facts, Finding, Origin, Rule, Settings};
use ibid_core::dockerfile::{Dockerfile, PlanOptions};
use ibid_core::image::{ImageConfig, host_architecture};
use ibid_core::reference::Reference;
use ibid_engine::identity::HostUser;
use ibid_store::Store;
use serde_json::json;

use crate::args::{Build, Cli};
use crate::bases::Bases;
use crate::contexts::{self, ignore_file};
use crate::image_build::{build_args, dockerfile_failure, epoch, read_dockerfile, store_root};
use crate::lock::Lock;
use crate::project::Project;
use crate::report::{self, Failure};
use crate::ui::{self, Ui};

/// Exit code when something was found.
const EXIT_FOUND: u8 = 1;
/// Most findings that people are shown.
const SHOWN_MAX: usize = 200;

pub fn main(ui: &Ui, cli: &Cli, build: &Build) -> Result<u8, Failure> {
    let directory = cli.directory.as_deref().unwrap_or(Path::new("."));
    let project =
        Project::of_command_line(cli.directory.as_deref(), build.context.as_deref(), build.file.as_deref())?;
    let path = &project.dockerfile;
    let (text, dockerfile) = read_dockerfile(path)?;
    let (uid, gid) = ibid_sandbox::userns::host_ids();
    let host = HostUser { uid, gid, name: None };
    let options = PlanOptions {
        build_args: build_args(&project, &host, &build.shared, &dockerfile)?,
        target: None,
        architecture: host_architecture().to_owned(),
        contexts: contexts::kinds(&contexts::named(&build.shared.build_contexts, directory)?),
    };
    let settings = settings(path, &text, &dockerfile, &options.build_args)?;
    let rules = ignore_file(&project.context, Some(path))?;
    let lock = Lock::read(&project.root)?;
    let pinned = project.bases.keys().chain(lock.image.keys()).cloned().chain(lock.pins().into_keys());
    let facts = Facts {
        images: &known_images(&project, check::images(&dockerfile, &options))?,
        pinned: &pinned.collect(),
        ignore: &rules.rules,
        ignore_file: &rules.name,
    };
    let findings = check::check(text.as_bytes(), &dockerfile, &options, &settings, &facts)
        .map_err(|error| dockerfile_failure(path, &text, &error))?;
    for name in &settings.unknown {
        ui.warn(&format!("`{name}`, which `# check=` names, is no rule"));
        if let Some(meant) = nearest_rule(name) {
            ui.hint(&format!("did you mean `{meant}`?"));
        }
    }
    let shown = path.strip_prefix(&project.root).unwrap_or(path);
    if build.json {
        ui::print(&serde_json::to_string_pretty(&as_json(path, &text, &findings)).expect("plain data"));
    } else {
        for finding in findings.iter().take(SHOWN_MAX) {
            ui::print(&report::finding(finding, shown, &text, ui.has_colour_on_stdout()));
            ui::print("");
        }
        if findings.len() > SHOWN_MAX {
            ui::print(&format!("and {} more; `--json` lists them all", findings.len() - SHOWN_MAX));
        }
    }
    if findings.is_empty() {
        ui.say(&format!("{}: nothing found in {}", ui.paint(ui::GREEN, "checked"), shown.display()));
        return Ok(0);
    }
    let count =
        if findings.len() == 1 { "1 finding".to_owned() } else { format!("{} findings", findings.len()) };
    ui.say(&format!("{count} in {}", shown.display()));
    ui.hint("to leave a rule out, write `# check=skip=NAME` at the top of the Dockerfile or right above the instruction");
    Ok(EXIT_FOUND)
}

/// Which rules apply to a Dockerfile.
pub fn settings(
    path: &Path,
    text: &str,
    dockerfile: &Dockerfile,
    build_args: &BTreeMap<String, String>,
) -> Result<Settings, Failure> {
    Settings::new(dockerfile.directives().check.as_deref(), build_args).map_err(|error| {
        let failure = Failure::of(&error)
            .hint("expected `skip=NAME,…`, `experimental=NAME,…` or `error=true`, with `;` between them");
        if error.is_argument {
            return failure.while_doing("the build argument BUILDKIT_DOCKERFILE_CHECK cannot be read");
        }
        let is_directive = |line: &str| {
            line.trim_start().strip_prefix('#').is_some_and(|line| line.trim_start().starts_with("check"))
        };
        match text.lines().position(is_directive) {
            Some(line) => failure.excerpt_lines(path, text, line + 1, line + 1, ""),
            None => failure,
        }
    })
}

/// Ends a build whose Dockerfile says `# check=error=true` when one of Docker's rules finds something.
pub fn end_build(
    ui: &Ui,
    project: &Project,
    text: &str,
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    bases: &BTreeMap<String, BaseImage>,
) -> Result<(), Failure> {
    let path = &project.dockerfile;
    let settings = settings(path, text, dockerfile, &options.build_args)?;
    if !settings.fails_build {
        return Ok(());
    }
    let rules = ignore_file(&project.context, Some(path))?;
    let images = bases.iter().map(|(name, base)| (name.clone(), base.config.clone())).collect();
    let facts =
        Facts { images: &images, pinned: &BTreeSet::new(), ignore: &rules.rules, ignore_file: &rules.name };
    let mut findings = check::check(text.as_bytes(), dockerfile, options, &settings, &facts)
        .map_err(|error| dockerfile_failure(path, text, &error))?;
    findings.retain(|finding| finding.rule.origin() == Origin::Docker);
    let mut names: Vec<&str> = findings.iter().map(|finding| finding.rule.name()).collect();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    for finding in findings.iter().take(SHOWN_MAX) {
        ui.write(&report::finding(finding, path, text, ui.has_colour()));
    }
    Err(Failure::new(format!("`# check=error=true` ends the build: {}", names.join(", ")))
        .hint("mend what was found, or leave a rule out: `# check=skip=NAME`"))
}

/// The configurations of those images that are in the store. Nothing is made for it, not even the store.
fn known_images(
    project: &Project,
    names: BTreeSet<String>,
) -> Result<BTreeMap<String, ImageConfig>, Failure> {
    let root = store_root()?;
    if !root.join("format").exists() {
        return Ok(BTreeMap::new());
    }
    let store = Store::open(&root)?;
    let bases = Bases { store: &store, project, epoch: epoch()?, lock: &OnceCell::new() };
    let mut known = BTreeMap::new();
    for name in names {
        // What names no image cannot be looked up.
        if name.parse::<Reference>().is_err() && name.parse::<Digest>().is_err() {
            continue;
        }
        if let Some(base) = bases.find(&name)? {
            known.insert(name, base.config);
        }
    }
    Ok(known)
}

fn as_json(path: &Path, text: &str, findings: &[Finding]) -> serde_json::Value {
    let lines: Vec<&str> = text.lines().collect();
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            let first = finding.lines.first - 1;
            let source = &lines[first.min(lines.len())..finding.lines.last.min(lines.len())];
            json!({
                "rule": finding.rule.name(),
                "origin": match finding.rule.origin() {
                    Origin::Docker => "docker",
                    Origin::Reproducibility => "ibid",
                },
                "file": path.to_string_lossy(),
                "line_first": finding.lines.first,
                "line_last": finding.lines.last,
                "source": source.join("\n"),
                "message": finding.message,
                "why": finding.rule.why(),
                "fix": finding.fix,
            })
        })
        .collect();
    json!({"schema": 1, "findings": findings})
}

fn nearest_rule(name: &str) -> Option<&'static str> {
    const ALIKE: f64 = 0.75;
    let likeness = |rule: Rule| strsim::normalized_damerau_levenshtein(rule.name(), name);
    let rule = Rule::ALL.into_iter().max_by(|a, b| likeness(*a).total_cmp(&likeness(*b)))?;
    (likeness(rule) > ALIKE).then(|| rule.name())
}
