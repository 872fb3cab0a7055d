//! Control groups: only limits of memory, processors and processes need them.

use super::{Finding, State};
use crate::cgroup::{Controller, obstacle};

/// Whether a run can be given limits, by the same look as a run's.
pub fn cgroups() -> Finding {
    let ability = "cgroups";
    let obstacles: Vec<_> = Controller::ALL
        .into_iter()
        .filter_map(|controller| Some((controller.name(), obstacle(controller)?)))
        .collect();
    let Some((_, first)) = obstacles.first() else {
        return Finding::works(ability, "runs can be given limits of cpu, memory and pids");
    };
    let names: Vec<&str> = obstacles.iter().map(|(name, _)| *name).collect();
    let detail = format!("no limits of {}: {first}", names.join(", "));
    let cost = "`--cpus`, `--memory` or `--pids` are refused, unless with `--limits=best-effort`";
    Finding::lacks(ability, State::Degraded, detail, cost, first.mend())
}
