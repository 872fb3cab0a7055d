//! `ibid eject`: scripts that do for the project, with plain tools, what ibid does.

use std::fs;
use std::path::Path;

use crate::args::{Cli, Eject};
use crate::eject::{self, Recipe, Tool};
use crate::image_build::{dockerfile_failure, read_dockerfile};
use crate::new_files::{NewFile, write_all};
use crate::project::Project;
use crate::report::Failure;
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, cli: &Cli, args: &Eject) -> Result<u8, Failure> {
    let directory = cli.directory.as_deref().unwrap_or(Path::new("."));
    let mut project = Project::find(directory)?;
    let (text, dockerfile) = read_dockerfile(&project.dockerfile)?;
    let folder = match &args.output {
        Some(folder) => {
            let folder = directory.join(folder);
            let failed = |error: std::io::Error| {
                Failure::of(&error).while_doing(format!("cannot make the folder {}", folder.display()))
            };
            fs::create_dir_all(&folder).map_err(failed)?;
            fs::canonicalize(&folder).map_err(failed)?
        }
        None => project.root.clone(),
    };
    let tool = match (args.podman, args.apptainer, args.compose) {
        (true, ..) => Tool::Podman,
        (_, true, _) => Tool::Apptainer,
        (_, _, true) => Tool::Compose,
        _ => Tool::Docker,
    };
    if tool == Tool::Compose {
        leave_out_absent_data(ui, &mut project, "compose.yaml");
    }
    let failed = |error: eject::Error| failure(&project, &text, error);
    let files = Recipe::of(&project, &dockerfile, &folder).map_err(failed)?.files(tool).map_err(failed)?;
    let files: Vec<NewFile> = files
        .into_iter()
        .map(|file| NewFile {
            path: folder.join(file.name),
            text: file.text,
            mode: if file.is_executable { 0o755 } else { 0o644 },
        })
        .collect();
    write_all(&files, args.force)?;
    let shown = args.output.as_ref().map_or(directory.to_owned(), |output| directory.join(output));
    for file in &files {
        let name = file.path.file_name().unwrap_or_default();
        ui::print(&crate::project::clean(&shown.join(name)).display().to_string());
    }
    if tool == Tool::Apptainer {
        ui.warn("the scripts for Apptainer are untested: ibid's own tests have no Apptainer to run them");
    }
    for reference in project.bases.keys() {
        ui.say(&format!("`{reference}` is made from packages by ibid; other tools take it from a registry"));
        ui.hint(&format!("to have the same one: `ibid save {reference} -o - | {}`", load_command(tool)));
    }
    Ok(0)
}

fn load_command(tool: Tool) -> &'static str {
    match tool {
        Tool::Podman => "podman load",
        Tool::Docker | Tool::Compose | Tool::Apptainer => "docker load",
    }
}

/// Takes out data that is not there, for a file whose reader starts no container that lacks a mount, or makes the folder.
pub fn leave_out_absent_data(ui: &Ui, project: &mut Project, file: &str) {
    let root = project.root.clone();
    let (there, absent): (Vec<String>, Vec<String>) =
        std::mem::take(&mut project.data).into_iter().partition(|data| root.join(data).exists());
    project.data = there;
    if !absent.is_empty() {
        ui.say(&format!("{} is not there, so {file} does not mount it", absent.join(", ")));
    }
}

/// Words it.
pub fn failure(project: &Project, text: &str, error: eject::Error) -> Failure {
    match &error {
        eject::Error::Dockerfile(error) => dockerfile_failure(&project.dockerfile, text, error),
        eject::Error::NoCodeFolder => Failure::of(&error)
            .hint("add `WORKDIR /code` to the Dockerfile, or to ibid.toml:\n  [code]\n  mount = \"/code\""),
        eject::Error::UnknownCodeFolder { .. } => {
            Failure::of(&error).hint("write it into ibid.toml:\n  [code]\n  mount = \"/code\"")
        }
        eject::Error::Path { .. } => Failure::of(&error).hint("give it another name"),
        eject::Error::Gpus { .. } => Failure::of(&error)
            .hint("`gpus = \"all\"` in ibid.toml, or the scripts for Docker or Podman (`--podman`)"),
    }
}
