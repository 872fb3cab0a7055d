//! Work that finds more work, as the walk through a folder does, on as many threads as it is worth.

use std::sync::{Condvar, Mutex, PoisonError};

/// As many as it takes to keep one disk busy: more threads wait for the same locks in the kernel.
const THREADS_MAX: usize = 4;

/// Starting a thread costs more than a few items of work do.
const PENDING_MIN: usize = 8;

/// How many threads work on files.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX))
}

/// Items still to be worked on, shared by the threads.
struct Queue<Item, Error> {
    pending: Vec<Item>,
    /// Threads that are working on an item and may add more.
    busy: usize,
    error: Option<Error>,
}

/// Works on `first` and on all that `work` adds to its last argument, in no order. Each thread has a state of its own, made by
/// `state`; all of them are given back. After the first error, no more is begun.
pub fn each<Item: Send, State: Send, Error: Send>(
    first: Item,
    state: impl Fn() -> State + Sync,
    work: impl Fn(&mut State, Item, &mut Vec<Item>) -> Result<(), Error> + Sync,
) -> Result<Vec<State>, Error> {
    // Most walks are through a few folders.
    let mut own = state();
    let mut pending = vec![first];
    while pending.len() < PENDING_MIN {
        let Some(item) = pending.pop() else { return Ok(vec![own]) };
        work(&mut own, item, &mut pending)?;
    }
    let queue = Mutex::new(Queue { pending, busy: 0, error: None });
    let changed = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let run = |mut own: State| {
        let mut more = Vec::new();
        let mut queue = lock();
        loop {
            if queue.error.is_some() {
                return own;
            }
            let Some(item) = queue.pending.pop() else {
                if queue.busy == 0 {
                    return own;
                }
                queue = changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.busy += 1;
            drop(queue);
            let result = work(&mut own, item, &mut more);
            queue = lock();
            queue.busy -= 1;
            if let Err(error) = result {
                queue.error.get_or_insert(error);
            }
            if !more.is_empty() || queue.busy == 0 || queue.error.is_some() {
                queue.pending.append(&mut more);
                changed.notify_all();
            }
        }
    };
    let states = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads())
            .map(|_| {
                scope.spawn(|| {
                    yield_to_others();
                    run(state())
                })
            })
            .collect();
        let mut states = vec![run(own)];
        for other in others {
            match other.join() {
                Ok(state) => states.push(state),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        states
    });
    match queue.into_inner().unwrap_or_else(PoisonError::into_inner).error {
        Some(error) => Err(error),
        None => Ok(states),
    }
}

/// Lets this thread take what is left of the processors: git may look at the same files meanwhile, on fewer threads, and the
/// one that ends last decides.
fn yield_to_others() {
    const STEP: i32 = 5;
    // On Linux this is about the thread, not the process. Where it is refused, all go on as equals.
    let _ = rustix::process::nice(STEP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_work_is_done_once() {
        let check = |depth: u32, width: u64| {
            let states = each((depth, 1u64), Vec::new, |done: &mut Vec<u64>, (depth, number), more| {
                done.push(number);
                if depth > 0 {
                    more.extend((0..width).map(|child| (depth - 1, number * width + child)));
                }
                Ok::<(), ()>(())
            })
            .expect("no error");
            let count: usize = states.iter().map(Vec::len).sum();
            let expected: u64 = (0..=depth).map(|level| width.pow(level)).sum();
            assert_eq!(count as u64, expected, "{depth} {width}");
        };
        check(0, 0);
        check(5, 1);
        check(3, 5);
        check(2, 40);
    }

    #[test]
    fn an_error_ends_the_work() {
        for width in [2, 100] {
            let result = each(
                0u32,
                || (),
                |(), number, more| {
                    more.extend((1..width).map(|child| number + child));
                    if number > 500 { Err(number) } else { Ok(()) }
                },
            );
            assert!(result.is_err_and(|number| number > 500), "{width}");
        }
    }
}
