//! Which rules could match a path, found by the literal bytes in their patterns.
//!
//! Every path that a pattern matches holds the pattern's literals: the first at its start, the last at its end, others
//! anywhere. Each rule is filed under the one of its literals that the fewest others have. So deciding about a path costs
//! a few look-ups for each different length of literals, however many rules there are; rules without any literal, such as
//! `?*`, are tried one by one.

use std::collections::{BTreeMap, HashMap};

use super::Rule;
use super::expression::{Ends, Matcher};

/// Longest literal inside a pattern that is looked for; of a longer one, both ends are.
const INNER_BYTES_MAX: usize = 16;
/// So few rules with nothing but literals inside are tried one by one sooner than looked for.
const INNER_RULES_MIN: usize = 16;

/// So many exceptions are asked whether they match below a folder; if none of them can, another may.
const EXCEPTIONS_ASKED_MAX: usize = 256;

/// Where a literal stands in the paths that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    End,
    Start,
    Inside,
}

/// Rules by literals.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    ends: Vec<Bucket>,
    starts: Vec<Bucket>,
    inner: Vec<Bucket>,
    /// Rules with no literal.
    others: Vec<(Ends, usize)>,
}

/// Rules whose literal has the same length.
#[derive(Debug, Clone)]
struct Bucket {
    length: usize,
    /// Most ignore files have so few rules that this is faster than hashing.
    rules: BTreeMap<Box<[u8]>, Vec<usize>>,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let literals: Vec<Vec<(Place, Vec<u8>)>> = rules.iter().map(|rule| literals(&rule.matcher)).collect();
        let mut counts: HashMap<&(Place, Vec<u8>), usize> = HashMap::new();
        literals.iter().flatten().for_each(|literal| *counts.entry(literal).or_default() += 1);
        // The rarest; of those the longest, at an end sooner than inside.
        let best = |literals: &'_ Vec<(Place, Vec<u8>)>| {
            let rank =
                |literal: &(Place, Vec<u8>)| (counts[literal], std::cmp::Reverse(literal.1.len()), literal.0);
            literals.iter().enumerate().min_by_key(|(_, literal)| rank(literal)).map(|(at, _)| at)
        };
        let chosen: Vec<Option<usize>> = literals.iter().map(best).collect();
        drop(counts);
        let is_inside = |(literals, chosen): (&Vec<(Place, Vec<u8>)>, &Option<usize>)| {
            chosen.is_some_and(|at| literals[at].0 == Place::Inside)
        };
        let inside = literals.iter().zip(&chosen).filter(|pair| is_inside(*pair)).count();
        let mut index = Self::default();
        for (number, (mut literals, chosen)) in literals.into_iter().zip(chosen).enumerate() {
            let Some((place, literal)) = chosen.map(|at| literals.swap_remove(at)) else {
                index.others.push((rules[number].matcher.ends(), number));
                continue;
            };
            let buckets = match place {
                Place::End => &mut index.ends,
                Place::Start => &mut index.starts,
                Place::Inside if inside < INNER_RULES_MIN => {
                    index.others.push((rules[number].matcher.ends(), number));
                    continue;
                }
                Place::Inside => &mut index.inner,
            };
            let at = buckets.partition_point(|bucket| bucket.length < literal.len());
            if buckets.get(at).is_none_or(|bucket| bucket.length != literal.len()) {
                buckets.insert(at, Bucket { length: literal.len(), rules: BTreeMap::new() });
            }
            buckets[at].rules.entry(literal.into()).or_default().push(number);
        }
        index
    }

    /// The last rule that matches `path` itself, of those numbered `from` and up.
    pub(super) fn last_match<'a>(&self, rules: &'a [Rule], from: usize, path: &[u8]) -> Option<&'a Rule> {
        let mut best: Option<usize> = None;
        let mut search = |numbers: &[usize]| {
            let from = best.map_or(from, |best| best + 1);
            let later = numbers.iter().rev().take_while(|number| **number >= from);
            if let Some(number) = later.copied().find(|number| rules[*number].matcher.matches(path)) {
                best = Some(number);
            }
        };
        let fitting = |bucket: &&Bucket| bucket.length <= path.len();
        for bucket in self.ends.iter().take_while(fitting) {
            bucket
                .rules
                .get(&path[path.len() - bucket.length..])
                .map(Vec::as_slice)
                .into_iter()
                .for_each(&mut search);
        }
        for bucket in self.starts.iter().take_while(fitting) {
            bucket.rules.get(&path[..bucket.length]).map(Vec::as_slice).into_iter().for_each(&mut search);
        }
        for bucket in self.inner.iter().take_while(fitting) {
            for window in path.windows(bucket.length) {
                bucket.rules.get(window).map(Vec::as_slice).into_iter().for_each(&mut search);
            }
        }
        let from = best.map_or(from, |best| best + 1);
        let later = self.others.iter().rev().take_while(|(_, number)| *number >= from);
        let mut admitted = later.filter(|(ends, _)| ends.admit(path)).map(|(_, number)| *number);
        best = admitted.find(|number| rules[*number].matcher.matches(path)).or(best);
        best.map(|number| &rules[number])
    }
}

/// What a rule can be filed under.
fn literals(matcher: &Matcher) -> Vec<(Place, Vec<u8>)> {
    let mut found = Vec::new();
    let mut add = |place, literal: &[u8]| {
        if !literal.is_empty() {
            found.push((place, literal.to_vec()));
        }
    };
    add(Place::End, &matcher.tail());
    add(Place::Start, &matcher.head());
    for literal in matcher.inner() {
        let length = literal.len().min(INNER_BYTES_MAX);
        add(Place::Inside, &literal[..length]);
        if literal.len() > INNER_BYTES_MAX {
            add(Place::Inside, &literal[literal.len() - INNER_BYTES_MAX..]);
        }
    }
    found
}

/// Exceptions by the bytes that every path they match starts with, to tell whether anything below a folder may be kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Exceptions {
    by_start: BTreeMap<Box<[u8]>, Vec<usize>>,
}

impl Exceptions {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut by_start: BTreeMap<Box<[u8]>, Vec<usize>> = BTreeMap::new();
        for (number, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.exception) {
            by_start.entry(rule.matcher.head().into()).or_default().push(number);
        }
        Self { by_start }
    }

    /// Whether a rule numbered `from` or up may match something below `folder`.
    pub(super) fn may_match_below(&self, rules: &[Rule], from: usize, folder: &[u8]) -> bool {
        let below = [folder, b"/"].concat();
        let mut asked = 0;
        let mut may = |numbers: &Vec<usize>| {
            let later = numbers.iter().rev().take_while(|number| **number >= from);
            later.into_iter().any(|number| {
                asked += 1;
                asked > EXCEPTIONS_ASKED_MAX || rules[*number].matcher.may_match_below(folder)
            })
        };
        // A start that leads to the folder, or one that goes on below it.
        (0..below.len()).any(|end| self.by_start.get(&below[..end]).is_some_and(&mut may))
            || self
                .by_start
                .range::<[u8], _>((std::ops::Bound::Included(below.as_slice()), std::ops::Bound::Unbounded))
                .take_while(|(start, _)| start.starts_with(&below))
                .any(|(_, numbers)| may(numbers))
    }
}
