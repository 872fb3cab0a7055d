//! User namespaces in the one that [`super::ensure`] made, for single containers: in which the starter is known by other
//! ids, or which own a network that another process is to join.

use std::fmt::Write as _;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ibid_sys::clone::UserNamespaceKeeper;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::error::Error;

/// Makes one with all ids of this one, in which `own`, user and group, and `wanted` have changed places.
pub(crate) fn swapped(own: (u32, u32), wanted: (u32, u32)) -> Result<OwnedFd, Error> {
    let failed = |path: &Path, source| Error::Setup {
        step: "make a user namespace for the run".to_owned(),
        path: Some(path.to_owned()),
        source,
    };
    let keeper = UserNamespaceKeeper::new().map_err(|errno| failed(Path::new("/proc"), errno.into()))?;
    let process = PathBuf::from(format!("/proc/{}", keeper.pid().as_raw_nonzero()));
    for (name, own, wanted) in [("uid_map", own.0, wanted.0), ("gid_map", own.1, wanted.1)] {
        let here = Path::new("/proc/self").join(name);
        let known = fs::read_to_string(&here).map_err(|source| failed(&here, source))?;
        let path = process.join(name);
        fs::write(&path, lines(&known, own, wanted)).map_err(|source| failed(&path, source))?;
    }
    let path = process.join("ns/user");
    openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed(&path, errno.into()))
}

/// The lines of the inner map (user_namespaces(7)) from those of the outer one.
fn lines(outer: &str, own: u32, wanted: u32) -> String {
    let mut text = String::new();
    let mut knows_wanted = false;
    for line in outer.lines() {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), Some(_), Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next())
        else {
            continue;
        };
        // All but the two as they are.
        let mut from = u64::from(first);
        let end = from + u64::from(count);
        let mut cuts = [u64::from(own), u64::from(wanted)];
        cuts.sort_unstable();
        for cut in cuts {
            if (from..end).contains(&cut) {
                push(&mut text, from, from, cut - from);
                from = cut + 1;
            }
        }
        push(&mut text, from, from, end - from);
        knows_wanted |= (u64::from(first)..end).contains(&u64::from(wanted));
    }
    push(&mut text, wanted.into(), own.into(), 1);
    if own != wanted && knows_wanted {
        push(&mut text, own.into(), wanted.into(), 1);
    }
    text
}

fn push(text: &mut String, inside: u64, outside: u64, count: u64) {
    if count > 0 {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{inside} {outside} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_change_places() {
        let outer = "0 100000 1000\n1000 1000 1\n1001 101000 64536\n";
        let check =
            |own, wanted, expected: &str| assert_eq!(lines(outer, own, wanted), expected, "{own} {wanted}");
        check(1000, 0, "1 1 999\n1001 1001 64536\n0 1000 1\n1000 0 1\n");
        check(1000, 7, "0 0 7\n8 8 992\n1001 1001 64536\n7 1000 1\n1000 7 1\n");
        check(1000, 1000, "0 0 1000\n1001 1001 64536\n1000 1000 1\n");
        check(1000, 2_000_000, "0 0 1000\n1001 1001 64536\n2000000 1000 1\n");
    }
}
