//! A build as it goes: a line for each step, what the steps write below it, a moving line with the time on
//! a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use ibid_build::exported_cache::Fault;
use ibid_build::{Event, StepName};
use indicatif::ProgressBar;

use crate::ui::{self, Ui};
use crate::unwanted_files::UnwantedFiles;

pub struct BuildProgress<'a> {
    ui: &'a Ui,
    /// Whether steps of several stages may run beside each other, so that each line says whose it is.
    has_stages: bool,
    explains: bool,
    unwanted: UnwantedFiles,
    /// Caches that cannot be used, of which people know.
    faulty: Mutex<BTreeSet<String>>,
    /// The moving lines of running steps, by number.
    bars: Mutex<BTreeMap<usize, ProgressBar>>,
}

impl<'a> BuildProgress<'a> {
    pub fn new(ui: &'a Ui, has_stages: bool, explains: bool, unwanted: UnwantedFiles) -> Self {
        Self { ui, has_stages, explains, unwanted, faulty: Mutex::default(), bars: Mutex::default() }
    }

    pub fn show(&self, event: Event) {
        match event {
            Event::Cached(step) => {
                self.ui.say(&format!("{} {}", self.title(&step), self.ui.paint(ui::DIM, "cached")))
            }
            Event::Started(step, reasons) => {
                self.ui.say(&self.title(&step));
                if self.explains {
                    for reason in reasons {
                        self.ui.write(&format!("    {} {reason}", self.ui.paint(ui::CYAN, "because")));
                    }
                }
                let bar = self.ui.spinner(&format!("[{}/{}]", step.number, step.total));
                self.bars().insert(step.number, bar);
            }
            Event::CacheFault(name, fault) => {
                let mut faulty = self.faulty.lock().unwrap_or_else(PoisonError::into_inner);
                if faulty.insert(name.to_owned()) {
                    let state =
                        if matches!(fault, Fault::Registry(_)) { "cannot be used" } else { "is damaged" };
                    self.ui
                        .warn(&format!("the cache in {name} {state}, and what it lacks is built: {fault}"));
                }
            }
            Event::Copying(step, selection) => self.unwanted.warn(self.ui, step.text, selection),
            Event::Fetching(step, line) => {
                let number = self.ui.paint(ui::BOLD, &format!("[{}/{}]", step.number, step.total));
                self.ui.say(&format!("{number} {}", self.ui.paint(ui::DIM, line)));
            }
            Event::Output(step, seconds, line) => {
                let whose = if self.has_stages { format!("{:>3} ", step.number) } else { String::new() };
                let time = self.ui.paint(ui::DIM, &format!("{whose}{seconds:7.1}"));
                self.ui.say(&format!("{time} {line}"));
            }
            Event::Finished(step, seconds) => {
                if let Some(bar) = self.bars().remove(&step.number) {
                    bar.finish_and_clear();
                }
                self.ui.say(&format!(
                    "{} {}",
                    self.ui.paint(ui::BOLD, &format!("[{}/{}]", step.number, step.total)),
                    self.ui.paint(ui::DIM, &format!("done in {}", ui::seconds(seconds)))
                ));
            }
        }
    }

    /// Takes the moving lines away: something else is to be shown.
    pub fn clear(&self) {
        for bar in std::mem::take(&mut *self.bars()).into_values() {
            bar.finish_and_clear();
        }
    }

    fn title(&self, step: &StepName) -> String {
        let stage = step.stage.map(|stage| format!("{stage} ")).unwrap_or_default();
        let number = self.ui.paint(ui::BOLD, &format!("[{stage}{}/{}]", step.number, step.total));
        format!("{number} {}", ui::one_line(step.text))
    }

    fn bars(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, ProgressBar>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BuildProgress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}
