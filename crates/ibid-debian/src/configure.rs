//! Configuring unpacked packages by their own scripts, in the sandbox.
//!
//! The order is that of a fresh installation: `preinst` of the packages that are essential, or that those need;
//! dpkg configures them; then the same for all others. Since every file is there already when a `preinst` runs,
//! packages whose `preinst` moves other packages' files away (diversions) are left to dpkg's own unpacking.
//!
//! The sandbox has no network, no init that could be told to restart, and forbids starting services.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use ibid_sandbox::{
    ExitStatus, InjectedFile, Mount, MountKind, Network, Overlay, Rootfs, Spec, Stdio, Upper, spawn,
};

use crate::Event;
use crate::database::Unpacked;
use crate::deb822::Paragraph;
use crate::error::Error;
use crate::relation::{alternatives, groups, terms};
use crate::root::Root;

/// Lines of output that an error shows.
const OUTPUT_LINES_SHOWN: usize = 20;
/// Longest line that is kept, bytes.
const LINE_BYTES_MAX: u64 = 16 << 10;
const SCRIPT: &str = "/run/ibid/configure";
const PACKAGES: &str = "/run/ibid/packages";
/// Programs of the image that are covered by one that only says yes, while packages are configured:
/// - `ischroot` tells whether there is no init to talk to; the C library's script waits a second for it otherwise;
/// - `dpkg-maintscript-helper` mends what an older version of a package left, which a first installation has not,
///   and takes a third of a second to find that out.
const COVERED: [&str; 2] = ["usr/bin/ischroot", "usr/bin/dpkg-maintscript-helper"];
/// Programs that scripts call for an effect which no other script waits for. They are covered by one that starts
/// them and goes on, so that they use another processor; the configuration ends after they have.
const BACKGROUND: [Background; 2] = [
    // It runs in `postinst` without hooks and from a trigger with them; it finds nothing to do the second time.
    Background { program: "usr/sbin/update-ca-certificates", once_for: Some("ca-certificates") },
    Background { program: "usr/bin/py3compile", once_for: None },
];
const BACKGROUND_FOLDER: &str = "/run/ibid/background";
/// Packages whose `preinst` comes before any other's.
const FIRST: [&str; 2] = ["base-files", "base-passwd"];
const POLICY: &str = "usr/sbin/policy-rc.d";

/// A program to be run beside the configuration.
struct Background {
    /// Path in the image.
    program: &'static str,
    /// For a program that is to run once and without arguments: the package it belongs to. It is left alone when
    /// the scripts of another package name that one, and so might need its effect, or add to it.
    once_for: Option<&'static str>,
}

impl Background {
    fn name(&self) -> &'static str {
        self.program.rsplit('/').next().unwrap_or(self.program)
    }

    fn fits(&self, packages: &[Unpacked]) -> bool {
        let Some(owner) = self.once_for else { return true };
        let names_it =
            |script: &Vec<u8>| script.windows(owner.len()).any(|window| window == owner.as_bytes());
        packages.iter().filter(|package| package.name != owner).all(|package| {
            !["preinst", "postinst"].iter().filter_map(|kind| package.control.get(*kind)).any(names_it)
        })
    }

    /// The program in its place. Its shared lock, inherited by what it starts, is what [`script`] waits for.
    fn cover(&self) -> String {
        let name = self.name();
        let (once, arguments) = match self.once_for {
            Some(_) => (format!("mkdir {BACKGROUND_FOLDER}/{name}.once 2>/dev/null || exit 0\n"), ""),
            None => (String::new(), "\"$@\""),
        };
        format!(
            "#!/bin/sh\n{once}exec 9>>{BACKGROUND_FOLDER}/lock\nflock --shared 9 || exit 1\n\
             {{ {BACKGROUND_FOLDER}/{name} {arguments} || echo \"{name} ended with code $?\" >>{BACKGROUND_FOLDER}/failed; }} </dev/null &\n"
        )
    }
}

/// A package to be unpacked by dpkg itself.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub name: String,
    pub path: PathBuf,
}

/// Where the root file system is.
pub(crate) struct Place<'a> {
    pub root: &'a Root,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub skeleton: PathBuf,
}

/// For each package, given by its control fields, whether it is essential or needed by those that are.
pub(crate) fn essential(packages: &[&Paragraph]) -> Vec<bool> {
    let essential = closure(packages, |fields| fields.get("Essential") == Some("yes"));
    (0..packages.len()).map(|number| essential.contains(&number)).collect()
}

/// True for a script that moves other packages' files away, which must happen before its own are unpacked.
pub(crate) fn diverts(preinst: &[u8]) -> bool {
    const PROGRAM: &[u8] = b"dpkg-divert";
    preinst.windows(PROGRAM.len()).any(|window| window == PROGRAM)
}

/// Configures all packages. `epoch` is exported to the scripts.
pub(crate) fn configure(
    place: &Place<'_>,
    packages: &[Unpacked],
    deferred: &[Deferred],
    epoch: i64,
    progress: &(dyn Fn(Event) + Sync),
) -> Result<(), Error> {
    let script = script(packages, deferred);
    place.root.write(POLICY, b"#!/bin/sh\nexit 101\n", 0o755)?;
    let mut files =
        vec![InjectedFile { target: SCRIPT.to_owned(), content: script.into_bytes(), mode: 0o755 }];
    for program in COVERED {
        if place.root.read(program)?.is_some() {
            let content = b"#!/bin/sh\nexit 0\n".to_vec();
            files.push(InjectedFile { target: format!("/{program}"), content, mode: 0o755 });
        }
    }
    for background in BACKGROUND {
        let Some(content) = place.root.read(background.program)? else { continue };
        if background.fits(packages) {
            let (real, cover) = (format!("{BACKGROUND_FOLDER}/{}", background.name()), background.cover());
            files.push(InjectedFile { target: real, content, mode: 0o755 });
            let target = format!("/{}", background.program);
            files.push(InjectedFile { target, content: cover.into_bytes(), mode: 0o755 });
        }
    }
    let overlay = Overlay {
        lowers: vec![place.skeleton.clone()],
        upper: Some(Upper { upper: place.upper.clone(), work: place.work.clone() }),
        volatile: true,
    };
    let spec = Spec {
        files,
        mounts: deferred
            .iter()
            .map(|package| Mount {
                target: format!("{PACKAGES}/{}.deb", package.name),
                kind: MountKind::Bind { source: package.path.clone(), read_only: true, idmap: None },
            })
            .collect(),
        env: environment(epoch),
        network: Network::None,
        keeps_owners: true,
        ..Spec::new(Rootfs::Overlay(overlay), vec!["/bin/sh".to_owned(), SCRIPT.to_owned()])
    };
    let (status, outcome) = run(&spec, packages.len() + deferred.len(), progress)?;
    place.root.remove(POLICY)?;
    match (status, outcome.failure) {
        (ExitStatus::Code(0), None) => Ok(()),
        (status, failure) => Err(Error::Configure {
            what: failure.unwrap_or_else(|| format!("the packages' scripts ended with {status}")),
            output: outcome.last_lines.into(),
        }),
    }
}

fn environment(epoch: i64) -> Vec<(String, String)> {
    [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LC_ALL", "C.UTF-8"),
        ("LANG", "C.UTF-8"),
        ("TZ", "UTC"),
        ("TERM", "dumb"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
        ("DEBCONF_NOWARNINGS", "yes"),
        ("PYTHONHASHSEED", "0"),
        // What a script imports is compiled by its package's own script, checked by content and not by time.
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("SOURCE_DATE_EPOCH", &epoch.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// The shell program. Its standard output carries dpkg's status lines, and lines of the same form of its own;
/// what scripts write goes to standard error.
fn script(packages: &[Unpacked], deferred: &[Deferred]) -> String {
    let fields: Vec<&Paragraph> = packages.iter().map(|package| &package.fields).collect();
    let order = by_dependency(&fields);
    let essential = essential(&fields);
    let held_back: BTreeSet<&str> = deferred.iter().map(|package| package.name.as_str()).collect();
    let mut text = format!("exec 3>&1 1>&2 </dev/null\nmkdir -p {BACKGROUND_FOLDER}\n");
    text.push_str("failed() { echo \"status: $1 : error : $2\" >&3; exit 1; }\n");
    text.push_str("configure() { dpkg --status-fd 3 --force-unsafe-io --abort-after=1 --configure \"$@\" || exit 1; }\n");
    let (first, rest): (Vec<usize>, Vec<usize>) = order.into_iter().partition(|&number| essential[number]);
    let has_preinst = |numbers: &[usize]| numbers.iter().any(|&number| preinst(&packages[number]).is_some());
    for &number in &first {
        add_preinst(&mut text, &packages[number]);
    }
    if has_preinst(&rest) || !held_back.is_empty() {
        if !first.is_empty() {
            text.push_str("configure");
            for &number in &first {
                let _ = write!(text, " {}", packages[number].info_name);
            }
            text.push('\n');
        }
        for &number in &rest {
            add_preinst(&mut text, &packages[number]);
        }
        if !held_back.is_empty() {
            let _ = writeln!(
                text,
                "dpkg --status-fd 3 --force-unsafe-io --abort-after=1 --force-depends --unpack {PACKAGES}/*.deb || exit 1"
            );
        }
    }
    text.push_str("configure --pending\n");
    let _ = write!(
        text,
        "exec 9>>{BACKGROUND_FOLDER}/lock && flock 9 || failed ibid \"waiting failed\"\n\
         if [ -s {BACKGROUND_FOLDER}/failed ]; then\n\
         read -r what <{BACKGROUND_FOLDER}/failed\nfailed ibid \"$what\"\nfi\n"
    );
    text
}

/// A package's `preinst`, unless it is known to do nothing on a fresh installation: one that only calls
/// `dpkg-maintscript-helper`, which acts on what an older version left.
fn preinst(package: &Unpacked) -> Option<&[u8]> {
    let script = package.control.get("preinst")?;
    let only_helps = String::from_utf8_lossy(script).lines().map(str::trim).all(|line| {
        let is_call = line.starts_with("dpkg-maintscript-helper ")
            && !line.contains([';', '|', '&', '`', '>', '<', '('])
            && !line.ends_with('\\');
        line.is_empty() || line.starts_with('#') || matches!(line, "set -e" | "set -eu" | "exit 0") || is_call
    });
    (!only_helps).then_some(script)
}

fn add_preinst(text: &mut String, package: &Unpacked) {
    if preinst(package).is_none() {
        return;
    }
    let name = &package.name;
    let architecture = package.fields.get("Architecture").unwrap_or_default();
    let _ = writeln!(
        text,
        "DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE={name} DPKG_MAINTSCRIPT_ARCH={architecture} \
         DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= DPKG_RUNNING_VERSION=1 \
         /var/lib/dpkg/info/{}.preinst install || failed {name} \"its preinst script ended with code $?\"",
        package.info_name
    );
}

fn name(fields: &Paragraph) -> &str {
    fields.get("Package").unwrap_or_default()
}

/// The packages that satisfy each package's dependencies.
fn dependencies(packages: &[&Paragraph]) -> Vec<Vec<usize>> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, fields) in packages.iter().enumerate() {
        by_name.entry(name(fields)).or_default().push(number);
    }
    for (number, fields) in packages.iter().enumerate() {
        for term in terms(fields.get("Provides").unwrap_or_default()) {
            by_name.entry(term.name).or_default().push(number);
        }
    }
    packages
        .iter()
        .map(|fields| {
            let mut needed = Vec::new();
            for field in ["Pre-Depends", "Depends"] {
                for group in groups(fields.get(field).unwrap_or_default()) {
                    let found = alternatives(group).filter_map(|term| by_name.get(term.name)).next();
                    needed.extend(found.into_iter().flatten().copied());
                }
            }
            needed
        })
        .collect()
}

/// All packages, each after those it depends on as far as cycles allow; before all others those that make what
/// every script may use without saying so, such as `/etc/passwd`.
fn by_dependency(packages: &[&Paragraph]) -> Vec<usize> {
    fn visit(number: usize, needed: &[Vec<usize>], seen: &mut BTreeSet<usize>, order: &mut Vec<usize>) {
        if seen.insert(number) {
            for &other in &needed[number] {
                visit(other, needed, seen, order);
            }
            order.push(number);
        }
    }
    let needed = dependencies(packages);
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    let is_first = |number: &usize| FIRST.contains(&name(packages[*number]));
    let (first, rest): (Vec<usize>, Vec<usize>) = (0..packages.len()).partition(is_first);
    for number in first.into_iter().chain(rest) {
        visit(number, &needed, &mut seen, &mut order);
    }
    order
}

/// The packages that fulfil a condition, and all that they need.
fn closure(packages: &[&Paragraph], is_root: impl Fn(&Paragraph) -> bool) -> BTreeSet<usize> {
    let needed = dependencies(packages);
    let mut found: BTreeSet<usize> =
        (0..packages.len()).filter(|&number| is_root(packages[number])).collect();
    let mut queue: VecDeque<usize> = found.iter().copied().collect();
    while let Some(number) = queue.pop_front() {
        for &other in &needed[number] {
            if found.insert(other) {
                queue.push_back(other);
            }
        }
    }
    found
}

#[derive(Debug, Default)]
struct Outcome {
    failure: Option<String>,
    last_lines: VecDeque<String>,
}

/// Runs the script and listens to it.
fn run(spec: &Spec, total: usize, progress: &(dyn Fn(Event) + Sync)) -> Result<(ExitStatus, Outcome), Error> {
    let pipe = || {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| crate::error::io_error(std::path::Path::new("pipe"))(errno.into()))
    };
    let (status_read, status_write) = pipe()?;
    let (output_read, output_write) = pipe()?;
    let null = std::path::Path::new("/dev/null");
    let nothing = std::fs::File::open(null).map_err(crate::error::io_error(null))?;
    let stdio = Stdio { stdin: Some(nothing.into()), stdout: Some(status_write), stderr: Some(output_write) };
    let running = spawn(spec, stdio)?;
    std::thread::scope(|scope| {
        let listener = scope.spawn(|| listen(status_read, total, progress));
        let mut last_lines = VecDeque::new();
        for line in lines(output_read) {
            if last_lines.len() == OUTPUT_LINES_SHOWN {
                last_lines.pop_front();
            }
            last_lines.push_back(line.clone());
            progress(Event::Output { line });
        }
        let failure = listener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((running.wait()?, Outcome { failure, last_lines }))
    })
}

/// Reads dpkg's status lines (dpkg(1), `--status-fd`). Gives the first error they report.
fn listen(input: OwnedFd, total: usize, progress: &(dyn Fn(Event) + Sync)) -> Option<String> {
    let mut failure = None;
    let mut seen = BTreeSet::new();
    for line in lines(input) {
        let mut parts = line.splitn(4, ':').map(str::trim);
        match (parts.next(), parts.next(), parts.next()) {
            (Some("processing"), Some("configure"), Some(package)) => {
                let packages = seen.len();
                if seen.insert(package.to_owned()) {
                    progress(Event::Configuring { package: package.to_owned(), packages, total });
                }
            }
            // A package's name may itself be followed by a colon and an architecture.
            (Some("status"), Some(package), Some(_)) if line.contains(" : error : ") && failure.is_none() => {
                let reason = line.split_once(" : error : ").map_or("", |(_, reason)| reason);
                failure = Some(format!("package {package}: {reason}"));
            }
            _ => {}
        }
    }
    failure
}

/// Lines as text, whatever their bytes, each cut at a bearable length.
fn lines(input: OwnedFd) -> impl Iterator<Item = String> {
    let mut input = BufReader::new(std::fs::File::from(input));
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match std::io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb822::Paragraphs;

    fn package(name: &str, fields: &str, preinst: Option<&str>) -> Unpacked {
        let text = format!("Package: {name}\nArchitecture: amd64\n{fields}");
        Unpacked {
            name: name.to_owned(),
            info_name: name.to_owned(),
            fields: Paragraphs::new(text.as_bytes()).next().expect("reads").expect("a paragraph"),
            control: preinst
                .map(|script| ("preinst".to_owned(), script.as_bytes().to_vec()))
                .into_iter()
                .collect(),
            paths: Vec::new(),
            configuration: Vec::new(),
        }
    }

    #[test]
    fn what_runs_once_beside_is_left_alone_when_another_package_names_it() {
        let [certificates, python] = BACKGROUND;
        let packages = |script| [package("ca-certificates", "", None), package("other", "", Some(script))];
        assert!(certificates.fits(&packages("echo hello")));
        assert!(!certificates.fits(&packages("ls /usr/share/ca-certificates")));
        assert!(python.fits(&packages("ls /usr/share/ca-certificates")));
        let own = [package("ca-certificates", "", Some("update-ca-certificates"))];
        assert!(certificates.fits(&own));
    }

    #[test]
    fn the_end_waits_for_what_runs_beside() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().to_str().expect("text");
        let local = |text: &str| text.replace(BACKGROUND_FOLDER, place);
        let background = Background { program: "usr/bin/slow", once_for: None };
        std::fs::write(folder.path().join("cover"), local(&background.cover())).expect("writes");
        std::fs::write(folder.path().join("slow"), "#!/bin/sh\nsleep 0.2\necho \"$1\" >>$2\nexit 7\n")
            .expect("writes");
        let end = local(&script(&[], &[]).split_off(script(&[], &[]).find("exec 9").expect("a lock")));
        let text = format!(
            "failed() {{ echo \"$2\"; exit 1; }}\nchmod +x {place}/slow\nsh {place}/cover 'a b' {place}/said\n{end}"
        );
        let done = std::process::Command::new("sh").args(["-c", &text]).output().expect("starts");
        assert_eq!(String::from_utf8_lossy(&done.stdout), "slow ended with code 7\n");
        assert_eq!(done.status.code(), Some(1));
        assert_eq!(std::fs::read_to_string(folder.path().join("said")).expect("it ran to its end"), "a b\n");
    }

    #[test]
    fn packages_follow_what_they_need() {
        let packages = [
            package("a", "Depends: c, virtual\n", None),
            package("b", "Provides: virtual\nPre-Depends: d\n", None),
            package("c", "Depends: a\n", None),
            package("d", "Essential: yes\nDepends: e | a\n", None),
            package("e", "", None),
        ];
        let fields: Vec<&Paragraph> = packages.iter().map(|package| &package.fields).collect();
        assert_eq!(by_dependency(&fields), [2, 4, 3, 1, 0]);
        assert_eq!(essential(&fields), [false, false, false, true, true]);
    }

    #[test]
    fn one_configuration_is_enough_when_no_preinst_waits_for_it() {
        let helper = "#!/bin/sh\nset -e\ndpkg-maintscript-helper rm_conffile /etc/x 1.0\\~ -- \"$@\"\n";
        let packages = [
            package("base", "Essential: yes\n", Some("#!/bin/sh\ntouch /x\n")),
            package("more", "", Some(helper)),
        ];
        let text = script(&packages, &[]);
        assert!(text.contains("/var/lib/dpkg/info/base.preinst install"), "{text}");
        assert!(!text.contains("more.preinst"), "{text}");
        assert!(!text.contains("configure base"), "{text}");
        assert!(text.contains("configure --pending\nexec 9"), "{text}");
    }

    #[test]
    fn base_is_configured_before_the_preinst_of_others() {
        let packages =
            [package("base", "Essential: yes\n", None), package("more", "", Some("#!/bin/sh\ntouch /x\n"))];
        let text = script(&packages, &[]);
        let position = |part: &str| text.find(part).unwrap_or_else(|| panic!("`{part}` in {text}"));
        assert!(position("configure base\n") < position("more.preinst"));
        let deferred = [Deferred { name: "diverts".to_owned(), path: PathBuf::from("/x") }];
        let text = script(&packages[..1], &deferred);
        assert!(text.contains("--unpack /run/ibid/packages/*.deb"), "{text}");
    }

    #[test]
    fn scripts_that_divert_are_known() {
        assert!(diverts(b"dpkg-divert --add /bin/x"));
        assert!(!diverts(b"true"));
        assert!(!diverts(b""));
    }

    #[test]
    fn status_lines_are_understood() {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        let text = "processing: configure: libc6:amd64\nprocessing: configure: libc6:amd64\nnoise\n\
                    status: bad : error : installed bad package post-installation script subprocess returned error exit status 7\n";
        std::io::Write::write_all(&mut std::fs::File::from(write), text.as_bytes()).expect("fits the pipe");
        let events = std::sync::Mutex::new(Vec::new());
        let failure = listen(read, 9, &|event| events.lock().expect("no panic").push(event));
        assert!(
            failure.expect("an error").starts_with("package bad: installed bad package post-installation")
        );
        assert_eq!(
            events.into_inner().expect("no panic"),
            [Event::Configuring { package: "libc6".to_owned(), packages: 0, total: 9 }]
        );
    }
}
