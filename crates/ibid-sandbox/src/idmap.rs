//! User namespaces whose only purpose is their id maps, for idmapped mounts.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ibid_sys::clone::UserNamespaceKeeper;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::error::Error;
use crate::spec::IdMap;

/// The number of ids; the largest number means "no id".
const IDS: u32 = u32::MAX;

/// The namespace for `map`, made once for a process.
pub(crate) fn user_namespace(map: &IdMap) -> Result<Arc<OwnedFd>, Error> {
    static MADE: Mutex<Option<HashMap<IdMap, Arc<OwnedFd>>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    if let Some(known) = made.get(map) {
        return Ok(Arc::clone(known));
    }
    let namespace = Arc::new(make(map)?);
    made.insert(*map, Arc::clone(&namespace));
    Ok(namespace)
}

fn make(map: &IdMap) -> Result<OwnedFd, Error> {
    let failed = |path: &Path, source| Error::Setup {
        step: "make the map of owners for a mount".to_owned(),
        path: Some(path.to_owned()),
        source,
    };
    let keeper = UserNamespaceKeeper::new().map_err(|errno| failed(Path::new("/proc"), errno.into()))?;
    let process = PathBuf::from(format!("/proc/{}", keeper.pid().as_raw_nonzero()));
    for (name, host, container) in
        [("uid_map", map.host_uid, map.container_uid), ("gid_map", map.host_gid, map.container_gid)]
    {
        let path = process.join(name);
        std::fs::write(&path, swap(host, container)).map_err(|source| failed(&path, source))?;
    }
    let path = process.join("ns/user");
    openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed(&path, errno.into()))
}

/// The lines of a map (user_namespaces(7)) that swap two ids and leave every other as it is: first id on disk,
/// first id seen, how many.
fn swap(one: u32, other: u32) -> String {
    let (low, high) = (one.min(other), one.max(other));
    let mut extents = vec![(0, 0, low)];
    if low == high {
        extents.push((low, low, 1));
    } else {
        extents.extend([(low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1)]);
    }
    let above = high.saturating_add(1);
    extents.push((above, above, IDS - above));
    extents
        .into_iter()
        .filter(|(_, _, count)| *count > 0)
        .map(|(disk, seen, count)| format!("{disk} {seen} {count}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_are_swapped_and_all_others_stay() {
        let check = |one, other, expected: &str| assert_eq!(swap(one, other), expected, "{one} {other}");
        check(0, 1000, "0 1000 1\n1 1 999\n1000 0 1\n1001 1001 4294966294\n");
        check(1000, 0, "0 1000 1\n1 1 999\n1000 0 1\n1001 1001 4294966294\n");
        check(1000, 1001, "0 0 1000\n1000 1001 1\n1001 1000 1\n1002 1002 4294966293\n");
        check(7, 7, "0 0 7\n7 7 1\n8 8 4294967287\n");
        check(0, u32::MAX - 1, "0 4294967294 1\n1 1 4294967293\n4294967294 0 1\n");
    }
}
