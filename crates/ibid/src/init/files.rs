//! The texts of the files.

use super::Survey;
use super::packages::Source;

/// Where `pip` puts packages: Debian's own folders belong to its packages.
const ENVIRONMENT: &str = "/opt/venv";

/// Names and texts of the files, in the order in which they are told.
pub fn files(survey: &Survey) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    if let Source::Translated { lines, .. } = &survey.packages.source {
        files.push(("requirements.txt", lines.join("\n") + "\n"));
    }
    files.push(("Dockerfile", dockerfile(survey)));
    files.push((".dockerignore", dockerignore(survey)));
    files.push(("ibid.toml", config(survey)));
    files
}

fn dockerfile(survey: &Survey) -> String {
    let mut text = format!("FROM {}\n\n", survey.python.base());
    let has_packages = survey.packages.source != Source::None;
    let mut system: Vec<&str> = match (survey.python.is_of_debian(), has_packages) {
        (true, true) => vec!["python3", "python3-venv", "ca-certificates"],
        (true, false) => vec!["python3"],
        (false, _) => Vec::new(),
    };
    system.extend(&survey.packages.tools);
    if !system.is_empty() {
        text.push_str(&format!(
            "RUN apt-get update \\\n && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {} \\\n && rm -rf /var/lib/apt/lists/*\n\n",
            system.join(" ")
        ));
    }
    if has_packages {
        text.push_str(&format!(
            "# Packages of Python's own index. PIP_INDEX_URL names another one: `--build-arg PIP_INDEX_URL` takes it from the environment.\n\
             ARG PIP_INDEX_URL\n\
             RUN python3 -m venv {ENVIRONMENT}\n\
             ENV PATH={ENVIRONMENT}/bin:$PATH\n"
        ));
    }
    text.push_str("ENV PYTHONUNBUFFERED=1\n");
    if let Some(folder) = survey.source_folder {
        text.push_str(&format!("ENV PYTHONPATH=/code/{folder}\n"));
    } else if survey.packages.is_package || survey.entry.words.get(1).is_some_and(|word| word.contains('/')) {
        text.push_str("ENV PYTHONPATH=/code\n");
    }
    text.push_str("WORKDIR /code\n\n");
    text.push_str(&install(survey, &survey.packages.source));
    text.push_str(&install(survey, &survey.packages.own));
    let outputs: Vec<String> =
        survey.folders.outputs.iter().map(|folder| format!("/code/{folder}")).collect();
    text.push_str(&format!(
        "# The user in the image has the ids of the person who builds it, so that the files it writes into a mounted folder\n\
         # are theirs. --non-unique: some people's group is one that Debian has too. --no-log-init: login logs are indexed\n\
         # by user id, and a directory service gives out ids above two million.\n\
         ARG USER_ID=1000\n\
         ARG GROUP_ID=1000\n\
         RUN groupadd --non-unique --gid \"$GROUP_ID\" user \\\n \
         && useradd --no-log-init --uid \"$USER_ID\" --gid \"$GROUP_ID\" --create-home --shell /bin/bash user \\\n \
         && install --directory --owner user --group user /code {}\n\n",
        outputs.join(" ")
    ));
    text.push_str("COPY . .\n");
    if let Source::Whole { .. } = survey.packages.source {
        text.push_str("RUN pip install --no-cache-dir --editable .\n");
    }
    text.push_str("USER user\n");
    let words = serde_json::to_string(&survey.entry.words).expect("words are text");
    text.push_str(&format!("ENTRYPOINT {}\n", words.replace("\",\"", "\", \"")));
    text
}

/// The steps that install packages, before the code is copied, so that an edit of it builds nothing again.
fn install(survey: &Survey, source: &Source) -> String {
    let copied = |names: &[String]| {
        let mut text = String::new();
        let mut files = Vec::new();
        for name in names {
            // Each keeps its place.
            if name.contains('/') || !name.contains('.') {
                text.push_str(&format!("COPY {}\n", json(&[name.as_str(), name.as_str()])));
            } else {
                files.push(name.as_str());
            }
        }
        files.push("./");
        if files.len() > 1 {
            text.push_str(&format!("COPY {}\n", plain_or_json(&files)));
        }
        text
    };
    let with_requirements = |needs: &[String]| [&["requirements.txt".to_owned()][..], needs].concat();
    match source {
        Source::None | Source::Whole { .. } => String::new(),
        Source::Requirements { needs, without_project } => {
            let steps = copied(&with_requirements(needs));
            if *without_project {
                format!(
                    "{steps}# Without the project itself, whose code is in /code.\n\
                     RUN grep --invert-match --extended-regexp '^ *(-e|--editable)?[ =]*\\.(/|\\[.*\\])? *$' requirements.txt > .requirements.txt \\\n \
                     && pip install --no-cache-dir --requirement .requirements.txt \\\n \
                     && rm .requirements.txt\n\n"
                )
            } else {
                format!("{steps}RUN pip install --no-cache-dir --requirement requirements.txt\n\n")
            }
        }
        Source::Translated { needs, .. } => {
            format!(
                "{}RUN pip install --no-cache-dir --requirement requirements.txt\n\n",
                copied(&with_requirements(needs))
            )
        }
        Source::Pyproject => {
            // Python reads the file from 3.11 on; pip brings a reader for older ones.
            let reader =
                if survey.python.version >= (3, 11) { "tomllib" } else { "pip._vendor.tomli as tomllib" };
            format!(
                "# What the project needs; its own code is imported from /code.\n\
                 COPY pyproject.toml ./\n\
                 RUN python3 -c 'import {reader}; print(*tomllib.load(open(\"pyproject.toml\", \"rb\"))[\"project\"][\"dependencies\"], sep=\"\\n\")' > .requirements.txt \\\n \
                 && pip install --no-cache-dir --requirement .requirements.txt \\\n \
                 && rm .requirements.txt\n\n"
            )
        }
        Source::Listed { file, packages } => listed(&format!("As {file} lists them."), packages),
        Source::Imported { packages } => listed("What the script imports.", packages),
    }
}

fn listed(comment: &str, packages: &[String]) -> String {
    // A marker such as `; python_version < "3"` has quotes of one kind or the other.
    let words: Vec<String> = packages.iter().map(|word| format!("'{}'", word.replace('\'', "\""))).collect();
    format!("# {comment}\nRUN pip install --no-cache-dir \\\n    {}\n\n", words.join(" \\\n    "))
}

fn plain_or_json(words: &[&str]) -> String {
    if words
        .iter()
        .all(|word| word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/')))
    {
        words.join(" ")
    } else {
        json(words)
    }
}

fn json(words: &[&str]) -> String {
    serde_json::to_string(words).expect("words are text").replace("\",\"", "\", \"")
}

fn dockerignore(survey: &Survey) -> String {
    let folders = &survey.folders;
    let mut text = "# What a run makes or reads stays out of the image.\n".to_owned();
    let mut add = |names: &[String]| {
        for name in names {
            // A name of this file's own language stays a name.
            let name: String = name
                .chars()
                .flat_map(|c| (matches!(c, '*' | '?' | '[' | '\\')).then_some('\\').into_iter().chain([c]))
                .collect();
            text.push_str(&format!("{name}\n"));
        }
    };
    add(&folders.outputs);
    add(&folders.data);
    add(&folders.large);
    let mut environments: Vec<String> = folders.environments.clone();
    environments.extend(
        ["venv", ".venv"].map(str::to_owned).into_iter().filter(|name| !folders.environments.contains(name)),
    );
    add(&environments);
    add(&folders.leftovers);
    text.push_str("**/__pycache__\n**/*.pyc\n");
    if survey.packages.is_package {
        text.push_str("**/*.egg-info\n");
    }
    text.push_str(
        "\n# Secrets.\n.env\n\n\
         # What describes the image is no part of it: a change there must not change the copied code.\n\
         .git\n.gitignore\n.dockerignore\n.devcontainer\nDockerfile\nibid.lock\n.ibid\n",
    );
    text
}

fn config(survey: &Survey) -> String {
    let list = |names: &[String]| json(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut text = format!(
        "name = {}\n\n[run]\noutputs = {}\n",
        json(&[&survey.name]).trim_matches(['[', ']']),
        list(&survey.folders.outputs)
    );
    if !survey.folders.data.is_empty() {
        text.push_str(&format!("data = {}\n", list(&survey.folders.data)));
    }
    if survey.python.is_of_debian() {
        text.push_str(
            "\n# FROM debian:bookworm-slim without a registry: made here from Debian's signed packages.\n\
             [base.\"debian:bookworm-slim\"]\nsuite = \"bookworm\"\npackages = [\"ca-certificates\"]\n",
        );
    }
    text
}
