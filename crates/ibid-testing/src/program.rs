//! Programs for tests to execute.

use std::path::Path;
use std::process::Command;

/// Copies a program by another process. What this one writes it cannot always execute right after (`ETXTBSY`): a process that another
/// test starts meanwhile has the file open for writing until it executes its own program.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--preserve=mode").arg(from).arg(to).status().expect("cp starts");
    assert!(copied.success(), "{} is copied to {}", from.display(), to.display());
}
