//! Subordinate ids (subuid(5)) and the map made of them.

use std::fs;
use std::process::Command;

use super::Error;

/// A run of consecutive ids on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// A line of `/proc/PID/uid_map`: ids inside the namespace, outside it, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) count: u32,
}

/// A user's subordinate ids. Neither list is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subordinate {
    pub(crate) uids: Vec<Range>,
    pub(crate) gids: Vec<Range>,
}

/// The kernel takes this many lines in a map; one is the user's own, one may be split by it.
const RANGES_MAX: usize = 338;

/// Reads the subordinate ids of user `uid`.
pub(crate) fn subordinate(uid: u32) -> Result<Subordinate, Error> {
    let user = name(uid).ok_or(Error::NoName { uid })?;
    Ok(Subordinate { uids: of_file("/etc/subuid", &user, uid)?, gids: of_file("/etc/subgid", &user, uid)? })
}

/// The user's name. `getent` knows those of a directory service too, but costs a process.
fn name(uid: u32) -> Option<String> {
    let find = |text: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    };
    find(&fs::read_to_string("/etc/passwd").unwrap_or_default()).or_else(|| {
        let output = Command::new("getent").args(["passwd", &uid.to_string()]).output().ok()?;
        find(&String::from_utf8_lossy(&output.stdout))
    })
}

fn of_file(file: &'static str, user: &str, uid: u32) -> Result<Vec<Range>, Error> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut ranges = parse(&text, user, uid);
    if ranges.is_empty() {
        ranges = from_directory_service(file, user);
    }
    if ranges.is_empty() {
        let end =
            text.lines().filter_map(range).map(|(_, range)| range.first.saturating_add(range.count)).max();
        let first = end.unwrap_or(0).max(100_000);
        return Err(Error::NoSubordinateIds { user: user.to_owned(), file, free: (first, first + 65_535) });
    }
    ranges.truncate(RANGES_MAX);
    Ok(ranges)
}

/// The ranges that lines `NAME:FIRST:COUNT` or `UID:FIRST:COUNT` give to a user, in the order of the file.
fn parse(text: &str, user: &str, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let own = |owner: &str| owner == user || owner == number;
    text.lines().filter_map(range).filter(|(owner, _)| own(owner)).map(|(_, range)| range).collect()
}

fn range(line: &str) -> Option<(&str, Range)> {
    let mut fields = line.trim().split(':');
    let owner = fields.next()?;
    let range = Range { first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? };
    (range.count > 0 && range.first.checked_add(range.count).is_some()).then_some((owner, range))
}

/// Ranges that `nsswitch.conf` says a directory service has. `getsubids` prints `0: user 100000 65536`.
fn from_directory_service(file: &str, user: &str) -> Vec<Range> {
    let configured = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    if !configured.lines().any(|line| line.trim_start().starts_with("subid:")) {
        return Vec::new();
    }
    let mut command = Command::new("getsubids");
    if file.ends_with("subgid") {
        command.arg("-g");
    }
    let Ok(output) = command.arg(user).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        Some(Range { first: fields.next()?.parse().ok()?, count: fields.next()?.parse().ok()? })
    };
    text.lines().filter_map(numbers).filter(|range| range.count > 0).collect()
}

/// The map of a user: their own id is itself; the other ids inside, from 0 on, are `ranges` in order.
pub(crate) fn lines(own: u32, ranges: &[Range]) -> Vec<Extent> {
    let mut extents = Vec::with_capacity(ranges.len() + 2);
    let mut inside = 0;
    let mut own_done = false;
    for range in ranges {
        let mut rest = *range;
        if !own_done && own - inside.min(own) < rest.count && inside <= own {
            let before = own - inside;
            if before > 0 {
                extents.push(Extent { inside, outside: rest.first, count: before });
            }
            extents.push(Extent { inside: own, outside: own, count: 1 });
            own_done = true;
            inside = own + 1;
            rest = Range { first: rest.first + before, count: rest.count - before };
        }
        extents.push(Extent { inside, outside: rest.first, count: rest.count });
        inside = inside.saturating_add(rest.count);
    }
    if !own_done {
        extents.push(Extent { inside: own, outside: own, count: 1 });
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(u32, u32)]) -> Vec<Range> {
        pairs.iter().map(|&(first, count)| Range { first, count }).collect()
    }

    #[test]
    fn the_user_is_themself_and_the_rest_is_subordinate() {
        let check = |own, pairs: &[(u32, u32)], expected: &[(u32, u32, u32)]| {
            let extents: Vec<_> =
                lines(own, &ranges(pairs)).iter().map(|e| (e.inside, e.outside, e.count)).collect();
            assert_eq!(extents, expected, "{own} {pairs:?}");
        };
        check(1000, &[(100_000, 65_536)], &[(0, 100_000, 1000), (1000, 1000, 1), (1001, 101_000, 64_536)]);
        check(0, &[(100_000, 65_536)], &[(0, 0, 1), (1, 100_000, 65_536)]);
        check(65_536, &[(100_000, 65_536)], &[(0, 100_000, 65_536), (65_536, 65_536, 1)]);
        check(
            65_535,
            &[(100_000, 65_536)],
            &[(0, 100_000, 65_535), (65_535, 65_535, 1), (65_536, 165_535, 1)],
        );
        check(2_000_001, &[(100_000, 10)], &[(0, 100_000, 10), (2_000_001, 2_000_001, 1)]);
        check(15, &[(100, 10), (300, 10)], &[(0, 100, 10), (10, 300, 5), (15, 15, 1), (16, 305, 5)]);
        check(10, &[(100, 10), (300, 10)], &[(0, 100, 10), (10, 10, 1), (11, 300, 10)]);
    }

    #[test]
    fn every_subordinate_id_is_used_once_and_inside_ids_have_no_gap_below_the_user_s() {
        for own in 0..40 {
            for pairs in [&[(100, 7), (200, 1), (300, 20)][..], &[(100, 40)], &[(100, 1)]] {
                let extents = lines(own, &ranges(pairs));
                let mut inside: Vec<u32> =
                    extents.iter().flat_map(|e| e.inside..e.inside + e.count).collect();
                let mut outside: Vec<u32> =
                    extents.iter().flat_map(|e| e.outside..e.outside + e.count).collect();
                inside.sort_unstable();
                outside.sort_unstable();
                let total: u32 = pairs.iter().map(|(_, count)| count).sum();
                let mut expected: Vec<u32> = (0..=total).collect();
                if own > total {
                    expected[total as usize] = own;
                }
                assert_eq!(inside, expected, "{own} {pairs:?}");
                let mut expected: Vec<u32> =
                    pairs.iter().flat_map(|(first, count)| *first..first + count).chain([own]).collect();
                expected.sort_unstable();
                assert_eq!(outside, expected, "{own} {pairs:?}");
            }
        }
    }

    #[test]
    fn ranges_are_read_by_name_and_by_number() {
        let text = "ann:100000:65536\n# note\n1000:300000:10\nbob:200000:65536\nann:x:1\nann:5:0\nann:4294967295:2\n";
        let check = |user, uid, expected: &[(u32, u32)]| assert_eq!(parse(text, user, uid), ranges(expected));
        check("ann", 1000, &[(100_000, 65_536), (300_000, 10)]);
        check("ann", 7, &[(100_000, 65_536)]);
        check("bob", 1001, &[(200_000, 65_536)]);
        check("eve", 1002, &[]);
    }
}
