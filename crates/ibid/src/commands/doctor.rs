//! `ibid doctor`: what this machine can do, and the command that mends what it cannot.

use ibid_sandbox::probe::{self, Level, State};
use serde_json::json;

use crate::args::Doctor;
use crate::engines;
use crate::gpus;
use crate::image_build::store_root;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Exit code when something that ibid cannot do without is missing.
const EXIT_MISSING: u8 = 1;

pub fn main(ui: &Ui, doctor: &Doctor) -> Result<u8, Failure> {
    let root = store_root()?;
    // The store need not exist yet: its file system is what counts.
    let folder = root.ancestors().find(|folder| folder.is_dir()).unwrap_or(&root);
    let mut findings = probe::all(folder, &gpus::host()?);
    findings.extend(engines::findings());
    let level = probe::level();
    if doctor.json {
        let document = json!({"schema": 1, "level": level.map(|level| level as u8), "findings": findings});
        ui::print(&serde_json::to_string_pretty(&document).expect("findings are plain data"));
    } else {
        ui::print(match level {
            Some(Level::Root) => "level 1 of docs/privileges.md: root",
            Some(Level::ManyIds) => "level 2 of docs/privileges.md: a user with subordinate ids",
            Some(Level::OneId) => "level 3 of docs/privileges.md: a user with one id",
            None => "no level of docs/privileges.md: containers cannot be made here",
        });
        let width = findings.iter().map(|finding| finding.ability.len()).max().unwrap_or(0);
        for finding in &findings {
            let (style, word) = match finding.state {
                State::Works => (ui::GREEN, "works"),
                State::Degraded => (ui::YELLOW, "degraded"),
                State::Missing => (ui::RED, "missing"),
            };
            let word = ui.paint_stdout(style, &format!("{word:8}"));
            ui::print(&format!("{:width$}  {word}  {}", finding.ability, finding.detail));
            if let Some(cost) = &finding.cost {
                ui::print(&format!("{:width$}            {cost}", ""));
            }
            if let Some(mend) = &finding.mend {
                ui::print(&format!("{:width$}            mend: {mend}", ""));
            }
        }
    }
    Ok(if findings.iter().all(probe::Finding::usable) { 0 } else { EXIT_MISSING })
}
