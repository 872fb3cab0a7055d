//! `ibid build --builder docker|podman`: the engine's own builder builds the project, by its command line, and what it built
//! comes into the store.
//!
//! Its command line, not its socket: BuildKit is spoken to by nobody else, and who has set up a builder has set it up there.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ibid_core::reference::Reference;
use ibid_engine::identity::HostUser;
use ibid_engine::remote::Name;
use ibid_store::LoadedImage;

use crate::args::{Build, Cli};
use crate::engines::EngineChoice;
use crate::image_build::{self, open_store};
use crate::project::Project;
use crate::report::Failure;
use crate::ui::{self, Ui};

/// Variables that Docker's and Podman's builders take without the Dockerfile's declaring them.
const PROXIES: [&str; 6] = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

pub fn main(
    ui: &Ui,
    cli: &Cli,
    build: &Build,
    project: &Project,
    builder: EngineChoice,
) -> Result<u8, Failure> {
    let program = if builder == EngineChoice::Podman { "podman" } else { "docker" };
    check_options(build, program)?;
    let tags = match &build.tags[..] {
        [] => vec![format!("{}:latest", project.name)],
        tags => tags.to_vec(),
    };
    let tags: Vec<Reference> =
        tags.iter().map(|tag| tag.parse().map_err(|error| Failure::of(&error))).collect::<Result<_, _>>()?;
    let start = std::time::Instant::now();
    let name = Name::of_project(&project.name).to_string();
    let (text, dockerfile) = image_build::read_dockerfile(&project.dockerfile)?;
    drop(text);
    // The engine's programs enter user namespaces of their own: they are started before ibid enters one.
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let host = HostUser { uid, gid, name: None };
    let args = image_build::build_args(project, &host, &build.shared, &dockerfile)?;
    let mut command = Command::new(program);
    command.args(["build", "--network", "host", "--tag", &name, "--file"]).arg(&project.dockerfile);
    if program == "podman" {
        // The form that has all that a Dockerfile can say.
        command.args(["--format", "docker"]);
    }
    for (name, value) in &args {
        command.arg("--build-arg").arg(format!("{name}={value}"));
    }
    if !build.shared.no_host_trust {
        for proxy in PROXIES.iter().filter(|name| std::env::var_os(name).is_some()) {
            command.args(["--build-arg", proxy]);
        }
    }
    if let Some(target) = &build.target {
        command.args(["--target", target]);
    }
    if build.no_cache {
        command.arg("--no-cache");
    }
    for secret in &build.secrets {
        command.args(["--secret", secret]);
    }
    for agent in &build.agents {
        command.args(["--ssh", agent]);
    }
    command.arg(&project.context).current_dir(cli.directory.as_deref().unwrap_or(Path::new(".")));
    ui.detail(&format!("{program} builds {name}"));
    // What it tells is narration: standard output is for the digest.
    let own = rustix::io::dup(rustix::stdio::stderr())
        .map_err(|errno| Failure::of(&std::io::Error::from(errno)))?;
    let status = command.stdout(Stdio::from(own)).status().map_err(|error| not_started(program, &error))?;
    if !status.success() {
        return Err(Failure::new(format!("`{program} build` failed: {status}")));
    }
    let loaded = load(program, &name)?;
    let store = open_store()?;
    for tag in &tags {
        store.set_tag(tag, loaded.image)?;
    }
    ui::print(&loaded.image.to_string());
    let names = tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    ui.say(&format!(
        "{} by {program} in {} · image {} · {names}",
        ui.paint(ui::GREEN, "built"),
        ui::seconds(start.elapsed().as_secs_f64()),
        ui::short_digest(&loaded.image),
    ));
    Ok(0)
}

/// Brings an image of the engine into the store.
fn load(program: &str, name: &str) -> Result<LoadedImage, Failure> {
    let mut command = Command::new(program);
    command.arg("save");
    if program == "podman" {
        command.args(["--format", "docker-archive"]);
    }
    let child = command.arg(name).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| not_started(program, &error))?;
    image_build::enter_user_namespace()?;
    let store = open_store()?;
    let archive = child.stdout.take().expect("a pipe was asked for");
    let loaded = store.load_archive(archive);
    let mut said = String::new();
    // Only what it says of a failure.
    let _unreadable = child.stderr.take().expect("a pipe was asked for").read_to_string(&mut said);
    let status = child.wait().map_err(|error| Failure::of(&error))?;
    if !status.success() {
        return Err(Failure::new(format!("`{program} save {name}` failed: {}", said.trim())));
    }
    let loaded = loaded
        .map_err(|error| Failure::of(&error).while_doing(format!("cannot load what {program} built")))?;
    loaded.into_iter().next().ok_or_else(|| Failure::new(format!("{program} saved no image")))
}

/// What ibid's own builder does and no other.
fn check_options(build: &Build, program: &str) -> Result<(), Failure> {
    let options = [
        ("--verify", build.verify),
        ("--explain", build.explain),
        ("--shell-on-fail", build.shell_on_fail),
        ("--locked", build.locked),
        ("--update", build.update.is_some()),
        ("--keep-nondeterminism", build.keep_nondeterminism),
        ("--no-cache-filter", !build.no_cache_filter.is_empty()),
        ("--cache-from", !build.cache_from.is_empty()),
        ("--cache-to", build.cache_to.is_some()),
        ("--build-context", !build.shared.build_contexts.is_empty()),
    ];
    match options.iter().find(|(_, is_set)| *is_set) {
        Some((option, _)) => {
            Err(Failure::new(format!("{option} is of ibid's own builder, and {program} builds"))
                .hint("`--builder native` builds with it"))
        }
        None => Ok(()),
    }
}

fn not_started(program: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::of(error).while_doing(format!("cannot start `{program}`"));
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            failure.hint(format!("install {program}, or build with `--builder native`"))
        }
        _ => failure,
    }
}
