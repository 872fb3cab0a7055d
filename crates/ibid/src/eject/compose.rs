//! One file for Docker Compose, with a service for each way to start the image.

use ibid_core::gpus::{GpuDevice, GpuRequest};

use super::quote::{self, compose as text};
use super::{Error, File, Recipe, SHELL_OF_IMAGE};

const TOOL: &str = "Compose";

pub(super) fn files(recipe: &Recipe) -> Result<Vec<File>, Error> {
    let Some(folder) = &recipe.code_folder else { return Err(Error::UnknownCodeFolder { tool: TOOL }) };
    let mut yaml = format!(
        "# Builds and runs the image `{name}` as ibid does. Written by `ibid eject`; it does not need ibid.\n\
         #\n\
         #     export USER_ID=$(id -u) GROUP_ID=$(id -g)\n\
         #     docker compose build run\n\
         #     docker compose run --rm run --n-epochs 5   # `ibid run`: the code of this project, mounted over the image's own\n\
         #     docker compose run --rm dev                # `ibid dev`: a shell on it\n\
         #     docker compose run --rm bash               # `ibid dev --pegged`: a shell on the image's own code\n\
         #\n\
         # USER_ID and GROUP_ID are the person's, so that files the program makes are theirs. Root builds with ids that its image\n\
         # can have: docker compose build --build-arg USER_ID=1000 --build-arg GROUP_ID=1000 run\n\
         services:\n",
        name = recipe.name
    );
    let start_shell = format!("    entrypoint: [\"/bin/sh\", \"-c\", {}, \"sh\"]\n", text(SHELL_OF_IMAGE));
    if !recipe.outputs.is_empty() {
        let folders: Vec<String> =
            recipe.outputs.iter().map(|output| quote::shell(&here(recipe, output))).collect();
        yaml = yaml.replace(
            "services:\n",
            &format!(
                "#\n# `bash` needs the folder of the outputs, which Compose would make root's: mkdir -p {}\nservices:\n",
                folders.join(" ")
            ),
        );
    }
    let mut service = |name: &str, is_mounted: bool, more: &str| -> Result<(), Error> {
        yaml.push_str(&format!("  {name}:\n    image: {}\n", text(&recipe.name)));
        yaml.push_str(&build(recipe));
        yaml.push_str(
            "    user: \"${USER_ID:?export USER_ID=$$(id -u)}:${GROUP_ID:?export GROUP_ID=$$(id -g)}\"\n",
        );
        yaml.push_str("    network_mode: host\n");
        yaml.push_str("    # A limit, as of half of the machine's memory in ibid.\n    shm_size: 16gb\n");
        yaml.push_str("    stdin_open: true\n");
        yaml.push_str(more);
        yaml.push_str(&volumes(recipe, folder, is_mounted));
        yaml.push_str(&environment(recipe));
        yaml.push_str(&gpus(recipe)?);
        Ok(())
    };
    service("run", true, "")?;
    service("dev", true, &start_shell)?;
    service("bash", false, &start_shell)?;
    Ok(vec![File { name: "compose.yaml".to_owned(), text: yaml, is_executable: false }])
}

/// A path of the project, seen from the file's folder.
fn here(recipe: &Recipe, path: &str) -> String {
    let way = if recipe.to_project.is_empty() { "." } else { &recipe.to_project };
    match path {
        "" | "." => way.to_owned(),
        path => format!("{way}/{path}"),
    }
}

fn build(recipe: &Recipe) -> String {
    let mut lines = format!("    build:\n      context: {}\n", text(&here(recipe, &recipe.context)));
    if !recipe.is_usual_dockerfile {
        // Compose looks for it from the context on.
        let up = "../".repeat(recipe.context.split('/').filter(|part| *part != "." && *part != "..").count());
        lines.push_str(&format!("      dockerfile: {}\n", text(&format!("{up}{}", recipe.dockerfile))));
    }
    if recipe.person_args.is_empty() && recipe.args.is_empty() {
        return lines;
    }
    lines.push_str("      args:\n");
    for name in &recipe.person_args {
        lines.push_str(&format!("        {name}: \"${{{name}}}\"\n"));
    }
    for (name, value) in &recipe.args {
        lines.push_str(&format!("        {}: {}\n", text(name), text(value)));
    }
    lines
}

fn volumes(recipe: &Recipe, folder: &str, is_mounted: bool) -> String {
    let mut lines = String::new();
    let mut mount = |path: &str, read_only: bool| {
        let target = if path.is_empty() { folder.to_owned() } else { format!("{folder}/{path}") };
        lines.push_str(&format!(
            "      - type: bind\n        source: {}\n        target: {}\n",
            text(&here(recipe, path)),
            text(&target)
        ));
        if read_only {
            lines.push_str("        read_only: true\n");
        }
    };
    if is_mounted {
        mount("", false);
    } else {
        recipe.outputs.iter().for_each(|output| mount(output, false));
    }
    recipe.data.iter().for_each(|data| mount(data, true));
    if lines.is_empty() { lines } else { format!("    volumes:\n{lines}") }
}

fn environment(recipe: &Recipe) -> String {
    let mut env = recipe.env.clone();
    if !recipe.has_home {
        env.entry("HOME".to_owned()).or_insert_with(|| "/tmp".to_owned());
    }
    if env.is_empty() {
        return String::new();
    }
    let lines: String =
        env.iter().map(|(name, value)| format!("      {}: {}\n", text(name), text(value))).collect();
    format!("    environment:\n{lines}")
}

fn gpus(recipe: &Recipe) -> Result<String, Error> {
    let reservation = |what: String| {
        format!(
            "    deploy:\n      resources:\n        reservations:\n          devices:\n            - {what}\n              capabilities: [gpu]\n"
        )
    };
    let list = |names: Vec<String>| names.join(", ");
    Ok(match &recipe.gpus {
        None | Some(GpuRequest::None) => String::new(),
        Some(GpuRequest::All) => reservation("driver: nvidia\n              count: all".to_owned()),
        Some(GpuRequest::Count(count)) => {
            reservation(format!("driver: nvidia\n              count: {count}"))
        }
        Some(GpuRequest::Devices(devices)) => {
            let own: Vec<String> = devices
                .iter()
                .filter_map(|device| match device {
                    GpuDevice::Own(name) => Some(text(name)),
                    GpuDevice::Qualified(_) => None,
                })
                .collect();
            let qualified: Vec<String> = devices
                .iter()
                .filter(|device| matches!(device, GpuDevice::Qualified(_)))
                .map(|device| text(&device.to_string()))
                .collect();
            match (own.is_empty(), qualified.is_empty()) {
                (false, true) => {
                    reservation(format!("driver: nvidia\n              device_ids: [{}]", list(own)))
                }
                (true, _) => {
                    reservation(format!("driver: cdi\n              device_ids: [{}]", list(qualified)))
                }
                (false, false) => {
                    let request = "a mixture of a driver's devices and those of CDI files".to_owned();
                    return Err(Error::Gpus { request, tool: TOOL });
                }
            }
        }
    })
}
