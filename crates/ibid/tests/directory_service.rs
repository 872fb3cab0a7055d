//! A person whose user id comes from a directory service, far above those of one machine: images, stores and runs are as small and as
//! right as anybody's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ibid_testing::{Need, OrdinaryUser, Place, busybox, copy_program, need};

const UID: u32 = 3_000_001;
const GID: u32 = 3_000_002;

/// The home is the person's, whoever builds; `lastlog` is as `useradd` writes it: almost 900 MB, all but nothing of it a hole.
const DOCKERFILE: &str = r#"FROM scratch
ARG USER_ID=1000
ARG GROUP_ID=1000
COPY busybox /bin/busybox
COPY busybox /bin/sh
RUN /bin/busybox --install -s /bin; mkdir -p -m 1777 /tmp; mkdir -p /etc /var/log /home/me; \
    echo "root:x:0:0:root:/root:/bin/sh" > /etc/passwd; echo "me:x:$USER_ID:$GROUP_ID::/home/me:/bin/sh" >> /etc/passwd; \
    echo "me:x:$GROUP_ID:" > /etc/group; \
    echo log | dd of=/var/log/lastlog bs=292 seek=$USER_ID 2>/dev/null; \
    echo word > /home/me/word; chown -R $USER_ID:$GROUP_ID /home/me; chmod 700 /home/me
USER me
WORKDIR /code
"#;

/// `wrap` makes a command one of the person's.
fn check(wrap: &dyn Fn(&Place, &Command) -> Command) {
    let busybox = busybox().expect("it was found before");
    let place = Place::new();
    place.folder("project/output");
    fs::copy(busybox, place.path().join("project/busybox")).expect("a copy");
    copy_program(env!("CARGO_BIN_EXE_ibid").as_ref(), &place.path().join("ibid"));
    place.file("project/Dockerfile", DOCKERFILE);
    place.file("project/ibid.toml", "name = \"far\"\n[run]\noutputs = [\"output\"]\n");
    let person = OrdinaryUser { name: String::new(), uid: UID, gid: GID };
    person.own(place.path());
    let ibid = |args: &[&str]| -> Output {
        let mut command = place.command(place.path().join("ibid"));
        command.args(args).current_dir(place.path().join("project"));
        wrap(&place, &command).stdin(Stdio::null()).output().expect("ibid starts")
    };
    let check = |args: &[&str], expected: &str| {
        let output = ibid(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        if !expected.is_empty() {
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{args:?}: {stderr}");
        }
    };
    check(&["build"], "");
    let script = "id -u; id -g; id -un; id -gn; cd; pwd; stat -c %u:%g . word; echo more >> word && cat word; echo x > /code/output/x";
    check(
        &["run", "--", "sh", "-c", script],
        "3000001\n3000002\nme\nme\n/home/me\n3000001:3000002\n3000001:3000002\nword\nmore\n",
    );
    let written = fs::metadata(place.path().join("project/output/x")).expect("written");
    assert_eq!((written.uid(), written.gid()), (UID, GID));
    check(&["save", "far", "-o", "../far.tar"], "");
    let saved = fs::metadata(place.path().join("far.tar")).expect("the image");
    let program = fs::metadata(place.path().join("project/busybox")).expect("the program").len();
    assert!(saved.len() < 2 * program + (1 << 20), "an image of {} bytes", saved.len());
    let (bytes, largest) = taken(&place.path().join("home/.local"));
    assert!(bytes < 4 * program + (4 << 20), "the store takes {bytes} bytes");
    assert!(largest <= program.max(1 << 20), "the store has a file of {largest} bytes");
}

/// Bytes that files take on the disk, and the length of the longest.
fn taken(folder: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let metadata = entry.metadata().expect("an entry");
        let (bytes, largest) = match metadata.is_dir() {
            true => taken(&entry.path()),
            false => (metadata.blocks() * 512, metadata.len()),
        };
        sum = (sum.0 + bytes, sum.1.max(largest));
    }
    sum
}

#[test]
fn with_subordinate_ids() {
    // Only root can become somebody whom the machine does not know.
    if !need(&[Need::Root, Need::Userns, Need::Subids, Need::Overlay, Need::Busybox]) {
        return;
    }
    check(&|place, command| {
        // In a mount namespace of its own, the machine knows the person, and gives them ids.
        let passwd = fs::read_to_string("/etc/passwd").expect("users");
        place.file("passwd", &format!("{passwd}far:x:{UID}:{GID}::/:/bin/sh\n"));
        place.file("subids", &format!("far:100000:65536\n{UID}:100000:65536\n"));
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--mount", "sh", "-c"]).arg(
            "mount --bind \"$0/passwd\" /etc/passwd && mount --bind \"$0/subids\" /etc/subuid && mount --bind \"$0/subids\" /etc/subgid \
             && exec setpriv --reuid 3000001 --regid 3000002 --clear-groups --inh-caps=-all -- \"$@\"",
        );
        wrapped.arg(place.path()).arg(command.get_program()).args(command.get_args()).env_clear();
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        wrapped
    });
}

#[test]
fn with_one_id() {
    if need(&[Need::Root, Need::Userns, Need::Overlay, Need::Busybox]) {
        let person = OrdinaryUser { name: String::new(), uid: UID, gid: GID };
        check(&|_, command| person.command(command));
    }
}
