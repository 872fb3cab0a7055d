//! Which engine executes a run: `--engine`, else `IBID_ENGINE`, else `[engine]` of ibid.toml, else ibid's own.

use clap::ValueEnum;
use ibid_core::digest::Digest;
use ibid_engine::identity::HostUser;
use ibid_engine::{Engine, remote};
use ibid_sandbox::probe::Finding;
use ibid_store::Store;

use crate::project::Project;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// The engine in place of that of ibid.toml.
const VARIABLE: &str = "IBID_ENGINE";

/// `--engine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineChoice {
    Native,
    Docker,
    Podman,
}

/// The engine of a run of a project, connected. `asked` is the command line's.
pub fn choose(
    ui: &Ui,
    asked: Option<EngineChoice>,
    project: &Project,
    host: &HostUser,
) -> Result<Engine, Failure> {
    let choice = match asked {
        Some(choice) => Some(choice),
        None => of_variable(std::env::var(VARIABLE).ok().as_deref())?.or(project.engine),
    };
    connect(ui, choice.unwrap_or(EngineChoice::Native), project, host)
}

/// That engine, connected.
pub fn connect(ui: &Ui, choice: EngineChoice, project: &Project, host: &HostUser) -> Result<Engine, Failure> {
    let kind = match choice {
        EngineChoice::Native => return Ok(Engine::Native),
        EngineChoice::Docker => remote::Kind::Docker,
        EngineChoice::Podman => remote::Kind::Podman,
    };
    let engine = remote::Engine::connect(kind, host, &|name| std::env::var(name).ok())
        .map_err(|error| failure(&error))?;
    ui.detail(&format!("{kind} {}", engine.words()));
    Ok(Engine::Remote { engine: Box::new(engine), name: remote::Name::of_project(&project.name) })
}

/// Says that the engine is given the image, where that has to be.
pub fn narrate(ui: &Ui, engine: &Engine, store: &Store, image: &Digest) -> Result<(), Failure> {
    if let Engine::Remote { engine: remote, .. } = engine
        && engine.lacks(store, image).map_err(|error| Failure::of(&error))?
    {
        ui.say(&format!("{} gets the layers that it lacks of {}", remote.kind(), ui::short_digest(image)));
    }
    Ok(())
}

/// Whether the other engines can be used here.
pub fn findings() -> [Finding; 2] {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let host = HostUser { uid, gid, name: None };
    [remote::Kind::Docker, remote::Kind::Podman]
        .map(|kind| remote::probe::finding(kind, &host, &|name| std::env::var(name).ok()))
}

fn of_variable(text: Option<&str>) -> Result<Option<EngineChoice>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    EngineChoice::from_str(text, false)
        .map(Some)
        .map_err(|_| Failure::new(format!("{VARIABLE}: expected native, docker or podman, not `{text}`")))
}

/// What an engine did not do, and what to do about it.
pub fn failure(error: &remote::Error) -> Failure {
    let failure = Failure::of(error);
    match error.mend() {
        Some(mend) => failure.hint(mend),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_an_engine() {
        let of = |text| of_variable(text).ok();
        assert_eq!(of(None), Some(None));
        assert_eq!(of(Some("")), Some(None));
        assert_eq!(of(Some("podman")), Some(Some(EngineChoice::Podman)));
        assert_eq!(of(Some("Docker")), None);
    }
}
