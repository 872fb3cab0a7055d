//! `ibid init` makes projects of several shapes that build and run at once.

mod support;

use std::fs;
use std::path::Path;

use support::server::Server;
use support::{Project, can_build, text};

const WHEEL: &str = "ibid_test_greeting-1.0-py3-none-any.whl";

fn wheel() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wheels").join(WHEEL);
    fs::read(path).expect("the wheel")
}

/// A project of these files, without any of ibid's.
fn project(files: &[(&str, &str)]) -> Project {
    let project = Project::new("");
    for name in ["Dockerfile", "ibid.toml"] {
        fs::remove_file(project.path().join(name)).expect("removed");
    }
    for (name, text) in files {
        project.file(name, text);
    }
    project
}

/// What it is, its files with their texts, and what its program says.
type Shape<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

const SCRIPT: &str = "import argparse, os\nfrom ibid_test_greeting import greet\n\
    p = argparse.ArgumentParser()\np.add_argument('--name', default='nobody')\np.add_argument('--out', default='results')\n\
    a = p.parse_args()\nos.makedirs(a.out, exist_ok=True)\nopen(a.out + '/said', 'w').write(greet(a.name))\n\
    print(greet(a.name), os.path.exists('pyproject.toml'))\n";

#[test]
fn projects_of_several_shapes_build_and_run() {
    if !can_build() {
        return;
    }
    // An index of packages of this machine's own.
    let index = Server::new();
    let page = format!("<a href=\"/{WHEEL}\">{WHEEL}</a>");
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    index.put_answer("/simple/ibid-test-greeting/", head + &page);
    index.put(&format!("/{WHEEL}"), &wheel());
    let argument = format!("PIP_INDEX_URL={}/simple", index.url());

    let package = "import sys\nfrom ibid_test_greeting import greet\ndef main():\n    print(greet(sys.argv[2]))\n    return 0\n";
    let shapes: [Shape; 5] = [
        (
            "requirements.txt with wheels in the project",
            &[
                ("requirements.txt", "--no-index\n--find-links wheels\nibid-test-greeting==1.0\n"),
                ("train.py", SCRIPT),
            ],
            "hello ann False\n",
        ),
        (
            "pyproject.toml with a program",
            &[
                (
                    "pyproject.toml",
                    "[project]\nname = 'x'\nversion = '1'\ndependencies = ['ibid-test-greeting']\nscripts = { x = 'pack.cli:main' }\n\
                     [build-system]\nrequires = ['setuptools']\n",
                ),
                ("src/pack/__init__.py", ""),
                ("src/pack/cli.py", package),
            ],
            "hello ann\n",
        ),
        (
            "environment.yml",
            &[
                ("environment.yml", "dependencies:\n- python=3.11\n- pip\n- pip:\n  - ibid-test-greeting\n"),
                ("train.py", SCRIPT),
            ],
            "hello ann False\n",
        ),
        (
            "setup.py",
            &[
                (
                    "setup.py",
                    "from setuptools import setup\nsetup(name='x', install_requires=['ibid-test-greeting>=1'])\n",
                ),
                ("pack/__init__.py", ""),
                ("pack/__main__.py", &format!("{package}sys.exit(main())\n")),
            ],
            "hello ann\n",
        ),
        (
            "a script alone",
            &[(
                "fit.py",
                "import argparse\np = argparse.ArgumentParser()\np.add_argument('--name')\nprint('hello', p.parse_args().name)\n",
            )],
            "hello ann\n",
        ),
    ];
    for (shape, files, expected) in shapes {
        let project = project(files);
        if files[0].1.contains("wheels") {
            fs::create_dir(project.path().join("wheels")).expect("a folder");
            fs::write(project.path().join("wheels").join(WHEEL), wheel()).expect("a file");
        }
        let written = project.check(&["init"], 0);
        assert!(written.contains("Dockerfile\n.dockerignore\nibid.toml\n"), "{shape}: {written}");
        // Not the folder's name, which could be another test's.
        let args: &[&str] =
            if shape == "a script alone" { &["run"] } else { &["run", "--build-arg", &argument] };
        let said = project.check(&[args, &["--", "--name", "ann"]].concat(), 0);
        assert_eq!(said, expected, "{shape}");
        let output = project.path().join("results/said");
        if files.iter().any(|(_, text)| *text == SCRIPT) {
            assert_eq!(fs::read_to_string(output).expect("an output"), "hello ann", "{shape}");
        }
        // An edit of the code builds nothing again.
        let script = files.last().expect("a script").0;
        let edited = fs::read_to_string(project.path().join(script)).expect("there") + "# edited\n";
        project.file(script, &edited);
        let output = project.ibid(&[args, &["--", "--name", "ann"]].concat());
        assert!(!text(&output.stderr).contains("RUN"), "{shape}: {}", text(&output.stderr));
        // Nor is anything warned about.
        let built = project.ibid(&[&["build"], &args[1..]].concat());
        assert!(built.status.success(), "{shape}: {}", text(&built.stderr));
        assert!(!text(&built.stderr).contains("warning"), "{shape}: {}", text(&built.stderr));
    }
}

#[test]
fn nothing_is_replaced() {
    let project =
        project(&[("train.py", SCRIPT), ("Dockerfile", "FROM scratch\nWORKDIR /code\n"), ("data/x", "")]);
    let output = project.ibid(&["init"]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("/Dockerfile exists already") && said.contains("--force"), "{said}");
    assert!(said.contains("runs train.py"), "{said}");
    assert!(!project.path().join("ibid.toml").exists(), "something was written");
    // What tells editors of a Dockerfile is written beside it.
    project.file(
        "ibid.toml",
        "name = \"x\"\n[run]\ndata = [\"data\", \"absent\"]\nenv = { A = \"b\" }\ngpus = 1\n",
    );
    assert_eq!(project.check(&["init", "--devcontainer"], 0), ".devcontainer/devcontainer.json\n");
    let written =
        fs::read_to_string(project.path().join(".devcontainer/devcontainer.json")).expect("written");
    let document: serde_json::Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(document["build"], serde_json::json!({"dockerfile": "../Dockerfile", "context": ".."}));
    assert_eq!(document["workspaceFolder"], "/code");
    assert_eq!(
        document["mounts"][0],
        "type=bind,source=${localWorkspaceFolder}/data,target=/code/data,readonly"
    );
    assert_eq!(document["mounts"].as_array().expect("a list").len(), 1);
    assert_eq!(document["containerEnv"]["A"], "b");
    assert_eq!(document["runArgs"], serde_json::json!(["--network=host", "--gpus=1"]));
    assert_eq!(project.check(&["init", "--force"], 0), "Dockerfile\n.dockerignore\nibid.toml\n");
    let dockerfile = fs::read_to_string(project.path().join("Dockerfile")).expect("written");
    assert!(dockerfile.starts_with("FROM debian:bookworm-slim\n"), "{dockerfile}");
}

#[test]
fn what_cannot_be_installed_is_said() {
    let project = project(&[("environment.yml", "dependencies: [numpy, r-base]\n"), ("train.py", SCRIPT)]);
    let output = project.ibid(&["init"]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("environment.yml asks for what `ibid init` cannot install: r-base"), "{said}");
    assert!(said.contains("hint: conda's own packages"), "{said}");
    assert!(!project.path().join("Dockerfile").exists());
}
