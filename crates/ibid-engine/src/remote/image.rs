//! Putting an image of the store into an engine: by its own digest, and of its layers only those that the engine lacks.
//!
//! Both engines read Docker's archive and look, before they read a layer, whether they have one of that digest on top of the
//! same others. So the archive holds, for a layer that is there, an empty file: Docker does not miss what it does not
//! need, and Podman wants each file to be there, whatever is in it.

use std::collections::BTreeSet;
use std::fmt;

use ibid_core::digest::{DiffId, Digest};
use ibid_core::reference::Reference;
use ibid_store::{NamedImage, Store};
use serde_json::Value;

use super::http::{escaped, upload};
use super::{Engine, Error};
use crate::native;

/// The registry that images are of by name: none that there is, so that no name of a person's is taken.
const REGISTRY: &str = "ibid.local";
/// How many images of the engine are looked at for layers.
const LOOKED_AT_MAX: usize = 500;

/// The name of a project's image in an engine.
#[derive(Debug, Clone)]
pub struct Name(Reference);

impl Name {
    /// For a project's images: the newest that ran has it.
    pub fn of_project(project: &str) -> Self {
        // A project may be named as its image in a registry with a port.
        let text = format!("{REGISTRY}/{}:latest", project.replace(':', "-"));
        let unnamed = || format!("{REGISTRY}/project:latest").parse().expect("a valid name");
        Self(text.parse().unwrap_or_else(|_| unnamed()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Engine {
    /// Whether [`Self::run`] has to send an image first.
    pub fn lacks(&self, store: &Store, image: &Digest, name: &Name) -> Result<bool, native::Error> {
        Ok(self.known(image, name, &store.image(image)?.rootfs.diff_ids)?.is_none())
    }

    /// Makes sure that the engine has an image. Comes with what it calls it.
    pub(super) fn provide(
        &self,
        store: &Store,
        image: &Digest,
        name: &Name,
    ) -> Result<String, native::Error> {
        let layers = store.image(image)?.rootfs.diff_ids;
        if let Some(known) = self.known(image, name, &layers)? {
            return Ok(known);
        }
        let held = self.held(&layers)?;
        let mut said = self.load(store, image, name, &held)?;
        if !held.is_empty() && self.known(image, name, &layers)?.is_none() {
            // Something else took the layers away meanwhile, or it keeps layers in another way.
            said = self.load(store, image, name, &BTreeSet::new())?;
        }
        match self.known(image, name, &layers)? {
            Some(known) => Ok(known),
            None => Err(Error::Refused { kind: self.kind, action: "load the image", message: said }.into()),
        }
    }

    /// What the engine calls an image, if it has it.
    fn known(&self, image: &Digest, name: &Name, layers: &[DiffId]) -> Result<Option<String>, Error> {
        let look = |name: &str| -> Result<Option<Value>, Error> {
            let answer = self.request("GET", &format!("/images/{}/json", escaped(name)), None)?;
            match answer.status {
                404 => Ok(None),
                _ => Ok(Some(self.success("look at its images", answer)?.json())),
            }
        };
        if let Some(found) = look(&image.to_string())? {
            return Ok(Some(self.called(&found).unwrap_or_else(|| image.to_string())));
        }
        if !self.names_by_manifest {
            return Ok(None);
        }
        let found = look(&name.0.to_string())?;
        Ok(found.filter(|found| layers_of(found) == layers).and_then(|found| self.called(&found)))
    }

    fn called(&self, found: &Value) -> Option<String> {
        found["Id"].as_str().map(str::to_owned)
    }

    /// The layers that some image of the engine begins with.
    fn held(&self, layers: &[DiffId]) -> Result<BTreeSet<DiffId>, Error> {
        let images = self.get("list its images", "/images/json?all=1")?;
        let mut most = 0;
        for image in images.as_array().into_iter().flatten().take(LOOKED_AT_MAX) {
            let Some(id) = image["Id"].as_str() else { continue };
            let answer = self.request("GET", &format!("/images/{}/json", escaped(id)), None)?;
            // Somebody may be removing it.
            let known = layers_of(&answer.json());
            most = most.max(known.iter().zip(layers).take_while(|(a, b)| a == b).count());
        }
        Ok(layers[..most].iter().copied().collect())
    }

    /// Sends an image. Comes with what the engine said to it.
    fn load(
        &self,
        store: &Store,
        image: &Digest,
        name: &Name,
        held: &BTreeSet<DiffId>,
    ) -> Result<String, native::Error> {
        let named = NamedImage { image: *image, names: vec![name.0.clone()] };
        let path = format!("{}/images/load?quiet=1", self.api);
        let answer = upload(&self.address, &path, |out| store.save_archive_beside(&named, held, out))
            .map_err(self.lost())??;
        Ok(match answer.status {
            200..=299 => String::from_utf8_lossy(&answer.body).trim().to_owned(),
            _ => answer.message(),
        })
    }
}

fn layers_of(image: &Value) -> Vec<DiffId> {
    let layers = image["RootFS"]["Layers"].as_array().into_iter().flatten();
    layers.filter_map(|layer| layer.as_str()?.parse().ok().map(DiffId)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_nobody_elses() {
        for (project, expected) in [
            ("mnist", "ibid.local/mnist:latest"),
            ("lab/mnist", "ibid.local/lab/mnist:latest"),
            ("localhost:5000/mnist", "ibid.local/localhost-5000/mnist:latest"),
        ] {
            assert_eq!(Name::of_project(project).0.to_string(), expected);
        }
    }
}
