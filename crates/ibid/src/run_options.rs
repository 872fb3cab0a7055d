//! The options of `run` and `dev` that change the container, as people know them from `docker run`: read from the command
//! line, and turned into the plain data of a run.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ibid_core::digest::Digest;
use ibid_core::run::{
    Capabilities, Capability, ContainerOptions, InvalidOption, Limits, Network, Port, Seccomp,
    SeccompProfile, SecurityOption, Tmpfs, Ulimit, Volume, bytes, env_file,
};

use ibid_sandbox::ExitStatus;
use ibid_store::Store;

use crate::project::{Project, clean};
use crate::report::Failure;
use crate::ui::Ui;

/// What differs from the usual container.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Container")]
pub struct RunOptions {
    // In place of the option for all commands, whose short name is `--volume`'s here.
    /// Say more: also what was found in the cache
    #[arg(long, help_heading = None)]
    pub verbose: bool,

    /// Mount a folder or file of this machine; may be given more than once
    #[arg(short = 'v', long = "volume", value_name = "SRC:DST[:ro]")]
    pub volumes: Vec<String>,

    /// Mount an empty folder in memory; may be given more than once
    #[arg(long = "tmpfs", value_name = "DST[:size=SIZE,mode=MODE,exec,…]")]
    pub tmpfs: Vec<String>,

    /// Set the environment variables of a file, a NAME=VALUE each line; may be given more than once
    #[arg(long = "env-file", value_name = "FILE")]
    pub env_files: Vec<PathBuf>,

    /// Be this user in the container [default: you, whatever user the image names]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// Be root in the container; what you write in mounted folders is yours all the same
    #[arg(long, conflicts_with = "user")]
    pub root: bool,

    /// Start in this folder of the container [default: the image's WORKDIR]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// Run this program instead of the image's ENTRYPOINT and CMD; in `dev`, instead of the shell
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,

    /// Let nothing be written but in mounts
    #[arg(long)]
    pub read_only: bool,

    /// Size of /dev/shm [default: half of the machine's memory]
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,

    /// Host name in the container [default: the name of the run]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// Network: the machine's own, none, or one of its own from which the machine's is reached through `pasta`
    #[arg(long, alias = "net", value_name = "host|none|private", value_enum, default_value_t)]
    pub network: NetworkChoice,

    /// Make a port of the container reachable on this machine; may be given more than once
    #[arg(short, long = "publish", value_name = "[[IP:]HOST:]CONTAINER[/udp]")]
    pub publish: Vec<String>,

    /// Add a capability; may be given more than once
    #[arg(long, value_name = "NAME|ALL", value_delimiter = ',')]
    pub cap_add: Vec<String>,

    /// Take a capability; may be given more than once
    #[arg(long, value_name = "NAME|ALL", value_delimiter = ',')]
    pub cap_drop: Vec<String>,

    /// Change what system calls are allowed; may be given more than once
    #[arg(long = "security-opt", value_name = "seccomp=unconfined|FILE")]
    pub security_options: Vec<String>,

    /// Limit each process; may be given more than once
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub ulimits: Vec<String>,

    /// Limit the time of processors that all processes take together
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,

    /// Limit the memory of all processes together, swap included
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,

    /// Limit how many processes there are
    #[arg(long, alias = "pids-limit", value_name = "NUMBER")]
    pub pids: Option<String>,

    /// What becomes of --cpus, --memory and --pids where they cannot be kept: a failure, or a warning
    #[arg(long, value_name = "strict|best-effort", value_enum, default_value_t)]
    pub limits: LimitsChoice,
}

/// `--network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum NetworkChoice {
    #[default]
    Host,
    None,
    Private,
}

/// `--limits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LimitsChoice {
    #[default]
    Strict,
    BestEffort,
}

impl From<InvalidOption> for Failure {
    fn from(error: InvalidOption) -> Self {
        let failure = Self::of(&error);
        match error.mend {
            Some(mend) => failure.hint(mend),
            None => failure,
        }
    }
}

impl RunOptions {
    /// As plain data. Relative paths of this machine are of `directory`; files that are named are read.
    pub fn resolve(&self, directory: &Path, keep: &[String]) -> Result<ContainerOptions, Failure> {
        let ports =
            self.publish.iter().map(|text| Port::parse(text)).collect::<Result<Vec<_>, _>>()?.concat();
        let network = match self.network {
            NetworkChoice::Host => Network::Host,
            NetworkChoice::None => Network::None,
            NetworkChoice::Private => Network::Private,
        };
        check_ports(&ports, network)?;
        let volumes: Vec<Volume> =
            self.volumes.iter().map(|text| volume(text, directory)).collect::<Result<_, _>>()?;
        let tmpfs: Vec<Tmpfs> = self.tmpfs.iter().map(|text| Tmpfs::parse(text)).collect::<Result<_, _>>()?;
        check_targets(&volumes, &tmpfs)?;
        let capabilities = |option, texts: &[String]| {
            texts.iter().map(|text| Capability::parse(option, text)).collect::<Result<Vec<_>, _>>()
        };
        let shm_bytes = self
            .shm_size
            .as_deref()
            .map(|text| bytes(text).map_err(|problem| InvalidOption::new("--shm-size", text, problem)))
            .transpose()?;
        Ok(ContainerOptions {
            entrypoint: self
                .entrypoint
                .as_ref()
                .map(|program| if program.is_empty() { Vec::new() } else { vec![program.clone()] }),
            user: if self.root { Some("0:0".to_owned()) } else { self.user.clone() },
            workdir: self.workdir.as_deref().map(ContainerOptions::parse_workdir).transpose()?,
            volumes,
            tmpfs,
            read_only: self.read_only,
            shm_bytes,
            hostname: self.hostname.as_deref().map(ContainerOptions::parse_hostname).transpose()?,
            capabilities: Capabilities {
                add: capabilities("--cap-add", &self.cap_add)?,
                drop: capabilities("--cap-drop", &self.cap_drop)?,
            },
            seccomp: seccomp(&self.security_options, directory)?,
            ulimits: self.ulimits.iter().map(|text| Ulimit::parse(text)).collect::<Result<_, _>>()?,
            network,
            ports,
            limits: Limits {
                millicpus: self.cpus.as_deref().map(Limits::parse_cpus).transpose()?,
                memory_bytes: self.memory.as_deref().map(Limits::parse_memory).transpose()?,
                pids: self.pids.as_deref().map(Limits::parse_pids).transpose()?,
                best_effort: self.limits == LimitsChoice::BestEffort,
            },
            keep: keep.to_vec(),
        })
    }

    /// The variables of all `--env-file`s, in their order; those without a value are `variable`'s, if it has one.
    pub fn env_of_files(
        &self,
        directory: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<(String, String)>, Failure> {
        let mut env = Vec::new();
        for file in &self.env_files {
            let path = clean(&directory.join(file));
            let text = read_text("--env-file", &path)?;
            let found = env_file(&text).map_err(|(line, problem)| {
                Failure::new(problem)
                    .excerpt_lines(&path, &text, line, line, "")
                    .hint("a line is NAME=VALUE, or NAME for the value that it has here; nothing is quoted")
            })?;
            for assignment in found {
                let value = assignment.value.or_else(|| variable(&assignment.name));
                env.extend(value.map(|value| (assignment.name, value)));
            }
        }
        Ok(env)
    }
}

/// Takes out limits that cannot be kept here where that was allowed, with a warning; says which ports are reachable anyhow.
pub fn narrate(ui: &Ui, options: &mut ContainerOptions) {
    let limits = &mut options.limits;
    if limits.best_effort && limits.any() {
        let wanted = ibid_sandbox::Limits {
            millicpus: limits.millicpus,
            memory_bytes: limits.memory_bytes,
            pids: limits.pids,
        };
        let (kept, reasons) = ibid_sandbox::achievable(&wanted);
        let names: Vec<&str> = reasons.iter().map(|(name, _)| *name).collect();
        if let Some((_, reason)) = reasons.first() {
            ui.warn(&format!("the run goes on without limits of {}: {reason}", names.join(", ")));
        }
        (limits.millicpus, limits.memory_bytes, limits.pids) = (kept.millicpus, kept.memory_bytes, kept.pids);
    }
    if options.network == Network::Host && !options.ports.is_empty() {
        let ports: Vec<String> = options.ports.iter().map(|port| port.host.to_string()).collect();
        ui.say(&format!(
            "the run has this machine's network, so what it listens on is reachable here without --publish: {}",
            ports.join(", ")
        ));
    }
}

/// What may stand behind a program's end: who runs out of memory is killed by the kernel without a word.
pub fn explain_end(ui: &Ui, options: &ContainerOptions, status: ExitStatus) {
    let is_killed = matches!(status, ExitStatus::Signal(9) | ExitStatus::Code(137));
    if let (true, Some(bytes)) = (is_killed, options.limits.memory_bytes) {
        ui.hint(&format!(
            "the kernel ends programs so that need more memory than --memory gives them, here {} MiB",
            bytes >> 20
        ));
    }
}

/// Says what of the build the mounted code hides, and how to keep it visible.
pub fn warn_of_hidden(
    ui: &Ui,
    store: &Store,
    image: &Digest,
    folder: &str,
    project: &Project,
) -> Result<(), Failure> {
    let built = ibid_engine::hidden::built(store, image, folder).map_err(|error| Failure::of(&error))?;
    let is_kept = |path: &str| project.keep.iter().any(|kept| Path::new(path).starts_with(kept));
    let hidden: Vec<&String> =
        built.iter().filter(|path| !is_kept(path) && !project.root.join(path).exists()).collect();
    let Some(first) = hidden.first() else { return Ok(()) };
    let more = match hidden.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    ui.warn(&format!("the mounted code hides `{first}`{more}, which the build put into {folder}"));
    let known = project.keep.iter().chain(hidden.into_iter().take(KEEP_SHOWN));
    let list = known.map(|path| format!("\"{path}\"")).collect::<Vec<_>>().join(", ");
    ui.hint(&format!("to keep it visible, in ibid.toml:\n  [code]\n  keep = [{list}]"));
    Ok(())
}

/// How much is proposed in one line.
const KEEP_SHOWN: usize = 5;

fn read_text(option: &str, path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::of(&error).while_doing(format!("cannot read `{}`, which {option} names", path.display()))
    })
}

fn volume(text: &str, directory: &Path) -> Result<Volume, Failure> {
    let volume = Volume::parse(text)?;
    let written = volume.source.clone();
    let source = std::fs::canonicalize(directory.join(&written)).map_err(|error| {
        let failure = Failure::of(&error)
            .while_doing(format!("`--volume {text}`: cannot find `{}` on this machine", written.display()));
        match error.kind() {
            std::io::ErrorKind::NotFound => failure
                .hint(format!("ibid makes no folder there by itself: `mkdir -p {}`", written.display())),
            _ => failure,
        }
    })?;
    Ok(Volume { source, ..volume })
}

/// Two mounts at one place would hide one of them.
fn check_targets(volumes: &[Volume], tmpfs: &[Tmpfs]) -> Result<(), Failure> {
    let mut targets: Vec<&str> = volumes
        .iter()
        .map(|volume| volume.target.as_str())
        .chain(tmpfs.iter().map(|tmpfs| tmpfs.target.as_str()))
        .collect();
    targets.sort_unstable();
    match targets.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Failure::new(format!("two mounts are at `{}`", pair[0]))
            .hint("give each --volume and --tmpfs a place of its own")),
        None => Ok(()),
    }
}

/// What is asked for about ports can only be had where the network is the run's own.
fn check_ports(ports: &[Port], network: Network) -> Result<(), Failure> {
    let private = "`--network private` gives the run a network of its own, with its own ports";
    match network {
        Network::Private => Ok(()),
        Network::None => match ports.first() {
            Some(port) => {
                Err(Failure::new(format!("`--publish {port}`: a run without a network has no ports"))
                    .hint(private))
            }
            None => Ok(()),
        },
        Network::Host => {
            if let Some(port) = ports.iter().find(|port| port.host != port.container) {
                return Err(Failure::new(format!(
                    "`--publish {port}`: the run has this machine's network, so its port {} is port {} here too",
                    port.container, port.container
                ))
                .hint(private));
            }
            match ports.iter().find(|port| port.address.is_some()) {
                Some(port) => Err(Failure::new(format!(
                    "`--publish {port}`: the run has this machine's network, and the program itself chooses the address"
                ))
                .hint(private)),
                None => Ok(()),
            }
        }
    }
}

fn seccomp(texts: &[String], directory: &Path) -> Result<Seccomp, Failure> {
    let mut seccomp = Seccomp::Docker;
    for text in texts {
        match SecurityOption::parse(text)? {
            // What holds in every run.
            SecurityOption::NoNewPrivileges => {}
            SecurityOption::SeccompBuiltin => seccomp = Seccomp::Docker,
            SecurityOption::SeccompUnconfined => seccomp = Seccomp::Unconfined,
            SecurityOption::SeccompFile(file) => {
                let path = clean(&directory.join(file));
                let profile =
                    SeccompProfile::parse(&read_text("--security-opt", &path)?).map_err(|problem| {
                        Failure::new(format!("`{}` is no seccomp profile: {problem}", path.display()))
                            .hint("profiles have the form of Docker's `default.json`")
                    })?;
                seccomp = Seccomp::Profile(Box::new(profile));
            }
        }
    }
    Ok(seccomp)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: RunOptions,
    }

    fn resolve(words: &[&str]) -> Result<ContainerOptions, String> {
        let line = Line::try_parse_from([&["run"], words].concat()).map_err(|error| error.to_string())?;
        line.options.resolve(Path::new("/"), &[]).map_err(|failure| failure.summary())
    }

    #[test]
    fn nothing_asked_for_is_nothing_changed() {
        assert_eq!(resolve(&[]), Ok(ContainerOptions::default()));
    }

    #[test]
    fn options_become_plain_data() {
        let options = resolve(&[
            "-v",
            "/proc:/x:ro",
            "--tmpfs",
            "/t",
            "--root",
            "-w",
            "/w",
            "--entrypoint",
            "sh",
            "--read-only",
            "--shm-size",
            "64m",
            "--hostname",
            "lab",
            "--network",
            "private",
            "-p",
            "8080:80",
            "--cap-add",
            "NET_ADMIN,KILL",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "seccomp=unconfined",
            "--ulimit",
            "nofile=9",
            "--cpus",
            "1.5",
            "-m",
            "1g",
            "--pids",
            "9",
        ])
        .expect("sound");
        assert_eq!(options.volumes[0].source, Path::new("/proc"));
        assert_eq!(options.user.as_deref(), Some("0:0"));
        assert_eq!(options.entrypoint, Some(vec!["sh".to_owned()]));
        assert_eq!(options.shm_bytes, Some(64 << 20));
        assert_eq!(options.seccomp, Seccomp::Unconfined);
        assert_eq!(options.ports.len(), 1);
        assert_eq!(options.capabilities.add.len(), 2);
        let limits =
            Limits { millicpus: Some(1500), memory_bytes: Some(1 << 30), pids: Some(9), best_effort: false };
        assert_eq!(options.limits, limits);
        assert_eq!(resolve(&["--entrypoint", ""]).expect("sound").entrypoint, Some(Vec::new()));
    }

    #[test]
    fn what_cannot_be_had_says_why() {
        let check = |words: &[&str], part: &str| {
            let message = resolve(words).expect_err(part);
            assert!(message.contains(part), "{words:?}: {message}");
        };
        check(&["-p", "8080:80"], "its port 80 is port 80 here too");
        check(&["-p", "127.0.0.1:80:80"], "the program itself chooses the address");
        check(&["-p", "80", "--network", "none"], "a run without a network has no ports");
        check(&["-v", "/no/such:/x"], "cannot find `/no/such`");
        check(&["-v", "/proc:/x", "--tmpfs", "/x"], "two mounts are at `/x`");
        check(&["--security-opt", "seccomp=/no/such"], "cannot read `/no/such`");
        check(&["--cap-add", "FLY"], "no such capability");
        check(&["--root", "--user", "1"], "cannot be used with");
        check(&["--workdir", "code"], "expected an absolute path");
        assert!(resolve(&["-p", "80:80"]).is_ok());
    }
}
