//! What outputs held. The record has their digests; their contents stay in the project, where the next run may replace them. Those that
//! are to be compared within a tolerance are kept beside the record too:
//!
//! ```text
//! .ibid/runs/<id>/outputs/<hex>   one content, by its digest
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ibid_core::digest::Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::ledger::{self, Error, Ledger, io as failed};
use crate::record::Output;

/// Larger outputs are not kept.
pub const KEPT_BYTES_MAX: u64 = 16 << 20;

const FOLDER: &str = "outputs";

/// The content of an output in `folder`, the project or a copy of it, if it is still that of the record. Through no link: a program
/// may leave one to anywhere.
pub fn read(folder: &Path, output: &Output) -> io::Result<Vec<u8>> {
    let file = open_beneath(folder, &output.path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let mut content = Vec::new();
    file.take(output.bytes + 1).read_to_end(&mut content)?;
    if Digest::of(&content) == output.digest {
        Ok(content)
    } else {
        Err(io::Error::other("it was changed since"))
    }
}

/// Opens what a relative path leads to in `folder`, through no link and not out of it.
pub fn open_beneath(folder: &Path, path: &str, flags: OFlags) -> io::Result<File> {
    let root = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?.into())
}

/// Keeps the content of an output of `project` beside the record, unless it is large.
pub fn keep(ledger: &Ledger, run_folder: &Path, project: &Path, output: &Output) -> Result<(), Error> {
    if output.bytes > KEPT_BYTES_MAX {
        return Ok(());
    }
    let content = read(project, output).map_err(failed("read", &project.join(&output.path)))?;
    let path = place(run_folder, output);
    let folder = run_folder.join(FOLDER);
    fs::create_dir_all(&folder).map_err(failed("make the folder", &folder))?;
    ledger.give(&folder)?;
    ledger::write(&path, &content)?;
    ledger.give(&path)
}

/// The content that was kept of an output, if it was.
pub fn kept(run_folder: &Path, output: &Output) -> Option<Vec<u8>> {
    let content = fs::read(place(run_folder, output)).ok()?;
    (Digest::of(&content) == output.digest).then_some(content)
}

fn place(run_folder: &Path, output: &Output) -> PathBuf {
    run_folder.join(FOLDER).join(output.digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_read_through_no_link_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let project = folder.path().join("project");
        fs::create_dir_all(project.join("output")).expect("a folder");
        fs::write(folder.path().join("secret"), "secret").expect("written");
        fs::write(project.join("output/a"), "content").expect("written");
        std::os::unix::fs::symlink("../../secret", project.join("output/link")).expect("a link");
        std::os::unix::fs::symlink("output", project.join("other")).expect("a link");
        let output = |path: &str, content: &[u8]| Output {
            path: path.to_owned(),
            bytes: content.len() as u64,
            digest: Digest::of(content),
        };
        assert_eq!(read(&project, &output("output/a", b"content")).expect("readable"), b"content");
        for (path, content) in [
            ("output/a", "another"),
            ("output/link", "secret"),
            ("other/a", "content"),
            ("../secret", "secret"),
        ] {
            assert!(read(&project, &output(path, content.as_bytes())).is_err(), "{path}");
        }
        let (ledger, run) = (Ledger::of(&project), project.join(".ibid/runs/1"));
        fs::create_dir_all(&run).expect("a folder");
        let output = output("output/a", b"content");
        assert_eq!(kept(&run, &output), None);
        keep(&ledger, &run, &project, &output).expect("kept");
        fs::write(project.join("output/a"), "another").expect("written");
        assert_eq!(kept(&run, &output), Some(b"content".to_vec()));
        fs::write(run.join("outputs").join(output.digest.hex()), "damaged").expect("written");
        assert_eq!(kept(&run, &output), None);
    }
}
