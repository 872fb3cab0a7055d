//! Where the image of a run comes from.

use std::fs;

use ibid_testing::{DockerRegistry, Need, RegistryAccess, need};

use super::World;

impl World {
    /// Takes everything away that the store holds.
    fn empty_store(&self) {
        fs::remove_dir_all(self.project.data.join("ibid"))
            .or_else(|_| fs::remove_dir_all(self.project.data.join("ibid-one-id")))
            .expect("a store");
    }
}

#[test]
fn a_lost_image_is_built_again_from_what_is_recorded() {
    let Some(world) = World::new() else { return };
    let id = world.run(&["plain"]);
    let dockerfile = fs::read_to_string(world.project.path().join("Dockerfile")).expect("there");
    world.project.file("Dockerfile", "FROM nothing\n");
    world.project.file("run.sh", "exit 9\n");
    world.empty_store();
    let replay = world.replay(&[&id], 0);
    assert_eq!(replay["image"]["origin"], "rebuilt");
    assert_eq!(replay["outcome"], "identical");
    // The project's own name is not that image's.
    assert!(!world.project.check(&["images"], 0).contains("ibid-replay"));

    // A run whose image has older code: the environment is the same, and the mount hides the rest.
    world.project.file("Dockerfile", &dockerfile);
    world.project.file("run.sh", super::PROGRAM);
    world.run(&["plain"]);
    world.project.file("run.sh", &format!("{}# edited\n", super::PROGRAM));
    let id = world.run(&["plain"]);
    world.empty_store();
    let output = world.project.ibid(&["replay", &id]);
    let said = super::text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("it differs in its copy of the code, which the mount hides"), "{said}");
}

#[test]
fn an_image_that_is_nowhere_is_an_error_that_says_what_was_tried() {
    let Some(world) = World::new() else { return };
    // What an ignore file keeps from the snapshot cannot be built from it.
    world.project.file(".gitignore", "busybox\n");
    let id = world.run(&["plain"]);
    world.empty_store();
    let said = world.failure(&["replay", &id]);
    for part in [
        " is nowhere",
        "because: the store lacks it",
        "because: as far as is recorded, it was never pushed to a registry",
        "because: it cannot be built again: ",
        "hint: `ibid load` or `ibid pull` brings it back",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
}

#[test]
fn a_lost_image_comes_from_where_it_was_pushed_to() {
    let Some(world) = World::new() else { return };
    if !need(&[Need::DockerRegistry]) {
        return;
    }
    let registry = DockerRegistry::new(&world.project.place.folder("registry"), RegistryAccess::Plain);
    world.project.file(".gitignore", "busybox\n");
    world.run(&["plain"]);
    let name = format!("{}/lab/run:1", registry.host());
    world.project.check(&["tag", &world.project.name(), &name], 0);
    world.project.check(&["push", &name], 0);
    let id = world.run(&["plain"]);
    world.empty_store();
    let replay = world.replay(&[&id], 0);
    assert_eq!(replay["image"]["origin"], "registry", "{replay:#}");
}
