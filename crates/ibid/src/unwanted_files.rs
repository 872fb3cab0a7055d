//! Warnings about files that hardly belong in an image, when a copy brings them there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ibid_build::context::{IgnoreFile, Selection};
use ibid_build::unwanted::{self, RunFiles, Unwanted, UnwantedKind};

use crate::project::Project;
use crate::ui::{self, Ui};

/// Most warnings of one step.
const SHOWN_MAX: usize = 5;

pub struct UnwantedFiles {
    run: RunFiles,
    /// Where the rules that drop files are to be written.
    ignore_file: String,
    /// What was warned about in this build.
    told: Mutex<BTreeSet<PathBuf>>,
}

impl UnwantedFiles {
    pub fn new(project: &Project, rules: &IgnoreFile) -> Self {
        let in_context = |paths: &[String]| {
            let inside = paths.iter().map(|path| project.root.join(path));
            let inside = inside.filter_map(|path| Some(path.strip_prefix(&project.context).ok()?.to_owned()));
            // The context itself cannot be kept out of it.
            inside.filter(|path| !path.as_os_str().is_empty()).collect()
        };
        let run = RunFiles { data: in_context(&project.data), outputs: in_context(&project.outputs) };
        let ignore_file = if rules.name.is_empty() { ".dockerignore".to_owned() } else { rules.name.clone() };
        Self { run, ignore_file, told: Mutex::default() }
    }

    /// Says what of the files that a step copies hardly belongs in an image, once in a build.
    pub fn warn(&self, ui: &Ui, step: &str, selection: &Selection) {
        let mut found = unwanted::find(selection, &self.run);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|found| told.insert(found.path.clone()));
        if found.is_empty() {
            return;
        }
        let more = found.len().saturating_sub(SHOWN_MAX);
        found.truncate(SHOWN_MAX);
        for found in &found {
            ui.warn(&format!("`{}` brings {} into the image", ui::one_line(step), described(found)));
        }
        if more > 0 {
            ui.warn(&format!("and {more} more such paths; `ibid context` lists what is copied"));
        }
        let rules: Vec<&str> = found.iter().map(|found| found.rule.as_str()).collect();
        ui.hint(&match rules.as_slice() {
            [rule] => format!("to keep it out, write in {}: {rule}", self.ignore_file),
            rules => format!("to keep them out, write in {}:\n  {}", self.ignore_file, rules.join("\n  ")),
        });
    }
}

fn described(found: &Unwanted) -> String {
    let path = found.path.display();
    let size = match found.files {
        1 => ui::bytes(found.bytes),
        files => format!("{files} files, {}", ui::bytes(found.bytes)),
    };
    match found.kind {
        UnwantedKind::Git => format!("the git repository {path} ({size})"),
        UnwantedKind::VirtualEnvironment => format!("the virtual environment {path} ({size})"),
        UnwantedKind::Data => format!("the data {path} ({size}), which each run mounts anyway,"),
        UnwantedKind::Outputs => format!("the outputs {path} ({size}), which change with each run,"),
        UnwantedKind::Large => format!("the large file {path} ({size})"),
        UnwantedKind::DataFormat => format!("the data files {path} ({size})"),
    }
}
