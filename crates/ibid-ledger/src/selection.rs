//! Which run a person means: the start of its name, a tag that it was given, or `last`.

use std::path::Path;

use crate::index::runs;
use crate::ledger::{Error, Ledger};
use crate::removed;
use crate::run_id::{RunId, UnresolvedRunId};
use crate::summary::{Summary, Texts};

/// The newest run.
pub const LAST: &str = "last";

/// The run that `text` means. A name goes before a tag. For `index` see [`runs`].
pub fn find(ledger: &Ledger, index: Option<&Path>, text: &str) -> Result<RunId, Error> {
    match ledger.resolve(text) {
        Err(Error::Unresolved(UnresolvedRunId::Invalid { .. } | UnresolvedRunId::None { .. })) => {}
        result => return result,
    }
    let mut texts = Texts::default();
    let runs = runs(ledger, index, &mut texts)?;
    if text == LAST {
        return Ok(runs.first().ok_or(UnresolvedRunId::Empty)?.id);
    }
    tagged(&runs, text)
}

/// The run that `text` means of those that were taken out of the ledger. A name goes before a tag.
pub fn find_removed(ledger: &Ledger, text: &str) -> Result<RunId, Error> {
    match RunId::resolve(text, removed::ids(ledger)?) {
        Err(UnresolvedRunId::Invalid { .. } | UnresolvedRunId::None { .. }) => {
            tagged(&removed::runs(ledger)?, text)
        }
        result => Ok(result?),
    }
}

fn tagged<S: AsRef<str>>(runs: &[Summary<S>], text: &str) -> Result<RunId, Error> {
    let is_tagged = |run: &&Summary<S>| run.tags.iter().any(|tag| tag.as_ref() == text);
    let mut tagged = runs.iter().filter(is_tagged).map(|run| run.id);
    match (tagged.next(), tagged.next()) {
        (Some(id), None) => Ok(id),
        (Some(first), Some(second)) => {
            Err(UnresolvedRunId::SeveralTagged { text: text.to_owned(), first, second }.into())
        }
        (None, _) => Err(UnresolvedRunId::Untagged { text: text.to_owned() }.into()),
    }
}
