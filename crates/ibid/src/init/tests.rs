use super::*;

/// Surveys a folder of these files.
fn survey(files: &[(&str, &str)]) -> Result<Survey, Error> {
    let place = ibid_testing::Place::new();
    place.folder("project");
    for (name, text) in files {
        place.file(&format!("project/{name}"), text);
    }
    Survey::of(&place.path().join("project"), "project")
}

fn file(survey: &Survey, name: &str) -> String {
    let found = files(survey).into_iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| text).unwrap_or_default()
}

const MAIN: &str = "import argparse\nif __name__ == '__main__':\n    pass\n";

/// What the Dockerfile holds, line by line, and what people are told.
#[track_caller]
fn check(files: &[(&str, &str)], lines: &[&str], words: &str) {
    let survey = survey(files).expect("a survey");
    let dockerfile = file(&survey, "Dockerfile");
    for line in lines {
        assert!(dockerfile.lines().any(|found| found == *line), "{line:?} in\n{dockerfile}");
    }
    let said = survey.words().join("\n");
    assert!(said.contains(words), "{words:?} in\n{said}");
    // What is written is a Dockerfile and a configuration.
    ibid_core::dockerfile::parse(dockerfile.as_bytes()).expect("a sound Dockerfile");
}

#[test]
fn requirements_are_installed_before_the_code_is_copied() {
    check(
        &[("requirements.txt", "numpy\n"), ("train.py", MAIN)],
        &[
            "FROM debian:bookworm-slim",
            "COPY requirements.txt ./",
            "RUN pip install --no-cache-dir --requirement requirements.txt",
            "ENTRYPOINT [\"python3\", \"train.py\"]",
        ],
        "packages of requirements.txt, by pip",
    );
    check(
        &[
            (
                "requirements.txt",
                "-r requirements/base.txt\n-e .\n-c pins.txt\n--find-links=wheels\ngit+https://x.org/y\n",
            ),
            ("requirements/base.txt", "-r more.txt\n"),
            ("requirements/more.txt", "six\n"),
            ("pins.txt", ""),
            ("wheels/x.whl", ""),
            ("pyproject.toml", "[project]\nname = 'x'\ndependencies = ['six']\n[build-system]\n"),
            ("src/x/__main__.py", ""),
        ],
        &[
            "COPY [\"requirements/base.txt\", \"requirements/base.txt\"]",
            "COPY [\"requirements/more.txt\", \"requirements/more.txt\"]",
            "COPY [\"wheels\", \"wheels\"]",
            "COPY requirements.txt pins.txt ./",
            "COPY pyproject.toml ./",
            "ENV PYTHONPATH=/code/src",
            " && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv ca-certificates git \\",
            "ENTRYPOINT [\"python3\", \"-m\", \"x\"]",
        ],
        "the project itself is left out",
    );
    let error = survey(&[("requirements.txt", "-r ../other.txt\n")]).expect_err("outside");
    assert_eq!(
        error.to_string(),
        "requirements.txt asks for what `ibid init` cannot install: `-r ../other.txt`, since there is no `../other.txt` in the project"
    );
}

#[test]
fn other_lists_of_packages_are_found() {
    check(
        &[
            (
                "setup.py",
                "setup(name='x', install_requires=[\n  'six>=1',  # old\n  \"idna\",\n], python_requires='<3.10')",
            ),
            ("main.py", MAIN),
        ],
        &["    'six>=1' \\", "    'idna'", "FROM python:3.9-slim-bookworm"],
        "2 packages of setup.py, by pip",
    );
    check(
        &[("setup.py", "setup(install_requires=read())"), ("main.py", MAIN)],
        &["RUN pip install --no-cache-dir --editable ."],
        "each edit builds again",
    );
    check(
        &[
            ("setup.py", "setup()"),
            ("setup.cfg", "[options]\ninstall_requires =\n    six\n    idna==3\n[x]\n"),
            ("main.py", MAIN),
        ],
        &["    'six' \\", "    'idna==3'"],
        "2 packages of setup.cfg",
    );
    check(
        &[("environment.yml", "dependencies: [python=3.11, numpy=1.26, {pip: [six]}]"), ("main.py", MAIN)],
        &["RUN pip install --no-cache-dir --requirement requirements.txt"],
        "translated from environment.yml into requirements.txt",
    );
    let translated =
        survey(&[("environment.yml", "dependencies: [numpy=1.26, {pip: [six]}]")]).expect("a survey");
    assert_eq!(file(&translated, "requirements.txt"), "numpy==1.26.*\nsix\n");
    check(
        &[(
            "pyproject.toml",
            "[project]\ndependencies = ['six']\nscripts = { go = 'x.cli:app.run' }\nrequires-python = '>=3.12'",
        )],
        &[
            "FROM python:3.12-slim-bookworm",
            "COPY pyproject.toml ./",
            "ENTRYPOINT [\"python3\", \"-c\", \"import sys; from x.cli import app; sys.exit(app.run())\"]",
        ],
        "since pyproject.toml asks for >=3.12",
    );
    let error =
        survey(&[("pyproject.toml", "[tool.poetry.dependencies]\nsix = '^1'\n")]).expect_err("of poetry");
    assert!(error.to_string().contains("[tool.poetry.dependencies]"), "{error}");
    let error = survey(&[("pyproject.toml", "[project\n")]).expect_err("broken");
    assert!(error.to_string().contains("pyproject.toml: "), "{error}");
    check(
        &[("fit.py", "import click, numpy\nfrom sklearn import svm\n@click.command()\ndef main(): pass\n")],
        &["    'click' \\", "    'scikit-learn'", "ENTRYPOINT [\"python3\", \"fit.py\"]"],
        "click, numpy, scikit-learn",
    );
}

#[test]
fn the_likeliest_script_is_chosen() {
    check(
        &[("zz.py", MAIN), ("train.py", "print()\n"), ("test_a.py", MAIN), ("lib.py", "import os\n")],
        &["ENTRYPOINT [\"python3\", \"train.py\"]"],
        "runs train.py; not zz.py",
    );
    check(
        &[("scripts/train.py", MAIN)],
        &["ENTRYPOINT [\"python3\", \"scripts/train.py\"]", "ENV PYTHONPATH=/code"],
        "argparse",
    );
    check(&[("lib.py", "import os\n")], &["ENTRYPOINT [\"python3\"]"], "no script found");
}

#[test]
fn what_is_no_code_stays_out() {
    let script = "import argparse\np.add_argument('--save-to', default='models/best')\np.add_argument('--data', default='corpus')\n";
    let survey = survey(&[
        ("train.py", script),
        ("runs/1/x", ""),
        ("data/x", ""),
        ("datasets/__init__.py", ""),
        ("env/pyvenv.cfg", ""),
        (".mypy_cache/x", ""),
    ])
    .expect("a survey");
    assert_eq!(survey.folders.outputs, ["models", "runs"]);
    assert_eq!(survey.folders.data, ["corpus", "data"]);
    let ignored = file(&survey, ".dockerignore");
    for name in
        ["models", "runs", "corpus", "data", "env", ".venv", ".mypy_cache", ".git", ".env", "**/__pycache__"]
    {
        assert!(ignored.lines().any(|line| line == name), "{name} in\n{ignored}");
    }
    assert!(!ignored.contains("datasets"), "{ignored}");
    let config = file(&survey, "ibid.toml");
    assert!(config.contains("outputs = [\"models\", \"runs\"]\ndata = [\"corpus\", \"data\"]\n"), "{config}");
}
