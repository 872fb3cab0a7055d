//! Who the process in the container is: always the person who runs it, so that what it writes is theirs.
//!
//! | host user | process | how files become the person's |
//! |---|---|---|
//! | ordinary, id U | U, whatever `USER` the image names | the user namespace maps U to U |
//! | root | the image's `USER` | mounts from the host map their owner to that user and back |
//! | ordinary, who asks to be X | X | the user namespace lets U and X change places |
//! | root, who asks to be X | X | as with the image's `USER` |
//!
//! Pure: decided from texts and numbers alone.

use ibid_core::user::{self, UnknownUser, User};

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
    if host.uid != 0 && wanted.is_none() {
        if user.uid != host.uid {
            user = user::resolve(&host.uid.to_string(), passwd, group)?;
        }
        user.gid = host.gid;
    }
    let is_known = user.name.is_some();
    let name = match &user.name {
        Some(name) => name.clone(),
        None => free_name(host, user.uid, passwd),
    };
    let mut make_home = false;
    let mut new_passwd = None;
    if !is_known {
        make_home = user.home == "/";
        if make_home {
            user.home = format!("/home/{name}");
        }
        let line = format!("{name}:x:{}:{}::{}:/bin/sh\n", user.uid, user.gid, user.home);
        new_passwd = Some(with_line(passwd, &line));
    }
    let knows_group = user::group_entries(group).any(|(_, gid, _)| gid == user.gid);
    let new_group = (!knows_group).then(|| {
        let taken = user::group_entries(group).any(|(known, ..)| known == name);
        let group_name = if taken { format!("{name}-{}", user.gid) } else { name.clone() };
        with_line(group, &format!("{group_name}:x:{}:\n", user.gid))
    });
    user.name = Some(name);
    Ok(Identity { user, passwd: new_passwd, group: new_group, make_home })
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

    #[track_caller]
    fn check(uid: u32, host_name: &str, image_user: &str, expected: (&str, u32, u32, &str), made: &str) {
        let host = HostUser { uid, gid: uid, name: Some(host_name.to_owned()) };
        let identity = decide(&host, None, image_user, PASSWD, GROUP).expect("known");
        let user = &identity.user;
        assert_eq!((user.name.as_deref().expect("named"), user.uid, user.gid, user.home.as_str()), expected);
        let added = identity.passwd.map(|text| text[PASSWD.len()..].to_owned()).unwrap_or_default();
        assert_eq!(added, made);
    }

    #[test]
    fn an_ordinary_person_is_themself_whatever_the_image_names() {
        check(1000, "alice", "user", ("user", 1000, 1000, "/home/user"), "");
        check(1000, "alice", "", ("user", 1000, 1000, "/home/user"), "");
        check(
            1234,
            "alice",
            "user",
            ("alice", 1234, 1234, "/home/alice"),
            "alice:x:1234:1234::/home/alice:/bin/sh\n",
        );
        check(
            1234,
            "user",
            "",
            ("user-1234", 1234, 1234, "/home/user-1234"),
            "user-1234:x:1234:1234::/home/user-1234:/bin/sh\n",
        );
        check(
            3_000_000,
            "d",
            "nobody-knows",
            ("d", 3_000_000, 3_000_000, "/home/d"),
            "d:x:3000000:3000000::/home/d:/bin/sh\n",
        );
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
