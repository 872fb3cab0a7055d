//! Which Python packages the project needs, and how the image gets them.

use std::path::Path;

use toml_edit::{Document, Item};

use super::python::Wanted;
use super::script::Entry;
use super::{Error, conda, imports, read};

/// The packages, and what says so.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Packages {
    pub source: Source,
    /// What the project asks for as a package, where `source` lists the project itself.
    pub own: Source,
    pub python: Option<Wanted>,
    /// Whether the project itself is a package, which code of it imports by name.
    pub is_package: bool,
    /// Programs of Debian's that `pip` needs for them.
    pub tools: Vec<&'static str>,
    /// What is worth knowing.
    notes: Vec<String>,
}

/// Where the names of packages are.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// There are none.
    #[default]
    None,
    /// `requirements.txt`, and the files and folders that it names. It lists the project itself, too, where
    /// `without_project`.
    Requirements { needs: Vec<String>, without_project: bool },
    /// `[project] dependencies` of `pyproject.toml`, which Python reads.
    Pyproject,
    /// A list, as `setup.py` or `setup.cfg` has it.
    Listed { file: &'static str, packages: Vec<String> },
    /// What the script imports, since nothing lists it.
    Imported { packages: Vec<String> },
    /// A `requirements.txt` that is to be written, with its lines.
    Translated { lines: Vec<String>, needs: Vec<String> },
    /// All code, installed as a package: what it needs is known to a program of its own only.
    Whole { file: &'static str },
}

impl Packages {
    pub fn find(root: &Path, entry: &Entry) -> Result<Self, Error> {
        let pyproject = match read(root, "pyproject.toml")? {
            Some(text) => Some(Pyproject::read(&root.join("pyproject.toml"), &text)?),
            None => None,
        };
        let setup = read(root, "setup.py")?;
        let setup_cfg = read(root, "setup.cfg")?;
        let mut packages = Self {
            is_package: setup.is_some() || pyproject.as_ref().is_some_and(|project| project.is_package),
            python: pyproject.as_ref().and_then(|project| project.python.clone()),
            ..Self::default()
        };
        let environment = ["environment.yml", "environment.yaml"];
        let mut is_without_project = false;
        if let Some(text) = read(root, "requirements.txt")? {
            let mut needs = Vec::new();
            let mut lines = Vec::new();
            follow(root, "requirements.txt", &text, &mut needs, &mut lines)?;
            packages.look_for_tools(&lines);
            is_without_project = text.lines().any(is_project_itself);
            let others = environment.iter().filter(|name| root.join(name).is_file());
            packages.notes.extend(others.map(|name| format!("{name} was not looked at")));
            packages.source = Source::Requirements { needs, without_project: is_without_project };
        } else if let Some((name, text)) =
            environment.iter().find_map(|name| Some((*name, read(root, name).transpose()?)))
        {
            let found = conda::read(name, &root.join(name), &text?)?;
            let (mut needs, mut lines) = (Vec::new(), Vec::new());
            follow(root, name, &found.requirements.join("\n"), &mut needs, &mut lines)?;
            packages.look_for_tools(&lines);
            if !found.left_out.is_empty() {
                packages
                    .notes
                    .push(format!("left out, since pip's packages need none: {}", found.left_out.join(", ")));
            }
            packages.notes.push(format!("translated from {name} into requirements.txt"));
            packages.python = found.python.or(packages.python);
            let (own, lines): (Vec<_>, Vec<_>) =
                found.requirements.into_iter().partition(|line| is_project_itself(line));
            is_without_project = !own.is_empty();
            packages.source = Source::Translated { lines, needs };
        } else {
            packages.source =
                packages.of_project(pyproject.as_ref(), setup.as_deref(), setup_cfg.as_deref())?;
        }
        if is_without_project {
            packages.notes.push("the project itself is left out of them: its code is mounted".to_owned());
            packages.own =
                match packages.of_project(pyproject.as_ref(), setup.as_deref(), setup_cfg.as_deref())? {
                    // The list names what it needs.
                    Source::Whole { .. } => Source::None,
                    own => own,
                };
        }
        if packages.source == Source::None && !packages.is_package {
            let script = entry.words.get(1).filter(|word| word.ends_with(".py"));
            if let Some(text) = script.and_then(|path| read(root, path).transpose()) {
                let list = imports::packages(&text?);
                if !list.is_empty() {
                    packages.source = Source::Imported { packages: list };
                }
            }
        }
        Ok(packages)
    }

    /// What the project asks for as a package.
    fn of_project(
        &mut self,
        pyproject: Option<&Pyproject>,
        setup: Option<&str>,
        setup_cfg: Option<&str>,
    ) -> Result<Source, Error> {
        if let Some(project) = pyproject.filter(|project| project.has_project || project.is_poetry) {
            self.look_for_tools(&project.dependencies);
            return match (project.is_poetry, project.is_dynamic) {
                (true, _) => Err(Error::NotInstallable {
                    file: "pyproject.toml",
                    what: vec!["[tool.poetry.dependencies]".to_owned()],
                    hint: "`poetry export -o requirements.txt` writes them as pip takes them".to_owned(),
                }),
                (false, true) => Ok(Source::Whole { file: "pyproject.toml" }),
                (false, false) if project.dependencies.is_empty() => Ok(Source::None),
                (false, false) => Ok(Source::Pyproject),
            };
        }
        let Some(text) = setup else { return Ok(Source::None) };
        if let Some(specifier) = python_text(text, "python_requires") {
            self.python = Some(Wanted { file: "setup.py".to_owned(), specifier });
        }
        let (file, packages) = match (python_list(text, "install_requires"), setup_cfg.and_then(cfg_list)) {
            (Listing::Literal(list), _) => ("setup.py", list),
            (Listing::Absent, Some(list)) => ("setup.cfg", list),
            (Listing::Absent, None) => return Ok(Source::None),
            (Listing::Computed, _) => return Ok(Source::Whole { file: "setup.py" }),
        };
        self.look_for_tools(&packages);
        Ok(if packages.is_empty() { Source::None } else { Source::Listed { file, packages } })
    }

    /// `pip` fetches repositories by their programs.
    fn look_for_tools(&mut self, lines: &[String]) {
        if self.tools.is_empty() && lines.iter().any(|line| line.contains("git+")) {
            self.tools.push("git");
        }
    }

    pub fn words(&self) -> String {
        let mut words = match &self.source {
            Source::None => "no Python packages: found no requirements.txt, environment.yml, pyproject.toml or setup.py that asks for some".to_owned(),
            Source::Requirements { .. } => "packages of requirements.txt, by pip".to_owned(),
            Source::Pyproject => "packages of [project] in pyproject.toml, by pip".to_owned(),
            Source::Listed { file, packages } => format!("{} of {file}, by pip", counted(packages.len())),
            Source::Imported { packages } => format!(
                "what the script imports, by pip, since no file lists packages: {}; a requirements.txt would say which versions",
                packages.join(", ")
            ),
            Source::Translated { lines, .. } => format!("{}, by pip", counted(lines.len())),
            Source::Whole { file } => format!(
                "the project itself as a package, by pip: {file} says only to a program what it needs, so each edit builds again"
            ),
        };
        match &self.own {
            Source::Pyproject => words.push_str("; those of [project] in pyproject.toml"),
            Source::Listed { file, .. } => words.push_str(&format!("; those of {file}")),
            _ => {}
        }
        for note in &self.notes {
            words.push_str("; ");
            words.push_str(note);
        }
        words
    }
}

fn counted(count: usize) -> String {
    if count == 1 { "1 package".to_owned() } else { format!("{count} packages") }
}

/// What of `pyproject.toml` counts here.
struct Pyproject {
    has_project: bool,
    is_poetry: bool,
    is_package: bool,
    is_dynamic: bool,
    dependencies: Vec<String>,
    python: Option<Wanted>,
}

impl Pyproject {
    fn read(path: &Path, text: &str) -> Result<Self, Error> {
        let document = Document::parse(text)
            .map_err(|error| Error::Syntax { path: path.to_owned(), what: error.message().to_owned() })?;
        let project = document.get("project");
        let texts = |item: Option<&Item>| -> Vec<String> {
            let array = item.and_then(Item::as_array);
            array.into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)).collect()
        };
        let of_project = |key: &str| project.and_then(|project| project.get(key));
        let poetry = document.get("tool").and_then(|tool| tool.get("poetry"));
        let python = of_project("requires-python").and_then(Item::as_str);
        Ok(Self {
            has_project: project.is_some(),
            // Newer ones of it use [project].
            is_poetry: project.is_none() && poetry.is_some_and(|poetry| poetry.get("dependencies").is_some()),
            is_package: document.get("build-system").is_some() && (project.is_some() || poetry.is_some()),
            is_dynamic: texts(of_project("dynamic")).iter().any(|name| name == "dependencies"),
            dependencies: texts(of_project("dependencies")),
            python: python
                .map(|text| Wanted { file: "pyproject.toml".to_owned(), specifier: text.to_owned() }),
        })
    }
}

/// Whether a line of requirements means the project itself.
fn is_project_itself(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or(line).trim();
    let path = line.strip_prefix("-e").or_else(|| line.strip_prefix("--editable")).unwrap_or(line);
    let path = path.trim_start_matches(['=', ' ']);
    path == "." || path == "./" || (path.starts_with(".[") && path.ends_with(']'))
}

/// Adds the lines of a requirements file and of those that it names, and what of the project they need.
fn follow(
    root: &Path,
    name: &str,
    text: &str,
    needs: &mut Vec<String>,
    lines: &mut Vec<String>,
) -> Result<(), Error> {
    const PATH_OPTIONS: [&str; 7] = ["-r", "--requirement", "-c", "--constraint", "-f", "--find-links", "-e"];
    let folder = Path::new(name).parent().unwrap_or(Path::new("")).to_owned();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        lines.push(line.to_owned());
        if is_project_itself(line) {
            continue;
        }
        let option = PATH_OPTIONS.iter().find_map(|option| {
            let rest = line.strip_prefix(option)?;
            (rest.starts_with([' ', '=']) || option.len() == 2)
                .then(|| (*option, rest.trim_start_matches(['=', ' '])))
        });
        let (option, path) = match option {
            Some((option, path)) => (option, path),
            // A path, of a wheel or a folder.
            None if line.starts_with("./") || line.starts_with("../") => ("", line),
            None => continue,
        };
        let path = path.split([' ', ';', '#']).next().unwrap_or(path);
        if path.is_empty() || path.contains("://") {
            continue;
        }
        // pip takes what a requirements file names from its folder, all else from where it is called.
        let is_file = matches!(option, "-r" | "--requirement" | "-c" | "--constraint");
        let seen = crate::project::clean(&if is_file { folder.join(path) } else { path.into() });
        let shown = seen.to_string_lossy().into_owned();
        if seen.is_absolute() || seen.starts_with("..") || !root.join(&seen).exists() {
            return Err(Error::NotInstallable {
                file: "requirements.txt",
                what: vec![format!("`{line}`, since there is no `{shown}` in the project")],
                hint: "put it into the project's folder: an image is built from nothing else".to_owned(),
            });
        }
        if needs.contains(&shown) {
            continue;
        }
        needs.push(shown.clone());
        if is_file && let Some(text) = read(root, &shown)? {
            follow(root, &shown, &text, needs, lines)?;
        }
    }
    Ok(())
}

/// What stands after a keyword argument of Python.
enum Listing {
    Absent,
    Literal(Vec<String>),
    Computed,
}

/// A keyword argument that is a list of literal texts.
fn python_list(text: &str, keyword: &str) -> Listing {
    let Some(value) = argument(text, keyword) else { return Listing::Absent };
    let Some(mut rest) = value.strip_prefix('[') else { return Listing::Computed };
    let mut list = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ', '\n', '\t', '\r']);
        if let Some(comment) = rest.strip_prefix('#') {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with(']') {
            return Listing::Literal(list);
        } else if let Some((literal, after)) = super::script::string_literal(rest) {
            list.push(literal);
            rest = after;
        } else {
            return Listing::Computed;
        }
    }
}

fn python_text(text: &str, keyword: &str) -> Option<String> {
    super::script::string_literal(argument(text, keyword)?).map(|(literal, _)| literal)
}

/// The text from the value of a keyword argument on.
fn argument<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    text.match_indices(keyword).find_map(|(start, _)| {
        let is_word = !text[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let value = text[start + keyword.len()..].trim_start().strip_prefix('=')?;
        (is_word && !value.starts_with('=')).then(|| value.trim_start())
    })
}

/// `install_requires` of `setup.cfg`.
fn cfg_list(text: &str) -> Option<Vec<String>> {
    let options = text.split("[options]").nth(1)?;
    let options = options.split("\n[").next().unwrap_or(options);
    let mut lines = options.lines().skip_while(|line| !line.starts_with("install_requires"));
    let first = lines.next()?.split_once('=')?.1.trim();
    let more = lines.take_while(|line| line.starts_with([' ', '\t']) || line.is_empty()).map(str::trim);
    Some(
        [first]
            .into_iter()
            .chain(more)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect(),
    )
}
