//! Performing `RUN`: the command in a sandbox over the layers so far, its writes in a draft's upper folder.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ibid_core::digest::DiffId;
use ibid_core::plan::{self, Run, SCRIPT_FOLDER};
use ibid_core::user::{self, User};
use ibid_sandbox::{ExitStatus, InjectedFile, Network, Overlay, Rootfs, Spec, Stdio, Upper};
use ibid_store::{CacheMounts, LayerDraft, MergedView, Store};

use crate::build::{Request, StepError};
use crate::cancel::Cancellation;
use crate::inputs::{Inputs, StageLayers};
use crate::mounts::StepMounts;

/// Lines kept for the report of a failure.
const OUTPUT_LINES_MAX: usize = 40;
/// Longest line, bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Largest `passwd` or `group` that is read, bytes.
const USER_FILE_BYTES_MAX: u64 = 16 << 20;
/// What a step is told its machine is called: the same everywhere, since steps write it down.
const HOSTNAME: &str = "ibid";

/// What the steps of a trial see otherwise: a time zone far away, as it needs no database, and a temporary folder
/// that every system has.
const TRIAL: [(&str, &str); 2] = [("TZ", "IBID-13:30"), ("TMPDIR", "/var/tmp")];

/// What a command is run with.
pub(crate) struct Site<'a> {
    pub(crate) store: &'a Store,
    pub(crate) request: &'a Request<'a>,
    /// The image so far.
    pub(crate) layers: &'a [DiffId],
    /// Takes what it writes.
    pub(crate) draft: &'a LayerDraft,
    /// What its mounts show.
    pub(crate) inputs: &'a Inputs,
    /// The layers of the stages that its mounts show.
    pub(crate) stages: &'a StageLayers<'a>,
    pub(crate) cache_mounts: &'a CacheMounts,
    pub(crate) cancellation: &'a Cancellation,
}

/// What is known of a command that has ended well.
pub(crate) struct Made {
    /// What was made only for its mounts.
    pub(crate) mount_points: Vec<PathBuf>,
    /// Whom it ran as.
    pub(crate) maker: (u32, u32),
}

/// Runs the command; every line it writes goes to `on_line` as it comes.
pub(crate) fn run(run: &Run, site: &Site, on_line: &(dyn Fn(&str) + Sync)) -> Result<Made, StepError> {
    let Site { store, request, layers, draft, cancellation, .. } = *site;
    let user = find_user(store, &run.user, layers)?;
    store.hold_owners(layers)?;
    let step_mounts = StepMounts::prepare(run, site, on_line)?;
    let mut env = run.env.clone();
    let is_set = |env: &[(String, String)], name: &str| env.iter().any(|(known, _)| known == name);
    let mut defaults = vec![
        ("HOME".to_owned(), user.home.clone()),
        // Tools that write the time of a build take it from here (reproducible-builds.org).
        ("SOURCE_DATE_EPOCH".to_owned(), request.epoch.to_string()),
        ("PYTHONHASHSEED".to_owned(), "0".to_owned()),
        ("UV_NO_INSTALLER_METADATA".to_owned(), "1".to_owned()),
    ];
    defaults.extend(step_mounts.agent.iter().map(|target| ("SSH_AUTH_SOCK".to_owned(), target.clone())));
    if request.is_trial {
        defaults.extend(TRIAL.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    defaults.extend(request.trust.env.iter().cloned());
    for (name, value) in defaults {
        if !is_set(&env, &name) {
            env.push((name, value));
        }
    }
    env.retain(|(name, _)| !is_set(&step_mounts.env, name));
    env.extend(step_mounts.env.iter().cloned());
    let mut files = request.trust.files.clone();
    files.extend(ibid_sandbox::trust::network_files(HOSTNAME));
    // What a mount hides stays hidden.
    let is_hidden = |path: &str| {
        let mut mounts = step_mounts.mounts.iter();
        mounts.any(|mount| Path::new(path).starts_with(&mount.target))
    };
    files.retain(|file| !is_hidden(&file.target));
    if let Some(script) = &run.script {
        files.push(InjectedFile {
            target: format!("{SCRIPT_FOLDER}/{}", script.name),
            content: script.content.clone().into_bytes(),
            mode: 0o755,
        });
    }
    let spec = Spec {
        mounts: request.trust.mounts.iter().chain(&step_mounts.mounts).cloned().collect(),
        files,
        env,
        cwd: run.cwd.clone(),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        hostname: HOSTNAME.to_owned(),
        keeps_owners: true,
        network: match run.network {
            // A step's default network is the host's: there is no other, and it needs no root.
            plan::Network::Default | plan::Network::Host => Network::Host,
            plan::Network::None => Network::None,
        },
        ..Spec::new(Rootfs::Overlay(writable(store.lowers(layers), draft)), run.argv.clone())
    };
    let pipe = || {
        let (reader, writer) = std::io::pipe()?;
        Ok((reader, OwnedFd::from(writer.try_clone()?), OwnedFd::from(writer)))
    };
    let (output, stdout, stderr) = pipe().map_err(|source| ibid_sandbox::Error::Setup {
        step: "make a pipe for the command's output".to_owned(),
        path: None,
        source,
    })?;
    let nothing = std::fs::File::open("/dev/null").map_err(|source| ibid_sandbox::Error::Setup {
        step: "open".to_owned(),
        path: Some("/dev/null".into()),
        source,
    })?;
    let stdio = Stdio { stdin: Some(nothing.into()), stdout: Some(stdout), stderr: Some(stderr) };
    let status = std::thread::scope(|scope| {
        let running = ibid_sandbox::spawn(&spec, stdio)?;
        let _watched = cancellation.watch(running.handle());
        let reader = scope.spawn(|| read_lines(output, on_line));
        let status = running.attend();
        let lines = reader.join().expect("the reader does not panic");
        status.map(|status| (status, lines))
    });
    match status? {
        (ExitStatus::Code(0), _) => {
            Ok(Made { mount_points: step_mounts.mount_points, maker: (user.uid, user.gid) })
        }
        (status, output) => {
            if let Some(before) = request.shell_on_fail
                && !cancellation.is_cancelled()
                && !is_interruption(status)
            {
                // What other stages write would come between.
                cancellation.cancel();
                before();
                shell(store, layers, draft, spec)?;
            }
            Err(StepError::Command { status, output })
        }
    }
}

/// Whether the person, or the system, ended the command.
fn is_interruption(status: ExitStatus) -> bool {
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    matches!(status, ExitStatus::Signal(SIGINT | SIGTERM))
}

/// A shell on this process's terminal, where and as whom the command ran.
fn shell(store: &Store, layers: &[DiffId], draft: &LayerDraft, spec: Spec) -> Result<(), StepError> {
    // Left by a mount without syncs, it refuses a second one (kernel documentation, overlayfs.rst, "Volatile mount").
    // Nothing was lost: the machine has not gone down since.
    let mark = draft.work().join("work/incompat/volatile");
    match std::fs::remove_dir_all(&mark) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(StepError::Read { path: mark.display().to_string(), source });
        }
        _ => {}
    }
    let view = MergedView::new([vec![draft.upper().to_owned()], store.lowers(layers)].concat());
    let has_bash = matches!(view.find(Path::new("/bin/bash")), Ok(Some(ibid_store::Found::Other(_))));
    let program = if has_bash { "/bin/bash" } else { "/bin/sh" };
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let mut spec = Spec { argv: vec![program.to_owned()], terminal: true, ..spec };
    spec.env.push(("TERM".to_owned(), term));
    ibid_sandbox::run(&spec, Stdio::default())?;
    Ok(())
}

/// `lowers` under the draft's upper folder. The store syncs what it commits, so the overlay need not.
pub(crate) fn writable(lowers: Vec<PathBuf>, draft: &LayerDraft) -> Overlay {
    Overlay {
        lowers,
        upper: Some(Upper { upper: draft.upper().to_owned(), work: draft.work().to_owned() }),
        volatile: true,
    }
}

/// The user that a text of `USER` means in the image so far.
pub(crate) fn find_user(store: &Store, text: &str, layers: &[DiffId]) -> Result<User, StepError> {
    let view = MergedView::new(store.layer_trees(layers));
    Ok(user::resolve(text, &read_text(&view, "/etc/passwd")?, &read_text(&view, "/etc/group")?)?)
}

/// The ids that `--chown` means. Without a group, the group has the user's number, as Docker has it.
pub(crate) fn owner(store: &Store, text: &str, layers: &[DiffId]) -> Result<(u32, u32), StepError> {
    let user = find_user(store, text, layers)?;
    let is_number = text.parse::<u32>().is_ok();
    Ok((user.uid, if is_number { user.uid } else { user.gid }))
}

fn read_text(view: &MergedView, path: &str) -> Result<String, StepError> {
    let content = view
        .read(Path::new(path), USER_FILE_BYTES_MAX)
        .map_err(|source| StepError::Read { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
}

/// Reads until the last writer is gone. What a carriage return overwrites is dropped, as a terminal would
/// show it: of a progress bar, only its end is a line.
fn read_lines(mut output: impl Read, on_line: &dyn Fn(&str)) -> Vec<String> {
    let mut last: VecDeque<String> = VecDeque::new();
    let mut emit = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        on_line(&line);
        if last.len() == OUTPUT_LINES_MAX {
            last.pop_front();
        }
        last.push_back(line.into_owned());
    };
    let mut pending = Vec::new();
    let mut returned = false;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        for &byte in &buffer[..length] {
            match byte {
                b'\n' => {
                    emit(&pending);
                    pending.clear();
                }
                b'\r' => {
                    returned = true;
                    continue;
                }
                byte => {
                    // A line without end is cut: output must not fill the memory.
                    if pending.len() >= LINE_BYTES_MAX {
                        emit(&pending);
                        pending.clear();
                    } else if returned {
                        pending.clear();
                    }
                    pending.push(byte);
                }
            }
            returned = false;
        }
    }
    if !pending.is_empty() {
        emit(&pending);
    }
    last.into()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn output_becomes_lines_as_a_terminal_shows_them() {
        let check = |output: &[u8], expected: &[&str]| {
            let lines = RefCell::new(Vec::new());
            let last = read_lines(output, &|line| lines.borrow_mut().push(line.to_owned()));
            assert_eq!(lines.into_inner(), expected, "{output:?}");
            assert_eq!(last, expected, "{output:?}");
        };
        check(b"", &[]);
        check(b"a\nb", &["a", "b"]);
        check(b"a\r\n\nb\r\n", &["a", "", "b"]);
        check(b"5%\r10%\r100%\ndone\n", &["100%", "done"]);
        check(b"5%\r", &["5%"]);
        check(b"\xff\n", &["\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_only_the_last_lines_are_kept() {
        let long = vec![b'x'; 2 * LINE_BYTES_MAX + 1];
        assert_eq!(read_lines(&long[..], &|_| ()).len(), 3);
        let many = "x\n".repeat(OUTPUT_LINES_MAX + 5);
        assert_eq!(read_lines(many.as_bytes(), &|_| ()).len(), OUTPUT_LINES_MAX);
    }
}
