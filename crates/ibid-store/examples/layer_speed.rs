//! Times the making of layers next to `cp -a` of the same tree: commit, archive, import.
//!
//! `cargo run --release -p ibid-store --example layer_speed [FOLDER]`, as root; FOLDER is on the file system to measure.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ibid_store::{CommitRules, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let work = tempfile::tempdir_in(parent)?;
    println!("ms: median of 5            | cp -a | commit | commit/cp | tar out | import");
    for (name, files, file_bytes) in
        [("10,000 files of 1 KiB", 10_000, 1 << 10), ("30,000 files, 500 MB", 30_000, 17_476)]
    {
        let source = work.path().join("source");
        make_tree(&source, files, file_bytes)?;
        let mut rows = Vec::new();
        for round in 0..5 {
            // Every round works in folders of its own: a tree made right after one was deleted is made slowly.
            let copy = work.path().join(format!("copy-{files}-{round}"));
            let copied = timed(|| copy_tree(&source, &copy))?;
            let store = Store::open(&work.path().join(format!("store-{files}-{round}")))?;
            let draft = store.draft_layer()?;
            copy_tree(&source, &draft.upper().join("data"))?;
            let mut diff_id = None;
            let committed = timed(|| {
                diff_id = draft.commit(&CommitRules { epoch: 1, ..CommitRules::default() })?;
                Ok(())
            })?;
            let diff_id = diff_id.ok_or("an empty layer")?;
            let archive = work.path().join("archive.tar");
            let written = timed(|| Ok(store.write_layer_tar(&diff_id, &mut fs::File::create(&archive)?)?))?;
            let other = Store::open(&work.path().join(format!("other-{files}-{round}")))?;
            let imported = timed(|| Ok(other.import_layer(fs::File::open(&archive)?).map(drop)?))?;
            rows.push([copied, committed, written, imported]);
        }
        let median = |column: usize| {
            let mut times: Vec<Duration> = rows.iter().map(|row| row[column]).collect();
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e3
        };
        let [copied, committed, written, imported] = [0, 1, 2, 3].map(median);
        println!(
            "{name:26} | {copied:5.0} | {committed:6.0} | {:9.2} | {written:7.0} | {imported:6.0}",
            committed / copied
        );
        fs::remove_dir_all(&source)?;
    }
    Ok(())
}

fn timed(
    work: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("cp failed").into()) }
}

fn make_tree(root: &Path, files: usize, file_bytes: usize) -> io::Result<()> {
    let mut content: Vec<u8> =
        (0..file_bytes as u64).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for index in 0..files {
        let folder = root.join(format!("{:03}/{:02}", index / 1000, index / 50 % 20));
        if index % 50 == 0 {
            fs::create_dir_all(&folder)?;
        }
        content[..8].copy_from_slice(&index.to_le_bytes());
        fs::write(folder.join(format!("file-{index}")), &content)?;
    }
    Ok(())
}
