//! The same Dockerfiles through Docker's BuildKit and through the planner: equal configurations, or both fail.
//!
//! All start from `scratch` and only set configuration, so nothing is run and nothing is fetched. Needs a Docker
//! engine with BuildKit; without one the test says so and passes, unless `IBID_TEST_REQUIRE` names `docker`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use ibid_core::dockerfile::{self, PlanOptions};
use ibid_core::image::ContainerConfig;

/// Dockerfiles behind `FROM scratch`.
const CASES: &[&str] = &[
    // Words, quotes, escapes.
    r#"ENV a=b\ c d="e f" g='h $a'"#,
    "ENV a b c",
    r#"ENV a "b c"   'd' \$x e\ f"#,
    "ENV a\tb",
    "ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc",
    r#"ENV a=$ b=\$x c="\$x" d='\$x' e="a\nb" f=a\nb g=\\ h="\\""#,
    r#"ENV a="'" b='"' c="a"'b'"c" d= e="" f=''"#,
    "ENV a=x\nENV b=${a} c=${a:-d} d=${u:-d} e=${u-d} f=${a:+y} g=${u:+y} h=${a+y}",
    "ENV a=x\nENV b=${u:-${a}} c=${u:-\"q $a\"} d=${u:-'$a'} e=$a$a f=${a}b g=$ab h=$1a i=${u:-}",
    "ENV e=\nENV a=${e:-d} b=${e-d}",
    "ENV a=$PATH:/x",
    "ENV a=1 a=2",
    "ENV a=ünï b=🦀\\ x",
    "ENV a=b \\\n  # comment\n\n  c=d \\\n e=\\\nf",
    "ENV a=\"x \\\n y\"",
    r"ENV a=b\",
    r#"ENV "a b"=c"#,
    "LABEL a=b c=\"d e\" \"f g\"='h'\nLABEL a=2\nLABEL old style label",
    "ENV v=1\nLABEL v$v=$v",
    // Arguments.
    "ARG a=1\nENV b=$a\nARG a=2\nENV c=$a",
    "ARG a=1\nENV a=2\nENV b=$a\nARG a=3\nENV c=$a",
    "ENV a=1\nARG a\nENV b=$a",
    "ARG given\nENV a=$given",
    "ARG given=default\nENV a=$given",
    "ENV a=x$given\nARG given\nENV b=x$given",
    "ENV a=${HTTP_PROXY:-none}",
    "ARG HTTP_PROXY\nENV a=${HTTP_PROXY:-none}",
    "ARG TARGETARCH\nARG TARGETPLATFORM\nARG BUILDOS\nENV a=$TARGETARCH b=$TARGETPLATFORM c=$BUILDOS d=${TARGETOS:-none}",
    "ARG a='q r'\nARG b=\"$a s\"\nENV c=$b",
    // Commands.
    "CMD a b",
    "CMD [\"a\", \"b c\"]",
    "CMD [\"a\",]",
    "CMD ['a']",
    "CMD []",
    "CMD",
    "CMD [ \"a\" ] x",
    "CMD   spaced   \"out\" $x \\$y  ",
    "CMD a \\\n   b \\\n\n  # c\n d",
    "ENTRYPOINT [\"e\"]\nCMD [\"c\"]",
    "CMD [\"c\"]\nENTRYPOINT [\"e\"]",
    "ENTRYPOINT e \"f\"",
    "ENTRYPOINT []",
    "ENTRYPOINT",
    "SHELL [\"/bin/bash\", \"-c\"]\nCMD a\nENTRYPOINT b",
    "cmd [\"lower\"]\nEnv a=B",
    "CMD -- --x",
    // Lists and simple values.
    "EXPOSE 80 443/tcp 53/UDP 8000-8003",
    "ENV p=90\nEXPOSE $p ${p}1/udp",
    "ENV p=\"90 91\"\nEXPOSE $p",
    "EXPOSE 127.0.0.1:80:81",
    "VOLUME /a /b",
    "VOLUME [\"/a b\", \"/c\"]",
    "ENV v=/x\nVOLUME $v ${v}/y",
    "WORKDIR /a\nWORKDIR b\nWORKDIR ../c",
    "WORKDIR rel",
    "WORKDIR \"/q r\"/s",
    "WORKDIR /a b",
    "ENV w=/x/y\nWORKDIR $w/z",
    "USER a:b",
    "ENV u=7\nUSER ${u}:$u",
    "STOPSIGNAL SIGINT",
    "STOPSIGNAL 9",
    "ENV s=SIGTERM\nSTOPSIGNAL $s",
    "HEALTHCHECK --interval=5m --timeout=3s --start-period=1.5s --retries=4 CMD a || b",
    "HEALTHCHECK CMD [\"a\", \"b\"]",
    "HEALTHCHECK NONE",
    "HEALTHCHECK --interval=0 CMD a",
    "ONBUILD RUN a  b\nONBUILD COPY . /x",
    "onbuild \\\n  ADD a /b",
    "MAINTAINER a b <c>",
    // Several stages.
    "ENV a=1\nARG b=2\nONBUILD ENV t=$a$b\nFROM one\nENV c=$a$b",
    "CMD [\"a\"]\nFROM one\nENTRYPOINT [\"b\"]",
    "LABEL a=1\nWORKDIR /w\nUSER 7\nFROM one\nLABEL b=2\nWORKDIR x",
    // Faults.
    "ENV",
    "ENV a",
    "ENV a=b c",
    "ENV =a",
    "ENV a='b",
    "ENV a=\"b",
    "ENV a=${b",
    "ENV a=${}",
    "ENV a=${b:=c}",
    "ENV --x a=b",
    "LABEL a",
    "ARG",
    "ARG =a",
    "CMD --help",
    "CMD [\"a\", 1]",
    "SHELL a b",
    "SHELL []",
    "EXPOSE",
    "EXPOSE 80/http",
    "EXPOSE 90-80",
    "EXPOSE 70000",
    "EXPOSE a",
    "VOLUME",
    "VOLUME [\"\"]",
    "WORKDIR",
    "USER",
    "STOPSIGNAL SIGFOO",
    "STOPSIGNAL 0",
    "HEALTHCHECK",
    "HEALTHCHECK CMD",
    "HEALTHCHECK a",
    "HEALTHCHECK NONE a",
    "HEALTHCHECK --interval=5 CMD a",
    "HEALTHCHECK --interval=1us CMD a",
    "HEALTHCHECK --interval=5s --interval=6s CMD a",
    "ONBUILD",
    "ONBUILD ONBUILD RUN a",
    "ONBUILD FROM a",
    "ONBUILD MAINTAINER a",
    "MAINTAINER",
    "COPY a",
    "COPY --from=$a b c",
    "COPY --from=9 b c",
    "COPY --chwon=a b c",
    "FORM a",
    "FROM",
    "FROM a b",
    "FROM scratch AS 1a",
    "FROM $unset",
    "\\",
];

/// Files whose start matters.
const WHOLE_CASES: &[&str] = &[
    "\u{feff}FROM scratch\r\nENV a=b\r\nCMD c \\\r\n  d\r\n",
    "# escape=`\nFROM scratch\nENV a=b` c d=`$x e=\\f `\n g=h\n",
    "# comment\n# escape=`\nFROM scratch\nENV a=b\\ c\n",
    "#escape = \\\nFROM scratch\nENV a=b\\ c\n",
    "# escape=x\nFROM scratch\nENV a=b\n",
    "# escape=`\n# escape=`\nFROM scratch\nENV a=b\n",
    "ARG base=scratch\nFROM $base\nARG base\nENV a=$base\n",
    "ARG base=scr\nARG full=${base}atch\nFROM ${full:-x}\nENV a=${full:-unset}\n",
    "ARG given=scratch\nFROM scratch\nARG given\nENV a=$given\n",
    "FROM scratch AS One\nENV a=1\nFROM one\nENV b=2\n",
    "from scratch as x\nenv a=1\n",
    // A file of only `ARG` is left out: it makes Docker 20.10 panic, and with it the engine.
    "ENV a=1\nFROM scratch\n",
    "# nothing\n",
];

/// Files on which an engine of 2020 (BuildKit 0.8) and the present Dockerfile reference differ, and the reference
/// is followed: a part of the file, and what the old engine does with it.
const NEWER_REFERENCE: &[(&str, &str)] = &[
    ("${u-d}", "knows no modifier without a colon"),
    ("${e-d}", "knows no modifier without a colon"),
    ("CMD [ \"a\" ] x", "ignores what follows the JSON array"),
    ("--interval=0 ", "takes 0 for a time that is too short"),
];

#[test]
fn configurations_are_those_of_docker() {
    let Some(docker) = engine() else { return };
    let cases = CASES.iter().map(|case| format!("FROM scratch AS one\n{case}\n"));
    let mut differing = Vec::new();
    for source in cases.chain(WHOLE_CASES.iter().map(|&case| case.to_owned())) {
        let theirs = docker_config(&docker, &source);
        let ours = own_config(&source);
        let is_equal = match (&theirs, &ours) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            (Err(_), Err(_)) => true,
            _ => false,
        };
        let is_newer = NEWER_REFERENCE.iter().any(|(part, _)| source.contains(part));
        if is_equal == is_newer {
            differing.push(format!("{source}--- docker\n{}\n--- ours\n{}\n", shown(&theirs), shown(&ours)));
        }
    }
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
}

fn shown(config: &Result<ContainerConfig, String>) -> String {
    match config {
        Ok(config) => serde_json::to_string(config).expect("a configuration is JSON"),
        Err(message) => format!("error: {message}"),
    }
}

fn own_config(source: &str) -> Result<ContainerConfig, String> {
    let options = PlanOptions {
        build_args: BTreeMap::from(GIVEN_ARGS.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        target: None,
        architecture: ibid_core::image::host_architecture().to_owned(),
        contexts: BTreeMap::new(),
    };
    let plan = dockerfile::parse(source.as_bytes())
        .and_then(|dockerfile| dockerfile::plan(&dockerfile, &options, &BTreeMap::new()))
        .map_err(|error| error.to_string())?;
    Ok(plan.stages[plan.target].config.clone())
}

const GIVEN_ARGS: [(&str, &str); 2] = [("given", "value"), ("HTTP_PROXY", "http://proxy:1")];

/// The configuration of the image that Docker builds from the file.
fn docker_config(docker: &Path, source: &str) -> Result<ContainerConfig, String> {
    let context = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(context.path().join("Dockerfile"), source).expect("a writable folder");
    let mut build = Command::new(docker);
    build.args(["build", "--quiet", "--force-rm"]);
    for (name, value) in GIVEN_ARGS {
        build.args(["--build-arg", &format!("{name}={value}")]);
    }
    let image = output(build.arg(context.path()))?;
    let config =
        output(Command::new(docker).args(["image", "inspect", "--format", "{{json .Config}}", &image]));
    // The image may be one that another test made as well; it goes when nobody needs it.
    let _ = output(Command::new(docker).args(["image", "rm", &image]));
    serde_json::from_str(&config?).map_err(|error| error.to_string())
}

fn output(command: &mut Command) -> Result<String, String> {
    let output =
        command.env("DOCKER_BUILDKIT", "1").stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// A client that builds with BuildKit. A newer client in front may lack its build plug-in.
fn engine() -> Option<std::path::PathBuf> {
    let mut reason = String::new();
    for client in ["docker", "/usr/bin/docker"] {
        match docker_config(Path::new(client), "FROM scratch\nCMD probe\n") {
            Ok(_) => return Some(client.into()),
            Err(message) => reason = message,
        }
    }
    let required = std::env::var("IBID_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|need| need == "docker"), "docker is required: {reason}");
    println!("skipped: needs docker because {reason}");
    None
}
