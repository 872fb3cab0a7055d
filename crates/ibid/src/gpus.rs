//! What a run gets of this machine for the graphics processors that it asks for, told to people.

use ibid_core::cdi;
use ibid_core::gpus::{GpuRequest, Lent};
use ibid_sandbox::gpus::{Error, Host};

use crate::report::Failure;
use crate::settings::cdi_folders;
use crate::ui::Ui;

/// This machine, with the folders of CDI files that a person has settled.
pub fn host() -> Result<Host, Failure> {
    let usual = Host::default();
    Ok(match cdi_folders()? {
        Some(cdi_folders) => Host { cdi_folders, ..usual },
        None => usual,
    })
}

/// Finds what is asked for, and says what of it is not done.
pub fn find(ui: &Ui, request: &GpuRequest) -> Result<Lent, Failure> {
    let found = host()?.find(request).map_err(failure)?;
    if !found.words.is_empty() {
        ui.detail(&format!("GPUs: {}", found.words));
    }
    for what in &found.not_done {
        ui.warn(&format!("a CDI file asks for what was not done: {what}"));
    }
    Ok(found.lent)
}

fn failure(error: Error) -> Failure {
    let failure = Failure::of(&error);
    match error {
        Error::None { .. } => {
            failure.hint("`ibid doctor` says what this machine has").hint("`--gpus none` runs without")
        }
        Error::Cdi(cdi::Error::NoDevice { known, .. }) if known.is_empty() => {
            failure.hint("there is no CDI file: `ibid doctor` says where they are looked for")
        }
        Error::Cdi(cdi::Error::NoDevice { known, .. }) => {
            failure.hint(format!("there are {}", known.join(", ")))
        }
        Error::Stale { file, .. } => failure.hint(format!(
            "the file is of an older driver, perhaps: sudo nvidia-ctk cdi generate --output={file}"
        )),
        Error::NoNodes { .. } => failure.hint("sudo nvidia-modprobe -u -c=0"),
        Error::NoLibraries { .. } => failure.hint(
            "install the driver's libraries of the same version, or load the driver that they belong to",
        ),
        _ => failure,
    }
}
