//! `ibid dev`: a shell in the image.

use ibid_core::run::Command;

use super::run::{Session, execute};
use crate::args::{Cli, Dev};
use crate::report::Failure;
use crate::ui::Ui;

pub fn main(ui: &Ui, cli: &Cli, dev: &Dev) -> Result<u8, Failure> {
    execute(
        ui,
        &Session {
            directory: cli.directory.as_deref(),
            pegged: dev.pegged,
            env: &dev.env,
            options: &dev.options,
            gpus: dev.gpus.as_ref(),
            engine: dev.engine,
            shared: &dev.shared,
            command: Command::Shell,
            recorded: None,
            detached: None,
            terminal: None,
        },
    )
}
