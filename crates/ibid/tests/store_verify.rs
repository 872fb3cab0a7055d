//! Damage in the store is found, moved away, and mended by the next build or load.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use ibid_testing::{Need, need};
use serde_json::Value;
use support::{Project, can_build, text};

/// Files of a layer belong to others, so only root may change them from outside.
fn can_damage() -> bool {
    can_build() && need(&[Need::Root])
}

/// A store of this test alone, with an image built and another loaded.
struct Damageable {
    project: Project,
    store: PathBuf,
    image: String,
    layers: Vec<String>,
}

impl Damageable {
    fn new() -> Self {
        let mut project = Project::new(
            "FROM scratch\nCOPY train.py data /code/\nLABEL of=@UNIQUE@\nCOPY Dockerfile /last\n",
        );
        project.data = project.place.folder("share");
        project.file("train.py", "print(1)\n");
        project.file("data", &"data\n".repeat(1000));
        let image = project.check(&["build"], 0).trim().to_owned();
        let store = project.data.join("ibid");
        let document: Value =
            serde_json::from_str(&project.check(&["inspect", "--json", &image], 0)).expect("JSON");
        let layers = document["image"]["layers"].as_array().expect("layers").iter();
        let layers =
            layers.map(|layer| layer["digest"].as_str().expect("a digest")[7..].to_owned()).collect();
        Self { project, store, image, layers }
    }

    fn layer(&self, index: usize) -> PathBuf {
        self.store.join("layers").join(&self.layers[index])
    }

    /// That the damage is found, moved away, and mended by a build of the same image.
    #[track_caller]
    fn check(&self, expected: &[&str]) {
        let output = self.project.ibid(&["store", "verify"]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in expected {
            assert!(said.contains(part), "{part} in\n{said}");
        }
        assert_eq!(text(&output.stdout).lines().count(), 1, "{said}");
        self.project.check(&["store", "verify"], 0);
        let listed = self.project.check(&["images"], 0);
        assert!(listed.contains("missing"), "{listed}");
        assert_eq!(self.project.check(&["build"], 0).trim(), self.image);
        self.project.check(&["store", "verify"], 0);
    }
}

#[test]
fn damage_is_found_moved_away_and_mended() {
    if !can_damage() {
        return;
    }
    let damageable = Damageable::new();
    let Damageable { project, store, image, .. } = &damageable;
    assert_eq!(project.check(&["store", "verify"], 0), "");
    let layer = damageable.layer(0);
    let file = layer.join("tree/code/data");
    let path = file.display().to_string();
    let not_whole = format!("not whole: {}:latest", project.name());

    // Content of the same size, a lost file, one too many, another mode, another time.
    let bytes = fs::read(&file).expect("a file of the layer");
    let mtime = fs::metadata(&file).and_then(|file| file.modified()).expect("its time");
    fs::write(&file, [b"x", &bytes[1..]].concat()).expect("written");
    fs::File::open(&file).and_then(|file| file.set_modified(mtime)).expect("its time again");
    damageable.check(&["damaged layer", "its archive has the digest", &not_whole]);
    fs::remove_file(&file).expect("removed");
    damageable.check(&["damaged layer", &format!("cannot open `{path}`")]);
    fs::write(layer.join("tree/code/new"), "").expect("written");
    let folder = fs::File::open(layer.join("tree/code")).expect("the folder");
    folder.set_modified(mtime).expect("its time again");
    damageable.check(&["tree/code/new` is damaged: the layer does not have it"]);
    fs::set_permissions(&file, Permissions::from_mode(0o777)).expect("another mode");
    damageable.check(&[&format!("`{path}` is damaged: it has another mode")]);
    fs::File::open(&file)
        .and_then(|file| file.set_modified(mtime + std::time::Duration::from_secs(1)))
        .expect("another time");
    damageable.check(&[&format!("`{path}` is damaged: it has another time")]);
    fs::write(layer.join("manifest"), "").expect("written");
    damageable.check(&["damaged layer", "manifest` is damaged"]);
    fs::remove_file(layer.join("manifest")).expect("removed");
    damageable.check(&["damaged layer", "the store holds no layer"]);
    fs::write(store.join("blobs/sha256").join(&image[7..]), "{}").expect("written");
    damageable.check(&["damaged configuration", "its content has the digest"]);

    // All of it is in quarantine until it is collected.
    let quarantine = || fs::read_dir(store.join("quarantine")).expect("the folder").count();
    assert_eq!(quarantine(), 8);
    let collected = project.check(&["gc", "--keep", "0", "--json"], 0);
    assert!(collected.contains("damaged thing"), "{collected}");
    assert_eq!(quarantine(), 0);
    assert_eq!(project.check(&["build"], 0).trim(), image);
}

/// As after a power cut: the store is opened after another start of the machine, and files that were not on the disk are empty.
#[test]
fn layers_that_a_power_cut_took_are_made_again() {
    if !can_damage() {
        return;
    }
    let Damageable { project, store, image, layers } = &Damageable::new();
    let file = store.join("layers").join(&layers[0]).join("tree/code/data");
    let before = fs::read(store.join("boot")).expect("the start of the machine is noted");
    let lose = || {
        let times = fs::metadata(&file).and_then(|file| file.modified()).expect("its time");
        let emptied = fs::File::create(&file).expect("emptied");
        emptied.set_modified(times).expect("its time again");
    };
    let restart = |noted: std::time::SystemTime| {
        fs::write(store.join("boot"), "another start\n").expect("written");
        fs::File::open(store.join("boot")).and_then(|file| file.set_modified(noted)).expect("its time");
    };
    let now = std::time::SystemTime::now();
    let hour = std::time::Duration::from_secs(3600);

    // Nothing is lost: nothing changes.
    restart(now - hour);
    assert!(!project.check(&["images"], 0).contains("missing"));
    assert_eq!(fs::read(store.join("boot")).expect("noted"), before);

    // What was there at the restart before is on the disk, and is not looked at.
    lose();
    restart(now + hour);
    assert!(!project.check(&["images"], 0).contains("missing"));

    restart(now - hour);
    assert!(project.check(&["images"], 0).contains("missing"));
    assert_eq!(fs::read_dir(store.join("quarantine")).expect("the folder").count(), 1);
    assert_eq!(project.check(&["build"], 0).trim(), image);
    project.check(&["store", "verify"], 0);
}

#[test]
fn damage_of_a_loaded_image_is_mended_by_loading_it_again() {
    if !can_damage() {
        return;
    }
    let mut damageable = Damageable::new();
    damageable.project.check(&["save", &damageable.project.name(), "-o", "a.tar"], 0);
    // Another store: its layers were unpacked from archives.
    damageable.project.data = damageable.project.place.folder("elsewhere");
    damageable.store = damageable.project.data.join("ibid");
    let project = &damageable.project;
    project.check(&["load", "-i", "a.tar"], 0);
    project.check(&["store", "verify"], 0);
    let layer = damageable.layer(0);
    let damage: [(&str, &dyn Fn()); 4] = [
        ("its archive has the digest", &|| {
            fs::write(layer.join("tree/code/train.py"), "print(2)\n").expect("written")
        }),
        ("split", &|| fs::write(layer.join("split"), "x").expect("written")),
        ("contents` is damaged", &|| fs::write(layer.join("contents"), "x").expect("written")),
        ("is damaged: it has another mode", &|| {
            fs::set_permissions(layer.join("tree/code/train.py"), Permissions::from_mode(0o0))
                .expect("another mode");
        }),
    ];
    for (expected, damage) in damage {
        damage();
        let document = project.check(&["store", "verify", "--json"], 1);
        let document: Value = serde_json::from_str(&document).expect("JSON");
        let reason = document["damaged"][0]["reason"].as_str().expect("a reason");
        assert!(reason.contains(expected), "{expected} in {reason}");
        assert_eq!(document["damaged"][0]["digest"], format!("sha256:{}", damageable.layers[0]));
        assert_eq!(document["incomplete_images"][0], format!("{}:latest", project.name()));
        assert_eq!(project.ibid(&["save", &project.name(), "-o", "b.tar"]).status.code(), Some(125));
        project.check(&["load", "-i", "a.tar"], 0);
        project.check(&["store", "verify"], 0);
        project.check(&["save", &project.name(), "-o", "b.tar"], 0);
    }
}
