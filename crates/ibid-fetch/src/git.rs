//! Commits of git repositories, by the `git` program of this machine.
//!
//! The program is told everything and believes no configuration: not the machine's, not the person's, not a hook or a
//! filter. It asks nobody anything and speaks the protocols that `ADD` documents, and no other. Of the person it gets
//! what ssh and `.netrc` give to everyone: keys, known hosts, passwords for servers.

mod tidy;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ibid_core::proxy;
use ibid_core::remote::{GitSource, is_commit, without_credentials};

use crate::error::{Error, io_error};
use crate::network::Network;

/// How often it is looked whether the program has ended.
const PATIENCE: Duration = Duration::from_millis(20);
/// Most that is read of what it prints, bytes.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;
/// Last lines of its messages that an error shows.
const MESSAGE_LINES_MAX: usize = 10;

/// Settings for every call (git-config(1)). Transfers that stall for a minute end.
const SETTINGS: [&str; 16] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.eol=lf",
    "core.symlinks=true",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "init.templateDir=",
    "init.defaultBranch=main",
    "advice.detachedHead=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.recurseSubmodules=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
];

/// What a reference of a repository stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// All its digits.
    pub id: String,
    /// The tag that led to it, without `refs/tags/`.
    pub tag: Option<String>,
}

/// The program, and how it reaches others.
pub struct Git<'a> {
    network: &'a Network,
    /// Whether to give up.
    is_cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// One call of the program.
struct Call<'a> {
    /// The repository, where there is one.
    repository: Option<&'a Path>,
    /// The folder of its files, where they are concerned.
    files: Option<&'a Path>,
    arguments: Vec<&'a OsStr>,
}

/// Why a call failed.
enum Failure {
    /// The program said why.
    Said(String),
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl<'a> Git<'a> {
    /// Ends what it does soon after `is_cancelled` says so.
    pub fn new(network: &'a Network, is_cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { network, is_cancelled }
    }

    /// The commit that a repository has under a source's reference now. A commit's digits stand for themselves.
    pub fn resolve(&self, source: &GitSource) -> Result<Commit, Error> {
        let reference = match &source.reference {
            Some(commit) if is_commit(commit) => return Ok(Commit { id: commit.clone(), tag: None }),
            Some(reference) => reference.as_str(),
            None => "HEAD",
        };
        let peeled = format!("{reference}^{{}}");
        let call = Call::of(&["ls-remote", "--", &source.remote, reference, &peeled]);
        let listed = self.call(&call).map_err(|failure| failure.of(source))?;
        let listed: Vec<(&str, &str)> =
            listed.lines().filter_map(|line| line.split_once('\t')).filter(|(id, _)| is_commit(id)).collect();
        let find = |name: &str| listed.iter().find(|(_, listed)| *listed == name).map(|(id, _)| *id);
        if source.reference.is_none() {
            let id = find("HEAD").ok_or_else(|| Error::NoReference {
                remote: without_credentials(&source.remote),
                reference: "HEAD".to_owned(),
            })?;
            return Ok(Commit { id: id.to_owned(), tag: None });
        }
        // As git checkout and BuildKit choose: the whole name, a branch, a tag. A tag with a message of its own is an
        // object that names the commit.
        let whole = format!("refs/{}", reference.strip_prefix("refs/").unwrap_or(reference));
        let branch = format!("refs/heads/{}", reference.strip_prefix("refs/heads/").unwrap_or(reference));
        let tag = format!("refs/tags/{}", reference.strip_prefix("refs/tags/").unwrap_or(reference));
        for name in [&whole, &branch, &tag] {
            if let Some(id) = find(&format!("{name}^{{}}")).or_else(|| find(name)) {
                let tag = name.strip_prefix("refs/tags/").map(str::to_owned);
                return Ok(Commit { id: id.to_owned(), tag });
            }
        }
        Err(Error::NoReference {
            remote: without_credentials(&source.remote),
            reference: reference.to_owned(),
        })
    }

    /// Writes the files of a commit into the empty folder `into`, in `work` what is needed meanwhile. Contents and names
    /// depend on the commit alone; with `.git`, on the source and on the version of git too.
    pub fn checkout(
        &self,
        source: &GitSource,
        commit: &Commit,
        work: &Path,
        into: &Path,
    ) -> Result<(), Error> {
        let repository = if source.keep_git_dir { into.join(".git") } else { work.join("repository") };
        self.fetch(source, &commit.id, &repository).map_err(|failure| failure.of(source))?;
        let commit_object = format!("{}^{{commit}}", commit.id);
        let call = Call::of(&["checkout", "--quiet", "--force", "--detach", &commit_object]);
        self.call(&call.on(&repository, into)).map_err(|failure| failure.of(source))?;
        if source.submodules && into.join(".gitmodules").is_file() {
            self.submodules(&repository, into).map_err(|failure| failure.of(source))?;
        }
        if source.keep_git_dir {
            self.tidy(&repository, commit).map_err(|failure| failure.of(source))
        } else {
            tidy::remove_git_files(into)
        }
    }

    /// Makes a repository that has the commit.
    fn fetch(&self, source: &GitSource, commit: &str, repository: &Path) -> Result<(), Failure> {
        let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        std::fs::create_dir_all(repository).map_err(io_error(repository))?;
        self.call(&Call::of(&["init", "--quiet", format]).in_repository(repository))?;
        self.call(&Call::of(&["config", "remote.origin.url", &source.remote]).in_repository(repository))?;
        let shallow = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", "origin", commit];
        let Err(refused) = self.call(&Call::of(&shallow).in_repository(repository)) else { return Ok(()) };
        let Failure::Said(reason) = refused else { return Err(refused) };
        // Not every server gives a commit by its digits, or a part of a history.
        let all = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--",
            "origin",
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/tags/*:refs/remotes/tags/*",
        ];
        self.call(&Call::of(&all).in_repository(repository))?;
        let object = format!("{commit}^{{commit}}");
        match self.call(&Call::of(&["cat-file", "-e", &object]).in_repository(repository)) {
            Ok(_) => Ok(()),
            Err(Failure::Said(_)) => Err(Failure::Said(reason)),
            Err(other) => Err(other),
        }
    }

    fn submodules(&self, repository: &Path, files: &Path) -> Result<(), Failure> {
        let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
        let shallow = [&update[..], &["--depth=1"]].concat();
        match self.call(&Call::of(&shallow).on(repository, files)) {
            Ok(_) => Ok(()),
            // As above.
            Err(Failure::Said(_)) => self.call(&Call::of(&update).on(repository, files)).map(drop),
            Err(other) => Err(other),
        }
    }

    /// What the program prints.
    fn call(&self, call: &Call) -> Result<String, Failure> {
        let temporary = || tempfile::tempfile().map_err(io_error(&std::env::temp_dir()));
        // In files: nobody has to read them while it runs.
        let (mut output, mut messages) = (temporary()?, temporary()?);
        let handle =
            |file: &std::fs::File| file.try_clone().map(Stdio::from).map_err(io_error(&std::env::temp_dir()));
        let mut command = Command::new("git");
        command.env_clear().envs(self.network.for_git());
        if let Some(repository) = call.repository {
            command.env("GIT_DIR", repository).current_dir(repository);
        }
        if let Some(files) = call.files {
            command.env("GIT_WORK_TREE", files).current_dir(files);
        }
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(&call.arguments);
        command.stdin(Stdio::null()).stdout(handle(&output)?).stderr(handle(&messages)?);
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NoGit,
            _ => io_error(Path::new("git"))(error),
        })?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io_error(Path::new("git")))? {
                break status;
            }
            if (self.is_cancelled)() {
                // What has ended meanwhile cannot be killed, and need not.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::Other(Error::Cancelled));
            }
            std::thread::sleep(PATIENCE);
        };
        if status.success() {
            return Ok(read(&mut output)?);
        }
        let messages = read(&mut messages)?;
        let lines: Vec<&str> = messages.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(MESSAGE_LINES_MAX)..].join("\n");
        Err(Failure::Said(if last.is_empty() { format!("git ended with {status}") } else { last }))
    }
}

fn read(file: &mut std::fs::File) -> Result<String, Error> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(io_error(&std::env::temp_dir()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl<'a> Call<'a> {
    fn of(arguments: &[&'a str]) -> Self {
        Self {
            repository: None,
            files: None,
            arguments: arguments.iter().map(|&word| OsStr::new(word)).collect(),
        }
    }

    fn in_repository(self, repository: &'a Path) -> Self {
        Self { repository: Some(repository), ..self }
    }

    fn on(self, repository: &'a Path, files: &'a Path) -> Self {
        Self { repository: Some(repository), files: Some(files), ..self }
    }
}

impl Failure {
    fn of(self, source: &GitSource) -> Error {
        match self {
            Self::Other(error) => error,
            Self::Said(message) => {
                let remote = without_credentials(&source.remote);
                // Git repeats what it was given, or a part of it.
                let authority = source.remote.split_once("://").and_then(|(_, rest)| rest.split('/').next());
                let message =
                    match authority.and_then(|authority| authority.rfind('@').map(|at| &authority[..=at])) {
                        Some(credentials) => message.replace(credentials, ""),
                        None => message,
                    };
                Error::Git { remote, message }
            }
        }
    }
}

impl Network {
    /// The whole environment of the program.
    fn for_git(&self) -> Vec<(OsString, OsString)> {
        const PASSED_ON: [&str; 5] = ["PATH", "HOME", "SSH_AUTH_SOCK", "TMPDIR", "SSL_CERT_FILE"];
        let passed_on = PASSED_ON.iter().chain(&proxy::VARIABLES);
        let mut environment: Vec<(OsString, OsString)> =
            passed_on.filter_map(|name| Some(((*name).into(), self.variable(name)?.into()))).collect();
        let bundle: Option<PathBuf> = self.certificate_bundle();
        environment.extend(bundle.map(|bundle| ("GIT_SSL_CAINFO".into(), bundle.into())));
        let fixed = [
            ("LC_ALL", "C.UTF-8"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", "http:https:git:ssh"),
            ("GIT_ADVICE", "0"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=15 -oServerAliveInterval=20"),
        ];
        environment.extend(fixed.map(|(name, value)| (name.into(), value.into())));
        environment
    }
}

#[cfg(test)]
mod tests;
