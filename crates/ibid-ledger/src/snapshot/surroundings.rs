//! What holds in a project from outside of it: the rules of its context, and the repository that it lies in.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ibid_core::dockerignore::{Ignore, Verdict};

use super::Exclusions;
use super::repository::{Level, Repository, ignore_file};

/// The rules of `.dockerignore`, about paths of the context.
pub(super) struct Docker<'a> {
    rules: &'a Ignore,
    /// The context in the project, with a `/` at its end; empty when it is the project or holds it.
    below: Vec<u8>,
    /// The project in the context, with a `/` at its end.
    above: Vec<u8>,
}

impl<'a> Docker<'a> {
    /// The rules, and what they say of the project itself.
    pub(super) fn new(root: &Path, exclusions: &'a Exclusions) -> (Self, Verdict) {
        let with_slash = |path: &Path| match path.as_os_str().as_bytes() {
            b"" => Vec::new(),
            path => [path, b"/"].concat(),
        };
        let context = exclusions.context.as_deref().unwrap_or(root);
        let (below, above) = match (context.strip_prefix(root), root.strip_prefix(context)) {
            (Ok(below), _) => (Some(with_slash(below)), Vec::new()),
            (_, Ok(above)) => (Some(Vec::new()), with_slash(above)),
            _ => (None, Vec::new()),
        };
        static NO_RULES: std::sync::LazyLock<Ignore> = std::sync::LazyLock::new(Ignore::default);
        let rules = if below.is_some() { &exclusions.dockerignore } else { &NO_RULES };
        let mut docker = Docker { rules, below: below.unwrap_or_default(), above };
        let mut verdict = Verdict::default();
        if let Some(folder) = docker.above.strip_suffix(b"/") {
            verdict = rules.verdict(folder);
            if verdict.ignored {
                // The project is no part of the context: what that leaves out says nothing about it.
                docker.rules = &NO_RULES;
                verdict = Verdict::default();
            }
        }
        (docker, verdict)
    }

    /// What they say of a path of the project, when what they say of its folder is given.
    pub(super) fn verdict(&self, parent: Verdict, path: &[u8]) -> Verdict {
        if self.rules.is_empty() {
            return parent;
        }
        match path.strip_prefix(self.below.as_slice()) {
            Some(path) if self.above.is_empty() => self.rules.verdict_below(parent, path),
            Some(path) => self.rules.verdict_below(parent, &[&self.above, path].concat()),
            None => parent,
        }
    }

    /// Whether they may keep something below a folder of the project.
    pub(super) fn may_descend(&self, verdict: Verdict, path: &[u8]) -> bool {
        match path.strip_prefix(self.below.as_slice()) {
            Some(path) => self.rules.may_descend(verdict, &[&self.above, path].concat()),
            None => true,
        }
    }
}

/// A path relative to the project, without `.` and `..`; none when it is the project itself or leaves it.
pub(super) fn clean(root: &Path, path: &Path) -> Option<Vec<u8>> {
    let mut cleaned: Vec<&[u8]> = Vec::new();
    let path = path.strip_prefix(root).unwrap_or(path);
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => cleaned.push(name.as_bytes()),
            std::path::Component::ParentDir => _ = cleaned.pop()?,
            std::path::Component::CurDir => {}
            _ => return None,
        }
    }
    (!cleaned.is_empty()).then(|| cleaned.join(&b'/'))
}

/// The project's path in the repository that it is in, that repository, and the rules from above the project. None when there is
/// no repository, or it ignores the project.
pub(super) fn surroundings(root: &Path) -> Option<(Vec<u8>, Option<Arc<Level>>, Repository)> {
    let (top, repository) = root.ancestors().find_map(|top| Some((top, Repository::open(top, 0)?)))?;
    let relative = root.strip_prefix(top).ok()?.as_os_str().as_bytes();
    let mut level = Level::below(None, 0, repository.exclude());
    if relative.is_empty() {
        return Some((Vec::new(), level, repository));
    }
    let mut folder = top.to_owned();
    let mut skip = 0;
    for name in relative.split(|byte| *byte == b'/') {
        level = Level::below(level, skip, ignore_file(&folder.join(".gitignore")));
        let end = skip + name.len();
        if Level::ignores(level.as_ref(), &relative[..end], true) {
            return None;
        }
        folder.push(OsStr::from_bytes(name));
        skip = end + 1;
    }
    Some(([relative, b"/"].concat(), level, repository))
}
