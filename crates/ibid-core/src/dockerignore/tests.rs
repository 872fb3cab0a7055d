use proptest::prelude::*;

use super::*;

/// The ignore file, then paths with what is expected: `+` kept, `-` dropped, and the line of the rule.
#[track_caller]
fn check(text: &str, expected: &[(&str, &str)]) {
    let ignore = Ignore::parse(text.as_bytes()).expect("the rules are well formed");
    for (path, verdict) in expected {
        let Verdict { ignored, rule } = ignore.verdict(path.as_bytes());
        let actual = format!(
            "{}{}",
            if ignored { '-' } else { '+' },
            rule.map_or(String::new(), |line| line.to_string())
        );
        assert_eq!(actual, *verdict, "{text:?} {path:?}");
    }
}

#[test]
fn patterns_match_as_with_docker() {
    check("", &[("a", "+"), ("", "+")]);
    // Anchored at the root; what lies below a match goes with it.
    check("*.md", &[("a.md", "-1"), ("dir/a.md", "+"), ("a.md/b", "-1"), ("md", "+"), (".md", "-1")]);
    check("dir", &[("dir", "-1"), ("dir/a/b", "-1"), ("dirs", "+"), ("a/dir", "+")]);
    check("a/b", &[("a", "+"), ("a/b", "-1"), ("a/b/c", "-1"), ("a/bc", "+")]);
    check("*/temp*", &[("x/temporary", "-1"), ("temp", "+"), ("x/y/temp", "+"), ("x/temp/y", "-1")]);
    check("temp?", &[("tempa", "-1"), ("temp", "+"), ("tempab", "+"), ("temp/", "+")]);
    // Any number of folders.
    check("**/*.pyc", &[("a.pyc", "-1"), ("x/y/a.pyc", "-1"), ("a.py", "+")]);
    check("**/foo", &[("foo", "-1"), ("a/foo", "-1"), ("a/foo/b", "-1"), ("afoo", "+"), ("a/bfoo", "+")]);
    check("**foo", &[("foo", "-1"), ("afoo", "-1"), ("a/bfoo", "-1"), ("foob", "+")]);
    check("foo/**", &[("foo", "+"), ("foo/a", "-1"), ("foo/a/b", "-1"), ("foob/a", "+")]);
    check("foo**", &[("foo", "-1"), ("foob/a", "-1"), ("a/foo", "+")]);
    check("a/**/b", &[("a/b", "-1"), ("a/x/y/b", "-1"), ("a/xb", "+"), ("ab", "+")]);
    check("**/a/**/b", &[("a/b", "-1"), ("x/a/y/b", "-1"), ("a/y", "+"), ("xa/b", "+")]);
    check("**", &[("a", "-1"), ("a/b", "-1")]);
    check("**/**/**/x", &[("x", "-1"), ("a/b/x", "-1"), ("a", "+")]);
    // Classes and escapes.
    check("[a-c]", &[("b", "-1"), ("d", "+"), ("-", "+")]);
    check("[^a-c]x", &[("bx", "+"), ("dx", "-1"), ("/x", "-1")]);
    check("[!a]", &[("!", "-1"), ("a", "-1"), ("b", "+")]);
    check("a[\\]\\-]", &[("a]", "-1"), ("a-", "-1"), ("a\\", "+")]);
    check("\\*.md", &[("*.md", "-1"), ("a.md", "+")]);
    check("[[:digit:]]a", &[("5a", "-1"), (":a", "+")]);
    check("é?", &[("éü", "-1"), ("é", "+"), ("éab", "+")]);
    check("a.b+c(d)|{e}$*", &[("a.b+c(d)|{e}$", "-1"), ("aXb+c(d)|{e}$", "+")]);
    check("a*\n", &[("a\nb", "-1")]);
    check("**/a*", &[("x\ny/a", "+"), ("x/a\nb", "-1")]);
    // What the text happens to mean as a regular expression.
    check("[*]", &[("*", "+"), ("]", "-1"), ("^^]", "-1")]);
    check("\\d", &[("5", "-1"), ("d", "+")]);
    check("^*", &[("a", "-1"), ("^a", "-1")]);
    check("a^*", &[("a^", "+"), ("a", "+")]);
    check("a\\b-*", &[("a-x", "-1"), ("a\\b-", "+")]);
}

#[test]
fn a_rule_is_named_as_it_stands() {
    let ignore = Ignore::parse(b"# note\n  /a/ \r\n\n!a/b").expect("the rules are well formed");
    let texts: Vec<_> = (1..=5).map(|line| ignore.text(line)).collect();
    assert_eq!(texts, [None, Some("/a/".to_owned()), None, Some("!a/b".to_owned()), None]);
}

#[test]
fn the_last_rule_that_matches_decides() {
    check("*.md\n!README.md", &[("a.md", "-1"), ("README.md", "+2"), ("b", "+")]);
    check("!README.md\n*.md", &[("README.md", "-2")]);
    check("*\n!a/b/c", &[("a", "-1"), ("a/b", "-1"), ("a/b/c", "+2"), ("a/b/c/d", "+2"), ("a/b/d", "-1")]);
    check("a\n!a/b\na/b/c", &[("a/b", "+2"), ("a/b/c", "-3"), ("a/b/c/d", "-3"), ("a/b/d", "+2")]);
    check("a/b\n!a", &[("a/b", "+2"), ("a/c", "+2")]);
    check("x\nx\n\nx", &[("x", "-4")]);
}

#[test]
fn lines_are_read_as_docker_reads_them() {
    check("# a\n\n  \n#b\na", &[("a", "-5"), ("#b", "+"), ("# a", "+")]);
    check(" #a", &[("#a", "-1")]);
    check("\u{feff}a\n\u{feff}b", &[("a", "-1"), ("b", "+"), ("\u{feff}b", "-2")]);
    check("a \r\n\t b\r\n\u{a0}c", &[("a", "-1"), ("b", "-2"), ("c", "-3")]);
    check(
        "/a\n./b\nc/\nd//e\nf/../g\n//h",
        &[("a", "-1"), ("b", "-2"), ("c", "-3"), ("d/e", "-4"), ("f", "+"), ("g", "-5"), ("h", "-6")],
    );
    check("*\n! /a\n! ./b ", &[("a", "+2"), ("b", "+3"), ("c", "-1")]);
    check("*\n!!a", &[("!a", "+2"), ("a", "-1")]);
    check("../a\n.\n/\n..", &[("a", "+"), ("..a", "+")]);
    check("/../a", &[("a", "-1")]);
    check("a b", &[("a b", "-1"), ("a", "+")]);
}

#[test]
fn paths_and_patterns_may_be_any_bytes() {
    let ignore = Ignore::parse(b"\xff\nb?\xfe*").expect("well formed");
    assert!(ignore.verdict(b"\xff").ignored);
    assert!(ignore.verdict(b"\xff/a").ignored);
    assert!(!ignore.verdict(b"\xfe").ignored);
    assert!(ignore.verdict(b"b\xf0\xfex").ignored);
}

#[test]
fn a_malformed_pattern_names_its_line() {
    let check = |text: &str, expected: &str| {
        let error = Ignore::parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.to_string(), expected);
    };
    check("a\n\n[b", "line 3: `[b` is no pattern: `[` without its `]`");
    check("a\n!", "line 2: `!` is no pattern: nothing follows the `!`");
    check("! /", "line 1: `! /` is no pattern: nothing follows the `!`");
    check("a\\", "line 1: `a\\` is no pattern: nothing follows the last `\\`");
    check(
        "[]",
        "line 1: `[]` is no pattern: an empty character class, or a `-` or `]` in it that lacks its `\\`",
    );
    check(
        "[a-]",
        "line 1: `[a-]` is no pattern: an empty character class, or a `-` or `]` in it that lacks its `\\`",
    );
    check("[z-a]", "line 1: `[z-a]` is no pattern: a range whose end comes before its start");
    check("[[:nope:]]", "line 1: `[[:nope:]]` is no pattern: an unknown class in `[: :]`");
    check(
        "bin\\project*",
        "line 1: `bin\\project*` is no pattern: `\\` before a letter or digit; folders are separated by `/`",
    );
    assert!(Ignore::parse("a".repeat(LINE_BYTES_MAX).as_bytes()).is_err());
    assert!(Ignore::parse("a".repeat(LINE_BYTES_MAX - 1).as_bytes()).is_ok());
}

#[test]
fn a_folder_is_passed_by_when_nothing_below_can_be_kept() {
    let check = |text: &str, folder: &str, expected: bool| {
        let ignore = Ignore::parse(text.as_bytes()).expect("well formed");
        let verdict = ignore.verdict(folder.as_bytes());
        assert_eq!(ignore.may_descend(verdict, folder.as_bytes()), expected, "{text:?} {folder:?}");
    };
    check("", "a", true);
    check("a/b", "a", true);
    check("a", "a", false);
    check("a\n!b", "a", false);
    check("a\n!a/b", "a", true);
    check("a\n!ab", "a", false);
    check("a\n!a/b/c", "a/b", true);
    check("a\n!a/b/c", "a/c", false);
    check("a\n!**/keep", "a/c", true);
    check("a\n!*/keep", "a", true);
    check("a\n!*/keep", "a/c", false);
    check("a\n!a/**", "a", true);
    check("a\n!b/**", "a", false);
    check("!**/keep\na", "a", false);
    check("*\n!x/**/keep", "y", false);
    check("*\n!x/**/keep", "x/y/z", true);
}

#[test]
fn many_and_hostile_patterns_take_no_unreasonable_time() {
    // No clock here: with a cost for each rule and path, or with backtracking, this would not end.
    let mut text = String::new();
    for number in 0..100_000 {
        text.push_str(&format!("gone/{number}\n**/name{number}\n*.ext{number}\n"));
    }
    text.push_str(&"**/*a*".repeat(2_000));
    text.push('\n');
    text.push_str(&"**/".repeat(20_000));
    text.push_str("z\n");
    let ignore = Ignore::parse(text.as_bytes()).expect("well formed");
    for number in 0..5_000 {
        assert!(!ignore.verdict(format!("kept/{number}/name").as_bytes()).ignored);
    }
    assert_eq!(ignore.verdict(b"x/name77777").rule, Some(233_333));
    assert_eq!(ignore.verdict(b"a.ext99999/below").rule, Some(300_000));
    assert_eq!(ignore.verdict(b"x/y/z").rule, Some(300_002));
    check_many(|number| format!("*middle{number}*"), "a/b", "xmiddle99y", 100);
    check_many(|number| format!("*{number}/**/f*.py"), "a/f.py", "x77/b/f1.py", 78);
    check_many(|number| format!("d{number}*/sub/f1.py"), "e/sub/f1.py", "d77/sub/f1.py", 78);
    check_many(|_| "same/*.py".to_owned(), "other/a.py", "same/a.py", MANY);
    check_many(|number| format!("{}z", "?".repeat(number % 50 + 1)), "a/b", "aaz", MANY - 48);
    check_many(
        |number| format!("*{}{number}{}*", "q".repeat(number % 60 + 20), "r".repeat(20)),
        "a/b/c",
        &format!("{}0{}", "q".repeat(20), "r".repeat(20)),
        1,
    );
    let classes =
        |number: usize| (0..15).map(move |bit| if number >> bit & 1 == 0 { "[ad]" } else { "[ab]" });
    check_many(|number| classes(number).collect(), "x/y", &"d".repeat(15), 1);
    let exceptions: String = (0..MANY).map(|number| format!("!*/s{number}/x*\n")).collect();
    let ignore = Ignore::parse(format!("d*\n{exceptions}").as_bytes()).expect("well formed");
    for number in 0..5_000 {
        let folder = format!("d{number}/e");
        ignore.may_descend(ignore.verdict(folder.as_bytes()), folder.as_bytes());
    }
    assert!(!ignore.verdict(b"d1/s5/x").ignored);
}

const MANY: usize = 30_000;

/// Many patterns, many paths that none of them matches, and one whose last match is on `line`.
#[track_caller]
fn check_many(pattern: impl Fn(usize) -> String, kept: &str, dropped: &str, line: usize) {
    let text: String = (0..MANY).map(|number| pattern(number) + "\n").collect();
    let ignore = Ignore::parse(text.as_bytes()).expect("well formed");
    for number in 0..5_000 {
        assert!(!ignore.verdict(format!("{}/{kept}", "n".repeat(number % 7 + 1)).as_bytes()).ignored);
    }
    assert_eq!(ignore.verdict(dropped.as_bytes()), Verdict { ignored: true, rule: Some(line) });
}

/// What one pattern without accidents means, by trying every way.
fn naive_match(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*'] => !path.contains(&b'\n'),
        [b'*', b'*', b'/', rest @ ..] => {
            let after_slash = |at: usize| path[at] == b'/' && naive_match(rest, &path[at + 1..]);
            naive_match(rest, path) || (0..path.len()).any(after_slash)
        }
        [b'*', rest @ ..] => {
            let run = path.iter().take_while(|byte| **byte != b'/').count();
            (0..=run).any(|end| naive_match(rest, &path[end..]))
        }
        [b'?', rest @ ..] => path.first().is_some_and(|byte| *byte != b'/') && naive_match(rest, &path[1..]),
        [byte, rest @ ..] => path.first() == Some(byte) && naive_match(rest, &path[1..]),
    }
}

fn naive_verdict(lines: &[String], path: &str) -> Verdict {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let prefixes: Vec<&str> = ends.map(|end| &path[..end]).collect();
    let mut verdict = Verdict::default();
    for (number, line) in lines.iter().enumerate() {
        let (exception, pattern) = match line.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, line.as_str()),
        };
        if prefixes.iter().any(|prefix| naive_match(pattern.as_bytes(), prefix.as_bytes())) {
            verdict = Verdict { ignored: !exception, rule: Some(number + 1) };
        }
    }
    verdict
}

/// Patterns whose `**` stand alone between slashes, and which are clean.
fn pattern() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        3 => "[ab.]{1,2}",
        2 => "[ab*?]{1,3}".prop_filter("`**` stands alone", |text| !text.contains("**")),
        1 => Just("**".to_owned()),
    ]
    .prop_filter("clean", |text| text != "." && text != "..");
    (any::<bool>(), prop::collection::vec(component, 1..5))
        .prop_map(|(exception, components)| {
            format!("{}{}", if exception { "!" } else { "" }, components.join("/"))
        })
        // `a/**/**` needs a `/` after the first, `**/**` does not: see the table instead.
        .prop_filter("one `**` at the end", |text| !text.ends_with("**/**"))
}

fn path() -> impl Strategy<Value = String> {
    let component = "[ab.]{1,2}".prop_filter("clean", |text| text != "." && text != "..");
    prop::collection::vec(component, 1..5).prop_map(|components| components.join("/"))
}

proptest! {
    #[test]
    fn verdicts_are_those_of_the_naive_matcher(
        lines in prop::collection::vec(pattern(), 0..8),
        paths in prop::collection::vec(path(), 1..8),
    ) {
        let ignore = Ignore::parse(lines.join("\n").as_bytes()).expect("well formed");
        for path in &paths {
            let verdict = ignore.verdict(path.as_bytes());
            prop_assert_eq!(verdict, naive_verdict(&lines, path), "{:?} {}", &lines, path);
            for (at, _) in path.match_indices('/') {
                let folder = &path.as_bytes()[..at];
                let above = ignore.verdict(folder);
                prop_assert!(verdict.ignored || ignore.may_descend(above, folder), "{:?} {}", &lines, path);
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..60), path in prop::collection::vec(any::<u8>(), 0..20)) {
        if let Ok(ignore) = Ignore::parse(&text) {
            let verdict = ignore.verdict(&path);
            ignore.may_descend(verdict, &path);
        }
    }

    #[test]
    fn no_pattern_characters_make_it_panic(text in "[ab!*?\\[\\]^\\-\\\\/.:xQEpdwz0-9{}()\n é]{0,24}", path in "[ab/.*\\]^\n]{0,12}") {
        if let Ok(ignore) = Ignore::parse(text.as_bytes()) {
            let verdict = ignore.verdict(path.as_bytes());
            ignore.may_descend(verdict, path.as_bytes());
        }
    }
}

#[test]
fn patterns_by_themselves_are_rules_without_comments() {
    let rules = Ignore::of_patterns(&["*.txt", "", "#a", "/rooted", "!keep.txt"]).expect("sound patterns");
    let check = |path: &str, rule: Option<usize>, ignored: bool| {
        assert_eq!(rules.verdict(path.as_bytes()), Verdict { ignored, rule }, "{path}");
    };
    check("a.txt", Some(1), true);
    check("d/a.txt", None, false);
    check("#a/b", Some(3), true);
    check("rooted", Some(4), true);
    check("keep.txt", Some(5), false);
    let error = Ignore::of_patterns(&["a", "[b"]).expect_err("an open class");
    assert_eq!((error.line, error.pattern.as_str()), (2, "[b"));
    assert!(Ignore::of_patterns::<&str>(&[]).expect("nothing").is_empty());
}
