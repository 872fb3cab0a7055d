//! What a program may have used although no snapshot holds it: named, so that nobody takes a snapshot for all there was.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use ibid_files::beneath::open_beneath;
use rustix::fs::{FileType, OFlags, RawDir};

use super::survey::shown;
use super::walk::{Dropped, Project, Why};

/// Names that are looked at in ignored folders, which may hold anything.
const NAMES_MAX: usize = 10_000;
/// Of so many, people read the first.
const SHOWN_MAX: usize = 50;

/// The names, sorted.
pub(super) fn names(project: &Project, dropped: &[Dropped], large: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = large.iter().map(|path| shown(path.as_os_str().as_bytes())).collect();
    let mut ignored = VecDeque::new();
    for Dropped { path, why } in dropped {
        match why {
            Why::Environment => names.push(shown(path) + "/"),
            Why::Unreadable | Why::Special => names.push(shown(path)),
            Why::Ignored { is_folder: true } => ignored.push_back(path.clone()),
            Why::Ignored { is_folder: false } if is_compiled(path) => names.push(shown(path)),
            Why::Ignored { is_folder: false } => {}
        }
    }
    look_into(project, ignored, &mut names);
    names.sort_unstable();
    if names.len() > SHOWN_MAX {
        let more = names.len() - SHOWN_MAX;
        names.truncate(SHOWN_MAX);
        names.push(format!("and {more} more"));
    }
    names
}

/// Level by level, so that what is near is found however much there is.
fn look_into(project: &Project, mut folders: VecDeque<Vec<u8>>, names: &mut Vec<String>) {
    let mut left = NAMES_MAX;
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    while let Some(folder) = folders.pop_front() {
        // What cannot be looked into has nothing that could be named.
        let Ok(fd) = open_beneath(&project.root_fd, &folder, OFlags::RDONLY | OFlags::DIRECTORY) else {
            continue;
        };
        let mut found = Vec::new();
        let mut listed = RawDir::new(&fd, &mut buffer);
        while let Some(Ok(entry)) = listed.next() {
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            left = left.saturating_sub(1);
            if left == 0 {
                return;
            }
            found.push((name.to_vec(), entry.file_type()));
        }
        if found.iter().any(|(name, _)| name == b"pyvenv.cfg") {
            names.push(shown(&folder) + "/");
            continue;
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, file_type) in found {
            let path = [&folder, &b"/"[..], &name].concat();
            match file_type {
                FileType::Directory if !matches!(name.as_slice(), b"__pycache__" | b".git") => {
                    folders.push_back(path);
                }
                FileType::RegularFile | FileType::Unknown if is_compiled(&name) => names.push(shown(&path)),
                _ => {}
            }
        }
    }
}

/// Shared libraries, which Python's compiled modules are too.
fn is_compiled(path: &[u8]) -> bool {
    let name = &path[path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1)..];
    name.ends_with(b".so") || name.windows(4).any(|part| part == b".so.")
}
