//! Profiles of system calls in Docker's form (moby/profiles, `seccomp/default.json`), for `--security-opt seccomp=FILE`.

use serde::Deserialize;

use super::Capability;

/// Which system calls a program may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompProfile {
    /// As it was read: for engines that read it themselves.
    pub text: String,
    /// What happens to a call that no rule is about.
    pub default: Answer,
    /// Whether 32-bit programs may run.
    pub with_32_bit: bool,
    rules: Vec<Rule>,
}

/// What happens to some calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The calls.
    pub names: Vec<String>,
    /// What happens to them.
    pub answer: Answer,
    /// When: all of these hold.
    pub conditions: Vec<Condition>,
    includes: When,
    excludes: When,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Allow,
    /// It is done, and the kernel's log says so.
    Log,
    /// It fails with this error number.
    Fail(u16),
    /// It ends the process.
    Kill,
    /// It ends the thread.
    KillThread,
    /// It raises SIGSYS.
    Trap,
}

/// A condition on an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0.
    pub argument: u8,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// How an argument is compared with a value, as unsigned 64-bit numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// It is another.
    NotEqual,
    /// It is less.
    Less,
    /// It is less or the same.
    LessOrEqual,
    /// It is the same.
    Equal,
    /// It is more or the same.
    GreaterOrEqual,
    /// It is more.
    Greater,
    /// Those of its bits that are in this mask are the value.
    Masked(u64),
}

/// Where a rule holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct When {
    /// A bit for each capability.
    capabilities: Option<u64>,
    architectures: Vec<String>,
    kernel: Option<(u32, u32)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchitectureMap>,
    #[serde(default)]
    syscalls: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureMap {
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleText {
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<ConditionText>>,
    #[serde(default)]
    includes: WhenText,
    #[serde(default)]
    excludes: WhenText,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConditionText {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct WhenText {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// `EPERM`.
const EPERM: u16 = 1;

impl SeccompProfile {
    /// Reads a profile; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let default = answer(&document.default_action, document.default_errno_ret)?;
        let mut architectures =
            document.arch_map.iter().flat_map(|map| &map.sub_architectures).chain(&document.architectures);
        let with_32_bit =
            architectures.any(|name| matches!(name.as_str(), "SCMP_ARCH_X86" | "SCMP_ARCH_ARM"));
        let mut rules = Vec::new();
        for rule in document.syscalls {
            let names: Vec<String> = rule.name.into_iter().chain(rule.names).collect();
            let answer = answer(&rule.action, rule.errno_ret.or(document.default_errno_ret))?;
            let conditions =
                rule.args.unwrap_or_default().iter().map(condition).collect::<Result<Vec<_>, _>>()?;
            let (includes, excludes) = (when(rule.includes)?, when(rule.excludes)?);
            let rule = |conditions| Rule {
                names: names.clone(),
                answer,
                conditions,
                includes: includes.clone(),
                excludes: excludes.clone(),
            };
            // As runc reads it: conditions on one argument are alternatives, on several they hold together.
            let mut arguments: Vec<u8> = conditions.iter().map(|condition| condition.argument).collect();
            arguments.sort_unstable();
            match arguments.windows(2).any(|pair| pair[0] == pair[1]) {
                true => rules.extend(conditions.into_iter().map(|condition| rule(vec![condition]))),
                false => rules.push(rule(conditions)),
            }
        }
        Ok(Self { text: text.to_owned(), default, with_32_bit, rules })
    }

    /// The rules for a program with these capabilities, a bit for each, on an architecture as Docker calls it (`amd64`,
    /// `arm64`) and a kernel.
    pub fn rules(
        &self,
        capabilities: u64,
        architecture: &str,
        kernel: (u32, u32),
    ) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| {
            let included = &rule.includes;
            let excluded = &rule.excludes;
            included.capabilities.is_none_or(|wanted| wanted & !capabilities == 0)
                && (included.architectures.is_empty()
                    || included.architectures.iter().any(|it| it == architecture))
                && included.kernel.is_none_or(|least| kernel >= least)
                && excluded.capabilities.is_none_or(|unwanted| unwanted & capabilities == 0)
                && !excluded.architectures.iter().any(|it| it == architecture)
                && excluded.kernel.is_none_or(|least| kernel < least)
        })
    }
}

fn answer(action: &str, errno: Option<u16>) -> Result<Answer, String> {
    Ok(match action {
        "SCMP_ACT_ALLOW" => Answer::Allow,
        "SCMP_ACT_LOG" => Answer::Log,
        "SCMP_ACT_ERRNO" => Answer::Fail(errno.unwrap_or(EPERM)),
        "SCMP_ACT_KILL_PROCESS" => Answer::Kill,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Answer::KillThread,
        "SCMP_ACT_TRAP" => Answer::Trap,
        "SCMP_ACT_NOTIFY" | "SCMP_ACT_TRACE" => {
            return Err(format!("`{action}` needs another process that answers, and there is none"));
        }
        _ => return Err(format!("unknown action `{action}`")),
    })
}

fn condition(text: &ConditionText) -> Result<Condition, String> {
    if text.index > 5 {
        return Err(format!("there is no argument with index {}", text.index));
    }
    let (comparison, value) = match text.op.as_str() {
        "SCMP_CMP_NE" => (Comparison::NotEqual, text.value),
        "SCMP_CMP_LT" => (Comparison::Less, text.value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, text.value),
        "SCMP_CMP_EQ" => (Comparison::Equal, text.value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, text.value),
        "SCMP_CMP_GT" => (Comparison::Greater, text.value),
        "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(text.value), text.value_two),
        other => return Err(format!("unknown comparison `{other}`")),
    };
    Ok(Condition { argument: text.index, comparison, value })
}

fn when(text: WhenText) -> Result<When, String> {
    let mut capabilities = None;
    for name in &text.caps {
        let capability = Capability::parse("", name).map_err(|_| format!("unknown capability `{name}`"))?;
        for number in capability.numbers() {
            *capabilities.get_or_insert(0) |= 1 << number;
        }
    }
    let kernel = text
        .min_kernel
        .map(|version| {
            let mut parts = version.split('.').map(str::parse);
            match (parts.next(), parts.next()) {
                (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
                _ => Err(format!("`{version}` is no version of the kernel")),
            }
        })
        .transpose()?;
    Ok(When { capabilities, architectures: text.arches, kernel })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "comment": "what everybody does"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390x"]},
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"name": "personality", "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
        ]}"#;

    #[test]
    fn rules_hold_where_the_profile_says() {
        let profile = SeccompProfile::parse(PROFILE).expect("sound");
        assert_eq!((profile.default, profile.with_32_bit), (Answer::Fail(38), true));
        let names = |capabilities, kernel| {
            let rules = profile.rules(capabilities, "amd64", kernel);
            rules.map(|rule| rule.names[0].clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(0, (6, 1)), "read clone ptrace personality personality bpf");
        assert_eq!(names(1 << 21, (6, 1)), "read mount ptrace personality personality bpf");
        assert_eq!(names(0, (4, 7)), "read clone personality personality bpf");
        let clone = profile.rules(0, "amd64", (6, 1)).nth(1).expect("listed");
        assert_eq!(
            clone.conditions,
            [Condition { argument: 0, comparison: Comparison::Masked(2_114_060_288), value: 0 }]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let check = |text: &str, part: &str| {
            let error = SeccompProfile::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        };
        check("", "EOF");
        check("{}", "defaultAction");
        check(r#"{"defaultAction": "SCMP_ACT_FLY"}"#, "unknown action `SCMP_ACT_FLY`");
        check(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "there is none");
        let rule = |rule: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#);
        let with =
            |rest: &str| rule(&format!(r#"{{"names": ["read"], "action": "SCMP_ACT_ERRNO", {rest}}}"#));
        check(&with(r#""args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]"#), "index 6");
        check(&with(r#""args": [{"index": 0, "value": 0, "op": "SCMP_CMP_ABOUT"}]"#), "SCMP_CMP_ABOUT");
        check(&with(r#""includes": {"caps": ["CAP_FLY"]}"#), "CAP_FLY");
        check(&with(r#""includes": {"minKernel": "new"}"#), "`new`");
    }
}
