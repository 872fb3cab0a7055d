//! What differs between the code of two runs, as `diff -u` writes it.

use std::path::PathBuf;
use std::time::Duration;

use ibid_core::digest::Digest;
use similar::TextDiff;

use crate::ledger::{Error, Ledger};
use crate::snapshot::{Change, Entry, How, Kind, compare, content, entries};

/// Larger files are compared by digest only.
const TEXT_BYTES_MAX: u64 = 2_000_000;
/// Lines around a change.
const CONTEXT_LINES: usize = 3;
/// After this time, a diff of one file is no longer the shortest.
const SEARCH_MAX: Duration = Duration::from_millis(500);

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff {
    /// Relative to the project.
    pub path: PathBuf,
    /// How it differs.
    pub how: How,
    /// Its lines; none for what has no lines.
    pub unified: Option<String>,
    /// What to say of it in a line of its own: another mode, target, or bytes that are no text.
    pub about: Option<String>,
}

/// Compares two snapshots.
pub fn code_diff(ledger: &Ledger, first: Digest, second: Digest) -> Result<Vec<FileDiff>, Error> {
    if first == second {
        return Ok(Vec::new());
    }
    let (a, b) = (entries(ledger, first)?, entries(ledger, second)?);
    compare(&a, &b).into_iter().map(|change| file_diff(ledger, change, &a, &b)).collect()
}

fn file_diff(ledger: &Ledger, change: Change, a: &[Entry], b: &[Entry]) -> Result<FileDiff, Error> {
    let Change { path, how } = change;
    let find = |entries: &[Entry]| {
        // As `entries` sorts them.
        let order = |entry: &Entry| entry.path.as_os_str().cmp(path.as_os_str());
        entries.binary_search_by(order).ok().map(|at| entries[at].kind.clone())
    };
    let (before, after) = (find(a), find(b));
    let is_text = |kind: &Option<Kind>| match kind {
        None => true,
        Some(Kind::File { bytes, .. }) => *bytes <= TEXT_BYTES_MAX,
        Some(_) => false,
    };
    let about = about(before.as_ref(), after.as_ref());
    if !is_text(&before) || !is_text(&after) {
        return Ok(FileDiff {
            path,
            how,
            unified: None,
            about: about.or_else(|| Some("differs".to_owned())),
        });
    }
    let read = |kind: &Option<Kind>| match kind {
        Some(Kind::File { digest, .. }) => content(ledger, *digest),
        _ => Ok(Vec::new()),
    };
    let (old, new) = (read(&before)?, read(&after)?);
    let (Some(old), Some(new)) = (as_text(&old), as_text(&new)) else {
        let sizes = format!("binary, {} bytes, then {} bytes", old.len(), new.len());
        return Ok(FileDiff { path, how, unified: None, about: Some(sizes) });
    };
    let name = |kind: &Option<Kind>, side: &str| match kind {
        Some(_) => format!("{side}/{}", path.display()),
        None => "/dev/null".to_owned(),
    };
    let unified = (old != new).then(|| {
        TextDiff::configure()
            .timeout(SEARCH_MAX)
            .diff_lines(old, new)
            .unified_diff()
            .context_radius(CONTEXT_LINES)
            .header(&name(&before, "a"), &name(&after, "b"))
            .to_string()
    });
    Ok(FileDiff { path, how, unified, about })
}

/// What differs besides the content.
fn about(before: Option<&Kind>, after: Option<&Kind>) -> Option<String> {
    let word = |kind: &Kind| match kind {
        Kind::File { executable: true, .. } => "an executable file".to_owned(),
        Kind::File { .. } => "a file".to_owned(),
        Kind::Link { target } => format!("a link to {}", target.to_string_lossy()),
        Kind::Folder => "a folder".to_owned(),
    };
    match (before.map(word), after.map(word)) {
        (Some(before), Some(after)) if before != after => Some(format!("{before}, then {after}")),
        (Some(only), None) | (None, Some(only)) if only != "a file" => Some(only),
        _ => None,
    }
}

/// None for what people would not read.
fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}
