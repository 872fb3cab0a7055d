//! `ibid`: the only crate that prints or exits.

mod args;
mod bases;
mod build_progress;
mod cache_options;
mod cache_transfer;
mod checks;
mod commands;
mod context_tree;
mod contexts;
mod credentials;
mod deferred_args;
mod detached;
mod eject;
mod engine_build;
mod engines;
mod executor;
mod gpus;
mod image_build;
mod init;
mod ledger_args;
mod live_args;
mod live_runs;
mod lock;
mod lock_mode;
mod near_option;
mod new_files;
mod output_folders;
mod plot;
mod project;
mod project_ledger;
mod pushed_names;
mod recorded_options;
mod recorded_run;
mod registries;
mod replay;
mod report;
mod run_notices;
mod run_options;
mod settings;
mod shell_history;
mod snapshot_gc;
mod table;
mod ui;
mod unwanted_files;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::{Cli, Command};
use crate::report::{EXIT_IBID_FAILED, Failure};
use crate::ui::{Ui, Verbosity};

fn main() -> ExitCode {
    // Before any thread or log: a sandbox's child is this same program.
    ibid_sandbox::stage_main_if_asked();
    // And so is process 1 of a container of another engine.
    if let Some(ended) = ibid_engine::remote::init::main_if_asked() {
        return ExitCode::from(ended.unwrap_or_else(|not_started| {
            eprintln!("ibid: {not_started}");
            not_started.exit_code()
        }));
    }
    let words: Vec<_> = std::env::args_os().collect();
    let matches = Cli::command().try_get_matches_from(&words).unwrap_or_else(|error| exit_with(&error));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| exit_with(&error));
    let verbosity = match (cli.quiet, cli.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let ui = Ui::new(verbosity);
    let code = near_option::check(&words, &cli).and_then(|()| match &cli.command {
        Command::Build(build) => commands::build::main(&ui, &cli, build),
        Command::Run(run) => commands::run::main(&ui, &cli, run),
        Command::Dev(dev) => commands::dev::main(&ui, &cli, dev),
        Command::Exec(exec) => commands::exec::main(&ui, &cli, exec),
        Command::Attach(attach) => commands::attach::main(&ui, &cli, attach),
        Command::Ps(ps) => commands::ps::main(&ui, cli.quiet, ps),
        Command::Stop(stop) => commands::stop::main(&ui, &cli, stop),
        Command::Logs(logs) => commands::logs::main(&ui, &cli, logs),
        Command::Replay(replay) => commands::replay::main(&ui, &cli, replay),
        Command::Export(export) => commands::export::main(&ui, &cli, export),
        Command::Gc(gc) => commands::gc::main(&ui, &cli, gc),
        Command::Context(context) => commands::context::main(&ui, &cli, context),
        Command::Images(images) => commands::images::main(images),
        Command::Inspect(inspect) => commands::inspect::main(&ui, inspect),
        Command::Diff(diff) => commands::diff::main(&ui, &cli, diff),
        Command::Tag(tag) => commands::tag::main(&ui, tag),
        Command::Rmi(rmi) => commands::rmi::main(&ui, rmi),
        Command::Save(save) => commands::save::main(&ui, save),
        Command::Load(load) => commands::load::main(&ui, load),
        Command::Store(store) => commands::store::main(&ui, store),
        Command::Pull(pull) => commands::pull::main(&ui, pull),
        Command::Push(push) => commands::push::main(&ui, &cli, push),
        Command::Login(login) => commands::login::login(&ui, login),
        Command::Logout(logout) => commands::login::logout(&ui, logout),
        Command::Runs(runs) => commands::runs::main(&ui, &cli, runs),
        Command::Plot(plot) => commands::plot::main(&ui, &cli, plot),
        Command::Checkout(checkout) => commands::checkout::main(&ui, &cli, checkout),
        Command::TagRun(tag) => commands::marks::tag_run(&ui, &cli, tag),
        Command::Note(note) => commands::marks::note(&ui, &cli, note),
        Command::Rm(rm) => commands::rm::rm(&ui, &cli, rm),
        Command::Restore(restore) => commands::rm::restore(&ui, &cli, restore),
        Command::Show(show) => commands::show::main(&ui, &cli, show),
        Command::Doctor(doctor) => commands::doctor::main(&ui, doctor),
        Command::Init(init) => commands::init::main(&ui, &cli, init),
        Command::Eject(eject) => commands::eject::main(&ui, &cli, eject),
    });
    ExitCode::from(code.unwrap_or_else(|failure: Failure| failure.show(&ui)))
}

/// Help and version go to stdout with 0; a wrong command line is ibid's own failure.
fn exit_with(error: &clap::Error) -> ! {
    // A closed stdout or stderr leaves nobody to tell.
    let _ = error.print();
    std::process::exit(if error.use_stderr() { i32::from(EXIT_IBID_FAILED) } else { 0 })
}
