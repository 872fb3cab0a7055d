//! Golden files: each `tests/data/dockerfile/NAME.dockerfile` has its plan, or its error, in `NAME.plan`.
//!
//! Small wrong ones and their errors are in one file, `dockerfile_errors.txt`: source, `---`, rendering, `===`.
//!
//! A line `#: arg NAME=value`, `#: target STAGE`, `#: architecture NAME`, `#: context NAME=folder`,
//! `#: context NAME=image REFERENCE` or `#: base IMAGE JSON` sets an option.
//! `IBID_UPDATE_GOLDEN=1 cargo test -p ibid-core --test dockerfile_plans` writes the plans anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ibid_core::dockerfile::{self, Error, NamedContext, PlanOptions};
use ibid_core::image::ContainerConfig;
use ibid_core::plan::{Action, Base, Copy, CopyFrom, CopySource, Lines, Network, Plan, Run};
use ibid_core::remote::UrlSource;

#[test]
fn plans_are_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dockerfile");
    let entries = std::fs::read_dir(&folder).expect("the folder of golden files");
    let mut sources: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "dockerfile"));
    sources.sort();
    assert!(!sources.is_empty(), "no golden file in {}", folder.display());
    let update = std::env::var_os("IBID_UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    for path in sources {
        let source = std::fs::read(&path).expect("a readable golden file");
        let found = render(&source);
        let plan_path = path.with_extension("plan");
        if update {
            std::fs::write(&plan_path, &found).expect("a writable golden file");
            continue;
        }
        let expected = std::fs::read_to_string(&plan_path).unwrap_or_default();
        if found != expected {
            differing.push(format!("=== {}\n--- expected\n{expected}--- found\n{found}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn errors_are_as_written_down() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dockerfile_errors.txt");
    let text = std::fs::read_to_string(&path).expect("the file of errors");
    let mut found = String::new();
    for case in text.split_terminator("===\n") {
        let source = case.split_once("---\n").map_or(case, |(source, _)| source);
        let rendered = render(source.as_bytes());
        found.push_str(&format!("{source}---\n{rendered}===\n"));
        assert!(rendered.starts_with("error "), "{source} is planned:\n{rendered}");
    }
    if std::env::var_os("IBID_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("a writable golden file");
    } else {
        assert_eq!(found, text);
    }
}

fn render(source: &[u8]) -> String {
    let text = String::from_utf8_lossy(source);
    let mut options = PlanOptions {
        build_args: BTreeMap::new(),
        target: None,
        architecture: "amd64".to_owned(),
        contexts: BTreeMap::new(),
    };
    let mut configs = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("#: ")) {
        let (option, value) = line.split_once(' ').expect("an option has a value");
        match option {
            "arg" => {
                let (name, value) = value.split_once('=').expect("an argument has a value");
                options.build_args.insert(name.to_owned(), value.to_owned());
            }
            "target" => options.target = Some(value.to_owned()),
            "context" => {
                let (name, what) = value.split_once('=').expect("a context is something");
                let context = match what.strip_prefix("image ") {
                    Some(image) => NamedContext::Image(image.to_owned()),
                    None => NamedContext::Folder,
                };
                options.contexts.insert(dockerfile::context_name(name), context);
            }
            "architecture" => value.clone_into(&mut options.architecture),
            "base" => {
                let (image, json) = value.split_once(' ').expect("a base has a configuration");
                configs
                    .insert(image.to_owned(), serde_json::from_str(json).expect("a configuration in JSON"));
            }
            other => panic!("unknown option {other}"),
        }
    }
    match render_plan(source, &options, configs) {
        Ok(rendered) => rendered,
        Err(error) => render_error(&error, &text),
    }
}

fn render_plan(
    source: &[u8],
    options: &PlanOptions,
    mut configs: BTreeMap<String, ContainerConfig>,
) -> Result<String, Error> {
    let dockerfile = dockerfile::parse(source)?;
    let mut out = String::new();
    let directives = dockerfile.directives();
    if directives != &dockerfile::Directives::default() {
        line(&mut out, 0, &format!("{directives:?}"));
    }
    let bases = dockerfile.bases(options)?;
    line(&mut out, 0, &format!("bases {bases:?}"));
    for base in bases {
        // A base without a line of its own is as plain as an image can be.
        configs.entry(base).or_default();
    }
    let plan = dockerfile::plan(&dockerfile, options, &configs)?;
    write_plan(&mut out, &plan);
    Ok(out)
}

fn render_error(error: &Error, text: &str) -> String {
    let Lines { first, last } = error.lines;
    let mut out = format!("error on lines {first} to {last}: {error}\n");
    for (number, source) in (1..).zip(text.lines()).skip(first - 1).take(last + 1 - first) {
        line(&mut out, 0, &format!("{number:3} | {source}"));
    }
    if let Some(hint) = error.hint() {
        line(&mut out, 0, &format!("hint: {hint}"));
    }
    out
}

fn write_plan(out: &mut String, plan: &Plan) {
    if !plan.undeclared_args.is_empty() {
        line(out, 0, &format!("undeclared {:?}", plan.undeclared_args));
    }
    for (index, stage) in plan.stages.iter().enumerate() {
        let target = if index == plan.target { ", the target" } else { "" };
        let name = stage.name.as_deref().map_or(String::new(), |name| format!(" `{name}`"));
        let base = match &stage.base {
            Base::Scratch => "scratch".to_owned(),
            Base::Image(image) => format!("image {image}"),
            Base::Stage(stage) => format!("stage {stage}"),
        };
        line(out, 0, &format!("stage {index}{name} from {base} on {}{target}", shown(stage.lines)));
        for step in &stage.steps {
            line(out, 1, &format!("{}: {}", shown(step.lines), step.text));
            match &step.created_by {
                Some(created_by) if *created_by == step.text => {}
                Some(created_by) => line(out, 2, &format!("history {created_by:?}")),
                None => line(out, 2, "no history"),
            }
            match &step.action {
                Action::Config => {}
                Action::Run(run) => write_run(out, run),
                Action::Copy(copy) => write_copy(out, copy),
                Action::Workdir { path, user } => line(out, 2, &format!("folder {path} of {user:?}")),
            }
        }
        if let Some(author) = &stage.author {
            line(out, 1, &format!("author {author:?}"));
        }
        let config = serde_json::to_value(&stage.config).expect("a configuration is JSON");
        for (key, value) in config.as_object().expect("a configuration is an object") {
            line(out, 1, &format!("{key} {value}"));
        }
    }
}

fn write_run(out: &mut String, run: &Run) {
    let Run { argv, env, user, cwd, mounts, network, script } = run;
    line(out, 2, &format!("run {argv:?}"));
    let env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    line(out, 2, &format!("env {env:?}"));
    if (user.as_str(), cwd.as_str()) != ("", "/") {
        line(out, 2, &format!("as {user:?} in {cwd}"));
    }
    for mount in mounts {
        let from = mount.source().map(|(from, _)| format!(" from {}", origin(from))).unwrap_or_default();
        line(out, 2, &format!("mount {}{from}", mount.options()));
    }
    if *network != Network::Default {
        line(out, 2, &format!("network {network:?}"));
    }
    if let Some(script) = script {
        line(out, 2, &format!("script {} {:?}", script.name, script.content));
    }
}

fn write_copy(out: &mut String, copy: &Copy) {
    let Copy { from, sources, inline, dest, chown, chmod, exclude, extract, link } = copy;
    let sources: Vec<String> = sources.iter().map(shown_source).collect();
    let from = origin(from);
    let extract = if *extract { ", extracting" } else { "" };
    let link = if *link { ", by itself" } else { "" };
    line(out, 2, &format!("copy {sources:?} of {from} to {dest}{extract}{link}"));
    if !exclude.is_empty() {
        line(out, 2, &format!("without {exclude:?}"));
    }
    for file in inline {
        line(out, 2, &format!("file {} {:?}", file.name, file.content));
    }
    if let Some(chown) = chown {
        line(out, 2, &format!("owner {chown}"));
    }
    if let Some(chmod) = chmod {
        line(out, 2, &format!("mode {chmod}"));
    }
}

fn origin(from: &CopyFrom) -> String {
    match from {
        CopyFrom::Context => "the context".to_owned(),
        CopyFrom::NamedContext(name) => format!("the context {name}"),
        CopyFrom::Scratch => "nothing".to_owned(),
        CopyFrom::Stage(stage) => format!("stage {stage}"),
        CopyFrom::Image(image) => format!("image {image}"),
    }
}

fn shown_source(source: &CopySource) -> String {
    match source {
        CopySource::Path(path) => path.clone(),
        CopySource::Below { folder, pattern } => format!("{folder} : {pattern}"),
        CopySource::Git(source) => format!("{source:?}"),
        CopySource::Url(UrlSource { url, file_name, sha256, unpack }) => {
            let sha256 = sha256.map_or(String::new(), |digest| format!(" with {digest}"));
            let unpack = if *unpack { ", extracting" } else { "" };
            format!("{url} as {file_name}{sha256}{unpack}")
        }
    }
}

fn shown(lines: Lines) -> String {
    if lines.first == lines.last {
        format!("{}", lines.first)
    } else {
        format!("{}-{}", lines.first, lines.last)
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    writeln!(out, "{:depth$}{text}", "", depth = depth * 2).expect("writing to a string");
}
