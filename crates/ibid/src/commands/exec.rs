//! `ibid exec`: another program in a run that is going on.

use std::io::IsTerminal as _;

use ibid_core::user;
use ibid_engine::live::LiveRun;
use ibid_sandbox::{Another, Error, Stdio};

use crate::args::Cli;
use crate::live_args::Exec;
use crate::live_runs;
use crate::report::Failure;
use crate::ui::Ui;

pub fn main(ui: &Ui, cli: &Cli, exec: &Exec) -> Result<u8, Failure> {
    let argv = exec.command.iter().map(|word| {
        word.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Failure::new(format!("the argument {word:?} is not UTF-8")))
    });
    let argv = argv.collect::<Result<_, _>>()?;
    let run = live_runs::find(ui, cli.directory.as_deref(), &exec.run)?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut another = Another { argv, terminal, cwd: exec.workdir.clone(), ..Another::default() };
    if terminal && run.container.variable("TERM").is_none() {
        another.env.push(("TERM".to_owned(), std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned())));
    }
    let wanted = exec.user.as_deref().or(exec.root.then_some("0:0"));
    if let Some(wanted) = wanted {
        become_user(&run, wanted, &mut another)?;
    }
    for text in &exec.env {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            return Err(Failure::new(format!("`--env {text}`: expected NAME or NAME=VALUE")));
        }
        // As in `ibid run`, a name that the host does not have is not set.
        another.env.extend(value.map(|value| (name.to_owned(), value)));
    }
    let status = ibid_sandbox::enter(&run.container, &another, Stdio::default());
    Ok(status.map_err(|error| failure(&run, &error, wanted))?.shell_code())
}

/// Who the program is to be, as the files that the run sees name users.
fn become_user(run: &LiveRun, wanted: &str, another: &mut Another) -> Result<(), Failure> {
    let text = |path: &str| match run.container.read(path) {
        Ok(content) => Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned()),
        Err(error) => Err(failure(run, &error, Some(wanted))),
    };
    let user = user::resolve(wanted, &text("/etc/passwd")?, &text("/etc/group")?)
        .map_err(|error| Failure::of(&error))?;
    another.env.push(("HOME".to_owned(), user.home));
    another.env.push(("USER".to_owned(), user.name.unwrap_or_else(|| "user".to_owned())));
    another.user = Some((user.uid, user.gid, user.groups));
    Ok(())
}

fn failure(run: &LiveRun, error: &Error, wanted: Option<&str>) -> Failure {
    let failure = Failure::of(error).code(error.exit_code());
    match error {
        Error::Ended => failure.while_doing(format!("cannot enter run {}", run.id)),
        Error::Invalid { .. } if wanted.is_some() && run.container.only_id() => {
            let (uid, gid) = run.container.user();
            failure.hint(format!(
                "without subordinate ids, a run has one user: `ibid run --user` chooses it, and this one's is {uid}:{gid}"
            ))
        }
        Error::Setup { step, .. } if step == "join the run's control group" => failure.hint(
            "the limits of the run are to hold for this program too: start it from the same session as the run",
        ),
        _ => match error.mend() {
            Some(mend) => failure.hint(mend),
            None => failure,
        },
    }
}
