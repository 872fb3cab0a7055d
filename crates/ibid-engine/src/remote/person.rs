//! Who the process is in a container of an engine that cannot map ids as ibid can, so that what it writes is the person's.
//!
//! | engine | process | asked to be another |
//! |---|---|---|
//! | Docker, Podman, of root | the person; for root, the owner of the project's folder | refused: what they write would be theirs |
//! | Podman without root | as on ibid's own engine | the same |
//! | Docker without root, Podman without subordinate ids | root, which is the person | refused, unless it is root |
//!
//! Pure.

use super::{Engine, Error, Ids};
use crate::identity::{self, HostUser, Identity};
use ibid_core::user::UnknownUser;

/// Why there is no such process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Impossible {
    #[error(transparent)]
    User(#[from] UnknownUser),
    #[error(transparent)]
    Engine(#[from] Error),
}

/// What is known of an image's users.
pub(crate) struct Users<'a> {
    pub(crate) image_user: &'a str,
    pub(crate) passwd: &'a str,
    pub(crate) group: &'a str,
}

/// Decides. `owner` is that of the project's folder.
pub(crate) fn decide(
    engine: &Engine,
    host: &HostUser,
    owner: (u32, u32),
    wanted: Option<&str>,
    users: &Users,
) -> Result<Identity, Impossible> {
    let decide =
        |host: &HostUser, wanted| identity::decide(host, wanted, users.image_user, users.passwd, users.group);
    match engine.ids {
        Ids::Chosen => Ok(decide(host, wanted)?),
        Ids::RootIsPerson => {
            if let Some(wanted) = wanted
                && decide(host, Some(wanted))?.user.uid != 0
            {
                return Err(engine
                    .unable(format!("`--user {wanted}`: without root, its containers know you as root only"))
                    .into());
            }
            Ok(decide(host, Some("0:0"))?)
        }
        Ids::Same => {
            let (uid, gid) = if host.uid == 0 { owner } else { (host.uid, host.gid) };
            let name = host.name.clone().filter(|_| uid == host.uid);
            let person = HostUser { uid, gid, name };
            if let Some(wanted) = wanted {
                let identity = decide(&person, Some(wanted))?;
                if (identity.user.uid, identity.user.gid) != (uid, gid) {
                    return Err(engine
                        .unable(format!(
                            "the program cannot be {}:{}: ids are not mapped there, so what it writes would not belong to {}",
                            identity.user.uid,
                            identity.user.gid,
                            if host.uid == 0 { "the owner of the project's folder" } else { "you" }
                        ))
                        .into());
                }
                return Ok(identity);
            }
            // For the root user, the image's user would count.
            Ok(decide(&person, (uid == 0).then_some("0:0"))?)
        }
    }
}

/// The engine's word for the user namespace of such a process.
pub(crate) fn user_namespace(engine: &Engine, identity: &Identity) -> Option<String> {
    match engine.ids {
        // Whom it knows as root anyway.
        Ids::Chosen if (identity.user.uid, identity.user.gid) == (0, 0) => None,
        Ids::Chosen => Some(format!("keep-id:uid={},gid={}", identity.user.uid, identity.user.gid)),
        Ids::Same if engine.remaps => Some("host".to_owned()),
        Ids::Same | Ids::RootIsPerson => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;

    const USERS: Users = Users {
        image_user: "worker",
        passwd: "root:x:0:0::/root:/bin/sh\nworker:x:60:61::/home/worker:/bin/sh\n",
        group: "root:x:0:\nworker:x:61:\n",
    };

    #[track_caller]
    fn check(ids: Ids, uid: u32, owner: u32, wanted: Option<&str>, expected: Result<(u32, u32), &str>) {
        let host = HostUser { uid, gid: uid, name: Some("ann".to_owned()) };
        match (decide(&engine(ids), &host, (owner, owner), wanted, &USERS), expected) {
            (Ok(identity), Ok(ids)) => assert_eq!((identity.user.uid, identity.user.gid), ids),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn what_is_written_is_the_persons() {
        check(Ids::Same, 1000, 1000, None, Ok((1000, 1000)));
        check(Ids::Same, 1000, 7, None, Ok((1000, 1000)));
        check(Ids::Same, 0, 1000, None, Ok((1000, 1000)));
        check(Ids::Same, 0, 0, None, Ok((0, 0)));
        check(Ids::Same, 0, 0, Some("0:0"), Ok((0, 0)));
        check(Ids::Same, 1000, 1000, Some("1000:1000"), Ok((1000, 1000)));
        check(Ids::Same, 1000, 1000, Some("0:0"), Err("would not belong to you"));
        check(Ids::Same, 0, 0, Some("worker"), Err("the program cannot be 60:61"));
        check(Ids::Same, 0, 0, Some("nobody-knows"), Err("no user `nobody-knows`"));
        check(Ids::Chosen, 1000, 1000, None, Ok((1000, 1000)));
        check(Ids::Chosen, 1000, 1000, Some("worker"), Ok((60, 61)));
        check(Ids::RootIsPerson, 1000, 1000, None, Ok((0, 0)));
        check(Ids::RootIsPerson, 1000, 1000, Some("0:0"), Ok((0, 0)));
        check(Ids::RootIsPerson, 1000, 1000, Some("worker"), Err("know you as root only"));
    }

    #[test]
    fn the_engine_is_told_whom_ids_mean() {
        let host = HostUser { uid: 1000, gid: 1000, name: None };
        let identity = identity::decide(&host, None, "", "", "").expect("known");
        let of = |ids| user_namespace(&engine(ids), &identity);
        assert_eq!(of(Ids::Chosen).as_deref(), Some("keep-id:uid=1000,gid=1000"));
        assert_eq!(of(Ids::Same), None);
        let remapping = Engine { remaps: true, ..engine(Ids::Same) };
        assert_eq!(user_namespace(&remapping, &identity).as_deref(), Some("host"));
    }
}
