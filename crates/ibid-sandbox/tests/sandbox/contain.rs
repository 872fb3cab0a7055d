//! The command line of `examples/contain.rs`, which the tests use too, to run as another user.

use std::path::PathBuf;
use std::process::ExitCode;

use ibid_sandbox::{
    IdMap, InjectedFile, Mount, MountKind, Network, Overlay, Rootfs, Spec, Stdio, Tmpfs, Upper, run, userns,
};

/// Runs what `arguments` say; the exit code is the program's.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    if let Err(error) = userns::ensure() {
        eprintln!("contain: {error:?}");
        return ExitCode::from(125);
    }
    let spec = match parse(arguments) {
        Ok(spec) => spec,
        Err(what) => {
            eprintln!("contain: {what}");
            return ExitCode::from(125);
        }
    };
    match run(&spec, Stdio::default()) {
        Ok(status) => ExitCode::from(status.shell_code()),
        Err(error) => {
            eprintln!("contain: {error:?}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Spec, String> {
    let mut spec = Spec::new(Rootfs::Folder(PathBuf::new()), Vec::new());
    (spec.uid, spec.gid) = userns::host_ids();
    spec.env = vec![("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())];
    let mut lowers = Vec::new();
    let (mut upper, mut work, mut idmap) = (None, None, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        let pair = |text: String, by| {
            text.split_once(by)
                .map(|(left, right)| (left.to_owned(), right.to_owned()))
                .ok_or(format!("no {by} in {text}"))
        };
        match argument.as_str() {
            "--folder" => spec.rootfs = Rootfs::Folder(value()?.into()),
            "--lower" => lowers.push(value()?.into()),
            "--upper" => upper = Some(value()?.into()),
            "--work" => work = Some(value()?.into()),
            "--idmap" => {
                let numbers: Vec<u32> =
                    value()?.split(':').filter_map(|number| number.parse().ok()).collect();
                let [host_uid, container_uid, host_gid, container_gid] = numbers[..] else {
                    return Err("--idmap wants four numbers".to_owned());
                };
                idmap = Some(IdMap { host_uid, container_uid, host_gid, container_gid });
            }
            "--bind" | "--bind-read-only" => {
                let (source, target) = pair(value()?, ':')?;
                let read_only = argument.ends_with("only");
                let kind = MountKind::Bind { source: source.into(), read_only, idmap: idmap.take() };
                spec.mounts.push(Mount { target, kind });
            }
            "--tmpfs" => {
                spec.mounts
                    .push(Mount { target: value()?, kind: MountKind::Tmpfs(Tmpfs::new(None, 0o1777)) });
            }
            "--file" => {
                let (target, content) = pair(value()?, '=')?;
                spec.files.push(InjectedFile { target, content: content.into_bytes(), mode: 0o644 });
            }
            "--secret" => {
                let (target, content) = pair(value()?, '=')?;
                let kind =
                    MountKind::File { content: content.into_bytes(), uid: spec.uid, gid: 0, mode: 0o400 };
                spec.mounts.push(Mount { target, kind });
            }
            "--env" => spec.env.push(pair(value()?, '=')?),
            "--cwd" => spec.cwd = value()?,
            "--uid" => spec.uid = value()?.parse().map_err(|_| "--uid wants a number")?,
            "--gid" => spec.gid = value()?.parse().map_err(|_| "--gid wants a number")?,
            "--hostname" => spec.hostname = value()?,
            "--terminal" => spec.terminal = true,
            "--no-network" => spec.network = Network::None,
            "--read-only" => spec.read_only = true,
            _ => {
                spec.argv = std::iter::once(argument).chain(arguments.by_ref()).collect();
            }
        }
    }
    if !lowers.is_empty() {
        let upper = upper.zip(work).map(|(upper, work)| Upper { upper, work });
        spec.rootfs = Rootfs::Overlay(Overlay { lowers, upper, volatile: true });
    }
    Ok(spec)
}
