//! Whether an engine can be used, for `ibid doctor`.

use ibid_sandbox::probe::{Finding, State};

use super::{Engine, Error, Kind};
use crate::identity::HostUser;

/// What was found of an engine. ibid can do without either, so none of it is [`State::Missing`].
pub fn finding(kind: Kind, host: &HostUser, variable: &dyn Fn(&str) -> Option<String>) -> Finding {
    let ability = match kind {
        Kind::Docker => "docker engine",
        Kind::Podman => "podman engine",
    };
    let option = kind.to_string().to_lowercase();
    match Engine::connect(kind, host, variable) {
        Ok(engine) => {
            Finding { ability, state: State::Works, detail: engine.words(), cost: None, mend: None }
        }
        Err(error) => Finding {
            ability,
            state: State::Degraded,
            detail: said(&error),
            cost: Some(format!("`--engine {option}` is refused; ibid's own engine needs it for nothing")),
            mend: error.mend(),
        },
    }
}

/// An error with what the system says, in one line.
fn said(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_costs_its_option_only() {
        let host = HostUser { uid: 77, gid: 77, name: None };
        let nowhere = |name: &str| (name == "CONTAINER_HOST").then(|| "unix:///nowhere/p.sock".to_owned());
        let finding = finding(Kind::Podman, &host, &nowhere);
        assert_eq!((finding.ability, finding.state), ("podman engine", State::Degraded));
        assert!(
            finding
                .detail
                .starts_with("cannot reach Podman at /nowhere/p.sock, which CONTAINER_HOST names: ")
        );
        assert!(finding.mend.is_some_and(|mend| mend.contains("podman system service")));
    }
}
