//! The filter is interpreted here as the kernel would, and compared with the profile's own words.

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

/// Runs a filter on a call.
pub(super) fn run(program: &[Instruction], architecture: u32, number: u32, argument: u64) -> u32 {
    let mut at = 0;
    let mut accumulator = 0;
    loop {
        let instruction = program[at];
        at += 1;
        let jump =
            |holds: bool| usize::from(if holds { instruction.jump_true } else { instruction.jump_false });
        match instruction.code {
            LOAD => {
                accumulator = match instruction.constant {
                    NUMBER => number,
                    ARCHITECTURE => architecture,
                    // All six arguments are the same.
                    place @ FIRST_ARGUMENT_LOW..64 if place % 8 == 0 => argument as u32,
                    FIRST_ARGUMENT_LOW..64 => (argument >> 32) as u32,
                    other => panic!("loads from {other}"),
                }
            }
            0x54 => accumulator &= instruction.constant,
            JUMP => at += instruction.constant as usize,
            JUMP_EQUAL => at += jump(accumulator == instruction.constant),
            JUMP_GREATER => at += jump(accumulator > instruction.constant),
            JUMP_GREATER_OR_EQUAL => at += jump(accumulator >= instruction.constant),
            JUMP_ANY_BIT => at += jump(accumulator & instruction.constant != 0),
            RETURN => return instruction.constant,
            other => panic!("operation {other:#x}"),
        }
    }
}

fn here() -> (u32, usize) {
    FILTERED[0]
}

fn check(capabilities: u64, call: &str, argument: u64, expected: u32) {
    let (architecture, column) = here();
    let number = find(call, column).unwrap_or_else(|| panic!("no call {call}"));
    assert_eq!(
        run(&filter(capabilities, Owners::Kernel), architecture, number, argument),
        expected,
        "{call}({argument:#x})"
    );
}

fn find(name: &str, column: usize) -> Option<u32> {
    let special = [&CLONE, &CLONE3, &SOCKET, &PERSONALITY].into_iter();
    let with_capability = WITH_CAPABILITY.iter().flat_map(|(_, calls)| calls.iter());
    let mut calls = special.chain(ALLOWED).chain(with_capability);
    calls.find(|call| call.name == name).and_then(|call| call.numbers[column])
}

const DEFAULT: u64 = 0xa804_25fb;
const REFUSED: u32 = FAIL | EPERM;
const MISSING: u32 = FAIL | ENOSYS;

#[test]
fn calls_are_answered_as_the_profile_says() {
    check(DEFAULT, "read", 0, ALLOW);
    check(DEFAULT, "ptrace", 0, ALLOW);
    check(DEFAULT, "chroot", 0, ALLOW);
    check(DEFAULT & !(1 << 18), "chroot", 0, REFUSED);
    check(DEFAULT, "mount", 0, REFUSED);
    check(DEFAULT, "unshare", 0, REFUSED);
    check(DEFAULT, "setns", 0, REFUSED);
    check(DEFAULT, "bpf", 0, REFUSED);
    check(DEFAULT, "open_by_handle_at", 0, REFUSED);
    check(DEFAULT | 1 << 2, "open_by_handle_at", 0, ALLOW);
    check(DEFAULT, "mbind", 0, REFUSED);
    check(DEFAULT | 1 << 23, "mbind", 0, ALLOW);
    check(DEFAULT, "kcmp", 0, REFUSED);
    check(DEFAULT | 1 << 19, "kcmp", 0, ALLOW);
    check(DEFAULT | CAP_SYS_ADMIN, "mount", 0, ALLOW);
}

#[test]
fn calls_about_owners_are_handed_on_where_they_are_remembered() {
    let (architecture, column) = here();
    let number = |call: &str| {
        let all = [CHANGES_OWNERS, ASKS_FOR_OWNERS, MAKES_FILES, ALLOWED, &[OPEN, OPENAT, PRCTL]].concat();
        all.iter().find(|it| it.name == call).and_then(|it| it.numbers[column]).expect("a call")
    };
    let check = |owners, call: &str, argument, expected| {
        let program = filter(DEFAULT, owners);
        assert_eq!(
            run(&program, architecture, number(call), argument),
            expected,
            "{owners:?} {call}({argument})"
        );
    };
    for call in ["fchownat", "setresuid", "getuid", "statx", "mkdirat"] {
        check(Owners::Remembered, call, 0, HAND_ON);
        check(Owners::Kernel, call, 0, ALLOW);
    }
    check(Owners::Pretended, "fchownat", 0, FAIL);
    check(Owners::Pretended, "setgroups", 0, FAIL);
    check(Owners::Pretended, "getuid", 0, ALLOW);
    check(Owners::Remembered, "openat", 0o101, HAND_ON);
    check(Owners::Remembered, "openat", 0o1, ALLOW);
    check(Owners::Remembered, "prctl", 8, HAND_ON);
    check(Owners::Remembered, "prctl", 9, ALLOW);
    check(Owners::Remembered, "read", 0, ALLOW);
    // Of a program of another architecture only what changes something is answered, and not remembered.
    for &(architecture, column) in FILTERED.iter().skip(1) {
        let program = filter(DEFAULT, Owners::Remembered);
        let chown = CHANGES_OWNERS[0].numbers[column].expect("a call");
        assert_eq!(run(&program, architecture, chown, 0), FAIL);
        assert_eq!(
            run(&program, architecture, ASKS_FOR_OWNERS[0].numbers[column].expect("a call"), 0),
            ALLOW
        );
    }
    assert!(filter(u64::MAX, Owners::Remembered).len() < 4096);
}

#[test]
fn clone_makes_no_namespaces() {
    let thread = 0x003d_0f00;
    check(DEFAULT, "clone", thread, ALLOW);
    check(DEFAULT, "clone", 17, ALLOW);
    for bit in [0x2_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        check(DEFAULT, "clone", thread | bit, REFUSED);
        check(DEFAULT | CAP_SYS_ADMIN, "clone", thread | bit, ALLOW);
    }
    check(DEFAULT, "clone3", 0, MISSING);
    check(DEFAULT | CAP_SYS_ADMIN, "clone3", 0, ALLOW);
}

#[test]
fn sockets_are_of_the_allowed_families() {
    let allowed = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32,
        33, 35, 36, 39, 41, 42, 43, 44, 45,
    ];
    for family in 0..100 {
        check(DEFAULT, "socket", family, if allowed.contains(&family) { ALLOW } else { REFUSED });
        check(DEFAULT, "socket", family | 1 << 32, REFUSED);
    }
    check(DEFAULT, "socket", u64::from(u32::MAX), REFUSED);
}

#[test]
fn personality_only_of_harmless_values() {
    for value in [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        check(DEFAULT, "personality", value, ALLOW);
    }
    for value in [1, 7, 9, 0x4_0000, 0x2_0001, 0xffff_fffe, u64::MAX] {
        check(DEFAULT, "personality", value, REFUSED);
    }
}

#[test]
fn every_number_has_the_answer_of_the_table() {
    for capabilities in [DEFAULT, 0, u64::MAX] {
        let program = filter(capabilities, Owners::Kernel);
        for &(architecture, column) in FILTERED {
            for number in 0..=newest(column) + 600 {
                let listed = |calls: &[Call]| calls.iter().any(|call| call.numbers[column] == Some(number));
                let unconditional = listed(ALLOWED)
                    || WITH_CAPABILITY
                        .iter()
                        .any(|(capability, calls)| capabilities & 1 << capability != 0 && listed(calls));
                let conditional = [&CLONE, &CLONE3, &SOCKET, &PERSONALITY]
                    .iter()
                    .any(|call| call.numbers[column] == Some(number));
                let answer = run(&program, architecture, number, 0);
                if unconditional {
                    assert_eq!(answer, ALLOW, "{number}");
                } else if number > newest(column) {
                    assert_eq!(answer, MISSING, "{number}");
                } else if !conditional {
                    assert_eq!(answer, REFUSED, "{number}");
                }
            }
            assert_eq!(run(&program, architecture, 0x4000_0000, 0), MISSING, "x32");
            assert_eq!(run(&program, architecture, u32::MAX, 0), MISSING);
        }
    }
}

#[test]
fn calls_of_a_foreign_architecture_are_refused() {
    let known: Vec<u32> = FILTERED.iter().map(|(architecture, _)| *architecture).collect();
    for architecture in [X86_64, I386, AARCH64, 0, 0x4000_0028] {
        if !known.contains(&architecture) {
            assert_eq!(run(&filter(DEFAULT, Owners::Kernel), architecture, 0, 0), REFUSED);
        }
    }
}

#[test]
fn the_filter_is_small_enough_for_the_kernel() {
    assert!(filter(u64::MAX, Owners::Kernel).len() < 4096);
    assert!(filter(DEFAULT, Owners::Kernel).len() < 400, "{}", filter(DEFAULT, Owners::Kernel).len());
}

#[test]
fn numbers_are_the_kernel_s() {
    // A sample of each column, from the kernel's own tables.
    let numbers = |name| [0, 1, 2].map(|column| find(name, column));
    assert_eq!(numbers("read"), [Some(0), Some(3), Some(63)]);
    assert_eq!(numbers("openat"), [Some(257), Some(295), Some(56)]);
    assert_eq!(numbers("newfstatat"), [Some(262), None, Some(79)]);
    assert_eq!(numbers("clone"), [Some(56), Some(120), Some(220)]);
    assert_eq!(numbers("socket"), [Some(41), Some(359), Some(198)]);
    assert_eq!(numbers("mseal"), [Some(462); 3]);
}
