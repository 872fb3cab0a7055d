//! What is said about the container of a run, before its start and after its end.

use std::path::Path;

use ibid_core::digest::Digest;
use ibid_core::run::{ContainerOptions, Network};
use ibid_engine::Engine;
use ibid_engine::native::Ended;
use ibid_sandbox::ExitStatus;
use ibid_store::{CopiedFiles, Copying, Store};

use crate::project::Project;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Says why nobody else could find a run while it went on.
pub fn warn_of_unknown(ui: &Ui, ended: &Ended) {
    if let Some(error) = &ended.unknown {
        let why = Failure::of(error).summary();
        ui.warn(&format!("`ibid ps` and `ibid exec` did not know of this run: {why}"));
    }
}

/// Takes out limits that cannot be kept here where that was allowed, with a warning; says which ports are reachable anyhow.
pub fn narrate(ui: &Ui, options: &mut ContainerOptions, engine: &Engine) {
    let limits = &mut options.limits;
    if let (true, Engine::Remote { engine, .. }) = (limits.best_effort, engine) {
        let mut lost = Vec::new();
        for (name, limit) in [
            ("processors", &mut limits.millicpus),
            ("memory", &mut limits.memory_bytes),
            ("processes", &mut limits.pids),
        ] {
            if limit.is_some() && engine.lacking_limits().contains(&name) {
                *limit = None;
                lost.push(name);
            }
        }
        if !lost.is_empty() {
            let names = lost.join(", ");
            ui.warn(&format!(
                "{} keeps no limits of {names} here, so the run goes on without",
                engine.kind()
            ));
        }
    } else if limits.best_effort && limits.any() {
        let wanted = ibid_sandbox::Limits {
            millicpus: limits.millicpus,
            memory_bytes: limits.memory_bytes,
            pids: limits.pids,
        };
        let (kept, reasons) = ibid_sandbox::achievable(&wanted);
        let names: Vec<&str> = reasons.iter().map(|(name, _)| *name).collect();
        if let Some((_, reason)) = reasons.first() {
            ui.warn(&format!("the run goes on without limits of {}: {reason}", names.join(", ")));
        }
        (limits.millicpus, limits.memory_bytes, limits.pids) = (kept.millicpus, kept.memory_bytes, kept.pids);
    }
    if options.network == Network::Host && !options.ports.is_empty() {
        let ports: Vec<String> = options.ports.iter().map(|port| port.host.to_string()).collect();
        ui.say(&format!(
            "the run has this machine's network, so what it listens on is reachable here without --publish: {}",
            ports.join(", ")
        ));
    }
}

/// What may stand behind a program's end: who runs out of memory is killed by the kernel without a word.
pub fn explain_end(ui: &Ui, options: &ContainerOptions, status: ExitStatus) {
    let is_killed = matches!(status, ExitStatus::Signal(9) | ExitStatus::Code(137));
    if let (true, Some(bytes)) = (is_killed, options.limits.memory_bytes) {
        ui.hint(&format!(
            "the kernel ends programs so that need more memory than --memory gives them, here {} MiB",
            bytes >> 20
        ));
    }
}

/// Says why the first run of somebody else's image takes longer.
pub fn on_copy(ui: &Ui) -> impl Fn(Copying) {
    let plural = |files: usize| if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    move |copying| {
        match copying {
        Copying::Starts(CopiedFiles { files, bytes }) => ui.say(&format!(
            "the run's user has another id in the image than you: copying {} of theirs ({}), once, so that they are yours in its runs",
            plural(files),
            ui::bytes(bytes)
        )),
        Copying::LeftOut(files) => ui.warn(&format!(
            "{} of theirs cannot be read in a store of somebody else's, and stay as they are",
            plural(files)
        )),
    }
    }
}

/// Says what of the build the mounted code hides, and how to keep it visible.
pub fn warn_of_hidden(
    ui: &Ui,
    store: &Store,
    image: &Digest,
    folder: &str,
    project: &Project,
) -> Result<(), Failure> {
    let built = ibid_engine::hidden::built(store, image, folder).map_err(|error| Failure::of(&error))?;
    let is_kept = |path: &str| project.keep.iter().any(|kept| Path::new(path).starts_with(kept));
    let hidden: Vec<&String> =
        built.iter().filter(|path| !is_kept(path) && !project.root.join(path).exists()).collect();
    let Some(first) = hidden.first() else { return Ok(()) };
    let more = match hidden.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    ui.warn(&format!("the mounted code hides `{first}`{more}, which the build put into {folder}"));
    let known = project.keep.iter().chain(hidden.into_iter().take(KEEP_SHOWN));
    let list = known.map(|path| format!("\"{path}\"")).collect::<Vec<_>>().join(", ");
    ui.hint(&format!("to keep it visible, in ibid.toml:\n  [code]\n  keep = [{list}]"));
    Ok(())
}

/// How much is proposed in one line.
const KEEP_SHOWN: usize = 5;
