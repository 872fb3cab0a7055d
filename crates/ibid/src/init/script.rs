//! Which program the image runs: the script that people call.

use std::path::Path;

use toml_edit::{Document, Item};

use super::imports::modules;
use super::{Error, read};

/// What the image runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The words of `ENTRYPOINT`.
    pub words: Vec<String>,
    /// What it was taken from; none when nothing was found.
    found: Option<String>,
    /// Scripts that could have been meant, too.
    others: Vec<String>,
    /// Defaults of its options: name and value.
    pub defaults: Vec<(String, String)>,
}

/// Names that say what a script is for, the likeliest first.
const NAMES: [&str; 8] = [
    "train.py",
    "main.py",
    "run.py",
    "train_model.py",
    "training.py",
    "experiment.py",
    "run_experiment.py",
    "cli.py",
];
/// Modules that read a command line.
const PARSERS: [&str; 6] = ["argparse", "click", "typer", "fire", "hydra", "absl"];
/// Most scripts that are looked at.
const SCRIPTS_MAX: usize = 200;

impl Entry {
    pub fn find(root: &Path) -> Result<Self, Error> {
        let mut scripts = Vec::new();
        for folder in ["", "src", "scripts"] {
            let mut names: Vec<String> = std::fs::read_dir(root.join(folder))
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| name.ends_with(".py") && !is_no_program(name))
                .collect();
            names.sort();
            for name in names.into_iter().take(SCRIPTS_MAX) {
                let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                let Some(text) = read(root, &path)? else { continue };
                if let Some(script) = Script::of(path, &name, &text, folder.is_empty()) {
                    scripts.push(script);
                }
            }
        }
        scripts.sort_by_key(|script| script.rank);
        if let Some(entry) = scripts.first().filter(|script| script.rank < RANK_OF_MODULES) {
            return Ok(Self::of_script(entry, &scripts));
        }
        if let Some(entry) = of_pyproject(root)? {
            return Ok(entry);
        }
        if let Some(package) = package_with_main(root) {
            let words = ["python3", "-m", &package].map(str::to_owned).to_vec();
            return Ok(Self {
                words,
                found: Some(format!("package {package}")),
                others: Vec::new(),
                defaults: Vec::new(),
            });
        }
        match scripts.first() {
            Some(entry) => Ok(Self::of_script(entry, &scripts)),
            None => Ok(Self {
                words: vec!["python3".to_owned()],
                found: None,
                others: Vec::new(),
                defaults: Vec::new(),
            }),
        }
    }

    fn of_script(script: &Script, all: &[Script]) -> Self {
        let others: Vec<String> =
            all.iter().filter(|other| other.path != script.path).map(|other| other.path.clone()).collect();
        let how = match script.parser {
            Some(parser) => format!("{}, which reads its arguments with {parser}", script.path),
            None => script.path.clone(),
        };
        Self {
            words: vec!["python3".to_owned(), script.path.clone()],
            found: Some(how),
            others,
            defaults: script.defaults.clone(),
        }
    }

    pub fn words(&self) -> String {
        let Some(found) = &self.found else {
            return "no script found: the image runs python3, as in `ibid run script.py`".to_owned();
        };
        let mut words = format!("runs {found}");
        if !self.others.is_empty() {
            const SHOWN_MAX: usize = 3;
            let more = self.others.len().saturating_sub(SHOWN_MAX);
            let shown = self.others[..self.others.len() - more].join(", ");
            words.push_str(&format!("; not {shown}"));
            if more > 0 {
                words.push_str(&format!(" and {more} more"));
            }
        }
        words
    }
}

struct Script {
    path: String,
    parser: Option<&'static str>,
    /// Smaller is likelier.
    rank: usize,
    defaults: Vec<(String, String)>,
}

/// From this on, a script is less likely meant than what the project declares.
const RANK_OF_MODULES: usize = 100;

impl Script {
    fn of(path: String, name: &str, text: &str, is_at_top: bool) -> Option<Self> {
        let imported = modules(text);
        let parser = PARSERS.into_iter().find(|name| imported.contains(name));
        let is_main = text.contains("__name__") && text.contains("__main__");
        let named = NAMES.iter().position(|known| *known == name);
        let rank = match (named, parser, is_main) {
            (Some(position), ..) => position,
            (None, Some(_), true) => 20,
            (None, None, true) => RANK_OF_MODULES,
            // A script without the usual ending, or a module.
            _ if is_at_top && parser.is_some() => 30,
            _ => return None,
        };
        let rank = if is_at_top { rank } else { rank + 40 };
        Some(Self { path, parser, rank, defaults: defaults(text) })
    }
}

/// What tests, setup and notebooks' helpers are called.
fn is_no_program(name: &str) -> bool {
    name.starts_with("test_")
        || name.ends_with("_test.py")
        || matches!(
            name,
            "setup.py" | "conftest.py" | "__init__.py" | "noxfile.py" | "tasks.py" | "fabfile.py"
        )
}

/// The first program that `[project.scripts]` declares.
fn of_pyproject(root: &Path) -> Result<Option<Entry>, Error> {
    let Some(text) = read(root, "pyproject.toml")? else { return Ok(None) };
    let Ok(document) = Document::parse(text.as_str()) else { return Ok(None) };
    let scripts = document.get("project").and_then(|project| project.get("scripts"));
    let mut declared = scripts.and_then(Item::as_table_like).into_iter().flat_map(|table| table.iter());
    let Some((name, target)) = declared.next().and_then(|(name, item)| Some((name, item.as_str()?))) else {
        return Ok(None);
    };
    let is_word = |text: &str| text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
    let Some((module, function)) = target.split_once(':').filter(|(a, b)| is_word(a) && is_word(b)) else {
        return Ok(None);
    };
    let first = function.split('.').next().unwrap_or(function);
    let program = format!("import sys; from {module} import {first}; sys.exit({function}())");
    Ok(Some(Entry {
        words: vec!["python3".to_owned(), "-c".to_owned(), program],
        found: Some(format!("{target}, which pyproject.toml calls {name}")),
        others: declared.map(|(name, _)| name.to_owned()).collect(),
        defaults: Vec::new(),
    }))
}

/// The only package that can be run as one.
fn package_with_main(root: &Path) -> Option<String> {
    let mut found = Vec::new();
    for folder in ["", "src"] {
        for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            if entry.path().join("__main__.py").is_file() {
                found.extend(entry.file_name().into_string());
            }
        }
    }
    match found.as_slice() {
        [package] => Some(package.clone()),
        _ => None,
    }
}

/// Defaults of a script's options that are texts, by argparse's and click's words: `add_argument("--out", default="x")`.
fn defaults(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for call in ["add_argument(", "option("] {
        for (start, _) in text.match_indices(call) {
            let rest = &text[start + call.len()..];
            let arguments = &rest[..end_of_call(rest)];
            let name = arguments
                .split(',')
                .filter_map(|word| string_literal(word.trim_start()))
                .map(|(name, _)| name);
            let Some(name) = name.into_iter().find(|name| name.starts_with("--")) else { continue };
            let Some((_, value)) = arguments.split_once("default=") else { continue };
            let value = value.trim_start();
            let literal = string_literal(value).map(|(literal, _)| literal).or_else(|| {
                let variable: String =
                    value.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                constant(text, &variable)
            });
            found.extend(literal.map(|literal| (name, literal)));
        }
    }
    found
}

/// The text that a name at the top of a module stands for.
fn constant(text: &str, name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim_start();
        let value = value.strip_prefix("Path(").unwrap_or(value);
        string_literal(value).map(|(literal, _)| literal)
    })
}

/// Where the bracket that is open at the start of a text is closed.
fn end_of_call(text: &str) -> usize {
    let (mut depth, mut quote) = (0usize, None);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') if depth == 0 => return at,
            (None, ')' | ']' | '}') => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// A simple text literal of Python at the start of a text, and what follows it.
pub(super) fn string_literal(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (inside, after) = text[1..].split_once(quote)?;
    (!inside.contains(['\\', '\n']) && !inside.is_empty()).then(|| (inside.to_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_options_are_found() {
        let text = "OUT = Path('results')\np.add_argument(\n    \"-o\", \"--output-dir\", type=Path(x, y), default=OUT)\n\
            p.add_argument('--data', default='data/raw', help='a (b')\n@click.option(\"--n\", default=5)\n\
            @click.option('--log-dir', default=\"logs\")\np.add_argument('file')\n";
        let found = defaults(text);
        let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(found, [("--output-dir", "results"), ("--data", "data/raw"), ("--log-dir", "logs")]);
    }
}
