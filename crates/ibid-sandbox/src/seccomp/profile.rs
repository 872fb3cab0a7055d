//! A profile of one's own, compiled to BPF: a tree of comparisons over the numbers of calls, and for each call its rules,
//! one after the other.

use std::collections::BTreeMap;

use ibid_core::run::{CallAnswer, Comparison, Condition, SeccompProfile};
use ibid_sys::seccomp::Instruction;

use super::calls::{ALLOWED, Call, OTHER, WITH_CAPABILITY};
use super::{
    ALLOW, ARCHITECTURE, CLONE, CLONE3, ENOSYS, EPERM, FAIL, FILTERED, FIRST_ARGUMENT_HIGH,
    FIRST_ARGUMENT_LOW, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, NUMBER, PERSONALITY,
    RETURN, SOCKET, instruction,
};

const AND: u16 = 0x54;

const LOG: u32 = 0x7ffc_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;

/// Numbers from here on are those of x32, which is another interface to the same calls.
const X32: u32 = 0x4000_0000;

/// As many instructions as the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

#[cfg(target_arch = "x86_64")]
const NAME: &str = "amd64";
#[cfg(target_arch = "aarch64")]
const NAME: &str = "arm64";

/// The filter of a profile for a program with `capabilities`, a bit for each. The error says why there is none.
pub(crate) fn compile(
    profile: &SeccompProfile,
    capabilities: u64,
    kernel: (u32, u32),
) -> Result<Vec<Instruction>, String> {
    let mut program = vec![instruction(LOAD, ARCHITECTURE)];
    for &(architecture, column) in FILTERED.iter().take(if profile.with_32_bit { FILTERED.len() } else { 1 })
    {
        let body = tree(&ranges(profile, column, capabilities, kernel)?);
        program.push(Instruction { code: JUMP_EQUAL, jump_true: 1, jump_false: 0, constant: architecture });
        program.push(instruction(JUMP, body.len() as u32 + 1));
        program.push(instruction(LOAD, NUMBER));
        program.extend(body);
    }
    program.push(instruction(RETURN, FAIL | EPERM));
    match program.len() {
        ..=LONGEST => Ok(program),
        length => Err(format!("it makes a filter of {length} instructions, and the kernel takes {LONGEST}")),
    }
}

fn returned(answer: CallAnswer) -> u32 {
    match answer {
        CallAnswer::Allow => ALLOW,
        CallAnswer::Log => LOG,
        CallAnswer::Fail(errno) => FAIL | u32::from(errno),
        CallAnswer::Kill => KILL_PROCESS,
        CallAnswer::KillThread => KILL_THREAD,
        CallAnswer::Trap => TRAP,
    }
}

fn all_calls() -> impl Iterator<Item = &'static Call> {
    let special = [&CLONE, &CLONE3, &SOCKET, &PERSONALITY].into_iter();
    let with_capability = WITH_CAPABILITY.iter().flat_map(|(_, calls)| calls.iter());
    special.chain(ALLOWED).chain(with_capability).chain(OTHER)
}

/// What is done for each number, as the first number of each range, sorted.
fn ranges(
    profile: &SeccompProfile,
    column: usize,
    capabilities: u64,
    kernel: (u32, u32),
) -> Result<Vec<(u32, Vec<Instruction>)>, String> {
    let known: BTreeMap<&str, Option<u32>> =
        all_calls().map(|call| (call.name, call.numbers[column])).collect();
    let default = returned(profile.default);
    let lets_pass = matches!(profile.default, CallAnswer::Allow | CallAnswer::Log);
    let mut rules: BTreeMap<u32, Vec<(&[Condition], u32)>> = BTreeMap::new();
    for rule in profile.rules(capabilities, NAME, kernel) {
        for name in &rule.names {
            match known.get(name.as_str()) {
                Some(Some(number)) => {
                    rules.entry(*number).or_default().push((&rule.conditions, returned(rule.answer)));
                }
                // Another architecture's.
                Some(None) => {}
                // As runc does it; but what was to be refused must not pass for its unknown name.
                None if lets_pass => return Err(format!("there is no system call `{name}`")),
                None => {}
            }
        }
    }
    let mut ranges: Vec<(u32, Vec<Instruction>)> = vec![(0, vec![instruction(RETURN, default)])];
    let mut append = |first: u32, body: Vec<Instruction>| match ranges.last_mut() {
        Some((_, last)) if *last == body => {}
        Some((start, last)) if *start == first => *last = body,
        _ => ranges.push((first, body)),
    };
    let mut next = 0;
    for (number, mut rules) in rules {
        if number > next {
            append(next, vec![instruction(RETURN, default)]);
        }
        // Those with conditions first: after one without, nothing is asked any more.
        rules.sort_by_key(|(conditions, _)| conditions.is_empty());
        append(number, body(&rules, default));
        next = number + 1;
    }
    let newest = all_calls().filter_map(|call| call.numbers[column]).max().unwrap_or(0);
    if next <= newest {
        append(next, vec![instruction(RETURN, default)]);
    }
    // As with Docker's profile, so that programs fall back to an older call.
    let newer = if lets_pass { default } else { FAIL | ENOSYS };
    append(newest + 1, vec![instruction(RETURN, newer)]);
    if FILTERED[column.min(FILTERED.len() - 1)].0 == 0xc000_003e {
        append(X32, vec![instruction(RETURN, FAIL | ENOSYS)]);
    }
    Ok(ranges)
}

fn tree(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    if let [(_, body)] = ranges {
        return body.clone();
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let below = tree(low);
    let mut program = vec![
        Instruction { code: JUMP_GREATER_OR_EQUAL, jump_true: 0, jump_false: 1, constant: high[0].0 },
        instruction(JUMP, below.len() as u32),
    ];
    program.extend(below);
    program.extend(tree(high));
    program
}

/// The rules of one call, to the first that holds.
fn body(rules: &[(&[Condition], u32)], default: u32) -> Vec<Instruction> {
    let mut program = Vec::new();
    for (conditions, answer) in rules {
        let mut block = vec![instruction(RETURN, *answer)];
        for condition in conditions.iter().rev() {
            let mut test = test(*condition, block.len());
            test.append(&mut block);
            block = test;
        }
        program.extend(block);
        if conditions.is_empty() {
            return program;
        }
    }
    program.push(instruction(RETURN, default));
    program
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum Way {
    /// To the next instruction.
    On,
    /// The condition holds.
    Holds,
    /// It does not.
    Fails,
}

/// Instructions that go on behind themselves where the condition holds, and past `rest` more where it does not.
fn test(condition: Condition, rest: usize) -> Vec<Instruction> {
    use Way::{Fails, Holds, On};
    let argument = u32::from(condition.argument) * 8;
    let high = instruction(LOAD, FIRST_ARGUMENT_HIGH + argument);
    let low = instruction(LOAD, FIRST_ARGUMENT_LOW + argument);
    let (value_high, value_low) = ((condition.value >> 32) as u32, condition.value as u32);
    let jump = |code, constant, holds: Way, fails: Way| (instruction(code, constant), Some((holds, fails)));
    let plain = |instruction| (instruction, None);
    let equal = |holds, fails| {
        vec![
            plain(high),
            jump(JUMP_EQUAL, value_high, On, fails),
            plain(low),
            jump(JUMP_EQUAL, value_low, holds, fails),
        ]
    };
    let above = |code, holds, fails| {
        vec![
            plain(high),
            jump(JUMP_GREATER, value_high, holds, On),
            jump(JUMP_EQUAL, value_high, On, fails),
            plain(low),
            jump(code, value_low, holds, fails),
        ]
    };
    let steps = match condition.comparison {
        Comparison::Equal => equal(Holds, Fails),
        Comparison::NotEqual => equal(Fails, Holds),
        Comparison::Greater => above(JUMP_GREATER, Holds, Fails),
        Comparison::GreaterOrEqual => above(JUMP_GREATER_OR_EQUAL, Holds, Fails),
        Comparison::LessOrEqual => above(JUMP_GREATER, Fails, Holds),
        Comparison::Less => above(JUMP_GREATER_OR_EQUAL, Fails, Holds),
        Comparison::Masked(mask) => vec![
            plain(high),
            plain(instruction(AND, (mask >> 32) as u32)),
            jump(JUMP_EQUAL, value_high, On, Fails),
            plain(low),
            plain(instruction(AND, mask as u32)),
            jump(JUMP_EQUAL, value_low, Holds, Fails),
        ],
    };
    let length = steps.len();
    let mut program = Vec::with_capacity(length);
    for (at, (step, ways)) in steps.into_iter().enumerate() {
        let behind = length - at - 1;
        let skip = |way| {
            let skip = match way {
                On => 0,
                Holds => behind,
                Fails => behind + rest,
            };
            u8::try_from(skip).expect("six conditions of six instructions at most")
        };
        program.push(match ways {
            None => step,
            Some((holds, fails)) => Instruction { jump_true: skip(holds), jump_false: skip(fails), ..step },
        });
    }
    program
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    const KERNEL: (u32, u32) = (6, 1);

    fn profile(default: &str, rules: &str) -> SeccompProfile {
        SeccompProfile::parse(&format!(r#"{{"defaultAction": "{default}", "syscalls": [{rules}]}}"#))
            .expect("a profile")
    }

    fn number(name: &str) -> u32 {
        let call = all_calls().find(|call| call.name == name).expect("known");
        call.numbers[FILTERED[0].1].expect("here")
    }

    fn ask(profile: &SeccompProfile, name: &str, argument: u64) -> u32 {
        let program = compile(profile, 0, KERNEL).expect("a filter");
        run(&program, FILTERED[0].0, number(name), argument)
    }

    #[test]
    fn calls_are_answered_as_the_profile_says() {
        let only = profile(
            "SCMP_ACT_ERRNO",
            r#"{"names": ["read", "keyctl", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
               {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS"}"#,
        );
        assert_eq!(ask(&only, "read", 0), ALLOW);
        assert_eq!(ask(&only, "keyctl", 0), ALLOW);
        assert_eq!(ask(&only, "write", 0), FAIL | EPERM);
        assert_eq!(ask(&only, "kill", 0), KILL_PROCESS);
        let program = compile(&only, 0, KERNEL).expect("a filter");
        assert_eq!(run(&program, FILTERED[0].0, 9999, 0), FAIL | ENOSYS, "newer than all that is known");
        assert_eq!(run(&program, 0x4000_0003, 3, 0), FAIL | EPERM, "32-bit programs were not named");
        let all_but =
            profile("SCMP_ACT_ALLOW", r#"{"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}"#);
        assert_eq!(ask(&all_but, "read", 0), ALLOW);
        assert_eq!(ask(&all_but, "write", 0), FAIL | 5);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(
            run(&compile(&all_but, 0, KERNEL).expect("a filter"), FILTERED[0].0, X32 + 1, 0),
            FAIL | ENOSYS,
            "the same call by another number"
        );
        let slip = profile("SCMP_ACT_ALLOW", r#"{"names": ["wriet"], "action": "SCMP_ACT_ERRNO"}"#);
        assert_eq!(compile(&slip, 0, KERNEL), Err("there is no system call `wriet`".to_owned()));
    }

    #[test]
    fn arguments_are_compared_as_64_bits() {
        const BIG: u64 = 5 << 32 | 7;
        let check = |op: &str, value: u64, two: u64, holds: &[u64], fails: &[u64]| {
            let rule = format!(
                r#"{{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                   "args": [{{"index": 1, "value": {value}, "valueTwo": {two}, "op": "SCMP_CMP_{op}"}}]}}"#
            );
            let profile = profile("SCMP_ACT_ERRNO", &rule);
            for argument in holds {
                assert_eq!(ask(&profile, "read", *argument), ALLOW, "{argument:#x} {op} {value:#x}");
            }
            for argument in fails {
                assert_eq!(ask(&profile, "read", *argument), FAIL | EPERM, "{argument:#x} {op} {value:#x}");
            }
        };
        let (less, more) = ([BIG - 1, 4 << 32 | 9, 0], [BIG + 1, 6 << 32, u64::MAX]);
        let other = [&less[..], &more].concat();
        let with = |set: &[u64]| [set, &[BIG]].concat();
        check("EQ", BIG, 0, &[BIG], &other);
        check("NE", BIG, 0, &other, &[BIG]);
        check("LT", BIG, 0, &less, &with(&more));
        check("LE", BIG, 0, &with(&less), &more);
        check("GT", BIG, 0, &more, &with(&less));
        check("GE", BIG, 0, &with(&more), &less);
        check("MASKED_EQ", 1 << 40 | 3, 1 << 40 | 2, &[1 << 40 | 2, 1 << 40 | 6], &[2, 1 << 40 | 3, 0]);
    }

    #[test]
    fn alternatives_and_several_arguments() {
        let either = profile(
            "SCMP_ACT_ERRNO",
            r#"{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
               {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 3, "op": "SCMP_CMP_GE"}, {"index": 1, "value": 5, "op": "SCMP_CMP_LE"}]}"#,
        );
        for (call, argument, expected) in [
            ("personality", 0, ALLOW),
            ("personality", 8, ALLOW),
            ("personality", 4, FAIL | EPERM),
            ("read", 2, FAIL | EPERM),
            ("read", 3, ALLOW),
            ("read", 5, ALLOW),
            ("read", 6, FAIL | EPERM),
        ] {
            assert_eq!(ask(&either, call, argument), expected, "{call} {argument}");
        }
    }
}
