//! What is written down of a run: one JSON object that people can read.
//!
//! Everything here is plain data. Keys are `snake_case`, times are RFC 3339 in UTC with milliseconds, sizes are bytes, durations
//! seconds. A key that a later ibid adds is kept out of older ones by [`SCHEMA`]; one that is absent means that it is not known.

use std::collections::BTreeMap;

use ibid_core::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::run_id::RunId;

/// Version of the format. A record with a greater one is from a newer ibid and is not read.
pub const SCHEMA: u32 = 1;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`] of the ibid that wrote it.
    pub schema: u32,
    /// Version of the ibid that wrote it.
    pub ibid: String,
    /// Its name.
    pub id: RunId,
    /// How it stands, or ended.
    pub status: Status,
    /// When it started.
    pub started: String,
    /// When it ended; absent while it runs, and when nobody saw its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// From the program's start to its end, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The program's exit code; 128 + N for signal N.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The signal that ended it, such as `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Why ibid itself failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The whole command as executed.
    pub command: Vec<String>,
    /// What the person appended to the entrypoint.
    pub arguments: Vec<String>,
    /// The arguments as named values: `--n-epochs 5` is `n_epochs = 5`.
    pub parameters: BTreeMap<String, String>,
    /// The image.
    pub image: Image,
    /// Which code ran.
    pub code: Code,
    /// Variables that the run was given over the image's, by name.
    pub env: BTreeMap<String, EnvValue>,
    /// What of the host was mounted.
    pub mounts: Vec<Mount>,
    /// The data inputs.
    pub data: Vec<Data>,
    /// Limits and other options of the run as they were given, such as `memory = 4GB`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The machine.
    pub host: Host,
    /// What it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Files that it made or changed, sorted by path.
    pub outputs: Vec<Output>,
    /// Folder of the outputs of this run alone (`--isolate`), relative to the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_folder: Option<String>,
    /// Numbers that it told, by name. Their curves are beside the record.
    pub metrics: BTreeMap<String, Metric>,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<RunId>,
    /// What people should know: `model.py changed while this ran`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The program has not ended, as far as is known.
    Running,
    /// It ended with 0.
    Ok,
    /// It ended with another code or by a signal.
    Failed,
    /// ibid ended before the program's end was seen: what is recorded is what was known then.
    Lost,
    /// It never started: ibid failed.
    NotStarted,
}

/// The image of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its configuration. For a mounted run this is the environment that the code was mounted over.
    pub digest: Digest,
    /// Its names at the time.
    pub tags: Vec<String>,
    /// Where it was pushed to, as `REGISTRY/NAME@sha256:…`, as far as is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pushed: Vec<String>,
    /// Each `FROM` of the Dockerfile and the digest of what it meant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bases: BTreeMap<String, Digest>,
    /// Digest of `ibid.lock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Digest>,
    /// Digests of the layers' content, lowest first.
    pub layers: Vec<Digest>,
}

/// Which code ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Where it came from.
    pub mode: CodeMode,
    /// Its folder in the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Its snapshot; absent for pegged code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Digest>,
    /// The commit that was checked out, or that the image was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// URL of the repository's remote, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// How tracked files differ from the commit, as `git diff` writes it: a content of the ledger, for reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Digest>,
    /// Files that differ from the commit or are not in it. For pegged code: at the time of the build.
    pub differing: Vec<String>,
    /// For pegged code, whether it equalled the working tree; absent when nobody can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals_working_tree: Option<bool>,
    /// Files that changed while the run was going.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed_during_run: Vec<String>,
    /// Virtual environments and compiled files in the mounted folder, which the snapshot leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// Where the code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeMode {
    /// The project folder of the host.
    Mounted,
    /// The image.
    Pegged,
}

/// The value of a variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EnvValue {
    /// As it was.
    Plain(String),
    /// One that looks like a secret: only a keyed hash, by which two runs can be compared on this machine.
    Secret {
        /// HMAC-SHA-256 with the machine's own key, hexadecimal.
        secret_hash: String,
    },
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the host; below the project, relative to it.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// False when it could be written.
    pub read_only: bool,
}

/// One data input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Path relative to the project.
    pub path: String,
    /// Number of files.
    pub files: u64,
    /// Their size, bytes.
    pub bytes: u64,
    /// Digest over names, sizes and times of the files: cheap, and another one when a file is touched.
    pub identity: Digest,
    /// Digest over names and contents, when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// The machine of a run, and the person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Login name, or the id.
    pub user: String,
    /// User id.
    pub uid: u32,
    /// `x86_64`, …
    pub architecture: String,
    /// Kernel release.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// Processors that the run could use.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory: u64,
    /// The GPUs of the machine, whether the run was lent them or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Name of the engine: `native`.
    pub engine: String,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Model.
    pub model: String,
    /// Version of the driver.
    pub driver: String,
}

/// What a run took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Most memory of its largest process at a time, bytes.
    pub peak_memory: u64,
    /// Processor time of all of its processes, seconds.
    pub cpu_seconds: f64,
}

/// One file that a run made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Path relative to the project.
    pub path: String,
    /// Size, bytes.
    pub bytes: u64,
    /// Digest of its content; of its target for a symbolic link.
    pub digest: Digest,
}

/// A number that a run told again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The last value.
    pub last: f64,
    /// The smallest.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many there were.
    pub count: u64,
    /// Where they were read: a path relative to the project, or `stdout`.
    pub source: String,
}

#[cfg(test)]
pub(crate) mod tests;
