//! Which rules apply: `# check=skip=NAME,…;error=true;experimental=NAME,…` at the top of a Dockerfile, the build argument
//! `BUILDKIT_DOCKERFILE_CHECK`, which replaces it, and `# check=skip=NAME,…` right above an instruction.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::Rule;

/// The build argument that replaces the directive.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Which rules apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    skipped: Names,
    experimental: Names,
    /// Whether findings of Docker's rules are to end a build.
    pub fails_build: bool,
    /// Names that are no rule's.
    pub unknown: Vec<String>,
}

/// An option of the directive that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` is no option for checks")]
pub struct InvalidSetting {
    /// What was read.
    pub option: String,
    /// Whether it stands in the build argument, not in the Dockerfile.
    pub is_argument: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    All,
    These(BTreeSet<Rule>),
}

impl Default for Names {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Names {
    fn parse(list: &str, unknown: &mut Vec<String>) -> Self {
        if list.trim() == "all" {
            return Self::All;
        }
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let rules = names.filter_map(|name| {
            let rule = Rule::parse(name);
            if rule.is_none() {
                unknown.push(name.to_owned());
            }
            rule
        });
        Self::These(rules.collect())
    }

    fn contain(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::These(rules) => rules.contains(&rule),
        }
    }
}

impl Settings {
    /// Those of a Dockerfile with that directive, if any, for a build with these arguments.
    ///
    /// # Errors
    ///
    /// An option that is not known, or a truth value that is none.
    pub fn new(
        directive: Option<&str>,
        build_args: &BTreeMap<String, String>,
    ) -> Result<Self, InvalidSetting> {
        let argument = build_args.get(ARGUMENT).map(String::as_str);
        let mut settings = Self::default();
        let text = argument.or(directive).unwrap_or_default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let invalid = || InvalidSetting { option: option.to_owned(), is_argument: argument.is_some() };
            let (name, value) = option.split_once('=').ok_or_else(invalid)?;
            match (name.trim(), value.trim()) {
                ("skip", list) => settings.skipped = Names::parse(list, &mut settings.unknown),
                ("experimental", list) => settings.experimental = Names::parse(list, &mut settings.unknown),
                ("error", "true" | "True" | "TRUE" | "t" | "T" | "1") => settings.fails_build = true,
                ("error", "false" | "False" | "FALSE" | "f" | "F" | "0") => settings.fails_build = false,
                _ => return Err(invalid()),
            }
        }
        Ok(settings)
    }

    /// Whether a rule applies.
    pub(super) fn apply(&self, rule: Rule) -> bool {
        if rule.is_experimental() { self.experimental.contain(rule) } else { !self.skipped.contain(rule) }
    }

    /// Whether a comment above an instruction spares it the rule: `check=skip=NAME // reason`.
    pub(super) fn comment_skips(comment: &str, rule: Rule) -> bool {
        let Some(list) =
            comment.trim().strip_prefix("check=").and_then(|text| text.trim().strip_prefix("skip="))
        else {
            return false;
        };
        let list = list.split_once(" //").map_or(list, |(list, _)| list);
        Names::parse(list, &mut Vec::new()).contain(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let read = |text: &str| Settings::new(Some(text), &BTreeMap::new());
        let check = |text: &str, casing: bool, experimental: bool, fails_build: bool| {
            let settings = read(text).expect(text);
            assert_eq!(settings.apply(Rule::FromAsCasing), casing, "{text}");
            assert_eq!(settings.apply(Rule::InvalidDefinitionDescription), experimental, "{text}");
            assert_eq!(settings.fails_build, fails_build, "{text}");
        };
        check("", true, false, false);
        check("skip=all", false, false, false);
        check("skip=FromAsCasing, StageNameCasing;error=true", false, false, true);
        check("skip=fromascasing", false, false, false);
        check("skip=StageNameCasing", true, false, false);
        check(" experimental=all ; error = 1 ;", true, true, true);
        check("skip=all;experimental=InvalidDefinitionDescription", false, true, false);
        let check_invalid = |text: &str, option: &str| {
            assert_eq!(
                read(text),
                Err(InvalidSetting { option: option.to_owned(), is_argument: false }),
                "{text}"
            );
        };
        check_invalid("skip", "skip");
        check_invalid("skip=all;errors=true", "errors=true");
        check_invalid("error=maybe", "error=maybe");
        assert_eq!(read("skip=Nothing,FromAsCasing").expect("read").unknown, ["Nothing"]);
    }

    #[test]
    fn the_build_argument_replaces_the_directive() {
        let arguments = |text: &str| [(ARGUMENT.to_owned(), text.to_owned())].into();
        let settings = Settings::new(Some("skip=all"), &arguments("skip=StageNameCasing")).expect("read");
        assert!(settings.apply(Rule::FromAsCasing) && !settings.apply(Rule::StageNameCasing));
        let invalid = Settings::new(None, &arguments("x")).expect_err("no option");
        assert!(invalid.is_argument);
    }

    #[test]
    fn a_comment_spares_one_instruction() {
        let check = |comment: &str, expected: bool| {
            assert_eq!(Settings::comment_skips(comment, Rule::FromAsCasing), expected, "{comment}");
        };
        check("check=skip=FromAsCasing", true);
        check(" check=skip=StageNameCasing,FromAsCasing // because", true);
        check("check=skip=all // because", true);
        check("check=skip=StageNameCasing", false);
        check("skip=FromAsCasing", false);
        check("a comment", false);
    }
}
