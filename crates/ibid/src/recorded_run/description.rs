//! A run as its record describes it: before there is a container, when there is one, and at its end.

use std::collections::BTreeMap;

use ibid_core::run::Mode;
use ibid_core::user::passwd_entries;
use ibid_engine::native::{self, Ended};
use ibid_engine::remote;
use ibid_ledger::parameters::parameters;
use ibid_ledger::record::{Code, CodeMode, EnvValue, Image, Mount, Record, SCHEMA, Status, Usage};
use ibid_ledger::secrets::Secrets;
use ibid_ledger::snapshot::Taken;
use ibid_ledger::{host, ledger, log};
use ibid_sandbox::{ExitStatus, MountKind, Spec};

use super::RecordedRun;
use crate::report::Failure;
use crate::settings;

impl RecordedRun<'_> {
    /// What is known before there is a container.
    pub(super) fn record(&self) -> Record {
        let mut warnings = Vec::new();
        let mut secrets = Secrets::new(&settings::secrets_key());
        let mut unsaid = |what: &str, error: &ledger::Error| {
            warnings.push(format!("{what} is not recorded: {}", Failure::of(error).summary()));
        };
        let mut env = BTreeMap::new();
        for (name, value) in self.env {
            match secrets.variable(name, value) {
                Ok(value) => drop(env.insert(name.clone(), value)),
                Err(error) => {
                    unsaid(&format!("the secret {name}"), &error);
                    env.insert(name.clone(), EnvValue::Secret { secret_hash: String::new() });
                }
            }
        }
        let (arguments, hidden) = secrets.arguments(self.arguments).unwrap_or_else(|error| {
            unsaid("what the program was given", &error);
            (Vec::new(), Vec::new())
        });
        warnings
            .extend(hidden.iter().map(|name| format!("the value of {name} is a secret and not recorded")));
        let pegged = self.pegged.as_ref();
        let commit = pegged.and_then(|pegged| pegged.commit.clone());
        Record {
            schema: SCHEMA,
            ibid: env!("CARGO_PKG_VERSION").to_owned(),
            id: self.id,
            status: Status::Running,
            started: log::now(),
            ended: None,
            seconds: None,
            exit_code: None,
            signal: None,
            failure: None,
            command: Vec::new(),
            parameters: parameters(&arguments),
            arguments,
            image: Image {
                digest: self.spec.image,
                tags: Vec::new(),
                pushed: Vec::new(),
                bases: self.bases.clone(),
                lock: None,
                layers: self.config.rootfs.diff_ids.iter().map(|layer| layer.0).collect(),
            },
            code: self.repetition.as_ref().map_or_else(
                || Code {
                    mode: match self.spec.code.mode {
                        Mode::Mounted => CodeMode::Mounted,
                        Mode::Pegged => CodeMode::Pegged,
                    },
                    folder: self.spec.code.folder.clone(),
                    snapshot: None,
                    commit: commit.as_ref().map(|commit| commit.id.clone()),
                    branch: None,
                    remote: None,
                    difference: None,
                    differing: commit.map(|commit| commit.differing).unwrap_or_default(),
                    equals_working_tree: pegged.and_then(|pegged| pegged.equals_working_tree),
                    changed_during_run: Vec::new(),
                    left_out: Vec::new(),
                },
                |repetition| repetition.code.clone(),
            ),
            env,
            mounts: Vec::new(),
            data: Vec::new(),
            options: self.options.clone(),
            host: host::host(self.user_name(), self.host.uid, &self.engine.text()),
            usage: None,
            outputs: Vec::new(),
            output_folder: self.output_folder.clone(),
            metrics: BTreeMap::new(),
            replay_of: self.repetition.as_ref().map(|repetition| repetition.of),
            warnings,
        }
    }

    fn user_name(&self) -> String {
        let uid = self.host.uid;
        let passwd = || std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let listed = |passwd: String| {
            passwd_entries(&passwd).find(|entry| entry.uid == uid).map(|entry| entry.name.to_owned())
        };
        self.host.name.clone().or_else(|| listed(passwd())).unwrap_or_else(|| uid.to_string())
    }

    /// What is known when the container is made.
    pub(super) fn describe(&self, record: &mut Record, sandbox: &Spec, taken: Option<&Taken>) {
        record.started = log::now();
        if self.repetition.is_none() {
            record.code.snapshot = taken.map(|taken| taken.digest);
            record.code.left_out = taken.map(|taken| taken.left_out.clone()).unwrap_or_default();
        }
        let mut secrets = Secrets::new(&settings::secrets_key());
        // A failure was told already, for the same arguments are in there.
        record.command = secrets.arguments(&sandbox.argv).map(|(command, _)| command).unwrap_or_default();
        record.mounts = sandbox
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Bind { source, read_only, .. } => Some(Mount {
                    source: match source.strip_prefix(&self.project.root) {
                        Ok(inner) if inner.as_os_str().is_empty() => ".".to_owned(),
                        Ok(inner) => inner.to_string_lossy().into_owned(),
                        Err(_) => source.to_string_lossy().into_owned(),
                    },
                    target: mount.target.clone(),
                    read_only: *read_only,
                }),
                _ => None,
            })
            .collect();
    }

    pub(super) fn note_end(&self, record: &mut Record, result: &Result<Ended, native::Error>, seconds: f64) {
        record.ended = Some(log::now());
        record.seconds = Some(seconds);
        match result {
            Ok(Ended { status, usage, .. }) => {
                record.status = if *status == ExitStatus::Code(0) { Status::Ok } else { Status::Failed };
                record.exit_code = Some(status.shell_code());
                record.signal = status.signal_text();
                record.usage = usage.map(|usage| Usage {
                    peak_memory: usage.peak_memory,
                    cpu_seconds: usage.cpu_micros as f64 / 1e6,
                });
            }
            Err(error) => {
                record.status = match error {
                    // It ran, and nobody knows how it ended.
                    native::Error::Sandbox(ibid_sandbox::Error::Lost { .. })
                    | native::Error::Remote(remote::Error::Connection { .. }) => Status::Failed,
                    _ => Status::NotStarted,
                };
                record.failure = Some(Failure::of(error).summary());
            }
        }
    }
}
