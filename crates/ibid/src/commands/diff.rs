//! `ibid diff`: what differs between two runs, or between two images.

use ibid_ledger::run_id::RunId;

use super::{diff_images, diff_runs};
use crate::args::{Cli, Diff};
use crate::image_build::{enter_user_namespace, find_image, open_store};
use crate::project_ledger::ProjectLedger;
use crate::report::Failure;
use crate::ui::Ui;

/// What a word can be.
struct Meaning {
    run: Result<RunId, Failure>,
    is_image: bool,
}

pub fn main(ui: &Ui, cli: &Cli, diff: &Diff) -> Result<u8, Failure> {
    // Before the ledger is read on threads.
    let entered = enter_user_namespace();
    let project = ProjectLedger::of(cli.directory.as_deref());
    let store = entered.and_then(|_| open_store());
    let meaning = |text: &str| Meaning {
        run: match &project {
            // No run is called so.
            _ if text.contains(':') => Err(Failure::new(format!("`{text}` is no run"))),
            Ok(project) => project.find(text),
            Err(error) => Err(Failure::new(error.summary())),
        },
        // All digits of a run are a run.
        is_image: !is_whole_id(text) && store.as_ref().is_ok_and(|store| find_image(store, text).is_ok()),
    };
    let (first, second) = (meaning(&diff.first), meaning(&diff.second));
    match (&first, &second, &project) {
        (Meaning { run: Ok(_), is_image: true }, Meaning { run: Ok(_), is_image: true }, _) => {
            Err(Failure::new(format!("`{}` and `{}` are runs and images", diff.first, diff.second)).hint(
                "for the runs, give all 12 digits of their ids; for the images, write `sha256:` in front",
            ))
        }
        (Meaning { run: Ok(a), .. }, Meaning { run: Ok(b), .. }, Ok(project)) => {
            diff_runs::main(ui, diff, project, *a, *b, store.as_ref().map_err(Failure::summary))
        }
        (Meaning { is_image: true, .. }, Meaning { is_image: true, .. }, _) => {
            diff_images::main(ui, diff, &store?)
        }
        (Meaning { run: Ok(_), .. }, Meaning { is_image: true, .. }, _) => {
            Err(mixed(&diff.first, &diff.second))
        }
        (Meaning { is_image: true, .. }, Meaning { run: Ok(_), .. }, _) => {
            Err(mixed(&diff.second, &diff.first))
        }
        _ => {
            let text = if first.run.is_err() && !first.is_image { &diff.first } else { &diff.second };
            // What stands in the way of looking comes first.
            let store = store?;
            let failure = match find_image(&store, text) {
                Err(_) => Failure::new(format!("`{text}` is no run of this project and no image")),
                Ok(_) => Failure::new(format!("`{text}` is no run of this project")),
            };
            Err(failure
                .hint("`ibid runs` and `ibid images` list what there is; `-C DIR` picks another project"))
        }
    }
}

fn mixed(run: &str, image: &str) -> Failure {
    Failure::new(format!("`{run}` is a run and `{image}` is an image"))
        .hint(format!("give two of a kind; `ibid show {run}` says which image the run had"))
}

fn is_whole_id(text: &str) -> bool {
    text.parse::<RunId>().is_ok()
}
