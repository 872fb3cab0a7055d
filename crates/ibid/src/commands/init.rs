//! `ibid init`: the files that an existing project needs to be built and run.

use std::path::Path;

use crate::args::{Cli, Init};
use crate::commands::eject;
use crate::eject::Recipe;
use crate::image_build::read_dockerfile;
use crate::init::{self, Survey};
use crate::new_files::{NewFile, write_all};
use crate::project::{Project, image_name_of};
use crate::report::Failure;
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, cli: &Cli, args: &Init) -> Result<u8, Failure> {
    let directory = cli.directory.as_deref().unwrap_or(Path::new("."));
    let root = std::fs::canonicalize(directory)
        .map_err(|error| Failure::of(&error).while_doing(format!("cannot read {}", directory.display())))?;
    // A project that has its Dockerfile only lacks what tells an editor of it.
    if !(args.devcontainer && root.join("Dockerfile").exists()) {
        let survey = Survey::of(&root, &image_name_of(&root)).map_err(failure)?;
        survey.words().iter().for_each(|line| ui.say(line));
        let files = init::files(&survey)
            .into_iter()
            .map(|(name, text)| NewFile { path: root.join(name), text, mode: 0o644 })
            .collect::<Vec<_>>();
        write_all(&files, args.force)?;
        told(directory, &root, &files);
    }
    if args.devcontainer {
        let mut project = Project::find(&root)?;
        eject::leave_out_absent_data(ui, &mut project, "devcontainer.json");
        let (text, dockerfile) = read_dockerfile(&project.dockerfile)?;
        let folder = project.root.join(".devcontainer");
        let failed = |error| eject::failure(&project, &text, error);
        let file = Recipe::of(&project, &dockerfile, &folder).and_then(|recipe| recipe.devcontainer());
        let file = file.map_err(failed)?;
        let files = [NewFile { path: folder.join(file.name), text: file.text, mode: 0o644 }];
        write_all(&files, args.force)?;
        told(directory, &project.root, &files);
    } else {
        ui.hint("`ibid run` builds the image and runs it");
    }
    Ok(0)
}

fn told(directory: &Path, root: &Path, files: &[NewFile]) {
    for file in files {
        let name = file.path.strip_prefix(root).unwrap_or(&file.path);
        ui::print(&crate::project::clean(&directory.join(name)).display().to_string());
    }
}

fn failure(error: init::Error) -> Failure {
    let failure = Failure::of(&error);
    match error {
        init::Error::NotInstallable { hint, .. } => failure.hint(hint),
        init::Error::Python { .. } => failure.hint("write a Dockerfile whose image has it"),
        init::Error::Read { .. } | init::Error::Syntax { .. } => failure,
    }
}
