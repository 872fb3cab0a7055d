//! `ibid build`: the project's image; its digest on stdout.

use std::io::IsTerminal as _;
use std::path::Path;

use ibid_build::verify::Difference;
use ibid_build::{MadeLayer, NoCache};
use ibid_core::image::host_architecture;
use ibid_core::platform::{self, Fault};

use crate::args::{Build, Cli};
use crate::cache_options;
use crate::checks;
use crate::credentials;
use crate::engine_build;
use crate::engines::EngineChoice;
use crate::image_build::{self, Options, Preparation};
use crate::lock_mode::LockMode;
use crate::project::Project;
use crate::report::Failure;
use crate::ui::{self, Ui};

pub fn main(ui: &Ui, cli: &Cli, build: &Build) -> Result<u8, Failure> {
    if let Some(platform) = &build.platform {
        check_platform(platform)?;
    }
    if build.check {
        return checks::main(ui, cli, build);
    }
    let project =
        Project::of_command_line(cli.directory.as_deref(), build.context.as_deref(), build.file.as_deref())?;
    if let Some(builder) = build.builder.or(project.builder).filter(|it| *it != EngineChoice::Native) {
        return engine_build::main(ui, cli, build, &project, builder);
    }
    let host = image_build::enter_user_namespace()?;
    if let Some(reason) = ibid_sandbox::userns::only_id() {
        ui.say(&format!("one user id is mapped: {reason}; `ibid doctor` says what that costs"));
    }
    let start = std::time::Instant::now();
    let directory = cli.directory.as_deref().unwrap_or(Path::new("."));
    if build.shell_on_fail && !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(Failure::new("--shell-on-fail needs a terminal, and stdin or stdout is none")
            .hint("call ibid from a shell, without a pipe or redirection"));
    }
    let mut tags = Vec::new();
    for tag in &build.tags {
        tags.push(tag.parse().map_err(|error| Failure::of(&error))?);
    }
    let lent = credentials::read(&build.secrets, &build.agents, directory, |name| std::env::var_os(name))?;
    let mut preparation = Preparation::new(ui, &project, &host, &build.shared, directory)?;
    preparation.lend(lent);
    let no_cache = match (build.no_cache, build.no_cache_filter.is_empty()) {
        (true, _) => NoCache::Always,
        (false, true) => NoCache::Never,
        (false, false) => {
            NoCache::Stages(build.no_cache_filter.iter().map(|name| name.to_lowercase()).collect())
        }
    };
    let directory = cli.directory.as_deref().unwrap_or(std::path::Path::new(""));
    let cache_from = build.cache_from.iter().map(|text| cache_options::cache_from(text, directory));
    let cache_from = cache_from.collect::<Result<_, _>>()?;
    let cache_to =
        build.cache_to.as_deref().map(|text| cache_options::cache_to(text, directory)).transpose()?;
    let options = Options {
        cache_from,
        cache_to,
        target: build.target.clone(),
        no_cache,
        explain: build.explain,
        shell_on_fail: build.shell_on_fail,
        verify: build.verify,
        keep_nondeterminism: build.keep_nondeterminism,
        lock_mode: match (&build.update, build.locked) {
            (Some(name), _) => LockMode::Update(name.clone()),
            (None, true) => LockMode::Locked,
            (None, false) => LockMode::Keep,
        },
        tags,
    };
    let built = preparation.build(ui, &options)?;
    ui::print(&built.image.to_string());
    let cached = if built.steps_cached == 0 {
        String::new()
    } else {
        format!(", {} of {} steps from the cache", built.steps_cached, built.steps)
    };
    ui.say(&format!(
        "{} in {}{cached} · image {} · {}",
        ui.paint(ui::GREEN, "built"),
        ui::seconds(start.elapsed().as_secs_f64()),
        ui::short_digest(&built.image),
        built.names.join(", ")
    ));
    Ok(verdict(ui, built.differences.as_deref()))
}

/// An image of another platform would be of no use to the steps that run here.
fn check_platform(text: &str) -> Result<(), Failure> {
    let own = format!("linux/{}", host_architecture());
    platform::check(text, host_architecture()).map_err(|fault| {
        let failure = Failure::new(format!("`--platform {text}`: {fault}"));
        match fault {
            Fault::Invalid if text.contains(',') => {
                failure.hint("one build makes one image: build on a machine of each platform")
            }
            Fault::Invalid => failure.hint(format!("expected OS/ARCHITECTURE, such as `{own}`")),
            Fault::Foreign => failure.hint(format!(
                "steps run on this machine's own processor, which is `{own}`: build on a machine of that platform"
            )),
        }
    })
}

/// Says what two builds made otherwise.
fn verdict(ui: &Ui, differences: Option<&[(MadeLayer, Vec<Difference>)]>) -> u8 {
    const SHOWN_MAX: usize = 50;
    let Some(differences) = differences else { return 0 };
    if differences.is_empty() {
        ui.say(&format!("{}: two builds made the same bytes", ui.paint(ui::GREEN, "identical")));
        return 0;
    }
    let count: usize = differences.iter().map(|(_, paths)| paths.len()).sum();
    ui.write(&format!("{}: two builds differ in {count} places", ui.paint(ui::RED, "different")));
    for (made, paths) in differences {
        ui.write(&format!("{} line {}", ui.paint(ui::BOLD, &ui::one_line(&made.text)), made.lines.first));
        let mut advice = "";
        for difference in paths.iter().take(SHOWN_MAX) {
            ui.write(&format!("  {}  {}", difference.path, ui.paint(ui::DIM, &difference.kind.to_string())));
            if difference.advice != advice {
                advice = difference.advice;
                ui.write(&format!("    {advice}"));
            }
        }
        if paths.len() > SHOWN_MAX {
            ui.write(&format!("  and {} more", paths.len() - SHOWN_MAX));
        }
    }
    1
}
