//! Users without subordinate ids: one id is mapped, and what they build has the same bytes as what root builds.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ibid_testing::{Need, OrdinaryUser, Place, copy_program, need};
use support::{BASE, text};

/// Everything that changes owners or ids, or asks for them, in as many ways as programs have.
const OWNERS: &str = r#"FROM debian:bookworm-slim AS base
RUN useradd --no-log-init --uid 1500 --create-home user && id user && stat -c '%u:%g %n' /etc/shadow /home/user
RUN mkdir /a && touch /a/f && ln -s f /a/l && chown -R 1500:1500 /a && cp -a /a /b && mv /a/l /a/m \
 && stat -c '%u:%g %n' /a /a/f /a/m /b /b/f /b/l
RUN sed -i 's/x/y/' /a/f && chgrp mail /a/f && tar -C / -cf /tmp/t.tar b && mkdir /c && tar -C /c -xpf /tmp/t.tar \
 && rm /tmp/t.tar && stat -c '%u:%g %a %n' /a/f /c/b/l /c/b/f
RUN mkdir -m 2775 /s && chown root:staff /s && touch /s/f && mkdir /s/d && touch /s/d/g && stat -c '%u:%g %a %n' /s/* /s/d/g
RUN su user -c 'id; echo $HOME; whoami' && setpriv --reuid 1500 --regid 1500 --clear-groups id \
 && perl -e '$) = "7 7"; $> = 9; print "$> $) $<\n"; $> = 0; print "$>\n"' \
 && su user -c 'umask 027; cd; mkdir m; touch m/f; ln -s f m/l; mkfifo m/p; t=$(mktemp m/tXXXXXX); echo x > $t; mv $t m/t; stat -c "%u:%g %a %n" m m/*' \
 && perl -e '$< = $> = 1500; $> = 0; print "$> $<\n"; print -e "/a/f" && !chown(0, 0, "/a/f"), "\n"'
RUN chmod u+s /a/f && chown 0:0 /a/f && mkfifo /p && chown 5:5 /p && stat -c '%u:%g %a %n' /a/f /p
RUN chown 1:2 /absent || chown --no-dereference 1:2 /usr/bin/awk && stat -c '%u:%g %n' /usr/bin/awk
RUN mv /home/user /home/user2 && mv /home/user2 /home/user && stat -c '%u:%g %n' /home/user/.profile
COPY --chown=1500:7 Dockerfile /x/y/Dockerfile
RUN chmod 600 /x/y/Dockerfile && stat -c '%u:%g %a %n' /x /x/y /x/y/Dockerfile
USER user
WORKDIR /home/user/w
RUN id && touch a && ln -s a b && mkdir d && mkfifo d/p && stat -c '%u:%g %n' . .. a b d / /etc/passwd \
 && ! chown 0 a && ! chown 0 /etc/passwd && chgrp 1500 a
USER root
RUN stat -c '%u:%g %n' /home/user/w/* && chown -R --from=1500 0:0 /home/user/w/d && cp -a /home/user/w /w2
RUN rm /w2/a && touch /w2/new && ln /w2/new /w2/new2 && chown 3:4 /w2/new2 && stat -c '%u:%g %n' /w2/*
FROM base
COPY --from=base /home/user /copied
COPY --from=base /a /copied-a
RUN stat -c '%u:%g %n' /copied/w/* /copied-a/*
"#;

/// A project, a home and the program, all where a user can reach them.
struct Site {
    place: Place,
    user: Option<OrdinaryUser>,
}

impl Site {
    fn new(user: Option<OrdinaryUser>, dockerfile: &str) -> Self {
        let site = Self { place: Place::new(), user };
        copy_program(env!("CARGO_BIN_EXE_ibid").as_ref(), &site.path("ibid"));
        site.place.file("project/Dockerfile", dockerfile);
        site.place
            .file("project/ibid.toml", &format!("name = \"one\"\n{BASE}[run]\noutputs = [\"output\"]\n"));
        if let Some(user) = &site.user {
            user.own(site.place.path());
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// What it prints, and what it narrates.
    #[track_caller]
    fn ibid(&self, args: &[&str], code: i32) -> (String, String) {
        let mut command: Command = self.place.command(self.path("ibid"));
        command.current_dir(self.path("project")).args(args);
        if let Some(user) = &self.user {
            command = user.command(&command);
        }
        let output = command.stdin(Stdio::null()).output().expect("ibid starts");
        let narration = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{narration}");
        (text(&output.stdout), narration)
    }
}

/// Lines that commands of the build wrote, less their step and time.
fn output_of_steps(narration: &str) -> Vec<&str> {
    let line = |line: &'_ str| -> Option<(usize, usize)> {
        let (step, rest) = line.trim_start().split_once(' ')?;
        let (seconds, output) = rest.trim_start().split_once(' ')?;
        step.parse::<usize>().ok()?;
        seconds.parse::<f64>().ok()?;
        Some((line.len() - output.len(), line.len()))
    };
    narration.lines().filter_map(|text| line(text).map(|(from, to)| &text[from..to])).collect()
}

#[test]
fn images_have_the_same_bytes_as_with_root() {
    if !need(&[Need::Root, Need::Userns, Need::Overlay, Need::Mirror]) {
        return;
    }
    let one = Site::new(Some(OrdinaryUser::without_subordinate_ids()), OWNERS);
    let root = Site::new(None, OWNERS);
    let (digest, narration) = one.ibid(&["build"], 0);
    // The same packages, should the mirror change meanwhile.
    fs::copy(one.path("project/ibid.lock"), root.path("project/ibid.lock")).expect("the lock is copied");
    let (expected, expected_narration) = root.ibid(&["build"], 0);
    let (output, expected_output) = (output_of_steps(&narration), output_of_steps(&expected_narration));
    assert_eq!(output, expected_output);
    assert!(output.contains(&"1500:1500 /copied/w/b"), "{output:?}");
    assert_eq!(digest, expected);
    assert!(
        narration.contains("one user id is mapped: user id 64321 has no name on this host"),
        "{narration}"
    );

    // A run is the person's own: files are theirs on both sides, and no owner can be changed.
    let script = "id -u; mkdir -p output; touch output/f; chown 0 output/f 2>/dev/null; echo $?; stat -c %u output/f /etc/passwd; exit 7";
    one.place.file(
        "project/Dockerfile",
        "FROM debian:bookworm-slim\nWORKDIR /code\nENTRYPOINT [\"sh\", \"-c\"]\n",
    );
    let (printed, _) = one.ibid(&["run", script], 7);
    assert_eq!(printed, "64321\n1\n64321\n64321\n");
    assert_eq!(fs::metadata(one.path("project/output/f")).expect("written").uid(), 64_321);
}
