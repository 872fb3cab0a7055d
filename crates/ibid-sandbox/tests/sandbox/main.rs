//! Containers, made for real: as root, as an ordinary user, and as one without subordinate ids.
//!
//! This program is the tests, the stage of the containers they start, and (with `contain` as first
//! argument) the command line that they start containers with, so that it can be another user's process.

mod api;
mod contain;
mod files;
mod isolation;
mod process;
mod signals;
mod terminal;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use world::World;

fn main() -> ExitCode {
    ibid_sandbox::stage_main_if_asked();
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("contain") => return contain::main(arguments),
        Some("forbidden-calls") => return isolation::forbidden_calls(),
        Some("merged-view") => return api::merged_view(arguments),
        _ => {}
    }
    let mut trials = Vec::new();
    for (name, test) in
        [process::TESTS, files::TESTS, isolation::TESTS, signals::TESTS, terminal::TESTS].concat()
    {
        for world in World::kinds() {
            trials.push(Trial::test(format!("{name}::{world:?}"), move || {
                world.enter().as_ref().map_or(Ok(()), |world| {
                    test(world);
                    Ok(())
                })
            }));
        }
    }
    for (name, test) in api::TESTS {
        trials.push(Trial::test(*name, move || {
            test();
            Ok(())
        }));
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    world::remove_own_program();
    conclusion.exit_code()
}
