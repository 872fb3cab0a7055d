//! Where a run writes its outputs, and what it is told of that.

use std::fs;
use std::path::Path;

use ibid_ledger::ledger::{FOLDER, Ledger};
use ibid_ledger::run_id::RunId;

use crate::project::Project;
use crate::report::Failure;

/// The folder that runs get their own in when the project names none.
const DEFAULT: &str = "output";

/// The output folders of one run, relative to the project.
pub struct OutputFolders {
    /// All that it may write outputs to.
    pub folders: Vec<String>,
    /// The one that is this run's alone.
    pub own: Option<String>,
}

impl OutputFolders {
    /// The project's; with `isolate`, a new one in the first of them is made.
    pub fn new(project: &Project, id: RunId, isolate: bool) -> Result<Self, Failure> {
        let folders = names(project, isolate);
        if !isolate {
            return Ok(Self { folders, own: None });
        }
        let own = format!("{}/{id}", folders[0]);
        let path = project.root.join(&own);
        let failed = |error: std::io::Error| {
            Failure::of(&error).while_doing(format!("cannot make the folder {}", path.display()))
        };
        let made: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        fs::create_dir_all(&path).map_err(failed)?;
        // They are the person's whose project it is, though root may run it.
        let ledger = Ledger::of(&project.root);
        made.iter().try_for_each(|folder| ledger.give(folder)).map_err(|error| Failure::of(&error))?;
        Ok(Self { folders, own: Some(own) })
    }

    /// The variables that tell the program: `IBID_RUN_ID`, and `IBID_OUTPUT_DIR` where it has such a folder. `code` is the folder in the
    /// image below which outputs are.
    pub fn env(&self, id: RunId, code: Option<&str>) -> Vec<(String, String)> {
        let mut env = vec![("IBID_RUN_ID".to_owned(), id.to_string())];
        if let (Some(folder), Some(code)) = (self.own.as_ref().or(self.folders.first()), code) {
            env.push(("IBID_OUTPUT_DIR".to_owned(), format!("{code}/{folder}")));
        }
        env
    }
}

/// The folders that runs write, `isolate` or not.
pub fn names(project: &Project, isolate: bool) -> Vec<String> {
    let mut folders = project.outputs.clone();
    if isolate && folders.is_empty() {
        folders.push(DEFAULT.to_owned());
    }
    folders
}

/// What the program must not change of a mounted project: the ledger, which is made if need be. Where that cannot be, there
/// will be no record, and recording says why.
pub fn protected(project: &Project) -> Vec<String> {
    match Ledger::of(&project.root).prepare() {
        Ok(()) => vec![FOLDER.to_owned()],
        Err(_) => Vec::new(),
    }
}
