//! The options of `run` and `dev` that change the container, as people know them from `docker run`: read from the command
//! line, and turned into the plain data of a run.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ibid_core::run::{
    Capabilities, Capability, ContainerOptions, InvalidOption, Limits, Network, Port, Seccomp,
    SeccompProfile, SecurityOption, Tmpfs, Ulimit, Volume, bytes, env_file,
};

use crate::project::clean;
use crate::report::Failure;

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
mod tests;
