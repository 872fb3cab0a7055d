//! Four scripts for Docker, or for Podman, which takes nearly the same words.

use ibid_core::gpus::{GpuDevice, GpuRequest};

use super::quote::{in_double_quotes, shell};
use super::{Error, File, Recipe, SHELL_OF_IMAGE};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Docker,
    Podman,
}

impl Engine {
    fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        }
    }
}

/// What is executed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Entrypoint,
    Shell,
}

pub(super) fn files(recipe: &Recipe, engine: Engine) -> Result<Vec<File>, Error> {
    if engine == Engine::Podman {
        refuse_colons(recipe)?;
    }
    let program = engine.program();
    let name = &recipe.name;
    let run = format!(
        "# Runs the image `{name}` on the code of this project, mounted over the image's own, as `ibid run` does. Arguments go\n\
         # to its program: ./{program}_run.sh --n-epochs 5"
    );
    let bash = format!(
        "# Opens a shell in the image `{name}` on the image's own code, as `ibid dev --pegged` does. Arguments go to the shell:\n\
         # ./{program}_run_bash.sh -c 'ls'"
    );
    let dev = format!(
        "# Opens a shell in the image `{name}` with the code of this project mounted over the image's own, as `ibid dev` does.\n\
         # Arguments go to the shell: ./{program}_dev.sh -c 'ls'"
    );
    Ok(vec![
        File::script(format!("{program}_build.sh"), build(recipe, engine)),
        File::script(format!("{program}_run.sh"), execute(recipe, engine, &run, true, Start::Entrypoint)?),
        File::script(format!("{program}_run_bash.sh"), execute(recipe, engine, &bash, false, Start::Shell)?),
        File::script(format!("{program}_dev.sh"), execute(recipe, engine, &dev, true, Start::Shell)?),
    ])
}

/// The ids of the person who asks.
const PERSON: &str =
    "\nuid=$(id -u) gid=$(id -g)\n[ \"$uid\" != 0 ] || uid=${SUDO_UID:-0} gid=${SUDO_GID:-0}\n";

fn build(recipe: &Recipe, engine: Engine) -> String {
    let program = engine.program();
    let mut about = format!(
        "# Builds the image `{}`, as `ibid build` does. Arguments go to `{program} build`: ./{program}_build.sh --no-cache",
        recipe.name
    );
    if !recipe.person_args.is_empty() {
        about.push_str(
            "\n#\n# The user in the image gets the ids of the person who asks, also through sudo. For root itself the Dockerfile's\n\
             # defaults stand, since useradd refuses id 0; the other scripts then run the container as root.",
        );
    }
    let mut script = recipe.head(&about);
    let mut options = vec![format!("--tag {}", shell(&recipe.name))];
    if engine == Engine::Podman {
        // The other format has no health checks and no SHELL.
        options.push("--format docker".to_owned());
    }
    if !recipe.is_usual_dockerfile {
        options.push(format!("--file {}", shell(&recipe.dockerfile)));
    }
    if !recipe.person_args.is_empty() {
        script.push_str(PERSON);
        let ids: Vec<String> = recipe
            .person_args
            .iter()
            .map(|name| {
                let variable = if *name == "USER_ID" { "uid" } else { "gid" };
                format!("--build-arg \"{name}=${variable}\"")
            })
            .collect();
        script.push_str(&format!("ids=()\n[ \"$uid\" = 0 ] || ids=({})\n", ids.join(" ")));
        options.push("\"${ids[@]}\"".to_owned());
    }
    for (name, value) in &recipe.args {
        options.push(format!("--build-arg {}", shell(&format!("{name}={value}"))));
    }
    options.push(format!("\"$@\" {}", shell(&recipe.context)));
    script.push_str(&format!("\nexec {program} build {}\n", wrapped(&options)));
    script
}

fn execute(
    recipe: &Recipe,
    engine: Engine,
    about: &str,
    is_mounted: bool,
    start: Start,
) -> Result<String, Error> {
    let program = engine.program();
    let image = shell(&recipe.name);
    let about = format!(
        "{about}\n#\n# The process has the ids of the person who asks, also through sudo, so that files it makes are theirs (root's, for\n# root)."
    );
    let mut script = recipe.head(&about);
    script.push_str(PERSON);
    script.push_str("terminal=()\nif [ -t 0 ] && [ -t 1 ]; then terminal=(--tty); fi\n");
    let mut options = vec!["--rm --pull never --network host --interactive \"${terminal[@]}\"".to_owned()];

    script.push_str("identity=(--user \"$uid:$gid\")\n");
    if engine == Engine::Podman {
        // Without it, a person's own id is root in the container.
        script.push_str("[ \"$(id -u)\" = 0 ] || identity+=(--userns keep-id)\n");
        options.push("--security-opt label=disable".to_owned());
    }
    if !recipe.has_home {
        script.push_str("# The image knows no home for just any person.\n");
        script.push_str("[ \"$uid\" = 0 ] || identity+=(--env HOME=/tmp)\n");
    }
    options.push("\"${identity[@]}\"".to_owned());

    script.push_str("# As much shared memory as a program has outside a container.\n");
    script.push_str("shm=$(awk '/^MemTotal:/ { print int($2 / 2) \"k\" }' /proc/meminfo)\n");
    options.push("--shm-size \"$shm\"".to_owned());

    let mounts = mounts(recipe, engine, is_mounted);
    if !mounts.is_empty() {
        script.push_str(&mounts);
        options.push("\"${mounts[@]}\"".to_owned());
    }
    for (name, value) in &recipe.env {
        options.push(format!("--env {}", shell(&format!("{name}={value}"))));
    }
    options.extend(gpus(recipe.gpus.as_ref(), engine));
    options.push(match start {
        Start::Entrypoint => format!("{image} \"$@\""),
        Start::Shell => format!("--entrypoint /bin/sh {image} -c '{SHELL_OF_IMAGE}' sh \"$@\""),
    });
    script.push_str(&format!(
        "\n# --pull never: an image `{}` on some registry is not this one.\nexec {program} run {}\n",
        recipe.name,
        wrapped(&options)
    ));
    Ok(script)
}

/// The lines that fill the list of mounts.
fn mounts(recipe: &Recipe, engine: Engine, is_mounted: bool) -> String {
    if !is_mounted && recipe.outputs.is_empty() && recipe.data.is_empty() {
        return String::new();
    }
    let program = engine.program();
    let mut lines = String::from("\nmounts=()\nadd() { # SOURCE TARGET [OPTION]\n");
    lines.push_str(match engine {
        // The option is read as a line of CSV.
        Engine::Docker => {
            "    mounts+=(--mount \"type=bind,\\\"source=${1//\\\"/\\\"\\\"}\\\",\\\"target=${2//\\\"/\\\"\\\"}\\\"${3:+,$3}\")\n"
        }
        Engine::Podman => "    mounts+=(--volume \"$1:$2${3:+:$3}\")\n",
    });
    lines.push_str("}\n");
    if engine == Engine::Podman {
        lines.push_str(
            "case $PWD in *:*) echo \"podman takes the ':' in $PWD for the end of a path\" >&2; exit 125 ;; esac\n",
        );
    }
    let read_only = if engine == Engine::Docker { "readonly" } else { "ro" };
    match &recipe.code_folder {
        Some(folder) => lines.push_str(&format!("code={}\n", shell(folder))),
        None => lines.push_str(&format!(
            "code=$({program} image inspect --format '{{{{.Config.WorkingDir}}}}' {})\n",
            shell(&recipe.name)
        )),
    }
    if is_mounted {
        lines.push_str("add \"$PWD\" \"$code\"\n");
    } else {
        for output in &recipe.outputs {
            let path = in_double_quotes(output);
            lines.push_str(&format!(
                "[ -e {word} ] || install --directory --owner \"$uid\" --group \"$gid\" {word}\n\
                 add \"$PWD/{path}\" \"$code/{path}\"\n",
                word = shell(&format!("./{output}"))
            ));
        }
    }
    for data in &recipe.data {
        let path = in_double_quotes(data);
        lines.push_str(&format!(
            "[ ! -e {} ] || add \"$PWD/{path}\" \"$code/{path}\" {read_only}\n",
            shell(&format!("./{data}"))
        ));
    }
    lines
}

fn gpus(request: Option<&GpuRequest>, engine: Engine) -> Vec<String> {
    // Docker itself finds NVIDIA's; Podman goes by CDI files.
    let nvidia = |device: &str| format!("--device nvidia.com/gpu={}", shell(device));
    match (request, engine) {
        (None | Some(GpuRequest::None), _) => Vec::new(),
        (Some(GpuRequest::All), Engine::Docker) => vec!["--gpus all".to_owned()],
        (Some(GpuRequest::All), Engine::Podman) => vec![nvidia("all")],
        (Some(GpuRequest::Count(count)), Engine::Docker) => vec![format!("--gpus {count}")],
        (Some(GpuRequest::Count(count)), Engine::Podman) => {
            (0..*count).map(|number| nvidia(&number.to_string())).collect()
        }
        (Some(GpuRequest::Devices(devices)), engine) => {
            let mut options = Vec::new();
            let mut own = Vec::new();
            for device in devices {
                match (device, engine) {
                    (GpuDevice::Qualified(name), _) => {
                        options.push(format!("--device {}", shell(&name.to_string())))
                    }
                    (GpuDevice::Own(name), Engine::Docker) => own.push(name.as_str()),
                    (GpuDevice::Own(name), Engine::Podman) => options.push(nvidia(name)),
                }
            }
            if !own.is_empty() {
                // Docker reads a list of devices as CSV.
                options.push(format!("--gpus {}", shell(&format!("\"device={}\"", own.join(",")))));
            }
            options
        }
    }
}

fn refuse_colons(recipe: &Recipe) -> Result<(), Error> {
    let paths = recipe.outputs.iter().chain(&recipe.data).chain(&recipe.code_folder);
    match paths.into_iter().find(|path| path.contains(':')) {
        Some(path) => Err(Error::Path { path: path.clone(), character: ':', tool: Engine::Podman.title() }),
        None => Ok(()),
    }
}

/// Options on lines of their own.
fn wrapped(options: &[String]) -> String {
    options.join(" \\\n    ")
}
