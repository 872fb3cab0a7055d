//! Two files that hold numbers, compared number by number: JSON and JSON lines, tables, and arrays of NumPy.
//!
//! What a run wrote is untrusted: sizes that it claims are checked against the bytes that are there before anything is
//! reserved, nesting is bounded, and what is malformed is a reason, never a panic.

mod json;
mod npy;
mod table;
mod zip;

use std::path::Path;

use crate::tolerance::Tolerance;

/// Largest array or archive of arrays that is compared by its numbers, bytes: both files are read into memory.
const ARRAY_BYTES_MAX: u64 = 1 << 30;
/// The same for texts, whose values take several times their bytes.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// What a file's name says about the numbers in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.json`, `.jsonl` and `.ndjson`: values one after the other.
    Json,
    /// `.csv` and `.tsv`: the separator.
    Table(char),
    /// `.npy`: one array of NumPy.
    Npy,
    /// `.npz`: a zip archive of arrays.
    Npz,
}

impl Format {
    /// By the name's end; none where numbers cannot be found in the file.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "json" | "jsonl" | "ndjson" => Self::Json,
            "csv" => Self::Table(','),
            "tsv" => Self::Table('\t'),
            "npy" => Self::Npy,
            "npz" => Self::Npz,
            _ => return None,
        })
    }

    /// Largest file that is compared, bytes.
    pub fn bytes_max(self) -> u64 {
        match self {
            Self::Json | Self::Table(_) => TEXT_BYTES_MAX,
            Self::Npy | Self::Npz => ARRAY_BYTES_MAX,
        }
    }
}

/// How the numbers of two files stand to each other, when all else in them is the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// How many there are.
    pub count: u64,
    /// How many of them differ by more than they may.
    pub beyond: u64,
    /// The two that are furthest apart; among those that differ too much, if there are such.
    pub furthest: Option<Pair>,
}

/// A number of the first file, and what stands in its place in the second.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Where: `epochs[3].loss`, `line 2, column accuracy`.
    pub place: String,
    /// The first time.
    pub first: f64,
    /// The second time.
    pub second: f64,
}

/// Why two files cannot be compared number by number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incomparable {
    /// One is not what its name says.
    #[error("the {which} file is no {format}: {reason}")]
    Malformed {
        /// `first` or `second`.
        which: &'static str,
        /// `JSON`, …
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// They differ in something that is no number.
    #[error("{place}: {reason}")]
    Shape {
        /// Where.
        place: String,
        /// What stands here and there.
        reason: String,
    },
}

/// Compares the numbers of two files of one format.
pub fn compare(
    format: Format,
    first: &[u8],
    second: &[u8],
    tolerance: Tolerance,
) -> Result<Numbers, Incomparable> {
    let mut comparison = Comparison { tolerance, numbers: Numbers::default(), is_beyond: false };
    match format {
        Format::Json => json::compare(first, second, &mut comparison)?,
        Format::Table(separator) => table::compare(first, second, separator, &mut comparison)?,
        Format::Npy => npy::compare(first, second, "", &mut comparison)?,
        Format::Npz => zip::compare(first, second, &mut comparison)?,
    }
    Ok(comparison.numbers)
}

/// The numbers seen so far.
struct Comparison {
    tolerance: Tolerance,
    numbers: Numbers,
    /// Whether the furthest pair is one that differs too much.
    is_beyond: bool,
}

impl Comparison {
    fn pair(&mut self, first: f64, second: f64, place: impl FnOnce() -> String) {
        self.numbers.count += 1;
        if first == second || first.is_nan() && second.is_nan() {
            return;
        }
        let is_beyond = !self.tolerance.allows(first, second);
        self.numbers.beyond += u64::from(is_beyond);
        let distance = |first: f64, second: f64| {
            let distance = (second - first).abs();
            if distance.is_nan() { f64::INFINITY } else { distance }
        };
        let is_furthest = match (&self.numbers.furthest, self.is_beyond, is_beyond) {
            (None, ..) | (_, false, true) => true,
            (_, true, false) => false,
            (Some(known), ..) => distance(first, second) > distance(known.first, known.second),
        };
        if is_furthest {
            self.is_beyond = is_beyond;
            self.numbers.furthest = Some(Pair { place: place(), first, second });
        }
    }
}

fn malformed(which: &'static str, format: &'static str, reason: impl Into<String>) -> Incomparable {
    Incomparable::Malformed { which, format, reason: reason.into() }
}

fn shape(place: impl Into<String>, reason: impl Into<String>) -> Incomparable {
    Incomparable::Shape { place: place.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
