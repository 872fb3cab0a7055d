//! The command line as plain data. Nothing is looked up or decided here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::deferred_args::Deferred;
use crate::engines::EngineChoice;
use crate::ledger_args;
use crate::live_args;
use crate::run_options::RunOptions;

/// Makes research experiments repeatable: builds the image, runs the code in it, says exactly what ran.
#[derive(Debug, Parser)]
#[command(
    name = "ibid",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Work on the project in DIR instead of the current folder
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub directory: Option<PathBuf>,

    /// Say less: only warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more: also what was found in the cache
    #[arg(short, long, global = true)]
    pub verbose: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build the project's image and print its digest
    Build(Box<Deferred<Build>>),
    /// Run the image's entrypoint with ARGS appended; the codebase on this machine is mounted
    Run(Box<Run>),
    /// Open a shell in the image; the codebase on this machine is mounted
    Dev(Box<Dev>),
    /// Execute another program in a run that is going on
    Exec(Deferred<live_args::Exec>),
    /// Join a run that was started with --detach: what it writes, and what you type; Ctrl-P Ctrl-Q leaves it
    Attach(Deferred<live_args::Attach>),
    /// List the runs that are going on, in all projects; with --quiet, their ids only
    Ps(Deferred<live_args::Ps>),
    /// Ask runs to end, and kill those that do not
    Stop(Deferred<live_args::Stop>),
    /// List the runs: when, how they went, what they were given and what they told
    Runs(Deferred<ledger_args::Runs>),
    /// Say all that is known of a run
    Show(Deferred<ledger_args::Show>),
    /// Draw what runs told over their steps, in the terminal or as a picture
    Plot(Deferred<ledger_args::Plot>),
    /// Put the exact code of a run into a folder
    Checkout(Deferred<ledger_args::Checkout>),
    /// Give a run a name
    TagRun(Deferred<ledger_args::TagRun>),
    /// Note something about a run
    Note(Deferred<ledger_args::Note>),
    /// Take runs away; `ibid restore` puts them back
    Rm(Deferred<ledger_args::Rm>),
    /// Put back runs that `ibid rm` took away
    Restore(Deferred<ledger_args::Restore>),
    /// Show what the program of a run wrote
    Logs(Deferred<Logs>),
    /// Execute a recorded run again and compare: the exit code is 0 when the result is the same, and 1 when it differs
    Replay(Deferred<Replay>),
    /// Write a run to a file with all that `ibid replay FILE` needs on another machine
    Export(Deferred<Export>),
    /// List the files that a build may copy, and the rule that kept or dropped each
    Context(Deferred<Context>),
    /// List the images in the store
    Images(Deferred<Images>),
    /// Say what is known of an image: configuration, layers, history, and which code it holds
    Inspect(Deferred<Inspect>),
    /// Say what differs between two runs or two images; the exit code is 1 when something does
    Diff(Deferred<Diff>),
    /// Give an image another name
    Tag(Deferred<Tag>),
    /// Take names from images; layers that no name needs are removed by `ibid gc`
    Rmi(Deferred<Rmi>),
    /// Write images to a file, a folder or a pipe, for `ibid load`, Docker, podman and others
    Save(Deferred<Save>),
    /// Read images from a file, a folder or a pipe, as `ibid save`, Docker, podman and others write them
    Load(Deferred<Load>),
    /// Get an image from a registry and print its digest
    Pull(Deferred<Pull>),
    /// Send an image to a registry and print its name there
    Push(Deferred<Push>),
    /// Keep the credentials for a registry, where Docker keeps them
    Login(Deferred<Login>),
    /// Forget the credentials for a registry
    Logout(Deferred<Logout>),
    /// Remove layers, packages and cached values that no tag and no run needs
    Gc(Deferred<Gc>),
    /// Look after the store
    Store(Deferred<Store>),
    /// Say what this machine can do, and the command that mends what it cannot
    Doctor(Deferred<Doctor>),
    /// Write a Dockerfile, .dockerignore and ibid.toml for an existing project
    Init(Deferred<Init>),
    /// Write scripts that do with plain docker, or another tool, what ibid does for this project
    Eject(Deferred<Eject>),
}

#[derive(Debug, Args)]
pub struct Build {
    /// Folder to build from [default: the project's folder]
    pub context: Option<PathBuf>,

    /// Dockerfile to build [default: `Dockerfile` in the project's folder]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Tag for the image; may be given more than once [default: NAME:latest]
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,

    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,

    /// Platform to build for: this machine's, such as linux/amd64
    #[arg(long)]
    pub platform: Option<String>,

    /// What builds: ibid itself, or the builder of Docker or Podman, whose image comes into the store [default: `builder`
    /// of `[engine]` in ibid.toml, else native]
    #[arg(long, value_name = "native|docker|podman", value_enum, hide_possible_values = true)]
    pub builder: Option<EngineChoice>,

    /// Run every step again, whatever the cache holds
    #[arg(long)]
    pub no_cache: bool,

    /// Run every step of these stages again; may be given more than once
    #[arg(long, value_name = "STAGE", value_delimiter = ',', conflicts_with = "no_cache")]
    pub no_cache_filter: Vec<String>,

    /// Look steps up in this folder or registry too, where --cache-to wrote them; may be given more than once
    #[arg(long, value_name = "[type=local,src=]FOLDER|type=registry,ref=IMAGE", conflicts_with_all = ["no_cache", "verify"])]
    pub cache_from: Vec<String>,

    /// Write the steps' layers to a folder in the OCI image layout or to a registry, for --cache-from elsewhere; with
    /// `mounts=true` also what their cache mounts hold
    #[arg(
        long,
        value_name = "[type=local,dest=]FOLDER|type=registry,ref=IMAGE[,compression=gzip][,mounts=true]"
    )]
    pub cache_to: Option<String>,

    /// Say for each step that runs again which of its inputs changed
    #[arg(long)]
    pub explain: bool,

    /// Open a shell in the state that a failed RUN left; leaving it ends the build
    #[arg(long, conflicts_with = "verify")]
    pub shell_on_fail: bool,

    /// Build twice from nothing and compare; what differs is listed with what would cure it, and the exit
    /// code is 1
    #[arg(long, conflicts_with = "no_cache_filter")]
    pub verify: bool,

    /// Keep times, logs and caches in the image, which then differs each time
    #[arg(long)]
    pub keep_nondeterminism: bool,

    /// Lend a secret to the steps that mount it: the content of a file, or of an environment variable; may be given
    /// more than once
    #[arg(long = "secret", value_name = "id=NAME[,src=FILE|,env=VAR]")]
    pub secrets: Vec<String>,

    /// Lend an SSH agent to the steps that mount it [default socket: SSH_AUTH_SOCK]; may be given more than once
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET]")]
    pub agents: Vec<String>,

    /// Fail when ibid.lock lacks something or no longer matches, and never write it
    #[arg(long)]
    pub locked: bool,

    /// Look anew for what ibid.lock pins, or for NAME of it: an image as FROM names it, or a URL
    #[arg(long, value_name = "NAME", num_args = 0..=1, conflicts_with = "locked")]
    pub update: Option<Option<String>>,

    /// Build nothing: list what in the Dockerfile is likely a mistake or keeps the build from giving the same
    /// image again; the exit code is 1 when there is something
    #[arg(
        long,
        conflicts_with_all = [
            "tags", "target", "no_cache", "no_cache_filter", "explain", "shell_on_fail", "verify",
             "keep_nondeterminism", "locked", "update", "cache_from", "cache_to",
        ]
    )]
    pub check: bool,

    /// Print what --check finds as JSON
    #[arg(long, requires = "check")]
    pub json: bool,

    #[command(flatten)]
    pub shared: BuildShared,
}

/// What `build` and the commands that build first have in common.
#[derive(Debug, Clone, Default, Args)]
pub struct BuildShared {
    /// Value of a build argument; without a value, it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,

    /// Another folder, or an image of the store, that `FROM NAME` and `--from=NAME` mean; may be given more than once
    #[arg(long = "build-context", value_name = "NAME=FOLDER|NAME=docker-image://IMAGE")]
    pub build_contexts: Vec<String>,

    /// Keep this machine's certificate authorities and proxy settings out of build steps and runs
    #[arg(long)]
    pub no_host_trust: bool,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Run the code in the image instead of the codebase on this machine
    #[arg(long)]
    pub pegged: bool,

    /// Set an environment variable; without a value, it is taken from the environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// Return when the program has started and print the id of the run, which goes on without this terminal
    #[arg(short, long)]
    pub detach: bool,

    /// Give a detached run's program a terminal, for `ibid attach`
    #[arg(short, long, requires = "detach")]
    pub tty: bool,

    /// Give the run an output folder of its own, named for the run, in the first of `[run] outputs`; IBID_OUTPUT_DIR is its path
    #[arg(long)]
    pub isolate: bool,

    /// Start the program again when the code changes, until Ctrl-C; each run has a record of its own
    #[arg(long)]
    pub watch: bool,

    /// The process that watches over this run, and starts the next
    #[arg(long, value_name = "PID", hide = true, conflicts_with = "watch")]
    pub watched_by: Option<u32>,

    /// Record the digest of the data inputs' content too; what was hashed once is hashed again only when it changes
    #[arg(long)]
    pub digest_data: bool,
    /// GPUs of this machine: all, none, a number of them, device=0,1, or names of CDI files such as nvidia.com/gpu=0
    /// [default: `gpus` of `[run]` in ibid.toml]
    #[arg(long, value_name = "all|none|N|device=ID,…|NAME,…")]
    pub gpus: Option<ibid_core::gpus::GpuRequest>,

    /// What executes it: ibid itself, Docker or Podman [default: IBID_ENGINE, else `[engine]` in ibid.toml, else native]
    #[arg(long, value_name = "native|docker|podman", value_enum, hide_possible_values = true)]
    pub engine: Option<EngineChoice>,

    #[command(flatten)]
    pub shared: BuildShared,

    #[command(flatten)]
    pub options: RunOptions,

    /// Arguments for the program. The first word that is no option of ibid's starts them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, help_heading = None)]
    pub args: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub struct Dev {
    /// Use the code in the image instead of the codebase on this machine
    #[arg(long)]
    pub pegged: bool,

    /// Set an environment variable; without a value, it is taken from the environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// GPUs of this machine: all, none, a number of them, device=0,1, or names of CDI files such as nvidia.com/gpu=0
    /// [default: `gpus` of `[run]` in ibid.toml]
    #[arg(long, value_name = "all|none|N|device=ID,…|NAME,…")]
    pub gpus: Option<ibid_core::gpus::GpuRequest>,

    /// What executes it: ibid itself, Docker or Podman [default: IBID_ENGINE, else `[engine]` in ibid.toml, else native]
    #[arg(long, value_name = "native|docker|podman", value_enum, hide_possible_values = true)]
    pub engine: Option<EngineChoice>,

    #[command(flatten)]
    pub shared: BuildShared,

    #[command(flatten)]
    pub options: RunOptions,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// Run: the start of its id, a tag, or `last`
    pub run: String,

    /// Go on with what is written from now on, until the run ends
    #[arg(short, long)]
    pub follow: bool,

    /// Say when each line came
    #[arg(short, long)]
    pub timestamps: bool,

    /// Only what was written to standard output
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,

    /// Only what was written to standard error
    #[arg(long)]
    pub stderr: bool,

    /// Print each line as a JSON object
    #[arg(long, conflicts_with = "timestamps")]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// Run: the start of its name, or a file that `ibid export` wrote
    #[arg(value_name = "RUN|FILE")]
    pub run: String,

    /// Use other code, and nothing else: that of a commit, or `worktree`, the project's folder as it is now
    #[arg(long, value_name = "COMMIT|worktree")]
    pub code: Option<String>,

    /// Use another image, and nothing else: a tag, a digest, or the first digits of one
    #[arg(long, value_name = "IMAGE", conflicts_with = "code")]
    pub image: Option<String>,

    /// What executes it: ibid itself, Docker or Podman
    #[arg(
        long,
        value_name = "native|docker|podman",
        value_enum,
        default_value = "native",
        hide_possible_values = true
    )]
    pub engine: EngineChoice,

    /// Do not try once more when the result differs
    #[arg(long)]
    pub once: bool,

    /// Keep the folder that the replay ran in, with its code and outputs, as DIR
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Export {
    /// Run: the start of its name
    pub run: String,

    /// File to write; compressed when its name ends in `.zst`
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Add the contents of the outputs, which comparing within a tolerance needs
    #[arg(long)]
    pub outputs: bool,

    /// Add the data inputs
    #[arg(long)]
    pub data: bool,
}

#[derive(Debug, Args)]
pub struct Context {
    /// Folder to build from [default: the project's folder]
    pub context: Option<PathBuf>,

    /// Dockerfile whose ignore file counts [default: `Dockerfile` in the project's folder]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// List every path instead of the largest
    #[arg(long, conflicts_with = "json")]
    pub all: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Images {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// Image: a tag, a digest, or the first digits of one
    pub image: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Diff {
    /// Run: the start of its id, a tag, or `last`; or image: a tag, a digest, or the first digits of one
    #[arg(value_name = "RUN|IMAGE")]
    pub first: String,

    /// The run or image to compare it with
    #[arg(value_name = "RUN|IMAGE")]
    pub second: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Tag {
    /// Image: a tag, a digest, or the first digits of one
    pub image: String,

    /// Name that it gets; another image that has it loses it
    #[arg(value_name = "NAME[:TAG]")]
    pub name: String,
}

#[derive(Debug, Args)]
pub struct Rmi {
    /// Images: tags, or digests of images with one tag
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Save {
    /// Images: tags, digests, or the first digits of one
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,

    /// File or folder to write; `-` is stdout [default: stdout, unless that is a terminal]
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub output: Option<PathBuf>,

    /// What to write [default: oci for a folder that is there or a path that ends with `/`, else docker]
    #[arg(long, value_enum)]
    pub format: Option<SaveFormat>,

    /// How layers are compressed [default: none for docker, gzip for oci and oci-archive]
    #[arg(long, value_enum)]
    pub compression: Option<LayerCompression>,
}

/// What `ibid save` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SaveFormat {
    /// An archive for `docker load`
    #[value(alias = "docker-archive")]
    Docker,
    /// An archive of an OCI image layout
    OciArchive,
    /// A folder in the OCI image layout
    #[value(alias = "oci-dir")]
    Oci,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LayerCompression {
    None,
    Gzip,
    Zstd,
}

#[derive(Debug, Args)]
pub struct Load {
    /// File or folder to read; `-` is stdin [default: stdin, unless that is a terminal]
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub input: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Pull {
    /// Image: [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    pub image: String,

    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    pub platform: Option<String>,
}

#[derive(Debug, Args)]
pub struct Push {
    /// Image of the store, by the name that it has in the registry [default: the project's image, under a tag of its
    /// own: NAME:COMMIT[-dirty]-DIGEST]
    pub image: Option<String>,

    /// Where the project's image goes [default: `registry` of `[image]` in ibid.toml]
    #[arg(long, value_name = "REGISTRY[/PREFIX]", conflicts_with = "image")]
    pub to: Option<String>,

    /// How layers are compressed: every engine reads gzip, newer ones zstd
    #[arg(long, value_name = "gzip|zstd", value_parser = ["gzip", "zstd"], default_value = "gzip")]
    pub compression: String,

    /// Take the tag from the other image that has it
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Login {
    /// Registry: HOST or HOST:PORT
    #[arg(default_value = "docker.io")]
    pub registry: String,

    /// User name [default: asked for]
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,

    /// Read the password from standard input instead of asking for it
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
}

#[derive(Debug, Args)]
pub struct Logout {
    /// Registry: HOST or HOST:PORT
    #[arg(default_value = "docker.io")]
    pub registry: String,
}

#[derive(Debug, Args)]
pub struct Gc {
    /// Remove the least recently used until the store takes no more than SIZE, such as 20GB; 0 removes all
    /// that nothing needs [default: remove what was not used for a week]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub keep: Option<u64>,

    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Store {
    #[command(subcommand)]
    pub command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read all that the store holds and move what is damaged out of the way; the exit code is 1 when something is
    Verify(Verify),
}

#[derive(Debug, Args)]
pub struct Verify {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A number of bytes as people write it: `20GB` (powers of 1000), `20GiB` (powers of 1024), `500000`.
fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 11] = [
        ("kib", 1024.0),
        ("mib", 1_048_576.0),
        ("gib", 1_073_741_824.0),
        ("tib", 1_099_511_627_776.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
        ("tb", 1e12),
        ("k", 1e3),
        ("m", 1e6),
        ("g", 1e9),
    ];
    let lower = text.trim().to_ascii_lowercase();
    let found = UNITS.iter().find_map(|(unit, factor)| Some((lower.strip_suffix(unit)?, *factor)));
    let (number, factor) = found.unwrap_or((lower.strip_suffix('b').unwrap_or(&lower), 1.0));
    match number.trim().parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok((number * factor) as u64),
        _ => Err("expected a size such as 20GB, 500MiB or 0".to_owned()),
    }
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Init {
    /// Write .devcontainer/devcontainer.json, by which editors open the project in its image; a Dockerfile that is there
    /// stays
    #[arg(long)]
    pub devcontainer: bool,

    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Eject {
    /// For Podman instead of Docker
    #[arg(long, group = "tool")]
    pub podman: bool,

    /// For Apptainer, as clusters have it
    #[arg(long, group = "tool")]
    pub apptainer: bool,

    /// One file for Docker Compose
    #[arg(long, group = "tool")]
    pub compose: bool,

    /// Folder to write into [default: the project's folder]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_size(text).ok(), expected, "{text}");
        check("0", Some(0));
        check("20GB", Some(20_000_000_000));
        check("1.5 GiB", Some(1_610_612_736));
        check("12k", Some(12_000));
        check("7b", Some(7));
        check("-1GB", None);
        check("GB", None);
        check("20 apples", None);
        check("inf", None);
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_first_word_that_is_no_option_starts_the_programs_arguments() {
        let check = |words: &[&str], pegged: bool, args: &[&str]| {
            let cli = Cli::try_parse_from([&["ibid", "run"], words].concat()).expect("parses");
            let Command::Run(run) = cli.command else { panic!("not a run") };
            assert_eq!(run.pegged, pegged, "{words:?}");
            assert_eq!(run.args, args, "{words:?}");
        };
        check(&["--n-epochs", "5"], false, &["--n-epochs", "5"]);
        check(&["--", "--n-epochs", "5"], false, &["--n-epochs", "5"]);
        check(&["--pegged", "--n-epochs", "5"], true, &["--n-epochs", "5"]);
        check(&["--n-epochs", "5", "--pegged"], false, &["--n-epochs", "5", "--pegged"]);
        check(&["--pegged", "--", "--pegged"], true, &["--pegged"]);
        check(&["-x", "-e"], false, &["-x", "-e"]);
        check(&["train", "-q"], false, &["train", "-q"]);
        check(&["-v", "./a:/a", "--pegged", "train", "-v"], true, &["train", "-v"]);
    }

    #[test]
    fn narration_can_be_asked_for_on_either_side_of_run() {
        for words in
            [&["ibid", "-v", "run"][..], &["ibid", "--verbose", "run"], &["ibid", "run", "--verbose"]]
        {
            assert!(Cli::try_parse_from(words).expect("parses").verbose, "{words:?}");
        }
        let cli = Cli::try_parse_from(["ibid", "run", "-v", "./a:/a"]).expect("parses");
        assert!(!cli.verbose);
        assert!(Cli::try_parse_from(["ibid", "run", "-q", "--verbose"]).is_err());
    }
}
