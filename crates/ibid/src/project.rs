//! The project: its folder, and `ibid.toml` read into plain data. Every mistake in the file is an error
//! that names the line; an unknown key names the nearest known one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use ibid_core::gpus::{GpuRequest, InvalidGpuRequest};
use ibid_ledger::verdict::{Rule, Rules};
use toml_edit::{Document, Item, TableLike, Value};

use crate::engines::EngineChoice;

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "ibid.toml";

/// A folder with a Dockerfile and, if wanted, an `ibid.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Absolute path of the folder that holds everything.
    pub root: PathBuf,
    /// Image name.
    pub name: String,
    /// Absolute path of the Dockerfile.
    pub dockerfile: PathBuf,
    /// Absolute path of the context.
    pub context: PathBuf,
    /// `[image] args`
    pub build_args: BTreeMap<String, String>,
    /// `[image] registry`: where the image is pushed to, such as `registry.lab.org/group`.
    pub registry: Option<String>,
    /// `[code] mount`; none means the image's working folder.
    pub code_mount: Option<String>,
    /// `[code] keep`, relative to the code folder.
    pub keep: Vec<String>,
    /// `[run] outputs`, relative to the root.
    pub outputs: Vec<String>,
    /// `[run] data`, relative to the root.
    pub data: Vec<String>,
    /// `[run] data_digest`: whether the content of data inputs is digested for each record.
    pub data_digest: bool,
    /// `[run] env`
    pub env: BTreeMap<String, String>,
    /// `[run] gpus`
    pub gpus: Option<GpuRequest>,
    /// `[engine] name`
    pub engine: Option<EngineChoice>,
    /// `[engine] builder`
    pub builder: Option<EngineChoice>,
    /// `[base."REFERENCE"]`
    pub bases: BTreeMap<String, BaseTable>,
    /// `[replay]`: what may differ when a run is repeated.
    pub replay: ReplayTable,
}

/// The table `[replay]`: patterns in the order of the file, each with `ignore` or a tolerance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayTable {
    pub files: Vec<(String, String)>,
    pub metrics: Vec<(String, String)>,
}

/// One `[base."REFERENCE"]` table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseTable {
    pub suite: Option<String>,
    pub packages: Vec<String>,
    pub mirror: Option<String>,
    pub keyring: Option<PathBuf>,
}

/// Why the project cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", path.display())]
    Config { path: PathBuf, text: String, span: Option<Range<usize>>, message: String, hint: Option<String> },
}

impl Project {
    /// Finds the project that `start` belongs to: the nearest folder upwards that holds `ibid.toml`; else,
    /// up to the root of the git repository, the nearest that holds a Dockerfile; else the repository's
    /// root; else `start`.
    pub fn find(start: &Path) -> Result<Self, Error> {
        let start =
            std::fs::canonicalize(start).map_err(|source| Error::Read { path: start.to_owned(), source })?;
        if !start.is_dir() {
            return Err(Error::Read { path: start, source: std::io::ErrorKind::NotADirectory.into() });
        }
        if let Some(root) = start.ancestors().find(|folder| folder.join(CONFIG_FILE).is_file()) {
            let path = root.join(CONFIG_FILE);
            let text = std::fs::read_to_string(&path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            return Self::from_config(root, &path, &text);
        }
        let git_root = start.ancestors().find(|folder| folder.join(".git").exists());
        let root = start
            .ancestors()
            .take_while(|folder| git_root.is_none_or(|git_root| folder.starts_with(git_root)))
            .take(if git_root.is_some() { usize::MAX } else { 1 })
            .find(|folder| folder.join("Dockerfile").is_file())
            .or(git_root)
            .unwrap_or(&start);
        Self::from_config(root, &root.join(CONFIG_FILE), "")
    }

    /// The project that is in `root` itself, whatever lies around it.
    pub fn in_folder(root: &Path) -> Result<Self, Error> {
        let path = root.join(CONFIG_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::from_config(root, &path, &text),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                Self::from_config(root, &path, "")
            }
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// The project of `directory` (none means the current one), or of the folder `context` that the command line
    /// names: that folder is then the project, wherever the command is called. `file` is another Dockerfile.
    pub fn of_command_line(
        directory: Option<&Path>,
        context: Option<&Path>,
        file: Option<&Path>,
    ) -> Result<Self, Error> {
        let directory = directory.unwrap_or(Path::new("."));
        let given = |path: &Path| {
            let path = directory.join(path);
            let absolute = std::path::absolute(&path).map_err(|source| Error::Read { path, source })?;
            Ok(clean(&absolute))
        };
        let mut project = match context {
            Some(context) => Self::find(&directory.join(context))?,
            None => Self::find(directory)?,
        };
        if let Some(context) = context {
            project.context = given(context)?;
        }
        if let Some(file) = file {
            project.dockerfile = given(file)?;
        }
        Ok(project)
    }

    fn from_config(root: &Path, path: &Path, text: &str) -> Result<Self, Error> {
        let reader = Reader { path, text };
        let document = Document::parse(text)
            .map_err(|error| reader.error(error.span(), error.message().to_owned(), None))?;
        let top = Table { reader: &reader, table: document.as_table(), at: String::new() };
        top.only(&["name", "image", "code", "run", "engine", "base", "replay"])?;
        let folder_name = root.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = match top.text("name")? {
            Some(name) => {
                if format!("{name}:latest").parse::<ibid_core::reference::Reference>().is_err() {
                    return Err(top.wrong("name", "expected an image name: lower-case letters, digits, and `.`, `_`, `-` or `/` between them"));
                }
                name
            }
            None => image_name(folder_name.as_deref().unwrap_or("project")),
        };
        let image = top.table("image")?;
        let mut dockerfile = root.join("Dockerfile");
        let mut context = root.to_owned();
        let mut build_args = BTreeMap::new();
        let mut registry = None;
        if let Some(image) = image {
            image.only(&["dockerfile", "context", "args", "registry"])?;
            if let Some(path) = image.text("dockerfile")? {
                dockerfile = root.join(path);
            }
            if let Some(path) = image.text("context")? {
                context = clean(&root.join(path));
            }
            build_args = image.text_map("args")?;
            registry = image.text("registry")?;
            if registry.as_ref().is_some_and(|text: &String| !is_registry_place(text)) {
                return Err(image.wrong(
                    "registry",
                    "expected REGISTRY or REGISTRY/PREFIX, such as registry.lab.org/group, without a scheme",
                ));
            }
        }
        let (mut code_mount, mut keep) = (None, Vec::new());
        if let Some(code) = top.table("code")? {
            code.only(&["mount", "keep"])?;
            keep = code.inner_paths("keep")?;
            code_mount = code.text("mount")?;
            if code_mount.as_deref().is_some_and(|mount| !mount.starts_with('/') || mount == "/") {
                return Err(code.wrong("mount", "expected an absolute path in the image, other than `/`"));
            }
        }
        let (mut outputs, mut data, mut env, mut gpus) = (Vec::new(), Vec::new(), BTreeMap::new(), None);
        let mut data_digest = false;
        if let Some(run) = top.table("run")? {
            run.only(&["outputs", "data", "data_digest", "env", "gpus"])?;
            gpus = run.gpus("gpus")?;
            outputs = run.inner_paths("outputs")?;
            data = run.inner_paths("data")?;
            data_digest = run.flag("data_digest")?;
            env = run.text_map("env")?;
        }
        let (mut engine, mut builder) = (None, None);
        if let Some(table) = top.table("engine")? {
            table.only(&["name", "builder"])?;
            engine = table.engine("name")?;
            builder = table.engine("builder")?;
        }
        let mut bases = BTreeMap::new();
        if let Some(base) = top.table("base")? {
            for (reference, _) in base.table.iter() {
                if reference.parse::<ibid_core::reference::Reference>().is_err() {
                    return Err(
                        base.wrong(reference, "expected an image reference such as \"debian:bookworm-slim\"")
                    );
                }
                let table = base.table(reference)?.expect("the key was just listed");
                table.only(&["suite", "packages", "mirror", "keyring"])?;
                bases.insert(
                    reference.to_owned(),
                    BaseTable {
                        suite: table.text("suite")?,
                        packages: table.text_list("packages")?,
                        mirror: table.text("mirror")?,
                        keyring: table.text("keyring")?.map(|path| root.join(path)),
                    },
                );
            }
        }
        let replay = match top.table("replay")? {
            Some(table) => ReplayTable::read(&table)?,
            None => ReplayTable::default(),
        };
        Ok(Self {
            root: root.to_owned(),
            name,
            dockerfile,
            context,
            build_args,
            registry,
            code_mount,
            keep,
            outputs,
            data,
            data_digest,
            env,
            gpus,
            engine,
            builder,
            bases,
            replay,
        })
    }
}

impl ReplayTable {
    fn read(table: &Table) -> Result<Self, Error> {
        table.only(&["files", "metrics"])?;
        let (mut read, mut rules) = (Self::default(), Rules::default());
        if let Some(files) = table.table("files")? {
            for (pattern, rule, text) in files.rules()? {
                let added = rules.add_files(&pattern, rule);
                added
                    .map_err(|error| files.wrong(&pattern, &format!("it is no pattern: {}", error.reason)))?;
                read.files.push((pattern, text));
            }
        }
        if let Some(metrics) = table.table("metrics")? {
            for (pattern, rule, text) in metrics.rules()? {
                let added = rules.add_metrics(&pattern, rule);
                added.map_err(|error| metrics.wrong(&pattern, &format!("it is no pattern: {error}")))?;
                read.metrics.push((pattern, text));
            }
        }
        Ok(read)
    }

    /// What the table says.
    pub fn rules(&self) -> Rules {
        const CHECKED: &str = "checked when the file was read";
        let mut rules = Rules::default();
        for (pattern, rule) in &self.files {
            rules.add_files(pattern, rule.parse().expect(CHECKED)).expect(CHECKED);
        }
        for (pattern, rule) in &self.metrics {
            rules.add_metrics(pattern, rule.parse().expect(CHECKED)).expect(CHECKED);
        }
        rules
    }
}

/// Where messages get their path and line from.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn error(&self, span: Option<Range<usize>>, message: String, hint: Option<String>) -> Error {
        Error::Config { path: self.path.to_owned(), text: self.text.to_owned(), span, message, hint }
    }
}

/// One table of the file.
struct Table<'a> {
    reader: &'a Reader<'a>,
    table: &'a dyn TableLike,
    /// Its dotted path, empty for the top.
    at: String,
}

impl<'a> Table<'a> {
    fn path_of(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// Refuses keys that are not known.
    fn only(&self, known: &[&str]) -> Result<(), Error> {
        for (key, item) in self.table.iter() {
            if known.contains(&key) {
                continue;
            }
            let nearest = known
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
            let span = self.table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
            let place =
                if self.at.is_empty() { "at the top level".to_owned() } else { format!("in [{}]", self.at) };
            let hint = nearest.map(|nearest| {
                if strsim::jaro_winkler(nearest, key) > 0.75 {
                    format!("did you mean `{nearest}`?")
                } else {
                    format!("known keys {place}: {}", known.join(", "))
                }
            });
            return Err(self.reader.error(span, format!("unknown key `{key}` {place}"), hint));
        }
        Ok(())
    }

    fn engine(&self, key: &str) -> Result<Option<EngineChoice>, Error> {
        let Some(name) = self.text(key)? else { return Ok(None) };
        EngineChoice::from_str(&name, false)
            .map(Some)
            .map_err(|_| self.wrong(key, "expected \"native\", \"docker\" or \"podman\""))
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let span = self.table.get(key).and_then(Item::span);
        self.reader.error(span, format!("`{}`: {expected}", self.path_of(key)), None)
    }

    fn table(&self, key: &str) -> Result<Option<Table<'a>>, Error> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        let table = item.as_table_like().ok_or_else(|| self.wrong(key, "expected a table"))?;
        let at = if key.contains(['.', ':', '/']) {
            self.path_of(&format!("\"{key}\""))
        } else {
            self.path_of(key)
        };
        Ok(Some(Table { reader: self.reader, table, at }))
    }

    fn text(&self, key: &str) -> Result<Option<String>, Error> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        match item.as_str() {
            Some("") => Err(self.wrong(key, "must not be empty")),
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.wrong(key, "expected a string")),
        }
    }

    /// False when it is not there.
    fn flag(&self, key: &str) -> Result<bool, Error> {
        let Some(item) = self.table.get(key) else { return Ok(false) };
        item.as_bool().ok_or_else(|| self.wrong(key, "expected true or false"))
    }

    fn text_list(&self, key: &str) -> Result<Vec<String>, Error> {
        let Some(item) = self.table.get(key) else { return Ok(Vec::new()) };
        let array = item.as_array().ok_or_else(|| self.wrong(key, "expected a list of strings"))?;
        array
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| self.wrong(key, "expected a list of strings"))
    }

    /// A list of paths that stay inside the project.
    fn inner_paths(&self, key: &str) -> Result<Vec<String>, Error> {
        let paths = self.text_list(key)?;
        for path in &paths {
            let inside = clean(Path::new(path));
            if inside.is_absolute() || inside.starts_with("..") || inside.as_os_str().is_empty() {
                return Err(self.wrong(key, &format!("`{path}` must be a path inside the project's folder")));
            }
        }
        Ok(paths.iter().map(|path| clean(Path::new(path)).to_string_lossy().into_owned()).collect())
    }

    /// Patterns with what is allowed to what matches them.
    fn rules(&self) -> Result<Vec<(String, Rule, String)>, Error> {
        let mut rules = Vec::new();
        for (pattern, item) in self.table.iter() {
            let text = item.as_str().unwrap_or_default();
            let rule = text.parse().map_err(|_| {
                self.wrong(pattern, "expected \"ignore\" or a tolerance: \"±0.01\", \"±0.5%\"")
            })?;
            rules.push((pattern.to_owned(), rule, text.to_owned()));
        }
        Ok(rules)
    }

    /// A number of graphics processors, or a text that names them.
    fn gpus(&self, key: &str) -> Result<Option<GpuRequest>, Error> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        let text = match item.as_value() {
            Some(Value::String(text)) => text.value().clone(),
            Some(Value::Integer(number)) => number.value().to_string(),
            _ => String::new(),
        };
        text.parse().map(Some).map_err(|error: InvalidGpuRequest| self.wrong(key, &error.to_string()))
    }

    /// Names with strings, numbers or booleans.
    fn text_map(&self, key: &str) -> Result<BTreeMap<String, String>, Error> {
        let Some(table) = self.table(key)? else { return Ok(BTreeMap::new()) };
        table
            .table
            .iter()
            .map(|(name, item)| {
                let value = match item.as_value() {
                    Some(Value::String(text)) => text.value().clone(),
                    Some(Value::Integer(number)) => number.value().to_string(),
                    Some(Value::Float(number)) => number.value().to_string(),
                    Some(Value::Boolean(flag)) => flag.value().to_string(),
                    _ => return Err(table.wrong(name, "expected a string")),
                };
                Ok((name.to_owned(), value))
            })
            .collect()
    }
}

/// Removes `.` and resolves `..` by name.
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir if cleaned.file_name().is_some() && !cleaned.ends_with("..") => {
                cleaned.pop();
            }
            std::path::Component::ParentDir if cleaned.is_absolute() => {}
            component => cleaned.push(component),
        }
    }
    cleaned
}

/// Whether repositories can be put below this: a registry, perhaps with the start of a repository's name. One that is
/// left out would be Docker Hub, which should be meant when it is used.
pub fn is_registry_place(text: &str) -> bool {
    let reference = format!("{text}/x").parse::<ibid_core::reference::Reference>();
    reference.is_ok_and(|reference| text.split('/').next() == Some(&reference.registry))
}

/// What the image of a project is called that does not say it.
pub fn image_name_of(root: &Path) -> String {
    image_name(&root.file_name().map(|name| name.to_string_lossy()).unwrap_or_default())
}

/// A valid image name made from a folder's name.
fn image_name(folder: &str) -> String {
    let mut name = String::new();
    for character in folder.chars().flat_map(char::to_lowercase) {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { "project".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Project, String> {
        Project::from_config(Path::new("/p/My Project"), Path::new("/p/My Project/ibid.toml"), text).map_err(
            |error| match error {
                Error::Config { text, span, message, hint, .. } => {
                    let line = span.map_or(0, |span| text[..span.start].matches('\n').count() + 1);
                    format!("{line}: {message}{}", hint.map(|hint| format!(" ({hint})")).unwrap_or_default())
                }
                Error::Read { source, .. } => source.to_string(),
            },
        )
    }

    #[test]
    fn an_absent_file_gives_defaults() {
        let project = read("").expect("nothing is needed");
        assert_eq!(project.name, "my-project");
        assert_eq!(project.dockerfile, Path::new("/p/My Project/Dockerfile"));
        assert_eq!(project.context, Path::new("/p/My Project"));
    }

    #[test]
    fn every_key_is_read() {
        let project = read(
            r#"
name = "mnist"
[image]
dockerfile = "docker/Dockerfile"
context = "./sub/.."
args = { PYTHON = "3.11", JOBS = 2 }
registry = "registry.lab.org:5000/group"
[code]
mount = "/code"
keep = ["venv", "./pkg/_fast.so"]
[run]
outputs = ["output", "./plots/"]
data = ["data"]
data_digest = true
env = { CUBLAS_WORKSPACE_CONFIG = ":4096:8" }
gpus = 2
[base."debian:bookworm-slim"]
suite = "bookworm"
packages = ["ca-certificates"]
[replay]
files = { "output/*.csv" = "±1e-6", "output/log.txt" = "ignore" }
metrics = { accuracy = "±0.5%" }
"#,
        )
        .expect("a sound file");
        assert_eq!(project.name, "mnist");
        assert_eq!(project.dockerfile, Path::new("/p/My Project/docker/Dockerfile"));
        assert_eq!(project.context, Path::new("/p/My Project"));
        assert_eq!(project.build_args["JOBS"], "2");
        assert_eq!(project.registry.as_deref(), Some("registry.lab.org:5000/group"));
        assert_eq!(project.keep, ["venv", "pkg/_fast.so"]);
        assert_eq!(project.outputs, ["output", "plots"]);
        assert_eq!(project.gpus, Some(GpuRequest::Count(2)));
        assert!(project.data_digest);
        assert_eq!(project.bases["debian:bookworm-slim"].packages, ["ca-certificates"]);
        let pairs =
            |pairs: &[(String, String)]| pairs.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>();
        assert_eq!(pairs(&project.replay.files), ["output/*.csv ±1e-6", "output/log.txt ignore"]);
        assert_eq!(pairs(&project.replay.metrics), ["accuracy ±0.5%"]);
    }

    #[test]
    fn mistakes_name_the_line_and_the_cure() {
        let check = |text: &str, expected: &str| assert_eq!(read(text).expect_err(text), expected);
        check("nmae = \"x\"", "1: unknown key `nmae` at the top level (did you mean `name`?)");
        check("\n[run]\noutput = []", "3: unknown key `output` in [run] (did you mean `outputs`?)");
        check(
            "[run]\nzzz = 1",
            "2: unknown key `zzz` in [run] (known keys in [run]: outputs, data, data_digest, env, gpus)",
        );
        check(
            "[run]\ngpus = true",
            "2: `run.gpus`: expected `all`, `none`, a number of at least 1, `device=0,1`, or names of CDI files such as `nvidia.com/gpu=0`",
        );
        check("name = 3", "1: `name`: expected a string");
        for place in ["https://lab.org", "group", "lab.org/Group", "lab.org/"] {
            let message = read(&format!("[image]\nregistry = \"{place}\"")).expect_err(place);
            assert!(
                message.starts_with("2: `image.registry`: expected REGISTRY or REGISTRY/PREFIX"),
                "{message}"
            );
        }
        check(
            "[run]\noutputs = [\"../x\"]",
            "2: `run.outputs`: `../x` must be a path inside the project's folder",
        );
        check(
            "[code]\nmount = \"code\"",
            "2: `code.mount`: expected an absolute path in the image, other than `/`",
        );
        check(
            "[base.\"debian:bookworm-slim\"]\npackages = \"x\"",
            "2: `base.\"debian:bookworm-slim\".packages`: expected a list of strings",
        );
        check(
            "[replay]\nmetrics = { loss = \"5 percent\" }",
            "2: `replay.metrics.loss`: expected \"ignore\" or a tolerance: \"±0.01\", \"±0.5%\"",
        );
        check(
            "[replay.files]\n\"output/[\" = \"ignore\"",
            "2: `replay.files.output/[`: it is no pattern: `[` without its `]`",
        );
        check(
            "[replay]\nignore = []",
            "2: unknown key `ignore` in [replay] (known keys in [replay]: files, metrics)",
        );
        assert!(read("name = ").expect_err("broken").starts_with("1: "));
    }
}
