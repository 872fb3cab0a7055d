//! Which run a person means: the start of its name, a tag that it was given, or `last`.

use std::path::Path;

use crate::index::runs;
use crate::ledger::{Error, Ledger};
use crate::removed;
use crate::run_id::{RunId, UnresolvedRunId};
use crate::summary::Summary;

/// The newest run.
pub const LAST: &str = "last";

/// The run that `text` means. A name goes before a tag. For `index` see [`runs`].
pub fn find(ledger: &Ledger, index: Option<&Path>, text: &str) -> Result<RunId, Error> {
    match ledger.resolve(text) {
        Err(Error::Unresolved(UnresolvedRunId::Invalid { .. } | UnresolvedRunId::None { .. })) => {}
        result => return result,
    }
    let runs = runs(ledger, index)?;
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

fn tagged(runs: &[Summary], text: &str) -> Result<RunId, Error> {
    let text = text.to_owned();
    let mut tagged = runs.iter().filter(|run| run.tags.contains(&text)).map(|run| run.id);
    match (tagged.next(), tagged.next()) {
        (Some(id), None) => Ok(id),
        (Some(first), Some(second)) => Err(UnresolvedRunId::SeveralTagged { text, first, second }.into()),
        (None, _) => Err(UnresolvedRunId::Untagged { text }.into()),
    }
}
