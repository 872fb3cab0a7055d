//! What a build does with the lock: takes what it says and adds what it lacks, or insists on it, or looks anew.

use std::collections::BTreeSet;

use ibid_build::remote::Remotes;
use ibid_core::plan::{CopySource, Plan};
use ibid_core::remote::GitSource;

use crate::lock::LOCK_FILE;
use crate::report::Failure;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LockMode {
    /// Takes what it says, and adds what it lacks.
    #[default]
    Keep,
    /// Takes what it says, fails when it lacks something, and never writes it.
    Locked,
    /// Looks anew for one name, or for all.
    Update(Option<String>),
}

impl LockMode {
    /// Whether what the lock says of a name does not count.
    pub fn updates(&self, name: &str) -> bool {
        match self {
            Self::Keep | Self::Locked => false,
            Self::Update(wanted) => wanted.as_ref().is_none_or(|wanted| wanted == name),
        }
    }
}

/// How to look anew for a name, for a hint.
pub fn update_command(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if name.chars().all(is_plain) {
        format!("`ibid build --update {name}`")
    } else {
        format!("`ibid build --update '{}'`", name.replace('\'', r"'\''"))
    }
}

/// What the lock lacks of what a plan fetches.
pub fn lacking(remotes: &Remotes, plan: &Plan) -> Vec<String> {
    let unknown = plan.remotes().filter(|(source, _)| !remotes.is_known(source));
    let what = unknown.map(|(source, _)| {
        let name = source.name().unwrap_or_default();
        match source {
            CopySource::Git(GitSource { checksum: Some(checksum), .. }) => {
                format!("the commit {checksum} of {name}")
            }
            CopySource::Git(_) => format!("the commit of {name}"),
            _ => format!("the content of {name}"),
        }
    });
    what.collect()
}

/// Ends a build that lacks something.
pub fn refuse_unlocked(lacking: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let lacking: Vec<String> = lacking.into_iter().collect::<BTreeSet<String>>().into_iter().collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("--locked: {LOCK_FILE} lacks {}", lacking.join(", ")))
        .hint(format!("`ibid build` adds it; keep {LOCK_FILE} with the project")))
}

/// Refuses a name that the build has nothing for.
pub fn check_update<'a>(
    mode: &LockMode,
    plan: &Plan,
    bases: impl Iterator<Item = &'a String>,
) -> Result<(), Failure> {
    let LockMode::Update(Some(wanted)) = mode else { return Ok(()) };
    let fetched = plan.remotes().filter_map(|(source, _)| source.name());
    let known: BTreeSet<String> = bases.cloned().chain(fetched).collect();
    if known.contains(wanted) {
        return Ok(());
    }
    let failure = Failure::new(format!("--update: the build has no base and no URL `{wanted}`"));
    if wanted.starts_with(['.', '/']) {
        return Err(failure.hint(format!("for a folder, name it first: `ibid build {wanted} --update`")));
    }
    Err(match known.len() {
        0 => failure.hint("it starts from nothing and fetches nothing"),
        _ => failure.hint(format!("it has {}", known.into_iter().collect::<Vec<_>>().join(", "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_can_be_pasted_into_a_shell() {
        let check = |name: &str, expected: &str| assert_eq!(update_command(name), expected);
        check("debian:12", "`ibid build --update debian:12`");
        check("https://host/x?a&b", "`ibid build --update 'https://host/x?a&b'`");
        check("https://host/it's", r"`ibid build --update 'https://host/it'\''s'`");
        check("https://host/x.git#main", "`ibid build --update 'https://host/x.git#main'`");
    }
}
