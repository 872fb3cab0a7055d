//! Any Dockerfile that can be read is checked to its end, and findings stand on lines that exist, in order.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use ibid_core::dockerfile::check::{self, Facts, Settings};
use ibid_core::dockerfile::{self, PlanOptions};
use ibid_core::dockerignore::Ignore;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &[u8]| {
    let Ok(dockerfile) = dockerfile::parse(source) else { return };
    let options = PlanOptions {
        build_args: BTreeMap::new(),
        target: None,
        architecture: "amd64".to_owned(),
        contexts: BTreeMap::new(),
    };
    let directive = dockerfile.directives().check.as_deref();
    let settings = Settings::new(directive, &options.build_args).unwrap_or_default();
    let images = check::images(&dockerfile, &options);
    let facts = Facts {
        images: &BTreeMap::new(),
        pinned: &images.into_iter().take(1).collect::<BTreeSet<_>>(),
        ignore: &Ignore::parse(b"*.tmp\ndata\n!data/keep").expect("well formed"),
        ignore_file: ".dockerignore",
    };
    let lines = source.split(|byte| *byte == b'\n').count();
    let Ok(findings) = check::check(source, &dockerfile, &options, &settings, &facts) else { return };
    assert!(findings.is_sorted_by_key(|finding| finding.lines.first));
    for finding in findings {
        assert!(1 <= finding.lines.first && finding.lines.first <= finding.lines.last);
        assert!(finding.lines.last <= lines && !finding.message.is_empty() && !finding.fix.is_empty());
    }
});
