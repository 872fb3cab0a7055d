//! A corpus of Dockerfiles through `docker build` (BuildKit) and through `ibid build`: the trees and the configurations
//! that come out are compared field by field, and what one refuses, the other must refuse.
//!
//! The cases stand in `corpus/*.txt`; see `corpus.rs` for the form. What is allowed to differ is listed in
//! [`Difference`], each with its reason; a case that needs one says so, and fails when it no longer does.
//!
//! `IBID_DIFFERENTIAL=words` runs only the cases whose name holds the words.

mod corpus;
mod image;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use corpus::Case;
use ibid_testing::{Need, Place, need};
use image::Image;
use support::engine::Engine;
use support::text;

/// Cases that are built at once.
const BUILDERS: usize = 2;

/// Why a result of ibid's may differ from Docker's, and in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// Files of the context get mode 644 or 755, whatever the builder's umask and the rest of their mode was; Docker copies
    /// what the checkout happened to have, so that its digest depends on the machine.
    ContextModes,
    /// Whether two files of the context are one is a matter of how it was checked out, not of its content.
    ContextLinks,
    /// Sockets, pipes and devices of the context are no content: ibid warns and leaves them out.
    SpecialFiles,
    /// A stage's mount points (`/dev`, `/proc`, `/sys`, …) are no content; Docker leaves them in the first layer that a command
    /// made.
    MountPoints,
    /// Old engines (BuildKit 0.8, of 2020) write the history of `EXPOSE`, `HEALTHCHECK` and repeated `ARG`s in Go's notation.
    HistoryText,
    /// Old engines drop or keep the upper three of the twelve mode bits whatever `--chmod` says.
    SpecialModeBits,
    /// Old engines cannot do what the Dockerfile reference of today describes.
    NewerReference,
    /// ibid refuses where an engine silently does what nobody can have meant.
    Refused,
}

impl Difference {
    const ALL: [(&str, Self); 8] = [
        ("context modes", Self::ContextModes),
        ("context links", Self::ContextLinks),
        ("special files", Self::SpecialFiles),
        ("mount points", Self::MountPoints),
        ("history text", Self::HistoryText),
        ("special mode bits", Self::SpecialModeBits),
        ("newer reference", Self::NewerReference),
        ("refused", Self::Refused),
    ];

    fn parse(name: &str) -> Self {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("`{name}` is no allowed difference")).1
    }

    /// Whether it explains that only one of the two builds the file.
    fn explains_refusal(self, by_ibid: bool) -> bool {
        match self {
            Self::NewerReference => !by_ibid,
            Self::Refused => by_ibid,
            _ => false,
        }
    }

    /// Whether it explains a line of [`image::differences`].
    fn explains(self, line: &str) -> bool {
        match self {
            Self::ContextModes | Self::SpecialModeBits => line.contains(": mode "),
            Self::ContextLinks => line.starts_with("hard links: "),
            Self::SpecialFiles | Self::MountPoints => line.ends_with(": only docker has it"),
            Self::HistoryText => line.starts_with("configuration.history"),
            Self::NewerReference => true,
            Self::Refused => false,
        }
    }
}

#[test]
fn images_are_those_of_docker() {
    if !need(&[Need::Root, Need::Overlay]) || !Engine::is_installed() {
        return;
    }
    let Some(busybox) = busybox() else { return };
    let wanted = std::env::var("IBID_DIFFERENTIAL").unwrap_or_default();
    let cases: Vec<Case> = corpus::read().into_iter().filter(|case| case.name.contains(&wanted)).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let bench = Workbench {
        engine: Engine::start(folder.path(), data.path()),
        place: Place::new(),
        data: data.path().to_owned(),
    };
    bench.make_base(&busybox);

    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..BUILDERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = bench.check(case) {
                        let failure = format!("== {} ({})\n{}\n{why}", case.name, case.file, case.dockerfile);
                        failures.lock().expect("no panic").push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    println!("{} cases", cases.len());
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// Debian's package busybox-static has all of it in one file.
fn busybox() -> Option<PathBuf> {
    let found =
        ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let required = std::env::var("IBID_TEST_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|name| name == "docker" || name == "all");
    assert!(found.is_some() || !is_required, "needs busybox: install the package busybox-static");
    if found.is_none() {
        eprintln!("skipped: needs busybox: install the package busybox-static");
    }
    found
}

struct Workbench {
    engine: Engine,
    place: Place,
    data: PathBuf,
}

impl Workbench {
    /// The image `tiny` that the cases start from, in both stores: made by ibid, loaded by Docker.
    fn make_base(&self, busybox: &Path) {
        let project = self.place.folder("base/context");
        fs::copy(busybox, project.join("busybox")).expect("a copy");
        for mount_point in ["dev", "proc", "sys"] {
            self.place.folder(&format!("base/context/mount-points/{mount_point}"));
        }
        fs::write(project.join("Dockerfile"), corpus::BASE).expect("a file");
        fs::write(self.place.path().join("base/ibid.toml"), PROJECT).expect("a file");
        let built = self.ibid("base", &["build", "--tag", "tiny"]);
        built.expect("ibid makes the base");
        let archive = self.data.join("base.tar");
        let path = archive.to_str().expect("a path in UTF-8");
        self.ibid("base", &["save", "tiny", "--output", path]).expect("ibid saves the base");
        self.docker("base", &["load", "--input", path]).expect("docker loads the base");
    }

    fn check(&self, case: &Case) -> Result<(), String> {
        // Each has a folder of its own, since ibid writes a lock beside its project.
        let (ours, theirs) = (format!("ibid-{}", case.id), format!("docker-{}", case.id));
        for folder in [&ours, &theirs] {
            self.prepare(folder, case)?;
        }
        let mut docker_build = vec!["build", "--quiet", "--network", "host", "--tag", &theirs];
        docker_build.extend(case.args.iter().map(String::as_str));
        docker_build.push("context");
        let theirs = self.docker(&theirs, &docker_build).and_then(|_| self.docker_image(&theirs));
        let mut ibid_build = vec!["build", "--tag", &ours];
        ibid_build.extend(case.args.iter().map(String::as_str));
        let ours = self.ibid(&ours, &ibid_build).and_then(|_| self.ibid_image(&ours));
        let (theirs, ours) = match (theirs, ours) {
            (Err(_), Err(_)) if case.fails => return Ok(()),
            (Ok(_), Ok(_)) if case.fails => return Err("both build it, and it should fail".to_owned()),
            (Err(theirs), Err(ours)) => {
                return Err(format!("both refuse it\n-- docker\n{theirs}\n-- ibid\n{ours}"));
            }
            (Err(_), Ok(_)) if case.allows_refusal(false) => return Ok(()),
            (Ok(_), Err(_)) if case.allows_refusal(true) => return Ok(()),
            (Err(theirs), Ok(_)) => return Err(format!("only docker refuses it: {theirs}")),
            (Ok(_), Err(ours)) => return Err(format!("only ibid refuses it: {ours}")),
            (Ok(theirs), Ok(ours)) => (theirs, ours),
        };
        let differences = image::differences(&theirs, &ours);
        if let Some(allowed) = case.allowed.iter().find(|allowed| **allowed == Difference::Refused) {
            return Err(format!(
                "both build it, so that it needs no {allowed:?}:\n{}",
                differences.join("\n")
            ));
        }
        for allowed in &case.allowed {
            if !differences.iter().any(|line| allowed.explains(line)) {
                return Err(format!("it no longer needs the difference {allowed:?}"));
            }
        }
        let unexplained: Vec<String> = differences
            .into_iter()
            .filter(|line| !case.allowed.iter().any(|allowed| allowed.explains(line)))
            .collect();
        if unexplained.is_empty() { Ok(()) } else { Err(unexplained.join("\n")) }
    }

    /// A project whose context and Dockerfile are those of the case.
    fn prepare(&self, folder: &str, case: &Case) -> Result<(), String> {
        let context = self.place.folder(&format!("{folder}/context"));
        let write = |path: PathBuf, text: &str| fs::write(path, text).map_err(|error| error.to_string());
        write(self.place.path().join(folder).join("ibid.toml"), PROJECT)?;
        output(
            Command::new("sh").args(["-euc", &format!("umask 022\n{}", case.context)]).current_dir(&context),
        )?;
        write(context.join("Dockerfile"), &case.dockerfile)?;
        if let Some(ignore) = &case.ignore {
            write(context.join(".dockerignore"), ignore)?;
        }
        Ok(())
    }

    fn ibid(&self, folder: &str, args: &[&str]) -> Result<Vec<u8>, String> {
        let mut command = self.place.command(env!("CARGO_BIN_EXE_ibid"));
        command.env("XDG_DATA_HOME", self.data.join("share")).arg("-C").arg(self.place.path().join(folder));
        output(command.args(args))
    }

    fn docker(&self, folder: &str, args: &[&str]) -> Result<Vec<u8>, String> {
        // A newer client in front of Debian's may lack its build plug-in.
        let client = if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" };
        let mut command = self.engine.command(client);
        command.env("DOCKER_BUILDKIT", "1").current_dir(self.place.path().join(folder));
        output(command.args(args))
    }

    fn docker_image(&self, tag: &str) -> Result<Image, String> {
        image::read(&self.docker("base", &["save", tag])?)
    }

    fn ibid_image(&self, tag: &str) -> Result<Image, String> {
        image::read(&self.ibid("base", &["save", tag, "--output", "-"])?)
    }
}

const PROJECT: &str = "[image]\ncontext = \"context\"\ndockerfile = \"context/Dockerfile\"\n";

fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(output.stdout) } else { Err(text(&output.stderr)) }
}
