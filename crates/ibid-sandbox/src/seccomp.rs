//! The seccomp filter: Docker's default profile, compiled to BPF.
//!
//! What the profile does not allow fails with `EPERM`; a call newer than the profile fails with `ENOSYS`, as
//! runc does it, so that programs fall back to an older one. The numbers of an architecture form ranges with
//! one answer each, and the filter is a binary search over them: each call costs some eight comparisons.
//!
//! It differs from Docker's filter in one thing: the x32 interface, which hardly a kernel offers, does not exist.

mod calls;
pub(crate) mod profile;

use ibid_sys::seccomp::Instruction;

use calls::{
    ALLOWED, ASKS_FOR_OWNERS, CHANGES_OWNERS, CLONE, CLONE3, Call, MAKES_FILES, OPEN, OPENAT, PERSONALITY,
    PRCTL, SOCKET, WITH_CAPABILITY,
};

use crate::owners::ids::KEEP_CAPABILITIES;
use crate::plan::Owners;

// Operations of classic BPF.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

// Fields of `seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT_LOW: u32 = 16;
const FIRST_ARGUMENT_HIGH: u32 = 20;
const SECOND_ARGUMENT_LOW: u32 = 24;
const THIRD_ARGUMENT_LOW: u32 = 32;

// Answers of a filter.
const ALLOW: u32 = 0x7fff_0000;
const FAIL: u32 = 0x0005_0000;
const HAND_ON: u32 = 0x7fc0_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

const CAP_SYS_ADMIN: u64 = 1 << 21;

/// `O_CREAT`.
const CREATE: u32 = 0o100;

/// All namespace flags of `clone`.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// Address families that the profile allows; what is missing has had holes, or (40, vsock) leads to the host.
const FAMILIES: &[(u32, u32)] =
    &[(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

const PERSONALITIES: &[(u32, u32)] =
    &[(0, 0), (8, 8), (0x2_0000, 0x2_0000), (0x2_0008, 0x2_0008), (u32::MAX, u32::MAX)];

/// The kernel's number of each architecture, and the column of its calls.
#[cfg(target_arch = "x86_64")]
const FILTERED: &[(u32, usize)] = &[(0xc000_003e, 0), (0x4000_0003, 1)];
#[cfg(target_arch = "aarch64")]
const FILTERED: &[(u32, usize)] = &[(0xc000_00b7, 2)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the seccomp filter knows the system calls of x86-64 and arm64 only");

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Allow,
    /// With 0, it succeeds without being done.
    Fail(u32),
    /// Whoever listens answers.
    HandOn,
    /// The same when its first argument is this; else it is allowed.
    HandOnWith(u32),
    /// The same when the argument at this place has one of these bits.
    HandOnWithBits(u32, u32),
    /// Allowed when its first argument has none of these bits.
    WithoutBits(u32),
    /// Allowed when its first argument is in one of these ranges, both ends included.
    InRanges(&'static [(u32, u32)]),
}

/// The filter for a program that may have `capabilities`, a bit for each.
pub(crate) fn filter(capabilities: u64, owners: Owners) -> Vec<Instruction> {
    let mut program = vec![instruction(LOAD, ARCHITECTURE)];
    for &(architecture, column) in FILTERED {
        let body = search(&ranges(column, capabilities, owners));
        // Past the whole search when the call is another architecture's. The search loads the number first.
        program.push(Instruction { code: JUMP_EQUAL, jump_true: 1, jump_false: 0, constant: architecture });
        program.push(instruction(JUMP, body.len() as u32 + 1));
        program.push(instruction(LOAD, NUMBER));
        program.extend(body);
    }
    program.push(instruction(RETURN, FAIL | EPERM));
    program
}

/// The answer to each number, as the first number of each range, sorted.
fn ranges(column: usize, capabilities: u64, owners: Owners) -> Vec<(u32, Answer)> {
    let mut answers: Vec<(u32, Answer)> = Vec::with_capacity(400);
    let mut add = |call: &Call, answer| answers.extend(call.numbers[column].map(|number| (number, answer)));
    ALLOWED.iter().for_each(|call| add(call, Answer::Allow));
    add(&SOCKET, Answer::InRanges(FAMILIES));
    add(&PERSONALITY, Answer::InRanges(PERSONALITIES));
    if capabilities & CAP_SYS_ADMIN == 0 {
        add(&CLONE, Answer::WithoutBits(NEW_NAMESPACES));
        add(&CLONE3, Answer::Fail(ENOSYS));
    }
    for (capability, calls) in WITH_CAPABILITY {
        if capabilities & 1 << capability != 0 {
            calls.iter().for_each(|call| add(call, Answer::Allow));
        }
    }
    let mut answer_instead = |calls: &[Call], answer| {
        for number in calls.iter().filter_map(|call| call.numbers[column]) {
            answers.retain(|(known, _)| *known != number);
            answers.push((number, answer));
        }
    };
    // 32-bit programs keep other structures in memory: for them, calls are only pretended.
    let is_native = column == FILTERED[0].1;
    match owners {
        Owners::Kernel => {}
        Owners::Remembered if is_native => {
            answer_instead(CHANGES_OWNERS, Answer::HandOn);
            answer_instead(ASKS_FOR_OWNERS, Answer::HandOn);
            answer_instead(&[PRCTL], Answer::HandOnWith(KEEP_CAPABILITIES));
            answer_instead(MAKES_FILES, Answer::HandOn);
            answer_instead(&[OPEN], Answer::HandOnWithBits(SECOND_ARGUMENT_LOW, CREATE));
            answer_instead(&[OPENAT], Answer::HandOnWithBits(THIRD_ARGUMENT_LOW, CREATE));
        }
        Owners::Remembered | Owners::Pretended => answer_instead(CHANGES_OWNERS, Answer::Fail(0)),
    }
    answers.sort_by_key(|(number, _)| *number);
    let mut ranges = vec![(0, Answer::Fail(EPERM))];
    let mut next = 0;
    let mut append = |first, answer| match ranges.last_mut() {
        Some((_, last)) if *last == answer => {}
        Some((start, last)) if *start == first => *last = answer,
        _ => ranges.push((first, answer)),
    };
    for (number, answer) in answers {
        if number > next {
            append(next, Answer::Fail(EPERM));
        }
        append(number, answer);
        next = number + 1;
    }
    let newest = newest(column);
    if next <= newest {
        append(next, Answer::Fail(EPERM));
    }
    append(newest + 1, Answer::Fail(ENOSYS));
    ranges
}

/// The largest number that the profile names.
fn newest(column: usize) -> u32 {
    let with_capability = WITH_CAPABILITY.iter().flat_map(|(_, calls)| calls.iter());
    ALLOWED.iter().chain(with_capability).filter_map(|call| call.numbers[column]).max().unwrap_or(0)
}

/// As many ranges as share one set of returns: jumps reach 255 instructions, and each range takes at most two.
const SHARING_MAX: usize = 100;

/// Instructions that answer for the loaded number; they end with an answer on every path.
fn search(ranges: &[(u32, Answer)]) -> Vec<Instruction> {
    if ranges.len() > SHARING_MAX {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let below = search(low);
        let mut program = vec![
            Instruction { code: JUMP_GREATER_OR_EQUAL, jump_true: 0, jump_false: 1, constant: high[0].0 },
            instruction(JUMP, below.len() as u32),
        ];
        program.extend(below);
        program.extend(search(high));
        return program;
    }
    // Backwards, because jumps go forwards: first the answers, then the comparisons that lead to them.
    let mut backwards = Backwards { program: Vec::new(), answers: Vec::new() };
    for (_, answer) in ranges {
        backwards.place(*answer);
    }
    backwards.compare(ranges);
    backwards.program.reverse();
    backwards.program
}

/// A program under construction, its last instruction first.
struct Backwards {
    program: Vec<Instruction>,
    /// Where each answer starts, counted from the program's end.
    answers: Vec<(Answer, usize)>,
}

impl Backwards {
    fn place(&mut self, answer: Answer) {
        if self.answers.iter().all(|(known, _)| *known != answer) {
            self.program.extend(respond(answer).into_iter().rev());
            self.answers.push((answer, self.program.len()));
        }
    }

    /// Comparisons that find the answer for the loaded number; where they start, counted from the end.
    fn compare(&mut self, ranges: &[(u32, Answer)]) -> usize {
        if let [(_, answer)] = ranges {
            let known = self.answers.iter().find(|(known, _)| known == answer).map(|(_, start)| *start);
            return known.expect("all answers were placed before");
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let above = self.compare(high);
        let below = self.compare(low);
        let here = self.program.len();
        let skip = |start| u8::try_from(here - start).expect("few enough ranges share their answers");
        self.program.push(Instruction {
            code: JUMP_GREATER_OR_EQUAL,
            jump_true: skip(above),
            jump_false: skip(below),
            constant: high[0].0,
        });
        here + 1
    }
}

fn respond(answer: Answer) -> Vec<Instruction> {
    let permitted = instruction(RETURN, ALLOW);
    let refused = instruction(RETURN, FAIL | EPERM);
    match answer {
        Answer::Allow => vec![permitted],
        Answer::Fail(errno) => vec![instruction(RETURN, FAIL | errno)],
        Answer::HandOn => vec![instruction(RETURN, HAND_ON)],
        Answer::HandOnWithBits(argument, bits) => vec![
            instruction(LOAD, argument),
            Instruction { code: JUMP_ANY_BIT, jump_true: 1, jump_false: 0, constant: bits },
            permitted,
            instruction(RETURN, HAND_ON),
        ],
        Answer::HandOnWith(value) => vec![
            instruction(LOAD, FIRST_ARGUMENT_LOW),
            Instruction { code: JUMP_EQUAL, jump_true: 1, jump_false: 0, constant: value },
            permitted,
            instruction(RETURN, HAND_ON),
        ],
        Answer::WithoutBits(bits) => vec![
            instruction(LOAD, FIRST_ARGUMENT_LOW),
            Instruction { code: JUMP_ANY_BIT, jump_true: 1, jump_false: 0, constant: bits },
            permitted,
            refused,
        ],
        Answer::InRanges(ranges) => {
            let mut program = vec![
                instruction(LOAD, FIRST_ARGUMENT_HIGH),
                Instruction { code: JUMP_EQUAL, jump_true: 1, jump_false: 0, constant: 0 },
                refused,
                instruction(LOAD, FIRST_ARGUMENT_LOW),
            ];
            for &(first, last) in ranges {
                // Below this range it is in none, because they are sorted; above, the next one decides.
                program.extend([
                    Instruction { code: JUMP_GREATER_OR_EQUAL, jump_true: 1, jump_false: 0, constant: first },
                    refused,
                    Instruction { code: JUMP_GREATER, jump_true: 1, jump_false: 0, constant: last },
                    permitted,
                ]);
            }
            program.push(refused);
            program
        }
    }
}

fn instruction(code: u16, constant: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, constant }
}

#[cfg(test)]
mod tests;
