//! `ibid build --check`, and builds that it ends.

mod support;

use support::{Project, can_build, text};

const DOCKERFILE: &str = "# syntax=docker/dockerfile:1
FROM debian:bookworm-slim
FROM other AS Tools
RUN apt-get update && \\

    apt-get install -y git
CMD python train.py
";

#[test]
fn findings_are_shown_with_their_place_and_cure() {
    let project = Project::new(DOCKERFILE);
    let output =
        project.command(&["build", "--check"]).env("XDG_DATA_HOME", project.path().join("none")).output();
    let output = output.expect("ibid starts");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let expected = "\
warning[StageNameCasing]: the stage name `Tools` is not in lower case
 --> Dockerfile:3:1
  |
3 | FROM other AS Tools
  | ^^^^^^^^^^^^^^^^^^^
  |
  = why: names of stages mean the same in any case, and lower case tells them from keywords
  = fix: name it `tools`

warning[UnpinnedBaseImage]: neither a digest nor ibid.lock pins the image `other`
 --> Dockerfile:3:1
  |
3 | FROM other AS Tools
  | ^^^^^^^^^^^^^^^^^^^
  |
  = why: a tag names another image tomorrow
  = fix: write `other@sha256:…`, or have ibid make it from locked packages: `[base.\"other\"]` in ibid.toml

warning[UnpinnedAptPackages]: `apt-get install` takes whatever version is newest of `git`
 --> Dockerfile:4:1
  |
4 | / RUN apt-get update && \\
5 | |
6 | |     apt-get install -y git
  | |__________________________^
  |
  = why: it installs whatever is newest on the day of the build
  = fix: list them as `packages` of the base in ibid.toml, where ibid.lock pins them, or write `package=version`

warning[NoEmptyContinuation]: an empty line stands inside `RUN`
 --> Dockerfile:5:1
  |
5 |
  | ^
  |
  = why: Docker announces that it will refuse them
  = fix: remove it, or write `#` on it

warning[JSONArgsRecommended]: `CMD` is text for the shell
 --> Dockerfile:7:1
  |
7 | CMD python train.py
  | ^^^^^^^^^^^^^^^^^^^
  |
  = why: the shell is then what signals reach, and the program does not end when it is asked to
  = fix: write `CMD [\"python\", \"train.py\"]`

";
    assert_eq!(text(&output.stdout), expected);
    let said = text(&output.stderr);
    assert!(said.starts_with("5 findings in Dockerfile\nhint: to leave a rule out"), "{said}");
    assert!(!project.path().join("none").exists(), "looking makes no store");
}

#[test]
fn findings_are_given_to_programs() {
    let project = Project::new(DOCKERFILE);
    let json = project.check(&["build", "--check", "--json"], 1);
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["schema"], 1);
    let findings = report["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), 5);
    let apt = findings.iter().find(|finding| finding["rule"] == "UnpinnedAptPackages").expect("found");
    assert_eq!(apt["origin"], "ibid");
    assert_eq!((&apt["line_first"], &apt["line_last"]), (&4.into(), &6.into()));
    assert_eq!(apt["source"], "RUN apt-get update && \\\n\n    apt-get install -y git");
    assert!(apt["file"].as_str().is_some_and(|file| file.ends_with("/project/Dockerfile")));
    assert!(apt["why"].is_string() && apt["fix"].is_string() && apt["message"].is_string());

    project.file("Dockerfile", "# check=skip=all\nFROM Other\n");
    let json = project.check(&["build", "--check", "--json"], 0);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).expect("JSON")["findings"],
        serde_json::json!([])
    );
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let project = Project::new("FROM debian:bookworm-slim\n");
    assert_eq!(project.check(&["build", "--check"], 0), "");
    let check = |dockerfile: &str, args: &[&str], parts: &[&str]| {
        project.file("Dockerfile", dockerfile);
        let output = project.ibid(&[&["build", "--check"], args].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
    };
    check("FROM a\nRUNN b\n", &[], &["Dockerfile:2", "did you mean `RUN`"]);
    check(
        "# check=skipp=all\nFROM a\n",
        &[],
        &["`skipp=all` is no option for checks", "Dockerfile:1", "hint:"],
    );
    check("FROM a\n", &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=x"], &["BUILDKIT_DOCKERFILE_CHECK", "`x`"]);
    check("FROM a\n", &["--target", "a"], &["--check", "--target"]);
    check("FROM a\n", &["-f", "none"], &["none"]);

    project.file("Dockerfile", "# check=skip=JSONArgRecommended\nFROM debian:bookworm-slim\n");
    let output = project.ibid(&["build", "--check"]);
    let said = text(&output.stderr);
    assert!(said.contains("`JSONArgRecommended`, which `# check=` names, is no rule"), "{said}");
    assert!(said.contains("did you mean `JSONArgsRecommended`?"), "{said}");
}

#[test]
fn a_dockerfile_can_ask_that_findings_end_its_build() {
    if !can_build() {
        return;
    }
    // ibid's own rules end no build that Docker builds.
    let project = Project::new("# check=error=true\nFROM scratch\nCOPY a /\nADD --chmod=600 a /b\n");
    project.file("a", &project.path().display().to_string());
    project.check(&["build"], 0);
    project.file("Dockerfile", "# check=error=true\nFROM scratch\nCOPY a /\nMAINTAINER x\n");
    let output = project.ibid(&["build"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    for part in
        ["warning[MaintainerDeprecated]", "Dockerfile:4", "ends the build: MaintainerDeprecated", "hint:"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    project.file(
        "Dockerfile",
        "# check=error=true;skip=MaintainerDeprecated\nFROM scratch\nCOPY a /\nMAINTAINER x\n",
    );
    project.check(&["build"], 0);
}
