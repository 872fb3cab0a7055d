//! What a build may copy: `ibid context`, and the warnings of a build.

mod support;

use std::fs::File;

use support::{BASE, Project, can_build, text};

fn project() -> Project {
    let project = Project::new("FROM scratch\n");
    // A name of known length.
    project.file("ibid.toml", &format!("name = \"test\"\n{BASE}"));
    for (path, content) in [
        (".dockerignore", "# rules\n.git\n**/*.pyc\nnotes\n!notes/keep.md\n"),
        (".git/objects/aa", "object"),
        (".git/HEAD", "ref"),
        ("src/train.py", "print()\n"),
        ("src/train.pyc", "x"),
        ("src/deep/a.pyc", "x"),
        ("notes/drop.md", "drop"),
        ("notes/keep.md", "keep"),
    ] {
        project.file(path, content);
    }
    File::create(project.path().join("model.bin")).and_then(|file| file.set_len(12_345_678)).expect("a file");
    project
}

#[test]
fn the_context_is_listed_with_the_rule_of_each_path() {
    let project = project();
    let output = project.ibid(&["context"]);
    assert_eq!(
        text(&output.stdout),
        concat!(
            " 12.3 MB                model.bin\n",
            "    63 B                ibid.toml\n",
            "    43 B                .dockerignore\n",
            "    13 B                Dockerfile\n",
            "     8 B        1 file  src/\n",
            "     8 B                  train.py\n",
            "     0 B                  deep/\n",
            "     4 B        1 file  notes/\n",
            "     4 B                  keep.md  kept by .dockerignore:5 `!notes/keep.md`\n",
            "\n",
            "dropped:\n",
            "  .dockerignore:2 `.git`  .git/\n",
            "  .dockerignore:3 `**/*.pyc`  src/deep/a.pyc, src/train.pyc\n",
            "  .dockerignore:4 `notes`  notes/drop.md\n",
        )
    );
    let summary = text(&output.stderr);
    let folder = project.path();
    let expected = format!(
        "6 files of 12.3 MB · 4 paths dropped by .dockerignore · {}\n",
        folder.canonicalize().expect("exists").display()
    );
    assert_eq!(summary, expected);

    let all = project.check(&["context", "--all"], 0);
    let expected = "\
+     43 B  .dockerignore
-           .git/  .dockerignore:2 `.git`
+     13 B  Dockerfile
+     63 B  ibid.toml
+  12.3 MB  model.bin
+           notes/  .dockerignore:4 `notes`
-      4 B  notes/drop.md  .dockerignore:4 `notes`
+      4 B  notes/keep.md  .dockerignore:5 `!notes/keep.md`
+           src/
+           src/deep/
-      1 B  src/deep/a.pyc  .dockerignore:3 `**/*.pyc`
+      8 B  src/train.py
-      1 B  src/train.pyc  .dockerignore:3 `**/*.pyc`
";
    assert_eq!(all, expected);
}

#[test]
fn the_context_is_listed_for_programs() {
    let project = project();
    project.file("sub/Dockerfile", "FROM scratch\n");
    project.file("sub/Dockerfile.dockerignore", "*\n!src/*.py\n");
    let json = project.check(&["context", "--json", "-f", "sub/Dockerfile", "."], 0);
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["schema"], 1);
    let context = &report["context"];
    assert_eq!(context["ignore_file"], "sub/Dockerfile.dockerignore");
    assert_eq!((&context["files"], &context["bytes"]), (&1.into(), &8.into()));
    let paths = context["paths"].as_array().expect("a list");
    let of = |path: &str| paths.iter().find(|found| found["path"] == path).expect(path);
    assert_eq!(of("src/train.py")["kept"], true);
    assert_eq!(of("src/train.py")["rule"], serde_json::json!({"line": 2, "pattern": "!src/*.py"}));
    assert_eq!(of("model.bin")["bytes"], 12_345_678);
    assert_eq!(of("model.bin")["kept"], false);
    assert_eq!(of(".git")["kind"], "folder");

    // Another folder is another project.
    let json = project.check(&["context", "--json", "src"], 0);
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["context"]["ignore_file"], serde_json::Value::Null);
    assert_eq!(report["context"]["files"], 3);

    let failed = project.ibid(&["context", "none"]);
    assert_eq!(failed.status.code(), Some(125));
    assert!(text(&failed.stderr).contains("none"), "{}", text(&failed.stderr));
    project.file(".dockerignore", "a\n[\n");
    let failed = project.ibid(&["context"]);
    assert_eq!(failed.status.code(), Some(125));
    assert!(text(&failed.stderr).contains(".dockerignore:2"), "{}", text(&failed.stderr));
}

#[test]
fn a_build_warns_of_what_hardly_belongs_in_an_image() {
    if !can_build() {
        return;
    }
    let project = Project::new("FROM scratch\nCOPY . /code/\nCOPY sets /sets/\n");
    project.file(
        "ibid.toml",
        &format!("name = \"test\"\n{BASE}[run]\ndata = [\"mnist\"]\noutputs = [\"out\"]\n"),
    );
    project.file("unique", &project.path().display().to_string());
    project.file(".git/HEAD", "ref");
    project.file("venv/pyvenv.cfg", "home");
    project.file("mnist/train", "images");
    project.file("out/model", "weights");
    for (path, bytes) in [("large", 100_000_001), ("sets/a.csv", 8_000_000), ("sets/b.csv", 8_000_000)] {
        project.file(path, "");
        File::options()
            .write(true)
            .open(project.path().join(path))
            .and_then(|file| file.set_len(bytes))
            .expect("a file");
    }
    let output = project.ibid(&["-q", "build"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let expected = "\
warning: `COPY . /code/` brings the large file large (100 MB) into the image
warning: `COPY . /code/` brings the data files sets/*.csv (2 files, 16.0 MB) into the image
warning: `COPY . /code/` brings the outputs out (7 B), which change with each run, into the image
warning: `COPY . /code/` brings the data mnist (6 B), which each run mounts anyway, into the image
warning: `COPY . /code/` brings the virtual environment venv (4 B) into the image
warning: and 1 more such paths; `ibid context` lists what is copied
hint: to keep them out, write in .dockerignore:
  large
  sets/*.csv
  out
  mnist
  venv
";
    assert_eq!(said, expected);
    // What is in the cache was warned about.
    let output = project.ibid(&["-q", "build"]);
    assert_eq!(text(&output.stderr), "");

    project.file("Dockerfile", "FROM scratch\nCOPY . /code/\n");
    project.file(".dockerignore", "large\nsets/*.csv\nout\nmnist\nvenv\n");
    let output = project.ibid(&["-q", "build"]);
    assert_eq!(
        text(&output.stderr),
        "warning: `COPY . /code/` brings the git repository .git (3 B) into the image\n\
         hint: to keep it out, write in .dockerignore: .git\n"
    );
}
