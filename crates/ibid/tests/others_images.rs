//! Images that root built, on the way to an ordinary user: by a file, and in a store that both use.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, OrdinaryUser, Place, busybox, copy_program, need};

/// A user by ids that no ordinary person can give to a file, and files of theirs in all kinds.
const DOCKERFILE: &str = r#"FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
RUN /bin/busybox --install -s /bin; mkdir -p -m 1777 /tmp; mkdir -p /etc /home/far/sub; \
    echo "root:x:0:0:root:/root:/bin/sh" > /etc/passwd; echo "far:x:3000001:3000002::/home/far:/bin/sh" >> /etc/passwd; \
    echo "root:x:0:" > /etc/group; echo "far:x:3000002:" >> /etc/group; echo seen > /open; \
    echo word > /home/far/word; ln -s word /home/far/link; ln /home/far/word /home/far/sub/again; mkfifo /home/far/pipe; \
    chown -hR 3000001:3000002 /home/far; chmod 700 /home/far
USER far
WORKDIR /code
"#;

/// Root, and an ordinary user with subordinate ids, each with a project.
struct Site {
    place: Place,
    user: OrdinaryUser,
}

impl Site {
    fn new() -> Option<Self> {
        if !need(&[Need::Root, Need::Userns, Need::Subids, Need::Overlay, Need::Busybox]) {
            return None;
        }
        let (place, user) = (Place::new(), OrdinaryUser::find().expect("found before"));
        copy_program(env!("CARGO_BIN_EXE_ibid").as_ref(), &place.path().join("ibid"));
        place.folder("root");
        fs::copy(busybox().expect("found before"), place.path().join("root/busybox")).expect("a copy");
        place.file("root/Dockerfile", DOCKERFILE);
        place.file("root/ibid.toml", "name = \"far\"\n");
        place.file("derived/Dockerfile", "FROM far\nUSER root\nRUN chmod 750 /home/far/sub && chmod 640 /home/far/word && mv /home/far/word /home/far/moved\nUSER far\n");
        place.file("derived/ibid.toml", "name = \"derived\"\n");
        place.folder("person");
        place.folder("person-store");
        user.own(&place.path().join("person"));
        user.own(&place.path().join("person-store"));
        Some(Self { place, user })
    }

    fn command(&self, folder: &str, store: &str, args: &[&str]) -> Command {
        let mut command = self.place.command(self.place.path().join("ibid"));
        command.args(args).current_dir(self.place.path().join(folder));
        command.env("XDG_DATA_HOME", self.place.path().join(store));
        command
    }

    fn root(&self, folder: &str, args: &[&str]) -> Output {
        done(self.command(folder, "root-store", args), args)
    }

    fn person(&self, args: &[&str]) -> Output {
        done(self.user.command(&self.command("person", "person-store", args)), args)
    }

    /// A project of the person's, by copying root's.
    fn give(&self, folder: &str) {
        for name in ["Dockerfile", "ibid.toml"] {
            let content = fs::read_to_string(self.place.path().join(folder).join(name)).expect("a file");
            self.place.file(&format!("person/{name}"), &content);
        }
        self.user.own(&self.place.path().join("person"));
    }
}

#[track_caller]
fn done(mut command: Command, args: &[&str]) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("ibid starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn ids_that_nobody_has_here_stay_what_they_are() {
    let Some(site) = Site::new() else { return };
    let digest = stdout(&site.root("root", &["build", "-q"]));
    site.root("root", &["save", "far", "-o", "../far.tar"]);
    site.person(&["load", "-i", "../far.tar"]);
    site.person(&["store", "verify"]);
    site.person(&["save", "far", "-o", "../person-store/far.tar"]);
    let saved = |name: &str| fs::read(site.place.path().join(name)).expect("an image");
    assert!(saved("far.tar") == saved("person-store/far.tar"), "the same bytes");
    // What a step changes of such files is theirs still, as it is where they have their ids.
    site.give("derived");
    let derived = stdout(&site.root("derived", &["build", "-q"]));
    assert_ne!(derived, digest);
    assert_eq!(stdout(&site.person(&["build", "-q"])), derived);
    site.person(&["store", "verify"]);
    let script =
        "cd; cat moved sub/again; stat -c '%a %u:%g' . moved sub link sub/again pipe; echo more >> moved";
    let (uid, gid) = (site.user.uid, site.user.gid);
    assert_eq!(
        stdout(&site.person(&["run", "--", "sh", "-c", script])),
        format!(
            "word\nword\n700 {uid}:{gid}\n640 {uid}:{gid}\n750 {uid}:{gid}\n777 {uid}:{gid}\n644 {uid}:{gid}\n644 {uid}:{gid}\n"
        )
    );
}

#[test]
fn what_cannot_be_read_in_a_store_of_others_stays_as_it_is() {
    let Some(site) = Site::new() else { return };
    site.root("root", &["build"]);
    let store = site.place.path().join("root-store");
    for folder in [store.clone(), store.join("ibid")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    site.place.file("person/ibid.toml", "name = \"far\"\n");
    site.place.file("person/Dockerfile", "FROM far\n");
    site.user.own(&site.place.path().join("person"));
    let run = || {
        let args = ["run", "--pegged", "--", "sh", "-c", "cat /open; cat ~/word || true"];
        let mut command = site.command("person", "person-store", &args);
        command.env("IBID_ADDITIONAL_STORES", store.join("ibid"));
        done(site.user.command(&command), &args)
    };
    for is_first in [true, false] {
        let output = run();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stdout(&output), "seen\n");
        assert!(stderr.contains("cat: can't open '/home/far/word': Permission denied"), "{stderr}");
        let warning = "3 files of theirs cannot be read in a store of somebody else's, and stay as they are";
        assert_eq!(stderr.contains(warning), is_first, "{stderr}");
    }
}
