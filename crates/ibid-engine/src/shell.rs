//! The shell of a session: which one, and what makes it comfortable on a terminal.

use std::path::{Path, PathBuf};

use ibid_core::image::ContainerConfig;
use ibid_store::{Found, MergedView};

use crate::identity::Identity;
use crate::native::{Error, io};

/// Where shells keep what was typed: a folder, as some of them write a new file and give it the old one's name.
pub(crate) const HISTORY_TARGET: &str = "/run/ibid/history";

/// As many lines does zsh keep, which keeps none unless it is told.
const LINES: &str = "10000";

/// The image's choice of a shell: its `SHELL` variable, bash where it has one, the user's login shell.
pub(crate) fn choose(
    config: &ContainerConfig,
    view: &MergedView,
    identity: &Identity,
) -> Result<String, Error> {
    let of_image = config.env.iter().find_map(|pair| pair.strip_prefix("SHELL="));
    let of_user = identity
        .user
        .shell
        .as_deref()
        .filter(|shell| !shell.ends_with("nologin") && !shell.ends_with("/false"));
    for shell in of_image.into_iter().chain(["/bin/bash"]).chain(of_user) {
        if let Some(Found::Other(_)) = view.find(Path::new(shell)).map_err(io("read", Path::new(shell)))? {
            return Ok(shell.to_owned());
        }
    }
    Ok("/bin/sh".to_owned())
}

/// Variables that give `program` a prompt and a history, if it is a shell. What the image's own start files say comes later and wins.
pub(crate) fn environment(
    program: &str,
    view: &MergedView,
    is_root: bool,
    has_history: bool,
) -> Vec<(&'static str, String)> {
    let mark = if is_root { '#' } else { '$' };
    let (prompt, history) = match family(&real_name(program, view)) {
        Some(Family::Bash) => (r"\u@\h:\w\$ ".to_owned(), "bash"),
        // Of the same letters, busybox knows these.
        Some(Family::Busybox) => (r"\u@\h:\w\$ ".to_owned(), "sh"),
        Some(Family::Zsh) => ("%n@%m:%~%(!.#.$) ".to_owned(), "zsh"),
        Some(Family::Plain) => (format!("$USER@$HOSTNAME:$PWD{mark} "), "sh"),
        None => return Vec::new(),
    };
    let mut variables = vec![("PS1", prompt)];
    if has_history {
        variables.push(("HISTFILE", format!("{HISTORY_TARGET}/{history}")));
        if history == "zsh" {
            variables.extend(["HISTSIZE", "SAVEHIST"].map(|name| (name, LINES.to_owned())));
        }
    }
    variables
}

#[derive(Debug, PartialEq, Eq)]
enum Family {
    Bash,
    Busybox,
    Zsh,
    /// Only what POSIX says of a prompt.
    Plain,
}

fn family(name: &str) -> Option<Family> {
    match name {
        "bash" => Some(Family::Bash),
        "busybox" | "ash" => Some(Family::Busybox),
        "zsh" => Some(Family::Zsh),
        "sh" | "dash" | "ksh" | "ksh93" | "mksh" | "yash" | "posh" => Some(Family::Plain),
        _ => None,
    }
}

/// What a program is behind links, as `/bin/sh` is often one.
fn real_name(program: &str, view: &MergedView) -> String {
    let place = match program.starts_with('/') {
        true => view.place(Path::new(program)).ok().flatten().map(|place| place.path),
        false => None,
    };
    let path = place.unwrap_or_else(|| PathBuf::from(program));
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn prompts_are_in_the_language_of_the_shell() {
        let layer = tempfile::tempdir().expect("a folder");
        fs::create_dir(layer.path().join("bin")).expect("a folder");
        for program in ["bash", "busybox", "dash", "zsh", "python3"] {
            fs::write(layer.path().join("bin").join(program), "").expect("a file");
        }
        symlink("busybox", layer.path().join("bin/sh")).expect("a link");
        symlink("/bin/dash", layer.path().join("bin/ash")).expect("a link");
        let view = MergedView::new(vec![layer.path().to_owned()]);
        let check = |program: &str, is_root: bool, prompt: &str, history: &str| {
            let variables = environment(program, &view, is_root, true);
            assert_eq!(variables[0], ("PS1", prompt.to_owned()), "{program}");
            assert_eq!(variables[1], ("HISTFILE", format!("/run/ibid/history/{history}")), "{program}");
        };
        check("/bin/bash", false, r"\u@\h:\w\$ ", "bash");
        check("bash", false, r"\u@\h:\w\$ ", "bash");
        check("/bin/sh", false, r"\u@\h:\w\$ ", "sh");
        check("/bin/ash", false, "$USER@$HOSTNAME:$PWD$ ", "sh");
        check("/bin/dash", true, "$USER@$HOSTNAME:$PWD# ", "sh");
        check("/bin/zsh", false, "%n@%m:%~%(!.#.$) ", "zsh");
        assert!(environment("/bin/python3", &view, false, true).is_empty());
        assert_eq!(environment("/bin/zsh", &view, false, false).len(), 1);
    }
}
