//! Whatever a Dockerfile holds, reading and planning it ends, with a plan or an error on lines that exist.

use std::collections::BTreeMap;

use ibid_core::dockerfile::check::{self, Facts, Finding, Settings};
use ibid_core::dockerfile::{self, ErrorKind, PlanOptions};
use ibid_core::dockerignore::Ignore;
use ibid_core::image::ContainerConfig;
use ibid_core::plan::{Action, Base, CopyFrom, CopySource, Mount, Plan};
use proptest::prelude::*;

fn options() -> PlanOptions {
    let build_args = [("given", "value"), ("empty", ""), ("HTTP_PROXY", "http://proxy")];
    PlanOptions {
        build_args: build_args.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        target: None,
        architecture: "amd64".to_owned(),
        contexts: BTreeMap::new(),
    }
}

/// Reads and plans; images are added until the planner has what it asks for.
fn plan(source: &[u8], on_build: &[String]) -> Result<Plan, dockerfile::Error> {
    let dockerfile = dockerfile::parse(source)?;
    let config = ContainerConfig { on_build: on_build.to_vec(), ..ContainerConfig::default() };
    let options = options();
    let bases = dockerfile.bases(&options)?;
    let mut images: BTreeMap<String, ContainerConfig> =
        bases.into_iter().map(|image| (image, config.clone())).collect();
    loop {
        match dockerfile::plan(&dockerfile, &options, &images) {
            Err(dockerfile::Error { kind: ErrorKind::MissingBase { image }, .. }) => {
                assert!(images.insert(image, config.clone()).is_none(), "asked for twice");
            }
            result => return result,
        }
    }
}

fn check(source: &[u8], on_build: &[String]) {
    let lines_count = source.split(|&b| b == b'\n').count();
    check_findings(source, lines_count);
    match plan(source, on_build) {
        Ok(plan) => check_plan(&plan, lines_count),
        Err(error) => {
            let lines = error.lines;
            assert!(1 <= lines.first && lines.first <= lines.last && lines.last <= lines_count, "{error:?}");
            let message = error.to_string();
            assert!(!message.is_empty() && !message.contains('\n') && message.len() < 1200, "{message}");
            assert!(error.hint().is_none_or(|hint| hint.len() < 1200 && !hint.contains('\n')));
        }
    }
}

/// Whatever can be read can be checked, and what is found stands on lines that exist.
fn check_findings(source: &[u8], lines_count: usize) {
    let Ok(dockerfile) = dockerfile::parse(source) else { return };
    let settings = Settings::new(Some("experimental=all"), &BTreeMap::new()).expect("well formed");
    let facts = Facts {
        images: &BTreeMap::new(),
        pinned: &check::images(&dockerfile, &options()),
        ignore: &Ignore::parse(b"a\n*\n!b").expect("well formed"),
        ignore_file: ".dockerignore",
    };
    match check::check(source, &dockerfile, &options(), &settings, &facts) {
        Ok(findings) => {
            for Finding { lines, message, fix, .. } in findings {
                assert!(
                    1 <= lines.first && lines.first <= lines.last && lines.last <= lines_count,
                    "{message}"
                );
                assert!(!message.is_empty() && !fix.is_empty());
            }
        }
        Err(error) => assert!(matches!(error.kind, ErrorKind::TooLarge { .. }), "{error:?}"),
    }
}

/// What a builder relies on.
fn check_plan(plan: &Plan, lines_count: usize) {
    assert_eq!(plan.target, plan.stages.len() - 1);
    for (index, stage) in plan.stages.iter().enumerate() {
        if let Base::Stage(base) = stage.base {
            assert!(base < index);
        }
        assert!(stage.config.env.iter().any(|entry| entry.starts_with("PATH=")));
        for step in &stage.steps {
            assert!(
                1 <= step.lines.first
                    && step.lines.first <= step.lines.last
                    && step.lines.last <= lines_count
            );
            match &step.action {
                Action::Config => {}
                Action::Run(run) => {
                    assert!(!run.argv.is_empty() && run.cwd.starts_with('/'));
                    assert!(run.argv.iter().all(|word| !word.contains('\0')));
                    let mut names: Vec<&str> = run.env.iter().map(|(name, _)| name.as_str()).collect();
                    names.sort_unstable();
                    names.dedup();
                    assert_eq!(names.len(), run.env.len());
                    for mount in &run.mounts {
                        check_mount(mount, index);
                    }
                }
                Action::Workdir { path, .. } => assert!(is_clean(path) && path.len() > 1),
                Action::Copy(copy) => {
                    if let CopyFrom::Stage(from) = copy.from {
                        assert!(from < index);
                    }
                    assert!(!copy.sources.is_empty() || !copy.inline.is_empty());
                    for source in &copy.sources {
                        let paths = match source {
                            CopySource::Path(path) => vec![path],
                            CopySource::Below { folder, pattern } => vec![folder, pattern],
                            CopySource::Git(source) => {
                                assert!(!source.remote.starts_with('-'));
                                assert!(source.reference.as_ref().is_none_or(|name| !name.starts_with('-')));
                                source.folder.iter().collect()
                            }
                            CopySource::Url(source) => {
                                assert!(!source.file_name.contains(['/', '\0']));
                                assert!(!matches!(source.file_name.as_str(), "" | "." | ".."));
                                vec![]
                            }
                        };
                        assert!(paths.iter().all(|path| *path == "." || is_clean(&format!("/{path}"))));
                    }
                    assert!(is_clean(copy.dest.strip_suffix('/').unwrap_or(&copy.dest)));
                    assert!(copy.chmod.as_ref().is_none_or(|change| change.apply(0o644, false) <= 0o7777));
                    assert!(copy.inline.iter().all(|file| !file.name.contains('/') && file.name != ".."));
                }
            }
        }
    }
}

fn check_mount(mount: &Mount, index: usize) {
    if let Some((from, source)) = mount.source() {
        assert!(source == "." || is_clean(&format!("/{source}")));
        assert!(!matches!(from, CopyFrom::Stage(stage) if *stage >= index));
    }
    let target = match mount {
        Mount::Bind { target, .. }
        | Mount::Cache { target, .. }
        | Mount::Tmpfs { target, .. }
        | Mount::Ssh { target, .. } => Some(target),
        Mount::Secret { target, variable, id, .. } => {
            assert!(!id.is_empty() && (target.is_some() || variable.is_some()));
            assert!(variable.as_ref().is_none_or(|name| !name.is_empty() && !name.contains('=')));
            target.as_ref()
        }
    };
    assert!(target.is_none_or(|target| is_clean(target) && target.len() > 1), "{mount:?}");
    assert!(!mount.options().contains('\n'));
}

fn is_clean(path: &str) -> bool {
    path.is_empty()
        || path.strip_prefix('/').is_some_and(|rest| !rest.split('/').any(|p| matches!(p, "" | "." | "..")))
}

/// Pieces that Dockerfiles are made of, so that random joins go deep.
const PIECES: &[&str] = &[
    "FROM ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "LABEL ",
    "WORKDIR ",
    "USER ",
    "CMD ",
    "ENTRYPOINT ",
    "EXPOSE ",
    "VOLUME ",
    "SHELL ",
    "STOPSIGNAL ",
    "HEALTHCHECK ",
    "ONBUILD ",
    "MAINTAINER ",
    "\n",
    "\n",
    "\n",
    "\\\n",
    "\\",
    " ",
    " ",
    "\t",
    "\r\n",
    "# escape=`\n",
    "#",
    "# syntax=x\n",
    "`",
    "`\n",
    "a",
    "b",
    "0",
    "scratch",
    "AS ",
    "as b",
    "image",
    "--from=",
    "--from=a ",
    "--mount=",
    "--mount=type=bind,",
    "type=cache,",
    "type=secret,",
    "type=ssh,",
    "target=/",
    "target=",
    ",",
    ",id=",
    ",env=",
    ",source=..",
    ",mode=7",
    ",from=",
    ",\\\"",
    ",size=1",
    "--network=none ",
    "--chown=1:2 ",
    "--chmod=755 ",
    "--chmod=u=rwX,+t ",
    "--parents ",
    "--checksum=sha256:0 ",
    "https://h/..",
    "git://h/r#-x:../y",
    "u@h:r?ref=a",
    "%2f%00",
    "--link ",
    "--exclude=**/*.o ",
    "/./",
    "--platform=linux/amd64 ",
    "--interval=5s ",
    "-- ",
    "--",
    "=",
    "a=",
    "a=b",
    "NONE",
    "CMD",
    "80/tcp",
    "1-3",
    "SIGTERM",
    "/",
    "/x/",
    "..",
    ".",
    "*",
    "?",
    "<<EOF",
    "<<-\"A\"",
    "EOF\n",
    "\tA\n",
    "A\n",
    "#!/bin/sh\n",
    "[",
    "]",
    "[\"a\", \"b\"]",
    ",",
    "\"",
    "'",
    "$",
    "${",
    "}",
    "${a",
    ":-",
    "-",
    "+",
    ":?",
    "#",
    "##",
    "%",
    "%%",
    "//",
    "$a",
    "${a}",
    "$given",
    "${empty:-x}",
    "ä",
    "\u{feff}",
    "\u{a0}",
    "\0",
    "\u{2028}",
    "🦀",
];

fn pieces(count: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..count).prop_map(|pieces| pieces.concat())
}

/// Text that starts as it should.
fn started(count: usize) -> impl Strategy<Value = String> {
    pieces(count).prop_map(|text| format!("ARG a=1\nFROM image AS a\nFROM a AS b\n{text}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(source in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&source, &[]);
    }

    #[test]
    fn any_text(source in "\\PC*", instruction in "FROM a\n[A-Z]{3,8} [ -~]{0,60}\n") {
        check(source.as_bytes(), &[]);
        check(instruction.as_bytes(), &[]);
    }

    #[test]
    fn any_pieces(source in pieces(60), after in started(60)) {
        check(source.as_bytes(), &[]);
        check(after.as_bytes(), &[]);
    }

    #[test]
    fn any_words(keyword in prop::sample::select(&PIECES[1..17]), rest in pieces(20)) {
        check(format!("FROM image\n{keyword}{rest}").as_bytes(), &[]);
    }

    #[test]
    fn any_triggers(source in started(20), triggers in prop::collection::vec(pieces(12), 0..3)) {
        check(source.as_bytes(), &triggers);
    }
}

/// Found by fuzzing: a heredoc's text can hold what no word can.
#[test]
fn messages_stay_on_one_line() {
    for text in ["${a\n}", "${a:\n}", "${a:?say\nthis}", "${a:?\u{1b}[2J}", "${a#\\\n}"] {
        check(format!("FROM a\nCOPY <<EOF /x\n{text}\nEOF\n").as_bytes(), &[]);
    }
}

#[test]
fn large_files_end() {
    const HUGE: usize = 10 << 20;
    const SIZE: usize = 1 << 20;
    let long = |piece: &str| piece.repeat(SIZE / piece.len());
    for source in [
        format!("FROM a\nRUN {}", "x".repeat(HUGE)),
        format!("FROM a\nENV a={}", "$x ".repeat(HUGE / 3)),
        format!("FROM a\nCOPY {}", "x ".repeat(HUGE / 2)),
        format!("FROM a\n{}", "# comment\n".repeat(HUGE / 10)),
        format!("FROM a\nRUN {}", long("x ")),
        format!("FROM a\nRUN {}", long("<<A ")),
        format!("FROM a\nRUN [{}\"\"]", long("\"a\",")),
        format!("FROM a\nRUN {}", long("[")),
        format!("FROM a\nENV {}", long("a=b ")),
        format!("FROM a\nENV {}", long("${a:-")),
        format!("FROM a\nENV a={}", long("\"")),
        format!("FROM a\nENV a={}", long("\\\"")),
        format!(
            "FROM a\nENV a={0}\nENV b=${{a//*a*b/c}}${{a##*b}}${{a%%b*}}${{a//a/}}\n",
            "a".repeat(SIZE / 4)
        ),
        format!("FROM a\nENV a={}", long("$a")),
        format!("FROM a\nCOPY {} /x/", long("a ")),
        format!("FROM a\nLABEL {}", long("'a b'=c ")),
        format!("FROM a\nEXPOSE {}", long("1-65535 ")),
        format!("FROM a\n{}", long("\n")),
        format!("FROM a\nRUN a{}", long("\\\n")),
        format!("FROM a\nRUN a{}", long(" \\\n  b")),
        format!("FROM a\nRUN <<EOF\n{}EOF\n", long("line\n")),
        format!("FROM a\nCOPY <<EOF /x\n{}EOF\n", long("line $a\n")),
        format!("FROM a\nRUN {}\n{}", "<<A ".repeat(SIZE / 8), "A\n".repeat(SIZE / 8)),
        long("FROM a\n"),
        long("ARG a=b\n"),
        long("ONBUILD "),
        format!("FROM a\n{}", long("ONBUILD RUN a\n")),
        format!("FROM {}", long("a")),
        long("`"),
        long("\u{feff}"),
    ] {
        check(source.as_bytes(), &[]);
    }
}

#[test]
fn many_instructions_end() {
    const COUNT: usize = 10_000;
    let numbered = |line: fn(usize) -> String| (0..COUNT).map(line).collect::<String>();
    for source in [
        format!("FROM a\n{}", "RUN true\n".repeat(COUNT)),
        format!("FROM a\n{}", numbered(|n| format!("ENV v{n}=$v{}x\n", n.saturating_sub(1)))),
        format!("FROM a\n{}{}", numbered(|n| format!("ARG v{n}=x\n")), "RUN x\n".repeat(100)),
        format!("FROM a\n{}", numbered(|n| format!("LABEL l{n}=x\nEXPOSE {}\n", n + 1))),
        format!("FROM a AS s\n{}", numbered(|n| format!("FROM s AS s{n}\nCOPY --from=s a b\n"))),
        format!("FROM a AS s0\n{}", numbered(|n| format!("FROM s{n} AS s{}\nONBUILD RUN x\n", n + 1))),
        format!("FROM a AS s\n{}FROM s\n", "ONBUILD RUN x\n".repeat(COUNT)),
        numbered(|n| format!("FROM a AS s{n}\n"))
            + &format!("FROM b\n{}", numbered(|n| format!("COPY --from=s{n} a b\n"))),
        numbered(|n| format!("FROM image{n}\n")),
    ] {
        check(source.as_bytes(), &[]);
    }
}

/// A file of a few hundred bytes cannot ask for a plan of gigabytes.
#[test]
fn small_files_stay_small() {
    let check_too_large = |source: &str| {
        let error = plan(source.as_bytes(), &[]).expect_err(source);
        assert!(matches!(error.kind, ErrorKind::TooLarge { .. }), "{error:?}");
    };
    let doubling = |keyword: &str| {
        format!("FROM a\nARG a=xxxxxxxxxxxxxxxx\n{}", format!("{keyword} a=$a$a\n").repeat(40))
    };
    check_too_large(&doubling("ENV"));
    check_too_large(&doubling("ARG"));
    check_too_large(&format!("ARG a=xxxxxxxxxxxxxxxx\n{}FROM $a\n", "ARG a=$a$a\n".repeat(40)));
    check_too_large(&format!("FROM a\nENV a={}\n{}", "x".repeat(1 << 20), "RUN x\n".repeat(1000)));
    check_too_large(&format!(
        "FROM a AS s\nLABEL a={}\n{}",
        "x".repeat(1 << 20),
        "FROM s AS s\n".repeat(1000)
    ));
    check_too_large(&format!("FROM a\nEXPOSE {}\n", "1-65535 ".repeat(1000)));
    check_too_large(&format!("FROM a\nENV a={}\nENV b=${{a//x/$a}}\n", "x".repeat(1 << 20)));
    let triggers: String = (0..1000).map(|n| format!("FROM s AS s{n}\n")).collect();
    let copies: String = (0..1000).map(|n| format!("COPY --from=s{n} a b\n")).collect();
    check_too_large(&format!("FROM a AS s\nONBUILD RUN {}\n{triggers}FROM a\n{copies}", "x".repeat(1 << 20)));
}
