//! The build cache in a folder: from one store to another, and what is wrong with a folder.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Project, can_build, text};

const DOCKERFILE: &str = "FROM scratch AS tools\nCOPY tool /bin/tool\nFROM scratch\nWORKDIR /code\nCOPY a /code/\n\
                          COPY b /code/\nWORKDIR /code\nCOPY --from=tools /bin/tool /bin/\n";

fn project() -> Project {
    let project = Project::new(DOCKERFILE);
    for name in ["a", "b", "tool"] {
        project.file(name, &format!("{name} {}", "content ".repeat(1000)));
    }
    project
}

/// Builds in the store `store`, which is made when it is absent. Standard output and error.
#[track_caller]
fn build(project: &Project, store: &str, args: &[&str], code: i32) -> (String, String) {
    let mut command = project.command(&[&["build"], args].concat());
    let output =
        command.env("XDG_DATA_HOME", project.place.path().join(store)).output().expect("ibid starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    (text(&output.stdout), said)
}

fn blobs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join("blobs/sha256")).expect("a folder of blobs");
    let mut blobs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    blobs.sort();
    blobs
}

fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
}

fn blob_of(folder: &Path, descriptor: &serde_json::Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().expect("a digest");
    folder.join("blobs/sha256").join(digest.strip_prefix("sha256:").expect("SHA-256"))
}

#[test]
fn an_empty_store_gets_every_step_from_the_folder() {
    if !can_build() {
        return;
    }
    let project = project();
    let (digest, said) = build(&project, "one", &["--cache-to", "cache"], 0);
    assert!(said.contains("4 layers of ") && said.contains("4 of them new"), "{said}");
    let (again, said) = build(&project, "two", &["--cache-from", "cache"], 0);
    assert_eq!(again, digest);
    assert!(said.contains("6 of 6 steps from the cache"), "{said}");
    assert!(!said.contains("warning"), "{said}");
    // What came from the folder is now in the store.
    let (_, said) = build(&project, "two", &[], 0);
    assert!(said.contains("6 of 6 steps from the cache"), "{said}");
    // Another machine writes the same folder.
    build(&project, "two", &["--cache-to", "type=local,dest=other,mode=max"], 0);
    let path = project.path();
    assert_eq!(blobs(&path.join("cache")).len(), 6);
    for name in ["oci-layout", "index.json"] {
        assert_eq!(
            fs::read(path.join("cache").join(name)).ok(),
            fs::read(path.join("other").join(name)).ok(),
            "{name}"
        );
    }

    build(&project, "two", &["--cache-to", "dest=gzip,compression=gzip"], 0);
    let index = read_json(&path.join("gzip/index.json"));
    let manifest = read_json(&blob_of(&path.join("gzip"), &index["manifests"][0]));
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let (again, said) =
        build(&project, "three", &["--cache-from", "none", "--cache-from", "type=local,src=gzip"], 0);
    assert_eq!(again, digest);
    assert!(said.contains("6 of 6 steps from the cache"), "{said}");
    assert!(said.contains("warning: the cache in none is not used") && said.contains("hint:"), "{said}");
}

#[test]
fn a_folder_is_brought_up_to_date() {
    if !can_build() {
        return;
    }
    let project = project();
    let folder = project.path().join("cache");
    build(&project, "one", &["--cache-to", "cache"], 0);
    let before = blobs(&folder);
    // What others keep in the folder stays.
    let mut index = read_json(&folder.join("index.json"));
    let foreign =
        serde_json::json!({"mediaType": "a/b", "digest": "sha256:0", "size": 1, "annotations": {"x": "y"}});
    index["manifests"].as_array_mut().expect("a list").push(foreign.clone());
    fs::write(folder.join("index.json"), index.to_string()).expect("written");
    fs::write(folder.join("blobs/sha256/foreign"), "x").expect("written");

    project.file("b", "changed");
    let (_, said) = build(&project, "one", &["--cache-to", "cache"], 0);
    assert!(said.contains("4 layers of ") && said.contains("1 of them new"), "{said}");
    let after = blobs(&folder);
    assert_eq!(after.len(), before.len() + 1, "{after:?}");
    let kept = after.iter().filter(|blob| before.contains(blob)).count();
    assert_eq!(kept, 3, "the layers of WORKDIR, `tool` and `a`");
    let index = read_json(&folder.join("index.json"));
    assert_eq!((&index["manifests"][0], index["manifests"].as_array().map(Vec::len)), (&foreign, Some(2)));
    let (_, said) = build(&project, "two", &["--cache-from", "cache"], 0);
    assert!(said.contains("6 of 6 steps from the cache"), "{said}");

    // A step that the folder does not know is built.
    project.file("b", "changed again");
    let (_, said) = build(&project, "three", &["--cache-from", "cache"], 0);
    assert!(said.contains("3 of 6 steps from the cache"), "{said}");
}

#[test]
fn a_damaged_folder_is_as_good_as_none() {
    if !can_build() {
        return;
    }
    let project = project();
    let folder = project.path().join("cache");
    let (digest, _) = build(&project, "one", &["--cache-to", "cache"], 0);
    let index = read_json(&folder.join("index.json"));
    let manifest = blob_of(&folder, &index["manifests"][0]);
    let layers: Vec<PathBuf> = read_json(&manifest)["layers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|layer| blob_of(&folder, layer))
        .collect();
    let mut stores = 0;
    let mut check = |what: &str, path: &Path, content: Option<&[u8]>, warning: &str, cached: &str| {
        let good = fs::read(path).expect("read");
        match content {
            Some(content) => fs::write(path, content).expect("written"),
            None => fs::remove_file(path).expect("removed"),
        }
        stores += 1;
        let (again, said) = build(&project, &format!("store{stores}"), &["--cache-from", "cache"], 0);
        assert_eq!(again, digest, "{what}");
        assert!(said.contains(warning) && said.matches("warning:").count() == 1, "{what}: {said}");
        assert!(said.contains(cached), "{what}: {said}");
        fs::write(path, good).expect("written");
    };
    let mut flipped = fs::read(&layers[1]).expect("read");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    check(
        "a changed byte",
        &layers[1],
        Some(&flipped),
        "the cache in cache is damaged",
        "of 6 steps from the cache",
    );
    check(
        "a shorter blob",
        &layers[1],
        Some(&flipped[..10]),
        "has 10 bytes instead of",
        "of 6 steps from the cache",
    );
    check("a missing blob", &layers[1], None, "cannot open", "of 6 steps from the cache");
    let other = fs::read(&layers[2]).expect("read");
    check("another blob", &layers[1], Some(&other), "is damaged", "of 6 steps from the cache");
    for (what, content) in
        [("garbage", Some(b"{".as_slice())), ("missing", None), ("another", Some(b"{\"layers\":[]}"))]
    {
        check(what, &manifest, content, "the cache in cache is not used", "built in");
        check(what, &folder.join("oci-layout"), content, "the cache in cache is not used", "built in");
    }
    check(
        "an index that lists nothing",
        &folder.join("index.json"),
        Some(b"{\"manifests\":[]}"),
        "no build cache in it",
        "built in",
    );
    check(
        "a name that climbs",
        &folder.join("index.json"),
        Some(
            &fs::read_to_string(folder.join("index.json"))
                .expect("text")
                .replace("sha256:", "sha256:../")
                .into_bytes(),
        ),
        "is not used",
        "built in",
    );
    let huge = index.to_string().replace("\"size\":", "\"size\":-");
    check(
        "a size that is none",
        &folder.join("index.json"),
        Some(huge.as_bytes()),
        "is not used",
        "built in",
    );

    // A pipe would be waited for, and a link leads elsewhere.
    let elsewhere = project.place.path().join("elsewhere");
    fs::rename(&layers[0], &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, &layers[0]).expect("linked");
    let (again, said) = build(&project, "linked", &["--cache-from", "cache"], 0);
    assert!(again == digest && said.contains("the cache in cache is damaged"), "{said}");
    fs::remove_file(&layers[0]).expect("removed");
    assert!(std::process::Command::new("mkfifo").arg(&layers[0]).status().expect("mkfifo starts").success());
    let (again, said) = build(&project, "piped", &["--cache-from", "cache"], 0);
    assert!(again == digest && said.contains("it is no file"), "{said}");

    // The next export mends it.
    fs::write(&layers[1], &flipped).expect("written");
    build(&project, "one", &["--cache-to", "cache"], 0);
    let (_, said) = build(&project, "mended", &["--cache-from", "cache"], 0);
    assert!(said.contains("6 of 6 steps from the cache"), "{said}");
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    if !can_build() {
        return;
    }
    let project = project();
    project.file("taken/thesis.txt", "years of work");
    let (digest, said) = build(&project, "one", &["--cache-to", "taken"], 125);
    assert_eq!(digest, "");
    for part in ["the image was built, but its cache cannot be written to taken", "not empty"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(fs::read_dir(project.path().join("taken")).expect("there").count(), 1);
    for (args, part) in [
        (["--cache-to", "type=s3,bucket=x"], "the type `s3` is not supported"),
        (["--cache-to", "dest=x,mode=min"], "the mode `min` is not supported"),
        (["--cache-from", "dest=x"], "the key `dest` is not known"),
        (["--cache-from", ""], "no folder is given"),
    ] {
        let (_, said) = build(&project, "one", &args, 125);
        assert!(said.contains(part) && said.contains("hint: expected"), "{part} in {said}");
    }
}

/// The cache mounts in the shared store that people call `id`.
fn mounts(project: &Project, id: &str) -> Vec<PathBuf> {
    let folder = fs::read_dir(project.data.join("ibid/mounts")).into_iter().flatten().flatten();
    let is_it =
        |path: &PathBuf| fs::read_to_string(path.join("about")).is_ok_and(|about| about.trim_end() == id);
    folder.map(|entry| entry.path()).filter(is_it).collect()
}

/// Takes something out of the shared store. Only ibid can remove files of subordinate owners, and does so with whatever
/// lies in `tmp` and is nobody's.
fn forget_path(project: &Project, path: &Path) {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    fs::rename(path, project.data.join("ibid/tmp").join(format!("forgotten-{name}"))).expect("moved");
}

#[test]
fn cache_mounts_go_along_when_they_are_asked_for() {
    if !can_build() {
        return;
    }
    let project = Project::new(
        "FROM debian:bookworm-slim\nARG TURN\n\
         RUN --mount=type=cache,target=/c,id=@UNIQUE@,uid=7,mode=0750 echo $TURN >> /c/turns && mkdir -p /c/deep && \
         ln -sf turns /c/deep/link && chmod 600 /c/turns && chown 9:8 /c/turns && stat -c '%a %u:%g %N' /c /c/turns /c/deep/link > /seen && cat /c/turns >> /seen\n\
         ENTRYPOINT [\"cat\", \"/seen\"]\n",
    );
    let id = project.place.path().display().to_string();
    let run = |turn: &str, args: &[&str]| {
        let turn = format!("TURN={turn}");
        let output = project.ibid(&[&["build", "--build-arg", &turn], args].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        (project.check(&["run", "--pegged"], 0), said)
    };
    let attributes = "750 7:0 '/c'\n600 9:8 '/c/turns'\n777 0:0 '/c/deep/link' -> 'turns'\n";
    let (_, said) = run("one", &["--cache-to", "without"]);
    assert!(!said.contains("cache mounts"), "{said}");
    let (seen, said) = run("two", &["--cache-to", "dest=with,mounts=true"]);
    assert_eq!(seen, format!("{attributes}one\ntwo\n"));
    assert!(said.contains("1 cache mounts"), "{said}");
    // A build that finds all in the cache writes it, too.
    let (_, said) = run("two", &["--cache-to", "dest=again,mounts=true"]);
    assert!(said.contains("1 of 1 steps from the cache") && said.contains("1 cache mounts"), "{said}");

    // What is there is not replaced.
    let (seen, _) = run("three", &["--cache-from", "with"]);
    assert_eq!(seen, format!("{attributes}one\ntwo\nthree\n"));
    let forget = || {
        let found = mounts(&project, &id);
        assert_eq!(found.len(), 1, "{found:?}");
        forget_path(&project, &found[0]);
    };
    // What is not there starts with what the folder has.
    forget();
    let (seen, _) = run("four", &["--cache-from", "without", "--cache-from", "again"]);
    assert_eq!(seen, format!("{attributes}one\ntwo\nfour\n"));
    forget();
    let (seen, _) = run("five", &["--cache-from", "without"]);
    assert_eq!(seen, format!("{attributes}five\n"));

    forget();
    // Nor is its layer in the store any more.
    let with = project.path().join("with");
    let manifest = read_json(&blob_of(&with, &read_json(&with.join("index.json"))["manifests"][0]));
    let config = read_json(&blob_of(&with, &manifest["config"]));
    let layer = config["mounts"][0]["layer"]
        .as_str()
        .and_then(|layer| layer.strip_prefix("sha256:"))
        .expect("a layer");
    forget_path(&project, &project.data.join("ibid/layers").join(layer));
    for blob in blobs(&with) {
        let content = fs::read(&blob).expect("read");
        if content.starts_with(b"\x28\xb5\x2f\xfd") {
            fs::write(&blob, &content[..content.len() - 1]).expect("written");
        }
    }
    let (seen, said) = run("six", &["--cache-from", "with"]);
    assert_eq!(seen, format!("{attributes}six\n"));
    assert!(said.contains("is damaged, and the cache mount starts anew"), "{said}");
}
