//! A word that is nearly an option of ibid's is a slip, not an argument for the program: `--peged`.

use std::ffi::OsString;

use clap::CommandFactory as _;

use crate::args::{Cli, Command};
use crate::report::Failure;

/// Looks at the word that starts the program's arguments, unless `--` stands before it.
pub fn check(words: &[OsString], cli: &Cli) -> Result<(), Failure> {
    let Command::Run(run) = &cli.command else { return Ok(()) };
    let Some(first) = run.args.first().and_then(|word| word.to_str()) else { return Ok(()) };
    let position = words.len() - run.args.len();
    if position > 0 && words[position - 1] == "--" {
        return Ok(());
    }
    let name = first.split('=').next().unwrap_or(first);
    let known = Cli::command();
    let command = known.find_subcommand("run").expect("run is a command");
    let options =
        command.get_arguments().chain(known.get_arguments()).filter_map(|argument| argument.get_long());
    match nearest(name, options) {
        Some(option) => Err(Failure::new(format!("`{name}` is no option of `ibid run`, but nearly one"))
            .hint(format!(
                "did you mean `--{option}`? To give the program `{name}`: `ibid run -- {first} …`"
            ))),
        None => Ok(()),
    }
}

/// The option that a word was probably meant to be: one slip in a short word, two in a longer one.
fn nearest<'a>(word: &str, options: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.strip_prefix("--")?;
    options
        .map(|option| (strsim::osa_distance(word, option), option))
        .filter(|(distance, option)| *distance > 0 && *distance <= if option.len() > 5 { 2 } else { 1 })
        .min()
        .map(|(_, option)| option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_from_arguments() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(
                nearest(word, ["pegged", "env", "no-host-trust", "quiet"].into_iter()),
                expected,
                "{word}"
            );
        };
        check("--peged", Some("pegged"));
        check("--pgeged", Some("pegged"));
        check("--evn", Some("env"));
        check("--no-host-turst", Some("no-host-trust"));
        check("--n-epochs", None);
        check("--seed", None);
        check("peged", None);
        check("-x", None);
        check("--", None);
    }
}
