//! Why a repeated run gave something else, as far as the evidence goes: what the two records say, and how further tries went.

use serde::Serialize;

use crate::record::{EnvValue, Gpu, Record};
use crate::verdict::Verdict;

/// A likely cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Of which kind.
    pub kind: Kind,
    /// What speaks for it.
    pub evidence: String,
}

/// The kinds of causes, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The code that is recorded is not all that ran.
    Code,
    /// An input is not what it was.
    Data,
    /// The image is not the recorded one.
    Image,
    /// A variable is not what it was.
    Environment,
    /// A limit or another option is not what it was.
    Options,
    /// The run differs from itself: time, or randomness without a seed.
    Unseeded,
    /// What comes over the network has its part in the result.
    Network,
    /// Other graphics processors, or another driver.
    Gpu,
    /// Another processor.
    Cpu,
    /// Another number of processors, and so of threads.
    Threads,
    /// Another kernel.
    Kernel,
}

/// What became of further tries, where the replay gave something else.
#[derive(Debug, Clone, Default)]
pub struct Tries {
    /// The replay, tried once more, compared with the first replay.
    pub again: Option<Verdict>,
    /// The replay without network, compared with the first replay.
    pub without_network: Option<Verdict>,
}

/// The likely causes, the most telling first. Empty when nothing speaks for any.
pub fn likely(first: &Record, second: &Record, tries: &Tries) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut add = |kind, evidence: String| causes.push(Cause { kind, evidence });
    if !first.code.changed_during_run.is_empty() {
        let files = listed(&first.code.changed_during_run);
        add(Kind::Code, format!("{files} changed while the recorded run was going"));
    }
    if !first.code.left_out.is_empty() {
        let files = listed(&first.code.left_out);
        add(Kind::Code, format!("the snapshot leaves out {files}, which the recorded run could read"));
    }
    if first.code.snapshot != second.code.snapshot {
        add(Kind::Code, "the code is another".to_owned());
    }
    add_data(first, second, &mut add);
    if first.image.digest != second.image.digest {
        add(Kind::Image, format!("image {} instead of {}", second.image.digest, first.image.digest));
    }
    add_environment(first, second, &mut add);
    for (name, value) in &first.options {
        match second.options.get(name) {
            Some(now) if now == value => {}
            now => add(
                Kind::Options,
                format!("{name} is {} instead of {value}", now.map_or("not set", |now| now)),
            ),
        }
    }
    for (name, now) in second.options.iter().filter(|(name, _)| !first.options.contains_key(*name)) {
        add(Kind::Options, format!("{name} is {now}, and was not set"));
    }
    if let Some(again) =
        tries.again.as_ref().map(Verdict::differing).filter(|differing| !differing.is_empty())
    {
        let evidence = format!("tried once more, it differs from itself in {}", listed(&again));
        add(Kind::Unseeded, evidence);
    }
    // When it differs from itself anyway, what it does without network says nothing.
    let repeats =
        tries.again.as_ref().is_some_and(|again| again.outcome != crate::verdict::Outcome::Different);
    if let Some(without) = tries.without_network.as_ref().filter(|_| repeats) {
        if !without.end.is_same() {
            add(Kind::Network, "without network it ends otherwise".to_owned());
        } else if !without.differing().is_empty() {
            let evidence =
                format!("without network it gives something else in {}", listed(&without.differing()));
            add(Kind::Network, evidence);
        }
    }
    let (before, now) = (&first.host, &second.host);
    if before.gpus != now.gpus {
        add(Kind::Gpu, format!("{} instead of {}", gpus(&now.gpus), gpus(&before.gpus)));
    }
    if before.cpu != now.cpu || before.architecture != now.architecture {
        add(Kind::Cpu, format!("{} instead of {}", now.cpu, before.cpu));
    }
    if before.cpus != now.cpus {
        add(Kind::Threads, format!("{} processors instead of {}", now.cpus, before.cpus));
    }
    // Only when nothing better is there: kernels seldom change results.
    if causes.is_empty() && before.kernel != now.kernel {
        causes.push(Cause {
            kind: Kind::Kernel,
            evidence: format!("kernel {} instead of {}", now.kernel, before.kernel),
        });
    }
    causes.sort_by_key(|cause| cause.kind);
    causes
}

fn add_data(first: &Record, second: &Record, add: &mut impl FnMut(Kind, String)) {
    for data in &first.data {
        let Some(now) = second.data.iter().find(|now| now.path == data.path) else {
            add(Kind::Data, format!("{} is no longer there", data.path));
            continue;
        };
        match (data.digest, now.digest) {
            (Some(before), Some(now)) if before == now => {}
            (Some(_), Some(_)) => add(Kind::Data, format!("{} has other contents", data.path)),
            _ if data.identity == now.identity => {}
            _ if (data.files, data.bytes) == (now.files, now.bytes) => {
                add(
                    Kind::Data,
                    format!("files in {} were touched: same number and size, other times", data.path),
                );
            }
            _ => add(
                Kind::Data,
                format!(
                    "{}: {} files, {} bytes instead of {} files, {} bytes",
                    data.path, now.files, now.bytes, data.files, data.bytes
                ),
            ),
        }
    }
    for data in second.data.iter().filter(|data| !first.data.iter().any(|known| known.path == data.path)) {
        add(Kind::Data, format!("{} was not there", data.path));
    }
}

fn add_environment(first: &Record, second: &Record, add: &mut impl FnMut(Kind, String)) {
    for (name, value) in &first.env {
        let evidence = match (value, second.env.get(name)) {
            (value, Some(now)) if value == now => continue,
            (_, None) => format!("{name} is not set"),
            (EnvValue::Plain(before), Some(EnvValue::Plain(now))) => {
                format!("{name} is `{now}` instead of `{before}`")
            }
            _ => format!("{name} has another value, which is a secret"),
        };
        add(Kind::Environment, evidence);
    }
    for name in second.env.keys().filter(|name| !first.env.contains_key(*name)) {
        add(Kind::Environment, format!("{name} is set, and was not"));
    }
}

fn gpus(gpus: &[Gpu]) -> String {
    let shown: Vec<String> =
        gpus.iter().map(|gpu| format!("{} (driver {})", gpu.model, gpu.driver)).collect();
    if shown.is_empty() { "no GPU".to_owned() } else { shown.join(", ") }
}

/// The first few of some names.
fn listed<S: AsRef<str>>(names: &[S]) -> String {
    const NAMES_MAX: usize = 3;
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(AsRef::as_ref).collect();
    match names.len().checked_sub(NAMES_MAX) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use ibid_core::digest::Digest;

    use super::*;
    use crate::record::tests::record;
    use crate::record::{Data, Output};
    use crate::verdict::{Rules, compare};

    #[track_caller]
    fn check(change: impl FnOnce(&mut Record), expected: &[(Kind, &str)]) {
        let mut second = record();
        change(&mut second);
        let found = likely(&record(), &second, &Tries::default());
        let found: Vec<(Kind, &str)> =
            found.iter().map(|cause| (cause.kind, cause.evidence.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_the_records_say() {
        check(|_| {}, &[]);
        check(|record| record.host.cpus = 64, &[(Kind::Threads, "64 processors instead of 8")]);
        check(
            |record| {
                record.host.cpu = "Xeon".to_owned();
                record.host.gpus = vec![Gpu { model: "H200".to_owned(), driver: "570.1".to_owned() }];
                record.host.kernel = "7.0".to_owned();
            },
            &[(Kind::Gpu, "H200 (driver 570.1) instead of no GPU"), (Kind::Cpu, "Xeon instead of EPYC")],
        );
        check(
            |record| record.host.kernel = "7.0".to_owned(),
            &[(Kind::Kernel, "kernel 7.0 instead of 6.1.0")],
        );
        check(
            |record| record.image.digest = Digest::of(b"x"),
            &[(Kind::Image, &format!("image {} instead of {}", Digest::of(b"x"), Digest::of(b"image")))],
        );
        check(
            |record| {
                record.env.insert("SEED".to_owned(), EnvValue::Plain("2".to_owned()));
                record.env.insert("TOKEN".to_owned(), EnvValue::Secret { secret_hash: "b".to_owned() });
                record.env.insert("NEW".to_owned(), EnvValue::Plain(String::new()));
            },
            &[
                (Kind::Environment, "SEED is `2` instead of `1`"),
                (Kind::Environment, "TOKEN has another value, which is a secret"),
                (Kind::Environment, "NEW is set, and was not"),
            ],
        );
        check(|record| record.options.clear(), &[(Kind::Options, "memory is not set instead of 4GB")]);
    }

    #[test]
    fn data_is_told_by_the_best_that_is_known() {
        let data = |identity: &[u8], digest: Option<&[u8]>, bytes| Data {
            path: "data".to_owned(),
            files: 2,
            bytes,
            identity: Digest::of(identity),
            digest: digest.map(Digest::of),
        };
        let check = |first: Option<Data>, second: Option<Data>, expected: &[&str]| {
            let (mut one, mut other) = (record(), record());
            one.data.extend(first);
            other.data.extend(second);
            let found = likely(&one, &other, &Tries::default());
            let found: Vec<&str> = found.iter().map(|cause| cause.evidence.as_str()).collect();
            assert_eq!(found, expected);
        };
        check(Some(data(b"1", None, 5)), Some(data(b"1", None, 5)), &[]);
        check(Some(data(b"1", Some(b"c"), 5)), Some(data(b"2", Some(b"c"), 5)), &[]);
        check(Some(data(b"1", Some(b"c"), 5)), Some(data(b"2", Some(b"d"), 5)), &["data has other contents"]);
        check(
            Some(data(b"1", Some(b"c"), 5)),
            Some(data(b"2", None, 5)),
            &["files in data were touched: same number and size, other times"],
        );
        check(
            Some(data(b"1", None, 5)),
            Some(data(b"2", None, 6)),
            &["data: 2 files, 6 bytes instead of 2 files, 5 bytes"],
        );
        check(Some(data(b"1", None, 5)), None, &["data is no longer there"]);
        check(None, Some(data(b"1", None, 5)), &["data was not there"]);
    }

    #[test]
    fn further_tries_tell_randomness_from_the_network() {
        let of = |content: &[u8], code: u8| {
            let mut record = record();
            record.exit_code = Some(code);
            let output = Output { path: "output/x".to_owned(), bytes: 1, digest: Digest::of(content) };
            record.outputs.push(output);
            record
        };
        let verdict = |first: &Record, second: &Record| {
            Some(compare(&Rules::default(), first, second, None, &mut |_, _| Err(String::new())))
        };
        let check = |again: &Record, without: Option<&Record>, expected: &[(Kind, &str)]| {
            let (first, second) = (of(b"a", 0), of(b"b", 0));
            let tries = Tries {
                again: verdict(&second, again),
                without_network: without.and_then(|without| verdict(&second, without)),
            };
            let found = likely(&first, &second, &tries);
            let found: Vec<(Kind, &str)> =
                found.iter().map(|cause| (cause.kind, cause.evidence.as_str())).collect();
            assert_eq!(found, expected);
        };
        check(&of(b"b", 0), Some(&of(b"b", 0)), &[]);
        let unseeded = (Kind::Unseeded, "tried once more, it differs from itself in output/x");
        check(&of(b"c", 0), None, &[unseeded]);
        check(&of(b"c", 0), Some(&of(b"d", 0)), &[unseeded]);
        let network = (Kind::Network, "without network it gives something else in output/x");
        check(&of(b"b", 0), Some(&of(b"c", 0)), &[network]);
        check(&of(b"b", 0), Some(&of(b"b", 1)), &[(Kind::Network, "without network it ends otherwise")]);
    }

    #[test]
    fn a_record_that_warns_is_a_cause() {
        let mut first = record();
        first.code.changed_during_run = ["a.py", "b.py", "c.py", "d.py"].map(str::to_owned).to_vec();
        let found = likely(&first, &record(), &Tries::default());
        let expected = "a.py, b.py, c.py and 1 more changed while the recorded run was going";
        assert_eq!(found, [Cause { kind: Kind::Code, evidence: expected.to_owned() }]);
    }
}
