//! Which files the sources of a `COPY` mean, as BuildKit finds them (moby/buildkit, `solver/llbsolver/file`
//! and tonistiigi/fsutil, `copy`).
//!
//! - A source without wildcard is a path. Links on the way and at its end are followed inside the context.
//! - A source with wildcards is matched component by component, by Go's `filepath.Match`, through no link,
//!   against what the ignore rules keep; a match that is a link is then followed like a path.
//! - A folder means what it holds; links inside it stay links.
//! - Wildcards that match nothing copy nothing. A path that is not there is an error, and so is a folder
//!   before the first wildcard.
//! - `--exclude` leaves out what its patterns match inside a source, or a source by its name. `--parents` takes of a
//!   folder what a pattern matches, through no link, with the folders that it is in.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ibid_core::dockerignore::Ignore;
use ibid_core::glob::Glob;
use ibid_files::beneath::open_beneath;
use ibid_files::stamp::Stamp;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::names::{self, Names};
use super::walk::{self, Entries};
use super::{Context, Entry, Error, Kind};

/// What the sources of one `COPY` are.
#[derive(Debug, Default)]
pub struct Selection {
    /// In the order of the instruction; the matches of a pattern in the order of their names. Copied one
    /// after the other, a later one wins.
    pub sources: Vec<Source>,
    /// Patterns that match nothing.
    pub unmatched: Vec<String>,
    /// Sockets, pipes and devices that a pattern matches itself.
    special: Vec<PathBuf>,
}

/// One thing to copy.
#[derive(Debug)]
pub struct Source {
    number: usize,
    name: Box<[u8]>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A file, or another thing that is no folder.
    Single(Arc<Entry>),
    Folder(Folder),
}

#[derive(Debug)]
struct Folder {
    /// Length of its own path with the `/`.
    skip: usize,
    /// What it holds.
    entries: Arc<Entries>,
    /// Positions of those that are copied; none means all.
    kept: Option<Box<[usize]>>,
}

impl Selection {
    /// Number of files, and of bytes in them.
    pub fn totals(&self) -> (usize, u64) {
        let files = self
            .sources
            .iter()
            .flat_map(Source::entries)
            .filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }));
        files.fold((0, 0), |(count, bytes), (_, entry)| (count + 1, bytes + entry.size()))
    }

    /// Sockets, pipes and devices, which are not copied.
    pub fn skipped(&self) -> impl Iterator<Item = &Path> {
        let entries = self.sources.iter().flat_map(Source::entries);
        let inside = entries.filter(|(_, entry)| entry.kind == Kind::Special).map(|(_, entry)| entry.path());
        self.special.iter().map(PathBuf::as_path).chain(inside)
    }
}

impl Source {
    /// Whether this is a folder, whose content goes into the destination, or a single file, which goes to
    /// the destination itself or, when that is a folder, into it by [`Source::name`].
    pub fn is_folder(&self) -> bool {
        matches!(self.what, What::Folder(_))
    }

    /// Which source of the instruction it belongs to, counted from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The last component of the path that the instruction names, links not followed.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// What to copy, folders before what they hold. Paths are relative to the destination folder; that of a
    /// single file is its name.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        let (single, skip, all, kept) = match &self.what {
            What::Single(entry) => (Some((&*self.name, &**entry)), 0, None, None),
            What::Folder(Folder { skip, entries, kept }) => (None, *skip, Some(&**entries), kept.as_deref()),
        };
        let count = kept.map_or(all.map_or(0, Entries::len), <[usize]>::len);
        let at = move |position: usize| all.map(|all| all.get(kept.map_or(position, |kept| kept[position])));
        let below = (0..count).filter_map(at);
        single.into_iter().chain(below.map(move |entry| (&entry.path_bytes()[skip..], entry)))
    }
}

impl Folder {
    /// Keeps what `include` matches and `exclude` does not, and the folders that hold it.
    fn filter(&mut self, include: Option<&Ignore>, exclude: &Ignore) {
        if include.is_none() && exclude.is_empty() {
            return;
        }
        let path = |entry: &'_ Entry| entry.path_bytes()[self.skip..].to_vec();
        let mut needed: HashSet<Vec<u8>> = HashSet::new();
        let mut kept = Vec::new();
        // What a folder holds follows it.
        for (position, entry) in self.entries.iter().enumerate().rev() {
            let path = path(entry);
            let is_wanted = include.is_none_or(|include| include.verdict(&path).ignored)
                && !exclude.verdict(&path).ignored;
            if is_wanted || needed.contains(&path) {
                kept.push(position);
                if let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
                    needed.insert(path[..slash].to_vec());
                }
            }
        }
        kept.reverse();
        self.kept = Some(kept.into());
    }
}

/// How many links a path may go through before they count as a circle.
const LINKS_MAX: usize = 255;

/// Adds what `path`, the source of that number, is to `selection`, less what `exclude` matches.
pub(super) fn exact(
    context: &Context,
    path: &str,
    number: usize,
    exclude: &Ignore,
    selection: &mut Selection,
) -> Result<(), Error> {
    let components = components(path);
    let name = components.last().copied().unwrap_or_default();
    let resolved = resolve(context, path, &components)?;
    let found = source(context, path, number, name, &resolved)?;
    let mut found = found.ok_or_else(|| missing(context, path, &resolved))?;
    match &mut found.what {
        What::Folder(folder) => folder.filter(None, exclude),
        What::Single(_) if exclude.verdict(name).ignored => return Ok(()),
        What::Single(_) => {}
    }
    selection.sources.push(found);
    Ok(())
}

/// Adds what `pattern`, the source of that number, means to `selection`, less what `exclude` matches.
pub(super) fn expand(
    context: &Context,
    pattern: &str,
    number: usize,
    exclude: &Ignore,
    selection: &mut Selection,
) -> Result<(), Error> {
    let components = components(pattern);
    let first_wildcard = components.iter().position(|component| has_wildcard(component));
    let Some(first_wildcard) = first_wildcard else {
        return exact(context, pattern, number, exclude, selection);
    };
    let globs: Vec<Glob> = components[first_wildcard..]
        .iter()
        .map(|component| Glob::parse(component))
        .collect::<Result<_, _>>()
        .map_err(|reason| Error::Pattern { pattern: pattern.to_owned(), reason })?;
    let folder = resolve(context, pattern, &components[..first_wildcard])?;
    if matches!(held(context, &folder)?, Held::Nothing) {
        return Err(missing(context, pattern, &folder));
    }
    let mut matches = Vec::new();
    match_below(context, &folder, &globs, &mut matches)?;
    if matches.is_empty() {
        selection.unmatched.push(pattern.to_owned());
    }
    for path in matches {
        let components: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let name = components.last().copied().unwrap_or_default();
        if exclude.verdict(name).ignored {
            continue;
        }
        let resolved = resolve(context, pattern, &components)?;
        let found = match source(context, pattern, number, name, &resolved) {
            Err(Error::Special { .. }) => {
                selection.special.push(OsStr::from_bytes(&resolved).into());
                continue;
            }
            found => found?,
        };
        match found {
            Some(mut found) => {
                if let What::Folder(folder) = &mut found.what {
                    folder.filter(None, exclude);
                }
                selection.sources.push(found);
            }
            // A dropped folder that holds nothing kept is not there.
            None if resolved == path => {}
            // A link to what is not there; the name says which of the matches it is.
            None => return Err(missing(context, &String::from_utf8_lossy(&path), &resolved)),
        }
    }
    Ok(())
}

/// Adds what `pattern` matches in the folders that `folder` means.
pub(super) fn expand_below(
    context: &Context,
    folder: &str,
    pattern: &str,
    number: usize,
    exclude: &Ignore,
    selection: &mut Selection,
) -> Result<(), Error> {
    let is_pattern = |text: &str| text.split('/').any(|component| has_wildcard(component.as_bytes()));
    let include = match pattern {
        "." => None,
        pattern => Some(Ignore::of_patterns(&[pattern]).expect("a plan holds patterns that were read")),
    };
    let mut folders = Selection::default();
    expand(context, folder, number, &Ignore::default(), &mut folders)?;
    // Other matches have nothing below them.
    folders.sources.retain(Source::is_folder);
    let mut is_empty = true;
    for source in &mut folders.sources {
        if let What::Folder(folder) = &mut source.what {
            folder.filter(include.as_ref(), &Ignore::default());
            is_empty &= folder.kept.as_ref().is_some_and(|kept| kept.is_empty());
            folder.filter(include.as_ref(), exclude);
        }
    }
    // Where nothing has to match, a path must be there.
    if is_empty && !is_pattern(folder) && !is_pattern(pattern) {
        let path = if folder == "." { pattern.to_owned() } else { format!("{folder}/{pattern}") };
        return Err(missing(context, &path, path.as_bytes()));
    }
    selection.sources.append(&mut folders.sources);
    Ok(())
}

fn components(path: &str) -> Vec<&[u8]> {
    let components = path.as_bytes().split(|byte| *byte == b'/');
    components.filter(|component| !matches!(*component, b"" | b".")).collect()
}

/// `\` alone makes no pattern: it is then a character like any other.
fn has_wildcard(component: &[u8]) -> bool {
    let mut bytes = component.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Follows the links of a path inside the context. Components that do not exist stay as they are.
fn resolve(context: &Context, pattern: &str, components: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let mut rest: VecDeque<Vec<u8>> = components.iter().map(|component| component.to_vec()).collect();
    let mut path: Vec<u8> = Vec::new();
    let mut links = 0;
    while let Some(component) = rest.pop_front() {
        match component.as_slice() {
            b"" | b"." => continue,
            b".." => {
                path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let parent = path.len();
        if parent > 0 {
            path.push(b'/');
        }
        path.extend(&component);
        if context.rules.rules.verdict(&path).ignored {
            continue;
        }
        let Some(entry) = entry(context, &path)? else { continue };
        if let Kind::Link { target } = &entry.kind {
            links += 1;
            if links > LINKS_MAX {
                return Err(Error::Links { pattern: pattern.to_owned() });
            }
            path.truncate(if target.starts_with(b"/") { 0 } else { parent });
            for component in target.split(|byte| *byte == b'/').rev() {
                rest.push_front(component.to_vec());
            }
        }
    }
    Ok(path)
}

/// What is at a path, through no link; none when nothing is.
fn entry(context: &Context, path: &[u8]) -> Result<Option<Entry>, Error> {
    let failed = |errno| walk::error(context, "read the attributes of", path, errno);
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    let fd = match open_beneath(&context.root_fd, folder, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    let stat = match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    Ok(walk::kind(context, &fd, name, path, &stat)?
        .map(|kind| Entry::new(path.into(), 0..path.len(), kind, Stamp::of(&stat))))
}

/// The resolved path as a source; none when the context does not hold it.
fn source(
    context: &Context,
    pattern: &str,
    number: usize,
    name: &[u8],
    path: &[u8],
) -> Result<Option<Source>, Error> {
    let folder = |skip, entries| What::Folder(Folder { skip, entries, kept: None });
    let what = match held(context, path)? {
        Held::Nothing => return Ok(None),
        Held::Single(entry) if entry.kind == Kind::Special && context.layers.is_none() => {
            return Err(Error::Special { pattern: pattern.to_owned() });
        }
        Held::Single(entry) => What::Single(Arc::new(entry)),
        Held::Folder if path.is_empty() => folder(0, context.folder(path)?),
        Held::Folder => folder(path.len() + 1, context.folder(path)?),
    };
    Ok(Some(Source { number, name: name.into(), what }))
}

enum Held {
    Nothing,
    Single(Entry),
    Folder,
}

/// What the context holds at a resolved path, the ignore rules applied.
fn held(context: &Context, path: &[u8]) -> Result<Held, Error> {
    if path.is_empty() {
        return Ok(Held::Folder);
    }
    let ignored = context.rules.rules.verdict(path).ignored;
    Ok(match entry(context, path)? {
        Some(Entry { kind: Kind::Folder, .. }) if !ignored || !context.folder(path)?.is_empty() => {
            Held::Folder
        }
        Some(entry) if !ignored => Held::Single(entry),
        _ => Held::Nothing,
    })
}

fn missing(context: &Context, pattern: &str, path: &[u8]) -> Error {
    let verdict = context.rules.rules.verdict(path);
    match (verdict.ignored, verdict.rule) {
        (true, Some(line)) => {
            Error::Ignored { pattern: pattern.to_owned(), file: context.rules.name.clone(), line }
        }
        _ => Error::Missing { pattern: pattern.to_owned(), place: context.name() },
    }
}

/// Adds the paths below `folder` whose components match `globs`, in the order of their names.
fn match_below(
    context: &Context,
    folder: &[u8],
    globs: &[Glob],
    matches: &mut Vec<Vec<u8>>,
) -> Result<(), Error> {
    let Some((glob, below)) = globs.split_first() else { return Ok(()) };
    let rules = &context.rules.rules;
    for name in names_in(context, folder)? {
        if !glob.matches(&name) {
            continue;
        }
        let mut path = folder.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(&name);
        let verdict = rules.verdict(&path);
        if below.is_empty() {
            // Whether a dropped folder holds something kept is found out when it is listed.
            if !verdict.ignored || rules.may_descend(verdict, &path) {
                matches.push(path);
            }
        } else if rules.may_descend(verdict, &path)
            && entry(context, &path)?.is_some_and(|entry| entry.kind == Kind::Folder)
        {
            match_below(context, &path, below, matches)?;
        }
    }
    Ok(())
}

/// The sorted names in a folder; none when it is no folder.
fn names_in(context: &Context, folder: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let failed = |errno| walk::error(context, "list the folder", folder, errno);
    let fd = match open_beneath(&context.root_fd, folder, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
        Err(errno) => return Err(failed(errno)),
    };
    let names = Names::read(&fd, folder, &mut names::buffer()).map_err(failed)?;
    Ok(names.iter().map(|name| name.bytes().to_vec()).collect())
}
