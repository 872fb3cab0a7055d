//! What a copy would bring into the image that is hardly meant to be there: data, virtual environments, git
//! repositories, large files. Looked for only when a copy is performed, so that a build that finds all in its cache
//! pays nothing.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::context::{Kind, Selection};

/// A file from this size on is large.
const LARGE_BYTES_MIN: u64 = 100_000_000;
/// Files of one data format in one folder are data from this size on, all together. Smaller ones belong to many a test.
const DATA_BYTES_MIN: u64 = 10_000_000;

/// Ends of names that hold data or trained models rather than code.
const DATA_FORMATS: [&str; 36] = [
    "7z",
    "arrow",
    "avro",
    "bin",
    "bz2",
    "ckpt",
    "csv",
    "dcm",
    "db",
    "feather",
    "fits",
    "gguf",
    "gz",
    "h5",
    "hdf5",
    "jsonl",
    "lmdb",
    "mat",
    "nc",
    "nii",
    "npy",
    "npz",
    "onnx",
    "orc",
    "parquet",
    "pkl",
    "pt",
    "pth",
    "safetensors",
    "sqlite",
    "tar",
    "tfrecord",
    "tsv",
    "xz",
    "zip",
    "zst",
];

/// What of the project a run reads or writes: paths relative to the context.
#[derive(Debug, Clone, Default)]
pub struct RunFiles {
    /// Mounted read-only for each run.
    pub data: Vec<PathBuf>,
    /// Made by runs.
    pub outputs: Vec<PathBuf>,
}

/// Files that hardly belong in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwanted {
    /// A file, a folder, or files of one format in a folder, such as `data/*.csv`; relative to the context.
    pub path: PathBuf,
    /// The rule of an ignore file that drops them.
    pub rule: String,
    /// What they are.
    pub kind: UnwantedKind,
    /// How many files.
    pub files: usize,
    /// How large they are together.
    pub bytes: u64,
}

/// What files are that hardly belong in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnwantedKind {
    /// The folder `.git`.
    Git,
    /// A virtual environment of Python or conda.
    VirtualEnvironment,
    /// What the project names as its data.
    Data,
    /// What the project names as its outputs.
    Outputs,
    /// One file of over 100 MB.
    Large,
    /// Files in a format of data.
    DataFormat,
}

/// Looks through what a copy selects. The largest first.
pub fn find(selection: &Selection, run: &RunFiles) -> Vec<Unwanted> {
    let files = || {
        selection.sources.iter().flat_map(|source| {
            let entries = source.entries().map(|(_, entry)| entry);
            let files = entries.filter(|entry| matches!(entry.kind, Kind::File { .. }));
            files.map(|entry| (entry.path(), entry.size(), source.is_folder()))
        })
    };
    let environments: HashSet<PathBuf> = files().filter_map(|(path, ..)| environment_of(path)).collect();
    let mut groups: BTreeMap<(PathBuf, UnwantedKind), Vec<(&Path, u64)>> = BTreeMap::new();
    for (path, bytes, in_folder) in files() {
        if let Some(group) = group(path, bytes, in_folder, &environments, run) {
            groups.entry(group).or_default().push((path, bytes));
        }
    }
    let found = groups.into_iter().map(|((path, kind), files)| {
        let (path, rule) = match (kind, files.as_slice()) {
            (UnwantedKind::DataFormat, [_, _, ..]) => {
                let rule = format!("{}*{}", literal(&path.with_file_name("")), literal(&after_star(&path)));
                (path, rule)
            }
            // One file of a format is named itself.
            (UnwantedKind::DataFormat, [(file, _), ..]) => ((*file).to_owned(), literal(file)),
            _ => {
                let rule = literal(&path);
                (path, rule)
            }
        };
        let bytes = files.iter().map(|(_, bytes)| bytes).sum();
        Unwanted { path, rule, kind, files: files.len(), bytes }
    });
    let is_enough =
        |found: &Unwanted| found.kind != UnwantedKind::DataFormat || found.bytes >= DATA_BYTES_MIN;
    let mut found: Vec<Unwanted> = found.filter(is_enough).collect();
    found.sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
    found
}

/// The virtual environment whose mark a file is.
fn environment_of(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let folder = match path.file_name()?.as_bytes() {
        b"pyvenv.cfg" => folder,
        b"history" if folder.ends_with("conda-meta") => folder.parent()?,
        _ => return None,
    };
    // The context itself cannot be dropped from the context.
    (!folder.as_os_str().is_empty()).then(|| folder.to_owned())
}

/// What a file counts towards.
fn group(
    path: &Path,
    bytes: u64,
    in_folder: bool,
    environments: &HashSet<PathBuf>,
    run: &RunFiles,
) -> Option<(PathBuf, UnwantedKind)> {
    let above = |folder: &&Path| !folder.as_os_str().is_empty();
    if let Some(git) = path.ancestors().skip(1).filter(above).find(|folder| folder.ends_with(".git")) {
        return Some((git.to_owned(), UnwantedKind::Git));
    }
    if let Some(folder) = path.ancestors().skip(1).filter(|folder| environments.contains(*folder)).last() {
        return Some((folder.to_owned(), UnwantedKind::VirtualEnvironment));
    }
    for (kind, paths) in [(UnwantedKind::Data, &run.data), (UnwantedKind::Outputs, &run.outputs)] {
        if let Some(named) = paths.iter().find(|named| path.starts_with(named)) {
            return Some((named.clone(), kind));
        }
    }
    if bytes >= LARGE_BYTES_MIN {
        return Some((path.to_owned(), UnwantedKind::Large));
    }
    // A file that the instruction names itself is meant.
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let is_data = in_folder && DATA_FORMATS.contains(&extension.as_str());
    is_data.then(|| (format_group(path), UnwantedKind::DataFormat))
}

/// `data/*.csv` for `data/a.csv`.
fn format_group(path: &Path) -> PathBuf {
    let mut name = OsString::from("*.");
    name.push(path.extension().unwrap_or_default());
    path.with_file_name(name)
}

/// What follows the star of a format's group.
fn after_star(group: &Path) -> PathBuf {
    let name = group.file_name().unwrap_or_default().as_bytes();
    OsStr::from_bytes(name.strip_prefix(b"*").unwrap_or(name)).into()
}

/// A path as a pattern of an ignore file that matches it alone. Bytes that are no UTF-8 match any character.
fn literal(path: &Path) -> String {
    let mut pattern = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            let starts_a_comment_or_exception = pattern.is_empty() && matches!(c, '#' | '!');
            if starts_a_comment_or_exception || matches!(c, '*' | '?' | '[' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.extend(chunk.invalid().iter().map(|_| '?'));
    }
    pattern
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use ibid_core::dockerignore::Ignore;

    use super::*;
    use crate::context::{Context, IgnoreFile};

    /// Makes the files, of that many bytes, and says what is unwanted of what a copy of `sources` selects.
    #[track_caller]
    fn check(files: &[(&str, u64)], sources: &[&str], expected: &[(&str, &str, UnwantedKind, usize, u64)]) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, bytes) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            File::create(path).and_then(|file| file.set_len(*bytes)).expect("a file");
        }
        let run = RunFiles { data: vec!["data".into()], outputs: vec!["output/plots".into()] };
        let context = Context::open(folder.path(), IgnoreFile::default(), None).expect("opens");
        let found = find(&context.select(sources).expect("selects"), &run);
        let shown: Vec<_> = found
            .iter()
            .map(|found| {
                (
                    found.path.to_str().expect("text"),
                    found.rule.as_str(),
                    found.kind,
                    found.files,
                    found.bytes,
                )
            })
            .collect();
        assert_eq!(shown, expected);
        if sources != ["."] {
            return;
        }
        // What the rules say is what it takes.
        let text = found.iter().map(|found| format!("{}\n", found.rule)).collect::<String>();
        let rules = Ignore::parse(text.as_bytes()).expect("rules");
        let rules = IgnoreFile { name: ".dockerignore".to_owned(), rules };
        let context = Context::open(folder.path(), rules, None).expect("opens");
        assert_eq!(find(&context.select(&["."]).expect("selects"), &run), [], "{text}");
    }

    #[test]
    fn what_hardly_belongs_in_an_image_is_found() {
        use UnwantedKind::*;
        check(&[("train.py", 12), ("tests/small.csv", 9_999_999), ("README.md", 99_000_000)], &["."], &[]);
        check(
            &[
                (".git/HEAD", 1),
                (".git/objects/aa", 20),
                ("lib/.git", 30),
                (".venv/pyvenv.cfg", 1),
                (".venv/lib/python/site.py", 50),
                (".venv/lib/inner/pyvenv.cfg", 1),
                ("conda/env/conda-meta/history", 1),
                ("conda/env/lib/x.so", 2),
                ("data/a", 3),
                ("output/plots/a.png", 4),
                ("output/keep", 5),
            ],
            &["."],
            &[
                (".venv", ".venv", VirtualEnvironment, 3, 52),
                (".git", ".git", Git, 2, 21),
                ("output/plots", "output/plots", Outputs, 1, 4),
                ("conda/env", "conda/env", VirtualEnvironment, 2, 3),
                ("data", "data", Data, 1, 3),
            ],
        );
        check(
            &[
                ("big/model", 100_000_000),
                ("big/almost", 99_999_999),
                ("sets/a.csv", 6_000_000),
                ("sets/b.CSV", 6_000_000),
                ("sets/c.csv", 7_000_000),
                ("sets/[x]*.npz", 12_000_000),
                ("!sets.h5", 10_000_000),
            ],
            &["."],
            &[
                ("big/model", "big/model", Large, 1, 100_000_000),
                ("sets/*.csv", "sets/*.csv", DataFormat, 2, 13_000_000),
                ("sets/[x]*.npz", "sets/\\[x]\\*.npz", DataFormat, 1, 12_000_000),
                ("!sets.h5", "\\!sets.h5", DataFormat, 1, 10_000_000),
            ],
        );
    }

    #[test]
    fn a_file_that_is_named_is_meant_unless_it_is_large() {
        let files = [("root.tar.gz", 20_000_000), ("model.pt", 200_000_000)];
        check(&files[..1], &["root.tar.gz"], &[]);
        check(
            &[("model.pt", 200_000_000)],
            &["model.pt"],
            &[("model.pt", "model.pt", UnwantedKind::Large, 1, 200_000_000)],
        );
    }
}
