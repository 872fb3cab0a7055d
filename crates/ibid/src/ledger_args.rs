//! The command lines of the commands that ask the ledger, as plain data.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct Runs {
    /// Only runs for which a condition holds, such as `learning_rate>0.1 and status==ok`
    #[arg(short, long, value_name = "CONDITION")]
    pub filter: Option<String>,

    /// Order by a value, `-KEY` greatest first [default: newest first]
    #[arg(short, long, value_name = "[-]KEY", allow_hyphen_values = true)]
    pub sort: Option<String>,

    /// What to show of each run; may be given more than once [default: what tells the runs apart]
    #[arg(short, long, value_name = "KEY,KEY…", value_delimiter = ',')]
    pub columns: Vec<String>,

    /// Show the first N
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,

    /// The runs that `ibid rm` took away, for `ibid restore`
    #[arg(long)]
    pub removed: bool,

    /// Print JSON
    #[arg(long, conflicts_with_all = ["csv", "columns"])]
    pub json: bool,

    /// Print CSV
    #[arg(long)]
    pub csv: bool,
}

#[derive(Debug, Args)]
pub struct Show {
    /// Run: the start of its id, a tag, or `last`
    #[arg(default_value = "last")]
    pub run: String,

    /// Print JSON: the record, with tags and notes
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Checkout {
    /// Run: the start of its id, a tag, or `last`
    pub run: String,

    /// Folder to put the code in: a new one, or an empty one
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

#[derive(Debug, Args)]
pub struct TagRun {
    /// Run: the start of its id, a tag, or `last`
    pub run: String,

    /// Name for it; several runs may have the same
    pub name: String,

    /// Take the name away
    #[arg(long)]
    pub remove: bool,
}

#[derive(Debug, Args)]
pub struct Note {
    /// Run: the start of its id, a tag, or `last`
    pub run: String,

    /// What to note
    #[arg(required = true, value_name = "TEXT")]
    pub text: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Rm {
    /// Runs: starts of their ids, tags, or `last`
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// Runs: starts of their ids, or tags
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Plot {
    /// Runs (starts of their ids, tags, or `last`), then metrics to draw [default: last, all its metrics]
    #[arg(value_name = "RUN|METRIC")]
    pub words: Vec<String>,

    /// Write one HTML file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Write an SVG picture
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Draw values by their powers of ten
    #[arg(long)]
    pub log: bool,

    /// Print JSON: every value
    #[arg(long, conflicts_with_all = ["html", "svg", "log"])]
    pub json: bool,
}
