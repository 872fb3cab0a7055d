//! Manifests and indexes as registries have them: OCI's, and Docker's schema 2 with its lists (OCI image specification,
//! manifest.md and image-index.md; Docker's "Image Manifest Version 2, Schema 2").

use std::fmt;

use ibid_core::image::host_architecture;
use ibid_core::manifest::{Descriptor, MANIFEST};
use serde::Deserialize;
use serde_json::Value;

/// The media type of an image's configuration.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// What is asked for, as `Accept` has it.
pub(crate) const ACCEPTED: [&str; 4] = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST];

/// What an image runs on, in Go's names: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn of_host() -> Self {
        Self::new("linux", host_architecture(), None)
    }

    /// Reads `OS/ARCHITECTURE[/VARIANT]`; nothing for other text.
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = |part: &&str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        };
        let lower = text.to_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(is_name) {
            return None;
        }
        match parts[..] {
            [os, architecture] => Some(Self::new(os, architecture, None)),
            [os, architecture, variant] => Some(Self::new(os, architecture, Some(variant))),
            _ => None,
        }
    }

    /// With the variant that every machine of the architecture is, left out (`arm64/v8`, `amd64/v1`).
    fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let usual = match architecture {
            "amd64" => "v1",
            "arm64" => "v8",
            "arm" => "v7",
            _ => "",
        };
        let variant = variant.filter(|variant| !variant.is_empty() && *variant != usual).map(str::to_owned);
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant }
    }

    /// Whether an image of that platform is one of this. A configuration often leaves the variant out.
    pub(crate) fn takes(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        let other = Self::new(os, architecture, variant);
        self.os == other.os
            && self.architecture == other.architecture
            && (other.variant.is_none() || other.variant == self.variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// A document that a reference leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Image(ImageManifest),
    Index(Vec<IndexEntry>),
}

/// One image's manifest.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ImageManifest {
    pub(crate) config: Descriptor,
    /// Lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// An image of an index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) descriptor: Descriptor,
    platform: Option<Platform>,
}

/// Reads a document; `content_type` is what the registry says that it is. The reason when it is none that can be used.
pub(crate) fn read(text: &[u8], content_type: Option<&str>) -> Result<Document, String> {
    let value: Value = serde_json::from_slice(text).map_err(|_| "it is no JSON".to_owned())?;
    if value["schemaVersion"] == 1 {
        return Err("it has version 1 of the schema, which registries have given up".to_owned());
    }
    // One document that is both would be an image to one program and an index to another (CVE-2021-41190).
    let (has_layers, has_manifests) = (value.get("layers").is_some(), value.get("manifests").is_some());
    let media_type = value["mediaType"]
        .as_str()
        .or(content_type.map(|text| text.split(';').next().unwrap_or(text).trim()));
    let is_index = match media_type {
        Some(MANIFEST | DOCKER_MANIFEST) => false,
        Some(INDEX | DOCKER_LIST) => true,
        Some("application/json" | "application/octet-stream") | None => has_manifests,
        Some(other) => return Err(format!("its media type is `{other}`")),
    };
    if has_layers && has_manifests {
        return Err("it is a manifest and an index at once".to_owned());
    }
    if !is_index {
        let manifest: ImageManifest =
            serde_json::from_value(value).map_err(|error| format!("its manifest cannot be read: {error}"))?;
        return Ok(Document::Image(manifest));
    }
    let Value::Array(entries) = &value["manifests"] else {
        return Err("its index lists no manifests".to_owned());
    };
    let entry = |entry: &Value| {
        let descriptor: Descriptor = serde_json::from_value(entry.clone())
            .map_err(|error| format!("its index cannot be read: {error}"))?;
        let text = |name: &str| entry["platform"][name].as_str();
        let platform = match (text("os"), text("architecture")) {
            (Some(os), Some(architecture)) => Some(Platform::new(os, architecture, text("variant"))),
            _ => None,
        };
        Ok(IndexEntry { descriptor, platform })
    };
    Ok(Document::Index(entries.iter().map(entry).collect::<Result<_, String>>()?))
}

/// The entry for a platform, else the platforms that there are. The most special one that fits is taken, and of
/// equal ones the first; an entry that says no platform is taken only when it is alone.
pub(crate) fn choose<'a>(
    entries: &'a [IndexEntry],
    wanted: &Platform,
) -> Result<&'a Descriptor, Vec<String>> {
    let fits = |entry: &&IndexEntry| {
        entry.platform.as_ref().is_some_and(|platform| {
            wanted.takes(&platform.os, &platform.architecture, platform.variant.as_deref())
        })
    };
    let is_special =
        |entry: &IndexEntry| entry.platform.as_ref().is_some_and(|platform| platform.variant.is_some());
    let fitting = entries.iter().filter(fits);
    // Of equal keys this takes the last, so the order is turned.
    if let Some(found) = fitting.rev().max_by_key(|entry| is_special(entry)) {
        return Ok(&found.descriptor);
    }
    match entries {
        [IndexEntry { descriptor, platform: None }] => Ok(descriptor),
        _ => {
            let known = entries.iter().filter_map(|entry| entry.platform.as_ref());
            let mut known: Vec<String> =
                known.filter(|platform| platform.os != "unknown").map(Platform::to_string).collect();
            known.dedup();
            Err(known)
        }
    }
}

impl ImageManifest {
    /// Why it is no image, when it is none.
    pub(crate) fn fault(&self) -> Option<String> {
        if ![CONFIG, DOCKER_CONFIG].contains(&self.config.media_type.as_str()) {
            return Some(format!("it is an artifact, `{}`", self.config.media_type));
        }
        let layer = self.layers.iter().find(|layer| !is_layer(&layer.media_type))?;
        Some(format!("it has a layer of the media type `{}`", layer.media_type))
    }
}

/// Layers of every kind that is a tar archive; how they are compressed shows in their first bytes.
fn is_layer(media_type: &str) -> bool {
    let kind = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.tar")
        .or(media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"))
        .or(media_type.strip_prefix("application/vnd.docker.image.rootfs.diff.tar"));
    matches!(kind, Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
}

#[cfg(test)]
mod tests {
    use ibid_core::digest::Digest;
    use serde_json::json;

    use super::*;

    fn index(platforms: &[&str]) -> Vec<IndexEntry> {
        let entries: Vec<Value> = platforms
            .iter()
            .enumerate()
            .map(|(number, platform)| {
                let mut parts = platform.split('/');
                let mut entry = json!({
                    "mediaType": MANIFEST, "digest": Digest::of(&[number as u8]), "size": number,
                    "platform": { "os": parts.next(), "architecture": parts.next() },
                });
                if let Some(variant) = parts.next() {
                    entry["platform"]["variant"] = variant.into();
                }
                if *platform == "-" {
                    entry["platform"] = Value::Null;
                }
                entry
            })
            .collect();
        let text = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
        match read(text.as_bytes(), None) {
            Ok(Document::Index(entries)) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_platform_is_chosen() {
        let check = |platforms: &[&str], wanted: &str, expected: Result<u64, &[&str]>| {
            let entries = index(platforms);
            let wanted = Platform::parse(wanted).expect("a platform");
            let found = choose(&entries, &wanted).map(|descriptor| descriptor.size);
            let expected = expected.map_err(|known| known.iter().map(|known| (*known).to_owned()).collect());
            assert_eq!(found, expected, "{platforms:?} {wanted}");
        };
        let all = [
            "linux/amd64",
            "unknown/unknown",
            "linux/arm64/v8",
            "linux/arm/v6",
            "linux/arm/v7",
            "windows/amd64",
        ];
        check(&all, "linux/amd64", Ok(0));
        check(&all, "linux/x86_64", Ok(0));
        check(&all, "linux/arm64", Ok(2));
        check(&all, "linux/arm", Ok(4));
        check(&all, "linux/arm/v6", Ok(3));
        check(&all, "windows/amd64", Ok(5));
        check(&["linux/amd64/v3", "linux/amd64/v1", "linux/amd64"], "linux/amd64", Ok(1));
        check(&["linux/amd64", "linux/amd64/v3"], "linux/amd64/v3", Ok(1));
        check(&["linux/amd64/v3"], "linux/amd64", Err(&["linux/amd64/v3"]));
        check(&["linux/arm64", "unknown/unknown"], "linux/amd64", Err(&["linux/arm64"]));
        check(&["-"], "linux/amd64", Ok(0));
        check(&["-", "-"], "linux/amd64", Err(&[]));
        for wrong in ["", "linux", "linux/", "a/b/c/d", "linux/a b"] {
            assert_eq!(Platform::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn documents_are_told_apart() {
        let descriptor =
            |media_type: &str| json!({ "mediaType": media_type, "digest": Digest::of(b""), "size": 0 });
        let image = |media_type: &str, config: &str, layer: &str| json!({ "schemaVersion": 2, "mediaType": media_type, "config": descriptor(config), "layers": [descriptor(layer)] });
        let tar = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let check = |value: &Value, content_type: Option<&str>, expected: Result<(), &str>| {
            let found = match read(value.to_string().as_bytes(), content_type) {
                Ok(Document::Image(manifest)) => manifest.fault().map_or(Ok(()), Err),
                Ok(Document::Index(_)) => Err("an index".to_owned()),
                Err(reason) => Err(reason),
            };
            match (&found, expected) {
                (Ok(()), Ok(())) => {}
                (Err(found), Err(expected)) if found.contains(expected) => {}
                _ => panic!("{found:?} instead of {expected:?} for {value}"),
            }
        };
        check(&image(DOCKER_MANIFEST, DOCKER_CONFIG, tar), None, Ok(()));
        check(
            &image(MANIFEST, CONFIG, "application/vnd.oci.image.layer.v1.tar+zstd"),
            Some("text/plain"),
            Ok(()),
        );
        check(&image(MANIFEST, CONFIG, "application/vnd.oci.image.layer.v1.tar"), None, Ok(()));
        check(&image(MANIFEST, CONFIG, "text/plain"), None, Err("a layer of the media type `text/plain`"));
        check(
            &image(MANIFEST, CONFIG, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            None,
            Err("foreign"),
        );
        check(&image(MANIFEST, "application/vnd.helm.v1+json", tar), None, Err("it is an artifact"));
        check(&image("text/plain", CONFIG, tar), None, Err("its media type is `text/plain`"));
        check(&image(INDEX, CONFIG, tar), None, Err("lists no manifests"));
        check(&json!({ "schemaVersion": 1 }), None, Err("version 1"));
        check(&json!({ "manifests": [], "layers": [], "mediaType": MANIFEST }), None, Err("at once"));
        check(&json!({ "manifests": [] }), Some("application/json; charset=utf-8"), Err("an index"));
        check(&json!({ "manifests": [{ "digest": "sha256:../x" }] }), None, Err("cannot be read"));
        check(&json!({}), None, Err("cannot be read"));
        assert!(read(b"<html>", None).is_err());
    }
}
