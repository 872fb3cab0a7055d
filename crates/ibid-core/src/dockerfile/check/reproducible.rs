//! Rules about what a step brings in that may be something else next time.

use super::super::instruction::{CommandLine, RunWords};
use super::super::words;
use super::Report;
use super::rule::Rule;
use super::shell::{self, Command};
use super::variables::Scope;
use super::written::Written;
use crate::remote::GitSource;

/// Packages that a message names.
const NAMED_MAX: usize = 4;

pub(super) fn run(at: &Written, run: &RunWords, scope: &Scope, report: &mut Report) {
    let commands = commands(run);
    for command in &commands {
        let (program, arguments) = command.program();
        apt(at, program, arguments, report);
        pip(at, command, scope, report);
        conda(at, program, arguments, report);
        nondeterministic(at, command, report);
    }
    downloads(at, &commands, report);
    git(at, &commands, report);
}

/// The commands of a `RUN`.
fn commands(run: &RunWords) -> Vec<Command> {
    match (&run.command, run.heredocs.as_slice()) {
        (CommandLine::Shell(text), [heredoc, ..]) if words::heredoc(text).is_some() => {
            let script = heredoc.text();
            let interpreter = script.lines().next().and_then(|line| line.strip_prefix("#!"));
            let interpreter = interpreter.map(shell::commands);
            let program =
                interpreter.as_ref().and_then(|commands| commands.first()).map(|command| command.program().0);
            if program.is_none_or(shell::is_shell) { shell::commands(&script) } else { Vec::new() }
        }
        (CommandLine::Shell(text), _) => shell::commands(text),
        (CommandLine::Exec(argv), _) => {
            let mut found = vec![Command { words: argv.clone(), ..Command::default() }];
            if let [program, .., text] = argv.as_slice()
                && shell::is_shell(program.rsplit('/').next().unwrap_or(program))
            {
                found.extend(shell::commands(text));
            }
            found
        }
    }
}

/// Arguments that are no options. `with_value` are the options whose value is the next argument.
fn operands<'a>(arguments: &'a [String], with_value: &[&str]) -> Vec<&'a str> {
    let mut operands = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if with_value.contains(&argument.as_str()) {
            rest.next();
        } else if !argument.starts_with('-') {
            operands.push(argument.as_str());
        }
    }
    operands
}

/// `a, b and 3 more`.
fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMED_MAX)].join("`, `");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => format!("`{shown}`"),
        more => format!("`{shown}` and {more} more"),
    }
}

fn apt(at: &Written, program: &str, arguments: &[String], report: &mut Report) {
    const WITH_VALUE: [&str; 7] =
        ["-o", "--option", "-c", "--config-file", "-t", "--target-release", "--default-release"];
    if !matches!(program, "apt-get" | "apt" | "aptitude") {
        return;
    }
    let operands = operands(arguments, &WITH_VALUE);
    match operands.as_slice() {
        ["install", packages @ ..] => {
            let is_known = |package: &str| {
                let is_file = package.starts_with(['/', '.']) || package.ends_with(".deb");
                // What a variable holds is not known, and what ends with `-` is removed.
                package.contains(['=', '$', '<']) || is_file || package.ends_with('-')
            };
            let open: Vec<&str> = packages.iter().copied().filter(|package| !is_known(package)).collect();
            if !open.is_empty() {
                report.add(
                    Rule::UnpinnedAptPackages,
                    at,
                    format!("`{program} install` takes whatever version is newest of {}", listed(&open)),
                    "list them as `packages` of the base in ibid.toml, where ibid.lock pins them, or write \
                     `package=version`",
                );
            }
        }
        ["upgrade" | "dist-upgrade" | "full-upgrade" | "safe-upgrade", ..] => report.add(
            Rule::AptUpgrade,
            at,
            format!("`{program} {}` changes the base image to what is newest today", operands[0]),
            "remove it, and take a newer base image when one is wanted (`ibid build --update`)",
        ),
        _ => {}
    }
}

fn pip(at: &Written, command: &Command, scope: &Scope, report: &mut Report) {
    const WITH_VALUE: [&str; 16] = [
        "-r",
        "--requirement",
        "-c",
        "--constraint",
        "-e",
        "--editable",
        "-t",
        "--target",
        "-i",
        "--index-url",
        "--extra-index-url",
        "-f",
        "--find-links",
        "--prefix",
        "--root",
        "--python",
    ];
    let (program, arguments) = command.program();
    let arguments = match arguments {
        [module, pip, rest @ ..] if program.starts_with("python") && module == "-m" && pip == "pip" => rest,
        [pip, rest @ ..] if program == "uv" && pip == "pip" => rest,
        arguments
            if program.starts_with("pip") && program[3..].chars().all(|c| c.is_ascii_digit() || c == '.') =>
        {
            arguments
        }
        _ => return,
    };
    let Some(install) = arguments.iter().position(|word| word == "install") else { return };
    let arguments = &arguments[install + 1..];
    let has = |names: &[&str]| {
        arguments.iter().any(|word| {
            names
                .iter()
                .any(|name| word == name || word.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
        })
    };
    if has(&["-t", "--target"]) && !has(&["--no-compile"]) {
        report.add(
            Rule::PipTarget,
            at,
            "`pip install --target` compiles in a temporary folder, whose name ends in the files",
            "add `--no-compile`, or install into a virtual environment",
        );
    }
    let sets = |name: &str| {
        let assigned = command.assignments.iter().any(|word| word.split('=').next() == Some(name));
        assigned || scope.values.get(name).is_some_and(|value| !value.is_empty())
    };
    if has(&["--require-hashes", "--no-index"]) || sets("PIP_REQUIRE_HASHES") || sets("PIP_NO_INDEX") {
        return;
    }
    let packages = operands(arguments, &WITH_VALUE);
    let is_local = |package: &&str| package.starts_with(['.', '/']) || package.ends_with(".whl");
    let only_local = !has(&["-r", "--requirement"]) && packages.iter().all(is_local);
    let has_something = !packages.is_empty() || has(&["-r", "--requirement", "-e", "--editable"]);
    if !has_something || (has(&["--no-deps"]) && only_local) {
        return;
    }
    report.add(
        Rule::UnhashedPipPackages,
        at,
        "`pip install` checks no hashes",
        "write the versions and hashes of all packages to a file, as `pip-compile --generate-hashes` does, and \
         install it with `pip install --require-hashes -r FILE`",
    );
}

fn conda(at: &Written, program: &str, arguments: &[String], report: &mut Report) {
    const WITH_VALUE: [&str; 10] =
        ["-n", "--name", "-p", "--prefix", "-c", "--channel", "-f", "--file", "--solver", "--repodata-fn"];
    if !matches!(program, "conda" | "mamba" | "micromamba") {
        return;
    }
    let operands = operands(arguments, &WITH_VALUE);
    let ["install" | "create", packages @ ..] = operands.as_slice() else { return };
    let is_open = |package: &&str| !package.contains(['=', '$', '<', '>', '/']);
    let open: Vec<&str> = packages.iter().copied().filter(is_open).collect();
    if !open.is_empty() {
        report.add(
            Rule::UnpinnedCondaPackages,
            at,
            format!("`{program}` takes whatever version is newest of {}", listed(&open)),
            "install from a list with exact builds: `conda list --explicit --md5 > FILE`, then `conda create --file FILE`",
        );
    }
}

/// Commands that give something else each time.
fn nondeterministic(at: &Written, command: &Command, report: &mut Report) {
    let (program, arguments) = command.program();
    let has =
        |starts: &[&str]| arguments.iter().any(|word| starts.iter().any(|start| word.starts_with(start)));
    let words = || command.words.iter().chain(&command.assignments);
    let found = match program {
        "date" if !has(&["-d", "--date", "-r", "--reference", "-f", "--file", "--help", "--version"]) => {
            Some((
                "`date` prints the time of the build",
                "print `$SOURCE_DATE_EPOCH`: `date --utc --date=@$SOURCE_DATE_EPOCH`",
            ))
        }
        "uuidgen" if !has(&["-n", "--namespace", "-m", "--md5", "-s", "--sha1"]) => Some((
            "`uuidgen` makes a new name each time",
            "make it when the container starts, or write it down",
        )),
        "ssh-keygen" if !has(&["-l", "-y", "-e", "-i", "-F", "-R", "-H"]) => Some((
            "`ssh-keygen` makes a new key each time, and everyone who has the image has the key",
            "make the key when the container starts",
        )),
        "shuf" if !has(&["--random-source"]) => {
            Some(("`shuf` shuffles otherwise each time", "give it `--random-source=FILE`"))
        }
        _ if words().any(|word| word.contains("$RANDOM") || word.contains("${RANDOM}")) => {
            Some(("`$RANDOM` is another number each time", "write a number down"))
        }
        _ if words().any(|word| {
            ["/dev/urandom", "/dev/random", "/proc/sys/kernel/random/"].iter().any(|file| word.contains(file))
        }) =>
        {
            Some((
                "random bytes are others each time",
                "make them when the container starts, or write them down",
            ))
        }
        _ => None,
    };
    if let Some((message, fix)) = found {
        report.add(Rule::NondeterministicCommand, at, message, fix);
    }
}

/// What `RUN` fetches: executed as it comes, or kept without a look at it.
fn downloads(at: &Written, commands: &[Command], report: &mut Report) {
    const VERIFIERS: [&str; 15] = [
        "sha1sum",
        "sha224sum",
        "sha256sum",
        "sha384sum",
        "sha512sum",
        "b2sum",
        "b3sum",
        "shasum",
        "gpg",
        "gpg2",
        "gpgv",
        "cosign",
        "minisign",
        "signify",
        "openssl",
    ];
    let fetches: Vec<usize> = (0..commands.len()).filter(|number| fetches(&commands[*number])).collect();
    let Some(first) = fetches.first() else { return };
    let executed = commands.iter().position(|command| {
        let mut from = command.reads.filter(|_| reads_code(command));
        while let Some(number) = from {
            if fetches.contains(&number) {
                return true;
            }
            from = commands[number].reads;
        }
        false
    });
    let substituted = || {
        fetches.iter().find_map(|number| {
            let outer = commands[*number].inside?;
            let (program, _) = commands[outer].program();
            (shell::is_shell(program) || matches!(program, "eval" | "source" | ".")).then_some(outer)
        })
    };
    let name = |number: usize| commands[number].program().0;
    if let Some(reader) = executed.or_else(substituted) {
        report.add(
            Rule::PipeToShell,
            at,
            format!("`{}` executes what `{}` fetches", name(reader), name(*first)),
            "fetch it with `ADD --checksum=sha256:… URL FILE`, then run the file",
        );
    } else if !commands.iter().any(|command| VERIFIERS.contains(&command.program().0)) {
        report.add(
            Rule::UnverifiedDownload,
            at,
            format!("nothing checks what `{}` fetches", name(*first)),
            "fetch it with `ADD --checksum=sha256:… URL FILE`, or check it in the same `RUN`: \
             `echo \"DIGEST  FILE\" | sha256sum --check`",
        );
    }
}

/// Whether a command fetches something from elsewhere.
fn fetches(command: &Command) -> bool {
    let (program, arguments) = command.program();
    let only_looks = || {
        let looks = |word: &String| {
            let is_head =
                program == "curl" && !word.starts_with("--") && word.starts_with('-') && word.contains('I');
            is_head || matches!(word.as_str(), "--head" | "--version" | "--help" | "--spider")
        };
        arguments.iter().any(looks)
    };
    let is_elsewhere = |word: &String| {
        (word.contains("://") || word.contains('$') || word.contains('.'))
            && !["localhost", "127.0.0.1", "file://"].iter().any(|here| word.contains(here))
    };
    matches!(program, "curl" | "wget" | "aria2c" | "http")
        && arguments.iter().any(is_elsewhere)
        && !only_looks()
}

/// Whether a program takes what it reads for a program.
fn reads_code(command: &Command) -> bool {
    let (program, arguments) = command.program();
    let interprets = ["python", "perl", "ruby", "node", "php"].iter().any(|name| program.starts_with(name));
    if !shell::is_shell(program) && !interprets {
        return false;
    }
    let has_text = |word: &String| {
        word.starts_with('-')
            && !word.starts_with("--")
            && (word.contains('c') || word.contains('e'))
            && interprets
            || (word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'))
    };
    if arguments.iter().any(has_text) {
        return false;
    }
    let reads_anyway = arguments.iter().any(|word| matches!(word.as_str(), "-s" | "-" | "/dev/stdin"));
    reads_anyway || arguments.iter().all(|word| word.starts_with('-'))
}

fn git(at: &Written, commands: &[Command], report: &mut Report) {
    let is_commit = |word: &str| word.contains('$') || is_commit(word);
    let arguments_of = |command: &Command| {
        let (program, arguments) = command.program();
        let operands = operands(arguments, &["-C", "-c"]);
        (program == "git").then(|| operands.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>())
    };
    let takes_commit = |command: &Command| match arguments_of(command).as_deref() {
        Some([verb, rest @ ..]) if matches!(verb.as_str(), "checkout" | "reset" | "switch" | "fetch") => {
            rest.iter().any(|word| is_commit(word))
        }
        _ => false,
    };
    for command in commands {
        let Some(arguments) = arguments_of(command) else { continue };
        let [verb, rest @ ..] = arguments.as_slice() else { continue };
        let names_revision = || {
            let given = command.words.iter().find_map(|word| word.strip_prefix("--revision="));
            given.is_some_and(is_commit)
        };
        let is_local = || !rest.iter().any(|word| word.contains([':', '$']));
        if verb == "clone" && !is_local() && !names_revision() && !commands.iter().any(takes_commit) {
            report.add(
                Rule::UnpinnedGitSource,
                at,
                "`git clone` takes whatever the branch points to today",
                "check out a commit in the same `RUN`: `git checkout COMMIT`, by its full name",
            );
            return;
        }
    }
}

/// A source that `ADD` fetches and no lock pins, as it is written.
pub(super) fn remote(at: &Written, source: &str, report: &mut Report) {
    let is_pinned = |git: &GitSource| {
        let reference = git.reference.as_deref();
        git.checksum.is_some()
            || reference.is_some_and(|reference| is_commit(reference) || reference.contains('$'))
    };
    let location = source.split('#').next().unwrap_or(source);
    match GitSource::parse(source) {
        _ if at.flags.iter().any(|flag| flag.starts_with("checksum=")) => {}
        Ok(Some(git)) if !is_pinned(&git) => report.add(
            Rule::UnpinnedGitSource,
            at,
            format!("`{source}` names no commit"),
            format!(
                "write `{location}#COMMIT`, by its full name, or keep the ibid.lock that the next build writes"
            ),
        ),
        Ok(None) => report.add(
            Rule::UnverifiedDownload,
            at,
            format!("nothing checks what `{source}` is"),
            format!(
                "write `ADD --checksum=sha256:… {source} …`, or keep the ibid.lock that the next build writes"
            ),
        ),
        // What is no sound source is an error when it is built.
        Ok(Some(_)) | Err(_) => {}
    }
}

/// The full name of a commit, by SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
