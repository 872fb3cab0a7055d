//! The command line of what is done with runs that are going on.

use std::ffi::OsString;

use clap::Args;

#[derive(Debug, Args)]
pub struct Exec {
    /// Run: the start of its id, a tag, or `last`, the newest of the project that is going on
    pub run: String,

    /// Set an environment variable over those of the run; without a value, it is taken from the environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// Be this user [default: that of the run]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// Be root in the container
    #[arg(long, conflicts_with = "user")]
    pub root: bool,

    /// Start in this folder of the container [default: that of the run]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// Program and its arguments. The first word that is no option of ibid's starts them
    #[arg(required = true, value_name = "PROGRAM", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Attach {
    /// Run: the start of its id, a tag, or `last`, the newest of the project that is going on
    pub run: String,
}

#[derive(Debug, Args)]
pub struct Ps {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Stop {
    /// Runs: the start of an id, a tag, or `last`, the newest of the project that is going on
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,

    /// How long a program may take to end before it is killed
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    pub time: u64,
}
