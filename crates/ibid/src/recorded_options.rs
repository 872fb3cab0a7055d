//! The options of a run as its record has them, and the way back: each by its name on the command line, with paths made absolute.
//! An option that was given several times has its values in lines.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser;
use ibid_core::gpus::{GpuRequest, InvalidGpuRequest};
use ibid_core::run::SecurityOption;

use crate::project::clean;
use crate::report::Failure;
use crate::run_options::{LimitsChoice, NetworkChoice, RunOptions};

/// Options by name; flags have no value.
pub type RecordedOptions = BTreeMap<String, String>;

/// Those that give a run something of this machine, or more rights: a run from elsewhere does not get them.
const OF_THIS_MACHINE: [&str; 4] = ["volume", "cap-add", "security-opt", "publish"];

/// What was given on the command line. Variables are recorded apart, and how much is said is no matter.
pub fn recorded(options: &RunOptions, gpus: Option<&GpuRequest>, directory: &Path) -> RecordedOptions {
    let mut recorded = RecordedOptions::new();
    let mut set = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            recorded.insert(name.to_owned(), values.join("\n"));
        }
    };
    let absolute = |path: &str| {
        let path = directory.join(path);
        clean(&std::path::absolute(&path).unwrap_or(path)).display().to_string()
    };
    let volume = |text: &String| match text.split_once(':') {
        Some((source, rest)) => format!("{}:{rest}", absolute(source)),
        None => text.clone(),
    };
    let security = |text: &String| match SecurityOption::parse(text) {
        Ok(SecurityOption::SeccompFile(path)) => format!("seccomp={}", absolute(&path.to_string_lossy())),
        _ => text.clone(),
    };
    let flag = |is_set: bool| if is_set { vec![String::new()] } else { Vec::new() };
    let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
    set(
        "gpus",
        gpus.filter(|gpus| **gpus != GpuRequest::None).map(GpuRequest::to_string).into_iter().collect(),
    );
    set("volume", options.volumes.iter().map(volume).collect());
    set("tmpfs", options.tmpfs.clone());
    set("user", one(&options.user));
    set("root", flag(options.root));
    set("workdir", one(&options.workdir));
    set("entrypoint", one(&options.entrypoint));
    set("read-only", flag(options.read_only));
    set("shm-size", one(&options.shm_size));
    set("hostname", one(&options.hostname));
    set(
        "network",
        match options.network {
            NetworkChoice::Host => Vec::new(),
            NetworkChoice::None => vec!["none".to_owned()],
            NetworkChoice::Private => vec!["private".to_owned()],
        },
    );
    set("publish", options.publish.clone());
    set("cap-add", options.cap_add.clone());
    set("cap-drop", options.cap_drop.clone());
    set("security-opt", options.security_options.iter().map(security).collect());
    set("ulimit", options.ulimits.clone());
    set("cpus", one(&options.cpus));
    set("memory", one(&options.memory));
    set("pids", one(&options.pids));
    set(
        "limits",
        match options.limits {
            LimitsChoice::Strict => Vec::new(),
            LimitsChoice::BestEffort => vec!["best-effort".to_owned()],
        },
    );
    recorded
}

/// The GPUs that were asked for.
pub fn gpus_of(recorded: &RecordedOptions) -> Result<Option<GpuRequest>, Failure> {
    let gpus = recorded.get("gpus").map(|text| text.parse()).transpose();
    gpus.map_err(|error: InvalidGpuRequest| Failure::of(&error).while_doing("the GPUs of the recorded run"))
}

/// The other options again.
pub fn options_of(recorded: &RecordedOptions) -> Result<RunOptions, Failure> {
    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Words {
        #[command(flatten)]
        options: RunOptions,
    }
    let mut words = vec!["run".to_owned()];
    for (name, values) in recorded.iter().filter(|(name, _)| *name != "gpus") {
        let flag = name == "root" || name == "read-only";
        words.extend(values.split('\n').map(|value| match flag {
            true => format!("--{name}"),
            false => format!("--{name}={value}"),
        }));
    }
    let words = Words::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Failure::new(format!("an option of the recorded run cannot be repeated: {line}"))
    })?;
    Ok(words.options)
}

/// The first option that a run from elsewhere does not get here.
pub fn of_this_machine(recorded: &RecordedOptions) -> Option<&str> {
    OF_THIS_MACHINE.into_iter().find(|name| recorded.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    struct Given {
        #[command(flatten)]
        options: RunOptions,
    }

    #[track_caller]
    fn check(words: &[&str], expected: &[(&str, &str)]) {
        let given = Given::try_parse_from([&["run"], words].concat()).expect("options").options;
        let found = recorded(&given, None, Path::new("/p"));
        let expected: RecordedOptions =
            expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(found, expected);
        // What comes back is recorded as the same, wherever the person is then.
        let again = options_of(&found).unwrap_or_else(|_| panic!("{words:?}"));
        assert_eq!(recorded(&again, None, Path::new("/elsewhere")), expected);
    }

    #[test]
    fn options_are_recorded_and_come_back() {
        check(&[], &[]);
        check(&["--verbose", "--env-file", "x", "--network", "host"], &[]);
        check(&["--root", "--read-only"], &[("root", ""), ("read-only", "")]);
        check(
            &["-v", "data:/data:ro", "-v", "/x:/y", "--security-opt", "seccomp=a.json"],
            &[("volume", "/p/data:/data:ro\n/x:/y"), ("security-opt", "seccomp=/p/a.json")],
        );
        check(
            &[
                "--tmpfs=/t:size=1m,exec",
                "-u",
                "1:2",
                "-w",
                "/w",
                "--entrypoint=",
                "--shm-size=1g",
                "--hostname=h",
                "--network=private",
                "-p",
                "80:80",
                "--cap-add=A,B",
                "--cap-drop=ALL",
                "--ulimit=nofile=1:2",
                "--cpus=1.5",
                "-m",
                "1g",
                "--pids=9",
                "--limits=best-effort",
                "--security-opt=no-new-privileges",
            ],
            &[
                ("tmpfs", "/t:size=1m,exec"),
                ("user", "1:2"),
                ("workdir", "/w"),
                ("entrypoint", ""),
                ("shm-size", "1g"),
                ("hostname", "h"),
                ("network", "private"),
                ("publish", "80:80"),
                ("cap-add", "A\nB"),
                ("cap-drop", "ALL"),
                ("ulimit", "nofile=1:2"),
                ("cpus", "1.5"),
                ("memory", "1g"),
                ("pids", "9"),
                ("limits", "best-effort"),
                ("security-opt", "no-new-privileges"),
            ],
        );
    }

    #[test]
    fn gpus_come_back() {
        for text in ["all", "2", "device=0,GPU-1a", "nvidia.com/gpu=0,amd.com/gpu=all"] {
            let request: GpuRequest = text.parse().expect(text);
            let found = recorded(&RunOptions::default(), Some(&request), Path::new("/p"));
            assert_eq!(found, RecordedOptions::from([("gpus".to_owned(), text.to_owned())]));
            assert_eq!(gpus_of(&found).ok().flatten(), Some(request));
            assert!(options_of(&found).is_ok());
        }
        let none = recorded(&RunOptions::default(), Some(&GpuRequest::None), Path::new("/p"));
        assert_eq!(gpus_of(&none).ok().flatten(), None);
    }

    #[test]
    fn what_a_later_ibid_records_is_an_error() {
        let recorded = RecordedOptions::from([("gravity".to_owned(), "2".to_owned())]);
        assert!(options_of(&recorded).is_err());
        assert_eq!(of_this_machine(&recorded), None);
        assert_eq!(
            of_this_machine(&RecordedOptions::from([("volume".to_owned(), "/:/h".to_owned())])),
            Some("volume")
        );
    }
}
