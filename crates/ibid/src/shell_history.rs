//! Where the shells of `ibid dev` keep what was typed: a folder for each project, outside of its code, as no history belongs
//! into a commit, an image or a record.

use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use ibid_core::digest::Digest;

use crate::project::Project;
use crate::report::Failure;
use crate::ui::Ui;

/// The folder, made if need be; none where that is refused: a shell without a history is better than none.
pub fn folder(ui: &Ui, project: &Project) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    let name = project.root.file_name().unwrap_or_default().to_string_lossy();
    // Two projects may have the same name.
    let which = Digest::of(project.root.as_os_str().as_bytes());
    let folder = state.join("ibid/history").join(format!("{name}-{}", &which.hex()[..12]));
    match DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
        Ok(()) => Some(folder),
        Err(error) => {
            let what = format!("the shell keeps no history: cannot make {}", folder.display());
            ui.detail(&Failure::of(&error).while_doing(what).summary());
            None
        }
    }
}
