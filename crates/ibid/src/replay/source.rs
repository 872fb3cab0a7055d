//! Where a recorded run comes from: the project's ledger, or an archive.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ibid_ledger::ledger::Ledger;
use ibid_ledger::record::{Output, Record};
use ibid_ledger::run_archive::{self, receive};
use ibid_ledger::run_id::RunId;
use ibid_ledger::verdict::{self, Curves, Rules, Verdict, Which};
use ibid_ledger::{metrics, output_content};
use ibid_store::Store;
use rustix::fs::OFlags;

use super::stage::Attempt;
use crate::project::Project;
use crate::project_ledger::{self, ProjectLedger};
use crate::recorded_options;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Folder of the ledger in which runs are repeated.
const REPLAYS: &str = "replays";

/// A recorded run, and where what belongs to it is.
pub struct Source {
    pub ledger: Ledger,
    pub record: Record,
    /// The project; none for a run from elsewhere.
    pub project: Option<Project>,
    /// Whether its data came with it.
    pub has_data: bool,
    /// The folder that its data is relative to.
    pub data_from: PathBuf,
    /// The folder that its outputs are relative to, if they are still there.
    outputs_from: PathBuf,
    /// What came with an archive, until the end.
    _received: Option<Folder>,
}

impl Source {
    pub fn open(ui: &Ui, store: &Store, directory: Option<&Path>, text: &str) -> Result<Self, Failure> {
        let path = Path::new(text);
        let is_id = text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id && (text.contains(['/', '.']) || path.is_file()) {
            Self::of_file(ui, store, directory, path)
        } else {
            Self::of_ledger(directory, text)
        }
    }

    fn of_ledger(directory: Option<&Path>, text: &str) -> Result<Self, Failure> {
        let project = Project::find(directory.unwrap_or(Path::new(".")))?;
        let of_project = ProjectLedger::of(directory)?;
        let id = of_project.find(text)?;
        let ledger = of_project.ledger;
        let record = ledger.read(id).map_err(|error| {
            project_ledger::failure(error).while_doing(format!("the run {id} cannot be replayed"))
        })?;
        let root = project.root.clone();
        let source = Self {
            ledger,
            record,
            project: Some(project),
            has_data: false,
            data_from: root.clone(),
            outputs_from: root,
            _received: None,
        };
        source.check_data().map(|()| source)
    }

    fn of_file(ui: &Ui, store: &Store, directory: Option<&Path>, path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| {
            let failure = Failure::of(&error).while_doing(format!("cannot open {}", path.display()));
            match error.kind() {
                io::ErrorKind::NotFound => failure
                    .hint("a run is named by the start of its twelve hexadecimal digits, a file as `ibid export` wrote it"),
                _ => failure,
            }
        })?;
        // Beside the store, and no project's: what comes from elsewhere is mixed with nothing.
        let root = store.root().join("imported");
        fs::create_dir_all(&root).map_err(|error| {
            Failure::of(&error).while_doing(format!("cannot make the folder {}", root.display()))
        })?;
        let ledger = Ledger::of(&root);
        let id = RunId::random().map_err(|error| Failure::of(&error))?;
        let into = Folder::new(&ledger, id)?;
        let received = receive(file, &ledger, store, &into.path).map_err(|error| refused(&error, path))?;
        ui.say(&format!("received run {} from {}", received.record.id, path.display()));
        let data_from = if received.has_data || received.record.data.is_empty() {
            into.path.join("data")
        } else if let Some(directory) = directory {
            Project::find(directory)?.root
        } else {
            // Not from wherever one happens to be: the record says which paths, and it may be anybody's.
            return Err(lacks_data(&received.record));
        };
        let source = Self {
            ledger,
            record: received.record,
            project: None,
            has_data: received.has_data,
            data_from,
            outputs_from: into.path.join("outputs"),
            _received: Some(into),
        };
        source.check_options()?;
        source.check_data().map(|()| source)
    }

    /// Without its data a run would not be the same run.
    fn check_data(&self) -> Result<(), Failure> {
        for data in &self.record.data {
            let path = self.data_from.join(&data.path);
            let found = if self.project.is_some() {
                fs::metadata(&path).map(drop)
            } else {
                // What came with a run from elsewhere may be a link to what is none of its business.
                output_content::open_beneath(&self.data_from, &data.path, OFlags::PATH).map(drop)
            };
            if let Err(error) = found {
                return Err(Failure::of(&error).while_doing(format!(
                    "the run {} read {}, which cannot be mounted from {}",
                    self.record.id,
                    data.path,
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// A run from elsewhere is given nothing of this machine, and no more rights than any.
    fn check_options(&self) -> Result<(), Failure> {
        match recorded_options::of_this_machine(&self.record.options) {
            Some(name) => Err(Failure::new(format!(
                "the run {} was given `--{name}`, which one from elsewhere does not get here",
                self.record.id
            ))),
            None => Ok(()),
        }
    }

    /// Compares the recorded run with a repetition.
    pub fn compare(&self, rules: &Rules, attempt: &Attempt) -> Result<Verdict, Failure> {
        let curves = curves(&self.ledger, self.record.id)?;
        let run = self.ledger.run_folder(self.record.id);
        let mut content = |which, output: &Output| match which {
            Which::First => match output_content::kept(&run, output) {
                Some(content) => Ok(content),
                None => output_content::read(&self.outputs_from, output)
                    .map_err(|reason| format!("its first content is no longer there ({reason})")),
            },
            Which::Second => {
                output_content::read(attempt.folder(), output).map_err(|error| error.to_string())
            }
        };
        let second = attempt.curves(&self.ledger)?;
        Ok(verdict::compare(rules, &self.record, &attempt.record, Some((&curves, &second)), &mut content))
    }
}

fn lacks_data(record: &Record) -> Failure {
    let paths: Vec<&str> = record.data.iter().map(|data| data.path.as_str()).collect();
    Failure::new(format!("the run {} read {}, which is not in the file", record.id, paths.join(", "))).hint(
        format!(
            "`ibid export {} --data` puts it there; `-C DIR` gives the run what is under that name in DIR",
            record.id
        ),
    )
}

fn refused(error: &run_archive::Error, path: &Path) -> Failure {
    let failure = Failure::of(error).while_doing(format!("cannot replay {}", path.display()));
    match error {
        run_archive::Error::Foreign { .. }
        | run_archive::Error::Store(ibid_store::Error::InvalidArchive { .. }) => {
            failure.hint("it reads what `ibid export RUN -o FILE` writes")
        }
        run_archive::Error::Newer { .. } => failure.hint("a newer ibid wrote it, and can replay it"),
        _ => failure,
    }
}

/// Every value of each metric of a run.
pub fn curves(ledger: &Ledger, id: RunId) -> Result<Curves, Failure> {
    let points = metrics::read(&ledger.run_folder(id)).map_err(|error| Failure::of(&error))?;
    let mut curves = Curves::new();
    for point in points {
        curves.entry(point.name).or_default().push(point.value);
    }
    Ok(curves)
}

/// A folder in the ledger that is gone at the end.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    pub fn new(ledger: &Ledger, id: RunId) -> Result<Self, Failure> {
        ledger.prepare().map_err(|error| Failure::of(&error))?;
        let path = ledger.folder().join(REPLAYS).join(id.to_string());
        fs::create_dir_all(&path).map_err(|error| {
            Failure::of(&error).while_doing(format!("cannot make the folder {}", path.display()))
        })?;
        Ok(Self { path })
    }

    /// Moves it to where a person wants it.
    pub fn keep(&self, ui: &Ui, to: &Path) -> Result<(), Failure> {
        fs::rename(&self.path, to).map_err(|error| {
            Failure::of(&error)
                .while_doing(format!("cannot keep {} as {}", self.path.display(), to.display()))
                .hint("DIR must be absent or an empty folder, on the project's file system")
        })?;
        ui.say(&format!("{} {}", ui.paint(ui::BOLD, "kept"), to.display()));
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in nobody's way.
        let _ = fs::remove_dir_all(&self.path);
    }
}
