//! What the documentation shows is what the program takes.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use support::{Project, text};

/// The files that people read, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].iter().map(|name| root.join(name)).collect();
    for entry in std::fs::read_dir(root.join("docs")).expect("the folder docs") {
        paths.push(entry.expect("an entry").path());
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a readable document");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Every command line of ibid's in a document: between backticks, or in a block of code.
fn command_lines(document: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in document.lines() {
        if let Some(code) = line.strip_prefix("    ") {
            found.push(code.split(" # ").next().unwrap_or_default());
        }
        found.extend(line.split('`').skip(1).step_by(2));
    }
    found.retain(|line| line.starts_with("ibid "));
    found.iter_mut().for_each(|line| *line = line.split(" | ").next().unwrap_or_default());
    found
}

#[test]
fn commands_and_their_options_exist() {
    let project = Project::new("FROM scratch\n");
    let mut helps = BTreeMap::new();
    let mut seen = 0;
    for (path, document) in documents() {
        for line in command_lines(&document) {
            let mut words = line.split_whitespace().skip(1).peekable();
            if words.next_if_eq(&"-C").is_some() {
                words.next();
            }
            let Some(command) = words.next() else { continue };
            let help = helps.entry(command.to_owned()).or_insert_with(|| project.ibid(&[command, "--help"]));
            assert!(help.status.success(), "{}: `{line}`: {}", path.display(), text(&help.stderr));
            let help = text(&help.stdout);
            for word in words {
                let option: String = word
                    .trim_start_matches('[')
                    .chars()
                    .take_while(|&letter| letter == '-' || letter.is_ascii_lowercase())
                    .collect();
                let is_known = help.split([' ', ',', '\n', '[']).any(|word| word == option);
                // What `run` does not know is the program's.
                if command == "run" && !is_known {
                    break;
                }
                assert!(is_known || !option.starts_with("--"), "{}: `{line}`: {option}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen} words of command lines");
}

#[test]
fn project_files_are_taken() {
    let mut seen = 0;
    for (path, document) in documents() {
        for block in document.split("```toml\n").skip(1) {
            let block = block.split("```").next().expect("a block");
            let project = Project::new("FROM scratch\n");
            project.file("ibid.toml", block);
            let output = project.ibid(&["context"]);
            assert!(output.status.success(), "{}:\n{block}{}", path.display(), text(&output.stderr));
            seen += 1;
        }
    }
    assert!(seen > 0, "no project file");
}
