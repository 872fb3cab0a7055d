//! Images whose user is somebody else: built by another person, or pulled. The program is that user by the ids of whoever starts
//! it, and what the user owns in the image is theirs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{Case, Site, shell};

const MANY_IDS: &[u8] = &[1, 2];
const ONE_ID: &[u8] = &[3];

/// The user has ids that no person has, and a directory service elsewhere gave the ids of `home/far`.
const DOCKERFILE: &str = r#"FROM scratch
COPY bin /bin
COPY etc /etc
RUN ["/bin/mkdir", "-p", "-m", "1777", "/tmp"]
COPY --chown=60:61 home/worker /home/worker
COPY --chown=3000001:3000002 home/far /home/far
ENV PATH=/bin
RUN ["/bin/sh", "-c", "cd /home/worker && chmod 700 . && chmod 4755 venv/bin/tool && ln venv/lib/a venv/lib/b && ln -s lib venv/lib64 && chown -h 60:61 venv/lib64"]
RUN ["/bin/sh", "-c", "mkdir -p /data /code/venv && echo ours > /data/ours && echo theirs > /data/theirs && touch /code/venv/pyvenv.cfg && chown 0:61 /data/ours && chown 0:99 /data/theirs && chmod 660 /data/* && chown -R 60:61 /code/venv"]
RUN ["/bin/sh", "-c", "chmod 700 /home/far && chmod 640 /home/far/word"]
WORKDIR /code
USER worker
"#;

const CASES: &[Case] = &[
    shell(
        "the image's user, by the person's ids",
        &["sh", "-c", "id -u; id -g; id -un; id -gn; echo $USER $HOME; cd; pwd"],
        "@RUN_UID@\n@RUN_GID@\nworker\nworker\nworker /home/worker\n/home/worker\n",
    ),
    shell(
        "one user of that name",
        &["sh", "-c", "grep -c ^worker: /etc/passwd; grep ^worker: /etc/passwd"],
        "1\nworker:x:@RUN_UID@:@RUN_GID@::/home/worker:/bin/sh\n",
    ),
    Case { levels: MANY_IDS, ..shell("the user's groups", &["id", "-G"], "@RUN_GID@ 50\n") },
    Case { levels: ONE_ID, ..shell("no groups where there is one", &["id", "-G"], "@RUN_GID@\n") },
    shell(
        "a home that nobody else may enter",
        &[
            "sh",
            "-c",
            "stat -c '%a %u:%g' ~; cat ~/notes; echo more >> ~/notes && echo x > ~/new && cat ~/notes",
        ],
        "700 @RUN_UID@:@RUN_GID@\nnoted\nnoted\nmore\n",
    ),
    shell(
        "a virtual environment takes packages",
        &[
            "sh",
            "-c",
            "cd ~/venv && mkdir -p lib/pkg && echo 1 > lib/pkg/__init__.py && mv lib/old lib/older && rm bin/tool && ln -s ../lib/a bin/tool && mv lib/sub lib/moved && ls lib lib/moved && stat -c %u:%g lib64 lib/pkg bin",
        ],
        "lib:\na\nb\nmoved\nolder\npkg\n\nlib/moved:\nm\n@RUN_UID@:@RUN_GID@\n@RUN_UID@:@RUN_GID@\n@RUN_UID@:@RUN_GID@\n",
    ),
    shell(
        "and the next run sees the image as it was built",
        &[
            "sh",
            "-c",
            "cd && cat notes && ls . venv/lib && stat -c '%a %h' venv/bin/tool venv/lib/a && cat venv/lib64/a",
        ],
        "noted\n.:\nnotes\nvenv\n\nvenv/lib:\na\nb\nold\nsub\n4755 1\n644 2\na\n",
    ),
    shell("what the group may", &["sh", "-c", "echo more >> /data/ours; cat /data/ours"], "ours\nmore\n"),
    Case {
        levels: MANY_IDS,
        ..shell(
            "what is others' stays theirs",
            &[
                "sh",
                "-c",
                "cat /data/theirs 2>/dev/null || echo no; ls /home/far 2>/dev/null || echo no; touch /bin/x 2>/dev/null || echo no; stat -c %u:%g /bin/busybox /data/ours /data | cut -d: -f1",
            ],
            "no\nno\nno\n0\n0\n0\n",
        )
    },
    shell(
        "what is kept in the code folder can be written",
        &["sh", "-c", "cat word; echo 1 > venv/pkg && ls venv && stat -c %u:%g venv/pyvenv.cfg"],
        "mounted\npkg\npyvenv.cfg\n@RUN_UID@:@RUN_GID@\n",
    ),
    shell(
        "what is written is the person's",
        &["sh", "-c", "echo x > output/by-image-user; stat -c %u:%g output/by-image-user"],
        "@RUN_UID@:@RUN_GID@\n",
    ),
    Case {
        options: &["--pegged"],
        ..shell(
            "with the image's own code",
            &["sh", "-c", "ls; touch ~/x venv/x && echo yes"],
            "output\nvenv\nyes\n",
        )
    },
    Case {
        options: &["--user", "worker"],
        ..shell(
            "the same user by name has their own ids",
            &[
                "sh",
                "-c",
                "id -u; stat -c '%a %u:%g' ~ ~/venv/lib/a; touch ~/venv/x && echo more >> /data/ours && cat ~/notes",
            ],
            "60\n700 60:61\n644 60:61\nnoted\n",
        )
    },
    Case {
        options: &["--user", "far"],
        ..shell(
            "a user of a directory service",
            &["sh", "-c", "id -u; id -un; cd && stat -c '%a %u:%g' . word; echo more >> word && cat word"],
            "3000001\nfar\n700 3000001:3000002\n640 3000001:3000002\nfar\nmore\n",
        )
    },
    Case {
        options: &["--read-only"],
        ..shell(
            "all of it can be read where nothing can be written",
            &["sh", "-c", "cat ~/notes; touch ~/x 2>/dev/null || echo no"],
            "noted\nno\n",
        )
    },
];

pub fn check_all(site: &Site) {
    write_project(site);
    let built = site.ibid_in("others", &["build"], &[]);
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    site.place.file("others/word", "mounted\n");
    if let Some(user) = &site.user {
        user.own(&site.path("others"));
    }
    let failures: Vec<String> = CASES
        .iter()
        .filter(|case| case.levels.is_empty() || case.levels.contains(&site.level))
        .filter_map(|case| site.check("others", case).err())
        .collect();
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
    for path in ["others/output/by-image-user", "others/venv"] {
        let written = fs::metadata(site.path(path)).expect("written");
        assert_eq!((written.uid(), written.gid()), site.ids(), "{path}");
    }
    a_session(site);
    copies_are_made_once(site);
}

/// `ibid dev` is the same person.
fn a_session(site: &Site) {
    // `docker exec` passes no input on by itself.
    if site.inside.is_some() {
        return;
    }
    let input = site
        .place
        .file("others/session", "id -u; id -un; cat ~/notes; touch ~/new venv/new && echo yes; exit 3\n");
    let mut command = site.command("others", &["dev"], &[]);
    let input = fs::File::open(input).expect("readable");
    let output = command.stdin(input).output().expect("ibid starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let uid = if site.ids().0 == 0 { 60 } else { site.ids().0 };
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{uid}\nworker\nnoted\nyes\n"), "{stderr}");
}

fn write_project(site: &Site) {
    site.place.folder("others/bin");
    for entry in fs::read_dir(site.path("project/bin")).expect("programs") {
        let name = entry.expect("a program").file_name();
        let target = site.path("others/bin").join(&name);
        if name == "busybox" {
            fs::copy(site.path("project/bin/busybox"), target).expect("a copy");
        } else {
            std::os::unix::fs::symlink("busybox", target).expect("a link");
        }
    }
    site.place.file(
        "others/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nworker:x:60:61::/home/worker:/bin/sh\nfar:x:3000001:3000002::/home/far:/bin/sh\n",
    );
    site.place.file("others/etc/group", "root:x:0:\nlab:x:50:worker\nworker:x:61:\nfar:x:3000002:\n");
    for (path, content) in [
        ("home/worker/notes", "noted\n"),
        ("home/worker/venv/bin/tool", "tool\n"),
        ("home/worker/venv/lib/a", "a\n"),
        ("home/worker/venv/lib/old", "old\n"),
        ("home/worker/venv/lib/sub/m", "m\n"),
        ("home/far/word", "far\n"),
        ("word", "built\n"),
    ] {
        site.place.file(&format!("others/{path}"), content);
    }
    site.place.folder("others/output");
    site.place.file("others/Dockerfile", DOCKERFILE);
    site.place.file(
        "others/ibid.toml",
        "name = \"others\"\n[code]\nkeep = [\"venv\"]\n[run]\noutputs = [\"output\"]\n",
    );
    if let Some(user) = &site.user {
        user.own(&site.path("others"));
    }
}

/// Where files have their owners on disk and the person is not root, they are copied for the first run, and for no other.
fn copies_are_made_once(site: &Site) {
    let kept = || {
        let store = if site.level == 3 { "ibid-one-id" } else { "ibid" };
        let store = site.path("home/.local/share").join(store);
        assert!(store.join("layers").is_dir(), "the store is there");
        fs::read_dir(store.join("identities")).map_or(0, Iterator::count)
    };
    assert_eq!(kept() > 0, site.level == 2, "{}", kept());
    let copies = |options: &[&str]| {
        let output = site.ibid_in("others", options, &["true"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        stderr.contains("copying ")
    };
    assert!(!copies(&["run", "--"]), "it is there already");
    let collected = site.ibid_in("others", &["gc", "--keep", "0"], &[]);
    assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
    assert_eq!(kept(), 0, "they go first");
    assert_eq!(copies(&["run", "--"]), site.level == 2);
    assert!(!copies(&["run", "--"]));
}
