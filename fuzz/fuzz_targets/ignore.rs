//! Any ignore file gives a verdict on any path: that of the path itself is that of its way down, and no folder that holds
//! something kept is passed by. The last line is the path.

#![no_main]

use ibid_core::dockerignore::{Ignore, Verdict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let at = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (rules, path) = text.split_at(at);
    let is_clean = |path: &[u8]| {
        !path.split(|byte| *byte == b'/').any(|component| matches!(component, b"" | b"." | b".."))
    };
    let Ok(ignore) = Ignore::parse(rules) else { return };
    if !is_clean(path) {
        return;
    }
    let verdict = ignore.verdict(path);
    let ends =
        path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
    let mut below = Verdict::default();
    for end in ends {
        if end < path.len() && !verdict.ignored {
            // What holds something that is kept is looked into.
            assert!(ignore.may_descend(ignore.verdict(&path[..end]), &path[..end]));
        }
        below = ignore.verdict_below(below, &path[..end]);
        assert_eq!(below, ignore.verdict(&path[..end]));
    }
    assert_eq!(below, verdict);
    assert!(verdict.rule.is_none_or(|line| ignore.text(line).is_some()));
});
