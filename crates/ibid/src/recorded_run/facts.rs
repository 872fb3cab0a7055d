//! What is found out of a run while its program runs.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use ibid_core::digest::Digest;
use ibid_ledger::code::{self, CodeIdentity};
use ibid_ledger::data;
use ibid_ledger::ledger::Ledger;
use ibid_ledger::record::{Data, Record};
use ibid_ledger::recording::Recording;
use ibid_ledger::snapshot::{self, Taken};

use super::RecordedRun;
use crate::lock::LOCK_FILE;
use crate::pushed_names;
use crate::report::Failure;

/// How long a program must run for what is found out meanwhile to be written before its end.
const SHORT_RUN: Duration = Duration::from_millis(100);

/// What is found out while the program runs.
pub(super) struct Facts {
    identity: Option<CodeIdentity>,
    difference: Option<Digest>,
    tags: Vec<String>,
    pushed: Vec<String>,
    lock: Option<Digest>,
    data: Vec<Data>,
    warnings: Vec<String>,
}

impl RecordedRun<'_> {
    pub(super) fn facts(&self, ledger: &Ledger) -> Facts {
        let root = &self.project.root;
        let mut warnings = Vec::new();
        let no_code: Vec<PathBuf> =
            [&self.spec.data[..], &self.spec.outputs].concat().iter().map(PathBuf::from).collect();
        let is_known = self.pegged.is_some() || self.repetition.is_some();
        let identity = (!is_known).then(|| CodeIdentity::of(root, &no_code));
        let differs = identity
            .as_ref()
            .and_then(CodeIdentity::checkout)
            .is_some_and(|checkout| checkout.commit.is_some() && !checkout.differing.is_empty());
        let difference = differs.then(|| code::difference(root, &no_code)).flatten();
        let difference = difference.and_then(|text| match snapshot::keep(ledger, &text) {
            Ok(digest) => Some(digest),
            Err(error) => {
                let cause = Failure::of(&error).summary();
                warnings.push(format!("the difference from the commit is not recorded: {cause}"));
                None
            }
        });
        let data_from = self.spec.data_from.as_ref().unwrap_or(root);
        let tags = self.store.tags().unwrap_or_default();
        let data = self
            .spec
            .data
            .iter()
            .filter_map(|path| {
                data::identify(ledger, data_from, path, self.digest_data).unwrap_or_else(|error| {
                    let cause = Failure::of(&error).summary();
                    warnings.push(format!("the data in {path} is not recorded: {cause}"));
                    None
                })
            })
            .collect();
        Facts {
            identity,
            difference,
            tags: tags
                .into_iter()
                .filter(|(_, image)| *image == self.spec.image)
                .map(|(name, _)| name.to_string())
                .collect(),
            pushed: pushed_names::of(self.store, &self.spec.image),
            lock: std::fs::read(root.join(LOCK_FILE)).ok().map(|text| Digest::of(&text)),
            data,
            warnings,
        }
    }

    /// Puts what is found out into what says how the run started, in case nobody sees its end.
    pub(super) fn add_to_start(
        &self,
        facts: &Facts,
        (mut record, taken): (Record, Option<Taken>),
        until_end: &Receiver<(Record, Option<Taken>)>,
        recording: &OnceLock<Recording>,
    ) {
        if let Some(mut taken) = taken
            && let Err(error) = taken.settle()
        {
            self.warn("the code of this run may not be kept", &error);
        }
        // Of a short run, the record says it soon.
        if matches!(until_end.recv_timeout(SHORT_RUN), Err(RecvTimeoutError::Disconnected)) {
            return;
        }
        facts.fill(&mut record);
        if let Some(recording) = recording.get() {
            // Where this fails, the first version stays.
            let _ = recording.started(&record);
        }
    }

    /// Which code ran, as people name it.
    pub(super) fn code(&self, facts: &Facts) -> String {
        match (&facts.identity, &self.pegged) {
            (Some(identity), _) => format!("code mounted, {identity}"),
            (None, Some(pegged)) => format!("code pegged, {}", pegged.text),
            (None, None) => "code pegged".to_owned(),
        }
    }
}

impl Facts {
    pub(super) fn fill(&self, record: &mut Record) {
        if let Some(checkout) = self.identity.as_ref().and_then(CodeIdentity::checkout) {
            record.code.commit = checkout.commit.as_ref().map(|commit| commit.full().to_owned());
            record.code.branch.clone_from(&checkout.branch);
            record.code.remote.clone_from(&checkout.remote);
            record.code.difference = self.difference;
            record.code.differing =
                checkout.differing.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        }
        record.image.tags.clone_from(&self.tags);
        record.image.pushed.clone_from(&self.pushed);
        record.image.lock = self.lock;
        record.data.clone_from(&self.data);
        record.warnings.extend(self.warnings.iter().cloned());
    }
}
