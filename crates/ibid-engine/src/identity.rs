//! Who the process in the container is: always the person who runs it, so that what it writes is theirs.
//!
//! | host user | process | how files become the person's |
//! |---|---|---|
//! | ordinary, id U | U, as the user that the image names, if that is not root | the user namespace maps U to U |
//! | root | the image's `USER` | mounts from the host map their owner to that user and back |
//! | ordinary, who asks to be X | X | the user namespace lets U and X change places |
//! | root, who asks to be X | X | as with the image's `USER` |
//! | root without its rights, as in a container | the same | the user namespace lets 0 and that user change places |
//!
//! Where an ordinary person stands in for a user of the image with another id, that user's files are the person's in the run
//! ([`Identity::owner_change`]), and the user's line of `passwd` has the person's id.
//!
//! Pure: decided from texts and numbers alone.

use std::borrow::Cow;

use ibid_core::user::{self, UnknownUser, User};
use ibid_store::OwnerChange;

/// The person on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Login name, when the host knows one.
    pub name: Option<String>,
}

impl HostUser {
    /// Whether this is the host's root: not one who has its id without its rights, as in a container.
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0 && !ibid_sandbox::userns::entered()
    }
}

/// Who the process is, and the files that say so to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What the process runs as. Its name is always set.
    pub user: User,
    /// The whole `/etc/passwd`, when the image's own lacks the user.
    pub passwd: Option<String>,
    /// The whole `/etc/group`, when the image's own lacks the group.
    pub group: Option<String>,
    /// True when the image has no home for the user and one must be made.
    pub make_home: bool,
    /// Whose files of the image must become the person's, for they have others' ids on disk.
    pub owner_change: Option<OwnerChange>,
}

/// Decides from the image's `USER` and user files. `wanted`, a user and perhaps a group, is who the person asked to be.
pub fn decide(
    host: &HostUser,
    wanted: Option<&str>,
    image_user: &str,
    passwd: &str,
    group: &str,
) -> Result<Identity, UnknownUser> {
    let mut user = match user::resolve(wanted.unwrap_or(image_user), passwd, group) {
        Ok(user) => user,
        // The name only matters where it decides the process's id.
        Err(unknown) if host.uid == 0 || wanted.is_some() => return Err(unknown),
        Err(_) => user::resolve("", passwd, group)?,
    };
    // Root's files are nobody's to have: who must change them asks to be root.
    let owner_change = (host.uid != 0 && user.uid != 0)
        .then_some(OwnerChange { from: (user.uid, user.gid), to: (host.uid, host.gid) })
        .filter(|change| change.from != change.to);
    let (mut passwd, mut group) = (Cow::Borrowed(passwd), Cow::Borrowed(group));
    if host.uid != 0 && wanted.is_none() {
        let is_stand_in = user.uid != 0 && user.uid != host.uid && user.name.is_some();
        if is_stand_in {
            passwd = with_ids(&passwd, user.name.as_deref().unwrap_or_default(), (host.uid, host.gid)).into();
            user.uid = host.uid;
        } else if user.uid != host.uid {
            user = user::resolve(&host.uid.to_string(), &passwd, &group)?;
        }
        if is_stand_in && user.gid != 0 && user.gid != host.gid && !knows_group(&group, host.gid) {
            group = with_group_id(&group, user.gid, host.gid).into();
        }
        user.gid = host.gid;
    }
    let is_known = user.name.is_some();
    let name = match &user.name {
        Some(name) => name.clone(),
        None => free_name(host, user.uid, &passwd),
    };
    let mut make_home = false;
    if !is_known {
        make_home = user.home == "/";
        if make_home {
            user.home = format!("/home/{name}");
        }
        let line = format!("{name}:x:{}:{}::{}:/bin/sh\n", user.uid, user.gid, user.home);
        passwd = with_line(&passwd, &line).into();
    }
    if !knows_group(&group, user.gid) {
        let taken = user::group_entries(&group).any(|(known, ..)| known == name);
        let group_name = if taken { format!("{name}-{}", user.gid) } else { name.clone() };
        group = with_line(&group, &format!("{group_name}:x:{}:\n", user.gid)).into();
    }
    user.name = Some(name);
    let changed = |text| if let Cow::Owned(text) = text { Some(text) } else { None };
    Ok(Identity { user, passwd: changed(passwd), group: changed(group), make_home, owner_change })
}

fn knows_group(group: &str, gid: u32) -> bool {
    user::group_entries(group).any(|(_, known, _)| known == gid)
}

/// `passwd` in which the line of `name` has other ids. It comes first, so that the user id has this name, should others have
/// the id too.
fn with_ids(passwd: &str, name: &str, (uid, gid): (u32, u32)) -> String {
    let is_theirs = |line: &&str| user::passwd_entries(line).any(|entry| entry.name == name);
    let fields: Vec<&str> = passwd.lines().find(is_theirs).unwrap_or_default().split(':').collect();
    let mut text = String::new();
    if let [name, password, _, _, rest @ ..] = &fields[..] {
        text = format!("{name}:{password}:{uid}:{gid}:{}\n", rest.join(":"));
    }
    for line in passwd.lines().filter(|line| !is_theirs(line)) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// `group` in which the first line with the id `from` has the id `to`.
fn with_group_id(group: &str, from: u32, to: u32) -> String {
    let mut is_done = false;
    let lines = group.lines().map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match &fields[..] {
            [name, password, gid, rest @ ..] if !is_done && gid.parse() == Ok(from) => {
                is_done = true;
                format!("{name}:{password}:{to}:{}\n", rest.join(":"))
            }
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}

/// The host's name for the user unless the image uses it for another, else `user`, else `user-<id>`.
fn free_name(host: &HostUser, uid: u32, passwd: &str) -> String {
    let is_free = |name: &str| user::passwd_entries(passwd).all(|entry| entry.name != name);
    let of_host = host.name.as_deref().filter(|_| uid == host.uid);
    of_host
        .into_iter()
        .chain(["user"])
        .find(|name| is_free(name))
        .map_or_else(|| format!("user-{uid}"), str::to_owned)
}

fn with_line(text: &str, line: &str) -> String {
    let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{separator}{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nuser:x:1000:\n";

    /// `made` is what the new files have that the image's have not: lines of `passwd`, then of `group`.
    #[track_caller]
    fn check(uid: u32, host_name: &str, image_user: &str, expected: (&str, u32, u32, &str), made: &str) {
        let host = HostUser { uid, gid: uid, name: Some(host_name.to_owned()) };
        let identity = decide(&host, None, image_user, PASSWD, GROUP).expect("known");
        let user = &identity.user;
        assert_eq!((user.name.as_deref().expect("named"), user.uid, user.gid, user.home.as_str()), expected);
        let added = |text: Option<String>, old: &str| {
            let lines = text.unwrap_or_default();
            lines
                .lines()
                .filter(|line| !old.lines().any(|known| known == *line))
                .fold(String::new(), |text, line| text + line + "\n")
        };
        assert_eq!(added(identity.passwd, PASSWD) + &added(identity.group, GROUP), made);
    }

    #[test]
    fn an_ordinary_person_is_themself_whatever_the_image_names() {
        check(1000, "alice", "user", ("user", 1000, 1000, "/home/user"), "");
        check(1000, "alice", "", ("user", 1000, 1000, "/home/user"), "");
        check(
            1234,
            "alice",
            "",
            ("alice", 1234, 1234, "/home/alice"),
            "alice:x:1234:1234::/home/alice:/bin/sh\nalice:x:1234:\n",
        );
        check(
            1234,
            "user",
            "",
            ("user-1234", 1234, 1234, "/home/user-1234"),
            "user-1234:x:1234:1234::/home/user-1234:/bin/sh\nuser-1234:x:1234:\n",
        );
        check(
            3_000_000,
            "d",
            "nobody-knows",
            ("d", 3_000_000, 3_000_000, "/home/d"),
            "d:x:3000000:3000000::/home/d:/bin/sh\nd:x:3000000:\n",
        );
    }

    #[test]
    fn an_ordinary_person_stands_in_for_the_images_user() {
        check(
            1234,
            "alice",
            "user",
            ("user", 1234, 1234, "/home/user"),
            "user:x:1234:1234::/home/user:/bin/sh\nuser:x:1234:\n",
        );
        // A number that has no name has no home either.
        check(
            1234,
            "alice",
            "77",
            ("alice", 1234, 1234, "/home/alice"),
            "alice:x:1234:1234::/home/alice:/bin/sh\nalice:x:1234:\n",
        );
        check(1000, "alice", "77", ("user", 1000, 1000, "/home/user"), "");
    }

    #[test]
    fn the_images_user_comes_before_others_with_the_persons_id() {
        let passwd = "root:x:0:0::/root:/bin/sh\nubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash\nworker:!:1001:1001:W, x:/w:\n";
        let group = "root:x:0:\nubuntu:x:1000:\nworker:x:1001:ubuntu\nlab:x:50:worker\n";
        let host = HostUser { uid: 1000, gid: 1000, name: Some("ann".to_owned()) };
        let identity = decide(&host, None, "worker", passwd, group).expect("known");
        assert_eq!(
            identity.passwd.expect("made"),
            "worker:!:1000:1000:W, x:/w:\nroot:x:0:0::/root:/bin/sh\nubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash\n"
        );
        assert_eq!(identity.group, None);
        assert_eq!((identity.user.home.as_str(), identity.user.groups), ("/w", vec![50]));
    }

    #[test]
    fn files_change_where_the_images_user_has_another_id() {
        let check = |uid, wanted, image_user: &str, expected| {
            let host = HostUser { uid, gid: 100, name: None };
            let identity = decide(&host, wanted, image_user, PASSWD, GROUP).expect("known");
            assert_eq!(identity.owner_change, expected, "{uid} {wanted:?} {image_user}");
        };
        let to = |from, uid| Some(OwnerChange { from, to: (uid, 100) });
        check(1234, None, "user", to((1000, 1000), 1234));
        check(1234, None, "user:7", to((1000, 7), 1234));
        check(1234, None, "77", to((77, 0), 1234));
        check(1234, Some("77:78"), "user", to((77, 78), 1234));
        // The group is another.
        check(1000, None, "user", to((1000, 1000), 1000));
        check(1000, None, "user:100", None);
        check(1234, None, "", None);
        check(1234, Some("0"), "user", None);
        check(0, None, "user", None);
        check(0, Some("77"), "user", None);
    }

    #[test]
    fn root_becomes_the_images_user() {
        check(0, "root", "", ("root", 0, 0, "/root"), "");
        check(0, "root", "user", ("user", 1000, 1000, "/home/user"), "");
        check(0, "root", "7", ("user-7", 7, 0, "/home/user-7"), "user-7:x:7:0::/home/user-7:/bin/sh\n");
        let host = HostUser { uid: 0, gid: 0, name: None };
        assert!(decide(&host, None, "absent", PASSWD, GROUP).is_err());
    }

    #[test]
    fn who_asks_to_be_somebody_is() {
        let check = |uid, wanted: &str, expected: (&str, u32, u32, &str)| {
            let host = HostUser { uid, gid: uid, name: Some("ann".to_owned()) };
            let user = decide(&host, Some(wanted), "user", PASSWD, GROUP).expect("known").user;
            assert_eq!(
                (user.name.as_deref().expect("named"), user.uid, user.gid, user.home.as_str()),
                expected
            );
        };
        for host in [0, 1234] {
            check(host, "0:0", ("root", 0, 0, "/root"));
            check(host, "user", ("user", 1000, 1000, "/home/user"));
            check(host, "user:0", ("user", 1000, 0, "/home/user"));
            check(host, "77:88", ("user-77", 77, 88, "/home/user-77"));
            let host = HostUser { uid: host, gid: host, name: None };
            assert!(decide(&host, Some("absent"), "user", PASSWD, GROUP).is_err());
        }
    }

    #[test]
    fn a_group_that_the_image_lacks_is_named() {
        let host = HostUser { uid: 1000, gid: 50, name: None };
        let identity = decide(&host, None, "user", PASSWD, GROUP).expect("known");
        assert_eq!(identity.group.expect("made"), format!("{GROUP}user-50:x:50:\n"));
    }
}
