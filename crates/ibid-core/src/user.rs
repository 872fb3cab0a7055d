//! Users and groups as an image's `/etc/passwd` and `/etc/group` name them (passwd(5), group(5)), and the
//! meaning of `USER`: `user[:group]`, each a name or a number (OCI image specification, config.md).

/// What a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, ascending.
    pub groups: Vec<u32>,
    /// Name in the image's `passwd`, if it has one.
    pub name: Option<String>,
    /// Home folder; `/` when the image names none.
    pub home: String,
    /// Login shell, if `passwd` names one.
    pub shell: Option<String>,
}

/// Why a `USER` text means nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownUser {
    /// A name that `/etc/passwd` lacks.
    #[error("no user `{0}` in the image's /etc/passwd")]
    User(String),
    /// A name that `/etc/group` lacks.
    #[error("no group `{0}` in the image's /etc/group")]
    Group(String),
}

/// One line of `passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswdEntry<'a> {
    /// Login name.
    pub name: &'a str,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home folder.
    pub home: &'a str,
    /// Login shell.
    pub shell: &'a str,
}

/// Reads `passwd`, skipping lines that are none.
pub fn passwd_entries(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("");
        Some(PasswdEntry { name, uid, gid, home, shell: fields.next().unwrap_or("") })
    })
}

/// Reads `group` as name, id and members, skipping lines that are none.
pub fn group_entries(group: &str) -> impl Iterator<Item = (&str, u32, impl Iterator<Item = &str>)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("").split(',').filter(|member| !member.is_empty())))
    })
}

/// The group id that a name or number means.
pub fn resolve_group(text: &str, group: &str) -> Result<u32, UnknownUser> {
    match group_entries(group).find(|(name, ..)| *name == text) {
        Some((_, gid, _)) => Ok(gid),
        None => text.parse().map_err(|_| UnknownUser::Group(text.to_owned())),
    }
}

/// Resolves the text of `USER` against an image's files. Empty text is root. A number without a `passwd`
/// line has group 0 and home `/`, as Docker has it.
pub fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, UnknownUser> {
    let (user_text, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let entry = passwd_entries(passwd).find(|entry| entry.name == user_text).or_else(|| {
        let uid: u32 = user_text.parse().ok()?;
        passwd_entries(passwd).find(|entry| entry.uid == uid)
    });
    let uid = match (&entry, user_text.parse()) {
        (Some(entry), _) => entry.uid,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => return Err(UnknownUser::User(user_text.to_owned())),
    };
    let gid = match group_text {
        Some(text) => resolve_group(text, group)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = Vec::new();
    if group_text.is_none()
        && let Some(entry) = &entry
    {
        groups.extend(
            group_entries(group).filter_map(|(_, gid, mut members)| {
                members.any(|member| member == entry.name).then_some(gid)
            }),
        );
        groups.sort_unstable();
        groups.dedup();
    }
    let home = entry.as_ref().map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(User {
        uid,
        gid,
        groups,
        name: entry.as_ref().map(|entry| entry.name.to_owned()),
        home: home.to_owned(),
        shell: entry.as_ref().map(|entry| entry.shell.to_owned()).filter(|shell| !shell.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# note\nbroken\nuser:x:1000:1001::/home/user:/bin/sh\nbin:x:2:2::\n";
    const GROUP: &str = "root:x:0:\nvideo:x:44:user,bin\nusers:x:1001:\nstaff:x:50:user\n";

    #[test]
    fn user_texts_mean_what_docker_takes_them_for() {
        let check = |text: &str, expected: Result<(u32, u32, &[u32], &str), UnknownUser>| {
            let found = resolve(text, PASSWD, GROUP);
            let found = found.as_ref().map(|user| (user.uid, user.gid, &user.groups[..], user.home.as_str()));
            assert_eq!(found, expected.as_ref().map(|expected| *expected), "{text}");
        };
        check("", Ok((0, 0, &[], "/root")));
        check("root", Ok((0, 0, &[], "/root")));
        check("user", Ok((1000, 1001, &[44, 50], "/home/user")));
        check("1000", Ok((1000, 1001, &[44, 50], "/home/user")));
        check("user:staff", Ok((1000, 50, &[], "/home/user")));
        check("user:7", Ok((1000, 7, &[], "/home/user")));
        check("4000000", Ok((4_000_000, 0, &[], "/")));
        check("bin", Ok((2, 2, &[44], "/")));
        check(":staff", Ok((0, 50, &[], "/root")));
        check("nobody", Err(UnknownUser::User("nobody".to_owned())));
        check("user:nobody", Err(UnknownUser::Group("nobody".to_owned())));
    }
}
