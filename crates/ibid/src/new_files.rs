//! Files that ibid writes into a project for a person to keep: what is there already is theirs, and stays unless they
//! say otherwise.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::report::Failure;

/// A file to write.
#[derive(Debug)]
pub struct NewFile {
    pub path: PathBuf,
    pub text: String,
    /// Permission bits, less the person's umask.
    pub mode: u32,
}

/// Writes all, or none where one of them would replace something else. A file that is there with the same text is none.
pub fn write_all(files: &[NewFile], force: bool) -> Result<(), Failure> {
    let mut taken = Vec::new();
    for file in files {
        match fs::symlink_metadata(&file.path) {
            Ok(metadata) if metadata.is_file() => {
                if fs::read(&file.path).is_ok_and(|there| there == file.text.as_bytes()) {
                    continue;
                }
                taken.push(file.path.display().to_string());
            }
            // Not even with leave is a folder or what a link leads to replaced.
            Ok(_) => {
                return Err(Failure::new(format!("{} is there and is no file", file.path.display()))
                    .hint("move it away"));
            }
            Err(_) => {}
        }
    }
    if !taken.is_empty() && !force {
        let verb = if taken.len() == 1 { "exists" } else { "exist" };
        return Err(Failure::new(format!("{} {verb} already", taken.join(", ")))
            .hint("nothing was written; `--force` replaces what is there"));
    }
    for file in files {
        let failed = |error: std::io::Error| {
            Failure::of(&error).while_doing(format!("cannot write {}", file.path.display()))
        };
        if let Some(folder) = file.path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        fs::write(&file.path, &file.text).map_err(failed)?;
        if file.mode & 0o111 != 0 {
            // As far as it can be read it can be executed, as the umask has it.
            let mode = fs::metadata(&file.path).map_err(failed)?.permissions().mode();
            let mode = mode | ((mode & 0o444) >> 2);
            fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        }
    }
    Ok(())
}
