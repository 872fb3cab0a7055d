//! The ids that processes would have.
//!
//! A process that never changed its ids has those of the process that made it, and the first has those that the
//! container's program was started with (credentials(7)).

use std::collections::HashMap;
use std::fs;

use ibid_sys::seccomp::{Answer, Call, Listener};
use ibid_sys::{Errno, memory, owner};

use super::numbers;

/// "As it is", in calls that change ids.
const SAME: u32 = u32::MAX;
/// `PR_SET_KEEPCAPS`.
pub(crate) const KEEP_CAPABILITIES: u32 = 8;
/// Most groups of a process (`NGROUPS_MAX`).
const GROUPS_MAX: u32 = 65_536;
/// Processes that are known before those that have ended are forgotten.
const KNOWN_MAX: usize = 256;

/// Real, effective, saved, and the one that counts for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    real: u32,
    effective: u32,
    saved: u32,
    files: u32,
}

/// The ids of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ids {
    user: Set,
    group: Set,
    groups: Vec<u32>,
    /// `PR_SET_KEEPCAPS`: what root may do outlasts the change to another user.
    keeps_capabilities: bool,
    /// It has become another user, and kept that.
    kept_capabilities: bool,
}

impl Set {
    fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// `setuid`.
    fn set(&mut self, id: u32, privileged: bool) -> Result<(), Errno> {
        if privileged {
            *self = Self::all(id);
        } else if id == self.real || id == self.saved {
            (self.effective, self.files) = (id, id);
        } else {
            return Err(Errno::PERM);
        }
        Ok(())
    }

    /// `setreuid`.
    fn set_two(&mut self, real: u32, effective: u32, privileged: bool) -> Result<(), Errno> {
        let may_real = real == SAME || real == self.real || real == self.effective;
        if !privileged && !(may_real && (effective == SAME || self.has(effective))) {
            return Err(Errno::PERM);
        }
        let old = *self;
        self.real = if real == SAME { old.real } else { real };
        self.effective = if effective == SAME { old.effective } else { effective };
        if real != SAME || (effective != SAME && effective != old.real) {
            self.saved = self.effective;
        }
        self.files = self.effective;
        Ok(())
    }

    /// `setresuid`.
    fn set_three(&mut self, ids: [u32; 3], privileged: bool) -> Result<(), Errno> {
        if !privileged && ids.iter().any(|id| *id != SAME && !self.has(*id)) {
            return Err(Errno::PERM);
        }
        for (own, id) in [&mut self.real, &mut self.effective, &mut self.saved].into_iter().zip(ids) {
            if id != SAME {
                *own = id;
            }
        }
        self.files = self.effective;
        Ok(())
    }

    /// `setfsuid`, which gives the id of before, whatever happens.
    fn set_files(&mut self, id: u32, privileged: bool) -> u32 {
        let before = self.files;
        if id != SAME && (privileged || self.has(id) || id == self.files) {
            self.files = id;
        }
        before
    }
}

impl Ids {
    pub(super) fn of(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        let (user, group) = (Set::all(uid), Set::all(gid));
        Self { user, group, groups, keeps_capabilities: false, kept_capabilities: false }
    }

    fn privileged(&self) -> bool {
        self.user.effective == 0 || self.kept_capabilities
    }

    /// Changes the user ids, and what goes with them (capabilities(7), "Effect of user ID changes").
    fn change_user(&mut self, change: impl FnOnce(&mut Set) -> Result<(), Errno>) -> Result<(), Errno> {
        let was_root = self.user.has(0);
        change(&mut self.user)?;
        if was_root && !self.user.has(0) {
            self.kept_capabilities = self.keeps_capabilities;
        }
        Ok(())
    }

    /// Who owns what the process makes.
    pub(super) fn maker(&self) -> owner::Owner {
        (self.user.files, self.group.files)
    }

    /// Whether a file of `old` may be given to `new`: by root always; by others, their own to a group of theirs.
    pub(super) fn may_give(&self, old: owner::Owner, new: owner::Owner) -> bool {
        let in_group = |gid| gid == self.group.files || self.groups.contains(&gid);
        self.user.files == 0
            || (old.0 == self.user.files && new.0 == old.0 && (new.1 == old.1 || in_group(new.1)))
    }
}

pub(super) struct Processes {
    /// Those of the first one.
    first: Ids,
    /// By process id, with the time at which the process started.
    known: HashMap<u32, (u64, Ids)>,
}

impl Processes {
    pub(super) fn new(first: Ids) -> Self {
        Self { first, known: HashMap::new() }
    }

    /// The ids of a thread's process.
    pub(super) fn ids_of(&mut self, thread: u32) -> Ids {
        // Until one changes its ids, all have the first one's.
        if self.known.is_empty() {
            return self.first.clone();
        }
        let Some(process) = Process::of_thread(thread) else { return self.first.clone() };
        self.inherited(&process)
    }

    fn inherited(&mut self, process: &Process) -> Ids {
        let mut asked = vec![(process.id, process.started)];
        let mut parent = process.parent;
        let found = loop {
            let (id, started) = asked[asked.len() - 1];
            if let Some((_, ids)) = self.known.get(&id).filter(|(known, _)| *known == started) {
                break ids.clone();
            }
            match Process::of_thread(parent).filter(|_| parent != 0) {
                // A parent that started later is another process that got the number.
                Some(above) if above.started <= started && above.id != id => {
                    asked.push((above.id, above.started));
                    parent = above.parent;
                }
                _ => break self.first.clone(),
            }
        };
        // What is inherited now must not change when an ancestor changes its own.
        self.set((process.id, process.started), found.clone());
        found
    }

    fn set(&mut self, (id, started): (u32, u64), ids: Ids) {
        if self.known.len() >= KNOWN_MAX {
            self.known
                .retain(|id, (started, _)| Process::of_thread(*id).is_some_and(|it| it.started == *started));
        }
        self.known.insert(id, (started, ids));
    }

    /// Answers a call about ids.
    pub(super) fn call(&mut self, call: &Call, listener: &Listener) -> Result<Answer, Errno> {
        let [first, second, third] = [0, 1, 2].map(|index| call.arguments[index] as u32);
        let mut ids = self.ids_of(call.thread);
        let privileged = ids.privileged();
        let value = |value: u32| Ok(Answer::Value(value.into()));
        let mut result = 0;
        match call.number {
            numbers::GETUID => return value(ids.user.real),
            numbers::GETEUID => return value(ids.user.effective),
            numbers::GETGID => return value(ids.group.real),
            numbers::GETEGID => return value(ids.group.effective),
            numbers::GETRESUID => return three(call, listener, ids.user),
            numbers::GETRESGID => return three(call, listener, ids.group),
            numbers::GETGROUPS => return groups(call, listener, &ids.groups),
            numbers::SETUID | numbers::SETGID if first == SAME => return Err(Errno::INVAL),
            numbers::SETUID => ids.change_user(|user| user.set(first, privileged))?,
            numbers::SETGID => ids.group.set(first, privileged)?,
            numbers::SETREUID => ids.change_user(|user| user.set_two(first, second, privileged))?,
            numbers::SETREGID => ids.group.set_two(first, second, privileged)?,
            numbers::SETRESUID => {
                ids.change_user(|user| user.set_three([first, second, third], privileged))?;
            }
            numbers::SETRESGID => ids.group.set_three([first, second, third], privileged)?,
            numbers::SETFSUID => result = ids.user.set_files(first, privileged),
            numbers::SETFSGID => result = ids.group.set_files(first, privileged),
            numbers::SETGROUPS if !privileged => return Err(Errno::PERM),
            numbers::SETGROUPS if first > GROUPS_MAX => return Err(Errno::INVAL),
            numbers::SETGROUPS => {
                let mut bytes = vec![0; first as usize * 4];
                if memory::read(call.thread, call.arguments[1], &mut bytes)? != bytes.len() {
                    return Err(Errno::FAULT);
                }
                let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap_or_default());
                ids.groups = bytes.chunks_exact(4).map(number).collect();
            }
            numbers::PRCTL if first == KEEP_CAPABILITIES => ids.keeps_capabilities = second != 0,
            _ => return Ok(Answer::Kernel),
        }
        if let Some(process) = Process::of_thread(call.thread) {
            self.set((process.id, process.started), ids);
        }
        value(result)
    }
}

fn three(call: &Call, listener: &Listener, set: Set) -> Result<Answer, Errno> {
    if listener.waits(call) {
        for (address, id) in call.arguments.into_iter().zip([set.real, set.effective, set.saved]) {
            memory::write(call.thread, address, &id.to_ne_bytes())?;
        }
    }
    Ok(Answer::Value(0))
}

fn groups(call: &Call, listener: &Listener, groups: &[u32]) -> Result<Answer, Errno> {
    let count = groups.len() as i64;
    let room = call.arguments[0] as i32;
    if room != 0 {
        if i64::from(room) < count {
            return Err(Errno::INVAL);
        }
        let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        if !bytes.is_empty() && listener.waits(call) {
            memory::write(call.thread, call.arguments[1], &bytes)?;
        }
    }
    Ok(Answer::Value(count))
}

/// What `/proc` says of a process.
struct Process {
    id: u32,
    parent: u32,
    /// When it started, in ticks since the machine did.
    started: u64,
}

impl Process {
    /// The process of a thread; none when it has ended.
    fn of_thread(thread: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|value| value.trim().parse().ok())
        };
        let (id, parent) = (field("Tgid:")?, field("PPid:")?);
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, in brackets, can hold anything; of what follows, the start is the twentieth (proc(5)).
        let started = text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { id, parent, started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_change_as_the_kernel_lets_them() {
        let check = |change: &dyn Fn(&mut Set, bool) -> Result<(), Errno>, from: Set, by_root, by_others| {
            for (privileged, expected) in [(true, by_root), (false, by_others)] {
                let mut set = from;
                let result = change(&mut set, privileged).map(|()| [set.real, set.effective, set.saved]);
                assert_eq!(result, expected, "{from:?} {privileged}");
                assert!(result.is_err() || set.files == set.effective);
            }
        };
        let refused = Err(Errno::PERM);
        let set = Set { real: 1, effective: 2, saved: 3, files: 2 };
        check(&|set, privileged| set.set(9, privileged), set, Ok([9, 9, 9]), refused);
        check(&|set, privileged| set.set(3, privileged), set, Ok([3, 3, 3]), Ok([1, 3, 3]));
        check(&|set, privileged| set.set(2, privileged), set, Ok([2, 2, 2]), refused);
        check(&|set, privileged| set.set_two(9, SAME, privileged), set, Ok([9, 2, 2]), refused);
        check(&|set, privileged| set.set_two(SAME, 1, privileged), set, Ok([1, 1, 3]), Ok([1, 1, 3]));
        check(&|set, privileged| set.set_two(SAME, 3, privileged), set, Ok([1, 3, 3]), Ok([1, 3, 3]));
        check(&|set, privileged| set.set_three([3, 1, SAME], privileged), set, Ok([3, 1, 3]), Ok([3, 1, 3]));
        check(&|set, privileged| set.set_three([SAME, SAME, 4], privileged), set, Ok([1, 2, 4]), refused);
    }

    #[test]
    fn files_are_given_away_by_root_and_to_own_groups() {
        let root = Ids::of(0, 0, vec![]);
        let user = Ids::of(1000, 1000, vec![44]);
        let check = |ids: &Ids, old, new, expected| assert_eq!(ids.may_give(old, new), expected, "{new:?}");
        check(&root, (1, 1), (2, 2), true);
        check(&user, (1000, 1000), (1000, 44), true);
        check(&user, (1000, 7), (1000, 7), true);
        check(&user, (1000, 1000), (1000, 45), false);
        check(&user, (1000, 1000), (0, 1000), false);
        check(&user, (0, 0), (0, 0), false);
    }

    #[test]
    fn this_process_is_found() {
        let own = Process::of_thread(std::process::id()).expect("it runs");
        assert_eq!(own.id, std::process::id());
        assert_eq!(Some(own.parent), rustix::process::getppid().map(|id| id.as_raw_nonzero().get() as u32));
        assert!(own.started > 0);
    }
}
