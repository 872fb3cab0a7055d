//! What people add to a run later: names and notes. The record itself stays as it was written.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::ledger::{Error, Ledger, io, read_json, write_json};
use crate::run_id::RunId;

/// The file in a run's folder.
const FILE: &str = "marks.json";
const NAME_BYTES_MAX: usize = 100;

/// Names and notes of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Names, sorted. Several runs may have the same.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Notes, oldest first.
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// What somebody noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When, as in records.
    pub time: String,
    /// What.
    pub text: String,
}

/// Text that is no name for a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTag {
    /// It has other characters, or is too long.
    #[error(
        "`{text}` is no name for a run: expected up to {NAME_BYTES_MAX} letters, digits, `.`, `_`, `-` and `/`, with a letter or digit in front"
    )]
    Characters {
        /// What was given.
        text: String,
    },
    /// It would mean another run some day.
    #[error("`{text}` is no name for a run: it could be the start of a run's id")]
    LikeId {
        /// What was given.
        text: String,
    },
    /// It means the newest run.
    #[error("`last` is no name for a run: it always means the newest")]
    Last,
}

/// Checks the name that somebody wants to give.
pub fn check_tag(text: &str) -> Result<(), InvalidTag> {
    let owned = || text.to_owned();
    let is_fine = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    if text.len() > NAME_BYTES_MAX || !text.starts_with(char::is_alphanumeric) || !text.chars().all(is_fine) {
        return Err(InvalidTag::Characters { text: owned() });
    }
    if text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(InvalidTag::LikeId { text: owned() });
    }
    if text == "last" { Err(InvalidTag::Last) } else { Ok(()) }
}

impl Marks {
    /// The marks in a run's folder; none at all are no marks.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        match read_json(&folder.join(FILE)) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Self::default()),
            result => result,
        }
    }

    /// Adds a name; false when the run has it already.
    pub fn add_tag(&mut self, name: &str) -> bool {
        match self.tags.binary_search_by(|tag| tag.as_str().cmp(name)) {
            Ok(_) => false,
            Err(position) => {
                self.tags.insert(position, name.to_owned());
                true
            }
        }
    }

    /// Takes a name away; false when the run does not have it.
    pub fn remove_tag(&mut self, name: &str) -> bool {
        let before = self.tags.len();
        self.tags.retain(|tag| tag != name);
        self.tags.len() < before
    }
}

/// Changes the marks of a run. Of two processes that do so at once, one waits for the other.
pub fn change<T>(ledger: &Ledger, id: RunId, change: impl FnOnce(&mut Marks) -> T) -> Result<T, Error> {
    let folder = ledger.run_folder(id);
    let lock = fs::File::open(&folder).map_err(io("open", &folder))?;
    // Some network file systems have no locks: there, of two changes in the same instant one can be lost.
    let _ = flock(&lock, FlockOperation::LockExclusive);
    let mut marks = Marks::read(&folder)?;
    let before = marks.clone();
    let result = change(&mut marks);
    if marks != before {
        let path = folder.join(FILE);
        write_json(&path, &marks)?;
        ledger.give(&path)?;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_taken_for_ids() {
        let check = |text: &str, is_fine: bool| assert_eq!(check_tag(text).is_ok(), is_fine, "{text}");
        check("baseline", true);
        check("paper/table-2", true);
        check("größe", true);
        check("3eda7e8f38270", true);
        check("", false);
        check("last", false);
        check("beef", false);
        check("BEEF", false);
        check("-x", false);
        check("a b", false);
        check("a\u{1b}", false);
        check(&"x".repeat(101), false);
    }

    #[test]
    fn changes_at_once_are_all_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::of(folder.path());
        let id = RunId::from_bytes([7; 6]);
        fs::create_dir_all(ledger.run_folder(id)).expect("a folder");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let ledger = &ledger;
                scope.spawn(move || {
                    assert!(
                        change(ledger, id, |marks| marks.add_tag(&format!("t{number}"))).expect("changed")
                    );
                });
            }
        });
        let marks = Marks::read(&ledger.run_folder(id)).expect("readable");
        assert_eq!(marks.tags, ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"]);
        assert!(change(&ledger, id, |marks| marks.remove_tag("t3")).expect("changed"));
        assert!(!change(&ledger, id, |marks| marks.remove_tag("t3")).expect("changed"));
    }
}
