//! Other code than the recorded one: that of a commit, or of the working tree.

use std::process::{Command, Stdio};

use ibid_ledger::assembly::{AssemblyError, Misplaced, assemble};
use ibid_ledger::code;
use ibid_ledger::ledger::Error;
use ibid_ledger::record::{Code, CodeMode};
use ibid_ledger::snapshot;
use ibid_store::{PlainArchive, PlainKind};

use super::source::Source;
use crate::commands::run::exclusions;
use crate::project::Project;
use crate::report::Failure;

/// What `--code` says when it is no commit.
const WORKING_TREE: &str = "worktree";

/// The code that `--code` asks for, as a snapshot in the ledger.
pub fn asked(source: &Source, text: &str) -> Result<Code, Failure> {
    let Some(project) = &source.project else {
        return Err(Failure::new("`--code` needs the project, and this run is from elsewhere"));
    };
    if source.record.code.mode == CodeMode::Pegged {
        return Err(Failure::new(format!("the run {} was on the image's own code", source.record.id))
            .hint("`--image IMAGE` repeats it on another image, and its code"));
    }
    let mut code = source.record.code.clone();
    code.changed_during_run.clear();
    code.differing.clear();
    code.difference = None;
    if text.eq_ignore_ascii_case(WORKING_TREE) {
        let exclusions = exclusions(project, &[&project.data[..], &project.outputs].concat())?;
        let taken = snapshot::take(&source.ledger, &project.root, &exclusions);
        let mut taken = taken.map_err(|error| Failure::of(&error))?;
        taken.settle().map_err(|error| Failure::of(&error))?;
        code.snapshot = Some(taken.digest);
        code.left_out.clone_from(&taken.left_out);
        return Ok(code);
    }
    code.left_out.clear();
    code.commit = Some(commit(project, text)?);
    code.branch = None;
    code.snapshot = Some(of_commit(source, project, text)?);
    Ok(code)
}

/// The commit that a name means.
fn commit(project: &Project, text: &str) -> Result<String, Failure> {
    let unknown = |why: &str| {
        Failure::new(format!("`--code {text}`: {why}"))
            .hint(format!("expected what git takes for a commit, such as HEAD, or `{WORKING_TREE}`"))
    };
    if text.starts_with('-') {
        return Err(unknown("it is no commit"));
    }
    let output = git(project)?
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{text}^{{commit}}")])
        .output()
        .map_err(|error| Failure::of(&error).while_doing("cannot ask git"))?;
    if !output.status.success() {
        return Err(unknown("git knows no such commit in this project"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The files of the project's folder in a commit.
fn of_commit(source: &Source, project: &Project, text: &str) -> Result<ibid_core::digest::Digest, Failure> {
    let cannot = |error: &dyn std::error::Error| {
        Failure::of(error).while_doing(format!("cannot get the code of {text} from git"))
    };
    let commit = commit(project, text)?;
    let mut child = git(project)?
        .args(["archive", "--format=tar", &commit, "."])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| cannot(&error))?;
    let tar = child.stdout.take().expect("a pipe");
    let filled = assemble(&source.ledger, |assembly| -> Result<(), FromGit> {
        let mut archive = PlainArchive::new(tar)?;
        while let Some(entry) = archive.next()? {
            match &entry.kind {
                PlainKind::File { executable, .. } => {
                    assembly.add_file(&entry.path, *executable, &mut archive)?.map_err(FromGit::Misplaced)?;
                }
                PlainKind::Link { target } => {
                    assembly.add_link(&entry.path, target).map_err(FromGit::Misplaced)?;
                }
                // Git knows no empty folders; one that is named is a submodule's.
                PlainKind::Folder => assembly.add_folder(&entry.path).map_err(FromGit::Misplaced)?,
            }
        }
        Ok(())
    });
    let status = child.wait().map_err(|error| cannot(&error))?;
    let digest = filled.map_err(|error| cannot(&error))?;
    if !status.success() {
        return Err(Failure::new(format!("cannot get the code of {text} from git")));
    }
    Ok(digest)
}

/// Why what git hands out is no snapshot.
#[derive(Debug, thiserror::Error)]
enum FromGit {
    #[error(transparent)]
    Ledger(#[from] Error),
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    #[error(transparent)]
    Archive(#[from] ibid_store::Error),
    #[error("{}", .0.0)]
    Misplaced(Misplaced),
}

/// Git, as the one whose repository it is.
fn git(project: &Project) -> Result<Command, Failure> {
    let top = project.root.ancestors().find(|folder| folder.join(".git").exists());
    let top = top.ok_or_else(|| {
        Failure::new("`--code` takes commits from git, and the project is in no git repository")
    })?;
    code::git(&project.root, top).map_err(|error| Failure::of(&error).while_doing("cannot start git"))
}
