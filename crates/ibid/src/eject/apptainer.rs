//! Four scripts for Apptainer, which runs images on clusters but does not read Dockerfiles.

use ibid_core::gpus::GpuRequest;

use super::quote::{in_double_quotes, shell};
use super::{Error, File, Recipe, SHELL_OF_IMAGE, WRITTEN_BY};

const TOOL: &str = "Apptainer";

pub(super) fn files(recipe: &Recipe) -> Result<Vec<File>, Error> {
    let Some(folder) = &recipe.code_folder else { return Err(Error::UnknownCodeFolder { tool: TOOL }) };
    for path in recipe.outputs.iter().chain(&recipe.data).chain([folder]) {
        if let Some(character) = path.chars().find(|c| matches!(c, ':' | ',')) {
            return Err(Error::Path { path: path.clone(), character, tool: TOOL });
        }
    }
    if let Some(GpuRequest::Count(_) | GpuRequest::Devices(_)) = &recipe.gpus {
        return Err(Error::Gpus { request: "a choice of GPUs".to_owned(), tool: TOOL });
    }
    let name = &recipe.name;
    let run = format!(
        "# Runs the image `{name}` on the code of this project, as `ibid run` does. Arguments go to its program."
    );
    let bash = format!(
        "# Opens a shell in the image `{name}` on the image's own code, as `ibid dev --pegged` does. Arguments go to the shell."
    );
    let dev = format!(
        "# Opens a shell in the image `{name}` with the code of this project mounted over the image's own, as `ibid dev` does.\n\
         # Arguments go to the shell."
    );
    Ok(vec![
        File::script("apptainer_build.sh", build(recipe)),
        File::script("apptainer_run.sh", execute(recipe, folder, &run, true, false)),
        File::script("apptainer_run_bash.sh", execute(recipe, folder, &bash, false, true)),
        File::script("apptainer_dev.sh", execute(recipe, folder, &dev, true, true)),
    ])
}

/// The image's file, beside the project's. Names of images can have slashes.
fn image_file(recipe: &Recipe) -> String {
    shell(&format!("./{}.sif", recipe.name.replace('/', "-")))
}

fn build(recipe: &Recipe) -> String {
    let name = &recipe.name;
    let file = image_file(recipe);
    let mut script = format!(
        "#!/usr/bin/env bash\n\
         # Turns an archive of the image `{name}` into the file that the other scripts run: ./apptainer_build.sh ARCHIVE\n\
         #\n\
         # Apptainer reads no Dockerfile. The archive is what `docker save {name} -o ARCHIVE` or `ibid save {name} -o ARCHIVE` writes,\n\
         # on any computer.\n\
         #\n\
         {WRITTEN_BY}\n\
         set -euo pipefail\n\
         [ $# = 1 ] || {{ echo \"usage: $0 ARCHIVE, as \\`docker save {name} -o ARCHIVE\\` writes it\" >&2; exit 125; }}\n\
         archive=$(realpath -- \"$1\")\n",
    );
    script.push_str(&recipe.change_folder());
    script.push_str(&format!("\nexec apptainer build --force {file} \"docker-archive:$archive\"\n"));
    script
}

fn execute(recipe: &Recipe, folder: &str, about: &str, is_mounted: bool, is_shell: bool) -> String {
    let mut script = recipe.head(&format!(
        "{about}\n#\n# The process is the person who asks, so that files it makes are theirs."
    ));
    let target = in_double_quotes(folder);
    script.push_str("\nmounts=()\n");
    script.push_str(
        "case $PWD in *[:,]*) echo \"apptainer takes the ':' or ',' in $PWD for the end of a path\" >&2; exit 125 ;; esac\n",
    );
    if is_mounted {
        script.push_str(&format!("mounts+=(--bind \"$PWD:{target}\")\n"));
    } else {
        for output in &recipe.outputs {
            let path = in_double_quotes(output);
            script.push_str(&format!(
                "mkdir -p {}\nmounts+=(--bind \"$PWD/{path}:{target}/{path}\")\n",
                shell(&format!("./{output}"))
            ));
        }
    }
    for data in &recipe.data {
        let path = in_double_quotes(data);
        script.push_str(&format!(
            "[ ! -e {} ] || mounts+=(--bind \"$PWD/{path}:{target}/{path}:ro\")\n",
            shell(&format!("./{data}"))
        ));
    }
    let mut options = vec![
        "--containall --writable-tmpfs".to_owned(),
        format!("--pwd {}", shell(folder)),
        "\"${mounts[@]}\"".to_owned(),
    ];
    for (name, value) in &recipe.env {
        // A comma would end the variable in Apptainer's list, so each goes through the environment that it hands on.
        script.push_str(&format!("export {}\n", shell(&format!("APPTAINERENV_{name}={value}"))));
    }
    if recipe.gpus.is_some() {
        script.push_str("gpus=(--nv)\n# AMD's driver has this device.\n[ ! -e /dev/kfd ] || gpus=(--rocm)\n");
        options.push("\"${gpus[@]}\"".to_owned());
    }
    let file = image_file(recipe);
    options.push(if is_shell {
        format!("{file} /bin/sh -c '{SHELL_OF_IMAGE}' sh \"$@\"")
    } else {
        format!("{file} \"$@\"")
    });
    let verb = if is_shell { "exec" } else { "run" };
    let comment =
        if is_shell { "# shellcheck disable=SC2016 # the shell in the image expands it\n" } else { "" };
    script.push_str(&format!("\n{comment}exec apptainer {verb} {}\n", options.join(" \\\n    ")));
    script
}
