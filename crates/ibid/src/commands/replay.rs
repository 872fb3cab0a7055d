//! `ibid replay`: a recorded run once more, and whether it gives the same.

use crate::args::{Cli, Replay};
use crate::replay;
use crate::report::Failure;
use crate::ui::Ui;

pub fn main(ui: &Ui, cli: &Cli, replay: &Replay) -> Result<u8, Failure> {
    replay::main(ui, cli, replay)
}
